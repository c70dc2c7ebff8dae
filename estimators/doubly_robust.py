"""Doubly robust value of a policy: a model's prediction for it, plus the weighted mean of what the model misses.

``V = mean(sum_a pi(a|x) q(x, a) + w (r - q(x, A)))``. Unbiased where the propensities are right whatever the model, and
consistent where the model is right whatever the propensities; with models that never saw a row's unit its first-order
error does not hang on theirs. Dudik, Langford and Li (2011), *Doubly robust policy evaluation and learning*;
Chernozhukov et al. (2018). ``clip`` caps the weights; ``switch`` takes the prediction alone where the weight is above
it: Wang, Agarwal and Dudik (2017), *Optimal and adaptive off-policy evaluation in contextual bandits*. Either lowers
the error and leaves a bias where the model is wrong; the linear models' own error, which cut weights no longer take
off, is then a part of the value's. Estimand, assumptions and errors: ``estimators/policy_value.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from estimators.estimate import Estimate
from estimators.inference import EstimationError
from estimators.ips import Logged, capped, logged, weight_sums
from estimators.modelled_rewards import given_rewards, modelled_rewards
from estimators.penalised import Penalty
from estimators.policy_value import UnitSums, Vector, policy_value
from estimators.potential_means import explained
from estimators.reward_model import Scores


def doubly_robust(
    reward: ArrayLike,
    weight: ArrayLike,
    *,
    action: ArrayLike,
    target: ArrayLike,
    features: ArrayLike | None = None,
    predictions: ArrayLike | None = None,
    actions: Sequence[str] | None = None,
    denominator: ArrayLike | None = None,
    units: ArrayLike | None = None,
    clip: float | None = None,
    switch: float | None = None,
    outcome: str = "linear",
    folds: int | ArrayLike = 5,
    penalty: Penalty = "cross_validated",
    seed: int = 0,
    alpha: float = 0.05,
) -> Estimate:
    """The target policy's value by predictions and weighted residuals, minus the logging policy's.

    Args:
        reward: ``(n,)``; NaN: left out.
        weight: ``(n,)`` ``pi(A|x) / p(A|x)`` of the logged action.
        action: ``(n,)`` codes of the logged actions.
        target: ``(n,)`` codes of the actions that the target takes, or ``(n, actions)`` its probabilities.
        features: ``(n, p)`` facts from before the action, without a constant; what the model of the reward sees.
        predictions: ``(n, actions)`` rewards predicted by a model that never saw the rows, in place of ``features``;
            ``(n, actions, 2)`` for a ratio metric.
        actions: Names of the actions, for messages.
        denominator: ``(n,)`` of a ratio metric; it is modelled and weighted as the numerator is.
        units: ``(n,)`` labels of independent units, rows of one unit alike; None: every row is one.
        clip: Weights above it count as it; None: none.
        switch: Rows whose weight is above it count by their prediction alone; None: none.
        outcome, folds, penalty, seed: As in :func:`estimators.modelled_rewards.modelled_rewards`.
        alpha: Level; intervals are at ``1 - alpha``.

    Returns:
        As :func:`estimators.policy_value.policy_value`; ``diagnostics`` also ``clip``, ``switch``, ``outcome``,
        ``outcome_fit`` (share of the logged rewards' variance that predictions explain) and ``rows_left_out``.

    Raises:
        ValueError: An unknown model, both ``features`` and ``predictions`` or neither, or a ``clip`` or ``switch`` that
            is not positive.
        EstimationError: Arrays that do not fit, an action that the target takes and the logs do not hold, weights that
            are not finite, fewer than two units, or no variation.
    """
    rows = logged(reward, weight, denominator=denominator, units=units)
    assert rows.weight is not None
    w = kept_weights(rows.weight, clip, switch)
    cut = outcome == "linear" and (clip is not None or switch is not None)
    if (features is None) == (predictions is None):
        raise ValueError("give features or predictions")
    if predictions is not None:
        scores = given_rewards(rows, predictions, action, target)
    else:
        assert features is not None
        scores = modelled_rewards(
            rows,
            features,
            action,
            target,
            actions=actions,
            outcome=outcome,
            folds=folds,
            penalty=penalty,
            seed=seed,
            own_error=cut,
            weight=w if cut else None,
        )
    if not np.isfinite(scores.logged[w > 0.0]).all():
        raise EstimationError("a prediction is not a finite number")
    counts = rows.by_unit(None)
    sums = UnitSums(
        rows=counts,
        logged_num=rows.by_unit(rows.num),
        logged_den=counts if rows.den is None else rows.by_unit(rows.den),
        target_num=rows.by_unit(augmented(rows.num, w, scores, 0)),
        target_den=counts if rows.den is None else rows.by_unit(augmented(rows.den, w, scores, 1)),
        fitted_num=None if scores.fitted is None else rows.by_unit(scores.fitted[:, 0]),
        fitted_den=None if scores.fitted is None or rows.den is None else rows.by_unit(scores.fitted[:, 1]),
        **weight_sums(rows, w),
    )
    more: dict[str, Any] = {
        "clip": clip,
        "switch": switch,
        "outcome": "given" if predictions is not None else outcome,
        "outcome_fit": outcome_fit(rows, scores),
    }
    return policy_value(sums, method="doubly_robust", alpha=alpha, diagnostics=more | rows.notes)


def kept_weights(weight: Vector, clip: float | None, switch: float | None) -> Vector:
    """Weights as they are used: 0 above ``switch``, then capped at ``clip``.

    Raises:
        ValueError: One that is not positive.
    """
    if switch is not None:
        if not switch > 0.0:
            raise ValueError("switch must be a positive number")
        weight = np.where(weight > switch, 0.0, weight)
    return capped(weight, clip)


def augmented(reward: Vector, w: Vector, scores: Scores, which: int) -> Vector:
    """Doubly robust scores of rows; a prediction for an action that the target does not take is not looked at."""
    rest = np.where(w > 0.0, reward - scores.logged[:, which], 0.0)
    return np.asarray(scores.direct[:, which] + w * rest)


def outcome_fit(rows: Logged, scores: Scores) -> float | None:
    """Share of the logged rewards' variance that predictions explain; None where a prediction is missing."""
    if not np.isfinite(scores.logged[:, 0]).all():
        return None
    return explained(rows.num, scores.logged[:, 0], np.ones(rows.n, dtype=np.bool_))
