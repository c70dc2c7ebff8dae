"""Units over periods: what every panel method takes its outcomes from, summed in the one pass over the rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from estimators.estimate import Estimate
from estimators.inference import EstimationError
from readout.errors import LogError
from readout.logs import Logs
from readout.logs.frame import Moment
from readout.logs.values import label
from readout.reduce import Table
from readout.samples.base import KEPT, NoTail, den_sum, num_sum, row_count, term_sums
from readout.spec.designs import DiD, SyntheticControl
from readout.spec.model import Spec
from readout.terms import Term

CELLS, ARMS, CUT = "unit-periods", "arms of a panel", "periods that the window cuts"
CARRIED = "carried out"
PLACE_LOW, PLACE_HIGH = "cluster first", "cluster last"
CUT_START, CUT_END = "a period that the window's start cuts", "a period that the window's end cuts"
# Cells of a panel that are held at once.
MOST_CELLS = 50_000_000
US = timedelta(microseconds=1)
DAY_US = timedelta(days=1) // US
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Codes = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Axis:
    """Evenly spaced periods.

    Attributes:
        first: Number of the first period: an integer period itself, or lengths since 1970-01-01 00:00 UTC.
        step: Between neighbouring numbers.
        n: Periods.
        length: Of a period in microseconds; None: integer periods.
    """

    first: int
    step: int
    n: int
    length: int | None

    @classmethod
    def of(cls, numbers: Sequence[int], length: int | None) -> Axis:
        """The axis from the first to the last number; integer periods are as far apart as all of them allow."""
        first, last = min(numbers), max(numbers)
        step = 1 if length is not None else math.gcd(*(number - first for number in numbers)) or 1
        return cls(first, step, (last - first) // step + 1, length)

    def position(self, number: float) -> int:
        """Place of the first period at or after a number, from 0; ``n`` beyond the last."""
        return int(np.clip(math.ceil((number - self.first) / self.step), 0, self.n))

    def start(self, position: int) -> datetime | int:
        """Where a period begins: a time in UTC, or the integer period."""
        number = self.first + self.step * position
        return number if self.length is None else EPOCH + number * self.length * US

    @property
    def labels(self) -> tuple[str, ...]:
        """The periods' names: integers, dates, or times where periods are shorter than a day."""
        if self.length is None:
            return tuple(str(self.start(i)) for i in range(self.n))
        whole = self.length % DAY_US == 0
        times = [EPOCH + (self.first + i) * self.length * US for i in range(self.n)]
        return tuple(f"{t:%Y-%m-%d}" if whole else f"{t:%Y-%m-%dT%H:%MZ}" for t in times)


class UnitPeriods(NoTail):
    """Sums by unit and period; a sample of either panel design adds who is treated when.

    A period is an integer of the time column, or a stretch of ``design.period`` from 00:00 UTC. One that a stated
    window cuts is left out. The outcome of a unit in a period is the mean over its rows there, or its sum where the
    metric is a sum within units; then a unit that was seen before and after, and has no row between, had a sum of 0.

    Attributes:
        rows: The rows that count: kept, and of a whole period.
        units: ``(n,)`` labels, sorted; known once loaded.
        axis: The periods; known once loaded.
        n_rows: ``(n, T)`` kept rows of each unit and period; known once loaded.
        carried: The role that says what was carried out (``executed``, else ``arm``); None where the log has neither,
            or the spec names no treatment.
    """

    unit = "unit"

    def __init__(self, spec: Spec, logs: Logs, seed: int = 0) -> None:
        assert isinstance(spec.design, DiD | SyntheticControl)
        self.method = spec.estimator.method
        self._spec, self._logs, self._seed = spec, logs, seed
        column = str(logs.columns["unit"])
        dtype = logs.dtype(column)
        plain = dtype.is_integer() or dtype in (pl.String, pl.Categorical, pl.Enum)
        self._unit = pl.col("@unit") if plain else label(pl.col("@unit"), dtype)
        whole = logs.dtype(str(logs.columns["time"])).is_integer()
        self._length = None if whole else spec.design.period // US
        time = pl.col("@time")
        self.period = time.cast(pl.Int64) if self._length is None else time.dt.epoch("us") // self._length
        role = "executed" if logs.has("executed") else "arm"
        self.carried = role if logs.has(role) and spec.design.treatment else None
        self._cuts = self._cut()
        self.rows = KEPT
        for number in self._cuts.values():
            self.rows = self.rows & (self.period != number)
        self.units: tuple[str, ...] = ()
        self.axis = Axis(0, 1, 0, self._length)

    def _cut(self) -> dict[str, int]:
        """Numbers of the periods that begin before a stated window, or end after it."""
        if self._length is None:
            return {}
        found = {}
        for reason, moment in zip((CUT_START, CUT_END), self._logs.times, strict=True):
            if moment is not None and (us := (moment - EPOCH) // US) % self._length:
                found[reason] = us // self._length
        return found

    def asked(self) -> Table:
        """What else is asked of the cells; a design adds its own."""
        return Table(CELLS, self._keys(), self.rows)

    def _place(self) -> Table:
        """The clusters that a unit's rows of a period stand in."""
        if not self._logs.has("cluster"):
            return Table(CELLS, self._keys(), self.rows)
        cluster = pl.col("@cluster").cast(pl.String)
        return Table(CELLS, self._keys(), self.rows, minima={PLACE_LOW: cluster}, maxima={PLACE_HIGH: cluster})

    def _carried(self) -> Table:
        """Rows on which the treatment was carried out."""
        if self.carried is None:
            return Table(CELLS, self._keys(), self.rows)
        treated = pl.col(f"@{self.carried}").is_in(list(self._spec.design.treatment))
        return Table(CELLS, self._keys(), self.rows, sums={CARRIED: treated.fill_null(False).cast(pl.Int8)})

    def _keys(self) -> dict[str, pl.Expr]:
        return {"unit": self._unit, "period": self.period}

    def tables(self, terms: Sequence[Term]) -> list[Table]:
        sums: dict[str, pl.Expr] = {}
        for term in terms:
            sums |= term_sums(term)
        found = [Table(CELLS, self._keys(), self.rows, sums=sums) | self._place() | self._carried() | self.asked()]
        found.append(Table(ARMS, {"arm": pl.col("@arm_code")}, self.rows, sums=sums))
        if self._cuts:
            found.append(Table(CUT, {"period": self.period}, KEPT & ~self.rows))
        return found

    def again(self, reduced: Mapping[str, pl.DataFrame]) -> list[Table]:
        return []

    def load(self, tables: Mapping[str, pl.DataFrame]) -> Mapping[str, int]:
        self._tables = tables
        frame = tables[CELLS]
        names = frame["unit"].unique().sort()
        self.units = tuple(names.cast(pl.String).to_list())
        if len(frame):
            self.axis = Axis.of(frame["period"].unique().to_list(), self._length)
            self._require_fits()
        joined = frame.select("unit").join(names.to_frame().with_row_index("@code"), on="unit", maintain_order="left")
        self._row = joined["@code"].to_numpy().astype(np.intp)
        self._column = (frame["period"].to_numpy() - self.axis.first) // self.axis.step
        self.n_rows = self._wide(frame["n"].to_numpy(), 0.0)
        if CUT not in tables:
            return {}
        lost = dict(tables[CUT].select("period", "n").iter_rows())
        return {reason: int(lost[number]) for reason, number in self._cuts.items() if number in lost}

    def _require_fits(self) -> None:
        cells = len(self.units) * self.axis.n
        if cells > MOST_CELLS:
            message = f"{len(self.units):,} units over {self.axis.n:,} periods are {cells:,} cells, too many to compare"
            at = ("design", "period") if self._length is not None else ("logs", "columns", "unit")
            raise LogError([self._spec.source.problem(at, message, "take longer periods, or larger units")])

    def _wide(self, values: NDArray[Any], nothing: float) -> Matrix:
        """``(n, T)`` values of the cells; ``nothing`` where there is no row."""
        out = np.full((len(self.units), self.axis.n), nothing)
        out[self._row, self._column] = values
        return out

    def values(self, term: Term) -> Matrix:
        """``(n, T)`` outcomes; NaN where a unit has no value in a period.

        Raises:
            EstimationError: No unit has one.
        """
        num, den, rows = (self._sums(of(term)) for of in (num_sum, den_sum, row_count))
        seen = (rows > 0) & ((den != 0.0) | term.per_unit)
        if not seen.any():
            raise EstimationError("no unit has a value in any period")
        if term.per_unit:
            return np.where(seen, num, np.where(self._between(), 0.0, np.nan))
        outcomes = np.full(num.shape, np.nan)
        outcomes[seen] = num[seen] / den[seen]
        return outcomes

    def _sums(self, name: str) -> Matrix:
        return self._wide(self._tables[CELLS][name].to_numpy().astype(np.float64), 0.0)

    def _between(self) -> NDArray[np.bool_]:
        """Cells without a row of units that have rows both before and after."""
        some = self.n_rows > 0
        before = np.maximum.accumulate(some, axis=1)
        after = np.maximum.accumulate(some[:, ::-1], axis=1)[:, ::-1]
        return ~some & before & after

    def by_unit(self, aggregate: pl.Expr) -> pl.Series:
        """An aggregate of the cells' table by unit, in the order of ``units``."""
        frame = self._tables[CELLS]
        return frame.group_by("unit").agg(aggregate.alias("value")).sort("unit")["value"]

    def hit(self, start: Moment, end: Moment, clusters: Sequence[str]) -> NDArray[np.bool_]:
        """``(n, T)`` whether a unit's period shares time with ``[start, end)``, and place with the clusters, if any."""
        first, last = (self._number(moment) for moment in (start, end))
        numbers = self.axis.first + self.axis.step * np.arange(self.axis.n)
        within = (numbers + (1 if self._length is not None else self.axis.step) > first) & (numbers < last)
        found = np.tile(within, (len(self.units), 1))
        if clusters:
            frame = self._tables[CELLS]
            there = frame[PLACE_LOW].is_in(list(clusters)) | frame[PLACE_HIGH].is_in(list(clusters))
            found &= self._wide(there.fill_null(False).to_numpy().astype(np.float64), 0.0) > 0
        return found

    def _number(self, moment: Moment) -> float:
        """A moment on the scale of the periods' numbers, with its part of a period."""
        if isinstance(moment, datetime):
            assert self._length is not None
            return (moment - EPOCH) / (self._length * US)
        return float(moment)

    def carried_out(self) -> Matrix:
        """``(n, T)`` rows on which the treatment was carried out; ``carried`` says by which role."""
        return self._wide(self._tables[CELLS][CARRIED].to_numpy().astype(np.float64), 0.0)

    def starts(self) -> Codes:
        """``(n,)`` position of each unit's first treated period; the number of periods: none in the window."""
        raise NotImplementedError

    def counts(self) -> list[int]:
        """Units never treated in the window, and those treated in it."""
        raise NotImplementedError

    def mixed(self) -> tuple[int, int]:
        return 0, len(self.units)

    def effect(self, term: Term, arm: int, alpha: float) -> Estimate:
        raise NotImplementedError

    def arm_total(self, term: Term, arm: int) -> tuple[float, float]:
        frame = self._tables[ARMS].filter(pl.col("arm") == arm)
        if not int(frame[row_count(term)].sum()):
            raise EstimationError("no row of the arm has a value")
        return float(frame[num_sum(term)].sum()), float(frame[den_sum(term)].sum())

    def level_shares(self, frame: pl.DataFrame, arm: int) -> tuple[np.ndarray, np.ndarray]:
        raise EstimationError("levels are not compared in a panel")

    def level_keys(self) -> Mapping[str, pl.Expr]:
        return {"arm": pl.col("@arm_code")}
