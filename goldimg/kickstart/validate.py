"""Is a kickstart right for its syntax version? Asked before a VM starts.

ksvalidator (pykickstart, GPL: always run as a process, never imported) knows each version's
commands and options. It parses; it does not ask whether the parts fit together, so `semantic`
(goldimg/kickstart/semantic.py) adds what it lets pass: a volume group that nobody makes, a static
network without an address, a root that anybody may be.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from goldimg.errors import Problem
from goldimg.kickstart.semantic import INCLUDES, NAME, problem_at, semantic
from goldimg.kickstart.syntax import SYNTAXES
from goldimg.run import Runner

__all__ = ["semantic", "validate", "validate_many"]

_WHERE = re.compile(r"\bon line (\d+)\b(?: of the kickstart file)?:?")
_REPEATED = re.compile(r"network .*?--device=\S+|sshkey --username=\S+")
BATCH = 25  # files that one ksvalidator gets
_HASH = re.compile(r"\$[0-9a-z]{1,3}\$[^\s'\"\]]+")


def validate(text: str, syntax: str, runner: Runner) -> list[Problem]:
    """Every fault of the kickstart `text` for `syntax` (such as `RHEL9`); none: it may be served.

    What a release has deprecated counts as a fault. The hash of a password appears in no problem.
    Raises MissingTool where ksvalidator is not installed.
    """
    found = semantic(text)
    if not any(problem.message.startswith(INCLUDES) for problem in found):
        # Else ksvalidator would go and fetch what the file names.
        found += _ksvalidator([text], syntax, runner)
    unique = dict.fromkeys(found)
    return sorted(unique, key=lambda problem: (problem.line or 0, problem.message))


def validate_many(
    texts: Iterable[str], syntax: str, runner: Runner
) -> Iterator[tuple[str, list[Problem]]]:
    """As `validate` for each of `texts`, in a tenth of the time where most are right."""
    pending: list[str] = []
    for text in dict.fromkeys(texts):
        if semantic(text):
            yield text, validate(text, syntax, runner)
        else:
            pending.append(text)
    for at in range(0, len(pending), BATCH):
        batch = pending[at : at + BATCH]
        # Of several files ksvalidator does not say which one it means.
        is_right = not list(_ksvalidator(batch, syntax, runner))
        for text in batch:
            yield text, [] if is_right else validate(text, syntax, runner)


# --- ksvalidator -----------------------------------------------------------------------------


def _ksvalidator(texts: Sequence[str], syntax: str, runner: Runner) -> Iterator[Problem]:
    if syntax not in SYNTAXES:
        yield problem_at(None, f"unknown syntax version {syntax}")
        return
    own = Path(sys.executable).parent / "ksvalidator"
    # The directory is ours alone (0700): the text may hold the hash of a password.
    with tempfile.TemporaryDirectory(prefix="goldimg-ks-") as directory:
        paths = []
        for number, take in enumerate(it for text in texts for it in _takes(text)):
            paths.append(Path(directory) / f"{number}.cfg")
            paths[-1].write_text(take, encoding="utf-8")
        done = runner.run(
            [own if own.exists() else "ksvalidator", "-v", syntax, *paths],
            reason="check kickstarts",
            check=False,
            timeout=60 + len(paths),
            # Its messages are read below, so they must not be translated.
            # And it leaves copies of what it read in the temporary directory.
            env={"LC_ALL": "C.UTF-8", "PYTHONWARNINGS": "default", "TMPDIR": directory},
        )
        said = re.sub(rf"{re.escape(directory)}/[0-9]+\.cfg", NAME, f"{done.stdout}\n{done.stderr}")
        messages = list(_messages(said))
    yield from messages
    if done.code != 0 and not messages:
        yield problem_at(None, f"ksvalidator ended with exit code {done.code}")


def _takes(text: str) -> list[str]:
    """The text as often as it takes to check each line of a kind that may be given repeatedly.

    ksvalidator stops at the second `network` line of one card (two VLANs are two; `semantic` tells
    right from wrong) and at the second key of a user, although installers take both. Lines keep
    their numbers.
    """
    lines = text.splitlines(keepends=True)
    groups: dict[str, list[int]] = {}
    for number, line in enumerate(lines):
        if match := _REPEATED.match(line):
            groups.setdefault(match[0], []).append(number)
    takes = []
    for turn in range(max([1, *map(len, groups.values())])):
        gone = {
            number
            for numbers in groups.values()
            for at, number in enumerate(numbers)
            if at != min(turn, len(numbers) - 1)
        }
        takes.append("".join("\n" if at in gone else line for at, line in enumerate(lines)))
    return takes


def _messages(said: str) -> Iterator[Problem]:
    """One problem for each message; those of a parse error put their reason two lines below."""
    line = None
    for raw in said.splitlines():
        words = _HASH.sub("***", raw.strip())
        if not words or words.startswith("Checking kickstart file"):
            continue
        words = words.removeprefix("File uses a deprecated option or command.").strip()
        if match := _WHERE.search(words):
            line = int(match[1])
            before, after = words[: match.start()].strip(), words[match.end() :].strip()
            if not after or before == "The following problem occurred":
                words = after
            else:
                words = f"{before}: {after}"
        if words:
            yield problem_at(line, words)
            line = None
