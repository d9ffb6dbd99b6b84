"""Conversions in processes of their own: the same files, and nothing left of one that is ended."""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from goldimg import worker
from goldimg.config.models import SiteFile
from goldimg.errors import BuildFailed, GoldimgError, Interrupted
from goldimg.formats import Written
from goldimg.formats.store import Store
from goldimg.providers import JobFields
from goldimg.run import Runner
from goldimg.workers import Failure, Order, Workers, make
from tests.support import needs
from tests.test_formats import run
from tests.test_formats_chain import MIB, NOISE, overlay, write

PROVIDERS = ("openstack", "gcp", "virtualbox")
SIZE = 1 << 30


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A disk of 1 GiB with 64 MiB of data, so that a conversion takes a while."""
    needs("qemu-img", "qemu-io")
    raw = tmp_path / "base.raw"
    with raw.open("wb") as file:
        file.truncate(SIZE)
        for number in range(16):
            file.seek(number * 32 * MIB)
            file.write(NOISE)
    run("qemu-img", "convert", "-O", "qcow2", raw, tmp_path / "base.qcow2")
    raw.unlink()
    return tmp_path / "base.qcow2"


def order(base: Path, provider: str, *, boxes: bool = False) -> Order:
    layer = base.with_name(f"{provider}.qcow2")
    if not layer.exists():
        overlay(base, layer, SIZE)
        write(layer, f"write -P {len(provider)} 5M 300k")
    target = base.parent / "out" / provider
    target.mkdir(parents=True, exist_ok=True)
    fields: JobFields = {
        "os_name": "Debian-12",
        "version": "1.0.0",
        "target": target,
        "cpus": 1,
        "memory_mib": 512,
        "guest": None,
        "firmware": "bios",
        "site": SiteFile(boxes=boxes),
    }
    return Order(
        provider=provider, disk=layer, scratch=base.parent, seed="s", newest=None, fields=fields
    )


def silent(done: int, total: int) -> None:
    """Nobody looks."""


def sums(written: list[Written]) -> dict[str, str]:
    """What the files are said to be, which is also what they are."""
    for file in written:
        assert hashlib.sha256(file.path.read_bytes()).hexdigest() == file.sha256
    return {file.path.name: file.sha256 for file in written}


def workers_of(directory: Path) -> list[int]:
    """The ids of workers that hold a file open below a directory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if b"goldimg.worker\0" in (entry / "cmdline").read_bytes() and any(
                str(it.readlink()).startswith(str(directory)) for it in (entry / "fd").iterdir()
            ):
                found.append(int(entry.name))
    return found


def stop_worker(directory: Path) -> int:
    """Has the worker that writes there stand still, so that what follows meets it in the middle."""
    (pid,) = workers_of(directory)
    os.kill(pid, signal.SIGSTOP)
    return pid


@dataclass(kw_only=True)
class UnderWay:
    """A conversion in a worker that has begun and stands still."""

    runner: Runner = field(default_factory=Runner)
    pid: int = 0
    faults: list[BaseException] = field(default_factory=list)

    def convert(self, wanted: Order, has_begun: threading.Event) -> None:
        def progress(done: int, total: int) -> None:
            if not self.pid:
                self.pid = stop_worker(wanted.fields["target"])
                has_begun.set()

        try:
            with Workers(self.runner, {"a": 2}) as workers:
                workers.make("a", wanted, progress)
        except BaseException as error:
            self.faults.append(error)


@pytest.fixture
def under_way(base: Path) -> Iterator[tuple[UnderWay, threading.Thread]]:
    it, has_begun = UnderWay(), threading.Event()
    thread = threading.Thread(target=it.convert, args=(order(base, "virtualbox"), has_begun))
    thread.start()
    assert has_begun.wait(60)
    yield it, thread
    it.runner.cancel.set()
    thread.join(60)


def test_workers_make_the_files_that_this_process_makes(base: Path) -> None:
    orders = [order(base, it, boxes=it == "virtualbox") for it in PROVIDERS]
    told: list[tuple[int, int]] = []
    with Workers(Runner(), {"a": 2, "b": 1}) as workers:
        made = [
            sums(workers.make(name, it, lambda *it: told.append(it)))
            for name, it in zip("aba", orders, strict=True)
        ]
        assert workers_of(base.parent) == []  # each base has all its images
    for it, found in zip(orders, made, strict=True):
        assert sums(make(it, Runner(), silent, Store())) == found
    assert len(made[-1]) == 3  # OVA and box, and the box for libvirt
    assert told[-1][0] == told[-1][1]


def test_images_of_one_base_may_be_ordered_at_once(base: Path) -> None:
    made: dict[str, dict[str, str]] = {}

    def work(provider: str) -> None:
        made[provider] = sums(workers.make("a", order(base, provider), silent))

    for provider in PROVIDERS:
        order(base, provider)
    with Workers(Runner(), {"a": len(PROVIDERS)}) as workers:
        threads = [threading.Thread(target=work, args=(it,)) for it in PROVIDERS]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(made) == sorted(PROVIDERS)


def test_an_error_comes_back_whole_and_the_worker_goes_on(base: Path) -> None:
    with Workers(Runner(), {"a": 3}) as workers:
        broken = order(base, "openstack")
        data = bytearray(broken.disk.read_bytes())
        data[0:4] = b"none"
        broken.disk.write_bytes(data)
        with pytest.raises(GoldimgError) as raised:
            workers.make("a", broken, silent)
        with pytest.raises(GoldimgError) as here:
            make(broken, Runner(), silent, Store())
        assert str(raised.value) == str(here.value)
        assert type(raised.value) is type(here.value)
        assert workers.make("a", order(base, "gcp"), silent)


def test_a_worker_that_is_killed_is_one_error(
    under_way: tuple[UnderWay, threading.Thread],
) -> None:
    it, thread = under_way
    os.kill(it.pid, signal.SIGKILL)
    thread.join(20)
    (fault,) = it.faults
    assert isinstance(fault, BuildFailed)
    assert "virtualbox: the process that converts has ended" in str(fault)
    assert "killed by SIGKILL" in str(fault)


def test_another_worker_takes_the_place_of_one_that_was_killed(base: Path) -> None:
    wanted, killed = order(base, "virtualbox"), list[int]()

    def kill(done: int, total: int) -> None:
        if not killed:
            killed.append(stop_worker(wanted.fields["target"]))
            os.kill(killed[0], signal.SIGKILL)

    with Workers(Runner(), {"a": 2}) as workers:
        with pytest.raises(BuildFailed):
            workers.make("a", wanted, kill)
        assert sums(workers.make("a", order(base, "gcp"), silent))


class Odd(Exception):
    """Nobody can put it together again from its arguments."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def test_an_error_that_cannot_be_sent_is_told_all_the_same(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> list[Written]:
        raise Odd(1, 2)

    monkeypatch.setattr(worker, "make", fail)
    ours, theirs = multiprocessing.Pipe()
    serving = worker.Serving(theirs)
    thread = threading.Thread(target=serving.serve)
    thread.start()
    ours.send(order(base, "gcp"))
    answer = ours.recv()
    ours.close()
    thread.join(10)
    assert isinstance(answer, Failure)
    assert str(answer.error) == "Odd: 1 and 2"
    assert "raise Odd(1, 2)" in answer.trace


def test_what_is_interrupted_leaves_nothing(
    base: Path, under_way: tuple[UnderWay, threading.Thread]
) -> None:
    it, thread = under_way
    it.runner.cancel.set()
    os.kill(it.pid, signal.SIGCONT)
    thread.join(20)
    assert not thread.is_alive()
    assert isinstance(it.faults[0], Interrupted)
    assert not Path(f"/proc/{it.pid}").exists()
    assert list((base.parent / "out/virtualbox").iterdir()) == []


KILLED = """
import sys, time
from pathlib import Path
from goldimg.run import Runner
from goldimg.workers import Workers
from tests.test_workers import order, stop_worker
def progress(done, total):
    print(stop_worker(wanted.fields["target"]), flush=True)
    time.sleep(100)
wanted = order(Path(sys.argv[1]), "virtualbox")
with Workers(Runner(), {"a": 2}) as workers:
    workers.make("a", wanted, progress)
"""


def test_a_worker_ends_with_the_process_that_started_it(base: Path) -> None:
    order(base, "virtualbox")
    root = Path(__file__).parent.parent
    argv = [sys.executable, "-c", KILLED, str(base)]
    with subprocess.Popen(argv, cwd=root, stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        parent.kill()
    os.kill(pid, signal.SIGCONT)
    end = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    assert list((base.parent / "out/virtualbox").iterdir()) == []


def test_a_single_image_is_made_in_this_process(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = order(base, "gcp")
    monkeypatch.setattr(subprocess, "Popen", None)
    with Workers(Runner(), {"a": 1}) as workers:
        assert sums(workers.make("a", wanted, silent))
