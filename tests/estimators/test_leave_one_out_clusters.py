"""The cluster that is left out is the one that a search over all of them finds."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from estimators import cluster_means, cluster_robust
from estimators.cluster_means import Clusters
from estimators.inference import EstimationError
from estimators.leave_one_out_clusters import leave_one_out_clusters


def clusters_of(seed: int, n: int = 24, **labels: bool) -> Clusters:
    rng = np.random.default_rng(seed)
    den = rng.integers(1, 60, n).astype(float)
    pairs = np.arange(n) // 2 if labels.get("pairs") else None
    strata = np.arange(n) // 8 if labels.get("strata") else None
    num = den * rng.lognormal(1.0, 1.0, n)
    return Clusters(num, den, np.arange(n) % 2, strata, pairs, tuple(f"c{i}" for i in range(n)))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("labels", [{}, {"strata": True}, {"pairs": True}])
@pytest.mark.parametrize("weights", ["rows", "units"])
@pytest.mark.parametrize("method", [cluster_means, cluster_robust])
def test_the_one_that_moves_the_estimate_most(seed, labels, weights, method) -> None:
    clusters = clusters_of(seed, **labels)
    estimator = partial(method, weights=weights)
    whole = estimator(clusters).estimate
    found = leave_one_out_clusters(clusters, estimator, weights=weights, least_squares=method is cluster_robust)
    groups = [[i, i + 1] for i in range(0, 24, 2)] if labels.get("pairs") else [[i] for i in range(24)]
    every = [estimator(clusters.take(np.setdiff1d(np.arange(24), group))) for group in groups]
    worst = int(np.argmax([abs(e.estimate - whole) for e in every]))
    assert found.diagnostics["left_out"] == [f"c{i}" for i in groups[worst]]
    assert (found.estimate, found.std_error) == (every[worst].estimate, every[worst].std_error)


def test_clusters_without_rows_are_not_looked_at() -> None:
    clusters = clusters_of(1)
    none = Clusters(
        np.r_[0.0, clusters.num], np.r_[0.0, clusters.den], np.r_[0, clusters.arm], labels=("x", *clusters.labels)
    )
    for least_squares in (False, True):
        estimator = partial(cluster_robust if least_squares else cluster_means, weights="rows")
        one, other = (
            leave_one_out_clusters(c, estimator, weights="rows", least_squares=least_squares) for c in (clusters, none)
        )
        assert one.estimate == pytest.approx(other.estimate, rel=1e-12)
        assert one.diagnostics["left_out"] == other.diagnostics["left_out"]


def test_two_clusters_in_an_arm_leave_none_to_spare() -> None:
    with pytest.raises(EstimationError, match="an error needs at least two"):
        leave_one_out_clusters(clusters_of(1, 4), cluster_means, weights="units", least_squares=False)
