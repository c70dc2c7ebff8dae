"""Both sides of a cutoff fitted at once: jumps, their bias corrections and robust errors.

Calonico, Cattaneo and Titiunik (2014, Econometrica 82) and, with covariates, Calonico, Cattaneo, Farrell and Titiunik
(2019, Review of Economics and Statistics 101). A limit's bias is estimated by the next derivative, fitted one degree
higher at bandwidth ``b``, and taken off; the corrected limit is again a weighted sum of outcomes, whose variance counts
the noise of the correction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from estimators import local_polynomial as lp
from estimators.inference import EstimationError
from estimators.local_polynomial import Fit, Matrix, Side, Vector
from estimators.rdd_bandwidth import contrast, explained


@dataclass(frozen=True, slots=True)
class Jump:
    """A contrast of the two sides at the cutoff.

    Attributes:
        estimate: The conventional point.
        corrected: The point less its estimated bias.
        conventional_error: Standard error of the conventional point.
        std_error: Robust standard error: of the corrected point.
    """

    estimate: float
    corrected: float
    conventional_error: float
    std_error: float

    @property
    def statistic(self) -> float:
        """The corrected point over its error."""
        return self.corrected / self.std_error


@dataclass(frozen=True, slots=True)
class Limit:
    """One side at the cutoff.

    Attributes:
        side: Its rows within the wider bandwidth.
        point: Fit of the point, at ``h``.
        corrected: ``(n,)`` weights of the bias-corrected limit.
        residuals: ``(n, m)`` of the point's fit and of the bias's.
    """

    side: Side
    point: Fit
    corrected: Vector
    residuals: tuple[Matrix, Matrix]

    @property
    def values(self) -> Vector:
        """``(m,)`` conventional limits of the values."""
        return np.asarray(self.point.coef[0], dtype=np.float64)

    def bias(self) -> Vector:
        """``(m,)`` estimated bias of the limits."""
        return np.asarray(self.values - self.corrected @ self.side.values, dtype=np.float64)

    def variances(self, weights: Vector, variance: str) -> tuple[float, float]:
        """Variances of ``weights' limits``: conventional and bias-corrected."""
        k = self.point.design.shape[1]
        plain, robust = (r @ weights for r in self.residuals)
        return (
            lp.variance_of(self.side, self.point.loadings(0), plain, variance, k),
            lp.variance_of(self.side, self.corrected, robust, variance, k + 1),
        )


@dataclass(frozen=True, slots=True)
class Fits:
    """Both sides' limits.

    Attributes:
        below, above: The sides.
        gamma: ``(covariates, outcomes)`` what covariates explain of the outcome and, second, of take-up.
        variance: Name of the variance estimator.
    """

    below: Limit
    above: Limit
    gamma: NDArray[np.float64]
    variance: str

    def jump(self, outcome: int = 0) -> Jump:
        """Jump of the outcome (0) or of take-up (1), covariates' jumps taken out.

        Raises:
            EstimationError: The outcome does not vary about the fits; take-up may follow the cutoff to the letter.
        """
        weights = np.zeros(len(self.below.values))
        weights[outcome] = 1.0
        weights[self.gamma.shape[1] :] = -self.gamma[:, outcome]
        found = self.combined(float(weights @ (self.above.values - self.below.values)), weights, weights)
        return found if outcome else self._varied(found, weights)

    def ratio(self) -> Jump:
        """Jump of the outcome over the jump of take-up.

        Raises:
            EstimationError: Take-up does not jump at all, or the values do not vary about the fits.
        """
        jumps = self.above.values - self.below.values
        weights = contrast(jumps, self.gamma, takeup=True)
        outcome, takeup = (float(jumps[i] - self.gamma[:, i] @ jumps[2:]) for i in (0, 1))
        return self._varied(self.combined(outcome / takeup, weights, weights), weights)

    def parts(self, fuzzy: bool) -> tuple[Vector, Vector]:
        """By side, ``(n,)`` parts of the rows within reach whose squared (cluster) sums are the robust variance.

        They are those of the bias-corrected ratio where ``fuzzy``, else of the outcome's jump, without CR1's factor.
        """
        if fuzzy:
            weights = contrast(self.above.values - self.below.values, self.gamma, takeup=True)
        else:
            weights = np.concatenate(([1.0], -self.gamma[:, 0]))
        below, above = (limit.corrected * (limit.residuals[1] @ weights) for limit in (self.below, self.above))
        return below, above

    def combined(self, estimate: float, below: Vector, above: Vector) -> Jump:
        """A quantity that moves with ``above' limits above - below' limits below``.

        Raises:
            EstimationError: A number is not finite.
        """
        bias = float(above @ self.above.bias() - below @ self.below.bias())
        parts = (self.below.variances(below, self.variance), self.above.variances(above, self.variance))
        plain, robust = (math.sqrt(parts[0][i] + parts[1][i]) for i in (0, 1))
        if not all(map(math.isfinite, (estimate, bias, plain, robust))):
            raise EstimationError("the estimate at the cutoff is not a finite number")
        return Jump(estimate, estimate - bias, plain, robust)

    def _varied(self, found: Jump, weights: Vector) -> Jump:
        size = max(float(np.abs(weights) @ np.abs(limit.side.values).max(axis=0)) for limit in (self.below, self.above))
        # Rounding leaves a trace of the values' size; a spread below it is none.
        if found.std_error <= 1e-13 * size:
            raise EstimationError(
                "the outcome does not vary about its line near the cutoff, so nothing says how sure the estimate is"
            )
        return found


def split(
    outcome: ArrayLike,
    running: ArrayLike,
    cutoff: float,
    *,
    takeup: ArrayLike | None = None,
    covariates: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
) -> tuple[Side, Side]:
    """The rows below the cutoff and those at or above it, by the running variable.

    Raises:
        EstimationError: Arrays of different length, values that are not finite, take-up outside 0 to 1, or an empty
            side.
    """
    x = np.asarray(running, dtype=np.float64)
    n = len(x)
    columns = [np.asarray(outcome, dtype=np.float64).reshape(-1, 1)]
    if takeup is not None:
        columns.append(np.asarray(takeup, dtype=np.float64).reshape(-1, 1))
    if covariates is not None:
        z = np.asarray(covariates, dtype=np.float64)
        columns.append(z.reshape(len(z), -1))
    codes = None if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1].reshape(-1)
    if x.ndim != 1 or any(len(c) != n for c in columns) or (codes is not None and len(codes) != n):
        raise EstimationError("outcome, running variable, take-up, covariates and clusters need one row a unit each")
    values = np.concatenate(columns, axis=1)
    if not (np.isfinite(x).all() and np.isfinite(values).all() and math.isfinite(cutoff)):
        raise EstimationError("outcome, running variable, take-up or a covariate holds values that are not finite")
    if takeup is not None and not ((columns[1] >= 0.0) & (columns[1] <= 1.0)).all():
        raise EstimationError("take-up must lie between 0 and 1")
    order = np.lexsort((values[:, 0], x))
    x, values = x[order], values[order]
    codes = None if codes is None else codes[order]
    start = int(np.searchsorted(x, cutoff, side="left"))
    if not 0 < start < n:
        where = "below" if start == 0 else "at or above"
        raise EstimationError(f"no row stands {where} the cutoff {cutoff:.6g}, so there are no two sides to compare")
    halves = (("below", slice(0, start)), ("above", slice(start, n)))
    below, above = (
        Side(name, x[rows] - cutoff, values[rows], None if codes is None else codes[rows]) for name, rows in halves
    )
    return below, above


def fit_sides(
    sides: tuple[Side, Side], h: float, b: float, *, outcomes: int, order: int, kernel: str, variance: str
) -> Fits:
    """Fits either side at ``h`` for its limit and at ``b``, one degree higher, for the limit's bias.

    Args:
        outcomes: Columns of the values before the covariates: 1, or 2 with take-up.
    """
    below, above = (_limit(side, h, b, order, kernel, variance) for side in sides)
    gamma = explained([(limit.side, limit.point) for limit in (below, above)], outcomes)
    return Fits(below, above, gamma, variance)


def _limit(side: Side, h: float, b: float, order: int, kernel: str, variance: str) -> Limit:
    rows = side.within(max(h, b), kernel)
    point, bias = lp.fit(rows, h, order, kernel), lp.fit(rows, b, order + 1, kernel)
    weights = point.loadings(0)
    constant = float(weights @ (rows.x / h) ** (order + 1)) * (h / b) ** (order + 1)
    corrected = weights - constant * bias.loadings(order + 1)
    residual = lp.residuals(rows, point, variance)
    by_neighbours = variance == "nn" and rows.clusters is None
    return Limit(side=rows, point=point, corrected=corrected,
                 residuals=(residual, residual if by_neighbours else lp.residuals(rows, bias, variance)))  # fmt: skip
