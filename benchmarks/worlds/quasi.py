"""What the worlds without randomization have in common: one reading of one draw, and rows of the two tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from estimators import Estimate

Rng = np.random.Generator
Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

NOMINAL, CONSERVATIVE, PUBLISHED = "94–96", "≥ 94", "published"


@dataclass(frozen=True, slots=True)
class Reading:
    """One draw, read by one method.

    Attributes:
        error: What ``std_error`` is the error of, less the truth: the estimate, or the bias-corrected point where the
            interval is that of one; NaN where the method gives a set and no point.
        std_error: As the method says; NaN where it says none.
        covered: Whether the 95 % interval (or set, or band) holds the truth; of a test: whether it is quiet.
    """

    error: float
    std_error: float
    covered: bool


@dataclass(frozen=True)
class Design:
    """A method where its assumptions hold; ``most``: experiments, where one is dear."""

    method: str
    world: str
    promise: str
    draw: Callable[[Rng], Reading]
    why: str = ""
    most: int | None = None

    @property
    def name(self) -> str:
        return f"{self.method}: {self.world}"


@dataclass(frozen=True)
class Broken:
    """A method where one assumption fails, and the checks that should tell.

    Attributes:
        assumption: What fails, and how.
        method: That is biased by it.
        checks: What counts as fired, by the check's name.
        size: Of the failure that biases the estimate by one standard error, found by a pilot (``--pilot``).
        draw: The reading and which checks fired, at a size of the failure.
        holds: The size at which the assumption holds.
        level: Share in percent that a check fires in where the assumption holds, by its making; None: not a test.
        note: What a reader must know beside the numbers.

    A name in ``checks`` may have a second word in brackets, to tell two answers of one check apart.
    """

    assumption: str
    method: str
    checks: Mapping[str, str]
    size: float
    draw: Callable[[Rng, float], tuple[Reading, Mapping[str, bool]]]
    holds: float = 0.0
    level: Mapping[str, float] = field(default_factory=dict)
    note: str = ""

    @property
    def name(self) -> str:
        return f"{self.method}: {self.assumption}"


def reading(found: Estimate, truth: float) -> Reading:
    """An estimate held against the truth."""
    point = found.diagnostics.get("bias_corrected", found.estimate)
    return Reading(point - truth, found.std_error, found.ci_low <= truth <= found.ci_high)


def covered(holds: bool) -> Reading:
    """A set, a band or a test, which has no point."""
    return Reading(math.nan, math.nan, holds)


def expit(x: Vector) -> Vector:
    return np.asarray(1.0 / (1.0 + np.exp(-x)), dtype=np.float64)


def ar1(rng: Rng, n: int, t: int, rho: float = 0.5) -> Matrix:
    """``(n, t)`` stationary AR(1) paths of unit variance."""
    noise = rng.normal(size=(n, t))
    for j in range(1, t):
        noise[:, j] = rho * noise[:, j - 1] + math.sqrt(1.0 - rho * rho) * noise[:, j]
    return noise
