"""Worlds of a cutoff at 0: a running variable between -1 and 1, denser below, and a mean that bends on either side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np

from benchmarks.worlds.quasi import NOMINAL, PUBLISHED, Broken, Design, Reading, Rng, Vector, reading
from benchmarks.worlds.quasi_logs import Asked, asked_of
from estimators import density_test, local_linear

ROWS = 800
Seen = tuple[Reading, Mapping[str, bool]]


def running(rng: Rng, n: int = ROWS) -> Vector:
    return np.asarray(2.0 * rng.beta(2.0, 2.5, n) - 1.0, dtype=np.float64)


def curve(x: Vector) -> Vector:
    """A parabola on either side that meets in value at the cutoff."""
    return np.asarray(np.where(x < 0.0, 0.8 * x - 0.6 * x**2, 0.4 * x + 0.9 * x**2), dtype=np.float64)


def first_curve(x: Vector) -> Vector:
    """The first simulated mean of Calonico, Cattaneo and Titiunik (2014), without its jump of 0.04."""
    left = 0.48 + 1.27 * x + 7.18 * x**2 + 20.21 * x**3 + 21.54 * x**4 + 7.33 * x**5
    right = 0.48 + 0.84 * x - 3.0 * x**2 + 7.99 * x**3 - 9.01 * x**4 + 3.56 * x**5
    return np.asarray(np.where(x < 0.0, left, right), dtype=np.float64)


def sharp(mean: Callable[[Vector], Vector] = curve, spread: float = 0.5, **how: Any) -> Callable[[Rng], Reading]:
    def draw(rng: Rng) -> Reading:
        x = running(rng)
        y = mean(x) + 0.5 * (x >= 0.0) + spread * rng.normal(size=ROWS)
        return reading(local_linear(y, x, **how), 0.5)

    return draw


def fuzzy(rng: Rng) -> Reading:
    """Crossing raises take-up by half; those who take it up in any case stand higher."""
    x, u = running(rng), rng.random(ROWS)
    kind = np.where(u < 0.2, 0, np.where(u < 0.7, 1, 2))
    d = np.where(kind == 0, 1.0, np.where(kind == 1, x >= 0.0, 0.0))
    y = curve(x) + 0.5 * (kind == 0) + d + 0.5 * rng.normal(size=ROWS)
    return reading(local_linear(y, x, takeup=d), 1.0)


def clusters(variance: str) -> Callable[[Rng], Reading]:
    """200 clusters of four rows that stand close together and share a part of the noise."""

    def draw(rng: Rng) -> Reading:
        cluster = np.repeat(np.arange(200), 4)
        x = running(rng, 200)[cluster] + rng.uniform(-0.02, 0.02, 800)
        y = curve(x) + 0.5 * (x >= 0.0) + 0.35 * rng.normal(size=200)[cluster] + 0.35 * rng.normal(size=800)
        return reading(local_linear(y, x, clusters=cluster, variance=variance), 0.5)

    return draw


def covariates(rng: Rng) -> Reading:
    x, z = running(rng), rng.normal(size=(ROWS, 2))
    y = curve(x) + 0.5 * (x >= 0.0) + z @ np.array([0.4, -0.2]) + 0.4 * rng.normal(size=ROWS)
    return reading(local_linear(y, x, covariates=z), 0.5)


def density(n: int) -> Callable[[Rng], Reading]:
    """The test of a density without a jump: covered is quiet."""

    def draw(rng: Rng) -> Reading:
        found = density_test(running(rng, n))
        return Reading(found.difference, found.std_error, found.p_value >= 0.05)

    return draw


def designs() -> Iterator[Design]:
    """Rows of the first table."""
    parabola = "800 rows, a parabola on either side"
    yield Design("local_linear, sharp, nn", parabola, NOMINAL, sharp())
    yield Design("local_linear, sharp, hc3", parabola, NOMINAL, sharp(variance="hc3"))
    yield Design("local_linear, sharp, uniform kernel", parabola, NOMINAL, sharp(kernel="uniform"))
    yield Design(
        "local_linear, sharp, nn", "800 rows, the authors' first curve", PUBLISHED, sharp(first_curve, 0.1295),
        "a chosen bandwidth leaves bias of a higher order",
    )  # fmt: skip
    yield Design("local_linear, fuzzy, nn", "800 rows, take-up rises by half", NOMINAL, fuzzy)
    yield Design("local_linear, covariates, nn", parabola, NOMINAL, covariates)
    yield Design("local_linear, clusters, nn", "200 clusters of 4 rows", NOMINAL, clusters("nn"))
    yield Design("local_linear, clusters, hc3", "200 clusters of 4 rows", NOMINAL, clusters("hc3"))
    for n in (800, 2000):
        yield Design("density_test, quiet", f"{n:,} rows, no jump of the density", NOMINAL, density(n))


def sorted_rows(rng: Rng, size: float) -> Seen:
    """Of those just below the cutoff whose outcome is good, a share ``size`` is moved to just above it."""
    x, u = running(rng, 1500), rng.normal(size=1500)
    moves = (x < 0.0) & (x > -0.15) & (u > 0.0) & (rng.random(1500) < size)
    x = np.where(moves, -x, x)
    y = curve(x) + 0.5 * (x >= 0.0) + 0.5 * u
    return reading(local_linear(y, x), 0.5), {"density": density_test(x).p_value < 0.05}


def other_jump(rng: Rng, size: float) -> Seen:
    """A fact from before the treatment that moves the outcome jumps at the cutoff too; one of two facts."""
    x = running(rng)
    z, w = 0.5 * x + size * (x >= 0.0) + 0.5 * rng.normal(size=ROWS), rng.normal(size=ROWS)
    y = curve(x) + 0.5 * (x >= 0.0) + 0.7 * z - 0.35 * x + 0.35 * rng.normal(size=ROWS)
    found, said = asked_of(_spec(facts=True), {"y": y, "x": x, "z": z, "w": w}, ("covariate_continuity",))
    return reading(found, 0.5), {name: status == "fail" for name, status in said.items()}


def too_wide(rng: Rng, size: float) -> Seen:
    """The mean bends hard above the cutoff, and the bandwidth takes in all of it."""
    x = running(rng)
    y = curve(x) + 0.3 * (x >= 0.0) + size * (1.0 - np.exp(-8.0 * np.maximum(x, 0.0)))
    name = "bandwidth_sensitivity"
    found, said = asked_of(_spec(bandwidth=0.8), {"y": y + 0.5 * rng.normal(size=ROWS), "x": x}, (name,))
    return reading(found, 0.3), {name: said[name] in ("warn", "fail"), f"{name} (fails)": said[name] == "fail"}


def elsewhere(rng: Rng, size: float) -> Seen:
    """The outcome jumps at another place too, which the bandwidth takes in."""
    x = running(rng)
    y = curve(x) + 0.5 * (x >= 0.0) + size * (x >= 0.15) + 0.5 * rng.normal(size=ROWS)
    found, said = asked_of(_spec(bandwidth=0.5), {"y": y, "x": x}, ("placebo",))
    return reading(found, 0.5), {name: status == "fail" for name, status in said.items()}


@cache
def _spec(*, bandwidth: float | None = None, facts: bool = False) -> Asked:
    return Asked(
        {
            "logs": {"path": "log.parquet", **({"columns": {"features": ["z", "w"]}} if facts else {})},
            "design": {"kind": "rdd", "running": "x", "cutoff": 0, "bandwidth": bandwidth or "auto"},
            "metrics": {"y": {"column": "y", "role": "primary", "better": "higher"}},
        }
    )


def broken() -> Iterator[Broken]:
    """Rows of the second table."""
    yield Broken(
        "nobody sorts: some just below whose outcome is good move above", "local_linear",
        {"density": "p < 0.05, 1,500 rows"}, 0.212, sorted_rows, level={"density": 5.0},
    )  # fmt: skip
    yield Broken(
        "nothing else jumps: a fact that moves the outcome does", "local_linear",
        {"covariate_continuity": "fails: a jump of either of two facts, Holm-adjusted"}, 0.219, other_jump,
        level={"covariate_continuity": 5.0},
    )  # fmt: skip
    yield Broken(
        "the mean is smooth at the bandwidth's width: it bends hard above", "local_linear, bandwidth 0.8",
        {
            "bandwidth_sensitivity": "warns or fails: the effect moves at narrower bandwidths, Holm-adjusted",
            "bandwidth_sensitivity (fails)": "fails: the same, by a part of the effect that matters",
        },
        0.721, too_wide, level={"bandwidth_sensitivity": 5.0},
    )  # fmt: skip
    yield Broken(
        "the mean is smooth: it jumps at 0.15 too", "local_linear, bandwidth 0.5",
        {"placebo": "fails: a jump at other cutoffs, Holm-adjusted"}, 0.41, elsewhere, level={"placebo": 5.0},
    )  # fmt: skip
