"""Fixed effects swept out by projections in turn, with conjugate gradients to speed them up.

Sources: Guimarães and Portugal (2010), *A simple feasible procedure to fit models with high-dimensional fixed effects*;
Hernández-Ramos, Escalante and Raydan (2011), *Unconstrained optimization techniques for the acceleration of alternating
projection methods*. By Frisch and Waugh, a regression of what is left of the outcome on what is left of the regressors
gives the coefficients of the regression with all the effects in it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from estimators.inference import EstimationError

_TOLERANCE = 1e-9
_MOST_ROUNDS = 1000

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]
Codes = NDArray[np.intp]


def sweep(columns: ArrayLike, effects: Sequence[ArrayLike], weights: ArrayLike | None = None) -> Matrix:
    """Columns less their projection on the levels of every effect.

    Args:
        columns: ``(n, m)`` regressors and outcomes.
        effects: ``(n,)`` level codes ``0 …`` of each effect.
        weights: ``(n,)`` positive weights; None: all 1.

    Returns:
        ``(n, m)`` residuals; within every level of every effect their weighted sum is zero.

    Raises:
        EstimationError: Values that are not finite, or effects so entangled that the sweeps do not settle.
    """
    rest = np.array(columns, dtype=np.float64)
    if not np.isfinite(rest).all():
        raise EstimationError("the regression holds values that are not finite")
    codes = [np.asarray(effect, dtype=np.intp) for effect in effects]
    weight = np.ones(len(rest)) if weights is None else np.asarray(weights, dtype=np.float64)
    root = np.sqrt(weight)
    rest = root[:, None] * (rest - np.average(rest, axis=0, weights=weight))
    goal = (_TOLERANCE * np.linalg.norm(rest, axis=0)) ** 2
    gradient = _explained(rest, codes, root)
    direction, size = gradient.copy(), (gradient**2).sum(axis=0)
    for _ in range(_MOST_ROUNDS):
        if (size <= goal).all():
            return rest / root[:, None]
        image = _explained(direction, codes, root)
        curvature = (direction * image).sum(axis=0)
        step = np.where(size > goal, size / np.where(curvature > 0.0, curvature, 1.0), 0.0)
        rest -= step * direction
        gradient -= step * image
        before, size = size, np.where(size > goal, (gradient**2).sum(axis=0), size)
        direction = gradient + size / np.where(before > 0.0, before, 1.0) * direction
    raise EstimationError("the fixed effects are too entangled to be told apart")


def _explained(columns: Matrix, codes: Sequence[Codes], root: Vector) -> Matrix:
    """What the sweeps over all effects, there and back, take away: a symmetric map whose kernel is what they leave."""
    rest = columns.copy()
    for code in (*codes, *reversed(codes[:-1])):
        total = np.bincount(code, root * root)
        total[total == 0.0] = 1.0
        for j in range(rest.shape[1]):
            rest[:, j] -= root * (np.bincount(code, root * rest[:, j]) / total)[code]
    return columns - rest
