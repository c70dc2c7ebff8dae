"""Difference in means between two independent arms: Welch's test, and the delta method for ratios of sums.

Estimand: the average treatment effect on the arm's value, the value being a mean over units or a ratio of sums over
units. Sources: Welch (1947); Deng, Knoblich and Lu (2018), *Applying the delta method in metric analytics*.
"""

from __future__ import annotations

import math

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
from estimators.moments import Moments


def difference_in_means(control: Moments, treatment: Moments, *, alpha: float = 0.05) -> Estimate:
    """Treatment's value minus control's, with Welch's degrees of freedom.

    Args:
        control, treatment: Moments at the unit of randomization; a ratio of sums where they have a denominator.
        alpha: Level of the test; intervals are at ``1 - alpha``.

    Returns:
        The estimate in the outcome's unit. The relative effect is ``treatment / control - 1`` with the interval of
        the log ratio, its degrees of freedom by Satterthwaite on the log scale; where treatment's value is not
        positive there is no logarithm and the interval is that of the ratio itself (delta method), None where that
        has no spread; where control's value is not positive the relative effect is None.

    Raises:
        EstimationError: Fewer than two units in an arm, a denominator that does not sum to a positive number, or no
            variation.
    """
    t, c = treatment.value, control.value
    var_t, var_c = treatment.value_variance, control.value_variance
    dfs = (float(treatment.n - 1), float(control.n - 1))
    # A spread of rounding errors is no spread: equal values whose mean has no exact binary form end up here.
    if math.sqrt(var_t + var_c) <= 1e-14 * max(abs(t), abs(c)):
        raise EstimationError("the outcome does not vary in either arm, so nothing says how sure the estimate is")
    return finish(
        "difference_in_means",
        estimate=t - c,
        std_error=math.sqrt(var_t + var_c),
        df=satterthwaite((var_t, var_c), dfs),
        alpha=alpha,
        control_value=c,
        treatment_value=t,
        n_control=control.n,
        n_treatment=treatment.n,
        relative=relative_effect(c, t, var_c, var_t, dfs, alpha),
    )


def relative_effect(
    control: float, treatment: float, var_control: float, var_treatment: float, dfs: tuple[float, float], alpha: float
) -> Relative:
    """Relative effect of two independent values; ``dfs`` are those of treatment's and control's variance."""
    if reason := relative_reason(control):
        return Relative(reason=reason)
    if treatment > 0.0:
        parts = (var_treatment / treatment**2, var_control / control**2)
        return relative_from_log(control, treatment, math.sqrt(sum(parts)), satterthwaite(parts, dfs), alpha)
    ratio = treatment / control
    parts = (var_treatment / control**2, ratio**2 * var_control / control**2)
    if not sum(parts) > 0.0:
        return Relative(ratio - 1.0, reason="treatment's value is zero throughout, so the ratio shows no spread")
    low, high = t_interval(ratio - 1.0, math.sqrt(sum(parts)), satterthwaite(parts, dfs), alpha)
    return Relative(ratio - 1.0, low, high)
