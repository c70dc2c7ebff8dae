"""Does the treatment drive the shared pool over its limit?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from estimators.estimate import Estimate
from estimators.inference import EstimationError
from estimators.proportions import binomial_upper, imbalance_p
from readout.capacity import FEW, Windows, windows_of
from readout.checks.base import percent
from readout.evidence import Evidence
from readout.memo.numbers import effect, number
from readout.results import Action, Check, Guardrail, Status
from readout.samples import Blocks, Clusters
from readout.spec.fields import Effect
from readout.spec.metrics import Metric
from readout.text import named, visible
from readout.verdicts import guardrail_of

NAME: Final = "capacity_limit"
FAMILY: Final = "capacity"
STATUS: dict[Guardrail, Status] = {"holds": "pass", "harmed": "fail", "inconclusive": "warn"}


@dataclass(frozen=True, slots=True)
class _Judged:
    status: Status
    message: str
    effect: Estimate | None


def capacity_limit(evidence: Evidence) -> Check:
    """The share of windows over the limit against control, judged as a guardrail is.

    Where windows over the limit are too few for the interval of the estimate, the share of randomized units with any
    bounds it: the upper end of Clopper and Pearson's (1934) interval, which holds however windows of a unit hang
    together, as at worst all of them are over the limit.
    """
    capacity = evidence.spec.capacity
    if capacity is None:
        return Check(NAME, FAMILY, "skip", "the spec states no capacity")
    if not isinstance(evidence.sample, Blocks | Clusters):
        message = "both arms draw on the same windows, so a rise in the share over the limit cannot be seen"
        return Check(NAME, FAMILY, "skip", f"{message}; switch or randomize whole clusters to see it")
    windows = windows_of(evidence)
    judged = {evidence.arms[arm]: _judge(windows, arm) for arm in evidence.treatments}
    worst = max((j.effect for j in judged.values() if j.effect), key=lambda e: e.ci_high, default=None)
    statistic, p_value, value = (
        (None, None, None) if worst is None else (worst.statistic, worst.p_value, worst.estimate)
    )
    by_arm = {arm: one.status for arm, one in judged.items()}
    status: Status = next(s for s in ("fail", "warn", "pass") if s in by_arm.values())
    action: Action | None = "rollback" if status == "fail" else None
    message = "; ".join(f"{named(arm)}: {one.message}" for arm, one in judged.items())
    about = f"share of windows with {visible(capacity.load, 60)} over {number(capacity.limit)}: "
    return Check(
        NAME, FAMILY, status, about + message, statistic, p_value, value, capacity.margin, action, {"by_arm": by_arm}
    )


def _judge(windows: Windows, arm: int) -> _Judged:
    margin = windows.capacity.margin
    estimate, why = None, ""
    try:
        estimate = windows.effect(windows.share_over(), arm)
    except EstimationError as error:
        why = str(error)
    (over_control, n_control), (over, n) = (windows.units(code) for code in (0, arm))
    if not (n_control and n):
        return _Judged("warn", "an arm has no window with a load", None)
    reading = None if estimate is None else guardrail_of(_as_guardrail(windows), estimate)
    alpha = windows.evidence.spec.decision.alpha
    # Windows over the limit in few units, and not in half of them, are too few for a t interval.
    if over + over_control < min(FEW, (n + n_control) / 2):
        unit = windows.evidence.sample.unit
        said = f"{over:,} of {n:,} {unit}s have one, {over_control:,} of {n_control:,} under control"
        if windows.evidence.sequential:
            return _Judged("warn", f"{said}; so few can be judged at a single look only", estimate)
        bound = binomial_upper(over, n, alpha)
        harmed = reading == "harmed" and imbalance_p(over_control, n_control, over, n) < alpha
        status: Status = "fail" if harmed else "pass" if bound < margin else "warn"
        said += f"; up to {percent(bound)} of them is not ruled out (margin {100 * margin:.6g} %)"
        return _Judged(status, said, estimate)
    if estimate is None or reading is None:
        return _Judged("warn", f"could not be estimated, {why}", None)
    values = f"{percent(estimate.treatment_value)} against {percent(estimate.control_value)}"
    ends = (100 * value for value in (estimate.estimate, estimate.ci_low, estimate.ci_high))
    said = f"{values}, a change of {effect(*ends)} points (margin {100 * margin:.6g})"
    return _Judged(STATUS[reading], said, estimate)


def _as_guardrail(windows: Windows) -> Metric:
    margin = Effect(windows.capacity.margin, False, f"{windows.capacity.margin:g}")
    return Metric(name=NAME, better="lower", role="guardrail", margin=margin)
