"""Errors that people read: what, where, why, and what to type next. Exit codes are stable."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path


class GoldimgError(Exception):
    """Something a person must know. Only the command line prints it; `code` is the exit code."""

    code = 1

    def __init__(
        self,
        what: str,
        *,
        why: str = "",
        hint: str = "",
        details: Sequence[str] = (),
        log: Path | None = None,
        screen: Path | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.hint = hint
        self.details = tuple(details)
        self.log = log
        self.screen = screen

    def __str__(self) -> str:
        return f"{self.what}; {self.why}" if self.why else self.what


@dataclass(frozen=True)
class Problem:
    """One fault in a file that a user wrote; `line` and `column` count from 1."""

    file: str
    line: int | None
    column: int | None
    key: str
    message: str
    suggestion: str | None = None

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part)
        key = f" {self.key}:" if self.key else ""
        suggestion = f" (did you mean '{self.suggestion}'?)" if self.suggestion else ""
        return f"{place}:{key} {self.message}{suggestion}"


class ConfigError(GoldimgError):
    """What the user wrote cannot be used. Carries every problem found, not only the first."""

    code = 2

    def __init__(self, what: str, *, problems: Iterable[Problem] = (), hint: str = "") -> None:
        super().__init__(what, hint=hint)
        self.problems = tuple(problems)

    @classmethod
    def of(cls, problems: Iterable[Problem], *, hint: str = "") -> ConfigError:
        """One error that shows all `problems`; its text is theirs, a line each."""
        found = tuple(problems)
        return cls("\n".join(str(problem) for problem in found), problems=found, hint=hint)


class UsageError(GoldimgError):
    """The command line asks for something that does not exist."""

    code = 2


class MissingTool(GoldimgError):
    """A program that the work needs is absent."""

    code = 3


class BuildFailed(GoldimgError):
    """An install, a provisioning or a conversion failed."""

    code = 1


class PublishFailed(GoldimgError):
    """A provider refused an image, or did not answer."""

    code = 4


class VerificationFailed(GoldimgError):
    """A file is not what it claims to be."""

    code = 5


class Interrupted(GoldimgError):
    """The user, or the system, asked to stop."""

    code = 130

    def __init__(self, what: str = "interrupted") -> None:
        super().__init__(what)
