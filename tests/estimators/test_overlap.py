"""Balance, overlap and weights: against Stata's printed table, numpy's weighted moments and enumeration."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels

from estimators import EstimationError, match
from estimators.balance_table import balance_table, largest
from estimators.overlap import concentration, crump_threshold, overlap, weight_notes

SMOKE = Path(statsmodels.__file__).parent / "treatment" / "tests" / "results" / "cataneo2.csv"


def test_raw_balance_is_what_statas_manual_prints() -> None:
    """``tebalance summarize``: smoking and birth weight."""
    data = pd.read_csv(SMOKE)
    names = ["mmarried_", "mage", "prenatal1_", "fbaby_"]
    table = balance_table(data[names], data.mbsmoke_, names=names)
    assert [row.covariate for row in table] == names
    assert [row.before for row in table] == pytest.approx([-0.5953009, -0.300179, -0.3242695, -0.1663271], abs=6e-8)
    ratios = [row.variance_ratio_before for row in table]
    assert ratios == pytest.approx([1.335944, 0.8818025, 1.496155, 0.9430944], rel=6e-7)
    assert [row.after for row in table] == pytest.approx([row.before for row in table])


def test_weighted_balance_divides_by_the_unweighted_spread() -> None:
    rng = np.random.default_rng(0)
    x, w, d = rng.normal(size=(200, 2)) * [1.0, 50.0] + [0.0, 1e6], rng.random(200), rng.random(200) < 0.4
    w[:20] = 0.0
    for j, row in enumerate(balance_table(x, d, w)):
        spread = math.sqrt((x[d, j].var(ddof=1) + x[~d, j].var(ddof=1)) / 2)
        gap = np.average(x[d, j], weights=w[d]) - np.average(x[~d, j], weights=w[~d])
        assert row.after == pytest.approx(gap / spread, rel=1e-9)
        seen = [float(np.cov(x[side & (w > 0), j], aweights=w[side & (w > 0)])) for side in (d, ~d)]
        assert row.variance_ratio_after == pytest.approx(seen[0] / seen[1], rel=1e-7)


def test_matching_weights_balance_what_was_not() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2000, 3))
    d = rng.random(2000) < 1 / (1 + np.exp(-x[:, 0]))
    before, after = largest(balance_table(x, d, match(d, x).weights))
    assert before is not None
    assert after is not None
    assert before > 0.7
    assert after < 0.1


def test_columns_that_do_not_vary_within_arms() -> None:
    d = np.array([0, 0, 1, 1])
    same, apart = balance_table(np.column_stack([np.full(4, 0.1), d]), d, names=["same", "apart"])
    assert (same.before, same.after, same.variance_ratio_before) == (0.0, 0.0, None)
    assert apart.before is None
    assert largest([same, apart]) == (None, None)
    with pytest.raises(EstimationError, match="no row of an arm has weight"):
        balance_table(d, d, [1, 1, 0, 0])
    with pytest.raises(EstimationError, match="do not fit"):
        balance_table(d, d, names=["a", "b"])
    with pytest.raises(EstimationError, match="finite"):
        balance_table([0, 1, math.nan, 1], d)


def test_the_histogram_and_the_common_support() -> None:
    e = np.array([0.0, 0.02, 0.3, 0.5, 0.5, 0.6, 0.97, 1.0])
    d = np.array([0, 0, 0, 1, 0, 1, 1, 1])
    found = overlap(e, d, bins=10)
    assert found.control == (2, 0, 0, 1, 0, 1, 0, 0, 0, 0)
    assert found.treatment == (0, 0, 0, 0, 0, 1, 1, 0, 0, 2)
    assert found.support == (0.5, 0.5)
    assert found.outside == 6 / 8
    assert found.beyond == {"0.1": 4 / 8, "0.05": 4 / 8, "0.01": 2 / 8}
    assert found.quantiles["treatment"][0] == 0.5
    assert found.suggested_share >= 2 / 8


@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0])
def test_the_suggested_trim_has_the_least_variance(spread: float) -> None:
    """Crump and co-authors' criterion by enumeration: ``sum(g kept) / n_kept^2``, and their equation for the level."""
    e = 1 / (1 + np.exp(-spread * np.random.default_rng(7).normal(size=400)))
    g = 1 / (e * (1 - e))
    found = crump_threshold(e)

    def variance(threshold: float) -> float:
        kept = (e >= threshold) & (e <= 1 - threshold)
        return float(g[kept].sum() / kept.sum() ** 2) if kept.any() else math.inf

    assert variance(found) <= min(variance(t) for t in np.minimum(e, 1 - e)) + 1e-15
    if spread < 1.0:
        assert found == 0.0
    else:
        level = 1 / (found * (1 - found))
        assert level == pytest.approx(2 * g[g <= level].mean())


def test_propensities_of_zero_and_one_are_trimmed_first() -> None:
    assert crump_threshold([0.0, 0.5, 0.5, 1.0]) == pytest.approx(0.5 - math.sqrt(0.25 - 1 / 8))
    with pytest.raises(EstimationError, match="every row's treatment is certain"):
        crump_threshold([0.0, 1.0])
    with pytest.raises(EstimationError, match="from 0 to 1"):
        overlap([0.2, 1.2], [0, 1])
    with pytest.raises(EstimationError, match="no rows"):
        overlap([0.2, 0.3], [1, 1])


def test_concentration_of_weights() -> None:
    even = concentration(np.full(300, 7.0))
    assert (even.rows, even.ess, even.max_share, even.top_1pct_share) == pytest.approx((300, 300, 1 / 300, 0.01))
    one = concentration([0.0, 1e300, 1e300, 2e300])
    assert (one.rows, one.ess, one.max_share) == pytest.approx((3, 16 / 6, 0.5))
    notes = weight_notes(np.array([1.0, 1.0, 9.0, 1.0]), np.array([False, False, True, True]))
    assert notes["ess"] == pytest.approx({"control": 2.0, "treatment": 100 / 82})
    assert notes["weights"]["max_share"] == pytest.approx(0.9)
    for weights in ([-1.0, 2.0], [0.0, 0.0], [math.inf]):
        with pytest.raises(EstimationError):
            concentration(weights)
