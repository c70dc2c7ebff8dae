from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators.cluster_means import Clusters, cluster_means, design_effect, intraclass_correlation
from estimators.difference_in_means import difference_in_means
from estimators.inference import EstimationError
from estimators.moments import Moments


def clusters_of(seed: int, n: int = 16, level: float = 5.0) -> Clusters:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(3, 60, n)
    means = level + rng.normal(size=n)
    arm = np.tile([0, 1], n // 2)
    return Clusters((means + 0.4 * arm) * sizes, sizes, arm)


def test_units_are_welch_on_cluster_means() -> None:
    from scipy.stats import ttest_ind

    c = clusters_of(1)
    mean = c.num / c.den
    theirs = ttest_ind(mean[c.arm == 1], mean[c.arm == 0], equal_var=False)
    ours = cluster_means(c)
    assert ours.method == "cluster_means"
    assert ours.statistic == pytest.approx(theirs.statistic, rel=1e-9)
    assert ours.p_value == pytest.approx(theirs.pvalue, rel=1e-9)
    assert ours.df == pytest.approx(theirs.df, rel=1e-9)
    interval = theirs.confidence_interval(0.95)
    assert (ours.ci_low, ours.ci_high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert (ours.n_control, ours.n_treatment) == (8, 8)


def test_rows_are_the_ratio_of_sums_by_the_delta_method() -> None:
    c = clusters_of(2)
    ours = cluster_means(c, weights="rows")
    arms = [Moments.from_arrays(c.num[c.arm == a], c.den[c.arm == a]) for a in (0, 1)]
    assert ours == replace(difference_in_means(*arms), method="cluster_means", diagnostics=ours.diagnostics)
    value = [c.num[c.arm == a].sum() / c.den[c.arm == a].sum() for a in (0, 1)]
    assert ours.estimate == pytest.approx(value[1] - value[0], rel=1e-12)


def test_pairs_are_the_paired_t_test() -> None:
    from scipy.stats import ttest_rel

    c = replace(clusters_of(3), pairs=np.repeat(list("hgfedcba"), 2))
    mean = c.num / c.den
    theirs = ttest_rel(mean[c.arm == 1], mean[c.arm == 0])
    ours = cluster_means(c)
    assert ours.statistic == pytest.approx(theirs.statistic, rel=1e-9)
    assert ours.p_value == pytest.approx(theirs.pvalue, rel=1e-9)
    assert (ours.df, ours.diagnostics["n_pairs"]) == (7.0, 8)
    # The log ratio's error is that of the pairs' differences of relative deviations.
    from scipy.stats import t as student

    low, high = (mean[c.arm == a] / mean[c.arm == a].mean() for a in (0, 1))
    half = student.ppf(0.975, 7) * np.std(high - low, ddof=1) / np.sqrt(8)
    assert ours.relative_ci_low is not None
    assert np.log1p(ours.relative_ci_low) == pytest.approx(np.log1p(ours.relative) - half, rel=1e-9)


def test_pairs_with_rows_weighed_have_the_ratios_with_their_covariance() -> None:
    c = replace(clusters_of(4), pairs=np.repeat(np.arange(8), 2))
    ours = cluster_means(c, weights="rows")
    score = []
    for a in (0, 1):
        num, den = c.num[c.arm == a], c.den[c.arm == a]
        ratio = num.sum() / den.sum()
        score.append((num - ratio * den) * 8 / den.sum())
    cov = np.cov(score)
    assert ours.std_error == pytest.approx(np.sqrt((cov[0, 0] + cov[1, 1] - 2 * cov[0, 1]) / 8), rel=1e-9)
    assert ours.estimate == pytest.approx(cluster_means(replace(c, pairs=None), weights="rows").estimate, rel=1e-12)


@pytest.mark.parametrize("weights", ["units", "rows"])
def test_strata_are_averaged_with_their_shares(weights: str) -> None:
    c = replace(clusters_of(5), strata=np.array(["a"] * 4 + ["b"] * 12))
    ours = cluster_means(c, weights=weights)
    estimate, parts = 0.0, []
    for name in ("a", "b"):
        mine = c.strata == name
        inner = cluster_means(replace(c.take(mine), strata=None), weights=weights)
        share = mine.mean() if weights == "units" else c.den[mine].sum() / c.den.sum()
        estimate += share * inner.estimate
        for a in (0, 1):
            arm = c.take(mine & (c.arm == a))
            den = np.ones(len(arm.num)) if weights == "units" else arm.den
            num = arm.num / arm.den if weights == "units" else arm.num
            parts.append((share**2 * Moments.from_arrays(num, den).value_variance, len(num) - 1))
    variance = sum(v for v, _ in parts)
    assert ours.estimate == pytest.approx(estimate, rel=1e-12)
    assert ours.std_error == pytest.approx(np.sqrt(variance), rel=1e-12)
    assert ours.df == pytest.approx(variance**2 / sum(v * v / df for v, df in parts), rel=1e-9)
    assert ours.diagnostics["n_strata"] == 2


def test_strata_with_other_shares_of_treatment_do_not_bias() -> None:
    # The outcome is 1 in stratum a and 9 in b; treatment is rare in a and common in b, and does nothing.
    arm = np.array([0, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 1])
    noise = np.tile([0.1, -0.1], 6)
    c = Clusters(np.repeat([1.0, 9.0], 6) + noise, np.ones(12), arm, strata=np.repeat([0, 1], 6))
    assert abs(cluster_means(c).estimate) < 1e-12
    assert cluster_means(replace(c, strata=None)).estimate > 2.0


def test_clusters_without_rows_and_broken_pairs_are_named() -> None:
    c = replace(clusters_of(6), pairs=np.repeat([f"p{k}" for k in range(8)], 2))
    num, den = c.num.copy(), c.den.copy()
    num[3] = den[3] = 0.0
    ours = cluster_means(replace(c, num=num, den=den, labels=tuple(f"c{k}" for k in range(16))))
    whole = cluster_means(c.take(np.r_[0:2, 4:16]))
    assert ours.estimate == whole.estimate
    assert ours.diagnostics == {"n_clusters": 14, "empty_clusters": ["c3"], "broken_pairs": ["p1"], "n_pairs": 7}


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.integers(0, 10**6), st.sampled_from(["units", "rows"]), st.sampled_from(["none", "strata", "pairs"]))
def test_swapping_the_arms_turns_the_sign(seed: int, weights: str, design: str) -> None:
    c = clusters_of(seed)
    if design != "none":
        c = replace(c, **{design: np.arange(16) // (2 if design == "pairs" else 8)})
    ours, swapped = cluster_means(c, weights=weights), cluster_means(replace(c, arm=1 - c.arm), weights=weights)
    assert swapped.estimate == pytest.approx(-ours.estimate, rel=1e-9)
    assert swapped.std_error == pytest.approx(ours.std_error, rel=1e-9)
    assert swapped.p_value == pytest.approx(ours.p_value, rel=1e-9)


def test_holds_at_a_mean_of_a_billion() -> None:
    small, large = clusters_of(7, level=0.0), clusters_of(7, level=1e9)
    for weights in ("units", "rows"):
        a, b = cluster_means(small, weights=weights), cluster_means(large, weights=weights)
        assert b.std_error == pytest.approx(a.std_error, rel=1e-5)


@pytest.mark.parametrize(
    ("clusters", "message"),
    [
        (Clusters([1, 2, 3], [1, 1, 1], [0, 1, 1]), "control has 1 cluster; an error needs at least two"),
        (Clusters([1, 2, 3, 4], [1, 1, 1, 1], [0, 0, 1, 1], pairs=list("aabb")), "pair a has more than one cluster in"),
        (
            Clusters(range(8), np.ones(8), [0, 0, 1, 1, 0, 0, 0, 1], strata=list("aaaabbbb")),
            "stratum b has 1 cluster in treatment; cluster_means needs two in either arm of every stratum",
        ),
        (Clusters([2, 2, 2, 2], [1, 1, 1, 1], [0, 0, 1, 1]), "does not vary"),
        (Clusters([2, 2, 2, 2], [1, 1, 1, 1], [0, 1, 0, 1], pairs=[1, 1, 2, 2]), "does not vary between clusters"),
    ],
)
def test_refusals(clusters: Clusters, message: str) -> None:
    with pytest.raises(EstimationError, match=message):
        cluster_means(clusters)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1, 2], [1, 1], [0, 2]), "arms of clusters must be 0"),
        (([1, 2], [1], [0, 1]), "one entry per cluster"),
        (([1, np.nan], [1, 1], [0, 1]), "not finite"),
        (([1, 2], [1, -1], [0, 1]), "must not be negative"),
    ],
)
def test_clusters_are_checked(arguments: tuple[list[float], ...], message: str) -> None:
    with pytest.raises(EstimationError, match=message):
        Clusters(*arguments)


def test_intraclass_correlation_is_that_of_the_analysis_of_variance() -> None:
    rng = np.random.default_rng(8)
    sizes = rng.integers(2, 30, 40)
    g = np.repeat(np.arange(40), sizes)
    y = 1e6 + rng.normal(size=40)[g] + 2 * rng.normal(size=len(g))
    clusters = Clusters(np.bincount(g, y), sizes, np.zeros(40))
    within = np.array([((y[g == k] - y[g == k].mean()) ** 2).sum() for k in range(40)])
    from scipy.stats import f_oneway

    f = f_oneway(*(y[g == k] for k in range(40))).statistic
    m0 = (len(g) - (sizes**2).sum() / len(g)) / 39
    assert intraclass_correlation(clusters, within) == pytest.approx((f - 1) / (f - 1 + m0), rel=1e-6)


def test_intraclass_correlation_takes_the_arms_out() -> None:
    rng = np.random.default_rng(9)
    sizes, arm = rng.integers(5, 200, 1000), np.arange(1000) % 2
    g = np.repeat(np.arange(1000), sizes)
    y = 3 * arm[g] + rng.normal(size=1000)[g] * 0.5 + rng.normal(size=len(g))
    mean = np.bincount(g, y) / sizes
    within = np.bincount(g, (y - mean[g]) ** 2)
    icc = intraclass_correlation(Clusters(np.bincount(g, y), sizes, arm), within)
    assert icc == pytest.approx(0.25 / 1.25, abs=0.02)


def test_alike_clusters_have_a_negative_correlation() -> None:
    assert intraclass_correlation(Clusters([3, 3, 3], [2, 2, 2], [0, 0, 0]), [0.5, 0.5, 0.5]) == pytest.approx(-1.0)
    with pytest.raises(EstimationError, match="does not vary"):
        intraclass_correlation(Clusters([3, 3, 3], [2, 2, 2], [0, 0, 0]), [0.0, 0.0, 0.0])
    with pytest.raises(EstimationError, match="clusters of several rows"):
        intraclass_correlation(Clusters([3, 3, 3], [1, 1, 1], [0, 0, 0]), [0.0, 0.0, 0.0])


def test_design_effect_is_the_variance_of_a_row_mean() -> None:
    sizes, icc = np.array([3, 10, 25]), 0.3
    g = np.repeat(np.arange(3), sizes)
    correlation = np.where(g[:, None] == g, icc, 0.0) + (1 - icc) * np.eye(len(g))
    assert design_effect(sizes, icc) == pytest.approx(correlation.sum() / len(g), rel=1e-12)
    assert design_effect([1, 1, 1], 0.3) == 1.0


@pytest.mark.parametrize("pairs", [None, np.arange(12) // 2])
def test_relative_effects_where_there_is_no_logarithm(pairs: np.ndarray | None) -> None:
    num = np.array([3.0, 0, 4, 0, 5, 0, 6, 0, 2, 0, 4, 0])
    c = Clusters(num, np.ones(12), np.arange(12) % 2, pairs=pairs)
    gone = cluster_means(c)
    assert gone.relative == pytest.approx(-1.0)
    assert (gone.relative_ci_low, gone.relative_ci_high) == (None, None)
    assert "zero throughout" in gone.relative_reason
    below = cluster_means(replace(c, num=num - np.array([0, 1, 0, 2, 0, 3, 0, 1, 0, 2, 0, 1])))
    assert below.relative_ci_low is not None
    assert below.relative_ci_high is not None
    assert below.relative_ci_low < -1.0 - 10 / 24 < below.relative_ci_high
    negative = cluster_means(replace(c, num=-num))
    assert (negative.relative, negative.relative_reason) == (None, "control's value is not positive")
