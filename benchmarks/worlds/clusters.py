"""Worlds of clusters that keep one arm. Treatment adds a constant to every row."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from estimators import Estimate, cluster_means, cluster_robust, clustered_difference, randomization_inference
from estimators.cluster_means import Clusters
from estimators.clustered_difference import Cells

Rng = np.random.Generator
Draw = Callable[[Rng, float], tuple[Estimate, float]]

COUNT, FEW = 60, 10


def clusters(rng: Rng, world: str, effect: float, *, strata: bool = False, pairs: bool = False) -> Clusters:
    """Sixty clusters of 20 to 400 rows (ten in the world of that name), half treated, shared shocks skewed."""
    n = FEW if world == "10 clusters" else COUNT
    size = rng.integers(20, 400, n)
    if world == "weights":
        size = np.maximum((150 * np.exp(0.8 * rng.normal(size=n))).astype(np.int64), 5)
    levels = np.arange(n) // 2 if pairs else np.arange(n) % 3
    arm = _assigned(rng, n, levels if strata or pairs else np.zeros(n, np.intp))
    if world == "nulls":
        size = rng.binomial(size, 0.5)
    shared = rng.gamma(4.0, 0.15, n) + (0.5 * levels if strata else 0.1 * levels if pairs else 0.0)
    mean = shared + rng.normal(size=n) / np.sqrt(np.maximum(size, 1))
    if world == "ties":
        mean = np.round(4.0 * mean) / 4.0
    if world == "mean 1e9":
        mean = mean + 1e9
    den = size.astype(np.float64)
    return Clusters((mean + effect * arm) * den, den, arm, levels if strata else None, levels if pairs else None)


def _assigned(rng: Rng, n: int, levels: NDArray[np.intp]) -> NDArray[np.intp]:
    """Half of every level treated."""
    arm = np.zeros(n, np.intp)
    for level in np.unique(levels):
        mine = np.flatnonzero(levels == level)
        arm[rng.permutation(mine)[: len(mine) // 2]] = 1
    return arm


def means(weights: str, world: str) -> Draw:
    return lambda rng, effect: (cluster_means(clusters(rng, world, effect), weights=weights), effect)


def robust(variance: str, world: str, *, draws: int = 199) -> Draw:
    def draw(rng: Rng, effect: float) -> tuple[Estimate, float]:
        seed = int(rng.integers(1 << 30))
        found = clusters(rng, world, effect)
        return cluster_robust(found, variance=variance, draws=draws, seed=seed), effect

    return draw


def randomization(mechanism: str, world: str, *, draws: int = 199) -> Draw:
    def draw(rng: Rng, effect: float) -> tuple[Estimate, float]:
        kinds = {"stratified": {"strata": True}, "paired": {"pairs": True}}.get(mechanism, {})
        seed = int(rng.integers(1 << 30))
        found = clusters(rng, world, effect, **kinds)
        return randomization_inference(found, mechanism=mechanism, draws=draws, seed=seed), effect

    return draw


def units_in_clusters(variance: str, world: str) -> Draw:
    """`difference_in_means` with errors by cluster: the rows of the clusters are units with a value each."""

    def draw(rng: Rng, effect: float) -> tuple[Estimate, float]:
        c = clusters(rng, world, effect)
        centre = 1e9 if world == "mean 1e9" else 0.0
        kept = c.den > 0
        cells = Cells(
            (c.num - centre * c.den)[kept], c.den[kept], c.den[kept], c.arm[kept], np.flatnonzero(kept), centre
        )
        return clustered_difference(cells, variance=variance), effect

    return draw
