"""How often intervals that are looked at a hundred times ever exclude the truth: always-valid ones, and fixed ones.

Run from the root of the repository (about 2.5 minutes of processor time; writes the table of docs/sequential.md):

    OMP_NUM_THREADS=1 python -m benchmarks.sequential --experiments 4000 --out docs/sequential.md

Every world draws ``--experiments`` experiments without an effect and looks at each a hundred times, at every hundredth
of its sample from about a hundred observations on (blocks and clusters: from the first look that has an interval). A
look is wrong when the interval at 95 % excludes zero; an experiment, when any look of it is. ``wrong at the end`` is of
the last look alone; ``width`` the always-valid interval over the fixed one there. For the sample ratio, a look is wrong
when the p-value is below the level that the row names.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, gammaln, ndtri, stdtr, stdtrit

from estimators import Cells, block_regression
from estimators.confidence_sequence import boundary
from estimators.inference import EstimationError
from estimators.sequential_srm import CONCENTRATIONS

Array = NDArray[np.float64]
Rng = np.random.Generator
Looks = Iterator[tuple[int, Array, Array]]
ALPHA = 0.05
N_LOOKS = 100
MARKS = ("<!-- measured -->", "<!-- /measured -->")


@dataclass(frozen=True)
class World:
    """``draw(rng, experiments)`` gives, look by look, the observations so far, t statistics and degrees of freedom."""

    name: str
    draw: Callable[[Rng, int], Looks]
    tuning: float = 5000.0
    at_once: int = 250
    share: float = 1.0  # of the experiments asked for


def looks_of(n: int, first: int = 100) -> NDArray[np.intp]:
    """A hundred sizes up to ``n``, even, from ``first`` on."""
    return np.unique(2 * np.round(np.linspace(first, n, N_LOOKS) / 2).astype(int))


def welch(draw: Callable[[Rng, tuple[int, int]], Array], n: int, first: int = 100) -> Callable[[Rng, int], Looks]:
    """Means by unit, arms in turn."""

    def of(rng: Rng, experiments: int) -> Looks:
        x = draw(rng, (experiments, n))
        # Centred, so that sums of squares do not cancel.
        x -= x.mean()
        sums = [np.cumsum(x[:, arm::2], axis=1) for arm in (0, 1)]
        squares = [np.cumsum(x[:, arm::2] ** 2, axis=1) for arm in (0, 1)]
        for look in looks_of(n, first):
            m = int(look) // 2
            mean = [s[:, m - 1] / m for s in sums]
            variance = [(q[:, m - 1] / m - a * a) / (m - 1) for q, a in zip(squares, mean, strict=True)]
            yield 2 * m, *_statistic(mean, variance, m)

    return of


def _statistic(value: list[Array], variance: list[Array], m: int) -> tuple[Array, Array]:
    """Welch's t and its degrees of freedom; where nothing varies there is no interval, and nothing is wrong."""
    both = variance[0] + variance[1]
    some = both > 0.0
    t = np.where(some, value[1] - value[0], 0.0) / np.sqrt(np.where(some, both, 1.0))
    return t, np.where(some, both**2, 1.0) / np.where(some, (variance[0] ** 2 + variance[1] ** 2) / (m - 1), 1.0)


def ratio(n: int) -> Callable[[Rng, int], Looks]:
    """Cost over successes by unit, a Pareto number of rows each: the delta method."""

    def of(rng: Rng, experiments: int) -> Looks:
        rows = 1 + rng.poisson(np.minimum(3 * (1 + rng.pareto(2.5, (experiments, n))), 200))
        den = rng.binomial(rows, 0.8).astype(float)
        num = rows * np.exp(0.6 * rng.normal(size=(experiments, n)))
        parts = [num, den, num * num, num * den, den * den]
        sums = [[np.cumsum(part[:, arm::2], axis=1) for part in parts] for arm in (0, 1)]
        for look in looks_of(n):
            m = int(look) // 2
            value, variance = [], []
            for arm in sums:
                x, y, xx, xy, yy = (s[:, m - 1] / m for s in arm)
                r = x / y
                value.append(r)
                variance.append((xx - 2 * r * xy + r * r * yy) / (m - 1) / y**2)
            yield 2 * m, *_statistic(value, variance, m)

    return of


def blocks(days: int, together: bool) -> Callable[[Rng, int], Looks]:
    """A switchback of three regions in blocks of six hours with hours of the day: ``block_regression`` at every block.

    ``together``: all regions switch at once, and share a shock.
    """

    def of(rng: Rng, experiments: int) -> Looks:
        regions, n = 3, 4 * days
        cluster, block = np.repeat(np.arange(regions), n), np.tile(np.arange(n), regions)
        hour = (block * 6) % 24
        drawn = []
        for _ in range(experiments):
            arm = np.tile(rng.integers(0, 2, n), regions) if together else rng.integers(0, 2, n * regions)
            rows = rng.poisson(200, n * regions) + 1.0
            y = 50 + 5 * np.sin(hour / 24 * 2 * np.pi) + rng.normal(0, 2, n * regions)
            y += np.tile(rng.normal(0, 2, n), regions) if together else 0.0
            drawn.append((arm, rows, y))
        for now in range(8, n + 1, 2):
            keep = block < now
            t, df, size = np.zeros(experiments), np.ones(experiments), 0
            for i, (arm, rows, y) in enumerate(drawn):
                cells = Cells(
                    num=(y * rows)[keep], den=rows[keep], arm=arm[keep], cluster=cluster[keep], block=block[keep],
                    hour=hour[keep], weekday=np.zeros(int(keep.sum()), dtype=int), cluster_labels=("a", "b", "c"),
                )  # fmt: skip
                try:
                    found = block_regression(cells, clustered_by="block" if together else "cell")
                except EstimationError:
                    continue  # no interval, nothing excluded
                t[i], df[i], size = found.statistic, found.df, found.n_control + found.n_treatment
            if size:
                yield size, t, df

    return of


# Written down before they were run.
WORLDS = (
    World("mean by unit, normal, 10,000 units", welch(lambda r, s: r.normal(size=s), 10_000)),
    World("the same, tuned for 500", welch(lambda r, s: r.normal(size=s), 10_000), 500.0),
    World("the same, tuned for 100,000", welch(lambda r, s: r.normal(size=s), 10_000), 100_000.0),
    World("a mean of 1e9", welch(lambda r, s: 1e9 + r.normal(size=s), 10_000)),
    World("share of 1 %", welch(lambda r, s: (r.random(s) < 0.01).astype(float), 10_000)),
    World("log-normal, sigma 1.5 (skewness 33)", welch(lambda r, s: np.exp(1.5 * r.normal(size=s)), 10_000)),
    World("log-normal, sigma 2 (skewness 414)", welch(lambda r, s: np.exp(2 * r.normal(size=s)), 10_000)),
    World("Pareto, tail index 1.5 (no variance)", welch(lambda r, s: r.pareto(1.5, s), 10_000)),
    World("ratio of sums, delta method", ratio(10_000)),
    World("clusters, 6 to 100, tuned for 60", welch(lambda r, s: r.normal(size=s), 100, 6), 60.0, 4000),
    World("the same, untuned", welch(lambda r, s: r.normal(size=s), 100, 6), 5000.0, 4000),
    World("clusters, log-normal, sigma 1", welch(lambda r, s: np.exp(r.normal(size=s)), 100, 6), 60.0, 4000),
    World("switchback, cells apart, tuned for 150", blocks(14, False), 150.0, 250, 0.25),
    World("switchback, blocks together, tuned for 50", blocks(14, True), 50.0, 250, 0.25),
)


def run(world: World, rng: Rng, experiments: int) -> tuple[int, float, float, float, float]:
    """Experiments; shares ever wrong, always-valid and fixed; wrong at the end, always-valid; width at the end."""
    wanted = int(experiments * world.share)
    wrong = np.zeros(3)
    width = 0.0
    done = 0
    while done < wanted:
        n = min(world.at_once, wanted - done)
        ever, fixed = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
        for size, t, df in world.draw(rng, n):
            reach = boundary(size, ALPHA, world.tuning)
            now = -ndtri(stdtr(df, -np.abs(t))) > reach
            ever |= now
            fixed |= np.abs(t) > stdtrit(df, 1 - ALPHA / 2)
        wrong += ever.sum(), fixed.sum(), now.sum()
        width = float(np.mean(boundary(size, ALPHA, world.tuning, float(np.median(df))) / stdtrit(df, 1 - ALPHA / 2)))
        done += n
    return done, *(wrong / done), width


def sample_ratio(rng: Rng, experiments: int, share: float, level: float, n: int = 10_000) -> tuple[float, float]:
    """Shares of experiments whose sample ratio was ever below ``level``: sequential test and chi-square."""
    step = n // N_LOOKS
    drawn = np.cumsum(rng.binomial(step, share, (experiments, N_LOOKS)), axis=1).astype(float)
    total = step * np.arange(1, N_LOOKS + 1)
    shares = np.array([1 - share, share])
    counts = np.stack([total - drawn, drawn], axis=-1)
    factors = []
    for c in CONCENTRATIONS:
        prior = c * shares
        parts = (gammaln(prior + counts) - gammaln(prior) - counts * np.log(shares)).sum(axis=-1)
        factors.append(parts - (gammaln(c + total) - gammaln(c)))
    log_factor = np.logaddexp.reduce(factors, axis=0) - np.log(len(factors))
    expected = total[:, None] * shares
    chi = ((counts - expected) ** 2 / expected).sum(axis=-1)
    below = (-log_factor < np.log(level), chdtrc(1, chi) < level)
    return float(below[0].any(axis=1).mean()), float(below[1].any(axis=1).mean())


def table(experiments: int, seed: int) -> list[str]:
    """The lines of the measured part."""
    lines = [
        "| world | experiments | ever wrong, always-valid, % | ever wrong, fixed, % | wrong at the end, % | width |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for i, world in enumerate(WORLDS):
        began = time.process_time()
        n, ever, fixed, last, width = run(world, np.random.default_rng([seed, i]), experiments)
        shown = f"{100 * ever:.2f} | {100 * fixed:.1f} | {100 * last:.2f} | {width:.2f}"
        lines.append(f"| {world.name} | {n:,} | {shown} |")
        print(f"{lines[-1]}  ({time.process_time() - began:.0f} s)", flush=True)
    lines += ["", "| sample ratio | level, % | ever below, sequential, % | ever below, chi-square, % |"]
    lines.append("|---|---:|---:|---:|")
    for share in (0.5, 0.1):
        for level in (0.05, 0.001):
            rng = np.random.default_rng([seed, int(100 * share), int(1000 * level)])
            sequential, chi = sample_ratio(rng, 10 * experiments, share, level)
            name = f"{10 * experiments:,} experiments of 10,000 assignments, {100 * share:g} % treated"
            lines.append(f"| {name} | {100 * level:g} | {100 * sequential:.3f} | {100 * chi:.2f} |")
            print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiments", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=20261122)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    lines = table(given.experiments, given.seed)
    if given.out is not None:
        text = given.out.read_text(encoding="utf-8")
        before, rest = text.split(MARKS[0])
        measured = "\n".join((MARKS[0], "", *lines, "", MARKS[1]))
        given.out.write_text(before + measured + rest.split(MARKS[1])[1], encoding="utf-8")


if __name__ == "__main__":
    main()
