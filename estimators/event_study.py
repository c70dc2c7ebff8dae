"""Event studies by regression on unit and period effects, in Sun and Abraham's form where starts are staggered.

Estimand: effects on the treated by periods since the start, all relative to the last period before it; the estimate is
their mean over the periods from the start on. With one start, the regression has a coefficient per event time. With
several, plain coefficients mix cohorts with weights that may be negative; so each cohort has its own, and they are
averaged by the cohort's share among the units seen at that event time: Sun and Abraham (2021), *Estimating dynamic
treatment effects in event studies with heterogeneous treatment effects*, section 4. Without units never treated the
last cohort is the control, and periods from its start on are left out. Shares count as known in the errors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from estimators.estimate import Estimate
from estimators.event_effects import Effects, beyond_rounding, cohort_df, relative_to_untreated
from estimators.fixed_effects import sweep
from estimators.inference import EstimationError, finish
from estimators.panel import Codes, Matrix, Panel, Vector, group_sums


@dataclass(frozen=True, slots=True, eq=False)
class _Fit:
    """Event times without the reference, effects, and their clusters' scores ``(n_groups, m)``."""

    panel: Panel
    times: tuple[int, ...]
    effects: Vector
    scores: Matrix
    codes: Codes
    clustered_by: str
    staggered: bool


def event_study(panel: Panel, *, alpha: float = 0.05, seed: int = 0) -> Estimate:
    """Mean of the effects at event times 0 and later.

    Args:
        panel: Units over periods. Covariates, where there are any, may shift outcomes differently in every period.
        alpha: Level; intervals and bands are at ``1 - alpha``.
        seed: Seed of the simultaneous bands.

    Returns:
        The effect in the outcome's unit; errors are CR1, clustered as ``Panel.error_groups`` says, unit effects not
        counted as parameters, with Satterthwaite's degrees of freedom over cohorts: few treated leave few.
        ``treatment_value`` is the mean outcome of the treated over the same event times, ``control_value`` what they
        would have had. ``diagnostics``: ``event_study`` rows, ``form`` (``two_way`` or ``sun_abraham``),
        ``clustered_by``, ``n_clusters``, and the panel's counts.

    Raises:
        EstimationError: No unit to compare with, covariates that are collinear with the effects, too few clusters, or
            nothing varies.
    """
    found = _fit(panel)
    after = np.asarray(found.times) >= 0
    scores = found.scores[:, after].mean(axis=1)
    estimate = float(found.effects[after].mean())
    treated, treated_scores = _treated_mean(found, [e for e in found.times if e >= 0])
    std_error = float(np.linalg.norm(scores))
    df = cohort_df(scores, found.panel.cohorts(found.codes))
    n_treated = int((found.panel.first < found.panel.y.shape[1]).sum())
    return finish(
        "event_study",
        estimate=estimate,
        std_error=beyond_rounding(std_error, found.panel.y),
        df=df,
        alpha=alpha,
        control_value=treated - estimate,
        treatment_value=treated,
        n_control=len(found.panel.y) - n_treated,
        n_treatment=n_treated,
        relative=relative_to_untreated(treated, estimate, treated_scores, scores, df, alpha),
        diagnostics={
            "event_study": _effects(found).rows("event_time", alpha=alpha, seed=seed),
            "form": "sun_abraham" if found.staggered else "two_way",
            "clustered_by": found.clustered_by,
            "n_clusters": found.scores.shape[0],
            **found.panel.counts(),
        },
    )


def event_study_effects(panel: Panel) -> Effects:
    """Effects by event time, the reference -1 among them, with their joint covariance."""
    return _effects(_fit(panel))


def _effects(found: _Fit) -> Effects:
    order = np.argsort([*found.times, -1], kind="stable")
    keys = [*found.times, -1]
    values = np.r_[found.effects, 0.0][order]
    scores = np.column_stack([found.scores, np.zeros(len(found.scores))])[:, order]
    cohort = found.panel.cohorts(found.codes)
    df = np.array([cohort_df(s, cohort) for s in scores.T])
    return Effects(tuple(keys[i] for i in order), values, scores.T @ scores, df)


def _fit(panel: Panel) -> _Fit:
    panel = _with_controls(panel.comparable())
    codes, clustered_by = panel.error_groups()
    groups = panel.groups
    unit, period = np.nonzero(np.isfinite(panel.y))
    y = panel.y[unit, period]
    first = panel.first[unit]
    cells = [(g, t) for g in groups for t in range(panel.y.shape[1]) if t != g - 1]
    counts = {(g, t): int(((first == g) & (period == t)).sum()) for g, t in cells}
    cells = [cell for cell in cells if counts[cell]]
    design = np.column_stack(
        [(first == g) & (period == t) for g, t in cells] + _covariate_columns(panel, unit, period)
    ).astype(np.float64)
    swept = sweep(np.column_stack([design, y]), (unit, period))
    x, rest = swept[:, :-1], swept[:, -1]
    q, r = np.linalg.qr(x)
    if (np.abs(np.diag(r)) <= 1e-8 * np.linalg.norm(design, axis=0)).any():
        raise EstimationError(
            "the units seen do not tell all effects apart: a cohort lacks its period before treatment, or a covariate "
            "is a combination of the others"
        )
    inverse = np.linalg.inv(r)
    coef = inverse @ (q.T @ rest)
    residuals = rest - x @ coef
    clusters = int(codes.max()) + 1
    parameters = x.shape[1] + panel.y.shape[1]
    if clusters < 2 or len(y) <= parameters:
        raise EstimationError("too few units for an event study")
    factor = np.sqrt(clusters / (clusters - 1.0) * (len(y) - 1.0) / (len(y) - parameters))
    scores = factor * group_sums((q * residuals[:, None]) @ inverse.T, codes[unit])
    times = tuple(sorted({t - g for g, t in cells}))
    shares = np.zeros((len(times), x.shape[1]))
    for j, (g, t) in enumerate(cells):
        shares[times.index(t - g), j] = counts[g, t]
    shares /= shares.sum(axis=1, keepdims=True)
    return _Fit(panel, times, shares @ coef, scores @ shares.T, codes, clustered_by, len(groups) > 1)


def _with_controls(panel: Panel) -> Panel:
    """The panel as it is where units stay untreated; else without the periods from the last cohort's start on."""
    last = panel.y.shape[1]
    if (panel.first == last).any():
        return panel
    end = max(panel.groups)
    if end < 2:
        raise EstimationError("no unit stays untreated for two periods, so nothing is left to compare with")
    cut = Panel(
        panel.y[:, :end],
        np.minimum(panel.first, end),
        panel.covariates,
        panel.clusters,
        panel.periods[:end],
        panel.dropped,
    )
    return cut.comparable()


def _covariate_columns(panel: Panel, unit: Codes, period: Codes) -> list[NDArray[Any]]:
    """Covariates times periods but the first, centred and scaled."""
    if panel.covariates is None:
        return []
    x = panel.covariates
    spread = x.std(axis=0)
    if (spread <= 1e-12 * np.abs(x).max(axis=0)).any():
        raise EstimationError("a covariate is constant")
    z = ((x - x.mean(axis=0)) / spread)[unit]
    return [z[:, k] * (period == t) for k in range(z.shape[1]) for t in range(1, panel.y.shape[1])]


def _treated_mean(found: _Fit, times: list[int]) -> tuple[float, Vector]:
    """Mean over event times of the treated units' mean outcome, and its scores."""
    panel, value = found.panel, 0.0
    unit, period = np.nonzero(np.isfinite(panel.y))
    since = period - panel.first[unit]
    since[panel.first[unit] == panel.y.shape[1]] = -1
    scores = np.zeros(len(panel.y))
    for e in times:
        mine = since == e
        outcome = panel.y[unit[mine], period[mine]]
        value += float(outcome.mean()) / len(times)
        scores[unit[mine]] += (outcome - outcome.mean()) / (len(outcome) * len(times))
    return value, group_sums(scores[:, None], found.codes)[:, 0]
