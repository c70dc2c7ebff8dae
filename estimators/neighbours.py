"""Nearest neighbours with every tie, between groups of rows with equal coordinates.

Rows with the same coordinates are one point with a count, so that discrete covariates, where thousands of rows tie,
cost no more than their distinct values. A row's neighbours are all rows as near as the ``need``-th nearest (Abadie and
Imbens 2006, section 2.1); the search is by k-d tree in few dimensions and by blocks of distances in many.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from estimators.inference import EstimationError
from estimators.ols import Matrix, Vector

Codes = NDArray[np.intp]

_TREE_DIMENSIONS = 12  # above it a k-d tree looks at almost every point
_RUN = 256
_HELD = 1 << 21  # numbers held at once
_TIE = 1e-9  # distances that differ by rounding are equal


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """The distinct places of ``n`` rows.

    Attributes:
        where: ``(n,)`` the point of every row, ``0 .. m - 1``.
        place: ``(m, d)`` coordinates.
        count: ``(m,)`` rows at each.
    """

    where: Codes
    place: Matrix
    count: Vector

    def mean(self, values: Vector) -> Vector:
        """``(m,)`` means of the rows' values at each point."""
        return _sums(self.where, values, len(self.count)) / self.count

    def products(self, a: Vector, b: Vector) -> Vector:
        """``(m,)`` sums at each point of the products of the values' distances from their means there."""
        centred = (a - self.mean(a)[self.where]) * (b - self.mean(b)[self.where])
        return _sums(self.where, centred, len(self.count))


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """For every point of ``source`` those of ``target`` that hold its nearest rows.

    Attributes:
        source, target: Points.
        start, end: ``(e,)`` edges: a point of ``source`` and one of its neighbours in ``target``.
        distance: ``(e,)`` length of each.
        size: ``(m,)`` neighbouring rows of each source point; 0 where none is within the caliper.
    """

    source: Points
    target: Points
    start: Codes
    end: Codes
    distance: Vector
    size: Vector

    @property
    def found(self) -> NDArray[np.bool_]:
        """``(n,)`` whether the source's rows have a neighbour."""
        return self.size[self.source.where] > 0.0

    def mean(self, values: Vector) -> Vector:
        """``(n,)`` for every source row the mean over its neighbours of the target rows' values; 0 without any."""
        return self._mean(self.target.mean(values))[self.source.where]

    def covariance(self, a: Vector, b: Vector) -> Vector:
        """``(n,)`` covariance (ddof 1) of two values among the neighbours of every source row."""
        mean_a, mean_b = self.target.mean(a), self.target.mean(b)
        apart = [mean[self.end] - self._mean(mean)[self.start] for mean in (mean_a, mean_b)]
        parts = self.target.products(a, b)[self.end] + self.target.count[self.end] * apart[0] * apart[1]
        total = _sums(self.start, parts, len(self.size))
        return (total / np.maximum(self.size - 1.0, 1.0))[self.source.where]

    def uses(self, power: int = 1) -> Vector:
        """``(n,)`` for every target row the sum over the source rows it serves of ``1 / size ** power``."""
        parts = self.source.count[self.start] / self.size[self.start] ** power
        return _sums(self.end, parts, len(self.target.count))[self.target.where]

    def _mean(self, by_point: Vector) -> Vector:
        parts = self.target.count[self.end] * by_point[self.end]
        return _sums(self.start, parts, len(self.size)) / np.maximum(self.size, 1.0)


def points(coordinates: Matrix) -> Points:
    """The distinct rows of ``(n, d)`` coordinates, compared exactly."""
    place, where, count = np.unique(coordinates, axis=0, return_inverse=True, return_counts=True)
    return Points(where.reshape(-1), place, count.astype(np.float64))


def nearest(source: Points, target: Points, need: int, caliper: float | None = None) -> Neighbours:
    """The ``need`` nearest target rows of every source row, with all that are as near as the last of them.

    Args:
        source, target: Points in one space of coordinates; Euclidean distance.
        need: Rows, at least 1.
        caliper: Largest distance of a neighbour; None: any.

    Raises:
        EstimationError: Fewer than ``need`` rows in ``target``.
    """
    if int(target.count.sum()) < need:
        raise EstimationError(f"{int(target.count.sum())} rows of an arm are too few for {need} neighbours")
    search = _Search(target.place)
    rounding = 1e-12 * max(1.0, float(np.abs(target.place).max()), float(np.abs(source.place).max()))
    limit_of_all = np.inf if caliper is None else caliper * (1.0 + _TIE)
    pending, k = np.arange(len(source.count)), min(need + 3, len(target.count))
    found: list[tuple[Codes, Codes, Vector]] = []
    while len(pending):
        rest: list[Codes] = []
        for rows in np.array_split(pending, -(-len(pending) * k // _HELD)):
            far, who = search.nearest(source.place[rows], k)
            enough = np.cumsum(target.count[who], axis=1) >= need
            last = np.where(enough.any(axis=1), far[np.arange(len(rows)), enough.argmax(axis=1)], np.inf)
            limit = np.minimum(last * (1.0 + _TIE) + rounding, limit_of_all)
            done = (far[:, -1] > limit) | (k == len(target.count))
            row, column = np.nonzero((far <= limit[:, None]) & done[:, None])
            found.append((rows[row], who[row, column], far[row, column]))
            rest.append(rows[~done])
        pending, k = np.concatenate(rest), min(4 * k, len(target.count))
    start, end, distance = (np.concatenate(part) for part in zip(*found, strict=True))
    order = np.lexsort((end, start))
    start, end, distance = start[order], end[order], distance[order]
    size = _sums(start, target.count[end], len(source.count))
    return Neighbours(source, target, start, end, distance, size)


def _sums(codes: Codes, values: Vector, n: int) -> Vector:
    return np.asarray(np.bincount(codes, weights=values, minlength=n), dtype=np.float64)


class _Search:
    """The ``k`` nearest of fixed places."""

    def __init__(self, place: Matrix) -> None:
        self._place = place
        self._tree = None
        if place.shape[1] <= _TREE_DIMENSIONS:
            from scipy.spatial import cKDTree

            self._tree = cKDTree(place)
            return
        more = -len(place) % _RUN
        self._padded = np.pad(place, ((0, more), (0, 0)))
        self._square = np.pad((place * place).sum(axis=1), (0, more), constant_values=np.inf)

    def nearest(self, place: Matrix, k: int) -> tuple[Vector, Codes]:
        """Distances ``(q, k)`` in rising order, and which places."""
        if self._tree is not None:
            far, who = self._tree.query(place, k)
            return np.asarray(far).reshape(len(place), k), np.asarray(who).reshape(len(place), k)
        step = max(1, _HELD // len(self._place))
        parts = [self._by_block(place[i : i + step], k) for i in range(0, len(place), step)]
        return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])

    def _by_block(self, place: Matrix, k: int) -> tuple[Vector, Codes]:
        # The square of the queries is the same along a row; what the product loses to rounding is made good below.
        rough = self._square - 2.0 * (place @ self._padded.T)
        near = _least(rough, k)
        far = np.sqrt(((place[:, None, :] - self._place[near]) ** 2).sum(axis=2))
        order = np.argsort(far, axis=1, kind="stable")
        return np.take_along_axis(far, order, axis=1), np.take_along_axis(near, order, axis=1)


def _least(values: Matrix, k: int) -> Codes:
    """``(q, k)`` columns of every row's ``k`` least values; the number of columns is a multiple of ``_RUN``.

    The least ``k`` lie within the ``k`` runs of columns whose own least values are the least.
    """
    n_runs = values.shape[1] // _RUN
    if k >= n_runs:
        return np.argpartition(values, k - 1, axis=1)[:, :k]
    runs = np.argpartition(values.reshape(len(values), n_runs, _RUN).min(axis=2), k - 1, axis=1)[:, :k]
    columns = (runs[:, :, None] * _RUN + np.arange(_RUN)).reshape(len(values), -1)
    best = np.argpartition(np.take_along_axis(values, columns, axis=1), k - 1, axis=1)[:, :k]
    return np.take_along_axis(columns, best, axis=1)
