"""Predicted rewards of rows held in memory, by linear models or boosted trees, cross-fitted by unit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from estimators.boosting import fit_trees, predict_trees
from estimators.inference import EstimationError
from estimators.ips import Logged
from estimators.penalised import Penalty
from estimators.reward_model import LinearRewards, Scores, fold_of
from estimators.reward_sums import Codes, Matrix, Policy, Vector, codes_of, features_of, policy_of, rewards_of

OUTCOME = ("linear", "boosting")
_LEVELS = 255  # as many as scikit-learn's trees take


def modelled_rewards(
    rows: Logged,
    features: ArrayLike,
    action: ArrayLike,
    target: ArrayLike,
    *,
    actions: Sequence[str] | None = None,
    outcome: str = "linear",
    folds: int | ArrayLike = 5,
    penalty: Penalty = "cross_validated",
    seed: int = 0,
    own_error: bool = False,
    weight: Vector | None = None,
) -> Scores:
    """Predictions for the rows that have an outcome; of a ratio metric numerator and denominator are two rewards.

    Args:
        rows: The metric's rows.
        features: ``(n, p)`` facts from before the action, of all rows, without a constant.
        action: ``(n,)`` codes of the logged actions.
        target: ``(n,)`` codes of the target's actions, or ``(n, actions)`` probabilities.
        actions: Names in the order of their codes; None: the codes that occur.
        outcome: ``linear``: a model by action. ``boosting``: trees that see the action as a level, one model a fold.
        folds: How many, units dealt to them by a hash; or ``(n,)`` labels from 0.
        penalty: Of the linear models.
        seed: Of the folds and of boosting.
        own_error: Also what fitting the linear models adds to the rows' influence.
        weight: ``(rows.n,)`` as in :meth:`estimators.reward_model.LinearRewards.add`.

    Raises:
        ValueError: An unknown model.
        EstimationError: Arrays that do not fit, a unit in two folds, or an action that the target takes and no row
            outside a fold has.
    """
    if outcome not in OUTCOME:
        raise ValueError(f"outcome must be one of {OUTCOME}")
    names = _names(action, target) if actions is None else tuple(actions)
    x, codes = features_of(features), codes_of(action, len(names), "logged action")
    policy = policy_of(target, len(rows.seen), names)
    if not len(x) == len(codes) == len(rows.seen):
        raise EstimationError("features and actions must have one row per reward")
    x, codes, policy = x[rows.seen], codes[rows.seen], policy[rows.seen]
    fold, n_folds = _folds(folds, rows, seed)
    y = rows.num[:, None] if rows.den is None else np.column_stack([rows.num, rows.den])
    if outcome == "boosting":
        return _boosted(x, codes, policy, fold, n_folds, y, names, seed)
    models = LinearRewards(names, folds=n_folds, rewards=y.shape[1], penalty=penalty)
    models.add(x, codes, fold, y, policy if own_error else None, weight)
    return models.fit().scores(x, codes, fold, policy, y if own_error else None)


def given_rewards(rows: Logged, predictions: ArrayLike, action: ArrayLike, target: ArrayLike) -> Scores:
    """The same from predictions that are there already, ``(n, actions)`` or ``(n, actions, rewards)``.

    Raises:
        EstimationError: Arrays that do not fit, or predictions that are not finite for an action that counts.
    """
    q = np.asarray(predictions, dtype=np.float64)
    q = q[:, :, None] if q.ndim == 2 else q
    n_rewards = 1 if rows.den is None else 2
    if q.ndim != 3 or len(q) != len(rows.seen) or q.shape[2] != n_rewards:
        raise EstimationError("predictions must be rows by actions, and by two for a ratio metric")
    names = tuple(str(a) for a in range(q.shape[1]))
    policy, codes = policy_of(target, len(q), names)[rows.seen], codes_of(action, q.shape[1], "logged action")
    if len(codes) != len(q):
        raise EstimationError("actions must be one a row")
    return _from_predictions(q[rows.seen], codes[rows.seen], policy)


def _from_predictions(q: NDArray[np.float64], codes: Codes, policy: Policy) -> Scores:
    each = np.arange(len(q))
    if policy.ndim == 1:
        direct = q[each, policy.astype(np.intp)]
    else:
        # An action that the target does not take needs no prediction.
        direct = np.einsum("na,nam->nm", policy, np.where(policy[:, :, None] > 0.0, q, 0.0))
    logged = q[each, codes]
    if not np.isfinite(direct).all():
        raise EstimationError("a prediction is not a finite number")
    return Scores(direct, logged, None)


def _names(action: ArrayLike, target: ArrayLike) -> tuple[str, ...]:
    policy = np.asarray(target)
    most = int(np.max(np.asarray(action), initial=0))
    count = policy.shape[1] if policy.ndim == 2 else max(most, int(np.max(policy, initial=0))) + 1
    return tuple(str(a) for a in range(count))


def _folds(folds: int | ArrayLike, rows: Logged, seed: int) -> tuple[Codes, int]:
    if np.ndim(folds) == 0:
        n_folds = int(np.asarray(folds))
        if n_folds < 1 or n_folds != np.asarray(folds):
            raise EstimationError("folds must be a whole number of at least 1, or a label a row")
        return fold_of(rows.keys[rows.units], n_folds, seed), n_folds
    labels = np.asarray(folds)
    if labels.shape != rows.seen.shape:
        raise EstimationError("fold labels must be one a row")
    n_folds = int(labels.max()) + 1
    fold = codes_of(labels, n_folds, "fold")[rows.seen]
    of_unit = np.zeros(rows.n_units, dtype=np.intp)
    of_unit[rows.units] = fold
    if (of_unit[rows.units] != fold).any():
        raise EstimationError("rows of one unit stand in two folds")
    return fold, n_folds


def _boosted(
    x: Matrix,
    codes: Codes,
    policy: Policy,
    fold: Codes,
    n_folds: int,
    y: Matrix,
    names: tuple[str, ...],
    seed: int,
) -> Scores:
    if len(names) > _LEVELS:
        raise EstimationError(f"boosting takes at most {_LEVELS} actions; take outcome linear")
    y = rewards_of(y, y.shape[1])
    direct, logged = np.zeros(y.shape), np.empty(y.shape)
    p, with_action = x.shape[1], np.column_stack([x, codes])
    for k in range(n_folds):
        mine = np.flatnonzero(fold == k)
        training = [np.flatnonzero(fold == f) for f in range(n_folds) if n_folds == 1 or f != k]
        parts = [part for part in training if len(part)]
        _refuse_untried(codes, parts, policy[mine], names)
        for j in range(y.shape[1]):
            shares = bool(((y[:, j] == 0.0) | (y[:, j] == 1.0)).all()) and y[:, j].min() < y[:, j].max()
            model = fit_trees(with_action, y[:, j], parts, shares, seed, levels=p)
            logged[mine, j] = predict_trees(model, with_action[mine], shares)
            for a in range(len(names)):
                share = (policy[mine] == a).astype(np.float64) if policy.ndim == 1 else policy[mine, a]
                some = np.flatnonzero(share)
                if len(some):
                    at = with_action[mine[some]]
                    at[:, p] = a
                    direct[mine[some], j] += share[some] * predict_trees(model, at, shares)
    return Scores(direct, logged, None)


def _refuse_untried(codes: Codes, parts: list[Codes], policy: Policy, names: tuple[str, ...]) -> None:
    tried = np.zeros(len(names), dtype=np.bool_)
    for part in parts:
        tried[codes[part]] = True
    taken = np.unique(policy) if policy.ndim == 1 else np.flatnonzero((policy > 0.0).any(axis=0))
    if len(bad := [int(a) for a in taken if not tried[int(a)]]):
        raise EstimationError(
            f"the target policy takes the action '{names[bad[0]]}', which no row outside one of the folds has, so its "
            "reward cannot be learnt; log it with some probability, or take fewer folds"
        )
