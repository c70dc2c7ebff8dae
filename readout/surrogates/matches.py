"""What the rules of the decision ask of the long run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from readout import long_run
from readout.evidence import Evidence
from readout.results import MetricResult
from readout.surrogates.judged import improves, judged
from readout.surrogates.summary import foretold

Standing = Literal["awaited", "harmed", "unclear", "fine"]
Found = tuple[str, str, str]
NAME = "long run"


def matches(
    evidence: Evidence, arm: int, results: Sequence[MetricResult], state: str, *, ramp_at_most: bool
) -> list[Found]:
    """What makes a rule on the long run fire: name, a few words, and a reason (empty: the metric's verdict).

    Args:
        results: Of the arm.
        state: ``harmed`` or ``unclear``: an outcome that is in is. Of outcomes that are not in yet: ``foretold``: past
            experiments foretell them, and the design may say ship; ``as_before``: they do in a design that may not, or
            mechanism and early behaviour move as in past experiments; ``awaited``: always.
        ramp_at_most: Whether the design says no more than ramp here.
    """
    if not long_run.metrics(evidence.spec):
        return []
    if state in ("harmed", "unclear"):
        short = {"harmed": "got worse", "unclear": "is not clear"}[state]
        mine = [m.metric for m in results if m.role == long_run.ROLE and _standing(evidence, m) == state]
        return [(name, f"{name} {short}", "") for name in mine]
    found = judged(evidence, arm)
    if not found.awaited:
        return []
    waiting = [f"{name} is {long_run.arrived(evidence, name).words}" for name in found.awaited]
    if found.holds:
        said = foretold(evidence, arm)
        return [] if state == "foretold" and ramp_at_most else [(NAME, said, line) for line in (*waiting, said)]
    unlike = [*improves(found, evidence, results), *found.unlike]
    if state == "foretold" or (state == "as_before" and unlike):
        return []
    gravest = f"surrogate risk: {found.faults[0]}"
    risk = [f"surrogate risk: {fault}" for fault in found.faults]
    beside = [f"no ramp: {said}" for said in unlike if said not in found.faults]
    return [(NAME, gravest, line) for line in (*waiting, *risk, *(beside if state == "awaited" else ()))]


def _standing(evidence: Evidence, m: MetricResult) -> Standing:
    """How a long-run outcome stands; harm inside a stated margin is accepted."""
    if long_run.arrived(evidence, m.metric).awaited:
        return "awaited"
    if m.verdict == "worse" and m.guardrail != "holds":
        return "harmed"
    settled = m.guardrail == "holds" if m.margin is not None else m.verdict in ("better", "no_effect", "worse")
    return "fine" if settled else "unclear"
