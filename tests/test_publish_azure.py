"""Publishing to Azure: Azurite for the blobs, our own Resource Manager for the rest."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError, ServiceRequestError
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from goldimg.config.publish.azure import AzurePublish
from goldimg.errors import ConfigError
from goldimg.formats.source import Disk
from goldimg.publish.azure import PUBLISHER, arm, faults, operations
from goldimg.publish.azure.clients import Clients
from goldimg.publish.azure.names import next_version, plain, version_of
from goldimg.publish.azure.pages import LONGEST, blocks_of, joined
from goldimg.publish.records import published
from goldimg.publish.retry import Policy
from goldimg.publish.sweep import leftovers, remove_leftovers
from goldimg.publish.upload import Outcome
from tests.clouds.azure import Cloud, disk_pages, running
from tests.clouds.azurite import ACCOUNT, DISKS, SPARE
from tests.promoting import left_to_do, means, promote
from tests.publishing import GOLDIMG, OS, QUICK, Shop, Told, finish_image, make_shop, session
from tests.publishing import publish as publish_with

NAME = f"{OS}-1.0.0_azure"
BLOB, PAGE = f"{ACCOUNT}/images/{NAME}.vhd", "comp=page($|&)"
GALLERY: dict[str, Any] = {"name": "gold"}
WAYS: dict[str, dict[str, Any]] = {
    "image by blob": {},
    "image by disk": {"via": "disk"},
    "version by blob": {"gallery": GALLERY},
    "version by disk": {"via": "disk", "gallery": GALLERY},
}
# What each way leaves when it is done, beside the storage account.
RESULTS = {
    "image by blob": [f"images {NAME}"],
    "image by disk": [f"images {NAME}"],
    "version by blob": ["galleries/images/versions 1.0.0", f"galleries/images {OS}-gen1"],
    "version by disk": ["galleries/images/versions 1.0.0", f"galleries/images {OS}-gen1"],
}
ways = pytest.mark.parametrize("way", list(WAYS))


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with running(tmp_path_factory.mktemp("azure")) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return make_shop(tmp_path_factory.mktemp("site"), "azure", mib=24)


@dataclass(kw_only=True)
class User:
    """Somebody with a finished image, and a subscription that an admin has furnished."""

    cloud: Cloud
    shop: Shop

    def publisher(self, policy: Policy = QUICK, **options: Any) -> tuple[PUBLISHER, Told]:
        made, told = session("azure", policy)
        given: dict[str, Any] = {
            "cloud": self.cloud.manager.url,
            "group": "images",
            "regions": "westeurope",
            "storage_account": ACCOUNT,
            "create": "gallery" in options,
            **options,
        }
        return PUBLISHER(AzurePublish(**given), made), told

    def publish(self, *, force: bool = False, **options: Any) -> tuple[Outcome, Told]:
        publisher, told = self.publisher(**options)
        return publish_with(self.shop, publisher, force=force), told

    @property
    def vhd(self) -> Path:
        return self.shop.directory / f"{NAME}.vhd"

    def blob(self) -> bytes:
        return bytes(self.cloud.blob(f"{NAME}.vhd").download_blob().readall())

    def results(self) -> list[str]:
        """All resources but the storage account and the gallery itself."""
        fixed = (f"storageAccounts {ACCOUNT}", "galleries gold")
        return [it for it in self.cloud.kinds() if it not in fixed]

    def assert_published(self, outcome: Outcome, way: str) -> None:
        """Whole, equal, recorded, and nothing else there."""
        assert outcome.status in ("published", "already there"), outcome.error
        assert self.results() == sorted(RESULTS[way])
        if "disk" in way:
            assert self.cloud.stored(DISKS).get("disks", []) == []
            assert self.cloud.stored()["images"] == []
        else:
            assert self.cloud.stored() == {"images": [f"{NAME}.vhd"]}
            assert self.blob() == self.vhd.read_bytes()
            metadata = self.cloud.blob(f"{NAME}.vhd").get_blob_properties().metadata
            assert "goldimg_state" not in metadata
        assert self.shop.journals == []
        [record] = self.shop.publications
        assert record["ids"]
        assert record["verified"]
        assert self.cloud.wrong == []

    def assert_nothing_left(self, outcome: Outcome) -> None:
        """As before the run: neither there nor here."""
        assert outcome.kept == outcome.left == ()
        assert self.results() == []
        assert self.cloud.stored() == {"images": []}
        assert self.cloud.stored(DISKS).get("disks", []) == []
        assert self.shop.journals == []
        assert self.shop.publications == []

    def afresh(self) -> None:
        """Forgets all that was published."""
        self.cloud.reset()
        self.cloud.furnish()
        (self.shop.directory / "manifest.json").unlink()  # with its publications
        finish_image(self.shop, mib=24)


@pytest.fixture
def user(
    azure: Cloud, built: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[User]:
    """A copy of the finished image, and an empty group with a storage account."""
    azure.reset()
    azure.furnish()
    for name, value in azure.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(operations, "INTERVAL", 0.02)
    monkeypatch.setattr(arm, "INTERVAL", 0.02)
    shop = make_shop(tmp_path, "azure", mib=24)
    yield User(cloud=azure, shop=shop)
    assert azure.wrong == []


@ways
def test_an_image_is_published_once(user: User, way: str) -> None:
    outcome, _ = user.publish(**WAYS[way])
    assert outcome.status == "published"
    user.assert_published(outcome, way)
    sent = user.cloud.blobs.sent("PUT", PAGE)
    with Disk(user.vhd) as opened:
        allocated = opened.allocated
    assert allocated <= sent <= 1.02 * allocated + 512
    assert sent < 0.5 * user.vhd.stat().st_size
    user.cloud.blobs.heal()
    user.cloud.manager.heal()
    again, _ = user.publish(**WAYS[way])
    assert again.status == "already there", again.error
    assert user.cloud.blobs.count("PUT", ".") == 0
    assert user.cloud.manager.count("PUT|POST|DELETE|PATCH", ".") == 0
    assert len(user.shop.publications) == 1


def test_the_story_of_a_user(user: User) -> None:
    """From an empty subscription, by the command line alone."""
    user.cloud.reset()
    site = f"""
publish:
  azure:
    cloud: {user.cloud.manager.url}
    group: images
    regions: [westeurope, "northeurope:2:Standard_ZRS"]
    storage_account: {ACCOUNT}
    tags: {{team: platform}}
    gallery:
      name: gold
      publisher: example
      end_of_life: 2030-01-31
      exclude_from_latest: true
      block_deletion_before_end_of_life: false
"""
    (user.shop.root / "templates/site.yml").write_text(site)
    refused = user.shop.goldimg("upload", "azure", "-O", OS)
    assert refused.returncode == 4
    assert "no resource group images" in refused.stderr
    assert "--create" in refused.stderr
    dry = user.shop.goldimg("upload", "azure", "-O", OS, "--create", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    for part in ("(will be created)", "Put Page", "northeurope (2 x Standard_ZRS)", NAME):
        assert part in dry.stdout
    assert user.cloud.kinds() == []
    done = user.shop.goldimg("upload", "azure", "-O", OS, "--create")
    assert done.returncode == 0, done.stderr
    assert user.results() == sorted(RESULTS["version by blob"])
    assert user.blob() == user.vhd.read_bytes()
    profile = user.cloud.find("versions", "1.0.0")["properties"]["publishingProfile"]
    assert profile["targetRegions"] == [
        {
            "name": "westeurope",
            "regionalReplicaCount": 1,
            "storageAccountType": "Standard_LRS",
        },
        {
            "name": "northeurope",
            "regionalReplicaCount": 2,
            "storageAccountType": "Standard_ZRS",
        },
    ]
    assert profile["excludeFromLatest"] is True
    assert profile["endOfLifeDate"].startswith("2030-01-31T00:00:00")
    tags = user.cloud.find("versions", "1.0.0")["tags"]
    assert tags["team"] == "platform"
    assert tags["goldimg-version"] == "1.0.0"
    definition = user.cloud.find("galleries/images", f"{OS}-gen1")["properties"]
    assert definition["identifier"] == {
        "publisher": "example",
        "offer": "Debian",
        "sku": "12-gen1",
    }
    again = user.shop.goldimg("upload", "azure", "-O", OS, "--create")
    assert again.returncode == 0
    assert "already there" in again.stdout
    shown = json.loads(user.shop.goldimg("published", "-O", OS, "--json").stdout)
    text = json.dumps(shown)
    assert "galleries/gold/images" in text
    assert "northeurope" in text
    clean = user.shop.goldimg("gc", "azure", "-O", OS)
    assert "nothing is left over" in clean.stderr, clean.stderr
    taken = user.shop.goldimg("unpublish", "azure", "-O", OS, "--version", "1.0.0", "--yes")
    assert taken.returncode == 0, taken.stderr
    assert user.results() == [f"galleries/images {OS}-gen1"]
    assert user.cloud.stored() == {"images": []}
    assert user.shop.publications == []
    for result in (refused, dry, done, again, taken):
        assert "eyJ" not in result.stdout + result.stderr, "a token was shown"


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"status": 500, "times": 2}, id="500"),
        pytest.param({"status": 429, "headers": {"Retry-After": "1"}}, id="429"),
        pytest.param({"delay": 2.0}, id="slow"),
        pytest.param({"cut": 1000}, id="cut on the way there"),
        pytest.param({"cut": -1}, id="cut before the answer"),
        pytest.param({"corrupt": 100}, id="corrupted"),
    ],
)
def test_a_network_that_fails_now_and_then(user: User, fault: dict[str, Any]) -> None:
    user.cloud.blobs.fail("PUT", PAGE, skip=1, **fault)
    put = f"images/{NAME}.vhd$"
    user.cloud.blobs.fail("PUT", put, **({"status": 503} if "corrupt" in fault else fault))
    for place in ("versions/1.0.0", "operations/"):
        user.cloud.manager.fail("PUT|GET", place, skip=1, status=503)
    user.cloud.manager.fail("PUT", "versions/1.0.0", cut="after")
    outcome, _ = user.publish(gallery=GALLERY)
    user.assert_published(outcome, "version by blob")


def failing_steps(user: User, way: str) -> Iterator[tuple[str, int]]:
    """Every third request of a whole run, by service and number."""
    user.afresh()
    outcome, _ = user.publish(**WAYS[way])
    user.assert_published(outcome, way)
    asked = [path for _, path, *_ in user.cloud.manager.log if "/msi/" not in path]
    counts = {"manager": len(asked), "blobs": len(user.cloud.blobs.log)}
    for service, count in counts.items():
        assert count > 3
        yield from ((service, number) for number in range(count % 3, count, 3))


class Counted:
    """Counts requests, and acts on one of them."""

    def __init__(self, number: int = 0, act: Callable[[], None] | None = None) -> None:
        self.seen, self._number, self._act = 0, number, act

    def __call__(self) -> None:
        self.seen += 1
        if self.seen == self._number and self._act:
            self._act()


RESUMABLE = {"blob", "disk", "image version"}


@pytest.mark.parametrize("way", ["image by blob", "version by disk"])
def test_a_run_that_fails_at_any_step(user: User, way: str) -> None:
    """What cannot be gone on with is gone; the next run ends as if nothing had been."""
    for service, number in list(failing_steps(user, way)):
        user.afresh()
        refusal = {"status": 400, "skip": number}
        if service == "manager":
            user.cloud.manager.fail(".*", "^/(subscriptions|operations)", code="Told", **refusal)
        else:
            user.cloud.blobs.fail(".*", ".", **refusal)
        outcome, _ = user.publish(**WAYS[way])
        step = f"{service} {number}"
        assert {it.kind for it in outcome.kept} <= RESUMABLE, step
        if outcome.status == "failed":
            assert not outcome.left, step
            if not outcome.kept:
                user.assert_nothing_left(outcome)
        user.cloud.manager.heal()
        user.cloud.blobs.heal()
        again, _ = user.publish(**WAYS[way])
        assert again.status in ("published", "already there"), f"{step}: {again.error}"
        user.assert_published(again, way)


@pytest.mark.parametrize("way", ["image by disk", "version by blob"])
def test_a_run_that_is_interrupted_at_any_step(user: User, way: str) -> None:
    user.afresh()
    counted = Counted()
    user.cloud.on_request = counted
    user.publish(**WAYS[way])
    for number in range(1, counted.seen, 4):
        user.afresh()
        publisher, _ = user.publisher(**WAYS[way])
        user.cloud.on_request = Counted(number, publisher.session.runner.cancel.set)
        outcome = publish_with(user.shop, publisher)
        assert outcome.status in ("interrupted", "published", "already there"), outcome.error
        assert {it.kind for it in outcome.kept} <= RESUMABLE
        assert not outcome.left
        user.cloud.on_request = None
        again, _ = user.publish(**WAYS[way])
        user.assert_published(again, way)


@pytest.mark.parametrize("way", ["image by blob", "image by disk"])
def test_a_killed_upload_goes_on(user: User, way: str) -> None:
    """Killed while pages are sent: only those that had not arrived are sent again."""
    finish_image(user.shop, mib=64)
    whole, _ = user.publish(**WAYS[way])
    user.assert_published(whole, way)
    total, count = user.cloud.blobs.sent("PUT", PAGE), user.cloud.blobs.count("PUT", PAGE)
    user.afresh()
    finish_image(user.shop, mib=64)
    user.cloud.blobs.fail("PUT", PAGE, skip=count - 3, times=100, delay=20, cut=0)
    settings = {"cloud": user.cloud.manager.url, "group": "images", "regions": "westeurope"}
    settings |= {"storage_account": ACCOUNT, "workers": "2", **WAYS[way]}
    words = [f"--var=publish.azure.{key}={value}" for key, value in settings.items()]
    with subprocess.Popen(
        [GOLDIMG, "upload", "azure", "-O", OS, *words],
        cwd=user.shop.root,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        wait_for(lambda: user.cloud.blobs.count("PUT", PAGE) >= count - 3)
        process.send_signal(signal.SIGKILL)
    user.cloud.blobs.heal()
    [journal] = user.shop.journals
    assert "sig=" not in journal.read_text()
    again, told = user.publish(**WAYS[way])
    user.assert_published(again, way)
    assert user.cloud.blobs.sent("PUT", PAGE) < 0.35 * total
    assert "going on after" in told.text


def wait_for(is_done: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not is_done():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def unfinished(user: User, way: str = "image by blob") -> Outcome:
    """An upload that broke off after some pages."""
    user.cloud.blobs.fail("PUT", PAGE, skip=3, times=1000, status=400)
    outcome, _ = user.publish(workers=1, **WAYS[way])
    assert outcome.status == "failed"
    assert outcome.kept
    user.cloud.blobs.heal()
    return outcome


def test_another_machine_goes_on_with_an_upload(user: User) -> None:
    """Without the journal, what is there is compared; what differs is sent anew."""
    unfinished(user)
    [journal] = user.shop.journals
    journal.unlink()
    client = user.cloud.blob(f"{NAME}.vhd")
    [first, *_] = client.list_page_ranges()
    client.upload_page(b"\xff" * 512, offset=int(first.start or 0), length=512)
    outcome, told = user.publish()
    user.assert_published(outcome, "image by blob")
    assert "going on after" in told.text


def test_pages_that_vanish_are_sent_again(user: User) -> None:
    unfinished(user)
    client = user.cloud.blob(f"{NAME}.vhd")
    [first, *_] = client.list_page_ranges()
    client.clear_page(int(first.start or 0), 4096)
    outcome, _ = user.publish()
    user.assert_published(outcome, "image by blob")


@ways
def test_pages_that_never_arrive_are_noticed(user: User, way: str) -> None:
    """A service that says yes and keeps nothing."""
    user.cloud.blobs.fail("PUT", PAGE, skip=1, status=201)
    outcome, _ = user.publish(**WAYS[way])
    assert outcome.status == "failed"
    assert "pages that arrived are not those that were sent" in str(outcome.error)
    user.assert_nothing_left(outcome)


@pytest.mark.parametrize("way", ["image by blob", "image by disk"])
def test_every_page_is_read_back_where_asked_for(user: User, way: str) -> None:
    pages = f"{NAME}.vhd$|disks/[^?]*[?](?!.*pagelist)"
    user.cloud.blobs.fail("GET", pages, skip=2, corrupt_answer=50)
    outcome, _ = user.publish(verify="content", **WAYS[way])
    user.assert_published(outcome, way)
    read = user.cloud.blobs.count("GET", f"{NAME}.vhd|disks/")
    assert read > user.cloud.blobs.count("PUT", PAGE)
    user.afresh()
    user.cloud.blobs.fail("GET", pages, times=99, corrupt_answer=50)
    outcome, _ = user.publish(verify="content", **WAYS[way])
    assert "not what was sent" in str(outcome.error)
    user.assert_nothing_left(outcome)


@pytest.mark.parametrize("way", ["image by blob", "image by disk"])
def test_a_list_of_pages_that_was_damaged_on_the_way_is_asked_for_again(
    user: User, way: str
) -> None:
    """Its XML is no text any more."""
    user.cloud.blobs.fail("GET", "comp=pagelist", corrupt_answer=60)
    outcome, _ = user.publish(**WAYS[way])
    user.assert_published(outcome, way)


@ways
def test_a_damaged_file_is_not_published(user: User, way: str) -> None:
    with user.vhd.open("r+b") as stream:
        stream.seek(1000)
        stream.write(b"rotten")
    outcome, _ = user.publish(**WAYS[way])
    assert "is not what was built" in str(outcome.error)
    user.assert_nothing_left(outcome)


@ways
def test_another_image_of_the_name_stays_unless_forced(user: User, way: str) -> None:
    first, _ = user.publish(**WAYS[way])
    user.assert_published(first, way)
    before = user.cloud.manager.resources.copy()
    finish_image(user.shop, mib=24, seed=7)
    refused, _ = user.publish(**WAYS[way])
    assert refused.status == "failed"
    assert "another" in str(refused.error)
    assert "--force" in getattr(refused.error, "hint", "")
    assert user.cloud.manager.resources == before
    replaced, _ = user.publish(force=True, **WAYS[way])
    user.assert_published(replaced, way)
    assert user.cloud.manager.resources != before


def test_a_blob_of_somebody_else_stays_unless_forced(user: User) -> None:
    user.cloud.blob(f"{NAME}.vhd").upload_blob(b"mine")
    refused, _ = user.publish()
    assert "is another image" in str(refused.error)
    assert user.blob() == b"mine"
    replaced, _ = user.publish(force=True)
    user.assert_published(replaced, "image by blob")


@pytest.mark.parametrize(
    ("type_", "way"),
    [
        ("Microsoft.Compute/images", "image by blob"),
        ("Microsoft.Compute/galleries/images/versions", "version by disk"),
        ("Microsoft.Compute/disks", "version by disk"),
    ],
)
def test_an_operation_that_fails_is_told_and_undone(user: User, type_: str, way: str) -> None:
    user.cloud.manager.broken[type_] = ("InternalExecutionError", "the copy broke down")
    outcome, _ = user.publish(**WAYS[way])
    assert "InternalExecutionError; the copy broke down" in str(outcome.error)
    assert {it.kind for it in outcome.kept} <= {"blob", "disk"}
    assert not [it for it in user.results() if not it.startswith("disks")]
    user.cloud.manager.broken.clear()
    again, _ = user.publish(**WAYS[way])
    user.assert_published(again, way)


def test_a_managed_disk_is_equal_to_the_file(user: User) -> None:
    """Seen before it goes: the image that it was for failed, and it is kept for the next run."""
    user.cloud.manager.broken["Microsoft.Compute/images"] = ("InternalExecutionError", "broken")
    outcome, _ = user.publish(via="disk")
    [kept] = outcome.kept
    assert kept.kind == "disk"
    assert disk_pages(user.cloud, kept.id).download_blob().readall() == user.vhd.read_bytes()
    disk = user.cloud.find("disks", NAME)["properties"]
    assert disk["diskState"] == "Unattached"
    user.cloud.manager.broken.clear()
    user.cloud.blobs.heal()
    again, _ = user.publish(via="disk")
    user.assert_published(again, "image by disk")
    assert user.cloud.blobs.count("PUT", PAGE) == 0


def test_a_vhd_that_azure_refuses_is_not_kept(user: User) -> None:
    user.cloud.manager.broken["Microsoft.Compute/images"] = ("InvalidVhd", "a bad footer")
    outcome, _ = user.publish()
    assert "a bad footer" in str(outcome.error)
    user.assert_nothing_left(outcome)


def test_quotas_are_told(user: User) -> None:
    user.cloud.compute.most_disks = 0
    outcome, _ = user.publish(via="disk")
    assert "Disks quota" in str(outcome.error)
    assert "more quota" in getattr(outcome.error, "hint", "")
    assert user.results() == []
    user.afresh()
    user.cloud.galleries.most_replicas = 3
    outcome, _ = user.publish(via="disk", gallery={**GALLERY, "replicas": 9})
    assert "replica quota" in str(outcome.error)
    user.cloud.galleries.most_replicas = 100
    again, _ = user.publish(via="disk", gallery=GALLERY)
    user.assert_published(again, "version by disk")


def test_credentials_that_azure_does_not_take(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    user.cloud.manager.denied.append("PUT .*/images/")
    outcome, _ = user.publish()
    assert "AuthorizationFailed" in str(outcome.error)
    assert "role" in getattr(outcome.error, "hint", "")
    assert user.results() == []
    user.cloud.manager.heal()
    monkeypatch.setattr(user.cloud.manager, "tokens", set())
    monkeypatch.setattr(user.cloud.manager, "make_token", lambda _: "stale")
    outcome, _ = user.publish()
    assert outcome.status == "failed"
    assert "InvalidAuthenticationToken" in str(outcome.error)
    monkeypatch.setenv("IDENTITY_ENDPOINT", "http://127.0.0.1:1/")
    outcome, _ = user.publish()
    assert "no credentials" in str(outcome.error)
    assert "az login" in getattr(outcome.error, "hint", "")


def test_blobs_by_a_connection_string_from_the_environment(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = user.cloud.connection_string()
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", text)
    outcome, told = user.publish()
    user.assert_published(outcome, "image by blob")
    secret = text.split("AccountKey=")[1].split(";")[0]
    kept = (user.shop.directory / "manifest.json").read_text() + told.text
    assert secret not in kept
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", user.cloud.connection_string(SPARE))
    other, _ = user.publish()
    assert "is of the storage account goldspare" in str(other.error)


def test_a_version_gets_another_region_without_being_sent_again(user: User) -> None:
    first, _ = user.publish(gallery=GALLERY)
    user.assert_published(first, "version by blob")
    user.cloud.blobs.heal()
    wider, _ = user.publish(gallery=GALLERY, regions="westeurope,eastus:5")
    assert wider.status == "published", wider.error
    assert user.cloud.blobs.count("PUT", ".") == 0
    profile = user.cloud.find("versions", "1.0.0")["properties"]["publishingProfile"]
    assert [it["name"] for it in profile["targetRegions"]] == ["westeurope", "eastus"]
    assert profile["targetRegions"][1]["regionalReplicaCount"] == 5
    user.assert_published(wider, "version by blob")


def test_versions_count_up_and_blobs_may_go(user: User) -> None:
    counting = {**GALLERY, "version": "increment"}
    settings: dict[str, Any] = {"gallery": counting, "keep_blob": False}
    for seed, number in ((1, "1.0.0"), (2, "1.0.1")):
        finish_image(user.shop, mib=24, seed=seed)
        outcome, _ = user.publish(**settings)
        assert outcome.status == "published", outcome.error
        assert user.cloud.find("versions", number)["tags"]["goldimg-version"] == "1.0.0"
        assert user.cloud.stored() == {"images": []}
    again, _ = user.publish(**settings)
    assert again.status == "already there"


def test_a_definition_for_uefi_with_its_features(user: User) -> None:
    finish_image(user.shop, mib=24, firmware="efi")
    wants = {"security": "TrustedLaunchSupported", "nvme": True, "offer": "Linux"}
    outcome, _ = user.publish(gallery={**GALLERY, **wants})
    assert outcome.status == "published", outcome.error
    found = user.cloud.find("galleries/images", f"{OS}-gen2")["properties"]
    assert found["hyperVGeneration"] == "V2"
    assert {it["name"]: it["value"] for it in found["features"]} == {
        "SecurityType": "TrustedLaunchSupported",
        "IsAcceleratedNetworkSupported": "True",
        "DiskControllerTypes": "SCSI, NVMe",
    }
    other, _ = user.publish(gallery={**GALLERY, "offer": "Other"})
    assert "does not fit; identifier is" in str(other.error)


def test_what_runs_left_is_found_and_removed(user: User) -> None:
    unfinished(user)
    unfinished(user, "image by disk")
    user.cloud.manager.seconds = 3600
    for journal in user.shop.journals:
        journal.unlink()
    user.cloud.manager.seconds = 0.0
    removed = []
    for way in ("image by blob", "image by disk"):
        publisher, _ = user.publisher(**WAYS[way])
        found = leftovers(user.shop.site, publisher, [user.shop.directory], older=0)
        removed += [it.resource.kind for it in found]
        assert not [it for it in remove_leftovers(publisher, found) if it.error]
    assert sorted(removed) == ["blob", "disk"]
    assert user.results() == []
    assert user.cloud.stored() == {"images": []}


def test_what_create_made_is_removed_only_while_empty(user: User) -> None:
    """A refused VHD takes all with it that was made for it, and nothing of anybody else."""
    user.cloud.reset()
    user.cloud.manager.broken["Microsoft.Compute/images"] = ("InvalidVhd", "a bad footer")
    outcome, _ = user.publish(create=True)
    assert outcome.status == "failed"
    assert user.cloud.manager.resources == {}
    user.cloud.manager.heal()
    made, _ = user.publish(create=True)
    user.assert_published(made, "image by blob")


def test_a_version_that_is_being_made_is_waited_for(user: User) -> None:
    publisher, _ = user.publisher(gallery=GALLERY)
    user.cloud.manager.seconds = 0.0
    stop = publisher.session.runner.cancel.set
    user.cloud.on_request = lambda: (
        stop() if user.cloud.manager.count("PUT", "versions/1.0.0") else None
    )
    user.cloud.manager.fail("PUT", "versions/1.0.0", delay=0.0)
    outcome = publish_with(user.shop, publisher)
    assert outcome.status == "interrupted"
    assert "image version" in [it.kind for it in outcome.kept]
    user.cloud.on_request = None
    user.cloud.blobs.heal()
    again, _ = user.publish(gallery=GALLERY)
    user.assert_published(again, "version by blob")
    assert user.cloud.blobs.count("PUT", PAGE) == 0


def test_a_sas_that_expires_is_asked_for_again(user: User) -> None:
    forbidden = b"<?xml version='1.0'?><Error><Code>AuthenticationFailed</Code></Error>"
    user.cloud.blobs.fail("PUT", PAGE, skip=2, times=1, status=403, body=forbidden)
    outcome, told = user.publish(via="disk", workers=1)
    user.assert_published(outcome, "image by disk")
    assert user.cloud.manager.count("POST", "beginGetAccess") == 3
    assert "sig=" not in told.text


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"regions": "atlantis"}, "no region atlantis"),
        ({"group": "nowhere"}, "no resource group nowhere"),
        ({"storage_account": "nosuchaccount"}, "no storage account nosuchaccount"),
        ({"container": "elsewhere"}, "no container elsewhere"),
        ({"regions": "eastus"}, "is in westeurope"),
        ({"storage_account": "takenbyothers", "create": True}, "cannot be made"),
        ({"gallery": GALLERY, "create": False}, "no gallery gold"),
    ],
)
def test_what_is_missing_is_told_before_the_first_byte(
    user: User, settings: dict[str, Any], told: str
) -> None:
    outcome, _ = user.publish(**settings)
    assert outcome.status == "failed"
    assert told in str(outcome.error)
    assert user.cloud.blobs.count("PUT", ".") == 0
    assert user.cloud.manager.count("PUT", ".") == 0


def test_everything_that_is_missing_is_told_at_once(user: User) -> None:
    outcome, _ = user.publish(regions="atlantis", container="elsewhere")
    details = " ".join([str(outcome.error), *getattr(outcome.error, "details", ())])
    assert "no region atlantis" in details
    assert "no container elsewhere" in details
    bare, _ = session("azure")
    with pytest.raises(ConfigError) as caught:
        PUBLISHER(AzurePublish(), bare)._check_settings()
    assert "group, regions, storage_account" in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"storage_account": "Not-Valid"}, "storage_account"),
        ({"container": "a--b"}, "container"),
        ({"gallery": {"name": "a-b"}}, "name"),
        ({"regions": "westeurope:0"}, "regions"),
        ({"regions": "westeurope,westeurope:2"}, "a region twice"),
        ({"regions": "westeurope,eastus"}, "must be one"),
        ({"keep_blob": False}, "is for a gallery"),
        ({"subscription": "mine"}, "subscription"),
        ({"tags": {"azure-x": "y"}}, "tags"),
        ({"cloud": "http://127.0.0.1"}, "cloud"),
        ({"gallery": {"name": "a", "block_deletion_before_end_of_life": True}}, "end of life"),
        ({"generation": "V1", "gallery": {"name": "a", "security": "TrustedLaunch"}}, "V2"),
    ],
)
def test_settings_that_azure_would_refuse(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(ValidationError, match=key):
        AzurePublish(**settings)


def test_versions_of_galleries(built: Shop) -> None:
    image = built.image()
    for version, number in (("1", "1.0.0"), ("2026.11", "2026.11.0"), ("1.02.3", "1.2.3")):
        assert version_of(replace(image, version=version)) == number
    for version in ("1.0.0-rc1", "1.2.3.4", f"{2**31}.0.0"):
        with pytest.raises(ConfigError, match=r"major\.minor\.patch"):
            version_of(replace(image, version=version))
    assert next_version([]) == "1.0.0"
    assert next_version(["1.9.0", "1.10.2", "other"]) == "1.10.3"
    assert plain("12 (bookworm)/x.") == "12-bookworm-x"


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(1, 20))))
def test_joined_ranges_cover_the_same_bytes(parts: list[tuple[int, int]]) -> None:
    given_ = [(start, start + length) for start, length in parts]
    made = joined(given_)
    assert {at for a, b in made for at in range(a, b)} == {
        at for a, b in given_ for at in range(a, b)
    }
    assert all(first[1] < second[0] for first, second in pairwise(made))


def test_a_connection_error_shows_no_signature() -> None:
    """A managed disk's URL is a secret, and nobody answers there."""
    made, told = session("azure")
    made.is_transient = faults.is_transient
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    pages = Clients("public", "s").disk_pages(
        f"http://127.0.0.1:{port}/disks/x?sv=2024&sig=topsecret%2Fkey&se=1"
    )
    with pytest.raises(ServiceRequestError) as caught:
        faults.call(made, lambda: pages.upload_page(bytes(512), 0, 512), "Put Page")
    assert "attempt 2" in told.text
    assert "sig=…" in told.text, "the URL is shown"
    assert "topsecret" not in told.text + str(caught.value) + str(faults.explained(caught.value))


def test_pages_are_aligned_and_small(built: Shop) -> None:
    path = built.directory / f"{NAME}.vhd"
    with Disk(path) as opened:
        blocks = blocks_of(opened)
        for block in blocks:
            assert block.size <= LONGEST
            assert block.offset % 512 == block.size % 512 == 0
            assert block.offset + block.size <= opened.size
        assert blocks[-1].offset + blocks[-1].size == opened.size, "the footer is sent"


# --- channels -----------------------------------------------------------------------------------


@pytest.fixture
def newer(user: User) -> User:
    """The same user with a second version; both are published to a gallery."""
    other = replace(user, shop=make_shop(user.shop.root, "azure", version="1.1.0", mib=24, seed=2))
    for each in (user, other):
        outcome, _ = each.publish(gallery={**GALLERY, "exclude_from_latest": True})
        assert outcome.status == "published", outcome.error
    return other


def excluded(user: User) -> list[bool]:
    """Whether 1.0.0 and 1.1.0 are not counted as latest."""
    found = [user.cloud.find("versions", it)["properties"] for it in ("1.0.0", "1.1.0")]
    return [it["publishingProfile"]["excludeFromLatest"] for it in found]


def test_a_gallery_gives_the_version_of_the_channel_as_latest(user: User, newer: User) -> None:
    options: dict[str, Any] = {"gallery": {**GALLERY, "exclude_from_latest": True}}
    assert excluded(user) == [True, True]
    promote(user.shop, user.publisher(**options)[0])
    assert excluded(user) == [False, True]
    before = user.cloud.find("versions", "1.1.0")["properties"]["publishingProfile"]
    promote(newer.shop, newer.publisher(**options)[0])
    assert excluded(user) == [True, False]
    after = user.cloud.find("versions", "1.1.0")
    assert after["properties"]["publishingProfile"]["targetRegions"] == before["targetRegions"]
    assert after["tags"]["goldimg-channel-stable"] == "current"
    assert after["tags"]["goldimg-version"] == "1.1.0"
    user.cloud.manager.heal()
    assert promote(newer.shop, newer.publisher(**options)[0]) == []
    assert user.cloud.manager.count("PUT|PATCH", ".") == 0
    # another upload does not take back what a channel did
    assert newer.publish(**options)[0].status == "already there"
    options["gallery"] = {**options["gallery"], "replicas": 2}
    assert newer.publish(**options)[0].status == "published"
    assert excluded(user) == [True, False]
    promote(user.shop, user.publisher(**options)[0])  # back, to a lower version
    assert excluded(user) == [False, True]


def test_a_promotion_that_azure_refused_half_way_is_gone_on_with(user: User, newer: User) -> None:
    promote(user.shop, user.publisher(gallery=GALLERY)[0])
    user.cloud.manager.fail("PUT", r"versions/1\.0\.0", status=403, code="AuthorizationFailed")
    with pytest.raises(HttpResponseError):
        promote(newer.shop, newer.publisher(gallery=GALLERY)[0])
    assert means(newer.shop) == "1.0.0"
    assert excluded(user) == [False, False]
    user.cloud.manager.heal()
    promote(newer.shop, newer.publisher(gallery=GALLERY)[0])
    assert means(newer.shop) == "1.1.0"
    assert excluded(user) == [True, False]


def test_a_managed_image_is_only_tagged(user: User) -> None:
    assert user.publish()[0].status == "published"
    step = left_to_do(user.shop, user.publisher()[0])
    assert "has no 'latest'" in step.promoting.notes[0]
    promote(user.shop, user.publisher()[0])
    assert user.cloud.find("images", NAME)["tags"]["goldimg-channel-stable"] == "current"
    assert promote(user.shop, user.publisher()[0]) == []
    assert user.publish()[0].status == "already there"


def test_a_version_that_machines_use_is_told(user: User, newer: User) -> None:
    publisher, _ = user.publisher(gallery=GALLERY)
    first, second = (it for it in published(user.shop.site, OS, "azure"))
    assert publisher.use(first.publication).by == ()
    id_ = first.publication.resources[0].id
    used = {"storageProfile": {"imageReference": {"id": id_.upper()}}}
    machine = {"name": "web", "location": "westeurope", "properties": used}
    user.cloud.compute.users = {"virtualmachines": [machine]}
    assert publisher.use(first.publication).by == ("machine web",)
    scale_set = {"name": "farm", "location": "westeurope",
                 "properties": {"virtualMachineProfile": used}}  # fmt: skip
    user.cloud.compute.users = {"virtualmachinescalesets": [scale_set]}
    assert publisher.use(first.publication).by == ("scale set farm",)
    user.cloud.compute.users = {}
    promote(newer.shop, newer.publisher(gallery=GALLERY)[0])
    assert publisher.use(second.publication).by == ("who asks the gallery for its latest version",)
    user.cloud.manager.denied.append("GET .*virtualMachines")
    assert "could not be asked" in publisher.use(first.publication).unknown
