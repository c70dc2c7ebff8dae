"""Local polynomial fits on one side of a cutoff, with the variance estimators that regression discontinuity uses.

Every quantity that a regression discontinuity reports is a weighted sum of outcomes, ``l' D``, whose weights come from
a kernel-weighted polynomial fit. This module gives the weights ``l``, residuals ``r`` that estimate the noise, and the
variance ``sum (l r)^2``, over rows or over clusters.

Variance estimators (``VARIANCES``): ``nn``, by the nearest three neighbours on the running variable, ties all taken
(Calonico, Cattaneo and Titiunik 2014, *Robust nonparametric confidence intervals for regression-discontinuity designs*,
Econometrica 82, eq. 6 of the supplement; Abadie and Imbens 2006); ``hc0`` to ``hc3`` by the fit's own residuals
(MacKinnon and White 1985). With clusters ``nn``, ``hc0`` and ``hc1`` become CR1, ``hc2`` CR2 and ``hc3`` CR3 (Bell and
McCaffrey 2002; Pustejovsky and Tipton 2018).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from estimators.inference import EstimationError

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Codes = NDArray[np.intp]

KERNELS = ("triangular", "uniform", "epanechnikov")
VARIANCES = ("nn", "hc0", "hc1", "hc2", "hc3")
NEIGHBOURS = 3

_CLOSE = float(np.sqrt(np.finfo(np.float64).eps))  # distances that differ by less than this share count as equal
_ALONE = 1e-10  # below it 1 - leverage of a cluster is zero: the cluster alone fits that direction
_RANK = 1e-12


@dataclass(frozen=True, slots=True)
class Side:
    """The rows of one side of the cutoff.

    Attributes:
        name: ``below`` or ``above``, for messages.
        x: ``(n,)`` running variable less the cutoff, ascending.
        values: ``(n, m)`` outcome, then take-up where there is one, then covariates.
        clusters: ``(n,)`` codes of the clusters; None: every row stands alone.
    """

    name: str
    x: Vector
    values: Matrix
    clusters: Codes | None = None

    def inside(self, reach: float, kernel: str) -> NDArray[np.bool_]:
        """``(n,)`` whether the kernel gives a row weight at bandwidth ``reach``."""
        return np.asarray(kernel_weights(self.x / reach, kernel) > 0.0)

    def within(self, reach: float, kernel: str) -> Side:
        """The rows that the kernel gives weight at bandwidth ``reach``."""
        kept = self.inside(reach, kernel)
        return Side(self.name, self.x[kept], self.values[kept], None if self.clusters is None else self.clusters[kept])


@dataclass(frozen=True, slots=True)
class Fit:
    """A kernel-weighted polynomial in ``x / h``.

    Attributes:
        design: ``(n, k)`` powers ``0 .. order`` of ``x / h``.
        weights: ``(n,)`` kernel weights; zero where a row lies beyond ``h``.
        inverse: ``(k, k)`` inverse of ``X'WX``.
        coef: ``(k, m)`` coefficients of the values.
    """

    design: Matrix
    weights: Vector
    inverse: Matrix
    coef: Matrix

    def loadings(self, power: int) -> Vector:
        """``(n,)`` weights ``l`` with ``l' D`` the coefficient of ``(x / h) ** power``."""
        return np.asarray(self.weights * (self.design @ self.inverse[power]), dtype=np.float64)

    def raw(self, side: Side) -> Matrix:
        """``(n, m)`` what the polynomial leaves of the values."""
        return np.asarray(side.values - self.design @ self.coef, dtype=np.float64)


def kernel_weights(u: Vector, kernel: str) -> Vector:
    """Kernel at ``u``, in the unit of its own bandwidth; zero beyond 1 on either side."""
    size = np.abs(u)
    inside = size <= 1.0
    if kernel == "uniform":
        return np.where(inside, 0.5, 0.0)
    if kernel == "epanechnikov":
        return np.where(inside, 0.75 * (1.0 - size**2), 0.0)
    return np.where(inside, 1.0 - size, 0.0)


def fit(side: Side, h: float, order: int, kernel: str) -> Fit:
    """Weighted least squares of the side's values on powers of ``x / h``.

    Raises:
        EstimationError: Where fewer than ``order + 1`` distinct values of the running variable lie within ``h``.
    """
    u = side.x / h
    weights = kernel_weights(u, kernel)
    distinct = len(np.unique(side.x[weights > 0.0]))
    design = np.vander(u, order + 1, increasing=True)
    root = np.sqrt(weights)[:, None]
    if distinct > order:
        q, r = np.linalg.qr(root * design)
        size = np.abs(np.diag(r))
        if (size > _RANK * np.linalg.norm(r, axis=0)).all():
            back = np.linalg.inv(r)
            return Fit(design, weights, back @ back.T, back @ (q.T @ (root * side.values)))
    raise EstimationError(
        f"{distinct} distinct value{'s' * (distinct != 1)} of the running variable {side.name} the cutoff within "
        f"{h:.6g} of it cannot carry a polynomial of order {order}; widen the bandwidth or lower the order"
    )


def residuals(side: Side, fitted: Fit, variance: str) -> Matrix:
    """``(n, m)`` residuals whose weighted squares (cluster sums where there are clusters) estimate the variance."""
    if side.clusters is not None:
        raw = fitted.raw(side)
        return raw + _cluster_leverage(side, fitted, raw, variance) if variance in ("hc2", "hc3") else raw
    if variance == "nn":
        return neighbour_residuals(side.x, side.values)
    raw = fitted.raw(side)
    n, k = fitted.design.shape
    if variance == "hc1":
        if n <= k:
            raise EstimationError(f"{n} rows {side.name} the cutoff leave no residual for hc1; use nn")
        return np.asarray(raw * np.sqrt(n / (n - k)))
    if variance in ("hc2", "hc3"):
        leverage = fitted.weights * np.einsum("ij,jk,ik->i", fitted.design, fitted.inverse, fitted.design)
        left = np.maximum(1.0 - leverage, 1e-8)[:, None]
        return np.asarray(raw / (np.sqrt(left) if variance == "hc2" else left))
    return raw


def variance_of(side: Side, loadings: Vector, residual: Vector, variance: str, parameters: int) -> float:
    """Variance of ``loadings' values`` from residuals of the contrast; CR1's factor counts ``parameters``.

    Raises:
        EstimationError: Fewer than two clusters on the side.
    """
    score = loadings * residual
    if side.clusters is None:
        return float(score @ score)
    names, codes = np.unique(side.clusters, return_inverse=True)
    groups, n = len(names), len(score)
    if groups < 2 or n <= parameters:
        raise EstimationError(f"there are too few clusters {side.name} the cutoff for an error: {groups}")
    sums = np.bincount(codes, weights=score)
    factor = 1.0 if variance in ("hc2", "hc3") else (n - 1) / (n - parameters) * groups / (groups - 1)
    return float(factor * (sums @ sums))


def neighbour_residuals(x: Vector, values: Matrix) -> Matrix:
    """``sqrt(J / (J + 1))`` times the value less the mean of its ``J`` nearest neighbours on ``x``.

    At least three neighbours, ties taken whole: rows with one value of ``x`` are neighbours of each other first.

    Args:
        x: ``(n,)`` ascending.
        values: ``(n, m)``.
    """
    n = len(x)
    if n < 2:
        raise EstimationError("one row alone has no neighbours to tell its noise from")
    at, first = np.unique(x, return_index=True)
    size = np.diff(np.append(first, n))
    centred = values - values.mean(axis=0)
    sums = np.add.reduceat(centred, first, axis=0)
    # Each distinct x takes whole neighbours to its left (low) and right (high) until it has enough.
    low = np.arange(len(at))
    high = low.copy()
    found, total = size - 1, sums.copy()
    wanted = min(NEIGHBOURS, n - 1)
    while (open_ := found < wanted).any():
        left = np.where(low > 0, at - at[np.maximum(low - 1, 0)], np.inf)
        right = np.where(high < len(at) - 1, at[np.minimum(high + 1, len(at) - 1)] - at, np.inf)
        largest = np.maximum(left, right)
        both = np.isfinite(largest)
        near = both & (np.abs(np.where(both, left - right, 0.0)) <= _CLOSE * np.where(both, largest, 0.0))
        for chosen, end, step in (
            (open_ & np.isfinite(left) & (near | (left < right)), low, -1),
            (open_ & np.isfinite(right) & (near | (right < left)), high, 1),
        ):
            end[chosen] += step
            total[chosen] += sums[end[chosen]]
            found[chosen] += size[end[chosen]]
    group = np.repeat(np.arange(len(at)), size)
    count = found[group].astype(np.float64)[:, None]
    others = (total[group] - centred) / count
    return np.asarray(np.sqrt(count / (count + 1.0)) * (centred - others), dtype=np.float64)


def _cluster_leverage(side: Side, fitted: Fit, raw: Matrix, variance: str) -> Matrix:
    """What CR2 or CR3 adds to the residuals: ``R_g A R_g' W e_g`` with ``(I - H_g)^(-1/2)`` or its square, less 1.

    With ``C C' = inverse`` the block ``H_g`` has the eigenvalues of the ``k x k`` matrix ``C' L_g C``.
    """
    assert side.clusters is not None
    names, codes = np.unique(side.clusters, return_inverse=True)
    k, m = fitted.design.shape[1], raw.shape[1]
    weighted = fitted.design * fitted.weights[:, None]
    gram, cross = np.zeros((len(names), k, k)), np.zeros((len(names), k, m))
    np.add.at(gram, codes, weighted[:, :, None] * fitted.design[:, None, :])
    np.add.at(cross, codes, weighted[:, :, None] * raw[:, None, :])
    half = np.linalg.cholesky(fitted.inverse)
    share, turn = np.linalg.eigh(half.T @ gram @ half)
    share = np.clip(share, 0.0, None)
    if (share > 1.0 - _ALONE).any():
        raise EstimationError(
            f"one cluster alone decides the fit {side.name} the cutoff, so its error cannot be seen; use nn"
        )
    power = 0.5 if variance == "hc2" else 1.0
    # ((1 - s)^(-power) - 1) / s, by expm1 so that it holds at s = 0 too.
    tiny = share < 1e-12
    safe = np.where(tiny, 1.0, share)
    scale = np.where(tiny, power, np.expm1(-power * np.log1p(-np.where(tiny, 0.0, share))) / safe)
    inner = (turn * scale[:, None, :]) @ turn.transpose(0, 2, 1)
    added = half @ inner @ half.T @ cross
    return np.asarray(np.einsum("ik,ikm->im", fitted.design, added[codes]), dtype=np.float64)
