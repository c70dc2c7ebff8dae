"""Probabilities of logged actions where none were logged: a model of the action, cross-fitted by unit.

A multinomial logit on standardised columns (McFadden 1974), or boosted trees; a row's probability comes from a model
that never saw its fold. Weights that are made of it are right only where the model is, and where nothing that the
features lack moved both the action and the outcome.

Intervals of values that are weighted by it take it as known, which leaves out:

- what the model gets wrong, or has no column for. That is a bias, it does not shrink with rows, and nothing in the
  interval tells of it.
- the error of its fit. With a logit that is right it makes ``ips`` less sure on paper than it is (its true error is
  smaller than with the true probabilities: Hirano, Imbens and Ridder 2003, *Efficient estimation of average treatment
  effects using the estimated propensity score*), so that its interval is too wide, up to twice where weights are
  light; ``snips`` and ``doubly_robust`` hardly feel it. Nothing of the kind is known of boosting.
- that ``1 / p`` of an estimate is too large in the mean: ``ips`` is moved away from 0 by a part of its error where
  probabilities are small. ``snips`` divides that out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from estimators.inference import EstimationError

MODELS = ("logit", "boosting")
# Inverse of the ridge penalty: only enough of one that separable actions have a fit.
_STRENGTH = 1e6


def action_probabilities(
    x: ArrayLike,
    action: ArrayLike,
    fold: ArrayLike,
    *,
    model: str = "logit",
    seed: int = 0,
) -> NDArray[np.float64]:
    """``(n,)`` probability of each row's own action.

    Args:
        x: ``(n, p)`` facts from before the action, without a constant; finite.
        action: ``(n,)`` codes of the logged actions.
        fold: ``(n,)`` from 0; one fold only: the model is fitted to the rows that it predicts.
        model: ``logit`` or ``boosting``.
        seed: Of boosting.

    Raises:
        ValueError: An unknown model.
        EstimationError: Arrays that do not fit, values that are not finite, a single action, or an action that no row
            outside a fold has.
    """
    if model not in MODELS:
        raise ValueError(f"model must be one of {MODELS}")
    features, codes, folds = np.asarray(x, dtype=np.float64), np.asarray(action), np.asarray(fold)
    if features.ndim != 2 or not len(features) == len(codes) == len(folds):
        raise EstimationError("features, actions and folds must have one row each")
    if not np.isfinite(features).all():
        raise EstimationError("features hold values that are not finite")
    if len(np.unique(codes)) < 2:
        raise EstimationError("a single action was logged, so its probability is 1 and no other has any")
    out = np.empty(len(codes))
    several = len(np.unique(folds)) > 1
    for k in np.unique(folds):
        mine = folds == k
        rest = ~mine if several else mine
        out[mine] = _of_fold(features[rest], codes[rest], features[mine], codes[mine], model, seed)
    return out


def _of_fold(
    x: NDArray[np.float64],
    action: NDArray[np.intp],
    at: NDArray[np.float64],
    own: NDArray[np.intp],
    model: str,
    seed: int,
) -> NDArray[np.float64]:
    known = np.unique(action)
    if len(missing := np.setdiff1d(np.unique(own), known)):
        raise EstimationError(f"action {int(missing[0])} has no row outside one of the folds, so no model knows it")
    if len(known) < 2:
        raise EstimationError("one of the folds leaves a single action, so no model can tell actions apart")
    if not x.shape[1]:
        share = np.array([np.mean(action == one) for one in known])
        return np.asarray(share[np.searchsorted(known, own)])
    if model == "boosting":
        from sklearn.ensemble import HistGradientBoostingClassifier

        trees = HistGradientBoostingClassifier(random_state=seed, early_stopping=False, max_iter=100)
        found = trees.fit(x, action).predict_proba(at)
    else:
        from sklearn.linear_model import LogisticRegression

        centre, scale = x.mean(axis=0), x.std(axis=0)
        scale = np.where(scale > 0.0, scale, 1.0)
        logit = LogisticRegression(C=_STRENGTH, solver="newton-cg", tol=1e-8, max_iter=500)
        found = logit.fit((x - centre) / scale, action).predict_proba((at - centre) / scale)
    return np.asarray(found[np.arange(len(own)), np.searchsorted(known, own)], dtype=np.float64)
