"""Equal kickstarts share an install; the plan says which builder is used and why."""

from __future__ import annotations

from pathlib import Path

import pytest

from goldimg.errors import UsageError
from goldimg.host import Accelerator, Host, choose_accelerator, find_accelerator
from goldimg.plan import Plan, Rendered, digest, digest_files, make_plan
from goldimg.providers import all_providers

HOST = Host(
    cores=2,
    memory_mib=8192,
    accelerator=Accelerator(name="tcg", reason="test"),
    builders=frozenset({"qemu"}),
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


def plan(builders: dict[str, str] | None = None, host: Host = HOST) -> Plan:
    return make_plan(
        os_name="Debian-12",
        version="1.0.0",
        disk_mib=8192,
        jobs=2,
        providers=list(all_providers().values()),
        builders=builders or {},
        kickstarts=KICKSTARTS,
        host=host,
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
    assert choices["vmware"].reason.startswith("vmware-iso is not installed")
    assert plan({"aws": "qemu"}).installs[0].layers[0].choice.reason == "set in the site file"


def test_a_builder_that_cannot_be_used_is_refused_before_anything_starts() -> None:
    with pytest.raises(UsageError, match="vmware: builder 'vmware-iso' cannot be used yet"):
        plan({"vmware": "vmware-iso"})


def test_all_qemu_builds_are_one_group() -> None:
    assert plan().groups == {
        "qemu": ("aws", "virtualbox", "vmware", "docker", "gcp", "openstack", "azure")
    }


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
