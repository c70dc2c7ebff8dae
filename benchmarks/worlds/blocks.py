"""Worlds of switchbacks: cluster x block cells whose outcomes follow the hour, the day and an AR(1) shock."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from estimators import Assignments, Cells, Estimate, block_regression, horvitz_thompson, randomization_blocks

Rng = np.random.Generator
Vector = NDArray[np.float64]
Draw = Callable[[Rng, float], tuple[Estimate, float]]

CORRELATION = 0.7
FEW_BLOCKS = 24


def ar1(rng: Rng, n: int, rho: float = CORRELATION) -> Vector:
    """Stationary AR(1) of unit variance."""
    noise = rng.normal(size=n)
    out = np.empty(n)
    out[0] = noise[0]
    for i in range(1, n):
        out[i] = rho * out[i - 1] + math.sqrt(1.0 - rho * rho) * noise[i]
    return out


def cells(rng: Rng, world: str, effect: float, *, together: bool, runs: bool = False, carried: float = 0.0) -> Cells:
    """Blocks of two hours: three clusters apart for a week, or three together for two weeks.

    The world of 24 blocks has one cluster for two days. Under ``runs`` the arms are kept for a stretch of blocks that
    is drawn once for all clusters, as a plan by hand would have it; ``carried`` is what the arm of the block before
    adds.
    """
    few = world == "24 AR(1) blocks"
    n_clusters, n = (1, FEW_BLOCKS) if few else (3, 168 if together else 84)
    block, cluster = np.tile(np.arange(n), n_clusters), np.repeat(np.arange(n_clusters), n)
    coins = rng.integers(0, 2, (1 if together else n_clusters, n))
    if runs:
        coins = np.repeat(rng.integers(0, 2, (coins.shape[0], n // 6 + 1)), 6, axis=1)[:, :n]
    arm = np.broadcast_to(coins, (n_clusters, n)).ravel()
    before = np.concatenate([np.zeros((n_clusters, 1), np.intp), arm.reshape(n_clusters, n)[:, :-1]], axis=1).ravel()
    hour, weekday = 2 * (block % 12), (block // 12) % 7
    rows = rng.integers(60, 140, len(block)).astype(np.float64)
    if world == "weights":
        rows = np.round(5.0 + 80.0 * np.exp(0.8 * rng.normal(size=len(block))))
    if world == "nulls":
        rows = rng.binomial(rows.astype(np.int64), 0.5).astype(np.float64)
        rows[rng.random(len(block)) < 0.05] = 0.0  # blocks in which nothing was logged
    shock = ar1(rng, n)[block] if together else np.concatenate([ar1(rng, n) for _ in range(n_clusters)])
    mean = 10.0 + cluster + 2.0 * np.sin(hour * math.pi / 12) + 0.2 * weekday + shock
    mean = mean + rng.normal(size=len(block)) * 4.0 / np.sqrt(np.maximum(rows, 1.0))
    if world == "ties":
        mean = np.round(mean)
    if world == "mean 1e9":
        mean = mean + 1e9
    mean = mean + effect * arm + carried * before
    kept = rows > 0.0
    labels = tuple(f"cluster {i}" for i in range(n_clusters))
    parts = (mean * rows, rows, arm, cluster, block, hour, weekday)
    return Cells(*(part[kept] for part in parts), labels, order=block[kept])


def _unit(together: bool) -> str:
    return "block" if together else "cell"


def regression(world: str, *, together: bool) -> Draw:
    def draw(rng: Rng, effect: float) -> tuple[Estimate, float]:
        found = cells(rng, world, effect, together=together)
        return block_regression(found, clustered_by=_unit(together)), effect

    return draw


def lagged(world: str, *, together: bool, lags: int = 6) -> Draw:
    """Errors that let neighbouring blocks be alike, where the arms come in runs."""

    def draw(rng: Rng, effect: float) -> tuple[Estimate, float]:
        found = cells(rng, world, effect, together=together, runs=True)
        return block_regression(found, clustered_by=_unit(together), hac=lags), effect

    return draw


def paths(world: str, *, together: bool, order: int) -> Draw:
    """Horvitz-Thompson; at order 1 the block before carries over a third of the effect."""

    def draw(rng: Rng, effect: float) -> tuple[Estimate, float]:
        carried = effect / 3.0 if order else 0.0
        found = cells(rng, world, effect, together=together, carried=carried)
        return horvitz_thompson(found, (0.5, 0.5), order=order, clustered_by=_unit(together)), effect + carried

    return draw


def schedules(world: str, *, together: bool, draws: int = 199) -> Draw:
    """Randomization inference: a fair coin for every randomized unit, drawn again."""

    def draw(rng: Rng, effect: float) -> tuple[Estimate, float]:
        found = cells(rng, world, effect, together=together)
        unit = found.block if together else np.arange(len(found.arm))
        coins = rng.integers(0, 2, (draws, int(unit.max()) + 1)).astype(np.int8)
        redrawn = Assignments(coins[:, unit], exact=False, mechanism="bernoulli")
        return randomization_blocks(found, redrawn, clustered_by=_unit(together)), effect

    return draw


def share_over(world: str, *, together: bool) -> Draw:
    """Share of five-minute windows whose load is over the limit, as the capacity section reads it: cells of 24 windows.

    Treatment adds ``effect`` to the probability of every window, so the share moves by just that.
    """

    def draw(rng: Rng, effect: float) -> tuple[Estimate, float]:
        base = cells(rng, world, 0.0, together=together)
        level = 0.2 + 0.1 * np.tanh(base.num / base.den - 12.0)
        windows = np.full(len(base.arm), 24)
        over = rng.binomial(windows, level + effect * base.arm).astype(np.float64)
        found = Cells(
            over, windows, base.arm, base.cluster, base.block, base.hour, base.weekday, base.cluster_labels,
            order=base.order,
        )  # fmt: skip
        return block_regression(found, clustered_by=_unit(together)), effect

    return draw
