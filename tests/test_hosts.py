"""Hosts of a site: their files, their states, their tokens, and who is given what."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from goldimg.errors import ConfigError, GoldimgError, UsageError
from goldimg.layout import lay_out
from goldimg.project import find_site
from goldimg.run import Runner
from goldimg.serve.desk import Ask
from goldimg.serve.hosts import add_host, identify, load_hosts
from goldimg.serve.service import Service, open_service
from goldimg.serve.store import State, Store

MAC, OTHER = "52:54:00:12:34:56", "52:54:00:12:34:57"
NEAR, FAR = "10.77.0.9", "192.0.2.9"
PASSWORD = "kastanienallee-7"


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def site(tmp_path: Path) -> Path:
    lay_out(tmp_path / "site")
    (tmp_path / "site/keys/packer.pub").write_text("ssh-ed25519 " + "A" * 68 + " site\n")
    return tmp_path / "site"


def service_of(
    site: Path, *, serve: str = "networks: [10.77.0.0/24]", clock: Clock | None = None
) -> Service:
    """A service as the server opens it; the store's and the desk's clock can be moved."""
    (site / "templates/site.yml").write_text(f"serve:\n  {serve}\n")
    runner = Runner(cancel=threading.Event())
    service = open_service(find_site(site), {"GOLDIMG_ROOT_PASS": PASSWORD}, runner)
    if clock:
        service.store.clock = service.desk._clock = clock
    return service


def host(site: Path, name: str = "node01", text: str = "") -> None:
    content = text or f'mac: ["{MAC}"]\nos: CentOS-7.2.1511\ndisk: sda\n'
    (site / f"kickstart/builds/metal/{name}.yml").write_text(content)


def arm(service: Service, name: str = "node01", seconds: float = 3600) -> None:
    view = service.catalogue.view()
    service.store.set_iso("CentOS-7.2.1511", Path("/nonexistent.iso"))
    service.store.arm(
        name,
        build=f"metal/{name}",
        os_name="CentOS-7.2.1511",
        root_hash=view.root_hash("CentOS-7.2.1511"),
        expires=service.store.clock() + seconds,
    )


def token_of(service: Service, name: str = "node01") -> str:
    return service.desk.token(service.store.host(name), "fetch")


def text_of(service: Service, **ask: object) -> tuple[int, str]:
    answer = service.desk.kickstart(Ask(**ask))  # type: ignore[arg-type]
    text = answer.text.decode() if isinstance(answer.text, bytes) else answer.text
    return answer.status, text


# --- files -----------------------------------------------------------------------------------


def test_a_host_is_added_as_a_file_that_people_edit(site: Path) -> None:
    added = add_host(find_site(site), "node01", mac=[MAC.upper()], serial="S1", os_name="Debian-12")
    assert (added.mac, added.serial, added.os) == ((MAC,), "S1", "Debian-12")
    assert load_hosts(find_site(site))["node01"].mac == (MAC,)


@pytest.mark.parametrize(
    ("name", "mac", "os_name", "says"),
    [
        ("../x", [MAC], None, "is no name for a host"),
        ("defaults", [MAC], None, "is no name for a host"),
        ("a\nb", [MAC], None, "is no name for a host"),
        ("node01", ["52:54:00"], None, "mac"),
        ("node01", [MAC], "Debain-12", "did you mean 'Debian-12'"),
        ("node01", ['52:54:00:12:34:56"]\nos: "x'], None, "mac"),
    ],
)
def test_a_host_that_cannot_be_leaves_no_file(
    site: Path, name: str, mac: list[str], os_name: str | None, says: str
) -> None:
    before = sorted((site / "kickstart").rglob("*"))
    with pytest.raises((UsageError, ConfigError), match=says):
        add_host(find_site(site), name, mac=mac, serial=None, os_name=os_name)
    assert sorted((site / "kickstart").rglob("*")) == before


def test_an_existing_host_is_not_overwritten(site: Path) -> None:
    host(site)
    with pytest.raises(UsageError, match="exists"):
        add_host(find_site(site), "node01", mac=[OTHER], serial=None, os_name=None)
    assert MAC in (site / "kickstart/builds/metal/node01.yml").read_text()


def test_two_hosts_with_one_address_are_neither(site: Path) -> None:
    host(site)
    host(site, "node02")
    hosts = load_hosts(find_site(site))
    assert "also that of node02" in str(hosts["node01"].problems[0])
    assert identify(hosts, [MAC], None) is None


def test_a_broken_host_hides_no_other(site: Path) -> None:
    host(site)
    host(site, "node02", "macc: x\n")
    hosts = load_hosts(find_site(site))
    assert not hosts["node01"].problems
    assert "kickstart/builds/metal/node02.yml:1:1: macc" in str(hosts["node02"].problems[0])


def test_a_serial_number_that_firmware_invents_is_nobodys(site: Path) -> None:
    host(site, text='serial: "None"\nos: CentOS-7.2.1511\ndisk: sda\n')
    host(site, "node02", 'serial: "S2"\nos: CentOS-7.2.1511\ndisk: sda\n')
    hosts = load_hosts(find_site(site))
    assert identify(hosts, [], "None") is None
    assert identify(hosts, [], "S2") == "node02"


# --- states ----------------------------------------------------------------------------------


def test_an_install_goes_through_its_states_and_survives_a_restart(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.sqlite")
    store.arm("a", build="metal/a", os_name="X", root_hash="$6$x", expires=store.clock() + 60)
    assert store.booting("a", NEAR).state is State.BOOTING
    assert store.fetched("a", NEAR).state is State.FETCHED
    assert store.stage("a", "pre").state is State.INSTALLING
    again = Store(tmp_path / "s.sqlite")
    assert again.host("a").state is State.INSTALLING
    assert again.stage("a", "done").state is State.INSTALLED
    assert again.host("a").root_hash is None
    assert [it.state for it in again.history("a")] == [
        "armed", "booting", "kickstart fetched", "installing", "installed",
    ]  # fmt: skip
    assert (tmp_path / "s.sqlite").stat().st_mode & 0o777 == 0o600


def test_nothing_revives_an_install_that_has_ended(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.sqlite")
    for end in ("done", "failed"):
        store.arm("a", build="metal/a", os_name="X", root_hash=None, expires=store.clock() + 60)
        ended = store.stage("a", end, "why")
        assert store.stage("a", "pre").state is ended.state
        assert store.booting("a", NEAR).state is ended.state
        assert store.fetched("a", NEAR).state is ended.state
    store.arm("a", build="metal/a", os_name="X", root_hash=None, expires=store.clock() + 60)
    store.disarm("a")
    assert store.booting("a", NEAR).state is State.KNOWN
    assert store.stage("a", "done").state is State.KNOWN


def test_an_arming_expires_unless_it_has_begun(tmp_path: Path) -> None:
    clock = Clock()
    store = Store(tmp_path / "s.sqlite", clock=clock)
    for name in ("early", "late"):
        store.arm(name, build="", os_name="X", root_hash="h", expires=clock.now + 60)
    store.fetched("early", NEAR)
    clock.now += 61
    assert not store.host("late").is_waiting(clock.now)
    assert store.expire() == ["late"]
    assert (store.host("late").state, store.host("late").root_hash) == (State.KNOWN, None)
    assert store.stage("early", "done").state is State.INSTALLED


def test_many_processes_may_report_at_once(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.sqlite")
    names = [f"n{at}" for at in range(20)]
    for name in names:
        store.arm(name, build="", os_name="X", root_hash=None, expires=store.clock() + 60)

    def report(name: str) -> None:
        own = Store(tmp_path / "s.sqlite")
        for stage in ("started", "pre", "packages", "post", "done"):
            own.log(name, [stage])
            own.stage(name, stage)
        own.close()

    threads = [threading.Thread(target=report, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {store.host(name).state for name in names} == {State.INSTALLED}
    assert all(len(store.lines(name)) == 5 for name in names)


def test_history_and_log_do_not_grow_for_ever(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.sqlite")
    store.log("a", (f"line {at}" for at in range(2500)))
    assert len(store.lines("a", 10_000)) == 2000
    assert store.lines("a", 1) == ["line 2499"]


def test_a_store_of_a_later_goldimg_is_left_alone(tmp_path: Path) -> None:
    import sqlite3

    connection = sqlite3.connect(tmp_path / "s.sqlite")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(GoldimgError, match="later version"):
        Store(tmp_path / "s.sqlite")


def test_a_file_that_is_no_database_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "s.sqlite").write_text("hello" * 1000)
    with pytest.raises(GoldimgError, match="cannot be used"):
        Store(tmp_path / "s.sqlite")


# --- who is given what -----------------------------------------------------------------------


def test_an_armed_host_gets_its_secrets_by_token_or_on_its_network(site: Path) -> None:
    host(site)
    service = service_of(site)
    arm(service)
    record = service.store.host("node01")
    assert record.root_hash
    by_token = text_of(service, build="metal/node01", token=token_of(service), address=FAR)
    by_mac = text_of(service, build="metal/node01", macs=(MAC,), address=NEAR)
    assert by_token == by_mac
    assert by_token[0] == 200
    assert record.root_hash in by_token[1]
    assert "/report/metal/node01/" in by_token[1]
    assert service.store.host("node01").state is State.FETCHED


@pytest.mark.parametrize(
    "ask",
    [
        {"address": NEAR},
        {"address": FAR, "macs": (MAC,)},
        {"address": NEAR, "macs": (OTHER,)},
        {"address": NEAR, "serial": "S1"},
    ],
)
def test_whoever_else_asks_gets_no_secret_and_changes_nothing(
    site: Path, ask: dict[str, object]
) -> None:
    host(site, text=f'mac: ["{MAC}"]\nserial: S1\nos: CentOS-7.2.1511\ndisk: sda\n')
    service = service_of(site)
    arm(service)
    status, text = text_of(service, build="metal/node01", **ask)
    assert status == 200
    assert "rootpw --lock" in text
    assert "$6$" not in text
    assert "/report/" not in text
    assert service.store.host("node01").state is State.ARMED


@pytest.mark.parametrize("token", ["0123456", "", "A" * 32])
def test_a_wrong_token_is_refused_even_on_the_network(site: Path, token: str) -> None:
    host(site)
    service = service_of(site)
    arm(service)
    wrong = token or token_of(service)[:-1] + "~"
    status, text = text_of(service, build="metal/node01", token=wrong, macs=(MAC,), address=NEAR)
    assert status == 403
    assert wrong not in text


def test_tokens_are_of_one_host_and_one_arming(site: Path) -> None:
    host(site)
    host(site, "node02", f'mac: ["{OTHER}"]\nos: CentOS-7.2.1511\ndisk: sda\n')
    service = service_of(site)
    arm(service)
    arm(service, "node02")
    old = token_of(service)
    assert text_of(service, build="metal/node02", token=old)[0] == 403
    service.store.clock = lambda: 1_900_000_000.0
    service.desk._clock = service.store.clock
    arm(service)
    assert text_of(service, build="metal/node01", token=old)[0] == 403
    assert not service.desk.report("node01", old, "done", "")


def test_installers_fetch_twice_but_not_for_ever(site: Path) -> None:
    host(site)
    clock = Clock()
    service = service_of(site, clock=clock)
    arm(service)
    token = token_of(service)
    assert text_of(service, build="metal/node01", token=token)[0] == 200
    clock.now += 600
    assert text_of(service, build="metal/node01", token=token)[0] == 200
    clock.now += 600
    assert text_of(service, build="metal/node01", token=token)[0] == 403


def test_an_installed_host_is_not_installed_again(site: Path) -> None:
    host(site)
    service = service_of(site)
    arm(service)
    token = token_of(service)
    assert service.desk.boot([MAC], "", NEAR).action == "install"
    text_of(service, build="metal/node01", token=token, address=NEAR)
    # Another start while it installs, or after it, begins nothing.
    assert service.desk.boot([MAC], "", NEAR).action == "local"
    report = service.desk.token(service.store.host("node01"), "report")
    assert service.desk.report("node01", report, "done", "")
    assert service.desk.boot([MAC], "", NEAR).action == "local"
    assert service.desk.boots() == {}
    assert text_of(service, build="metal/node01", token=token)[0] == 403
    assert text_of(service, build="metal/node01", macs=(MAC,), address=NEAR)[0] == 403


def test_a_host_that_is_not_armed_gets_nothing_unless_the_site_says_so(site: Path) -> None:
    host(site)
    status, text = text_of(service_of(site), build="metal/node01", os="CentOS-7.2.1511")
    assert status == 403
    assert "goldimg host install node01" in text
    open_site = service_of(site, serve="unarmed: without-secrets")
    status, text = text_of(open_site, build="metal/node01", os="CentOS-7.2.1511")
    assert status == 200
    assert "rootpw --lock" in text


def test_a_site_may_refuse_strangers_altogether(site: Path) -> None:
    service = service_of(site, serve="anonymous: refuse")
    assert text_of(service, build="virtual/aws", os="CentOS-7.2.1511")[0] == 403


def test_a_virtual_build_has_its_password_only_by_token(site: Path) -> None:
    clock = Clock()
    service = service_of(site, clock=clock)
    ask = {"build": "virtual/aws", "os": "CentOS-7.2.1511"}
    assert "rootpw --lock" in text_of(service, **ask)[1]
    token = service.desk.new_token("virtual/aws", "CentOS-7.2.1511", 3600)
    assert "rootpw --iscrypted" in text_of(service, **ask, token=token)[1]
    assert text_of(service, build="virtual/gcp", os="CentOS-7.2.1511", token=token)[0] == 403
    clock.now += 1200  # its window is over
    assert text_of(service, **ask, token=token)[0] == 403
    late = service.desk.new_token("virtual/aws", "CentOS-7.2.1511", 3600)
    clock.now += 3601
    assert text_of(service, **ask, token=late)[0] == 403


def test_the_original_s_ways_to_ask(site: Path) -> None:
    host(site)
    service = service_of(site)
    assert text_of(service, build="aws", os="CentOS-7.2.1511")[0] == 200  # virtual, unless told
    assert text_of(service, os="CentOS-7.2.1511")[0] == 400
    assert text_of(service, build="virtual/aws")[0] == 400
    assert text_of(service, build="virtual/nosuch", os="CentOS-7.2.1511")[0] == 404
    assert text_of(service, build="virtual/aws", os="CentOS-9.9")[0] == 404
    assert text_of(service, build="metal/nosuch", os="CentOS-7.2.1511")[0] == 404
    assert text_of(service, build="other/aws", os="CentOS-7.2.1511")[0] == 404
    for build in ("virtual/../metal/node01", "virtual/../../ks", "metal/../../x", "virtual/%00"):
        assert text_of(service, build=build, os="CentOS-7.2.1511")[0] == 404


def test_a_machine_may_ask_by_its_card_alone(site: Path) -> None:
    host(site)
    service = service_of(site)
    arm(service)
    status, text = text_of(service, macs=(OTHER, MAC), address=NEAR)
    assert status == 200
    assert "$6$" in text


def test_a_machine_elsewhere_is_told_to_start_its_disk(site: Path) -> None:
    host(site)
    service = service_of(site)
    arm(service)
    boot = service.desk.boot([MAC], "", FAR)
    assert boot.action == "local"
    assert service.store.host("node01").state is State.ARMED


def test_what_an_armed_machine_is_told_to_load(site: Path) -> None:
    host(site)
    service = service_of(site, serve="{networks: [10.77.0.0/24], url: http://ks.example.com}")
    arm(service)
    boot = service.desk.boot([MAC], "", NEAR)
    (entry,) = boot.entries
    words = entry.arguments
    assert f"BOOTIF=01-{MAC.replace(':', '-')}" in words
    assert f"inst.ks=http://ks.example.com/ks/metal/node01?token={token_of(service)}" in words
    assert entry.kernel == "images/pxeboot/vmlinuz"
    assert "&" not in " ".join(words)


def test_unknown_machines_start_their_disks_or_get_a_menu(site: Path) -> None:
    service = service_of(site)
    assert service.desk.boot([OTHER], "", NEAR).action == "local"
    site_yml = "{networks: [10.77.0.0/24], netboot: {unknown: menu}}"
    service = service_of(site, serve=site_yml)
    service.store.set_iso("CentOS-7.2.1511", Path("/nonexistent.iso"))
    boot = service.desk.boot([OTHER], "", NEAR)
    assert boot.action == "menu"
    assert not any("ks=" in word for entry in boot.entries for word in entry.arguments)


def test_unknown_machines_are_installed_once_where_the_site_says_so(site: Path) -> None:
    host(site, "generic", "disk: sda\n")
    service = service_of(
        site,
        serve="{networks: [10.77.0.0/24], netboot: {unknown: install,"
        " unknown_build: metal/generic, unknown_os: CentOS-7.2.1511}}",
    )
    service.store.set_iso("CentOS-7.2.1511", Path("/nonexistent.iso"))
    assert service.desk.boot([OTHER], "", NEAR).action == "install"
    name = "mac-" + OTHER.replace(":", "")
    token = token_of(service, name)
    assert text_of(service, build=f"metal/{name}", token=token, address=NEAR)[0] == 200
    service.desk.report(name, service.desk.token(service.store.host(name), "report"), "done", "")
    assert service.desk.boot([OTHER], "", NEAR).action == "local"


def test_a_host_that_turns_wrong_while_it_is_armed_is_not_installed(site: Path) -> None:
    host(site)
    service = service_of(site)
    arm(service)
    host(site, text="macc: x\n")
    os.utime(site / "kickstart/builds/metal/node01.yml", (1, 1))
    service.catalogue._next = 0
    assert service.desk.boot([MAC], "", NEAR).action == "local"
    assert text_of(service, build="metal/node01", token=token_of(service))[0] == 409
    assert "macc" in str(service.catalogue.view().all_problems()[0])


def test_a_broken_os_file_leaves_the_others_served(site: Path) -> None:
    (site / "templates/os/Wrong-1.yml").write_text("os_name: Wrong\n")
    service = service_of(site)
    assert text_of(service, build="virtual/aws", os="Wrong-1")[0] == 409
    assert text_of(service, build="virtual/aws", os="CentOS-7.2.1511")[0] == 200


def test_a_site_file_that_turns_wrong_keeps_the_last_good_one(site: Path) -> None:
    service = service_of(site)
    (site / "templates/site.yml").write_text("serve: {listn: 1}\n")
    service.catalogue._next = 0
    assert "listn" in str(service.catalogue.view().all_problems()[0])
    assert text_of(service, build="virtual/aws", os="CentOS-7.2.1511")[0] == 200
