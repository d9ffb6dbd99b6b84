"""SHA-256 digests: of files, and in the lists that distributions publish beside their ISOs."""

import contextlib
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

from goldimg.project import write_text

CHUNK = 1 << 20  # bytes

# GNU coreutils: "<hex>  name", "<hex> *name"
# (https://www.gnu.org/software/coreutils/manual/html_node/cksum-output-modes.html)
_COREUTILS = re.compile(r"([0-9A-Fa-f]{64}) [ *](?:\./)?(\S.*)")
# BSD, and `sha256sum --tag`: "SHA256 (name) = <hex>"
_BSD = re.compile(r"SHA256 ?\((?:\./)?(.+)\) ?= ?([0-9A-Fa-f]{64})")


def parse_list(text: str) -> dict[str, str]:
    """File name → SHA-256 in a checksum list, in either style; other lines are passed over.

    Comments, PGP armour (Fedora's and Alma's CHECKSUM files are clear-signed) and other digests
    are such lines. Names lose their directories.
    """
    found: dict[str, str] = {}
    for line in text.splitlines():
        if match := _COREUTILS.fullmatch(line.strip()):
            digest, name = match.groups()
        elif match := _BSD.fullmatch(line.strip()):
            name, digest = match.groups()
        else:
            continue
        found[name.rpartition("/")[2]] = digest.lower()
    return found


def hash_file(
    path: Path, *, progress: Callable[[int, int], None] | None = None, limit: int | None = None
) -> str:
    """The file's SHA-256 in hex, of its first `limit` bytes if given. `progress(bytes, total)`."""
    return hash_into(path, progress=progress, limit=limit).hexdigest()


def hash_into(
    path: Path, *, progress: Callable[[int, int], None] | None = None, limit: int | None = None
) -> "hashlib._Hash":
    """As `hash_file`, but the digest may still be continued."""
    digest = hashlib.sha256()
    done, total = 0, path.stat().st_size if limit is None else limit
    with path.open("rb", buffering=0) as stream:
        while done < total and (chunk := stream.read(min(CHUNK, total - done))):
            digest.update(chunk)
            done += len(chunk)
            if progress:
                progress(done, total)
    return digest


def remembered_hash(
    path: Path, memory: Path, *, progress: Callable[[int, int], None] | None = None
) -> str:
    """`hash_file`, remembered in the file `memory` for as long as `path` does not change.

    A change is another size, inode or modification time; ISOs of gigabytes need seconds to read.
    """
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(memory.read_text(encoding="utf-8"))
        if known["identity"] == _identity(path) and re.fullmatch(r"[0-9a-f]{64}", known["sha256"]):
            return str(known["sha256"])
    sha256 = hash_file(path, progress=progress)
    remember_hash(path, memory, sha256)
    return sha256


def remember_hash(path: Path, memory: Path, sha256: str) -> None:
    """Notes in `memory` that `path`, as it is now, has this SHA-256."""
    write_text(memory, json.dumps({"identity": _identity(path), "sha256": sha256}) + "\n")


def _identity(path: Path) -> list[str | int]:
    state = path.stat()
    return [str(path), state.st_size, state.st_ino, state.st_mtime_ns]
