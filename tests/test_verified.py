"""docs/verified.md says what the record says, of every image, and the record is not stale."""

from __future__ import annotations

import subprocess
from datetime import UTC, date, datetime, timedelta

import pytest

from goldimg.providers import all_providers
from tests.verified import CHECKS, DOCUMENT, RECORD, ROOT, level, load, merged, render, systems

STALE = timedelta(days=90)
PROVIDERS = sorted(all_providers())


def test_the_document_is_what_the_record_gives() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert text == render(merged(load(RECORD), {})), "run: python -m tests.verified"


@pytest.mark.parametrize("os_name", systems())
def test_every_image_has_its_cell_and_something_to_show(os_name: str) -> None:
    record = load(RECORD)
    for provider in PROVIDERS:
        found = level(record, os_name, provider)
        assert found in ("validated", "built and booted"), f"{os_name} {provider}: {found}"


def test_every_image_of_debian_12_was_booted() -> None:
    record = load(RECORD)
    assert {level(record, "Debian-12", provider) for provider in PROVIDERS} == {"built and booted"}


def test_no_claim_is_much_older_than_what_it_is_about() -> None:
    """A claim names its date and content; 90 days after it the playbooks must not have changed."""
    said = subprocess.run(
        ["git", "log", "-1", "--format=%ct", "--", "ansible", "kickstart", "templates/os"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    if not said:
        pytest.skip("needs a git checkout to know when the playbooks changed")
    changed = datetime.fromtimestamp(int(said), UTC).date()
    for check, entries in load(RECORD).items():
        for cell, entry in entries.items():
            made = date.fromisoformat(entry["date"])
            assert changed - made < STALE, f"{cell}: '{check}' is of {made}; run the tests anew"
            assert entry["tools"], f"{cell}: '{check}' names no tool"


def test_a_newer_note_replaces_an_older_and_forgotten_systems_go() -> None:
    def entry(day: str) -> dict[str, object]:
        return {"date": day, "content": "c", "tools": {"x": "1"}}

    old = {"lint": {"Debian-12 aws": entry("2026-01-01"), "Gone-1 aws": entry("2026-01-01")}}
    new = {"lint": {"Debian-12 aws": entry("2026-02-01")}}
    found = merged(old, new)
    assert set(found) == set(CHECKS)
    assert found["lint"] == new["lint"]
    assert "| Debian-12 | validated (L) | nothing |" in render(found)
