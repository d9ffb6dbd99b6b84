"""Equal kickstarts share an install; the plan says which builder is used and why."""

from __future__ import annotations

from pathlib import Path

import pytest

from goldimg.errors import BuildFailed, MissingTool, UsageError
from goldimg.host import (
    Accelerator,
    Host,
    choose_accelerator,
    find_accelerator,
    find_holders,
    find_ovmf,
)
from goldimg.native import check_free
from goldimg.plan import (
    Choice,
    Group,
    Plan,
    Rendered,
    digest,
    digest_files,
    make_groups,
    make_plan,
    pick_group,
)
from goldimg.providers import all_providers

HOST = Host(
    cores=2,
    memory_mib=8192,
    accelerator=Accelerator(name="tcg", reason="test"),
    builders=frozenset({"qemu"}),
)
EVERY_HYPERVISOR = Host(
    cores=8,
    memory_mib=32_768,
    accelerator=Accelerator(name="kvm", reason="test"),
    builders=frozenset({"qemu", "virtualbox-iso", "vmware-iso"}),
)
LVM = Rendered(text="lvm swap", volumes=("/ ext4, the rest, LVM",))
PLAIN = Rendered(text="plain", volumes=("/ ext4, the rest",))
AZURE = Rendered(text="lvm", volumes=())
KICKSTARTS = {
    "aws": LVM,
    "virtualbox": LVM,
    "vmware": LVM,
    "azure": AZURE,
    "docker": PLAIN,
    "gcp": PLAIN,
    "openstack": PLAIN,
}


def plan(builders: dict[str, str] | None = None, host: Host = HOST, firmware: str = "bios") -> Plan:
    return make_plan(
        os_name="Debian-12",
        version="1.0.0",
        disk_mib=8192,
        jobs=2,
        providers=list(all_providers().values()),
        builders=builders or {},
        kickstarts=KICKSTARTS,
        host=host,
        accelerator=host.accelerator.name,
        firmware=firmware,
    )


def test_seven_providers_take_three_installs() -> None:
    assert [install.providers for install in plan().installs] == [
        ("aws", "virtualbox", "vmware"),
        ("docker", "gcp", "openstack"),
        ("azure",),
    ]


def test_a_base_is_for_all_that_could_share_it_whichever_are_built() -> None:
    only_gcp = make_plan(
        os_name="Debian-12",
        version="1.0.0",
        disk_mib=8192,
        jobs=2,
        providers=[all_providers()["gcp"]],
        builders={},
        kickstarts=KICKSTARTS,
        host=HOST,
    )
    assert only_gcp.installs[0].providers == ("gcp",)
    assert only_gcp.installs[0].serves == ("docker", "gcp", "openstack")


def test_every_choice_of_builder_has_a_reason() -> None:
    choices = {layer.provider: layer.choice for layer in plan().layers}
    assert choices["azure"].reason == "native builder"
    assert choices["vmware"].builder == "qemu"
    assert choices["vmware"].reason.startswith("vmware-iso needs vmrun, which is not installed")
    asked = plan({"aws": "qemu"}, EVERY_HYPERVISOR)
    (choice,) = [layer.choice for layer in asked.layers if layer.provider == "aws"]
    assert choice == Choice(builder="qemu", reason="builder.aws says so")


def test_a_builder_that_is_not_installed_is_refused_before_anything_starts() -> None:
    with pytest.raises(MissingTool, match="vmware: vmrun is not installed"):
        plan({"vmware": "vmware-iso"})


def test_hypervisors_build_their_own_where_they_are_installed() -> None:
    made = plan(host=EVERY_HYPERVISOR)
    builders = {install.providers: install.builder for install in made.installs}
    assert builders == {
        ("docker", "gcp", "openstack"): "qemu",
        ("azure",): "qemu",
        ("aws",): "virtualbox-iso",
        ("virtualbox",): "virtualbox-iso",
        ("vmware",): "vmware-iso",
    }
    assert [install.providers for install in made.installs if install.is_native] == [
        ("aws",), ("virtualbox",), ("vmware",),
    ]  # fmt: skip


def test_any_provider_may_be_built_by_any_hypervisor() -> None:
    made = plan({"gcp": "vmware-iso", "vmware": "virtualbox-iso"}, EVERY_HYPERVISOR)
    builders = {layer.provider: layer.choice.builder for layer in made.layers}
    assert (builders["gcp"], builders["vmware"]) == ("vmware-iso", "virtualbox-iso")


def test_all_qemu_builds_are_one_group() -> None:
    (group,) = plan().groups
    assert group.name == "qemu"
    assert len(group.providers) == 7
    assert group.reason == "nothing else is built"


def test_kvm_virtualbox_and_vmware_exclude_one_another() -> None:
    groups = plan(host=EVERY_HYPERVISOR).groups
    assert [(group.name, group.providers) for group in groups] == [
        ("qemu", ("azure", "docker", "gcp", "openstack")),
        ("virtualbox", ("aws", "virtualbox")),
        ("vmware", ("vmware",)),
    ]
    assert "QEMU with kvm needs" in groups[0].reason
    assert "vmware needs" in groups[2].reason


CHOICES = {
    "gcp": Choice(builder="qemu", reason=""),
    "aws": Choice(builder="virtualbox-iso", reason=""),
    "vmware": Choice(builder="vmware-iso", reason=""),
}


def test_emulation_excludes_nobody() -> None:
    groups = make_groups(CHOICES, "tcg")
    assert [(group.name, group.providers) for group in groups] == [
        ("qemu+virtualbox", ("gcp", "aws")),
        ("vmware", ("vmware",)),
    ]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [("1", ("gcp",)), ("qemu", ("gcp",)), ("3", ("vmware",)), ("vmware", ("vmware",)),
     ("virtualbox-iso", ("aws",))],
)  # fmt: skip
def test_a_group_is_called_by_number_or_name(wanted: str, expected: tuple[str, ...]) -> None:
    assert pick_group(CHOICES, "kvm", wanted) == expected


def test_an_unknown_group_is_answered_with_those_there_are() -> None:
    with pytest.raises(UsageError, match="there is no group '4'") as caught:
        pick_group(CHOICES, "kvm", "4")
    assert caught.value.hint == "groups: 1 qemu (gcp); 2 virtualbox (aws); 3 vmware (vmware)"


def test_images_that_cannot_start_by_efi_are_refused() -> None:
    with pytest.raises(UsageError, match="aws, virtualbox: no image for EFI"):
        plan(firmware="efi")


def make_process(root: Path, pid: int, words: str, links: tuple[str, ...] | None) -> None:
    entry = root / "proc" / str(pid)
    (entry / "fd").mkdir(parents=True)
    (entry / "cmdline").write_bytes(words.replace(" ", "\0").encode())
    for number, link in enumerate(links or ()):
        (entry / "fd" / str(number)).symlink_to(link)
    if links is None:  # another user's
        (entry / "fd").rmdir()


def test_whoever_holds_the_cpu_is_found_by_its_processes(tmp_path: Path) -> None:
    make_process(tmp_path, 10, "/usr/bin/qemu-system-x86_64 -m 1G", ("anon_inode:kvm-vm",))
    make_process(tmp_path, 11, "/usr/bin/qemu-system-x86_64 -m 1G", ("/dev/null",))
    make_process(tmp_path, 12, "/usr/bin/qemu-system-x86_64 -accel kvm", None)
    make_process(tmp_path, 13, "/usr/lib/virtualbox/VBoxHeadless --startvm x", ())
    make_process(tmp_path, 14, "/usr/lib/vmware/bin/vmware-vmx x.vmx", ())
    make_process(tmp_path, 15, "vi VBoxHeadless", ())
    (tmp_path / "proc/self").mkdir()
    found = [(holder.pid, holder.builder) for holder in find_holders(tmp_path)]
    assert found == [(10, "qemu"), (12, "qemu"), (13, "virtualbox-iso"), (14, "vmware-iso")]


def test_a_group_that_cannot_have_the_cpu_names_who_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_process(tmp_path, 4711, "/usr/lib/virtualbox/VBoxHeadless --startvm x", ())
    holders = find_holders(tmp_path)
    monkeypatch.setattr("goldimg.native.find_holders", lambda: holders)
    qemu = Group(name="qemu", builders=("qemu",), providers=("gcp",), reason="")
    box = Group(name="virtualbox", builders=("virtualbox-iso",), providers=("aws",), reason="")
    check_free([qemu, box], "tcg")  # emulation needs nothing, its own kind hinders nobody
    with pytest.raises(BuildFailed, match="group qemu cannot start") as caught:
        check_free([box, qemu], "kvm")
    assert caught.value.details == ("virtualbox: process 4711 (VBoxHeadless)",)


def test_firmware_for_efi_is_found_where_distributions_keep_it(tmp_path: Path) -> None:
    assert find_ovmf(tmp_path) is None
    place = tmp_path / "usr/share/edk2/ovmf"
    place.mkdir(parents=True)
    (place / "OVMF_CODE.fd").write_text("")
    assert find_ovmf(tmp_path) is None
    (place / "OVMF_VARS.fd").write_text("")
    found = find_ovmf(tmp_path)
    assert found is not None
    assert found.code == place / "OVMF_CODE.fd"


def test_digests_follow_values_and_not_their_order() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    # a byte that moves from one file to the next must not go unnoticed
    assert digest_files([("a", b"xy"), ("b", b"")]) != digest_files([("a", b"x"), ("b", b"y")])


def test_jobs_respect_cores_and_memory() -> None:
    assert HOST.jobs(1536, 1) == 2
    assert HOST.jobs(1536, 2) == 1
    assert HOST.jobs(6000, 1) == 1
    assert HOST.jobs(100_000, 1) == 1


def make_root(tmp_path: Path, *, flags: str, modules: tuple[str, ...], node: bool) -> Path:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(f"processor\t: 0\nflags\t\t: fpu {flags}\n")
    (tmp_path / "dev").mkdir()
    if node:
        (tmp_path / "dev/kvm").write_text("")
    for module in modules:
        (tmp_path / "sys/module" / module).mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize(
    ("flags", "modules", "node", "expected", "reason"),
    [
        ("vmx", ("kvm", "kvm_intel"), True, "kvm", "kvm_intel"),
        ("svm", ("kvm", "kvm_amd"), True, "kvm", "kvm_amd"),
        ("vmx", ("kvm", "kvm_intel"), False, "tcg", "does not exist"),
        ("", ("kvm", "kvm_intel"), True, "tcg", "no vmx or svm"),
        ("vmx", ("kvm",), True, "tcg", "no kvm_intel or kvm_amd"),
        ("vmxnet", ("kvm", "kvm_intel"), True, "tcg", "no vmx or svm"),
    ],
)
def test_kvm_is_used_only_where_it_is_proven(
    tmp_path: Path, flags: str, modules: tuple[str, ...], node: bool, expected: str, reason: str
) -> None:
    found = find_accelerator(make_root(tmp_path, flags=flags, modules=modules, node=node))
    assert found.name == expected
    assert reason in found.reason


def test_the_site_may_name_the_accelerator() -> None:
    assert choose_accelerator("kvm", HOST).name == "kvm"
    assert choose_accelerator("auto", HOST) == HOST.accelerator
