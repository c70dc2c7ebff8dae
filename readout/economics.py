"""Net value: what requests are worth less what they cost, one value a unit so that their covariance counts."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from typing import Any

import polars as pl

from estimators.estimate import Estimate
from estimators.inference import EstimationError
from readout.errors import SpecError
from readout.evidence import Evidence
from readout.logs import Logs
from readout.reduce import pilot
from readout.results import Action, Check, Status
from readout.spec.model import Spec
from readout.spec.segments import GPU_SECONDS
from readout.terms import Term, eligible_only
from readout.text import named

NET, VALUE, COST = "@net value", "@value", "@cost"
PER = 1000.0


def terms(spec: Spec, logs: Logs, metrics: Mapping[str, Term]) -> list[Term]:
    """Net value, value and cost over requests.

    Raises:
        SpecError: A value or cost that is not a mean over rows.
        LogError: A cost column that is missing or not numeric.
    """
    if spec.economics is None:
        return []
    mask = eligible_only(spec, logs)
    zero = pl.lit(0.0)
    value = (
        zero
        if spec.economics.value is None
        else _of_metric(spec, "value", spec.economics.value.metric, metrics) * spec.economics.value.usd
    )
    cost = zero
    if spec.economics.cost is not None:
        given = spec.economics.cost
        column = (
            _of_metric(spec, "cost", given.metric, metrics)
            if given.metric is not None
            else mask(logs.expressions.number(str(given.column), ("economics", "cost", "column"))).cast(pl.Float64)
        )
        cost = column * given.usd
    known = value.is_not_null() & cost.is_not_null()
    requests = mask(pl.when(known).then(_first_attempt(spec, logs)))
    return [
        Term(NET, mask(pl.when(known).then(value - cost)), requests),
        Term(VALUE, mask(pl.when(known).then(value)), requests),
        Term(COST, mask(pl.when(known).then(cost)), requests),
    ]


def economic_bar(evidence: Evidence) -> Check:
    """Net value against control, per thousand requests, over the bar."""
    economics = evidence.spec.economics
    if economics is None:
        return Check("economic_bar", "economics", "skip", "the spec states no economics")
    bar = 0.0 if economics.bar is None else economics.bar.net_usd_per_1k_requests
    if evidence.spec.decision.frame == "target" and evidence.segments.results:
        return _by_segment(evidence, bar)
    said: list[str] = []
    by_arm: dict[str, Status] = {}
    worst: Estimate | None = None
    for arm in evidence.treatments:
        label, effect = evidence.arms[arm], evidence.effect(NET, arm)
        if effect is None:
            said.append(f"{named(label)}: net value could not be estimated, {evidence.why_not(NET, arm)}")
            by_arm[label] = "warn"
            continue
        low, high = PER * effect.ci_low, PER * effect.ci_high
        ends = f"[{low:.3g}, {high:.3g}]" if math.isfinite(low) and math.isfinite(high) else "(no interval)"
        net = f"net {PER * effect.estimate:+.3g} {ends} USD per 1,000 requests"
        said.append(f"{named(label)}: {net}, bar {bar:g}")
        by_arm[label] = "fail" if high < bar else "warn" if low < bar else "pass"
        if worst is None or effect.ci_low < worst.ci_low:
            worst = effect
    # Against the bar, not against zero: the test of net value is beside it in the interval.
    numbers = (None, None, None if worst is None else PER * worst.estimate, bar)
    status: Status = next(s for s in ("fail", "warn", "pass") if s in by_arm.values())
    action: Action | None = "rollback" if status == "fail" else None
    return Check("economic_bar", "economics", status, "; ".join(said), *numbers, action, {"by_arm": by_arm})


def _by_segment(evidence: Evidence, bar: float) -> Check:
    """The bar where a decision is by segment: passed where a level that clears it can be targeted, or by the average
    too; failed where every level lies below it. A level that clears it and cannot be targeted carries nobody else."""
    from readout.segments.targeting import clearing

    said: list[str] = []
    by_arm: dict[str, Status] = {}
    best: float | None = None
    for arm in evidence.treatments:
        label, average = evidence.arms[arm], evidence.effect(NET, arm)
        rows = {one.said: one for one in evidence.segments.results if one.result.arm == label and not one.descriptive}
        known = [one for one in rows.values() if one.net_low is not None and one.net_high is not None]
        clear = [one.said for one in known if (one.net_low or 0.0) > bar]
        below = [one.said for one in known if (one.net_high or 0.0) < bar]
        enough = clearing(evidence, arm) or (average is not None and PER * average.ci_low >= bar)
        lost = known and len(below) == len(rows)
        by_arm[label] = "pass" if clear and enough else "fail" if lost else "warn"
        of = f"of {len(rows)} levels" if rows else "no level could be read"
        said.append(f"{named(label)}: {len(clear)} {of} above the bar of {bar:g}, {len(below)} below it")
        lows = [one.net_low for one in known if one.net_low is not None]
        best = max([*lows, *([] if best is None else [best])], default=None)
    status: Status = next(s for s in ("fail", "warn", "pass") if s in by_arm.values())
    action: Action | None = "rollback" if status == "fail" else None
    message = "judged by segment, intervals for all levels at once; " + "; ".join(said)
    numbers = (None, None, best, bar)
    return Check("economic_bar", "economics", status, message, *numbers, action, {"by_arm": by_arm})


def summary(evidence: Evidence) -> dict[str, Any] | None:
    """The ``economics`` of readout.json; per-arm figures are sums over the rows that the estimate uses."""
    economics = evidence.spec.economics
    if economics is None:
        return None
    per_arm: dict[str, dict[str, float | None]] = {}
    gpu_hours: dict[str, float] = {}
    totals = {arm: _totals(evidence, code) for code, arm in enumerate(evidence.arms)}
    for arm, (value, cost, requests) in totals.items():
        per_arm[arm] = {
            "value_usd": value,
            "cost_usd": cost,
            "requests": requests,
            "net_usd_per_1k_requests": PER * (value - cost) / requests if requests else None,
        }
        if economics.cost is not None and economics.cost.usd and GPU_SECONDS.search(economics.cost.column or ""):
            gpu_hours[arm] = cost / economics.cost.usd / 3600
    first = evidence.arms[1]
    effect = evidence.effect(NET, 1)
    ends = (None, None, None) if effect is None else (effect.estimate, effect.ci_low, effect.ci_high)
    net = {n: None if v is None else PER * v for n, v in zip(("estimate", "ci_low", "ci_high"), ends, strict=True)}
    successes = _successes(evidence)
    margin = {arm: (value - cost) / value for arm, (value, cost, _) in totals.items() if value}
    return {
        "value_per_gpu_hour": totals[first][0] / gpu_hours[first] if gpu_hours.get(first) else None,
        "cost_per_success": {arm: totals[arm][1] / n for arm, n in successes.items() if n} or None,
        "margin": margin or None,
        "net_usd_per_1k_requests": net,
        "bar": 0.0 if economics.bar is None else economics.bar.net_usd_per_1k_requests,
        "per_arm": per_arm,
    }


def _successes(evidence: Evidence) -> dict[str, float]:
    """Successful requests by arm: the sum of the metric named ``success``, else of the one that has a value."""
    assert evidence.spec.economics is not None
    valued = evidence.spec.economics.value
    names = ["success", *([] if valued is None else [valued.metric])]
    terms = [evidence.terms[n] for n in names if n in evidence.spec.metrics]
    plain = next((t for t in terms if t.den is None and t.quantile is None), None)
    found = {}
    for code, arm in enumerate(evidence.arms):
        with contextlib.suppress(EstimationError):
            if plain is not None:
                found[arm] = evidence.sample.arm_total(plain, code)[0]
    return found


def _totals(evidence: Evidence, arm: int) -> tuple[float, float, float]:
    """Value, cost and requests of an arm; zeros where no row of it has both."""
    try:
        value, requests = evidence.sample.arm_total(evidence.terms[VALUE], arm)
        cost, _ = evidence.sample.arm_total(evidence.terms[COST], arm)
    except EstimationError:
        return 0.0, 0.0, 0.0
    return value, cost, requests


def _of_metric(spec: Spec, what: str, name: str | None, metrics: Mapping[str, Term]) -> pl.Expr:
    term = metrics[str(name)]
    if term.den is not None or term.quantile is not None:
        hint = "name a metric with a column or an expr"
        message = f"{name!r} is a ratio or a quantile and has no value per request"
        raise SpecError([spec.source.problem(("economics", what, "metric"), message, hint)])
    # Outside the metric's own rows the value is nothing; where it should be known and is not, it is unknown.
    missing = pl.lit(False) if term.missing is None else term.missing.fill_null(False)
    return pl.when(~missing).then(term.num.fill_null(0)).cast(pl.Float64)


def _first_attempt(spec: Spec, logs: Logs) -> pl.Expr:
    """One for every request: where a request id stands on several rows, its retries do not count."""
    one = pl.lit(1, dtype=pl.Int64)
    if not (logs.has("request") and logs.has("retries")):
        return one
    ids = pl.col("@request")
    seen = pilot(logs.frame, [(ids.drop_nulls().len() > ids.drop_nulls().n_unique()).alias("again")], logs.source.rows)
    if not seen["again"].any():
        return one
    return (pl.col("@retries").fill_null(0) == 0).cast(pl.Int64)
