"""`templates/os/<OS>.yml`: one operating system, and what a site says of where to get it.

Code asks an OS for capabilities (syntax, package manager, boot keys, CPU), never for its name.
"""

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from goldimg.config.fields import (
    PLACES,
    AbsolutePath,
    BootOptions,
    Checksum,
    Fault,
    Name,
    OsVersion,
    Packages,
    Text,
    Url,
    Urls,
    Word,
    Words,
    matching,
    template,
)
from goldimg.config.written import Written

Firmware = Literal["bios", "efi"]
# Levels of instructions that a compiler may take for granted: the x86-64 psABI, section 3.1.1,
# https://gitlab.com/x86-psABIs/x86-64-ABI
CpuLevel = Literal["x86-64", "x86-64-v2", "x86-64-v3"]
RepoTemplate = Annotated[Text, template(*PLACES)]
IsoPath = Annotated[
    str, matching(r"[A-Za-z0-9][A-Za-z0-9._+/-]*", "must be a path inside the ISO, such as a/b")
]
SUPPLY = "docs/operating-systems.md says how a site brings such an ISO and its packages"
BootTemplate = Annotated[Text, template("ks_url", required="ks_url")]


class OsMirror(Written):
    """A site's own copy of a distribution. One URL stands for ISOs and packages both."""

    iso: Url | None = None
    repo: Url | None = None
    security: Url | None = None  # Debian's

    @classmethod
    def read(cls, value: object) -> object:
        """One URL as the mapping that says the same."""
        return {"iso": value, "repo": value} if isinstance(value, str) else value


SiteMirror = Annotated[OsMirror, BeforeValidator(OsMirror.read)]


class Installer(Written):
    """How the installer ISO comes about: fetched, or assembled from packages. A fetched
    debian-installer reads a preseed, the others read kickstarts."""

    kind: Literal["anaconda", "debian-installer", "debian-packages"]
    suite: Word | None = None
    components: Words = ("main",)
    kernel: Word | None = None
    packages: Packages = ()
    security_server: Url | None = None


class KickstartOptions(Written):
    """What the OS wants of its kickstart."""

    family: Literal["el", "debian"]
    syntax: Annotated[str, matching(r"(RHEL|F)[0-9]{1,2}", 'must be such as "RHEL9"')]
    options: dict[Word, Any] = {}
    repo_path: RepoTemplate = "{repo_server}/{os_version}/os/x86_64"
    extra_repos: dict[Word, RepoTemplate] = {}


class Boot(Written):
    """Keys that make the ISO's boot menu start an installation by kickstart."""

    bios: BootTemplate
    efi: BootTemplate | None = None
    firmware: Firmware | None = None  # by which it is installed; else the site's
    options: BootOptions = ()  # of its kernel, beside the site's


class NetbootFiles(Written):
    """What a machine that starts over the network loads: paths in the ISO, kernel arguments."""

    kernel: IsoPath
    initrd: IsoPath
    arguments: Annotated[Text, template("ks_url", "tree_url", "bootif", required="ks_url")]
    # A signed first and second loader for Secure Boot; both or none.
    shim: IsoPath | None = None
    grub: IsoPath | None = None


class OsFile(Written):
    """`templates/os/<OS>.yml`: one operating system. Code asks it for capabilities."""

    vm_name: Name | None = None
    os_name: Annotated[str, matching(r"[A-Za-z][A-Za-z0-9 ._-]*", "must be a distribution's name")]
    os_version: OsVersion
    iso: Text | None = None
    iso_checksum: Checksum | None = None
    iso_server: Url | None = None
    iso_url: RepoTemplate = "{iso_server}/{os_version}/isos/x86_64/{iso_file}"
    iso_path: Text | None = None
    mirrors: Urls = ()
    repo_server: Url | None = None
    supplied_by_site: bool | None = None  # nobody else gives it: os_mirrors or iso_path does
    installer: Installer
    kickstart: KickstartOptions
    boot: Boot
    netboot: NetbootFiles | None = None
    cpu: CpuLevel | None = None  # the least that its programs run on
    least_memory: int | None = Field(default=None, ge=256, le=1 << 20)  # MiB, of its installer
    package_manager: Literal["apt", "yum", "dnf"]
    python: Annotated[str, matching(r"[23]\.[0-9]{1,2}", 'must be such as "3.9"')]
    sftp_server: AbsolutePath
    guest_os: dict[Word, Word] = {}

    @model_validator(mode="after")
    def _is_complete(self) -> "OsFile":
        if self.iso and "://" not in self.iso and not set(self.iso).isdisjoint("/\\?#{}"):
            raise Fault("iso", "must be a file name or an http(s):// URL")
        if self.iso or self.iso_path or self.installer.kind != "debian-packages":
            self._check_iso()
            return self
        for name in ("suite", "kernel"):
            if not getattr(self.installer, name):
                raise Fault(f"installer.{name}", "is needed to assemble an installer")
        return self

    def _check_iso(self) -> None:
        if not self.iso and not self.iso_path:
            raise Fault("iso", "is needed: a file name for iso_server, a URL, or set iso_path")
        if not self.iso_checksum:
            raise Fault("iso_checksum", "is needed: an ISO is never used unverified")
        needs_server = self.iso and "://" not in self.iso and not self.iso_path
        if needs_server and not (self.iso_server or self.mirrors or self.supplied_by_site):
            raise Fault("iso_server", "is needed to find the ISO, or mirrors, or iso_path")

    def at(self, mirror: OsMirror | None, asked: Collection[str] = ()) -> "OsFile":
        """The same OS, got from the site's own copy first; but for the servers in `asked`."""
        if mirror is None:
            return self
        changes: dict[str, object] = {}
        if mirror.iso and "iso_server" not in asked:
            known = [self.iso_server] if self.iso_server else []
            changes |= {"iso_server": mirror.iso, "mirrors": (*known, *self.mirrors)}
        if mirror.repo and "repo_server" not in asked:
            changes["repo_server"] = mirror.repo
        if mirror.security:
            changes["installer"] = self.installer.model_copy(
                update={"security_server": mirror.security}
            )
            if "security" in self.kickstart.extra_repos:
                repos = {**self.kickstart.extra_repos, "security": mirror.security}
                changes["kickstart"] = self.kickstart.model_copy(update={"extra_repos": repos})
        return self.model_copy(update=changes)


def mirror_of(mirrors: Mapping[str, OsMirror], name: str, os_name: str) -> OsMirror | None:
    """What the site says of the OS called `name`, or else of its distribution."""
    return mirrors.get(name) or mirrors.get(os_name)


def iso_file_name(iso: str | None) -> str | None:
    """The file that `iso` names, a URL or a name with or without its suffix."""
    if iso is None:
        return None
    name = iso.partition("?")[0].rpartition("/")[2]
    return name if name.endswith(".iso") else f"{name}.iso"
