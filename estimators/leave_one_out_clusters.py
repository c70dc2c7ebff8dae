"""How much a cluster-randomized estimate hangs on one cluster: found in closed form, recomputed exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from estimators.cluster_means import Clusters, Codes, pair_positions, sums, usable
from estimators.cluster_regression import regression
from estimators.estimate import Estimate
from estimators.inference import EstimationError
from estimators.ols import Vector


def leave_one_out_clusters(
    clusters: Clusters, estimator: Callable[[Clusters], Estimate], *, weights: str, least_squares: bool
) -> Estimate:
    """The estimate without the cluster whose leaving out moves it most; of pairs, without the whole pair.

    Args:
        clusters: One entry per cluster.
        estimator: Applied to the clusters that are left.
        weights: As the estimator weighs clusters.
        least_squares: The estimator is the regression of ``cluster_robust``; else the means of ``cluster_means``.

    Returns:
        The estimator's result without it; ``diagnostics["left_out"]`` names the clusters (the first of equals).

    Raises:
        EstimationError: As the estimator, with the cluster and without it.
    """
    groups, moves = _of_regression(clusters, weights) if least_squares else _of_means(clusters, weights)
    worst = groups[int(np.argmax(moves))]
    rest = np.ones(len(clusters.num), dtype=bool)
    rest[worst] = False
    estimate = estimator(clusters.take(rest))
    left_out = [clusters.labels[i] for i in worst]
    return replace(estimate, diagnostics={**estimate.diagnostics, "left_out": left_out})


def _of_regression(clusters: Clusters, weights: str) -> tuple[list[Codes], Vector]:
    """Positions of every independent group, and ``|effect without it - effect| = |x r / (1 - h)| / sum(w x^2)``."""
    model = regression(clusters, weights)
    kept, free = model.data.kept, model.remainder > 0.0
    moves = np.abs(model.x * model.residuals) / model.curvature / np.where(free, model.remainder, 1.0)
    if clusters.pairs is not None:
        return [kept[list(pair)] for pair in zip(*pair_positions(model.data.clusters), strict=True)], moves
    return [kept[[i]] for i in model.order], np.where(free, moves, np.inf)


def _of_means(clusters: Clusters, weights: str) -> tuple[list[Codes], Vector]:
    """As ``_of_regression``, for the means of all clusters, of strata, or of pairs."""
    data = usable(clusters, weights)
    num, den = sums(data.clusters, weights)
    arm = data.clusters.arm
    if data.clusters.pairs is not None:
        pairs = pair_positions(data.clusters)
        shifts = [_shift(num[side], den[side], np.zeros(len(side), np.intp)) for side in pairs]
        return [data.kept[list(pair)] for pair in zip(*pairs, strict=True)], np.abs(shifts[1] - shifts[0])
    strata = np.zeros(len(num), np.intp)
    if data.clusters.strata is not None:
        strata = np.unique(data.clusters.strata, return_inverse=True)[1]
    cell = 2 * strata + arm
    rows = np.bincount(cell, den, minlength=2 * (int(strata.max()) + 1))
    if not (rows > 0.0).all():
        raise EstimationError("a stratum lacks an arm")
    means = np.bincount(cell, num) / rows
    effects, size = means[1::2] - means[0::2], np.bincount(strata, den)
    whole, total = float(effects @ size), float(size.sum())
    # Without a cluster its stratum's difference shifts, and so does the stratum's share of all.
    without = (size[strata] - den) * (effects[strata] + np.where(arm == 1, 1.0, -1.0) * _shift(num, den, cell))
    moved = (whole - effects[strata] * size[strata] + without) / (total - den) - whole / total
    return [data.kept[[i]] for i in range(len(num))], np.abs(moved)


def _shift(num: Vector, den: Vector, cell: Codes) -> Vector:
    """``(n,)`` how far the mean ``sum(num) / sum(den)`` of its cell moves without each entry; 0 where none is left."""
    total = np.bincount(cell, den)
    residual = num - (np.bincount(cell, num) / total)[cell] * den
    rest = total[cell] - den
    return np.asarray(np.where(rest > 0.0, -residual / np.where(rest > 0.0, rest, 1.0), 0.0), dtype=np.float64)
