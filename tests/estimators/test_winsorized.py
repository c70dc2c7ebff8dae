from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.stats import mstats

from estimators import EstimationError, difference_in_means, winsorized
from estimators.moments import Moments
from estimators.winsorized import pooled_caps


def arms(seed: int = 1, n: int = 400, lift: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return np.exp(1.5 * rng.normal(size=n)), lift * np.exp(1.5 * rng.normal(size=n + 50))


@pytest.mark.parametrize("quantile", [0.9, 0.99, 0.999])
def test_scipys_winsorizing_then_welchs_test(quantile: float) -> None:
    a, b = arms(lift=1.3)
    both = np.concatenate([a, b])
    cut = np.asarray(mstats.winsorize(both, limits=(0.0, round(1.0 - quantile, 12))))
    reference = stats.ttest_ind(cut[len(a) :], cut[: len(a)], equal_var=False)
    low, high = reference.confidence_interval()
    found = winsorized((a, None), (b, None), quantile=quantile)
    expected = (cut[len(a) :].mean() - cut[: len(a)].mean(), reference.pvalue, reference.df, low, high)
    assert (found.estimate, found.p_value, found.df, found.ci_low, found.ci_high) == pytest.approx(expected, rel=1e-10)
    assert found.diagnostics["capped_control"] + found.diagnostics["capped_treatment"] == (cut != both).sum()
    lost = 1 - cut[: len(a)].sum() / a.sum()
    assert found.diagnostics["lost_control"] == pytest.approx(lost, abs=1e-12)


def test_a_ratio_is_capped_above_and_below_the_line() -> None:
    rng = np.random.default_rng(3)
    rows = [rng.geometric(0.01, 300).astype(float) for _ in range(2)]
    sums = [r * rng.gamma(2.0, 1.0, 300) for r in rows]
    num, den = (
        np.quantile(np.concatenate(sums), 0.95, method="inverted_cdf"),
        np.quantile(np.concatenate(rows), 0.95, method="inverted_cdf"),
    )
    plain = difference_in_means(
        *(Moments.from_arrays(np.minimum(s, num), np.minimum(r, den)) for s, r in zip(sums, rows, strict=True))
    )
    found = winsorized((sums[0], rows[0]), (sums[1], rows[1]), quantile=0.95)
    assert (found.estimate, found.std_error) == pytest.approx((plain.estimate, plain.std_error), rel=1e-12)
    assert (found.diagnostics["cap"], found.diagnostics["cap_denominator"]) == (num, den)


def test_values_below_zero_are_raised_and_others_are_not() -> None:
    x = np.arange(1000.0)
    low = pooled_caps([(x, None)], 0.99)[0].low
    assert (low, pooled_caps([(x, None)], 0.99)[0].high) == (-np.inf, 989.0)
    assert pooled_caps([(x - 500, None)], 0.99)[0].low == -490.0
    assert pooled_caps([(x - 3, None)], 0.99)[0].low == 0.0


def test_further_arms_count_for_the_caps_alone() -> None:
    a, b = arms()
    wild = np.full(400, 1e6)
    found = winsorized((a, None), (b, None), quantile=0.9, others=[(wild, None)])
    assert (found.diagnostics["capped_control"], found.n_treatment) == (0, len(b))


def test_caps_that_leave_nothing_are_refused() -> None:
    x = np.zeros(2000)
    x[0] = 1.0
    with pytest.raises(EstimationError, match="leaves one value only"):
        winsorized((x, None), (np.zeros(2000), None), quantile=0.99)
    for quantile in (0.5, 1.0):
        with pytest.raises(EstimationError, match="between"):
            winsorized((x, None), (x, None), quantile=quantile)
    with pytest.raises(EstimationError, match="not finite"):
        winsorized((np.array([1.0, np.nan]), None), (x, None))


def test_the_interval_holds_the_difference_of_capped_means() -> None:
    """Arms that differ beyond the cap: the caps move with the sample, and the interval still covers."""
    big = np.concatenate([x for seed in range(50) for x in arms(seed + 10**6, 10_000)])
    half = len(big) // 2
    a, b = big[:half], 1.3 * big[half:]
    at = np.quantile(np.concatenate([a, b]), 0.98, method="inverted_cdf")
    truth = np.minimum(b, at).mean() - np.minimum(a, at).mean()
    found = [winsorized(*((x, None) for x in arms(seed, 500, 1.3)), quantile=0.98) for seed in range(400)]
    covered = np.mean([e.ci_low <= truth <= e.ci_high for e in found])
    assert 0.925 <= covered <= 0.975
