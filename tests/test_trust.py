"""Provenance, signatures, and what `goldimg verify` finds with nothing but a public key."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
from in_toto_attestation.v1.statement import Statement

from goldimg.artifacts import (
    MANIFEST,
    SUMS,
    write_version_sums,
)
from goldimg.config.sign import Sign
from goldimg.inventory.describe import CYCLONEDX, EXTENSIONS, SPDX
from goldimg.keys import ensure_signing_key
from goldimg.run import Runner
from goldimg.trust.facts import repository
from goldimg.trust.seal import LOGS
from goldimg.trust.signer import CosignSigner, GpgSigner
from goldimg.trust.statement import statement, text_of
from goldimg.trust.verifier import Trusted, verifying
from goldimg.verify import verify_path
from tests.shelf import GOLDIMG, OS, Shelf
from tests.support import needs
from tests.test_inventory import GUEST, describe_in, valid_cyclonedx, valid_spdx

REQUIRED = ("buildType", "externalParameters")  # https://slsa.dev/spec/v1.0/provenance


def valid_provenance(text: str) -> None:
    """Holds a provenance to in-toto's own protocol buffers of statement v1 and SLSA provenance v1.

    There is no JSON schema of either that is published by who makes them.
    https://github.com/in-toto/attestation/tree/main/protos
    """
    statement = json_format.Parse(text, statement_pb2.Statement())  # an unknown member is an error
    Statement.copy_from_pb(statement).validate()
    predicate = json_format.MessageToDict(statement.predicate)
    made = json_format.ParseDict(predicate, provenance_pb2.Provenance())
    assert all(predicate["buildDefinition"][name] for name in REQUIRED)
    assert made.run_details.builder.id.startswith("urn:")
    definition, details = made.build_definition, made.run_details
    for resource in (*definition.resolved_dependencies, *details.byproducts):
        ResourceDescriptor.copy_from_pb(resource).validate()
        assert resource.digest or resource.uri


def check_provenance(directory: Path) -> None:
    """It names every file of the image once, boxes and descriptions too; and it is signed."""
    (path,) = directory.glob("*.provenance.json")
    valid_provenance(path.read_text())
    made = json.loads(path.read_text())
    named = [(it["digest"]["sha256"], it["name"]) for it in made["subject"]]
    listed = [line.split("  ") for line in (directory / SUMS).read_text().splitlines()]
    assert sorted(named) == sorted((digest, name) for digest, name in listed)
    others = {it["name"] for it in made["predicate"]["runDetails"]["byproducts"]}
    assert others.isdisjoint(name for _, name in named)
    assert path.with_name(f"{path.name}.sig").exists()


def check_documents(directory: Path, scratch: Path) -> None:
    """Every document in it is what its standard says."""
    (bom,), (sbom,) = (list(directory.glob(f"*.{it}")) for it in (CYCLONEDX, SPDX))
    valid_cyclonedx(bom.read_text())
    valid_spdx(sbom.read_text(), scratch)
    check_provenance(directory)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    needs("ssh-keygen")
    shelf = Shelf(tmp_path / "site")
    for provider in ("gcp", "virtualbox"):
        directory = shelf.finish(provider)
        describe_in(directory, GUEST, "1.0.0")
        for name in LOGS:
            (directory / name).write_text("what was said\n" * 20)
    write_version_sums(shelf.site, "1.0.0")
    done = shelf.goldimg("sign")
    assert done.returncode == 0, done.stderr
    return shelf


@pytest.fixture
def copied(shelf: Shelf, tmp_path: Path) -> tuple[Path, Path]:
    """The version and the public key somewhere else, and nothing else of the site's."""
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(shelf.artifacts / "1.0.0", elsewhere / "1.0.0")
    shutil.copyfile(shelf.site.keys / "signing.pub", elsewhere / "key.pub")
    return elsewhere / "1.0.0", elsewhere / "key.pub"


def faults(path: Path, key: Path | None) -> list[str]:
    with verifying([Trusted.read(key)] if key else [], Runner()) as verifier:
        return [str(it.error) for it in verify_path(path, verifier) if it.error]


def notes(path: Path, key: Path | None = None) -> list[str]:
    with verifying([Trusted.read(key)] if key else [], Runner()) as verifier:
        return [it.note for it in verify_path(path, verifier)]


def provenance(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(next(directory.glob("*.provenance.json")).read_text())
    return found


def test_every_document_of_an_image_is_what_its_standard_says(shelf: Shelf, tmp_path: Path) -> None:
    for provider in ("gcp", "virtualbox"):
        check_documents(shelf.directory(provider), tmp_path)
    made = provenance(shelf.directory("virtualbox"))
    named = {it["name"] for it in made["subject"]}
    assert {f"{OS}-1.0.0_virtualbox.{it}" for it in EXTENSIONS} <= named
    byproducts = [it["name"] for it in made["predicate"]["runDetails"]["byproducts"]]
    assert sorted(byproducts) == sorted([MANIFEST, *LOGS])


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('"startedOn"', '"startedAt"'),
        ('"byproducts"', '"byProducts "'),
        ("https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"),
        ('"buildType": "urn', '"buildType": 7, "x": "urn'),
        ('"subject": [', '"subject": [], "subjects": ['),
    ],
)
def test_the_validator_of_provenance_would_find_a_fault(right: str, wrong: str) -> None:
    known = {"os": OS, "started": "2026-01-01T00:00:00+00:00",
             "artifacts": [{"file": "a.ova", "sha256": "0" * 64}]}  # fmt: skip
    text = text_of(statement(known, {"build.log": "0" * 64}))
    valid_provenance(text)
    assert text.count(right) == 1
    with pytest.raises((json_format.ParseError, ValueError, AssertionError)):
        valid_provenance(text.replace(right, wrong))


def test_a_copy_is_verified_with_nothing_but_the_public_key(
    shelf: Shelf, copied: tuple[Path, Path]
) -> None:
    version, key = copied
    shutil.rmtree(shelf.site.keys)
    done = subprocess.run(
        [GOLDIMG, "verify", version, "--key", key],
        cwd=version,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "manifest.json: OK (signed by goldimg, SHA256:" in done.stdout
    assert faults(version, key) == []
    assert any("by whom" in note for note in notes(version))
    # OpenSSH alone comes to the same result
    allowed = version.parent / "allowed"
    allowed.write_text(f"goldimg {key.read_text()}")
    argv: list[str | Path] = [
        "ssh-keygen",
        "-Y",
        "verify",
        "-f",
        allowed,
        "-I",
        "goldimg",
        "-n",
        "goldimg",
        "-s",
    ]
    with (version / SUMS).open("rb") as stream:
        subprocess.run(
            [*argv, version / f"{SUMS}.sig"], stdin=stream, check=True, capture_output=True
        )
    assert faults(version, allowed) == []


SEED = 8


def test_each_of_100_random_changes_of_a_byte_is_found(copied: tuple[Path, Path]) -> None:
    version, key = copied
    files = sorted(path for path in version.rglob("*") if path.is_file())
    directory = version / OS / "gcp"
    stem = f"{OS}-1.0.0_gcp"
    signed = [SUMS, MANIFEST, f"{stem}.provenance.json", f"{stem}.cdx.json", f"{stem}.spdx.json"]
    names = [*signed, *(f"{name}.sig" for name in signed), *LOGS]
    names += [f"{stem}.inventory.json.gz", f"{stem}.tar.gz"]
    assert sorted(path.name for path in directory.iterdir()) == sorted(names)
    chance = random.Random(SEED)  # noqa: S311 - a test's
    # every file once, and then any
    for path in [*files, *chance.choices(files, k=100 - len(files))]:
        data = bytearray(path.read_bytes())
        at, bit = chance.randrange(len(data)), 1 << chance.randrange(8)
        data[at] ^= bit
        path.write_bytes(data)
        # the image that holds it is looked at, or the version's own list
        where = path.parent if path.parent != version else path
        if path.parent == version and path.suffix == ".sig":
            where = path.with_suffix("")
        assert faults(where, key), f"seed {SEED}: {path}, byte {at}, bit {bit:#04x}"
        data[at] ^= bit
        path.write_bytes(data)
    assert faults(version, key) == []


def test_unsigned_and_signed_by_another_key_are_told_apart(
    copied: tuple[Path, Path], tmp_path: Path
) -> None:
    version, key = copied
    stranger = ensure_signing_key(tmp_path / "other", Runner())
    assert stranger
    assert all(
        "is signed with another key, SHA256:" in it for it in faults(version, stranger.public)
    )
    for path in version.rglob("*.sig"):
        path.unlink()
    assert f"{version / SUMS} is not signed" in faults(version, key)
    assert faults(version, None) == []
    with pytest.raises(Exception, match="is a private key"):
        Trusted.read(stranger.private)


def test_a_manifest_edited_by_hand_is_named_even_when_signed_again(
    shelf: Shelf, copied: tuple[Path, Path]
) -> None:
    path = shelf.directory("gcp") / MANIFEST
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "layer": "another"}, indent=2))
    key = shelf.site.keys / "signing.pub"
    assert [it for it in faults(path.parent, key) if "was edited" in it]
    done = shelf.goldimg("sign")
    assert done.returncode == 5
    assert "manifest.json was edited" in done.stderr
    sign = ["ssh-keygen", "-Y", "sign", "-q", "-n", "goldimg", "-f"]
    secret = shelf.site.keys / "signing"
    path.with_name(f"{MANIFEST}.sig").unlink()
    subprocess.run([*sign, secret, path], check=True, capture_output=True)
    assert [it for it in faults(path.parent, key) if "was edited" in it]


def test_publications_want_a_new_signature_and_nothing_else(shelf: Shelf) -> None:
    path = shelf.directory("gcp") / MANIFEST
    before = next(path.parent.glob("*.provenance.json.sig")).read_bytes()
    manifest = {**json.loads(path.read_text()), "publications": [{"name": "x"}]}
    path.write_text(json.dumps(manifest, indent=2))
    (fault,) = faults(path.parent, shelf.site.keys / "signing.pub")
    assert "in what is added after a build" in fault
    assert shelf.goldimg("sign").returncode == 0
    assert faults(path.parent, shelf.site.keys / "signing.pub") == []
    assert next(path.parent.glob("*.provenance.json.sig")).read_bytes() == before


def test_what_is_damaged_is_not_signed(shelf: Shelf) -> None:
    directory = shelf.finish("openstack")
    image = next(directory.glob("*.qcow2"))
    image.write_bytes(image.read_bytes()[:-1] + b"x")
    done = shelf.goldimg("sign", str(directory))
    assert done.returncode == 5
    assert "has changed" in done.stderr
    assert not list(directory.glob("*.sig"))


def test_the_agent_signs_where_only_the_public_half_is_here(shelf: Shelf, tmp_path: Path) -> None:
    needs("ssh-agent")
    sock = Path(tempfile.mkdtemp(prefix="gi-")) / "a"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", sock], stdout=subprocess.DEVNULL)
    try:
        while not sock.exists():
            assert agent.poll() is None
        env = {"SSH_AUTH_SOCK": str(sock)}
        private = shelf.site.keys / "signing"
        subprocess.run(
            ["ssh-add", "-q", private], env={**os.environ, **env}, check=True, capture_output=True
        )
        private.rename(tmp_path / "away")
        done = shelf.goldimg("sign", "--force", **env)
        assert done.returncode == 0, done.stderr
        assert faults(shelf.artifacts, shelf.site.keys / "signing.pub") == []
        done = shelf.goldimg("sign", "--force", SSH_AUTH_SOCK="")
        assert "the site's key cannot sign" in done.stderr
    finally:
        agent.terminate()
        agent.wait()
        shutil.rmtree(sock.parent)


@pytest.fixture
def ring(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    needs("gpg")
    home = Path(tempfile.mkdtemp(prefix="gi-"))
    monkeypatch.setenv("GNUPGHOME", str(home))
    argv = ["gpg", "--batch", "--passphrase", "", "--quick-generate-key", "me@example.com",
            "ed25519", "sign", "never"]  # fmt: skip
    try:
        subprocess.run(argv, check=True, capture_output=True)
        yield home
    finally:
        subprocess.run(["gpgconf", "--kill", "all"], check=False, capture_output=True)
        shutil.rmtree(home, ignore_errors=True)


def test_gpg_signs_and_verifies_with_an_exported_key(ring: Path, tmp_path: Path) -> None:
    signer = GpgSigner(Runner(), Sign.model_validate({"with": "gpg", "key": "me@example.com"}))
    file = tmp_path / "list"
    file.write_text("of sums")
    signer.write(file)
    with verifying([Trusted.of(signer.public_key(), "key")], Runner()) as verifier:
        assert verifier.check(file).startswith("signed by ")
        file.write_text("of sumz")
        with pytest.raises(Exception, match="has changed since it was signed"):
            verifier.check(file)


COSIGN = """\
#!/bin/sh
# A stand-in: it shows that cosign is called with these options and that its answer is heard. It
# proves nothing of cosign's signatures.
echo "$@" >> "$(dirname "$0")/calls"
command=$1
for word; do case $last in --bundle) bundle=$word;; esac; last=$word; done
case $command in
    sign-blob) sha256sum < "$last" > "$bundle";;
    verify-blob) [ "$(sha256sum < "$last")" = "$(cat "$bundle")" ];;
esac
"""


def test_cosign_is_called_and_its_answer_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "cosign"
    program.write_text(COSIGN)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("COSIGN_PASSWORD", "never to be seen")
    sign = Sign.model_validate({"with": "cosign", "key": "k.key", "public_key": "k.pub"})
    file = tmp_path / "list"
    file.write_text("of sums")
    CosignSigner(Runner(), sign).write(file)
    key = "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n"
    with verifying([Trusted.of(key, "k.pub")], Runner()) as verifier:
        assert verifier.check(file) == "signed by the key of k.pub"
        file.write_text("of sumz")
        with pytest.raises(Exception, match="has changed"):
            verifier.check(file)
    calls = (tmp_path / "calls").read_text()
    assert "--tlog-upload=false --key k.key" in calls
    assert "never to be seen" not in calls


def test_the_state_of_the_repository_is_told_without_credentials(tmp_path: Path) -> None:
    needs("git")
    site = Shelf(tmp_path / "site").site
    assert repository(site, Runner()) is None

    def git(*words: str) -> None:
        who = ["-c", "user.name=me", "-c", "user.email=me@example.com"]
        subprocess.run(["git", "-C", site.root, *who, *words], check=True, capture_output=True)

    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "all")
    git("remote", "add", "origin", "https://me:secret@git.example.com/site.git")
    found = repository(site, Runner())
    assert found
    assert (found["dirty"], found["remote"]) == (False, "https://git.example.com/site.git")
    (site.ansible / "new.yml").touch()
    found = repository(site, Runner())
    assert found
    assert found["dirty"]


def test_a_site_may_sign_nothing(shelf: Shelf) -> None:
    done = shelf.goldimg("sign", "--var", "sign.with=none")
    assert done.returncode == 2
    assert "this site signs nothing" in done.stderr
    assert shelf.goldimg("verify", "-O", OS).returncode == 0
