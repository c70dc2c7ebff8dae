"""Worlds of instruments: a coin that moves whom it can, and instruments of an amount.

Where treatment is 0 or 1, a fifth are treated in any case, a half only where the coin says so, the others never; their
levels and effects differ, and the compliers' effect is 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np

from benchmarks.worlds.quasi import (
    NOMINAL,
    PUBLISHED,
    Broken,
    Design,
    Matrix,
    Reading,
    Rng,
    Vector,
    covered,
    expit,
    reading,
)
from benchmarks.worlds.quasi_logs import Asked, asked_of
from estimators import Estimate, two_stage_least_squares, wald

ROWS = 400
LEVELS, EFFECTS = np.array([1.0, 0.0, -0.5]), np.array([2.0, 1.0, 0.5])  # always takers, compliers, never takers
Seen = tuple[Reading, Mapping[str, bool]]


def taken(rng: Rng, z: Vector) -> tuple[Vector, Vector]:
    """Treatment and outcome of rows with a coin each."""
    kind = rng.choice(3, len(z), p=[0.2, 0.5, 0.3])
    d = np.where(kind == 0, 1.0, np.where(kind == 1, z, 0.0))
    return d, LEVELS[kind] + EFFECTS[kind] * d + rng.normal(size=len(z))


def coin(rng: Rng) -> tuple[Vector, Vector, Vector]:
    z = rng.integers(0, 2, ROWS).astype(np.float64)
    return (*taken(rng, z), z)


def by_coin(method: Callable[..., Estimate], variance: str = "HC1") -> Callable[[Rng], Reading]:
    def draw(rng: Rng) -> Reading:
        d, y, z = coin(rng)
        return reading(method(y, d, z, variance=variance), 1.0)

    return draw


def with_covariate(rng: Rng) -> Reading:
    """The coin falls more often where a covariate stands at 1, which moves the outcome too."""
    x = rng.integers(0, 2, ROWS).astype(np.float64)
    z = (rng.random(ROWS) < 0.35 + 0.3 * x).astype(np.float64)
    d, y = taken(rng, z)
    return reading(two_stage_least_squares(y + 2.0 * x, d, z, covariates=x), 1.0)


def clustered(groups: int) -> Callable[[Rng], tuple[Vector, Vector, Vector, np.ndarray]]:
    """A coin a cluster of 4 to 12 rows, with a shock that the cluster shares."""

    def draw(rng: Rng) -> tuple[Vector, Vector, Vector, np.ndarray]:
        cluster = np.repeat(np.arange(groups), rng.integers(4, 13, groups))
        z = rng.permutation(np.arange(groups) % 2)[cluster].astype(np.float64)
        d, y = taken(rng, z)
        return d, y + 0.5 * rng.normal(size=groups)[cluster], z, cluster

    return draw


def by_cluster(method: Callable[..., Estimate], groups: int) -> Callable[[Rng], Reading]:
    def draw(rng: Rng) -> Reading:
        d, y, z, cluster = clustered(groups)(rng)
        return reading(method(y, d, z, clusters=cluster, variance="cluster"), 1.0)

    return draw


def amounts(rng: Rng, strength: float, count: int, *, direct: float = 0.0) -> tuple[Vector, Vector, Matrix]:
    """An amount of treatment that instruments move by ``strength`` in all, against errors that correlate 0.8.

    ``direct``: what the last instrument does to the outcome by itself. Errors are larger where the first is.
    """
    z = rng.normal(size=(ROWS, count))
    hidden = rng.normal(size=ROWS)
    d = strength / math.sqrt(count) * z.sum(axis=1) + hidden
    noise = (0.8 * hidden + 0.6 * rng.normal(size=ROWS)) * np.sqrt((1.0 + z[:, 0] ** 2) / 2.0)
    return d, d + direct * z[:, -1] + noise, z


def by_amount(strength: float, count: int) -> Callable[[Rng], Reading]:
    def draw(rng: Rng) -> Reading:
        d, y, z = amounts(rng, strength, count)
        return reading(two_stage_least_squares(y, d, z), 1.0)

    return draw


def without_moments(rng: Rng) -> Reading:
    """One weak instrument: the estimate has no mean and no variance, so that only the interval can be judged."""
    d, y, z = amounts(rng, WEAK, 1)
    found = two_stage_least_squares(y, d, z)
    return covered(found.ci_low <= 1.0 <= found.ci_high)


def in_set(found: Estimate, truth: float) -> Reading:
    """Whether the Anderson-Rubin set holds the truth."""
    ends = found.diagnostics["anderson_rubin"]["segments"]
    pieces = [(-math.inf if a is None else a, math.inf if b is None else b) for a, b in ends]
    return covered(any(a <= truth <= b for a, b in pieces))


def set_by_amount(strength: float, count: int) -> Callable[[Rng], Reading]:
    def draw(rng: Rng) -> Reading:
        d, y, z = amounts(rng, strength, count)
        return in_set(two_stage_least_squares(y, d, z), 1.0)

    return draw


def set_by_cluster(groups: int) -> Callable[[Rng], Reading]:
    def draw(rng: Rng) -> Reading:
        d, y, z, cluster = clustered(groups)(rng)
        return in_set(two_stage_least_squares(y, d, z, clusters=cluster, variance="cluster"), 1.0)

    return draw


# First-stage strengths: sqrt(400) * strength is the root of the concentration parameter.
STRONG, WEAK = 0.5, 0.09


def designs() -> Iterator[Design]:
    """Rows of the first table."""
    yield Design("two_stage_least_squares, HC1", "400 rows, a coin that moves half", NOMINAL, by_coin(
        two_stage_least_squares))  # fmt: skip
    yield Design("wald, HC1", "400 rows, a coin that moves half", NOMINAL, by_coin(wald))
    yield Design("two_stage_least_squares, HC1", "400 rows, the coin hangs on a covariate", NOMINAL, with_covariate)
    for name, method in (("two_stage_least_squares, cluster", two_stage_least_squares), ("wald, cluster", wald)):
        yield Design(name, "60 clusters, a coin each", NOMINAL, by_cluster(method, 60))
    few = "CR1 understates with few clusters"
    yield Design("two_stage_least_squares, cluster", "16 clusters, a coin each", PUBLISHED, by_cluster(
        two_stage_least_squares, 16), few)  # fmt: skip
    yield Design("two_stage_least_squares, HC1", "3 strong instruments", NOMINAL, by_amount(STRONG, 3))
    weak = "t intervals do not hold where the instrument is weak"
    yield Design("two_stage_least_squares, HC1", "1 weak instrument (F about 4)", PUBLISHED, without_moments, weak)
    yield Design("two_stage_least_squares, HC1", "3 weak instruments", PUBLISHED, by_amount(WEAK, 3), weak)
    yield Design("Anderson–Rubin set", "1 weak instrument (F about 4)", NOMINAL, set_by_amount(WEAK, 1))
    yield Design("Anderson–Rubin set", "3 weak instruments", NOMINAL, set_by_amount(WEAK, 3))
    yield Design("Anderson–Rubin set", "60 clusters, a coin each", NOMINAL, set_by_cluster(60))
    yield Design("Anderson–Rubin set", "16 clusters, a coin each", PUBLISHED, set_by_cluster(16), "few clusters")


def weak(rng: Rng, size: float) -> Seen:
    """Eight instruments; ``size``: one over the root of the concentration parameter."""
    d, y, z = amounts(rng, 1.0 / (size * math.sqrt(ROWS)), 8)
    found, said = asked_of(_amount(8), _log(d, y, z), ("first_stage",))
    return reading(found, 1.0), {"first_stage": said["first_stage"] == "fail"}


def direct(count: int) -> Callable[[Rng, float], Seen]:
    """The last instrument moves the outcome by itself."""

    def draw(rng: Rng, size: float) -> Seen:
        d, y, z = amounts(rng, STRONG, count, direct=size)
        found, said = asked_of(_amount(count), _log(d, y, z), ("first_stage",))
        told = {"first_stage": said["first_stage"] == "fail"}
        if count > 1:
            told["hansen_j"] = found.diagnostics["overidentification"]["p_value"] < 0.05
        return reading(found, 1.0), told

    return draw


def not_random(rng: Rng, size: float) -> Seen:
    """The coin falls more often where a fact is larger that moves the outcome, and that nobody adjusts for."""
    x = rng.normal(size=ROWS)
    z = (rng.random(ROWS) < expit(size * x)).astype(np.float64)
    d, y = taken(rng, z)
    log = {**_log(np.where(d == 1.0, "b", "a"), y + x, z[:, None]), "x": x}
    found, said = asked_of(_coin(), log, ("covariate_balance",))
    status = said["covariate_balance"]
    return reading(found, 1.0), {
        "covariate_balance": status in ("warn", "fail"),
        "covariate_balance (fails)": status == "fail",
    }


def _log(executed: Any, y: Vector, z: Matrix) -> Mapping[str, Any]:
    return {"y": y, "executed": executed, **{f"z{j}": z[:, j] for j in range(z.shape[1])}}


@cache
def _amount(count: int) -> Asked:
    """An amount that ``count`` instruments move."""
    return _spec({"instrument": [f"z{j}" for j in range(count)]})


@cache
def _coin() -> Asked:
    """A coin, and a fact from before the action."""
    return _spec({"instrument": "z0", "control": "a", "treatment": "b"}, features=["x"])


def _spec(design: Mapping[str, Any], **columns: Any) -> Asked:
    return Asked(
        {
            "logs": {"path": "log.parquet", "columns": {"executed": "executed", **columns}},
            "design": {"kind": "iv", **design},
            "estimator": {"method": "two_stage_least_squares"},
            "metrics": {"y": {"column": "y", "role": "primary", "better": "higher"}},
        }
    )


def broken() -> Iterator[Broken]:
    """Rows of the second table."""
    below = {"first_stage": "fails: effective F below 10"}
    yield Broken(
        "the instruments move treatment: eight that hardly do", "two_stage_least_squares", below, 0.203, weak,
        holds=0.03, note="where it holds the effective F is about 140; the bias is not linear in what fails",
    )  # fmt: skip
    yield Broken(
        "through treatment alone: one of two instruments moves the outcome", "two_stage_least_squares",
        {"hansen_j": "p < 0.05 (a note beside the estimate)", **below}, 0.0793, direct(2), level={"hansen_j": 5.0},
    )  # fmt: skip
    yield Broken(
        "through treatment alone: the only instrument moves the outcome", "two_stage_least_squares", below, 0.064,
        direct(1), note="with one instrument no check sees it",
    )  # fmt: skip
    yield Broken(
        "the instrument is as good as random: it follows a fact that moves the outcome", "two_stage_least_squares",
        {
            "covariate_balance": "warns or fails: the fact goes with the instrument, p < 0.05",
            "covariate_balance (fails)": "fails: the same, p < 0.001",
        },
        0.164, not_random, level={"covariate_balance": 5.0, "covariate_balance (fails)": 0.1},
    )  # fmt: skip
