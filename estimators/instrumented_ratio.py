"""Instrumental variables for a ratio of two means, and for relative effects where the instrument is weak.

Estimand: among those whose treatment the instruments change, the ratio of the numerator's to the denominator's mean
with treatment, less the same without (their means as in Abadie 2002, *Bootstrap tests for distributional treatment
effects in instrumental variable models*, Journal of the American Statistical Association 97). What must hold is what
``two_stage_least_squares`` needs. Errors: robust or clustered, by the delta method; they understate where the
instrument is weak, and a difference of ratios has no Anderson-Rubin set.

A relative effect has one: the ratio ``r`` of the two means of one outcome is the effect of ``-(1 - D) Y`` on ``D Y``,
which is linear in ``r``, so that the set of Anderson and Rubin (1949) holds it at any strength.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from estimators.anderson_rubin import AndersonRubin, anderson_rubin
from estimators.estimate import Estimate
from estimators.event_effects import beyond_rounding, relative_to_untreated
from estimators.first_stage import critical_f, effective_f, first_stage
from estimators.inference import EstimationError, finish
from estimators.instruments import Instrumented, columns, is_binary, prepare
from estimators.ols import Vector
from estimators.two_stage_least_squares import contributions, counts_of, weights_of


def instrumented_ratio(
    numerator: ArrayLike,
    denominator: ArrayLike,
    treatment: ArrayLike,
    instruments: ArrayLike,
    *,
    covariates: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    variance: str = "HC1",
    alpha: float = 0.05,
) -> Estimate:
    """Effect of a treatment of 0 or 1 on a ratio of two means.

    Args:
        numerator, denominator: ``(n,)`` one value a unit.
        treatment, instruments, covariates, clusters, alpha: As in ``two_stage_least_squares``.
        variance: As there; errors are robust under ``classical`` too.

    Returns:
        As there; ``control_value`` and ``treatment_value`` are the two ratios.

    Raises:
        EstimationError: As there; a treatment other than 0 and 1, and a denominator whose mean is not positive.
    """
    num, den, d = (np.asarray(v, dtype=np.float64) for v in (numerator, denominator, treatment))
    if not is_binary(d):
        raise EstimationError("a ratio is read for a treatment that is there or not, not for an amount")
    data = prepare(num, d, instruments, covariates=covariates, clusters=clusters, variance=variance)
    fitted = weights_of(data)
    parts = {side: (_mean(data, fitted, num, d, side), _mean(data, fitted, den, d, side)) for side in (0, 1)}
    ratios, scores = [], []
    for side in (0, 1):
        (top, top_scores), (bottom, bottom_scores) = parts[side]
        if not bottom > 0.0:
            raise EstimationError("the denominator's mean among those whom the instrument moves is not positive")
        ratios.append(top / bottom)
        scores.append((top_scores - ratios[-1] * bottom_scores) / bottom)
    control, treated = ratios
    error = float(np.linalg.norm(scores[1] - scores[0]))
    if error <= 1e-13 * max(map(abs, ratios)):
        raise EstimationError("the ratio does not vary, so nothing says how sure the estimate is")
    n_control, n_treatment = counts_of(data, d, columns(instruments, len(d)))
    diagnostics = {
        "first_stage_f": effective_f(data),
        "first_stage_f_critical": critical_f(data),
        "first_stage": first_stage(data),
    }
    return finish(
        "two_stage_least_squares",
        estimate=treated - control,
        std_error=beyond_rounding(error, num[:, None] / max(abs(float(den.mean())), 1e-300)),
        df=data.df(1),
        alpha=alpha,
        control_value=control,
        treatment_value=treated,
        n_control=n_control,
        n_treatment=n_treatment,
        relative=relative_to_untreated(treated, treated - control, scores[1], scores[1] - scores[0], data.df(1), alpha),
        diagnostics=diagnostics if data.codes is None else diagnostics | {"n_clusters": data.n_groups},
    )


def relative_set(
    outcome: ArrayLike,
    treatment: ArrayLike,
    instruments: ArrayLike,
    *,
    covariates: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    variance: str = "HC1",
    alpha: float = 0.05,
) -> AndersonRubin:
    """The Anderson-Rubin set of the outcome's mean with treatment over that without, among those who are moved.

    Arguments as in ``two_stage_least_squares``, for a treatment of 0 or 1. ``statistic`` and ``p_value`` are of a ratio
    of zero.

    Raises:
        EstimationError: As ``prepare`` and ``anderson_rubin``.
    """
    y, d = np.asarray(outcome, dtype=np.float64), np.asarray(treatment, dtype=np.float64)
    how = {"covariates": covariates, "clusters": clusters}
    data = prepare(d * y, -(1.0 - d) * y, instruments, **how, variance=variance)
    return anderson_rubin(data, float(weights_of(data) @ data.y), alpha=alpha)


def _mean(data: Instrumented, fitted: Vector, values: Vector, d: Vector, side: int) -> tuple[float, Vector]:
    """Mean of values among those who are moved, with (1) or without (0) treatment, and the contributions to it."""
    middle = float(np.mean(values))  # cancels, and keeps digits of values far from 0
    there, sign = (d, 1.0) if side else (1.0 - d, -1.0)
    own = data.without_covariates(there * (values - middle))
    mean = sign * float(fitted @ own)
    return middle + mean, contributions(data, sign * fitted * (own - sign * mean * data.d))
