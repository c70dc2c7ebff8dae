"""Centred moments of one arm at the unit of randomization: all that a mean or a ratio of sums needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from estimators.inference import EstimationError


@dataclass(frozen=True, slots=True)
class Moments:
    """One arm's first and second moments over ``n`` independent units.

    The value of the arm is ``mean_num / mean_den``: a plain mean where the denominator is 1 throughout (``mean_den``
    1, ``var_den`` and ``cov`` 0), a ratio of sums otherwise. A row mean with clustered rows is the ratio of the
    units' sums to the units' row counts.

    Attributes:
        n: Units.
        mean_num, mean_den: Means over units.
        var_num, var_den, cov: Variances and covariance (ddof 1), centred at the means.
        var_residual: Variance (ddof 1) of ``num - ratio * den``; None: computed from the three above, which loses
            digits where the numerator is almost proportional to the denominator (row means far from zero).
    """

    n: int
    mean_num: float
    mean_den: float
    var_num: float
    var_den: float
    cov: float
    var_residual: float | None = None

    @classmethod
    def from_arrays(cls, num: ArrayLike, den: ArrayLike | None = None) -> Moments:
        """Moments of one entry per unit.

        Raises:
            EstimationError: Where there is no unit or a value is not finite.
        """
        x = _finite(num, "numerator")
        n = len(x)
        mean_num, var_num = _mean_and_variance(x)
        if den is None:
            return cls(n, mean_num, 1.0, var_num, 0.0, 0.0, var_num)
        d = _finite(den, "denominator")
        if len(d) != n:
            raise EstimationError("numerator and denominator must have one entry per unit each")
        mean_den, var_den = _mean_and_variance(d)
        cov = float(np.dot(x - mean_num, d - mean_den)) / (n - 1) if n > 1 else 0.0
        # Centred once on the residual itself: subtracting variances would cancel at a ratio of 1e9.
        residual = _mean_and_variance(x - mean_num / mean_den * d)[1] if mean_den > 0.0 else None
        return cls(n, mean_num, mean_den, var_num, var_den, cov, residual)

    @classmethod
    def from_sums(
        cls,
        n: int,
        shift_num: float,
        sum_num: float,
        sum_num2: float,
        shift_den: float | None = None,
        sum_den: float = 0.0,
        sum_den2: float = 0.0,
        sum_cross: float = 0.0,
    ) -> Moments:
        """Moments from sums of ``x - shift``, of its squares and of the cross products, over ``n`` units.

        The shifts are pilot constants near the means, so that squares do not cancel. ``shift_den`` None means that the
        denominator is 1 throughout.

        Raises:
            EstimationError: Where there is no unit or a sum is not finite.
        """
        if n < 1:
            raise EstimationError("an arm has no observations")
        if not np.isfinite([shift_num, sum_num, sum_num2, shift_den or 0.0, sum_den, sum_den2, sum_cross]).all():
            raise EstimationError("the outcome holds values that are not finite")
        rest = max(n - 1, 1)
        mean_num = shift_num + sum_num / n
        var_num = max(0.0, sum_num2 - sum_num * (sum_num / n)) / rest
        if shift_den is None:
            return cls(n, mean_num, 1.0, var_num, 0.0, 0.0, var_num)
        var_den = max(0.0, sum_den2 - sum_den * (sum_den / n)) / rest
        cov = (sum_cross - sum_num * (sum_den / n)) / rest
        return cls(n, mean_num, shift_den + sum_den / n, var_num, var_den, cov)

    @property
    def value(self) -> float:
        """The arm's mean or ratio; raises ``EstimationError`` where the denominator's sum is not positive."""
        if not self.mean_den > 0.0:
            raise EstimationError("the denominator does not sum to a positive number in one arm")
        return self.mean_num / self.mean_den

    @property
    def value_variance(self) -> float:
        """Sampling variance of ``value`` by the delta method: ``var(num - value * den) / (n * mean_den ** 2)``."""
        if self.n < 2:
            raise EstimationError("an arm has fewer than two independent units")
        r = self.value
        residual = self.var_residual
        if residual is None:
            residual = max(0.0, self.var_num - 2.0 * r * self.cov + r * r * self.var_den)
        return residual / self.n / self.mean_den**2


def _finite(values: ArrayLike, name: str) -> np.ndarray:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or len(x) == 0:
        raise EstimationError("an arm has no observations")
    if not np.isfinite(x).all():
        raise EstimationError(f"the {name} holds values that are not finite")
    return x


def _mean_and_variance(x: np.ndarray) -> tuple[float, float]:
    """Two passes: the second corrects the mean and centres the squares."""
    mean = float(x.mean())
    centred = x - mean
    correction = float(centred.mean())
    n = len(x)
    variance = (float(np.dot(centred, centred)) - n * correction * correction) / (n - 1) if n > 1 else 0.0
    return mean + correction, max(0.0, variance)
