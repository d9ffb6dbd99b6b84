"""Packer's templates are valid, hold no secret, and its output becomes phases and clear errors."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from goldimg.config import load_settings
from goldimg.config.settings import list_oses
from goldimg.layout import lay_out
from goldimg.packer.driver import Story, failure
from goldimg.packer.output import parse, spoken, task_of
from goldimg.packer.template import (
    Ansible,
    Freeze,
    Machine,
    Native,
    Ovmf,
    Spec,
    Template,
    make_template,
)
from goldimg.plan import HYPERVISORS
from goldimg.project import Site
from goldimg.providers import all_providers
from goldimg.run import Runner
from tests.support import needs


def make_spec(tmp_path: Path, *, accelerator: str = "tcg", is_layer: bool = False) -> Spec:
    for name in ("source", "site.yml", "key"):
        (tmp_path / name).write_text("x")
    return Spec(
        name="azure" if is_layer else "base",
        source=tmp_path / "source",
        source_sha256="0" * 64,
        output=tmp_path / "output",
        console=tmp_path / "console.log",
        machine=Machine(
            accelerator=accelerator, cpus=1, memory_mib=1536, disk_mib=8192, headless=True
        ),
        private_key=tmp_path / "key",
        ssh_seconds=600,
        ansible=Ansible(
            playbook=tmp_path / "site.yml",
            variables=tmp_path / "vars.json",
            environment=(("ANSIBLE_PIPELINING", "1"),),
        ),
        boot_command="" if is_layer else "<tab> inst.ks={{ user `ks_url` }}<enter>",
    )


def accepted(template: Template, tmp_path: Path) -> None:
    """Packer's own opinion. It reads the key when it validates."""
    path, key = tmp_path / "packer.json", tmp_path / "key"
    path.write_text(json.dumps(template))
    key.unlink(missing_ok=True)
    Runner().run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key])
    Runner().run(
        ["packer", "validate", "-var", "ks_url=http://x/ks", path], env={"CHECKPOINT_DISABLE": "1"}
    )


def every_build(tmp_path: Path) -> dict[str, Spec]:
    """A run for each OS, provider, builder and firmware."""
    site = Site(root=tmp_path / "site")
    lay_out(site.root)
    for example in site.os_dir.glob("*.yml.example"):
        example.rename(example.with_suffix(""))
    found: dict[str, Spec] = {}
    for name in list_oses(site):
        settings = load_settings(
            site, name, environ={}, variables=["boot_options=selinux=0,inst.text"]
        )
        for provider in all_providers().values():
            for builder, hypervisor in HYPERVISORS.items():
                for firmware in ("bios", "efi"):
                    is_efi = firmware == "efi"
                    spec = make_spec(tmp_path)
                    machine = replace(
                        spec.machine,
                        firmware=firmware,
                        ovmf=Ovmf(code=tmp_path / "code", variables=tmp_path / "vars"),
                    )
                    native = Native(
                        vm_name=f"goldimg-{provider.name}",
                        guest_os=settings.os.guest_os[hypervisor] if hypervisor != "qemu" else "",
                        version=(7, 0),
                        guest_additions="upload" if provider.takes_guest_additions else "disable",
                        vmx_data={"svga.autodetect": "TRUE"},
                    )
                    keys = settings.boot_command("{{ user `ks_url` }}", "efi" if is_efi else "bios")
                    found[f"{name} {provider.name} {builder} {firmware}"] = replace(
                        spec,
                        name=f"{provider.name}-{len(found)}",
                        machine=machine,
                        builder=builder,
                        native=None if builder == "qemu" else native,
                        boot_command=keys,
                        efi_variables=tmp_path / "own" if is_efi and builder == "qemu" else None,
                    )
    return found


def test_packer_accepts_a_template_for_each_hypervisor(tmp_path: Path) -> None:
    needs("packer", "ansible-playbook")
    specs = every_build(tmp_path)
    for builder in ("virtualbox-iso", "vmware-iso"):
        accepted(make_template(specs[f"Debian-12 virtualbox {builder} efi"]), tmp_path)


@pytest.mark.real  # half a minute: Packer starts a process for each builder
def test_packer_accepts_every_os_provider_builder_and_firmware(tmp_path: Path) -> None:
    """In one template; Packer names what it refuses."""
    needs("packer", "ansible-playbook")
    specs = every_build(tmp_path)
    assert len(specs) >= 3 * 7 * 3 * 2
    templates = [make_template(spec) for spec in specs.values()]
    builders = [each["builders"][0] for each in templates]  # type: ignore[index]
    # what differs in nothing but the name goes in once
    distinct = {json.dumps({**each, "name": ""}, sort_keys=True): each for each in builders}
    assert len(distinct) >= 3 * (2 + 2 * 2 + 2)  # OS: qemu, virtualbox-iso (additions), vmware-iso
    whole = {**templates[0], "builders": list(distinct.values())}
    accepted(whole, tmp_path)


# What today's plugins know no more, or never knew; and 1.6 does not know. Their documents:
# developer.hashicorp.com/packer/integrations/hashicorp/{qemu,virtualbox}, …/vmware/vmware.
DROPPED = {
    "qemu": {"iso_checksum_type", "iso_checksum_url", "ssh_host_port_min", "ssh_wait_timeout",
             "efi_boot", "efi_firmware_code", "cpu_model"},
    "virtualbox-iso": {"iso_checksum_type", "guest_additions_checksum", "ssh_skip_nat_mapping",
                       "boot_key_interval", "firmware", "nic_type", "audio_controller"},
    "vmware-iso": {"iso_checksum_type", "tools_mode", "remote_host", "vnc_over_websocket",
                   "firmware", "version", "format", "usb_version"},
}  # fmt: skip


def test_no_option_is_used_that_only_some_packers_know(tmp_path: Path) -> None:
    for name, spec in every_build(tmp_path).items():
        builder = make_template(spec)["builders"][0]  # type: ignore[index]
        assert not builder.keys() & DROPPED[spec.builder], name


def test_efi_is_asked_of_each_builder_in_its_own_way(tmp_path: Path) -> None:
    specs = every_build(tmp_path)

    def section(builder: str, firmware: str) -> str:
        spec = specs[f"Debian-12 vmware {builder} {firmware}"]
        return json.dumps(make_template(spec)["builders"][0])  # type: ignore[index]

    for builder, mark in (
        ("qemu", "if=pflash,unit=1,format=raw,file="),
        ("virtualbox-iso", '"--firmware", "efi"'),
        ("vmware-iso", '"firmware": "efi"'),
    ):
        assert mark in section(builder, "efi")
        assert mark not in section(builder, "bios")
        assert "inst.ks={{ user `ks_url` }} selinux=0 inst.text" in section(builder, "efi")


@pytest.mark.parametrize("accelerator", ["tcg", "kvm"])
@pytest.mark.parametrize("is_layer", [False, True])
def test_packer_accepts_the_template(tmp_path: Path, accelerator: str, is_layer: bool) -> None:
    needs("packer", "ansible-playbook")
    template = make_template(make_spec(tmp_path, accelerator=accelerator, is_layer=is_layer))
    path = tmp_path / "packer.json"
    path.write_text(json.dumps(template))
    # Packer reads the key when it validates
    key = tmp_path / "key"
    key.unlink()
    Runner().run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key])
    Runner().run(
        ["packer", "validate", "-var", "ks_url=http://x/ks", path], env={"CHECKPOINT_DISABLE": "1"}
    )


@pytest.mark.parametrize("is_layer", [False, True])
def test_packer_accepts_the_template_of_a_guest_that_is_saved_or_goes_on(
    tmp_path: Path, is_layer: bool
) -> None:
    needs("packer", "ansible-playbook")
    spec = make_spec(tmp_path, is_layer=is_layer)
    if is_layer:
        spec = replace(spec, thaw=tmp_path / "it's a state.zst")
    else:
        spec = replace(spec, freeze=Freeze(state=tmp_path / "state.zst", socket=tmp_path / "qmp"))
    builder = make_template(spec)["builders"][0]  # type: ignore[index]
    assert ("-incoming" in str(builder["qemuargs"])) == is_layer
    assert (builder["shutdown_command"] == "") != is_layer
    path = tmp_path / "packer.json"
    path.write_text(json.dumps(make_template(spec)))
    key = tmp_path / "key"
    key.unlink()
    Runner().run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key])
    Runner().run(
        ["packer", "validate", "-var", "ks_url=http://x/ks", path], env={"CHECKPOINT_DISABLE": "1"}
    )


def test_a_layer_is_an_overlay_of_exactly_the_base_size(tmp_path: Path) -> None:
    builder = make_template(make_spec(tmp_path, is_layer=True))["builders"][0]  # type: ignore[index]
    assert builder["use_backing_file"] is True
    assert builder["disk_size"] == "8192M"  # omitted, Packer makes it 40 GiB
    assert builder["qemu_img_args"] == {"create": ["-F", "qcow2"]}
    assert "boot_command" not in builder


def test_the_url_with_its_token_is_no_part_of_the_template(tmp_path: Path) -> None:
    template = make_template(make_spec(tmp_path))
    assert template["variables"] == {"ks_url": ""}
    assert "ks_url" in template["sensitive-variables"]  # type: ignore[operator]


def test_machine_readable_lines() -> None:
    raw = r"1700000000,,ui,say,==> azure: Connected to SSH!"
    assert [spoken(line) for line in parse(raw)] == ["Connected to SSH!"]
    raw = r"1700000000,,ui,message,    azure: one%!(PACKER_COMMA) two\n    azure: three"
    assert [spoken(line) for line in parse(raw)] == ["one, two", "three"]
    raw = "1700000000,azure,error,Timeout waiting for SSH."
    assert [line.kind for line in parse(raw)] == ["error"]
    assert parse("panic: something")[0].text == "panic: something"


def test_tasks_are_named() -> None:
    assert task_of("TASK [Install the agent] ********") == "Install the agent"
    assert task_of("TASK [role : Install the agent] ***") == "Install the agent"
    assert task_of("ok: [default]") is None


def story(*lines: str, is_install: bool = False) -> tuple[Story, list[str]]:
    phases: list[str] = []
    told = Story(on_phase=phases.append, on_detail=lambda _: None, is_install=is_install)
    for line in lines:
        told.hear(f"1700000000,,ui,say,==> azure: {line}")
    return told, phases


def test_output_becomes_phases() -> None:
    _, phases = story(
        "Starting VM booting disk image",
        "Waiting for SSH to become available...",
        "Connected to SSH!",
        "TASK [Install the agent] ***",
        "TASK [Clean up logs] ***",
        "Gracefully halting virtual machine...",
    )
    assert phases == ["boot", "ssh", "provisioning", "cleaning", "shutting down"]


def test_an_install_waits_for_ssh_only_once_it_has_rebooted() -> None:
    _, phases = story("Starting VM", "Waiting for SSH to become available...", is_install=True)
    assert phases == ["boot"]


def test_a_failed_task_is_named(tmp_path: Path) -> None:
    told, _ = story(
        "Connected to SSH!",
        "TASK [Install the agent] ***",
        'fatal: [default]: FAILED! => {"msg": "No package matching waagent"}',
    )
    error = failure("azure", told, tmp_path / "build.log")
    assert str(error) == "azure: Ansible task 'Install the agent' failed"
    assert "No package matching waagent" in error.details[0]


def test_a_full_disk_and_a_missing_ssh_are_told_apart(tmp_path: Path) -> None:
    told, _ = story("Starting VM", "write error: No space left on device")
    assert "disk is full" in str(failure("azure", told, tmp_path / "log"))
    told, _ = story("Starting VM", "Waiting for SSH", "Timeout waiting for SSH.")
    assert str(failure("azure", told, tmp_path / "log")).startswith("azure: no SSH in time")
