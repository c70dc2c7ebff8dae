"""Weights of a simplex against every support tried in turn, and where several mixes are as near."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from estimators import EstimationError
from estimators.simplex import Matrix, Vector, is_unique, simplex_weights


def enumerated(points: Matrix, target: Vector, ridge: float) -> Vector:
    """The best of the minima on all supports whose weights are not negative."""
    k = points.shape[1]
    best, found = np.inf, np.zeros(k)
    for size in range(1, k + 1):
        for support in map(list, itertools.combinations(range(k), size)):
            d = points[:, support] - target[:, None]
            system = np.block(
                [[d.T @ d + ridge * np.eye(size), np.ones((size, 1))], [np.ones((1, size)), np.zeros((1, 1))]]
            )
            v = np.linalg.solve(system, np.append(np.zeros(size), 1.0))[:size]
            value = float(v @ (d.T @ d + ridge * np.eye(size)) @ v)
            if v.min() >= -1e-12 and value < best:
                best, found = value, np.zeros(k)
                found[support] = v
    return found


@pytest.mark.parametrize("ridge", [0.0, 0.1, 3.0])
def test_the_minimum_over_all_supports(ridge: float) -> None:
    for seed in range(12):
        rng = np.random.default_rng(seed)
        k = int(rng.integers(2, 7))
        m = 8 if ridge < 1.0 else int(rng.integers(2, 9))
        points = rng.normal(size=(m, k)) + rng.normal(size=(m, 1))
        target = rng.normal(size=m) + (seed % 2) * points.mean(axis=1)
        weights = simplex_weights(points, target, ridge=ridge)
        assert weights == pytest.approx(enumerated(points, target, ridge), abs=1e-12)
        assert weights.min() >= 0.0
        assert weights.sum() == pytest.approx(1.0, abs=1e-14)


@pytest.mark.parametrize(("m", "k", "ridge"), [(60, 300, 0.0), (60, 150, 40.0), (300, 60, 1e-10), (12, 200, 0.0)])
def test_nothing_is_left_to_win_in_large_problems(m: int, k: int, ridge: float) -> None:
    rng = np.random.default_rng(5)
    factors = rng.normal(size=(m, 3)).cumsum(axis=0)
    points = 1e6 + factors @ rng.normal(size=(3, k)) + rng.normal(size=(m, k))
    target = 1e6 + 2.0 * factors[:, 0] + rng.normal(size=m)
    weights = simplex_weights(points, target, ridge=ridge)
    apart = points @ weights - target
    slope = (points - target[:, None]).T @ apart + ridge * weights
    assert slope.min() >= weights @ slope - 1e-7 * max(apart @ apart, 1.0)


def test_among_mixes_as_near_the_one_that_does_not_hang_on_the_order() -> None:
    rng = np.random.default_rng(1)
    points = rng.normal(size=(10, 4))
    target = points @ [0.3, 0.3, 0.2, 0.2] + rng.normal(size=10)
    alone = simplex_weights(points, target)
    twice = simplex_weights(np.column_stack([points, points[:, 0]]), target)
    assert twice == pytest.approx([alone[0] / 2, *alone[1:], alone[0] / 2], abs=1e-12)
    assert is_unique(points, alone)
    assert not is_unique(np.column_stack([points, points[:, 0]]), twice)
    wide = rng.normal(size=(3, 30))
    order = rng.permutation(30)
    weights = simplex_weights(wide, wide.mean(axis=1))
    assert weights == pytest.approx(np.full(30, 1 / 30), abs=1e-12)
    within = 0.7 * wide[:, 0] + 0.3 * wide[:, 1]
    assert simplex_weights(wide[:, order], within) == pytest.approx(simplex_weights(wide, within)[order], abs=1e-9)


def test_columns_that_equal_the_target_share_alike() -> None:
    assert simplex_weights(np.full((3, 4), 7.0), np.full(3, 7.0)).tolist() == [0.25] * 4
    assert simplex_weights(np.arange(3.0)[:, None], np.ones(3)).tolist() == [1.0]


def test_what_has_no_mix_is_refused() -> None:
    with pytest.raises(EstimationError, match="at least one column"):
        simplex_weights(np.ones((3, 0)), np.ones(3))
    with pytest.raises(EstimationError, match="finite"):
        simplex_weights(np.array([[1.0, np.nan]]), np.ones(1))
