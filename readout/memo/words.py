"""The words that people read for the codes in a readout, and the order in which things are shown."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from readout.memo.numbers import DASH
from readout.results import Action, Check, Decision, Guardrail, MetricResult, Readout, Status, Verdict
from readout.text import named

ACTION: Final[dict[Action, str]] = {
    "ship": "Ship",
    "ramp": "Ramp in steps",
    "target": "Ship to a segment",
    "holdout": "Ship with a holdout",
    "pause": "Pause the experiment",
    "rollback": "Roll back",
    "instrument": "Instrument more",
    "stronger_design": "Run a stronger design",
}
VERDICT: Final[dict[Verdict, str]] = {
    "better": "better",
    "worse": "worse",
    "no_effect": "no effect",
    "inconclusive": "inconclusive",
}
TURNED_DOWN: Final = "Do not roll out"
GUARDRAIL: Final[dict[Guardrail, str]] = {"holds": "holds", "harmed": "harmed", "inconclusive": "not shown safe"}
_ESTIMAND: Final = {
    "ate": "average effect of treating all of the traffic rather than none (ATE)",
    "att": "average effect on what was treated (ATT)",
    "itt": "average effect of being assigned, whatever was executed (ITT)",
    "late": "average effect on those whom the instrument moved (LATE)",
    "local": "average effect at the cutoff",
    "policy_value": "value of the target policy less that of the logging policy, per request of these logs",
    "overlap": "average effect where both actions were likely (overlap-weighted)",
}

_ROLES = ("primary", "guardrail", "secondary", "mechanism", "surrogate", "long_run")
_STATUSES: tuple[Status, ...] = ("fail", "warn", "skip", "pass")
# Failures of these families put the effects themselves in doubt; the others speak about what the effects are worth.
_VALIDITY = frozenset({"logging", "assignment", "execution", "balance", "spillover", "identification"})
# What is not logged leaves the comparison of randomized arms as it is and withholds why it came about; what cannot be
# foretold of the long run leaves the short run as it is.
_BESIDE = frozenset({"required_fields", "surrogate_evidence"})


def by_role(metrics: Iterable[MetricResult]) -> list[MetricResult]:
    """Primary first, then guardrails, then the rest; within a role the spec's order, a metric's arms together."""
    given = list(metrics)
    first = {name: i for i, name in reversed(list(enumerate(m.metric for m in given)))}
    return sorted(given, key=lambda m: (_ROLES.index(m.role) if m.role in _ROLES else len(_ROLES), first[m.metric]))


def by_status(checks: Iterable[Check]) -> list[Check]:
    """Failed checks first, then warned, skipped and passed."""
    return sorted(checks, key=lambda c: _STATUSES.index(c.status))


def several_arms(readout: Readout) -> bool:
    """Whether more than one treatment arm is reported."""
    treatments = readout.design.get("treatments") or ()
    return len(treatments) > 1 or len({m.arm for m in readout.metrics}) > 1


def undermining(readout: Readout) -> list[Check]:
    """The failed checks that put the effects in doubt."""
    return [c for c in readout.checks if c.status == "fail" and c.family in _VALIDITY and c.name not in _BESIDE]


def estimand(code: str) -> str:
    """An estimand in words, with its usual abbreviation; a code not known here stays as it is."""
    return _ESTIMAND.get(code.lower(), code)


def intervals(readout: Readout) -> str:
    """What the effects' intervals are."""
    return "always-valid intervals" if readout.design.get("looks") == "sequential" else "intervals"


def estimated(metrics: Iterable[MetricResult]) -> bool:
    """Whether any effect has a number."""
    return any(m.estimate is not None for m in metrics)


def opening(decision: Decision) -> tuple[str, str]:
    """The decision's action in plain words, to be set off, and the rest of the headline.

    A headline that opens with the action itself ("Roll back premium: a trigger fired.") is parted at its colon, so
    that the action is not said twice.
    """
    action = ACTION[decision.action]
    if decision.action == "rollback" and decision.headline.startswith(TURNED_DOWN):
        action = TURNED_DOWN  # what has not run cannot be rolled back
    # An arm's label may hold a colon itself.
    label = named(decision.treatment)
    before, found, after = decision.headline.partition(label)
    held = before + found if found and ": " not in before else ""
    lead, colon, rest = (after if held else decision.headline).partition(": ")
    lead = held + lead
    if colon and lead.split(" ")[0].lower() == action.split(" ")[0].lower():
        return f"{lead}:", rest
    return f"{action}.", decision.headline


def verdict(metric: MetricResult) -> str:
    """The verdict in words, a dash where it is withheld."""
    return DASH if metric.verdict is None else VERDICT[metric.verdict]


def guardrail(metric: MetricResult) -> str:
    """How a guardrail is to be read, in words that claim no more than was shown."""
    if metric.guardrail is not None:
        return GUARDRAIL[metric.guardrail]
    return "not read" if metric.margin is not None or metric.estimate is None else "no margin given"


def moment(text: str | None) -> str:
    """A point in time as ``2026-10-05 00:00 UTC``; text that is no timestamp stays as it is."""
    if text is None:
        return DASH
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        return text
    if "T" not in text and " " not in text:
        return text
    if parsed.tzinfo is None:
        return f"{parsed:%Y-%m-%d %H:%M}"
    return f"{parsed.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def window(readout: Readout) -> str:
    """The readout's window as text."""
    start, end, first, last = (readout.window.get(key) for key in ("start", "end", "first", "last"))
    begin = moment(start) if start else _seen("the first row", first)
    until = moment(end) if end else _seen("the last row", last)
    if start is None and end is None:
        return "all rows of the logs" + (f", {moment(first)} to {moment(last)}" if first and last else "")
    return f"{begin} to {until}"


def _seen(end: str, at: str | None) -> str:
    return f"{end} ({moment(at)})" if at else end
