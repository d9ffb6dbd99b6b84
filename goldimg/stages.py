"""The three steps of a build: install a base, provision a layer over it, convert the layer.

Each is keyed by the digest of what shapes its result, and is skipped where that is there already.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from goldimg.artifacts import STAGING
from goldimg.config.models import Settings
from goldimg.config.secrets import crypt_hash, random_password
from goldimg.errors import BuildFailed
from goldimg.events import Bus
from goldimg.formats import Written
from goldimg.formats.ovf import GuestOs
from goldimg.formats.source import flattened
from goldimg.keys import KeyPair
from goldimg.kickstart.progress import InstallListener, KickstartNeverFetched
from goldimg.kickstart.server import KickstartServer
from goldimg.packer.driver import Story, run_packer
from goldimg.packer.template import Ansible, Freeze, Machine, Spec
from goldimg.plan import Install
from goldimg.project import Site, make_directory, short_directory, waiting_lock, write_text
from goldimg.providers import Conversion, Provider
from goldimg.run import Runner

GUEST_GATEWAY = "10.0.2.2"  # the host, as a guest on QEMU's user network reaches it
MANIFEST = "manifest.json"
STATE = "state.zst"
MENU_SECONDS = {"kvm": 3, "tcg": 5}  # from power-on until the ISO's boot menu takes keys
FETCH_SHARE = 0.2  # of ssh_timeout: the kickstart is fetched by then, or never
THAWING = "4s"  # until a saved guest runs again; a connection before that would hang


@dataclass(frozen=True, kw_only=True)
class Shop:
    """What the steps of one build share."""

    site: Site
    settings: Settings
    version: str
    runner: Runner
    events: Bus
    machine: Machine
    packer_key: KeyPair
    vagrant_key: KeyPair
    iso: Path
    iso_sha256: str
    server: KickstartServer
    listeners: dict[str, InstallListener]
    qemu_version: str

    @property
    def is_warm(self) -> bool:
        """Whether bases keep their running guest: under emulation, where booting is dear."""
        return self.machine.accelerator == "tcg" and self.settings.site.warm_layers

    @property
    def bases(self) -> Path:
        return self.site.cache / "bases"

    @property
    def layers(self) -> Path:
        return self.site.cache / "layers"


@dataclass(frozen=True, kw_only=True)
class Made:
    """A disk that a step made or found, and how long each phase of making it took, where known.

    `state`: the guest that was running from it, to go on from.
    """

    disk: Path
    seconds: Mapping[str, float]
    state: Path | None = None


def install_base(shop: Shop, install: Install, text: Callable[[str], str], key: str) -> Made:
    """The base disk of `install`: from the cache, or installed from the ISO now.

    `text` gives the kickstart as it is served, with the URL that stages are reported to.

    It is read-only from then on: overlays depend on every byte of it.
    """
    final = shop.bases / key
    work = shop.bases / f"{key}.work"

    def waiting() -> None:
        shop.runner.check_cancelled()

    with waiting_lock(shop.bases / f"{key}.lock", waiting):
        if (final / MANIFEST).exists():
            shop.events.emit(install.name, "note", "base found in the cache")
            seconds = json.loads((final / MANIFEST).read_text(encoding="utf-8"))["seconds"]
            return Made(
                disk=final / "disk.qcow2", seconds=seconds, state=_usable_state(shop, final)
            )
        shutil.rmtree(work, ignore_errors=True)
        make_directory(work)
        write_text(work / "kickstart.ks", install.kickstart)
        story = _story(shop, install.name, is_install=True)
        with short_directory(key) as temporary:
            disk = _install_patiently(shop, install, text, work, temporary, story)
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
        work.rename(final)
        state = _usable_state(shop, final)
        return Made(disk=final / "disk.qcow2", seconds=story.seconds(), state=state)


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


def _install_patiently(
    shop: Shop,
    install: Install,
    text: Callable[[str], str],
    work: Path,
    temporary: Path,
    story: Story,
) -> Path:
    """Installs; where the boot menu missed its keys, once more with a longer wait for it."""
    wait = MENU_SECONDS[shop.machine.accelerator]
    try:
        return _run_install(shop, install, text, work, temporary, story, wait)
    except KickstartNeverFetched as error:
        shop.events.emit(install.name, "warning", f"{error.what}: starting it once more")
        shop.server.remove(install.name)
        return _run_install(shop, install, text, work, temporary, story, 4 * wait)


def _run_install(
    shop: Shop,
    install: Install,
    text: Callable[[str], str],
    work: Path,
    temporary: Path,
    story: Story,
    boot_wait: int,
) -> Path:
    log = work / "build.log"
    seconds = shop.settings.site.ssh_timeout
    listener = InstallListener(install.name, story, log, patience=seconds * FETCH_SHARE)
    shop.listeners[install.name] = listener
    path = shop.server.add(install.name, text)
    url = f"http://{GUEST_GATEWAY}:{shop.server.port}{path}"
    shop.runner.redact.add(path)
    spec = Spec(
        name="base",
        source=shop.iso,
        source_sha256=shop.iso_sha256,
        output=work / "output",
        console=work / "console.log",
        machine=shop.machine,
        private_key=shop.packer_key.private,
        ssh_seconds=shop.settings.site.ssh_timeout,
        ansible=_ansible(shop, work, temporary, stage="base", serves=install.serves),
        boot_command=shop.settings.boot_command("{{ user `ks_url` }}"),
        boot_wait=f"{boot_wait}s",
        freeze=Freeze(state=work / STATE, socket=temporary / "qmp") if shop.is_warm else None,
    )
    try:
        return run_packer(
            spec,
            work=work,
            temporary=temporary,
            log=log,
            runner=shop.runner,
            story=story,
            variables={"ks_url": url},
            abort=listener.abort,
        )
    except BuildFailed as error:
        if not listener.fetched and "no SSH" in error.what:
            error.why = f"the kickstart was never fetched: the guest cannot reach {_origin(url)}"
        raise
    finally:
        _forget(work)


def _origin(url: str) -> str:
    return "/".join(url.split("/")[:3])


def provision_layer(shop: Shop, provider: Provider, base: Made, key: str, log: Path) -> Made:
    """The provider's disk: an overlay of `base` that its playbook has provisioned and cleaned."""
    final = shop.layers / f"{key}.qcow2"
    if final.exists():
        shop.events.emit(provider.name, "note", "provisioned disk found in the cache")
        return Made(disk=final, seconds={})
    work = shop.layers / f"{key}.work"
    shutil.rmtree(work, ignore_errors=True)
    make_directory(work)
    log.write_text("", encoding="utf-8")
    story = _story(shop, provider.name)
    try:
        with short_directory(key) as temporary:
            disk = _run_layer(shop, provider, base, work, temporary, log, story)
        disk.rename(final)
    finally:
        _forget(work)
        for name in ("console.log", "packer.json"):
            if (work / name).exists():
                shutil.copyfile(work / name, log.parent / name)
    shutil.rmtree(work, ignore_errors=True)
    return Made(disk=final, seconds=story.seconds())


def _run_layer(
    shop: Shop,
    provider: Provider,
    base: Made,
    work: Path,
    temporary: Path,
    log: Path,
    story: Story,
) -> Path:
    """Goes on from the base's saved guest, or boots the base where there is none or it fails."""
    variables = _ansible(
        shop, work, temporary, stage="layer", provider=provider.name, root_hash=_root_hash(shop)
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
    )

    def run(spec: Spec) -> Path:
        return run_packer(
            spec, work=work, temporary=temporary, log=log, runner=shop.runner, story=story
        )

    if base.state is None:
        return run(spec)
    try:
        warm = replace(spec, thaw=base.state, boot_wait=THAWING, ssh_seconds=90)
        return run(warm)
    except BuildFailed as error:
        if "no SSH" not in error.what and "Packer failed" not in error.what:
            raise
        shop.events.emit(provider.name, "warning", f"{error}: booting the base instead")
        story.recent.clear()
        story.errors.clear()
        return run(spec)


def convert_layer(
    shop: Shop, provider: Provider, disk: Path, key: str, directory: Path
) -> list[Written]:
    """Every artifact of the provider, written into the staging directory in `directory`."""
    staging = directory / STAGING
    shutil.rmtree(staging, ignore_errors=True)
    make_directory(staging)

    def progress(done: int, total: int) -> None:
        shop.runner.check_cancelled()
        fraction = done / total if total else 1.0
        shop.events.emit(provider.name, "progress", "", phase="converting", fraction=fraction)

    with flattened(disk, shop.layers, shop.runner) as raw:
        job = Conversion(
            os_name=shop.settings.name,
            version=shop.version,
            disk=raw,
            target=staging,
            cpus=shop.machine.cpus,
            memory_mib=shop.machine.memory_mib,
            seed=key,
            guest=guest_os(shop.settings),
            runner=shop.runner,
            progress=progress,
        )
        return provider.convert(job)


def guest_os(settings: Settings) -> GuestOs:
    """How hypervisors name the OS, by the ids in its file."""
    ids = settings.os.guest_os
    unknown = GuestOs()
    vmware = ids.get("vmware", "")
    return GuestOs(
        vmware=vmware.replace("-", "_") + "Guest" if vmware else unknown.vmware,
        virtualbox=ids.get("virtualbox", unknown.virtualbox),
        name=f"{settings.os.os_name} {settings.os.os_version}",
    )


def _story(shop: Shop, name: str, *, is_install: bool = False) -> Story:
    return Story(
        on_phase=lambda phase: shop.events.emit(name, "phase", phase, phase=phase),
        on_detail=lambda text: shop.events.emit(name, "stage", text),
        is_install=is_install,
    )


def _root_hash(shop: Shop) -> str:
    """The hash of the site's root password, or of a random one that nobody ever sees."""
    password = shop.settings.root_pass or random_password()
    salt = shop.settings.site.root_salt if shop.settings.root_pass else None
    hashed = crypt_hash(password, salt)
    shop.runner.redact.add(hashed)
    return hashed


def _ansible(
    shop: Shop,
    work: Path,
    temporary: Path,
    *,
    stage: str,
    provider: str = "",
    root_hash: str = "",
    serves: tuple[str, ...] = (),
) -> Ansible:
    settings = shop.settings
    variables = {
        "packer_build_name": provider,
        "packer_namespace": settings.site.namespace,
        "packer_version": shop.version,
        "packer_ks_server": settings.site.ks_server or "",
        "packer_template": settings.name,
        "packer_os": settings.packer_os(),
        "goldimg_stage": stage,
        "goldimg_base_providers": list(serves),
        "goldimg_root_hash": root_hash,
        "goldimg_root_key": shop.packer_key.public_text,
        "goldimg_vagrant_key": shop.vagrant_key.public_text,
        "goldimg_lang": settings.site.lang,
        "goldimg_keyboard": settings.site.keyboard,
        "goldimg_timezone": settings.site.timezone,
    }
    path = work / "ansible-vars.json"
    write_text(path, json.dumps(variables), mode=0o600)
    return Ansible(
        playbook=shop.site.ansible / "site.yml",
        variables=path,
        environment=tuple(sorted(ansible_environment(shop.site, temporary).items())),
    )


def ansible_environment(site: Site, temporary: Path) -> dict[str, str]:
    """How ansible-playbook runs: pipelined, without colour, faster where Mitogen is installed."""
    environment = {
        "ANSIBLE_CONFIG": str(site.ansible / "ansible.cfg"),
        "ANSIBLE_PIPELINING": "1",
        # a guest without hardware virtualization on a busy host takes more than the usual 10 s
        "ANSIBLE_TIMEOUT": "90",
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_RETRY_FILES_ENABLED": "0",
        "ANSIBLE_LOCAL_TEMP": str(temporary),
        "ANSIBLE_DEPRECATION_WARNINGS": "0",
    }
    mitogen = importlib.util.find_spec("ansible_mitogen")
    if mitogen and mitogen.submodule_search_locations:
        plugins = Path(mitogen.submodule_search_locations[0]) / "plugins" / "strategy"
        environment |= {
            "ANSIBLE_STRATEGY": "mitogen_linear",
            "ANSIBLE_STRATEGY_PLUGINS": str(plugins),
        }
    return environment


def _forget(work: Path) -> None:
    """Removes what held a secret, and scratch that tells nobody anything."""
    (work / "ansible-vars.json").unlink(missing_ok=True)
    shutil.rmtree(work / "cache", ignore_errors=True)
