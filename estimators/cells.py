"""Cluster x block cells of a switchback and the regression they are laid out for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from estimators import calendar_effects as calendar
from estimators.inference import EstimationError
from estimators.ols import Matrix, Vector

WEIGHTS = ("rows", "units")
RANDOMIZED = ("cell", "block")

_PER_CELL = ("num", "den", "arm", "cluster", "block", "hour", "weekday")


@dataclass(frozen=True, slots=True)
class Cells:
    """Cluster x block cells of a switchback, washout rows left out; one entry per cell.

    Attributes:
        num: ``(n,)`` sums of the outcome.
        den: ``(n,)`` row counts, or sums of a ratio's denominator; the cell's outcome is ``num / den``.
        arm: ``(n,)`` 0 control, 1 treatment.
        cluster, block: ``(n,)`` integer codes; block codes ascend in time.
        hour: ``(n,)`` hour of day of the block's start, UTC, 0-23.
        weekday: ``(n,)`` day of week of the block's start, 0 (Monday) - 6.
        cluster_labels: Name of every cluster code.
        order: ``(n,)`` number of the block on the time grid: successive blocks differ by 1, and a gap in time is a gap
            in the numbers. None: the block codes, no block being absent between the first and the last.
    """

    num: NDArray[np.float64]
    den: NDArray[np.float64]
    arm: NDArray[np.intp]
    cluster: NDArray[np.intp]
    block: NDArray[np.intp]
    hour: NDArray[np.intp]
    weekday: NDArray[np.intp]
    cluster_labels: tuple[str, ...]
    order: NDArray[np.intp] | None = None

    def __post_init__(self) -> None:
        for name in _PER_CELL:
            dtype = np.float64 if name in ("num", "den") else np.intp
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=dtype))
        if self.order is not None:
            object.__setattr__(self, "order", np.asarray(self.order, dtype=np.intp))
        if len({getattr(self, name).shape for name in self._per_cell}) != 1:
            raise EstimationError("cells must have one entry per cluster and block in every array")

    def take(self, index: NDArray[Any]) -> Cells:
        """The cells that ``index`` (a mask or positions) chooses."""
        return replace(self, **{name: getattr(self, name)[index] for name in self._per_cell})

    @property
    def slot(self) -> NDArray[np.intp]:
        """``(n,)`` number of each cell's block on the time grid."""
        return self.block if self.order is None else self.order

    @property
    def _per_cell(self) -> tuple[str, ...]:
        return _PER_CELL if self.order is None else (*_PER_CELL, "order")


@dataclass(frozen=True, slots=True)
class Model:
    """The design of a block regression: which columns it has, and what was taken out of it.

    Attributes:
        cells: The cells that enter.
        weight: ``(n,)`` weights.
        x: ``(n, p)`` design; column 0 is the intercept, column 1 the arm, then the lagged arms where asked for.
        groups: ``(n,)`` the randomized unit of each cell.
        factors: Calendar factors as they stand.
        mean_covariates: ``(p,)`` weighted means of the columns.
    """

    cells: Cells
    weight: Vector
    x: Matrix
    groups: NDArray[np.intp]
    factors: tuple[calendar.Factor, ...]
    mean_covariates: Vector

    def adjusted_mean(self, arm: int) -> Vector:
        """Contrast of an arm's adjusted mean: all cells in that arm, covariates as they are."""
        c = self.mean_covariates.copy()
        c[1] = arm
        return c

    @property
    def effect(self) -> Vector:
        """Contrast of treatment against control."""
        return self.adjusted_mean(1) - self.adjusted_mean(0)

    @property
    def single_arm_clusters(self) -> list[str]:
        """Clusters that hold one arm only: they add nothing to the effect."""
        labels, cells = self.cells.cluster_labels, self.cells
        return [labels[k] for k in np.unique(cells.cluster) if len(np.unique(cells.arm[cells.cluster == k])) < 2]

    def diagnostics(self) -> dict[str, Any]:
        """What entered the model and what did not."""
        return {
            "n_cells": len(self.cells.arm),
            "n_clusters": len(np.unique(self.cells.cluster)),
            "n_randomized": len(np.unique(self.groups)),
            "calendar": [f"{f.name} ({f.levels} levels)" for f in self.factors if f.levels > 1],
            "dropped_levels": [text for f in self.factors for text in f.dropped],
            "single_arm_clusters": self.single_arm_clusters,
        }


def prepare(
    cells: Cells,
    weights: str,
    clustered_by: str,
    lagged: NDArray[np.intp] | None = None,
    *,
    arms_shape_calendar: bool = True,
) -> Model:
    """Checks the cells and lays out the regression; errors as in ``block_regression``.

    ``lagged`` is ``(n, lags)``, the arms of the blocks before (0 or 1), where they are to enter; every cell then needs
    a denominator. ``arms_shape_calendar``: levels of the calendar with one arm are joined to others; False: every
    level stands, so that the design is the same whatever arms are drawn.
    """
    if weights not in WEIGHTS or clustered_by not in RANDOMIZED:
        raise ValueError(f"weights must be one of {WEIGHTS} and clustered_by one of {RANDOMIZED}")
    cells = _usable(cells)
    if lagged is None:
        lagged = np.zeros((len(cells.arm), 0), dtype=np.intp)
    weight = cells.den if weights == "rows" else np.ones(len(cells.den))
    groups = np.arange(len(cells.arm)) if clustered_by == "cell" else cells.block
    for arm, name in ((0, "control"), (1, "treatment")):
        if (n := len(np.unique(groups[cells.arm == arm]))) < 2:
            raise EstimationError(f"{name} has {n} randomized unit{'s' * (n != 1)}; an error needs at least two")
    if clustered_by == "block" and _mixed(cells.block, cells.arm):
        raise EstimationError("a block holds both arms, so the block was not what was randomized")
    if arms_shape_calendar:
        factors = [calendar.factor(name, values, cells.arm) for name, values in _calendar(cells)]
    else:
        factors = [calendar.plain(name, values) for name, values in _calendar(cells)]
    factors = _affordable(factors, len(np.unique(cells.cluster)) + lagged.shape[1], len(np.unique(groups)))
    x = _design(cells, factors, lagged)
    return Model(cells, weight, x, groups, tuple(factors), np.average(x, axis=0, weights=weight))


def counts_by_arm(model: Model) -> dict[str, int]:
    """Randomized units by arm, as the arguments of ``finish``."""
    units = [len(np.unique(model.groups[model.cells.arm == a])) for a in (0, 1)]
    return {"n_control": units[0], "n_treatment": units[1]}


def require_sums(cells: Cells) -> None:
    """Refuses sums that are not finite and a numerator without a denominator.

    Raises:
        EstimationError: Such a cell.
    """
    if not (np.isfinite(cells.num).all() and np.isfinite(cells.den).all()):
        raise EstimationError("the cells hold values that are not finite")
    if (cells.den < 0.0).any() or ((cells.den == 0.0) & (cells.num != 0.0)).any():
        raise EstimationError(
            "a cell has a numerator but no positive denominator; longer blocks or another denominator are needed"
        )


def _usable(cells: Cells) -> Cells:
    require_sums(cells)
    if not np.isin(cells.arm, (0, 1)).all():
        raise EstimationError("arms of cells must be 0 (control) or 1 (treatment)")
    return cells.take(cells.den > 0.0)


def _calendar(cells: Cells) -> tuple[tuple[str, NDArray[np.intp]], ...]:
    return ("hour", cells.hour), ("weekday", cells.weekday)


def _affordable(factors: list[calendar.Factor], n_others: int, n_randomized: int) -> list[calendar.Factor]:
    """Takes out the weekday, then the hour, until the randomized units are twice the parameters."""
    for i in (1, 0):
        parameters = n_others + 1 + sum(f.levels - 1 for f in factors)
        if n_randomized < 2 * parameters and factors[i].levels > 1:
            reason = f"{n_randomized} randomized units are fewer than twice the {parameters} parameters"
            factors[i] = calendar.without(factors[i], reason)
    return factors


def _design(cells: Cells, factors: Iterable[calendar.Factor], lagged: NDArray[np.intp]) -> Matrix:
    """Columns: intercept, arm, lagged arms, clusters, calendar; calendar columns that others already span go."""
    clusters = cells.cluster[:, None] == np.unique(cells.cluster)[1:]
    others = np.column_stack([np.ones(len(cells.arm)), clusters, *(f.columns for f in factors)]).astype(np.float64)
    others = others[:, ~_spanned(others)]
    arms = np.column_stack([cells.arm, lagged]).astype(np.float64)
    foretold = _spanned(np.column_stack([others, arms]))[others.shape[1] :]
    if foretold[0]:
        raise EstimationError("cluster and calendar alone foretell the arm, so no comparison within them is left")
    if foretold.any():
        raise EstimationError(
            f"the arm {_blocks(int(np.argmax(foretold)))} before follows from cluster, calendar and the later arms, so "
            "its effect cannot be told from theirs"
        )
    return np.column_stack([others[:, :1], arms, others[:, 1:]])


def _spanned(x: Matrix) -> NDArray[np.bool_]:
    """``(p,)`` whether a column is a combination of those before it."""
    n, p = x.shape
    if n < p:
        raise EstimationError(f"{n} cells are too few for a regression with {p} parameters")
    r = np.abs(np.diag(np.linalg.qr(x, mode="r")))
    return np.asarray(r <= 1e-10 * np.linalg.norm(x, axis=0), dtype=np.bool_)


def _mixed(block: NDArray[np.intp], arm: NDArray[np.intp]) -> bool:
    return len(np.unique(np.column_stack([block, arm]), axis=0)) > len(np.unique(block))


def _blocks(n: int) -> str:
    return f"{n} block{'s' * (n != 1)}"
