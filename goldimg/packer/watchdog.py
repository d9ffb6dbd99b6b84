"""Tells when a build takes longer than is usual for its phase, and why that is thought to be so.

It stops nothing: a warning is said once for each stall, and the limits that end builds are others.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from goldimg.packer.console import Screen, console_tail

# phase -> seconds without any news after which it is unusual, with KVM and under emulation
LIMITS = {
    "boot": (45, 100),
    "kickstart fetched": (90, 240),
    "installing": (300, 600),
    "rebooting": (90, 300),
    "ssh": (60, 180),
    "provisioning": (300, 600),
    "cleaning": (120, 300),
    "saving": (60, 120),
    "shutting down": (60, 120),
}
SLOWER = 3.0  # times what a phase took in earlier builds
IO_ERROR = "io-error"  # QEMU's word for a guest that it has stopped because a write failed
IF_FREED = "it goes on by itself once there is space"
SHORTEST = 30.0  # seconds: less is no stall

# What a console says where nothing more will come of the build, or somebody has to answer it.
# The latest match counts. What the installers print: anaconda's text mode and dracut's emergency
# shell (https://man7.org/linux/man-pages/man7/dracut.cmdline.7.html), SeaBIOS, GRUB, isolinux.
SIGNS = (
    (r"Kernel panic - not syncing.*", "the guest's kernel has panicked"),
    (r"No bootable device.*|Boot failed: .*", "the firmware found nothing to boot"),
    (r"^grub(?: rescue)?> ?$", "GRUB found no configuration and waits for commands"),
    (r"Entering emergency mode.*|^dracut:/#", "the installer's first stage gave up"),
    (r"^(?:goldimg-installer: )?ERROR:.*", "the installer reports an error"),
    (r"The following error occurred.*|An unknown error has occurred.*", "anaconda has failed"),
    (
        r"Please make (?:a|your) (?:selection|choice).*|Please respond 'yes' or 'no'.*|"
        r"\[\s*!\] .*|Press .*ENTER.* to (?:exit|continue).*|.*\(yes/no\)\s*:?$",
        "the installer is asking a question",
    ),
    (r"Give root password for maintenance.*|Cannot open access to console.*",
     "the installed system started in emergency mode"),
    (r"No space left on device.*", "a disk of the guest is full"),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A build at one moment: its phase, the seconds since its last news, and where to look.

    `address` is what leads to the guest's SSH port, `kickstart` where the kickstart is served.
    """

    phase: str
    silent: float
    is_install: bool
    is_fetched: bool
    console: Path
    screen: Screen
    address: tuple[str, int] | None = None
    kickstart: str = ""
    task: str = ""


@dataclass
class Watchdog:
    """Looks at scenes and says, once for each stall, what seems to be wrong.

    `usual` are the seconds that phases took in earlier builds; a phase without takes LIMITS.
    """

    say: Callable[[str], None]
    is_emulated: bool
    usual: Mapping[str, float] = field(default_factory=dict)
    _told: set[tuple[str, str]] = field(default_factory=set)
    _size: int = -1

    def limit(self, phase: str) -> float:
        """Seconds without news after which `phase` counts as stalled."""
        built_in = LIMITS.get(phase, (300, 600))[self.is_emulated]
        known = self.usual.get(phase)
        if known is None:
            return float(built_in)
        return max(SHORTEST, SLOWER * known)

    def look(self, scene: Scene) -> None:
        """Says what there is to say of the scene, and nothing twice."""
        if scene.screen.state == IO_ERROR and self._is_new("", IO_ERROR):
            self.say("QEMU has stopped the VM since a disk of this host is full; " + IF_FREED)
        sign = self._sign(scene.console)
        if sign and self._is_new(scene.phase, sign):
            self.say(sign)
        if scene.silent < self.limit(scene.phase) or not self._is_new(scene.phase, "stall"):
            return
        what = f"no news in phase '{scene.phase}' for {scene.silent:.0f} s"
        if scene.phase in self.usual:
            what += f" (earlier builds took {self.usual[scene.phase]:.0f} s in all)"
        self.say("; ".join([what, *reasons(scene)]))

    def progressed(self) -> None:
        """There is news: the next silence is another stall."""
        self._told = {it for it in self._told if it[1] != "stall"}

    def forget(self, what: str) -> None:
        """`what` is over; should it come again, it is told again."""
        self._told.discard(("", what))

    def _is_new(self, phase: str, what: str) -> bool:
        key = (phase if what == "stall" else "", what)
        if key in self._told:
            return False
        self._told.add(key)
        return True

    def _sign(self, console: Path) -> str:
        """What the serial console shows, where it has grown since it was last looked at."""
        try:
            size = console.stat().st_size
        except OSError:
            return ""
        if size == self._size:
            return ""
        self._size = size
        return sign_in(console_tail(console))


def sign_in(text: str) -> str:
    """The latest sign of trouble in a console's text, with the line that shows it."""
    latest, found = -1, ""
    for pattern, meaning in SIGNS:
        for match in re.finditer(pattern, text, re.MULTILINE):
            if match.start() > latest:
                latest = match.start()
                found = f'{meaning}: "{match[0].strip()[:160]}"'
    return found


def reasons(scene: Scene) -> list[str]:
    """Why a stalled build may be stalled, the likeliest first."""
    found = []
    if scene.is_install and not scene.is_fetched:
        reach = f": the guest must reach {scene.kickstart}" if scene.kickstart else ""
        found.append(f"the kickstart was never fetched{reach}")
    elif scene.phase in ("ssh", "rebooting") and scene.address:
        found.append(ssh_state(scene.address))
    elif scene.phase in ("provisioning", "cleaning") and scene.task:
        found.append(f"the task is '{scene.task}'")
    screen, serial = scene.screen.text(), console_tail(scene.console)
    if sign := sign_in(screen) or sign_in(serial):
        found.append(sign)
    elif scene.phase == "boot" and screen:
        # a boot menu has the screen, whatever it sends to a serial port besides
        found.append(f'the screen\'s last line is "{_last(screen)}"')
    elif serial:
        found.append(f'the serial console\'s last line is "{_last(serial)}"')
    else:
        found.append("the serial console shows nothing")
    return found


def _last(text: str) -> str:
    return text.rpartition("\n")[2].strip()[:160]


def ssh_state(address: tuple[str, int], patience: float = 2.0) -> str:
    """What a guest's SSH port answers, in words.

    A connection alone says nothing: the hypervisor takes it whether or not the guest listens.
    """
    try:
        with socket.create_connection(address, timeout=patience) as connection:
            connection.settimeout(patience)
            said = connection.recv(64)
    except OSError:
        said = b""
    if said.startswith(b"SSH-"):
        return "SSH answers, but takes no login with the packer key"
    return "the guest's SSH port does not answer"
