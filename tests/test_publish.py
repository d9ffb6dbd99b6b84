"""The frame of publishing: what every provider's publisher gets for nothing.

The publisher here keeps images as files in a directory: every step is real but the service.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goldimg.catalog.version import sort_key
from goldimg.config.publish.common import Section
from goldimg.errors import PublishFailed, UsageError
from goldimg.formats.source import Disk
from goldimg.publish.image import newest
from goldimg.publish.job import Job, Meter, Rejected, Session
from goldimg.publish.journal import Journal, Resource
from goldimg.publish.publisher import Call, Orphan, Preview, Publication, Publisher
from goldimg.publish.records import published
from goldimg.publish.retry import Policy, retried
from goldimg.publish.site import as_variables
from goldimg.publish.sweep import leftovers, remove_leftovers
from goldimg.publish.sweep import unpublish as take_back
from goldimg.publish.transfer import Block, blocks_of, runs_of, send_blocks
from tests.publishing import MIB, QUICK, Shop, finish_image, make_shop, publish, session

STEP = 1 * MIB


class Options(Section):
    """A shelf has none."""


class Shelf(Publisher[Options]):
    """Puts blocks into a directory, then "imports" them into one file."""

    name = "shelf"
    artifact = "vhd"

    def __init__(self, shelf: Path, session: Session) -> None:
        super().__init__(Options(), session)
        self.shelf = shelf
        self.sent: list[int] = []
        self.fault: Callable[[str], None] = lambda _: None  # raises where a step is to fail

    @property
    def target(self) -> str:
        return f"shelf {self.shelf}"

    def check(self, job: Job) -> Preview:
        self.fault("check")
        name = job.image.name
        return Preview(account="me", names={"image": name}, calls=(Call(operation="put"),))

    def find(self, job: Job) -> Publication | None:
        final = self.shelf / job.image.name
        if not final.exists():
            return None
        if (self.shelf / f"{job.image.name}.sha256").read_text() == job.journal.image:
            return self._publication(job)
        if not job.force:
            raise PublishFailed(f"shelf: {final.name} is another image", hint="--force replaces it")
        final.unlink()
        return None

    def publish(self, job: Job) -> Publication:
        parts = self.shelf / f"{job.image.name}.parts"
        job.phase("uploading")
        job.created("upload", parts.name, is_resumable=True, is_temporary=True)
        parts.mkdir(exist_ok=True)
        self.fault("upload")

        def send(block: Block, data: bytes) -> str:
            self.fault(f"block {block.index}")
            (parts / str(block.index)).write_bytes(data)
            self.sent.append(block.index)
            return "ok"

        with Disk(job.image.file("vhd").path) as disk:
            send_blocks(job, disk, blocks_of(disk.extents(), disk.size, STEP), send, name="parts",
                        workers=3)  # fmt: skip
            size = disk.size
        job.phase("importing")
        job.created("image", job.image.name)
        final = self.shelf / job.image.name
        with final.open("wb") as stream:
            stream.truncate(size)
            for part in parts.iterdir():
                stream.seek(int(part.name) * STEP)
                stream.write(part.read_bytes())
        self.fault("import")
        (self.shelf / f"{job.image.name}.sha256").write_text(job.journal.image)
        return self._publication(job)

    def _publication(self, job: Job) -> Publication:
        return Publication(
            name=job.image.name,
            ids={"here": job.image.name},
            resources=(Resource(kind="image", id=job.image.name),),
            verified="not at all",
        )

    def delete(self, resource: Resource) -> None:
        self.fault(f"delete {resource.kind}")
        if resource.kind == "upload":
            shutil.rmtree(self.shelf / resource.id, ignore_errors=True)
        else:
            (self.shelf / resource.id).unlink(missing_ok=True)
            (self.shelf / f"{resource.id}.sha256").unlink(missing_ok=True)

    def orphans(self) -> list[Orphan]:
        return [
            Orphan(resource=Resource(kind="upload", id=path.name), run_id="r1", age=3600.0)
            for path in self.shelf.glob("*.parts")
        ]

    def is_transient(self, error: BaseException) -> bool:
        return isinstance(error, ConnectionError)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return make_shop(tmp_path / "site", "azure")


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    path = tmp_path / "shelf"
    path.mkdir()
    return path


def fail_at(step: str, error: BaseException) -> Callable[[str], None]:
    def fault(at: str) -> None:
        if at == step:
            raise error

    return fault


def test_an_image_is_published_recorded_and_not_sent_twice(shop: Shop, shelf: Path) -> None:
    first = Shelf(shelf, session("shelf")[0])
    outcome = publish(shop, first)
    assert outcome.status == "published", outcome.error
    vhd = shop.image().file("vhd").path
    assert (shelf / shop.image().name).read_bytes() == vhd.read_bytes()
    assert not list(shelf.glob("*.parts"))  # what was temporary is gone
    assert not shop.journals
    (record,) = shop.publications
    assert record["ids"] == {"here": "Debian-12-1.0.0_azure"}
    assert record["image"] == shop.image().file("vhd").sha256

    again = Shelf(shelf, session("shelf")[0])
    assert publish(shop, again).status == "already there"
    assert again.sent == []
    assert len(shop.publications) == 1


def test_a_dry_run_leaves_nothing(shop: Shop, shelf: Path) -> None:
    before = sorted(shop.directory.iterdir())
    outcome = publish(shop, Shelf(shelf, session("shelf")[0]), dry_run=True)
    assert outcome.status == "checked"
    assert outcome.preview is not None
    assert outcome.preview.names == {"image": "Debian-12-1.0.0_azure"}
    assert sorted(shop.directory.iterdir()) == before
    assert not list(shelf.iterdir())


def test_an_interrupted_upload_goes_on_where_it_was(shop: Shop, shelf: Path) -> None:
    first = Shelf(shelf, session("shelf")[0])

    def stop(at: str) -> None:
        if len(first.sent) >= 5:
            first.session.runner.cancel.set()

    first.fault = stop
    outcome = publish(shop, first)
    assert outcome.status == "interrupted"
    assert [str(it) for it in outcome.kept] == ["upload Debian-12-1.0.0_azure.parts"]
    assert shop.journals
    assert not shop.publications

    second = Shelf(shelf, session("shelf")[0])
    assert publish(shop, second).status == "published"
    assert set(first.sent).isdisjoint(second.sent)
    assert (shelf / shop.image().name).read_bytes() == shop.image().file("vhd").path.read_bytes()


def test_a_failed_import_is_undone_and_the_upload_kept(shop: Shop, shelf: Path) -> None:
    publisher = Shelf(shelf, session("shelf")[0])
    publisher.fault = fail_at("import", PublishFailed("shelf: import failed: quota"))
    outcome = publish(shop, publisher)
    assert outcome.status == "failed"
    assert not (shelf / shop.image().name).exists()
    assert [it.kind for it in outcome.kept] == ["upload"]
    again = Shelf(shelf, session("shelf")[0])
    assert publish(shop, again).status == "published"
    assert again.sent == []  # everything had arrived


def test_what_the_service_rejects_is_not_kept(shop: Shop, shelf: Path) -> None:
    publisher = Shelf(shelf, session("shelf")[0])
    publisher.fault = fail_at("import", Rejected("shelf: not a disk"))
    outcome = publish(shop, publisher)
    assert outcome.status == "failed"
    assert not list(shelf.iterdir())
    assert not shop.journals
    assert not outcome.kept


def test_what_cannot_be_removed_is_said_and_found_by_gc(shop: Shop, shelf: Path) -> None:
    publisher = Shelf(shelf, session("shelf")[0])

    def fault(at: str) -> None:
        if at == "import":
            raise Rejected("shelf: not a disk")
        if at.startswith("delete"):
            raise PermissionError("may not delete")

    publisher.fault = fault
    outcome = publish(shop, publisher)
    assert {it.kind for it in outcome.left} == {"upload", "image"}
    gc = Shelf(shelf, session("shelf")[0])
    found = leftovers(shop.site, gc, [shop.directory], older=10.0)
    assert {it.resource.kind for it in found} == {"upload", "image"}
    assert not [it.error for it in remove_leftovers(gc, found) if it.error]
    assert not list(shelf.iterdir())
    assert not shop.journals


def test_orphans_of_no_journal_are_found_when_old_enough(shop: Shop, shelf: Path) -> None:
    (shelf / "other.parts").mkdir()
    gc = Shelf(shelf, session("shelf")[0])
    assert leftovers(shop.site, gc, [shop.directory], older=7200) == []
    found = leftovers(shop.site, gc, [shop.directory], older=3600)
    assert [it.resource.id for it in found] == ["other.parts"]


def test_a_passing_fault_is_retried_and_a_lasting_one_is_not(shop: Shop, shelf: Path) -> None:
    local, told = session("shelf")
    publisher = Shelf(shelf, local)
    failures = {"block 0": 2}

    def shaky(at: str) -> None:
        if failures.get(at, 0) > 0:
            failures[at] -= 1
            raise ConnectionError("reset by peer")

    publisher.fault = shaky
    assert publish(shop, publisher).status == "published"
    assert "block 0: reset by peer; attempt 2" in told.text

    attempts = []

    def refused() -> None:
        attempts.append(1)
        raise PermissionError("no")

    with pytest.raises(PermissionError):
        local.call(refused, what="put")
    assert len(attempts) == 1


def test_another_image_of_the_name_is_kept_unless_forced(shop: Shop, shelf: Path) -> None:
    publish(shop, Shelf(shelf, session("shelf")[0]))
    before = (shelf / shop.image().name).read_bytes()
    finish_image(shop, seed=2)
    assert len(shop.publications) == 1  # a rebuild does not forget where the old one is
    outcome = publish(shop, Shelf(shelf, session("shelf")[0]))
    assert outcome.status == "failed"
    assert "--force" in str(getattr(outcome.error, "hint", ""))
    assert (shelf / shop.image().name).read_bytes() == before
    assert publish(shop, Shelf(shelf, session("shelf")[0]), force=True).status == "published"
    assert (shelf / shop.image().name).read_bytes() == shop.image().file("vhd").path.read_bytes()
    assert len(shop.publications) == 1


def test_a_rebuilt_image_first_removes_what_the_old_ones_upload_left(
    shop: Shop, shelf: Path
) -> None:
    publisher = Shelf(shelf, session("shelf")[0])
    publisher.fault = fail_at("block 0", PublishFailed("gone"))
    publish(shop, publisher)
    finish_image(shop, seed=2)
    local, told = session("shelf")
    assert publish(shop, Shelf(shelf, local)).status == "published"
    assert "unfinished upload of another image" in told.text
    assert (shelf / shop.image().name).read_bytes() == shop.image().file("vhd").path.read_bytes()


def test_unpublishing_removes_image_and_record(shop: Shop, shelf: Path) -> None:
    publish(shop, Shelf(shelf, session("shelf")[0]))
    (record,) = published(shop.site, "Debian-12", "azure")
    publisher = Shelf(shelf, session("shelf")[0])
    publisher.fault = fail_at("delete image", PermissionError("locked"))
    (ended,) = take_back(shop.site, publisher, record)
    assert "locked" in ended.error
    assert len(shop.publications) == 1  # what is still there stays known
    take_back(shop.site, Shelf(shelf, session("shelf")[0]), record)
    assert not list(shelf.iterdir())
    assert not shop.publications
    assert "publications" not in shop.manifest


def test_two_uploads_of_one_image_do_not_meet(shop: Shop, shelf: Path) -> None:
    slow = Shelf(shelf, session("shelf")[0])
    begun, go_on = threading.Event(), threading.Event()

    def wait(at: str) -> None:
        if at == "import":  # the image is there, and could not be gone on with
            begun.set()
            go_on.wait(30)

    slow.fault = wait
    results = []
    thread = threading.Thread(target=lambda: results.append(publish(shop, slow)))
    thread.start()
    assert begun.wait(30)
    second = publish(shop, Shelf(shelf, session("shelf")[0]))
    dry = Shelf(shelf, session("shelf")[0])
    dry.fault = fail_at("check", PublishFailed("shelf: no"))
    assert publish(shop, dry, dry_run=True).status == "failed"
    assert (shelf / shop.image().name).exists()  # neither has touched what the first one made
    go_on.set()
    thread.join()
    assert second.status == "failed"
    assert "already being published" in str(second.error)
    assert results[0].status == "published"


def test_a_journal_survives_a_line_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "j"
    journal = Journal(path, "aa")
    journal.add(Resource(kind="snapshot", id="s1", where="r"))
    journal.set("token", "t1")
    journal.block("up", 7, "digest")
    journal.close()
    with path.open("ab") as stream:
        stream.write(b'{"block":["up",8,"dig')
    again = Journal(path, "aa")
    assert again.blocks("up") == {7: "digest"}
    again.block("up", 9, "x")
    again.close()
    third = Journal(path, "aa")
    assert third.blocks("up") == {7: "digest", 9: "x"}
    assert third.get("token") == "t1"
    assert third.find("snapshot", "r") == Resource(kind="snapshot", id="s1", where="r")
    assert third.other_image is None
    assert Journal(path, "bb").other_image == "aa"
    assert path.stat().st_mode & 0o777 == 0o600


EXTENTS = st.lists(
    st.tuples(st.integers(0, 300), st.integers(1, 40)), max_size=12, unique_by=lambda it: it[0]
)


@given(EXTENTS, st.sampled_from([4, 16, 64]))
def test_blocks_cover_every_extent_once(raw: list[tuple[int, int]], step: int) -> None:
    extents, end = [], 0
    for start, length in sorted(raw):
        if start >= end:
            extents.append((start, length))
            end = start + length
    size = end + 3
    blocks = list(blocks_of(extents, size, step))
    assert [it.index for it in blocks] == sorted({it.index for it in blocks})
    covered = {at for it in blocks for at in range(it.offset, it.offset + it.size)}
    assert covered <= set(range(size))
    assert {at for start, length in extents for at in range(start, start + length)} <= covered
    runs = list(runs_of(extents, longest=step, align=4))
    seen = [at for it in runs for at in range(it.offset, it.offset + it.size)]
    assert len(seen) == len(set(seen))
    assert all(it.size <= step and it.offset % 4 == 0 and it.size % 4 == 0 for it in runs)
    assert {at for start, length in extents for at in range(start, start + length)} <= set(seen)


def test_retries_end_with_the_last_error() -> None:
    calls = []

    def fail() -> None:
        calls.append(1)
        raise ConnectionError(f"no {len(calls)}")

    with pytest.raises(ConnectionError, match="no 4"):
        retried(fail, policy=QUICK, is_transient=lambda _: True)
    slow = Policy(attempts=100, budget=0.2, first=0.1, longest=0.1)
    started = time.monotonic()
    with pytest.raises(ConnectionError):
        retried(fail, policy=slow, is_transient=lambda _: True)
    assert time.monotonic() - started < 5


def test_the_meter_tells_rate_and_time_left() -> None:
    meter = Meter()
    assert meter.text(0, 100 * MIB, 10.0) == "0 MiB of 100 MiB"
    assert meter.text(50 * MIB, 100 * MIB, 20.0) == "50 MiB of 100 MiB, 5.0 MiB/s, 0:10 left"


def test_versions_are_counted_as_people_do(tmp_path: Path) -> None:
    names = ["1.10.0", "1.9.0", "1.10.0-rc1", "1.10.1", "0.1"]
    assert sorted(names, key=sort_key) == ["0.1", "1.9.0", "1.10.0-rc1", "1.10.0", "1.10.1"]
    for version in ("1.9.0", "1.10.0"):
        shop = make_shop(tmp_path / "site", "openstack", version=version, mib=4)
    assert newest(shop.site, "Debian-12", "openstack") == "1.10.0"


def test_a_flag_that_means_nothing_to_the_providers_is_refused() -> None:
    with pytest.raises(UsageError, match="--colour means nothing to azure"):
        as_variables(["azure"], {"colour": "red"})


def test_the_command_line_tells_what_is_missing(tmp_path: Path) -> None:
    shop = make_shop(tmp_path / "site", "openstack", mib=4)
    done = shop.goldimg("upload", "asure")
    assert done.returncode == 2
    assert "did you mean 'azure'" in done.stderr
    done = shop.goldimg("upload", "azure")
    assert done.returncode == 2
    assert "no finished image of Debian-12 for azure" in done.stderr
    assert "goldimg build -O Debian-12 --only azure" in done.stderr
    done = shop.goldimg("upload", "openstack", "--version", "9.9")
    assert done.returncode == 2
    assert "9.9 is not built for openstack" in done.stderr
    artifact = shop.image().file("qcow2").path
    artifact.write_bytes(artifact.read_bytes()[:-1])
    done = shop.goldimg("upload", "openstack")
    assert done.returncode == 2
    assert "is not whole" in done.stderr
    done = shop.goldimg("published")
    assert done.returncode == 0
    assert "Debian-12 is not published" in done.stderr
    done = shop.goldimg("unpublish", "openstack", "--version", "1.0.0")
    assert done.returncode == 2
    assert "is not published to openstack" in done.stderr


def test_a_build_killed_while_it_replaced_files_does_not_forget_where_they_are(
    shop: Shop, shelf: Path
) -> None:
    publish(shop, Shelf(shelf, session("shelf")[0]))
    manifest = shop.directory / "manifest.json"
    mark = json.dumps(shop.publications)
    manifest.unlink()
    (shop.directory / ".unfinished").write_text(mark)
    finish_image(shop, seed=3)
    assert [it["name"] for it in shop.publications] == ["Debian-12-1.0.0_azure"]
    assert not (shop.directory / ".unfinished").exists()
