"""Winsorized means: values beyond a quantile of all arms together are pulled back to it, then compared by Welch's test.

Estimand: the difference of the arms' means of the capped values, which is not that of the means where the arms differ
beyond the cap; ``diagnostics`` say how much of each arm's sum was cut off. The upper cap is the quantile; a lower one,
the mirrored quantile, applies to values below zero only. A ratio caps numerator and denominator, each at its own.

The caps are estimated too. As they are the same for all arms, an error in a cap moves both means alike: to first order
it adds (share above in treatment - share above in control) times the cap's error to the difference, which is of
smaller order than the standard error, so that Welch's error of the capped values stands (measured by
benchmarks/robust_coverage.py). Source: Dixon (1960), *Simplified estimation from censored normal samples*; for pooled
caps in experiments, Kohavi, Tang and Xu (2020), ch. 18.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from estimators.difference_in_means import difference_in_means
from estimators.estimate import Estimate
from estimators.inference import EstimationError
from estimators.moments import Moments

Vector = NDArray[np.float64]
ArmArrays = tuple[ArrayLike, ArrayLike | None]
QUANTILE = 0.999


@dataclass(frozen=True, slots=True)
class Caps:
    """Where values are cut, in the outcome's unit; ``low`` is ``-inf`` where no value is below zero."""

    low: float
    high: float

    def apply(self, values: ArrayLike) -> Vector:
        """The values, none beyond the caps."""
        return np.clip(np.asarray(values, dtype=np.float64), self.low, self.high)


def pooled_caps(arms: Sequence[ArmArrays], quantile: float = QUANTILE) -> tuple[Caps, Caps | None]:
    """Caps of numerator and denominator over the units of all arms; None where there is no denominator.

    Args:
        arms: ``(num, den)`` by arm, an entry a unit.
        quantile: Share of units at or below the upper cap, between 0.5 and 1. The cap is a value that a unit has: the
            least one with at least this share at or below it.

    Raises:
        EstimationError: A value that is not finite, or no unit.
    """
    if not 0.5 < quantile < 1.0:
        raise EstimationError(f"a winsorizing quantile lies between 0.5 and 1, not {quantile!r}")
    nums = np.concatenate([np.asarray(num, dtype=np.float64) for num, _ in arms])
    dens = [np.asarray(den, dtype=np.float64) for _, den in arms if den is not None]
    return _caps(nums, quantile), _caps(np.concatenate(dens), quantile) if dens else None


def cap(arm: ArmArrays, caps: tuple[Caps, Caps | None]) -> tuple[Vector, Vector | None]:
    """An arm's numerator and denominator, capped."""
    num, den = arm
    return caps[0].apply(num), None if den is None or caps[1] is None else caps[1].apply(den)


def winsorized(
    control: ArmArrays,
    treatment: ArmArrays,
    *,
    quantile: float = QUANTILE,
    others: Sequence[ArmArrays] = (),
    alpha: float = 0.05,
) -> Estimate:
    """Difference of winsorized means, or of ratios of capped sums.

    Args:
        control, treatment: ``(num, den)`` by unit; ``den`` None for a plain mean.
        quantile: As ``pooled_caps``.
        others: Further arms of the experiment, whose units count for the caps only.

    Returns:
        Welch's estimate of the capped values; ``diagnostics`` as :func:`cut`.

    Raises:
        EstimationError: Capping leaves one value only, and as ``difference_in_means``.
    """
    caps = pooled_caps((control, treatment, *others), quantile)
    arms = [cap(arm, caps) for arm in (control, treatment)]
    if all(len(np.unique(x)) == 1 for pair in zip(*arms, strict=True) for x in _together(pair)):
        raise EstimationError(
            f"capping at the {_percentile(quantile)} leaves one value only; a higher quantile would keep some spread"
        )
    found = difference_in_means(*(Moments.from_arrays(*arm) for arm in arms), alpha=alpha)
    return replace(found, method="winsorize", diagnostics=cut(control, treatment, caps))


def cut(control: ArmArrays, treatment: ArmArrays, caps: tuple[Caps, Caps | None]) -> dict[str, Any]:
    """What capping did.

    Returns:
        ``cap``, ``cap_low`` (None: none) and ``cap_denominator`` (where there is one) in the outcome's unit; by arm
        ``capped_…``, units that a cap changed, and ``lost_…``, the share of the numerator's sum of absolute values
        that was cut off.
    """
    found: dict[str, Any] = {"cap": caps[0].high, "cap_low": caps[0].low if math.isfinite(caps[0].low) else None}
    if caps[1] is not None:
        found["cap_denominator"] = caps[1].high
    for name, arm in (("control", control), ("treatment", treatment)):
        num = np.asarray(arm[0], dtype=np.float64)
        kept, weight = cap(arm, caps)
        changed = kept != num
        if weight is not None and arm[1] is not None:
            changed |= weight != np.asarray(arm[1], dtype=np.float64)
        total = float(np.abs(num).sum())
        found[f"capped_{name}"] = int(changed.sum())
        found[f"lost_{name}"] = 1.0 - float(np.abs(kept).sum()) / total if total > 0.0 else 0.0
    return found


def _caps(values: Vector, quantile: float) -> Caps:
    if not len(values):
        raise EstimationError("an arm has no observations")
    if not np.isfinite(values).all():
        raise EstimationError("the outcome holds values that are not finite")
    high = _order_statistic(values, quantile)
    low = min(-_order_statistic(-values, quantile), 0.0) if values.min() < 0.0 else -math.inf
    return Caps(low, high)


def _order_statistic(values: Vector, quantile: float) -> float:
    """The least value with at least this share at or below it."""
    # 99.9 % of 1,000 units is 999, though 0.999 * 1,000 is a little more.
    place = max(math.ceil(quantile * len(values) * (1.0 - 1e-12)) - 1, 0)
    return float(np.partition(values, place)[place])


def _together(pair: tuple[Vector | None, ...]) -> list[Vector]:
    parts = [x for x in pair if x is not None]
    return [np.concatenate(parts)] if parts else []


def _percentile(quantile: float) -> str:
    return f"{100 * quantile:.10g}th percentile"
