"""Values of policies from sums by unit: against the definitions by hand, and where the data cannot carry them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from estimators import EstimationError, UnitSums, direct_method, doubly_robust, ips, policy_value, snips, value_of
from tests.estimators.bandits import Bandit, bandit


@pytest.fixture(scope="module")
def logs() -> Bandit:
    return bandit(7, units=60, rows=5, actions=4)


def run(method: str, logs: Bandit, **more: Any) -> Any:
    given: dict[str, Any] = {"units": logs.units, **more}
    if method in ("ips", "snips"):
        return {"ips": ips, "snips": snips}[method](logs.reward, logs.weight, **given)
    given |= {"features": logs.x, "action": logs.action, "target": logs.target}
    if method == "direct_method":
        return direct_method(logs.reward, **given)
    return doubly_robust(logs.reward, logs.weight, **given)


METHODS = ("ips", "snips", "direct_method", "doubly_robust")


@pytest.mark.parametrize("method", ["ips", "snips"])
@pytest.mark.parametrize("metric", ["mean", "ratio"])
def test_a_difference_of_two_ratios_by_the_delta_method(logs: Bandit, method: str, metric: str) -> None:
    """The gradient of the whole expression in the four means of units' sums, by finite differences."""
    den = logs.cost if metric == "ratio" else None
    found = run(method, logs, denominator=den)
    w, r = logs.weight, logs.reward
    below = np.ones(len(r)) if den is None else den
    under = below if den is None and method == "ips" else w * below
    columns = [w * r, under, r, below]
    sums = np.stack([np.bincount(logs.units, c) for c in columns])
    means = sums.mean(axis=1)

    def value(m: np.ndarray) -> float:
        return float(m[0] / m[1] - m[2] / m[3])

    step = 1e-6 * np.abs(means)
    gradient = [(value(means + d) - value(means - d)) / (2 * d.sum()) for d in np.diag(step)]
    variance = np.array(gradient) @ np.cov(sums) @ np.array(gradient) / sums.shape[1]
    assert found.estimate == pytest.approx(value(means), rel=1e-12)
    assert found.std_error == pytest.approx(math.sqrt(variance), rel=1e-6)
    assert (found.df, found.n_control, found.n_treatment) == (59.0, 60, 60)
    assert found.treatment_value - found.control_value == pytest.approx(found.estimate)


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_rows_and_names_of_units_do_not_matter(logs: Bandit, method: str) -> None:
    found = run(method, logs)
    order = np.random.default_rng(1).permutation(len(logs.reward))
    again = run(method, logs.take(order))
    for name in ("estimate", "std_error", "ci_low", "relative_ci_high", "control_value"):
        assert getattr(again, name) == pytest.approx(getattr(found, name), rel=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_rows_without_an_outcome_are_left_out(logs: Bandit, method: str) -> None:
    out = np.arange(len(logs.reward)) % 7 == 0
    reward = np.where(out, np.nan, logs.reward)
    found = run(method, logs.with_reward(reward))
    kept = run(method, logs.take(np.flatnonzero(~out)))
    assert found.estimate == pytest.approx(kept.estimate, rel=1e-9)
    assert found.std_error == pytest.approx(kept.std_error, rel=1e-9)
    assert found.diagnostics["rows_left_out"] == out.sum()


@pytest.mark.parametrize("method", METHODS)
def test_another_scale_scales_and_a_large_level_costs_no_digits(logs: Bandit, method: str) -> None:
    found, scaled = run(method, logs), run(method, logs.with_reward(1000.0 * logs.reward))
    assert scaled.estimate == pytest.approx(1000.0 * found.estimate, rel=1e-9)
    assert scaled.std_error == pytest.approx(1000.0 * found.std_error, rel=1e-9)
    if method != "ips":  # rewards of the level of 1e9 are what its error is made of
        high = run(method, logs.with_reward(logs.reward + 1e9))
        if method == "snips":
            assert high.estimate == pytest.approx(found.estimate, abs=1e-5)
            assert high.std_error == pytest.approx(found.std_error, rel=1e-5)


def test_the_values_stand_beside_the_difference(logs: Bandit) -> None:
    found = run("doubly_robust", logs)
    shown = found.diagnostics["values"]
    logging = value_of(np.bincount(logs.units, logs.reward), np.bincount(logs.units))
    assert shown["logging"] == logging.shown()
    assert shown["logging"]["value"] == pytest.approx(logs.reward.mean())
    assert shown["target"]["value"] == found.treatment_value
    assert shown["target"]["ci_low"] < found.treatment_value < shown["target"]["ci_high"]
    assert found.diagnostics["ess"] == pytest.approx(logs.weight.sum() ** 2 / (logs.weight**2).sum())
    notes = found.diagnostics["weights"]
    by_unit = np.bincount(logs.units, logs.weight)
    assert notes["max_unit_share"] == pytest.approx(by_unit.max() / by_unit.sum())
    assert notes["mean"] == pytest.approx(logs.weight.mean())


def test_nothing_is_clipped_in_silence(logs: Bandit) -> None:
    found = run("ips", logs, clip=2.0)
    cut = logs.weight > 2.0
    assert found.treatment_value == pytest.approx(np.mean(np.minimum(logs.weight, 2.0) * logs.reward), rel=1e-12)
    assert found.diagnostics["clip"] == 2.0
    assert found.diagnostics["weights"]["share_clipped"] == pytest.approx(cut.mean())
    assert found.diagnostics["weights"]["share_cut"] == pytest.approx(
        (logs.weight - 2.0)[cut].sum() / logs.weight.sum()
    )
    switched = run("doubly_robust", logs, switch=2.0)
    assert switched.diagnostics["weights"]["share_clipped"] == pytest.approx(cut.mean())
    assert run("ips", logs, clip=1e9).diagnostics["weights"]["share_clipped"] == 0.0


def test_a_unit_without_rows_does_not_count() -> None:
    def sums(n: int) -> UnitSums:
        rng = np.random.default_rng(2)
        each = [np.concatenate([rng.gamma(2.0, size=30), np.zeros(n - 30)]) for _ in range(2)]
        rows = np.concatenate([np.ones(30), np.zeros(n - 30)])
        return UnitSums(rows, each[0], rows, each[1], rows)

    assert policy_value(sums(30)) == policy_value(sums(50))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"weight": 0.0}, "never takes an action that was logged"),
        ({"weight": np.nan}, "a logged propensity of 0"),
        ({"weight": -1.0}, "must not be negative"),
        ({"weight": 1.0}, "no difference to estimate"),
        ({"reward": 3.0}, "does not vary"),
        ({"reward": np.inf}, "not finite"),
        ({"reward": np.nan}, "no row has an outcome"),
        ({"units": 0}, "two independent units"),
        ({"denominator": 0.0}, "positive number"),
    ],
)
def test_what_cannot_be_estimated_is_refused(logs: Bandit, change: dict[str, float], said: str) -> None:
    given: dict[str, Any] = {"reward": logs.reward, "weight": logs.weight, "units": logs.units}
    given |= {name: np.full(len(logs.reward), value) for name, value in change.items()}
    with pytest.raises(EstimationError, match=said):
        snips(given.pop("reward"), given.pop("weight"), **given)


def test_rewards_that_do_not_vary_where_the_target_acts_give_no_false_certainty(logs: Bandit) -> None:
    reward = np.where(logs.weight > 0.0, 0.0, logs.reward)
    with pytest.raises(EstimationError, match="whose logged action the target policy takes"):
        ips(reward, logs.weight * (logs.weight > 0.0))


def test_a_switch_that_leaves_no_weight_is_refused(logs: Bandit) -> None:
    with pytest.raises(EstimationError, match="every weight is above the switch"):
        run("doubly_robust", logs, switch=0.01)


def test_an_option_out_of_range_is_an_error(logs: Bandit) -> None:
    with pytest.raises(ValueError, match="clip must be a positive"):
        run("ips", logs, clip=0.0)
    with pytest.raises(ValueError, match="switch must be a positive"):
        run("doubly_robust", logs, switch=-1.0)
    with pytest.raises(ValueError, match="outcome must be one of"):
        run("doubly_robust", logs, outcome="forest")
    with pytest.raises(EstimationError, match="take doubly_robust, or outcome linear"):
        run("direct_method", logs, outcome="boosting")
