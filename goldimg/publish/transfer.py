"""Sends the blocks of a file in parallel: each once, in bounded memory, noted on arrival."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from goldimg.words import size_text

if TYPE_CHECKING:
    from goldimg.publish.job import Job


class Source(Protocol):
    """What blocks are read from; `pread` may be called from several threads."""

    size: int

    def pread(self, offset: int, length: int, /) -> bytes:
        """`length` bytes from `offset`; beyond the end they are zero."""
        ...


@dataclass(frozen=True, kw_only=True)
class Block:
    """`size` bytes from `offset`, number `index` of its upload."""

    index: int
    offset: int
    size: int


def blocks_of(extents: Iterable[tuple[int, int]], size: int, step: int) -> Iterator[Block]:
    """The blocks of `step` bytes, counted from the start of the file, that touch an extent.

    The last ends at `size` at the latest. Extents are (offset, length), in order.
    """
    last = -1
    for start, length in extents:
        for index in range(start // step, -(-(start + length) // step)):
            if index > last:
                offset = index * step
                yield Block(index=index, offset=offset, size=min(step, size - offset))
                last = index


def runs_of(extents: Iterable[tuple[int, int]], longest: int, align: int = 512) -> Iterator[Block]:
    """The extents themselves, in pieces of at most `longest` bytes, grown to whole `align` bytes.

    For targets that take ranges of any length: nothing that is zero is sent but to align.
    """
    index, done = 0, 0
    for start, length in extents:
        first = max(done, start // align * align)
        end = -(-(start + length) // align) * align
        for offset in range(first, end, longest):
            yield Block(index=index, offset=offset, size=min(longest, end - offset))
            index += 1
        done = max(done, end)


def send_blocks(
    job: Job,
    source: Source,
    blocks: Iterable[Block],
    send: Callable[[Block, bytes], str],
    *,
    name: str,
    workers: int = 8,
    is_resumable: bool = True,
) -> int:
    """Sends every block that the journal's upload `name` has not noted, `workers` at once.

    `send` gets a block and its bytes, in a worker's thread, and returns what the journal keeps of
    it (a digest, a part's tag); it may raise, and is tried again as the publisher's `is_transient`
    says. Memory holds `workers` blocks. Returns the bytes sent by this call. On a failure or an
    interruption blocks under way are waited for and noted, so that a later run sends at most what
    never arrived.
    """
    listed = list(blocks)
    have = job.journal.blocks(name) if is_resumable else {}
    total = sum(block.size for block in listed)
    missing = [block for block in listed if block.index not in have]
    done = total - sum(block.size for block in missing)
    if done:
        job.say(f"going on after {size_text(done)} of {size_text(total)}")
    job.progress(done, total)

    def one(block: Block) -> Block:
        job.check_cancelled()
        data = source.pread(block.offset, block.size)
        note = job.call(lambda: send(block, data), what=f"block {block.index}")
        if is_resumable:
            job.journal.block(name, block.index, note)
        return block

    sent = 0
    for block in _in_threads(one, missing, workers, job):
        sent += block.size
        job.progress(done + sent, total)
    return sent


def _in_threads(
    one: Callable[[Block], Block], blocks: list[Block], workers: int, job: Job
) -> Iterator[Block]:
    """Blocks as they are done; never more than `workers` are read before their time."""
    todo = iter(blocks)
    with ThreadPoolExecutor(max(1, workers), "send") as pool:
        pending: set[Future[Block]] = {
            pool.submit(one, block) for block in islice(todo, max(1, workers))
        }
        try:
            while pending:
                ended, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
                job.check_cancelled()
                for future in ended:
                    yield future.result()
                    if (block := next(todo, None)) is not None:
                        pending.add(pool.submit(one, block))
        finally:
            for future in pending:
                future.cancel()
