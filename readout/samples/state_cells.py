"""The states and requests that a policy tells apart, as a few hundred cells in words that a person can act on."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from readout.logs import Logs
from readout.logs.values import coded, label
from readout.reduce import pilot
from readout.samples.design_matrix import TEXT
from readout.text import visible

MOST_CELLS = 200
QUANTILES = (0.5, 0.75, 0.9, 0.97)
FEW_LEVELS = 5
REST = "another level"


@dataclass(frozen=True, slots=True)
class Axis:
    """One column, cut into parts.

    Attributes:
        name: The column.
        cuts: A numeric column's inner ends: part ``i`` is ``cuts[i - 1] <= value < cuts[i]``.
        levels: A text or boolean column's levels by part; the part after them is all others.
    """

    name: str
    cuts: tuple[float, ...] = ()
    levels: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Parts, without that of nulls."""
        return len(self.cuts) + 1 if self.cuts else len(self.levels) + 1

    def part(self, logs: Logs) -> pl.Expr:
        """A row's part; null where the column is."""
        dtype = logs.dtype(self.name)
        if self.cuts:
            values = pl.col(self.name).cast(pl.Float64)
            parts = sum((values >= cut).cast(pl.Int8) for cut in self.cuts)
            return parts  # type: ignore[return-value]
        text = label(pl.col(self.name), dtype).cast(pl.String)
        found = coded(text, self.levels, len(self.levels)).cast(pl.Int8)
        return pl.when(text.is_not_null()).then(found)

    def said(self, part: int | None) -> str:
        """A part in words, such as ``queue_depth ≥ 31``."""
        return self.span(part, part)

    def span(self, first: int | None, last: int | None) -> str:
        """Neighbouring parts in words."""
        name = visible(self.name, 60)
        if first is None or last is None:
            return f"{name} missing"
        if not self.cuts:
            return f"{name} = {visible(self.levels[first], 40)}" if first < len(self.levels) else f"{name} = {REST}"
        low = f"{self.cuts[first - 1]:.6g}" if first > 0 else ""
        high = f"{self.cuts[last]:.6g}" if last < len(self.cuts) else ""
        if low and high:
            return f"{low} ≤ {name} < {high}"
        return f"{name} ≥ {low}" if low else f"{name} < {high}"


@dataclass(frozen=True, slots=True)
class Cells:
    """The product of a few axes; columns beyond those are not told apart.

    Attributes:
        axes: In order of weight: what rules and the policy read first.
        left: Columns that would make too many cells.
    """

    axes: tuple[Axis, ...]
    left: tuple[str, ...]

    def keys(self, logs: Logs) -> dict[str, pl.Expr]:
        """Group-by keys of a row's cell."""
        return {key: axis.part(logs) for key, axis in zip(self.columns, self.axes, strict=True)}

    @property
    def columns(self) -> list[str]:
        """Names of the keys."""
        return [f"cell {i}" for i in range(len(self.axes))]


def cells_of(logs: Logs, names: Sequence[str], rules: Sequence[str]) -> Cells:
    """Cells over columns, numeric ones cut where rules cut them and at quantiles of slices of the log.

    Args:
        names: Columns, those first that the policy reads.
        rules: SQL conditions of the target policy.
    """
    fit = [name for name in names if _fit(logs, name)]
    if not fit:
        return Cells((), ())
    seen = pilot(logs.frame, [pl.col(name).implode() for name in fit], logs.source.rows)
    axes: list[Axis] = []
    left: list[str] = []
    size = 1
    for name in fit:
        axis = _axis(logs, name, seen[name].explode(), rules)
        if axis is None:
            continue
        for smaller in _coarser(axis):
            if size * smaller.size <= MOST_CELLS:
                axes.append(smaller)
                size *= smaller.size
                break
        else:
            left.append(name)
    return Cells(tuple(axes), tuple(left))


def _fit(logs: Logs, name: str) -> bool:
    dtype = logs.source.schema.get(name)
    return dtype is not None and (dtype.is_numeric() or dtype == pl.Boolean or dtype in TEXT)


def _axis(logs: Logs, name: str, values: pl.Series, rules: Sequence[str]) -> Axis | None:
    """A column's parts; None where it has one value."""
    dtype = logs.dtype(name)
    if not dtype.is_numeric() or values.n_unique() <= FEW_LEVELS:
        text = values.to_frame("v").select(label(pl.col("v"), values.dtype).cast(pl.String))["v"].drop_nulls()
        counts = text.value_counts(name="n").sort(["n", "v"], descending=[True, False])
        levels = counts["v"].to_list()
        return Axis(name, levels=tuple(levels[:FEW_LEVELS])) if len(levels) > 1 else None
    known = values.cast(pl.Float64).fill_nan(None).drop_nulls()
    inner = {float(cut) for q in QUANTILES if (cut := known.quantile(q, "lower")) is not None}
    inner |= set(_cut_by(rules, name, whole=dtype.is_integer()))
    low = float(known.min())  # type: ignore[arg-type]
    cuts = sorted(cut for cut in inner if cut > low)
    return Axis(name, cuts=tuple(cuts)) if cuts else None


def _cut_by(rules: Sequence[str], name: str, whole: bool) -> list[float]:
    """Numbers that rules compare a column with, ``whole`` ones or any."""
    of = rf'(?<![\w"]){re.escape(name)}"?\s*(<=|>=|<|>)\s*(-?\d+(?:\.\d+)?)(?![\w.])'
    found = [(sign, float(value)) for rule in rules for sign, value in re.findall(of, rule)]
    # A whole number above 30 is one from 31 on.
    return [math.floor(value) + 1.0 if whole and sign in (">", "<=") else value for sign, value in found]


def _coarser(axis: Axis) -> list[Axis]:
    """The axis and coarser ones, ever fewer parts."""
    found = [axis]
    if axis.cuts:
        for keep in range(len(axis.cuts) - 1, 0, -1):
            found.append(Axis(axis.name, cuts=axis.cuts[-keep:]))
    else:
        for keep in range(len(axis.levels) - 1, 0, -1):
            found.append(Axis(axis.name, levels=axis.levels[:keep]))
    return found


def parts_of(cells: Cells, row: Mapping[str, Any]) -> tuple[int | None, ...]:
    """The parts of a table's row."""
    return tuple(row[key] for key in cells.columns)
