"""The contract that every provider keeps."""

from __future__ import annotations

from pathlib import Path

import pytest

from goldimg.errors import UsageError
from goldimg.host import HYPERVISOR_PROGRAMS
from goldimg.layout import data_root
from goldimg.providers import Provider, all_providers, select_providers

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
    from goldimg.errors import VerificationFailed

    for name in provider.artifacts("Debian-12", "1.0.0"):
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
