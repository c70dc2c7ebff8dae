"""Inverse propensity scores: the target policy's value from the logged rows whose action it takes, weighted.

``ips`` divides the weighted rewards by the rows and is unbiased where the propensities are right; ``snips`` divides
them by the weights, which costs a bias of the order of one over the effective sample size and takes off the part of
the error that comes of weights which do not average 1. Of a ratio metric both are the same number. A weight may be
capped (``clip``), which lowers the error and moves the value of rewards of one sign towards 0: Ionides (2008),
*Truncated importance sampling*. Estimand, assumptions and errors: ``estimators/policy_value.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from estimators.estimate import Estimate
from estimators.inference import EstimationError
from estimators.policy_value import UnitSums, Vector, policy_value


@dataclass(frozen=True, slots=True, eq=False)
class Logged:
    """Rows that have an outcome, checked.

    Attributes:
        num: ``(n,)`` rewards, or numerators of a ratio.
        den: ``(n,)`` denominators; None: the metric is a plain mean.
        weight: ``(n,)`` weights as given; None where there are none.
        units: ``(n,)`` codes ``0 … n_units - 1``.
        keys: ``(n_units,)`` integers that stand for the units and do not hang on which rows have an outcome.
        seen: Which of the given rows these are.
    """

    num: Vector
    den: Vector | None
    weight: Vector | None
    units: NDArray[np.intp]
    keys: NDArray[Any]
    seen: NDArray[np.bool_]

    @property
    def n(self) -> int:
        """Rows."""
        return len(self.num)

    @property
    def n_units(self) -> int:
        """Independent units."""
        return len(self.keys)

    def by_unit(self, values: Vector | None) -> Vector:
        """``(n_units,)`` sums; of rows themselves where None is given."""
        return np.bincount(self.units, values, minlength=self.n_units).astype(np.float64)

    @property
    def notes(self) -> dict[str, Any]:
        """What was left out."""
        return {"rows_left_out": int(len(self.seen) - self.n)}


def logged(
    reward: ArrayLike,
    weight: ArrayLike | None,
    *,
    denominator: ArrayLike | None = None,
    units: ArrayLike | None = None,
) -> Logged:
    """Checks the rows of a metric and keeps those that have an outcome.

    Raises:
        EstimationError: Arrays that do not fit, no outcome at all, values that are not finite, or a negative weight.
    """
    num = np.asarray(reward, dtype=np.float64)
    if num.ndim != 1:
        raise EstimationError("rewards must be one a row")
    seen = ~np.isnan(num)
    den = _column(denominator, len(num), "denominators")
    if den is not None:
        seen &= ~np.isnan(den)
    if not seen.any():
        raise EstimationError("no row has an outcome")
    w = _column(weight, len(num), "weights")
    labels = np.arange(len(num)) if units is None else np.asarray(units)
    if labels.shape != num.shape:
        raise EstimationError("units must be one a row")
    if labels.dtype.kind not in "iu":
        labels = np.unique(labels, return_inverse=True)[1]
    kept = [None if x is None else x[seen] for x in (num, den, w)]
    if any(x is not None and np.isinf(x).any() for x in kept[:2]):
        raise EstimationError("the outcome holds values that are not finite")
    if kept[2] is not None and not np.isfinite(kept[2]).all():
        raise EstimationError("weights must be finite: a logged propensity of 0, or none at all, gives no weight")
    if kept[2] is not None and kept[2].min() < 0.0:
        raise EstimationError("weights must not be negative")
    keys, codes = np.unique(labels[seen], return_inverse=True)
    assert kept[0] is not None
    return Logged(kept[0], kept[1], kept[2], codes.astype(np.intp), keys, seen)


def ips(
    reward: ArrayLike,
    weight: ArrayLike,
    *,
    denominator: ArrayLike | None = None,
    units: ArrayLike | None = None,
    clip: float | None = None,
    alpha: float = 0.05,
) -> Estimate:
    """The target policy's value by weights over rows, minus the logging policy's.

    Args:
        reward: ``(n,)``; NaN: left out.
        weight: ``(n,)`` ``pi(A|x) / p(A|x)``: the target policy's probability of the logged action over the logging
            policy's.
        denominator: ``(n,)`` of a ratio metric; a policy's value is then mean numerator over mean denominator.
        units: ``(n,)`` labels of independent units, rows of one unit alike; None: every row is one.
        clip: Weights above it count as it; None: none.
        alpha: Level; intervals are at ``1 - alpha``.

    Returns:
        As :func:`estimators.policy_value.policy_value`; ``diagnostics`` also ``clip`` and ``rows_left_out``.

    Raises:
        ValueError: A ``clip`` that is not positive.
        EstimationError: Arrays that do not fit, weights that are not finite, no row whose logged action the target
            takes, fewer than two units, or no variation.
    """
    return _weighted("ips", reward, weight, denominator, units, clip, alpha)


def snips(
    reward: ArrayLike,
    weight: ArrayLike,
    *,
    denominator: ArrayLike | None = None,
    units: ArrayLike | None = None,
    clip: float | None = None,
    alpha: float = 0.05,
) -> Estimate:
    """As :func:`ips`, over the sum of weights."""
    return _weighted("snips", reward, weight, denominator, units, clip, alpha)


def capped(weight: Vector, clip: float | None) -> Vector:
    """Weights, those above ``clip`` put to it.

    Raises:
        ValueError: A ``clip`` that is not positive.
    """
    if clip is None:
        return weight
    if not clip > 0.0:
        raise ValueError("clip must be a positive number")
    return np.minimum(weight, clip)


def weight_sums(rows: Logged, w: Vector) -> dict[str, Any]:
    """What :class:`UnitSums` holds of the weights ``w`` that were used in place of those of ``rows``."""
    assert rows.weight is not None
    return {
        "w": rows.by_unit(w),
        "w2": rows.by_unit(w * w),
        "largest": float(w.max()),
        "clipped": float(np.count_nonzero(w < rows.weight)),
        "cut": float((rows.weight - w).sum()),
    }


def _weighted(
    method: str,
    reward: ArrayLike,
    weight: ArrayLike,
    denominator: ArrayLike | None,
    units: ArrayLike | None,
    clip: float | None,
    alpha: float,
) -> Estimate:
    rows = logged(reward, weight, denominator=denominator, units=units)
    assert rows.weight is not None
    w = capped(rows.weight, clip)
    counts = rows.by_unit(None)
    each = w if rows.den is None else w * rows.den
    sums = UnitSums(
        rows=counts,
        logged_num=rows.by_unit(rows.num),
        logged_den=counts if rows.den is None else rows.by_unit(rows.den),
        target_num=rows.by_unit(w * rows.num),
        target_den=counts if method == "ips" and rows.den is None else rows.by_unit(each),
        **weight_sums(rows, w),
    )
    return policy_value(sums, method=method, alpha=alpha, diagnostics={"clip": clip} | rows.notes)


def _column(values: ArrayLike | None, n: int, name: str) -> Vector | None:
    if values is None:
        return None
    x = np.asarray(values, dtype=np.float64)
    if x.shape != (n,):
        raise EstimationError(f"{name} must be one a row")
    return x
