"""Is a preseed right? Asked before it is served.

debconf (GPL: always run as a process) knows the form of a line. Whether an installer has such a
question, whether all it would ask is answered, and whether the answers fit together, it does not
ask; that is done here.
"""

from __future__ import annotations

import functools
import re
import shlex
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from goldimg.config.loader import closest
from goldimg.errors import Problem
from goldimg.kickstart.preseed import COMMANDS, script_of
from goldimg.kickstart.render import CRYPT
from goldimg.run import Runner

NAME = "preseed"
OWNERS = ("d-i", "tasksel", "popularity-contest")
TYPES = ("boolean", "multiselect", "note", "password", "select", "string")
# Questions of critical priority, or of an automatic install's course, and the answers that let it
# go on (None: any). Without one of them the installer waits for somebody.
ANSWERS: dict[str, tuple[str, ...] | None] = {
    "debian-installer/locale": None,
    "keyboard-configuration/xkb-keymap": None,
    "time/zone": None,
    "netcfg/choose_interface": None,
    "mirror/country": ("manual",),
    "mirror/protocol": ("http", "https"),
    "apt-setup/cdrom/set-first": ("false",),
    "passwd/make-user": ("false",),
    "passwd/root-login": ("true",),
    "passwd/root-password-crypted": None,
    "partman-auto/method": ("lvm", "regular"),
    "partman-auto/expert_recipe": None,
    "partman-lvm/device_remove_lvm": ("true",),
    "partman-md/device_remove_md": ("true",),
    "partman-lvm/confirm": ("true",),
    "partman-lvm/confirm_nooverwrite": ("true",),
    "partman-partitioning/confirm_write_new_label": ("true",),
    "partman/choose_partition": ("finish",),
    "partman/confirm": ("true",),
    "partman/confirm_nooverwrite": ("true",),
    "grub-installer/bootdev": None,
    "grub-installer/only_debian": ("true",),
    "popularity-contest/participate": None,
    "finish-install/reboot_in_progress": ("",),
}
_STATIC = ("get_ipaddress", "get_netmask", "get_nameservers", "confirm_static")
_FSTYPES = {"ext3", "ext4", "xfs", "linux-swap", "free"}
DATABASES = ("config", "templates")
_LOCAL = re.compile(r"(apt-setup/local)[0-9]+/")


@dataclass(frozen=True, kw_only=True)
class _Answer:
    line: int
    owner: str
    question: str
    kind: str
    value: str


def check_preseed(text: str, runner: Runner) -> list[Problem]:
    """Every fault of the preseed `text`; none: it may be served.

    No problem holds an answer, so none holds the hash of a password. Raises MissingTool where
    debconf is not installed.
    """
    found = [*semantic_preseed(text), *_debconf(text, runner), *_scripts(text, runner)]
    return sorted(dict.fromkeys(found), key=lambda problem: (problem.line or 0, problem.message))


def semantic_preseed(text: str) -> list[Problem]:
    """Faults that need no other program to be seen."""
    answers = list(_answers(text))
    checks = (_known, _once, _answered, _access, _network, _disk, _commands)
    return [problem for check in checks for problem in check(answers)]


@functools.lru_cache(maxsize=1)
def known_questions() -> frozenset[str]:
    """The questions of the installers of Debian 12 and 13; `N` is a repository's number."""
    listed = resources.files("goldimg.kickstart").joinpath("questions.txt").read_text("utf-8")
    return frozenset(line for line in listed.splitlines() if line and not line.startswith("#"))


# --- other programs ----------------------------------------------------------------------------


def _debconf(text: str, runner: Runner) -> Iterator[Problem]:
    with tempfile.TemporaryDirectory(prefix="goldimg-debconf-") as directory:
        own = "".join(
            f"Name: {name}\nDriver: File\nFilename: {directory}/{name}\n\n" for name in DATABASES
        )
        settings = "Config: config\nTemplates: templates\n\n" + own
        (Path(directory) / "debconf.conf").write_text(settings, encoding="utf-8")
        done = runner.run(
            ["debconf-set-selections", "--checkonly"],
            reason="check preseeds",
            check=False,
            timeout=60,
            # The system's database has one user at a time: debconf.conf(5).
            env={"LC_ALL": "C.UTF-8", "DEBCONF_SYSTEMRC": f"{directory}/debconf.conf"},
            stdin=text.encode(),
        )
    said = [line for line in done.stderr.splitlines() if line.startswith(("error:", "warning:"))]
    for line in said:
        match = re.search(r"\bline (\d+)", line)
        # What follows is the line itself, which may be the one with the hash.
        message = line.partition(":")[2].partition(" on line")[0].partition(",")[0].strip()
        yield _problem(int(match[1]) if match else None, f"debconf: {message}")
    if done.code != 0 and not said:
        yield _problem(None, f"debconf-set-selections ended with exit code {done.code}")


def _scripts(text: str, runner: Runner) -> Iterator[Problem]:
    for answer in _answers(text):
        script = script_of(answer.value) if answer.question in COMMANDS.values() else None
        if script is None:
            continue
        done = runner.run(["sh", "-n"], check=False, timeout=60, stdin=script.encode())
        if done.code != 0:
            reason = done.stderr.strip().splitlines()[-1:] or ["is no shell script"]
            yield _problem(answer.line, f"{answer.question}: {reason[0]}")


# --- what they let pass ------------------------------------------------------------------------


def _answers(text: str) -> Iterator[_Answer]:
    """Each answer with the number of its first line; a backslash joins lines."""
    parts: list[str] = []
    first = 0
    for number, line in enumerate(text.split("\n"), 1):
        if not parts and (not line.strip() or line.startswith("#")):
            continue
        first = first if parts else number
        parts.append(line.removesuffix("\\").strip())
        if line.endswith("\\"):
            continue
        owner, question, kind, value = (*" ".join(parts).split(None, 3), "", "", "", "")[:4]
        yield _Answer(line=first, owner=owner, question=question, kind=kind, value=value.strip())
        parts = []


def _known(answers: Sequence[_Answer]) -> Iterator[Problem]:
    for answer in answers:
        if answer.owner not in OWNERS:
            yield _problem(answer.line, "the first word must be d-i or a package that asks")
            continue
        if answer.kind not in TYPES:
            yield _problem(answer.line, f"{answer.question}: is of no type that debconf knows")
        question = _LOCAL.sub(r"\1N/", answer.question)
        if question not in known_questions():
            meant = closest(question, known_questions())
            yield _problem(answer.line, f"{answer.question}: the installer has no such question",
                           meant)  # fmt: skip


def _once(answers: Sequence[_Answer]) -> Iterator[Problem]:
    seen = set()
    for answer in answers:
        if answer.question in seen:
            yield _problem(answer.line, f"{answer.question}: is answered twice")
        seen.add(answer.question)


def _answered(answers: Sequence[_Answer]) -> Iterator[Problem]:
    given = {answer.question: answer for answer in answers}
    for question, right in ANSWERS.items():
        answer = given.get(question)
        if answer is None or (right is None and not answer.value):
            yield _problem(
                answer.line if answer else None, f"{question}: is not answered; it would be asked"
            )
        elif right is not None and answer.value not in right:
            yield _problem(answer.line, f"{question}: must be {' or '.join(right) or 'empty'}")
    if (protocol := given.get("mirror/protocol")) and protocol.value in ("http", "https"):
        for name in ("hostname", "directory", "proxy"):
            question = f"mirror/{protocol.value}/{name}"
            if question not in given or not (given[question].value or name == "proxy"):
                yield _problem(None, f"{question}: is not answered; it would be asked")


def _access(answers: Sequence[_Answer]) -> Iterator[Problem]:
    for answer in answers:
        if re.fullmatch(r"passwd/(root|user)-password(-again)?", answer.question):
            yield _problem(answer.line, f"{answer.question}: holds a password in clear text")
        if answer.question != "passwd/root-password-crypted" or not answer.value:
            continue
        if answer.value != "!" and not CRYPT.fullmatch(answer.value):
            yield _problem(
                answer.line, f"{answer.question}: holds no sha256, sha512 or yescrypt hash"
            )


def _network(answers: Sequence[_Answer]) -> Iterator[Problem]:
    given = {answer.question: answer for answer in answers}
    switch = given.get("netcfg/disable_autoconfig")
    if switch is None or switch.value != "true":
        return
    for name in _STATIC:
        if f"netcfg/{name}" not in given or not given[f"netcfg/{name}"].value:
            yield _problem(switch.line, f"netcfg/{name}: is needed for a static network")


def _disk(answers: Sequence[_Answer]) -> Iterator[Problem]:
    given = {answer.question: answer for answer in answers}
    method, recipe = given.get("partman-auto/method"), given.get("partman-auto/expert_recipe")
    if method is None or recipe is None:
        return
    is_lvm = method.value == "lvm"
    if is_lvm and not given.get("partman-auto-lvm/new_vg_name", recipe).value:
        yield _problem(recipe.line, "partman-auto-lvm/new_vg_name: the volume group has no name")
    if is_lvm and "partman-auto-lvm/guided_size" not in given:
        yield _problem(None, "partman-auto-lvm/guided_size: is not answered; it would be asked")
    yield from recipe_problems(recipe.value, is_lvm=is_lvm, line=recipe.line)
    disk = given.get("partman/early_command")
    script = script_of(disk.value) if disk else None
    for other in re.findall(r"debconf-set partman-auto/expert_recipe (.*)", script or ""):
        words = shlex.split(other)
        yield from recipe_problems(words[0] if words else "", is_lvm=is_lvm, line=recipe.line)


def recipe_problems(recipe: str, *, is_lvm: bool, line: int | None = None) -> Iterator[Problem]:
    """Faults of a partman-auto recipe, which the installer would pass over or amend in silence."""
    name, separator, rest = recipe.partition("::")
    if not separator or len(name.split()) != 1:
        yield _problem(line, "the recipe must begin with a name and '::'")
        return
    words, entries = rest.split(), list[list[str]]()
    for word in words:
        if not entries or entries[-1][-1:] == ["."]:
            entries.append([])
        entries[-1].append(word)
    if not entries or entries[-1][-1] != ".":
        yield _problem(line, "the recipe's last entry has no '.' at its end")
    mounts = []
    for entry in entries:
        yield from _entry_problems(entry, line)
        mounts += re.findall(r" mountpoint\{ (\S+) \}", " ".join(entry))
    if sorted(set(mounts)) != sorted(mounts):
        yield _problem(line, "the recipe mounts a path twice")
    if "/" not in mounts:
        yield _problem(line, "the recipe mounts nothing at /")
    if is_lvm != any("$lvmok{" in entry for entry in entries):
        yield _problem(line, "partman-auto/method and the recipe's $lvmok{ } do not fit together")


def _entry_problems(entry: list[str], line: int | None) -> Iterator[Problem]:
    sizes, fstype = entry[:3], entry[3:4]
    if not all(re.fullmatch(r"[0-9]+%?|-1", size) for size in sizes) or len(sizes) < 3:
        yield _problem(line, "an entry of the recipe does not begin with three sizes")
    elif all(size.isdigit() for size in sizes) and int(sizes[0]) > int(sizes[2]):
        yield _problem(line, "an entry of the recipe has a least size above its largest")
    if not set(fstype) <= _FSTYPES or not fstype:
        yield _problem(line, "an entry of the recipe has an unknown file system")
    if entry.count("}") != sum(word.endswith("{") for word in entry):
        yield _problem(line, "an entry of the recipe has a brace that is not closed")


def _commands(answers: Sequence[_Answer]) -> Iterator[Problem]:
    for answer in answers:
        if re.search(r"(_command|preseed/run|preseed/include)(/|$)", answer.question) and (
            answer.question not in COMMANDS.values() or script_of(answer.value) is None
        ):
            yield _problem(answer.line, f"{answer.question}: runs what was not checked")


def _problem(line: int | None, message: str, suggestion: str | None = None) -> Problem:
    return Problem(NAME, line, None, "", message, suggestion)
