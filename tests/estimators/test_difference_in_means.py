from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from estimators import METHODS
from estimators.difference_in_means import difference_in_means
from estimators.inference import EstimationError
from estimators.moments import Moments


def arms(seed: int, loc: float = 5.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return loc + rng.normal(size=57), loc + 0.4 + 2.0 * rng.gamma(1.5, size=91)


def test_welch_matches_scipy() -> None:
    control, treatment = arms(1)
    ours = difference_in_means(Moments.from_arrays(control), Moments.from_arrays(treatment), alpha=0.1)
    theirs = stats.ttest_ind(treatment, control, equal_var=False)
    interval = theirs.confidence_interval(0.9)
    assert ours.statistic == pytest.approx(theirs.statistic, rel=1e-9)
    assert ours.df == pytest.approx(theirs.df, rel=1e-9)
    assert ours.p_value == pytest.approx(theirs.pvalue, rel=1e-9)
    assert (ours.ci_low, ours.ci_high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert (ours.n_control, ours.n_treatment) == (57, 91)
    assert METHODS["difference_in_means"] is difference_in_means


def test_ratio_variance_matches_the_regression_with_robust_errors() -> None:
    """A ratio of sums is the weighted regression of num/den on a constant; HC1 of it is the delta method."""
    import statsmodels.api as sm

    rng = np.random.default_rng(2)
    den_c, den_t = rng.integers(1, 40, 300).astype(float), rng.integers(1, 40, 260).astype(float)
    num_c, num_t = den_c * rng.gamma(2.0, size=300), den_t * rng.gamma(2.2, size=260)
    ours = difference_in_means(Moments.from_arrays(num_c, den_c), Moments.from_arrays(num_t, den_t))
    variances = []
    for num, den in ((num_c, den_c), (num_t, den_t)):
        variances.append(
            float(sm.WLS(num / den, np.ones(len(num)), weights=den).fit(cov_type="HC1").cov_params()[0, 0])
        )
    assert ours.estimate == pytest.approx(num_t.sum() / den_t.sum() - num_c.sum() / den_c.sum(), rel=1e-9)
    assert ours.std_error == pytest.approx(math.sqrt(sum(variances)), rel=1e-9)


def test_row_means_by_unit_match_cluster_robust_regression_on_rows() -> None:
    import statsmodels.api as sm

    rng = np.random.default_rng(3)
    units = np.repeat(np.arange(80), rng.integers(1, 12, 80))
    rows = rng.normal(size=80)[units] + rng.normal(size=len(units))
    sums, sizes = np.bincount(units, rows), np.bincount(units).astype(float)
    moments = Moments.from_arrays(sums, sizes)
    clustered = sm.OLS(rows, np.ones(len(rows))).fit(
        cov_type="cluster", cov_kwds={"groups": units, "use_correction": False}
    )
    assert moments.value == pytest.approx(rows.mean(), rel=1e-9)
    assert moments.value_variance == pytest.approx(clustered.cov_params()[0, 0] * 80 / 79, rel=1e-9)


def test_ratio_error_agrees_with_the_jackknife() -> None:
    rng = np.random.default_rng(4)
    den = rng.gamma(3.0, size=4000)
    num = den * rng.gamma(2.0, size=4000)
    without = (num.sum() - num) / (den.sum() - den)
    jackknife = 3999 / 4000 * ((without - without.mean()) ** 2).sum()
    assert Moments.from_arrays(num, den).value_variance == pytest.approx(jackknife, rel=0.005)


def test_sums_and_arrays_agree() -> None:
    num, den = arms(5)[0] ** 2, 1.0 + arms(6)[0] ** 2
    a, b = num - 20.0, den - 25.0
    from_sums = Moments.from_sums(57, 20.0, a.sum(), (a * a).sum(), 25.0, b.sum(), (b * b).sum(), (a * b).sum())
    direct = Moments.from_arrays(num, den)
    for name in ("n", "mean_num", "mean_den", "var_num", "var_den", "cov"):
        assert getattr(from_sums, name) == pytest.approx(getattr(direct, name), rel=1e-9)
    assert from_sums.value_variance == pytest.approx(direct.value_variance, rel=1e-9)
    plain = Moments.from_sums(57, 20.0, a.sum(), (a * a).sum())
    assert plain.value_variance == pytest.approx(num.var(ddof=1) / 57, rel=1e-9)


@pytest.mark.parametrize("rows_per_unit", [1, 7])
def test_a_mean_of_a_billion_keeps_its_variance(rows_per_unit: int) -> None:
    rng = np.random.default_rng(7)
    noise_c, noise_t = rng.normal(size=(400, rows_per_unit)), 0.5 + rng.normal(size=(400, rows_per_unit))
    counts = np.full(400, float(rows_per_unit))
    near = [Moments.from_arrays(x.sum(axis=1), counts) for x in (noise_c, noise_t)]
    far = [Moments.from_arrays((1e9 + x).sum(axis=1), counts) for x in (noise_c, noise_t)]
    near_estimate, far_estimate = difference_in_means(*near), difference_in_means(*far)
    assert far_estimate.estimate == pytest.approx(near_estimate.estimate, abs=1e-6)
    assert far_estimate.std_error == pytest.approx(near_estimate.std_error, rel=1e-6)


def test_row_means_of_a_billion_with_unequal_units_keep_their_variance() -> None:
    rng = np.random.default_rng(8)
    counts = rng.integers(1, 50, 500).astype(float)
    noise = rng.normal(size=500) * np.sqrt(counts)
    far = Moments.from_arrays(1e9 * counts + noise, counts)
    assert far.value_variance == pytest.approx(Moments.from_arrays(noise, counts).value_variance, rel=1e-4)


def test_sums_shifted_by_a_pilot_keep_the_variance_at_a_billion() -> None:
    x = np.random.default_rng(9).normal(size=1000)
    m = Moments.from_sums(1000, 1e9, x.sum(), (x * x).sum())
    assert m.var_num == pytest.approx(x.var(ddof=1), rel=1e-9)


def test_relative_effect_comes_from_the_log_ratio() -> None:
    control, treatment = arms(10, loc=10.0)
    e = difference_in_means(Moments.from_arrays(control), Moments.from_arrays(treatment))
    c, t = control.mean(), treatment.mean()
    parts = treatment.var(ddof=1) / 91 / t**2, control.var(ddof=1) / 57 / c**2
    df = sum(parts) ** 2 / (parts[0] ** 2 / 90 + parts[1] ** 2 / 56)
    half = stats.t.ppf(0.975, df) * math.sqrt(sum(parts))
    assert e.relative == pytest.approx(t / c - 1, rel=1e-9)
    assert e.relative_ci_low == pytest.approx(t / c * math.exp(-half) - 1, rel=1e-9)
    assert e.relative_ci_high == pytest.approx(t / c * math.exp(half) - 1, rel=1e-9)


def test_relative_effect_is_absent_where_control_is_not_positive() -> None:
    control, treatment = arms(11, loc=-30.0)
    e = difference_in_means(Moments.from_arrays(control), Moments.from_arrays(treatment))
    assert (e.relative, e.relative_ci_low, e.relative_ci_high) == (None, None, None)
    assert e.relative_reason == "control's value is not positive"


def test_relative_effect_without_a_logarithm_uses_the_ratio() -> None:
    control, treatment = arms(12, loc=10.0)
    e = difference_in_means(Moments.from_arrays(control), Moments.from_arrays(treatment - 20.0))
    assert e.relative is not None
    assert e.relative < -1.0
    assert e.relative_ci_low is not None
    assert e.relative_ci_high is not None
    assert e.relative_ci_low < e.relative < e.relative_ci_high
    assert e.relative - e.relative_ci_low == pytest.approx(e.relative_ci_high - e.relative, rel=1e-9)


@pytest.mark.parametrize(
    ("control", "treatment", "message"),
    [
        ([1.0], [1.0, 2.0], "fewer than two"),
        ([3.3, 3.3, 3.3], [4.1, 4.1], "does not vary"),
        ([0.1] * 7, [0.1] * 9, "does not vary"),
        ([], [1.0, 2.0], "no observations"),
        ([1.0, math.nan], [1.0, 2.0], "not finite"),
    ],
)
def test_what_cannot_be_estimated_is_refused(control: list[float], treatment: list[float], message: str) -> None:
    with pytest.raises(EstimationError, match=message):
        difference_in_means(Moments.from_arrays(control), Moments.from_arrays(treatment))


def test_a_denominator_of_zero_is_refused() -> None:
    zero = Moments.from_arrays([1.0, 2.0], [0.0, 0.0])
    with pytest.raises(EstimationError, match="denominator"):
        difference_in_means(zero, Moments.from_arrays([1.0, 2.0], [1.0, 1.0]))


values = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(values, values, st.floats(0.01, 100.0))
def test_swapping_arms_and_changing_the_unit_do_what_they_should(a: list[float], b: list[float], scale: float) -> None:
    x, y = np.array(a), np.array(b)
    if x.std() + y.std() < 1e-6 * max(1.0, np.abs(x).max(), np.abs(y).max()):
        return
    e = difference_in_means(Moments.from_arrays(x), Moments.from_arrays(y))
    swapped = difference_in_means(Moments.from_arrays(y), Moments.from_arrays(x))
    scaled = difference_in_means(Moments.from_arrays(scale * x), Moments.from_arrays(scale * y))
    assert e.ci_low < e.estimate < e.ci_high
    assert 0.0 <= e.p_value <= 1.0
    assert swapped.estimate == -e.estimate
    assert swapped.std_error == pytest.approx(e.std_error, rel=1e-9)
    assert scaled.std_error == pytest.approx(scale * e.std_error, rel=1e-6)
    # The two-sided test and the interval never contradict each other.
    assert (e.p_value < 0.05) == (e.ci_low > 0.0 or e.ci_high < 0.0) or e.p_value == pytest.approx(0.05, rel=1e-6)
