"""Columns of a log as a matrix of numbers, chunk by chunk: what :mod:`design_matrix` makes of rows held at once.

How a column is read (its mean, its levels) is found in the pass over the logs; a chunk then needs nothing but itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from readout.errors import LogError
from readout.logs import Logs
from readout.logs.values import label
from readout.reduce import Table, pilot
from readout.samples.design_matrix import IDENTIFIER, MOST_LEVELS, TEXT, Matrix, unfit
from readout.spec.model import Spec
from readout.spec.problems import KeyPath
from readout.text import visible

NUMBERS, LEVELS = "columns of the model", "levels of {}"
NULL = "(null)"


@dataclass(frozen=True, slots=True)
class Number:
    """A numeric column: its mean fills nulls, and a column beside it tells them."""

    name: str
    varies: bool
    mean: float
    missing: bool


@dataclass(frozen=True, slots=True)
class Text:
    """A text column: a column each for the levels ``kept``, and one for the others where there are more."""

    name: str
    kept: tuple[str, ...]
    rest: bool
    first: str


@dataclass(frozen=True, slots=True)
class Encoding:
    """How rows become a matrix.

    Attributes:
        columns: In the order of the spec.
    """

    columns: tuple[Number | Text, ...]

    @property
    def left_out(self) -> tuple[str, ...]:
        """Columns with one value throughout."""
        return tuple(c.name for c in self.columns if not _width(c))

    @property
    def used(self) -> tuple[str, ...]:
        """Raw columns that a chunk must have."""
        return tuple(c.name for c in self.columns if _width(c))

    def matrix(self, frame: pl.DataFrame) -> Matrix:
        """``(n, k)`` finite values, as :func:`design_matrix` of the whole log has them."""
        parts: list[np.ndarray] = []
        for one in self.columns:
            if not _width(one):
                continue
            series = frame[one.name]
            if isinstance(one, Number):
                values = series.cast(pl.Float64)
                if one.varies:
                    parts.append(values.fill_null(one.mean).to_numpy())
                if one.missing:
                    parts.append(values.is_null().cast(pl.Float64).to_numpy())
                continue
            levels = series.to_frame().select(level_of(one.name, series.dtype).alias("v"))["v"]
            parts += [(levels == level).cast(pl.Float64).to_numpy() for level in one.kept]
            if one.rest:
                parts.append((~levels.is_in([one.first, *one.kept])).cast(pl.Float64).to_numpy())
        return np.column_stack(parts) if parts else np.empty((len(frame), 0))


def _width(one: Number | Text) -> int:
    return one.varies + one.missing if isinstance(one, Number) else len(one.kept) + one.rest


def level_of(name: str, dtype: pl.DataType) -> pl.Expr:
    """A text column's level, one for nulls."""
    return label(pl.col(name), dtype).fill_null(NULL).cast(pl.String)


def require_fit(spec: Spec, logs: Logs, names: Mapping[str, KeyPath]) -> None:
    """Refuse columns that no model can be given, and text that tells rows rather than groups.

    Raises:
        LogError: All of them.
    """
    schema = logs.source.schema
    problems = [spec.source.problem(at, wrong) for name, at in names.items() if (wrong := unfit(schema, name))]
    if problems:
        raise LogError(problems)
    texts = [name for name in names if schema[name] in TEXT]
    if texts:
        seen = pilot(logs.frame, [pl.col(name).n_unique().alias(name) for name in texts], logs.source.rows).max()
        for name in texts:
            if (n := int(seen[name].item())) > IDENTIFIER:
                message = f"column {visible(name)!r} has more than {n - 1:,} different texts; expected groups"
                hint = "an identifier tells a model nothing: leave it out of state and features"
                problems.append(spec.source.problem(names[name], message, hint))
    if problems:
        raise LogError(problems)


def tables(logs: Logs, names: Sequence[str], rows: pl.Expr) -> list[Table]:
    """What the pass must find out about the columns."""
    schema = logs.source.schema
    numbers = [name for name in names if schema[name] not in TEXT]
    found = []
    if numbers:
        # A constant column has a mean too: sums are of what is known.
        values = {name: pl.col(name).cast(pl.Float64) for name in numbers}
        ends = {f"{end} {name}": expr for end in ("min", "max") for name, expr in values.items()}
        found.append(
            Table(
                NUMBERS,
                {},
                where=rows,
                sums={f"sum {name}": expr for name, expr in values.items()}
                | {f"known {name}": pl.col(name).is_not_null().cast(pl.Int8) for name in numbers},
                minima={key: expr for key, expr in ends.items() if key.startswith("min ")},
                maxima={key: expr for key, expr in ends.items() if key.startswith("max ")},
            )
        )
    for name in names:
        if schema[name] in TEXT:
            found.append(Table(LEVELS.format(name), {"level": level_of(name, schema[name])}, where=rows))
    return found


def encoding(logs: Logs, names: Sequence[str], found: Mapping[str, pl.DataFrame]) -> Encoding:
    """How the columns are read, from the tables of the pass."""
    return Encoding(tuple(_column(logs, name, found) for name in names))


def _column(logs: Logs, name: str, found: Mapping[str, pl.DataFrame]) -> Number | Text:
    if logs.source.schema[name] in TEXT:
        counts = found[LEVELS.format(name)].sort(["n", "level"], descending=[True, False])["level"].to_list()
        return Text(
            name, tuple(counts[1 : MOST_LEVELS + 1]), len(counts) > MOST_LEVELS + 1, counts[0] if counts else ""
        )
    row = found[NUMBERS].row(0, named=True)
    n, known = int(row["n"]), int(row[f"known {name}"])
    low, high = row[f"min {name}"], row[f"max {name}"]
    varies = known > 0 and low < high
    return Number(name, varies, float(row[f"sum {name}"]) / known if known else 0.0, 0 < known < n)
