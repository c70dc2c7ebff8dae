"""Pre-trend tests and their power against the R package ``pretrends``; made by ``oracles/sensitivity.py``."""

from __future__ import annotations

import json

import numpy as np
import pytest

from estimators.callaway_santanna import event_effects
from estimators.event_effects import Effects
from estimators.inference import EstimationError
from estimators.pre_trend import pre_trend, rectangle, slope_for_power, trend_power
from tests.estimators.panels import DATA, staggered


@pytest.fixture(scope="module")
def he_wang() -> Effects:
    d = json.loads((DATA / "sensitivity.json").read_text(encoding="utf-8"))["he_wang"]
    return Effects(tuple(d["times"]), np.array(d["estimates"]), np.array(d["covariance"]), np.full(7, np.inf))


def test_slope_found_half_the_time_is_the_published_one(he_wang: Effects) -> None:
    """README of ``pretrends``: 0.05205871, found with its package's power of 0.4999776."""
    assert slope_for_power(he_wang, power=0.5) == pytest.approx(0.05205871, rel=2e-4)
    assert trend_power(he_wang, 0.05205871).power == pytest.approx(0.4999776, abs=1e-4)


@pytest.mark.parametrize(
    ("weights", "published"),
    [([1, 0, 0, 0], 0.06490184), ([0, 1, 0, 0], 0.12084694), ([0, 0, 1, 0], 0.16946498), ([0, 0, 0, 1], 0.22453827)],
)
def test_bias_after_a_passed_test_is_the_published_one(he_wang: Effects, weights: list[int], published: float) -> None:
    """Its ``meanAfterPretesting``; the bias without a pre-test is the trend itself."""
    found = trend_power(he_wang, 0.05205871, weights=weights)
    assert found.bias_if_passed == pytest.approx(published, rel=5e-4)
    assert found.bias == pytest.approx(0.05205871 * (1 + weights.index(1)), rel=1e-12)


def test_rectangles_are_scipys() -> None:
    from scipy.stats import multivariate_normal, truncnorm

    rng = np.random.default_rng(1)
    a = rng.normal(size=(4, 4))
    covariance, mean, half = a @ a.T + np.eye(4), rng.normal(size=4), np.array([1.0, 2.0, 1.5, 3.0])
    theirs = multivariate_normal(mean, covariance, seed=1, maxpts=1_000_000, abseps=1e-7).cdf(half, lower_limit=-half)
    assert rectangle(mean, covariance, half)[0] == pytest.approx(theirs, rel=2e-4)
    p, inside = rectangle(np.array([1.0]), np.array([[4.0]]), np.array([3.0]))
    one = truncnorm(-2.0, 1.0, loc=1.0, scale=2.0)
    assert inside[0] == pytest.approx(one.mean(), abs=1e-4)
    assert 0.0 < p < 1.0


def test_a_joint_test_is_walds_and_hotellings(he_wang: Effects) -> None:
    from scipy.stats import chi2, f

    before = he_wang.before()
    wald = before.estimates @ np.linalg.inv(before.covariance) @ before.estimates
    found = pre_trend(before)
    assert (found.statistic, found.df) == (pytest.approx(wald, rel=1e-9), 3)
    assert found.p_value == pytest.approx(chi2.sf(wald, 3), rel=1e-9)
    assert found.significant == ()
    assert pre_trend(before, df=12.0).p_value == pytest.approx(f.sf(wald * 10 / 36, 3, 10), rel=1e-9)


def test_power_is_how_often_the_tests_fire(he_wang: Effects) -> None:
    rng = np.random.default_rng(2)
    before = he_wang.before()
    trend = 0.08 * (np.asarray(before.keys) + 1.0)
    draws = rng.multivariate_normal(trend, before.covariance, 4000)
    found = trend_power(he_wang, 0.08)
    single = np.mean((np.abs(draws) > 1.959964 * before.std_errors).any(axis=1))
    joint = np.mean(
        [pre_trend(Effects(before.keys, d, before.covariance, before.df)).p_value < 0.05 for d in draws[:800]]
    )
    assert found.power == pytest.approx(single, abs=0.025)
    assert found.power_joint == pytest.approx(joint, abs=0.05)


def test_the_joint_test_keeps_its_size_and_finds_trends() -> None:
    fired = {0.0: 0, 0.4: 0}
    for slope in fired:
        for seed in range(120):
            panel, _ = staggered(seed, n=150, slope=slope)
            before = event_effects(panel).before()
            fired[slope] += pre_trend(before, df=float(before.df.min())).p_value < 0.05
    assert fired[0.0] <= 13
    assert fired[0.4] >= 100


def test_what_cannot_be_tested_is_refused_in_plain_words(he_wang: Effects) -> None:
    with pytest.raises(EstimationError, match="two periods before"):
        pre_trend(he_wang.at(np.array([], dtype=int)))
    with pytest.raises(EstimationError, match="two periods before"):
        trend_power(he_wang.at(np.arange(3, 7)), 0.1)
    with pytest.raises(EstimationError, match="no period after"):
        trend_power(he_wang.at(np.arange(3)), 0.1)
    with pytest.raises(EstimationError, match="too many to test"):
        pre_trend(he_wang.before(), df=2.0)
    flat = Effects((-3, -2), np.ones(2), np.ones((2, 2)), np.full(2, np.inf))
    with pytest.raises(EstimationError, match="determine each other"):
        pre_trend(flat)
    with pytest.raises(EstimationError, match="size"):
        slope_for_power(he_wang, power=0.05)
