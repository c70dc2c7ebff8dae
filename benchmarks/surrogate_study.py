"""What is kept of what past experiments promise of the long run: coverage of slope and prediction, and the check.

Past experiments are drawn whose true long effects follow the short ones on a known line; both are measured with errors
of a known size that differ threefold between experiments and are correlated within one. For every world the slope's
interval and the interval of a further experiment's true long effect are held against the truth, beside the plain
regression of the estimates; then how often `surrogate_evidence` would hold where short effects tell nothing, or much.

    nice python -m benchmarks.surrogate_study                # 1,000 seeds, about 6 minutes of one core
    python -m benchmarks.surrogate_study --seeds 50
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from estimators.errors_in_variables import Cases, fit
from estimators.inference import EstimationError, t_quantile
from estimators.surrogate import Surrogate, surrogate
from readout.spec.metrics import Metric
from readout.surrogates.judged import Short, faults, harm_of, paradox_of

SLOPE, INTERCEPT, MIDDLE = 2.0, 0.3, 0.5
LONG_ERROR = 1.4  # a long effect's error over a short one's
SHORT, LONG = (Metric(name=name, column=name, better="higher") for name in ("short", "long"))


@dataclass(frozen=True, slots=True)
class World:
    """``n`` experiments; errors and spread relative to the true short effects' standard deviation of one.

    Attributes:
        noise: Mean variance of the short effects' errors.
        r2: Share of the variance of true long effects that the short ones explain; zero: the slope is zero.
        rho: Correlation of an experiment's two errors.
        skewed: Whether true short effects are exponential, not normal.
    """

    n: int
    noise: float
    r2: float
    rho: float = 0.3
    skewed: bool = False

    @property
    def slope(self) -> float:
        return SLOPE if self.r2 else 0.0

    @property
    def left(self) -> float:
        """Standard deviation of what the line leaves."""
        return SLOPE * math.sqrt(1.0 / self.r2 - 1.0) if self.r2 else SLOPE

    def true(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        """True short and long effects."""
        short = MIDDLE + (rng.exponential(size=n) - 1.0 if self.skewed else rng.normal(size=n))
        return short, INTERCEPT + self.slope * short + self.left * rng.normal(size=n)

    def past(self, rng: np.random.Generator) -> Cases:
        """Measured effects."""
        size = math.sqrt(self.noise) * np.exp(rng.normal(0.0, 0.3, self.n))
        short, long = self.true(rng, self.n)
        e, f = rng.normal(size=(2, self.n))
        f = self.rho * e + math.sqrt(1.0 - self.rho**2) * f
        sy = LONG_ERROR * size
        return Cases(short + size * e, long + sy * f, size**2, sy**2, self.rho * size * sy)


COVERED = (
    World(6, 0.1, 0.8),
    World(6, 0.5, 0.8),
    World(12, 0.1, 1.0),
    World(12, 0.1, 0.8),
    World(12, 0.5, 0.8),
    World(12, 0.5, 0.4),
    World(12, 0.5, 0.8, skewed=True),
    World(30, 0.1, 0.4),
    World(30, 0.5, 0.8),
)
CHECKED = (World(8, 0.2, 0.0), World(20, 0.2, 0.0), World(8, 0.2, 0.3), World(8, 0.2, 0.9), World(20, 0.2, 0.9))


def coverage(world: World, seeds: int) -> str:
    """A row of the first table."""
    told = slope = long = plain = 0
    slopes, plains = [], []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        cases = world.past(rng)
        try:
            line = fit(cases)
        except EstimationError:
            continue
        told += 1
        slopes.append(line.slope)
        slope += line.low <= world.slope <= line.high
        short, true = (float(value[0]) for value in world.true(rng, 1))
        error = 0.6 * math.sqrt(world.noise)
        found = Surrogate(world.n, line, 0.05, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0).predict(
            short + error * rng.normal(), error
        )
        long += found.ci_low <= true <= found.ci_high
        b, half = _plain(cases)
        plains.append(b)
        plain += abs(b - world.slope) <= half
    covered, by_plain, foretold = (f"{100 * value / told:.1f} %" for value in (slope, plain, long))
    middle, middle_plain = f"{np.median(slopes):.2f}", f"{np.median(plains):.2f}"
    return _row(world, f"{100 * told / seeds:.1f} %", middle, covered, middle_plain, by_plain, foretold)


def _plain(cases: Cases) -> tuple[float, float]:
    """Slope of the ordinary regression of the estimates, and half its 95 % interval."""
    x, y = cases.x - cases.x.mean(), cases.y - cases.y.mean()
    b = float(x @ y / (x @ x))
    error = math.sqrt(float((y - b * x) @ (y - b * x)) / (len(x) - 2) / float(x @ x))
    return b, t_quantile(0.975, len(x) - 2) * error


def held(world: World, seeds: int) -> str:
    """A row of the second table: of an experiment whose true short effect is one standard deviation above the mean."""
    holds = good = 0
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        cases = world.past(rng)
        error = 0.6 * math.sqrt(world.noise)
        now = Short(SHORT, MIDDLE + 1.0 + error * rng.normal(), error)
        true = INTERCEPT + world.slope * (MIDDLE + 1.0) + world.left * rng.normal()
        correlation = np.full(world.n, world.rho)
        try:
            model = surrogate(cases.x, np.sqrt(cases.var_x), cases.y, np.sqrt(cases.var_y), correlation=correlation)
        except EstimationError:
            continue
        foretold = model.predict(now.estimate, now.std_error)
        harm = paradox_of(now, LONG, model, foretold) or harm_of(now, LONG, foretold, foretold.below_zero)
        if model.rests_on is None and not any(faults(now, LONG, model, harm)):
            holds += 1
            good += true > 0.0
    share = f"{100 * good / holds:.0f} %" if holds else "–"
    return _row(world, f"{100 * holds / seeds:.1f} %", share)


def _row(world: World, *cells: str) -> str:
    kind = "skewed" if world.skewed else "normal"
    return f"| {world.n} | {world.noise:g} | {world.r2:g} | {kind} | {' | '.join(cells)} |"


def tables(seeds: int) -> Iterator[str]:
    """The lines of both tables."""
    yield "| n | noise | R² | short effects | told | slope | covered | plain slope | covered | prediction covered |"
    yield "| ---: " * 3 + "| --- " + "| ---: " * 6 + "|"
    for world in COVERED:
        yield coverage(world, seeds)
    yield ""
    yield "| n | noise | R² | short effects | evidence holds | long effect then good |"
    yield "| ---: " * 3 + "| --- " + "| ---: " * 2 + "|"
    for world in CHECKED:
        yield held(world, max(seeds // 4, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1000)
    for line in tables(parser.parse_args().seeds):
        print(line, flush=True)


if __name__ == "__main__":
    main()
