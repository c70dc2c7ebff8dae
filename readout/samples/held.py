"""Single rows held in memory, with just the columns that a method needs, for methods that sums cannot serve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from readout.logs import Logs
from readout.reduce import Table, collect
from readout.samples.base import KEPT, den_sum, num_sum
from readout.spec.model import Spec
from readout.terms import Term, eligible_only

# Held at once; of longer logs so many rows are drawn, whole units at a time.
MOST_ROWS = 4_000_000
HASHES = 2**20
FINITE = "held"
Vector = NDArray[np.float64]
Codes = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Held:
    """Rows in the order of the log.

    Attributes:
        frame: ``arm`` (code), ``unit`` and ``cluster`` where mapped, ``NAME|num`` and ``NAME|den`` of every term, and
            the columns that were asked for, as they are in the log.
        rows: Kept rows in the log.
        share: Of the units that are held; below one, they were drawn by a hash of the unit and the seed.
    """

    frame: pl.DataFrame
    rows: int
    share: float

    @property
    def arm(self) -> Codes:
        """``(n,)`` arm codes."""
        return self.frame["arm"].to_numpy().astype(np.intp)

    def codes(self, role: str) -> Codes | None:
        """``(n,)`` whole numbers that tell the role's labels apart; None where no column plays it."""
        if role not in self.frame.columns:
            return None
        return self.frame[role].rank("dense").to_numpy().astype(np.intp) - 1

    def numerator(self, term: Term) -> Vector:
        """``(n,)`` NaN where the row has no value."""
        return self._floats(num_sum(term))

    def denominator(self, term: Term) -> Vector | None:
        """``(n,)`` of a ratio; None of a mean."""
        return None if term.den is None else self._floats(den_sum(term))

    def _floats(self, name: str) -> Vector:
        return self.frame[name].cast(pl.Float64).fill_null(np.nan).to_numpy().astype(np.float64)

    @property
    def said(self) -> str:
        """That not all rows are read, in words; empty where all are."""
        if self.share >= 1.0:
            return ""
        return (
            f"{len(self.frame):,} of {self.rows:,} rows are read: all rows of about {100 * self.share:.2g} % of the "
            "units, drawn by the seed, since the method needs single rows in memory"
        )


def finite_table(terms: Sequence[Term], numbers: Mapping[str, pl.Expr]) -> Table:
    """The table by which the pass refuses NaN and infinity in what will be held."""
    finite: dict[str, pl.Expr] = {}
    for term in terms:
        finite[num_sum(term)] = term.num
        if term.den is not None:
            finite[den_sum(term)] = term.den
    return Table(FINITE, {}, where=KEPT, finite={**finite, **numbers})


def hold(spec: Spec, logs: Logs, terms: Sequence[Term], columns: Mapping[str, pl.Expr], seed: int, rows: int) -> Held:
    """The kept rows, all of them or, of a longer log than memory is meant for, those of units drawn by the seed.

    Args:
        spec, logs: The spec and its logs.
        terms: Whose numerators and denominators are held.
        columns: Further values by name.
        seed: Of the draw.
        rows: Kept rows in the log.

    Raises:
        LogError: The files cannot be read to the end.
    """
    asked: dict[str, Any] = {"arm": pl.col("@arm_code")}
    asked |= {role: pl.col(f"@{role}") for role in ("unit", "cluster") if logs.has(role)}
    for term in terms:
        asked[num_sum(term)] = term.num
        if term.den is not None:
            asked[den_sum(term)] = term.den
    frame = logs.frame.filter(KEPT)
    if logs.has("eligible"):
        frame = frame.filter(eligible_only(spec, logs)(pl.lit(True)).fill_null(False))
    share = min(1.0, MOST_ROWS / max(rows, 1))
    if share < 1.0:
        owner = pl.col("@unit") if logs.has("unit") else pl.struct(pl.all())
        frame = frame.filter(owner.hash(seed) % HASHES < int(share * HASHES))
    return Held(collect([frame.select(**asked, **columns)])[0], rows, share)
