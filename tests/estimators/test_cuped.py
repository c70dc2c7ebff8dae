from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators.cuped import cuped
from estimators.difference_in_means import difference_in_means
from estimators.estimate import Estimate
from estimators.inference import EstimationError
from estimators.joint_moments import JointMoments
from estimators.moments import Moments

Pair = tuple[np.ndarray, np.ndarray | None]

# tea-tasting 1.14.0 on statsmodels' star98 (303 school districts), rows of even position control, of odd treatment:
#   tt.Experiment({
#       "mean": tt.Mean("SHARE", "LOWINC"),
#       "ratio": tt.RatioOfMeans("NABOVE", "TOTAL", "AVSALK", "AVYRSEXP"),
#       "ratio_by_mean": tt.RatioOfMeans("NABOVE", "TOTAL", "LOWINC"),
#       "mean_by_ratio": tt.RatioOfMeans("SHARE", None, "AVSALK", "AVYRSEXP"),
#   }, variant="arm").analyze(data)   with TOTAL = NABOVE + NBELOW and SHARE = NABOVE / TOTAL.
# In turn: control, treatment, difference, its interval at 95 %, p-value.
TEA_TASTING = {
    "mean": (
        (0.4407451215260298, 0.433186732614159),
        (-0.0075583889118707726, -0.030734955229111627, 0.015618177405370082, 0.521498669835281),
    ),
    "ratio": (
        (0.43533775224250487, 0.3817610349496581),
        (-0.0535767172928468, -0.14093703113125247, 0.033783596545558875, 0.2281524268539662),
    ),
    "ratio_by_mean": (
        (0.439201941256544, 0.37787090521202255),
        (-0.06133103604452145, -0.14170919377269403, 0.019047121683651136, 0.13403194403785987),
    ),
    "mean_by_ratio": (
        (0.43612971610490475, 0.43783012888999906),
        (0.0017004127850943074, -0.038643921786067355, 0.04204474735625597, 0.9339510461193417),
    ),
}


def star98() -> dict[str, tuple[Pair, Pair]]:
    """Outcome and covariate by the names of ``TEA_TASTING``, all units."""
    from statsmodels.datasets import star98 as source

    data = source.load_pandas().data.astype(float)
    above, total = data["NABOVE"].to_numpy(), (data["NABOVE"] + data["NBELOW"]).to_numpy()
    income, salary, years = (data[c].to_numpy() for c in ("LOWINC", "AVSALK", "AVYRSEXP"))
    share: Pair = (above / total, None)
    return {
        "mean": (share, (income, None)),
        "ratio": ((above, total), (salary, years)),
        "ratio_by_mean": ((above, total), (income, None)),
        "mean_by_ratio": (share, (salary, years)),
    }


def moments(outcome: Pair, covariate: Pair, mask: np.ndarray) -> JointMoments:
    pairs = ((num[mask], None if den is None else den[mask]) for num, den in (outcome, covariate))
    return JointMoments.from_arrays(*pairs)


def by_arm(outcome: Pair, covariate: Pair, treated: np.ndarray, alpha: float = 0.05) -> Estimate:
    return cuped(moments(outcome, covariate, ~treated), moments(outcome, covariate, treated), alpha=alpha)


@pytest.mark.parametrize("name", TEA_TASTING)
def test_agrees_with_tea_tasting(name: str) -> None:
    treated = np.arange(303) % 2 == 1
    e = by_arm(*star98()[name], treated)
    values, effect = TEA_TASTING[name]
    assert (e.control_value, e.treatment_value) == pytest.approx(values, rel=1e-9)
    assert (e.estimate, e.ci_low, e.ci_high, e.p_value) == pytest.approx(effect, rel=1e-9)
    assert (e.method, e.n_control, e.n_treatment) == ("cuped", 152, 151)


def test_theta_and_errors_are_those_of_the_definition() -> None:
    rng = np.random.default_rng(1)
    x, treated = rng.normal(10.0, 2.0, 500), np.arange(500) < 200
    y = 3.0 * x + rng.normal(size=500) + 0.5 * treated
    theta = np.cov(y, x)[0, 1] / x.var(ddof=1)
    adjusted = y - theta * (x - x.mean())
    e = by_arm((y, None), (x, None), treated)
    welch = difference_in_means(Moments.from_arrays(adjusted[~treated]), Moments.from_arrays(adjusted[treated]))
    plain = difference_in_means(Moments.from_arrays(y[~treated]), Moments.from_arrays(y[treated]))
    assert e.diagnostics["theta"] == pytest.approx(theta, rel=1e-9)
    assert e.diagnostics["correlation"] == pytest.approx(np.corrcoef(y, x)[0, 1], rel=1e-9)
    for field in ("estimate", "std_error", "df", "p_value", "ci_low", "ci_high", "control_value", "treatment_value"):
        assert getattr(e, field) == pytest.approx(getattr(welch, field), rel=1e-9)
    assert e.diagnostics["unadjusted_estimate"] == pytest.approx(plain.estimate, rel=1e-9)
    assert e.diagnostics["unadjusted_std_error"] == pytest.approx(plain.std_error, rel=1e-9)
    assert e.diagnostics["variance_reduction"] == pytest.approx(1.0 - (e.std_error / plain.std_error) ** 2, rel=1e-9)
    assert e.diagnostics["covariate_difference"] == pytest.approx(x[treated].mean() - x[~treated].mean(), rel=1e-9)


def test_variance_falls_by_the_square_of_the_correlation() -> None:
    rng = np.random.default_rng(2)
    n, rho = 200_000, 0.8
    x = rng.normal(size=n)
    y = rho * x + math.sqrt(1.0 - rho**2) * rng.normal(size=n)
    e = by_arm((y, None), (x, None), np.arange(n) % 2 == 0)
    assert e.diagnostics["variance_reduction"] == pytest.approx(rho**2, abs=0.005)


def test_a_covariate_foreign_to_the_outcome_changes_next_to_nothing() -> None:
    rng = np.random.default_rng(3)
    y, x, treated = rng.normal(5.0, 1.0, 20_000), rng.normal(size=20_000), np.arange(20_000) % 2 == 0
    e = by_arm((y, None), (x, None), treated)
    assert abs(e.diagnostics["variance_reduction"]) < 0.001
    assert e.std_error == pytest.approx(e.diagnostics["unadjusted_std_error"], rel=0.001)


def test_ratio_errors_agree_with_the_jackknife() -> None:
    """Units left out in turn, theta and all else computed anew: the error of the estimate and of its log ratio."""
    rng = np.random.default_rng(4)
    n = 600
    den, before = rng.integers(1, 20, n).astype(float), rng.integers(1, 20, n).astype(float)
    taste, treated = rng.gamma(4.0, size=n), np.arange(n) % 3 == 0
    num = den * taste * rng.gamma(8.0, 1.0 / 8.0, n) * np.where(treated, 2.0, 1.0)
    covariate = before * taste * rng.gamma(8.0, 1.0 / 8.0, n)
    e = by_arm((num, den), (covariate, before), treated)
    variance, log_variance = 0.0, 0.0
    for side in (treated, ~treated):
        estimates, logs = [], []
        for i in np.flatnonzero(side):
            keep = np.arange(n) != i
            left = by_arm((num[keep], den[keep]), (covariate[keep], before[keep]), treated[keep])
            estimates.append(left.estimate)
            logs.append(math.log(left.treatment_value / left.control_value))
        size = len(estimates)
        variance += (size - 1) ** 2 / size * np.var(estimates, ddof=1)
        log_variance += (size - 1) ** 2 / size * np.var(logs, ddof=1)
    assert e.std_error == pytest.approx(math.sqrt(variance), rel=0.03)
    assert e.relative_ci_low is not None
    assert e.relative_ci_high is not None
    log_width = math.log1p(e.relative_ci_high) - math.log1p(e.relative_ci_low)
    assert log_width / (2 * 1.965) == pytest.approx(math.sqrt(log_variance), rel=0.03)


def test_sums_and_arrays_agree() -> None:
    rng = np.random.default_rng(5)
    columns = np.column_stack([rng.gamma(9.0, size=80), 1.0 + rng.poisson(6.0, 80), rng.gamma(5.0, size=80)])
    direct = JointMoments.from_arrays((columns[:, 0], columns[:, 1]), (columns[:, 2], None))
    pilot = np.array([8.0, 6.0, 5.0, 1.0])
    shifted = np.column_stack([columns, np.ones(80)]) - pilot
    sums = JointMoments.from_sums(80, pilot, shifted.sum(axis=0), shifted.T @ shifted)
    assert sums.n == direct.n == 80
    for field in ("values", "mean_den", "value_cov"):
        np.testing.assert_allclose(getattr(sums, field), getattr(direct, field), rtol=1e-10)
    np.testing.assert_allclose(sums.cov, direct.cov, rtol=1e-10, atol=1e-12)


def test_merging_arms_gives_the_moments_of_the_whole() -> None:
    rng = np.random.default_rng(6)
    num, den, x = rng.gamma(9.0, size=90), rng.gamma(3.0, size=90), rng.normal(40.0, 3.0, 90)
    first, second = (JointMoments.from_arrays((num[s], den[s]), (x[s], None)) for s in (slice(0, 25), slice(25, 90)))
    whole, merged = JointMoments.from_arrays((num, den), (x, None)), first.merged(second)
    assert merged.n == 90
    np.testing.assert_allclose(merged.values, whole.values, rtol=1e-12)
    np.testing.assert_allclose(merged.mean_den, whole.mean_den, rtol=1e-12)
    np.testing.assert_allclose(merged.cov, whole.cov, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("clustered", [False, True])
def test_means_of_a_billion_keep_their_error(clustered: bool) -> None:
    rng = np.random.default_rng(7)
    n, treated = 2000, np.arange(2000) % 2 == 0
    rows = rng.integers(1, 30, n).astype(float) if clustered else np.ones(n)
    x = rng.normal(size=n)
    y = 0.7 * x + rng.normal(size=n) + 0.1 * treated
    den = rows if clustered else None
    near = by_arm((y * rows, den), (x * rows, den), treated)
    far = by_arm(((1e9 + y) * rows, den), ((1e9 + x) * rows, den), treated)
    assert far.estimate == pytest.approx(near.estimate, abs=1e-6)
    assert far.std_error == pytest.approx(near.std_error, rel=1e-5)
    assert far.diagnostics["theta"] == pytest.approx(near.diagnostics["theta"], rel=1e-5)


def test_a_billion_in_shifted_sums_keeps_its_error() -> None:
    rng = np.random.default_rng(8)
    arms = []
    for _ in range(2):
        x = rng.normal(size=1000)
        shifted = np.column_stack([0.7 * x + rng.normal(size=1000), np.zeros(1000), x, np.zeros(1000)])
        products = shifted.T @ shifted
        near = JointMoments.from_arrays((shifted[:, 0], None), (x, None))
        far = JointMoments.from_sums(1000, [1e9, 1.0, 1e9, 1.0], shifted.sum(axis=0), products)
        np.testing.assert_allclose(far.value_cov, near.value_cov, rtol=1e-9)
        arms.append(far)
    assert cuped(*arms).std_error < 0.05


def test_an_effect_without_a_logarithm_still_has_a_relative_interval() -> None:
    rng = np.random.default_rng(9)
    x, treated = rng.normal(size=400), np.arange(400) % 2 == 0
    y = 10.0 + x + rng.normal(size=400) - 15.0 * treated
    e = by_arm((y, None), (x, None), treated)
    assert e.relative == pytest.approx(-1.5, abs=0.05)
    assert e.relative_ci_low is not None
    assert e.relative_ci_high is not None
    assert e.relative_ci_low < -1.5 + 0.05
    assert e.relative - e.relative_ci_low == pytest.approx(e.relative_ci_high - e.relative, rel=1e-9)
    negative = by_arm((y - 20.0, None), (x, None), treated)
    assert (negative.relative, negative.relative_reason) == (None, "control's value is not positive")


@pytest.mark.parametrize(
    ("y", "x", "message"),
    [
        ([1.0, 2.0, 4.0, 3.0], [0.1, 0.1, 0.1, 0.1], "covariate does not vary over units"),
        ([0.1, 0.1, 0.1, 0.1], [1.0, 2.0, 4.0, 3.0], "outcome does not vary"),
        ([1.0, 2.0, 4.0, 3.0], [2.0, 4.0, 8.0, 6.0], "without error"),
        ([1.0, 2.0, 4.0, math.nan], [1.0, 2.0, 3.0, 5.0], "not finite"),
        ([1.0, 2.0, 4.0, 3.0], [1.0, 2.0, 3.0, math.inf], "not finite"),
        ([1.0, 2.0, 4.0], [1.0, 2.0, 3.0], "fewer than two"),
        ([1.0, 2.0], [1.0, 2.0], "no observations"),
    ],
)
def test_what_cannot_be_adjusted_is_refused(y: list[float], x: list[float], message: str) -> None:
    with pytest.raises(EstimationError, match=message):
        cuped(
            JointMoments.from_arrays((y[:2], None), (x[:2], None)),
            JointMoments.from_arrays((y[2:], None), (x[2:], None)),
        )


def test_moments_that_do_not_fit_are_refused() -> None:
    one = JointMoments.from_arrays(([1.0, 2.0], None))
    with pytest.raises(ValueError, match="two values"):
        cuped(one, one)
    with pytest.raises(EstimationError, match="denominator"):
        JointMoments.from_arrays(([1.0, 2.0], [0.0, 0.0]), ([1.0, 2.0], None))
    with pytest.raises(EstimationError, match="one entry per unit"):
        JointMoments.from_arrays(([1.0, 2.0], None), ([1.0, 2.0, 3.0], None))
    with pytest.raises(EstimationError, match="no observations"):
        JointMoments.from_sums(0, np.zeros(4), np.zeros(4), np.zeros((4, 4)))
    with pytest.raises(EstimationError, match="not finite"):
        JointMoments.from_sums(3, [1.0, 1.0, 1.0, 1.0], [math.nan, 0.0, 0.0, 0.0], np.zeros((4, 4)))


unit = st.tuples(st.floats(-100, 100), st.floats(-100, 100))


@settings(deadline=None, max_examples=50, derandomize=True)
@given(
    st.lists(unit, min_size=3, max_size=25),
    st.lists(unit, min_size=3, max_size=25),
    st.floats(0.1, 10.0),
    st.floats(-50.0, 50.0),
)
def test_the_covariate_s_unit_and_origin_do_not_matter(
    a: list[tuple[float, float]], b: list[tuple[float, float]], scale: float, shift: float
) -> None:
    (y, x), (v, u) = np.array(a).T, np.array(b).T
    if min(np.std(np.append(x, u)), np.std(y), np.std(v)) < 0.1:
        return

    def estimate(*arms: tuple[np.ndarray, np.ndarray]) -> Estimate | None:
        try:
            return cuped(*(JointMoments.from_arrays((outcome, None), (before, None)) for outcome, before in arms))
        except EstimationError:
            return None

    e, swapped = estimate((y, x), (v, u)), estimate((v, u), (y, x))
    moved = estimate((y, scale * x + shift), (v, scale * u + shift))
    if e is None or moved is None or swapped is None or e.std_error < 1e-4:
        return
    assert moved.estimate == pytest.approx(e.estimate, rel=1e-6, abs=1e-8)
    assert moved.std_error == pytest.approx(e.std_error, rel=1e-5)
    assert swapped.estimate == pytest.approx(-e.estimate, rel=1e-9, abs=1e-9)
    assert swapped.std_error == pytest.approx(e.std_error, rel=1e-9)


def study(ratio: bool, lift: float, experiments: int, seed: int) -> tuple[float, float]:
    """Coverage of the interval and of the relative one; bias, stated errors and reduction are held to what is seen.

    Skewed units in arms of 150 and 100; the multiplicative lift makes the arms' spreads and slopes differ.
    """
    rng = np.random.default_rng([seed, ratio, lift > 0])
    covered = relative_covered = 0
    errors, spreads, reductions = [], [], []
    for _ in range(experiments):
        arms = []
        for n, factor in ((150, 1.0), (100, 1.0 + lift)):
            taste = rng.gamma(6.0, 1.0 / 6.0, n)
            before, den = rng.poisson(8.0, n) + 1.0, rng.poisson(8.0, n) + 1.0
            y = factor * taste * rng.gamma(12.0, 1.0 / 12.0, n)
            x = taste * rng.gamma(12.0, 1.0 / 12.0, n)
            pairs: tuple[Pair, Pair] = ((y * den, den), (x * before, before)) if ratio else ((y, None), (x, None))
            arms.append(JointMoments.from_arrays(*pairs))
        e = cuped(*arms)
        covered += e.ci_low <= lift <= e.ci_high
        assert e.relative_ci_low is not None
        assert e.relative_ci_high is not None
        relative_covered += e.relative_ci_low <= lift <= e.relative_ci_high
        errors.append(e.estimate - lift)
        spreads.append(e.std_error)
        reductions.append(e.diagnostics["variance_reduction"])
    # Theta over both arms takes the effect itself for covariance, which draws the estimate to zero by 1 part in 250.
    assert abs(np.mean(errors) + lift / 250) < 4 * np.std(errors) / math.sqrt(experiments)
    assert np.mean(spreads) == pytest.approx(np.std(errors), rel=0.06)
    # Var(taste) over the variances of outcome and covariate, 0.40, and less where denominators add noise of their own.
    assert np.mean(reductions) == pytest.approx(0.33 if ratio else 0.39, abs=0.03)
    return covered / experiments, relative_covered / experiments


EXPERIMENTS = 2000
# Three Monte Carlo standard errors of a share of 5 %.
BAND = 3 * math.sqrt(0.05 * 0.95 / EXPERIMENTS)


@pytest.mark.parametrize("lift", [0.0, 0.6])
@pytest.mark.parametrize("ratio", [False, True])
def test_coverage_and_false_positives_are_nominal(ratio: bool, lift: float) -> None:
    assert study(ratio, lift, EXPERIMENTS, seed=1) == pytest.approx((0.95, 0.95), abs=BAND)


@pytest.mark.slow
@pytest.mark.parametrize("lift", [0.0, 0.6])
@pytest.mark.parametrize("ratio", [False, True])
def test_coverage_stays_between_94_and_96_percent_in_a_long_study(ratio: bool, lift: float) -> None:
    assert study(ratio, lift, 10_000, seed=2) == pytest.approx((0.95, 0.95), abs=0.01)
