"""Difference in differences with staggered starts: cohorts' effects over time, averaged with weights that are known.

Estimand: an average of ``ATT(g, t)``, the effects on cohort ``g`` in period ``t``; by default over all treated
cohort-periods, each weighed by its cohort's units. Identified as ``group_time`` says: parallel trends against units not
treated, no anticipation, controls whose outcome treatment does not reach. Source: Callaway and Sant'Anna (2021),
*Difference-in-differences with multiple time periods*, section 3 (aggregates), theorem 3 and its corollaries (influence
functions, those of the estimated weights included), algorithm 1 (simultaneous bands).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from estimators.estimate import Estimate
from estimators.event_effects import Effects, beyond_rounding, cohort_df, relative_to_untreated
from estimators.group_time import GroupTime, group_time
from estimators.inference import finish
from estimators.panel import Codes, Matrix, Panel, Vector, group_sums

AGGREGATES = ("simple", "dynamic", "group", "calendar")
SMALL = 5


@dataclass(frozen=True, slots=True, eq=False)
class Averages:
    """Averages of cohorts' effects.

    Attributes:
        keys: What was averaged within: event times, cohorts or periods.
        estimates: ``(m,)`` averages.
        scores: ``(n_groups, m)`` contributions of the independent groups; products add up to (co)variances.
        shares: ``(m, cells)`` weights of the cohort-periods.
    """

    keys: tuple[Any, ...]
    estimates: Vector
    scores: Matrix
    shares: Matrix


def callaway_santanna(
    panel: Panel,
    *,
    controls: str = "never",
    base: str = "varying",
    aggregate: str = "simple",
    small: int = 0,
    unbiased: bool = False,
    alpha: float = 0.05,
    seed: int = 0,
) -> Estimate:
    """Average effect on the treated.

    Args:
        panel: Units over periods.
        controls: ``never`` or ``not_yet``, as in ``group_time``.
        base: ``varying`` or ``universal``, as in ``group_time``; it changes effects before treatment only.
        aggregate: ``simple``: over treated cohort-periods; ``dynamic``: the mean over event times from 0 on;
            ``group``: over cohorts, each averaged over its treated periods; ``calendar``: the mean over periods.
        small, unbiased: As in ``group_time``: cohorts of fewer groups vary as their controls do; variances are divided
            by one less than the groups.
        alpha: Level; intervals and bands are at ``1 - alpha``.
        seed: Seed of the simultaneous bands.

    Returns:
        The effect in the outcome's unit. ``treatment_value`` is the mean outcome of the treated, weighed as the effect
        is; ``control_value`` what they would have had. Errors are clustered as ``Panel.error_groups`` says, their
        degrees of freedom Satterthwaite's over cohorts. ``diagnostics``: ``event_study`` rows (intervals each on its
        own, bands all at once), ``parts`` (rows by cohort or period where so aggregated), ``clustered_by``,
        ``n_clusters``, ``small_groups`` (cohorts of fewer than five units, whose errors are not to be leaned on),
        ``borrowed`` (cohorts that are taken to vary as their controls), ``skipped``,
        ``largest_propensity``, and the panel's counts.

    Raises:
        EstimationError: As ``group_time``; or nothing varies.
    """
    if aggregate not in AGGREGATES:
        raise ValueError(f"aggregate must be one of {AGGREGATES}")
    cells = group_time(panel, controls=controls, base=base, small=small, unbiased=unbiased)
    codes, clustered_by = cells.panel.error_groups()
    cohort, n_groups = cells.cohorts(codes), int(codes.max()) + 1
    events = averages_by_event_time(cells, codes)
    parts, estimate, scores, share = _overall(cells, codes, aggregate, events)
    treated, treated_scores = _treated_mean(cells, codes, share)
    df = cohort_df(scores, cohort, n_groups)
    counts = cells.panel.counts()
    diagnostics: dict[str, Any] = {
        "event_study": effects(events, cohort, n_groups).rows("event_time", alpha=alpha, seed=seed),
        "clustered_by": clustered_by,
        "n_clusters": n_groups,
        "controls": controls,
        "base": base,
        "aggregate": aggregate,
        "small_groups": [label for label, units in counts["groups"].items() if units < SMALL],
        "borrowed": list(cells.borrowed),
        "skipped": [list(pair) for pair in cells.skipped],
        "largest_propensity": cells.largest_propensity,
        **counts,
    }
    if parts is not None:
        diagnostics["parts"] = effects(parts, cohort, n_groups).rows(aggregate, alpha=alpha, seed=seed)
    n_treated = int((cells.panel.first < cells.panel.y.shape[1]).sum())
    return finish(
        "callaway_santanna",
        estimate=estimate,
        std_error=beyond_rounding(float(np.linalg.norm(scores)), cells.panel.y),
        df=df,
        alpha=alpha,
        control_value=treated - estimate,
        treatment_value=treated,
        n_control=len(cells.panel.y) - n_treated,
        n_treatment=n_treated,
        relative=relative_to_untreated(treated, estimate, treated_scores, scores, df, alpha),
        diagnostics=diagnostics,
    )


def event_effects(
    panel: Panel, *, controls: str = "never", base: str = "universal", small: int = 0, unbiased: bool = False
) -> Effects:
    """Effects by event time with their joint covariance, for pre-trend tests and sensitivity analyses; arguments as
    those of ``group_time``."""
    cells = group_time(panel, controls=controls, base=base, small=small, unbiased=unbiased)
    codes, _ = cells.panel.error_groups()
    return effects(averages_by_event_time(cells, codes), cells.cohorts(codes), int(codes.max()) + 1)


def group_time_effects(cells: GroupTime) -> Effects:
    """The cohort-periods' own effects, keyed ``(cohort, period)``, with their joint covariance."""
    codes, _ = cells.panel.error_groups()
    labels = cells.panel.periods
    keys = tuple((labels[g], labels[t]) for g, t in zip(cells.group, cells.period, strict=True))
    scores = np.vstack([group_sums(cells.influence / len(cells.panel.y), codes), cells.spare])
    own = Averages(keys, cells.effect, scores, np.eye(len(keys)))
    return effects(own, cells.cohorts(codes), int(codes.max()) + 1)


def effects(averages: Averages, cohort: Codes, groups: int) -> Effects:
    """Averages with covariance and degrees of freedom; ``cohort`` and ``groups`` as ``cohort_df`` takes them."""
    spread = np.linalg.norm(averages.scores, axis=0) > 0.0
    found = zip(averages.scores.T, spread, strict=True)
    df = np.array([cohort_df(s, cohort, groups) if some else np.inf for s, some in found])
    return Effects(averages.keys, averages.estimates, averages.scores.T @ averages.scores, df)


def averages_by_event_time(cells: GroupTime, codes: Codes) -> Averages:
    """Effects by periods since the start, cohorts weighed by their units."""
    time = cells.event_time
    return _by(cells, codes, time, np.ones(len(time), dtype=np.bool_), int)


def _by(cells: GroupTime, codes: Codes, key: Codes, among: NDArray[np.bool_], name: Callable[[int], Any]) -> Averages:
    """Averages within the values of ``key``."""
    keys = [int(k) for k in np.unique(key[among])]
    found = [_weighted(cells, codes, among & (key == k)) for k in keys]
    estimates, scores, shares = zip(*found, strict=True)
    return Averages(tuple(map(name, keys)), np.array(estimates), np.column_stack(scores), np.array(shares))


def _weighted(cells: GroupTime, codes: Codes, keep: NDArray[np.bool_]) -> tuple[float, Vector, Vector]:
    """Average over the cells in ``keep``, weighed by their cohorts' units: value, scores, and the cells' weights.

    The weights are estimated: a unit more in a cohort pulls the average towards that cohort's effects. Where small
    cohorts borrow their variance the weights count as known: between such cohorts the pull is mostly noise, which is
    counted already.
    """
    units = np.bincount(cells.panel.first, minlength=cells.panel.y.shape[1] + 1).astype(np.float64)
    share = np.where(keep, units[cells.group], 0.0)
    total = share.sum()
    share = share / total
    value = float(share @ cells.effect)
    n = len(cells.panel.y)
    pull = np.bincount(cells.group[keep], weights=cells.effect[keep] - value, minlength=len(units))
    influence = cells.influence @ share + (0.0 if cells.borrowed else pull[cells.panel.first] * (n / total))
    return value, np.concatenate([group_sums(influence[:, None] / n, codes)[:, 0], cells.spare @ share]), share


def _overall(
    cells: GroupTime, codes: Codes, aggregate: str, events: Averages
) -> tuple[Averages | None, float, Vector, Vector]:
    """Parts, value, scores and cells' weights of the average that ``aggregate`` names."""
    after = cells.period >= cells.group
    if aggregate == "simple":
        return None, *_weighted(cells, codes, after)
    labels = cells.panel.periods
    if aggregate == "group":
        return _over_cohorts(cells, codes, after)
    if aggregate == "calendar":
        parts = _by(cells, codes, cells.period, after, labels.__getitem__)
        chosen = np.ones(len(parts.keys), dtype=np.bool_)
    else:
        parts, chosen = events, np.asarray(events.keys) >= 0
    value, scores = float(parts.estimates[chosen].mean()), parts.scores[:, chosen].mean(axis=1)
    return None if aggregate == "dynamic" else parts, value, scores, parts.shares[chosen].mean(axis=0)


def _over_cohorts(cells: GroupTime, codes: Codes, after: NDArray[np.bool_]) -> tuple[Averages, float, Vector, Vector]:
    """Cohorts' averages over their treated periods, and their average weighed by units."""
    labels = cells.panel.periods
    parts = _by(cells, codes, cells.group, after, labels.__getitem__)
    groups = np.unique(cells.group[after])
    units = np.bincount(cells.panel.first, minlength=cells.panel.y.shape[1] + 1).astype(np.float64)
    share = units[groups] / units[groups].sum()
    value = float(share @ parts.estimates)
    pull = np.zeros(len(units))
    pull[groups] = 0.0 if cells.borrowed else parts.estimates - value
    from_weights = group_sums(pull[cells.panel.first][:, None] / units[groups].sum(), codes)[:, 0]
    from_weights = np.concatenate([from_weights, np.zeros(len(cells.spare))])
    return parts, value, parts.scores @ share + from_weights, share @ parts.shares


def _treated_mean(cells: GroupTime, codes: Codes, share: Vector) -> tuple[float, Vector]:
    """Mean outcome of the treated, weighed as the effect is, and its scores given the weights."""
    value, scores = 0.0, np.zeros(len(cells.panel.y))
    for g, t, weight in zip(cells.group, cells.period, share, strict=True):
        if weight == 0.0:
            continue
        mine = (cells.panel.first == g) & np.isfinite(cells.panel.y[:, t])
        outcome = cells.panel.y[mine, t]
        value += float(weight * outcome.mean())
        if cells.panel.periods[g] not in cells.borrowed:
            scores[mine] += weight * (outcome - outcome.mean()) / len(outcome)
    return value, np.concatenate([group_sums(scores[:, None], codes)[:, 0], cells.spare_level @ share])
