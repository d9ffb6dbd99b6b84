"""Publishing to Google Cloud: a real emulator of storage, a small Compute Engine of our own."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.api_core import exceptions as api
from google.cloud import compute_v1

from goldimg.config.publish.gcp import GcpPublish
from goldimg.errors import VerificationFailed
from goldimg.publish.gcp import GcpPublisher
from goldimg.publish.gcp import storage as sending
from goldimg.publish.gcp.names import FEATURES, label, resource_name
from goldimg.publish.publisher import Publisher
from goldimg.publish.records import published
from goldimg.publish.sweep import leftovers, remove_leftovers
from goldimg.publish.sweep import unpublish as take_back
from tests.clouds.gcp import NAME, Google, google_cloud
from tests.promoting import left_to_do, means, promote
from tests.publishing import MIB, Shop, Told, finish_image, make_shop, publish, session

IMAGE = "debian-12-1-0-0"


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Google]:
    with google_cloud(tmp_path_factory.mktemp("gcp")) as found:
        yield found


MADE: list[GcpPublisher] = []  # by the test that runs


@pytest.fixture
def google(services: Google, monkeypatch: pytest.MonkeyPatch) -> Iterator[Google]:
    services.clear()
    for name, value in services.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sending, "PART", MIB)  # several parts of a small file
    monkeypatch.setattr(sending, "ALONE", 2)  # in groups
    yield services
    while MADE:
        MADE.pop().close()


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return make_shop(tmp_path / "site", "gcp")


def publisher(google: Google, **options: Any) -> tuple[GcpPublisher, Told]:
    local, told = session("gcp")
    made = GcpPublisher(GcpPublish(**{**google.variables, **options}), local)
    local.is_transient = made.is_transient
    MADE.append(made)
    return made, told


def archive(shop: Shop) -> bytes:
    return shop.image().file("tar.gz").path.read_bytes()


def test_an_image_is_made_of_what_was_sent_and_nothing_else_stays(
    google: Google, shop: Shop
) -> None:
    made, _ = publisher(google, tags={"team": "platform"}, features="GVNIC,UEFI_COMPATIBLE")
    outcome = publish(shop, made)
    assert outcome.status == "published", outcome.error
    assert google.engine.contents[IMAGE] == archive(shop)
    assert google.objects() == []
    assert not shop.journals
    image = google.engine.images[IMAGE]
    assert image["family"] == "debian-12"
    assert image["labels"]["goldimg-version"] == "1-0-0"
    assert image["labels"]["team"] == "platform"
    assert "goldimg-state" not in image["labels"]
    assert [it["type"] for it in image["guestOsFeatures"]] == ["GVNIC", "UEFI_COMPATIBLE"]
    (record,) = shop.publications
    assert record["ids"] == {"demo-project": image["id"]}
    assert "CRC32C" in record["verified"]
    size = len(archive(shop))
    assert size > 3 * MIB  # several parts
    sent = google.storage.sent("POST", "/upload/") + google.storage.sent("PUT", "/upload/")
    assert sent < size * 1.02


def test_a_second_run_sends_nothing(google: Google, shop: Shop) -> None:
    publish(shop, publisher(google)[0])
    google.storage.heal()
    made, told = publisher(google)
    assert publish(shop, made).status == "already there"
    assert "already there" in told.text
    assert not [it for it in google.storage.log if it[0] in ("POST", "PUT")]


def test_an_image_for_uefi_says_so(google: Google, tmp_path: Path) -> None:
    shop = make_shop(tmp_path / "efi", "gcp", firmware="efi")
    assert publish(shop, publisher(google)[0]).status == "published"
    features = [it["type"] for it in google.engine.images[IMAGE]["guestOsFeatures"]]
    assert features == ["VIRTIO_SCSI_MULTIQUEUE", "UEFI_COMPATIBLE"]


@pytest.mark.parametrize(
    ("which", "method", "path"),
    [
        ("storage", "POST", r"/upload/"),
        ("storage", "POST", r"/compose"),
        ("compute", "POST", r"/global/images$|/global/images\?"),
        ("compute", "GET", r"/operations/"),
        ("compute", "POST", r"/setLabels"),
        ("compute", "POST", r"/setIamPolicy"),
    ],
)
def test_every_call_is_tried_again_after_a_passing_fault(
    google: Google, shop: Shop, which: str, method: str, path: str
) -> None:
    proxy = getattr(google, which)
    fault = proxy.fail(method, path, status=503, times=2, body=b'{"error":{"message":"tired"}}')
    made, _ = publisher(google, share="group:ops@example.com")
    outcome = publish(shop, made)
    assert outcome.status == "published", outcome.error
    assert fault.hits >= 3
    assert google.engine.contents[IMAGE] == archive(shop)


@pytest.mark.parametrize(
    ("which", "method", "path"),
    [
        ("storage", "POST", r"/upload/.*"),
        ("storage", "POST", r"/compose"),
        ("compute", "POST", r"/global/images(\?|$)"),
        ("compute", "GET", r"/operations/"),
        ("compute", "POST", r"/setLabels"),
        ("compute", "POST", r"/deprecate"),
    ],
)
def test_a_run_that_fails_at_any_step_is_gone_on_with(
    google: Google, shop: Shop, tmp_path: Path, which: str, method: str, path: str
) -> None:
    other = make_shop(tmp_path / "site", "gcp", version="0.9.0", seed=7)
    assert publish(other, publisher(google)[0]).status == "published"
    google.storage.heal()
    google.compute.heal()
    shop = Shop(root=shop.root, provider="gcp", version="1.0.0")
    refusal = b'{"error":{"code":403,"message":"Required permission","errors":[]}}'
    skip = 1 if "upload" in path else 0
    proxy = getattr(google, which)
    fault = proxy.fail(method, path, status=403, times=99, skip=skip, body=refusal)
    made, _ = publisher(google, previous="deprecated")
    outcome = publish(shop, made)
    assert fault.hits
    assert outcome.status == "failed"
    assert "permission denied" in str(outcome.error)
    assert "docs/upload-gcp.md" in getattr(outcome.error, "hint", "")
    sent = google.storage.sent("POST", "/upload/") + google.storage.sent("PUT", "/upload/")
    google.storage.heal()
    google.compute.heal()
    again, _ = publisher(google, previous="deprecated")
    assert publish(shop, again).status == "published"
    if "upload" not in path:
        later = google.storage.sent("POST", "/upload/") + google.storage.sent("PUT", "/upload/")
        assert later == 0 < sent  # what had arrived is not sent again
    assert google.engine.contents[IMAGE] == archive(shop)
    assert google.objects() == []
    assert not shop.journals
    assert google.engine.images["debian-12-0-9-0"]["deprecated"]["state"] == "DEPRECATED"
    assert google.engine.images["debian-12-0-9-0"]["deprecated"]["replacement"].endswith(IMAGE)


def test_parts_that_arrived_before_a_ctrl_c_are_not_sent_again(google: Google, shop: Shop) -> None:
    made, _ = publisher(google)
    parts = len(archive(shop)) // MIB + 1
    count = []

    def stop() -> None:
        count.append(1)
        if len(count) == parts // 2:
            made.session.runner.cancel.set()

    google.storage.fail("POST", "/upload/", times=10**6, then=stop)
    outcome = publish(shop, made)
    assert outcome.status == "interrupted"
    assert outcome.kept
    first = google.storage.sent("POST", "/upload/") + google.storage.sent("PUT", "/upload/")
    google.storage.heal()
    again, told = publisher(google)
    assert publish(shop, again).status == "published"
    assert "going on after" in told.text
    second = google.storage.sent("POST", "/upload/") + google.storage.sent("PUT", "/upload/")
    assert first + second < len(archive(shop)) * 1.1 + 7 * MIB
    assert second < len(archive(shop)) * 0.8
    assert google.engine.contents[IMAGE] == archive(shop)


def test_parts_are_composed_while_others_are_sent(
    google: Google, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "WORKERS", 1)
    parts = len(archive(shop)) // MIB + 1
    google.storage.fail("POST", "/upload/", delay=1.0, skip=parts - 1)  # the last
    assert publish(shop, publisher(google)[0]).status == "published"
    calls = [path for method, path, *_ in google.storage.log if method == "POST"]
    composed = [number for number, path in enumerate(calls) if "/compose" in path]
    sent = [number for number, path in enumerate(calls) if "/upload/" in path]
    assert len(composed) > 2
    assert composed[0] < sent[-1]


def test_parts_that_somebody_removed_are_sent_again(google: Google, shop: Shop) -> None:
    google.storage.fail("POST", r"goldimg%2Fdebian.*/compose", status=403, times=9, body=b"{}")
    assert publish(shop, publisher(google)[0]).status == "failed"
    assert google.objects()
    google.clear()
    outcome = publish(shop, publisher(google)[0])
    assert outcome.status == "failed"
    assert "parts that were sent are gone" in str(outcome.error)
    assert publish(shop, publisher(google)[0]).status == "published"
    assert google.engine.contents[IMAGE] == archive(shop)
    assert google.objects() == []


def test_a_part_that_changed_on_the_way_is_refused_and_sent_again(
    google: Google, shop: Shop
) -> None:
    google.storage.fail("POST", "/upload/", corrupt=600_000, times=1)
    outcome = publish(shop, publisher(google)[0])
    assert outcome.status == "published", outcome.error
    assert google.engine.contents[IMAGE] == archive(shop)


def test_a_cut_connection_is_no_failure(google: Google, shop: Shop) -> None:
    google.storage.fail("POST", "/upload/", cut=200_000, times=2)
    google.compute.fail("POST", r"/global/images(\?|$)", cut=-1, times=0)
    outcome = publish(shop, publisher(google)[0])
    assert outcome.status == "published", outcome.error
    assert google.engine.contents[IMAGE] == archive(shop)


def test_an_insert_whose_answer_was_lost_does_not_make_a_second_image(
    google: Google, shop: Shop
) -> None:
    google.compute.fail("POST", r"/global/images(\?|$)", cut=-1, times=1)
    outcome = publish(shop, publisher(google)[0])
    if outcome.status == "failed":  # the name was taken, by ourselves
        outcome = publish(shop, publisher(google)[0])
    assert outcome.status == "published", outcome.error
    assert list(google.engine.images) == [IMAGE]
    assert google.objects() == []


def test_an_archive_that_is_rejected_leaves_nothing(google: Google, shop: Shop) -> None:
    google.engine.fail_import = ("INVALID_IMAGE", "no boot sector")
    outcome = publish(shop, publisher(google)[0])
    assert outcome.status == "failed"
    assert "no boot sector" in str(outcome.error)
    assert google.objects() == []
    assert google.engine.images == {}
    assert not shop.journals


def test_a_quota_error_keeps_what_was_sent(google: Google, shop: Shop) -> None:
    google.engine.fail_import = ("QUOTA_EXCEEDED", "Quota 'IMAGES' exceeded.  Limit: 100.0")
    outcome = publish(shop, publisher(google)[0])
    assert outcome.status == "failed"
    assert "Quota 'IMAGES' exceeded" in str(outcome.error)
    assert {it.kind for it in outcome.kept} == {"object", "image"}
    google.storage.heal()
    assert publish(shop, publisher(google)[0]).status == "published"
    assert google.storage.sent("POST", "/upload/") == 0


def test_a_name_taken_by_another_image(google: Google, shop: Shop) -> None:
    publish(shop, publisher(google)[0])
    before = google.engine.contents[IMAGE]
    finish_image(shop, seed=2)
    outcome = publish(shop, publisher(google)[0])
    assert outcome.status == "failed"
    assert "is another image" in str(outcome.error)
    assert google.engine.contents[IMAGE] == before
    assert google.objects() == []
    assert publish(shop, publisher(google)[0], force=True).status == "published"
    assert google.engine.contents[IMAGE] == archive(shop)
    assert len(shop.publications) == 1


def test_sharing_adds_to_who_has_it(google: Google, shop: Shop) -> None:
    publish(shop, publisher(google, share="group:ops@example.com")[0])
    outcome = publish(shop, publisher(google, share="user:a@example.com", public=True)[0])
    assert outcome.status == "published"
    (binding,) = google.engine.policies[IMAGE]["bindings"]
    assert binding["role"] == "roles/compute.imageUser"
    assert binding["members"] == [
        "allAuthenticatedUsers", "group:ops@example.com", "user:a@example.com",
    ]  # fmt: skip
    again = publish(shop, publisher(google, share="user:a@example.com", public=True)[0])
    assert again.status == "already there"


def test_the_object_stays_where_asked_and_goes_with_the_image(google: Google, shop: Shop) -> None:
    publish(shop, publisher(google, keep_object=True)[0])
    (name,) = google.objects()
    assert name.startswith("goldimg/debian-12-1-0-0-")
    assert name.endswith(".tar.gz")
    assert leftovers(shop.site, publisher(google)[0], [shop.directory], older=0) == []
    (record,) = published(shop.site, "Debian-12", "gcp")
    ended = take_back(shop.site, publisher(google, keep_object=True)[0], record)
    assert not [it.error for it in ended if it.error]
    assert google.objects() == []
    assert google.engine.images == {}


def test_gc_finds_what_a_killed_run_left(google: Google, shop: Shop) -> None:
    made, _ = publisher(google)
    google.compute.fail("POST", r"/global/images(\?|$)", status=403, times=9, body=b"{}")
    publish(shop, made)
    assert google.objects()
    for journal in shop.journals:
        journal.unlink()  # the disk of that machine is gone
    google.compute.heal()
    gc, _ = publisher(google)
    found = leftovers(shop.site, gc, [shop.directory], older=0)
    assert found
    assert not [it.error for it in remove_leftovers(gc, found) if it.error]
    assert google.objects() == []


def test_wrong_credentials_are_told_before_anything_is_sent(google: Google, shop: Shop) -> None:
    google.engine.refuse_login = True
    outcome = publish(shop, publisher(google)[0])
    assert outcome.status == "failed"
    assert "the credentials were refused" in str(outcome.error)
    assert "PRIVATE KEY" not in str(outcome.error)
    assert google.objects() == []


def test_no_credentials(
    google: Google, shop: Shop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "absent.json"))
    outcome = publish(shop, publisher(google)[0])
    assert "no credentials were found" in str(outcome.error)
    assert "gcloud auth application-default login" in getattr(outcome.error, "hint", "")


def test_a_bucket_that_is_missing(google: Google, shop: Shop) -> None:
    outcome = publish(shop, publisher(google, bucket="others-images")[0])
    assert "there is no bucket others-images" in str(outcome.error)
    outcome = publish(shop, publisher(google, bucket="new-images", create=True)[0])
    assert outcome.status == "published", outcome.error
    assert google.objects("new-images") == []


@pytest.mark.parametrize(
    "kept",
    [{"retentionPolicy": {"retentionPeriod": "3600"}}, {"defaultEventBasedHold": True}],
    ids=["retention", "hold"],
)
def test_a_bucket_that_keeps_every_object_is_refused_before_the_first_byte(
    google: Google, shop: Shop, kept: dict[str, Any]
) -> None:
    answer = {"kind": "storage#bucket", "name": "images", **kept}
    google.storage.fail("GET", r"/b/images(\?|$)", status=200, body=json.dumps(answer).encode())
    outcome = publish(shop, publisher(google)[0])
    assert "bucket images does not let objects be removed" in str(outcome.error)
    assert google.storage.sent("POST", "/upload/") == 0


def damage(shop: Shop, at: float) -> Path:
    """Changes a byte of the archive, at this share of it."""
    path = shop.image().file("tar.gz").path
    with path.open("r+b") as stream:
        place = int(path.stat().st_size * at)
        stream.seek(place)
        byte = stream.read(1)
        stream.seek(place)
        stream.write(bytes((byte[0] ^ 1,)))
    return path


def test_an_archive_whose_front_is_damaged_is_not_sent(google: Google, shop: Shop) -> None:
    damage(shop, 0.0)
    outcome = publish(shop, publisher(google)[0])
    assert outcome.status == "failed"
    assert isinstance(outcome.error, VerificationFailed)
    assert not [it for it in google.storage.log if it[0] == "POST"]


def test_of_an_archive_damaged_in_the_middle_no_image_is_made(google: Google, shop: Shop) -> None:
    path = damage(shop, 0.6)
    dry = publish(shop, publisher(google)[0], dry_run=True)
    outcome = publish(shop, publisher(google)[0])
    for it in (dry, outcome):
        assert it.status == "failed"
        assert isinstance(it.error, VerificationFailed)
        assert str(path) in str(it.error)
    assert google.objects() == []
    assert google.engine.images == {}
    assert google.compute.count("POST", "/global/images") == 0
    assert not shop.journals
    assert not outcome.kept


def test_another_sound_archive_than_the_manifests_is_refused(
    google: Google, shop: Shop, tmp_path: Path
) -> None:
    """Every rule of the format is kept; only the SHA-256 tells."""
    shop.exchange(make_shop(tmp_path / "other", "gcp", seed=5), "tar.gz")
    outcome = publish(shop, publisher(google)[0])
    assert outcome.status == "failed"
    assert "its SHA-256 is another than manifest.json says" in str(outcome.error)
    assert google.objects() == []
    assert google.engine.images == {}


def test_a_ctrl_c_ends_the_check_that_goes_on_beside(
    google: Google, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _ = publisher(google)
    begun, heeded = threading.Event(), []

    def endless(_: Path, heed: Callable[[], None]) -> None:
        begun.set()
        while True:
            time.sleep(0.01)
            try:
                heed()
            except BaseException as error:
                heeded.append(error)
                raise

    monkeypatch.setattr(made, "check_format", endless)

    def stop() -> None:
        begun.wait(30)
        time.sleep(0.5)
        made.session.runner.cancel.set()

    threading.Thread(target=stop).start()
    outcome = publish(shop, made)
    assert outcome.status == "interrupted"
    assert heeded
    assert google.engine.images == {}
    assert {it.kind for it in outcome.kept} == {"object"}
    google.storage.heal()
    assert publish(shop, publisher(google)[0]).status == "published"
    assert google.engine.contents[IMAGE] == archive(shop)


def test_what_a_run_has_proven_the_next_one_does_not_read_again(
    google: Google, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    google.compute.fail("POST", r"/global/images(\?|$)", status=403, times=9, body=b"{}")
    assert publish(shop, publisher(google)[0]).status == "failed"
    google.compute.heal()
    made, _ = publisher(google)
    read = []
    monkeypatch.setattr(made, "check_format", lambda *_: read.append(1))
    assert publish(shop, made).status == "published"
    assert not read
    assert not shop.journals


def test_the_command_line_tells_the_whole_story(google: Google, shop: Shop) -> None:
    lines = [f"    {key}: {value}" for key, value in google.variables.items()]
    (shop.root / "templates/site.yml").write_text("publish:\n  gcp:\n" + "\n".join(lines) + "\n")
    dry = shop.goldimg("upload", "gcp", "--dry-run", env=google.env)
    assert dry.returncode == 0, dry.stderr
    assert "images.insert: debian-12-1-0-0, family debian-12" in dry.stdout
    assert google.engine.images == {}
    done = shop.goldimg("upload", "gcp", "--share", "group:ops@example.com", env=google.env)
    assert done.returncode == 0, done.stderr
    assert "published" in done.stdout
    assert "demo-project" in done.stdout
    shown = shop.goldimg("published", "--json")
    (record,) = json.loads(shown.stdout)
    assert record["name"] == IMAGE
    again = shop.goldimg("upload", "gcp", "--json", env=google.env)
    assert json.loads(again.stdout)[0]["status"] == "already there"
    refused = shop.goldimg("unpublish", "gcp", "--version", "1.0.0", env=google.env)
    assert refused.returncode == 2
    assert "say --yes" in refused.stderr
    gone = shop.goldimg("unpublish", "gcp", "--version", "1.0.0", "--yes", env=google.env)
    assert gone.returncode == 0, gone.stderr
    assert google.engine.images == {}
    left = shop.goldimg("gc", "gcp", "--older", "0", env=google.env)
    assert left.returncode == 0
    assert "nothing is left over" in left.stderr
    secret = json.loads(google.key.read_text())["private_key"].splitlines()[1]
    for path in shop.root.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("CentOS-7.2.1511-1.0.0", "centos-7-2-1511-1-0-0"),
        ("7up", "i-7up"),
        ("A" * 100, "a" * 54 + "-"),
    ],
)
def test_names_follow_the_rules(text: str, name: str) -> None:
    made = resource_name(text)
    assert made.startswith(name)
    assert NAME.fullmatch(made)
    assert resource_name(text + "x") != made


def test_guest_os_features_are_those_of_google(google: Google, shop: Shop) -> None:
    listed = set(compute_v1.GuestOsFeature.Type.__members__)
    assert listed - {"FEATURE_TYPE_UNSPECIFIED", "UNDEFINED_TYPE"} <= FEATURES
    google.storage.heal()
    outcome = publish(shop, publisher(google, features="GVNIC,UEFI")[0])
    assert outcome.status == "failed"
    assert "UEFI is no guest OS feature" in str(outcome.error)
    assert google.storage.log == []


def test_publishing_does_not_load_all_of_compute_engine() -> None:
    code = "import sys, goldimg.publish.gcp; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert "goldimg.publish.gcp.rest" in done.stdout.split()
    assert "google.cloud.compute_v1" not in done.stdout.split()


def test_a_label_holds_63_characters() -> None:
    assert len(label("F" * 64)) == 63
    assert label("1.0+rc1") == "1-0-rc1"


def test_a_publisher_keeps_the_contract() -> None:
    assert issubclass(GcpPublisher, Publisher)


# --- channels -----------------------------------------------------------------------------------

LATER = "debian-12-1-1-0"


@pytest.fixture
def newer(google: Google, shop: Shop) -> Shop:
    """A second version; both are published."""
    made = make_shop(shop.root, "gcp", version="1.1.0", seed=2)
    for each in (shop, made):
        assert publish(each, publisher(google)[0]).status == "published"
    google.compute.heal()
    return made


def state(google: Google, name: str) -> str:
    return str(google.engine.images[name].get("deprecated", {}).get("state", "ACTIVE"))


def test_a_family_gives_the_image_of_the_channel(google: Google, shop: Shop, newer: Shop) -> None:
    step = left_to_do(shop, publisher(google)[0])
    assert step.promoting.notes == (
        f"family debian-12 gives {LATER}, which is newer; it is in no channel",
    )
    promote(shop, publisher(google)[0])
    promote(newer, publisher(google)[0])
    assert (state(google, IMAGE), state(google, LATER)) == ("DEPRECATED", "ACTIVE")
    assert google.engine.images[IMAGE]["deprecated"]["replacement"].endswith(LATER)
    labels = [google.engine.images[it]["labels"] for it in (IMAGE, LATER)]
    assert [it["goldimg-channel-stable"] for it in labels] == ["former", "current"]
    assert labels[1]["goldimg-version"] == "1-1-0"
    google.compute.heal()
    assert promote(newer, publisher(google)[0]) == []
    assert not [it for it in google.compute.log if it[0] != "GET" and "/token" not in it[1]]
    promote(shop, publisher(google)[0])
    assert (state(google, IMAGE), state(google, LATER)) == ("ACTIVE", "DEPRECATED")
    assert left_to_do(shop, publisher(google)[0]).promoting.notes == ()
    assert publish(shop, publisher(google)[0]).status == "already there"
    assert state(google, LATER) == "DEPRECATED"
    newest = make_shop(shop.root, "gcp", version="1.2.0", seed=3)
    made, told = publisher(google, previous="deprecated")
    assert publish(newest, made).status == "published"
    assert "debian-12-1-0-0 stays as it is: a channel points to it" in told.text
    assert state(google, IMAGE) == "ACTIVE"


def test_a_promotion_that_google_refused_half_way_is_gone_on_with(
    google: Google, shop: Shop, newer: Shop
) -> None:
    promote(shop, publisher(google)[0])
    refusal = b'{"error":{"code":403,"message":"Required permission","errors":[]}}'
    google.compute.fail("POST", "/deprecate", status=403, times=9, body=refusal)
    with pytest.raises(api.Forbidden):
        promote(newer, publisher(google)[0])
    assert means(newer) == "1.0.0"
    assert google.engine.images[LATER]["labels"]["goldimg-channel-stable"] == "current"
    google.compute.heal()
    promote(newer, publisher(google)[0])
    assert means(newer) == "1.1.0"
    assert state(google, IMAGE) == "DEPRECATED"


def test_an_image_that_disks_were_made_of_is_told(google: Google, shop: Shop, newer: Shop) -> None:
    made, _ = publisher(google)
    first, second = (it.publication for it in published(shop.site, "Debian-12", "gcp"))
    google.engine.disks["europe-west1-c/web-1"] = IMAGE
    assert made.use(first).by == ("disk europe-west1-c/web-1",)
    assert made.use(second).by == ()
    google.compute.fail("GET", "/aggregated/disks", status=403, body=b"{}", times=9)
    assert "disks could not be asked for" in made.use(first).unknown
