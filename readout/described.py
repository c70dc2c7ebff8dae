"""What a readout says of its design: the facts that readout.json lists, and how assignment happened in a sentence."""

from __future__ import annotations

from typing import Any

from readout import looks
from readout.estimands import estimand
from readout.evidence import Evidence
from readout.logs import Logs
from readout.samples import Blocks, Clusters, RowArms, Units
from readout.samples.base import NotDrawn
from readout.spec.model import Spec
from readout.text import duration, named


def design(evidence: Evidence) -> dict[str, Any]:
    """The ``design`` of readout.json."""
    spec = evidence.spec
    block = getattr(spec.design, "block", None)
    return {
        "kind": spec.design.kind,
        "estimand": estimand(spec),
        "method": evidence.sample.method,
        "unit": evidence.sample.unit,
        "n_units": dict(zip(evidence.arms, evidence.sample.counts(), strict=True)),
        "control": evidence.arms[0],
        "treatments": list(evidence.arms[1:]),
        "split": dict(spec.design.split) if spec.design.split is not None else None,
        "shared_state": spec.design.shared_state,
        "block": None if block is None else duration(block.length) or block.column,
        "washout": duration(getattr(spec.design, "washout", None)),
        **_compared_within(spec),
        **_schedule(evidence),
        **looks.design(evidence),
        **_pre_period(evidence.logs),
        **(evidence.sample.facts() if isinstance(evidence.sample, NotDrawn) else {}),
    }


def _compared_within(spec: Spec) -> dict[str, Any]:
    """The columns within whose levels arms are compared, where there are any."""
    found = {name: getattr(spec.design, name, None) for name in ("strata", "pairs")}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items() if value}


def _pre_period(logs: Logs) -> dict[str, Any]:
    if logs.before is None:
        return {}
    return {"pre_period": dict(zip(("start", "end"), (moment.isoformat() for moment in logs.before), strict=True))}


def assignment(evidence: Evidence) -> str:
    """How assignment happened, in one or two sentences."""
    if isinstance(evidence.sample, NotDrawn):
        return evidence.sample.assignment()
    counts = dict(zip(evidence.arms, evidence.assigned, strict=True))
    said = ", ".join(f"{n:,} to {named(arm)}" for arm, n in counts.items())
    if isinstance(evidence.sample, Blocks):
        if not evidence.logs.has("cluster"):
            how = "Blocks of time were assigned to the system as a whole"
        elif evidence.sample.together:
            how = "Blocks of time were assigned to all clusters together"
        else:
            how = "Blocks of time were assigned to each cluster on its own"
        return f"{how}. {evidence.sample.unit.capitalize()}s: {said}.{_washout(evidence.sample)}"
    if isinstance(evidence.sample, Clusters):
        return f"Clusters were assigned as wholes{evidence.sample.drawn}: {said}."
    shared = (
        "they share the capacity that the policy changes"
        if evidence.spec.design.shared_state
        else ("the spec states that they share nothing the policy changes")
    )
    drawn = evidence.sample.drawn if isinstance(evidence.sample, Units | RowArms) else ""
    return f"{evidence.sample.unit.capitalize()}s were assigned one by one{drawn}: {said}; {shared}."


def _schedule(evidence: Evidence) -> dict[str, Any]:
    """How a switchback's arms were drawn, and the file that says so."""
    if not isinstance(evidence.sample, Blocks):
        return {}
    return {"assignment": evidence.sample.assignment, "schedule": getattr(evidence.spec.design, "schedule", None)}


def _washout(sample: Blocks) -> str:
    if not sample.washout:
        return ""
    return (
        f" The first {duration(sample.washout)} of every block are left out, also of blocks that keep the arm before "
        "them and of those whose arm before is not known, so that every block keeps the same part of itself."
    )
