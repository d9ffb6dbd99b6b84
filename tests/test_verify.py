"""What `goldimg verify` finds, in everything that a build leaves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from goldimg.artifacts import MANIFEST, SUMS, write_version_sums
from tests.shelf import OS, Shelf


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    shelf = Shelf(tmp_path / "site")
    for provider in ("gcp", "virtualbox"):
        shelf.finish(provider)
    write_version_sums(shelf.site, "1.0.0")
    return shelf


def lines(shelf: Shelf, *arguments: str, code: int = 0) -> list[str]:
    done = shelf.goldimg("verify", *arguments)
    assert done.returncode == code, done.stderr
    return done.stdout.splitlines()


def test_every_file_of_a_version_is_checked(shelf: Shelf) -> None:
    where = f"artifacts/1.0.0/{OS}"
    assert lines(shelf, "-O", OS) == [
        f"{where}/gcp/{OS}-1.0.0_gcp.tar.gz: OK",
        f"{where}/virtualbox/{OS}-1.0.0_virtualbox.box: OK",
        f"{where}/virtualbox/{OS}-1.0.0_virtualbox.ova: OK",
        "artifacts/1.0.0/SHA256SUMS: OK",
    ]
    assert len(lines(shelf, "-O", OS, "--only", "gcp")) == 2
    found = json.loads("".join(lines(shelf, "-O", OS, "--json")))
    assert [it["ok"] for it in found] == [True] * 4


def test_every_fault_is_told_not_only_the_first(shelf: Shelf) -> None:
    archive = next(shelf.directory("gcp").glob("*.tar.gz"))
    box = next(shelf.directory("virtualbox").glob("*.box"))
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(data)
    box.unlink()
    (shelf.artifacts / "1.0.0" / SUMS).write_text("")
    done = shelf.goldimg("verify", "-O", OS)
    assert done.returncode == 5
    assert f"{archive.name}: FAILED" in done.stdout
    assert f"{OS}-1.0.0_virtualbox.ova: OK" in done.stdout
    assert f"{archive} has changed; its sha256 is" in done.stderr
    assert f"{box} is missing" in done.stderr
    assert "1.0.0/SHA256SUMS disagrees with the manifests below it" in done.stderr
    assert "hint: 'goldimg catalog' writes it anew" in done.stderr


def test_what_the_hint_says_mends_the_list_of_a_version(shelf: Shelf) -> None:
    (shelf.artifacts / "1.0.0" / SUMS).unlink()
    lines(shelf, "-O", OS, code=5)
    assert shelf.goldimg("catalog").returncode == 0
    lines(shelf, "-O", OS)


def test_a_right_sum_does_not_save_a_wrong_format(shelf: Shelf) -> None:
    archive = next(shelf.directory("gcp").glob("*.tar.gz"))
    shutil.copyfile(next(shelf.directory("virtualbox").glob("*.box")), archive)
    import hashlib

    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    manifest = json.loads((archive.parent / MANIFEST).read_text())
    manifest["artifacts"][0]["sha256"] = digest
    (archive.parent / MANIFEST).write_text(json.dumps(manifest))
    (archive.parent / SUMS).write_text(f"{digest}  {archive.name}\n")
    write_version_sums(shelf.site, "1.0.0")
    done = shelf.goldimg("verify", "-O", OS)
    assert done.returncode == 5
    assert done.stdout.count("FAILED") == 1
    assert "offset" in done.stderr


def test_sums_and_manifest_that_disagree_are_told(shelf: Shelf) -> None:
    (shelf.directory("gcp") / SUMS).write_text("0" * 64 + "  other.tar.gz\n")
    done = shelf.goldimg("verify", str(shelf.directory("gcp")))
    assert done.returncode == 5
    assert "SHA256SUMS and manifest.json disagree" in done.stderr


def test_a_path_is_enough_wherever_it_is(shelf: Shelf, tmp_path: Path) -> None:
    box = next(shelf.directory("virtualbox").glob("*.box"))
    assert lines(shelf, str(box)) == [f"{box}: OK"]
    assert len(lines(shelf, str(shelf.directory("virtualbox")))) == 3
    assert len(lines(shelf, str(shelf.artifacts))) == 4
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(shelf.directory("virtualbox"), elsewhere / "copied")
    assert len(lines(shelf, str(elsewhere))) == 2
    loose = tmp_path / box.name
    shutil.copyfile(box, loose)
    assert lines(shelf, str(loose)) == [
        f"{loose}: OK (no sum is known, only the format was checked)"
    ]
    with loose.open("r+b") as stream:
        stream.seek(loose.stat().st_size // 2)
        stream.write(b"damage")
    assert lines(shelf, str(loose), code=5) == [f"{loose}: FAILED"]
    # one file is looked at, not its neighbours
    with next(shelf.directory("virtualbox").glob("*.ova")).open("ab") as stream:
        stream.write(b"surplus")
    assert lines(shelf, str(box)) == [f"{box}: OK"]


def test_what_cannot_be_verified_is_said(shelf: Shelf, tmp_path: Path) -> None:
    for argument, message in (
        ("nowhere", "nowhere does not exist"),
        (str(tmp_path / "site/templates"), "holds nothing to verify"),
        (str(tmp_path / "site/templates/site.yml.example"), "is not known"),
    ):
        done = shelf.goldimg("verify", argument)
        assert done.returncode == 2
        assert message in done.stderr
    done = shelf.goldimg("verify", "-O", OS, "--version", "9.9.9")
    assert done.returncode == 2
    assert f"nothing of {OS} 9.9.9 is finished" in done.stderr
    done = shelf.goldimg("verify", "-O", OS, "--only", "azure")
    assert done.returncode == 5
    assert "azure is not finished" in done.stderr


def test_verify_has_no_options_of_builds(shelf: Shelf) -> None:
    assert shelf.goldimg("verify", "--jobs", "2").returncode == 2
    assert "--jobs" not in shelf.goldimg("verify", "--help").stdout
    assert "--jobs" in shelf.goldimg("build", "--help").stdout
