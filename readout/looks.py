"""What the memo says of sequential looks and of who is not in the estimates yet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from readout.evidence import Evidence
from readout.memo import numbers
from readout.text import duration, named

PAPER = "Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas (2024), Annals of Statistics 52(6)"
# Beyond this factor between tuning and sample the interval is clearly wider than it could be.
FAR = 5.0


def design(evidence: Evidence) -> dict[str, Any]:
    """What ``design`` of readout.json says of looks and exposure; nothing where the spec says nothing."""
    decision, found = evidence.spec.decision, {}
    if evidence.sequential:
        found = {"looks": "sequential", "tuning": decision.tuning}
    if decision.exposure is not None:
        found["exposure"] = duration(decision.exposure)
    if evidence.until is not None:
        found["observed_until"] = evidence.until.isoformat()
    return found


def notes(evidence: Evidence) -> Iterator[str]:
    """Method, paper, tuning and who is waited for."""
    decision, unit = evidence.spec.decision, evidence.sample.unit
    waiting = [a - n for a, n in zip(evidence.assigned, evidence.sample.counts(), strict=True)]
    if evidence.until is not None and any(waiting):
        said = ", ".join(f"{named(arm)} {numbers.count(n)}" for arm, n in zip(evidence.arms, waiting, strict=True))
        yield f"{unit}s assigned that are not in the estimates (incomplete, or seen in several arms): {said}"
    if not evidence.sequential:
        return
    yield (
        f"intervals, p-values and verdicts hold at every look together: asymptotic confidence sequences, {PAPER}; "
        "with few blocks or clusters the boundary is carried over from the normal's tail to Student's t"
    )
    n, tuning = sum(evidence.sample.counts()), decision.tuning
    yield f"detectable effects are those that an always-valid interval finds at {n:,} {unit}s with 80 % power"
    if not tuning / FAR <= n <= tuning * FAR:
        yield (
            f"always-valid intervals are narrowest near decision.tuning, {tuning:,.0f} {unit}s, and {n:,} are in: for "
            "the next experiment state the number at which the decision is expected, before the first look"
        )
