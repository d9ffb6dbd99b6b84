"""Signs files with the site's key. No private key or passphrase passes through goldimg.

ssh: https://man.openbsd.org/ssh-keygen#Y~5 (`-Y sign`; format: PROTOCOL.sshsig of OpenSSH).
gpg: https://www.gnupg.org/documentation/manuals/gnupg/Operational-GPG-Commands.html
cosign: https://docs.sigstore.dev/cosign/signing/signing_with_blobs/
"""

from __future__ import annotations

import os
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path

from goldimg.artifacts import SIGNATURES
from goldimg.config.sign import Sign
from goldimg.errors import GoldimgError
from goldimg.keys import SIGNING, ensure_signing_key
from goldimg.project import Site, write_text
from goldimg.run import Completed, Runner

NAMESPACE = "goldimg"  # a signature made for another purpose is none for images
SECONDS = 120.0  # somebody may have to touch a token
GPG_VARIABLES = ("GNUPGHOME", "GPG_AGENT_INFO")
COSIGN_VARIABLES = ("COSIGN_PASSWORD", "AWS_PROFILE", "AWS_REGION", "VAULT_ADDR", "VAULT_TOKEN",
                    "GOOGLE_APPLICATION_CREDENTIALS")  # fmt: skip


class Signer(ABC):
    """Makes detached signatures, `<file><suffix>`."""

    kind: str

    def __init__(self, runner: Runner, sign: Sign) -> None:
        self.runner, self.settings = runner, sign

    @property
    def suffix(self) -> str:
        return SIGNATURES[self.kind]

    @abstractmethod
    def sign(self, data: bytes) -> str:
        """The signature of `data` as text; GoldimgError where the key cannot be used."""

    @abstractmethod
    def public_key(self) -> str:
        """What others need to verify by: the text of a public key."""

    def write(self, path: Path) -> Path:
        """Signs the file; the signature appears beside it, whole or not at all."""
        target = path.with_name(f"{path.name}{self.suffix}")
        write_text(target, self.sign(path.read_bytes()))
        return target

    def probe(self) -> None:
        """Raises GoldimgError where the key cannot sign: better before a build than after it."""
        self.sign(b"goldimg asks whether this key can sign\n")

    def _failed(self, done: Completed, hint: str) -> GoldimgError:
        said = [self.runner.redact(line) for line in done.stderr.strip().splitlines()]
        return GoldimgError("the site's key cannot sign", details=said[-3:], hint=hint)


class SshSigner(Signer):
    """`ssh-keygen -Y sign`, with a key file or with ssh-agent."""

    kind = "ssh"

    def __init__(self, runner: Runner, sign: Sign, key: Path) -> None:
        super().__init__(runner, sign)
        self.key = key

    def sign(self, data: bytes) -> str:
        argv: list[str | Path] = ["ssh-keygen", "-Y", "sign", "-q", "-n", NAMESPACE, "-f", self.key]
        done = self.runner.run(argv, reason="sign images", stdin=data, check=False, timeout=SECONDS)
        if done.code != 0:
            raise self._failed(
                done, f"has {self.key} a passphrase? then add it to ssh-agent: ssh-add {self.key}"
            )
        return done.stdout

    def public_key(self) -> str:
        path = self.key if self.key.suffix == ".pub" else Path(f"{self.key}.pub")
        try:
            return path.read_text(encoding="utf-8")
        except OSError as error:
            raise GoldimgError(
                f"cannot read {path}", why=(error.strerror or str(error)).lower(),
                hint=f"derive it: ssh-keygen -y -f {self.key} > {path}",
            ) from None  # fmt: skip


class GpgSigner(Signer):
    """`gpg --detach-sign` with a key of the key ring's; gpg-agent has its passphrase."""

    kind = "gpg"

    def sign(self, data: bytes) -> str:
        user = ["--local-user", self.settings.key] if self.settings.key else []
        argv = ["gpg", "--batch", "--no-tty", *user, "--armor", "--detach-sign"]
        done = self.runner.run(
            argv, reason="sign images", stdin=data, check=False, timeout=SECONDS,
            env=passed_on(GPG_VARIABLES),
        )  # fmt: skip
        if done.code != 0:
            raise self._failed(done, "is the key there? gpg --list-secret-keys")
        return done.stdout

    def public_key(self) -> str:
        named = [self.settings.key] if self.settings.key else []
        argv = ["gpg", "--batch", "--no-tty", "--armor", "--export", "--", *named]
        done = self.runner.run(argv, timeout=SECONDS, env=passed_on(GPG_VARIABLES))
        return done.stdout


class CosignSigner(Signer):
    """`cosign sign-blob` with a key of its own or a KMS's; nothing goes to a public log."""

    kind = "cosign"

    def sign(self, data: bytes) -> str:
        if not self.settings.key:
            raise GoldimgError(
                "sign.key is not set", why="cosign needs a key file, or a KMS's URI",
                hint="sign: {with: cosign, key: keys/cosign.key, public_key: keys/cosign.pub}",
            )  # fmt: skip
        if password := os.environ.get("COSIGN_PASSWORD"):
            self.runner.redact.add(password)
        with tempfile.TemporaryDirectory(prefix="goldimg-") as place:
            blob, bundle = Path(place) / "blob", Path(place) / "bundle"
            blob.write_bytes(data)
            options = ["--yes", "--tlog-upload=false", "--key", self.settings.key]
            done = self.runner.run(
                ["cosign", "sign-blob", *options, "--bundle", bundle, blob],
                reason="sign images", check=False, timeout=SECONDS,
                env=passed_on(COSIGN_VARIABLES),
            )  # fmt: skip
            if done.code != 0 or not bundle.exists():
                raise self._failed(done, "an encrypted key wants COSIGN_PASSWORD")
            return bundle.read_text(encoding="utf-8")

    def public_key(self) -> str:
        if not self.settings.public_key:
            raise GoldimgError("sign.public_key is not set", hint="name the file that verifies")
        return Path(self.settings.public_key).read_text(encoding="utf-8")


def passed_on(names: tuple[str, ...]) -> dict[str, str]:
    """Those of the caller's variables that a signing program needs."""
    return {name: os.environ[name] for name in names if name in os.environ}


def site_signer(site: Site, sign: Sign, runner: Runner) -> Signer | None:
    """What signs the images of this site; None where it wants no signatures.

    keys/signing is made where the site names no key of its own.
    """
    if sign.using == "none":
        return None
    own = {"key": _placed(site, sign.key), "public_key": _placed(site, sign.public_key)}
    placed = sign.model_copy(update=own)
    if sign.using == "gpg":
        return GpgSigner(runner, sign)
    if sign.using == "cosign":
        return CosignSigner(runner, placed)
    if placed.key:
        return SshSigner(runner, sign, Path(placed.key))
    pair = ensure_signing_key(site.keys, runner)
    return SshSigner(runner, sign, pair.private if pair else site.keys / f"{SIGNING}.pub")


def _placed(site: Site, written: str | None) -> str | None:
    """A path as users write it; a KMS's URI stays as it is."""
    if not written or "://" in written:
        return written
    return str(site.root / Path(written).expanduser())
