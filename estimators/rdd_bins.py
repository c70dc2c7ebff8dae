"""Means of the outcome in bins of the running variable: the points of a regression discontinuity figure.

Calonico, Cattaneo and Titiunik (2015), *Optimal data-driven regression discontinuity plots*, Journal of the American
Statistical Association 110: evenly spaced bins on either side, as many as make the means scatter like the outcome
itself (mimicking variance), its noise seen from neighbours (spacings). A figure for the eye; no number is read off it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from estimators.local_polynomial import Side, fit
from estimators.rdd_fits import split

MOST = 60
CURVE = 25  # points on a curve of a higher order


@dataclass(frozen=True, slots=True)
class Bin:
    """One bin that holds rows: ``[low, high)`` of the running variable (the last one closed).

    Attributes:
        side: ``below`` or ``above`` the cutoff.
        low, high: Its ends.
        running, mean: Means of the running variable and of the outcome.
        std_error: Standard error of the outcome's mean; None where the bin holds one row.
        rows: Rows in it.
    """

    side: str
    low: float
    high: float
    running: float
    mean: float
    std_error: float | None
    rows: int


def binned_means(
    outcome: ArrayLike, running: ArrayLike, *, cutoff: float = 0.0, bins: int | None = None, most: int = MOST
) -> tuple[Bin, ...]:
    """Bins in the order of the running variable; empty ones are left out.

    Args:
        outcome, running: ``(n,)`` one value a unit.
        bins: Bins on either side; None: chosen to mimic the variance.
        most: Largest number chosen on a side, so that a figure of many rows stays a figure.

    Raises:
        EstimationError: Values that are not finite, or an empty side.
    """
    if most < 1 or (bins is not None and bins < 1):
        raise ValueError("there must be at least one bin on a side")
    sides = split(outcome, running, cutoff)
    rows = sum(len(side.x) for side in sides)
    out: list[Bin] = []
    for side in sides:
        count = min(variance_bins(side, rows), most) if bins is None else bins
        out += _binned(side, cutoff, count)
    return tuple(out)


@dataclass(frozen=True, slots=True)
class Curve:
    """The polynomial of one side, from the end of its bandwidth to the cutoff or back.

    Attributes:
        side: ``below`` or ``above`` the cutoff.
        running, value: Points on it, by the running variable.
    """

    side: str
    running: tuple[float, ...]
    value: tuple[float, ...]


def fitted_curves(
    outcome: ArrayLike,
    running: ArrayLike,
    *,
    h: float,
    cutoff: float = 0.0,
    order: int = 1,
    kernel: str = "triangular",
) -> tuple[Curve, Curve]:
    """The curves whose ends at the cutoff are the two limits, without covariates.

    Args:
        outcome, running: ``(n,)`` one value a unit.
        h: Bandwidth; a curve reaches no farther than the rows within it.

    Raises:
        EstimationError: As ``local_linear``.
    """
    below, above = (_curve(side, h, cutoff, order, kernel) for side in split(outcome, running, cutoff))
    return below, above


def _curve(side: Side, h: float, cutoff: float, order: int, kernel: str) -> Curve:
    near = side.within(h, kernel)
    coef = fit(near, h, order, kernel).coef[:, 0]
    end = float(near.x[0] if side.name == "below" else near.x[-1])
    x = np.sort(np.linspace(0.0, end, 2 if order == 1 else CURVE))
    values = np.polynomial.polynomial.polyval(x / h, coef)
    return Curve(side.name, tuple((x + cutoff).tolist()), tuple(values.tolist()))


def variance_bins(side: Side, rows: int) -> int:
    """Evenly spaced bins of a side that mimic the outcome's variance; ``rows`` counts both sides.

    Never more than distinct values of the running variable, and one where nothing varies.
    """
    x, y = side.x, side.values[:, 0]
    distinct = len(np.unique(x))
    width = float(np.abs(x).max())
    if len(x) < 2 or rows < 3 or not width > 0.0:
        return 1
    noise = float(np.diff(x) @ np.diff(y) ** 2) / (2.0 * width)
    spread = float(np.var(y, ddof=1))
    if not spread > 0.0:
        return 1
    if not noise > 0.0:
        return distinct
    return int(max(1, min(math.ceil(spread / noise * rows / math.log(rows) ** 2), distinct)))


def _binned(side: Side, cutoff: float, count: int) -> list[Bin]:
    below = side.name == "below"
    edges = np.linspace(float(side.x[0]), 0.0, count + 1) if below else np.linspace(0.0, float(side.x[-1]), count + 1)
    place = np.clip(np.searchsorted(edges, side.x, side="right") - 1, 0, count - 1)
    size = np.bincount(place, minlength=count)
    y = side.values[:, 0]
    out = []
    for k in np.flatnonzero(size):
        inside = place == k
        n, mean = int(size[k]), float(y[inside].mean())
        error = float(np.std(y[inside], ddof=1)) / math.sqrt(n) if n > 1 else None
        ends = (float(edges[k]) + cutoff, float(edges[k + 1]) + cutoff)
        out.append(Bin(side.name, *ends, float(side.x[inside].mean()) + cutoff, mean, error, n))
    return out
