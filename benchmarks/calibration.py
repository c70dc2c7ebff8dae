"""How often the intervals cover: simulated experiments whose true effect is known.

Run from the root of the repository (443 s on one core; writes docs/calibration.md):

    OMP_NUM_THREADS=1 python -m benchmarks.calibration --experiments 5000 --out docs/calibration.md

Every world draws ``--experiments`` experiments twice, without an effect and with one. Columns: ``false positives``,
the share of p-values below 5 % without an effect; ``coverage``, the share of 95 % intervals that hold the true effect,
both with their Monte Carlo standard error at the nominal level; ``bias / MC error``, the mean error of the estimates
over its own standard error; ``se / sd``, the mean standard error over the spread of the estimates; ``refused``, the
share of experiments for which the method says that it cannot give an interval.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from estimators import (
    Cells,
    Estimate,
    EstimationError,
    Histogram,
    Moments,
    block_quantile,
    block_regression,
    difference_in_means,
    quantile_effect,
)

Rng = np.random.Generator
ALPHA = 0.05


@dataclass(frozen=True)
class World:
    """``draw(rng, effect)`` gives one experiment's estimate and the true effect; ``effect`` is relative."""

    name: str
    effect: float
    draw: Callable[[Rng, float], tuple[Estimate, float]]


def unit_means(rng: Rng, effect: float) -> tuple[Estimate, float]:
    """Log-normal values, 300 units against 700."""
    a, b = np.exp(0.8 * rng.normal(size=300)), (1 + effect) * np.exp(0.8 * rng.normal(size=700))
    return difference_in_means(Moments.from_arrays(a), Moments.from_arrays(b)), effect * math.exp(0.32)


def relative_means(rng: Rng, effect: float) -> tuple[Estimate, float]:
    """The relative effect of the same, read from its own interval."""
    e, _ = unit_means(rng, effect)
    assert e.relative is not None
    assert e.relative_ci_low is not None
    assert e.relative_ci_high is not None
    return _as_effect(e, e.relative, e.relative_ci_low, e.relative_ci_high), effect


def ratios(rng: Rng, effect: float) -> tuple[Estimate, float]:
    """Cost per success: 400 units an arm, a numerator that follows the denominator."""
    arms = []
    for scale in (1.0, 1.0 + effect):
        requests = 1 + rng.poisson(np.exp(1.0 + 0.7 * rng.normal(size=400)))
        success = rng.binomial(requests, 0.8)
        cost = scale * requests * rng.gamma(2.0, 0.5, size=400)
        arms.append(Moments.from_arrays(cost, success))
    return difference_in_means(*arms), effect / 0.8


def row_means(rng: Rng, effect: float) -> tuple[Estimate, float]:
    """Row means, 400 units an arm, 1 to 60 rows a unit (Pareto), correlated inside the unit."""
    arms = []
    for scale in (1.0, 1.0 + effect):
        units, rows = _clustered_rows(rng, 400)
        arms.append(Moments.from_arrays(np.bincount(units, scale * rows), np.bincount(units)))
    return difference_in_means(*arms), effect * _ROW_MEAN


def clustered_quantile(q: float) -> Callable[[Rng, float], tuple[Estimate, float]]:
    """A quantile of rows clustered in units: the rows of ``row_means``, 600 units an arm."""

    def draw(rng: Rng, effect: float) -> tuple[Estimate, float]:
        arms = []
        for scale in (1.0, 1.0 + effect):
            units, rows = _clustered_rows(rng, 600)
            arms.append(_histogram(scale * rows, units, 600))
        return quantile_effect(arms[0], arms[1], q), effect * 100 * math.exp(_ROW_SD * ndtri(q))

    return draw


def independent_p99(rng: Rng, effect: float) -> tuple[Estimate, float]:
    """p99 of 4,000 independent rows an arm."""
    group = np.zeros(4000, dtype=np.intp)
    arms = [_histogram(s * 100 * np.exp(_ROW_SD * rng.normal(size=4000)), group, 1) for s in (1.0, 1.0 + effect)]
    e = quantile_effect(arms[0], arms[1], 0.99, independent_rows=True)
    return e, effect * 100 * math.exp(_ROW_SD * ndtri(0.99))


def cells_apart(rng: Rng, effect: float) -> tuple[Estimate, float]:
    """Switchback, three clusters that switch apart, 7 days of two-hour blocks, AR(1) outcome (0.7) inside a cluster."""
    cells, level = _switchback(rng, days=7, clusters=3, together=False)
    noise = np.concatenate([_ar1(rng, 84, 0.7) for _ in range(3)])
    mean = level + noise + 10 * effect * cells.arm + rng.normal(size=252) / np.sqrt(cells.den / 20)
    return block_regression(_with(cells, mean)), 10 * effect


def blocks_together(rng: Rng, effect: float) -> tuple[Estimate, float]:
    """Switchback, four clusters that switch together, 14 days, AR(1) shocks that all clusters share."""
    cells, level = _switchback(rng, days=14, clusters=4, together=True)
    shock = _ar1(rng, 168, 0.7)[cells.block]
    mean = level + shock + 10 * effect * cells.arm + 0.5 * rng.normal(size=672)
    return block_regression(_with(cells, mean), clustered_by="block"), 10 * effect


def cell_p95(rng: Rng, effect: float) -> tuple[Estimate, float]:
    """p95 of a switchback's rows; cells switch apart, their scale moves by cluster, hour, day and at random."""
    cells, _ = _switchback(rng, days=7, clusters=2, together=False)
    level = _scale_level(cells) + 0.1 * rng.normal(size=168) + np.log1p(effect) * cells.arm
    cell = np.repeat(np.arange(168), cells.den.astype(np.intp))
    rows = 100 * np.exp(level[cell] + 0.5 * rng.normal(size=len(cell)))
    return block_quantile(cells, _histogram(rows, cell, 168), 0.95), effect * _CELL_P95


WORLDS = (
    World("mean by unit, Welch", 0.15, unit_means),
    World("relative effect of a mean, log ratio", 0.15, relative_means),
    World("ratio of sums, delta method", 0.1, ratios),
    World("row mean, rows clustered in units", 0.1, row_means),
    World("p50, rows clustered in units", 0.1, clustered_quantile(0.5)),
    World("p95, rows clustered in units", 0.1, clustered_quantile(0.95)),
    World("p99, rows clustered in units", 0.1, clustered_quantile(0.99)),
    World("p99, independent rows", 0.1, independent_p99),
    World("block regression, cells switch apart", 0.04, cells_apart),
    World("block regression, blocks switch together", 0.04, blocks_together),
    World("p95 of a switchback, cells switch apart", 0.05, cell_p95),
)


@dataclass(frozen=True)
class Figures:
    """What ``experiments`` draws of a world at one effect show."""

    experiments: int
    refused: float
    rejected: float
    coverage: float
    bias_over_error: float
    se_over_sd: float


def measure(world: World, effect: float, experiments: int, seed: int) -> Figures:
    """Draws the experiments and counts; a refused one counts in ``refused`` only."""
    rng = np.random.default_rng(seed)
    hits, rejections, errors, sizes = [], [], [], []
    for _ in range(experiments):
        try:
            e, truth = world.draw(rng, effect)
        except EstimationError:
            continue
        hits.append(e.ci_low <= truth <= e.ci_high)
        rejections.append(e.p_value < ALPHA)
        errors.append(e.estimate - truth)
        sizes.append(e.std_error)
    n, spread = len(hits), float(np.std(errors, ddof=1))
    return Figures(
        experiments=experiments,
        refused=1 - n / experiments,
        rejected=float(np.mean(rejections)),
        coverage=float(np.mean(hits)),
        bias_over_error=float(np.mean(errors)) / (spread / math.sqrt(n)),
        se_over_sd=float(np.mean(sizes)) / spread,
    )


def table(experiments: int, seed: int) -> str:
    """The Markdown table over all worlds."""
    error = 100 * math.sqrt(ALPHA * (1 - ALPHA) / experiments)
    lines = [
        f"| world | false positives, % (5 +- {error:.2f}) | effect | coverage, % (95 +- {error:.2f}) "
        "| bias / MC error | se / sd | refused, % |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for i, world in enumerate(WORLDS):
        null = measure(world, 0.0, experiments, seed + 2 * i)
        real = measure(world, world.effect, experiments, seed + 2 * i + 1)
        lines.append(
            f"| {world.name} | {100 * null.rejected:.2f} | {100 * world.effect:g} % | {100 * real.coverage:.2f} "
            f"| {real.bias_over_error:+.1f} | {real.se_over_sd:.3f} | {100 * real.refused:.1f} |"
        )
    return "\n".join(lines) + "\n"


_ROW_SD = 0.9  # of the log: 0.5 between units, the rest inside
_ROW_MEAN = 100 * math.exp(_ROW_SD**2 / 2)


def _clustered_rows(rng: Rng, n_units: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    size = np.minimum(1 + np.floor(3 * rng.pareto(2.0, n_units)), 60).astype(np.intp)
    units = np.repeat(np.arange(n_units), size)
    inside = math.sqrt(_ROW_SD**2 - 0.25)
    return units, 100 * np.exp(0.5 * rng.normal(size=n_units)[units] + inside * rng.normal(size=len(units)))


_EDGES = np.exp(np.arange(-2.0, 11.0, 0.02))


def _histogram(values: NDArray[np.float64], groups: NDArray[np.intp], n_groups: int) -> Histogram:
    buckets = len(_EDGES) - 1
    code = groups * buckets + np.searchsorted(_EDGES, values, side="right") - 1
    return Histogram(
        _EDGES[:-1], _EDGES[1:], np.bincount(code, minlength=n_groups * buckets).reshape(n_groups, buckets)
    )


def _switchback(rng: Rng, days: int, clusters: int, together: bool) -> tuple[Cells, NDArray[np.float64]]:
    """Cells with random arms and sizes, and the level of each before noise and effect."""
    blocks = 12 * days
    block, cluster = np.tile(np.arange(blocks), clusters), np.repeat(np.arange(clusters), blocks)
    arm = rng.integers(0, 2, blocks)[block] if together else rng.integers(0, 2, blocks * clusters)
    hour, weekday = 2 * (block % 12), (block // 12) % 7
    den = rng.integers(60, 140, blocks * clusters).astype(np.float64)
    cells = Cells(den, den, arm, cluster, block, hour, weekday, tuple(f"cluster {i}" for i in range(clusters)))
    return cells, 10.0 + cluster + 2 * np.sin(hour * math.pi / 12) + 0.2 * weekday


def _scale_level(cells: Cells) -> NDArray[np.float64]:
    return 0.3 * cells.cluster + 0.2 * np.sin(cells.hour * math.pi / 12) + 0.02 * cells.weekday


def _with(cells: Cells, mean: NDArray[np.float64]) -> Cells:
    return Cells(
        mean * cells.den,
        cells.den,
        cells.arm,
        cells.cluster,
        cells.block,
        cells.hour,
        cells.weekday,
        cells.cluster_labels,
    )


def _ar1(rng: Rng, n: int, rho: float) -> NDArray[np.float64]:
    """Stationary AR(1) of unit variance."""
    noise = rng.normal(size=n)
    out = np.empty(n)
    out[0] = noise[0]
    for i in range(1, n):
        out[i] = rho * out[i - 1] + math.sqrt(1 - rho * rho) * noise[i]
    return out


def _cell_p95() -> float:
    """Control's p95 over the mixture of cells that ``cell_p95`` draws from, by bisection."""
    cells, _ = _switchback(np.random.default_rng(0), days=7, clusters=2, together=False)
    centre, low, high = _scale_level(cells), -5.0, 5.0
    for _ in range(80):
        middle = (low + high) / 2
        below = float(ndtr((middle - centre) / math.sqrt(0.01 + 0.25)).mean())
        low, high = (middle, high) if below < 0.95 else (low, middle)
    return 100 * math.exp(low)


_CELL_P95 = _cell_p95()


def _as_effect(e: Estimate, estimate: float, low: float, high: float) -> Estimate:
    """The relative effect in the fields of the effect itself; p-value by whether its interval holds zero."""
    se = (math.log1p(high) - math.log1p(low)) / (2 * 1.96) * (1 + estimate)
    p = 0.5 if low <= 0.0 <= high else 0.0
    return Estimate(
        e.method, estimate, se, e.df, estimate / se, p, low, high, e.control_value, e.treatment_value, e.n_control,
        e.n_treatment,
    )  # fmt: skip


def main() -> None:
    """Command line: measures all worlds, prints the table, and writes it with its command."""
    parser = argparse.ArgumentParser(description="How often the intervals cover, in simulated experiments.")
    parser.add_argument("--experiments", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=20260)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    begin = time.process_time()
    text = table(args.experiments, args.seed)
    print(text)
    print(f"{time.process_time() - begin:.0f} s of one core")
    if args.out:
        command = (
            f"OMP_NUM_THREADS=1 python -m benchmarks.calibration --experiments {args.experiments} --out {args.out}"
        )
        args.out.write_text(_PAGE.format(experiments=args.experiments, command=command, table=text), encoding="utf-8")


_PAGE = """# How often the intervals cover

{experiments:,} simulated experiments a row and column, levels of 5 %. The worlds are the functions of
`benchmarks/calibration.py`, whose docstring says what the columns mean. Made by

```
{command}
```

{table}"""


if __name__ == "__main__":
    main()
