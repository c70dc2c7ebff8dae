from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from estimators import EstimationError, trimmed


def arms(seed: int, n: int = 200, lift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_t(2, n), lift + 2.0 * rng.standard_t(2, n + 37)


@pytest.mark.parametrize("quantile", [0.8, 0.9, 0.95, 0.99])
def test_scipys_yuen(quantile: float) -> None:
    a, b = arms(1, lift=0.4)
    reference = stats.ttest_ind(b, a, equal_var=False, trim=round(1.0 - quantile, 12))
    low, high = reference.confidence_interval()
    found = trimmed(a, b, quantile=quantile)
    expected = (reference.statistic, reference.pvalue, reference.df, low, high)
    assert (found.statistic, found.p_value, found.df, found.ci_low, found.ci_high) == pytest.approx(expected, rel=1e-11)
    means = [stats.trim_mean(x, round(1.0 - quantile, 12)) for x in (a, b)]
    assert (found.control_value, found.treatment_value) == pytest.approx(means, rel=1e-12)


def test_far_from_zero_nothing_is_lost() -> None:
    a, b = arms(2)
    near, far = trimmed(a, b), trimmed(a + 1e9, b + 1e9)
    assert far.std_error == pytest.approx(near.std_error, rel=1e-7)
    assert far.estimate == pytest.approx(near.estimate, abs=1e-6)


def test_as_many_go_at_either_end() -> None:
    found = trimmed(np.arange(1000.0), np.arange(100.0) / 7, quantile=0.95)
    shown = found.diagnostics
    assert (shown["trimmed_control"], shown["low_control"], shown["high_control"]) == (100, 50.0, 949.0)
    assert shown["trimmed_treatment"] == 10


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (np.array([1.0, np.inf]), "not finite"),
        (np.ones(50), "does not vary"),
        (np.array([1.0]), "fewer than two"),
        (np.r_[np.zeros(97), 1, 2, 3], "does not vary"),
    ],
)
def test_refusals(x: np.ndarray, said: str) -> None:
    with pytest.raises(EstimationError, match=said):
        trimmed(x, x)


def test_the_interval_holds_the_difference_of_trimmed_means() -> None:
    found = [trimmed(*arms(seed, 60)) for seed in range(600)]
    assert 0.93 <= np.mean([e.ci_low <= 0.0 <= e.ci_high for e in found]) <= 0.975
