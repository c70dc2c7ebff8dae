"""Models of rewards from sums, against scikit-learn's ridge on the rows themselves and against least squares."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from estimators import EstimationError, LinearRewards, direct_method, doubly_robust, fold_of
from estimators.penalised import Quadratic
from estimators.reward_model import FittedRewards
from tests.estimators.bandits import Bandit, bandit

ACTIONS = ("cheap", "fast", "large")
FOLDS = 4


@pytest.fixture(scope="module")
def logs() -> Bandit:
    return bandit(3, units=300, rows=2, actions=3)


def fitted(
    logs: Bandit, rewards: np.ndarray, *, chunk: int = 1000, penalty: Any = "light", target: Any = None
) -> FittedRewards:
    models = LinearRewards(ACTIONS, folds=FOLDS, rewards=1 if rewards.ndim == 1 else rewards.shape[1], penalty=penalty)
    fold = fold_of(logs.units, FOLDS)
    for start in range(0, len(fold), chunk):
        some = slice(start, start + chunk)
        models.add(logs.x[some], logs.action[some], fold[some], rewards[some], None if target is None else target[some])
    return models.fit()


def by_hand(logs: Bandit, y: np.ndarray, alpha: float) -> np.ndarray:
    """``(n, actions)`` predictions of scikit-learn's ridge on columns standardised over all rows."""
    from sklearn.linear_model import Ridge

    z = (logs.x - logs.x.mean(axis=0)) / logs.x.std(axis=0)
    fold, out = fold_of(logs.units, FOLDS), np.empty((len(y), len(ACTIONS)))
    for k in range(FOLDS):
        for a in range(len(ACTIONS)):
            learn = (fold != k) & (logs.action == a) & ~np.isnan(y)
            model = Ridge(alpha=alpha * learn.sum() if alpha < 1.0 else alpha).fit(z[learn], y[learn])
            out[fold == k, a] = model.predict(z[fold == k])
    return out


@pytest.mark.parametrize(("penalty", "alpha"), [("light", 1.0), (0.03, 0.03)])
@pytest.mark.parametrize("chunk", [1000, 170, 7])
def test_the_ridge_of_scikit_learn_in_whatever_chunks(logs: Bandit, penalty: Any, alpha: float, chunk: int) -> None:
    q = by_hand(logs, logs.reward, alpha)
    models, fold = fitted(logs, logs.reward, chunk=chunk, penalty=penalty), fold_of(logs.units, FOLDS)
    assert models.predict(logs.x, fold)[:, :, 0] == pytest.approx(q, rel=1e-9, abs=1e-9)
    found = models.scores(logs.x, logs.action, fold, logs.target)
    each = np.arange(len(q))
    assert found.logged[:, 0] == pytest.approx(q[each, logs.action], rel=1e-9, abs=1e-9)
    assert found.direct[:, 0] == pytest.approx(q[each, logs.target], rel=1e-9, abs=1e-9)
    policy = np.random.default_rng(0).dirichlet(np.ones(3), size=len(q))
    mixed = models.scores(logs.x, logs.action, fold, policy)
    assert mixed.direct[:, 0] == pytest.approx((policy * q).sum(axis=1), rel=1e-9, abs=1e-9)


def test_the_penalty_is_that_of_the_other_ridge(logs: Bandit) -> None:
    """Chosen for all actions at once, as ``estimators/penalised.py`` chooses it for one."""
    models, fold = fitted(logs, logs.reward, penalty="cross_validated"), fold_of(logs.units, FOLDS)
    z = np.c_[np.ones(len(fold)), (logs.x - logs.x.mean(axis=0)) / logs.x.std(axis=0)]
    y = logs.reward - logs.reward.mean()
    for k in range(FOLDS):
        for a in range(len(ACTIONS)):
            cells = [(fold == f) & (logs.action == a) for f in range(FOLDS) if f != k]
            loss = Quadratic(
                np.stack([z[c].T @ z[c] for c in cells]),
                np.stack([z[c].T @ y[c] for c in cells]),
                np.array([float(c.sum()) for c in cells]),
            )
            assert models.penalties[k, a, 0] == loss.best_penalty()


def test_a_reward_that_is_missing_in_some_rows_learns_from_the_others(logs: Bandit) -> None:
    gaps = np.where(np.arange(len(logs.reward)) % 3 == 0, np.nan, logs.cost)
    models = fitted(logs, np.column_stack([logs.reward, gaps]), chunk=100)
    q = models.predict(logs.x, fold_of(logs.units, FOLDS))
    assert q[:, :, 0] == pytest.approx(by_hand(logs, logs.reward, 1.0), rel=1e-9)
    # The penalty and the constant are those of the rows that have the reward, the columns' scale that of all.
    assert q[:, :, 1] == pytest.approx(by_hand(logs, gaps, 1.0), rel=1e-9)


def test_features_of_a_large_level_and_rewards_too_cost_no_digits(logs: Bandit) -> None:
    plain = fitted(logs, logs.reward).predict(logs.x, fold_of(logs.units, FOLDS))
    far = Bandit(**{name: getattr(logs, name) for name in logs.__dataclass_fields__} | {"x": logs.x + 1e6})
    high = fitted(far, logs.reward + 1e6, chunk=50).predict(far.x, fold_of(logs.units, FOLDS))
    assert high - 1e6 == pytest.approx(plain, abs=1e-7)


def test_one_penalty_does_not_follow_the_first_chunk(logs: Bandit) -> None:
    """A first chunk in which one feature does not vary and another hardly does."""
    x = logs.x.copy()
    x[:10, 0], x[:10, 1] = 4.0, 3.0 + 1e-7 * x[:10, 1]
    odd = Bandit(**{name: getattr(logs, name) for name in logs.__dataclass_fields__} | {"x": x})
    q = fitted(odd, logs.reward, chunk=10).predict(x, fold_of(logs.units, FOLDS))
    assert q[:, :, 0] == pytest.approx(by_hand(odd, logs.reward, 1.0), rel=1e-6)


def test_a_feature_that_does_not_vary_counts_for_nothing(logs: Bandit) -> None:
    fold = fold_of(logs.units, FOLDS)
    plain = fitted(logs, logs.reward).predict(logs.x, fold)
    wide = Bandit(**{n: getattr(logs, n) for n in logs.__dataclass_fields__} | {"x": np.c_[logs.x, np.full(600, 7.0)]})
    assert fitted(wide, logs.reward).predict(wide.x, fold) == pytest.approx(plain, rel=1e-12)


def test_the_error_of_linear_models_is_that_of_least_squares() -> None:
    """With one fold and no penalty: the influence of rows through coefficients, written out by action."""
    logs = bandit(11, units=400, rows=1, actions=3)
    found = direct_method(logs.reward, features=logs.x, action=logs.action, target=logs.target, folds=1, penalty=0.0)
    z, n = np.c_[np.ones(400), logs.x], 400
    q, influence = np.empty(n), np.zeros(n)
    for a in range(3):
        mine, to = logs.action == a, logs.target == a
        coef = np.linalg.lstsq(z[mine], logs.reward[mine])[0]
        q[to] = z[to] @ coef
        pull = np.linalg.solve(z[mine].T @ z[mine], z[to].sum(axis=0))
        influence[mine] += (z[mine] @ pull) * (logs.reward[mine] - z[mine] @ coef)
    assert found.treatment_value == pytest.approx(q.mean(), rel=1e-10)
    influence += q - q.mean()
    expected = np.sqrt(n / (n - 1) * (influence @ influence)) / n
    assert found.diagnostics["values"]["target"]["std_error"] == pytest.approx(expected, rel=1e-9)
    with_logging = influence - (logs.reward - logs.reward.mean())
    expected = np.sqrt(n / (n - 1) * (with_logging @ with_logging)) / n
    assert found.std_error == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("method", "metric"), [("direct", "mean"), ("cut", "mean"), ("cut", "ratio")])
def test_errors_are_the_infinitesimal_jackknife(method: str, metric: str) -> None:
    """The derivative of the whole value, models refitted, in the weight of each row, by finite differences."""
    logs, n = bandit(12, units=90, rows=1, actions=3), 90
    z, den = np.c_[np.ones(n), logs.x], logs.cost if metric == "ratio" else None
    w = np.minimum(logs.weight, 1.5) if method == "cut" else np.zeros(n)

    def mean(y: np.ndarray, v: np.ndarray) -> float:
        score = np.zeros(n)
        for a in range(3):
            mine, root = logs.action == a, np.sqrt(v)
            coef = np.linalg.lstsq((z * root[:, None])[mine], (y * root)[mine])[0]
            score += (logs.target == a) * (z @ coef) + mine * w * (y - z @ coef)
        return float(v @ score / v.sum())

    def value(v: np.ndarray) -> float:
        return mean(logs.reward, v) / (1.0 if den is None else mean(den, v))

    given: dict[str, Any] = {"features": logs.x, "action": logs.action, "target": logs.target, "denominator": den}
    given |= {"folds": 1, "penalty": 0.0}
    if method == "cut":
        found = doubly_robust(logs.reward, logs.weight, clip=1.5, **given)
    else:
        found = direct_method(logs.reward, **given)
    assert found.treatment_value == pytest.approx(value(np.ones(n)), rel=1e-9)
    slope = np.array([value(np.ones(n) + d) - value(np.ones(n) - d) for d in 1e-4 * np.eye(n)]) / 2e-4
    expected = np.sqrt(n / (n - 1) * float(slope @ slope))
    assert found.diagnostics["values"]["target"]["std_error"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("policy", ["codes", "probabilities"])
@pytest.mark.parametrize("gaps", [False, True])
def test_the_models_error_is_the_same_in_whatever_chunks(logs: Bandit, policy: str, gaps: bool) -> None:
    target: Any = logs.target if policy == "codes" else np.eye(3)[logs.target]
    reward = np.where(np.arange(len(logs.reward)) % 5 == 0, np.nan, logs.reward) if gaps else logs.reward
    fold = fold_of(logs.units, FOLDS)
    whole = fitted(logs, reward, target=target).scores(logs.x, logs.action, fold, target, reward)
    parts = fitted(logs, reward, chunk=90, target=logs.target).scores(logs.x, logs.action, fold, logs.target, reward)
    assert whole.fitted is not None
    assert parts.fitted is not None
    assert whole.fitted == pytest.approx(parts.fitted, rel=1e-9, abs=1e-9)
    found = direct_method(
        reward, features=logs.x, action=logs.action, target=logs.target, units=logs.units, folds=FOLDS
    )
    seen = ~np.isnan(reward)
    # The method on arrays standardises over the rows that have the reward, which a light penalty hardly feels.
    assert found.treatment_value == pytest.approx(whole.direct[seen, 0].mean(), rel=1e-9 if not gaps else 1e-4)


def test_an_action_that_cannot_be_learnt_is_named_where_the_target_takes_it(logs: Bandit) -> None:
    rare = np.where(logs.action == 2, 1, logs.action)
    never = np.where(logs.target == 2, 0, logs.target)
    names = {"features": logs.x, "action": rare, "actions": ACTIONS, "units": logs.units}
    weight = (rare == logs.target) / logs.propensity
    with pytest.raises(EstimationError, match="takes the action 'large', which no row outside one of the folds has"):
        doubly_robust(logs.reward, weight, target=logs.target, **names)
    assert np.isfinite(doubly_robust(logs.reward, weight, target=never, **names).estimate)
    with pytest.raises(EstimationError, match="takes the action 'large', which no row outside one of the folds has"):
        doubly_robust(logs.reward, weight, target=logs.target, outcome="boosting", **names)
    rare[:3] = 2
    with pytest.raises(EstimationError, match="whose model has 4 coefficients and"):
        direct_method(logs.reward, target=logs.target, folds=2, **{**names, "units": None})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"target": np.zeros(600)}, "one action a row, or a probability"),
        ({"target": np.full((600, 3), 0.5)}, "do not add up to 1 in 600 rows"),
        ({"target": np.full((600, 3), -1.0)}, "from 0 up"),
        ({"target": np.full(600, 3)}, "outside 0 to 2"),
        ({"action": np.full(600, -1)}, "outside 0 to 2"),
        ({"features": np.full((600, 2), np.nan)}, "features hold values that are not finite"),
        ({"features": np.zeros((5, 2))}, "one row per reward"),
        ({"folds": np.arange(600) % 2}, "unit stand in two folds"),
        ({"folds": 0}, "whole number of at least 1"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(logs: Bandit, change: dict[str, Any], said: str) -> None:
    given = {"features": logs.x, "action": logs.action, "target": logs.target, "units": logs.units, "actions": ACTIONS}
    with pytest.raises(EstimationError, match=said):
        doubly_robust(logs.reward, logs.weight, **(given | change))


def test_boosted_trees_never_see_the_row_that_they_predict() -> None:
    logs = bandit(5, units=500, rows=2, actions=3, bent=1.5)
    given = {"action": logs.action, "target": logs.target, "units": logs.units, "folds": 3}
    found = doubly_robust(logs.reward, logs.weight, features=logs.x, outcome="boosting", **given)
    linear = doubly_robust(logs.reward, logs.weight, features=logs.x, **given)
    assert found.diagnostics["outcome_fit"] > linear.diagnostics["outcome_fit"] + 0.05
    assert found.std_error < linear.std_error
    shared = doubly_robust(logs.reward, logs.weight, features=logs.units[:, None], outcome="boosting", **given)
    assert shared.diagnostics["outcome_fit"] < 0.2
