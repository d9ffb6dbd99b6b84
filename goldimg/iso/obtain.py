"""The installer ISO of an OS, wherever it comes from: fetched, local, or assembled."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from goldimg.config.models import Settings
from goldimg.events import Bus
from goldimg.iso.debian.assemble import Recipe, assemble
from goldimg.iso.debian.mirror import Mirrors
from goldimg.iso.download import Progress
from goldimg.iso.fetch import is_fetched, locate
from goldimg.run import Runner


@dataclass(frozen=True, kw_only=True)
class Iso:
    """A verified ISO. `key` stands for its content: two ISOs with one key install the same."""

    path: Path
    sha256: str
    key: str
    package_count: int | None = None


def obtain_iso(
    settings: Settings, mirrors: Mirrors | None, cache: Path, runner: Runner, events: Bus
) -> Iso:
    """The ISO of `settings`, out of the cache where it is there; verified before it is used.

    An assembled ISO is known by the digest of its packages and parts, a fetched one by its SHA256.
    """
    events.emit("iso", "phase", "iso", phase="iso")

    def tell(text: str) -> None:
        events.emit("iso", "note", text)

    installer = settings.os.installer
    if mirrors is None or is_fetched(settings):
        found = locate(
            settings,
            cache,
            runner=runner,
            progress=lambda now: _tell_download(events, now),
            tell=tell,
        )
        events.emit("iso", "done", f"{found.path.name} verified ({found.source})")
        return Iso(path=found.path, sha256=found.sha256, key=found.sha256)
    recipe = Recipe(
        suite=installer.suite or "",
        mirrors=mirrors,
        components=tuple(installer.components),
        kernel=installer.kernel or "",
        packages=tuple(installer.packages),
    )
    made = assemble(recipe, cache=cache / "iso", runner=runner, progress=tell)
    origin = "from the cache" if made.was_cached else "assembled"
    events.emit("iso", "done", f"{made.path.name} {origin}, {len(made.packages)} packages")
    return Iso(
        path=made.path, sha256=made.sha256, key=made.digest, package_count=len(made.packages)
    )


def _tell_download(events: Bus, now: Progress) -> None:
    text = f"{now.done >> 20} MiB, {now.rate / (1 << 20):.1f} MiB/s"
    fraction = now.done / now.total if now.total else None
    events.emit("iso", "progress", text, fraction=fraction)
