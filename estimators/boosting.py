"""Gradient-boosted nuisance models, cross-fitted; scikit-learn's histogram trees, imported where they are used.

Friedman (2001), *Greedy function approximation*; trees of at most 15 leaves and 20 rows a leaf, steps of 0.1. How many
trees (at most 200) is chosen on one piece of the training rows, units whole, and the model then fitted to all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from estimators.inference import EstimationError
from estimators.nuisance_design import ARMS, Codes, Design, Matrix, Vector

_TREES = 200
_OPTIONS = {"learning_rate": 0.1, "max_leaf_nodes": 15, "min_samples_leaf": 20, "early_stopping": False}


def boosted(
    design: Design,
    y: Vector,
    *,
    shares: bool,
    arms: Sequence[int] = ARMS,
    seen: NDArray[np.bool_] | None = None,
    seed: int = 0,
) -> Vector:
    """``(n,)`` predictions for all rows, each by the model that did not learn from its fold.

    Args:
        design: Rows by cell; trees take the covariates as they are.
        y: ``(n,)`` outcome; with ``shares`` 0 or 1, and predictions are probabilities.
        arms: Arms to learn from.
        seen: Rows to learn from.
        seed: Of scikit-learn.

    Raises:
        EstimationError: Fewer than two rows to learn from, or, with ``shares``, one outcome only.
    """
    out = np.empty(design.n)
    for fold in range(design.n_folds):
        training = design.training(fold)
        parts = [_rows(design, [piece], arms, seen) for piece in training]
        model = fit_trees(design.columns.x, y, [p for p in parts if len(p)], shares, seed)
        rows = design.rows(design.cells(design.pieces(fold)))
        out[rows] = predict_trees(model, design.columns.x[rows], shares)
    return out


def _rows(design: Design, pieces: Sequence[int], arms: Sequence[int], seen: NDArray[np.bool_] | None) -> Codes:
    rows = design.rows(design.cells(pieces, arms))
    return rows if seen is None else rows[seen[rows]]


def fit_trees(x: Matrix, y: Vector, parts: list[Codes], shares: bool, seed: int, levels: int | None = None) -> Any:
    """A model of the rows of all parts, its trees counted on the first; column ``levels`` holds codes of levels."""
    rows = np.concatenate(parts) if parts else np.zeros(0, dtype=np.intp)
    if len(rows) < 2:
        raise EstimationError("fewer than two rows of an arm are left to fit a boosted model on")
    if shares and y[rows].min() == y[rows].max():
        raise EstimationError("all rows that a boosted model of shares learns from have the same outcome")
    trees = _TREES // 4
    if len(parts) > 1:
        first = np.concatenate(parts[1:])
        if not shares or y[first].min() < y[first].max():
            trees = _best(
                _model(shares, _TREES, seed, levels).fit(x[first], y[first]), x[parts[0]], y[parts[0]], shares
            )
    return _model(shares, trees, seed, levels).fit(x[rows], y[rows])


def _model(shares: bool, trees: int, seed: int, levels: int | None) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    kind = HistGradientBoostingClassifier if shares else HistGradientBoostingRegressor
    more = {} if levels is None else {"categorical_features": [levels]}
    return kind(max_iter=trees, random_state=seed % 2**32, **_OPTIONS, **more)


def _best(model: Any, x: Matrix, y: Vector, shares: bool) -> int:
    """Trees at the least loss on rows that the model has not seen."""
    if shares:
        stages = (p[:, 1] for p in model.staged_predict_proba(x))
        losses = [-float(np.log(np.maximum(np.where(y > 0.5, p, 1.0 - p), 1e-300)).sum()) for p in stages]
    else:
        losses = [float(((y - p) ** 2).sum()) for p in model.staged_predict(x)]
    return 1 + int(np.argmin(losses))


def predict_trees(model: Any, x: Matrix, shares: bool) -> Vector:
    """Predicted outcomes, of shares their probabilities."""
    found = model.predict_proba(x)[:, 1] if shares else model.predict(x)
    return np.asarray(found, dtype=np.float64)
