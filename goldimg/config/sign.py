"""`sign:` of the site file: with what finished images are signed."""

from typing import Annotated, Literal

from pydantic import Field

from goldimg.config.fields import Text, matching
from goldimg.config.written import Written

Identity = Annotated[
    str, matching(r"[A-Za-z0-9][A-Za-z0-9._@+-]*", "must be a name such as images@example.com")
]


class Sign(Written):
    """How images are signed. Never a private key or a passphrase: `key` says which one.

    ssh: a key file, or a public key whose private half is with ssh-agent; keys/signing by default.
    gpg: a fingerprint or address of the key ring's. cosign: a key file, or a KMS's URI.
    """

    using: Literal["ssh", "gpg", "cosign", "none"] = Field(default="ssh", alias="with")
    key: Text | None = None
    public_key: Text | None = None  # cosign's: what verifies
    identity: Identity = "goldimg"  # who signs: the principal in an allowed_signers file
