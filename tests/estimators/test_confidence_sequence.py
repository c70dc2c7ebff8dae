"""Always-valid intervals, against GrowthBook's gbstats, the paper's formula solved again, and simulated looks."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import optimize, stats

from estimators import Moments, difference_in_means
from estimators.confidence_sequence import (
    OTHER_INTERVALS,
    always_valid_p,
    boundary,
    confidence_sequence,
    detectable_effect,
    mixing_variance,
    sample_factor,
)
from estimators.inference import EstimationError

# n by arm, estimate, standard error, alpha, tuning; interval and p-value. oracles/sequential.py, gbstats 0.8.0.
GROWTHBOOK = [
    ((520, 480, 0.5999999999999996, 0.20695053911750422, 0.05, 5000),
     (-0.0961583783815021, 1.2961583783815014, 0.12208101935533576)),
    ((5100, 4900, 0.3000000000000007, 0.06530471562110152, 0.05, 5000),
     (0.10007110084138329, 0.49992889915861816, 0.00020073996859200214)),
    ((50000, 50200, 0.10000000000000009, 0.05118048681944807, 0.01, 20000),
     (-0.08814732837177822, 0.28814732837177837, 1.0)),
    ((60, 64, -5.0, 5.390964663211956, 0.1, 100), (-19.91062814121023, 9.910628141210228, 1.0)),
]  # fmt: skip


def an_estimate(n: int = 400, effect: float = 0.2, seed: int = 3, alpha: float = 0.05):
    rng = np.random.default_rng(seed)
    arms = (rng.lognormal(1.0, 0.5, n), rng.lognormal(1.0, 0.5, n) + effect)
    return difference_in_means(*(Moments.from_arrays(x) for x in arms), alpha=alpha)


@pytest.mark.parametrize(("given", "expected"), GROWTHBOOK)
def test_matches_growthbook(given: tuple[float, ...], expected: tuple[float, ...]) -> None:
    n0, n1, point, std_error, alpha, tuning = given
    reach = std_error * boundary(n0 + n1, alpha, tuning)
    assert (point - reach, point + reach) == pytest.approx(expected[:2], rel=1e-12)
    assert always_valid_p(point / std_error, n0 + n1, alpha, tuning) == pytest.approx(expected[2], rel=1e-9)


@pytest.mark.parametrize(("n", "alpha", "tuning"), [(10, 0.05, 5000), (5000, 0.05, 5000), (10**6, 0.01, 300)])
def test_the_half_width_is_theorem_2_2s(n: int, alpha: float, tuning: float) -> None:
    rho = math.sqrt(mixing_variance(alpha, tuning))
    of_mean = math.sqrt(2 * (n * rho**2 + 1) / (n * rho) ** 2 * math.log(math.sqrt(n * rho**2 + 1) / alpha))
    assert boundary(n, alpha, tuning) == pytest.approx(of_mean * math.sqrt(n), rel=1e-12)


@pytest.mark.parametrize("alpha", [0.2, 0.05, 0.001])
def test_the_tuning_is_within_a_thousandth_of_the_best(alpha: float) -> None:
    best = optimize.minimize_scalar(lambda t: boundary(5000, alpha, t), bounds=(500, 50_000), method="bounded")
    assert boundary(5000, alpha, 5000) <= best.fun * 1.001


@pytest.mark.parametrize("df", [3.0, 20.0, math.inf])
def test_the_p_value_is_the_level_at_which_the_interval_ends_at_zero(df: float) -> None:
    n, alpha, tuning = 300, 0.05, 200
    x = n * mixing_variance(alpha, tuning)

    def ends(level: float) -> float:
        z = math.sqrt(2 * (x + 1) / x * math.log(math.sqrt(x + 1) / level))
        return -stats.t(df).ppf(stats.norm.sf(z)) if math.isfinite(df) else z

    for level in (0.7, 0.05, 0.001):
        assert always_valid_p(ends(level), n, alpha, tuning, df) == pytest.approx(level, rel=1e-9)
    assert always_valid_p(-ends(0.05), n, alpha, tuning, df) == pytest.approx(0.05, rel=1e-9)
    assert always_valid_p(0.0, n, alpha, tuning, df) == 1.0
    assert boundary(n, alpha, tuning, df) == pytest.approx(ends(alpha), rel=1e-9)


def test_an_estimate_keeps_its_point_and_error_and_says_what_its_interval_was() -> None:
    fixed = an_estimate()
    found = confidence_sequence(fixed, tuning=1000)
    for name in ("method", "estimate", "std_error", "df", "statistic", "control_value", "relative", "n_control"):
        assert getattr(found, name) == getattr(fixed, name), name
    assert found.ci_low < fixed.ci_low < fixed.ci_high < found.ci_high
    assert found.p_value > fixed.p_value
    assert found.diagnostics == {
        "looks": "sequential", "tuning": 1000, "fixed_ci_low": fixed.ci_low, "fixed_ci_high": fixed.ci_high,
    }  # fmt: skip


def test_the_relative_interval_is_the_log_ratios() -> None:
    fixed = an_estimate()
    found = confidence_sequence(fixed, tuning=1000)
    log_error = (math.log1p(fixed.relative) - math.log1p(fixed.relative_ci_low)) / stats.t(fixed.df).ppf(0.975)
    reach = boundary(800, 0.05, 1000, fixed.df) * log_error
    ends = tuple(math.expm1(math.log1p(fixed.relative) + s * reach) for s in (-1, 1))
    assert (found.relative_ci_low, found.relative_ci_high) == pytest.approx(ends, rel=1e-9)
    unknown = confidence_sequence(replace(fixed, relative=None, relative_ci_low=None, relative_ci_high=None))
    assert (unknown.relative_ci_low, unknown.relative_ci_high) == (None, None)
    on_ratio = replace(fixed, relative=-1.5, relative_ci_low=-2.0, relative_ci_high=-1.0)
    wide = confidence_sequence(on_ratio, tuning=1000)
    assert wide.relative_ci_low < -2.0
    assert wide.relative_ci_high > -1.0


def test_few_degrees_of_freedom_widen_the_sequence_in_its_tail() -> None:
    assert boundary(20, 0.05, 100, 4.0) > boundary(20, 0.05, 100) * stats.t(4).ppf(0.975) / stats.norm.ppf(0.975)
    assert boundary(20, 0.05, 100, 1e9) == pytest.approx(boundary(20, 0.05, 100), rel=1e-6)


def test_the_detectable_effect_is_found_with_its_power() -> None:
    fixed = an_estimate()
    size = detectable_effect(fixed, tuning=500)
    z = np.random.default_rng(1).standard_normal(200_000)
    found = (size / fixed.std_error + z) > boundary(800, 0.05, 500)
    assert found.mean() == pytest.approx(0.8, abs=0.005)


def test_an_overwhelming_statistic_has_a_vanishing_p_value() -> None:
    assert always_valid_p(1e6, 10_000, 0.05, 5000, 9998.0) < 1e-200


def test_beyond_the_smallest_tail_of_a_double_the_sequence_goes_on() -> None:
    n, tuning, df = 500, 1e6, 498.0
    reach = boundary(n, 0.05, tuning, df)
    assert reach > 26.0
    assert always_valid_p(reach, n, 0.05, tuning, df) == pytest.approx(0.05, rel=1e-9)
    either_side = [boundary(n, 0.05, at, df) for at in np.linspace(4.2e5, 4.8e5, 200)]
    assert boundary(n, 0.05, 4.2e5) < 26.0 < boundary(n, 0.05, 4.8e5)
    assert np.diff(either_side).min() > 0


@pytest.mark.parametrize("size", [0.02, 0.1, 0.5, 3.0])
def test_the_sample_that_finds_an_effect_makes_it_detectable(size: float) -> None:
    found = an_estimate()
    more = sample_factor(found, size, tuning=2000)
    grown = replace(found, std_error=found.std_error / math.sqrt(more), df=found.df * max(more, 1.0))
    if more * 800 > 2:
        assert detectable_effect(grown, tuning=2000, observations=800 * more) == pytest.approx(size, rel=1e-6)


@pytest.mark.parametrize("method", OTHER_INTERVALS)
def test_an_interval_without_a_standard_error_behind_it_is_refused(method: str) -> None:
    with pytest.raises(EstimationError, match="no interval that holds under repeated looks"):
        confidence_sequence(replace(an_estimate(), method=method))


@pytest.mark.parametrize(("alpha", "tuning", "n"), [(0.0, 10, 5), (1.0, 10, 5), (0.05, 0, 5), (0.05, 10, 0)])
def test_what_has_no_sequence_is_refused(alpha: float, tuning: float, n: int) -> None:
    with pytest.raises(EstimationError):
        boundary(n, alpha, tuning)
