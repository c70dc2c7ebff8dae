"""What leaving out a row or a cluster does to coefficients: the jackknife's covariances, HC3 and CR3, by closed form.

MacKinnon and White (1985), *Some heteroskedasticity-consistent covariance matrix estimators with improved finite sample
properties*; Bell and McCaffrey (2002) and MacKinnon, Nielsen and Webb (2023), *Leverage, influence, and the jackknife
in clustered regression models*, for clusters. With an orthonormal design ``P`` and a group's ``A = P_g'P_g``, leaving
out the group takes ``(I - A)^-1 P_g'e_g`` off the coefficients, so that nothing is refitted.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from estimators.inference import EstimationError
from estimators.ols import Matrix

Codes = NDArray[np.intp]

_DECIDES = "one {} alone decides what an instrument does, so its error cannot be seen"
_NONE = 1e-9  # below it 1 - leverage is zero
_BLOCK = 4096  # clusters at a time


def jackknife(design: Matrix, residuals: Matrix, k: int, codes: Codes | None) -> list[Matrix]:
    """Contributions of rows or clusters to the last ``k`` coefficients; products of them add up to covariances.

    Args:
        design: ``(n, p)`` orthonormal columns.
        residuals: ``(n, m)`` of outcomes regressed on them.
        k: How many of the last columns are asked about.
        codes: ``(n,)`` codes of clusters; None: every row is its own.

    Returns:
        One ``(groups, k)`` matrix an outcome. A direction of the other columns that a group alone decides is left out
        of the group (Moore-Penrose).

    Raises:
        EstimationError: A row or cluster alone decides something of the last ``k`` columns.
    """
    if codes is None:
        return _rows(design, residuals, k)
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes))
    out = np.empty((len(ends), k, residuals.shape[1]))
    for first in range(0, len(ends), _BLOCK):
        block = range(first, min(first + _BLOCK, len(ends)))
        parts = [order[ends[g - 1] if g else 0 : ends[g]] for g in block]
        pairs = [(design[rows], residuals[rows]) for rows in parts]
        a, c = np.stack([p.T @ p for p, _ in pairs]), np.stack([p.T @ e for p, e in pairs])
        out[block.start : block.stop] = _solved(a, c, k)[:, -k:]
    out *= math.sqrt(1.0 - 1.0 / len(ends))
    return [out[:, :, i] for i in range(residuals.shape[1])]


def _rows(design: Matrix, residuals: Matrix, k: int) -> list[Matrix]:
    free = 1.0 - (design**2).sum(axis=1)
    alone = free <= _NONE
    if (np.abs(design[alone, -k:]) > 1e-6).any():
        raise EstimationError(_DECIDES.format("row"))
    parts = np.where(alone[:, None], 0.0, residuals / np.where(alone, 1.0, free)[:, None])
    return [design[:, -k:] * part[:, None] for part in parts.T]


def _solved(a: Matrix, c: Matrix, k: int) -> Matrix:
    """``(I - A)^-1 c`` of groups, ``(g, p, p)`` and ``(g, p, m)``."""
    out = np.empty_like(c)
    left = np.eye(a.shape[1]) - a
    heavy = np.trace(a, axis1=1, axis2=2) > 0.5  # only these can have an eigenvalue of 1
    out[~heavy] = np.linalg.solve(left[~heavy], c[~heavy])
    if heavy.any():
        sizes, vectors = np.linalg.eigh(left[heavy])
        alone = sizes <= _NONE
        if (np.abs(vectors[:, -k:, :]).max(axis=1)[alone] > 1e-6).any():
            raise EstimationError(_DECIDES.format("cluster"))
        inverse = np.where(alone, 0.0, 1.0 / np.where(alone, 1.0, sizes))
        out[heavy] = vectors @ (inverse[:, :, None] * (vectors.transpose(0, 2, 1) @ c[heavy]))
    return out
