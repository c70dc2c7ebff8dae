"""Sums of units at the levels of a segment: counted by unit and level, and laid out as columns of the unit table.

A column for every level and sum would go through the pass row by row; a key costs one number a row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from readout.reduce import Table
from readout.samples.base import den_sum, num_sum, row_count, term_sums
from readout.terms import AtLevel, Term

TABLE = "units by level of segment {}"
CELL = "cell"


def split(terms: Sequence[Term]) -> tuple[list[Term], list[Term]]:
    """The terms that are summed in the unit table, and those that are summed by level."""
    by_level = [t for t in terms if t.at is not None and t.quantile is None and not t.before]
    return [t for t in terms if t not in by_level], by_level


def tables(key: pl.Expr, rows: pl.Expr, terms: Sequence[Term]) -> list[Table]:
    """One table a segment: the sums of the whole log's terms by unit and cell."""
    found: dict[int, dict[str, pl.Expr]] = {}
    for term in terms:
        at = _at(term)
        found.setdefault(at.segment, {}).update(term_sums(at.whole))
    return [
        Table(TABLE.format(segment), {"unit": key, CELL: pl.col(AtLevel.column(segment))}, where=rows, sums=sums)
        for segment, sums in found.items()
    ]


def joined(frame: pl.DataFrame, terms: Sequence[Term], reduced: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """The unit table, sorted by unit, with the sums of each term; zeros for units without a row at its level."""
    columns: dict[str, np.ndarray] = {}
    keys = frame["unit"].to_numpy()
    for segment in dict.fromkeys(_at(term).segment for term in terms):
        table = reduced[TABLE.format(segment)].drop_nulls(CELL)
        unit, cell = table["unit"].to_numpy(), table[CELL].to_numpy()
        place = np.minimum(np.searchsorted(keys, unit), max(len(keys) - 1, 0))
        mine = keys[place] == unit if len(keys) else np.zeros(len(unit), dtype=bool)
        values: dict[str, np.ndarray] = {}
        for term in (one for one in terms if _at(one).segment == segment):
            at = _at(term)
            chosen = mine & np.isin(cell, at.cells)
            for of in (num_sum, den_sum, row_count):
                name = of(at.whole)
                if name not in values:
                    values[name] = table[name].to_numpy().astype(float)
                columns[of(term)] = np.bincount(place[chosen], values[name][chosen], len(keys))
    return frame.with_columns(**{name: pl.Series(column) for name, column in columns.items()})


def _at(term: Term) -> AtLevel:
    assert term.at is not None
    return term.at
