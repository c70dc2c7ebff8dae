"""Weights of a simplex: not negative, adding up to one, that bring a mix of columns nearest to a target.

Minimises ``|target - points w|^2 + ridge |w|^2``. As the weights add up to one, the distance is that of the origin from
the hull of ``points - target``: the nearest point of a polytope, which Wolfe's active sets reach in finitely many steps
(Wolfe 1976, *Finding the nearest point in a polytope*, Mathematical Programming 11). Every step is a least squares
problem by orthogonal factors, so that nothing is lost by squaring, or by normal equations where the penalty keeps them
well conditioned. What stands at the end is the exact minimum on its support, and the distance that any other mix could
still win is checked.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from estimators.inference import EstimationError

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

_ROUNDING = 1e-14  # weights below this, and distances below this share of the longest, are rounding
_WELL = 1e-2  # a penalty above this share of the squared scale keeps normal equations well conditioned
_GAP = 1e-11  # what another mix may win, as a share of the distance times the longest column


def simplex_weights(points: Matrix, target: Vector, *, ridge: float = 0.0) -> Vector:
    """The weights ``w >= 0``, ``sum(w) = 1`` of the mix nearest to the target.

    Args:
        points: ``(m, k)`` one column per member of the mix.
        target: ``(m,)`` what the mix should meet.
        ridge: Penalty on ``|w|^2``, in the square of the outcome's unit, not negative.

    Returns:
        ``(k,)`` weights; those outside the support are exactly 0. Where several mixes come as near, the one with the
        least ``|w|``, which does not hang on the order of the columns.

    Raises:
        EstimationError: No column, values that are not finite, or no minimum within rounding.
    """
    points, target = np.asarray(points, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if points.ndim != 2 or target.shape != points.shape[:1] or not points.size:
        raise EstimationError("a mix needs at least one column, and a target of its length")
    gaps = points - target[:, None]
    scale = float(np.abs(gaps).max())
    if not math.isfinite(scale) or not ridge >= 0.0:
        raise EstimationError("a mix needs finite values, and a penalty that is not negative")
    k = gaps.shape[1]
    if scale == 0.0 or k == 1:
        return np.full(k, 1.0 / k)
    gaps = gaps / scale
    penalty = ridge / scale**2
    w = _nearest(gaps, penalty)
    return w if penalty > 0.0 else _least(gaps, w)


def is_unique(points: Matrix, weights: Vector) -> bool:
    """Whether no other mix of the columns meets ``points @ weights``, as far as the columns of its support tell."""
    support = points[:, weights > 0.0]
    apart = support[:, 1:] - support[:, :1]
    return int(np.linalg.matrix_rank(apart)) == apart.shape[1] if apart.size else True


def _nearest(gaps: Matrix, penalty: float) -> Vector:
    """Wolfe's algorithm, on columns of which the largest entry is 1."""
    k = gaps.shape[1]
    lengths = np.sqrt((gaps**2).sum(axis=0) + penalty)
    longest = float(lengths.max())
    weights = _from_all(gaps, penalty) if penalty > 0.0 else np.zeros(0)
    if not len(weights):
        weights = np.zeros(k)
        weights[int(np.argmin(lengths))] = 1.0
    for _ in range(20 * k + 100):
        mix = gaps @ weights
        value = float(mix @ mix + penalty * weights @ weights)
        reach = gaps.T @ mix + penalty * weights
        entering = int(np.argmin(reach))
        slack = longest * (_GAP * math.sqrt(value) + _ROUNDING * longest)
        if reach[entering] >= value - slack or weights[entering] > 0.0:
            return weights
        weights = _onto(gaps, penalty, weights, entering)
    raise EstimationError("the weights of the mix were not found; are outcomes of very different size mixed?")


def _onto(gaps: Matrix, penalty: float, weights: Vector, entering: int) -> Vector:
    """The nearest mix once ``entering`` may take part; whoever would turn negative leaves on the way."""
    support = np.append(np.flatnonzero(weights), entering)
    old = weights[support]
    while True:
        aim = _affine(gaps[:, support], penalty)
        short = aim <= _ROUNDING
        if not short.any():
            break
        step = float(np.min(old[short] / np.maximum(old[short] - aim[short], _ROUNDING)))
        moved = old + min(1.0, step) * (aim - old)
        stays = moved > _ROUNDING
        stays[int(np.argmin(np.where(short, moved, np.inf)))] = False
        if not stays.any():
            return weights
        support, old = support[stays], moved[stays] / moved[stays].sum()
    out = np.zeros(len(weights))
    out[support] = aim / aim.sum()
    return out


def _from_all(gaps: Matrix, penalty: float) -> Vector:
    """A start for penalised problems, whose supports are large: all columns, without those that turn negative."""
    support = np.arange(gaps.shape[1])
    while True:
        aim = _affine(gaps[:, support], penalty)
        if (aim > _ROUNDING).all():
            out = np.zeros(gaps.shape[1])
            out[support] = aim / aim.sum()
            return out
        support = support[aim > _ROUNDING]


def _affine(columns: Matrix, penalty: float) -> Vector:
    """Weights of any sign that add up to one and bring the mix nearest to the origin."""
    k = columns.shape[1]
    if penalty > _WELL:
        alike = _alike(columns, penalty)
        return np.asarray(alike / alike.sum(), dtype=np.float64)
    if penalty > 0.0:
        columns = np.vstack([columns, math.sqrt(penalty) * np.eye(k)])
    rest = np.linalg.lstsq(columns[:, 1:] - columns[:, :1], -columns[:, 0], rcond=None)[0]
    return np.concatenate(([1.0 - rest.sum()], rest))


def _alike(columns: Matrix, penalty: float) -> Vector:
    """Solves ``(columns' columns + penalty) x = 1``, by the smaller of the two sides (Woodbury)."""
    m, k = columns.shape
    if k <= m:
        return np.asarray(np.linalg.solve(columns.T @ columns + penalty * np.eye(k), np.ones(k)), dtype=np.float64)
    inner = np.linalg.solve(columns @ columns.T + penalty * np.eye(m), columns.sum(axis=1))
    return np.asarray(1.0 - columns.T @ inner, dtype=np.float64)


def _least(gaps: Matrix, weights: Vector) -> Vector:
    """Among the mixes that come as near as this one, that with the least ``|w|``; this one where it stands alone."""
    mix = gaps @ weights
    reach = gaps.T @ mix
    longest = float(np.sqrt((gaps**2).sum(axis=0).max()))
    slack = longest * (_GAP * float(np.linalg.norm(mix)) + _ROUNDING * longest)
    tied = np.flatnonzero((weights > 0.0) | (reach <= float(mix @ mix) + slack))
    if is_unique(gaps[:, tied], np.ones(len(tied))):
        return weights
    face = np.vstack([gaps[:, tied], np.ones(len(tied))])
    aim = np.append(mix, 1.0)
    start = _nearest(gaps[:, tied] - mix[:, None], 1e-9)
    support = np.flatnonzero(start > 1e-7)
    exact = np.linalg.lstsq(face[:, support], aim, rcond=None)[0]
    out = np.zeros(len(weights))
    chosen = exact if (exact >= 0.0).all() else start[support]
    out[tied[support]] = chosen / chosen.sum()
    near = float(np.linalg.norm(gaps @ out - mix))
    return out if near <= 1e-9 * longest else weights
