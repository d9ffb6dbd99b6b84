"""Key pairs: made once, kept, mended where possible, refused where not."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from goldimg.errors import GoldimgError
from goldimg.keys import ensure_keys
from goldimg.run import Runner
from tests.support import needs


@pytest.fixture(autouse=True)
def _tools() -> None:
    needs("ssh-keygen")


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def contents(keys: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in keys.iterdir() if path.name != ".lock"}


def test_missing_pairs_are_made(keys: Path) -> None:
    packer, vagrant = ensure_keys(keys, Runner())
    assert sorted(contents(keys)) == ["packer", "packer.pub", "vagrant", "vagrant.pub"]
    assert (packer.name, packer.is_new, vagrant.name) == ("packer", True, "vagrant")
    assert packer.public_text.split()[::2] == ["ssh-ed25519", "packer@goldimg"]
    assert "\n" not in packer.public_text
    assert packer.public_text != vagrant.public_text
    for pair in (packer, vagrant):
        assert (mode(pair.private), mode(pair.public)) == (0o600, 0o644)
        derived = subprocess.run(
            ["ssh-keygen", "-y", "-f", pair.private], capture_output=True, text=True, check=True
        ).stdout
        assert derived.split()[:2] == pair.public_text.split()[:2]


def test_rsa_for_targets_that_need_it(keys: Path) -> None:
    assert ensure_keys(keys, Runner(), kind="rsa")[0].public_text.startswith("ssh-rsa ")


def test_existing_pairs_stay_without_force(keys: Path) -> None:
    ensure_keys(keys, Runner())
    before = contents(keys)
    assert not any(pair.is_new for pair in ensure_keys(keys, Runner(), kind="rsa"))
    assert contents(keys) == before
    assert all(pair.is_new for pair in ensure_keys(keys, Runner(), force=True))
    assert not set(before.values()) & set(contents(keys).values())


def test_a_missing_public_half_is_derived(keys: Path) -> None:
    pair = ensure_keys(keys, Runner())[0]
    text = pair.public_text
    pair.public.unlink()
    again = ensure_keys(keys, Runner())[0]
    assert again.public_text == text
    assert mode(again.public) == 0o644


def test_a_missing_private_half_is_an_error(keys: Path) -> None:
    pair = ensure_keys(keys, Runner())[0]
    pair.private.unlink()
    before = contents(keys)
    with pytest.raises(
        GoldimgError, match=r"packer is missing, but packer\.pub is there"
    ) as caught:
        ensure_keys(keys, Runner())
    assert "goldimg keys --force" in caught.value.hint
    assert contents(keys) == before


def test_a_private_key_that_others_can_read_is_closed(keys: Path) -> None:
    pair = ensure_keys(keys, Runner())[0]
    pair.private.chmod(0o644)
    ensure_keys(keys, Runner())
    assert mode(pair.private) == 0o600


def test_halves_of_different_pairs_are_an_error(keys: Path) -> None:
    packer, vagrant = ensure_keys(keys, Runner())
    packer.public.write_text(vagrant.public_text + "\n")
    with pytest.raises(GoldimgError, match="not the public half"):
        ensure_keys(keys, Runner())


def test_a_damaged_or_protected_key_is_an_error(keys: Path) -> None:
    pair = ensure_keys(keys, Runner())[0]
    subprocess.run(
        ["ssh-keygen", "-q", "-p", "-P", "", "-N", "passphrase", "-f", pair.private],
        check=True,
        capture_output=True,
    )
    with pytest.raises(GoldimgError, match="not a usable private key"):
        ensure_keys(keys, Runner())
    pair.private.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nsecret\n")
    with pytest.raises(GoldimgError, match="not a usable private key") as caught:
        ensure_keys(keys, Runner())
    assert "secret" not in "".join(caught.value.details)


def test_no_key_is_half_written(keys: Path) -> None:
    keys.mkdir()
    (keys / "packer.pub").mkdir()
    with pytest.raises(GoldimgError, match=r"packer\.pub is not a key file"):
        ensure_keys(keys, Runner())
    assert not (keys / "packer").exists()
