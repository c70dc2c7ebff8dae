"""Scores of a target policy summed by independent unit, chunk by chunk, so that no row is held."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from estimators.inference import EstimationError, t_interval
from estimators.left_out import LeftOut, left_out
from estimators.policy_value import UnitSums, value_of
from readout.errors import LogError, Problem
from readout.text import visible

Vector = NDArray[np.float64]
Codes = NDArray[np.intp]
CHUNK = 250_000


def chunks(query: pl.LazyFrame, rows: int = CHUNK) -> Iterator[pl.DataFrame]:
    """The rows of a query in the order of the files, so many at a time.

    Raises:
        LogError: The files cannot be read to the end.
    """
    try:
        yield from query.collect_batches(chunk_size=rows, maintain_order=True, engine="streaming")
    except (pl.exceptions.PolarsError, OSError) as error:
        text = str(error).strip().splitlines()
        message = f"cannot be read to the end: {visible(text[0] if text else type(error).__name__)}"
        raise LogError([Problem("logs", message)]) from error


class ByUnit:
    """Named sums, ``(units,)`` each, that grow as chunks come in."""

    def __init__(self, units: int) -> None:
        self.units = units
        self.sums: dict[str, Vector] = {}

    def add(self, name: str, codes: Codes, values: Vector) -> None:
        """Adds each row's value to its unit's sum."""
        if name not in self.sums:
            self.sums[name] = np.zeros(self.units)
        some = np.flatnonzero(values)
        if 2 * len(some) < len(values):  # most weights are 0 where there are many actions
            codes, values = codes[some], values[some]
        if self.units > 4 * len(codes):
            np.add.at(self.sums[name], codes, values)
        else:
            self.sums[name] += np.bincount(codes, values, self.units)

    def get(self, name: str) -> Vector:
        """A sum; zeros where nothing was added."""
        return self.sums.get(name, np.zeros(self.units))


@dataclass
class Spread:
    """Value and error of one policy over rows that are independent, from sums that need no array by row.

    What is squared is ``num - start * den``, ``start`` being the ratio of the first chunk, so that a large level costs
    no digits.
    """

    n: int = 0
    num: float = 0.0
    den: float = 0.0
    start: float = math.nan
    squares: float = 0.0
    products: float = 0.0
    den_squares: float = 0.0

    def add(self, num: Vector, den: Vector) -> None:
        """Adds rows."""
        if math.isnan(self.start):
            self.start = float(num.sum()) / float(den.sum()) if float(den.sum()) > 0.0 else 0.0
        rest = num - self.start * den
        self.n += len(num)
        self.num += float(num.sum())
        self.den += float(den.sum())
        self.squares += float(rest @ rest)
        self.products += float(rest @ den)
        self.den_squares += float(den @ den)

    def read(self, alpha: float) -> tuple[float, float, float, float]:
        """Value, its standard error and its interval.

        Raises:
            EstimationError: There is none.
        """
        if self.n < 2 or not self.den > 0.0:
            raise EstimationError("no row to value it by")
        value = self.num / self.den
        moved = value - self.start
        total = self.squares - 2.0 * moved * self.products + moved**2 * self.den_squares
        error = math.sqrt(max(total, 0.0) * self.n / (self.n - 1)) / self.den
        return value, error, *t_interval(value, error, self.n - 1.0, alpha)


@dataclass
class Side:
    """A policy beside the target (a constant one, or the target under another clip), for one metric.

    Attributes:
        by_unit: Sums ``num``, and ``den`` where that is not the rows, by unit; None: rows are independent and many.
        w, w2: Sums of its weights and of their squares.
        clipped, cut: Rows whose weight was cut, and by how much in all.
    """

    by_unit: ByUnit | None
    spread: Spread = field(default_factory=Spread)
    w: float = 0.0
    w2: float = 0.0
    clipped: float = 0.0
    cut: float = 0.0

    def add(self, codes: Codes, num: Vector, den: Vector | None, w: Vector, given: Vector) -> None:
        """Adds rows, with their weights as used and as given; ``den`` None: each row counts one."""
        self.w += float(w.sum())
        self.w2 += float(w @ w)
        less = given - w
        self.clipped += float(np.count_nonzero(less > 0.0))
        self.cut += float(less.sum())
        if self.by_unit is None:
            self.spread.add(num, np.ones(len(num)) if den is None else den)
            return
        for name, values in (("num", num), ("den", den)):
            if values is not None:
                self.by_unit.add(name, codes, values)

    def sums(self, rows: Vector) -> UnitSums:
        """Its sums by unit, as :func:`estimators.clip_trade.clip_trade` takes them; ``rows`` of each unit."""
        assert self.by_unit is not None
        num, den = self.by_unit.get("num"), self.by_unit.sums.get("den", rows)
        none, weights = np.zeros(len(rows)), np.full(len(rows), self.w / len(rows))
        return UnitSums(rows, none, rows, num, den, weights, None, clipped=self.clipped, cut=self.cut)

    @property
    def ess(self) -> float:
        """Effective sample size of its weights."""
        return self.w * self.w / self.w2 if self.w2 > 0.0 else 0.0

    def read(self, alpha: float, rows: Vector) -> tuple[float, float, float, float]:
        """Value, its standard error and its interval; ``rows`` of each unit.

        Raises:
            EstimationError: There is none.
        """
        if self.by_unit is None:
            return self.spread.read(alpha)
        num, den, some = self.by_unit.get("num"), self.by_unit.sums.get("den", rows), rows > 0.0
        found = value_of(num[some], den[some], alpha=alpha)
        return found.value, found.std_error, found.ci_low, found.ci_high


class ByAction:
    """Policies that always take one action, by weights alone: a row adds to that of its own action, and to no other.

    Attributes:
        sides: By the action's name; they look into the arrays that rows are added to.
    """

    def __init__(self, units: int, names: Sequence[str]) -> None:
        self._num = np.zeros((units, len(names)))
        self._den: NDArray[np.float64] | None = None
        self.sides = {name: Side(ByUnit(units)) for name in names}
        self._show("num", self._num)

    def add(self, codes: Codes, action: Codes, w: Vector, num: Vector, den: Vector | None) -> None:
        """Adds rows of actions numbered as the names are; others, and rows of no weight, count for none."""
        count = len(self.sides)
        some = np.flatnonzero((w > 0.0) & (action >= 0) & (action < count))
        action, w = action[some], w[some]
        for side, total, squares in zip(
            self.sides.values(), np.bincount(action, w, count), np.bincount(action, w * w, count), strict=True
        ):
            side.w += float(total)
            side.w2 += float(squares)
        at = codes[some] * count + action
        _sum_into(self._num, at, num[some])
        if den is not None:
            if self._den is None:
                self._den = np.zeros_like(self._num)
                self._show("den", self._den)
            _sum_into(self._den, at, den[some])

    def _show(self, name: str, sums: NDArray[np.float64]) -> None:
        for k, side in enumerate(self.sides.values()):
            assert side.by_unit is not None
            side.by_unit.sums[name] = sums[:, k]


def _sum_into(sums: NDArray[np.float64], at: Codes, values: Vector) -> None:
    flat = sums.reshape(-1)
    if flat.size > 4 * len(at):
        np.add.at(flat, at, values)
    else:
        flat += np.bincount(at, values, flat.size)


def unit_sums(
    of: ByUnit, name: str, shared: str, ratio: bool, method: str, largest: float, clipped: tuple[float, float]
) -> UnitSums:
    """What :func:`estimators.policy_value.policy_value` needs of a metric.

    Args:
        of: Sums.
        name: The metric's.
        shared: The prefix of the rows and weights that it shares with others.
        ratio: Whether it has a denominator.
        method: The estimator's name.
        largest: Largest weight of a row.
        clipped: Rows whose weight was cut, and by how much in all.
    """
    rows = of.get(f"{shared}n")
    weighs = method != "direct_method"
    w = of.get(f"{shared}w") if weighs else None
    below = of.get(f"{name}|td") if ratio else w if method == "snips" else rows
    assert below is not None
    fitted = f"{name}|fn" in of.sums
    return UnitSums(
        rows=rows,
        logged_num=of.get(f"{name}|ln"),
        logged_den=of.get(f"{name}|ld") if ratio else rows,
        target_num=of.get(f"{name}|tn"),
        target_den=below,
        w=w,
        w2=of.get(f"{shared}w2") if weighs else None,
        fitted_num=of.get(f"{name}|fn") if fitted else None,
        fitted_den=of.get(f"{name}|fd") if fitted and ratio else None,
        largest=largest if weighs else None,
        clipped=clipped[0],
        cut=clipped[1],
    )


def unused(of: ByUnit, name: str, shared: str, ratio: bool, method: str, value: float) -> LeftOut:
    """What weights that are not used would change of a metric's value; arguments as of :func:`unit_sums`.

    Raises:
        EstimationError: Too few units.
    """
    normalised = method == "snips" and not ratio
    below = of.get(f"{name}|td" if ratio else f"{shared}w" if normalised else f"{shared}n")
    return left_out(of.get(f"{name}|un"), of.get(f"{name}|ud") if ratio or normalised else None, below, value=value)


def caps_below(most: float, grid: Sequence[float] = (2, 5, 10, 20, 50, 100, 200, 500, 1000, 10_000)) -> list[float]:
    """Caps worth trying where the largest weight is ``most``: up to four, the largest below it."""
    return [float(cap) for cap in grid if cap < most][-4:]
