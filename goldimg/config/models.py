"""What users write in `templates/`, and the Settings that all else reads.

Keys of the original system keep their names: its site.json and os/*.json are accepted unchanged,
numbers and booleans in quotes included.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr

from goldimg.config.catalog import Catalog
from goldimg.config.fields import (
    BootOptions,
    Keyboard,
    Lang,
    Name,
    Salt,
    Seconds,
    Text,
    Timezone,
    Version,
    Word,
    Words,
    expand,
    matching,
    seconds,
)
from goldimg.config.os_file import (
    Firmware,
    Installer,
    NetbootFiles,
    OsFile,
    SiteMirror,
    iso_file_name,
)
from goldimg.config.publish import Publish
from goldimg.config.serve import Serve
from goldimg.config.sign import Sign
from goldimg.config.written import Written
from goldimg.errors import ConfigError, Problem

__all__ = ["Firmware", "Installer", "NetbootFiles", "OsFile", "Settings", "SiteFile"]

Builder = Literal["auto", "qemu", "virtualbox-iso", "vmware-iso"]


Variable = Annotated[
    str,
    matching(r"(?!packer_|ansible_)[A-Za-z_][A-Za-z0-9_]*", "must be a variable's name of yours"),
]
ExtraVars = dict[Variable, Any]


def _digits(value: object) -> object:
    """Passwords of digits are text, however YAML sees them."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class SiteFile(Written):
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
    secure_boot: bool = False  # of VMware's OVA, as the two below
    tpm: bool = False
    ova_writer: Literal["goldimg", "ovftool"] = "goldimg"
    qcow2_compression: Literal["zlib", "zstd"] = "zlib"  # zstd: smaller, for QEMU 5.1 and newer
    boxes: bool = False  # debugging boxes for Vagrant, beside the artifacts
    catalog: Catalog = Catalog()
    updates: bool = False  # the base is brought up to date
    extra_vars: ExtraVars = {}  # of the playbooks
    warm_layers: bool = True  # under emulation: layers go on from the base's running guest
    ks_port: int = Field(default=0, ge=0, le=65535)  # 0: a free one
    cache_dir: Text | None = None
    iso_dir: Text = "isos"  # ISOs of one's own, by their names
    os_mirrors: dict[Text, SiteMirror] = {}  # by distribution or OS
    check_sources: bool = True  # ask repositories before a VM starts
    serve: Serve = Serve()
    publish: Publish = Publish()
    sign: Sign = Sign()


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that was configured for one OS, merged and valid. Downstream reads only this."""

    name: str  # of the OS, as its file is called
    site: SiteFile
    os: OsFile
    os_shown: str  # the OS file as messages name it
    root_pass: SecretStr | None = None  # None: random for each build
    cache_dir: Path | None = None
    iso_path: Path | None = None  # the ISO that is here: iso_path's, or one of iso_dir
    checksum_file: Path | None = None  # where iso_checksum is "file:…" of this machine
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
    def memory_mib(self) -> int:
        """What a build VM has: the site's, but not less than the installer needs."""
        return max(self.site.memory, self.os.least_memory or 0)

    @property
    def boot_options(self) -> tuple[str, ...]:
        """Kernel arguments of the installer, the site's first, each once."""
        return tuple(dict.fromkeys([*self.site.boot_options, *self.os.boot.options]))

    @property
    def iso_file(self) -> str | None:
        """The ISO's file name, with its suffix."""
        return iso_file_name(self.os.iso) or (self.iso_path.name if self.iso_path else None)

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
            urls = [
                self._filled("iso_url", self.os.iso_url, iso_server=at) for at in self.iso_servers
            ]
        return tuple(dict.fromkeys(urls))

    @property
    def iso_servers(self) -> tuple[str, ...]:
        """The servers that may have the ISO, in the order to try: the site's own first."""
        own = (self.os.iso_server,) if self.os.iso_server else ()
        return tuple(dict.fromkeys([*own, *self.os.mirrors]))

    def checksum_lists(self) -> tuple[str, ...]:
        """URLs of lists that hold the ISO's SHA-256, in the order to ask; none: no list's."""
        kind, _, text = (self.os.iso_checksum or "").partition(":")
        if kind != "file" or self.checksum_file:
            return ()
        if "{iso_server}" not in text:
            return (self._filled("iso_checksum", text),)
        return tuple(self._filled("iso_checksum", text, iso_server=at) for at in self.iso_servers)

    def repo_candidates(self) -> tuple[str, ...]:
        """Where else the installation repository may be: at the mirrors, by the same path."""
        path = self.os.kickstart.repo_path
        if "{repo_server}" not in path:
            return ()
        return tuple(
            self._filled("kickstart.repo_path", path, repo_server=at) for at in self.os.mirrors
        )

    def unsupplied(self) -> tuple[Problem, ...]:
        """What the site has still to say before this OS can be built; see `supplied_by_site`."""
        if not self.os.supplied_by_site:
            return ()
        where = f"os_mirrors.{self.os.os_name}"
        found = []
        if not (self.iso_path or self.iso_urls()):
            found.append(("iso_server", f"is not set: give {where} in site.yml, or iso_path"))
        if self.repo_url() is None:
            found.append(("repo_server", f"is not set: give {where} in site.yml"))
        return tuple(Problem(self.os_shown, None, None, key, text) for key, text in found)

    def repo_url(self) -> str | None:
        """The installation repository; None where the OS file names no repo_server."""
        if self.os.repo_server is None and "{repo_server}" in self.os.kickstart.repo_path:
            return None
        return self._filled("kickstart.repo_path", self.os.kickstart.repo_path)

    def extra_repos(self) -> tuple[tuple[str, str], ...]:
        """Further repositories as (name, URL), without those at a repo_server that nobody named."""
        return tuple(
            (name, self._filled(f"kickstart.extra_repos.{name}", url))
            for name, url in self.os.kickstart.extra_repos.items()
            if self.os.repo_server or "{repo_server}" not in url
        )

    def boot_command(self, ks_url: str, firmware: Firmware = "bios") -> str:
        """The keys to type, in Packer's notation, at the ISO's boot menu."""
        keys = self.os.boot.bios if firmware == "bios" else self.os.boot.efi
        if keys is None:
            raise self._problem("boot.efi", "is needed to build for EFI")
        return keys.format(ks_url=" ".join([ks_url, *self.boot_options]))

    def packer_os(self) -> dict[str, Any]:
        """The OS file for playbooks (`packer_os`), with defaults filled in. It holds no secret.

        `repositories` are those that it is installed from, as name: URL, where the file says them.
        """
        url = self.repo_url()
        repositories = {"base": url, **dict(self.extra_repos())} if url else {}
        dumped = self.os.model_dump(mode="json", exclude_none=True)
        return {"vm_name": self.name, **dumped, "repositories": repositories}

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
