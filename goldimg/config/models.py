"""What users write in `templates/`, and the Settings that all else reads.

Keys of the original system keep their names: its site.json and os/*.json are accepted unchanged,
numbers and booleans in quotes included.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from goldimg.config.fields import (
    AbsolutePath,
    BootOptions,
    Checksum,
    Fault,
    Keyboard,
    Lang,
    Name,
    OsVersion,
    Packages,
    Salt,
    Seconds,
    Text,
    Timezone,
    Url,
    Urls,
    Version,
    Word,
    Words,
    expand,
    matching,
    seconds,
    template,
)
from goldimg.config.serve import Serve
from goldimg.errors import ConfigError, Problem

Builder = Literal["auto", "qemu", "virtualbox-iso", "vmware-iso"]
Firmware = Literal["bios", "efi"]
_PLACES = ("os_name", "os_version", "os_major", "iso_server", "repo_server", "iso", "iso_file")
RepoTemplate = Annotated[Text, template(*_PLACES)]
IsoPath = Annotated[
    str, matching(r"[A-Za-z0-9][A-Za-z0-9._+/-]*", "must be a path inside the ISO, such as a/b")
]
BootTemplate = Annotated[Text, template("ks_url", required="ks_url")]


def _digits(value: object) -> object:
    """Passwords of digits are text, however YAML sees them."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class _Written(BaseModel):
    """Frozen, no unknown keys; an empty value is no value, so that defaults apply."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, coerce_numbers_to_str=True, hide_input_in_errors=True
    )

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, data: object) -> object:
        if not isinstance(data, Mapping):
            return data
        return {key: value for key, value in data.items() if value is not None and value != ""}


class SiteFile(_Written):
    """`templates/site.yml`: what is the same for every operating system of this site."""

    namespace: Name = "goldimg"
    version: Version = "1.0.0"
    headless: bool = True
    ks_server: Text | None = None
    disk_size: int = Field(default=8192, ge=2048, le=2 << 20)  # MiB
    lang: Lang = "en_US.UTF-8"
    keyboard: Keyboard = "us"
    timezone: Timezone = "UTC"
    root_pass: Annotated[SecretStr, BeforeValidator(_digits)] | None = None
    root_pass_file: Text | None = None
    root_salt: Salt | None = None
    ssh_timeout: Seconds = seconds("20m")
    vmware_sha: Literal["sha1", "sha256", "sha512"] = "sha256"
    providers: Words = ()  # none: all
    jobs: int = Field(default=0, ge=0, le=64)  # 0: as many as cores and memory allow
    memory: int = Field(default=1536, ge=512, le=1 << 20)  # MiB of a build's VM
    cpus: int = Field(default=1, ge=1, le=64)
    builder: dict[Word, Builder] = {}
    accelerator: Literal["auto", "kvm", "tcg"] = "auto"
    firmware: Firmware = "bios"
    boot_options: BootOptions = ()  # of the installer's kernel
    guest_additions: Literal["disable", "upload", "attach"] = "disable"  # VirtualBox's own
    hardware_version: int = Field(default=11, ge=4, le=99)  # VMware's
    vmx_data: dict[Text, Text] = {}
    vmx_data_post: dict[Text, Text] = {}
    warm_layers: bool = True  # under emulation: layers go on from the base's running guest
    ks_port: int = Field(default=0, ge=0, le=65535)  # 0: a free one
    cache_dir: Text | None = None
    serve: Serve = Serve()
    publish: dict[Word, dict[str, Any]] = {}


class Installer(_Written):
    """How the installer ISO comes about: fetched, or assembled from packages. A fetched
    debian-installer reads a preseed, the others read kickstarts."""

    kind: Literal["anaconda", "debian-installer", "debian-packages"]
    suite: Word | None = None
    components: Words = ("main",)
    kernel: Word | None = None
    packages: Packages = ()
    security_server: Url | None = None


class KickstartOptions(_Written):
    """What the OS wants of its kickstart."""

    family: Literal["el", "debian"]
    syntax: Annotated[str, matching(r"(RHEL|F)[0-9]{1,2}", 'must be such as "RHEL9"')]
    options: dict[Word, Any] = {}
    repo_path: RepoTemplate = "{repo_server}/{os_version}/os/x86_64"
    extra_repos: dict[Word, RepoTemplate] = {}


class Boot(_Written):
    """Keys that make the ISO's boot menu start an installation by kickstart."""

    bios: BootTemplate
    efi: BootTemplate | None = None
    firmware: Firmware | None = None  # by which it is installed; else the site's
    options: BootOptions = ()  # of its kernel, beside the site's


class NetbootFiles(_Written):
    """What a machine that starts over the network loads: paths in the ISO, kernel arguments."""

    kernel: IsoPath
    initrd: IsoPath
    arguments: Annotated[Text, template("ks_url", "tree_url", "bootif", required="ks_url")]
    # A signed first and second loader for Secure Boot; both or none.
    shim: IsoPath | None = None
    grub: IsoPath | None = None


class OsFile(_Written):
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
    installer: Installer
    kickstart: KickstartOptions
    boot: Boot
    netboot: NetbootFiles | None = None
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
        if needs_server and not (self.iso_server or self.mirrors):
            raise Fault("iso_server", "is needed to find the ISO, or mirrors, or iso_path")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that was configured for one OS, merged and valid. Downstream reads only this."""

    name: str  # of the OS, as its file is called
    site: SiteFile
    os: OsFile
    os_shown: str  # the OS file as messages name it
    root_pass: SecretStr | None = None  # None: random for each build
    cache_dir: Path | None = None
    iso_path: Path | None = None
    checksum_list: str | Path | None = None  # where iso_checksum is "file:…": its URL or path
    notes: tuple[str, ...] = ()
    sources: tuple[Path, ...] = field(default=())  # files that were read

    @property
    def os_major(self) -> str:
        """`7` of `7.2.1511`."""
        return self.os.os_version.split(".")[0]

    @property
    def firmware(self) -> Firmware:
        """What build VMs start by, and so what the images need to start."""
        return self.os.boot.firmware or self.site.firmware

    @property
    def boot_options(self) -> tuple[str, ...]:
        """Kernel arguments of the installer, the site's first, each once."""
        return tuple(dict.fromkeys([*self.site.boot_options, *self.os.boot.options]))

    @property
    def iso_file(self) -> str | None:
        """The ISO's file name, with its suffix."""
        if self.os.iso is None:
            return self.iso_path.name if self.iso_path else None
        name = self.os.iso.partition("?")[0].rpartition("/")[2]
        return name if name.endswith(".iso") else f"{name}.iso"

    @property
    def netboot_files(self) -> NetbootFiles | None:
        """What machines load over the network; None where the ISO has nothing for that.

        The kernel and initrd of a Debian netinst ISO want the medium that they came on.
        """
        return None if self.os.installer.kind == "debian-installer" else self.os.netboot

    def iso_urls(self) -> tuple[str, ...]:
        """Where the ISO may be fetched, in the order to try."""
        if self.os.iso is None:
            return ()
        if "://" in self.os.iso:
            urls = [self.os.iso, *(f"{mirror}/{self.iso_file}" for mirror in self.os.mirrors)]
        else:
            servers = [self.os.iso_server] if self.os.iso_server else []
            servers.extend(self.os.mirrors)
            urls = [self._filled("iso_url", self.os.iso_url, iso_server=at) for at in servers]
        return tuple(dict.fromkeys(urls))

    def repo_url(self) -> str | None:
        """The installation repository; None where the OS file names no repo_server."""
        if self.os.repo_server is None and "{repo_server}" in self.os.kickstart.repo_path:
            return None
        return self._filled("kickstart.repo_path", self.os.kickstart.repo_path)

    def extra_repos(self) -> tuple[tuple[str, str], ...]:
        """Further repositories as (name, URL); none where the OS file names no repo_server."""
        if self.os.repo_server is None:
            return ()
        repos = self.os.kickstart.extra_repos.items()
        return tuple(
            (name, self._filled(f"kickstart.extra_repos.{name}", url)) for name, url in repos
        )

    def boot_command(self, ks_url: str, firmware: Firmware = "bios") -> str:
        """The keys to type, in Packer's notation, at the ISO's boot menu."""
        keys = self.os.boot.bios if firmware == "bios" else self.os.boot.efi
        if keys is None:
            raise self._problem("boot.efi", "is needed to build for EFI")
        return keys.format(ks_url=" ".join([ks_url, *self.boot_options]))

    def packer_os(self) -> dict[str, Any]:
        """The OS file for playbooks (`packer_os`), with defaults filled in. It holds no secret."""
        return {"vm_name": self.name, **self.os.model_dump(mode="json", exclude_none=True)}

    def _filled(self, key: str, text: str, **values: str | None) -> str:
        known = {
            "os_name": self.os.os_name,
            "os_version": self.os.os_version,
            "os_major": self.os_major,
            "iso_server": self.os.iso_server,
            "repo_server": self.os.repo_server,
            "iso": (self.iso_file or "").removesuffix(".iso"),
            "iso_file": self.iso_file,
            **values,
        }

        def complain(name: str) -> None:
            raise self._problem(key, f"uses {{{name}}}, which is not set")

        return expand(text, {name: value or "" for name, value in known.items()}, complain)

    def _problem(self, key: str, message: str) -> ConfigError:
        problem = Problem(self.os_shown, None, None, key, message, None)
        return ConfigError.of([problem])
