"""How many units a durable holdout must keep from treatment, so that a long-run effect is seen.

A share ``h`` of ``n`` units stays on control and the rest is treated; the difference of their means has the variance
``s² / (h n) + s² / ((1 - h) n)``. The share is the smallest at which the two-sided Welch test finds the effect with the
wanted power, by the noncentral t (see :mod:`estimators.power`); in large samples
``h (1 - h) = s² (z[1 - alpha/2] + z[power])² / (n d²)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from estimators.inference import EstimationError
from estimators.planned_error import two_arms
from estimators.power import detectable_effect

_HALVINGS = 60
_MOST = 1e12  # units


def detectable(variance: float, n: float, share: float, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """The smallest effect that a holdout of this share of ``n`` units finds; infinite with fewer than two in an arm.

    Args:
        variance: Of one unit's outcome, above zero.
        n: Units, held out or not.
        share: Of them on control, in (0, 1).
    """
    if min(share, 1.0 - share) * n < 2.0:
        return math.inf
    planned = two_arms(variance, share * n, (1.0 - share) * n)
    return detectable_effect(planned.std_error, planned.df, alpha, power)


def needed_share(variance: float, n: float, effect: float, *, alpha: float = 0.05, power: float = 0.8) -> float | None:
    """The smallest share of ``n`` units that finds an effect; None where even half of them does not."""
    return _least(lambda h: detectable(variance, n, h, alpha=alpha, power=power) <= effect, 2.0 / max(n, 4.0), 0.5)


def needed_units(variance: float, share: float, effect: float, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """The fewest units of which a holdout of this share finds an effect.

    Raises:
        EstimationError: An effect that is not above zero, or that no number of units shows.
    """
    if not effect > 0.0:
        raise EstimationError("the effect to be seen must be above zero")
    high = 4.0 / min(share, 1.0 - share)
    while detectable(variance, high, share, alpha=alpha, power=power) > effect:
        high *= 2.0
        if high > _MOST:
            raise EstimationError("no number of units shows so small an effect")
    found = _least(lambda n: detectable(variance, n, share, alpha=alpha, power=power) <= effect, high / 4.0, high)
    return high if found is None else math.ceil(found)


def _least(holds: Callable[[float], bool], low: float, high: float) -> float | None:
    """The least value between two from which on a condition holds; None where it does not hold at the upper one."""
    if not holds(high):
        return None
    if holds(low):
        return low
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        if middle in (low, high):
            break
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
