"""Spill between clusters against statsmodels, and its size and coverage."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from estimators.inference import EstimationError
from estimators.spill import spill_between_clusters


def world(seed: int, slope: float = 0.0, clusters: int = 4, blocks: int = 168) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    arm = rng.integers(0, 2, (clusters, blocks))
    share = (arm.sum(axis=0) - arm) / (clusters - 1)
    cluster, block = np.nonzero(arm == 0)
    hour, weekday = block % 12 * 2, block // 12 % 7
    y = 50 + 3 * cluster + np.sin(hour) + weekday + slope * share[cluster, block] + rng.normal(0, 2, blocks)[block]
    y += rng.normal(0, 2, len(cluster))
    weights = rng.integers(20, 80, len(cluster)).astype(float)
    return {
        "outcome": y, "others_treated": share[cluster, block], "cluster": cluster, "block": block, "hour": hour,
        "weekday": weekday, "weights": weights,
    }  # fmt: skip


def test_the_slope_is_that_of_weighted_least_squares_with_dummies():
    given = world(1, 2.0)
    factors = [given[name] for name in ("cluster", "hour", "weekday")]
    x = np.column_stack(
        [np.ones(len(given["block"])), given["others_treated"], *(f[:, None] == np.unique(f)[1:] for f in factors)]
    ).astype(float)
    reference = sm.WLS(given["outcome"], x, weights=given["weights"]).fit(
        cov_type="cluster", cov_kwds={"groups": given["block"]}
    )
    estimate, error, df = spill_between_clusters(**given)
    assert estimate == pytest.approx(reference.params[1], rel=1e-9)
    # The reference is CR1; CR2 takes away more of its bias.
    assert reference.bse[1] < error < 1.1 * reference.bse[1]
    assert 20 < df < 168


def test_intervals_cover_where_blocks_share_shocks():
    hits = 0
    for seed in range(300):
        estimate, error, df = spill_between_clusters(**world(seed, 1.0, blocks=84))
        hits += abs(estimate - 1.0) < stats.t.ppf(0.975, df) * error
    assert 0.92 <= hits / 300 <= 0.98


def test_what_cannot_be_told_is_refused():
    given = world(2)
    with pytest.raises(EstimationError, match="follows from cluster and calendar"):
        spill_between_clusters(**{**given, "others_treated": given["cluster"] / 4.0})
    with pytest.raises(EstimationError, match="not finite"):
        spill_between_clusters(**{**given, "outcome": np.full(len(given["block"]), np.nan)})
    with pytest.raises(EstimationError, match="does not vary"):
        spill_between_clusters(**{**given, "outcome": np.ones(len(given["block"]))})
    with pytest.raises(EstimationError, match="4 blocks with control cells are too few"):
        spill_between_clusters(**{k: v[given["block"] < 4] for k, v in given.items()})
