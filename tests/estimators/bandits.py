"""Logged bandit rows whose policies' values are known."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Codes = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Bandit:
    """Rows of a logging policy, and the target policy on them.

    Attributes:
        x: ``(n, p)`` features.
        action, target: ``(n,)`` codes of the logged action, and of the one that the target takes.
        propensity: ``(n,)`` of the logged action.
        weight: ``(n,)``.
        reward, cost: ``(n,)``.
        units: ``(n,)``.
        truth: The target's value in these rows' features: mean expected reward.
    """

    x: Array
    action: Codes
    target: Codes
    propensity: Array
    weight: Array
    reward: Array
    cost: Array
    units: Codes
    truth: float

    def take(self, rows: NDArray[np.int64]) -> Bandit:
        """These rows."""
        arrays = ("x", "action", "target", "propensity", "weight", "reward", "cost", "units")
        return replace(self, **{name: getattr(self, name)[rows] for name in arrays})

    def with_reward(self, reward: Array) -> Bandit:
        """The same with another reward."""
        return replace(self, reward=reward)


def bandit(seed: int, *, units: int, rows: int, actions: int, bent: float = 0.0, explore: float = 0.3) -> Bandit:
    """``rows`` rows for each of the units, whose effect all of them share; ``bent`` adds what is not linear in ``x``.

    The logging policy takes its favourite, by the first feature, but for a share of ``explore`` at random; the target
    has another favourite.
    """
    rng = np.random.default_rng(seed)
    n = units * rows
    x = rng.normal(size=(n, 3))
    unit = np.repeat(np.arange(units), rows)
    shared = 0.3 * rng.normal(size=units)[unit]
    favourite = (actions * (np.argsort(np.argsort(x[:, 0])) + 0.5) / n).astype(np.int64)
    target = (favourite + (x[:, 1] > 0.0)) % actions
    p = np.full((n, actions), explore / actions)
    p[np.arange(n), favourite] += 1.0 - explore
    action = (rng.random(n)[:, None] > np.cumsum(p, axis=1)).sum(axis=1)
    slope = np.random.default_rng(99).normal(size=(actions, 3))
    mean = 2.0 + 0.5 * x @ slope.T + 0.2 * np.arange(actions) + bent * x[:, :1] * x[:, 1:2] * np.arange(actions)
    each = np.arange(n)
    reward = mean[each, action] + shared + rng.normal(size=n)
    propensity = p[each, action]
    weight = (action == target) / propensity
    cost = 1.0 + rng.gamma(2.0, 0.5, size=n)
    return Bandit(x, action, target, propensity, weight, reward, cost, unit, float(mean[each, target].mean()))


def softmax_policy(logs: Bandit, actions: int) -> Array:
    """``(n, actions)`` probabilities of a target policy that follows the features."""
    score = logs.x @ np.random.default_rng(5).normal(size=(3, actions))
    score = np.exp(score - score.max(axis=1, keepdims=True))
    return np.asarray(score / score.sum(axis=1, keepdims=True))


def crude_predictions(logs: Bandit, actions: int) -> Array:
    """``(n, actions)`` rewards that somebody's model predicts, wrong in part."""
    return np.asarray(2.0 + 0.3 * logs.x[:, :1] + 0.1 * np.arange(actions) + 0.05 * logs.x[:, 1:2] * np.arange(actions))
