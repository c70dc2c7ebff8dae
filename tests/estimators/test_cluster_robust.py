from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators.cluster_means import Clusters, cluster_means
from estimators.cluster_robust import cluster_robust
from estimators.inference import EstimationError


class Rows:
    """Rows of a cluster-randomized experiment with clusters of unequal size, and their sums."""

    def __init__(self, seed: int, n: int = 14, strata: int = 0, pairs: bool = False, level: float = 3.0) -> None:
        rng = np.random.default_rng(seed)
        sizes = rng.integers(2, 15, n)
        self.cluster = np.repeat(np.arange(n), sizes)
        arm = np.tile([0, 1], n // 2) if pairs else rng.permutation(np.arange(n) % 2)
        self.strata = np.arange(n) * strata // n if strata else None
        self.pairs = np.arange(n) // 2 if pairs else None
        self.arm = arm[self.cluster].astype(float)
        effects = rng.normal(size=n) + 0.6 * arm + (0 if self.strata is None else self.strata)
        self.y = level + effects[self.cluster] + rng.gamma(1.0, size=len(self.cluster))
        self.clusters = Clusters(np.bincount(self.cluster, self.y), sizes, arm, self.strata, self.pairs)
        levels = self.pairs if pairs else self.strata
        columns = [np.ones(len(self.y)), self.arm]
        if levels is not None:
            columns += [(levels[self.cluster] == k).astype(float) for k in np.unique(levels)[1:]]
        self.x = np.column_stack(columns)
        self.groups = self.pairs[self.cluster] if self.pairs is not None else self.cluster


def dense(rows: Rows, power: float, c: np.ndarray) -> tuple[float, float]:
    """Standard error and Satterthwaite's degrees of freedom as defined, with matrices of rows by rows."""
    x, y, groups = rows.x, rows.y, rows.groups
    bread = np.linalg.inv(x.T @ x)
    annihilator = np.eye(len(y)) - x @ bread @ x.T
    columns = []
    for g in np.unique(groups):
        mine = groups == g
        values, vectors = np.linalg.eigh(annihilator[np.ix_(mine, mine)])
        root = vectors @ np.diag([v**power if v > 1e-9 else 0.0 for v in values]) @ vectors.T
        columns.append(annihilator[:, mine] @ root @ x[mine] @ bread @ c)
    g_matrix = np.column_stack(columns)
    gram = g_matrix.T @ g_matrix
    return float(np.linalg.norm(y @ g_matrix)), float(np.trace(gram) ** 2 / (gram**2).sum())


DESIGNS = [{}, {"strata": 3}, {"pairs": True}, {"n": 5}]


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("seed", range(3))
def test_cr2_and_cr3_are_those_of_the_regression_of_rows(design: dict[str, int], seed: int) -> None:
    rows = Rows(seed, **design)
    c = np.eye(rows.x.shape[1])[1]
    coefficients = np.linalg.lstsq(rows.x, rows.y, rcond=None)[0]
    std_error, df = dense(rows, -0.5, c)
    ours = cluster_robust(rows.clusters)
    assert ours.estimate == pytest.approx(coefficients[1], rel=1e-9)
    assert ours.std_error == pytest.approx(std_error, rel=1e-9)
    assert ours.df == pytest.approx(df, rel=1e-9)
    # Values by arm: strata's (pairs') row means with the weights that least squares gives their differences.
    levels = np.zeros(len(rows.y)) if rows.x.shape[1] == 2 else rows.x[:, 2:] @ np.arange(1, rows.x.shape[1] - 1)
    means = [[rows.y[(levels == k) & (rows.arm == a)].mean() for k in np.unique(levels)] for a in (0, 1)]
    shares = [[(rows.arm[levels == k] == a).sum() for k in np.unique(levels)] for a in (0, 1)]
    weight = np.prod(shares, axis=0) / np.sum(shares, axis=0)
    assert (ours.control_value, ours.treatment_value) == pytest.approx(
        np.average(means, axis=1, weights=weight), rel=1e-9
    )
    cr3 = cluster_robust(rows.clusters, variance="CR3")
    assert cr3.std_error == pytest.approx(dense(rows, -1.0, c)[0], rel=1e-9)
    assert cr3.df == len(np.unique(rows.groups)) - 1


@pytest.mark.parametrize("design", DESIGNS)
def test_cr1_is_statsmodels_clustered_regression_of_rows(design: dict[str, int]) -> None:
    import statsmodels.api as sm

    rows = Rows(7, **design)
    theirs = sm.OLS(rows.y, rows.x).fit(cov_type="cluster", cov_kwds={"groups": rows.groups})
    ours = cluster_robust(rows.clusters, variance="CR1")
    # Indicators of pairs lie within their group, and are not counted as parameters (Stata's xtreg, fixest's nested).
    n, k = rows.x.shape
    factor = np.sqrt((n - k) / (n - 2)) if rows.pairs is not None else 1.0
    assert ours.estimate == pytest.approx(theirs.params[1], rel=1e-9)
    assert ours.std_error == pytest.approx(theirs.bse[1] * factor, rel=1e-9)


def test_public_data_grunfeld() -> None:
    import statsmodels.api as sm
    from statsmodels.datasets import grunfeld

    data = grunfeld.load_pandas().data
    data = data[data["year"] >= 1935 + data["firm"].str.len() % 7]
    firms, codes = np.unique(data["firm"], return_inverse=True)
    arm = np.arange(len(firms)) % 2
    y = data["invest"].to_numpy()
    clusters = Clusters(np.bincount(codes, y), np.bincount(codes), arm, labels=tuple(firms))
    x = sm.add_constant(arm[codes].astype(float))
    theirs = sm.OLS(y, x).fit(cov_type="cluster", cov_kwds={"groups": codes})
    ours = cluster_robust(clusters, variance="CR1")
    assert ours.estimate == pytest.approx(theirs.params[1], rel=1e-9)
    assert ours.std_error == pytest.approx(theirs.bse[1], rel=1e-9)


@pytest.mark.parametrize("design", DESIGNS)
def test_the_log_ratio_has_the_error_of_the_regression_of_relative_outcomes(design: dict[str, int]) -> None:
    from scipy.stats import t as student

    rows = Rows(5, level=9.0, **design)
    ours = cluster_robust(rows.clusters)
    c, t = ours.control_value, ours.treatment_value
    rows.y = rows.y / np.where(rows.arm == 1, t, c)
    std_error, df = dense(rows, -0.5, np.eye(rows.x.shape[1])[1])
    half = student.ppf(0.975, df) * std_error
    assert ours.relative == pytest.approx(t / c - 1.0, rel=1e-12)
    assert ours.relative_ci_low == pytest.approx(t / c * np.exp(-half) - 1.0, rel=1e-9)
    assert ours.relative_ci_high == pytest.approx(t / c * np.exp(half) - 1.0, rel=1e-9)


def test_effects_in_proportion_are_seen_as_such() -> None:
    rng = np.random.default_rng(0)
    level = np.repeat(10.0 ** np.arange(-3, 5), 2)
    c = Clusters(level * np.tile([1.0, 1.1], 8), np.ones(16), np.tile([0, 1], 8), pairs=np.repeat(np.arange(8), 2))
    e = cluster_robust(replace(c, num=c.num * (1 + 1e-3 * rng.normal(size=16))))
    assert e.relative_ci_low is not None
    assert e.relative_ci_high is not None
    assert 0.095 < e.relative_ci_low < e.relative_ci_high < 0.105
    assert e.ci_low < 0.0


def test_cluster_means_alike_have_welchs_error() -> None:
    clusters = Rows(3).clusters
    ours, welch = cluster_robust(clusters, weights="units"), cluster_means(clusters)
    assert ours.estimate == pytest.approx(welch.estimate, rel=1e-12)
    assert ours.std_error == pytest.approx(welch.std_error, rel=1e-12)


def test_pairs_alike_are_the_paired_t_test_under_cr2() -> None:
    clusters = Rows(3, pairs=True).clusters
    ours, paired = cluster_robust(clusters, weights="units"), cluster_means(clusters)
    for name in ("estimate", "std_error", "df", "p_value", "ci_low", "ci_high", "control_value"):
        assert getattr(ours, name) == pytest.approx(getattr(paired, name), rel=1e-9)


def test_a_denominator_that_is_zero_in_a_cluster_is_no_obstacle_to_rows() -> None:
    clusters = Clusters([5, 4, 3, 8, 9, 7], [2, 0, 3, 4, 4, 3], [0, 0, 0, 1, 1, 1])
    assert cluster_robust(clusters).estimate == pytest.approx(24 / 11 - 12 / 5)
    with pytest.raises(EstimationError, match="cluster 1 has a numerator but no positive denominator"):
        cluster_robust(clusters, weights="units")


def test_row_counts_enter_cr1_where_the_denominator_is_something_else() -> None:
    rows = Rows(2)
    same = cluster_robust(replace(rows.clusters, den=rows.clusters.den * 0.01, rows=rows.clusters.den), variance="CR1")
    plain = cluster_robust(rows.clusters, variance="CR1")
    assert same.estimate == pytest.approx(100 * plain.estimate, rel=1e-9)
    assert same.std_error == pytest.approx(100 * plain.std_error, rel=1e-9)


def brute_wild(rows: Rows, null: float) -> float:
    """Restricted wild cluster bootstrap on the rows: the share of all sign patterns with a statistic as large."""
    x, n_groups = rows.x, int(rows.groups.max()) + 1
    bread = np.linalg.inv(x.T @ x)

    def statistic(y: np.ndarray) -> float:
        beta = bread @ x.T @ y
        e = y - x @ beta
        scores = np.array([x[rows.groups == g].T @ e[rows.groups == g] for g in range(n_groups)])
        return abs(beta[1] - null) / np.sqrt((bread @ scores.T @ scores @ bread)[1, 1])

    others = np.delete(x, 1, axis=1)
    shifted = rows.y - null * rows.arm
    fitted = others @ np.linalg.lstsq(others, shifted, rcond=None)[0]
    residuals, base = shifted - fitted, fitted + null * rows.arm
    observed, extreme = statistic(rows.y), 0
    patterns = 2**n_groups
    for k in range(patterns):
        v = 2.0 * ((k >> np.arange(n_groups)) & 1) - 1.0
        with np.errstate(divide="ignore"):
            extreme += statistic(base + v[rows.groups] * residuals) >= observed * (1 - 1e-9)
    return extreme / patterns


@pytest.mark.parametrize("design", [{"n": 12}, {"n": 12, "strata": 2}, {"n": 24, "pairs": True}])
def test_wild_bootstrap_enumerates_as_the_one_on_rows(design: dict[str, int]) -> None:
    rows = Rows(11, **design)
    ours = cluster_robust(rows.clusters, variance="wild")
    assert ours.diagnostics["exact"]
    assert ours.diagnostics["draws"] == 4096
    assert ours.p_value == pytest.approx(brute_wild(rows, 0.0), abs=1e-12)
    # Just inside the interval the test keeps the null, just outside it rejects.
    step = 1e-6 * ours.std_error
    assert brute_wild(rows, ours.ci_high + step) <= 0.05 < brute_wild(rows, ours.ci_high - step)


@pytest.mark.parametrize(("effect", "count"), [(0.0, 2050), (0.5, 532)])
def test_wild_bootstrap_has_the_p_value_of_wildboottest(effect: float, count: int) -> None:
    """wildboottest 0.3.2, ``wildboottest(OLS, param="arm", cluster=g, B=9999, weights_type="rademacher",
    impose_null=True, bootstrap_type="11")``: all 4,096 patterns, those larger than the statistic. It does not count
    the two patterns that give the data back."""
    sizes = np.arange(40, 100, 5)
    g = np.repeat(np.arange(12), sizes)
    arm = np.array([0, 1, 1, 0, 1, 0, 0, 1, 0, 1, 0, 1])
    y = np.sin(1.7 * g + 0.3) + 0.8 * np.cos(12.9898 * np.arange(len(g))) + effect * arm[g]
    ours = cluster_robust(Clusters(np.bincount(g, y), sizes, arm), variance="wild")
    assert ours.p_value == (count + 2) / 4096
    assert ours.statistic == pytest.approx({0.0: 0.719742, 0.5: 1.910608}[effect], abs=5e-7)


def test_wild_bootstrap_is_seeded_and_takes_six_points_below_twelve_clusters() -> None:
    few = Rows(1, n=8).clusters
    first, again, other = (cluster_robust(few, variance="wild", draws=499, seed=s) for s in (1, 1, 2))
    assert first == again
    assert first.ci_low != other.ci_low
    assert first.diagnostics["points"] == 6
    assert first.diagnostics["exact"] is False
    many = cluster_robust(Rows(1, n=30).clusters, variance="wild", draws=499)
    assert (many.diagnostics["points"], many.diagnostics["draws"]) == (2, 499)


def test_interval_and_p_value_of_the_wild_bootstrap_agree() -> None:
    for seed in range(40):
        e = cluster_robust(Rows(seed, n=10).clusters, variance="wild", draws=199)
        assert (e.p_value <= 0.05) == (not e.ci_low <= 0.0 <= e.ci_high)


@settings(deadline=None, max_examples=25, derandomize=True)
@given(
    st.integers(0, 10**6),
    st.floats(-1e6, 1e6),
    st.sampled_from([1e-3, 1.0, 1e4]),
    st.sampled_from(["CR1", "CR2", "wild"]),
)
def test_moves_with_location_and_scale(seed: int, shift: float, scale: float, variance: str) -> None:
    rows = Rows(seed, n=12, strata=2)
    base = cluster_robust(rows.clusters, variance=variance, draws=199)
    moved = replace(rows.clusters, num=(rows.clusters.num + shift * rows.clusters.den) * scale)
    there = cluster_robust(moved, variance=variance, draws=199)
    for name in ("estimate", "std_error", "ci_low", "ci_high"):
        assert getattr(there, name) == pytest.approx(scale * getattr(base, name), rel=1e-5, abs=1e-5 * scale)
    assert there.p_value == pytest.approx(base.p_value, rel=1e-4)


def test_order_and_names_of_clusters_do_not_matter() -> None:
    clusters = Rows(4, strata=3).clusters
    mixed = clusters.take(np.random.default_rng(0).permutation(14))
    mixed = replace(mixed, strata=np.array([f"s{k}" for k in mixed.strata]))
    ours, theirs = cluster_robust(clusters), cluster_robust(mixed)
    assert theirs.estimate == pytest.approx(ours.estimate, rel=1e-12)
    assert theirs.std_error == pytest.approx(ours.std_error, rel=1e-12)


def test_what_adds_nothing_is_named() -> None:
    clusters = Clusters(
        [1, 2, 4, 5, 7, 9, 3, 0],
        [1, 1, 1, 1, 1, 1, 1, 0],
        [0, 1, 0, 1, 0, 1, 1, 1],
        list("aabbcczz"),
        labels=tuple("ABCDEFGH"),
    )
    notes = cluster_robust(clusters).diagnostics
    assert notes["single_arm_strata"] == ["z"]
    assert notes["empty_clusters"] == ["H"]
    assert notes["n_clusters"] == 7


@pytest.mark.parametrize(
    ("clusters", "message"),
    [
        (Clusters([1, 2, 3], [1, 1, 1], [0, 0, 1]), "treatment has 1 cluster; an error needs at least two"),
        (Clusters([1, 2, 3, 4], [1, 1, 1, 1], [0, 0, 1, 1], ["a", "a", "b", "b"]), "no stratum holds both arms"),
        (Clusters([3, 3, 3, 3], [1, 1, 1, 1], [0, 0, 1, 1]), "does not vary between clusters"),
        (Clusters([1, 2, 3, 5], [1, 1, 1, 1], [0, 0, 1, 1], ["a", "b", "a", "c"]), "one cluster alone decides"),
    ],
)
def test_refusals(clusters: Clusters, message: str) -> None:
    with pytest.raises(EstimationError, match=message):
        cluster_robust(clusters)


def test_too_few_clusters_for_the_wild_bootstrap() -> None:
    with pytest.raises(EstimationError, match=r"too few clusters for an interval at level 0\.999"):
        cluster_robust(Clusters([1, 2, 4, 9], [1, 1, 1, 1], [0, 0, 1, 1]), variance="wild", alpha=0.001)


@pytest.mark.parametrize("n", [10, 20, 50])
def test_false_positives_with_few_unequal_clusters(n: int) -> None:
    rng = np.random.default_rng(n)
    sims, rejected = 300, {"CR2": 0, "wild": 0}
    for _ in range(sims):
        sizes = rng.integers(20, 400, n)
        means = rng.normal(size=n) * 0.3 + rng.normal(size=n) / np.sqrt(sizes)
        clusters = Clusters(means * sizes, sizes, rng.permutation(np.arange(n) % 2))
        for variance in rejected:
            rejected[variance] += cluster_robust(clusters, variance=variance, draws=199).p_value <= 0.05
    # Three Monte Carlo errors of a share of 5 % in 300 are 3.8 points.
    assert all(0.0 < count / sims < 0.088 for count in rejected.values())


@pytest.mark.parametrize("pairs", [None, np.arange(12) // 2])
def test_relative_effects_where_there_is_no_logarithm(pairs: np.ndarray | None) -> None:
    num = np.array([3.0, 0, 4, 0, 5, 0, 6, 0, 2, 0, 4, 0])
    c = Clusters(num, np.ones(12), np.arange(12) % 2, pairs=pairs)
    gone = cluster_robust(c)
    assert gone.relative == pytest.approx(-1.0)
    assert (gone.relative_ci_low, gone.relative_ci_high) == (None, None)
    assert "zero throughout" in gone.relative_reason
    below = cluster_robust(replace(c, num=num - np.array([0, 1, 0, 2, 0, 3, 0, 1, 0, 2, 0, 1])))
    assert below.relative_ci_low is not None
    assert below.relative_ci_high is not None
    assert below.relative_ci_low < -1.0 - 10 / 24 < below.relative_ci_high
    negative = cluster_robust(replace(c, num=-num))
    assert (negative.relative, negative.relative_reason) == (None, "control's value is not positive")
