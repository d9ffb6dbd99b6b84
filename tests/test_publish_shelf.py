"""Publishing boxes, their catalog and appliances: to a directory, by HTTP PUT, to buckets."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from goldimg.catalog.local import update
from goldimg.config.publish.shelf import VirtualboxPublish, VmwarePublish
from goldimg.errors import PublishFailed
from goldimg.publish.records import published
from goldimg.publish.shelf import ShelfPublisher
from goldimg.publish.shelf.stores import Changed, Directory
from goldimg.publish.sweep import unpublish as take_back
from goldimg.publish.virtualbox import VirtualboxPublisher
from goldimg.publish.vmware import VmwarePublisher
from tests.clouds import aws, azure, gcp
from tests.clouds.handler import Handler
from tests.publishing import Shop, Told, finish_image, make_shop, publish, session


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return make_shop(tmp_path / "site", "virtualbox", mib=16)


def virtualbox(to: object, **options: Any) -> tuple[VirtualboxPublisher, Told]:
    local, told = session("virtualbox")
    made = VirtualboxPublisher(VirtualboxPublish(to=str(to), **options), local)
    local.is_transient = lambda error: made.is_transient(error)
    return made, told


def catalog_in(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "Debian-12.json").read_text())
    return found


def test_a_directory_gets_the_box_and_a_catalog_that_leads_to_it(
    shop: Shop, tmp_path: Path
) -> None:
    to = tmp_path / "srv"
    outcome = publish(shop, virtualbox(to, create=True)[0])
    assert outcome.status == "published", outcome.error
    catalog = catalog_in(to)
    assert catalog["name"] == "goldimg/Debian-12"
    (version,) = catalog["versions"]
    (entry,) = version["providers"]
    path = Path(entry["url"].removeprefix("file://"))
    assert path.is_relative_to(to)
    assert path.read_bytes() == shop.image().file("box").path.read_bytes()
    assert entry["checksum"] == shop.image().file("box").sha256
    assert publish(shop, virtualbox(to)[0]).status == "already there"
    assert sorted(it.name for it in to.rglob("*") if it.is_file() and it.name[0] != ".") == [
        "Debian-12-1.0.0_virtualbox.box", "Debian-12.json",
    ]  # fmt: skip


def test_versions_and_entries_of_others_stay(shop: Shop, tmp_path: Path) -> None:
    to = tmp_path / "srv"
    to.mkdir()
    by_hand = {
        "name": "goldimg/Debian-12",
        "description": "ours, by hand",
        "versions": [
            {"version": "0.1.0", "providers": [{"name": "parallels", "url": "https://x.test/b"}]}
        ],
    }
    (to / "Debian-12.json").write_text(json.dumps(by_hand))
    publish(shop, virtualbox(to, url="https://images.example.com/boxes")[0])
    newer = make_shop(shop.root, "virtualbox", version="1.1.0", mib=16, seed=4)
    publish(newer, virtualbox(to, url="https://images.example.com/boxes")[0])
    catalog = catalog_in(to)
    assert [it["version"] for it in catalog["versions"]] == ["1.1.0", "1.0.0", "0.1.0"]
    assert catalog["description"] == "ours, by hand"
    assert catalog["versions"][0]["providers"][0]["url"] == (
        "https://images.example.com/boxes/1.1.0/Debian-12/virtualbox/Debian-12-1.1.0_virtualbox.box"
    )
    # taking one back leaves the others
    record = next(it for it in published(shop.site, "Debian-12", "virtualbox")
                  if it.version == "1.0.0")  # fmt: skip
    gone = virtualbox(to, url="https://images.example.com/boxes")[0]
    assert not [it.error for it in take_back(shop.site, gone, record) if it.error]
    assert [it["version"] for it in catalog_in(to)["versions"]] == ["1.1.0", "0.1.0"]
    assert not (to / "1.0.0").exists()
    assert (to / "1.1.0").exists()


def test_the_local_catalog_is_not_touched(shop: Shop, tmp_path: Path) -> None:
    update(shop.site, "goldimg", "Debian-12", shop.site.artifacts.as_uri())
    before = (shop.site.artifacts / "Debian-12.json").read_bytes()
    publish(shop, virtualbox(tmp_path / "srv", create=True)[0])
    assert (shop.site.artifacts / "Debian-12.json").read_bytes() == before


def test_another_file_of_the_name_is_kept_unless_forced(shop: Shop, tmp_path: Path) -> None:
    to = tmp_path / "srv"
    publish(shop, virtualbox(to, create=True)[0])
    (there,) = to.rglob("*.box")
    before = there.read_bytes()
    finish_image(shop, mib=16, seed=9)
    outcome = publish(shop, virtualbox(to)[0])
    assert outcome.status == "failed"
    assert "is another file" in str(outcome.error)
    assert there.read_bytes() == before
    assert publish(shop, virtualbox(to)[0], force=True).status == "published"
    assert there.read_bytes() == shop.image().file("box").path.read_bytes()
    (entry,) = catalog_in(to)["versions"][0]["providers"]
    assert entry["checksum"] == shop.image().file("box").sha256


def test_a_catalog_that_is_no_json_is_left_alone(shop: Shop, tmp_path: Path) -> None:
    to = tmp_path / "srv"
    to.mkdir()
    (to / "Debian-12.json").write_text("{ half")
    outcome = publish(shop, virtualbox(to)[0])
    assert outcome.status == "failed"
    assert "is not valid JSON" in str(outcome.error)
    assert (to / "Debian-12.json").read_text() == "{ half"


def test_a_directory_without_room_or_that_is_missing(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = publish(shop, virtualbox(tmp_path / "absent")[0])
    assert "is no directory" in str(outcome.error)
    assert "--create" in getattr(outcome.error, "hint", "")
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("goldimg.publish.shelf.stores.shutil.disk_usage", lambda _: usage)
    outcome = publish(shop, virtualbox(tmp_path / "srv", create=True)[0])
    assert "has no room" in str(outcome.error)
    assert not list((tmp_path / "srv").rglob("*.box*"))


def test_the_ova_of_vmware_is_copied(tmp_path: Path) -> None:
    shop = make_shop(tmp_path / "site", "vmware", mib=8)
    local, _ = session("vmware")
    to = tmp_path / "srv"
    made = VmwarePublisher(VmwarePublish(to=str(to), create=True), local)
    outcome = publish(shop, made)
    assert outcome.status == "published", outcome.error
    (there,) = to.rglob("*.ova")
    assert there.read_bytes() == shop.image().file("ova").path.read_bytes()
    assert not list(to.glob("*.json"))


def test_writers_of_one_catalog_do_not_lose_each_others_entries(tmp_path: Path) -> None:
    store = Directory(tmp_path)
    store.write("c.json", b"{}", None)
    _, mark = store.read("c.json") or (b"", "")
    store.write("c.json", b'{"a": 1}', mark)
    with pytest.raises(Changed):
        store.write("c.json", b'{"b": 1}', mark)
    with pytest.raises(Changed):
        store.write("c.json", b"{}", None)


# --- a server that takes PUT ---


class Files(Handler):
    """A server as WebDAV modules are: PUT, GET, HEAD, DELETE, ETags and If-Match."""

    files: dict[str, bytes]
    fail: list[int]
    login: str | None

    def _answer(self, status: int, data: bytes = b"", size: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data) if size is None else size))
        if self.path in self.files:
            self.send_header("ETag", self._tag())
        self.end_headers()
        self.wfile.write(data)

    def _tag(self) -> str:
        return f'"{hash(self.files.get(self.path, b""))}"'

    def _is_refused(self) -> bool:
        if self.login and self.headers.get("Authorization") != self.login:
            self._answer(401)
            return True
        return False

    def do_GET(self) -> None:
        if not self._is_refused():
            found = self.files.get(self.path)
            self._answer(404 if found is None else 200, found or b"")

    def do_HEAD(self) -> None:
        if not self._is_refused():
            found = self.files.get(self.path)
            self._answer(404 if found is None else 200, size=len(found or b""))

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if self._is_refused():
            return
        if self.fail:
            self._answer(self.fail.pop())
            return
        wanted, is_there = self.headers.get("If-Match"), self.path in self.files
        if (wanted and wanted != self._tag()) or (self.headers.get("If-None-Match") and is_there):
            self._answer(412)
            return
        self.files[self.path] = data
        self._answer(204 if is_there else 201)

    def do_DELETE(self) -> None:
        self._answer(204 if self.files.pop(self.path, None) is not None else 404)


@pytest.fixture
def server() -> Iterator[tuple[str, type[Files]]]:
    class Handler(Files):
        files = {}
        fail = []
        login = None

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{running.server_address[1]}/boxes", Handler
    running.shutdown()
    running.server_close()
    thread.join()


def test_a_server_that_takes_put(shop: Shop, server: tuple[str, type[Files]]) -> None:
    url, handler = server
    handler.fail = [503, 503]
    outcome = publish(shop, virtualbox(url)[0])
    assert outcome.status == "published", outcome.error
    key = "/boxes/1.0.0/Debian-12/virtualbox/Debian-12-1.0.0_virtualbox.box"
    assert handler.files[key] == shop.image().file("box").path.read_bytes()
    catalog = json.loads(handler.files["/boxes/Debian-12.json"])
    assert catalog["versions"][0]["providers"][0]["url"] == f"{url}{key.removeprefix('/boxes')}"
    assert publish(shop, virtualbox(url)[0]).status == "already there"
    (record,) = published(shop.site, "Debian-12", "virtualbox")
    assert "size" in record.publication.verified
    take_back(shop.site, virtualbox(url)[0], record)
    assert key not in handler.files
    assert json.loads(handler.files["/boxes/Debian-12.json"])["versions"] == []


def test_a_server_that_wants_a_login(
    shop: Shop,
    server: tuple[str, type[Files]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url, handler = server
    handler.login = "Basic bWU6c2VjcmV0LXdvcmQ="  # me:secret-word
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    outcome = publish(shop, virtualbox(url)[0])
    assert outcome.status == "failed"
    assert "401" in str(outcome.error)
    assert "netrc" in getattr(outcome.error, "hint", "")
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret-word\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    local = virtualbox(url)
    assert publish(shop, local[0]).status == "published"
    assert "secret-word" not in local[1].text
    assert "secret-word" not in json.dumps(shop.manifest)


def test_a_refusal_that_lasts_is_not_repeated(shop: Shop, server: tuple[str, type[Files]]) -> None:
    url, handler = server
    handler.fail = [507] * 10
    outcome = publish(shop, virtualbox(url)[0])
    assert outcome.status == "failed"
    assert "507" in str(outcome.error)
    assert len(handler.fail) == 9
    assert not handler.files


# --- buckets ---


@pytest.fixture(scope="module")
def buckets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, str]]]:
    """Environments in which S3, Cloud Storage and Azure are services of this machine."""
    root = tmp_path_factory.mktemp("buckets")
    with (
        aws.running(root / "aws") as amazon,
        gcp.google_cloud(root) as google,
        azure.running(root) as microsoft,
    ):
        connection = microsoft.connection_string()
        yield {
            "s3://boxes/vagrant": amazon.environment,
            "gs://images/vagrant": {"STORAGE_EMULATOR_HOST": google.storage.url},
            "azure://devstoreaccount1/boxes/vagrant": {
                **microsoft.environment,
                "AZURE_STORAGE_CONNECTION_STRING": connection,
            },
        }


@pytest.mark.parametrize(
    "to", ["s3://boxes/vagrant", "gs://images/vagrant", "azure://devstoreaccount1/boxes/vagrant"]
)
def test_a_bucket(
    shop: Shop, buckets: dict[str, dict[str, str]], to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in buckets[to].items():
        monkeypatch.setenv(name, value)
    url = "https://images.example.com/vagrant"
    outcome = publish(shop, virtualbox(to, url=url, create=True)[0])
    assert outcome.status == "published", outcome.error
    made, _ = virtualbox(to, url=url)
    key = "1.0.0/Debian-12/virtualbox/Debian-12-1.0.0_virtualbox.box"
    found = made._store.stat(key)
    assert found is not None
    assert found.sha256 == shop.image().file("box").sha256
    data, mark = made._store.read(key) or (b"", "")
    assert data == shop.image().file("box").path.read_bytes()
    catalog, mark = made._store.read("Debian-12.json") or (b"", "")
    assert json.loads(catalog)["versions"][0]["providers"][0]["url"] == f"{url}/{key}"
    assert publish(shop, virtualbox(to, url=url)[0]).status == "already there"
    made._store.write("Debian-12.json", catalog + b" ", mark)
    if not to.startswith("gs:"):  # the emulator of Cloud Storage ignores preconditions
        with pytest.raises(Changed):
            made._store.write("Debian-12.json", b"{}", mark)
    finish_image(shop, mib=16, seed=5)
    taken = publish(shop, virtualbox(to, url=url)[0])
    assert taken.status == "failed"
    assert "is another file" in str(taken.error)
    (record,) = published(shop.site, "Debian-12", "virtualbox")
    assert not [it.error for it in take_back(shop.site, made, record) if it.error]
    assert made._store.stat(key) is None


# --- settings ---


@pytest.mark.parametrize(
    "to", ["relative/dir", "s3://", "azure://account", "https://user:pw@host/x", "ftp://host/x"]
)
def test_a_place_that_is_none_is_refused(to: str) -> None:
    with pytest.raises(ValidationError):
        VirtualboxPublish(to=to)


def test_no_place_and_no_url_are_told(shop: Shop) -> None:
    local, _ = session("virtualbox")
    outcome = publish(shop, VirtualboxPublisher(VirtualboxPublish(), local))
    assert "no place is named" in str(outcome.error)
    with pytest.raises(PublishFailed, match="nobody knows by which URL"):
        _ = VirtualboxPublisher(VirtualboxPublish(to="s3://bucket/boxes"), local)._url
    assert issubclass(VirtualboxPublisher, ShelfPublisher)
