"""Publishing to OpenStack: the real Glance, behind a proxy that fails when it is told to."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
import yaml

from goldimg.config.publish.openstack import OpenstackPublish
from goldimg.publish.openstack import PUBLISHER
from goldimg.publish.openstack.glance import GlanceError
from goldimg.publish.records import published
from goldimg.publish.upload import Outcome
from tests.clouds.openstack import QUOTA, Glance, glance, keystone
from tests.clouds.proxy import Proxy, proxied
from tests.promoting import means, promote
from tests.publishing import GOLDIMG, OS, Shop, Told, finish_image, make_shop, session
from tests.publishing import publish as publish_with

FILE, STAGE, IMPORT = "/v2/images/[^/]+/file", "/v2/images/[^/]+/stage", "/v2/images/[^/]+/import"
ONE, ALL = "/v2/images/[0-9a-f-]{36}$", r"/v2/images(\?|$)"

TAKE_BACK = ("unpublish", "openstack", "-O", OS, "--version", "1.0.0", "--yes")


@dataclass(kw_only=True)
class Cloud:
    """A Glance, the proxy before it, and a project of this test's own in it."""

    glance: Glance
    proxy: Proxy
    token: str
    shop: Shop

    def publisher(self, **options: Any) -> tuple[PUBLISHER, Told]:
        made, told = session("openstack")
        return PUBLISHER(OpenstackPublish(cloud="lab", **options), made), told

    def publish(self, *, force: bool = False, **options: Any) -> tuple[Outcome, Told]:
        publisher, told = self.publisher(**options)
        return publish_with(self.shop, publisher, force=force), told

    @property
    def images(self) -> list[dict[str, Any]]:
        return self.glance.images(self.token)

    @property
    def artifact(self) -> bytes:
        return next(self.shop.directory.glob("*.qcow2")).read_bytes()

    def assert_published(self, outcome: Outcome) -> dict[str, Any]:
        """One image there, whole and equal; a record of it here, and no journal."""
        assert outcome.status == "published", outcome.error
        (image,) = self.images
        assert image["status"] == "active"
        assert "goldimg-state" not in image
        assert self.glance.data(image["id"], self.token) == self.artifact
        assert image["os_hash_value"] == hashlib.sha512(self.artifact).hexdigest()
        (record,) = self.shop.publications
        assert list(record["ids"].values()) == [image["id"]]
        assert record["hashes"] == {"sha512": image["os_hash_value"]}
        assert self.shop.journals == []
        return image

    def assert_nothing_left(self, outcome: Outcome) -> None:
        assert outcome.left == outcome.kept == ()
        assert self.images == []
        assert self.shop.publications == []
        assert self.shop.journals == []


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Glance, Proxy]]:
    with glance(tmp_path_factory.mktemp("glance") / "g") as it, proxied(it.port) as proxy:
        yield it, proxy


@pytest.fixture
def cloud(
    service: tuple[Glance, Proxy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Cloud]:
    token = f"user:{uuid.uuid4().hex}:member"
    it, proxy = service
    proxy.heal()
    write_clouds(tmp_path, monkeypatch, proxy.url, token)
    shop = make_shop(tmp_path / "site", "openstack", site_yml="publish:\n  openstack: {cloud: lab}")
    yield Cloud(glance=it, proxy=proxy, token=token, shop=shop)
    proxy.heal()


def write_clouds(path: Path, monkeypatch: pytest.MonkeyPatch, url: str, token: str) -> None:
    entry = {"auth_type": "admin_token", "auth": {"endpoint": url, "token": token}}
    write_entry(path, monkeypatch, entry)


def write_entry(path: Path, monkeypatch: pytest.MonkeyPatch, entry: dict[str, Any]) -> None:
    file = path / "clouds.yaml"
    file.write_text(yaml.safe_dump({"clouds": {"lab": entry}}))
    for name in [name for name in os.environ if name.startswith("OS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(file))


def test_the_command_line_publishes_once_and_takes_back(cloud: Cloud) -> None:
    shop = cloud.shop
    dry = shop.goldimg("upload", "openstack", "-O", OS, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "PUT /v2/images/<id>/file" in dry.stdout
    assert "no resume" in dry.stdout
    assert cloud.images == []
    first = shop.goldimg("upload", "openstack", "-O", OS)
    assert first.returncode == 0, first.stderr
    (image,) = cloud.images
    assert image["id"] in first.stdout
    assert image["name"] == f"{OS}-1.0.0_openstack"
    assert cloud.glance.data(image["id"], cloud.token) == cloud.artifact
    cloud.proxy.log.clear()
    again = shop.goldimg("upload", "openstack", "-O", OS)
    assert again.returncode == 0, again.stderr
    assert "already there" in again.stdout
    assert {method for method, *_ in cloud.proxy.log} == {"GET"}
    told = shop.goldimg("published", "-O", OS, "--json")
    assert json.loads(told.stdout)[0]["ids"] == {"cloud lab": image["id"]}
    gone = shop.goldimg(*TAKE_BACK)
    assert gone.returncode == 0, gone.stderr
    assert cloud.images == []
    assert shop.publications == []
    assert cloud.token.split(":")[1] not in first.stdout + first.stderr


@pytest.mark.parametrize("via", ["upload", "import"])
def test_an_image_arrives_whole_and_says_what_it_is(cloud: Cloud, via: str) -> None:
    finish_image(cloud.shop, firmware="efi")
    outcome, told = cloud.publish(
        via=via,
        disk_bus="scsi",
        machine="q35",
        secure_boot="optional",
        min_ram=1024,
        properties={"hw_vif_multiqueue_enabled": "true", "os_version": "12.9"},
        tags=("packer", "blue"),
    )
    image = cloud.assert_published(outcome)
    expected = {
        "hw_firmware_type": "uefi",
        "hw_machine_type": "q35",
        "hw_disk_bus": "scsi",
        "hw_scsi_model": "virtio-scsi",
        "hw_vif_multiqueue_enabled": "true",
        "os_secure_boot": "optional",
        "os_distro": "debian",
        "os_type": "linux",
        "os_version": "12.9",
        "architecture": "x86_64",
        "goldimg-os": OS,
        "goldimg-version": "1.0.0",
        "goldimg-sha256": hashlib.sha256(cloud.artifact).hexdigest(),
        "disk_format": "qcow2",
        "container_format": "bare",
        "visibility": "private",
        "min_disk": 1,
        "min_ram": 1024,
    }
    assert {key: image.get(key) for key in expected} == expected
    assert set(image["tags"]) == {"goldimg", "packer", "blue"}
    assert ("phase: importing" in told.text) == (via == "import")
    assert "sha512 of the stored image equals" in cloud.shop.publications[0]["verified"]
    again, _ = cloud.publish(
        via=via,
        disk_bus="scsi",
        machine="q35",
        secure_boot="optional",
        min_ram=1024,
        properties={"hw_vif_multiqueue_enabled": "true", "os_version": "12.9"},
        tags=("packer", "blue"),
    )
    assert again.status == "already there"


def test_changed_settings_change_the_image_and_send_nothing(cloud: Cloud) -> None:
    before = cloud.assert_published(cloud.publish()[0])
    cloud.proxy.log.clear()
    outcome, _ = cloud.publish(share=("p1", "p2"), protected=True, min_ram=2048, tags=("new",))
    after = cloud.assert_published(outcome)
    assert after["id"] == before["id"]
    assert (after["visibility"], after["protected"], after["min_ram"]) == ("shared", True, 2048)
    assert set(after["tags"]) == {"goldimg", "new"}
    members = cloud.glance.get(f"/v2/images/{after['id']}/members", cloud.token)["members"]
    assert {it["member_id"] for it in members} == {"p1", "p2"}
    assert cloud.proxy.count("PUT", FILE) == 0
    publisher, _ = cloud.publisher()
    publisher.delete(outcome.record.publication.resources[0])  # type: ignore[union-attr]
    assert cloud.images == []


def test_a_project_that_may_not_publish_hears_so_before_the_first_byte(cloud: Cloud) -> None:
    cloud.proxy.fail("POST", ALL, status=403, body=b"<h1>Forbidden</h1>not to publicize_image")
    outcome, _ = cloud.publish(public=True)
    assert outcome.status == "failed"
    assert "not to publicize_image" in str(outcome.error)
    assert cloud.proxy.count("PUT", FILE) == 0
    cloud.assert_nothing_left(outcome)


def test_older_versions_are_hidden_on_request(cloud: Cloud) -> None:
    cloud.publish()
    (old,) = cloud.images
    for version in ("1.10.0", "1.9.0"):
        cloud.shop = make_shop(cloud.shop.root, "openstack", version=version, seed=len(version))
        outcome, told = cloud.publish(hide_older=True)
        assert outcome.status == "published", outcome.error
    hidden = {it["goldimg-version"]: it["os_hidden"] for it in cloud.images}
    assert hidden == {"1.0.0": True, "1.10.0": False, "1.9.0": False}
    assert "hidden" not in told.text  # 1.0.0 was already
    assert cloud.glance.data(old["id"], cloud.token)


def test_another_image_of_the_name_is_replaced_only_by_force(cloud: Cloud) -> None:
    before = cloud.assert_published(cloud.publish()[0])
    finish_image(cloud.shop, seed=2)
    refused, _ = cloud.publish()
    assert refused.status == "failed"
    assert "is taken by image " + before["id"] in str(refused.error)
    assert "--force" in refused.error.hint  # type: ignore[union-attr]
    assert [it["id"] for it in cloud.images] == [before["id"]]
    forced, told = cloud.publish(force=True)
    after = cloud.assert_published(forced)
    assert after["id"] != before["id"]
    assert "is replaced" in told.text


def test_a_protected_image_of_somebody_else_is_not_replaced(cloud: Cloud) -> None:
    body = {"name": f"{OS}-1.0.0_openstack", "disk_format": "raw", "container_format": "bare"}
    headers = {"X-Auth-Token": cloud.token}
    url = f"{cloud.glance.url}/v2/images"
    made = requests.post(url, json={**body, "protected": True}, headers=headers, timeout=10).json()
    octets = {**headers, "Content-Type": "application/octet-stream"}
    requests.put(f"{url}/{made['id']}/file", data=b"x" * 512, headers=octets, timeout=10)
    outcome, _ = cloud.publish(force=True)
    assert outcome.status == "failed"
    assert "protected" in str(outcome.error)
    assert [it["id"] for it in cloud.images] == [made["id"]]


@pytest.mark.parametrize(
    ("method", "path", "how"),
    [
        ("GET", ALL, {"status": 503, "times": 2}),
        ("POST", ALL, {"status": 500}),
        ("POST", ALL, {"cut": -1}),
        ("PUT", FILE, {"status": 503}),
        ("PUT", FILE, {"status": 429, "headers": {"Retry-After": "1"}}),
        ("PUT", FILE, {"cut": 5_000_000}),
        ("PUT", FILE, {"cut": -1}),
        ("PUT", FILE, {"corrupt": 3_000_000}),
        ("PUT", FILE, {"delay": 1.0}),
        ("PATCH", ONE, {"status": 500}),
        ("PATCH", ONE, {"cut": -1}),
        ("GET", ONE, {"cut": -1}),
    ],
    ids=str,
)
def test_a_fault_that_passes_is_overcome(
    cloud: Cloud, method: str, path: str, how: dict[str, Any]
) -> None:
    fault = cloud.proxy.fail(method, path, **how)
    outcome, _ = cloud.publish()
    assert fault.hits > 0
    cloud.assert_published(outcome)
    whole = cloud.proxy.sent("PUT", FILE) // len(cloud.artifact)
    assert whole == (2 if "corrupt" in how or (how.get("status") in (429, 503) and method == "PUT")
                     else 1)  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "how"),
    [
        ("PUT", STAGE, {"cut": 5_000_000}),
        ("PUT", STAGE, {"status": 503}),
        ("PUT", STAGE, {"corrupt": 3_000_000}),
        ("POST", IMPORT, {"status": 503}),
        ("POST", IMPORT, {"cut": -1}),
    ],
    ids=str,
)
def test_a_fault_of_an_import_that_passes_is_overcome(
    cloud: Cloud, method: str, path: str, how: dict[str, Any]
) -> None:
    fault = cloud.proxy.fail(method, path, **how)
    outcome, _ = cloud.publish(via="import")
    assert fault.hits > 0
    cloud.assert_published(outcome)


def test_what_a_failed_attempt_cannot_remove_goes_in_the_end(cloud: Cloud) -> None:
    cloud.proxy.fail("PUT", FILE, cut=1_000_000)
    cloud.proxy.fail("DELETE", ONE, status=500)
    outcome, _ = cloud.publish()
    cloud.assert_published(outcome)


STEPS = [
    ("POST", ALL, "upload", False),
    ("PUT", FILE, "upload", False),
    ("PATCH", ONE, "upload", True),
    ("POST", "/members", "upload", True),
    ("PUT", STAGE, "import", False),
    ("POST", IMPORT, "import", True),
    ("PATCH", ONE, "import", True),
]


@pytest.mark.parametrize(("method", "path", "via", "is_kept"), STEPS, ids=str)
def test_a_step_that_fails_is_undone_or_gone_on_with(
    cloud: Cloud, method: str, path: str, via: str, is_kept: bool
) -> None:
    # the first PATCH of a shared image is the one that makes it private again
    skip = 1 if method == "PATCH" else 0
    cloud.proxy.fail(method, path, status=403, body=b"you may not", skip=skip, times=100)
    outcome, _ = cloud.publish(via=via, share=("p1",))
    assert outcome.status == "failed"
    assert "you may not" in str(outcome.error)
    sent = cloud.proxy.sent("PUT", f"{FILE}|{STAGE}")
    cloud.proxy.heal()
    if is_kept:
        assert [str(it) for it in outcome.kept] == [f"image {it['id']}" for it in cloud.images]
    else:
        cloud.assert_nothing_left(outcome)
    outcome, _ = cloud.publish(via=via, share=("p1",))
    cloud.assert_published(outcome)
    assert cloud.proxy.sent("PUT", f"{FILE}|{STAGE}") == (0 if is_kept else len(cloud.artifact))
    assert sent <= len(cloud.artifact)


@pytest.mark.parametrize(("method", "path", "via", "is_kept"), STEPS, ids=str)
def test_an_interrupted_step_is_undone_or_gone_on_with(
    cloud: Cloud, method: str, path: str, via: str, is_kept: bool
) -> None:
    publisher, _ = cloud.publisher(via=via, share=("p1",))
    skip = 1 if method == "PATCH" else 0
    cancel = publisher.session.runner.cancel
    cloud.proxy.fail(method, path, then=cancel.set, skip=skip, cut=0 if method == "PUT" else None)
    outcome = publish_with(cloud.shop, publisher)
    assert outcome.status == "interrupted"
    cloud.proxy.heal()
    if not is_kept:
        cloud.assert_nothing_left(outcome)
    outcome, _ = cloud.publish(via=via, share=("p1",))
    cloud.assert_published(outcome)
    assert cloud.proxy.sent("PUT", f"{FILE}|{STAGE}") == (0 if is_kept else len(cloud.artifact))


@pytest.mark.parametrize("via", ["upload", "import"])
def test_a_killed_upload_leaves_what_the_next_one_or_gc_removes(cloud: Cloud, via: str) -> None:
    path = FILE if via == "upload" else STAGE
    variable = f"--var=publish.openstack.via={via}"
    for rescue in ("upload", "gc"):
        fault = cloud.proxy.fail("PUT", path, delay=30)
        process = subprocess.Popen(
            [GOLDIMG, "upload", "openstack", "-O", OS, variable],
            cwd=cloud.shop.root,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        end = time.monotonic() + 60
        while not fault.hits and time.monotonic() < end:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        (left,) = cloud.images
        assert left["status"] in ("queued", "uploading", "saving")
        assert left["goldimg-state"] == "unfinished"
        cloud.proxy.heal()
        if rescue == "gc":
            done = cloud.shop.goldimg("gc", "openstack", "--yes")
            assert done.returncode == 0, done.stderr
            assert cloud.images == []
        else:
            outcome, told = cloud.publish(via=via)
            cloud.assert_published(outcome)
            assert "cannot be gone on with" in told.text
            cloud.shop.goldimg(*TAKE_BACK)


def test_what_arrives_damaged_twice_is_given_up(cloud: Cloud) -> None:
    cloud.proxy.fail("PUT", FILE, corrupt=1_000_000, times=9)
    outcome, _ = cloud.publish()
    assert outcome.status == "failed"
    assert "is not what was sent; its sha512 differs" in str(outcome.error)
    assert cloud.proxy.count("PUT", FILE) == 2
    cloud.assert_nothing_left(outcome)


def test_an_artifact_that_changed_since_its_build_never_arrives(cloud: Cloud) -> None:
    path = next(cloud.shop.directory.glob("*.qcow2"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    outcome, _ = cloud.publish()
    assert outcome.status == "failed"
    cloud.assert_nothing_left(outcome)


def test_a_full_quota_is_told_and_leaves_nothing(cloud: Cloud) -> None:
    finish_image(cloud.shop, mib=160)
    assert len(cloud.artifact) < QUOTA
    headers = {"X-Auth-Token": cloud.token, "Content-Type": "application/octet-stream"}
    url = f"{cloud.glance.url}/v2/images"
    body = {"name": "big", "disk_format": "raw", "container_format": "bare"}
    made = requests.post(url, json=body, headers={"X-Auth-Token": cloud.token}, timeout=10).json()
    filler = bytes(QUOTA - len(cloud.artifact) // 2)
    requests.put(f"{url}/{made['id']}/file", data=filler, headers=headers, timeout=60)
    outcome, _ = cloud.publish()
    assert outcome.status == "failed"
    assert "quota" in str(outcome.error)
    assert [it["name"] for it in cloud.images] == ["big"]
    assert cloud.shop.journals == []


def test_wrong_credentials_are_told_before_anything(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_clouds(tmp_path, monkeypatch, cloud.proxy.url, "a secret that is wrong")
    outcome, told = cloud.publish()
    assert outcome.status == "failed"
    assert "clouds.yaml" in outcome.error.hint  # type: ignore[union-attr]
    assert "a secret that is wrong" not in told.text + str(outcome.error)
    assert cloud.proxy.count("POST", ".") == 0


def test_a_cloud_that_is_not_there_or_not_known_is_told(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_clouds(tmp_path, monkeypatch, "http://127.0.0.1:9", cloud.token)
    outcome, _ = cloud.publish()
    assert outcome.status == "failed"
    assert "does not answer" in str(outcome.error)
    made, _ = session("openstack")
    unknown = PUBLISHER(OpenstackPublish(cloud="nowhere"), made)
    outcome = publish_with(cloud.shop, unknown)
    assert outcome.status == "failed"
    assert "nowhere" in str(outcome.error)


def test_settings_that_contradict_are_told_at_once(cloud: Cloud) -> None:
    outcome, _ = cloud.publish(secure_boot="required", properties={"status": "active"})
    assert outcome.status == "failed"
    details = " ".join(outcome.error.details)  # type: ignore[union-attr]
    assert "firmware: efi" in details
    assert "properties.status" in details
    assert cloud.proxy.count("[A-Z]+", ".") == 0
    bad = cloud.shop.goldimg(
        *("upload", "openstack", "-O", OS, "--share", "p1"),
        "--var=publish.openstack.visibility=public",
    )
    assert bad.returncode == 2
    assert "visibility is public" in bad.stderr


@pytest.fixture(scope="module")
def identified(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Glance, dict[str, Any]]]:
    """A Glance that asks a Keystone, and the admin's entry for clouds.yaml."""
    path = tmp_path_factory.mktemp("keystone")
    with keystone(path / "k") as identity, glance(path / "g", keystone=identity) as it:
        entry = {
            "auth": identity.auth,
            "region_name": "RegionOne",
            "image_endpoint_override": it.url,
        }
        yield it, entry


def test_a_password_opens_a_cloud_with_keystone(
    identified: tuple[Glance, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    it, entry = identified
    write_entry(tmp_path, monkeypatch, entry)
    shop = make_shop(tmp_path / "site", "openstack", site_yml="publish:\n  openstack: {cloud: lab}")
    dry = shop.goldimg("upload", "openstack", "-O", OS, "--dry-run")
    assert "admin in project admin" in dry.stdout, dry.stderr
    first = shop.goldimg("upload", "openstack", "-O", OS, "--public", "--via", "import")
    assert first.returncode == 0, first.stderr
    (record,) = shop.publications
    assert record["extra"]["visibility"] == "public"
    again = shop.goldimg("upload", "openstack", "-O", OS, "--public", "--via", "import")
    assert "already there" in again.stdout, again.stderr
    publisher = PUBLISHER(OpenstackPublish(cloud="lab"), session("openstack")[0])
    (found,) = published(shop.site, OS, "openstack")
    assert "the cloud has no Nova" in publisher.use(found.publication).note
    assert shop.goldimg(*TAKE_BACK).returncode == 0
    assert it.stored() == []


def test_a_wrong_password_is_told(
    identified: tuple[Glance, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, entry = identified
    wrong = {**entry, "auth": {**entry["auth"], "password": "nobody's password"}}
    write_entry(tmp_path, monkeypatch, wrong)
    shop = make_shop(tmp_path / "site", "openstack", site_yml="publish:\n  openstack: {cloud: lab}")
    done = shop.goldimg("upload", "openstack", "-O", OS)
    assert done.returncode == 4, done.stderr
    assert "refuses these credentials" in done.stderr
    assert "nobody's password" not in done.stdout + done.stderr


# --- channels -----------------------------------------------------------------------------------


@pytest.fixture
def newer(cloud: Cloud) -> Cloud:
    """The same cloud with a second version; both are published."""
    shop = make_shop(cloud.shop.root, "openstack", version="1.1.0", seed=2)
    other = replace(cloud, shop=shop)
    for each in (cloud, other):
        assert each.publish()[0].status == "published"
    return other


def of(cloud: Cloud) -> dict[str, Any]:
    """The image of the shop's version."""
    (found,) = (it for it in cloud.images if it["goldimg-version"] == cloud.shop.version)
    return found


def test_a_channel_shows_its_image_and_hides_the_former(cloud: Cloud, newer: Cloud) -> None:
    options: dict[str, Any] = {"promoted": "shared"}
    promote(cloud.shop, cloud.publisher(**options)[0])
    assert (of(cloud)["visibility"], of(newer)["visibility"]) == ("shared", "private")
    promote(newer.shop, newer.publisher(**options)[0])
    assert (of(cloud)["os_hidden"], of(newer)["os_hidden"]) == (True, False)
    assert of(cloud)["goldimg-channel-stable"] == "former"
    assert of(newer)["goldimg-channel-stable"] == "current"
    cloud.proxy.log.clear()
    assert promote(newer.shop, newer.publisher(**options)[0]) == []
    assert {method for method, *_ in cloud.proxy.log} == {"GET"}
    # another upload does not take back what a channel did
    assert newer.publish(**options)[0].status == "already there"
    assert of(newer)["visibility"] == "shared"
    promote(cloud.shop, cloud.publisher(**options)[0])
    assert (of(cloud)["os_hidden"], of(newer)["os_hidden"]) == (False, True)
    last = replace(cloud, shop=make_shop(cloud.shop.root, "openstack", version="1.2.0", seed=3))
    assert last.publish(hide_older=True)[0].status == "published"
    assert not of(cloud)["os_hidden"]


def test_a_promotion_that_glance_refused_half_way_is_gone_on_with(
    cloud: Cloud, newer: Cloud
) -> None:
    promote(cloud.shop, cloud.publisher()[0])
    cloud.proxy.fail("PATCH", ONE, status=403, body=b"no", skip=1, times=1)
    with pytest.raises(GlanceError):
        promote(newer.shop, newer.publisher()[0])
    assert means(newer.shop) == "1.0.0"
    assert not of(cloud)["os_hidden"]
    cloud.proxy.heal()
    promote(newer.shop, newer.publisher()[0])
    assert means(newer.shop) == "1.1.0"
    assert of(cloud)["os_hidden"]


def test_an_image_that_servers_use_stays(
    cloud: Cloud, newer: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nova itself is not here: this one answers as its API reference has it."""
    used = of(cloud)["id"]
    servers = {used: [{"id": "1", "name": "web"}]}

    class Nova(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            found = servers.get(query.get("image", [""])[0], [])
            data = json.dumps({"servers": found}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Nova) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        entry = {
            "auth_type": "admin_token",
            "auth": {"endpoint": cloud.proxy.url, "token": cloud.token},
            "compute_endpoint_override": f"http://127.0.0.1:{server.server_address[1]}",
        }
        write_entry(tmp_path, monkeypatch, entry)
        done = cloud.shop.goldimg("prune", "--remote", "--keep", "1", "--yes")
        server.shutdown()
        thread.join()
    assert "stays: it is used by server web" in done.stderr
    assert len(cloud.images) == 2
    write_clouds(tmp_path, monkeypatch, cloud.proxy.url, cloud.token)
    done = cloud.shop.goldimg("prune", "--remote", "--keep", "1", "--yes")
    assert "the cloud has no Nova" in done.stdout
    assert [it["goldimg-version"] for it in cloud.images] == ["1.1.0"]
