"""Difference in differences: did units move apart before their rollout?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from estimators.inference import EstimationError
from estimators.relative_magnitudes import Breakdown, breakdown
from estimators.trend_test import TrendTest, trend_test
from readout.checks.base import percent, threshold
from readout.evidence import Evidence
from readout.memo.numbers import number
from readout.results import Check
from readout.samples.rollouts import Rollouts
from readout.spec.metrics import Metric

# A pre-trend test that misses a trend as large as the effect itself more often than not says nothing by passing.
POWER, EVEN = 0.8, 0.5
# Beyond so many event times the breakdown value would take minutes.
MOST_TIMES = 80
# It takes errors as known and normal, which they are not with fewer degrees of freedom.
LEAST_DF = 10.0


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the time before the rollout shows of one metric.

    Attributes:
        would_do: The straight trend that alone would make an effect of the larger of the estimate and the minimum
            effect.
        power: Chance that the test finds that trend.
        farthest: The event time before the rollout whose effect is most errors from zero, and that effect.
    """

    metric: Metric
    test: TrendTest
    would_do: float
    power: float
    farthest: tuple[int, float]


def pre_trend(evidence: Evidence) -> Check:
    """Treated and untreated units moved alike before the rollout, and the test could have seen otherwise."""
    name, sample = "pre_trend", evidence.sample
    assert isinstance(sample, Rollouts)
    primaries = [m for m in evidence.spec.metrics.values() if m.role == "primary"]
    limit = threshold(evidence.spec, name, 0.05) / len(primaries)
    seen, unseen = [], []
    for metric in primaries:
        try:
            seen.append(_look(evidence, sample, metric))
        except EstimationError as error:
            unseen.append(f"{metric.name}: {error}")
    details: dict[str, Any] = {"pre_trend": [_shown(one) for one in seen]} if seen else {}
    details |= _breakdowns(evidence, sample, [one.metric for one in seen])
    if not seen:
        return Check(name, "identification", "skip", "; ".join(unseen), threshold=limit, details=details)
    worst = min(seen, key=lambda one: one.test.p_value)
    numbers = (worst.test.statistic, worst.test.p_value, worst.test.p_value, limit)
    message = "; ".join([*(_said(evidence, one, limit) for one in seen), *unseen])
    if worst.test.p_value < limit:
        return Check(name, "identification", "fail", message, *numbers, "stronger_design", details)
    warns = unseen or any(one.power < EVEN for one in seen)
    return Check(name, "identification", "warn" if warns else "pass", message, *numbers, details=details)


def _look(evidence: Evidence, sample: Rollouts, metric: Metric) -> _Seen:
    """The test of one metric, and its power against what would explain the effect away.

    Raises:
        EstimationError: Too few periods or units.
    """
    term = evidence.terms[metric.name]
    effects = sample.by_event_time(term)
    found = trend_test(effects, alpha=threshold(evidence.spec, "pre_trend", 0.05))
    effect = evidence.effect(metric.name, 1)
    if effect is None:
        raise EstimationError(evidence.why_not(metric.name, 1))
    least = metric.minimum_effect
    smallest = 0.0 if least is None else least.value * (abs(effect.control_value) if least.relative else 1.0)
    would_do = max(abs(effect.estimate), smallest) / sample.reach(term)
    before = effects.before()
    most = int(abs(before.estimates / before.std_errors).argmax())
    farthest = (int(before.keys[most]), float(before.estimates[most]))
    return _Seen(metric, found, would_do, found.power(would_do), farthest)


def _said(evidence: Evidence, one: _Seen, limit: float) -> str:
    test, name = one.test, one.metric.name
    what = f"{test.df} period{'s' * (test.df != 1)} before the rollout" if test.kind == "joint" else "a straight trend"
    p = f"p = {test.p_value:.2g}"
    trend = f"a trend of {number(test.detectable(POWER))} a period would have been seen with {percent(POWER)}"
    if test.p_value < limit:
        moved = f"{number(test.slope, 3, True)} a period on average"
        if test.kind == "joint" and test.df > 1:
            moved += f", and {number(one.farthest[1], 3, True)} at event time {one.farthest[0]}"
        return f"{name} moved apart before the rollout ({what}, {p}): {moved}, where parallel trends ask for none"
    made = f"one that makes an effect of that size by itself is {number(one.would_do)} a period"
    passed = f"{name} shows no trend before the rollout ({what}, {p}); {trend}; {made}"
    if one.power < EVEN:
        return f"{passed}, which this test would find in {percent(one.power)} of cases only: passing says little"
    return f"{passed} (found in {percent(one.power)})"


def _shown(one: _Seen) -> dict[str, Any]:
    test = one.test
    return {
        "metric": one.metric.name,
        "test": test.kind,
        "statistic": test.statistic,
        "df": test.df,
        "df_error": test.df_error,
        "p_value": test.p_value,
        "slope": test.slope,
        "slope_std_error": test.std_error,
        "slope_seen_80": test.detectable(POWER),
        "slope_that_explains": one.would_do,
        "power_against_it": one.power,
    }


def _breakdowns(evidence: Evidence, sample: Rollouts, metrics: list[Metric]) -> dict[str, Any]:
    """How far trends may part before the interval reaches zero, for each primary."""
    rows = []
    for metric in metrics:
        row: dict[str, Any] = {"metric": metric.name, "value": None, "beyond": None, "reason": ""}
        try:
            found = _breakdown(evidence, sample, metric)
            row |= {"value": found.value, "beyond": found.beyond}
        except EstimationError as error:
            row["reason"] = str(error)
        rows.append(row)
    return {"breakdown": rows} if rows else {}


def _breakdown(evidence: Evidence, sample: Rollouts, metric: Metric) -> Breakdown:
    term = evidence.terms[metric.name]
    effects = sample.by_event_time(term)
    if len(effects.keys) > MOST_TIMES:
        raise EstimationError(f"not computed over {len(effects.keys)} periods around the rollout; take a longer period")
    df = float(effects.without_reference().df.min())
    if df < LEAST_DF:
        raise EstimationError(f"it takes errors for known, and few units tell them badly ({df:.2g} degrees of freedom)")
    _, weights = sample.event_weights(term)
    return breakdown(effects, weights=weights, alpha=evidence.spec.decision.alpha, seed=0)
