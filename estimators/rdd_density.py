"""Test for a jump of the running variable's density at the cutoff: whether units sort themselves across it.

Cattaneo, Jansson and Ma (2020), *Simple local polynomial density estimators*, Journal of the American Statistical
Association 115, and their (2018) *Manipulation testing based on density discontinuity*, Stata Journal 18: a polynomial
is fitted on either side to the empirical distribution function, and its slope is the density; nothing is binned. The
sides are fitted apart (unrestricted), with the triangular kernel and jackknife errors. Bandwidths are those of least
mean squared error for order ``p``, each side's being the median of the choices for that side, for the difference and
for the sum; the test fits order ``p + 1`` there, so that its bias is small beside its error. Pilot bandwidths are those
of a normal density.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from estimators.inference import EstimationError, two_sided_p

Vector = NDArray[np.float64]

LEAST = 10  # distinct values of the running variable on a side


@dataclass(frozen=True, slots=True)
class DensityTest:
    """Densities at the cutoff, and the test that they are one.

    Attributes:
        below, above: Density at the cutoff from either side, per unit of the running variable.
        difference: ``above - below``.
        std_error: Its jackknife standard error.
        statistic, p_value: Two-sided test of no jump, normal reference.
        h_below, h_above: Bandwidths.
        n_below, n_above: Rows within them.
        mass_points: Some values of the running variable repeat; the test then counts each value once as a step.
    """

    below: float
    above: float
    difference: float
    std_error: float
    statistic: float
    p_value: float
    h_below: float
    h_above: float
    n_below: int
    n_above: int
    mass_points: bool


@dataclass(frozen=True, slots=True)
class _Half:
    """One side: ``(n,)`` running variable less the cutoff, its empirical distribution, and where its ties begin."""

    x: Vector
    cdf: Vector
    first: NDArray[np.intp]
    rows: int

    def fit(self, h: float, order: int, derivative: int) -> tuple[float, float, float, int]:
        """Density, its variance, coefficient ``derivative`` of the distribution, and the rows within ``h``."""
        inside = np.flatnonzero(np.abs(self.x) <= h)
        u = self.x[inside] / h
        weights = 1.0 - np.abs(u)
        design = np.vander(u, order + 1, increasing=True)
        root = np.sqrt(weights)[:, None]
        if len(np.unique(u[weights > 0.0])) <= order:
            raise EstimationError("too few distinct values of the running variable lie near the cutoff to see a jump")
        q, r = np.linalg.qr(root * design)
        coef = np.linalg.solve(r, q.T @ (root[:, 0] * self.cdf[inside]))
        back = np.linalg.inv(r)
        loadings = weights * (design @ (back @ back[1]))
        # Row i moves the distribution at every other row at or above it, by 1 / (n - 1).
        tails = np.cumsum(loadings[::-1])[::-1]
        moved = (tails[np.searchsorted(inside, self.first[inside])] - loadings) / (self.rows - 1)
        return float(coef[1] / h), float(moved @ moved) / h**2, float(coef[derivative] / h**derivative), len(inside)


def density_test(running: ArrayLike, *, cutoff: float = 0.0, order: int = 2) -> DensityTest:
    """Test that the density of the running variable does not jump at the cutoff.

    Args:
        running: ``(n,)`` one value a unit.
        order: Degree ``p`` for the bandwidths; the test fits ``p + 1``.

    Raises:
        EstimationError: Values that are not finite, a side with fewer than ten distinct values, or no variation.
    """
    if not 1 <= order <= 4:
        raise ValueError("the order of the density test must lie between 1 and 4")
    x = np.sort(np.asarray(running, dtype=np.float64))
    if x.ndim != 1 or not (np.isfinite(x).all() and math.isfinite(cutoff)):
        raise EstimationError("the running variable holds values that are not finite")
    halves = _halves(x, cutoff)
    for name, half in zip(("below", "above"), halves, strict=True):
        if (found := len(np.unique(half.x))) < LEAST:
            raise EstimationError(
                f"{found} distinct values of the running variable {name} the cutoff are too few to see a jump of its "
                f"density; {LEAST} are needed"
            )
    h = _bandwidths(halves, x - cutoff, order)
    (f_b, v_b, _, n_b), (f_a, v_a, _, n_a) = (
        half.fit(wide, order + 1, 1) for half, wide in zip(halves, h, strict=True)
    )
    std_error = math.sqrt(v_b + v_a)
    if not (math.isfinite(std_error) and std_error > 0.0):
        raise EstimationError("the running variable does not vary near the cutoff, so its density cannot be tested")
    statistic = (f_a - f_b) / std_error
    return DensityTest(
        below=f_b,
        above=f_a,
        difference=f_a - f_b,
        std_error=std_error,
        statistic=statistic,
        p_value=two_sided_p(statistic, math.inf),
        h_below=h[0],
        h_above=h[1],
        n_below=n_b,
        n_above=n_a,
        mass_points=len(np.unique(x)) < len(x),
    )


def _halves(x: Vector, cutoff: float) -> tuple[_Half, _Half]:
    n = len(x)
    values, first, size = np.unique(x, return_index=True, return_counts=True)
    if n < 2 or len(values) < 2:
        raise EstimationError("the running variable does not vary, so its density cannot be tested")
    cdf = np.repeat(first + size - 1, size) / (n - 1)
    start = int(np.searchsorted(x, cutoff, side="left"))
    begins = np.repeat(first, size)
    below, above = (
        _Half(x[rows] - cutoff, cdf[rows], begins[rows] - shift, n)
        for rows, shift in ((slice(0, start), 0), (slice(start, n), start))
    )
    return below, above


def _bandwidths(halves: tuple[_Half, _Half], x: Vector, p: int) -> tuple[float, float]:
    """Bandwidth below and above: medians of those for the side, for the difference and for the sum."""
    n = len(x)
    mean, sd = float(x.mean()), float(x.std(ddof=1))
    rows = [np.sort(np.abs(half.x)) for half in halves]
    distinct = [np.unique(r) for r in rows]
    reach = [float(d[-1]) for d in distinct]

    def least(k: int, side: int) -> float:
        """Distance that takes in ``k`` rows and ``k`` distinct values of a side, or all."""
        return max(float(v[min(k, len(v)) - 1]) for v in (rows[side], distinct[side]))

    def pilot(base: float, k: int) -> float:
        return max(min(base * sd, max(reach)), least(k, 0), least(k, 1))

    for_density = pilot((_pilot_constant(p, 1) * _normal(mean / sd, p) / (2 * p * n)) ** (1 / (2 * p + 1)), 21 + p)
    higher = (2 * p + 1) / 4 * _pilot_constant(p + 2, p + 1) * _normal(mean / sd, p + 2) / n
    for_bias = pilot(higher ** (1 / (2 * p + 5)), 23 + p)
    bias_constant = _bias_constant(p, 1)
    variance = [n * for_density * half.fit(for_density, p, 1)[1] for half in halves]
    slopes = [half.fit(for_bias, p + 2, p + 1)[2] * bias_constant for half in halves]
    slopes[0] *= (-1.0) ** p
    both = sum(variance)
    wanted = [(variance[0], slopes[0]), (variance[1], slopes[1]),
              (both, slopes[1] - slopes[0]), (both, slopes[1] + slopes[0])]  # fmt: skip
    free = [(v / (2 * p * b * b * n)) ** (1 / (2 * p + 1)) if b != 0.0 else math.inf for v, b in wanted]
    k = 21 + p
    own = [max(min(free[side], reach[side]), least(k, side)) for side in (0, 1)]
    shared = [max(min(h, max(reach)), least(k, 0), least(k, 1)) for h in free[2:]]
    below, above = (float(np.median([own[side], *shared])) for side in (0, 1))
    return below, above


def _normal(z: float, degree: int) -> float:
    """``1 / (He(z)^2 phi(z))``: a normal density over its squared derivative of that degree, up to scale."""
    hermite = float(np.polynomial.hermite_e.hermeval(z, [0.0] * degree + [1.0]))
    return math.inf if hermite == 0.0 else math.sqrt(2.0 * math.pi) * math.exp(z * z / 2.0) / hermite**2


def _bias_constant(order: int, derivative: int, *, uniform: bool = False) -> float:
    """What one more power of ``u`` adds to coefficient ``derivative`` of a fit at a boundary."""
    solved, moment = _solved(order, uniform)
    return float(solved[derivative] @ [moment(i + order + 1) for i in range(order + 1)])


def _pilot_constant(order: int, derivative: int) -> float:
    """Variance over squared bias of coefficient ``derivative`` under the uniform kernel, which the pilots take.

    The variance is that of the coefficient of a Brownian motion: ``min(u, v)`` integrated over the unit square.
    """

    def half(i: int, j: int) -> float:
        return 1.0 / ((i + 2) * (i + j + 3))

    inner = np.array([[half(i, j) + half(j, i) for j in range(order + 1)] for i in range(order + 1)])
    row = _solved(order, True)[0][derivative]
    return float(row @ inner @ row) * (math.factorial(order + 1) / _bias_constant(order, derivative, uniform=True)) ** 2


def _solved(order: int, uniform: bool) -> tuple[Vector, Callable[[int], float]]:
    """Inverse of the matrix of the kernel's moments on [0, 1], and the moments."""

    def moment(power: int) -> float:
        return 1.0 / (power + 1) if uniform else 1.0 / ((power + 1) * (power + 2))

    moments = np.array([[moment(i + j) for j in range(order + 1)] for i in range(order + 1)])
    return np.asarray(np.linalg.inv(moments), dtype=np.float64), moment
