"""What a segment asks of the pass: the terms of the whole log, each masked to the rows of a level."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Literal

import polars as pl

from readout.economics import COST, NET
from readout.logs import Logs
from readout.segments.groups import Group, Groups
from readout.spec.model import Spec
from readout.terms import SEGMENT, AtLevel, Term

Part = Literal["all", "first", "second"]
HALVES: tuple[Part, Part] = ("first", "second")
# Only these roles are read by segment: the decision turns on no other.
ROLES = ("primary", "guardrail")


def read(spec: Spec) -> list[str]:
    """Names of the metrics that are read by segment, primaries first."""
    return [m.name for role in ROLES for m in spec.metrics.values() if m.role == role]


def decisive(spec: Spec) -> list[str]:
    """What a segment is recommended for: net value where the spec has economics, else its primaries."""
    if spec.economics is not None:
        return [NET]
    return [m.name for m in spec.metrics.values() if m.role == "primary"]


def named(group: int, level: int, name: str, part: Part = "all") -> str:
    """The name of a term at a level, by their places in the spec and among the levels."""
    return f"{SEGMENT}{group}.{level}.{part} {name}"


def terms(spec: Spec, logs: Logs, groups: Groups, known: Sequence[Term]) -> tuple[list[Term], Logs]:
    """Every metric that is read by segment at every level, with net value, and what stability is judged by in halves.

    Args:
        known: The terms of the whole log.

    Returns:
        The terms, and the logs with a column for every value that they sum: a row's value is then masked once, however
        many sums it enters.
    """
    by_name = {term.name: term for term in known}
    names = [*read(spec), *([NET] if NET in by_name else [])]
    if spec.economics is not None and spec.economics.budget is not None:
        names.append(COST)
    asked: list[Term] = []
    columns: dict[str, pl.Expr] = {}
    for g, group in enumerate(groups.all):
        columns[AtLevel.column(g)] = _cells(group, groups.middle)
        for place, level in enumerate(group.levels):
            asked += [_at(by_name[name], g, place, "all", level.rows) for name in names]
            for part in HALVES if groups.middle is not None else ():
                rows = level.rows & _in_half(part, groups.middle)
                asked += [_at(by_name[name], g, place, part, rows) for name in decisive(spec)]
    found = [_as_columns(term, columns) for term in asked]
    return found, replace(logs, frame=logs.frame.with_columns(**columns)) if columns else logs


def _cells(group: Group, middle: datetime | None) -> pl.Expr:
    """Twice the place of a row's level among the levels, and one more in the second half of the window."""
    place = pl.lit(None, dtype=pl.Int16)
    for i, level in enumerate(group.levels):
        place = pl.when(level.rows).then(pl.lit(2 * i, dtype=pl.Int16)).otherwise(place)
    late = pl.lit(0, dtype=pl.Int16) if middle is None else _in_half("second", middle).cast(pl.Int16)
    return place + late


def _as_columns(term: Term, columns: dict[str, pl.Expr]) -> Term:
    """The term over columns of its own, which are put into ``columns``."""
    columns[term.name] = term.num
    den = None
    if term.den is not None:
        columns[f"{term.name} den"] = term.den
        den = pl.col(f"{term.name} den")
    covariates = tuple(_as_columns(one, columns) for one in term.covariates)
    return replace(term, num=pl.col(term.name), den=den, covariates=covariates)


def _in_half(part: Part, middle: datetime | None) -> pl.Expr:
    early = (pl.col("@time") < middle).fill_null(False)
    return early if part == "first" else ~early


def _at(term: Term, group: int, level: int, part: Part, rows: pl.Expr) -> Term:
    """The term on the rows of a level alone: what it would be in a log of these."""
    name = named(group, level, term.name, part)
    mask: Callable[[pl.Expr], pl.Expr] = lambda value: pl.when(rows).then(value)  # noqa: E731
    return replace(
        term,
        name=name,
        num=mask(term.num),
        den=None if term.den is None else mask(term.den),
        source=name,
        missing=None,
        covariates=_covariates(term.covariates, group, level, part, rows),
        at=AtLevel(
            group, {"first": (2 * level,), "second": (2 * level + 1,)}.get(part, (2 * level, 2 * level + 1)), term
        ),
    )


def _covariates(given: Sequence[Term], group: int, level: int, part: Part, rows: pl.Expr) -> tuple[Term, ...]:
    return tuple(_at(one, group, level, part, rows) for one in given)
