"""What ``readout check`` says, for a program, a page or a CI run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from readout.results import Check

if TYPE_CHECKING:
    from readout.pipeline import CheckReport

_LEVELS = {"fail": "error", "warn": "warning"}
_ORDER = ("fail", "warn", "skip", "pass")


def shown(report: CheckReport, output_format: str) -> str:
    """The report as ``readout-check/1`` JSON, a Markdown table or GitHub annotations."""
    if output_format == "json":
        return _json(report)
    if output_format == "markdown":
        return _markdown(report)
    return "\n".join(_annotations(report))


def _json(report: CheckReport) -> str:
    from readout.memo.document import plain

    content = {
        "schema": "readout-check/1",
        "name": report.name,
        "failed": report.failed,
        "rows": asdict(report.rows),
        "checks": [_fields(check) for check in report.checks],
        "notes": list(report.notes),
    }
    return json.dumps(plain(content), indent=2, allow_nan=False)


def _fields(check: Check) -> dict[str, Any]:
    return {name: value for name, value in asdict(check).items() if name != "short"}


def _markdown(report: CheckReport) -> str:
    from readout.memo.escape import markdown

    head = [f"# Checks of {markdown(report.name)}", "", f"{report.rows.kept} of {report.rows.read} rows kept.", ""]
    table = ["| check | status | what was found |", "| --- | --- | --- |"]
    table += [f"| {markdown(c.name)} | {c.status} | {markdown(c.message)} |" for c in _by_weight(report.checks)]
    notes = ["", *(f"- {markdown(note)}" for note in report.notes)] if report.notes else []
    return "\n".join(head + table + notes)


def _annotations(report: CheckReport) -> list[str]:
    from readout.memo.escape import workflow_message, workflow_property

    found = [check for check in _by_weight(report.checks) if check.status in _LEVELS]
    told = {"fail": "failed", "warn": "warns"}
    lines = [
        f"::{_LEVELS[check.status]} title={workflow_property(f'Check {check.name} {told[check.status]}')}"
        f"::{workflow_message(check.message)}"
        for check in found
    ]
    return lines or [f"::notice title={workflow_property(report.name)}::No check failed and none warns."]


def _by_weight(checks: Sequence[Check]) -> list[Check]:
    return sorted(checks, key=lambda check: _ORDER.index(check.status))
