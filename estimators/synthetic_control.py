"""Synthetic control: the treated against the mix of untreated units that followed them best before the start.

Estimand: the mean effect on the treated units over the periods from the start on; several treated units are taken as
their mean. What must hold: without the treatment the mix, which followed the treated before the start, would have gone
on doing so, as where few common factors move all units and the fit before is close over many periods; no unit acts
before the start, and the treatment of some does not reach the others.

Sources: Abadie and Gardeazabal (2003), American Economic Review 93; Abadie, Diamond and Hainmueller (2010), Journal of
the American Statistical Association 105, equation 2 and section 3.4, with the outcomes of all periods before the start
as the only predictors, weighed alike; Abadie, Diamond and Hainmueller (2015), American Journal of Political Science 59,
for placebos in time and for leaving out one donor.

The interval inverts the rank of the mean gap over the error before the start, not that of the ratio of errors. The mean
gap less the mean effect is what it would be without treatment, whatever the effect's path; the ratio of errors tests
effects that are the same in all periods, and where they grow it may reject every one.
"""

from __future__ import annotations

import math
from typing import Any

from estimators.donors import Block, block
from estimators.estimate import Estimate
from estimators.inference import EstimationError, relative_to_seen
from estimators.panel import Panel
from estimators.placebos import Fit, Ranking, fit, rank
from estimators.simplex import is_unique


def synthetic_control(
    panel: Panel,
    *,
    alpha: float = 0.05,
    placebo_limit: float | None = None,
    draws: int = 999,
    seed: int = 0,
) -> Estimate:
    """Mean gap between the treated and their synthetic control from the start on.

    Args:
        panel: Units over periods without gaps, all of one start or never treated. Covariates and clusters are not used.
        alpha: Level; the interval is at ``1 - alpha``.
        placebo_limit: Leave out of the ranking placebos whose error before the start is more than so many times the
            treated's; None: none is left out.
        draws: Where several units are treated: how many sets of as many units are ranked, theirs counted; all sets
            where there are no more.
        seed: Of the draws.

    Returns:
        ``estimate``: the mean gap, in the outcome's unit. ``statistic``: root mean square gap after the start over that
        before; ``p_value``: the share of units (sets of units, where several are treated) that have one as large, the
        treated counted. The interval holds the mean effects that the rank of the mean gap over the error before the
        start does not reject; where ``1 / units > alpha`` none can be, and its ends are infinite. ``std_error``: root
        mean square of the placebos' mean gaps, of which the interval is not made; ``df``: infinite. ``control_value``:
        the synthetic control's mean from the start on; ``treatment_value``: the treated's. The relative effect's
        interval: either end over what it leaves to control. ``diagnostics``: ``donor_weights`` ``{unit: w}``,
        ``unique_weights``, ``treated`` (names), ``start``, ``pre_rmspe``, ``post_rmspe``, ``pre_sd`` (the treated's),
        ``gap`` ``[{period, gap, treated, synthetic}]``, ``interval`` (how it was found, in words),
        ``p_value_of_mean`` (of the interval's rank), ``constant_effect`` ``{ci_low, ci_high, rejected}`` (effects
        equal in all periods that the rank of the ratio does not reject), ``ranked`` (how many), ``exact``,
        ``placebos`` ``[{unit, pre_rmspe, post_rmspe, ratio, estimate, gap}]`` (one treated unit only; ``gap`` by
        period), ``dropped_placebos`` (names), ``placebo_in_time`` (see there) and ``leave_one_out`` ``{low, high,
        estimates {unit: estimate}}`` over the donors that have a weight.

    Raises:
        EstimationError: As ``donors.block`` and ``placebos.rank``; no placebo is left; options out of range.
    """
    if not 0.0 < alpha < 1.0:
        raise EstimationError(f"alpha must lie between 0 and 1, not {alpha!r}")
    if placebo_limit is not None and not placebo_limit > 0.0:
        raise EstimationError("the limit on the placebos' fit must be a positive number")
    if draws < 1:
        raise ValueError("draws must be at least 1")
    data = block(panel, "synthetic_control")
    everyone = rank(data, draws=draws, seed=seed)
    ranking, dropped = _limited(everyone, placebo_limit)
    ours = ranking.fits[0]
    low, high, how = _interval(ranking, len(data.treated) == 1, alpha)
    level = float(data.y[data.treated, data.start :].mean())
    relative = relative_to_seen(level, ours.mean, low, high)
    return Estimate(
        method="synthetic_control",
        estimate=ours.mean,
        std_error=ranking.spread(),
        df=math.inf,
        statistic=ours.ratio,
        p_value=ranking.p_value(),
        ci_low=low,
        ci_high=high,
        control_value=level - ours.mean,
        treatment_value=level,
        n_control=len(data.donors),
        n_treatment=len(data.treated),
        relative=relative.value,
        relative_ci_low=relative.low,
        relative_ci_high=relative.high,
        relative_reason=relative.reason,
        diagnostics={
            **_path(data, ours),
            "interval": how,
            "p_value_of_mean": ranking.p_value(of_mean=True),
            "constant_effect": _constant(ranking, alpha),
            "ranked": len(ranking.fits),
            "exact": ranking.exact,
            "placebos": _space(data, everyone) if len(data.treated) == 1 else [],
            "dropped_placebos": [data.names(f.rows) for f in dropped],
            "placebo_in_time": placebo_in_time(data, draws=draws, seed=seed),
            "leave_one_out": _leave_one_out(data, ours),
        },
    )


def placebo_in_time(data: Block, *, start: int | None = None, draws: int = 999, seed: int = 0) -> dict[str, Any] | None:
    """The same estimate on the periods before the start alone, as though treatment had begun earlier.

    Args:
        start: The earlier start; None: so that a third of the periods before the true one, or as many as stand after it
            where these are fewer, come after.

    Returns:
        ``start`` (its name), ``periods``, ``estimate``, ``pre_rmspe``, ``post_rmspe``, ``p_value``; None where fewer
        than four periods stand before the earlier start, or where the fit before it is perfect.
    """
    if start is None:
        start = data.start - max(1, min(data.y.shape[1] - data.start, data.start // 3))
    if not 4 <= start < data.start:
        return None
    y, periods = data.y[:, : data.start], data.periods[: data.start]
    earlier = Block(y, data.treated, data.donors, start, data.units, periods)
    try:
        ranking = rank(earlier, draws=draws, seed=seed)
    except EstimationError:
        return None
    ours = ranking.fits[0]
    return {
        "start": periods[start],
        "periods": data.start - start,
        "estimate": ours.mean,
        "pre_rmspe": ours.before,
        "post_rmspe": ours.after,
        "p_value": ranking.p_value(),
    }


def _limited(ranking: Ranking, limit: float | None) -> tuple[Ranking, list[Fit]]:
    """The ranking without placebos that fit too badly before the start."""
    if limit is None:
        return ranking, []
    most = limit * ranking.fits[0].before
    kept = (ranking.fits[0], *(f for f in ranking.fits[1:] if f.before <= most))
    if len(kept) < 2:
        raise EstimationError("no placebo fits well enough before the start to be ranked with the treated")
    return Ranking(kept, ranking.exact), [f for f in ranking.fits[1:] if f.before > most]


def _interval(ranking: Ranking, single: bool, alpha: float) -> tuple[float, float, str]:
    """Ends, and how they were found."""
    if 1.0 / len(ranking.fits) > alpha:
        return -math.inf, math.inf, f"none: 1/{'units' if single else 'assignments'} > alpha"
    low, high = ranking.interval(alpha, of_mean=True) or (-math.inf, math.inf)
    if math.isfinite(low) and math.isfinite(high):
        return low, high, "placebo ranks of the mean gap over the error before the start"
    return low, high, "unbounded: against these placebos effects of any size are possible"


def _constant(ranking: Ranking, alpha: float) -> dict[str, Any]:
    """Effects equal in all periods that the rank of the ratio does not reject; ends are None where infinite or none."""
    found = ranking.interval(alpha, of_mean=False)
    low, high = found or (math.nan, math.nan)
    return {
        "ci_low": low if math.isfinite(low) else None,
        "ci_high": high if math.isfinite(high) else None,
        "rejected": found is None,
    }


def _path(data: Block, ours: Fit) -> dict[str, Any]:
    """Weights, fit and gap of the treated's own synthetic control."""
    target = data.y[data.treated].mean(axis=0)
    rows = zip(data.periods, ours.gap.tolist(), target.tolist(), strict=True)
    before = slice(None, data.start)
    return {
        "treated": [data.units[i] for i in data.treated],
        "start": data.periods[data.start],
        "donor_weights": {data.units[i]: float(w) for i, w in zip(ours.donors, ours.weights, strict=True)},
        "unique_weights": is_unique(data.y[ours.donors, before].T, ours.weights),
        "pre_rmspe": ours.before,
        "post_rmspe": ours.after,
        "pre_sd": float(target[before].std()),
        "gap": [{"period": p, "gap": g, "treated": y, "synthetic": y - g} for p, g, y in rows],
    }


def _space(data: Block, ranking: Ranking) -> list[dict[str, Any]]:
    """What every untreated unit shows in the treated's place; a ratio is None where the fit before is perfect."""
    return [
        {
            "unit": data.names(f.rows),
            "pre_rmspe": f.before,
            "post_rmspe": f.after,
            "ratio": f.ratio if math.isfinite(f.ratio) else None,
            "estimate": f.mean,
            "gap": f.gap.tolist(),
        }
        for f in ranking.fits[1:]
    ]


def _leave_one_out(data: Block, ours: Fit) -> dict[str, Any] | None:
    """Estimates without one donor each, of those that have a weight; None with fewer than three donors."""
    if len(data.donors) < 3:
        return None
    used = data.donors[ours.weights > 0.0]
    estimates = {data.units[j]: fit(data, data.treated, data.donors[data.donors != j]).mean for j in used}
    return {"low": min(estimates.values()), "high": max(estimates.values()), "estimates": estimates}
