"""What every sample offers to checks and estimates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import polars as pl

from estimators.estimate import Estimate
from estimators.tail_index import Tail
from readout.reduce import Table
from readout.spec.metrics import Metric
from readout.terms import Term

KEPT = pl.col("@drop").is_null()


class Sample(Protocol):
    """Independent observations by arm; arm codes are 0 for control, 1… for treatments.

    Attributes:
        unit: What one observation is, in words for the memo.
        method: The estimator that fits it.
        rows: The rows that belong to it.
    """

    method: str
    rows: pl.Expr

    @property
    def unit(self) -> str: ...

    def tables(self, terms: Sequence[Term]) -> list[Table]:
        """The tables that these terms need."""
        ...

    def again(self, reduced: Mapping[str, pl.DataFrame]) -> list[Table]:
        """Tables that the first pass shows to need a second one."""
        ...

    def load(self, tables: Mapping[str, pl.DataFrame]) -> Mapping[str, int]:
        """Take the reduced tables; returns rows left out here, by reason."""
        ...

    def counts(self) -> list[int]:
        """Independent assignments by arm code, for the sample ratio."""
        ...

    def mixed(self) -> tuple[int, int]:
        """Randomized units that carry more than one arm, and all of them."""
        ...

    def effect(self, term: Term, arm: int, alpha: float) -> Estimate:
        """The effect of an arm against control.

        Raises:
            EstimationError: The data cannot carry it.
        """
        ...

    def without_most_influential(self, term: Term, arm: int, alpha: float) -> Estimate | None:
        """The effect without the unit that moves it most; None where there is none to leave out."""
        ...

    def top_share(self, term: Term) -> float | None:
        """Share of the sum that the top 1 % of units hold; None where it has no meaning."""
        ...

    def tail(self, term: Term) -> Tail | None:
        """How heavy the tail of its units is; None where that is not looked at.

        Raises:
            EstimationError: No value, or one that is not finite.
        """
        ...

    def arm_total(self, term: Term, arm: int) -> tuple[float, float]:
        """Sum of numerator and of denominator over an arm's kept rows."""
        ...

    def level_shares(self, frame: pl.DataFrame, arm: int) -> tuple[np.ndarray, np.ndarray]:
        """Counts of a label table by independent group: (levels, groups) and the groups' totals."""
        ...

    def level_keys(self) -> Mapping[str, pl.Expr]:
        """Keys by which labels are counted: the arm and the independent group."""
        ...


class NoTail:
    """A sample of which no single unit's weight is looked at."""

    def without_most_influential(self, term: Term, arm: int, alpha: float) -> Estimate | None:
        return None

    def top_share(self, term: Term) -> float | None:
        return None

    def tail(self, term: Term) -> Tail | None:
        return None


@runtime_checkable
class NotDrawn(Protocol):
    """What a sample says besides where no arm was drawn at random."""

    def assignment(self) -> str:
        """How it came about who was treated, in one or two sentences."""
        ...

    def facts(self) -> Mapping[str, Any]:
        """What the ``design`` of readout.json lists besides."""
        ...

    def remarks(self) -> list[str]:
        """Notes on the sample as a whole."""
        ...


@runtime_checkable
class Explains(Protocol):
    """What a sample says of its effects where no arm was drawn at random."""

    def measured(self, metric: Metric) -> str:
        """What a metric's number is of, in words."""
        ...

    def remarks_on(self, metric: Metric, found: Estimate) -> list[str]:
        """What a reader must know beside a metric's effect."""
        ...

    def shown(self, term: Term, effects: Mapping[int, Estimate]) -> Mapping[str, Any]:
        """Diagnostics at the top level of readout.json, by their names in the contract.

        Args:
            term: The first primary.
            effects: Its effects by arm code, as far as the data carry them.
        """
        ...


@runtime_checkable
class Narrows(Protocol):
    """What a sample says where more of the same observations would not narrow an interval."""

    def narrowed_by(self, metric: str) -> str:
        """What would, as a next step."""
        ...


def num_sum(term: Term) -> str:
    """Column of a term's numerator sum."""
    return f"{term.name}|num"


def den_sum(term: Term) -> str:
    """Column of a term's denominator sum."""
    return f"{term.name}|den"


def row_count(term: Term) -> str:
    """Column of the rows that have a value; where there is no denominator, that is the denominator."""
    return den_sum(term) if term.den is None else f"{term.name}|rows"


def term_sums(term: Term) -> dict[str, pl.Expr]:
    """The sums of one term by group: numerator, denominator, and rows with a value."""
    return {num_sum(term): term.num, den_sum(term): term.weight, row_count(term): term.count}


def placed(frame: pl.DataFrame, sums: pl.DataFrame, keys: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``num``, ``den`` and ``rows`` of a table in the order of a sample's cells; zeros where a cell is not in it."""
    columns = ("num", "den", "rows")
    joined = frame.select(*keys).join(sums.select(*keys, *columns), on=keys, how="left", maintain_order="left")
    num, den, rows = (joined[name].fill_null(0).to_numpy().astype(float) for name in columns)
    return num, den, rows
