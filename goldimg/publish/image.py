"""What is published: a provider's finished artifacts, as their manifest tells of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from goldimg.artifacts import MANIFEST, Finished, read_finished
from goldimg.catalog.version import sort_key
from goldimg.config.models import Settings
from goldimg.errors import PublishFailed, UsageError
from goldimg.inventory.describe import is_description
from goldimg.project import Site, artifact_name
from goldimg.tested import tested


@dataclass(frozen=True, kw_only=True)
class File:
    """One artifact: sizes in bytes, `sha256` in lower-case hex.

    `virtual_size` is that of the disk in it, None where it holds none.
    """

    path: Path
    size: int
    sha256: str
    virtual_size: int | None


@dataclass(frozen=True, kw_only=True)
class Image:
    """A finished image of one provider, and the OS in it."""

    provider: str
    os_name: str  # of the OS file, such as CentOS-7.2.1511
    distribution: str  # such as CentOS
    release: str  # such as 7.2.1511
    family: str  # el or debian
    version: str
    namespace: str
    architecture: str
    firmware: str  # bios or efi
    directory: Path
    files: tuple[File, ...]
    manifest: Mapping[str, object]

    @property
    def name(self) -> str:
        """`<OS>-<version>_<provider>`: what names at the provider are made of."""
        return artifact_name(self.os_name, self.version, self.provider)

    @property
    def builder(self) -> str:
        """The Packer builder that made it."""
        found = self.manifest.get("builder")
        return str(found.get("name", "")) if isinstance(found, dict) else ""

    def file(self, extension: str) -> File:
        """The artifact with this extension; PublishFailed where the image has none."""
        for file in self.files:
            if file.path.name == f"{self.name}.{extension}":
                return file
        raise PublishFailed(
            f"{self.directory} holds no {self.name}.{extension}",
            hint=f"build it: goldimg build -O {self.os_name} --only {self.provider} --force",
        )


def find_image(site: Site, settings: Settings, provider: str, version: str | None) -> Image:
    """The finished image of `version`, or of the newest that is finished.

    UsageError where there is none, or where an artifact's file is gone or of another size than its
    manifest says; the content is checked later, while it is read anyway.
    """
    chosen = version or newest(site, settings.name, provider)
    if chosen is None:
        raise UsageError(
            f"no finished image of {settings.name} for {provider}",
            hint=f"build it: goldimg build -O {settings.name} --only {provider}",
        )
    directory = site.artifact_dir(chosen, settings.name, provider)
    finished = read_finished(directory)
    if finished is None:
        raise UsageError(
            f"{settings.name} {chosen} is not built for {provider}",
            why=f"{site.shown(directory)} has no {MANIFEST}",
            hint=f"build it: goldimg build -O {settings.name} --version {chosen} --only {provider}",
        )
    files = files_of(finished)
    for file in files:
        size = file.path.stat().st_size if file.path.exists() else None
        if size != file.size:
            raise UsageError(
                f"{site.shown(file.path)} is {'missing' if size is None else 'not whole'}",
                why=f"{MANIFEST} says {file.size} bytes"
                + ("" if size is None else f", it has {size}"),
                hint=f"build it again: goldimg build -O {settings.name} --only {provider} --force",
            )
    return image_of(settings, provider, chosen, directory, finished, files)


def check_tested(images: Sequence[Image]) -> None:
    """Raises PublishFailed with every image that has not passed its test, and how to test them."""
    said = {True: "", False: "its test failed", None: "was not tested"}
    faults = {it.name: said[tested(it.manifest)] for it in images}
    wrong = [it for it in images if faults[it.name]]
    if not wrong:
        return
    first = wrong[0]
    commands = dict.fromkeys(
        f"goldimg test -O {it.os_name} --version {it.version} "
        + " ".join(other.provider for other in wrong if other.version == it.version)
        for it in wrong
    )
    raise PublishFailed(
        f"{first.name}: {faults[first.name]}" if len(wrong) == 1
        else f"{len(wrong)} images have not passed their tests",
        why="publish.require_tested asks for images that have passed",
        details=[f"{it.name}: {faults[it.name]}" for it in wrong] if len(wrong) > 1 else (),
        hint="; ".join(commands),
    )  # fmt: skip


def image_of(
    settings: Settings,
    provider: str,
    version: str,
    directory: Path,
    finished: Finished,
    files: tuple[File, ...],
) -> Image:
    """The image that a manifest describes, whether or not its files are still there."""
    return Image(
        provider=provider,
        os_name=settings.name,
        distribution=settings.os.os_name,
        release=settings.os.os_version,
        family=settings.os.kickstart.family,
        version=version,
        namespace=settings.site.namespace,
        architecture="x86_64",
        firmware=str(finished.manifest.get("firmware", settings.firmware)),
        directory=directory,
        files=files,
        manifest=finished.manifest,
    )


def files_of(finished: Finished) -> tuple[File, ...]:
    """The artifacts that a manifest lists; what describes them is not published with them."""
    return tuple(
        File(
            path=finished.directory / str(it["file"]),
            size=int(str(it["size"])),
            sha256=str(it["sha256"]),
            virtual_size=int(str(it["virtual_size"])) if it.get("virtual_size") else None,
        )
        for it in finished.files
        if not is_description(Path(str(it["file"])))
    )


def newest(site: Site, os_name: str, provider: str) -> str | None:
    """The highest version that is finished for the provider; None where none is."""
    found = versions(site, os_name, provider)
    return found[-1] if found else None


def versions(site: Site, os_name: str, provider: str) -> list[str]:
    """Every version that is finished for the provider, the highest last."""
    if not site.artifacts.is_dir():
        return []
    found = [
        path.name
        for path in site.artifacts.iterdir()
        if (path / os_name / provider / MANIFEST).exists()
    ]
    return sorted(sorted(found), key=sort_key)
