"""Publishing to Docker: real engines and a real registry, behind proxies that fail when told to."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.errors import ImageNotFound

from goldimg.config.publish.docker import DockerPublish
from goldimg.formats.gz import GzipReader
from goldimg.publish.docker import PUBLISHER
from goldimg.publish.docker.registry import RegistryError
from goldimg.publish.upload import Outcome
from tests.clouds.docker import Engine, Registry, dockerd, podman, registry
from tests.clouds.proxy import Proxy, proxied
from tests.promoting import means, promote
from tests.publishing import GOLDIMG, OS, Shop, Told, finish_image, make_shop, session
from tests.publishing import publish as publish_with

LOAD = "/images/load"
UPLOADS, BLOB, MANIFEST = "/blobs/uploads/", "/blobs/uploads/.+", "/manifests/"


@dataclass(kw_only=True)
class Harbour:
    """An engine, a registry, a proxy before each, and a repository of this test's own."""

    engine: Engine
    client: docker.DockerClient
    registry: Registry
    to_engine: Proxy
    to_registry: Proxy
    shop: Shop
    repository: str

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.to_registry.port}"

    def options(self, **more: Any) -> DockerPublish:
        base = {"repository": self.repository, "registry": self.host, "cmd": ("/bin/sh",)}
        return DockerPublish(**{**base, **more})

    def publisher(self, **more: Any) -> tuple[PUBLISHER, Told]:
        made, told = session("docker")
        return PUBLISHER(self.options(**more), made), told

    def publish(self, *, force: bool = False, **more: Any) -> tuple[Outcome, Told]:
        publisher, told = self.publisher(**more)
        return publish_with(self.shop, publisher, force=force), told

    @property
    def artifact(self) -> Path:
        return next(self.shop.directory.glob("*.tar.gz"))

    @property
    def content(self) -> str:
        """The digest of the artifact's tar."""
        found = hashlib.sha256()
        with GzipReader(self.artifact) as stream:
            while part := stream.read(1 << 20):
                found.update(part)
        return f"sha256:{found.hexdigest()}"

    @property
    def images(self) -> list[dict[str, Any]]:
        """The engine's images of this test, named or not."""
        found: list[dict[str, Any]] = self.client.api.images(
            filters={"label": [f"goldimg-test={self.repository}"]}
        )
        return found

    def labels(self) -> dict[str, str]:
        return {"goldimg-test": self.repository}

    def inspect(self, tag: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client.api.inspect_image(f"{self.repository}:{tag}")
        return found

    def run(self, tag: str, *words: str) -> str:
        """What a container of the image prints.

        The SDK's `run` looks at the container while it ends, which Podman may answer with a 500.
        """
        container = self.client.containers.create(
            f"{self.repository}:{tag}", list(words) or None, network_mode="none"
        )
        try:
            container.start()
            ended = container.wait(timeout=60)
            assert ended["StatusCode"] == 0, container.logs()
            said: bytes = container.logs(stderr=False)
            return said.decode()
        finally:
            container.remove(force=True)

    def assert_published(self, outcome: Outcome, *statuses: str) -> None:
        """In the engine by its digest, in the registry as the artifact's own bytes; recorded."""
        assert outcome.status in (statuses or ("published",)), outcome.error
        assert self.inspect("1.0.0")["RootFS"]["Layers"] == [self.content]
        assert self.registry.tags(self.repository) == ["1.0.0", "latest"]
        (layer,) = json.loads(self.registry.manifest(self.repository, "1.0.0"))["layers"]
        blob = self.registry.get(f"{self.repository}/blobs/{layer['digest']}").content
        assert blob == self.artifact.read_bytes()
        (record,) = self.shop.publications
        assert record["hashes"]["diff_id"] == self.content
        assert record["hashes"]["layer"] == layer["digest"]
        assert self.shop.journals == []
        assert len(self.images) == 1


@pytest.fixture(scope="module", params=["dockerd", "podman"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with {"dockerd": dockerd, "podman": podman}[request.param]() as it:
        yield it


@pytest.fixture(scope="module")
def first_engine() -> Iterator[Engine]:
    with dockerd() as it:
        yield it


@pytest.fixture(scope="module")
def store() -> Iterator[Registry]:
    with registry() as it:
        yield it


@contextlib.contextmanager
def harboured(
    engine: Engine, store: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Harbour]:
    port = int(store.host.split(":")[1])
    repository = f"t/{uuid.uuid4().hex[:12]}"
    with proxied(engine.socket) as to_engine, proxied(port) as to_registry:
        client = docker.DockerClient(base_url=engine.url)
        monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{to_engine.port}")
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
        host = f"127.0.0.1:{to_registry.port}"
        shop = make_shop(
            tmp_path / "site",
            "docker",
            site_yml=f"publish:\n  docker:\n    repository: {repository}\n    registry: {host}\n"
            f"    cmd: [/bin/sh]\n    tags: {{goldimg-test: {repository}}}\n",
        )
        try:
            yield Harbour(
                engine=engine,
                client=client,
                registry=store,
                to_engine=to_engine,
                to_registry=to_registry,
                shop=shop,
                repository=repository,
            )
        finally:
            for image in client.api.images(filters={"label": [f"goldimg-test={repository}"]}):
                client.api.remove_image(image["Id"], force=True)
            client.close()


@pytest.fixture
def harbour(
    engine: Engine, store: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Harbour]:
    with harboured(engine, store, tmp_path, monkeypatch) as it:
        yield it


@pytest.fixture
def pier(
    first_engine: Engine, store: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Harbour]:
    """A harbour with Docker's engine only, for what no engine changes."""
    with harboured(first_engine, store, tmp_path, monkeypatch) as it:
        yield it


def test_the_command_line_publishes_once_and_takes_back(harbour: Harbour) -> None:
    shop = harbour.shop
    dry = shop.goldimg("upload", "docker", "-O", OS, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "POST /images/load" in dry.stdout
    assert harbour.images == []
    first = shop.goldimg("upload", "docker", "-O", OS)
    assert first.returncode == 0, first.stderr
    (record,) = shop.publications
    for id_ in record["ids"].values():
        assert id_ in first.stdout
    harbour.to_engine.log.clear()
    harbour.to_registry.log.clear()
    again = shop.goldimg("upload", "docker", "-O", OS)
    assert "already there" in again.stdout, again.stderr
    seen = {it[0] for it in (*harbour.to_engine.log, *harbour.to_registry.log)}
    assert seen <= {"GET", "HEAD"}
    gone = shop.goldimg("unpublish", "docker", "-O", OS, "--version", "1.0.0", "--yes")
    assert gone.returncode == 0, gone.stderr
    assert harbour.images == []
    assert harbour.registry.tags(harbour.repository) == []
    assert shop.publications == []


def test_the_image_runs_and_says_what_it_is(harbour: Harbour) -> None:
    outcome, _ = harbour.publish(
        env={"PATH": "/bin:/sbin", "GREETING": 'cost $5 "each" \\o/'},
        tags={**harbour.labels(), "maker": 'we, $HOME "& sons"'},
        workdir="/tmp",
        entrypoint=("/bin/sh", "-c"),
        cmd=('echo "$GREETING"; pwd; cat /etc/os-release',),
    )
    harbour.assert_published(outcome)
    assert harbour.run("1.0.0").splitlines() == [
        'cost $5 "each" \\o/',
        "/tmp",
        "ID=debian",
        'VERSION_ID="12"',
    ]
    found = harbour.inspect("latest")
    assert found["Id"] == harbour.inspect("1.0.0")["Id"]
    assert (found["Os"], found["Architecture"]) == ("linux", "amd64")
    labels = found["Config"]["Labels"]
    expected = {
        "org.opencontainers.image.title": OS,
        "org.opencontainers.image.version": "1.0.0",
        "org.opencontainers.image.created": "2026-01-01T00:00:00Z",
        "goldimg-sha256": hashlib.sha256(harbour.artifact.read_bytes()).hexdigest(),
        "maker": 'we, $HOME "& sons"',
    }
    assert {key: labels.get(key) for key in expected} == expected


def test_what_the_registry_gives_is_what_the_engine_has(pier: Harbour) -> None:
    outcome, _ = pier.publish(tags=pier.labels())
    pier.assert_published(outcome)
    before = pier.inspect("1.0.0")["Id"]
    for image in pier.images:
        pier.client.api.remove_image(image["Id"], force=True)
    pier.client.api.pull(f"{pier.registry.host}/{pier.repository}", tag="1.0.0")
    pulled = pier.client.api.inspect_image(f"{pier.registry.host}/{pier.repository}:1.0.0")
    assert pulled["Id"] == before
    assert pulled["RootFS"]["Layers"] == [pier.content]
    assert pulled["RepoDigests"][0].endswith(pier.shop.publications[0]["hashes"]["manifest"])


def test_either_place_alone(pier: Harbour) -> None:
    outcome, _ = pier.publish(tags=pier.labels(), engine=False)
    assert outcome.status == "published", outcome.error
    assert pier.images == []
    assert pier.to_engine.log == []
    assert pier.registry.tags(pier.repository) == ["1.0.0", "latest"]
    outcome, _ = pier.publish(tags=pier.labels(), registry=None, latest=False)
    assert outcome.status == "published", outcome.error
    assert pier.images[0]["RepoTags"] == [f"{pier.repository}:1.0.0"]


def test_latest_is_the_highest_version(harbour: Harbour) -> None:
    ids = {}
    for version in ("1.9.0", "1.10.0", "1.2.0"):
        root = harbour.shop.root
        harbour.shop = make_shop(root, "docker", version=version, seed=int(version.split(".")[1]))
        outcome, told = harbour.publish(tags=harbour.labels())
        assert outcome.status == "published", outcome.error
        ids[version] = harbour.inspect(version)["Id"]
    assert harbour.inspect("latest")["Id"] == ids["1.10.0"]
    assert told.text.count("latest stays at 1.10.0") == 2
    manifests = [harbour.registry.manifest(harbour.repository, tag) for tag in ("latest", "1.10.0")]
    assert manifests[0] == manifests[1]


def test_another_image_of_the_name_is_replaced_only_by_force(harbour: Harbour) -> None:
    harbour.assert_published(harbour.publish(tags=harbour.labels())[0])
    before = harbour.inspect("1.0.0")["Id"]
    other, _ = harbour.publish(tags={**harbour.labels(), "new": "label"})
    assert other.status == "failed"
    assert "the same root file system with other settings" in str(other.error)
    finish_image(harbour.shop, seed=2)
    refused, _ = harbour.publish(tags=harbour.labels())
    assert refused.status == "failed"
    assert "1.0.0 is taken in the engine; it is another build" in str(refused.error)
    assert "--force" in refused.error.hint  # type: ignore[union-attr]
    only, _ = harbour.publish(tags=harbour.labels(), engine=False)
    assert "is taken in registry" in str(only.error)
    assert harbour.inspect("1.0.0")["Id"] == before
    forced, told = harbour.publish(tags=harbour.labels(), force=True)
    harbour.assert_published(forced)
    assert "is replaced" in told.text
    with pytest.raises(ImageNotFound):
        harbour.client.api.inspect_image(before)


def test_a_name_of_somebody_elses_survives_unpublish(pier: Harbour) -> None:
    outcome, _ = pier.publish(tags=pier.labels())
    pier.client.api.tag(pier.inspect("1.0.0")["Id"], "kept/by-hand", "1.0.0")
    gone = pier.shop.goldimg("unpublish", "docker", "-O", OS, "--version", "1.0.0", "--yes")
    assert gone.returncode == 0, gone.stderr
    (left,) = pier.images
    assert left["RepoTags"] == ["kept/by-hand:1.0.0"]
    assert outcome.status == "published"


@pytest.mark.parametrize(
    "how",
    [
        {"status": 503},
        {"status": 500},
        {"status": 429},
        {"cut": 3_000_000},
        {"cut": -1},
        {"corrupt": 2_000_000},
        {"delay": 1.0},
    ],
    ids=str,
)
def test_a_fault_of_the_engine_that_passes_is_overcome(
    harbour: Harbour, how: dict[str, Any]
) -> None:
    fault = harbour.to_engine.fail("POST", LOAD, **how)
    outcome, _ = harbour.publish(tags=harbour.labels())
    assert fault.hits > 0
    harbour.assert_published(outcome)


@pytest.mark.parametrize(
    ("method", "path", "how"),
    [
        ("GET", MANIFEST, {"status": 503}),
        ("POST", UPLOADS, {"status": 500}),
        ("PATCH", BLOB, {"status": 503, "skip": 1}),
        ("PATCH", BLOB, {"status": 429, "skip": 2}),
        ("PATCH", BLOB, {"cut": 500_000, "skip": 1}),
        ("PATCH", BLOB, {"cut": -1, "skip": 1}),
        ("PATCH", BLOB, {"corrupt": 1000, "skip": 1}),
        ("PATCH", BLOB, {"delay": 1.0}),
        ("PUT", BLOB, {"status": 500}),
        ("PUT", BLOB, {"cut": -1}),
        ("PUT", MANIFEST, {"cut": -1}),
        ("GET", MANIFEST, {"corrupt_answer": 20, "skip": 2}),
    ],
    ids=str,
)
def test_a_fault_of_the_registry_that_passes_is_overcome(
    pier: Harbour, method: str, path: str, how: dict[str, Any]
) -> None:
    fault = pier.to_registry.fail(method, path, **how)
    outcome, _ = pier.publish(tags=pier.labels(), chunk=1)
    assert fault.hits > fault.skip
    pier.assert_published(outcome)


@pytest.mark.parametrize(
    ("proxy", "method", "path", "kept"),
    [
        ("to_engine", "POST", LOAD, []),
        ("to_registry", "POST", UPLOADS, ["image"]),
        ("to_registry", "PATCH", BLOB, ["image", "upload"]),
        ("to_registry", "PUT", BLOB, ["image", "upload"]),
        ("to_registry", "PUT", MANIFEST + "1.0.0", ["image"]),
        ("to_engine", "POST", "/tag", ["image", "manifest"]),
        ("to_registry", "PUT", MANIFEST + "latest", ["image", "manifest", "name"]),
    ],
    ids=str,
)
@pytest.mark.parametrize("way", ["fails", "is interrupted"])
def test_a_step_that_ends_early_is_undone_or_gone_on_with(
    pier: Harbour, proxy: str, method: str, path: str, kept: list[str], way: str
) -> None:
    publisher, _ = pier.publisher(tags=pier.labels(), chunk=1)
    if way == "fails":
        how: dict[str, Any] = {"status": 403, "body": b'{"message": "you may not"}', "times": 99}
    else:
        how = {"then": publisher.session.runner.cancel.set}
    getattr(pier, proxy).fail(method, path, **how)
    outcome = publish_with(pier.shop, publisher)
    assert outcome.status == ("failed" if way == "fails" else "interrupted")
    pier.to_engine.heal()
    pier.to_registry.heal()
    if way == "fails":
        assert sorted({it.kind for it in outcome.kept}) == kept
        assert len(pier.images) == (1 if kept else 0)
        if "manifest" not in kept:
            assert pier.registry.tags(pier.repository) == []
    outcome, _ = pier.publish(tags=pier.labels(), chunk=1)
    # an interruption lets the call under way end, and this one was the last
    is_last = path.endswith("latest") and way == "is interrupted"
    pier.assert_published(outcome, "already there" if is_last else "published")
    if kept:
        assert pier.to_engine.count("POST", LOAD) == 0


def test_an_interrupted_push_sends_no_chunk_twice(pier: Harbour) -> None:
    publisher, _ = pier.publisher(tags=pier.labels(), chunk=1, engine=False)
    pier.to_registry.fail("PATCH", BLOB, then=publisher.session.runner.cancel.set, skip=1)
    assert publish_with(pier.shop, publisher).status == "interrupted"
    first = pier.to_registry.sent("PATCH", BLOB)
    assert first == 2 << 20
    pier.to_registry.heal()
    outcome, told = pier.publish(tags=pier.labels(), chunk=1, engine=False)
    assert outcome.status == "published", outcome.error
    assert "goes on after 2097152 bytes" in told.text
    config = 2000
    whole = first + pier.to_registry.sent("PATCH", BLOB)
    assert 0 <= whole - pier.artifact.stat().st_size <= config


@pytest.mark.parametrize("rescue", ["upload", "gc"])
def test_a_killed_upload_leaves_what_the_next_one_or_gc_removes(
    harbour: Harbour, rescue: str
) -> None:
    fault = harbour.to_registry.fail("PATCH", BLOB, delay=30)
    process = subprocess.Popen(
        [GOLDIMG, "upload", "docker", "-O", OS],
        cwd=harbour.shop.root,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    end = time.monotonic() + 60
    while not fault.hits and time.monotonic() < end:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert len(harbour.images) == 1
    assert harbour.registry.tags(harbour.repository) == []
    harbour.to_registry.heal()
    harbour.to_engine.heal()
    if rescue == "gc":
        done = harbour.shop.goldimg("gc", "docker", "--yes")
        assert done.returncode == 0, done.stderr
        assert harbour.images == []
        return
    outcome, _ = harbour.publish(tags=harbour.labels())
    harbour.assert_published(outcome)
    assert harbour.to_engine.count("POST", LOAD) == 0


def test_what_arrives_damaged_twice_is_given_up(harbour: Harbour) -> None:
    harbour.to_engine.fail("POST", LOAD, corrupt=2_000_000, times=9)
    outcome, _ = harbour.publish(tags=harbour.labels())
    assert outcome.status == "failed"
    assert "the engine refuses the image" in str(outcome.error)
    assert harbour.to_engine.count("POST", LOAD) == 2
    assert harbour.images == []
    assert harbour.shop.journals == []
    assert outcome.kept == outcome.left == ()


def test_an_artifact_that_changed_since_its_build_is_not_sent(pier: Harbour) -> None:
    finish_image(pier.shop)
    data = pier.artifact.read_bytes()
    finish_image(pier.shop, seed=2)
    size = pier.artifact.stat().st_size
    manifest = pier.shop.manifest
    manifest["artifacts"][0]["size"] = len(data)
    (pier.shop.directory / "manifest.json").write_text(json.dumps(manifest))
    pier.artifact.write_bytes(data)
    assert size
    outcome, _ = pier.publish(tags=pier.labels())
    assert "is not what was built" in str(outcome.error)
    assert pier.images == []
    assert pier.to_registry.count("POST", ".") == 0


def test_a_registry_lets_in_only_who_logged_in(
    first_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        registry(user="pusher", password="open sesame") as store,
        harboured(first_engine, store, tmp_path, monkeypatch) as pier,
    ):
        stranger, told = pier.publish(tags=pier.labels(), engine=False)
        assert stranger.status == "failed"
        assert f"docker login {pier.host}" in stranger.error.hint  # type: ignore[union-attr]
        for password, status in (("open barley", "failed"), ("open sesame", "published")):
            auth = base64.b64encode(f"pusher:{password}".encode()).decode()
            config = {"auths": {pier.host: {"auth": auth}}}
            (tmp_path / "config.json").write_text(json.dumps(config))
            outcome, told = pier.publish(tags=pier.labels(), engine=False)
            assert outcome.status == status, outcome.error
            assert password not in told.text + str(outcome.error)
        assert store.tags(pier.repository) == ["1.0.0", "latest"]


def test_a_registry_that_forbids_deletion_says_so(
    first_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        registry(can_delete=False) as store,
        harboured(first_engine, store, tmp_path, monkeypatch) as pier,
    ):
        assert pier.publish(tags=pier.labels())[0].status == "published"
        gone = pier.shop.goldimg("unpublish", "docker", "-O", OS, "--version", "1.0.0", "--yes")
        assert gone.returncode == 4
        assert "UNSUPPORTED" in gone.stdout + gone.stderr
        assert len(pier.shop.publications) == 1


def test_an_engine_that_is_not_there_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = make_shop(tmp_path / "site", "docker")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    done = shop.goldimg("upload", "docker", "-O", OS)
    assert done.returncode == 4
    assert f"no engine answers at unix://{tmp_path}/no.sock" in done.stderr
    assert "DOCKER_HOST=" in done.stderr
    bad = shop.goldimg("upload", "docker", "-O", OS, "--var=publish.docker.repository=a//b")
    assert bad.returncode == 4
    assert "'a//b' cannot be a repository" in bad.stderr


# --- channels -----------------------------------------------------------------------------------


def test_a_channel_is_a_tag_that_moves(harbour: Harbour) -> None:
    newer = replace(harbour, shop=make_shop(harbour.shop.root, "docker", version="1.1.0", seed=2))
    own: dict[str, Any] = {"tags": harbour.labels()}
    for each in (harbour, newer):
        assert each.publish(**own)[0].status == "published"

    def named() -> tuple[str, str]:
        """The versions that the engine and the registry call stable."""
        label = "org.opencontainers.image.version"
        manifest = json.loads(harbour.registry.manifest(harbour.repository, "stable"))
        blob = harbour.registry.get(f"{harbour.repository}/blobs/{manifest['config']['digest']}")
        engine = harbour.inspect("stable")["Config"]["Labels"][label]
        return engine, blob.json()["config"]["Labels"][label]

    promote(harbour.shop, harbour.publisher(**own)[0])
    assert named() == ("1.0.0", "1.0.0")
    harbour.to_registry.fail("PUT", "/manifests/stable", status=403, body=b"{}", times=1)
    with pytest.raises(RegistryError):
        promote(newer.shop, newer.publisher(**own)[0])
    assert means(newer.shop) == "1.0.0"
    assert named() == ("1.1.0", "1.0.0")
    harbour.to_registry.heal()
    promote(newer.shop, newer.publisher(**own)[0])
    assert named() == ("1.1.0", "1.1.0")
    assert means(newer.shop) == "1.1.0"
    for proxy in (harbour.to_engine, harbour.to_registry):
        proxy.log.clear()
    assert promote(newer.shop, newer.publisher(**own)[0]) == []
    seen = {it[0] for it in (*harbour.to_engine.log, *harbour.to_registry.log)}
    assert seen <= {"GET", "HEAD"}
    take_back = ("unpublish", "docker", "-O", OS, "--yes", "--version")
    done = harbour.shop.goldimg(*take_back, "1.0.0")
    assert done.returncode == 0, done.stderr  # it has lost the tag: that stays
    assert named() == ("1.1.0", "1.1.0")
    done = harbour.shop.goldimg(*take_back, "1.1.0", "--force")
    assert done.returncode == 0, done.stderr
    assert harbour.images == []
    assert harbour.registry.tags(harbour.repository) == []
