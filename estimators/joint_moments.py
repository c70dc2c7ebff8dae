"""Joint centred moments of several means or ratios of one arm at the unit of randomization."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from estimators.inference import EstimationError

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class JointMoments:
    """Moments of ``m`` ratios of sums over the same ``n`` independent units; a plain mean has the denominator 1.

    The second moments are kept of ``num_j - values_j * den_j``, not of ``num_j``: the delta method needs just these,
    and at a mean of 1e9 they hold digits that the difference of larger variances would lose.

    Attributes:
        n: Units.
        values: ``(m,)`` ratios ``sum(num_j) / sum(den_j)``.
        mean_den: ``(m,)`` mean denominators, positive.
        cov: ``(2m, 2m)`` covariances (ddof 1) of ``num_1 - values_1 * den_1, den_1, num_2 - values_2 * den_2, …``.
    """

    n: int
    values: Vector
    mean_den: Vector
    cov: Matrix

    @classmethod
    def from_arrays(cls, *ratios: tuple[ArrayLike, ArrayLike | None]) -> JointMoments:
        """Moments of ``(numerator, denominator)`` pairs of ``(n,)`` arrays, one entry per unit; None: 1 throughout.

        Raises:
            EstimationError: No unit, arrays of unequal length, a value that is not finite, or a denominator that does
                not sum to a positive number.
        """
        columns = [_column(values) for pair in ratios for values in pair if values is not None]
        n = len(columns[0])
        if any(len(x) != n for x in columns):
            raise EstimationError("outcome and covariate must have one entry per unit each")
        values, mean_den, centred = np.empty(len(ratios)), np.ones(len(ratios)), np.zeros((n, 2 * len(ratios)))
        for j, (num, den) in enumerate(ratios):
            values[j], mean_den[j], residual = linearise(_column(num), None if den is None else _column(den))
            centred[:, 2 * j] = residual - residual.mean()
            if den is not None:
                centred[:, 2 * j + 1] = _column(den) - mean_den[j]
        return cls(n, values, mean_den, centred.T @ centred / max(n - 1, 1))

    @classmethod
    def from_sums(cls, n: int, shift: ArrayLike, sums: ArrayLike, products: ArrayLike) -> JointMoments:
        """Moments from shifted sums of the columns ``num_1, den_1, num_2, den_2, …`` over ``n`` units.

        Args:
            n: Units.
            shift: ``(2m,)`` pilot constants near the means, so that squares do not cancel.
            sums: ``(2m,)`` sums of ``column - shift``.
            products: ``(2m, 2m)`` sums of the products of the shifted columns; symmetric.

        A denominator of 1 throughout has the shift 1 and zeros elsewhere.

        Raises:
            EstimationError: No unit, a sum that is not finite, or a denominator that does not sum to a positive number.
        """
        pilot, total, square = (np.asarray(v, dtype=np.float64) for v in (shift, sums, products))
        if n < 1:
            raise EstimationError("an arm has no observations")
        if not all(np.isfinite(v).all() for v in (pilot, total, square)):
            raise EstimationError("the outcome or its covariate holds values that are not finite")
        mean = pilot + total / n
        _require_positive(mean[1::2])
        values = mean[::2] / mean[1::2]
        cov = (square - np.outer(total, total / n)) / max(n - 1, 1)
        return cls(n, values, mean[1::2], _rebased(cov, values))

    @property
    def value_cov(self) -> Matrix:
        """``(m, m)`` covariance of the units' linearised values; divided by ``n``, that of ``values`` (delta method).

        Raises:
            EstimationError: Fewer than two units.
        """
        if self.n < 2:
            raise EstimationError("an arm has fewer than two independent units")
        return np.asarray(self.cov[::2, ::2] / np.outer(self.mean_den, self.mean_den), dtype=np.float64)

    def merged(self, other: JointMoments) -> JointMoments:
        """Moments of the units of both (Chan, Golub and LeVeque 1983)."""
        n = self.n + other.n
        shares = np.array([[self.n], [other.n]]) / n
        dens = np.stack([self.mean_den, other.mean_den])
        mean_den = (shares * dens).sum(axis=0)
        # Weighted about the first values, so that equal values stay equal to the last digit.
        values = self.values + shares[1] * other.mean_den * (other.values - self.values) / mean_den
        gap = np.empty(len(self.cov))
        gap[::2] = (self.values - values) * self.mean_den - (other.values - values) * other.mean_den
        gap[1::2] = self.mean_den - other.mean_den
        within = sum((m.n - 1) * _rebased(m.cov, values - m.values) for m in (self, other))
        between = np.outer(gap, gap) * (self.n * other.n / n)
        return JointMoments(n, values, mean_den, (within + between) / (n - 1))


def linearise(num: Vector, den: Vector | None = None) -> tuple[float, float, Vector]:
    """A ratio of sums, its mean denominator and ``num - ratio * den`` of every unit, which sums to zero.

    Divided by the mean denominator these residuals are the influence of the units on the ratio (delta method).

    Raises:
        EstimationError: The denominator does not sum to a positive number.
    """
    weight = 1.0 if den is None else den
    mean_den = 1.0 if den is None else float(den.mean())
    _require_positive(np.array([mean_den]))
    ratio = float(num.mean()) / mean_den
    residual = num - ratio * weight
    # The second pass corrects the rounding of the first: it matters where the ratio is far from zero.
    correction = float(residual.mean()) / mean_den
    return ratio + correction, mean_den, residual - correction * weight


def _rebased(cov: Matrix, shift: Vector) -> Matrix:
    """Covariance after every ``shift_j * den_j`` has been taken from its numerator."""
    turn = np.eye(len(cov))
    turn[np.arange(0, len(cov), 2), np.arange(1, len(cov), 2)] = -shift
    return np.asarray(turn @ cov @ turn.T, dtype=np.float64)


def _require_positive(mean_den: Vector) -> None:
    if not (mean_den > 0.0).all():
        raise EstimationError("the denominator does not sum to a positive number in one arm")


def _column(values: ArrayLike) -> Vector:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or len(x) == 0:
        raise EstimationError("an arm has no observations")
    if not np.isfinite(x).all():
        raise EstimationError("the outcome or its covariate holds values that are not finite")
    return x
