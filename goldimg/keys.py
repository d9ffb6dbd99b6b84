"""The SSH key pairs of a site: `packer` for root in every image, `vagrant` for boxes, `signing`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from goldimg.errors import GoldimgError
from goldimg.project import make_directory, waiting_lock, writing
from goldimg.run import Runner

KeyKind = Literal["ed25519", "rsa"]
NAMES = ("packer", "vagrant")
SIGNING = "signing"
_TYPES = {"ed25519": ["-t", "ed25519"], "rsa": ["-t", "rsa", "-b", "3072"]}
_REASON = "make the SSH keys"


@dataclass(frozen=True, kw_only=True)
class KeyPair:
    """A key pair on disk."""

    name: str
    private: Path  # mode 0600
    public: Path  # mode 0644
    is_new: bool

    @property
    def public_text(self) -> str:
        """The public key as an authorized_keys line, without the line's end."""
        return self.public.read_text(encoding="utf-8").strip()


def ensure_keys(
    keys_dir: Path, runner: Runner, *, kind: KeyKind = "ed25519", force: bool = False
) -> tuple[KeyPair, ...]:
    """The `packer` and `vagrant` pairs, made where missing; existing ones stay without `force`.

    A missing public half is derived again, and a private key that others could read is closed to
    them (ssh refuses it otherwise). GoldimgError where a pair is broken; nothing is half-written.
    """
    make_directory(keys_dir)
    with waiting_lock(keys_dir / ".lock", runner.check_cancelled):
        return tuple(_ensure(keys_dir / name, runner, kind, force) for name in NAMES)


def ensure_signing_key(keys_dir: Path, runner: Runner) -> KeyPair | None:
    """The `signing` pair, made where there is none; it is never replaced.

    None where only the public half is here: the other is with an agent, or on another machine.
    """
    make_directory(keys_dir)
    private = keys_dir / SIGNING
    with waiting_lock(keys_dir / ".lock", runner.check_cancelled):
        if not _exists(private) and _exists(private.with_name(f"{SIGNING}.pub")):
            return None
        return _ensure(private, runner, "ed25519", force=False)


def _ensure(private: Path, runner: Runner, kind: KeyKind, force: bool) -> KeyPair:
    public = private.with_name(f"{private.name}.pub")
    is_new = force or not (_exists(private) or _exists(public))
    if is_new:
        _generate(private, public, runner, kind)
    elif not _exists(private):
        raise GoldimgError(
            f"{private} is missing, but {public.name} is there",
            why="a private key cannot be made from its public half",
            hint=f"put {private.name} back, or make a new pair: goldimg keys --force",
        )
    else:
        _mend(private, public, runner)
    return KeyPair(name=private.name, private=private, public=public, is_new=is_new)


def _exists(path: Path) -> bool:
    if path.is_dir() or (path.is_symlink() and not path.exists()):
        raise GoldimgError(f"{path} is not a key file", hint=f"move {path} away")
    return path.exists()


def _generate(private: Path, public: Path, runner: Runner, kind: KeyKind) -> None:
    # ssh-keygen asks before it overwrites, so it writes beside. The private half moves in last: cut
    # off in between, the next run finds halves that do not match and says so.
    with writing(private) as new:
        new_public = new.with_name(f"{new.name}.pub")
        comment = f"{private.name}@goldimg"
        try:
            kind_words = [*_TYPES[kind], "-N", "", "-C", comment]
            argv: list[str | Path] = ["ssh-keygen", "-q", *kind_words, "-f", new]
            runner.run(argv, reason=_REASON)
            new.chmod(0o600)
            with writing(public) as half:
                half.write_bytes(new_public.read_bytes())
                half.chmod(0o644)
        finally:
            new_public.unlink(missing_ok=True)


def _mend(private: Path, public: Path, runner: Runner) -> None:
    if private.stat().st_mode & 0o077:
        try:
            private.chmod(0o600)
        except OSError:
            raise GoldimgError(
                f"{private} can be read by others, and ssh refuses such keys",
                hint=f"chmod 600 {private}",
            ) from None
    # -P "" answers the question for a passphrase, which nobody is there to hear.
    argv: list[str | Path] = ["ssh-keygen", "-y", "-P", "", "-f", private]
    done = runner.run(argv, reason=_REASON, check=False)
    if done.code != 0:
        said = done.stderr.strip().splitlines()
        raise GoldimgError(
            f"{private} is not a usable private key",
            why="it is damaged or has a passphrase",
            hint="put a key without passphrase there, or make a new pair: goldimg keys --force",
            details=said[-1:],
        )
    derived = done.stdout.strip()
    if not _exists(public):
        with writing(public) as half:
            half.write_text(_with_comment(derived, private.name) + "\n", encoding="utf-8")
            half.chmod(0o644)
    elif _material(public.read_text(encoding="utf-8", errors="replace")) != _material(derived):
        raise GoldimgError(
            f"{public} is not the public half of {private}",
            why="images would trust a key that the build does not have",
            hint=f"delete {public} to derive it again, or run: goldimg keys --force",
        )


def _material(line: str) -> list[str]:
    return line.split()[:2]


def _with_comment(line: str, name: str) -> str:
    return line if len(line.split()) > 2 else f"{line} {name}@goldimg"
