"""Finished artifacts are listed, pass sha256sum, and differ from unfinished ones."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from goldimg.artifacts import MANIFEST, SUMS, UNFINISHED, finish, read_finished, status_of
from goldimg.errors import VerificationFailed
from goldimg.formats import Written
from goldimg.providers.gcp import Gcp
from goldimg.run import Runner
from goldimg.verify import verify_directory

NAMES = ("a.ova", "b.box")


def write(directory: Path, contents: dict[str, bytes], key: str) -> None:
    staging = directory / ".staging"
    staging.mkdir(parents=True)
    written = []
    for name, content in contents.items():
        (staging / name).write_bytes(content)
        written.append(
            Written(
                path=staging / name,
                size=len(content),
                sha256=hashlib.sha256(content).hexdigest(),
                virtual_size=None,
            )
        )
    finish(directory, staging, written, {"layer": key})


def test_a_finished_directory_passes_sha256sum(tmp_path: Path) -> None:
    write(tmp_path, {"b.box": b"box", "a.ova": b"ova"}, "key")
    done = subprocess.run(
        ["sha256sum", "-c", SUMS], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "a.ova: OK\nb.box: OK\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["a.ova", "b.box", SUMS, MANIFEST])
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    assert {entry["file"] for entry in manifest["artifacts"]} == {"a.ova", "b.box"}


def test_status_follows_inputs_and_files(tmp_path: Path) -> None:
    assert status_of(tmp_path, "key", NAMES) == "missing"
    write(tmp_path, {"b.box": b"box", "a.ova": b"ova"}, "key")
    assert status_of(tmp_path, "key", NAMES) == "current"
    assert status_of(tmp_path, "other", NAMES) == "stale"
    (tmp_path / "a.ova").write_bytes(b"longer than before")
    assert status_of(tmp_path, "key", NAMES) == "missing"


def test_files_that_nobody_finished_are_foreign(tmp_path: Path) -> None:
    (tmp_path / "a.ova").write_bytes(b"from somewhere else")
    assert status_of(tmp_path, "key", NAMES) == "foreign"


def test_a_crash_between_the_files_is_seen(tmp_path: Path) -> None:
    (tmp_path / UNFINISHED).touch()
    (tmp_path / "a.ova").write_bytes(b"new")
    assert status_of(tmp_path, "key", NAMES) == "missing"


def test_a_manifest_edited_into_nonsense_is_named(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(VerificationFailed, match=r"manifest\.json is not valid JSON"):
        read_finished(tmp_path)


def test_verify_finds_a_changed_byte_and_a_missing_file(tmp_path: Path) -> None:
    name = "Debian-12-1.0.0_gcp.tar.gz"
    write(tmp_path, {name: b"no tar"}, "key")
    with pytest.raises(VerificationFailed):  # the sum is right, the format is not
        verify_directory(tmp_path, Gcp(), Runner())
    (tmp_path / name).write_bytes(b"no rat")
    with pytest.raises(VerificationFailed, match="has changed; its sha256 is"):
        verify_directory(tmp_path, Gcp(), Runner())
    (tmp_path / name).unlink()
    with pytest.raises(VerificationFailed, match="is missing"):
        verify_directory(tmp_path, Gcp(), Runner())
    (tmp_path / SUMS).unlink()
    with pytest.raises(VerificationFailed, match="is not finished"):
        verify_directory(tmp_path, Gcp(), Runner())
