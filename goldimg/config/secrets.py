"""Passwords: where they come from, and their hash. None of them is ever in an argument list.

The hash is computed here and not by a program or a package: `crypt` left Python in 3.13, passlib is
no longer maintained, and sixty lines against a public specification with test vectors need no
process that would have to be handed the password.
"""

import hashlib
import secrets
import string
from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr

ENVIRONMENT = "GOLDIMG_ROOT_PASS"
ORIGINAL_ROUNDS = 5000
ROUNDS = 100_000
_ALPHABET = "./" + string.digits + string.ascii_uppercase + string.ascii_lowercase
MAX_PASSWORD = 512  # bytes: the work grows with the square of the length


def random_password() -> SecretStr:
    """A password of 190 random bits."""
    return SecretStr("".join(secrets.choice(_ALPHABET[2:]) for _ in range(32)))


def crypt_hash(password: SecretStr, salt: str | None = None, *, rounds: int | None = None) -> str:
    """The sha512-crypt hash of `password`, as /etc/shadow and kickstarts take it.

    With a `salt` the original system's hash, `$6$rounds=5000$salt$…`, is reproduced; without one
    the salt is random and the rounds are 100,000; `rounds` asks for others. ValueError for a
    password that cannot be hashed.
    """
    rounds = rounds or (ORIGINAL_ROUNDS if salt else ROUNDS)
    chosen = salt or "".join(secrets.choice(_ALPHABET) for _ in range(16))
    key = password.get_secret_value().encode()
    if not key or len(key) > MAX_PASSWORD or b"\0" in key:
        raise ValueError(f"a password has 1 to {MAX_PASSWORD} bytes, none of them NUL")
    digest = _sha512_crypt(key, chosen[:16].encode("ascii"), rounds)
    return f"$6$rounds={rounds}${chosen[:16]}${_encoded(digest)}"


def _sha512_crypt(key: bytes, salt: bytes, rounds: int) -> bytes:
    """The algorithm of https://www.akkadia.org/drepper/SHA-crypt.txt; numbers are its steps."""
    size = len(key)
    alternate = hashlib.sha512(key + salt + key).digest()  # 4-8
    mixed = hashlib.sha512(key + salt + _stretched(alternate, size))  # 1-3, 9-10
    bits = size
    while bits:  # 11
        mixed.update(alternate if bits & 1 else key)
        bits >>= 1
    digest = mixed.digest()  # 12
    p_bytes = _stretched(hashlib.sha512(key * size).digest(), size)  # 13-16
    s_bytes = _stretched(hashlib.sha512(salt * (16 + digest[0])).digest(), len(salt))  # 17-20
    for number in range(rounds):  # 21
        odd = number & 1
        parts = [p_bytes if odd else digest]
        if number % 3:
            parts.append(s_bytes)
        if number % 7:
            parts.append(p_bytes)
        parts.append(digest if odd else p_bytes)
        digest = hashlib.sha512(b"".join(parts)).digest()
    return digest


def _stretched(block: bytes, size: int) -> bytes:
    return (block * (size // len(block) + 1))[:size]


def _encoded(digest: bytes) -> str:
    """Step 22: 24 bits at a time, low six first; the three thirds of the digest rotate."""
    text = ""
    for index in range(21):
        order = [index, index + 21, index + 42]
        turn = index % 3
        first, second, third = (digest[place] for place in order[turn:] + order[:turn])
        text += _base64(first << 16 | second << 8 | third, 4)
    return text + _base64(digest[63], 2)


def _base64(value: int, size: int) -> str:
    return "".join(_ALPHABET[value >> (6 * place) & 63] for place in range(size))


def password_from(
    environ: Mapping[str, str], file: Path | None, written: SecretStr | None
) -> SecretStr | None:
    """The environment's password, else the file's first line, else what the site file holds.

    None where nobody gave one. OSError when the file cannot be read; ValueError when it, or the
    variable, holds no usable password.
    """
    if environ.get(ENVIRONMENT):
        return _usable(environ[ENVIRONMENT])
    if file is not None:
        with file.open(encoding="utf-8") as stream:
            return _usable(stream.readline(4096).rstrip("\r\n"), "its first line ")
    return _usable(written.get_secret_value()) if written is not None else None


def _usable(text: str, where: str = "") -> SecretStr:
    if not text or len(text.encode()) > MAX_PASSWORD or not text.isprintable():
        raise ValueError(f"{where}holds no usable password")
    return SecretStr(text)
