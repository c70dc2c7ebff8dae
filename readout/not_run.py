"""What a decision says of a policy that has not run: it is turned down, explored, or ramped into an unseen load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from readout.memo.numbers import count, percent
from readout.results import Check
from readout.spec.model import Spec
from readout.text import named

LOG = "Log every request as it is decided, with what the checks name, and read what is logged from then on."
DRAWN = (
    "Log with every request the probability with which what ran was drawn, as the router's version of that moment "
    "computed it."
)
# Why logs of another policy say nothing of what a shared queue does under this one.
UNSEEN = (
    "these logs were made under the queues of the logging policy, and a target that sends more to one fleet meets a "
    "queue that they never saw"
)
# Places of an exploration that a next step names; the diagnostics have them all.
NAMED = 3


def words(spec: Spec, checks: Sequence[Check]) -> dict[str, str]:
    """The placeholders of decision texts that read otherwise where nothing has run."""
    if spec.design.kind != "ope":
        return {
            "back": "Roll back", "keep": "Return traffic to", "log": LOG, "limited": "", "does": "does",
            "mend": "Look at what the failed check names, mend the design or collect more data, and read again.",
        }  # fmt: skip
    limited = f" {UNSEEN[0].upper()}{UNSEEN[1:]}: stay at 5 to 10 % until queues were watched at it."
    return {
        "back": "Do not roll out",
        "keep": "Keep",
        "log": _log(checks),
        "does": "would do",
        "mend": _mend(checks),
        "limited": limited if spec.design.shared_state else "",
    }


def _mend(checks: Sequence[Check]) -> str:
    """What to do where the weights or the model do not carry the value."""
    if any(c.status == "fail" and c.name == "weight_concentration" for c in checks):
        return (
            "Let the router draw the target's actions more often where it hardly does, or value a policy closer to the "
            "one that ran; then read again."
        )
    if any(c.status == "fail" and c.name == "left_out" for c in checks):
        return "Read the same logs by doubly_robust with whole weights (estimator: auto)."
    return "Look at what the failed check names, mend the design or collect more data, and read again."


def _log(checks: Sequence[Check]) -> str:
    """What to log next: the exploration that support lacks, and what other checks miss."""
    failed = [c for c in checks if c.status == "fail" and c.action == "instrument"]
    plan = [row for c in failed for row in c.details.get("exploration") or ()]
    drawn = [DRAWN] if any(c.name == "propensity_calibration" for c in failed) else []
    others = [LOG] if not failed or any(c.name not in ("support", "propensity_calibration") for c in failed) else []
    if not plan:
        return " ".join([*drawn, *others] or [LOG])
    said = "; ".join(_explored(row) for row in plan[:NAMED])
    more = f"; and {len(plan) - NAMED} more places, in diagnostics.exploration" if len(plan) > NAMED else ""
    return " ".join([f"Explore, by a logged draw: {said}{more}.", *drawn, *others])


def _explored(row: Mapping[str, Any]) -> str:
    """One place: where, which action, with what probability, for how many requests."""
    where = "" if row["where"] == "everywhere" else f" where {row['where']}"
    return (
        f"{named(row['action'])} with probability {percent(row['probability'])}{where}, for about "
        f"{count(row['requests'])} requests there"
    )
