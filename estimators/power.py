"""Power of a t test whose standard error and degrees of freedom are planned, and the effect that it can detect.

The statistic of a true effect ``d`` follows the noncentral t distribution with noncentrality ``d / std_error``. Source:
Cohen (1988), *Statistical Power Analysis*, ch. 2; the same definition as ``TTestIndPower`` of statsmodels. Bloom's
(1995) multiples of the standard error, which stand beside an estimate that is in, are its approximation.
"""

from __future__ import annotations

import math

from estimators.inference import EstimationError, t_quantile

_CERTAIN = 37.0  # standard errors beyond the critical value: the power is 1 to the last bit
_HALVINGS = 200


def power(effect: float, std_error: float, df: float, alpha: float, *, one_sided: bool = False) -> float:
    """Probability that the test finds a true effect.

    Args:
        effect: True effect, in the unit of ``std_error``; its sign does not matter where the test has two sides.
        std_error: Planned standard error, positive.
        df: Degrees of freedom; infinite: normal.
        alpha: Level of the two-sided test; one-sided, the test is at ``alpha / 2``, as the end of an interval at
            ``1 - alpha`` is.
        one_sided: Whether only an excursion to the effect's side counts.

    Raises:
        EstimationError: An error, degrees of freedom or a level that no test has.
    """
    _require(std_error, df, alpha)
    critical = t_quantile(1.0 - alpha / 2.0, df)
    shift = effect / std_error if one_sided else abs(effect) / std_error
    found = 1.0 - _below(critical, df, shift)
    return min(1.0, found if one_sided else found + _below(-critical, df, shift))


def detectable_effect(
    std_error: float, df: float, alpha: float, power_wanted: float = 0.8, *, one_sided: bool = False
) -> float:
    """Smallest positive effect that the test finds with probability ``power_wanted``, in the unit of ``std_error``.

    Raises:
        EstimationError: As :func:`power`; or a power that is not between the test's level and 1.
    """
    _require(std_error, df, alpha)
    level = alpha / 2.0 if one_sided else alpha
    if not level < power_wanted < 1.0:
        raise EstimationError(f"power must lie between the test's level {level:g} and 1, not {power_wanted!r}")
    low, high = 0.0, 1.0
    while power(high, 1.0, df, alpha, one_sided=one_sided) < power_wanted:
        low, high = high, 2.0 * high
        if high > 1e12:
            raise EstimationError("too few degrees of freedom for this power")
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        if not low < middle < high:
            break
        if power(middle, 1.0, df, alpha, one_sided=one_sided) < power_wanted:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high) * std_error


def _below(x: float, df: float, shift: float) -> float:
    """Distribution function of the noncentral t at ``x``."""
    from scipy.special import nctdtr, ndtr

    if shift - x > _CERTAIN * max(1.0, abs(x) / math.sqrt(df)):
        return 0.0
    if math.isinf(df) or df > 1e7:
        return float(ndtr(x - shift))
    below = float(nctdtr(df, shift, x))
    return 0.0 if math.isnan(below) else min(1.0, max(0.0, below))  # nan: too small to be told from zero


def _require(std_error: float, df: float, alpha: float) -> None:
    if not (math.isfinite(std_error) and std_error > 0.0):
        raise EstimationError("the outcome does not vary, so nothing says how sure an estimate would be")
    if not df >= 1.0:
        raise EstimationError("too few independent observations: no degree of freedom is left for an error")
    if not 0.0 < alpha < 1.0:
        raise EstimationError(f"alpha must lie between 0 and 1, not {alpha!r}")
