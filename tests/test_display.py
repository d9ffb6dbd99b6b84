"""What people see while a build runs, on a terminal and elsewhere."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from goldimg.display import LiveDisplay, PlainDisplay, choose_display, clock_text
from goldimg.events import Bus, JsonLines


def story(bus: Bus) -> None:
    bus.emit("azure", "phase", "boot", phase="boot")
    bus.emit("azure", "stage", "Install the agent")
    bus.emit("azure", "progress", "", fraction=0.5)
    bus.emit("", "warning", "the mirror is slow")
    bus.emit("azure", "done", "Debian-12-1.0.0_azure.vhd (512 MiB)")
    bus.emit("gcp", "failed", "no SSH in time")


def test_plain_lines_have_time_build_and_no_progress() -> None:
    stream, bus = io.StringIO(), Bus()
    display = PlainDisplay(stream)
    bus.subscribe(display)
    story(bus)
    display.close()
    assert [line.strip() for line in stream.getvalue().splitlines()] == [
        "0:00 [azure] boot",
        "0:00 warning: the mirror is slow",
        "0:00 [azure] ✓ Debian-12-1.0.0_azure.vhd (512 MiB)",
        "0:00 [gcp] ✗ no SSH in time",
    ]


def test_verbose_shows_tasks_too() -> None:
    stream, bus = io.StringIO(), Bus()
    display = PlainDisplay(stream, verbose=True)
    bus.subscribe(display)
    story(bus)
    display.close()
    assert "[azure] Install the agent" in stream.getvalue()


def test_silence_is_broken_by_a_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setattr("goldimg.display.HEARTBEAT", 0.0)
    stream, bus = io.StringIO(), Bus()
    display = PlainDisplay(stream)
    bus.subscribe(display)
    bus.emit("azure", "phase", "installing", phase="installing")
    for _ in range(50):
        if "still working" in stream.getvalue():
            break
        time.sleep(0.1)
    display.close()
    assert "still working (azure: installing for 0:0" in stream.getvalue()


def test_a_terminal_keeps_what_matters_when_the_live_lines_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    stream, bus = io.StringIO(), Bus()
    display = LiveDisplay(stream)
    bus.subscribe(display)
    story(bus)
    bus.emit("aws", "note", "[brackets] stay as they are")
    display.close()
    said = stream.getvalue()
    assert "✓ azure Debian-12-1.0.0_azure.vhd (512 MiB)" in said
    assert "✗ gcp no SSH in time" in said
    assert "[brackets] stay as they are" in said
    assert "\x1b[3" not in said


def test_quiet_says_only_what_went_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    bus = Bus()
    bus.subscribe(choose_display(io.StringIO(), quiet=True, verbose=False))
    story(bus)
    assert capsys.readouterr().err.splitlines() == [
        "the mirror is slow",
        "[gcp] no SSH in time",
    ]


def test_events_are_json_lines_without_progress(tmp_path: Path) -> None:
    bus, path = Bus(clock=lambda: 12.3456), tmp_path / "logs" / "events.jsonl"
    log = JsonLines(path)
    bus.subscribe(log)
    story(bus)
    log.close()
    bus.emit("azure", "note", "after the end")
    events = [json.loads(line) for line in path.read_text().splitlines()]
    assert events[0] == {
        "time": 12.346, "build": "azure", "kind": "phase", "text": "boot", "phase": "boot",
    }  # fmt: skip
    assert [event["kind"] for event in events] == ["phase", "stage", "warning", "done", "failed"]


def test_clock() -> None:
    assert clock_text(75.9) == "1:15"
