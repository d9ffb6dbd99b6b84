"""One artifact on trial: started as its provider would, asked, checked, switched off."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from goldimg.errors import BuildFailed, GoldimgError, Interrupted, MissingTool
from goldimg.packer.console import console_tail
from goldimg.packer.watchdog import sign_in
from goldimg.project import make_directory, short_directory
from goldimg.testing import access, container, ec2, facts, machine, seeds
from goldimg.testing.forms import Form, form_of, grown, make_overlay
from goldimg.testing.subject import CONSOLE, LOG, PICTURE, Found, Laboratory, Subject, phase
from goldimg.testing.suite import Check, Trial, own_checks, run_checks, site_checks

STILL = 30.0  # seconds that a console with a sign of trouble stays as it is until that counts
LOOKS = 5.0  # seconds between two looks at it
VAGRANT = "vagrant"  # user of boxes: https://developer.hashicorp.com/vagrant/docs/boxes/base


def try_out(subject: Subject, lab: Laboratory, scratch: Path) -> Found:
    """Tries one artifact. Only Interrupted, and what is wrong with this host, is raised."""
    shutil.rmtree(subject.files, ignore_errors=True)
    make_directory(subject.files)
    if subject.is_container:
        return _contain(subject, lab, scratch)
    key = hashlib.sha256(str(scratch).encode()).hexdigest()[:10]
    with short_directory(f"t-{key}") as sockets:
        return _start(subject, lab, scratch, sockets)


def _contain(subject: Subject, lab: Laboratory, scratch: Path) -> Found:
    how = {"form": "files as a container"}
    phase(lab, subject, "unpacking")
    with container.unpacked(subject.path, scratch, lab.runner) as box:
        phase(lab, subject, "checking")
        try:
            known = box.facts()
        except Interrupted:
            raise
        except GoldimgError as error:
            failed = Check(name="starts", outcome="failed", why=str(error))
            return Found(checks=(failed,), how=how, error=_error(subject, [failed], error))
        image = {**_image(subject, "container"), "command": list(subject.command)}
        options = {"connection": "chroot"}
        trial = _trial(subject, lab, scratch, str(box.root), options, known, image)
        checks = _run(subject, lab, trial, scratch, prefix=box.prefix)
        return Found(checks=tuple(checks), how=how, error=_error(subject, checks))


def _start(subject: Subject, lab: Laboratory, scratch: Path, sockets: Path) -> Found:
    bench = subject.provider.bench
    if subject.firmware == "efi" and lab.ovmf is None:
        raise MissingTool(
            f"{subject.path.name} starts by EFI, and there is no OVMF", hint="apt-get install ovmf"
        )
    phase(lab, subject, "preparing")
    form = form_of(subject.path, scratch / "unpacked", lab.runner)
    disk, size = scratch / "disk.qcow2", grown(subject.virtual_size)
    make_overlay(form, disk, size, lab.runner)
    door, seed, network = _door(subject, lab, scratch, sockets)
    spec = machine.Spec(
        bench=bench,
        disk=disk,
        console=subject.files / CONSOLE,
        socket=sockets / "qmp",
        port=door.port,
        accelerator=lab.accelerator,
        seed=seed,
        network=network,
        ovmf=lab.ovmf if subject.firmware == "efi" else None,
        variables=scratch / "efi-variables" if subject.firmware == "efi" else None,
    )
    checks: list[Check] = []
    cause: GoldimgError | None = None
    with machine.running(spec, lab.runner) as vm:
        try:
            checks += _visit(subject, lab, vm, door, scratch, size)
        except Interrupted:
            raise
        except GoldimgError as error:
            cause = error
            checks.append(Check(name="starts", outcome="failed", why=_reason(error)))
        if any(it.outcome == "failed" for it in checks):
            _keep_picture(subject, vm)
            _hold(subject, lab, vm, door, checks)
        if cause is None:
            phase(lab, subject, "shutting down")
            checks.append(_switch_off(vm))
            if checks[-1].outcome == "failed":
                _keep_picture(subject, vm)
    how = _how(subject, form)
    return Found(checks=tuple(checks), how=how, error=_error(subject, checks, cause))


def _how(subject: Subject, form: Form) -> dict[str, str]:
    """The machine in words, for the record."""
    bench = subject.provider.bench
    how = {
        "form": form.title,
        "bus": bench.bus,
        "card": bench.card,
        "firmware": subject.firmware,
        "data": bench.seed or "none",
    }
    return {**how, "lacks": bench.lacks} if bench.lacks else how


def _door(
    subject: Subject, lab: Laboratory, scratch: Path, sockets: Path
) -> tuple[access.Door, Path | None, str]:
    """The way in, and what opens it: a CD, or members of the network.

    Where nothing asks for data, Vagrant's key does.
    """
    bench, user, key = subject.provider.bench, seeds.USER, scratch / "key"
    seed, network = None, ""
    if bench.seed:
        words: list[str | Path] = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key]
        lab.runner.run(words, reason="make a key for a machine under test", timeout=60)
        public = key.with_suffix(".pub").read_text(encoding="ascii").strip()
        instance = seeds.Instance(
            id=f"i-{subject.hostname}", hostname=subject.hostname, public_key=public
        )
        if bench.seed == "ec2":
            network = ec2.network(instance, scratch)
        else:
            seed = seeds.write_iso(bench.seed, instance, scratch, lab.runner)
    else:
        user, key = VAGRANT, lab.site.keys / "vagrant"
        if not key.is_file():
            raise GoldimgError(
                f"{lab.site.shown(key)} is missing, by which one logs in to Vagrant's boxes",
                hint="test where the image was built",
            )
    door = access.Door(
        port=machine.free_port(),
        user=user,
        key=key,
        config=scratch / "ssh_config",
        socket=sockets / "ssh",
    )
    return door, seed, network


def _visit(
    subject: Subject,
    lab: Laboratory,
    vm: machine.Machine,
    door: access.Door,
    scratch: Path,
    size: int,
) -> list[Check]:
    phase(lab, subject, "starting")
    look = Lookout(vm)
    with access.opened(door, lab.runner, seconds=lab.seconds, look=look) as seconds:
        way = "the key of the data" if subject.provider.bench.seed else "Vagrant's key"
        checks = [
            Check(name=f"starts and takes {way}", outcome="passed", seconds=round(seconds, 1))
        ]
        phase(lab, subject, "asking")
        known = facts.ask(door, lab.runner)
        image = {
            **_image(subject, "machine"),
            "seed": subject.provider.bench.seed,
            "hostname": subject.hostname,
            "disk": size,
            "user": door.user,
        }
        options = {"ssh_config": str(door.config), "sudo": True, "controlpersist": 0}
        options["timeout"] = 60
        trial = _trial(subject, lab, scratch, f"ssh://{access.HOST}", options, known, image)
        phase(lab, subject, "checking")
        return [*checks, *_run(subject, lab, trial, scratch)]


class Lookout:
    """Looks at a machine that does not answer yet, and raises what is plainly wrong with it."""

    def __init__(self, vm: machine.Machine, clock: Callable[[], float] = time.monotonic) -> None:
        self._vm, self._clock = vm, clock
        self._next = self._since = 0.0
        self._seen = ("", "")

    def __call__(self) -> None:
        self._vm.check_alive()
        now = self._clock()
        if now < self._next:
            return
        self._next = now + LOOKS
        serial, screen = console_tail(self._vm.spec.console), self._vm.screen.text()
        if (serial, screen) != self._seen:
            self._seen, self._since = (serial, screen), now
        elif now - self._since >= STILL and (sign := sign_in(screen) or sign_in(serial)):
            raise GoldimgError("it does not start", why=sign)


def _switch_off(vm: machine.Machine) -> Check:
    began = time.monotonic()
    is_off = vm.power_off()
    return Check(
        name="shuts down when the power button is pressed",
        outcome="passed" if is_off else "failed",
        why="" if is_off else f"still on after {machine.POWER_OFF:.0f} s",
        seconds=round(time.monotonic() - began, 1),
    )


def _keep_picture(subject: Subject, vm: machine.Machine) -> None:
    vm.screen.shoot(subject.files / PICTURE)


def _hold(
    subject: Subject,
    lab: Laboratory,
    vm: machine.Machine,
    door: access.Door,
    checks: list[Check],
) -> None:
    if lab.hold is None:
        return
    failed = [it for it in checks if it.outcome == "failed"]
    lines = [f"{subject.provider.name}: {failed[0].name}: {failed[0].why}"]
    lines.append(f"ssh -F {door.config} {access.HOST}")
    lab.hold(subject.provider.name, [*lines, f"console: {vm.spec.console}"])


def _image(subject: Subject, kind: str) -> dict[str, object]:
    return {
        "os": subject.os_name,
        "version": subject.version,
        "provider": subject.provider.name,
        "artifact": subject.path.name,
        "kind": kind,
        "firmware": subject.firmware,
    }


def _trial(
    subject: Subject,
    lab: Laboratory,
    scratch: Path,
    host: str,
    options: Mapping[str, object],
    known: Mapping[str, str],
    image: Mapping[str, object],
) -> Trial:
    return Trial(
        root=str(lab.site.root),
        host=host,
        options=options,
        facts=known,
        image=image,
        seconds=lab.check_seconds,
        report=str(scratch / "report.jsonl"),
    )


def _run(
    subject: Subject,
    lab: Laboratory,
    trial: Trial,
    scratch: Path,
    prefix: list[str] | None = None,
) -> list[Check]:
    files = [own_checks(str(trial.image["kind"]))]
    files += site_checks(lab.site, subject.provider.name)
    log = subject.files / LOG
    return run_checks(trial, files, scratch, lab.runner, prefix=prefix or (), log=log)


def _reason(error: GoldimgError) -> str:
    return "\n".join([str(error), *error.details])


def _error(
    subject: Subject, checks: list[Check], cause: GoldimgError | None = None
) -> GoldimgError | None:
    """What people are told of a failure: which checks, and which files show it."""
    failed = [it for it in checks if it.outcome == "failed"]
    if not failed:
        return None
    picture, console, log = (subject.files / it for it in (PICTURE, CONSOLE, LOG))
    name = f"{subject.provider.name}: {subject.path.name}"
    if cause:
        what, why, details = f"{name}: {cause.what}", cause.why, list(cause.details)
        if console.exists() and (tail := console_tail(console).splitlines()):
            details += ["the console ends with:", *(f"  {line[:200]}" for line in tail[-5:])]
    else:
        what, why = f"{name}: {len(failed)} of {len(checks)} checks failed", ""
        details = [f"{it.name}: {it.why.splitlines()[0] if it.why else ''}" for it in failed]
    shown = log if subject.is_container else console
    return BuildFailed(
        what,
        why=why,
        details=details,
        screen=picture if picture.exists() else None,
        log=shown if shown.exists() else None,
        hint="--keep-vm leaves the machine running to look at" if not subject.is_container else "",
    )
