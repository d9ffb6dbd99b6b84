"""The playbooks: complete for every provider, clean, and right about what they write."""

from __future__ import annotations

import getpass
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from goldimg.providers import all_providers
from tests.support import needs
from tests.verified import note, systems

ROOT = Path(__file__).resolve().parent.parent
ANSIBLE = ROOT / "ansible"
BIN = Path(sys.executable).parent
PROVIDERS = sorted(all_providers())
HASH = "$6$salt$hash"
OS_FILE = {"os_name": "Debian", "os_version": "12", "kickstart": {"family": "debian"}}
ME = getpass.getuser()


def ansible(program: str, *argv: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Runs one of Ansible's programs on this machine, with a home of its own for its cache."""
    if not (BIN / program).exists():
        needs(program)
    env = {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "HOME": os.environ.get("HOME", "/"),
        "LANG": "C.UTF-8",
        "ANSIBLE_CONFIG": str(ANSIBLE / "ansible.cfg"),
        "ANSIBLE_LIBRARY": str(ANSIBLE / "library"),
        "ANSIBLE_LOCAL_TEMP": "/tmp/.goldimg-ansible-tests",
        "ANSIBLE_REMOTE_TMP": "/tmp/.goldimg-ansible-tests",
        "ANSIBLE_NOCOLOR": "1",
    }
    return subprocess.run(
        [program, *argv], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )


def module(name: str, arguments: Mapping[str, object], *options: str) -> dict[str, object]:
    """What one of our modules answers when it runs here."""
    done = ansible(
        "ansible",
        *("localhost", "--inventory", "localhost,", "--connection", "local", "--one-line"),
        *("--extra-vars", json.dumps({"ansible_python_interpreter": sys.executable}), *options),
        *("--module-name", name, "--args", json.dumps(arguments)),
    )
    found = re.search(r"=> (\{.*\})", done.stdout)
    assert found, done.stdout + done.stderr
    answer: dict[str, object] = json.loads(found[1])
    return answer


def tasks_of(path: Path) -> list[dict[str, object]]:
    content = yaml.safe_load(path.read_text())
    assert isinstance(content, list)
    return content


def el(version: str, python: str) -> dict[str, object]:
    """An OS file of the EL family, as playbooks get it."""
    return {
        "os_name": "AlmaLinux",
        "os_version": version,
        "python": python,
        "package_manager": "yum" if version.startswith("7") else "dnf",
        "kickstart": {"family": "el"},
    }


RELEASES: dict[str, Mapping[str, object]] = {
    "debian": OS_FILE,
    "el7": el("7.2.1511", "2.7"),
    "el8": el("8.10", "3.6"),
    "el9": el("9.6", "3.9"),
    "el10": el("10.0", "3.12"),
}
Values = dict[str, dict[str, object]]


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Values]:
    """By release and provider: what the variables come to, as Ansible evaluates them."""
    return {
        name: evaluated(os_file, tmp_path_factory.mktemp(name))
        for name, os_file in RELEASES.items()
    }


@pytest.fixture(scope="module")
def values(families: dict[str, Values]) -> Values:
    """Debian's."""
    return families["debian"]


def evaluated(os_file: Mapping[str, object], place: Path) -> Values:
    """By provider: the values of the variables that the tasks use."""
    family = os_file["kickstart"]["family"]  # type: ignore[index]
    for name in ("group_vars", "templates", "files", "vars"):
        (place / name).symlink_to(ANSIBLE / name)
    hosts: dict[str, dict[str, object]] = {}
    for name in PROVIDERS:
        variables: dict[str, object] = {"packer_build_name": name}
        for task in tasks_of(ANSIBLE / f"{name}.yml"):
            variables.update(task.get("vars", {}))  # type: ignore[call-overload]
        hosts[name] = variables
    (place / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
    wanted = (
        "{'root': goldimg_root_password, 'packages': goldimg_provider_packages[packer_build_name],"
        " 'units': goldimg_cloud_init_units + goldimg_provider_units[packer_build_name],"
        " 'arguments': goldimg_kernel_args, 'last': goldimg_provider.last,"
        " 'base': goldimg_base_files + goldimg_family_base_files,"
        " 'files': goldimg_image_files + goldimg_family_files[packer_build_name] | default([])"
        " + goldimg_cloud_init_files + goldimg_ntp_files + goldimg_alive_files"
        " + goldimg_lvm_files}"
    )
    play = {
        "name": "Evaluate",
        "hosts": "all",
        "gather_facts": False,
        "connection": "local",
        "vars_files": [f"vars/{family}.yml"],
        "vars": {
            "packer_os": os_file,
            "goldimg_root_hash": HASH,
            "goldimg_root_key": "ssh-ed25519 AAAA packer",
            "goldimg_vagrant_key": "ssh-ed25519 BBBB vagrant",
        },
        "tasks": [
            {
                "name": "Write",
                "vars": {"ansible_python_interpreter": sys.executable},
                "ansible.builtin.copy": {
                    "content": "{{ " + wanted + " | to_json }}",
                    "dest": str(place) + "/{{ inventory_hostname }}.json",
                    "mode": "0644",
                },
            }
        ],
    }
    (place / "play.yml").write_text(yaml.safe_dump([play]))
    done = ansible("ansible-playbook", "-i", place / "hosts.yml", place / "play.yml", cwd=place)
    assert done.returncode == 0, done.stdout + done.stderr
    return {name: json.loads((place / f"{name}.json").read_text()) for name in PROVIDERS}


def files(of: Mapping[str, object]) -> dict[str, dict[str, str]]:
    entries = of["files"]
    assert isinstance(entries, list)
    return {entry["path"]: entry for entry in entries}


# --- complete and clean ------------------------------------------------------------------------


def test_every_provider_has_its_file_and_its_rows() -> None:
    common = yaml.safe_load((ANSIBLE / "group_vars/all.yml").read_text())
    assert sorted(common["goldimg_providers"]) == PROVIDERS
    keys = {"root", "datasources", "kernel_args", "kernel_args_absent", "ntp", "grow_lvm"}
    keys |= {"alive", "last"}
    for name, row in common["goldimg_providers"].items():
        assert set(row) == keys, name
        assert (ANSIBLE / f"{name}.yml").is_file()
    for family in common["goldimg_families"]:
        rows = yaml.safe_load((ANSIBLE / f"vars/{family}.yml").read_text())
        for table in ("goldimg_provider_packages", "goldimg_provider_units"):
            assert sorted(rows[table]) == PROVIDERS, (family, table)
        for part in ("repositories", "packages", "base", "drivers", "initramfs", "image"):
            assert (ANSIBLE / f"tasks/{part}_{family}.yml").is_file()


def test_every_file_that_a_playbook_names_is_there() -> None:
    for path in ANSIBLE.rglob("*.yml"):
        text = path.read_text()
        for kind, name in re.findall(r"lookup\('ansible.builtin.(file|template)', '(.+?)'\)", text):
            assert (ANSIBLE / f"{kind}s" / name).is_file(), f"{path} names {name}"
        for name in re.findall(r"(?:import|include)_tasks: ([\w./]+\.yml)", text):
            assert (ANSIBLE / name).is_file(), f"{path} names {name}"
    named = "".join(path.read_text() for path in ANSIBLE.rglob("*.yml"))
    for path in (*(ANSIBLE / "files").iterdir(), *(ANSIBLE / "templates").iterdir()):
        assert f"'{path.name}'" in named, f"nothing uses {path}"


@pytest.mark.parametrize("name", PROVIDERS)
def test_every_providers_file_links_the_providers_documentation(name: str) -> None:
    assert "https://" in (ANSIBLE / f"{name}.yml").read_text()


def test_the_playbook_parses() -> None:
    done = ansible("ansible-playbook", "-i", "guest,", "--syntax-check", ANSIBLE / "site.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_ansible_lint_finds_nothing_for_production(tmp_path: Path) -> None:
    if not (BIN / "ansible-lint").exists():
        needs("ansible-lint")
    copy = tmp_path / "ansible"  # ansible-lint makes directories in what it looks at
    shutil.copytree(ANSIBLE, copy)
    options = ("--offline", "--nocolor", "-c", "ansible/.ansible-lint", "ansible")
    done = ansible("ansible-lint", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"on (\d+) files. Profile 'production'", done.stdout + done.stderr)
    assert found
    assert int(found[1]) > len(list(ANSIBLE.rglob("*.yml")))
    tools = {name: importlib.metadata.version(name) for name in ("ansible-core", "ansible-lint")}
    note("lint", systems(), PROVIDERS, tools)


def test_secrets_are_not_logged() -> None:
    for path in ANSIBLE.rglob("*.yml"):
        if path.parent.name in ("group_vars", "vars"):
            continue
        for task in tasks_of(path):
            if "goldimg_root_password" in json.dumps(task) or "goldimg_root_hash" in str(task):
                assert task.get("no_log") is True, f"{path}: {task.get('name')}"
                assert "goldimg_root_password" not in str(task.get("argv", ""))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"packer_build_name": "nowhere"}, "packer_build_name must be one of aws, azure"),
        ({"goldimg_stage": "half"}, "goldimg_stage one of all, base, layer"),
        ({"goldimg_root_key": ""}, "goldimg_root_key must not be empty"),
        (
            {"packer_os": {"os_name": "Haiku", "kickstart": {"family": "beos"}}},
            "the OS family (here beos) one of debian, el",
        ),
        ({"packer_os": el("6.10", "2.6")}, "its Python (here 2.6) 2.7 or newer"),
    ],
)
def test_wrong_variables_stop_it_before_it_touches_the_guest(
    wrong: dict[str, object], said: str
) -> None:
    right = {
        "packer_build_name": "gcp",
        "goldimg_stage": "layer",
        "goldimg_root_key": "ssh-ed25519 AAAA",
        "packer_os": OS_FILE,
    }
    done = ansible(
        "ansible-playbook",
        *("-i", "127.0.0.1,", "-e", "ansible_port=1", ANSIBLE / "site.yml"),
        *("--extra-vars", json.dumps({**right, **wrong})),
    )
    assert done.returncode == 2
    assert said in " ".join(done.stdout.split())
    assert "unreachable=0" in done.stdout


def test_the_os_file_is_loaded_where_it_is_not_given(tmp_path: Path) -> None:
    """The original's site.yml did that itself; a run by hand still can."""
    os_file = tmp_path / "os.json"
    os_file.write_text(json.dumps({"os_name": "CentOS", "os_version": "7.2.1511"}))
    given = {
        "packer_build_name": "nowhere",
        "goldimg_root_key": "x",
        "packer_os_file": str(os_file),
    }
    done = ansible(
        "ansible-playbook",
        *("-i", "127.0.0.1,", "-e", "ansible_port=1", ANSIBLE / "site.yml"),
        *("--extra-vars", json.dumps(given)),
    )
    assert "(here el)" in " ".join(done.stdout.split())


# --- what the variables come to ----------------------------------------------------------------


def test_root_is_locked_where_the_provider_expects_it(
    values: dict[str, dict[str, object]],
) -> None:
    locked = {name for name in PROVIDERS if values[name]["root"] == "*"}
    assert locked == {"aws", "azure", "gcp", "openstack"}
    assert {values[name]["root"] for name in set(PROVIDERS) - locked} == {HASH}


def test_cloud_init_has_its_data_source_and_keeps_root(
    values: dict[str, dict[str, object]],
) -> None:
    first = {"aws": "Ec2", "azure": "Azure", "gcp": "GCE", "openstack": "ConfigDrive"}
    first["vmware"] = "VMware"
    for name in PROVIDERS:
        config = files(values[name]).get("/etc/cloud/cloud.cfg.d/95-goldimg.cfg")
        assert (config is not None) == (name in first), name
        packages = values[name]["packages"]
        assert isinstance(packages, list)
        assert ("cloud-init" in packages) == (name in first)
        if config is None:
            continue
        text = config["content"]
        assert text.startswith("#cloud-config\n")
        assert re.search(r"^datasource_list: \[ .* \]$", text, re.MULTILINE)  # ds-identify
        parsed = yaml.safe_load(text)
        assert parsed["datasource_list"][0] == first[name]
        assert parsed["datasource_list"][-2:] == ["NoCloud", "None"]
        assert parsed["disable_root"] is False
        assert parsed["apt"] == {"preserve_sources_list": True}


def test_azure_gives_its_resource_disk_to_cloud_init(
    values: dict[str, dict[str, object]],
) -> None:
    config = files(values["azure"])["/etc/cloud/cloud.cfg.d/95-goldimg.cfg"]["content"]
    parsed = yaml.safe_load(config)
    assert [mount[1] for mount in parsed["mounts"]] == ["/mnt", "none"]
    assert parsed["fs_setup"][1] == {"device": "ephemeral0.2", "filesystem": "swap"}


def test_the_provider_has_the_last_word_where_it_wants_it(
    families: dict[str, Values],
) -> None:
    for release in RELEASES:
        for name in PROVIDERS:
            last = ["waagent", "-force", "-deprovision"] if name == "azure" else []
            assert families[release][name]["last"] == last


@pytest.mark.parametrize("release", RELEASES)
def test_sshd_takes_the_same_of_every_release(families: dict[str, Values], release: str) -> None:
    """By a file of its own where sshd reads one; tasks/base_el.yml writes the others'."""
    is_old = release in ("el7", "el8")
    for name in PROVIDERS:
        base = {entry["path"]: entry for entry in families[release][name]["base"]}  # type: ignore[attr-defined]
        drop_in = base.get("/etc/ssh/sshd_config.d/90-goldimg.conf")
        assert (drop_in is None) == is_old
        alive = files(families[release][name]).get("/etc/ssh/sshd_config.d/80-goldimg-alive.conf")
        assert (alive is not None) == (name in ("azure", "gcp") and not is_old)


@pytest.mark.parametrize("release", RELEASES)
def test_every_image_of_a_cloud_gets_its_data_and_grows(
    families: dict[str, Values], release: str
) -> None:
    grower = "cloud-guest-utils" if release == "debian" else "cloud-utils-growpart"
    for name in PROVIDERS:
        row = families[release][name]
        config = files(row).get("/etc/cloud/cloud.cfg.d/95-goldimg.cfg")
        assert (grower in row["packages"]) == (config is not None)  # type: ignore[operator]
        if config is not None:
            parsed = yaml.safe_load(config["content"])
            assert ("apt" in parsed) == (release == "debian")
            is_told = name == "azure" and release != "debian"
            assert ("datasource" in parsed) == is_told


@pytest.mark.parametrize("release", ["el7", "el8", "el9", "el10"])
def test_an_el_base_takes_whatever_card_and_no_zeroconf_route(
    families: dict[str, Values], release: str
) -> None:
    base = {entry["path"]: entry for entry in families[release]["aws"]["base"]}  # type: ignore[attr-defined]
    assert "NOZEROCONF=yes" in base["/etc/sysconfig/network"]["content"]
    cards = [path for path in base if "ifcfg-" in path or path.endswith(".nmconnection")]
    assert len(cards) == 1
    assert ("ifcfg" in cards[0]) == (release in ("el7", "el8"))
    assert "HWADDR" not in base[cards[0]]["content"]


def test_azures_kernel_arguments_are_those_of_its_page(families: dict[str, Values]) -> None:
    page = {"console=ttyS0,115200n8", "earlyprintk=ttyS0,115200", "net.ifnames=0"}
    for release in RELEASES:
        arguments = families[release]["azure"]["arguments"]
        assert page <= set(arguments)  # type: ignore[call-overload]
        # Debian's initramfs would sleep for all of these 300 s, at every boot
        assert ("rootdelay=300" in arguments) == (release != "debian")  # type: ignore[operator]


def test_only_virtualbox_has_a_vagrant_user(values: dict[str, dict[str, object]]) -> None:
    for name in PROVIDERS:
        found = files(values[name])
        assert ("/home/vagrant/.ssh/authorized_keys" in found) == (name == "virtualbox")
    box = files(values["virtualbox"])
    assert box["/home/vagrant/.ssh/authorized_keys"]["content"] == "ssh-ed25519 BBBB vagrant"
    assert box["/home/vagrant/.ssh/authorized_keys"]["mode"] == "0600"
    assert box["/etc/sudoers.d/vagrant"]["mode"] == "0440"


def test_every_written_file_is_one_that_the_module_takes(
    values: dict[str, dict[str, object]],
) -> None:
    for name in PROVIDERS:
        for path, entry in files(values[name]).items():
            assert path.startswith("/"), name
            state = entry.get("state", "present")
            assert {"present": "content", "link": "target", "absent": "state"}[state] in entry
            assert entry.get("content", "x").strip(), f"{name}: {path} is empty"


@pytest.mark.parametrize(
    ("family", "python", "interpreter"),
    [
        ("debian", "3.11", "/usr/bin/python3"),
        ("el", "2.7", "/usr/bin/python"),
        ("el", "3.6", "/usr/libexec/platform-python"),
        ("el", "3.12", "/usr/bin/python3"),
    ],
)
def test_the_targets_python_is_known_beforehand(
    tmp_path: Path, family: str, python: str, interpreter: str
) -> None:
    (tmp_path / "group_vars").symlink_to(ANSIBLE / "group_vars")
    play = {
        "name": "Say",
        "hosts": "all",
        "gather_facts": False,
        "tasks": [{"ansible.builtin.debug": {"msg": "is {{ ansible_python_interpreter }}!"}}],
    }
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    given = {"packer_os": {"os_name": "x", "python": python, "kickstart": {"family": family}}}
    done = ansible(
        "ansible-playbook",
        *("-i", "guest,", tmp_path / "play.yml", "-e", json.dumps(given)),
        cwd=tmp_path,
    )
    assert f"is {interpreter}!" in done.stdout, done.stdout + done.stderr


# --- our modules -------------------------------------------------------------------------------


def test_files_are_written_linked_removed_and_then_left_alone(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old")
    (tmp_path / "mine").write_text("mine\n")
    wanted: list[dict[str, object]] = [
        {"path": f"{tmp_path}/a/b/text", "content": "umläut", "mode": "0640", "owner": ME},
        {
            "path": f"{tmp_path}/ssh/keys",
            "content": "k\n",
            "mode": "0600",
            "directory_mode": "0700",
            "owner": ME,
        },
        {"path": f"{tmp_path}/link", "state": "link", "target": "a/b/text", "owner": ME},
        {"path": f"{tmp_path}/old", "state": "absent"},
        {"path": f"{tmp_path}/mine", "content": "yours", "replace": False, "owner": ME},
    ]
    planned = module("goldimg_files", {"files": wanted}, "--check")
    assert not (tmp_path / "a").exists()
    first = module("goldimg_files", {"files": wanted})
    assert planned["paths"] == first["paths"] == [entry["path"] for entry in wanted[:4]]
    assert (tmp_path / "link").read_text() == "umläut\n"
    assert (tmp_path / "a/b/text").stat().st_mode & 0o7777 == 0o640
    assert (tmp_path / "ssh").stat().st_mode & 0o7777 == 0o700
    assert not (tmp_path / "old").exists()
    assert (tmp_path / "mine").read_text() == "mine\n"
    assert [path.name for path in (tmp_path / "a/b").iterdir()] == ["text"]
    assert module("goldimg_files", {"files": wanted})["changed"] is False


def test_a_changed_mode_is_put_right(tmp_path: Path) -> None:
    wanted = [{"path": f"{tmp_path}/key", "content": "k", "mode": "0600", "owner": ME}]
    module("goldimg_files", {"files": wanted})
    (tmp_path / "key").chmod(0o644)
    assert module("goldimg_files", {"files": wanted})["changed"] is True
    assert (tmp_path / "key").stat().st_mode & 0o7777 == 0o600


def test_a_file_for_nobody_is_an_error_that_names_it(tmp_path: Path) -> None:
    wanted = [{"path": f"{tmp_path}/key", "content": "k", "owner": "no-such-user"}]
    answer = module("goldimg_files", {"files": wanted})
    assert answer["msg"] == f"{tmp_path}/key: no user no-such-user"
    assert list(tmp_path.iterdir()) == []


GRUB_DEFAULTS = """\
GRUB_TIMEOUT=1
GRUB_CMDLINE_LINUX_DEFAULT="quiet console=ttyS0,115200"
GRUB_CMDLINE_LINUX="console=tty0 console=ttyS0,115200 net.ifnames=0 mine=1"
GRUB_TERMINAL="console serial"
"""
GRUB_MENU = """\
set timeout=1
menuentry 'Debian GNU/Linux' --class debian {
\tlinux\t/boot/vmlinuz-6.1 root=UUID=aa ro console=tty0 console=ttyS0,115200 net.ifnames=0 mine=1
\tinitrd\t/boot/initrd.img-6.1
}
menuentry 'recovery' {
    linux /vmlinuz-6.1 root=/dev/mapper/vg-root ro single console=ttyS0,115200
}
"""


def test_kernel_arguments_replace_their_own_kind_in_both_files(tmp_path: Path) -> None:
    defaults, menu = tmp_path / "grub", tmp_path / "grub.cfg"
    defaults.write_text(GRUB_DEFAULTS)
    menu.write_text(GRUB_MENU)
    menu.chmod(0o400)
    arguments = {
        "args": ["console=tty0", "console=ttyS0,38400n8d"],
        "defaults": str(defaults),
        "menus": [str(menu)],
    }
    assert module("goldimg_kernel_args", arguments)["paths"] == [str(defaults), str(menu)]
    consoles = "console=tty0 console=ttyS0,38400n8d"
    assert defaults.read_text() == (
        'GRUB_TIMEOUT=1\nGRUB_CMDLINE_LINUX_DEFAULT="quiet"\n'
        f'GRUB_CMDLINE_LINUX="net.ifnames=0 mine=1 {consoles}"\nGRUB_TERMINAL="console serial"\n'
    )
    lines = [line.split() for line in menu.read_text().splitlines() if "vmlinuz" in line]
    boot = ["root=UUID=aa", "ro", "net.ifnames=0", "mine=1"]
    assert lines[0] == ["linux", "/boot/vmlinuz-6.1", *boot, *consoles.split()]
    rescue = ["root=/dev/mapper/vg-root", "ro", "single"]
    assert lines[1] == ["linux", "/vmlinuz-6.1", *rescue, *consoles.split()]
    assert menu.stat().st_mode & 0o7777 == 0o400
    assert module("goldimg_kernel_args", arguments)["changed"] is False


def test_kernel_arguments_need_a_boot_loader(tmp_path: Path) -> None:
    arguments = {"args": ["a=1"], "defaults": f"{tmp_path}/none", "menus": [f"{tmp_path}/none"]}
    answer = module("goldimg_kernel_args", arguments)
    assert str(answer["msg"]).startswith(f"{tmp_path}/none: ")


def test_kernel_arguments_reach_every_place_that_el_keeps_them_in(tmp_path: Path) -> None:
    """Entries and environment block of EL8, entries and cmdline of EL9, a menu without either."""
    needs("grub-editenv")
    entries = tmp_path / "entries"
    entries.mkdir()
    (tmp_path / "grub").write_text('GRUB_CMDLINE_LINUX="rhgb quiet crashkernel=auto"\n')
    (tmp_path / "grub.cfg").write_text("set timeout=1\nblscfg\n")
    old = "title Old\nlinux /vmlinuz-4.18\noptions $kernelopts $tuned_params\n"
    new = (
        "title New\nlinux /vmlinuz-5.14\noptions root=UUID=a ro crashkernel=1G-4G:192M rhgb quiet\n"
    )
    (entries / "old.conf").write_text(old)
    (entries / "new.conf").write_text(new)
    (tmp_path / "cmdline").write_text("root=UUID=a ro rhgb quiet console=tty0\n")
    block = tmp_path / "efi-grubenv"
    subprocess.run(["grub-editenv", block, "create"], check=True)
    values = ("saved_entry=0", "kernelopts=root=UUID=a ro rhgb quiet")
    subprocess.run(["grub-editenv", block, "set", *values], check=True)
    (tmp_path / "grubenv").symlink_to(block.name)
    arguments = {
        "args": ["console=tty0", "console=ttyS0,115200n8"],
        "absent": ["rhgb", "quiet", "crashkernel"],
        "defaults": f"{tmp_path}/grub",
        "menus": [f"{tmp_path}/none/*", f"{tmp_path}/grub.c*"],
        "entries": str(entries),
        "environment": f"{tmp_path}/grubenv",
        "cmdline": f"{tmp_path}/cmdline",
    }
    answer = module("goldimg_kernel_args", arguments)
    changed = [f"{tmp_path}/{name}" for name in ("grub", "entries/new.conf", "grubenv", "cmdline")]
    assert answer["paths"] == changed
    wanted = "root=UUID=a ro console=tty0 console=ttyS0,115200n8"
    assert (entries / "old.conf").read_text() == old
    assert (entries / "new.conf").read_text().splitlines()[-1] == f"options {wanted}"
    assert (tmp_path / "cmdline").read_text() == f"{wanted}\n"
    assert (tmp_path / "grubenv").is_symlink()
    said = subprocess.run(
        ["grub-editenv", block, "list"], check=True, capture_output=True, text=True
    ).stdout
    assert said.splitlines() == ["saved_entry=0", f"kernelopts={wanted}"]
    assert block.stat().st_size == 1024
    assert module("goldimg_kernel_args", arguments)["changed"] is False


# --- the clean-up ------------------------------------------------------------------------------

IDENTITY = (
    "etc/ssh/ssh_host_ed25519_key",
    "etc/ssh/ssh_host_ed25519_key.pub",
    "etc/shadow-",
    "var/lib/dbus/machine-id",
    "var/lib/systemd/random-seed",
    "var/lib/cloud/instance/obj.pkl",
    "var/lib/NetworkManager/secret_key",
    "var/lib/dhcp/dhclient.eth0.leases",
    "var/log/journal/0123/system.journal",
    "var/log/cloud-init.log",
    "var/log/syslog.1",
    "root/.bash_history",
    "root/.ssh/known_hosts",
    "root/anaconda-ks.cfg",
    "home/vagrant/.bash_history",
)
CACHES = ("var/lib/apt/lists/a_Packages", "var/cache/apt/pkgcache.bin", "tmp/x", "var/tmp/y/z")
EMPTIED = ("etc/machine-id", "var/log/dpkg.log")
KEPT = (
    "etc/ssh/sshd_config",
    "etc/passwd",
    "root/.ssh/authorized_keys",
    "home/vagrant/.ssh/authorized_keys",
    "usr/share/doc/x",
)


@pytest.mark.parametrize("stage", ["base", "layer", "all"])
def test_the_clean_up_takes_what_an_image_must_not_have(tmp_path: Path, stage: str) -> None:
    needs("busybox", "unshare")
    if subprocess.run(["unshare", "-r", "true"], check=False, capture_output=True).returncode:
        pytest.skip("needs user namespaces")
    for name in (*IDENTITY, *CACHES, *EMPTIED, *KEPT):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("content\n")
    (tmp_path / "bin").mkdir()
    busybox = shutil.which("busybox")
    assert busybox
    shutil.copy(busybox, tmp_path / "bin/busybox")
    for tool in ("sh", "rm", "find", "truncate", "sync", "xargs", "rmdir"):
        (tmp_path / "bin" / tool).symlink_to("busybox")
    done = subprocess.run(
        ["unshare", "-r", "chroot", tmp_path, "/bin/sh", "-s", stage],
        input=(ANSIBLE / "files/clean.sh").read_text(),
        env={"PATH": "/bin:/usr/bin:/usr/sbin:/sbin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr

    def left(names: tuple[str, ...]) -> list[str]:
        return [name for name in names if (tmp_path / name).exists()]

    assert left(CACHES) == []
    assert left(KEPT) == list(KEPT)
    is_image = stage != "base"
    assert left(IDENTITY) == ([] if is_image else list(IDENTITY))
    sizes = {(tmp_path / name).stat().st_size for name in EMPTIED}
    assert sizes == ({0} if is_image else {8})


def test_no_image_sleeps_before_it_mounts_its_root() -> None:
    """Debian's initramfs takes rootdelay=N as a sleep of N seconds at every boot."""
    rows = yaml.safe_load((ANSIBLE / "group_vars/all.yml").read_text())["goldimg_providers"]
    for provider, row in rows.items():
        assert not [arg for arg in row["kernel_args"] if arg.startswith("rootdelay")], provider
