"""The contract that every provider keeps, and what VMware's OVA says of its machine."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from goldimg.config import load_settings
from goldimg.config.models import SiteFile
from goldimg.errors import GoldimgError, MissingTool, UsageError, VerificationFailed
from goldimg.formats import Written, ova, ovf
from goldimg.host import HYPERVISOR_PROGRAMS
from goldimg.layout import data_root
from goldimg.project import Site
from goldimg.providers import Provider, all_providers, select_providers
from tests.clouds.services import environment
from tests.shelf import OS, Shelf

PROVIDERS = all_providers()


def test_the_mission_has_seven() -> None:
    assert list(PROVIDERS) == [
        "aws", "azure", "docker", "gcp", "openstack", "virtualbox", "vmware",
    ]  # fmt: skip


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=PROVIDERS)
def test_a_provider_has_its_data_files_and_names(provider: Provider) -> None:
    root = data_root()
    assert (root / "ansible" / f"{provider.name}.yml").is_file()
    assert (root / "kickstart" / "builds" / f"{provider.kickstart}.yml").is_file()
    assert provider.native_builder in HYPERVISOR_PROGRAMS
    names = provider.artifacts("Debian-12", "1.0.0")
    assert names
    assert all(name.startswith(f"Debian-12-1.0.0_{provider.name}.") for name in names)


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=PROVIDERS)
def test_a_provider_refuses_a_file_that_is_not_of_its_format(
    provider: Provider, tmp_path: Path
) -> None:
    names = provider.artifacts("Debian-12", "1.0.0") + provider.boxes("Debian-12", "1.0.0")
    for name in names:
        path = tmp_path / name
        path.write_bytes(b"nothing of the kind" * 1000)
        with pytest.raises(VerificationFailed):
            provider.check(path)


def test_selection_is_by_name_with_a_suggestion() -> None:
    assert [p.name for p in select_providers([], ["gcp", "azure"], [])] == ["azure", "gcp"]
    assert [p.name for p in select_providers(["aws", "gcp"], [], ["gcp"])] == ["aws"]
    with pytest.raises(UsageError, match=r"unknown provider 'azur' \(did you mean 'azure'\?\)"):
        select_providers([], ["azur"], [])
    with pytest.raises(UsageError, match="no provider is left"):
        select_providers([], ["aws"], ["aws"])


def test_every_provider_but_vmware_has_a_box() -> None:
    without = [
        name
        for name, it in PROVIDERS.items()
        if not any(file.endswith(".box") for file in it.boxes("Debian-12", "1.0.0"))
    ]
    assert without == ["vmware"]


# --- VMware's OVA


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "site")


def make_ova(shelf: Shelf, tmp_path: Path, **keys: Any) -> Written:
    (written,) = shelf.convert("vmware", tmp_path / "out", SiteFile(**keys))
    PROVIDERS["vmware"].check(written.path)
    assert hashlib.sha256(written.path.read_bytes()).hexdigest() == written.sha256
    return written


def envelope_of(path: Path) -> ElementTree.Element:
    with tarfile.open(path, "r:") as archive:
        member = archive.extractfile(archive.getnames()[0])
        assert member
        return ElementTree.fromstring(member.read())  # noqa: S314 - our own


def config_of(root: ElementTree.Element) -> dict[str, str]:
    """VMware's own settings of the machine."""
    return {
        it.attrib[f"{{{ovf.VMW}}}key"]: it.attrib[f"{{{ovf.VMW}}}value"]
        for it in root.iter(f"{{{ovf.VMW}}}Config")
    }


def test_another_reader_finds_the_machine_in_the_ova(shelf: Shelf, tmp_path: Path) -> None:
    written = make_ova(shelf, tmp_path, hardware_version=13)
    cot = environment("cot", "cot==2.2.1") / "bin" / "cot"
    # COT knows SHA1 manifests only, so what it says of digests is not asked for
    done = subprocess.run(
        [cot, "info", "--verbose", written.path], capture_output=True, text=True, check=True
    )
    words = " ".join(done.stdout.split())
    for said in (
        f"{OS}-1.0.0_vmware-disk... 70 KiB 3 MiB harddisk @ SCSI 0:0",
        "System types: vmx-13",
        "SCSI device types: VirtualSCSI",
        "Ethernet device types: VmxNet3",
        "None (default) 1 1 GiB 1 0 1 / 3 MiB",
        "Transport types: com.vmware.guestInfo",
        *(f"<{entry.key}> {entry.label}" for entry in ovf.CLOUD_INIT),
    ):
        assert said in words, said


def test_the_ova_has_what_cloud_init_reads_and_memory_grows_while_it_runs(
    shelf: Shelf, tmp_path: Path
) -> None:
    root = envelope_of(make_ova(shelf, tmp_path).path)
    assert [it.attrib[f"{{{ovf.NS}}}key"] for it in root.iter(f"{{{ovf.NS}}}Property")] == [
        "instance-id", "hostname", "seedfrom", "public-keys", "user-data", "password",
    ]  # fmt: skip
    (hardware,) = root.iter(f"{{{ovf.NS}}}VirtualHardwareSection")
    assert hardware.attrib[f"{{{ovf.NS}}}transport"] == "com.vmware.guestInfo"
    config = config_of(root)
    assert config["memoryHotAddEnabled"] == config["cpuHotAddEnabled"] == "true"
    assert config["firmware"] == "bios"
    assert "vmx-11" in ElementTree.tostring(root, encoding="unicode")


def vmware_settings(shelf: Shelf, **keys: object) -> Any:
    given = [f"{key}={value}" for key, value in keys.items()]
    return load_settings(Site(root=shelf.site.root), OS, variables=given, environ={})


def test_secure_boot_and_a_tpm_are_there_when_they_are_asked_for(
    shelf: Shelf, tmp_path: Path
) -> None:
    keys = {"firmware": "efi", "hardware_version": 14, "secure_boot": True, "tpm": True}
    settings = vmware_settings(shelf, **keys)
    PROVIDERS["vmware"].refuse(settings)
    job = {**shelf.job(tmp_path, "1.0.0", settings.site), "firmware": settings.firmware}
    shelf.job = lambda *_: job  # type: ignore[assignment,method-assign]
    (written,) = shelf.convert("vmware", tmp_path)
    root = envelope_of(written.path)
    assert config_of(root)["firmware"] == "efi"
    assert config_of(root)["bootOptions.efiSecureBootEnabled"] == "true"
    assert "vmware.vtpm" in ElementTree.tostring(root, encoding="unicode")


@pytest.mark.parametrize(
    ("keys", "what", "hint"),
    [
        ({"secure_boot": True}, "secure_boot needs EFI", "firmware: efi"),
        ({"tpm": True}, "tpm needs EFI", "firmware: efi"),
        (
            {"firmware": "efi", "secure_boot": True},
            "secure_boot needs VMware hardware version 13 or later; hardware_version is 11",
            "hardware_version: 13",
        ),
        (
            {"firmware": "efi", "hardware_version": 13, "tpm": True},
            "tpm needs VMware hardware version 14 or later; hardware_version is 13",
            "hardware_version: 14",
        ),
    ],
)
def test_what_the_hardware_cannot_do_is_refused(
    shelf: Shelf, keys: dict[str, object], what: str, hint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        PROVIDERS["vmware"].refuse(vmware_settings(shelf, **keys))
    assert str(caught.value) == what
    assert caught.value.hint == f"set {hint}"


def test_only_the_provider_that_cannot_do_it_is_refused(shelf: Shelf) -> None:
    words = ("plan", "-O", OS, "--var", "tpm=true", "--only")
    refused = shelf.goldimg(*words, "vmware")
    assert (refused.returncode, "error: tpm needs EFI" in refused.stderr) == (2, True)
    assert shelf.goldimg(*words, "gcp").returncode == 0


@pytest.fixture
def ovftool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in for ovftool, on the search path."""
    programs = tmp_path / "bin"
    programs.mkdir()
    script = Path(__file__).parent / "hypervisors" / "ovftool.py"
    program = programs / "ovftool"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {script} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    return program


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512"])
def test_ovftool_writes_the_same_machine_where_it_is_wanted(
    shelf: Shelf, tmp_path: Path, ovftool: Path, algorithm: str
) -> None:
    own = make_ova(shelf, tmp_path / "own")
    theirs = make_ova(shelf, tmp_path, ova_writer="ovftool", vmware_sha=algorithm)
    assert theirs.path.name == own.path.name
    assert theirs.virtual_size == own.virtual_size
    assert list(theirs.path.parent.iterdir()) == [theirs.path]
    assert ova.disk_region(theirs.path).size == ova.disk_region(own.path).size
    with tarfile.open(theirs.path, "r:") as archive:
        manifest = archive.extractfile(archive.getnames()[1])
        assert manifest
        text = manifest.read().decode()
    assert text.startswith(f"{algorithm.upper()}({OS}-1.0.0_vmware.ovf)= ")
    sections = [config_of(envelope_of(it.path)) for it in (own, theirs)]
    assert sections[0] == sections[1]


def test_a_changed_byte_in_an_ova_of_ovftool_is_found(
    shelf: Shelf, tmp_path: Path, ovftool: Path
) -> None:
    path = make_ova(shelf, tmp_path, ova_writer="ovftool").path
    whole = bytearray(path.read_bytes())
    region = ova.disk_region(path)
    for offset in (1024, region.offset + 10, region.offset + region.size - 600):
        damaged = bytearray(whole)
        damaged[offset] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(VerificationFailed):
            PROVIDERS["vmware"].check(path)


def test_what_ovftool_refuses_is_told_in_its_words_and_leaves_nothing(
    shelf: Shelf, tmp_path: Path, ovftool: Path
) -> None:
    ovftool.write_text("#!/bin/sh\necho 'Error: OVF Package is not valid'\nexit 1\n")
    with pytest.raises(GoldimgError, match=r"ovftool failed \(exit code 1\)") as caught:
        make_ova(shelf, tmp_path, ova_writer="ovftool")
    assert "Error: OVF Package is not valid" in caught.value.details
    assert list((tmp_path / "out").iterdir()) == []


def test_ovftool_that_is_missing_is_told_before_anything_starts(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    from goldimg.host import inspect_host
    from goldimg.session import check_tools

    settings = vmware_settings(shelf, ova_writer="ovftool", iso_path="any.iso")
    monkeypatch.setattr("goldimg.session.has_program", lambda name: name != "ovftool")
    with pytest.raises(MissingTool, match="missing on this host: ovftool"):
        check_tools([PROVIDERS["vmware"]], settings, inspect_host())
    check_tools([PROVIDERS["gcp"]], settings, inspect_host())
