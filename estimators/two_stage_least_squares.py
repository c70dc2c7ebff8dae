"""Instrumental variables: two-stage least squares for one treatment, and Wald's ratio.

Estimand: the local average treatment effect, the mean effect on those whose treatment the instrument changes (Imbens
and Angrist 1994, *Identification and estimation of local average treatment effects*). What must hold: the instrument is
as good as random given the covariates, moves the outcome through the treatment alone, moves the treatment, and moves
nobody's the other way. With several instruments it is a weighted mean of their effects, with a treatment that is a
number the mean effect of one unit of it, weighted by how much the instrument moves it (Angrist and Imbens 1995). With
covariates the mean is weighted by how far the instrument varies given them; that it varies about a linear function of
them must then hold too (Blandhol, Bonney, Mogstad and Torgovitsky 2022).

Errors: White's with ``n/(n-p)`` (``HC1``), those of equal variances (``classical``), or clustered (``cluster``: CR1
with ``t(G-1)``); ``t(n-p)`` without clusters. They understate where the instrument is weak: read ``anderson_rubin``,
which covers at any strength, wherever ``first_stage_f`` is small.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from estimators.anderson_rubin import anderson_rubin
from estimators.compliers import compliers
from estimators.estimate import Estimate
from estimators.event_effects import beyond_rounding, relative_to_untreated
from estimators.first_stage import critical_f, effective_f, first_stage, overidentification, reduced_form
from estimators.inference import EstimationError, critical_value, finish
from estimators.instruments import Instrumented, columns, is_binary, prepare
from estimators.ols import Matrix, Vector


def two_stage_least_squares(
    outcome: ArrayLike,
    treatment: ArrayLike,
    instruments: ArrayLike,
    *,
    covariates: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    variance: str = "HC1",
    alpha: float = 0.05,
    whom: bool = True,
) -> Estimate:
    """Effect of the treatment on the outcome, from that part of the treatment which the instruments move.

    Args:
        outcome: ``(n,)`` one value a unit.
        treatment: ``(n,)`` treatment received: 0 and 1, or an amount.
        instruments: ``(n,)`` or ``(n, k)``.
        covariates: ``(n, p)`` facts from before the instrument was drawn; a constant is always there. Columns that are
            combinations of others are left out, and named by position.
        clusters: ``(n,)`` labels within which rows are not independent, for ``variance="cluster"``.
        weights: ``(n,)`` positive weights of the rows, as of means of so many requests; None: all 1.
        variance: ``HC1``, ``classical`` or ``cluster``. All in ``diagnostics`` and the relative effect's interval are
            robust under ``classical`` too.
        alpha: Level; intervals are at ``1 - alpha``.
        whom: Whether ``compliers`` are described; with many covariates that takes as long as the rest.

    Returns:
        The effect in the outcome's unit, of treatment against none or of one unit of it. ``control_value`` and
        ``treatment_value``: where treatment is 0 or 1, the means of those whom the instruments treat, without and with
        treatment (Abadie 2002); else the mean outcome, and what one unit more would make of it. ``n_control`` and
        ``n_treatment``: rows (clusters, where errors are clustered) by the value of a single binary instrument, else by
        a binary treatment, else all of them twice. ``diagnostics``: ``first_stage_f`` (effective F; None where
        treatment follows the instruments to the letter), ``first_stage_f_critical`` (above it the bias is at most a
        tenth of its worst), ``first_stage`` and ``reduced_form`` ``{estimate, std_error, p_value}``,
        ``anderson_rubin`` ``{ci_low, ci_high, bounded, empty, segments, statistic, df, p_value}`` (errors of the
        jackknife, so that its p-value is not just the reduced form's), ``overidentification`` ``{statistic, df,
        p_value}`` or None, ``n_instruments``, ``dropped_instruments`` and ``dropped_covariates``, ``n_clusters`` where
        there are any; with one binary instrument and a binary treatment ``compliers`` (see ``Compliers.as_row``;
        ``profile`` is that of the covariates).

    Raises:
        ValueError: An unknown ``variance``, or clusters without ``cluster`` and the other way round.
        EstimationError: Values that are not finite, too few rows or clusters, an instrument or treatment that does not
            vary, an instrument that does not move treatment or whose doing one row or cluster alone decides, or an
            outcome that does not vary.
    """
    critical_value(alpha, math.inf)
    data = prepare(
        outcome, treatment, instruments, covariates=covariates, clusters=clusters, weights=weights, variance=variance
    )
    y, d = np.asarray(outcome, dtype=np.float64), np.asarray(treatment, dtype=np.float64)
    z = columns(instruments, len(y))
    fitted = weights_of(data)
    estimate = float(fitted @ data.y)
    std_error = _error(data, fitted, data.y - estimate * data.d)
    control, treated, scores = _values(data, fitted, y, d, estimate)
    n_control, n_treatment = counts_of(data, d, z)
    diagnostics = _diagnostics(data, estimate, alpha)
    if whom and z.shape[1] == 1 and is_binary(z[:, 0]) and is_binary(d):
        diagnostics["compliers"] = _compliers(d, z[:, 0], covariates, clusters=clusters, weights=weights)
    return finish(
        "two_stage_least_squares",
        estimate=estimate,
        std_error=beyond_rounding(std_error, y[:, None]),
        df=data.df(1),
        alpha=alpha,
        control_value=control,
        treatment_value=treated,
        n_control=n_control,
        n_treatment=n_treatment,
        relative=relative_to_untreated(treated, treated - control, *scores, data.df(1), alpha),
        diagnostics=diagnostics,
    )


def wald(
    outcome: ArrayLike,
    treatment: ArrayLike,
    instrument: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    variance: str = "HC1",
    alpha: float = 0.05,
    whom: bool = True,
) -> Estimate:
    """Wald's ratio: the outcome's difference in means between the instrument's two values over treatment's.

    Two-stage least squares with one instrument of two values and no covariates, and all that it returns.

    Raises:
        EstimationError: As there, and an instrument that does not have exactly two values.
    """
    z = np.asarray(instrument)
    levels = np.unique(z)
    if z.ndim != 1 or len(levels) != 2:
        raise EstimationError(f"wald takes one instrument of two values; this one has {len(levels)}")
    high = (z == levels[1]).astype(np.float64)
    found = two_stage_least_squares(
        outcome, treatment, high, clusters=clusters, weights=weights, variance=variance, alpha=alpha, whom=whom
    )
    return replace(found, method="wald")


def weights_of(data: Instrumented) -> Vector:
    """``(n,)`` weights of the outcome in the estimate: the first stage's fit over its sum of squares."""
    b = data.z.T @ data.d
    size = float(np.linalg.norm(b))
    if size <= 1e-12 * float(np.linalg.norm(data.d)):
        raise EstimationError("the instrument does not move treatment at all")
    return np.asarray(data.z @ (b / size) / size, dtype=np.float64)


def _error(data: Instrumented, fitted: Vector, residual: Vector) -> float:
    if data.variance == "classical":
        return float(np.linalg.norm(fitted) * np.linalg.norm(residual)) / math.sqrt(data.df(1))
    return float(np.linalg.norm(contributions(data, fitted * residual)))


def contributions(data: Instrumented, parts: Vector) -> Vector:
    """``(n_groups,)`` contributions to an estimate; products of them add up to robust (co)variances."""
    return np.asarray(data.summed(parts[:, None])[:, 0] * math.sqrt(data.factor(1)), dtype=np.float64)


def _values(
    data: Instrumented, fitted: Vector, y: Vector, d: Vector, estimate: float
) -> tuple[float, float, tuple[Vector, Vector]]:
    """Control's and treatment's value, and the contributions to treatment's value and to the effect."""
    effect = contributions(data, fitted * (data.y - estimate * data.d))
    if is_binary(d):
        middle = float(np.mean(y))  # cancels, and keeps digits of outcomes far from 0
        own = data.without_covariates(d * (y - middle))
        treated = float(fitted @ own)
        scores = contributions(data, fitted * (own - treated * data.d))
        return middle + treated - estimate, middle + treated, (scores, effect)
    w = data.root**2
    mean = float(np.average(y, weights=w))
    return mean, mean + estimate, (contributions(data, w * (y - mean) / len(y)) + effect, effect)


def counts_of(data: Instrumented, d: Vector, z: Matrix) -> tuple[int, int]:
    if z.shape[1] == 1 and is_binary(z[:, 0]):
        side = z[:, 0] == z[:, 0].max()
    elif is_binary(d):
        side = d == 1.0
    else:
        return data.n_groups, data.n_groups
    codes = np.arange(len(d)) if data.codes is None else data.codes
    return len(np.unique(codes[~side])), len(np.unique(codes[side]))


def _diagnostics(data: Instrumented, estimate: float, alpha: float) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "first_stage_f": effective_f(data),
        "first_stage_f_critical": critical_f(data),
        "first_stage": first_stage(data),
        "reduced_form": reduced_form(data),
        "anderson_rubin": anderson_rubin(data, estimate, alpha=alpha).as_row(),
        "overidentification": overidentification(data, estimate),
        "n_instruments": data.k,
        "dropped_instruments": list(data.dropped_instruments),
        "dropped_covariates": list(data.dropped_covariates),
    }
    return shown if data.codes is None else shown | {"n_clusters": data.n_groups}


def _compliers(d: Vector, z: Vector, covariates: ArrayLike | None, **options: ArrayLike | None) -> dict[str, Any]:
    """Who is moved; where the instrument's model cannot be fitted, ``share`` is None and ``reason`` says why."""
    try:
        return compliers(d, z, covariates, adjust=covariates, **options).as_row()
    except EstimationError as error:
        return {"share": None, "reason": str(error)}
