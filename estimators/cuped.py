"""CUPED: a difference between two arms with the part taken out that a pre-period covariate foretells.

Estimand: the average treatment effect on the arm's value, a mean over units or a ratio of sums over units. Source:
Deng, Xu, Kohavi and Walker (2013), *Improving the sensitivity of online controlled experiments by utilizing
pre-experiment data*, section 3 and, for ratios, appendix B (delta method).
"""

from __future__ import annotations

import math

import numpy as np

from estimators.estimate import Estimate
from estimators.inference import (
    EstimationError,
    Relative,
    finish,
    relative_from_log,
    relative_reason,
    satterthwaite,
    t_interval,
)
from estimators.joint_moments import JointMoments

# Spread below this share of the value is rounding; variance left below this share of the whole is cancellation.
_ROUNDING = 1e-12


def cuped(control: JointMoments, treatment: JointMoments, *, alpha: float = 0.05) -> Estimate:
    """Treatment's adjusted value minus control's.

    An arm's adjusted value is ``y - theta * (x - x_pooled)``, ``y`` and ``x`` being the arm's values of outcome and
    covariate. ``theta`` is the slope of the units' linearised values of ``y`` on those of ``x`` in both arms together.
    The effect itself is part of that covariance and draws the estimate to zero by a share ``1 / n`` of the units.

    Args:
        control, treatment: Moments of two values: outcome, covariate. Each is a mean over units or a ratio of sums,
            ``JointMoments.from_arrays((num, den), (covariate_num, covariate_den))`` with None for a denominator of 1.
            The covariate must have been fixed before treatment began.
        alpha: Level of the test; intervals are at ``1 - alpha``.

    Returns:
        The estimate in the outcome's unit, with Welch's degrees of freedom from the adjusted variances by arm. The
        relative effect is that of the adjusted values with the interval of their log ratio; it counts the sampling
        error of the pooled covariate too, which leaves the difference but not the ratio where the arms differ.
        Diagnostics: ``theta``; ``correlation`` of the linearised values over both arms; ``variance_reduction``, the
        share of the unadjusted variance of the difference that is gone (negative where adjusting did harm);
        ``unadjusted_estimate`` and ``unadjusted_std_error``; ``covariate_difference``, treatment minus control.

    Raises:
        EstimationError: Fewer than two units in an arm, an outcome or a covariate that does not vary, or a covariate
            that foretells the outcome without error.
        ValueError: Moments of other than two values.
    """
    if not len(control.values) == len(treatment.values) == 2:
        raise ValueError("cuped takes moments of two values: the outcome and its covariate")
    arms = (treatment, control)
    unadjusted = sum(_variance(arm, 1.0, 0.0) for arm in arms)
    if math.sqrt(unadjusted) <= 1e-14 * max(abs(arm.values[0]) for arm in arms):
        raise EstimationError("the outcome does not vary in either arm, so nothing says how sure the estimate is")
    pooled = control.merged(treatment)
    theta, correlation = _slope(pooled)
    var_t, var_c = (_variance(arm, 1.0, theta) for arm in arms)
    if var_t + var_c <= _ROUNDING * unadjusted:
        raise EstimationError("the covariate foretells the outcome without error, so no spread is left to judge by")
    t, c = (float(arm.values[0] - theta * (arm.values[1] - pooled.values[1])) for arm in arms)
    difference = treatment.values - control.values
    return finish(
        "cuped",
        estimate=float(difference[0] - theta * difference[1]),
        std_error=math.sqrt(var_t + var_c),
        df=satterthwaite((var_t, var_c), _dfs(control, treatment)),
        alpha=alpha,
        control_value=c,
        treatment_value=t,
        n_control=control.n,
        n_treatment=treatment.n,
        relative=_relative(control, treatment, c, t, theta, alpha),
        diagnostics={
            "theta": theta,
            "correlation": correlation,
            "variance_reduction": 1.0 - (var_t + var_c) / unadjusted,
            "unadjusted_estimate": float(difference[0]),
            "unadjusted_std_error": math.sqrt(unadjusted),
            "covariate_difference": float(difference[1]),
        },
    )


def _slope(pooled: JointMoments) -> tuple[float, float]:
    """Slope and correlation of the outcome's linearised values on the covariate's."""
    s = pooled.value_cov
    if not math.sqrt(max(0.0, s[1, 1])) > _ROUNDING * abs(pooled.values[1]):
        raise EstimationError(
            "the covariate does not vary over units, so it cannot sharpen the estimate; "
            "name another covariate, or use difference_in_means"
        )
    return float(s[0, 1] / s[1, 1]), float(s[0, 1] / math.sqrt(s[0, 0] * s[1, 1]))


def _variance(arm: JointMoments, outcome: float, theta: float) -> float:
    """Sampling variance of ``outcome * y - theta * x`` in one arm."""
    weights = np.array([outcome, -theta])
    return max(0.0, float(weights @ arm.value_cov @ weights)) / arm.n


def _relative(
    control: JointMoments, treatment: JointMoments, c: float, t: float, theta: float, alpha: float
) -> Relative:
    """``t / c - 1`` of the adjusted values, by the delta method in all four arms' means.

    The pooled covariate moves both adjusted values by ``theta``; with its weights ``w`` on the arms the derivative of
    ``t / c`` is ``(dy_t - theta * k * dx_t - (ratio * dy_c - theta * k * dx_c)) / c``, ``k = w_c + w_t * ratio``.
    """
    if reason := relative_reason(c):
        return Relative(reason=reason)
    ratio = t / c
    size_c, size_t = (arm.n * float(arm.mean_den[1]) for arm in (control, treatment))
    slope = theta * (size_c + size_t * ratio) / (size_c + size_t)
    parts = (_variance(treatment, 1.0, slope) / c**2, _variance(control, ratio, slope) / c**2)
    if not sum(parts) > 0.0:
        return Relative(ratio - 1.0, reason="the ratio of the adjusted values shows no spread")
    df = satterthwaite(parts, _dfs(control, treatment))
    if ratio > 0.0:
        return relative_from_log(c, t, math.sqrt(sum(parts)) / ratio, df, alpha)
    return Relative(ratio - 1.0, *t_interval(ratio - 1.0, math.sqrt(sum(parts)), df, alpha))


def _dfs(control: JointMoments, treatment: JointMoments) -> tuple[float, float]:
    return float(treatment.n - 1), float(control.n - 1)
