"""Worlds of independent units: single values, rows in units, a pre-period covariate, strata.

Treatment adds a constant to every value (to every row), so that means, ratios, quantiles and trimmed means move alike
and the true effect is known without error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from estimators import (
    Estimate,
    EstimationError,
    Histogram,
    JointMoments,
    Moments,
    catoni,
    confidence_sequence,
    cuped,
    difference_in_means,
    median_of_means,
    quantile_effect,
    regression_adjusted,
    stratified,
    trimmed,
    winsorized,
)
from estimators.stratified import StratifiedArm

Rng = np.random.Generator
Vector = NDArray[np.float64]
Draw = Callable[[Rng, float], tuple[Estimate, float]]

SIZES = (300, 700)
TAIL = 1.5  # Pareto index: a mean, and no variance
LOOKS, PER_LOOK = 100, 50  # of a running experiment: looks, and new units an arm between two


def values(rng: Rng, world: str, n: int) -> Vector:
    """One value a unit, nulls left out; log-normal, mean 1.4 and spread 1.3, where the world says nothing else."""
    if world == "nulls":
        n = int(rng.binomial(n, 0.5))
    if world == "mean 1e9":
        return 1e9 + rng.normal(size=n)
    if world == "ties":
        return rng.poisson(1.5, n).astype(np.float64)
    if world == "infinite variance":
        return 1.0 + rng.pareto(TAIL, n)
    return np.exp(0.8 * rng.normal(size=n))


def in_units(rng: Rng, world: str, n: int) -> tuple[Vector, Vector]:
    """Sums and row counts of units whose rows are alike; under ``weights`` one in ten holds five times the rows."""
    rows = 1 + rng.poisson(4.0, n)
    if world == "weights":
        rows = rows * np.where(rng.random(n) < 0.1, 5, 1)
    level = values(rng, "plain", n) if world != "mean 1e9" else 1e9 + rng.normal(size=n)
    if world == "nulls":
        rows = rng.binomial(rows, 0.5)
    noise = rng.normal(size=n) * np.sqrt(rows)
    num = level * rows + noise
    if world == "ties":
        num = np.round(level) * rows
    return num[rows > 0], rows[rows > 0].astype(np.float64)


def _arms(rng: Rng, world: str, effect: float) -> tuple[Vector, Vector]:
    return values(rng, world, SIZES[0]), values(rng, world, SIZES[1]) + effect


def welch(world: str) -> Draw:
    def draw(rng: Rng, effect: float) -> tuple[Estimate, float]:
        return difference_in_means(*(Moments.from_arrays(y) for y in _arms(rng, world, effect))), effect

    return draw


def row_mean(world: str) -> Draw:
    def draw(rng: Rng, effect: float) -> tuple[Estimate, float]:
        (a, m), (b, n) = (in_units(rng, world, size) for size in SIZES)
        return difference_in_means(Moments.from_arrays(a, m), Moments.from_arrays(b + effect * n, n)), effect

    return draw


def ratio(world: str) -> Draw:
    """Cost over successes: about four in five rows succeed."""

    def arm(rng: Rng, n: int, effect: float) -> Moments:
        num, rows = in_units(rng, world, n)
        success = rng.binomial(rows.astype(np.int64), 0.8).astype(np.float64)
        scale = 1e9 if world == "mean 1e9" else 1.0
        cost = num if world != "mean 1e9" else scale * success + num - 1e9 * rows
        return Moments.from_arrays(cost + effect * success, success)

    def draw(rng: Rng, effect: float) -> tuple[Estimate, float]:
        return difference_in_means(arm(rng, SIZES[0], 0.0), arm(rng, SIZES[1], effect)), effect

    return draw


def _with_before(rng: Rng, world: str, n: int) -> tuple[Vector, Vector]:
    """Outcome and a covariate from before that explains about half of it."""
    y = values(rng, world, n)
    before = 1.3 * rng.normal(size=len(y))
    if world == "ties":
        before = np.round(before)
    return y + before, before + (1e9 if world == "mean 1e9" else 0.0)


def cuped_mean(world: str) -> Draw:
    def draw(rng: Rng, effect: float) -> tuple[Estimate, float]:
        (a, x), (b, z) = (_with_before(rng, world, size) for size in SIZES)
        arms = (JointMoments.from_arrays((y, None), (c, None)) for y, c in ((a, x), (b + effect, z)))
        return cuped(*arms), effect

    return draw


def cuped_ratio(world: str) -> Draw:
    def arm(rng: Rng, n: int, effect: float) -> JointMoments:
        num, rows = in_units(rng, world, n)
        level = 1.3 * rng.normal(size=len(rows))
        earlier = 1.0 + rng.poisson(4.0, len(rows))
        return JointMoments.from_arrays((num + (level + effect) * rows, rows), (level * earlier, earlier))

    def draw(rng: Rng, effect: float) -> tuple[Estimate, float]:
        return cuped(arm(rng, SIZES[0], 0.0), arm(rng, SIZES[1], effect)), effect

    return draw


def adjusted(world: str) -> Draw:
    def draw(rng: Rng, effect: float) -> tuple[Estimate, float]:
        (a, x), (b, z) = (_with_before(rng, world, size) for size in SIZES)
        arm = np.repeat([0, 1], [len(a), len(b)])
        more = rng.normal(size=len(arm))
        covariates = np.column_stack([np.concatenate([x, z]), more])
        return regression_adjusted(np.concatenate([a, b + effect]), arm, covariates), effect

    return draw


def in_strata(world: str) -> Draw:
    """Five strata with levels of their own; three units in ten of each are treated."""

    def draw(rng: Rng, effect: float) -> tuple[Estimate, float]:
        arms = []
        for size, more in zip(SIZES, (0.0, effect), strict=True):
            y = values(rng, world, size)
            stratum = np.arange(len(y)) % 5
            arms.append(StratifiedArm(y + stratum + more, None, stratum).moments())
        return stratified(*arms), effect

    return draw


def median(world: str) -> Draw:
    """p50 of single rows, in buckets of a hundredth."""

    def draw(rng: Rng, effect: float) -> tuple[Estimate, float]:
        a, b = _arms(rng, world, effect)
        base = 1e9 if world == "mean 1e9" else 0.0
        edges = base + np.arange(-8.0, 60.0, 0.01)
        counts = [np.histogram(y, edges)[0].astype(np.float64)[None, :] for y in (a, b)]
        arms = (Histogram(edges[:-1], edges[1:], c) for c in counts)
        return quantile_effect(*arms, 0.5, independent_rows=True), effect

    return draw


def robust(method: str, world: str) -> Draw:
    """A robust mean; of the winsorized one a thousandth of the effect is cut off with the top."""

    def draw(rng: Rng, effect: float) -> tuple[Estimate, float]:
        a, b = _arms(rng, world, effect)
        if method == "winsorize":
            return winsorized((a, None), (b, None)), 0.999 * effect
        if method == "trim":
            return trimmed(a, b), effect
        if method == "catoni":
            return catoni(a, b), effect
        return median_of_means((a, None), (b, None), seed=int(rng.integers(1 << 30))), effect

    return draw


def looks(world: str, *, sequential: bool) -> Draw:
    """A running experiment at a hundred looks; the interval is what all looks together leave."""

    def draw(rng: Rng, effect: float) -> tuple[Estimate, float]:
        n = LOOKS * PER_LOOK
        a, b = values(rng, world, 3 * n)[:n], values(rng, world, 3 * n)[:n] + effect
        low, high, p, last = -np.inf, np.inf, 1.0, None
        sums = [np.cumsum(np.column_stack([y - y[:100].mean(), (y - y[:100].mean()) ** 2]), axis=0) for y in (a, b)]
        for k in range(PER_LOOK, n + 1, PER_LOOK):
            arms = (
                Moments.from_sums(k, float(y[:100].mean()), float(s[k - 1, 0]), float(s[k - 1, 1]))
                for y, s in zip((a, b), sums, strict=True)
            )
            try:
                last = difference_in_means(*arms)
            except EstimationError:
                continue
            if sequential:
                last = confidence_sequence(last)
            low, high, p = max(low, last.ci_low), min(high, last.ci_high), min(p, last.p_value)
        assert last is not None
        return replace(last, ci_low=low, ci_high=high, p_value=p), effect

    return draw
