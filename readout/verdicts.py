"""From an interval to a verdict, as the contract defines them."""

from __future__ import annotations

from estimators.estimate import Estimate
from readout.results import Guardrail, Verdict
from readout.spec.fields import Effect
from readout.spec.metrics import Metric


def interval_on_scale(estimate: Estimate, effect: Effect) -> tuple[float, float, float] | None:
    """Point, low and high on the scale that ``effect`` is stated on; None where a relative effect has no meaning."""
    if not effect.relative:
        return estimate.estimate, estimate.ci_low, estimate.ci_high
    if estimate.relative is None or estimate.relative_ci_low is None or estimate.relative_ci_high is None:
        return None
    return estimate.relative, estimate.relative_ci_low, estimate.relative_ci_high


def verdict_of(metric: Metric, estimate: Estimate) -> Verdict:
    """``no_effect`` where the whole interval lies inside the minimum effect, even if it excludes zero."""
    if metric.minimum_effect is not None:
        on_scale = interval_on_scale(estimate, metric.minimum_effect)
        if on_scale is not None:
            size = metric.minimum_effect.value
            if -size < on_scale[1] and on_scale[2] < size:
                return "no_effect"
    if estimate.ci_low <= 0.0 <= estimate.ci_high:
        return "inconclusive"
    return "better" if (estimate.estimate > 0) == (metric.better == "higher") else "worse"


def guardrail_of(metric: Metric, estimate: Estimate) -> Guardrail | None:
    """Whether harm stays inside the margin; None where the metric states none and is no guardrail."""
    if metric.margin is None and metric.role != "guardrail":
        return None
    sign = -1.0 if metric.better == "higher" else 1.0
    excludes_zero = not estimate.ci_low <= 0.0 <= estimate.ci_high
    if metric.margin is None:
        # Without a margin a guardrail can only be harmed, or not be shown to be.
        harmed = excludes_zero and sign * estimate.estimate > 0
        return "harmed" if harmed else "holds" if excludes_zero else "inconclusive"
    on_scale = interval_on_scale(estimate, metric.margin)
    if on_scale is None:
        # Where even the interval's harmful end is no harm, no scale is needed.
        harm = estimate.ci_high if sign > 0 else -estimate.ci_low
        return "holds" if harm <= 0.0 else "inconclusive"
    point, low, high = on_scale
    harmful_end = high if sign > 0 else -low
    if harmful_end < metric.margin.value:
        return "holds"
    if excludes_zero and sign * point > metric.margin.value:
        return "harmed"
    return "inconclusive"


def inside_minimum_effect(metric: Metric, estimate: Estimate) -> bool:
    """Whether the point estimate is smaller than the smallest effect worth acting on."""
    if metric.minimum_effect is None:
        return False
    on_scale = interval_on_scale(estimate, metric.minimum_effect)
    return on_scale is not None and abs(on_scale[0]) < metric.minimum_effect.value
