"""Is the instrument as good as random, and does it move the action?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from estimators.anderson_rubin import anderson_rubin
from estimators.inference import EstimationError
from estimators.instruments import is_binary, prepare
from readout.checks import assignment
from readout.checks.base import threshold
from readout.evidence import Evidence
from readout.memo.numbers import number
from readout.results import Check
from readout.samples.held import Vector
from readout.samples.instrumented import ByInstrument, Points
from readout.text import named, visible

FAMILY: Final = "identification"
# A p-value that is worth a word, not yet a failure.
SUSPICIOUS = 0.05
# The share of the action's variance from which on an instrument that was not seen to be drawn looks like its copy.
COPY = 0.95


@dataclass(frozen=True, slots=True)
class Moved:
    """A fact that the instrument goes with.

    Attributes:
        column: The log's column.
        level: What of it: the column, or one of its levels.
        before, after: Standardized difference between the instrument's two values (of others, the correlation with what
            they tell), and the same with adjusters taken out; None where nothing is adjusted for.
        p_value: Of its being the same at every value of the instrument, adjusters taken out.
        state: Whether it is live state.
    """

    column: str
    level: str
    before: float
    after: float | None
    p_value: float
    state: bool

    @property
    def size(self) -> float:
        """The standardized difference that the p-value is of."""
        return self.before if self.after is None else self.after


def srm(evidence: Evidence) -> Check:
    """Sample ratio of the assigned arm where that is the instrument: of units, of rows where units meet both arms."""
    sample = _sample(evidence)
    if not sample.read.arm:
        message = "the instrument is not the assigned arm, so no shares of it are known"
        return Check("srm", "assignment", "skip", message)
    return assignment.sample_ratio(evidence, sample.counts(), sample.held.drawn.by)


def covariate_balance(evidence: Evidence) -> Check:
    """What stood before the decision does not go with the instrument, once adjusters are taken out.

    P-values are adjusted for the number of columns and of their levels (Bonferroni). Live state may go with an
    instrument that was drawn once a unit, since earlier actions moved it: it warns only.
    """
    name, sample = "covariate_balance", _sample(evidence)
    facts = sample.facts_before()
    tested, left = _tested(sample)
    left = [*dict.fromkeys((*left, *facts.left_out, *_unfit(sample)))]
    untested = f"; not compared (one value, or text with many levels): {', '.join(visible(n, 60) for n in left)}"
    untested = untested if left else ""
    if not tested:
        adjusted = " that is not adjusted for" if sample.read.adjust else ""
        message = f"nothing from before the decision{adjusted} could be compared (logs.columns.features)"
        return Check(name, "balance", "skip", message + untested)
    limit = threshold(evidence.spec, name, 0.001)
    rows = [
        {"covariate": one.level, "before": one.before, "after": one.after, "p_value": one.p_value} for one in tested
    ]
    details = {"balance": rows}
    n = len(tested)
    drawn = [one for one in tested if not one.state and n * one.p_value < limit]
    worst = min(drawn or tested, key=lambda one: (one.p_value, -abs(one.size)))
    p = min(1.0, n * worst.p_value)
    numbers = (None, p, p, limit)
    said = f"{visible(worst.level, 60)} goes with the instrument"
    compared = f"{n} comparison{'s' * (n != 1)}"
    after = f"(standardized difference {worst.size:+.3f}, p = {p:.2g} after {compared}){untested}"
    if drawn:
        hint = "it is not as good as random; adjust for what it was drawn by (design.adjust)"
        message = f"{said} beyond chance {after}: {hint}"
        return Check(name, "balance", "fail", message, *numbers, "stronger_design", details)
    if p < SUSPICIOUS:
        why = ": earlier actions may have moved this state, or the instrument does so by itself" * worst.state
        return Check(name, "balance", "warn", f"{said} {after}{why}", *numbers, None, details)
    largest = max(tested, key=lambda one: abs(one.size))
    message = f"{compared}; largest standardized difference {abs(largest.size):.3f} ({visible(largest.level, 60)})"
    return Check(name, "balance", "pass", message + untested, *numbers, None, details)


def first_stage(evidence: Evidence) -> Check:
    """The instrument moves the action: the effective F of Montiel Olea and Pflueger (2013), by independent group."""
    name, sample = "first_stage", _sample(evidence)
    found: list[dict[str, Any]] = []
    for metric in evidence.spec.metrics.values():
        if metric.role != "primary":
            continue
        try:
            found.append(sample.first_stage(evidence.terms[metric.name]))
        except EstimationError as error:
            return Check(name, FAMILY, "fail", str(error), action="stronger_design")
    stage = min(found, key=lambda one: math.inf if one["first_stage_f"] is None else one["first_stage_f"])
    f, critical, limit = stage["first_stage_f"], stage["first_stage_f_critical"], sample.weak_below
    said = _moves(evidence, sample, stage)
    copied = _copies(sample)
    if f is None:
        said += ", to the letter"
        if copied:
            return Check(name, FAMILY, "warn", said + copied, threshold=limit)
        return Check(name, FAMILY, "pass", said, threshold=limit)
    said += f" (effective F {number(f)}, of {stage['groups']:,} {sample.unit}s)"
    numbers = (f, stage["first_stage"]["p_value"], f, limit)
    if f < limit:
        message = (
            f"{said}: below {limit:g}, the estimate leans towards the plain comparison of who was treated, and its t "
            "interval is too short; verdicts are read from Anderson and Rubin's set. About "
            f"{number(limit / max(f, 1e-3), 2)} times these {sample.unit}s, or an instrument that moves the action "
            f"more, would bring it to {limit:g}"
        )
        return Check(name, FAMILY, "fail", message, *numbers, "stronger_design")
    if _reversed(sample, stage):
        arm = named(evidence.spec.design.treatment[0])
        message = f"{said}: those assigned to {arm} are treated less often; are control and treatment exchanged?"
        return Check(name, FAMILY, "warn", message, *numbers)
    if copied:
        return Check(name, FAMILY, "warn", said + copied, *numbers)
    if critical is not None and f < critical:
        said += f"; below the critical {number(critical)}, so that verdicts are read from Anderson and Rubin's set"
    return Check(name, FAMILY, "pass", said, *numbers)


def _sample(evidence: Evidence) -> ByInstrument:
    assert isinstance(evidence.sample, ByInstrument)
    return evidence.sample


def _moves(evidence: Evidence, sample: ByInstrument, stage: dict[str, Any]) -> str:
    """How far the instrument moves the action, in words."""
    slope = stage["first_stage"]["estimate"]
    if isinstance(slope, list):
        return f"{len(slope)} instruments move the action"
    of = visible(sample.held.z.names[0], 60)
    of = of if is_binary(sample.held.z.x[:, 0]) else f"one unit of {of}"
    if sample.read.amount:
        return f"{of} moves the action by {number(slope, 3, True)}"
    action = named(evidence.spec.design.treatment[0])
    if sample.read.arm:
        return f"assignment moves the share on which {action} runs by {number(100 * slope, 3, True)} points"
    return f"{of} moves the share on which {action} runs by {number(100 * slope, 3, True)} points"


def _copies(sample: ByInstrument) -> str:
    """What to think of instruments that all but decide the action, in words; empty where they do not.

    The assigned arm, and a choice whose probabilities are known, may decide it: those were drawn.
    """
    if sample.read.arm or sample.read.chosen:
        return ""
    taken = sample.held.taken
    if float(_told(sample.held.z.x, taken).var()) < COPY * float(taken.var()):
        return ""
    return (
        ": it all but decides the action, as would the action under another name; unless chance drew it, the estimate "
        "is the plain comparison of who was treated"
    )


def _reversed(sample: ByInstrument, stage: dict[str, Any]) -> bool:
    slope = stage["first_stage"]["estimate"]
    return sample.read.arm and not isinstance(slope, list) and slope < 0.0


def _tested(sample: ByInstrument) -> tuple[list[Moved], list[str]]:
    """Facts that are not adjusted for, and the names of those that could not be tested."""
    held, facts = sample.held, sample.facts_before()
    state = set(sample._logs.columns.get("state", ()))
    points = Points(held.taken, None, held.taken, held.z.x, held.x, held.group.codes)
    how = sample.how(points)
    z = _told(held.z.x, held.taken)
    found, left = [], []
    for j, column in enumerate(facts.column):
        if column in sample.read.adjust:
            continue
        values = facts.x[:, j]
        try:
            data = prepare(values, values, held.z.x, covariates=held.x, **how)
            p = anderson_rubin(data, 0.0).p_value
        except EstimationError:
            left.append(facts.names[j])
            continue
        before = _standardized(values, z)
        after = None
        if held.x is not None:
            after = _standardized(data.y, data.without_covariates(z)) if not is_binary(z) else _slope(data, z, values)
        found.append(Moved(column, facts.names[j], before, after, p, column in state))
    return found, left


def _told(z: Any, taken: Vector) -> Vector:
    """A single instrument, or of several what they tell of the action."""
    if z.shape[1] == 1:
        return np.asarray(z[:, 0], dtype=np.float64)
    design = np.column_stack([np.ones(len(z)), z])
    return np.asarray(design @ np.linalg.lstsq(design, taken, rcond=None)[0], dtype=np.float64)


def _standardized(values: Vector, z: Vector) -> float:
    """Standardized difference of means between the two values of ``z``; else the correlation."""
    if is_binary(z):
        one, other = values[z == 1.0], values[z == 0.0]
        spread = math.sqrt((float(one.var()) + float(other.var())) / 2.0)
        gap = float(one.mean() - other.mean())
        return gap / spread if spread > 0.0 else math.copysign(1.0, gap) * float(gap != 0.0)
    spread = float(values.std() * z.std())
    return float(((values - values.mean()) * (z - z.mean())).mean()) / spread if spread > 0.0 else 0.0


def _slope(data: Any, z: Vector, values: Vector) -> float:
    """The fact's difference between the two values of ``z`` with adjusters taken out, in standard deviations."""
    own = data.without_covariates(z)
    spread = float(values.std())
    return float(own @ data.y) / float(own @ own) / spread if spread > 0.0 else 0.0


def _unfit(sample: ByInstrument) -> list[str]:
    """Columns known from before the decision that are no numbers, flags or groups."""
    facts = sample.facts_before()
    compared = {*facts.column, *facts.left_out}
    return [name for name in sample.read.known if name not in compared]


__all__ = ["covariate_balance", "first_stage", "srm"]
