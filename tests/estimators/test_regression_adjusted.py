from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators.difference_in_means import difference_in_means
from estimators.inference import EstimationError
from estimators.moments import Moments
from estimators.regression_adjusted import regression_adjusted


def lin_by_statsmodels(y: np.ndarray, arm: np.ndarray, x: np.ndarray) -> Any:
    """The arm's coefficient in the fully interacted regression, HC2."""
    import statsmodels.api as sm

    centred = x - x.mean(axis=0)
    design = np.column_stack([np.ones(len(y)), arm, centred, arm[:, None] * centred])
    return sm.OLS(y, design).fit(cov_type="HC2", use_t=True)


def health_insurance() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Doctor's visits, randomized to free care or not, health before: the RAND experiment as statsmodels ships it."""
    from statsmodels.datasets import randhie

    data = randhie.load_pandas().data.astype(float)
    free = (data["lncoins"] == 0.0).to_numpy().astype(int)
    return data["mdvis"].to_numpy(), free, data[["disea", "physlm", "hlthg", "hlthf", "hlthp"]].to_numpy()


def test_agrees_with_statsmodels_on_the_rand_experiment() -> None:
    visits, free, health = health_insurance()
    ours = regression_adjusted(visits, free, health, names=["disea", "physlm", "hlthg", "hlthf", "hlthp"])
    theirs = lin_by_statsmodels(visits, free, health)
    assert ours.estimate == pytest.approx(theirs.params[1], rel=1e-9)
    assert ours.std_error == pytest.approx(theirs.bse[1], rel=1e-9)
    assert ours.control_value == pytest.approx(theirs.params[0], rel=1e-9)
    assert ours.treatment_value == pytest.approx(theirs.params[0] + theirs.params[1], rel=1e-9)
    assert (ours.n_control, ours.n_treatment) == (int((free == 0).sum()), int(free.sum()))
    assert ours.diagnostics["covariates"] == ["disea", "physlm", "hlthg", "hlthf", "hlthp"]
    assert ours.diagnostics["dropped"] == []
    assert ours.diagnostics["variance_reduction"] > 0.03


def test_agrees_with_statsmodels_in_a_small_sample_with_leverage() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_t(2, size=(40, 3)) * [1.0, 1e4, 1e-3] + [0.0, 1e6, 5.0]
    arm = (np.arange(40) % 5 < 2).astype(int)
    y = 1e3 + x @ [2.0, 1e-3, 50.0] + arm * x[:, 0] + rng.normal(size=40)
    ours, theirs = regression_adjusted(y, arm, x), lin_by_statsmodels(y, arm, x)
    assert ours.estimate == pytest.approx(theirs.params[1], rel=1e-9)
    assert ours.std_error == pytest.approx(theirs.bse[1], rel=1e-9)


def test_ratios_are_adjusted_through_their_linearised_values() -> None:
    from statsmodels.datasets import star98

    data = star98.load_pandas().data.astype(float)
    above, total = data["NABOVE"].to_numpy(), (data["NABOVE"] + data["NBELOW"]).to_numpy()
    x, arm = data[["LOWINC", "PTRATIO", "AVYRSEXP"]].to_numpy(), np.arange(303) % 2
    linearised = np.empty(303)
    for a in (0, 1):
        side = arm == a
        ratio = above[side].sum() / total[side].sum()
        linearised[side] = ratio + (above[side] - ratio * total[side]) / total[side].mean()
    ours, theirs = regression_adjusted(above, arm, x, total), lin_by_statsmodels(linearised, arm, x)
    assert ours.estimate == pytest.approx(theirs.params[1], rel=1e-9)
    assert ours.std_error == pytest.approx(theirs.bse[1], rel=1e-9)


def test_ratio_error_agrees_with_the_jackknife() -> None:
    rng = np.random.default_rng(2)
    n = 500
    x, arm = rng.normal(size=(n, 2)), (np.arange(n) % 2)
    den = 1.0 + rng.poisson(8.0, n)
    num = den * (5.0 + x @ [1.0, 0.5] + arm + rng.normal(size=n))
    e = regression_adjusted(num, arm, x, den)
    variance = 0.0
    for a in (0, 1):
        without = []
        for i in np.flatnonzero(arm == a):
            keep = np.arange(n) != i
            left = regression_adjusted(num[keep], arm[keep], x[keep], den[keep])
            without.append(left.estimate)
        size = len(without)
        variance += (size - 1) ** 2 / size * float(np.var(without, ddof=1))
    assert e.std_error == pytest.approx(math.sqrt(variance), rel=0.02)
    assert e.diagnostics["variance_reduction"] > 0.3


@pytest.mark.parametrize("ratio", [False, True])
def test_without_covariates_it_is_welch(ratio: bool) -> None:
    rng = np.random.default_rng(3)
    arm = (np.arange(130) < 50).astype(int)
    den = 1.0 + rng.poisson(4.0, 130) if ratio else None
    num = rng.gamma(3.0, size=130) * (1.0 if den is None else den)
    ours = regression_adjusted(num, arm, np.empty((130, 0)), den)
    sides = (arm == 0, arm == 1)
    welch = difference_in_means(*(Moments.from_arrays(num[s], None if den is None else den[s]) for s in sides))
    for field in (
        "estimate",
        "std_error",
        "df",
        "p_value",
        "ci_low",
        "relative",
        "relative_ci_low",
        "relative_ci_high",
    ):
        assert getattr(ours, field) == pytest.approx(getattr(welch, field), rel=1e-9)
    assert ours.diagnostics["variance_reduction"] == pytest.approx(0.0, abs=1e-12)


def test_variance_falls_by_the_share_that_the_covariates_explain() -> None:
    rng = np.random.default_rng(4)
    x, arm = rng.normal(size=(100_000, 3)), np.arange(100_000) % 2
    y = x @ [0.6, 0.5, 0.3] + math.sqrt(1.0 - 0.7) * rng.normal(size=100_000)
    assert regression_adjusted(y, arm, x).diagnostics["variance_reduction"] == pytest.approx(0.7, abs=0.005)


def test_covariates_that_add_nothing_are_dropped_and_named() -> None:
    rng = np.random.default_rng(5)
    n, arm = 200, np.arange(200) % 2
    x = rng.normal(size=n)
    tier = rng.integers(0, 3, n)
    rare = np.zeros(n)
    rare[7] = 1.0
    two = np.zeros(n)
    two[[4, 6]] = 1.0
    columns = {
        "queue": x,
        "queue_in_seconds": 3.0 * x - 2.0,
        "free": (tier == 0).astype(float),
        "pro": (tier == 1).astype(float),
        "team": (tier == 2).astype(float),
        "region": np.full(n, 0.1),
        "one_customer": rare,
        "two_in_control": two,
    }
    y = x + tier + 0.3 * arm + rng.normal(size=n)
    e = regression_adjusted(y, arm, np.column_stack(list(columns.values())), names=list(columns))
    plain = regression_adjusted(y, arm, np.column_stack([columns[c] for c in ("queue", "free", "pro")]))
    assert e.diagnostics["covariates"] == ["queue", "free", "pro"]
    assert e.diagnostics["dropped"] == [
        "region: does not vary",
        "queue_in_seconds: constant or a combination of those before it in control",
        "team: constant or a combination of those before it in control",
        "one_customer: constant or a combination of those before it in control",
        "two_in_control: constant or a combination of those before it in treatment",
    ]
    assert (e.estimate, e.std_error) == pytest.approx((plain.estimate, plain.std_error), rel=1e-9)


def test_a_covariate_that_one_unit_decides_is_dropped_and_named() -> None:
    """Its slope in control would rest on one unit that leaves no residual, so no error could be seen."""
    rng = np.random.default_rng(6)
    arm, x = np.arange(60) % 2, rng.normal(size=60)
    rare = np.zeros(60)
    rare[[4, 1, 3, 5]] = 1.0
    y = x + rng.normal(size=60)
    e = regression_adjusted(y, arm, np.column_stack([rare, x]), names=["rare", "x"])
    assert e.diagnostics["dropped"] == ["rare: one unit alone decides its slope in control"]
    assert e.std_error == pytest.approx(regression_adjusted(y, arm, x[:, None]).std_error, rel=1e-9)


@pytest.mark.parametrize("clustered", [False, True])
def test_means_of_a_billion_keep_their_error(clustered: bool) -> None:
    rng = np.random.default_rng(7)
    arm, x = np.arange(3000) % 2, rng.normal(size=(3000, 2))
    y = x @ [1.0, -0.5] + rng.normal(size=3000)
    rows = 1.0 + rng.poisson(9.0, 3000) if clustered else np.ones(3000)
    den = rows if clustered else None
    near = regression_adjusted(y * rows, arm, x, den)
    far = regression_adjusted((1e9 + y) * rows, arm, 1e9 + x, den)
    assert far.estimate == pytest.approx(near.estimate, abs=1e-6)
    assert far.std_error == pytest.approx(near.std_error, rel=1e-6)


@pytest.mark.parametrize(
    ("y", "x", "message"),
    [
        ([1.0, 2.0, 4.0, 3.0, 9.0, 7.0], [1.0, 1.0, 1.0, 1.0, 1.0, 1.0], "no covariate is left.*q: does not vary"),
        ([0.1] * 6, [1.0, 2.0, 4.0, 3.0, 9.0, 7.0], "outcome does not vary"),
        ([1.0, 2.0, 4.0, 3.0, 9.0, 7.0], [2.0, 4.0, 8.0, 6.0, 18.0, 14.0], "without error"),
        ([1.0, 2.0, 4.0, 3.0, 9.0, math.nan], [1.0, 2.0, 4.0, 3.0, 9.0, 7.0], "outcome holds values"),
        ([1.0, 2.0, 4.0, 3.0, 9.0, 7.0], [1.0, 2.0, math.nan, 3.0, 9.0, 7.0], "missing or not finite: q"),
    ],
)
def test_what_cannot_be_adjusted_is_refused(y: list[float], x: list[float], message: str) -> None:
    with pytest.raises(EstimationError, match=message):
        regression_adjusted(y, [0, 0, 0, 1, 1, 1], np.array(x)[:, None], names=["q"])


def test_units_that_are_too_few_or_out_of_place_are_refused() -> None:
    rng = np.random.default_rng(8)
    x = rng.normal(size=(8, 2))
    with pytest.raises(
        EstimationError, match="control has 3 independent units; the regression needs 4 for 2 covariates"
    ):
        regression_adjusted(rng.normal(size=8), [0, 0, 0, 1, 1, 1, 1, 1], x)
    with pytest.raises(EstimationError, match="treatment has 0 independent units"):
        regression_adjusted(rng.normal(size=8), np.zeros(8), x)
    with pytest.raises(EstimationError, match="arms must be 0"):
        regression_adjusted(rng.normal(size=8), [0, 0, 0, 0, 1, 1, 1, 2], x)
    with pytest.raises(EstimationError, match="denominator"):
        regression_adjusted(rng.normal(size=8), [0, 0, 0, 0, 1, 1, 1, 1], x, np.zeros(8))
    with pytest.raises(ValueError, match="one entry per unit"):
        regression_adjusted(rng.normal(size=7), [0, 0, 0, 0, 1, 1, 1, 1], x)
    with pytest.raises(ValueError, match="1 names for 2 covariates"):
        regression_adjusted(rng.normal(size=8), [0, 0, 0, 0, 1, 1, 1, 1], x, names=["a"])


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.integers(0, 10_000), st.integers(8, 40), st.floats(0.01, 100.0), st.floats(-100.0, 100.0))
def test_units_of_measurement_and_order_do_not_matter(seed: int, n: int, scale: float, shift: float) -> None:
    rng = np.random.default_rng(seed)
    x, arm, y = rng.normal(size=(2 * n, 2)), np.arange(2 * n) % 2, rng.normal(3.0, 1.0, 2 * n)
    e = regression_adjusted(y, arm, x)
    turned = regression_adjusted(scale * y + shift, arm, np.column_stack([x[:, 0] - x[:, 1], scale * x[:, 1] + shift]))
    order = rng.permutation(2 * n)
    shuffled = regression_adjusted(y[order], arm[order], x[order])
    swapped = regression_adjusted(y, 1 - arm, x)
    assert turned.estimate == pytest.approx(scale * e.estimate, rel=1e-6, abs=1e-9)
    assert turned.std_error == pytest.approx(scale * e.std_error, rel=1e-6)
    assert shuffled.std_error == pytest.approx(e.std_error, rel=1e-9)
    assert swapped.estimate == pytest.approx(-e.estimate, rel=1e-9, abs=1e-12)
    assert e.diagnostics["std_error_population"] >= e.std_error


def study(ratio: bool, effect: float, experiments: int, seed: int) -> tuple[float, float]:
    """Coverage of the interval and of the relative one; bias and stated errors are held to what is seen.

    Skewed outcomes, arms of 100 and 60, and a covariate whose relation to the outcome no straight line catches.
    """
    rng = np.random.default_rng([seed, ratio, effect > 0])
    arm = (np.arange(160) < 60).astype(int)
    covered = relative_covered = 0
    errors, spreads = [], []
    for _ in range(experiments):
        x = np.column_stack([rng.normal(size=160), rng.exponential(size=160), rng.random(160) < 0.3])
        y = 5.0 + effect * arm + x @ [0.8, 0.6, 0.5] + 0.3 * x[:, 0] ** 2 + rng.gamma(2.0, 0.5, 160)
        den = 1.0 + rng.poisson(6.0, 160) if ratio else None
        e = regression_adjusted(y if den is None else y * den, arm, x, den)
        covered += e.ci_low <= effect <= e.ci_high
        assert e.relative_ci_low is not None
        assert e.relative_ci_high is not None
        # Control's mean: 5 + 0.6 + 0.5 * 0.3 + 0.3 + 1.
        relative_covered += e.relative_ci_low <= effect / 7.05 <= e.relative_ci_high
        errors.append(e.estimate - effect)
        spreads.append(e.std_error)
    assert abs(np.mean(errors)) < 4 * np.std(errors) / math.sqrt(experiments)
    assert np.mean(spreads) == pytest.approx(np.std(errors), rel=0.06)
    return covered / experiments, relative_covered / experiments


EXPERIMENTS = 2000
# Three Monte Carlo standard errors of a share of 5 %.
BAND = 3 * math.sqrt(0.05 * 0.95 / EXPERIMENTS)


@pytest.mark.parametrize("effect", [0.0, 0.5])
@pytest.mark.parametrize("ratio", [False, True])
def test_coverage_and_false_positives_are_nominal(ratio: bool, effect: float) -> None:
    assert study(ratio, effect, EXPERIMENTS, seed=1) == pytest.approx((0.95, 0.95), abs=BAND)


@pytest.mark.slow
@pytest.mark.parametrize("effect", [0.0, 0.5])
@pytest.mark.parametrize("ratio", [False, True])
def test_coverage_stays_between_94_and_96_percent_in_a_long_study(ratio: bool, effect: float) -> None:
    assert study(ratio, effect, 10_000, seed=2) == pytest.approx((0.95, 0.95), abs=0.01)


def test_slopes_that_differ_by_arm_are_covered_for_the_units_and_for_their_population() -> None:
    """The stated error is for the effect on the units at hand; drawing the units anew needs the wider one."""
    rng = np.random.default_rng(30)
    units = population = narrow = 0
    for _ in range(EXPERIMENTS):
        x = rng.normal(size=(200, 1))
        arm = rng.permutation(np.arange(200) % 2)
        effects = 1.0 + 1.5 * x[:, 0]
        e = regression_adjusted(2.0 + x[:, 0] + arm * effects + rng.normal(size=200), arm, x)
        units += e.ci_low <= effects.mean() <= e.ci_high
        half = (e.ci_high - e.ci_low) / 2
        narrow += abs(e.estimate - 1.0) <= half
        population += abs(e.estimate - 1.0) <= half * e.diagnostics["std_error_population"] / e.std_error
    assert units / EXPERIMENTS == pytest.approx(0.95, abs=BAND)
    assert population / EXPERIMENTS == pytest.approx(0.95, abs=BAND)
    assert narrow / EXPERIMENTS < 0.91
