"""Finished artifacts are listed, pass sha256sum, and differ from unfinished ones."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from goldimg.artifacts import (
    MANIFEST,
    SUMS,
    UNFINISHED,
    add_files,
    finish,
    read_finished,
    status_of,
    write_version_sums,
)
from goldimg.errors import VerificationFailed
from goldimg.formats import Written
from goldimg.project import Site

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
    assert status_of(tmp_path, "key", NAMES, options={"ova_writer": "ovftool"}) == "stale"
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


def test_a_file_that_is_not_made_any_more_goes_with_the_next_build(tmp_path: Path) -> None:
    write(tmp_path, {"b.box": b"box", "a.ova": b"ova"}, "key")
    (tmp_path / "mine.txt").write_text("a note of somebody's")
    write(tmp_path, {"a.ova": b"newer"}, "key")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        ["a.ova", "mine.txt", SUMS, MANIFEST]
    )


def test_a_box_is_added_without_touching_the_image(tmp_path: Path) -> None:
    write(tmp_path, {"a.ova": b"ova"}, "key")
    assert status_of(tmp_path, "key", ("a.ova",), ("a.box",)) == "unboxed"
    before = (tmp_path / "a.ova").stat()
    staging = tmp_path / ".staging"
    staging.mkdir()
    (staging / "a.box").write_bytes(b"box")
    made = Written(
        path=staging / "a.box", size=3, sha256=hashlib.sha256(b"box").hexdigest(), virtual_size=9
    )
    finished = read_finished(tmp_path)
    assert finished
    add_files(finished, staging, [made])
    assert (tmp_path / "a.ova").stat() == before
    assert status_of(tmp_path, "key", ("a.ova",), ("a.box",)) == "current"
    assert status_of(tmp_path, "other", ("a.ova",), ("a.box",)) == "stale"
    subprocess.run(["sha256sum", "-c", SUMS], cwd=tmp_path, capture_output=True, check=True)
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    assert manifest["layer"] == "key"
    assert [entry["file"] for entry in manifest["artifacts"]] == ["a.ova", "a.box"]


def test_a_version_has_one_list_of_all_its_files(tmp_path: Path) -> None:
    site = Site(root=tmp_path)
    places = [site.artifact_dir("1.0.0", *it) for it in (("B", "gcp"), ("A", "gcp"), ("A", "aws"))]
    for directory in places:
        write(directory, {"x.ova": str(directory).encode()}, "key")
    write(site.artifact_dir("2.0.0", "A", "aws"), {"other.ova": b"other"}, "key")
    write_version_sums(site, "1.0.0")
    path = site.artifacts / "1.0.0" / SUMS
    done = subprocess.run(
        ["sha256sum", "-c", SUMS], cwd=path.parent, capture_output=True, text=True, check=True
    )
    assert done.stdout == "A/aws/x.ova: OK\nA/gcp/x.ova: OK\nB/gcp/x.ova: OK\n"
    before = path.stat().st_mtime_ns
    write_version_sums(site, "1.0.0")
    assert path.stat().st_mtime_ns == before
    (places[0] / MANIFEST).unlink()  # being built again
    write_version_sums(site, "1.0.0")
    assert "B/gcp" not in path.read_text()
