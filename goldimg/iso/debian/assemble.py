"""Makes the installer ISO, or finds it: keyed by its packages and by the parts that are ours."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from goldimg.errors import GoldimgError
from goldimg.iso.debian.mirror import Mirrors
from goldimg.iso.debian.resolve import KEYRING, Package, resolve, sources_list
from goldimg.project import free_bytes, make_directory, waiting_lock, write_text, writing
from goldimg.run import Runner

DATA = Path(__file__).resolve().parent / "data"
# what the installer's own file system needs beside what a user's recipe names
BASE_PACKAGES = (
    "systemd-sysv",
    "systemd-resolved",
    "udev",
    "kmod",
    "iproute2",
    "netbase",
    "procps",
    "iputils-ping",
    "fdisk",
    "e2fsprogs",
    "dosfstools",
    "lvm2",
    "xfsprogs",
    "dbus",
    "openssh-server",
    "python3",
    "grub-cloud-amd64",
    "initramfs-tools",
    "zstd",
    "tzdata",
)
# used while the ISO is made, not in the image
TOOL_PACKAGES = ("busybox-static", "isolinux", "syslinux-common", "mtools")
SCHEMA = 1
SPACE_MIB = 4000
# what mmdebstrap says -> what a user wants to know of it
STEPS = {
    "I: downloading packages": "downloading packages",
    "I: installing essential packages": "unpacking a minimal Debian",
    "I: installing remaining packages": "installing packages",
    "I: running --customize-hook": "making the installer and its file system image",
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What to assemble: a suite of Debian, from where, its kernel and its packages."""

    suite: str
    mirrors: Mirrors
    components: tuple[str, ...]
    kernel: str
    packages: tuple[str, ...]

    @property
    def all_packages(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*BASE_PACKAGES, self.kernel, *self.packages)))


@dataclass(frozen=True, kw_only=True)
class Assembled:
    """An ISO that stands. `digest` is of its inputs, `packages` maps names to versions."""

    path: Path
    sha256: str
    digest: str
    packages: Mapping[str, str]
    was_cached: bool


def assemble(
    recipe: Recipe, *, cache: Path, runner: Runner, progress: Callable[[str], None]
) -> Assembled:
    """The ISO of `recipe`: out of `cache` where its packages are still the newest, else made now.

    Packages are those that apt verifies by Debian's signatures. Where no mirror answers, the newest
    ISO of the same recipe serves, and `progress` is told so. Raises GoldimgError otherwise, and
    leaves nothing behind.
    """
    if not KEYRING.exists():
        raise GoldimgError(
            f"{KEYRING} is missing",
            why="Debian's packages are verified by it",
            hint="apt-get install debian-archive-keyring",
        )
    make_directory(cache)
    with waiting_lock(cache / "debian.lock", runner.check_cancelled):
        progress("resolving packages")
        try:
            packages = resolve(
                recipe.suite,
                recipe.mirrors,
                recipe.components,
                (*recipe.all_packages, *TOOL_PACKAGES),
                state=cache / "apt" / recipe.suite,
                runner=runner,
            )
        except GoldimgError as error:
            if error.code not in (1,):
                raise
            return _newest(recipe, cache, progress, error)
        digest = digest_of(recipe, packages)
        path = cache / f"debian-{recipe.suite}-{digest[:16]}.iso"
        found = _cached(path)
        return found or _make(recipe, packages, digest, path, runner, progress)


def digest_of(recipe: Recipe, packages: list[Package]) -> str:
    """64 hex digits that stand for the recipe, every package's bytes, and our own parts."""
    parts = {
        "schema": SCHEMA,
        "recipe": asdict(recipe),
        "packages": [(package.file, package.sha256) for package in packages],
        "data": data_digest(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def recipe_digest(recipe: Recipe) -> str:
    """The same without the packages' versions."""
    parts = {"schema": SCHEMA, "recipe": asdict(recipe), "data": data_digest()}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def data_digest() -> str:
    """A digest of the installer's scripts and configuration."""
    total = hashlib.sha256()
    for path in sorted(DATA.rglob("*")):
        if path.is_file():
            total.update(f"{path.relative_to(DATA)}\0".encode() + path.read_bytes() + b"\0")
    return total.hexdigest()


def _cached(path: Path) -> Assembled | None:
    """The ISO at `path`, if it and its description stand and agree."""
    described = path.with_suffix(".json")
    if not path.exists() or not described.exists():
        return None
    known = json.loads(described.read_text(encoding="utf-8"))
    if sha256_of(path) != known["sha256"]:
        path.unlink()  # damaged since: it is made anew
        return None
    return Assembled(
        path=path,
        sha256=known["sha256"],
        digest=known["digest"],
        packages=known["packages"],
        was_cached=True,
    )


def _newest(
    recipe: Recipe, cache: Path, progress: Callable[[str], None], error: GoldimgError
) -> Assembled:
    wanted = recipe_digest(recipe)
    candidates = sorted(
        cache.glob(f"debian-{recipe.suite}-*.json"), key=lambda path: -path.stat().st_mtime
    )
    for described in candidates:
        known = json.loads(described.read_text(encoding="utf-8"))
        if known["recipe"] == wanted and (found := _cached(described.with_suffix(".iso"))):
            progress(f"the mirror did not answer; using {found.path.name}, assembled earlier")
            return found
    raise GoldimgError(
        f"cannot resolve the packages of Debian {recipe.suite} at {recipe.mirrors.main}",
        why="and no ISO of the same recipe was assembled earlier",
        details=[line for line in error.details if line.startswith(("E:", "W:"))][:4],
        hint="check the network and the mirror, or set repo_server",
    ) from error


def _make(
    recipe: Recipe,
    packages: list[Package],
    digest: str,
    path: Path,
    runner: Runner,
    progress: Callable[[str], None],
) -> Assembled:
    free = free_bytes(path.parent) >> 20
    if free < SPACE_MIB:
        raise GoldimgError(
            f"not enough disk space in {path.parent} to assemble the installer",
            why=f"it takes {SPACE_MIB} MiB, {free} MiB are free",
            hint="free some space, or set cache_dir",
        )
    size = sum(package.size for package in packages) >> 20
    progress(f"assembling the installer from {len(packages)} packages, {size} MiB (1 to 2 minutes)")
    log = path.with_suffix(".log")
    log.unlink(missing_ok=True)
    with _workplace(runner) as work:
        _bootstrap(recipe, work, log, runner, progress)
        progress("writing the ISO")
        with writing(path) as temporary:
            _write_iso(recipe, work / "out/iso", temporary, log, runner)
        return _describe(recipe, digest, path, work / "out/packages.tsv", runner)


@contextlib.contextmanager
def _workplace(runner: Runner) -> Iterator[Path]:
    """A directory that root of a user namespace, who is nobody outside it, can enter and write.

    Not below a home directory, which others usually cannot enter.
    """
    work = Path(tempfile.mkdtemp(prefix="goldimg-iso-", dir="/var/tmp"))
    try:
        work.chmod(0o755)
        shutil.copytree(DATA, work / "data")
        for name in ("out", "out/iso", "tmp"):
            (work / name).mkdir()
            (work / name).chmod(0o1777)
        yield work
    finally:
        if os.geteuid() != 0:
            # what the namespace's root wrote belongs to a user id that only a namespace may use
            left: list[str | Path] = [work / "out", work / "tmp"]
            with contextlib.suppress(GoldimgError):
                remove = ["mmdebstrap", "--unshare-helper", "rm", "-rf", *left]
                Runner().run(remove, check=False, timeout=120)
        shutil.rmtree(work, ignore_errors=True)


def _bootstrap(
    recipe: Recipe, work: Path, log: Path, runner: Runner, progress: Callable[[str], None]
) -> None:
    """Makes the root file system, and in its hook the files of the ISO."""
    arguments = (recipe.suite, recipe.mirrors, recipe.components)
    write_text(work / "sources", sources_list(*arguments, ""))
    write_text(work / "signed", sources_list(*arguments, f"[signed-by={KEYRING}] "))
    out, data = shlex.quote(str(work / "out")), shlex.quote(str(work / "data"))
    mode = "root" if os.geteuid() == 0 else "unshare"
    command: list[str | Path] = [
        "mmdebstrap",
        "--variant=apt",
        f"--mode={mode}",
        "--architectures=amd64",
        "--format=null",
        "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
        f'--setup-hook=sh {data}/setup.sh "$1" {data}',
        f'--customize-hook=sh {data}/customize.sh "$1" {data} {out}',
        "--include=" + ",".join(recipe.all_packages),
        *_proxy(runner),
        recipe.suite,
        "/dev/null",
        work / "signed",
    ]

    def tell(line: str) -> None:
        for start, text in STEPS.items():
            if line.startswith(start):
                progress(text)

    runner.run(
        command,
        reason="assemble the Debian installer",
        env={
            "GOLDIMG_TOOLS": " ".join(TOOL_PACKAGES),
            "GOLDIMG_SOURCES": str(work / "sources"),
            "GOLDIMG_TITLE": f"Debian GNU/Linux {recipe.suite}",
            "LC_ALL": "C.UTF-8",
            "TMPDIR": str(work / "tmp"),
        },
        timeout=3600,
        log=log,
        on_line=tell,
    )


def _proxy(runner: Runner) -> list[str]:
    """The host's apt proxy, which mmdebstrap does not take over by itself."""
    said = runner.run(["apt-config", "dump", "--format", "%v%n", "Acquire::http::Proxy"]).stdout
    proxy = said.strip().splitlines()
    return [f'--aptopt=Acquire::http::Proxy "{proxy[0]}"'] if proxy else []


def _write_iso(recipe: Recipe, tree: Path, target: Path, log: Path, runner: Runner) -> None:
    """An ISO 9660 image that BIOS (El Torito, isolinux) and UEFI (an EFI system partition) boot."""
    runner.run(
        [
            *("xorriso", "-as", "mkisofs", "-quiet", "-V", volume_id(recipe), "-r", "-J"),
            *("-o", target, "-b", "isolinux/isolinux.bin", "-c", "isolinux/boot.cat"),
            *("-no-emul-boot", "-boot-load-size", "4", "-boot-info-table"),
            *("-eltorito-alt-boot", "-e", "boot/grub/efi.img", "-no-emul-boot", tree),
        ],
        reason="write the installer ISO",
        timeout=900,
        log=log,
    )


def volume_id(recipe: Recipe) -> str:
    """The ISO's volume id, by which the installer finds it."""
    return f"GOLDIMG_DEBIAN_{recipe.suite.upper()}"[:32]


def _describe(recipe: Recipe, digest: str, path: Path, listed: Path, runner: Runner) -> Assembled:
    lines = listed.read_text(encoding="utf-8").splitlines()
    versions = dict(line.split("\t", 1) for line in lines)
    sha256 = sha256_of(path)
    described = {
        "digest": digest,
        "recipe": recipe_digest(recipe),
        "sha256": sha256,
        "packages": versions,
        "tools": {name: _version(name, runner) for name in ("mmdebstrap", "xorriso")},
    }
    write_text(path.with_suffix(".json"), json.dumps(described, indent=1) + "\n")
    return Assembled(path=path, sha256=sha256, digest=digest, packages=versions, was_cached=False)


def _version(program: str, runner: Runner) -> str:
    said = runner.run([program, "--version"], check=False, timeout=30)
    match = re.search(r"\d+(\.\d+)+", said.stdout + said.stderr)
    return match.group(0) if match else "unknown"


def sha256_of(path: Path) -> str:
    """The SHA256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
