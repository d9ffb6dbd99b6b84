"""Programs are run so that nothing leaks, nothing is left behind and failures say what failed."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from goldimg.errors import BuildFailed, GoldimgError, Interrupted, MissingTool
from goldimg.orphans import reap
from goldimg.run import Redactor, Runner


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_for(path: Path) -> str:
    for _ in range(100):
        if path.exists() and path.read_text().strip():
            return path.read_text().strip()
        time.sleep(0.05)
    raise AssertionError(f"{path} never appeared")


def test_output_is_returned_and_logged_without_secrets(tmp_path: Path) -> None:
    runner = Runner(redactor=Redactor(["hunter22"]))
    log = tmp_path / "build.log"
    lines: list[str] = []
    result = runner.run(
        ["sh", "-c", "echo the password is hunter22; echo oops >&2"], log=log, on_line=lines.append
    )
    assert result.stdout == "the password is hunter22\n"
    assert sorted(log.read_text().splitlines()) == ["oops", "the password is ***"]
    assert "hunter22" not in "".join(lines)


def test_a_failing_program_tells_its_last_words_and_command() -> None:
    with pytest.raises(GoldimgError) as caught:
        Runner().run(["sh", "-c", "echo no space >&2; exit 3"])
    assert "sh failed (exit code 3)" in str(caught.value)
    assert "no space" in caught.value.details
    assert caught.value.details[-1].startswith("command: sh -c")


def test_a_secret_in_a_failing_command_is_hidden() -> None:
    runner = Runner(redactor=Redactor(["s3cret-value"]))
    with pytest.raises(GoldimgError) as caught:
        runner.run(["sh", "-c", "echo s3cret-value >&2; exit 1"])
    assert "s3cret-value" not in "\n".join(caught.value.details)


def test_a_missing_program_names_reason_and_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(MissingTool) as caught:
        Runner().run(["qemu-system-x86_64"], reason="run build VMs", env={"PATH": "/nonexistent"})
    assert str(caught.value) == "qemu-system-x86_64 is not installed; it is needed to run build VMs"
    assert "apt-get install qemu-system-x86" in caught.value.hint
    assert caught.value.code == 3


def test_only_the_few_known_variables_are_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "leak")
    monkeypatch.setenv("GOLDIMG_ROOT_PASS", "leak")
    assert "leak" not in Runner().run(["env"]).stdout


def test_input_is_closed_unless_given() -> None:
    assert Runner().run(["cat"], timeout=5).stdout == ""
    assert Runner().run(["cat"], stdin=b"hello").stdout == "hello"


def test_a_timeout_ends_the_program_and_its_children(tmp_path: Path) -> None:
    child = tmp_path / "child"
    with pytest.raises(GoldimgError, match="no end after 1 s"):
        Runner().run(["sh", "-c", f"sleep 60 & echo $! > {child}; wait"], timeout=1)
    assert not alive(int(wait_for(child)))


def test_cancelling_interrupts_the_whole_group(tmp_path: Path) -> None:
    runner, child = Runner(), tmp_path / "child"

    def cancel() -> None:
        wait_for(child)
        runner.cancel.set()

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(Interrupted):
        runner.run(["sh", "-c", f"sleep 60 & echo $! > {child}; wait"])
    thread.join()
    assert not alive(int(wait_for(child)))
    with pytest.raises(Interrupted):
        runner.run(["true"])


def test_a_program_that_ignores_signals_is_killed_in_a_hurry(tmp_path: Path) -> None:
    runner, ready = Runner(), tmp_path / "ready"

    def cancel() -> None:
        wait_for(ready)
        runner.cancel.set()
        runner.hurry.set()

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(Interrupted):
        runner.run(["sh", "-c", f"trap '' INT TERM; echo $$ > {ready}; while :; do sleep 1; done"])
    thread.join()
    assert not alive(int(ready.read_text()))


def test_abort_ends_the_program_with_its_own_error() -> None:
    reason = BuildFailed("the installer stopped")
    with pytest.raises(BuildFailed, match="the installer stopped"):
        Runner().run(["sleep", "60"], abort=lambda: reason)


def test_reap_kills_only_builders_that_work_in_the_directory(tmp_path: Path) -> None:
    here, there = tmp_path / "work", tmp_path / "work2"
    here.mkdir()
    there.mkdir()
    fake = tmp_path / "qemu-system-fake"
    fake.symlink_to("/bin/sleep")
    script = tmp_path / "hold"
    script.write_text("import sys, time; time.sleep(60)\n")
    ours = os.posix_spawn("/bin/sh", ["qemu-system-x", "-c", "sleep 60; true", f"{here}/a"], {})
    other = os.posix_spawn("/bin/sh", ["qemu-system-x", "-c", "sleep 60; true", f"{there}/a"], {})
    reader = os.posix_spawn("/bin/sh", ["tail", "-c", "sleep 60; true", f"{here}/build.log"], {})
    time.sleep(0.2)
    try:
        assert reap(here) == [ours]
        assert os.waitpid(ours, 0)[1] == signal.SIGKILL
        assert alive(other)
        assert alive(reader)
    finally:
        for pid in (other, reader):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
