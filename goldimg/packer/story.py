"""What is known of a running build, out of what Packer and the installer say."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from goldimg.packer.output import parse, spoken, task_of

# what Packer says -> the phase that begins with it
PHASES = (
    ("Starting VM", "boot"),  # qemu, virtualbox-iso, vmware-iso
    ("Starting the virtual machine", "boot"),
    ("Starting virtual machine", "boot"),
    ("Waiting for SSH", "ssh"),
    ("Connected to SSH", "provisioning"),
    ("Running local shell script", "saving"),  # packer/freeze.py, the only one there is
    ("Gracefully halting", "shutting down"),
    ("Executing shutdown", "shutting down"),
)
TYPING = "Typing the boot command"
CLEANING = "clean"
# what qemu says, and virtualbox-iso; vmware-iso names the guest's own address, if it knows it yet
PORT = re.compile(
    r"(?:Found port for communicator .*: |port mapping for .*\(host port )(\d+)[.)]?$"
)
HOST = re.compile(r"^Using ssh communicator to connect: ([\w.:-]+)$")
VNC = re.compile(r"vnc://([\w.]+):(\d+)")
VNC_PASSWORD = re.compile(r'connect via VNC with the password "([^"]*)"')
FIRST_VNC_PORT = 5900
SLOW = 0.5  # seconds: a task below this is no news


def _nobody(*_: object) -> None:
    """Hears nothing."""


@dataclass
class Story:
    """Phases with their start, what is heard of on the way, and what an error may need.

    `on_phase` and `on_detail` are told of phases and of what goes on in them, `on_mark` of single
    moments, `on_files` where it can be followed, `on_task` of each Ansible task that has ended with
    its seconds, `on_warning` of what may be wrong.
    """

    on_phase: Callable[[str], None]
    on_detail: Callable[[str], None]
    is_install: bool = False
    on_mark: Callable[[str], None] = _nobody
    on_files: Callable[[Mapping[str, str]], None] = _nobody
    on_task: Callable[[str, float], None] = _nobody
    on_warning: Callable[[str], None] = _nobody
    phases: list[tuple[str, float]] = field(default_factory=list)
    recent: deque[str] = field(default_factory=lambda: deque(maxlen=400))
    errors: list[str] = field(default_factory=list)
    task: str = ""
    tasks: list[tuple[str, float]] = field(default_factory=list)
    is_fetched: bool = False
    ssh_host: str = "127.0.0.1"
    ssh_port: int = 0
    vnc: str = ""
    vnc_password: str = ""
    news: float = field(default_factory=time.monotonic)
    _task_began: float = 0.0
    _is_typing: bool = False

    @property
    def phase(self) -> str:
        """The phase the build is in; empty before the first."""
        return self.phases[-1][0] if self.phases else ""

    def enter(self, phase: str) -> None:
        """The build is in `phase` from now on."""
        self.news = time.monotonic()
        if self.phase == phase:
            return
        self.phases.append((phase, self.news))
        self.on_phase(phase)

    def mark(self, text: str) -> None:
        """A moment that the timeline shows and that begins no phase."""
        self.news = time.monotonic()
        self.on_mark(text)

    def restart(self) -> None:
        """Another run of Packer begins: what the last one said is no longer of use."""
        self.recent.clear()
        self.errors.clear()
        self.tasks.clear()
        self.task, self.vnc, self.vnc_password = "", "", ""
        self.ssh_host, self.ssh_port = "127.0.0.1", 0
        self.is_fetched = False
        self.news = time.monotonic()

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
        if match := PORT.search(text):
            self.ssh_port = int(match[1])
        elif match := HOST.search(text):
            self.ssh_host, self.ssh_port = match[1], self.ssh_port or 22
        elif match := VNC_PASSWORD.search(text):
            self.vnc_password = match[1]  # the address is on the next line
        elif match := VNC.search(text):
            # Packer 1.6 prints the display's number where later versions print its port
            number = int(match[2])
            port = number if number >= FIRST_VNC_PORT else FIRST_VNC_PORT + number
            self.vnc = f"{match[1]}:{port}"
        if self._is_typing:
            self._is_typing = False
            self.mark("boot command typed")
        # over a base Packer says so too, and types nothing
        self._is_typing = self.is_install and text.startswith(TYPING)
        for mark, phase in PHASES:
            # Packer waits for SSH from the first second of an install; the installer's own
            # reports say more about where it is.
            if text.startswith(mark) and not (phase == "ssh" and self.is_install):
                self.end_task()
                self.enter(phase)
        if task := task_of(text):
            self._begin(task)
        elif text.startswith("PLAY RECAP"):
            self.end_task()

    def _begin(self, task: str) -> None:
        self.end_task()
        self.task, self._task_began = task, time.monotonic()
        self.news = self._task_began
        if task.lower().startswith(CLEANING):
            self.enter("cleaning")
        self.on_detail(task)

    def end_task(self) -> None:
        """The Ansible task that runs, if any, has ended; `task` still names it."""
        if self._task_began:
            seconds = time.monotonic() - self._task_began
            self.tasks.append((self.task, seconds))
            self.on_task(self.task, seconds)
            self._task_began = 0.0

    def slowest(self, count: int = 8) -> list[str]:
        """The tasks that took longest, a line each; none below half a second."""
        slow = sorted(self.tasks, key=lambda task: -task[1])[:count]
        return [f"{seconds:7.1f} s  {name}" for name, seconds in slow if seconds >= SLOW]

    def seconds(self) -> dict[str, float]:
        """How long each phase took."""
        now = time.monotonic()
        ends = [start for _, start in self.phases[1:]] + [now]
        spent: dict[str, float] = {}
        for (phase, start), end in zip(self.phases, ends, strict=True):
            spent[phase] = round(spent.get(phase, 0.0) + end - start, 1)
        return spent
