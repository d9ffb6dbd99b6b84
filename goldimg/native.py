"""Builds by a hypervisor's own builder: one run of Packer from the ISO to a provisioned disk.

There is no base and no layer: VirtualBox and VMware keep their machines to themselves. What they
export goes on as a qcow2, through the same converters as the layers of QEMU, so that the artifacts
have the same names, formats and guarantees.
"""

from __future__ import annotations

import contextlib
import fcntl
import re
import shutil
import socket
import struct
from collections.abc import Callable, Iterable
from pathlib import Path

from goldimg.errors import BuildFailed, GoldimgError
from goldimg.host import HYPERVISOR_PROGRAMS, Holder, find_holders
from goldimg.inventory import EXTENSION
from goldimg.orphans import claim
from goldimg.packer.driver import run_packer
from goldimg.packer.policy import WillRetry
from goldimg.packer.template import Native, Spec
from goldimg.plan import HYPERVISORS, Group, Install
from goldimg.playbook import playbook_run, root_hash
from goldimg.project import short_directory
from goldimg.providers import Provider
from goldimg.run import Runner
from goldimg.shop import (
    Made,
    Shop,
    answered,
    forget,
    found_disk,
    keep_inventory,
    keep_logs,
    new_story,
    patiently,
)

VMWARE_NAT = "vmnet8"  # the host's card on VMware's NAT network
SIOCGIFADDR = 0x8915  # netdevice(7)
SECONDS = 60.0  # that a hypervisor's tool may take to answer


def build_native(
    shop: Shop,
    install: Install,
    provider: Provider,
    text: Callable[[str], str],
    key: str,
    log: Path,
) -> Made:
    """The provider's disk, installed, provisioned and cleaned by `install.builder` in one run.

    Found where an earlier build left it before it was converted. Whatever the end, the hypervisor
    knows no machine of this build any more.
    """
    final = shop.layers / f"{key}.qcow2"
    if final.exists():
        shop.events.emit(provider.name, "note", "provisioned disk found in the cache")
        return found_disk(final)
    work = shop.layers / f"{key}.work"
    clear(install.builder, _vm_name(provider, key), work, shop.runner)
    claim(work)
    log.write_text("", encoding="utf-8")
    story = new_story(shop, provider.name, is_install=True)
    try:
        with short_directory(f"{shop.mark}-{key}") as temporary:

            def run(boot_wait: str, will_retry: WillRetry) -> Path:
                spec = _spec(shop, install.builder, provider, key, work, temporary, boot_wait)
                serving = answered(
                    shop, provider.name, text, builder=install.builder, story=story, log=log
                )
                with serving as answer:
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

            exported = patiently(shop, provider.name, install.builder, run)
        keep_inventory(work, final)
        _to_qcow2(exported, final, shop.runner)
    finally:
        # Of its own, because after Ctrl-C the build's runner starts nothing any more.
        clear(install.builder, _vm_name(provider, key), work, Runner(redactor=shop.runner.redact))
        forget(work)
        keep_logs(work, log.parent)
    shutil.rmtree(work, ignore_errors=True)
    return found_disk(final, story.seconds())


def _vm_name(provider: Provider, key: str) -> str:
    return f"goldimg-{provider.name}-{key[:12]}"


def _spec(
    shop: Shop,
    builder: str,
    provider: Provider,
    key: str,
    work: Path,
    temporary: Path,
    boot_wait: str,
) -> Spec:
    site, ids = shop.settings.site, shop.settings.os.guest_os
    native = Native(
        vm_name=_vm_name(provider, key),
        guest_os=ids.get(HYPERVISORS[builder], ""),
        version=hypervisor_version(builder, shop.runner),
        guest_additions=site.guest_additions if provider.takes_guest_additions else "disable",
        hardware_version=site.hardware_version,
        vmx_data=site.vmx_data,
        vmx_data_post=site.vmx_data_post,
    )
    return Spec(
        name=provider.name,
        source=shop.iso,
        source_sha256=shop.iso_sha256,
        output=work / "output",
        console=work / "console.log",
        machine=shop.machine,
        private_key=shop.packer_key.private,
        ssh_seconds=site.ssh_timeout,
        ansible=playbook_run(
            shop,
            work,
            temporary,
            stage="all",
            provider=provider.name,
            password_hash=root_hash(shop, key),
            serves=(provider.name,),
            has_additions_iso=native.guest_additions != "disable",
            inventory=work / EXTENSION,
        ),
        boot_command=shop.boot_command(),
        boot_wait=boot_wait,
        builder=builder,
        native=native,
    )


def _to_qcow2(exported: Path, final: Path, runner: Runner) -> None:
    """The exported VMDK as a qcow2 that appears whole or not at all."""
    draft = final.with_suffix(".part")
    try:
        runner.run(
            ["qemu-img", "convert", "-f", "vmdk", "-O", "qcow2", "-W", "-m", "8", exported, draft],
            reason="convert disk images",
        )
        draft.rename(final)
    finally:
        draft.unlink(missing_ok=True)


def hypervisor_version(builder: str, runner: Runner) -> tuple[int, int]:
    """The hypervisor's major and minor version; (0, 0) where it does not say."""
    arguments = {"virtualbox-iso": ["VBoxManage", "--version"], "vmware-iso": ["vmware", "-v"]}
    try:
        said = runner.run(arguments[builder], check=False, timeout=SECONDS).stdout
    except GoldimgError:
        return (0, 0)
    match = re.search(r"(\d+)\.(\d+)", said)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def clear(builder: str, name: str, work: Path, runner: Runner) -> None:
    """Ends and forgets what an earlier run, killed half-way, left with the hypervisor.

    Packer clears up after itself; this is for a Packer, or a goldimg, that had no time to.
    """
    with contextlib.suppress(GoldimgError):
        if builder == "virtualbox-iso":
            _clear_virtualbox(name, runner)
        elif builder == "vmware-iso":
            _clear_vmware(work / "output" / f"{name}.vmx", runner)


def _clear_virtualbox(name: str, runner: Runner) -> None:
    known = runner.run(["VBoxManage", "list", "vms"], timeout=SECONDS).stdout
    if f'"{name}"' not in known:
        return
    with contextlib.suppress(GoldimgError):  # it need not be running
        runner.run(["VBoxManage", "controlvm", name, "poweroff"], timeout=SECONDS)
    runner.run(["VBoxManage", "unregistervm", name, "--delete"], timeout=SECONDS)


def _clear_vmware(vmx: Path, runner: Runner) -> None:
    running = runner.run(["vmrun", "-T", "ws", "list"], timeout=SECONDS).stdout
    if str(vmx) in running.splitlines():
        runner.run(["vmrun", "-T", "ws", "stop", vmx, "hard"], timeout=SECONDS)


def host_address(builder: str) -> tuple[str, str]:
    """Where a kickstart server for guests of `builder` listens, and how they reach it.

    GoldimgError where VMware's network is down.
    """
    if builder != "vmware-iso":
        return "127.0.0.1", "10.0.2.2"
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            request = struct.pack("256s", VMWARE_NAT.encode())
            answer = fcntl.ioctl(asking.fileno(), SIOCGIFADDR, request)
    except OSError as error:
        raise GoldimgError(
            f"VMware's NAT network has no address on this host ({VMWARE_NAT})",
            why=(error.strerror or str(error)).lower(),
            hint="start it: 'vmware-networks --start' as root",
        ) from None
    address = socket.inet_ntoa(answer[20:24])
    return address, address


def check_free(groups: Iterable[Group], accelerator: str) -> None:
    """Raises BuildFailed where a VM of another hypervisor holds what a group needs; names its pid.

    QEMU without KVM needs nothing of the CPU, and VMs of the same hypervisor are no hindrance.
    """
    for group in groups:
        needed = {builder for builder in group.builders if builder != "qemu"}
        if accelerator == "kvm":
            needed |= {"qemu"} & set(group.builders)
        holders = [holder for holder in find_holders() if needed and holder.builder not in needed]
        if holders:
            raise BuildFailed(
                f"group {group.name} cannot start: another hypervisor holds the CPU's "
                "virtualization extensions",
                details=[_shown(holder) for holder in holders],
                hint="stop those machines, or build the rest with --except "
                + ",".join(group.providers),
            )


def _shown(holder: Holder) -> str:
    kind = "KVM" if holder.builder == "qemu" else HYPERVISORS[holder.builder]
    return f"{kind}: process {holder.pid} ({holder.command})"


def tools_of(builders: Iterable[str]) -> list[str]:
    """The programs that native builders run."""
    return [HYPERVISOR_PROGRAMS[name] for name in builders if name != "qemu"]
