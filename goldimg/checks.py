"""What `goldimg doctor` asks beside programs and their versions: one function, one finding each.

Every one has an end: programs and the network get SECONDS.
"""

from __future__ import annotations

import re
import socket
import tempfile
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from goldimg.config.models import Settings
from goldimg.cpu import lacks
from goldimg.errors import GoldimgError
from goldimg.host import find_accelerator, find_holders, find_ovmf
from goldimg.iso.download import Policy
from goldimg.iso.fetch import is_fetched
from goldimg.iso.reach import missing_repositories, preflight
from goldimg.kickstart.target import find_mirrors
from goldimg.native import host_address
from goldimg.plan import HYPERVISORS
from goldimg.project import Site, free_bytes
from goldimg.run import Runner, has_program
from goldimg.space import BASE_MIB, LAYER_MIB

SECONDS = 15.0  # a probe that takes longer counts as failed
BUNDLING_ENDED = (1, 10)  # from this Packer on no builder comes with it
PLUGINS = {
    "ansible": "github.com/hashicorp/ansible",
    "qemu": "github.com/hashicorp/qemu",
    "virtualbox-iso": "github.com/hashicorp/virtualbox",
    "vmware-iso": "github.com/vmware/vmware",
}
# ansible-core -> the oldest Python that it manages:
# https://docs.ansible.com/ansible/latest/reference_appendices/release_and_maintenance.html
OLDEST_PYTHON = (
    ((2, 20), (3, 9)),
    ((2, 18), (3, 8)),
    ((2, 17), (3, 7)),
    ((2, 13), (2, 7)),
    ((2, 0), (2, 6)),
)
# A boot sector that writes to QEMU's exit device: mov al, 16; out 0xf4, al; hlt; jmp back.
SECTOR = bytes.fromhex("b010e6f4f4ebfd").ljust(510, b"\0") + b"\x55\xaa"
RAN = 33  # QEMU's exit code when it has: 16 * 2 + 1


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One tool or capability. `detail` is its version, or the command that brings it."""

    name: str
    reason: str
    is_required: bool
    is_there: bool
    detail: str


def number_of(text: str) -> tuple[int, int]:
    """Major and minor version in a program's own words; (0, 0) where there is none."""
    match = re.search(r"(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def packer_plugins(builders: Iterable[str], version: tuple[int, int], runner: Runner) -> Finding:
    """Whether Packer has the plugins of `builders`; the older ones come with all of them."""
    wanted = [PLUGINS["ansible"], *(PLUGINS[builder] for builder in builders)]
    is_needed = version >= BUNDLING_ENDED
    said = ""
    if is_needed:
        argv = ["packer", "plugins", "installed"]
        said = _said(argv, runner)
    missing = [name for name in wanted if is_needed and f"/{name.split('/', 1)[1]}/" not in said]
    lines = "; ".join(f"packer plugins install {name}" for name in missing)
    return Finding(
        name="packer plugins",
        reason="boot and provision build VMs",
        is_required=is_needed,
        is_there=not missing,
        detail=lines or ("installed" if is_needed else "come with this Packer"),
    )


def _said(argv: Sequence[str], runner: Runner) -> str:
    try:
        done = runner.run(argv, check=False, timeout=SECONDS, env={"CHECKPOINT_DISABLE": "1"})
    except GoldimgError:
        return ""
    return done.stdout + done.stderr


def ansible_python(version: tuple[int, int], settings: Settings) -> Finding:
    """Whether this ansible-core manages the Python of the installed system."""
    oldest = next(python for core, python in OLDEST_PYTHON if version >= core)
    target = number_of(settings.os.python)
    shown = ".".join(map(str, version))
    detail = f"ansible-core {shown} manages Python {settings.os.python}"
    if target < oldest:
        need = ".".join(map(str, oldest))
        last = min(core for core, python in OLDEST_PYTHON if python > target)
        detail = f"ansible-core {shown} needs Python {need} there: pip install " + (
            f"'ansible-core<{last[0]}.{last[1]}'"
        )
    return Finding(
        name="ansible and Python",
        reason=f"provision {settings.name}",
        is_required=True,
        is_there=target >= oldest,
        detail=detail,
    )


def cpu(settings: Settings, builders: Collection[str], qemu_version: tuple[int, int]) -> Finding:
    """Whether build VMs get a CPU on which the OS's programs run."""
    level = settings.os.cpu or "x86-64"
    asked = settings.site.accelerator
    accelerator = find_accelerator().name if asked == "auto" else asked
    shown = ".".join(map(str, qemu_version)) if any(qemu_version) else ""
    why = lacks(level, builders, accelerator, shown)
    return Finding(
        name="build VMs' CPU",
        reason=f"run {settings.name}",
        is_required=True,
        is_there=not why,
        detail=why or level,
    )


def kvm(runner: Runner, root: Path = Path("/")) -> Finding:
    """Whether a guest runs with KVM: proven by one of five instructions."""
    found = find_accelerator(root)
    is_there, detail = found.name == "kvm", found.reason
    if is_there and has_program("qemu-system-x86_64"):
        is_there = runs_guest("kvm", runner)
        detail = "a guest ran" if is_there else f"{detail}, but a guest did not run"
    return Finding(
        name="kvm",
        reason="run build VMs at full speed",
        is_required=False,
        is_there=is_there,
        detail=detail,
    )


def runs_guest(accelerator: str, runner: Runner) -> bool:
    """Whether QEMU executes a guest's code with `accelerator`, within SECONDS."""
    with tempfile.NamedTemporaryFile(prefix="goldimg-boot-") as sector:
        sector.write(SECTOR)
        sector.flush()
        argv = [
            *("qemu-system-x86_64", "-accel", accelerator, "-m", "16", "-display", "none"),
            *("-nodefaults", "-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"),
            *("-drive", f"file={sector.name},format=raw,if=ide,readonly=off,snapshot=on"),
        ]
        try:
            return runner.run(argv, check=False, timeout=SECONDS).code == RAN
        except GoldimgError:
            return False


def extensions(builders: Iterable[str]) -> Finding:
    """Whether VMs of other hypervisors hold what the build's would need."""
    others = [holder for holder in find_holders() if holder.builder not in set(builders)]
    shown = ", ".join(f"{HYPERVISORS[it.builder]}: process {it.pid}" for it in others)
    return Finding(
        name="CPU extensions",
        reason="run build VMs at full speed",
        is_required=False,
        is_there=not others,
        detail=f"held by {shown}" if others else "nobody else holds them",
    )


def efi_firmware() -> Finding:
    """Whether QEMU can start guests by EFI."""
    found = find_ovmf()
    return Finding(
        name="OVMF",
        reason="start build VMs by EFI",
        is_required=True,
        is_there=found is not None,
        detail=str(found.code) if found else "apt-get install ovmf",
    )


def vmware_network() -> Finding:
    """Whether VMware's guests can reach this host."""
    try:
        detail, is_there = host_address("vmware-iso")[0], True
    except GoldimgError as error:
        detail, is_there = error.hint, False
    return Finding(
        name="vmnet8",
        reason="serve kickstarts to VMware's guests",
        is_required=True,
        is_there=is_there,
        detail=detail,
    )


def space(site: Site, count: int) -> Finding:
    """Whether images for `count` providers fit, with a base for each at worst."""
    need = (BASE_MIB + LAYER_MIB) * count
    free = min(free_bytes(site.cache), free_bytes(site.artifacts)) >> 20
    return Finding(
        name="disk space",
        reason=f"build for {count} provider{'s' * (count != 1)}",
        is_required=True,
        is_there=free >= need,
        detail=f"{free} MiB free, {need} MiB are enough",
    )


def port(number: int) -> Finding:
    """Whether the kickstart server gets its port."""
    detail, is_there = "any free one is taken" if number == 0 else f"{number} is free", True
    try:
        with socket.create_server(("127.0.0.1", number)):
            pass
    except OSError as error:
        is_there, detail = False, f"{number}: {(error.strerror or str(error)).lower()}"
        detail += "; set ks_port to another, or to 0"
    return Finding(
        name="port",
        reason="serve kickstarts to build VMs",
        is_required=True,
        is_there=is_there,
        detail=detail,
    )


def keys(site: Site) -> Finding:
    """Whether the site has its SSH keys, closed to others."""
    private = [site.keys / name for name in ("packer", "vagrant")]
    missing = [path.name for path in private if not path.exists()]
    is_open = [path.name for path in private if path.exists() and path.stat().st_mode & 0o077]
    detail = f"{site.shown(site.keys)}/ has both"
    if missing:
        detail = "goldimg keys makes them; so does the first build"
    elif is_open:
        detail = f"chmod 600 {' '.join(site.shown(site.keys / name) for name in is_open)}"
    return Finding(
        name="keys",
        reason="log in to images",
        is_required=False,
        is_there=not missing and not is_open,
        detail=detail,
    )


def iso(settings: Settings, cache: Path) -> Finding:
    """Whether the ISO of an OS is here or its servers answer."""
    policy = Policy(connect=SECONDS, read=SECONDS)
    problems = preflight(settings, cache, policy=policy) if is_fetched(settings) else []
    name = settings.iso_file or f"{settings.name} from packages"
    return Finding(
        name=name,
        reason=f"install {settings.name}",
        is_required=True,
        is_there=not problems,
        detail="; ".join(problems) or "can be had",
    )


def repository(settings: Settings, runner: Runner) -> Finding:
    """Whether the package repositories have what an installer reads first."""
    try:
        mirrors = find_mirrors(settings, runner)
        policy = Policy(connect=SECONDS, read=SECONDS)
        problems = missing_repositories(settings, mirrors, policy=policy)
    except GoldimgError as error:
        problems = [str(error)]
    return Finding(
        name="repository",
        reason=f"install {settings.name}",
        is_required=True,
        is_there=not problems,
        detail="; ".join(problems) or "answers",
    )
