"""The ladder from system to business: what each rung shows, and where the evidence ends."""

from __future__ import annotations

from typing import Any

from readout import long_run
from readout.evidence import Evidence
from readout.memo.words import VERDICT
from readout.results import MetricResult

RUNGS = ("system", "session", "user", "business")


def rungs(evidence: Evidence) -> list[tuple[str, str]]:
    """Rung and metric, from the lowest, as far as the spec names them."""
    named = {} if evidence.spec.surrogate is None else evidence.spec.surrogate.ladder
    return [(rung, named[rung]) for rung in RUNGS if rung in named]  # type: ignore[index]


def rows(evidence: Evidence, arm: int) -> list[dict[str, Any]]:
    """Each rung's effect; ``status`` is a verdict, ``not in yet``, ``partly in`` or ``not estimated``."""
    results = {m.metric: m for m in evidence.metrics if m.arm == evidence.arms[arm]}
    found = []
    for rung, metric in rungs(evidence):
        result = results[metric]
        numbers = ("estimate", "ci_low", "ci_high", "relative", "relative_ci_low", "relative_ci_high", "verdict")
        shown = {name: getattr(result, name) for name in numbers}
        found.append({"rung": rung, "metric": metric, **shown, "status": _status(evidence, result)})
    return found


def end(found: list[dict[str, Any]]) -> str:
    """Up to where the ladder shows something, in words."""
    if not found:
        return ""
    said: dict[str, list[str]] = {}
    for row in found:
        said.setdefault(_SAID.get(row["status"], row["status"]), []).append(row["rung"])
    parts = [f"{_joined(names)} {words}" for words, names in said.items()]
    moved = [row["rung"] for row in found if row["status"] in (VERDICT["better"], VERDICT["worse"])]
    last = f"the evidence ends at the {moved[-1]} rung" if moved else "no rung has moved"
    return f"{', '.join(parts)}: {last}"


def _joined(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


_SAID = {
    VERDICT["better"]: "got better",
    VERDICT["worse"]: "got worse",
    VERDICT["no_effect"]: "did not move",
    VERDICT["inconclusive"]: "not shown to move",
}


def _status(evidence: Evidence, result: MetricResult) -> str:
    if result.role == long_run.ROLE:
        arrived = long_run.arrived(evidence, result.metric)
        if arrived.awaited:
            return "not in yet" if arrived.absent else "only partly in"
    return "not estimated" if result.verdict is None else VERDICT[result.verdict]
