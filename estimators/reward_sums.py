"""Sums that linear models of rewards are fitted from, by fold and action, added up chunk by chunk.

Rows of a chunk are sorted by cell, so that each cell costs one product of matrices, and the chunk is forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from estimators.inference import EstimationError
from estimators.nuisance_design import BLOCK, add_cross, add_gram

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Cube = NDArray[np.float64]
Codes = NDArray[np.intp]
Policy = NDArray[np.float64] | NDArray[np.intp]  # (n, actions) probabilities, or (n,) codes

_CONSTANT = 1e-12
_ADDS_UP = 1e-6


@dataclass(slots=True, eq=False)
class RewardSums:
    """Sums by cell, ``fold * actions + action``, of ``z = (1, (x - shift) * per_unit)``.

    Attributes:
        n_folds: Folds.
        n_actions: Actions.
        shift, per_unit: ``(p,)`` of the first chunk, so that squares of a large level do not cancel.
        centre: ``(rewards,)`` means of the first chunk, taken from the rewards.
        gram: ``(cells, p + 1, p + 1)`` of ``z z'``.
        cross: ``(cells, p + 1, rewards)`` of ``z (r - centre)``.
        toward: ``(cells, p + 1)`` of ``pi(a|x) z``, in the cell of ``a``, less ``w z`` in that of the logged action.
        less_gram, less_toward: By reward, the parts of rows that it was not seen in.
        has_target: Whether ``toward`` was summed.
        corrected: Whether weights were.
    """

    n_folds: int
    n_actions: int
    shift: Vector
    per_unit: Vector
    centre: Vector
    gram: Cube
    cross: Cube
    toward: Matrix
    less_gram: dict[int, Cube] = field(default_factory=dict)
    less_toward: dict[int, Matrix] = field(default_factory=dict)
    has_target: bool = False
    corrected: bool = False

    @classmethod
    def of(cls, x: Matrix, y: Matrix, n_folds: int, n_actions: int) -> RewardSums:
        """Empty sums in the coordinates of a first chunk."""
        shift = x.mean(axis=0)
        spread = np.sqrt(np.square(x - shift).mean(axis=0))
        seen = ~np.isnan(y)
        centre = np.where(seen, y, 0.0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
        per_unit = np.divide(1.0, spread, out=np.ones(len(spread)), where=spread > _CONSTANT * np.abs(shift))
        cells, width = n_folds * n_actions, x.shape[1] + 1
        gram, cross = np.zeros((cells, width, width)), np.zeros((cells, width, y.shape[1]))
        return cls(n_folds, n_actions, shift, per_unit, centre, gram, cross, np.zeros((cells, width)))

    def add(
        self, x: Matrix, action: Codes, fold: Codes, y: Matrix, target: Policy | None, w: Vector | None = None
    ) -> None:
        """Adds a chunk.

        Raises:
            EstimationError: Other features than before, or a target in some chunks only.
        """
        if x.shape[1] != len(self.shift):
            raise EstimationError("every chunk must have the same features")
        if self.gram[:, 0, 0].any() and self.has_target != (target is not None):
            raise EstimationError("the target policy must be given in every chunk or in none")
        self.corrected |= w is not None
        missing = np.isnan(y)
        partly = [int(j) for j in np.flatnonzero(missing.any(axis=0))]
        rest = np.where(missing, 0.0, y - self.centre)
        for cell, rows in runs(fold * self.n_actions + action):
            z = scaled(x[rows], self.shift, self.per_unit)
            add_gram(self.gram[cell], z)
            self.cross[cell, 0] += rest[rows].sum(axis=0)
            self.cross[cell, 1:] += z.T @ rest[rows]
            if w is not None:
                add_cross(self.toward[cell], z, -w[rows])
            for j in partly:
                if (out := missing[rows, j]).any():
                    add_gram(self.less_gram.setdefault(j, np.zeros_like(self.gram))[cell], z[out])
                    if w is not None:
                        less = self.less_toward.setdefault(j, np.zeros_like(self.toward))
                        add_cross(less[cell], z[out], -w[rows[out]])
        if target is None:
            return
        self.has_target = True
        self._add_toward(self.toward, x, fold, target)
        for j in partly:
            out, less = missing[:, j], self.less_toward.setdefault(j, np.zeros_like(self.toward))
            self._add_toward(less, x[out], fold[out], target[out])

    def of_reward(self, j: int) -> tuple[Cube, Cube, Cube]:
        """``gram``, ``cross`` and ``toward`` of one reward, ``(folds, actions, …)``, over rows that it was seen in."""
        gram = self.gram - self.less_gram[j] if j in self.less_gram else self.gram
        toward = self.toward - self.less_toward[j] if j in self.less_toward else self.toward
        cells, width = (self.n_folds, self.n_actions), self.gram.shape[-1]
        return (
            gram.reshape(*cells, width, width),
            np.ascontiguousarray(self.cross[:, :, j]).reshape(*cells, width),
            toward.reshape(*cells, width),
        )

    def _add_toward(self, total: Matrix, x: Matrix, fold: Codes, target: Policy) -> None:
        if target.ndim == 1:
            for cell, rows in runs(fold * self.n_actions + target.astype(np.intp)):
                total[cell, 0] += len(rows)
                total[cell, 1:] += scaled(x[rows], self.shift, self.per_unit).sum(axis=0)
            return
        for k, rows in runs(fold):
            mine = slice(k * self.n_actions, (k + 1) * self.n_actions)
            total[mine, 0] += target[rows].sum(axis=0)
            total[mine, 1:] += target[rows].T @ scaled(x[rows], self.shift, self.per_unit)


def runs(cells: Codes) -> Iterator[tuple[int, Codes]]:
    """Each cell that has rows, with their numbers, at most a block at a time."""
    # Numbers of 16 bits are sorted by radix, several times faster.
    order = np.argsort(cells.astype(np.uint16) if cells.max(initial=0) < 2**16 else cells, kind="stable")
    starts = np.flatnonzero(np.diff(cells[order], prepend=-1))
    for start, end in zip(starts, [*starts[1:], len(order)], strict=True):
        for at in range(start, end, BLOCK):
            yield int(cells[order[start]]), order[at : min(at + BLOCK, end)]


def scaled(x: Matrix, shift: Vector, per_unit: Vector) -> Matrix:
    """``(x - shift) * per_unit``, a fresh array."""
    z = x - shift
    z *= per_unit
    return z


def features_of(x: ArrayLike) -> Matrix:
    """``(n, p)`` finite float64."""
    values = np.asarray(x, dtype=np.float64)
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2:
        raise EstimationError("features must be rows by columns")
    if not np.isfinite(values).all():
        raise EstimationError("the features hold values that are not finite")
    return values


def codes_of(values: ArrayLike, n: int, name: str) -> Codes:
    """``(n,)`` codes below ``n``."""
    codes = np.asarray(values)
    if codes.ndim != 1 or codes.dtype.kind not in "iub":
        raise EstimationError(f"a {name} must be one whole number a row")
    if len(codes) and not (codes.min() >= 0 and codes.max() < n):
        raise EstimationError(f"a {name} lies outside 0 to {n - 1}")
    return codes.astype(np.intp, copy=False)


def rewards_of(values: ArrayLike, n: int) -> Matrix:
    """``(n, rewards)`` with NaN where a reward was not seen."""
    y = np.asarray(values, dtype=np.float64)
    y = y[:, None] if y.ndim == 1 else y
    if y.ndim != 2 or y.shape[1] != n:
        raise EstimationError(f"rewards must be rows by {n}")
    if np.isinf(y).any():
        raise EstimationError("the outcome holds values that are not finite")
    return y


def policy_of(values: ArrayLike, n: int, actions: Sequence[str]) -> Policy:
    """Codes of the target policy's actions, or its probabilities.

    Raises:
        EstimationError: Not one a row, codes out of range, or probabilities that are negative or do not add up to 1.
    """
    target = np.asarray(values)
    if target.ndim == 1 and target.dtype.kind in "iub":
        codes = codes_of(target, len(actions), "action of the target policy")
        if len(codes) != n:
            raise EstimationError("the target policy must have one action a row")
        return codes
    shares = np.asarray(target, dtype=np.float64)
    if shares.shape != (n, len(actions)):
        raise EstimationError("the target policy must be one action a row, or a probability for each action")
    if not (shares >= 0.0).all():
        raise EstimationError("the target policy's probabilities must be numbers from 0 up")
    if bad := int((np.abs(shares.sum(axis=1) - 1.0) > _ADDS_UP).sum()):
        raise EstimationError(f"the target policy's probabilities do not add up to 1 in {bad} row{'s' * (bad != 1)}")
    return shares
