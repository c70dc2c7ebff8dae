"""A covariate matrix as nuisance models see it: standardised columns, in blocks of rows sorted by piece and arm.

Rows are cut into pieces (folds, or parts of folds) that no unit straddles; a cell is the rows of one arm in one piece.
Sums over cells are all that a linear model needs, so one pass over the rows serves every fold and every penalty, and
the matrix is never copied: a block of rows is standardised, used and forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from estimators.inference import EstimationError

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Codes = NDArray[np.intp]
Block = tuple[int, Codes, Matrix]

BLOCK = 8192  # rows in hand at a time; with 20 columns they stay near a core's cache
ARMS = (0, 1)


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """Covariates with their means and standard deviations.

    Attributes:
        x: ``(n, p)`` covariates, as they are.
        centre: ``(p,)`` means.
        per_unit: ``(p,)`` one over the standard deviations; 0 for a column that does not vary.
    """

    x: Matrix
    centre: Vector
    per_unit: Vector

    @classmethod
    def of(cls, covariates: ArrayLike, n: int) -> Columns:
        """Checks and measures a matrix.

        Raises:
            EstimationError: Not ``n`` rows, or values that are not finite.
        """
        x = np.asarray(covariates, dtype=np.float64)
        x = x[:, None] if x.ndim == 1 else x
        if x.ndim != 2 or len(x) != n:
            raise EstimationError("covariates must have one row per row of the treatment")
        centre = x.mean(axis=0) if x.shape[1] else np.zeros(0)
        if not np.isfinite(centre).all():
            raise EstimationError("the covariates hold values that are not finite")
        square = np.zeros(x.shape[1])
        for start in range(0, n, BLOCK):
            square += ((x[start : start + BLOCK] - centre) ** 2).sum(axis=0)
        spread = np.sqrt(square / n)
        if not np.isfinite(spread).all():
            raise EstimationError("the covariates hold values that are not finite")
        # Rounding leaves a trace of a column's size; a spread below it is none.
        varies = spread > 1e-13 * np.abs(centre)
        return cls(x, centre, np.divide(1.0, spread, out=np.zeros(len(spread)), where=varies))


@dataclass(frozen=True, slots=True, eq=False)
class Design:
    """Standardised covariates, by cell; a leading constant is understood.

    Attributes:
        columns: The covariates.
        order: ``(n,)`` rows sorted by cell, ``2 * piece + arm``.
        starts: ``(2 * n_pieces + 1,)`` where each cell starts in ``order``.
        n_folds: Folds, each of ``n_pieces / n_folds`` pieces in a row; 1: models are fitted and used on the same rows.
    """

    columns: Columns
    order: Codes
    starts: Codes
    n_folds: int

    @classmethod
    def of(cls, columns: Columns, treated: NDArray[np.bool_], pieces: Codes, n_folds: int) -> Design:
        """Sorts rows by piece and arm."""
        cells = (2 * pieces + treated).astype(np.uint16)
        counts = np.bincount(cells, minlength=2 * (int(pieces.max()) + 1))
        order = np.argsort(cells, kind="stable")
        return cls(columns, order, np.concatenate([[0], np.cumsum(counts)]).astype(np.intp), n_folds)

    def on(self, columns: Columns) -> Design:
        """The same rows with other covariates."""
        return Design(columns, self.order, self.starts, self.n_folds)

    @property
    def n(self) -> int:
        """Rows."""
        return len(self.order)

    @property
    def width(self) -> int:
        """Covariates and the constant."""
        return len(self.columns.centre) + 1

    @property
    def n_cells(self) -> int:
        """Cells, empty ones counted."""
        return len(self.starts) - 1

    def pieces(self, fold: int) -> range:
        """Pieces of a fold."""
        each = self.n_cells // (2 * self.n_folds)
        return range(fold * each, (fold + 1) * each)

    def training(self, fold: int) -> list[int]:
        """Pieces that the model of a fold may learn from: all others; with one fold all."""
        out = range(0) if self.n_folds == 1 else self.pieces(fold)
        return [piece for piece in range(self.n_cells // 2) if piece not in out]

    def cells(self, pieces: Sequence[int], arms: Sequence[int] = ARMS) -> list[int]:
        """Cells of these pieces and arms."""
        return [2 * piece + arm for piece in pieces for arm in arms]

    def rows(self, cells: Sequence[int]) -> Codes:
        """Rows of these cells."""
        return np.concatenate([self.order[self.starts[c] : self.starts[c + 1]] for c in cells])

    def blocks(self, cells: Sequence[int], seen: NDArray[np.bool_] | None = None) -> Iterator[Block]:
        """Cell, row numbers and standardised covariates without the constant, block by block; only rows ``seen``.

        The covariates' array is overwritten by the next block.
        """
        p = self.width - 1
        most = min(BLOCK, max((int(self.starts[c + 1] - self.starts[c]) for c in cells), default=0))
        room = np.empty((most, p))
        # One long vector each: numpy is slow on many short rows.
        centre, per_unit = np.tile(self.columns.centre, most), np.tile(self.columns.per_unit, most)
        for cell in cells:
            end = int(self.starts[cell + 1])
            for start in range(int(self.starts[cell]), end, BLOCK):
                rows = self.order[start : min(start + BLOCK, end)]
                if seen is not None:
                    rows = rows[seen[rows]]
                z = room[: len(rows)]
                np.take(self.columns.x, rows, axis=0, out=z, mode="clip")
                flat = z.reshape(-1)
                flat -= centre[: len(flat)]
                flat *= per_unit[: len(flat)]
                yield cell, rows, z

    def gram(self, seen: NDArray[np.bool_] | None = None, weights: Vector | None = None) -> NDArray[np.float64]:
        """``(n_cells, width, width)`` sums of ``w z z'``, the constant in ``z``."""
        total = np.zeros((self.n_cells, self.width, self.width))
        for cell, rows, z in self.blocks(range(self.n_cells), seen):
            add_gram(total[cell], z, None if weights is None else weights[rows])
        return total

    def cross(self, values: Vector, seen: NDArray[np.bool_] | None = None) -> Matrix:
        """``(n_cells, width)`` sums of ``z v``."""
        total = np.zeros((self.n_cells, self.width))
        for cell, rows, z in self.blocks(range(self.n_cells), seen):
            add_cross(total[cell], z, values[rows])
        return total

    def times(self, coef: Vector) -> Vector:
        """``(n,)`` products of all rows with the same coefficients, ``(width,)``."""
        return self.predict(np.broadcast_to(coef, (self.n_folds, self.width)))

    def predict(self, coef: Matrix) -> Vector:
        """``(n,)`` products of each row with its own fold's coefficients, ``(n_folds, width)``."""
        out = np.empty(self.n)
        for fold in range(self.n_folds):
            for _, rows, z in self.blocks(self.cells(self.pieces(fold))):
                out[rows] = z @ coef[fold, 1:] + coef[fold, 0]
        return out


def add_gram(total: Matrix, z: Matrix, w: Vector | None = None) -> None:
    """Adds ``sum w z z'`` to ``total``, the constant that ``z`` lacks included."""
    weighted = z if w is None else z * w[:, None]
    ends = weighted.sum(axis=0) if w is None else w @ z
    total[0, 0] += len(z) if w is None else float(w.sum())
    total[0, 1:] += ends
    total[1:, 0] += ends
    total[1:, 1:] += weighted.T @ z


def add_cross(total: Vector, z: Matrix, values: Vector) -> None:
    """Adds ``sum z v`` to ``total``, the constant that ``z`` lacks included."""
    total[0] += float(values.sum())
    total[1:] += values @ z
