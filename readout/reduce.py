"""Rows to small tables in one streaming pass.

Everything that a check or an estimator needs is declared as a :class:`Table`: keys, and sums, counts, minima and
maxima by those keys. Declarations under one name are united, and one pass over the files answers all of them.
A table is computed as ``partial`` (rows to groups) and ``merge`` (groups to groups); both are associative and
commutative to the last bit, because floating-point sums are pre-rounded: every addend is split on two fixed grids
so coarse that no sum over the whole log ever rounds (Demmel & Nguyen 2015, "Parallel reproducible summation").
The same logs therefore give the same bytes whatever the number of threads, files or partial results.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import polars as pl

from readout.errors import LogError, Problem
from readout.text import visible

# The pilot's largest magnitude times this is the bound that the grids are made for.
HEADROOM = 2.0**12
PILOT_ROWS = 20_000
ROWS = "n"


@dataclass(frozen=True, slots=True)
class Table:
    """One group-by.

    Attributes:
        name: What asks for it; tables of one name must have the same keys and filter.
        keys: Key name to row expression (empty: one row for the whole log).
        where: Rows that count (None: all).
        sums: Name to numeric row expression; nulls are left out. Rows are always counted, as ``n``.
        minima, maxima: Name to row expression.
    """

    name: str
    keys: Mapping[str, pl.Expr]
    where: pl.Expr | None = None
    sums: Mapping[str, pl.Expr] = field(default_factory=dict)
    minima: Mapping[str, pl.Expr] = field(default_factory=dict)
    maxima: Mapping[str, pl.Expr] = field(default_factory=dict)

    def __post_init__(self) -> None:
        constant = [name for name, expr in self.sums.items() if not expr.meta.root_names()]
        if constant or ROWS in self.sums:
            raise ValueError(f"table {self.name!r}: {constant or ROWS!r} is no sum over a row's values")

    def __or__(self, other: Table) -> Table:
        """The union of two declarations of one table."""
        if self.name != other.name or list(self.keys) != list(other.keys):
            raise ValueError(f"tables {self.name!r} and {other.name!r} do not go together")
        return replace(
            self,
            sums={**self.sums, **other.sums},
            minima={**self.minima, **other.minima},
            maxima={**self.maxima, **other.maxima},
        )


@dataclass(frozen=True, slots=True)
class Grid:
    """The two grids that make sums of one float column exact: constants to add and take away again."""

    high: float
    low: float
    bound: float

    @classmethod
    def for_values(cls, bound: float, rows: int) -> Grid:
        """Grids for up to ``rows`` addends of magnitude at most ``bound``."""
        bound = max(bound, 1e-290)
        top = math.ceil(math.log2(bound)) + max(math.ceil(math.log2(max(rows, 2))), 1) + 1
        bottom = top - 53 + max(math.ceil(math.log2(max(rows, 2))), 1) + 1
        return cls(1.5 * 2.0**top, 1.5 * 2.0**bottom, 2.0 ** math.ceil(math.log2(bound)))


def unite(tables: Iterable[Table]) -> list[Table]:
    """One table a name, in the order of first mention."""
    united: dict[str, Table] = {}
    for table in tables:
        united[table.name] = united[table.name] | table if table.name in united else table
    return list(united.values())


def partial(frame: pl.LazyFrame, table: Table, grids: Mapping[str, Grid]) -> pl.LazyFrame:
    """Rows to groups.

    Args:
        frame: Rows.
        table: What to sum.
        grids: A grid for each float sum, by its name; integer sums need none.
    """
    if table.where is not None:
        frame = frame.filter(table.where)
    aggregates = [pl.len().cast(pl.Int64).alias(ROWS)]
    for name, expr in table.sums.items():
        if name in grids:
            high, low = grids[name].high, grids[name].low
            coarse = (expr + high) - high
            fine = ((expr - coarse) + low) - low
            aggregates += [coarse.sum().alias(f"{name}\0high"), fine.sum().alias(f"{name}\0low")]
        else:
            aggregates.append(expr.cast(pl.Int64).sum().alias(name))
    aggregates += [expr.min().alias(name) for name, expr in table.minima.items()]
    aggregates += [expr.max().alias(name) for name, expr in table.maxima.items()]
    if not table.keys:
        return frame.select(aggregates)
    return frame.group_by([expr.alias(key) for key, expr in table.keys.items()]).agg(aggregates)


def merge(parts: Sequence[pl.DataFrame], table: Table, grids: Mapping[str, Grid]) -> pl.DataFrame:
    """Groups to groups: partial results of any split of the rows, in any order, to one table sorted by its keys."""
    together = pl.concat(parts)
    if len(parts) > 1:
        sums = [pl.col(c).sum() for c in (ROWS, *(c for n in table.sums for c in _columns(n, grids)))]
        ends = [pl.col(n).min() for n in table.minima] + [pl.col(n).max() for n in table.maxima]
        aggregates = [*sums, *ends]
        together = together.group_by(*table.keys).agg(aggregates) if table.keys else together.select(aggregates)
    return together.sort(*table.keys) if table.keys else together


def finish(merged: pl.DataFrame, table: Table, grids: Mapping[str, Grid]) -> pl.DataFrame:
    """The two halves of every float sum added, once; columns are the keys, sums, minima and maxima of the table."""
    columns = [*(pl.col(k) for k in table.keys), pl.col(ROWS)]
    for name in table.sums:
        if name in grids:
            columns.append((pl.col(f"{name}\0high") + pl.col(f"{name}\0low")).alias(name))
        else:
            columns.append(pl.col(name))
    return merged.select(*columns, *(pl.col(n) for n in (*table.minima, *table.maxima)))


def run_pass(
    frame: pl.LazyFrame, tables: Iterable[Table], rows: int, *, one_scan: bool = False
) -> dict[str, pl.DataFrame]:
    """Answer all tables in one streaming pass.

    Args:
        frame: The scanned logs.
        tables: Declarations; those of one name are united.
        rows: Upper bound on the number of rows.
        one_scan: Read every byte once and hand the rows to all tables together. Right where reading is dear (an
            object store); local files are scanned a table at a time, which is as fast in a third of the memory.

    Returns:
        Table name to its groups, sorted by key.

    Raises:
        NotFinite: A sum met NaN or infinity.
    """
    wanted = unite(tables)
    bounds = _pilot(frame, wanted, rows)
    while True:
        grids = {t.name: {n: Grid.for_values(b, rows) for n, b in bounds[t.name].items()} for t in wanted}
        asked = _watching(wanted, grids)
        queries = [partial(frame, t, grids.get(t.name, {})) for t in asked]
        if one_scan:
            found = pl.collect_all(queries, engine="streaming")
        else:
            found = [query.collect(engine="streaming") for query in queries]
        beyond = _beyond(found, asked, grids)
        if not beyond:
            break
        # A value outgrew the pilot's grid: the pass is repeated with room for it.
        for table_name, name, bound in beyond:
            bounds[table_name][name] = bound
    parts = dict(zip((t.name for t in asked), found, strict=True))
    done = {t.name: finish(merge([parts[t.name]], t, grids[t.name]), t, grids[t.name]) for t in wanted}
    broken = [n for t in wanted for n in grids[t.name] if not done[t.name][n].is_finite().all()]
    if broken:
        raise NotFinite(sorted(set(broken)))
    return done


def _watching(tables: Sequence[Table], grids: Mapping[str, Mapping[str, Grid]]) -> list[Table]:
    """The tables, the first unfiltered one also keeping the largest magnitude that each float sum met."""
    largest = {
        f"{t.name}\0{n}": (t.sums[n] if t.where is None else pl.when(t.where).then(t.sums[n])).abs()
        for t in tables
        for n in grids[t.name]
    }
    if not largest:
        return list(tables)
    host = next((t for t in tables if t.where is None), Table("\0largest", {}))
    watching = replace(host, maxima={**host.maxima, **largest})
    return [watching if t is host else t for t in tables] if host in tables else [*tables, watching]


def _columns(name: str, grids: Mapping[str, Grid]) -> tuple[str, ...]:
    return (f"{name}\0high", f"{name}\0low") if name in grids else (name,)


def pilot_means(frame: pl.LazyFrame, values: Mapping[str, pl.Expr], rows: int) -> dict[str, float]:
    """Rough means of row expressions from three slices of the log: constants to centre on, never results."""
    if not values:
        return {}
    means = [expr.cast(pl.Float64).fill_nan(None).mean().alias(name) for name, expr in values.items()]
    seen = pilot(frame, means, rows).mean().row(0, named=True)
    return {name: mean if mean is not None and math.isfinite(mean) else 0.0 for name, mean in seen.items()}


def pilot(frame: pl.LazyFrame, aggregates: Sequence[pl.Expr], rows: int) -> pl.DataFrame:
    """Aggregates of three slices of the log (start, middle, end), a row each: to choose constants, never results."""
    starts = sorted({0, max(rows // 2 - PILOT_ROWS // 2, 0), max(rows - PILOT_ROWS, 0)})
    return pl.concat(
        pl.collect_all([frame.slice(s, PILOT_ROWS).select(aggregates) for s in starts], engine="streaming")
    )


def _pilot(frame: pl.LazyFrame, tables: Sequence[Table], rows: int) -> dict[str, dict[str, float]]:
    """For each float sum, a bound on its magnitude from three slices of the log, with headroom."""
    schemas = {t.name: frame.select(**t.sums).collect_schema() if t.sums else {} for t in tables}
    floats = {t.name: [n for n in t.sums if schemas[t.name][n].is_float()] for t in tables}
    if not any(floats.values()):
        return {t.name: {} for t in tables}
    wanted = [
        t.sums[n].abs().fill_nan(None).max().cast(pl.Float64).alias(f"{t.name}\0{n}")
        for t in tables
        for n in floats[t.name]
    ]
    seen = pilot(frame, wanted, rows).max().row(0, named=True)
    return {t.name: {n: _room(seen[f"{t.name}\0{n}"]) for n in floats[t.name]} for t in tables}


def _room(largest: float | None) -> float:
    return HEADROOM * largest if largest and math.isfinite(largest) else HEADROOM


def _beyond(
    found: Sequence[pl.DataFrame], tables: Sequence[Table], grids: Mapping[str, Mapping[str, Grid]]
) -> list[tuple[str, str, float]]:
    """Sums whose largest value is over their grid's bound."""
    beyond = []
    for frame, table in zip(found, tables, strict=True):
        for column in table.maxima:
            owner, separator, name = column.partition("\0")
            if not separator or name not in grids.get(owner, {}):
                continue
            value = frame[column].max()
            if isinstance(value, float) and math.isfinite(value) and value > grids[owner][name].bound:
                beyond.append((owner, name, 2 * value))
    return beyond


class NotFinite(LogError):
    """A sum met NaN or infinity; ``names`` are the sums."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        super().__init__(
            [
                Problem(
                    visible(name),
                    "holds NaN or infinity; expected finite numbers or null",
                    "write null where there is no value, or leave such rows out with logs.where",
                )
                for name in names
            ]
        )
