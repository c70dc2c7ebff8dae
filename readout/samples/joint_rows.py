"""Joint moments of an outcome and its covariate where rows are the units: declared as sums, read back by arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from estimators.inference import EstimationError
from estimators.joint_moments import JointMoments
from readout.terms import Term

# Sums under this mark are of values that are summed by themselves too.
JOINT = "@joint "


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the outcome's columns were centred.

    Attributes:
        num: What was taken from the numerator.
        den: What was taken from the denominator; None where there is none.
        slope: The numerator is ``num - slope * den`` (with the denominator as it is).
    """

    num: float
    den: float | None = None
    slope: float = 0.0


def sums(term: Term, num: pl.Expr, den: pl.Expr | None, shifts: Sequence[float]) -> dict[str, pl.Expr]:
    """Sums and sums of products of the outcome's centred columns, the centred covariates, and the rows without one.

    Args:
        term: With one covariate or two (a ratio's parts).
        num, den: Centred columns of the outcome, null where the row does not count.
        shifts: What is taken from each covariate.
    """
    counts = term.num.is_not_null()
    known = pl.all_horizontal(c.num.is_not_null() for c in term.covariates)
    columns = [num, *(() if den is None else (den,))]
    for one, shift in zip(term.covariates, shifts, strict=True):
        columns.append(pl.when(counts).then(pl.when(known).then(one.num.cast(pl.Float64) - shift).otherwise(0.0)))
    columns.append(pl.when(counts).then((~known).cast(pl.Int8)))
    found = {_name(term, i): column for i, column in enumerate(columns)}
    for i, j in combinations_with_replacement(range(len(columns)), 2):
        found[_name(term, i, j)] = columns[i] * columns[j]
    return found


def moments(
    term: Term, rows: tuple[Mapping[str, Any], Mapping[str, Any]], outcome: Outcome, shifts: Sequence[float]
) -> tuple[JointMoments, JointMoments, dict[str, int]]:
    """Control's and treatment's moments, and of how many rows the covariate was missing.

    Rows without a covariate are given the mean of those that have one, both arms together.

    Raises:
        EstimationError: No row has one, or as ``JointMoments.from_sums``.
    """
    k = 1 + (outcome.den is not None) + len(term.covariates) + 1
    totals = [_read(term, row, k) for row in rows]
    n = [int(row[f"{term.name}|n"]) for row in rows]
    both = totals[0][0] + totals[1][0]
    lacking = int(both[-1])
    if lacking == sum(n):
        raise EstimationError(f"no row of the two arms has a value of {', '.join(c.label for c in term.covariates)}")
    first = k - 1 - len(term.covariates)
    fill = np.eye(k)
    fill[first : k - 1, k - 1] = both[first : k - 1] / (sum(n) - lacking)
    # Into the order outcome, its denominator, covariate, its denominator; one that is not there is 1 throughout.
    place = [0] + [1] * (outcome.den is not None) + [2, 3][: len(term.covariates)]
    pick = np.zeros((4, k))
    pick[place, range(k - 1)] = 1.0
    shift = np.array([outcome.num, 1.0 if outcome.den is None else outcome.den, *shifts, 1.0][:4])
    turn = pick @ fill
    control, treatment = (
        _sloped(JointMoments.from_sums(count, shift, turn @ total, turn @ products @ turn.T), outcome.slope)
        for count, (total, products) in zip(n, totals, strict=True)
    )
    return control, treatment, {c.label: lacking for c in term.covariates} if lacking else {}


def _read(term: Term, row: Mapping[str, Any], k: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    products = np.empty((k, k))
    for i, j in combinations_with_replacement(range(k), 2):
        products[i, j] = products[j, i] = row[_name(term, i, j)]
    return np.array([float(row[_name(term, i)]) for i in range(k)]), products


def _sloped(m: JointMoments, slope: float) -> JointMoments:
    """The outcome's ratio with its slope put back; what is centred on the ratio stays as it is."""
    return replace(m, values=m.values + np.array([slope, 0.0]))


def _name(term: Term, *columns: int) -> str:
    return f"{JOINT}{term.name}|{' '.join(map(str, columns))}"
