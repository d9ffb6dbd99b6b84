"""Scripts of `pre` and `post`: written in place, or names of files in `kickstart/snippets/`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from goldimg.config.loader import closest
from goldimg.kickstart.fields import check_script

DIRECTORY = "snippets"
MAX_BYTES = 1 << 18


def snippets(root: Path) -> list[str]:
    """The names of the snippets in the kickstart directory `root`."""
    return sorted(path.stem for path in (root / DIRECTORY).glob("*.sh") if path.is_file())


def scripts(root: Path, written: str | Sequence[str] | None) -> tuple[str, ...]:
    """The scripts that `pre` or `post` asks for, in order, each to run by itself.

    Raises ValueError for a snippet that cannot be used; `snippet_problems` says why beforehand.
    """
    if written is None:
        return ()
    if isinstance(written, str):
        return (written,)
    return tuple(_read(root, name) for name in written)


def snippet_problems(
    root: Path, written: str | Sequence[str] | None
) -> Iterator[tuple[int, str, str | None]]:
    """Place in the list, message and likely meant name for each snippet that cannot be used."""
    for at, name in enumerate(() if written is None or isinstance(written, str) else written):
        try:
            _read(root, name)
        except FileNotFoundError:
            meant = closest(name, snippets(root))
            yield at, f"there is no {_shown(root, name)}", meant
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            yield at, f"{_shown(root, name)}: {(reason or 'cannot be read').lower()}", None


def _shown(root: Path, name: str) -> str:
    return f"{root.name}/{DIRECTORY}/{name}.sh"


def _read(root: Path, name: str) -> str:
    raw = (root / DIRECTORY / f"{name}.sh").read_bytes()
    if len(raw) > MAX_BYTES:
        raise ValueError("is larger than 256 KiB")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 text") from None
    return check_script(text)
