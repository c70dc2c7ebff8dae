"""Past outcomes without the effect of past arms: by cluster over time, by unit, and by row."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from estimators.cells import Cells
from estimators.inference import EstimationError
from estimators.moments import Moments
from readout.planning.past import DAY_US, GRID, MOMENTS, UNITS, Past
from readout.samples.base import den_sum, num_sum, row_count

Floats = NDArray[np.float64]
Codes = NDArray[np.intp]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """Sums of one metric by cluster and time step, over whole days.

    Attributes:
        num, den: ``(n_clusters, n_steps)``.
        arm: ``(n_clusters, n_steps)`` past arm as a place in ``Past.labels``; -1: nothing seen there.
        clusters: Names.
        first: First step, counted from 1970.
        step: Its length in microseconds.
    """

    num: Floats
    den: Floats
    arm: Codes
    clusters: tuple[str, ...]
    first: int
    step: int

    @property
    def per_day(self) -> int:
        """Steps in a day."""
        return DAY_US // self.step

    @property
    def days(self) -> int:
        """Whole days."""
        return int(self.num.shape[1]) // self.per_day

    @property
    def value(self) -> float:
        """The ratio of all sums."""
        return float(self.num.sum() / self.den.sum())

    def window(self, first_day: int, days: int) -> Series:
        """Some of its days."""
        at = slice(first_day * self.per_day, (first_day + days) * self.per_day)
        return Series(
            self.num[:, at], self.den[:, at], self.arm[:, at], self.clusters,
            self.first + first_day * self.per_day, self.step,
        )  # fmt: skip

    def cells(self, length: timedelta, washout: timedelta, offset: timedelta = timedelta(0)) -> Cells:
        """Cluster x block cells, their washout left out; ``arm`` is 0 throughout."""
        block, wash, shift = (steps(d, self.step) for d in (length, washout, offset))
        skip = (shift - self.first) % block
        n_blocks = (self.num.shape[1] - skip) // block
        if n_blocks < 1:
            raise EstimationError("the log holds no whole block")
        num, den = (
            x[:, skip : skip + n_blocks * block].reshape(len(x), n_blocks, block)[:, :, wash:].sum(axis=2)
            for x in (self.num, self.den)
        )
        starts = (self.first + skip + np.arange(n_blocks) * block) * self.step
        hour, weekday = calendar(starts)
        n = len(self.clusters)
        return Cells(
            num=num.ravel(),
            den=den.ravel(),
            arm=np.zeros(num.size, np.intp),
            cluster=np.repeat(np.arange(n), n_blocks),
            block=np.tile(np.arange(n_blocks), n),
            hour=np.tile(hour, n),
            weekday=np.tile(weekday, n),
            cluster_labels=self.clusters,
        )


def steps(duration: timedelta, step: int) -> int:
    """Steps in a duration, rounded up to whole ones."""
    return -(-(duration // timedelta(microseconds=1)) // step)


def calendar(starts: NDArray[np.int64]) -> tuple[Codes, Codes]:
    """Hour of day (UTC) and day of week (0: Monday) of times in microseconds since 1970."""
    return (starts // 3_600_000_000 % 24).astype(np.intp), ((starts // DAY_US + 3) % 7).astype(np.intp)


def whole_days(past: Past) -> tuple[int, int]:
    """First whole day since 1970 and the number of whole days; a day that lacks up to an hour counts as whole.

    Raises:
        EstimationError: Less than one whole day.
    """
    if past.start is None or past.end is None:
        raise EstimationError("the past log has no times")
    low, high = ((t - EPOCH) / timedelta(days=1) for t in (past.start, past.end))
    first = int(np.ceil(low - 1 / 24))
    days = int(np.floor(high + 1 / 24)) - first
    if days < 1:
        raise EstimationError("the past log covers no whole day")
    return first, days


def series(past: Past, name: str) -> Series:
    """One metric's sums by cluster and step over the log's whole days, past arms' effect taken out.

    Raises:
        EstimationError: No times, no whole day, or a metric that cells do not carry.
    """
    first_day, days = whole_days(past)
    if past.terms[name].per_unit:
        raise EstimationError("a sum per unit is planned for under user_rct only")
    frame = past.tables[GRID]
    clusters = frame["cluster"].unique().sort()
    per_day = DAY_US // past.step
    first, n = first_day * per_day, days * per_day
    frame = frame.filter((pl.col("step") >= first) & (pl.col("step") < first + n))
    row = clusters.search_sorted(frame["cluster"]).to_numpy().astype(np.intp)
    place = row * n + frame["step"].to_numpy() - first
    arm = _codes(past, frame["arm"])
    num, den = (frame[of(past.terms[name])].to_numpy().astype(float) for of in (num_sum, den_sum))
    num = without_effect(num, den, arm)
    shape = (len(clusters), n)
    held = np.full(len(clusters) * n, -1, np.intp)
    # The arm that most rows of the step carry stands last and stays.
    order = np.argsort(frame["n"].to_numpy(), kind="stable")
    held[place[order]] = arm[order]
    return Series(
        summed(place, num, len(held)).reshape(shape),
        summed(place, den, len(held)).reshape(shape),
        held.reshape(shape),
        tuple(clusters.to_list()),
        first,
        past.step,
    )


def raw_series(past: Past, name: str) -> Series:
    """As :func:`series` with the past arms' effect left in."""
    plain = series(past, name)
    first, n = plain.first, plain.num.shape[1]
    frame = past.tables[GRID].filter((pl.col("step") >= first) & (pl.col("step") < first + n))
    clusters = pl.Series(plain.clusters)
    row = clusters.search_sorted(frame["cluster"]).to_numpy().astype(np.intp)
    place = row * n + frame["step"].to_numpy() - first
    num = frame[num_sum(past.terms[name])].to_numpy().astype(float)
    return Series(
        summed(place, num, plain.num.size).reshape(plain.num.shape),
        plain.den, plain.arm, plain.clusters, first, plain.step,
    )  # fmt: skip


def summed(place: Codes, values: Floats, n: int) -> Floats:
    """Sums of values by place."""
    return np.asarray(np.bincount(place, values, n), dtype=np.float64)


def without_effect(num: Floats, den: Floats, arm: Codes) -> Floats:
    """Numerators with every arm's value moved to that of the arm with the largest denominator."""
    total, size = np.bincount(arm, num), np.bincount(arm, den)
    values = np.divide(total, size, out=np.zeros_like(total), where=size > 0)
    shift = np.where(size > 0, values - values[int(np.argmax(size))], 0.0)
    return np.asarray(num - shift[arm] * den, dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class UnitDays:
    """Sums of one metric by unit and day, past arms' effect taken out.

    Attributes:
        unit: ``(n,)`` codes.
        day: ``(n,)`` days since the first whole one; 0 throughout without times.
        num, den: ``(n,)`` sums; for a sum per unit, ``den`` is not used.
        keep: One in so many units is here.
        days: Whole days; 0 without times.
        per_unit: Whether the metric is a unit's sum.
    """

    unit: Codes
    day: Codes
    num: Floats
    den: Floats
    keep: int
    days: int
    per_unit: bool

    def window(self, days: int) -> tuple[Floats, Floats]:
        """Numerators and denominators of the units seen in the first ``days`` days."""
        seen = self.day < days if self.days else np.ones(len(self.day), bool)
        codes, unit = np.unique(self.unit[seen], return_inverse=True)
        num = summed(unit, self.num[seen], len(codes))
        den = summed(unit, self.den[seen], len(codes))
        return num, np.ones(len(codes)) if self.per_unit else den


def unit_days(past: Past, name: str) -> UnitDays:
    """One metric by unit and day.

    Raises:
        EstimationError: No role ``unit`` in the past log, or no unit with a value.
    """
    if UNITS not in past.tables:
        raise EstimationError("the past log has no column for the role 'unit'")
    term = past.terms[name]
    frame = past.tables[UNITS].filter(pl.col(row_count(term)) > 0)
    days = 0
    if past.days:
        first, days = whole_days(past)
        frame = frame.filter((pl.col("day") >= first) & (pl.col("day") < first + days))
    if frame.is_empty():
        raise EstimationError("no past unit has a value of it")
    arm = _codes(past, frame["arm"])
    num = frame[num_sum(term)].to_numpy().astype(float)
    den = frame[den_sum(term)].to_numpy().astype(float)
    unit = np.unique(frame["unit"].to_numpy(), return_inverse=True)[1].astype(np.intp)
    if term.per_unit:
        first_row = np.unique(unit, return_index=True)[1]
        ones = np.zeros(len(unit))
        ones[first_row] = 1.0
        num = without_effect(num, ones, arm)
    else:
        num = without_effect(num, den, arm)
    day = frame["day"].to_numpy().astype(np.intp) - (first if days else 0)
    return UnitDays(unit, day, num, den, past.keep_units, days, term.per_unit)


def row_variance(past: Past, name: str) -> tuple[float, float, float]:
    """Variance of one row's contribution to its arm's value, rows with a value, and the value; arms pooled.

    Raises:
        EstimationError: A sum per unit, or rows that cannot carry it.
    """
    term = past.terms[name]
    if term.per_unit:
        raise EstimationError("a unit sees both arms, so its sum belongs to neither")
    total, n, value, most = 0.0, 0.0, 0.0, 0
    for row in past.tables[MOMENTS].iter_rows(named=True):
        rows = int(row[row_count(term)])
        if rows < 2:
            continue
        x = (rows, past.shifts[f"{name}|num"], row[f"{name}|x"], row[f"{name}|xx"])
        if term.den is None:
            moments = Moments.from_sums(*x)
        else:
            d = (past.shifts[f"{name}|den"], row[f"{name}|d"], row[f"{name}|dd"], row[f"{name}|xd"])
            moments = Moments.from_sums(*x, *d)
        total += rows * moments.value_variance * rows
        n += rows
        if rows > most:
            most, value = rows, moments.value
    if not n:
        raise EstimationError("no past row has a value of it")
    return total / n, n, value


def _codes(past: Past, arm: pl.Series) -> Codes:
    """Past arms as places in ``Past.labels``; rows without an arm stand after the last."""
    if not past.labels:
        return np.zeros(len(arm), np.intp)
    labels = pl.Series([*past.labels], dtype=pl.String)
    found = labels.search_sorted(arm).to_numpy().astype(np.intp)
    return np.where((arm == "").to_numpy(), len(past.labels), found)
