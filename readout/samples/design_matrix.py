"""Columns of a log as a matrix of numbers that a model can be fitted on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from readout.logs.values import label
from readout.text import visible

Matrix = NDArray[np.float64]
TEXT = (pl.String, pl.Categorical, pl.Enum)
# Levels beyond these, the least frequent, are one level together; a column with more is an identifier.
MOST_LEVELS, IDENTIFIER = 30, 1000
OTHER = "another level"


@dataclass(frozen=True, slots=True)
class DesignMatrix:
    """A matrix and what its columns are.

    Attributes:
        x: ``(n, k)`` finite values, without a constant.
        names: ``(k,)`` such as ``queue_depth``, ``tier = pro`` (1 at that level; the most frequent level is left out)
            and ``queue_depth is missing``.
        column: ``(k,)`` the log's column that each comes from.
        left_out: Columns with one value, which cannot matter, and columns that are all null.
    """

    x: Matrix
    names: tuple[str, ...]
    column: tuple[str, ...]
    left_out: tuple[str, ...]


def other_level(name: str) -> str:
    """The title of all levels of a column beyond the most frequent."""
    return f"{name} = {OTHER}"


def unfit(schema: Mapping[str, pl.DataType], name: str) -> str:
    """Why a column cannot be adjusted for, in words; empty where it can."""
    dtype = schema[name]
    if dtype.is_numeric() or dtype == pl.Boolean or dtype in TEXT:
        return ""
    return f"column {visible(name)!r} is {dtype}; expected numbers, true/false or text"


def identifiers(frame: pl.DataFrame, names: Sequence[str]) -> list[str]:
    """Text columns with so many levels that they name rows rather than groups."""
    return [n for n in names if frame.schema[n] in TEXT and frame[n].n_unique() > IDENTIFIER]


def design_matrix(frame: pl.DataFrame, names: Sequence[str]) -> DesignMatrix:
    """Numbers and booleans as they are, text by level; a null becomes the column's mean and a column says so.

    Args:
        frame: Rows with these columns; numeric columns hold no NaN and no infinity.
        names: Columns to adjust for, each of a kind that :func:`unfit` lets pass.
    """
    parts: list[tuple[str, str, NDArray[np.float64]]] = []
    left_out = []
    for name in names:
        series = frame[name]
        found = _levels(name, series) if series.dtype in TEXT else _numbers(name, series)
        parts += [(name, title, values) for title, values in found]
        if not found:
            left_out.append(name)
    x = np.empty((len(frame), len(parts)))
    for j, (_, _, values) in enumerate(parts):
        x[:, j] = values
    return DesignMatrix(x, tuple(p[1] for p in parts), tuple(p[0] for p in parts), tuple(left_out))


def _numbers(name: str, series: pl.Series) -> list[tuple[str, NDArray[np.float64]]]:
    values = series.cast(pl.Float64)
    missing = values.is_null()
    known = values.drop_nulls()
    found = []
    if len(known) and float(known.min()) < float(known.max()):  # type: ignore[arg-type]
        found.append((name, values.fill_null(float(known.mean())).to_numpy()))  # type: ignore[arg-type]
    if missing.any() and not missing.all():
        found.append((f"{name} is missing", missing.cast(pl.Float64).to_numpy()))
    return found


def _levels(name: str, series: pl.Series) -> list[tuple[str, NDArray[np.float64]]]:
    labels = label(pl.col(name), series.dtype)
    levels = series.to_frame().select(labels.fill_null("(null)").cast(pl.String).alias(name))[name]
    counts = levels.value_counts(name="n").sort(["n", name], descending=[True, False])
    ordered = counts[name].to_list()
    if len(ordered) < 2:
        return []
    kept = ordered[1 : MOST_LEVELS + 1]
    found = [
        (f"{name} = {visible(level, 40)}" if level != "(null)" else f"{name} is missing",
         (levels == level).cast(pl.Float64).to_numpy())
        for level in kept
    ]  # fmt: skip
    if len(ordered) > MOST_LEVELS + 1:
        rest = ordered[MOST_LEVELS + 1 :]
        found.append((other_level(name), levels.is_in(rest).cast(pl.Float64).to_numpy()))
    return found
