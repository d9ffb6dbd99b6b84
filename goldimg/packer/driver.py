"""Runs Packer once: template and variables out, a disk in, what happens told as it happens."""

from __future__ import annotations

import json
import shutil
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from goldimg.errors import BuildFailed, GoldimgError
from goldimg.packer.output import parse, spoken, task_of
from goldimg.packer.template import DISK, Spec, make_template
from goldimg.project import make_directory, write_text
from goldimg.run import Runner, reap

# what Packer says -> the phase that begins with it
PHASES = (
    ("Starting VM", "boot"),
    ("Waiting for SSH", "ssh"),
    ("Connected to SSH", "provisioning"),
    ("Gracefully halting", "shutting down"),
    ("Executing shutdown", "shutting down"),
)
CLEANING = "clean"
STOPPING = 10.0  # seconds that Packer may take to stop its VM and remove what it made
PROVISIONING = 3600.0  # seconds that everything after the first SSH may take


@dataclass
class Story:
    """What is known of a running build: phases with their start, and what an error may need."""

    on_phase: Callable[[str], None]
    on_detail: Callable[[str], None]
    is_install: bool = False
    phases: list[tuple[str, float]] = field(default_factory=list)
    recent: deque[str] = field(default_factory=lambda: deque(maxlen=400))
    errors: list[str] = field(default_factory=list)
    task: str = ""

    def enter(self, phase: str) -> None:
        """The build is in `phase` from now on."""
        if self.phases and self.phases[-1][0] == phase:
            return
        self.phases.append((phase, time.monotonic()))
        self.on_phase(phase)

    def hear(self, raw: str) -> list[str]:
        """Takes one raw line of Packer's; returns what belongs into the log."""
        said = []
        for line in parse(raw):
            if line.kind in ("ui", "raw", "error"):
                text = spoken(line)
                said.append(text)
                self.recent.append(text)
                self._follow(text)
            if line.kind == "error":
                self.errors.append(line.text)
        return said

    def _follow(self, text: str) -> None:
        for mark, phase in PHASES:
            # Packer waits for SSH from the first second of an install; the installer's own
            # reports say more about where it is.
            if text.startswith(mark) and not (phase == "ssh" and self.is_install):
                self.enter(phase)
        if task := task_of(text):
            self.task = task
            if task.lower().startswith(CLEANING):
                self.enter("cleaning")
            self.on_detail(task)

    def seconds(self) -> dict[str, float]:
        """How long each phase took."""
        now = time.monotonic()
        ends = [start for _, start in self.phases[1:]] + [now]
        spent: dict[str, float] = {}
        for (phase, start), end in zip(self.phases, ends, strict=True):
            spent[phase] = round(spent.get(phase, 0.0) + end - start, 1)
        return spent


def run_packer(
    spec: Spec,
    *,
    work: Path,
    temporary: Path,
    log: Path,
    runner: Runner,
    story: Story,
    variables: Mapping[str, str] | None = None,
    abort: Callable[[], BaseException | None] | None = None,
) -> Path:
    """Runs the build that `spec` describes in `work` and returns the disk that it leaves.

    `temporary` has a short path, for the sockets of what Packer runs. The template stays in `work`
    as `packer.json`; `variables`, which may be secret, live in a
    0600 file while Packer runs. Whatever the end, no Packer and no QEMU of it stays behind.
    Raises BuildFailed with Packer's own words, or what `abort` returned.
    """
    make_directory(work)
    shutil.rmtree(spec.output, ignore_errors=True)
    template = work / "packer.json"
    secret = work / "variables.json"
    write_text(template, json.dumps(make_template(spec), indent=2) + "\n")
    write_text(secret, json.dumps(dict(variables or {})), mode=0o600)
    environment = _environment(work, temporary)
    say = _logger(log, runner)
    try:
        runner.run(
            ["packer", "validate", f"-var-file={secret}", template],
            reason="boot and provision the build VMs",
            env=environment,
            timeout=120,
            log=log,
        )
        result = runner.run(
            ["packer", "build", "-machine-readable", f"-var-file={secret}", template],
            env=environment,
            on_line=lambda raw: say(story.hear(raw)),
            check=False,
            abort=abort,
            grace=STOPPING,
            timeout=spec.ssh_seconds + PROVISIONING,
        )
    finally:
        secret.unlink(missing_ok=True)
        reap(work)
    disk = spec.output / DISK
    if result.code != 0 or not disk.exists():
        shutil.rmtree(spec.output, ignore_errors=True)
        raise failure(spec.name, story, log)
    return disk


def _environment(work: Path, temporary: Path) -> dict[str, str]:
    return {
        "CHECKPOINT_DISABLE": "1",
        "PACKER_NO_COLOR": "1",
        "PACKER_CONFIG": str(work / "packerconfig"),
        "PACKER_CACHE_DIR": str(work / "cache"),
        "TMPDIR": str(temporary),
    }


def _logger(log: Path, runner: Runner) -> Callable[[list[str]], None]:
    def say(lines: list[str]) -> None:
        stamp = time.strftime("%H:%M:%S")
        with log.open("a", encoding="utf-8") as stream:
            for line in lines:
                stream.write(f"{stamp} {runner.redact(line)}\n")

    return say


def failure(build: str, story: Story, log: Path) -> GoldimgError:
    """What went wrong, in one sentence where Packer's output gives one away."""
    recent = list(story.recent)
    text = "\n".join(recent)
    if "No space left on device" in text:
        return BuildFailed(f"{build}: the disk is full", log=log, hint="free some space, run again")
    if "Timeout waiting for SSH" in text:
        return BuildFailed(
            f"{build}: no SSH in time",
            why=f"the build was in phase '{story.phases[-1][0] if story.phases else 'start'}'",
            log=log,
            hint="console.log beside the log shows the guest's serial console; "
            "raise ssh_timeout on a slow host",
        )
    if story.task and any(line.startswith(("fatal:", "ERROR!")) for line in recent):
        details = [line for line in recent if line.startswith(("fatal:", "ERROR!"))][-3:]
        return BuildFailed(f"{build}: Ansible task '{story.task}' failed", details=details, log=log)
    details = story.errors[-3:] or [line for line in recent if line.strip()][-6:]
    return BuildFailed(f"{build}: Packer failed", details=details, log=log)
