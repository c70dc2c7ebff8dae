"""The bound by betting: it holds in few units and under heavy weights, and costs little where there are many units."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from estimators import EstimationError, gain_bound, value_bound

Draw = Callable[[np.random.Generator, int], np.ndarray]
VALUE = 0.3


def of_actions(actions: int, *, bad: float = 0.1) -> Draw:
    """Weighted rewards, 0 or 1 with mean 0.3, where each of the actions was tried alike but one share seldom."""

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        p = np.where(rng.random(n) < bad, 0.3, 1.0) / actions
        return (rng.random(n) < p) / p * (rng.random(n) < VALUE)

    return draw


def heavy(rng: np.random.Generator, n: int) -> np.ndarray:
    """Rewards of 1 under weights that have no variance."""
    return np.asarray(VALUE * (rng.pareto(1.5, n) + 0.5) / 2.5)


def lower(x: np.ndarray, alpha: float = 0.05) -> float:
    return value_bound(x, np.ones(len(x)), alpha=alpha).lower


def empirical_bernstein(x: np.ndarray, alpha: float) -> float:
    """Maurer and Pontil (2009), theorem 4, of values from 0 to their known largest."""
    n, log = len(x), math.log(2.0 / alpha)
    return float(x.mean() - math.sqrt(2.0 * x.var(ddof=1) * log / n) - 7.0 * x.max() * log / (3.0 * (n - 1)))


@pytest.mark.parametrize("draw", [of_actions(2), of_actions(10), of_actions(80), heavy])
@pytest.mark.parametrize("n", [30, 300])
def test_it_holds_in_few_units(draw: Draw, n: int) -> None:
    missed = [lower(draw(np.random.default_rng(seed), n), 0.1) > VALUE for seed in range(150)]
    # At a level of 10 % more than 26 of 150 misses have a chance below 0.2 %.
    assert sum(missed) <= 26


def test_it_is_nearer_than_bernstein_and_not_far_from_the_normal_one() -> None:
    for draw, n in ((of_actions(2), 1000), (of_actions(10), 1000), (of_actions(80), 10_000)):
        x = draw(np.random.default_rng(3), n)
        found, error = lower(x), float(x.std(ddof=1)) / math.sqrt(n)
        assert found > empirical_bernstein(x, 0.05)
        assert x.mean() - 2.5 * error < found < x.mean() - 1.3 * error


def test_one_order_by_hand() -> None:
    """Capital over a grid of values, staked as the paper says, against the root that is found."""
    rng = np.random.default_rng(8)
    x = of_actions(4)(rng, 200)
    found = value_bound(x, np.ones(200), orders=1, seed=5)
    order = x[np.random.default_rng(5).permutation(200)]

    def capital(v: float) -> float:
        total, log, largest, squares = 0.0, 0.0, 0.0, 0.0
        for i, value in enumerate(order):
            if i >= math.isqrt(200) and squares > 0.0:
                stake = math.sqrt(2.0 * math.log(20.0) / (200 * (squares + largest) / i))
                log += math.log1p(min(stake, 0.75 / v) * (value - v))
            rest = (value - (total / i if i else 0.0)) ** 2
            total, squares, largest = total + value, squares + rest, max(largest, rest)
        return log

    assert capital(found.lower) == pytest.approx(math.log(20.0), abs=1e-6)
    assert capital(found.lower * 1.01) < math.log(20.0)


@pytest.mark.parametrize(("n", "p"), [(7, 0.5), (9, 0.2)])
def test_every_sequence_of_draws(n: int, p: float) -> None:
    """The exact chance of a miss, over all sequences of 0 and 1, for any seed; one order is all that must hold."""
    draws = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    chance = np.prod(np.where(draws == 1, p, 1.0 - p), axis=1)
    some = draws.mean(axis=1) > p
    for seed, orders in ((0, 1), (3, 8)):
        missed = [
            value_bound(x.astype(float), np.ones(n), alpha=0.2, orders=orders, seed=seed).lower > p for x in draws[some]
        ]
        assert float(chance[some][missed].sum()) <= 0.2


def test_the_order_of_units_does_not_matter_and_seeds_hardly() -> None:
    x = of_actions(10)(np.random.default_rng(2), 2000)
    found = lower(x)
    order = np.random.default_rng(0).permutation(2000)
    keyed = [value_bound(x[rows], np.ones(2000), keys=rows).lower for rows in (np.arange(2000), order)]
    assert keyed == [found, found]
    assert lower(x[order]) == pytest.approx(found, rel=0.03)
    others = [value_bound(x, np.ones(2000), seed=seed).lower for seed in range(1, 6)]
    assert others == pytest.approx([found] * 5, rel=0.03)
    assert lower(7.0 * x) == pytest.approx(7.0 * found, rel=1e-6)
    # A unit that has no row says nothing.
    assert value_bound(np.r_[x, 0.0], np.r_[np.ones(2000), 0.0]).lower == found


def test_rewards_up_to_one_are_bounded_from_above_too() -> None:
    missed = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        w = (rng.random(400) < 0.25) * 4.0
        r = (rng.random(400) < 0.6).astype(float)
        found = value_bound(w * r, np.ones(400), weights=w, most_reward=1.0, alpha=0.1)
        assert found.upper is not None
        assert found.lower < found.upper
        missed.append(found.upper < 0.6)
    assert sum(missed) <= 19


def test_a_gain_over_the_logging_policy_is_bounded_below() -> None:
    """Two actions tried alike, clicks of 0.3 and 0.6; the target takes the better one, or either at random."""
    missed, seen, wrong = 0, 0, 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        better = rng.random(800) < 0.5
        r = (rng.random(800) < np.where(better, 0.6, 0.3)).astype(float)
        found = gain_bound(2.0 * better * r, r, np.ones(800), most_reward=1.0)
        missed += found > 0.15
        seen += found > 0.0
        coin = rng.random(800) < 0.5
        wrong += gain_bound(2.0 * coin * r, r, np.ones(800), most_reward=1.0) > 0.0
    assert missed <= 11
    assert wrong <= 11
    assert seen >= 80
    with pytest.raises(EstimationError, match="larger than most_reward"):
        gain_bound([1.0, 1.0], [1.0, 2.0], [1.0, 1.0], most_reward=1.0)


def test_units_of_many_rows_count_as_one_draw() -> None:
    """All rows of a unit alike: as much is known as of one row each, and not more."""
    x = of_actions(4)(np.random.default_rng(4), 500)
    found = lower(x)
    assert value_bound(7.0 * x, np.full(500, 7.0)).lower == pytest.approx(found, rel=1e-9)
    size = np.random.default_rng(5).integers(1, 6, 500).astype(float)
    uneven = value_bound(size * x, size)
    assert 0.5 * found < uneven.lower < float((size * x).sum() / size.sum())
    # Units that may be much larger than any that was seen leave smaller stakes.
    assert value_bound(size * x, size, most_rows=5000.0).lower < 0.5 * uneven.lower


def test_uneven_units_are_covered() -> None:
    missed = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        size = rng.integers(1, 9, 150)
        p = rng.beta(3.0 * VALUE, 3.0 * (1.0 - VALUE), 150)  # units differ, and larger ones have no other mean
        s = np.array([((rng.random(k) < 0.2) * 5.0 * (rng.random(k) < q)).sum() for k, q in zip(size, p, strict=True)])
        missed += value_bound(s, size, most_rows=8.0, alpha=0.1).lower > VALUE
    assert missed <= 19


def test_very_many_units_are_put_together_at_random() -> None:
    rng = np.random.default_rng(6)
    x = of_actions(10)(rng, 200_000)
    found = lower(x)
    assert VALUE - 0.02 < found < VALUE
    assert lower(np.zeros(10)) == 0.0


@pytest.mark.parametrize(
    ("x", "more", "said"),
    [
        ([1.0, -0.5], {}, "at least 0"),
        ([1.0], {}, "two independent units"),
        ([1.0, np.nan], {}, "not finite"),
        ([1.0, 1.0], {"most_rows": 0.5}, "more than most_rows allows"),
        ([1.0, 5.0], {"weights": [1.0, 1.0], "most_reward": 2.0}, "larger than most_reward"),
    ],
)
def test_what_has_no_bound_is_refused(x: list[float], more: dict[str, object], said: str) -> None:
    with pytest.raises(EstimationError, match=said):
        value_bound(x, np.ones(len(x)), **more)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs the weights"):
        value_bound([1.0, 2.0], [1.0, 1.0], most_reward=2.0)
