"""Results of trials: in the manifest, as JUnit XML, as a table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

from goldimg import __version__
from goldimg.artifacts import JUNIT, MANIFEST, read_finished, stem_of
from goldimg.display import clock_text
from goldimg.errors import VerificationFailed
from goldimg.project import write_text
from goldimg.report import table
from goldimg.tested import TESTS
from goldimg.testing.suite import Check

Status = Literal["passed", "failed", "interrupted", "not tested"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How the test of one provider's image ended; `artifacts` are SHA-256s of the booted files."""

    provider: str
    os_name: str
    version: str
    directory: Path
    status: Status
    seconds: float = 0.0
    finished: str = ""
    artifacts: Mapping[str, str]
    how: Mapping[str, Mapping[str, str]]
    checks: tuple[Check, ...] = ()
    errors: tuple[BaseException, ...] = ()

    def count(self, outcome: str) -> int:
        """How many checks ended so."""
        return sum(it.outcome == outcome for it in self.checks)


def now() -> str:
    """The time of day for records."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def as_record(outcome: Outcome) -> dict[str, Any]:
    """What the manifest says under `tests`: see goldimg.tested."""
    return {
        "ok": outcome.status == "passed",
        "finished": outcome.finished,
        "seconds": round(outcome.seconds, 1),
        "goldimg": __version__,
        "artifacts": dict(outcome.artifacts),
        "machines": {name: dict(how) for name, how in outcome.how.items()},
        "checks": [_check_json(it) for it in outcome.checks],
    }


def _check_json(check: Check) -> dict[str, Any]:
    told: dict[str, Any] = {"name": check.name, "outcome": check.outcome}
    return {**told, "why": check.why} if check.why else told


def keep(outcome: Outcome) -> None:
    """Writes the result into the manifest, and JUnit XML beside it, each whole or not at all.

    VerificationFailed where the image was replaced meanwhile: the result is not of what is there.
    """
    finished = read_finished(outcome.directory)
    listed = {it["file"]: it["sha256"] for it in finished.files} if finished else {}
    if finished is None or any(listed.get(it) != sum_ for it, sum_ in outcome.artifacts.items()):
        raise VerificationFailed(f"{outcome.directory} was replaced while it was tested")
    whole = {**finished.manifest, TESTS: as_record(outcome)}
    write_text(outcome.directory / MANIFEST, json.dumps(whole, indent=2, ensure_ascii=False) + "\n")
    junit = outcome.directory / f"{stem_of(finished.manifest)}{JUNIT}"
    write_text(junit, junit_text([outcome]))


def junit_text(outcomes: Sequence[Outcome]) -> str:
    """Results as JUnit XML, one suite an image, as CI systems read it.

    https://github.com/testmoapp/junitxml tells what those agree on.
    """
    root = ElementTree.Element("testsuites", name="goldimg")
    for outcome in outcomes:
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=f"{outcome.os_name}-{outcome.version}_{outcome.provider}",
            tests=str(len(outcome.checks)),
            failures=str(outcome.count("failed")),
            skipped=str(outcome.count("skipped")),
            errors="0",
            time=f"{outcome.seconds:.1f}",
            timestamp=outcome.finished,
        )
        for check in outcome.checks:
            case = ElementTree.SubElement(
                suite,
                "testcase",
                name=_clean(check.name),
                classname=f"goldimg.{outcome.os_name}.{outcome.provider}",
                time=f"{check.seconds:.2f}",
            )
            if check.outcome != "passed":
                kind = "failure" if check.outcome == "failed" else "skipped"
                first = check.why.partition("\n")[0]
                ElementTree.SubElement(case, kind, message=_clean(first)).text = _clean(check.why)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, "unicode") + "\n"


def _clean(text: str) -> str:
    """Text without what XML 1.0 cannot hold."""
    return "".join(char for char in text if char >= " " or char in "\n\t")


def results_table(outcomes: Sequence[Outcome]) -> str:
    """The table that ends a run."""
    rows = [("provider", "version", "status", "checks", "time", "form, bus, firmware, data")]
    for it in outcomes:
        count = f"{it.count('passed')} of {len(it.checks)}" if it.checks else "-"
        skipped = it.count("skipped")
        if skipped:
            count += f" ({skipped} not for it)"
        hows = ["; ".join([", ".join(_how(how)), how["lacks"]]) if "lacks" in how
                else ", ".join(_how(how)) for how in it.how.values()]  # fmt: skip
        when = clock_text(it.seconds) if it.seconds else "-"
        rows.append((it.provider, it.version, it.status, count, when, " | ".join(hows) or "-"))
    return table(rows)


def _how(how: Mapping[str, str]) -> list[str]:
    return [how[key] for key in ("form", "bus", "firmware", "data") if key in how]


def results_json(outcomes: Sequence[Outcome]) -> str:
    """The same for machines: a list of objects."""
    told = [
        {
            "provider": it.provider,
            "os": it.os_name,
            "version": it.version,
            "status": it.status,
            "path": str(it.directory),
            **as_record(it),
            "errors": [str(error) for error in it.errors],
        }
        for it in outcomes
    ]
    return json.dumps(told, indent=2, ensure_ascii=False)
