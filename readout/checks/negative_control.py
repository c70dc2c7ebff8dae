"""Does the design find an effect where there can be none?"""

from __future__ import annotations

from estimators.inference import minimum_detectable_effect
from readout.evidence import Evidence
from readout.memo import numbers
from readout.results import Check, Family
from readout.samples.by_action import ByAction
from readout.spec.designs import Observational
from readout.spec.metrics import Metric
from readout.text import named

NAME = "placebo"
FAMILY: Family = "identification"


def placebo(evidence: Evidence) -> Check:
    """The effect on the negative control must include zero, Bonferroni over the arms."""
    design = evidence.spec.design
    assert isinstance(design, Observational)
    if design.negative_control is None:
        message = "no metric is named that the treatment cannot move (design.negative_control)"
        return Check(NAME, FAMILY, "skip", message)
    metric = evidence.spec.metrics[design.negative_control]
    if reason := _blind(evidence, metric):
        return Check(NAME, FAMILY, "skip", reason)
    alpha = evidence.spec.decision.alpha
    found = {arm: evidence.effect(metric.name, arm) for arm in evidence.treatments}
    seen = {arm: one for arm, one in found.items() if one is not None}
    if not seen:
        message = f"{metric.name} could not be estimated: {evidence.why_not(metric.name, 1)}"
        return Check(NAME, FAMILY, "skip", message)
    arm, worst = min(seen.items(), key=lambda pair: pair[1].p_value)
    p = min(1.0, len(seen) * worst.p_value)
    of = f" under {named(evidence.arms[arm])}" if len(found) > 1 else ""
    shown = numbers.effect(worst.estimate, worst.ci_low, worst.ci_high)
    values = (worst.statistic, p, p, alpha)
    if p < alpha:
        message = (
            f"{metric.name}, which the treatment cannot move, differs by {shown}{of}: what moves it was not adjusted "
            "for, and may move the other metrics too"
        )
        return Check(NAME, FAMILY, "fail", message, *values, "stronger_design")
    least = numbers.number(minimum_detectable_effect(worst.std_error, worst.df, alpha))
    message = (
        f"no effect on {metric.name}, which the treatment cannot move: {shown}{of}; one of {least} would have been seen"
    )
    return Check(NAME, FAMILY, "pass", f"{message} with a power of 80 %", *values)


def _blind(evidence: Evidence, metric: Metric) -> str:
    """Why the negative control could not show anything; empty where it could."""
    assert isinstance(evidence.sample, ByAction)
    used = evidence.sample.adjusted_for
    if metric.column is not None and metric.column in (*used.propensity, *used.outcome):
        return f"{metric.name} is adjusted for, so that its effect is zero whatever is not logged"
    return ""
