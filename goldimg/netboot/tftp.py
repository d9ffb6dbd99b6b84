"""The directory that TFTP serves: loaders, and for machines to be installed what these read next.

A machine's own file exists only while the machine is to be installed, so that no state but an
armed host's can start an install: whatever else asks finds the default, which starts the disk.
Boot arguments can hold a token, hence files that nobody but the daemon's user may read.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from goldimg.config.serve import Netboot
from goldimg.errors import ConfigError, MissingTool, Problem
from goldimg.netboot import Boot, scripts
from goldimg.netboot.tree import Tree
from goldimg.project import make_directory, write_text, writing

# Debian's packages and the files that they bring
# (https://packages.debian.org/bookworm/all/{ipxe,pxelinux,syslinux-common}/filelist).
_SYSLINUX = "usr/lib/syslinux/modules/bios"
LOADERS = {
    "undionly.kpxe": ("ipxe", "usr/lib/ipxe/undionly.kpxe"),
    "snponly.efi": ("ipxe", "usr/lib/ipxe/snponly.efi"),
    "ipxe.efi": ("ipxe", "usr/lib/ipxe/ipxe.efi"),
    "pxelinux.0": ("pxelinux", "usr/lib/PXELINUX/pxelinux.0"),
    "ldlinux.c32": ("syslinux-common", f"{_SYSLINUX}/ldlinux.c32"),
    "menu.c32": ("syslinux-common", f"{_SYSLINUX}/menu.c32"),
    "libutil.c32": ("syslinux-common", f"{_SYSLINUX}/libutil.c32"),
    "libcom32.c32": ("syslinux-common", f"{_SYSLINUX}/libcom32.c32"),
}
IPXE = ("undionly.kpxe", "snponly.efi", "ipxe.efi")
PXELINUX = ("pxelinux.0", "ldlinux.c32", "menu.c32", "libutil.c32", "libcom32.c32")
# A signed GRUB has its configuration's place built in, or takes the directory that it came from.
# Debian: /grub (grubnetx64), /debian-installer/amd64/grub (its installer's); EL: /EFI/<vendor>.
GRUB_PLACES = (
    "grub",
    "debian-installer/amd64/grub",
    *(f"EFI/{name}" for name in ("BOOT", "redhat", "centos", "almalinux", "rocky", "debian")),
)


@dataclass(frozen=True, kw_only=True)
class Source:
    """The boot files of one operating system: its tree, and paths of its signed loaders in it."""

    tree: Tree
    shim: str | None = None
    grub: str | None = None


@dataclass(frozen=True, kw_only=True)
class Owner:
    """Whose the files are, as numbers; None leaves them to whoever writes them."""

    uid: int | None = None
    gid: int | None = None


@dataclass(frozen=True, kw_only=True)
class TftpRoot:
    """The directory `path`, written by nobody else. `templates` is the site's `kickstart/`."""

    path: Path
    templates: Path
    base_url: str
    netboot: Netboot
    sources: Mapping[str, Source] = field(default_factory=dict)
    owner: Owner = Owner()
    system: Path = Path("/")  # where packages are installed

    @property
    def loaders(self) -> tuple[str, ...]:
        """The loaders of packages that this site's machines may ask for."""
        return IPXE if self.netboot.loader == "ipxe" else PXELINUX

    @property
    def wants_files(self) -> bool:
        """Whether GRUB or PXELINUX are used, which are told by files and not over HTTP."""
        return self.netboot.loader == "grub" or self.netboot.secure_boot

    def loader(self, name: str) -> Path:
        """The file of the loader `name`; MissingTool names the package that brings it."""
        package, place = LOADERS[name]
        found = self.system / place
        if not found.is_file():
            raise MissingTool(
                f"the boot loader {name} is not installed",
                hint=f"apt-get install {package}, or see 'goldimg doctor'",
            )
        return found

    def missing(self) -> list[str]:
        """What machines would ask for in vain, a line each; no ISO at all is no fault yet."""
        lines = []
        for name in self.loaders:
            try:
                self.loader(name)
            except MissingTool as error:
                lines.append(f"{error}; {error.hint}")
        if self.base_url.startswith("https:") and self.netboot.loader == "ipxe":
            # https://ipxe.org/buildcfg/download_proto_https: not in Debian's build
            lines.append(
                "iPXE as Debian builds it knows no https; set serve.url to an http:// address,"
                " or netboot.loader to grub"
            )
        has_signed = any(it.shim and it.grub for it in self.sources.values())
        if self.wants_files and self.sources and not has_signed:
            names = ", ".join(sorted(self.sources))
            lines.append(
                "UEFI machines need a shim and a GRUB of their distribution, and the ISO of"
                f" {names} has none where netboot.shim and netboot.grub of its file say"
            )
        return lines

    def sync(self, machines: Mapping[str, Boot], default: Boot) -> list[str]:
        """Makes the directory what it has to be now; returns the names that changed.

        `machines` are those that are to be installed, by MAC address; what else is in it is
        ignored. `default` is for all the rest. Cheap when nothing changed: it may be called twice a
        second. A machine whose files are not to be had, or whose values a loader cannot be given,
        gets none of its own; the others get theirs, and ConfigError tells of all such at the end.
        Raises MissingTool for a loader.
        """
        self._directory(self.path)
        changed: list[str] = []
        problems: list[Problem] = []
        texts: dict[str, str] = {}
        if self.wants_files:
            with _collected(problems):
                changed += self._kernels(default)
                texts |= self._general(default)
            for mac, boot in machines.items():
                if boot.action == "install":
                    with _collected(problems):
                        changed += self._kernels(boot)
                        texts |= self._own(mac, boot)
            for os_name, source in self.sources.items():
                with _collected(problems):
                    changed += self._signed(os_name, source)
        changed += self._drop_machines(texts)
        for name in self.loaders:
            changed += self._copy(name, self.loader(name))
        for name, text in texts.items():
            changed += self._write(name, text)
        if problems:
            raise ConfigError.of(problems)
        return changed

    def _general(self, default: Boot) -> dict[str, str]:
        where = (self.templates, default, self.base_url)
        text = scripts.grub(*where, finds_machine=True)
        places = (*GRUB_PLACES, *(name for name, it in self.sources.items() if it.grub))
        texts = {f"{place}/grub.cfg": text for place in places}
        return {**texts, "pxelinux.cfg/default": scripts.pxelinux(*where)}

    def _own(self, mac: str, boot: Boot) -> dict[str, str]:
        where = (self.templates, boot, self.base_url)
        name = scripts.dashed(mac)
        return {
            f"grub/grub.cfg-{name}": scripts.grub(*where),
            f"pxelinux.cfg/{name}": scripts.pxelinux(*where),
        }

    def _drop_machines(self, texts: Mapping[str, str]) -> list[str]:
        dropped = []
        for found in (*self.path.glob("grub/grub.cfg-01-*"), *self.path.glob("pxelinux.cfg/01-*")):
            name = str(found.relative_to(self.path))
            if name not in texts:
                found.unlink(missing_ok=True)
                dropped.append(name)
        return dropped

    def _write(self, name: str, text: str) -> list[str]:
        target = self.path / name
        with contextlib.suppress(OSError):
            if target.read_text(encoding="utf-8") == text:
                return []
        self._directory(target.parent)
        write_text(target, text, mode=0o600)
        self._give(target)
        return [name]

    def _copy(self, name: str, source: Path) -> list[str]:
        target, known = self.path / name, source.stat()
        if self._stands(target, known.st_size, known.st_mtime_ns):
            return []
        self._directory(target.parent)
        with writing(target) as temporary:
            shutil.copyfile(source, temporary)
            self._finish(temporary, known.st_mtime_ns)
        return [name]

    def _extract(self, name: str, tree: Tree, path: str) -> list[str]:
        target, extent = self.path / name, tree.find(path)
        if extent is None:
            raise _problem(tree.iso.name, f"has no file {path}, which machines need to start")
        if self._stands(target, extent.size, tree.mtime_ns):
            return []
        self._directory(target.parent)
        with writing(target) as temporary, tree.open(path) as source:
            with temporary.open("wb") as copy:
                shutil.copyfileobj(source, copy, 1 << 20)
            self._finish(temporary, tree.mtime_ns)
        return [name]

    def _signed(self, os_name: str, source: Source) -> list[str]:
        if not (source.shim and source.grub):
            return []
        # shim asks for grubx64.efi in the directory that it came from itself.
        return [
            *self._extract(f"{os_name}/shimx64.efi", source.tree, source.shim),
            *self._extract(f"{os_name}/grubx64.efi", source.tree, source.grub),
        ]

    def _kernels(self, boot: Boot) -> list[str]:
        changed = []
        for entry in boot.entries:
            if entry.os not in self.sources:
                raise _problem(ascii(entry.os), "has no ISO here to take the boot files from")
            for path in (entry.kernel, entry.initrd):
                name = scripts.kernel_name(entry, path)
                changed += self._extract(name, self.sources[entry.os].tree, path)
        return changed

    @staticmethod
    def _stands(target: Path, size: int, mtime_ns: int) -> bool:
        try:
            found = target.stat()
        except OSError:
            return False
        return (found.st_size, found.st_mtime_ns) == (size, mtime_ns)

    def _finish(self, path: Path, mtime_ns: int) -> None:
        path.chmod(0o644)
        os.utime(path, ns=(mtime_ns, mtime_ns))
        self._give(path)

    def _directory(self, path: Path) -> None:
        # Whatever the umask, and whoever made it: dnsmasq's user lists it when it starts.
        if not path.is_dir() or path.stat().st_mode & 0o777 != 0o755:
            make_directory(path).chmod(0o755)

    def _give(self, path: Path) -> None:
        if self.owner.uid is not None and self.owner.gid is not None:
            os.chown(path, self.owner.uid, self.owner.gid)


def _problem(where: str, message: str) -> ConfigError:
    return ConfigError.of([Problem(where, None, None, "", message)])


@contextlib.contextmanager
def _collected(problems: list[Problem]) -> Iterator[None]:
    """What is wrong inside is kept for later, once."""
    try:
        yield
    except ConfigError as error:
        problems.extend(it for it in error.problems if it not in problems)
