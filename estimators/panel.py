"""Outcomes of units over periods, where some units start treatment and stay treated.

A panel is what every difference-in-differences method takes: one outcome per unit and period, and the period in which
each unit is first treated. Event time counts periods from there: 0 is the first treated period, -1 the one before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from estimators.inference import EstimationError

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Codes = NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """Units in rows, periods in columns, evenly spaced and in order of time.

    Attributes:
        y: ``(n, T)`` outcomes; NaN: the unit was not seen in that period.
        first: ``(n,)`` position ``0 … T - 1`` of the first treated period; ``T``: not treated within the window.
        covariates: ``(n, k)`` values that stood before treatment, without a constant; None: none.
        clusters: ``(n,)`` labels of what units share; None: nothing.
        periods: ``(T,)`` names of the periods, for messages; empty: their positions.
        dropped: Units left out because they were treated in every period: they show no change.
        units: ``(n,)`` names of the units, for messages and weights; empty: their positions.

    Raises:
        EstimationError: Arrays that do not fit each other, infinite outcomes, covariates that are not finite, fewer
            than two periods, or no unit.
    """

    y: Matrix
    first: Codes
    covariates: Matrix | None = None
    clusters: NDArray[Any] | None = None
    periods: tuple[str, ...] = ()
    dropped: int = 0
    units: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        y = np.asarray(self.y, dtype=np.float64)
        first = np.asarray(self.first)
        if y.ndim != 2 or y.shape[1] < 2 or not len(y):
            raise EstimationError("a panel needs units and at least two periods")
        n, t = y.shape
        if first.shape != (n,) or not ((first >= 0) & (first <= t) & (first == np.floor(first))).all():
            raise EstimationError("first treated periods must be positions of the panel's periods, one per unit")
        if np.isinf(y).any():
            raise EstimationError("the panel holds outcomes that are not finite")
        object.__setattr__(self, "y", y)
        object.__setattr__(self, "first", first.astype(np.intp))
        if self.covariates is not None:
            x = np.asarray(self.covariates, dtype=np.float64)
            x = x[:, None] if x.ndim == 1 else x
            if x.ndim != 2 or len(x) != n or not np.isfinite(x).all():
                raise EstimationError("covariates of a panel must be finite, one row per unit")
            object.__setattr__(self, "covariates", x if x.shape[1] else None)
        if self.clusters is not None and np.asarray(self.clusters).shape != (n,):
            raise EstimationError("a panel needs one cluster label per unit")
        labels = tuple(map(str, self.periods)) or tuple(map(str, range(t)))
        if len(labels) != t:
            raise EstimationError("a panel needs one name per period")
        object.__setattr__(self, "periods", labels)
        names = tuple(map(str, self.units)) or tuple(map(str, range(n)))
        if len(names) != n:
            raise EstimationError("a panel needs one name per unit")
        object.__setattr__(self, "units", names)

    @classmethod
    def from_rows(
        cls,
        unit: ArrayLike,
        period: ArrayLike,
        y: ArrayLike,
        first: ArrayLike,
        *,
        covariates: ArrayLike | None = None,
        clusters: ArrayLike | None = None,
    ) -> Panel:
        """A panel from one row per unit and period, in any order.

        Args:
            unit: ``(rows,)`` labels.
            period: ``(rows,)`` numbers; the panel's periods are those that occur.
            y: ``(rows,)`` outcomes.
            first: ``(rows,)`` first treated period, on the scale of ``period``, the same in all rows of a unit; NaN or
                infinite: never. Between two periods: the later one is the first treated.
            covariates: ``(rows, k)``; a unit's are those of its earliest row.
            clusters: ``(rows,)`` labels; a unit's is that of its earliest row.

        Raises:
            EstimationError: Two rows of a unit in one period, a unit with two starts, or as ``Panel``.
        """
        units, i = np.unique(np.asarray(unit), return_inverse=True)
        times, j = np.unique(np.asarray(period, dtype=np.float64), return_inverse=True)
        if not np.isfinite(times).all():
            raise EstimationError("periods must be finite numbers")
        starts = np.asarray(first, dtype=np.float64)
        starts = np.where(np.isfinite(starts), starts, np.inf)
        if np.bincount(i * len(times) + j).max() > 1:
            raise EstimationError("a unit has more than one row in a period; sum or average them first")
        order = np.lexsort((j, i))
        earliest = order[np.flatnonzero(np.r_[True, np.diff(i[order]) > 0])]
        if (starts != starts[earliest][i]).any():
            culprit = units[i[int(np.argmax(starts != starts[earliest][i]))]]
            raise EstimationError(f"unit {culprit} has more than one first treated period")
        wide = np.full((len(units), len(times)), np.nan)
        wide[i, j] = np.asarray(y, dtype=np.float64)
        names = tuple(str(int(v)) if v == int(v) else str(v) for v in times.tolist())
        return cls(
            wide,
            np.searchsorted(times, starts[earliest]),
            None if covariates is None else np.asarray(covariates, dtype=np.float64)[earliest],
            None if clusters is None else np.asarray(clusters)[earliest],
            names,
            units=tuple(map(str, units.tolist())),
        )

    @property
    def groups(self) -> list[int]:
        """Positions of the periods in which units start."""
        return [int(g) for g in np.unique(self.first[self.first < self.y.shape[1]])]

    def comparable(self) -> Panel:
        """The panel without units that are treated throughout, or never seen.

        Raises:
            EstimationError: No unit starts treatment within the window, or none is there to compare with.
        """
        always = self.first == 0
        kept = self.take(~always & np.isfinite(self.y).any(axis=1))
        if not kept.groups:
            raise EstimationError("no unit starts treatment after the first period, so no change can be seen")
        if len(np.unique(kept.first)) < 2:
            raise EstimationError("all units start treatment in the same period, so nothing is left to compare with")
        return replace(kept, dropped=self.dropped + int(always.sum()))

    def take(self, index: NDArray[Any]) -> Panel:
        """The units that ``index`` (a mask or positions) chooses."""
        if not len(y := self.y[index]):
            raise EstimationError("no unit of the panel can be used")
        return replace(
            self,
            y=y,
            first=self.first[index],
            covariates=None if self.covariates is None else self.covariates[index],
            clusters=None if self.clusters is None else self.clusters[index],
            units=tuple(np.asarray(self.units, dtype=object)[index]),
        )

    def error_groups(self) -> tuple[Codes, str]:
        """Codes of the coarsest groups within which treatment timing does not vary, and what they are.

        ``cluster`` where all units of every cluster start together, else ``unit``.
        """
        if self.clusters is not None:
            codes = np.unique(np.asarray(self.clusters), return_inverse=True)[1].reshape(-1)
            if len(np.unique(np.column_stack([codes, self.first]), axis=0)) == int(codes.max()) + 1:
                return codes.astype(np.intp), "cluster"
        return np.arange(len(self.y)), "unit"

    def cohorts(self, codes: Codes) -> Codes:
        """``(n_groups,)`` first treated period of the groups of ``error_groups``, all of whose units start together."""
        cohort = np.zeros(int(codes.max()) + 1, dtype=np.intp)
        cohort[codes] = self.first
        return cohort

    def counts(self) -> dict[str, Any]:
        """What every method says of its panel: units by start, those never treated, dropped ones, missing cells."""
        n, t = self.y.shape
        return {
            "groups": {self.periods[g]: int((self.first == g).sum()) for g in self.groups},
            "never_treated": int((self.first == t).sum()),
            "always_treated": self.dropped,
            "missing_cells": int(np.isnan(self.y).sum()),
            "n_units": n,
            "n_periods": t,
        }


def group_sums(values: ArrayLike, codes: Codes) -> Matrix:
    """``(n_groups, m)`` sums of ``(n, m)`` values within the groups."""
    v = np.asarray(values, dtype=np.float64)
    out = np.zeros((int(codes.max()) + 1, v.shape[1]))
    np.add.at(out, codes, v)
    return out


def consecutive(times: Sequence[int] | Codes) -> bool:
    """Whether event times, with the reference -1 put in, leave no gap."""
    line = np.unique([*times, -1])
    return bool((np.diff(line) == 1).all())
