from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from estimators.cluster_means import Clusters
from estimators.cluster_robust import cluster_robust
from estimators.inference import EstimationError
from estimators.randomization_inference import Assignments, randomization_inference, redraw


def clusters_of(seed: int, n: int = 10, effect: float = 1.5, **design: object) -> Clusters:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(5, 60, n).astype(float)
    arm = np.tile([0, 1], n // 2)
    return Clusters((4.0 + rng.normal(size=n) + effect * arm) * sizes, sizes, arm, **design)  # type: ignore[arg-type]


def brute(clusters: Clusters, null: float, assignments: list[np.ndarray], weights: str, prob: object = None) -> float:
    """The p-value as defined: impute, assign anew, estimate anew with CR2, count."""

    def statistic(y: np.ndarray, arm: np.ndarray) -> float:
        e = cluster_robust(replace(clusters, num=y, arm=arm), weights=weights)
        return abs(e.estimate - null) / e.std_error

    untreated = clusters.num - null * clusters.den * clusters.arm
    observed = statistic(clusters.num, clusters.arm)
    extreme = [statistic(untreated + null * clusters.den * z, z) >= observed * (1 - 1e-9) for z in assignments]
    return float(np.average(extreme, weights=prob))  # type: ignore[arg-type]


def chosen(n: int, k: int) -> list[np.ndarray]:
    return [np.isin(np.arange(n), c).astype(int) for c in itertools.combinations(range(n), k)]


@pytest.mark.parametrize("weights", ["rows", "units"])
def test_complete_randomization_is_enumerated(weights: str) -> None:
    c = clusters_of(1)
    ours = randomization_inference(c, weights=weights)
    every = chosen(10, 5)
    assert (ours.diagnostics["draws"], ours.diagnostics["exact"]) == (252, True)
    assert ours.diagnostics["mechanism"] == "complete"
    assert ours.p_value == pytest.approx(brute(c, 0.0, every, weights), abs=1e-12)
    step = 1e-6 * ours.std_error
    for bound, outwards in ((ours.ci_low, -step), (ours.ci_high, step)):
        assert brute(c, bound + outwards, every, weights) <= 0.05 < brute(c, bound - outwards, every, weights)


def test_the_point_is_that_of_cluster_robust() -> None:
    c = clusters_of(2)
    ours, robust = randomization_inference(c), cluster_robust(c)
    for name in ("estimate", "std_error", "df", "statistic", "control_value", "relative"):
        assert getattr(ours, name) == getattr(robust, name)
    assert ours.relative_ci_low is not None
    assert ours.relative_ci_high is not None
    assert ours.relative_ci_low < ours.relative < ours.relative_ci_high


def test_strata_keep_their_counts() -> None:
    strata = np.repeat(["x", "y"], [4, 6])
    c = clusters_of(3, strata=strata)
    every = [np.r_[a, b] for a in chosen(4, 2) for b in chosen(6, 3)]
    ours = randomization_inference(c)
    assert (ours.diagnostics["draws"], ours.diagnostics["mechanism"]) == (120, "stratified")
    assert ours.p_value == pytest.approx(brute(c, 0.0, every, "rows"), abs=1e-12)
    drawn = redraw(c, draws=50).arms
    assert (drawn[:, :4].sum(axis=1) == 2).all()
    assert (drawn[:, 4:].sum(axis=1) == 3).all()


def test_pairs_change_places() -> None:
    c = clusters_of(4, n=16, pairs=np.arange(16) // 2)
    every = [np.ravel([[1 - z, z] for z in flips]) for flips in itertools.product((0, 1), repeat=8)]
    ours = randomization_inference(c)
    assert (ours.diagnostics["draws"], ours.diagnostics["mechanism"]) == (256, "paired")
    assert ours.p_value == pytest.approx(brute(c, 0.0, every, "rows"), abs=1e-12)
    drawn = redraw(c, draws=100).arms
    assert (drawn[:, ::2] + drawn[:, 1::2] == 1).all()


def test_bernoulli_weighs_assignments_and_leaves_out_those_without_a_statistic() -> None:
    c = clusters_of(5)
    p = 0.3
    every = [np.array(z) for z in itertools.product((0, 1), repeat=10) if 2 <= sum(z) <= 8]
    prob = [p ** z.sum() * (1 - p) ** (10 - z.sum()) for z in every]
    ours = randomization_inference(c, mechanism="bernoulli", probability=p)
    assert ours.diagnostics["draws"] == len(every)
    assert ours.p_value == pytest.approx(brute(c, 0.0, every, "rows", prob), abs=1e-12)


def test_drawn_p_values_count_the_observed_assignment() -> None:
    c = clusters_of(6, n=30)
    ours = randomization_inference(c, draws=199, seed=4)
    drawn = redraw(c, draws=199, seed=4)
    assert drawn.exact is False
    share = brute(c, 0.0, list(drawn.arms.astype(int)), "rows")
    assert ours.p_value == pytest.approx((1 + round(199 * share)) / 200, abs=1e-12)
    assert ours == randomization_inference(c, draws=199, seed=4)
    assert ours.ci_low != randomization_inference(c, draws=199, seed=5).ci_low


def test_given_assignments_are_used_and_empty_clusters_leave_them() -> None:
    c = clusters_of(7)
    given = Assignments(np.array(chosen(10, 5), dtype=np.int8), exact=True)
    plain = randomization_inference(c)
    ours = randomization_inference(c, assignments=given)
    assert (ours.p_value, ours.ci_low, ours.ci_high) == (plain.p_value, plain.ci_low, plain.ci_high)
    assert ours.diagnostics["mechanism"] == "given"
    more = Clusters(np.r_[0.0, c.num], np.r_[0.0, c.den], np.r_[1, c.arm])
    wider = Assignments(np.column_stack([np.zeros(252, np.int8), given.arms]), exact=True)
    assert randomization_inference(more, assignments=wider).p_value == plain.p_value
    with pytest.raises(EstimationError, match="one column per cluster"):
        randomization_inference(more, assignments=given)


def test_test_and_interval_agree() -> None:
    for seed in range(30):
        e = randomization_inference(clusters_of(seed, effect=0.8), draws=299)
        assert (e.p_value <= 0.05) == (not e.ci_low <= 0.0 <= e.ci_high)


def test_agrees_with_scipys_permutation_test() -> None:
    from scipy.stats import permutation_test, ttest_ind

    c = clusters_of(8)
    mean = c.num / c.den
    theirs = permutation_test(
        (mean[c.arm == 1], mean[c.arm == 0]),
        lambda x, y, axis: np.abs(ttest_ind(x, y, axis=axis, equal_var=False).statistic),
        n_resamples=np.inf,
        alternative="greater",
        vectorized=True,
    )
    assert randomization_inference(c, weights="units").p_value == pytest.approx(theirs.pvalue, abs=1e-12)


@pytest.mark.parametrize(
    ("clusters", "options", "message"),
    [
        (clusters_of(1, n=4), {}, r"too few clusters for an interval at level 0\.95.*can reach is 0\.17"),
        (clusters_of(1, n=12), {"draws": 10}, r"too few draws for an interval at level 0\.95.*can reach is 0\.091"),
        (clusters_of(1), {"mechanism": "stratified"}, "needs the clusters' strata"),
        (clusters_of(1), {"mechanism": "paired"}, "needs the clusters' pairs"),
        (clusters_of(1, pairs=np.arange(10) // 2), {"mechanism": "complete"}, "assigned within pairs"),
        (clusters_of(1), {"mechanism": "bernoulli", "probability": 1.0}, "between 0 and 1"),
    ],
)
def test_refusals(clusters: Clusters, options: dict[str, object], message: str) -> None:
    with pytest.raises(EstimationError, match=message):
        randomization_inference(clusters, **options)  # type: ignore[arg-type]


def test_the_size_is_exact_with_ten_heavy_tailed_clusters() -> None:
    rng = np.random.default_rng(0)
    sims, rejected = 600, 0
    for _ in range(sims):
        sizes = rng.pareto(1.5, 10) + 1
        c = Clusters(rng.lognormal(0, 1.5, 10) * sizes, sizes, rng.permutation(np.arange(10) % 2))
        rejected += randomization_inference(c, draws=252).p_value <= 0.05
    # 12 of 252 assignments are the most that may reject; three Monte Carlo errors are 2.6 points.
    assert abs(rejected / sims - 12 / 252) < math.sqrt(9 * 0.05 * 0.95 / sims)
