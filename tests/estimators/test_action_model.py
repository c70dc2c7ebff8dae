"""Estimated propensities: against statsmodels' multinomial logit and a penalised fit by scipy, and what they cover."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from estimators import EstimationError, ips, snips
from estimators.action_model import _STRENGTH, action_probabilities
from estimators.reward_model import fold_of

SEEDS, ROWS = 60, 500
SLOPE = np.array([[0.0, 0.0], [0.5, -0.3], [-0.3, 0.6]])
CONSTANT = np.array([0.0, 0.3, -0.2])
# Of the target, which takes action 2 in half of the states and action 1 in the others.
TRUTH = 2.75


def chances(x: np.ndarray) -> np.ndarray:
    raised = np.exp(x @ SLOPE.T + CONSTANT)
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def drawn(seed: int, n: int = ROWS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, actions by a softmax of them, and the true probability of each."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    p = chances(x)
    action = (rng.random(n)[:, None] > p.cumsum(axis=1)).sum(axis=1)
    return x, action, p[np.arange(n), action]


@pytest.mark.parametrize("actions", [2, 3])
@pytest.mark.parametrize("folds", [1, 3])
def test_a_logit_is_that_of_statsmodels(actions: int, folds: int) -> None:
    import statsmodels.api as sm

    x, action, _ = drawn(1)
    x = x * [1.0, 250.0] + [0.0, 4000.0]
    action = np.minimum(action, actions - 1)
    fold = np.arange(ROWS) % folds
    found = action_probabilities(x, action, fold)
    for k in range(folds):
        mine = fold == k
        rest = ~mine if folds > 1 else mine
        # Newton's steps need numbers of one size; a logit's probabilities do not hang on it.
        scaled = np.column_stack([np.ones(ROWS), x[:, 0], (x[:, 1] - 4000.0) / 250.0])
        model = sm.MNLogit(action[rest], scaled[rest]).fit(disp=0, tol=1e-12, maxiter=100)
        wanted = model.predict(scaled[mine])[np.arange(mine.sum()), action[mine]]
        np.testing.assert_allclose(found[mine], wanted, atol=1e-6)


def test_actions_that_a_feature_tells_apart_get_the_fit_of_the_stated_penalty() -> None:
    """Without one there is none: the reference minimises minus the log likelihood plus half the squared slopes over
    the strength, with an intercept that is free."""
    from scipy.optimize import minimize
    from scipy.special import log_expit

    x = np.r_[np.linspace(-2.0, -0.5, 20), np.linspace(0.5, 2.0, 20)]
    action = np.repeat([0, 1], 20)
    z = (x - x.mean()) / x.std()
    sign = 2.0 * action - 1.0

    def loss(b: np.ndarray) -> float:
        return float(-log_expit(sign * (b[0] + b[1] * z)).sum() + b[1] ** 2 / (2.0 * _STRENGTH))

    best: Any = minimize(
        loss, [0.0, 5.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-15, "maxiter": 4000}
    )
    wanted = np.exp(log_expit(sign * (best.x[0] + best.x[1] * z)))
    found = action_probabilities(x[:, None], action, np.zeros(40, dtype=int))
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_without_features_it_is_the_share_outside_the_fold() -> None:
    action, fold = np.array([0, 0, 1, 0, 1, 1]), np.array([0, 0, 0, 1, 1, 1])
    found = action_probabilities(np.empty((6, 0)), action, fold)
    np.testing.assert_allclose(found, [1 / 3, 1 / 3, 2 / 3, 2 / 3, 1 / 3, 1 / 3])


def test_what_no_model_can_tell_is_refused() -> None:
    x = np.zeros((4, 1))
    with pytest.raises(EstimationError, match="no row outside one of the folds"):
        action_probabilities(x, [0, 0, 1, 2], [0, 0, 1, 1])
    with pytest.raises(EstimationError, match="a single action was logged"):
        action_probabilities(x, [1, 1, 1, 1], [0, 0, 1, 1])
    with pytest.raises(EstimationError, match="not finite"):
        action_probabilities(x * np.nan, [0, 1, 0, 1], [0, 0, 1, 1])


def shares(features: slice) -> dict[str, tuple[float, float, float]]:
    """Of logs whose actions and rewards hang on two features, with probabilities estimated from some of them: how many
    intervals hold the target's value, bias in standard deviations, and the mean error that is said over the true."""
    found: dict[str, list[tuple[float, float, bool]]] = {"ips": [], "snips": []}
    for seed in range(SEEDS):
        x, action, _ = drawn(100 + seed)
        reward = 2.0 + 0.5 * action + x @ [0.3, 1.2] + np.random.default_rng(900 + seed).normal(size=ROWS)
        target = np.where(x[:, 0] > 0.0, 2, 1)
        p = action_probabilities(x[:, features], action, fold_of(np.arange(ROWS), 3, seed))
        for name, method in (("ips", ips), ("snips", snips)):
            value = method(reward, (action == target) / p).diagnostics["values"]["target"]
            holds = value["ci_low"] <= TRUTH <= value["ci_high"]
            found[name].append((value["value"] - TRUTH, value["std_error"], holds))
    out = {}
    for name, rows in found.items():
        errors, said, held = map(np.array, zip(*rows, strict=True))
        spread = errors.std(ddof=1)
        out[name] = float(held.mean()), float(errors.mean() / spread), float(said.mean() / spread)
    return out


def test_intervals_hold_where_the_model_is_right_and_those_of_ips_are_wider_than_need_be() -> None:
    """Of 60 at 95 % fewer than 52 have a chance below 1 %."""
    found = shares(slice(0, 2))
    assert min(covered for covered, _, _ in found.values()) >= 52 / 60
    assert abs(found["snips"][1]) < 0.5
    assert found["ips"][2] > 1.3


def test_a_feature_that_the_model_lacks_is_no_part_of_the_interval() -> None:
    covered, bias, _ = shares(slice(1, 2))["ips"]
    assert covered < 0.5
    assert bias < -1.0
