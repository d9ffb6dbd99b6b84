"""Runs Packer once: template and variables out, a disk in, what happens told as it happens."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from goldimg.errors import BuildFailed, GoldimgError
from goldimg.orphans import reap, working_in
from goldimg.packer.console import NoScreen, QmpScreen, Screen, VBoxScreen
from goldimg.packer.monitor import FAILURE, PICTURE, Monitor
from goldimg.packer.output import ansible_reason, task_place
from goldimg.packer.policy import Policy, WillRetry, never, ways_in
from goldimg.packer.story import Story
from goldimg.packer.template import Spec, exported_disk, make_template
from goldimg.packer.vnc import Access, VncScreen
from goldimg.packer.watchdog import Watchdog
from goldimg.project import make_directory, write_text
from goldimg.run import Completed, Runner

__all__ = ["Story", "failure", "run_packer"]

STOPPING = 10.0  # seconds that Packer may take to stop its VM and remove what it made
PROVISIONING = 3600.0  # seconds that everything after the first SSH may take

Abort = Callable[[], BaseException | None]


def run_packer(
    spec: Spec,
    *,
    work: Path,
    temporary: Path,
    log: Path,
    runner: Runner,
    story: Story,
    variables: Mapping[str, str] | None = None,
    abort: Abort | None = None,
    policy: Policy | None = None,
    will_retry: WillRetry = never,
) -> Path:
    """Runs the build that `spec` describes in `work` and returns the disk that it leaves.

    `temporary` has a short path, for the sockets of what Packer runs. The template stays in `work`
    as `packer.json`; `variables`, which may be secret, live in a 0600 file while Packer runs.
    Whatever the end, no Packer and no QEMU of it stays behind; where `policy` keeps the VM of a
    build that will not be tried again, that end comes later. After a failure the last picture of
    the screen is `failure.png` beside the log. Raises BuildFailed with Packer's own words, or what
    `abort` returned.
    """
    make_directory(work)
    shutil.rmtree(spec.output, ignore_errors=True)
    if spec.builder == "qemu":
        spec = replace(spec, monitor=temporary / "screen")
    template, secret = work / "packer.json", work / "variables.json"
    write_text(template, json.dumps(make_template(spec), indent=2) + "\n")
    write_text(secret, json.dumps(dict(variables or {})), mode=0o600)
    story.restart()
    url = (variables or {}).get("ks_url", "")
    attempt = _Attempt(
        spec=spec,
        work=work,
        temporary=temporary,
        log=log,
        runner=runner,
        story=story,
        policy=policy or Policy(),
        will_retry=will_retry,
        abort=abort or _never,
        kickstart="/".join(url.split("/")[:3]),
    )
    try:
        return attempt.run([f"-var-file={secret}", template])
    except GoldimgError as error:
        if attempt.failure_picture.exists():
            error.screen = attempt.failure_picture
        raise
    finally:
        secret.unlink(missing_ok=True)


def _never() -> None:
    """Ends no build."""


@dataclass(frozen=True, kw_only=True)
class _Attempt:
    """One run of Packer; the members are run_packer's."""

    spec: Spec
    work: Path
    temporary: Path
    log: Path
    runner: Runner
    story: Story
    policy: Policy
    will_retry: WillRetry
    abort: Abort
    kickstart: str

    @property
    def failure_picture(self) -> Path:
        return self.log.with_name(FAILURE)

    def run(self, words: list[str | Path]) -> Path:
        """Validates, builds, and returns the disk; what a failed build leaves goes by the policy.

        `words` are the variables and the template, as Packer takes them.
        """
        self.failure_picture.unlink(missing_ok=True)
        disk = None
        try:
            self.runner.run(
                ["packer", "validate", *words],
                reason="boot and provision the build VMs",
                env=self._environment(),
                timeout=120,
                log=self.log,
            )
            with self._monitor() as monitor:
                disk = self._build(words, monitor)
            return disk
        finally:
            reap(self.work)
            if disk is None and self.policy.on_error != "abort":
                shutil.rmtree(self.spec.output, ignore_errors=True)

    def _build(self, words: list[str | Path], monitor: Monitor) -> Path:
        self.story.on_files(self._places(monitor))
        say = _logger(self.log, self.runner)
        result = self.runner.run(
            ["packer", "build", "-machine-readable", *self.policy.packer_words, *words],
            env=self._environment(),
            on_line=lambda raw: say(self.story.hear(raw)),
            check=False,
            abort=lambda: self._aborted(monitor),
            grace=STOPPING,
            timeout=self.spec.ssh_seconds + PROVISIONING,
        )
        self.story.end_task()
        if slowest := self.story.slowest():
            say(["slowest tasks:", *slowest])
        disk = exported_disk(self.spec)
        if result.code != 0 or not disk.exists():
            error = self._failure(result)
            self._failed(error, monitor)
            raise error
        self.story.mark("shut down")
        return disk

    def _failure(self, result: Completed) -> GoldimgError:
        if result.code < 0:
            why = f"it was killed by signal {-result.code}"
            return BuildFailed(f"{self.spec.name}: Packer failed", why=why, log=self.log)
        return failure(self.spec.name, self.story, self.log)

    def _aborted(self, monitor: Monitor) -> BaseException | None:
        error = self.abort()
        if error is not None:
            self._failed(error, monitor)
        return error

    def _failed(self, error: BaseException, monitor: Monitor) -> None:
        """Keeps the last picture and, where it is wanted, the VM until somebody lets it go."""
        monitor.shoot()
        monitor.keep(self.failure_picture)
        if self.policy.on_error == "keep" and not self.will_retry(error):
            lines = ways_in(
                key=self.spec.private_key,
                host=self.story.ssh_host,
                port=self.story.ssh_port,
                vnc=self.story.vnc,
                vnc_password=self.story.vnc_password,
                picture=self.failure_picture,
                console=self.spec.console,
                pids=working_in(self.work),
            )
            self.policy.hold(self.spec.name, [str(error), *lines])

    def _monitor(self) -> Monitor:
        story = self.story
        watchdog = Watchdog(
            say=story.on_warning,
            is_emulated=self.spec.machine.accelerator != "kvm",
            usual=self.policy.usual.get(story.is_install, {}),
        )
        return Monitor(
            story=story,
            watchdog=watchdog,
            console=self.spec.console,
            picture=self.work / PICTURE,
            screen=screen_of(self.spec, self.runner, story),
            kickstart=self.kickstart,
        )

    def _places(self, monitor: Monitor) -> dict[str, str]:
        """Where those who follow the build find what it shows."""
        return {
            "log": str(self.log),
            "console": str(self.spec.console),
            "picture": str(monitor.picture),
        }

    def _environment(self) -> dict[str, str]:
        return {
            "CHECKPOINT_DISABLE": "1",
            "PACKER_NO_COLOR": "1",
            "PACKER_CONFIG": str(self.work / "packerconfig"),
            "PACKER_CACHE_DIR": str(self.work / "cache"),
            "TMPDIR": str(self.temporary),
        }


def screen_of(spec: Spec, runner: Runner, story: Story) -> Screen:
    """How the screen of the build's VM is seen."""

    def access() -> Access | None:
        host, _, port = story.vnc.rpartition(":")
        return Access(host=host, port=int(port), password=story.vnc_password) if port else None

    if spec.monitor:
        return QmpScreen(socket=spec.monitor)
    if spec.builder == "virtualbox-iso" and spec.native:
        return VBoxScreen(name=spec.native.vm_name, runner=runner)
    if spec.builder == "vmware-iso":
        return VncScreen(access=access)
    return NoScreen()


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
            why=f"the build was in phase '{story.phase or 'start'}'",
            log=log,
            hint="console.log beside the log shows the guest's serial console, failure.png its "
            "screen; raise ssh_timeout on a slow host",
        )
    if story.task and (reason := ansible_reason(recent)):
        return BuildFailed(
            f"{build}: Ansible task '{story.task}' failed",
            details=[*_place(recent), *(shortened(line) for line in reason)],
            log=log,
            hint="--on-error keep leaves the VM running to look at",
        )
    details = story.errors[-3:] or [line for line in recent if line.strip()][-6:]
    return BuildFailed(f"{build}: Packer failed", details=details, log=log)


def _place(lines: list[str]) -> list[str]:
    """Where the failed task is written, from the site's directory on."""
    place = task_place(lines)
    _, has_ansible, rest = place.rpartition("/ansible/")
    return [f"at: {'ansible/' + rest if has_ansible else place}"] if place else []


def shortened(line: str, length: int = 500) -> str:
    """A line that fits where errors are read; the log has it whole."""
    return line if len(line) <= length else f"{line[:length]}… (the log has the rest)"
