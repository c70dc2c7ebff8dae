"""Cohorts of few units, whose variance their controls tell, and the test of trends before treatment."""

from __future__ import annotations

import math

import numpy as np
import pytest

from estimators.callaway_santanna import callaway_santanna, event_effects
from estimators.event_effects import Effects
from estimators.inference import EstimationError
from estimators.panel import Panel
from estimators.pre_trend import pre_trend
from estimators.trend_test import trend_test
from tests.estimators.panels import public


def one_against(n: int, seed: int = 0) -> tuple[Panel, np.ndarray]:
    """One treated unit and ``n`` untreated ones over two periods, and the changes, the treated one's first."""
    y = np.random.default_rng(seed).normal(size=(n + 1, 2))
    return Panel(y, np.array([1] + [2] * n)), y[:, 1] - y[:, 0]


def test_a_single_treated_unit_varies_as_its_controls_do() -> None:
    panel, change = one_against(9)
    found = callaway_santanna(panel, small=2)
    spread = change[1:].var(ddof=1)
    assert found.estimate == pytest.approx(change[0] - change[1:].mean(), rel=1e-12)
    assert found.std_error == pytest.approx(math.sqrt(spread + spread * 8 / 9 / 9), rel=1e-12)
    assert found.df == pytest.approx(8.0)
    assert found.diagnostics["borrowed"] == ["1"]
    # Without controls' help the treated unit is taken not to vary at all.
    assert callaway_santanna(panel).std_error == pytest.approx(math.sqrt(spread * 8 / 9 / 9), rel=1e-12)


def test_two_treated_units_too_and_clusters_as_wholes() -> None:
    y = np.random.default_rng(3).normal(size=(12, 2))
    first = np.array([1] * 4 + [2] * 8)
    clusters = np.repeat(np.arange(6), 2)
    found = callaway_santanna(Panel(y, first, clusters=clusters), small=3)
    change = y[:, 1] - y[:, 0]
    means = change[4:].reshape(4, 2).mean(axis=1)
    spread = means.var(ddof=1)
    assert found.std_error == pytest.approx(math.sqrt(spread / 2 + spread * 3 / 4 / 4), rel=1e-12)
    assert found.diagnostics["clustered_by"] == "cluster"


def test_large_cohorts_are_left_as_they_are() -> None:
    panel = public("mpdta")
    assert callaway_santanna(panel, small=5).std_error == callaway_santanna(panel).std_error
    ours = event_effects(panel, unbiased=True).std_errors / event_effects(panel).std_errors.clip(1e-300)
    assert (ours[ours > 0.0] < 1.04).all()
    assert (ours[ours > 0.0] > 1.0).all()


def test_variances_may_be_divided_by_one_less() -> None:
    y = np.random.default_rng(5).normal(size=(18, 2))
    found = callaway_santanna(Panel(y, np.array([1] * 6 + [2] * 12)), unbiased=True)
    change = y[:, 1] - y[:, 0]
    welch = math.sqrt(change[:6].var(ddof=1) / 6 + change[6:].var(ddof=1) / 12)
    assert found.std_error == pytest.approx(welch, rel=1e-12)


def test_one_control_tells_nothing() -> None:
    with pytest.raises(EstimationError, match="nothing tells how they vary"):
        callaway_santanna(Panel(np.array([[0.0, 1.0], [0.0, 2.0]]), np.array([1, 2])), small=5)


def noise(seed: int, starts: list[int], never: int, periods: int, slope: float = 0.0) -> Panel:
    """Errors that last over periods, no effect; ``slope`` a trend of those that start."""
    rng = np.random.default_rng(seed)
    first = np.array(starts + [periods] * never)
    y = rng.normal(size=(len(first), periods))
    for t in range(1, periods):
        y[:, t] = 0.5 * y[:, t - 1] + math.sqrt(0.75) * y[:, t]
    return Panel(y + slope * np.arange(periods) * (first < periods)[:, None], first)


@pytest.mark.parametrize("starts", [[4, 5, 6, 7], [4] * 3 + [6] * 3])
def test_intervals_of_small_cohorts_cover(starts: list[int]) -> None:
    found = [callaway_santanna(noise(seed, starts, 6, 9), small=5) for seed in range(80)]
    covered = np.mean([f.ci_low < 0.0 < f.ci_high for f in found])
    assert 0.92 <= covered <= 1.0
    spread, told = np.std([f.estimate for f in found]), math.sqrt(np.mean([f.std_error**2 for f in found]))
    assert told == pytest.approx(spread, rel=0.2)


def test_many_units_are_tested_jointly_and_few_by_a_straight_trend() -> None:
    many = trend_test(event_effects(noise(1, [4] * 20 + [6] * 20, 40, 8), unbiased=True))
    few = trend_test(event_effects(noise(1, [4, 5, 6, 7], 4, 8), small=5, unbiased=True))
    assert (many.kind, few.kind, few.df) == ("joint", "slope", 1)
    effects = event_effects(noise(1, [4] * 20 + [6] * 20, 40, 8), unbiased=True)
    theirs = pre_trend(effects.before(), df=float(effects.before().df.mean()))
    assert (many.statistic, many.p_value) == (theirs.statistic, theirs.p_value)


def test_power_is_that_of_the_tests() -> None:
    """Against scipy's non-central distributions, and the slope that is found with 80 % in simulation."""
    from scipy import stats

    times = np.arange(-4, 3)
    covariance = np.diag([0.04, 0.03, 0.02, 0.0, 0.02, 0.03, 0.04])
    for df in (12.0, math.inf):
        effects = Effects(tuple(times.tolist()), np.array([0.1, -0.1, 0.05, 0, 1, 1, 1]), covariance, np.full(7, df))
        found = trend_test(effects)
        far = (
            0.2**2
            * (1.0 if math.isinf(df) else (df - 4.0) / df)
            * float(np.array([-3, -2, -1]) ** 2 @ (1 / np.array([0.04, 0.03, 0.02])))
        )
        if math.isinf(df):
            wanted = stats.ncx2.sf(stats.chi2.ppf(0.95, 3), 3, far)
        else:
            wanted = stats.ncf.sf(stats.f.ppf(0.95, 3, df - 2), 3, df - 2, far)
        assert found.power(0.2) == pytest.approx(wanted, rel=1e-9)
        assert found.power(found.detectable(0.8)) == pytest.approx(0.8, abs=1e-9)
    few = trend_test(Effects(tuple(times.tolist()), np.zeros(7), covariance, np.full(7, 3.0)))
    delta = few.detectable(0.8) / few.std_error
    limit = stats.t.ppf(0.975, 3)
    assert stats.nct.sf(limit, 3, delta) + stats.nct.cdf(-limit, 3, delta) == pytest.approx(0.8, abs=1e-8)


def test_it_fires_at_its_level_and_finds_what_it_says_it_finds() -> None:
    quiet = [trend_test(event_effects(noise(s, [5] * 12, 12, 8), unbiased=True)) for s in range(120)]
    assert 0.01 <= np.mean([one.p_value < 0.05 for one in quiet]) <= 0.1
    slope = float(np.median([one.detectable(0.8) for one in quiet]))
    moved = [trend_test(event_effects(noise(s, [5] * 12, 12, 8, slope), unbiased=True)) for s in range(120)]
    assert np.mean([one.p_value < 0.05 for one in moved]) == pytest.approx(0.8, abs=0.1)
