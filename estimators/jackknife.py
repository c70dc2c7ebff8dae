"""What leaving out a row or a cluster does to coefficients: the jackknife's covariances, HC3 and CR3, by closed form.

MacKinnon and White (1985), *Some heteroskedasticity-consistent covariance matrix estimators with improved finite sample
properties*; Bell and McCaffrey (2002) and MacKinnon, Nielsen and Webb (2023), *Leverage, influence, and the jackknife
in clustered regression models*, for clusters. With an orthonormal design ``P`` and a group's ``A = P_g'P_g``, leaving
out the group takes ``(I - A)^-1 P_g'e_g`` off the coefficients, so that nothing is refitted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from estimators.inference import EstimationError
from estimators.ols import Matrix

Codes = NDArray[np.intp]

_DECIDES = "one {} alone decides what an instrument does, so its error cannot be seen"
_NONE = 1e-9  # below it 1 - leverage is zero
_NUMBERS = 4_000_000  # of a block of outer products


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
    groups = int(codes.max()) + 1
    out = np.empty((groups, k, residuals.shape[1]))
    for block, rows, starts in _blocks(codes, design.shape[1] ** 2):
        p, e = design[rows], residuals[rows]
        a = np.add.reduceat(p[:, :, None] * p[:, None, :], starts, axis=0)
        c = np.add.reduceat(p[:, :, None] * e[:, None, :], starts, axis=0)
        out[block] = (_inverse_without(a, k) @ c)[:, -k:]
    out *= math.sqrt(1.0 - 1.0 / groups)
    return [out[:, :, i] for i in range(residuals.shape[1])]


def _rows(design: Matrix, residuals: Matrix, k: int) -> list[Matrix]:
    free = 1.0 - (design**2).sum(axis=1)
    alone = free <= _NONE
    if (np.abs(design[alone, -k:]) > 1e-6).any():
        raise EstimationError(_DECIDES.format("row"))
    parts = np.where(alone[:, None], 0.0, residuals / np.where(alone, 1.0, free)[:, None])
    return [design[:, -k:] * part[:, None] for part in parts.T]


def _blocks(codes: Codes, size: int) -> Iterator[tuple[slice, Codes, Codes]]:
    """Consecutive clusters, the positions of their rows by cluster, and where each begins among these: as many as leave
    ``size`` numbers a row within bounds, or one."""
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes))
    first = 0
    while first < len(ends):
        start = int(ends[first - 1]) if first else 0
        last = max(int(np.searchsorted(ends, start + _NUMBERS // size, side="right")), first + 1)
        begins = np.concatenate([[start], ends[first : last - 1]]) - start
        yield slice(first, last), order[start : ends[last - 1]], begins.astype(np.intp)
        first = last


def _inverse_without(a: Matrix, k: int) -> Matrix:
    """``(I - A)^-1`` of ``(g, p, p)`` groups."""
    out = np.eye(a.shape[1]) - a
    heavy = np.trace(a, axis1=1, axis2=2) > 0.5  # only these can have an eigenvalue of 1
    out[~heavy] = np.linalg.inv(out[~heavy])
    if heavy.any():
        sizes, vectors = np.linalg.eigh(out[heavy])
        alone = sizes <= _NONE
        if (np.abs(vectors[:, -k:, :]).max(axis=1)[alone] > 1e-6).any():
            raise EstimationError(_DECIDES.format("cluster"))
        inverse = np.where(alone, 0.0, 1.0 / np.where(alone, 1.0, sizes))
        out[heavy] = (vectors * inverse[:, None, :]) @ vectors.transpose(0, 2, 1)
    return np.asarray(out, dtype=np.float64)
