"""Packer's templates are valid, hold no secret, and its output becomes phases and clear errors."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from goldimg.packer.driver import Story, failure
from goldimg.packer.output import parse, spoken, task_of
from goldimg.packer.template import Ansible, Freeze, Machine, Spec, make_template
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
