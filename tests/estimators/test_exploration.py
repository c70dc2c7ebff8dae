"""Exploration reaches the error that it promises, with the fewest tries; caps trade bias for error."""

from __future__ import annotations

import math

import numpy as np
import pytest

from estimators import EstimationError, UnitSums, clip_trade, exploration, ips
from estimators.exploration import together
from tests.estimators.bandits import bandit


def test_the_error_is_reached_and_no_other_split_of_the_tries_does_better() -> None:
    requests, spread = np.array([4000.0, 900.0, 100.0]), np.array([1.0, 3.0, 2.0])
    cells = exploration(requests, np.zeros(3), total=20_000, spread=spread, goal=0.02)
    assert together(cells) == pytest.approx(0.02, rel=0.01)
    assert together(cells) <= 0.02
    tries = np.array([c.tries for c in cells], dtype=float)
    load = requests / 20_000 * spread
    for split in np.random.default_rng(1).dirichlet(np.ones(3), 200):
        assert math.sqrt((load**2 / (split * tries.sum())).sum()) >= 0.02 * (1 - 1e-2)


def test_the_probability_gives_the_tries_from_the_requests() -> None:
    few, many = exploration([4000, 50], [0, 0], total=5000, spread=1.0, goal=0.05, most=0.1)
    assert few.probability == few.tries / 4000 < 0.1
    assert (few.requests, few.logs) == (4000, 1.0)
    assert many.probability <= 0.1
    assert many.requests * many.probability == pytest.approx(many.tries, abs=0.1)
    tight = exploration([4000, 50], [0, 0], total=5000, spread=1.0, goal=0.01, most=0.1)[1]
    assert tight.probability == 0.1
    assert tight.logs == tight.requests / 50 > 1.0


def test_what_was_tried_counts() -> None:
    none, some, enough = (exploration([1000], [t], total=5000, spread=1.0, goal=0.02)[0] for t in (0, 60, 300))
    assert none.tries == 100
    assert some.tries == 40
    assert enough.tries == enough.requests == 0
    assert enough.std_error == pytest.approx(0.2 / math.sqrt(300))


def test_the_promised_error_in_simulation() -> None:
    """Two states in one of which an action was never tried: after exploring the value's error is the goal."""
    (cell,) = exploration([300], [0], total=1000, spread=2.0, goal=0.03, most=0.9)
    rng = np.random.default_rng(3)
    part = []
    for _ in range(2000):
        tried = rng.random(cell.requests) < cell.probability
        part.append(0.3 * rng.normal(5.0, 2.0, int(tried.sum())).mean())
    assert np.std(part) == pytest.approx(0.03, rel=0.06)


@pytest.mark.parametrize(
    ("requests", "tries", "goal"), [([10], [11], 1.0), ([10, 5], [1], 1.0), ([200], [0], 1.0), ([10], [0], 0.0)]
)
def test_what_makes_no_sense_is_refused(requests: list[float], tries: list[float], goal: float) -> None:
    with pytest.raises(EstimationError):
        exploration(requests, tries, total=100, spread=1.0, goal=goal)
    with pytest.raises(ValueError, match="probability above 0"):
        exploration([10], [0], total=100, spread=1.0, goal=1.0, most=0.0)


def sums(cap: float | None, w: np.ndarray, r: np.ndarray) -> UnitSums:
    used, ones = (w if cap is None else np.minimum(w, cap)), np.ones(len(r))
    clipped, cut = float((used < w).sum()), float((w - used).sum())
    return UnitSums(ones, r, ones, used * r, ones, w=used, w2=used**2, clipped=clipped, cut=cut)


def test_the_trade_is_that_of_the_estimates_themselves() -> None:
    logs = bandit(3, units=500, rows=1, actions=10)
    caps = (2.0, 10.0, None)
    rows = clip_trade({cap: sums(cap, logs.weight, logs.reward) for cap in (None, 10.0, 2.0)})
    assert [row.cap for row in rows] == list(caps)
    for row in rows:
        found = ips(logs.reward, logs.weight, clip=row.cap)
        shown = found.diagnostics["values"]["target"]
        assert (row.value, row.std_error) == pytest.approx((shown["value"], shown["std_error"]), rel=1e-12)
        assert row.share_clipped == found.diagnostics["weights"]["share_clipped"]
        assert row.share_cut == pytest.approx(found.diagnostics["weights"]["share_cut"])
    assert rows[-1].bias == rows[-1].bias_std_error == 0.0
    assert rows[-1].root_mean_square == pytest.approx(rows[-1].std_error)
    errors = [row.std_error for row in rows]
    assert errors == sorted(errors)
    with pytest.raises(EstimationError, match="needs the sums without a cap"):
        clip_trade({2.0: sums(2.0, logs.weight, logs.reward)})


def test_the_shown_bias_and_mean_square_are_right_on_average() -> None:
    """What a cap really does, over many logs."""
    found = []
    for seed in range(300):
        logs = bandit(seed, units=400, rows=1, actions=10)
        found.append(clip_trade({cap: sums(cap, logs.weight, logs.reward) for cap in (4.0, None)})[0])
    values = np.array([row.value for row in found])
    bias = values.mean() - np.mean([bandit(seed, units=400, rows=1, actions=10).truth for seed in range(300)])
    assert np.mean([row.bias for row in found]) == pytest.approx(bias, abs=0.05)
    rms = math.sqrt(np.mean([row.root_mean_square**2 for row in found]))
    assert rms == pytest.approx(math.hypot(bias, values.std()), rel=0.1)


def test_a_place_of_little_weight_is_tried_often_enough_for_an_interval() -> None:
    light, lighter = exploration([800, 100], [0, 0], total=100_000, spread=1.0, goal=0.1)
    assert light.tries + lighter.tries >= 30
    assert light.tries == pytest.approx(8 * lighter.tries, abs=8)
    assert exploration([800], [0], total=100_000, spread=1.0, goal=0.1, fewest=1)[0].tries == 1
