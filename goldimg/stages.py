"""The steps of a build under QEMU: install a base, provision a layer over it.

Each is keyed by the digest of what shapes its result, and is skipped where that is there already.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from goldimg.errors import BuildFailed
from goldimg.inventory import EXTENSION
from goldimg.orphans import claim
from goldimg.packer.driver import run_packer
from goldimg.packer.policy import WillRetry, never
from goldimg.packer.story import Story
from goldimg.packer.template import Freeze, Spec
from goldimg.plan import Install
from goldimg.playbook import playbook_run, root_hash
from goldimg.project import short_directory, sync, waiting_lock, write_text
from goldimg.providers import Provider
from goldimg.shop import (
    Made,
    Shop,
    answered,
    forget,
    found_disk,
    installed_at,
    keep_inventory,
    keep_logs,
    new_story,
    patiently,
)

MANIFEST = "manifest.json"
STATE = "state.zst"
EFI_VARIABLES = "efivars.fd"
THAWING = "4s"  # until a saved guest runs again; a connection before that would hang


def is_base(directory: Path) -> bool:
    """Whether a finished base stands there."""
    return (directory / MANIFEST).exists()


def install_base(
    shop: Shop,
    install: Install,
    text: Callable[[str], str],
    key: str,
    *,
    use_cache: bool = True,
) -> Made:
    """The base disk of `install`: from the cache (with `use_cache`), or installed from the ISO now.

    `text` gives the kickstart as it is served, with the URL that stages are reported to. A base is
    read-only once it stands, since overlays depend on every byte of it; one that other builds use
    is replaced when they are done.
    """
    final, lock = shop.bases / key, shop.bases / f"{key}.lock"
    work = shop.bases / f"{key}.work"
    wait = _patience(shop, install.name)
    if use_cache:
        with waiting_lock(lock, wait, shared=True):
            if is_base(final):
                return _found(shop, install.name, final)
    with waiting_lock(lock, wait):
        if use_cache and is_base(final):  # by another build, in between
            return _found(shop, install.name, final)
        discard_base(final)
        claim(work)
        write_text(work / "kickstart.ks", install.kickstart)
        story = new_story(shop, install.name, is_install=True)
        with short_directory(f"{shop.mark}-{key}") as temporary:

            def run(boot_wait: str, will_retry: WillRetry) -> Path:
                return _run_install(
                    shop, install, text, work, temporary, story, boot_wait, will_retry
                )

            disk = patiently(shop, install.name, "qemu", run)
        disk.chmod(0o444)
        disk.rename(work / "disk.qcow2")
        shutil.rmtree(work / "output", ignore_errors=True)
        described = {
            "key": key,
            "providers": install.providers,
            "seconds": story.seconds(),
            "state": _state_inputs(shop),
        }
        write_text(work / MANIFEST, json.dumps(described, indent=2) + "\n")
        sync(work / "disk.qcow2")
        work.rename(final)
        state = _usable_state(shop, final)
        return Made(disk=final / "disk.qcow2", seconds=story.seconds(), state=state)


def _found(shop: Shop, name: str, base: Path) -> Made:
    shop.events.emit(name, "note", "base found in the cache")
    seconds = json.loads((base / MANIFEST).read_text(encoding="utf-8"))["seconds"]
    return Made(disk=base / "disk.qcow2", seconds=seconds, state=_usable_state(shop, base))


def _patience(shop: Shop, name: str) -> Callable[[], None]:
    """What is done while another build has the base: it is told of once, and Ctrl-C is heard."""
    told: list[str] = []

    def wait() -> None:
        shop.runner.check_cancelled()
        if not told:
            told.append("waiting for another build that has the base")
            shop.events.emit(name, "note", told[0])

    return wait


@contextmanager
def base_in_use(shop: Shop, key: str) -> Iterator[None]:
    """While the block runs no build replaces the base. BuildFailed where one has removed it."""
    lock = shop.bases / f"{key}.lock"
    with waiting_lock(lock, shop.runner.check_cancelled, shared=True):
        if not is_base(shop.bases / key):
            raise BuildFailed("another build has removed the base", hint="run it again")
        yield


def _state_inputs(shop: Shop) -> dict[str, object]:
    """What a saved guest fits to: this QEMU, and the same virtual hardware."""
    machine = shop.machine
    return {"qemu": shop.qemu_version, "cpus": machine.cpus, "memory": machine.memory_mib}


def _usable_state(shop: Shop, base: Path) -> Path | None:
    state = base / STATE
    if not shop.is_warm or not state.exists():
        return None
    described = json.loads((base / MANIFEST).read_text(encoding="utf-8"))
    return state if described.get("state") == _state_inputs(shop) else None


def _run_install(
    shop: Shop,
    install: Install,
    text: Callable[[str], str],
    work: Path,
    temporary: Path,
    story: Story,
    boot_wait: str,
    will_retry: WillRetry,
) -> Path:
    log = work / "build.log"
    spec = Spec(
        name="base",
        source=shop.iso,
        source_sha256=shop.iso_sha256,
        output=work / "output",
        console=work / "console.log",
        machine=shop.machine,
        private_key=shop.packer_key.private,
        ssh_seconds=shop.settings.site.ssh_timeout,
        ansible=playbook_run(shop, work, temporary, stage="base", serves=install.serves),
        boot_command=shop.boot_command(),
        boot_wait=boot_wait,
        freeze=Freeze(state=work / STATE, socket=temporary / "qmp") if shop.is_warm else None,
        efi_variables=_efi_variables(shop, work),
    )
    try:
        with answered(shop, install.name, text, builder="qemu", story=story, log=log) as answer:
            return run_packer(
                spec,
                work=work,
                temporary=temporary,
                log=log,
                runner=shop.runner,
                story=story,
                variables={"ks_url": answer.url},
                abort=answer.abort,
                policy=shop.policy,
                will_retry=will_retry,
            )
    finally:
        forget(work)


def _efi_variables(shop: Shop, work: Path, base: Path | None = None) -> Path | None:
    """The guest's own copy of the firmware's variables: the base's, or those of OVMF."""
    ovmf = shop.machine.ovmf
    if shop.machine.firmware == "bios" or ovmf is None:
        return None
    source = base.with_name(EFI_VARIABLES) if base else ovmf.variables
    own = work / EFI_VARIABLES
    shutil.copyfile(source, own)
    return own


def provision_layer(shop: Shop, provider: Provider, base: Made, key: str, log: Path) -> Made:
    """The provider's disk: an overlay of `base` that its playbook has provisioned and cleaned."""
    final = shop.layers / f"{key}.qcow2"
    if is_over(final, base.disk):
        shop.events.emit(provider.name, "note", "provisioned disk found in the cache")
        return found_disk(final, base=base.disk)
    work = shop.layers / f"{key}.work"
    claim(work)
    log.write_text("", encoding="utf-8")
    story = new_story(shop, provider.name)
    try:
        with short_directory(f"{shop.mark}-{key}") as temporary:
            disk = _run_layer(shop, provider, base, key, work, temporary, log, story)
        sync(disk)
        keep_inventory(work, final)
        disk.rename(final)
    finally:
        forget(work)
        keep_logs(work, log.parent)
    shutil.rmtree(work, ignore_errors=True)
    return found_disk(final, story.seconds(), base=base.disk)


def _run_layer(
    shop: Shop,
    provider: Provider,
    base: Made,
    key: str,
    work: Path,
    temporary: Path,
    log: Path,
    story: Story,
) -> Path:
    """Goes on from the base's saved guest, or boots the base where there is none or it fails."""
    variables = playbook_run(
        shop,
        work,
        temporary,
        stage="layer",
        provider=provider.name,
        password_hash=root_hash(shop, key),
        inventory=work / EXTENSION,
        since=installed_at(base.disk),
    )
    spec = Spec(
        name=provider.name,
        source=base.disk,
        source_sha256="",
        output=work / "output",
        console=work / "console.log",
        machine=shop.machine,
        private_key=shop.packer_key.private,
        ssh_seconds=shop.settings.site.ssh_timeout,
        ansible=variables,
        boot_wait="1s",
        efi_variables=_efi_variables(shop, work, base.disk),
    )

    def run(spec: Spec, will_retry: WillRetry = never) -> Path:
        return run_packer(
            spec,
            work=work,
            temporary=temporary,
            log=log,
            runner=shop.runner,
            story=story,
            policy=shop.policy,
            will_retry=will_retry,
        )

    if base.state is None:
        return run(spec)
    try:
        warm = replace(spec, thaw=base.state, boot_wait=THAWING, ssh_seconds=90)
        return run(warm, _is_thawing)
    except BuildFailed as error:
        if not _is_thawing(error):
            raise
        shop.events.emit(provider.name, "warning", f"{error}: booting the base instead")
        return run(spec)


def _is_thawing(error: BaseException) -> bool:
    """Whether a saved guest may be at fault, so that booting the base is worth a try."""
    what = error.what if isinstance(error, BuildFailed) else ""
    return "no SSH" in what or "Packer failed" in what


def discard_base(base: Path) -> None:
    """Removes a base, its manifest first: half a base must not look like one."""
    (base / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(base, ignore_errors=True)


def is_over(layer: Path, base: Path) -> bool:
    """Whether the disk `layer` is there and was made over this very `base`.

    Keys are digests of inputs. A base that was made again has other bytes under the same name, and
    a layer over the one before it would be rubbish; it is the older of the two.
    """
    return layer.exists() and layer.stat().st_mtime_ns >= base.stat().st_mtime_ns
