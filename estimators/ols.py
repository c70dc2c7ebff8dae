"""Weighted least squares with cluster-robust covariance: CR1, CR2 and Satterthwaite degrees of freedom.

Sources: Bell and McCaffrey (2002), *Bias reduction in standard errors for linear regression with multi-stage samples*;
Pustejovsky and Tipton (2018), *Small-sample methods for cluster-robust variance estimation*. Weights are taken as
inverse variances: CR2 and its degrees of freedom are those of the unweighted model after every row is multiplied by the
root of its weight, with the identity as working covariance.

With ``Q R`` the QR decomposition of the transformed design, everything that CR2 needs lives in ``p x p`` matrices:
``Q_g' (I - Q_g Q_g')^(-1/2) = (I - Q_g' Q_g)^(-1/2) Q_g'``, so that no ``n x n`` matrix is ever built.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from estimators.inference import EstimationError

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

_NULL = 1e-9  # below it 1 - leverage is zero: the group alone fits that direction, and leaves no residual there
_RANK = 1e-10


@dataclass(frozen=True)
class Fit:
    """A weighted least squares fit of ``m`` outcomes on one design.

    Attributes:
        coef: ``(p, m)`` coefficients.
        q, r: QR decomposition of ``sqrt(w) * X``.
        residuals: ``(n, m)`` residuals of the transformed model, ``sqrt(w) * (y - X coef)``.
        groups: ``(n,)`` group codes ``0 .. n_groups - 1``.
    """

    coef: Matrix
    q: Matrix
    r: Matrix
    residuals: Matrix
    groups: NDArray[np.intp]
    n_groups: int

    def loadings(self, c: ArrayLike) -> Vector:
        """``a = R^-T c``: the contrast in the coordinates of ``q``."""
        return np.asarray(np.linalg.solve(self.r.T, np.asarray(c, dtype=np.float64)), dtype=np.float64)

    def scores(self, c: ArrayLike, kind: Literal["CR1", "CR2"] = "CR2") -> Matrix:
        """``(n_groups, m)`` contributions of the groups to ``c' coef``; products of them add up to (co)variances."""
        weights = self._adjusted(self.loadings(c)) if kind == "CR2" else self.q @ self.loadings(c)
        scores = np.zeros((self.n_groups, self.residuals.shape[1]))
        np.add.at(scores, self.groups, weights[:, None] * self.residuals)
        return scores * np.sqrt(self._cr1_factor) if kind == "CR1" else scores

    def covariance(self, kind: Literal["CR1", "CR2"] = "CR2", outcome: int = 0) -> Matrix:
        """``(p, p)`` covariance of one outcome's coefficients."""
        scores = np.column_stack([self.scores(c, kind)[:, outcome] for c in np.eye(self.r.shape[0])])
        return scores.T @ scores

    def variance(self, c: ArrayLike, outcome: int = 0) -> float:
        """CR2 variance of ``c' coef``."""
        return float((self.scores(c)[:, outcome] ** 2).sum())

    def contrast(self, c: ArrayLike, outcome: int = 0) -> tuple[float, float, float]:
        """``c' coef`` of one outcome, its CR2 standard error and its Satterthwaite degrees of freedom.

        Raises:
            EstimationError: Where one group alone determines the contrast, or no degrees of freedom are left.
        """
        a = self.loadings(c)
        if self._null_loading(a) > 1e-6 * float(np.linalg.norm(a)):
            raise EstimationError("one randomized unit alone decides the estimate, so its error cannot be seen")
        estimate = float(np.asarray(c, dtype=np.float64) @ self.coef[:, outcome])
        std_error = float(np.sqrt(self.variance(c, outcome)))
        return estimate, std_error, self._df(a)

    def leave_out(self, c: ArrayLike, outcome: int = 0) -> Vector:
        """``(n_groups,)`` change of ``c' coef`` when each group is left out in turn (exact).

        Zero where the group alone identifies a parameter: the contrast does not exist without it, or does not need it.
        """
        return -self._group_sums(self._adjusted(self.loadings(c), power=-1.0), outcome)

    @property
    def _cr1_factor(self) -> float:
        n, p = self.q.shape
        return float(self.n_groups / (self.n_groups - 1) * (n - 1) / (n - p))

    @cached_property
    def _spectra(self) -> list[tuple[NDArray[np.intp], Matrix, Vector]]:
        """Row numbers ``(g, k)``, right singular vectors ``(g, r, p)`` and squared singular values ``(g, r)`` of the
        groups' blocks of ``q``, by size ``k`` of group: those of one size are decomposed in one call."""
        order = np.argsort(self.groups, kind="stable")
        sizes = np.bincount(self.groups, minlength=self.n_groups)
        starts = np.cumsum(sizes) - sizes
        out: list[tuple[NDArray[np.intp], Matrix, Vector]] = []
        for size in np.unique(sizes):
            rows = order[starts[sizes == size][:, None] + np.arange(size)]
            _, s, vt = np.linalg.svd(self.q[rows], full_matrices=False)
            out.append((rows, vt, np.minimum(s * s, 1.0)))
        return out

    def _adjusted(self, a: Vector, power: float = -0.5) -> Vector:
        """``Q_g (I - Q_g' Q_g)^power a`` for every group, in the order of the rows (``A_g Q_g a`` of CR2)."""
        out = np.empty(len(self.groups))
        for rows, vt, h in self._spectra:
            turned = (_inverse_power(1.0 - h, power) * (vt @ a))[:, None, :] @ vt
            out[rows] = (self.q[rows] @ turned.transpose(0, 2, 1))[..., 0]
        return out

    def _group_sums(self, weights: Vector, outcome: int) -> Vector:
        sums = np.bincount(self.groups, weights=weights * self.residuals[:, outcome], minlength=self.n_groups)
        return np.asarray(sums, dtype=np.float64)

    def _null_loading(self, a: Vector) -> float:
        """Largest part of the contrast that only one group identifies."""
        return max(float(np.where(h > 1.0 - _NULL, np.abs(vt @ a), 0.0).max()) for _, vt, h in self._spectra)

    def _df(self, a: Vector) -> float:
        """``tr(G)^2 / tr(G^2)`` with ``G = diag(d) - P P'``, the variance estimator's form under the working model."""
        weights = self._adjusted(a)
        d = np.bincount(self.groups, weights=weights**2, minlength=self.n_groups)
        p = np.zeros((self.n_groups, self.q.shape[1]))
        np.add.at(p, self.groups, weights[:, None] * self.q)
        trace = d.sum() - (p * p).sum()
        square = (d * d).sum() - 2.0 * (d * (p * p).sum(axis=1)).sum() + ((p.T @ p) ** 2).sum()
        if not (trace > 1e-12 * d.sum() and square > 0.0):
            raise EstimationError("no degrees of freedom are left for the standard error: too few randomized units")
        return float(trace * trace / square)


def fit(x: ArrayLike, y: ArrayLike, w: ArrayLike | None = None, groups: ArrayLike | None = None) -> Fit:
    """Weighted least squares.

    Args:
        x: ``(n, p)`` design of full column rank, intercept included where wanted.
        y: ``(n,)`` or ``(n, m)`` outcomes.
        w: ``(n,)`` positive weights; None: all 1.
        groups: ``(n,)`` labels of the independent groups; None: every row is one.

    Raises:
        EstimationError: Values that are not finite, weights that are not positive, fewer than two groups, fewer rows
            than columns, or a column that is a combination of those before it (its index is named).
    """
    design = np.asarray(x, dtype=np.float64)
    outcomes = np.asarray(y, dtype=np.float64)
    outcomes = outcomes[:, None] if outcomes.ndim == 1 else outcomes
    n, p = design.shape
    weight = np.ones(n) if w is None else np.asarray(w, dtype=np.float64)
    if not (np.isfinite(design).all() and np.isfinite(outcomes).all() and np.isfinite(weight).all()):
        raise EstimationError("the regression holds values that are not finite")
    if not (weight > 0.0).all():
        raise EstimationError("the regression's weights must be positive")
    if n <= p:
        raise EstimationError(f"{n} observations are too few for a regression with {p} parameters")
    codes = np.arange(n) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1].reshape(-1)
    n_groups = int(codes.max()) + 1
    if n_groups < 2:
        raise EstimationError("the regression needs at least two randomized units")
    root = np.sqrt(weight / weight.mean())[:, None]
    scaled = root * design
    q, r = np.linalg.qr(scaled)
    alone = np.abs(np.diag(r)) <= _RANK * np.linalg.norm(scaled, axis=0)
    if alone.any():
        raise EstimationError(f"column {int(np.argmax(alone))} of the regression is a combination of those before it")
    projected = q.T @ (root * outcomes)
    residuals = root * outcomes - q @ projected
    return Fit(np.linalg.solve(r, projected), q, r, residuals, codes, n_groups)


def _inverse_power(x: Vector, power: float) -> Vector:
    """``x ** power``, and 0 where ``x`` is 0 (the Moore-Penrose inverse)."""
    positive = x > _NULL
    return np.asarray(np.where(positive, np.where(positive, x, 1.0) ** power, 0.0), dtype=np.float64)
