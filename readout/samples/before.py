"""What units and clusters were like in the pre-period: its rows serve balance and covariates, never the effect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from readout.errors import LogError
from readout.logs import Logs
from readout.reduce import Table
from readout.samples.base import den_sum, num_sum, row_count, term_sums
from readout.spec.model import Spec
from readout.terms import Term

TABLE = "before"
OWNER = "@owner"
IN_PERIOD = pl.col("@pre")


def tables(logs: Logs, owner: pl.Expr, terms: Sequence[Term]) -> list[Table]:
    """Sums of the terms over the pre-period by owner, and of per-unit terms the units; nothing without a pre-period."""
    if logs.before is None:
        return []
    asked = [term for term in terms if term.before]
    sums: dict[str, pl.Expr] = {}
    for term in asked:
        sums |= term_sums(term)
    return [Table(TABLE, {OWNER: owner}, IN_PERIOD, sums=sums)]


def unit_tables(owner: pl.Expr, terms: Sequence[Term]) -> list[Table]:
    """The units of each owner that have a value, for owners that hold several."""
    keys = {OWNER: owner, "unit": pl.col("@unit").hash(0)}
    return [
        Table(_units_of(term), keys, IN_PERIOD & term.num.is_not_null())
        for term in terms
        if term.before and term.per_unit
    ]


def units(owners: pl.Series, term: Term, reduced: Mapping[str, pl.DataFrame]) -> np.ndarray:
    """How many units with a value each owner holds."""
    found = reduced[_units_of(term)].group_by(OWNER).agg(pl.len().alias("units"))
    joined = owners.alias(OWNER).to_frame().join(found, on=OWNER, how="left", maintain_order="left")
    return joined["units"].fill_null(0).to_numpy().astype(float)


def joined(frame: pl.DataFrame, owners: pl.Series, reduced: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """A sample's table with the pre-period's sums of each owner; zeros where the owner was not seen in it."""
    if TABLE not in reduced:
        return frame
    sums = reduced[TABLE].drop("n")
    found = owners.alias(OWNER).to_frame().join(sums, on=OWNER, how="left", maintain_order="left").drop(OWNER)
    return frame.hstack(found.fill_null(0))


def values(frame: pl.DataFrame, term: Term) -> list[np.ndarray]:
    """A term's covariates by owner, NaN for one without any: its mean; of a per-unit term its sum; of a ratio both."""
    num, den, rows = (frame[of(term)].to_numpy().astype(float) for of in (num_sum, den_sum, row_count))
    known = rows > 0
    if term.den is not None:
        return [np.where(known, num, np.nan), np.where(known, den, np.nan)]
    if term.per_unit:
        return [np.where(known, num, np.nan)]
    return [np.divide(num, rows, out=np.full(len(num), np.nan), where=known)]


def names(term: Term) -> list[str]:
    """Names of :func:`values`."""
    return [term.label] if term.den is None else [f"{term.label} ({part})" for part in ("numerator", "denominator")]


def require_rows(spec: Spec, logs: Logs, reduced: Mapping[str, pl.DataFrame]) -> None:
    """Refuse a pre-period without rows.

    Raises:
        LogError: There is none.
    """
    if logs.before is None or len(reduced[TABLE]):
        return
    start, end = (moment.isoformat(timespec="minutes") for moment in logs.before)
    message = f"no row of the log stands in the pre-period, {start} to {end}"
    hint = "add the earlier files to logs.path, see that logs.where keeps their rows, or leave pre_period out"
    raise LogError([spec.source.problem(("design", "pre_period"), message, hint)])


def _units_of(term: Term) -> str:
    return f"{TABLE}: units of {term.name}"
