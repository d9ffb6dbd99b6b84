"""Files appear whole or not at all; names, places and locks are the same everywhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from goldimg.errors import GoldimgError, UsageError
from goldimg.project import (
    artifact_name,
    find_site,
    locked,
    make_directory,
    short_directory,
    write_text,
    writing,
)


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "disk.qcow2"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt), writing(target) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["disk.qcow2"]


def test_a_finished_write_replaces_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "new" / "sums"
    with writing(target) as temporary:
        assert not target.exists()
        temporary.write_text("whole")
    assert target.read_text() == "whole"
    assert os.listdir(target.parent) == ["sums"]


def test_a_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    full = Path("/dev/full")
    with pytest.raises(GoldimgError) as caught, writing(tmp_path / "file") as temporary:
        temporary.symlink_to(full)
        with temporary.open("w") as stream:
            stream.write("x" * 100_000)
    assert "no space left on device" in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_a_secret_file_is_private_from_its_first_byte(tmp_path: Path) -> None:
    write_text(tmp_path / "secret", "x", mode=0o600)
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def test_artifacts_has_to_be_a_directory(tmp_path: Path) -> None:
    (tmp_path / "artifacts").write_text("")
    with pytest.raises(GoldimgError, match=r"cannot write .*artifacts"):
        make_directory(tmp_path / "artifacts" / "1.0.0")


def test_a_second_build_of_the_same_thing_names_the_first(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with locked(lock, what="Debian-12 1.0.0 for aws"):
        with pytest.raises(GoldimgError) as caught, locked(lock, what="Debian-12 1.0.0 for aws"):
            raise AssertionError("the lock was given twice")
        assert str(caught.value).startswith("Debian-12 1.0.0 for aws is already being built")
        assert f"process {os.getpid()}" in str(caught.value)
    with locked(lock, what="again"):
        assert lock.exists()


def test_the_site_is_found_from_any_directory_in_it(tmp_path: Path) -> None:
    for name in ("templates/os", "kickstart", "ansible/tasks"):
        (tmp_path / name).mkdir(parents=True)
    assert find_site(tmp_path / "ansible" / "tasks").root == tmp_path
    with pytest.raises(UsageError, match="not inside a goldimg site"):
        find_site(Path("/proc"))


def test_artifact_names() -> None:
    assert artifact_name("Debian-12", "1.2.0", "gcp", "tar.gz") == "Debian-12-1.2.0_gcp.tar.gz"
    assert artifact_name("Debian-12", "1.2.0", "gcp") == "Debian-12-1.2.0_gcp"


def test_a_short_directory_is_private_and_empties_what_a_killed_run_left() -> None:
    with short_directory("test-key") as path:
        assert len(str(path)) <= 60
        assert path.stat().st_mode & 0o777 == 0o700
        (path / "socket").write_text("")
        left = path
    assert not left.exists()
    left.mkdir()
    (left / "old").write_text("")
    with short_directory("test-key") as path:
        assert os.listdir(path) == []


def test_a_short_directory_of_somebody_else_is_not_used(tmp_path: Path) -> None:
    with short_directory("test-link") as path:
        place = path
    place.symlink_to(tmp_path)
    try:
        with (
            pytest.raises(GoldimgError, match="belongs to somebody else"),
            short_directory("test-link"),
        ):
            raise AssertionError("a link was followed")
    finally:
        place.unlink()
