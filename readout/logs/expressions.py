"""Columns and SQL of a spec as Polars expressions; an error says where in the spec the name stands."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from readout.errors import LogError, Problem, SpecError
from readout.spec.model import Spec
from readout.spec.problems import KeyPath
from readout.text import visible

# Longer listings of a log's columns help nobody.
MOST_NAMES = 40
# Parts of a Polars expression that look at more than one row.
ACROSS_ROWS = {"Agg", "Len", "Over", "Window", "Rolling", "Explode", "Quantile", "Rank", "Shift", "SortBy", "IntRange"}
# Columns that the log does not have and an attribution gives.
_GIVEN = {
    "energy_wh": "an attribution section gives each request its energy_wh. ",
    "carbon_g": "attribution.carbon gives each request its carbon_g. ",
}
# Whole numbers of these types fit into 64 signed bits.
SIGNED = (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32)


@dataclass(frozen=True, slots=True)
class Expressions:
    """What a spec may say about a row of its logs.

    Attributes:
        spec: For the place of every name.
        schema: Column name to type.
    """

    spec: Spec
    schema: Mapping[str, pl.DataType]

    def missing(self, name: str, at: KeyPath) -> Problem:
        """The problem of a column that the log does not have."""
        close = difflib.get_close_matches(name, list(self.schema), n=1)
        hint = f"did you mean {visible(close[0])!r}? " if close else _GIVEN.get(name, "")
        message = f"the log has no column {visible(name)!r}"
        return self.spec.source.problem(at, message, f"{hint}the log has: {self.names()}")

    def names(self) -> str:
        """The log's columns, for a hint."""
        shown = [visible(n, 60) for n in self.schema]
        more = f" and {len(shown) - MOST_NAMES} more" if len(shown) > MOST_NAMES else ""
        return ", ".join(shown[:MOST_NAMES]) + more

    def column(self, name: str, at: KeyPath) -> pl.Expr:
        """A raw column.

        Raises:
            LogError: The log does not have it.
        """
        if name not in self.schema:
            raise LogError([self.missing(name, at)])
        return pl.col(name)

    def number(self, name: str, at: KeyPath) -> pl.Expr:
        """A column as integers or floats; booleans count as 0 and 1.

        Raises:
            LogError: The log does not have it, or it holds no numbers.
        """
        expr = self.column(name, at)
        return self._numeric(expr, self.schema[name], f"column {visible(name)!r}", at)

    def sql_number(self, text: str, at: KeyPath, *, keep_null: bool = False) -> pl.Expr:
        """SQL as numbers; a condition counts as 1 where it is true, and its null as false, unless it is kept.

        Raises:
            SpecError, LogError: As :meth:`sql`; not numbers.
        """
        expr = self.sql(text, at)
        dtype = self._type(expr)
        number = self._numeric(expr, dtype, "the expression", at)
        return number.fill_null(0) if dtype == pl.Boolean and not keep_null else number

    def condition(self, text: str, at: KeyPath) -> pl.Expr:
        """SQL that is true or false for each row; null counts as false.

        Raises:
            SpecError, LogError: As :meth:`sql`; not a condition.
        """
        expr = self.sql(text, at)
        if (dtype := self._type(expr)) != pl.Boolean:
            raise SpecError([self.spec.source.problem(at, f"must be true or false for each row; this is {dtype}")])
        return expr.fill_null(False)

    def sql(self, text: str, at: KeyPath) -> pl.Expr:
        """SQL over a row's columns.

        Raises:
            SpecError: It does not parse, cannot be computed, or is an aggregate.
            LogError: It names a column that the log does not have.
        """
        source = self.spec.source
        try:
            expr = pl.sql_expr(text)
            roots = expr.meta.root_names()
        except Exception as error:
            # SQL has words of its own, such as user, that are columns only in double quotes.
            words = [name for name in self.schema if f"'{name.lower()}'" in str(error).lower()]
            hint = f'write the column in double quotes: "{visible(words[0])}"' if words else ""
            raise SpecError([source.problem(at, f"not SQL that can be read: {_short(error)}", hint)]) from error
        absent = [name for name in dict.fromkeys(roots) if name not in self.schema]
        if absent:
            raise LogError([self.missing(name, at) for name in absent])
        try:
            # Two rows of nulls: what is computed row by row gives two values back.
            height = len(
                pl.DataFrame({c: [None, None] for c in self.schema}, schema=self.schema).select(expr.alias("v"))
            )
        except Exception as error:
            message = f"cannot be computed from the log's columns: {_short(error)}"
            raise SpecError([source.problem(at, message)]) from error
        if _across_rows(json.loads(expr.meta.serialize(format="json"))) or (height != 2 and roots):
            message = "looks across rows; expected a value that each row gives by itself"
            raise SpecError([source.problem(at, message, "no sums, averages, counts, ranks or windows (OVER)")])
        if height != 2:
            raise SpecError([source.problem(at, "must give a value for each row; this is the same for all")])
        return expr

    def _type(self, expr: pl.Expr) -> pl.DataType:
        return pl.LazyFrame(schema=self.schema).select(expr.alias("v")).collect_schema()["v"]

    def _numeric(self, expr: pl.Expr, dtype: pl.DataType, what: str, at: KeyPath) -> pl.Expr:
        if dtype == pl.Boolean:
            return expr.cast(pl.Int8)
        if dtype in SIGNED:
            return expr.cast(pl.Int64)
        if dtype.is_numeric():
            return expr.cast(pl.Float64)
        found = "null on every row" if dtype == pl.Null else str(dtype)
        message = f"{what} is {found}; expected numbers or true/false"
        raise LogError([self.spec.source.problem(at, message)])


def _across_rows(node: Any) -> bool:
    """Whether a serialised expression has a part that looks at more than its own row."""
    if isinstance(node, Mapping):
        return any(
            key in ACROSS_ROWS or _across_rows(part) for key, part in node.items() if key not in ("Literal", "Column")
        )
    if isinstance(node, list):
        return any(_across_rows(part) for part in node)
    return isinstance(node, str) and node in ACROSS_ROWS


def _short(error: Exception) -> str:
    text = str(error).strip()
    return visible(text.splitlines()[0] if text else type(error).__name__, 160)
