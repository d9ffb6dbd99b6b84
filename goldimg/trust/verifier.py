"""Checks signatures by public keys that the caller trusts, with nothing else of the signer's."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from goldimg.artifacts import SIGNATURES
from goldimg.errors import UsageError, VerificationFailed
from goldimg.run import Completed, Runner
from goldimg.trust.signer import NAMESPACE, SECONDS

KINDS = {
    "ssh": re.compile(r"(ssh-|ecdsa-sha2-|sk-)[a-z0-9@.-]+ [A-Za-z0-9+/=]{16,}"),
    "gpg": re.compile(r"-----BEGIN PGP PUBLIC KEY BLOCK-----"),
    "cosign": re.compile(r"-----BEGIN PUBLIC KEY-----"),
}
WHOLE = "unchanged since it was signed; by whom, --key with a key that you trust tells"
UNCHECKED = "its signature was not checked: name the key that you trust with --key"


@dataclass(frozen=True, kw_only=True)
class Trusted:
    """Public keys that are trusted: `kind` says of what, `text` holds them.

    ssh: public keys, or lines of an allowed_signers file (ssh-keygen(1), ALLOWED SIGNERS).
    """

    kind: str
    text: str
    shown: str  # where they are from
    identity: str = NAMESPACE  # whose a bare SSH key is

    @classmethod
    def read(cls, path: Path, identity: str = NAMESPACE) -> Trusted:
        """The keys in a file; UsageError where it holds none."""
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read the key {path}", why=str(error)) from None
        return cls.of(text, str(path), identity)

    @classmethod
    def of(cls, text: str, shown: str, identity: str = NAMESPACE) -> Trusted:
        """The same out of a text."""
        if "PRIVATE KEY-----" in text:
            raise UsageError(f"{shown} is a private key", hint="name its public half")
        for kind, pattern in KINDS.items():
            if pattern.search(text):
                return cls(kind=kind, text=text, shown=shown, identity=identity)
        raise UsageError(
            f"{shown} holds no public key",
            hint="an SSH public key, an allowed_signers file, a PGP or a cosign public key",
        )

    def allowed_signers(self) -> str:
        """SSH keys as an allowed_signers file; a bare key signs images, and nothing else."""
        lines = []
        for line in self.text.splitlines():
            if KINDS["ssh"].match(line.strip()):
                line = f'{self.identity} namespaces="{NAMESPACE}" {line.strip()}'
            lines.append(line)
        return "\n".join(lines) + "\n"


class Verifier:
    """Checks detached signatures by the `trusted` keys. A context manager: it keeps a directory."""

    def __init__(self, trusted: list[Trusted], runner: Runner) -> None:
        self.trusted, self.runner = trusted, runner
        self._place: Path | None = None

    @property
    def directory(self) -> Path:
        if self._place is None:
            # short: gpg has sockets in its home
            self._place = Path(tempfile.mkdtemp(prefix="goldimg-"))
            self._lay_out(self._place)
        return self._place

    def close(self) -> None:
        """Removes what was laid out for the programs that verify."""
        if self._place:
            shutil.rmtree(self._place, ignore_errors=True)
            self._place = None

    def _of(self, kind: str) -> list[Trusted]:
        return [it for it in self.trusted if it.kind == kind]

    def _lay_out(self, place: Path) -> None:
        keys = "".join(it.allowed_signers() for it in self._of("ssh"))
        (place / "allowed").write_text(keys, encoding="utf-8")
        for number, it in enumerate(self._of("cosign")):
            (place / f"cosign{number}.pub").write_text(it.text, encoding="utf-8")
        rings = self._of("gpg")
        for it in rings:
            argv = ["gpg", "--homedir", str(place), "--batch", "--no-autostart", "--import"]
            self.runner.run(argv, stdin=it.text.encode(), timeout=SECONDS, reason="verify images")

    def check(self, path: Path) -> str:
        """Who signed the file; VerificationFailed where nobody did, or nobody who is trusted."""
        found = {
            kind: path.with_name(f"{path.name}{suffix}")
            for kind, suffix in SIGNATURES.items()
            if path.with_name(f"{path.name}{suffix}").exists()
        }
        if not found:
            raise VerificationFailed(
                f"{path} is not signed", hint="goldimg sign, where the site's key is"
            )
        usable = [kind for kind in found if self._of(kind)]
        if not usable and self.trusted:
            kinds = " and ".join(sorted({it.kind for it in self.trusted}))
            raise VerificationFailed(
                f"{path} is signed with {', '.join(found)}",
                why=f"the trusted key is one of {kinds}",
            )
        kind = (usable or list(found))[0]
        check = {"ssh": self._ssh, "gpg": self._gpg, "cosign": self._cosign}[kind]
        return check(path, found[kind])

    def _ssh(self, path: Path, signature: Path) -> str:
        data = path.read_bytes()
        base: list[str | Path] = ["ssh-keygen", "-Y"]
        rest: list[str | Path] = ["-n", NAMESPACE, "-s", signature]
        if self.trusted and is_canonical(signature):
            allowed = self.directory / "allowed"
            named = self._run([*base, "find-principals", "-s", signature, "-f", allowed], b"")
            for principal in named.stdout.split() if named.code == 0 else ():
                argv = [*base, "verify", *rest, "-f", allowed, "-I", principal]
                if self._run(argv, data).code == 0:
                    return f"signed by {principal}, {fingerprint(signature)}"
        # a file that changed is told from one that somebody else has signed
        whole = self._run([*base, "check-novalidate", *rest], data)
        if whole.code != 0 or not is_canonical(signature):
            raise _changed(path, whole)
        if not self.trusted:
            return WHOLE
        raise _stranger(path, fingerprint(signature), self._of("ssh"))

    def _gpg(self, path: Path, signature: Path) -> str:
        if not self.trusted:
            return UNCHECKED
        argv = [
            *("gpg", "--homedir", str(self.directory), "--batch", "--no-tty", "--no-autostart"),
            *("--trust-model", "always", "--status-fd", "1", "--verify", str(signature), "-"),
        ]
        done = self._run(argv, path.read_bytes())
        valid = re.search(r"^\[GNUPG:\] VALIDSIG ([0-9A-F]+)", done.stdout, re.MULTILINE)
        is_bad = re.search(r"^\[GNUPG:\] (EXPKEYSIG|REVKEYSIG|BADSIG|EXPSIG)", done.stdout, re.M)
        if valid and done.code == 0 and not is_bad:
            return f"signed by {valid[1]}"
        missing = re.search(r"^\[GNUPG:\] NO_PUBKEY ([0-9A-F]+)", done.stdout, re.MULTILINE)
        if missing:
            raise _stranger(path, missing[1], self._of("gpg"))
        raise _changed(path, done)

    def _cosign(self, path: Path, signature: Path) -> str:
        if not self.trusted:
            return UNCHECKED
        for number, trusted in enumerate(self._of("cosign")):
            key = self.directory / f"cosign{number}.pub"
            # the signature is not in a public log: whose key it is, is what is asked
            argv: list[str | Path] = ["cosign", "verify-blob", "--insecure-ignore-tlog=true",
                                      "--key", key, "--bundle", signature, path]  # fmt: skip
            if (done := self._run(argv)).code == 0:
                return f"signed by the key of {trusted.shown}"
        raise VerificationFailed(
            f"{path} has changed since it was signed, or was signed with another key",
            why=" ".join(done.stderr.split())[-200:],
        )

    def _run(self, argv: list[str | Path] | list[str], data: bytes | None = None) -> Completed:
        return self.runner.run(
            argv, stdin=data, check=False, timeout=SECONDS, reason="verify images"
        )


@contextlib.contextmanager
def verifying(trusted: list[Trusted], runner: Runner) -> Iterator[Verifier]:
    """A Verifier by these keys; nothing of it is left when the block ends."""
    verifier = Verifier(trusted, runner)
    try:
        yield verifier
    finally:
        verifier.close()


def _changed(path: Path, done: Completed) -> VerificationFailed:
    said = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return VerificationFailed(
        f"{path} has changed since it was signed, or its signature has", details=said[-1:]
    )


def _stranger(path: Path, whose: str, trusted: list[Trusted]) -> VerificationFailed:
    return VerificationFailed(
        f"{path} is signed with another key, {whose}",
        why="trusted is " + ", ".join(it.shown for it in trusted),
        hint="name the signer's public key with --key, if you trust it",
    )


def fingerprint(signature: Path) -> str:
    """`SHA256:…` of the public key in an SSH signature (PROTOCOL.sshsig), as ssh-keygen -l has it.

    "unknown" where it is none.
    """
    lines = signature.read_text(encoding="ascii", errors="replace").splitlines()
    try:
        blob = base64.b64decode("".join(lines[1:-1]))
        size = int.from_bytes(blob[10:14], "big")  # after the magic and the version
        digest = hashlib.sha256(blob[14 : 14 + size]).digest()
    except ValueError:
        return "unknown"
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def is_canonical(signature: Path) -> bool:
    """Whether an SSH signature is written as ssh-keygen writes it, to the last byte."""
    text = signature.read_text(encoding="ascii", errors="replace")
    lines = text.splitlines()
    try:
        encoded = base64.b64encode(base64.b64decode("".join(lines[1:-1]))).decode()
    except ValueError:
        return False
    wrapped = [encoded[start : start + 70] for start in range(0, len(encoded), 70)]
    whole = ["-----BEGIN SSH SIGNATURE-----", *wrapped, "-----END SSH SIGNATURE-----", ""]
    return text == "\n".join(whole)
