from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from estimators import EstimationError
from estimators.tail_index import from_sums, settling, share_of_largest, tail_index, tail_of, tail_size


def test_scipys_maximum_likelihood_of_a_pareto_over_the_threshold() -> None:
    x = np.random.default_rng(1).pareto(2.0, 5000)
    found = tail_index(-x)
    k = tail_size(5000)
    top = np.sort(x)[-k - 1 :]
    index, _, scale = stats.pareto.fit(top[1:], floc=0, fscale=top[0])
    assert (found.index, found.threshold, found.excesses) == pytest.approx((index, scale, k), rel=1e-9)
    low, high = stats.chi2.ppf([0.025, 0.975], 2 * k) / (2 * k)
    assert (found.low, found.high) == pytest.approx((index * low, index * high), rel=1e-9)


def test_the_interval_of_a_power_law_is_exact() -> None:
    hits = 0
    for seed in range(1000):
        found = tail_index(1 + np.random.default_rng(seed).pareto(1.5, 400))
        hits += found.low <= 1.5 <= found.high
    assert abs(hits / 1000 - 0.95) < 3.3 * np.sqrt(0.95 * 0.05 / 1000)


def test_sums_say_the_same() -> None:
    x = 1 + np.random.default_rng(2).pareto(1.5, 900)
    whole = tail_index(x)
    above = x[x > whole.threshold]
    found = from_sums(len(above), float(np.log(above / whole.threshold).sum()), whole.threshold)
    assert (found.index, found.low, found.high) == pytest.approx((whole.index, whole.low, whole.high), rel=1e-12)
    assert from_sums(5, 3.0, 1.0) is None


def test_counts_of_few_levels_have_no_tail() -> None:
    rng = np.random.default_rng(3)
    for x in (rng.poisson(0.3, 2000), rng.random(2000) < 0.1, np.zeros(100), np.arange(10)):
        assert tail_index(x.astype(float)) is None
    with pytest.raises(EstimationError, match="not finite"):
        tail_of(np.array([1.0, np.inf]))


WORLDS = {
    "pareto 1.5": (lambda r, n: r.pareto(1.5, n), (10_000,), 0.97, 1.0),
    "pareto 1.5 far from zero": (lambda r, n: 1e4 + r.pareto(1.5, n), (10_000,), 0.97, 1.0),
    "log-normal": (lambda r, n: np.exp(r.normal(size=n)), (400, 10_000), 0.0, 0.1),
    "exponential": (lambda r, n: r.exponential(size=n), (400, 10_000), 0.0, 0.02),
    "normal": (lambda r, n: r.normal(size=n), (400, 10_000), 0.0, 0.02),
    "thin": (lambda r, n: np.exp(2 * r.normal(size=n)), (50,), 0.0, 0.0),
}


@pytest.mark.parametrize("world", WORLDS)
def test_heavy_where_the_variance_is_infinite_and_quiet_elsewhere(world: str) -> None:
    draw, sizes, least, most = WORLDS[world]
    for n in sizes:
        tails = [tail_of(draw(np.random.default_rng(seed), n)) for seed in range(60)]
        share = np.mean([t.heavy or t.concentrated for t in tails])
        assert least <= share <= most, n


def test_shares_and_settling() -> None:
    x = np.r_[np.zeros(99), 100.0]
    assert share_of_largest(x) == pytest.approx(99**2 / (99**2 + 99))
    assert (share_of_largest(np.ones(5)), settling(np.ones(5))) == (0.0, 0.0)
    rng = np.random.default_rng(1)
    assert 0.0 < settling(rng.normal(size=1000)) < 4.0
    assert settling(np.arange(50.0), seed=3) == settling(np.arange(50.0), seed=3)
