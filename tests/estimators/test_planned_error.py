"""Planned errors against the errors that the estimators then have."""

from __future__ import annotations

import math

import numpy as np
import pytest

from estimators.block_regression import block_regression
from estimators.cells import Cells
from estimators.cluster_means import Clusters, cluster_means
from estimators.inference import EstimationError
from estimators.memory import memory
from estimators.planned_error import blocks, pairs, two_arms


def _cells(rng: np.random.Generator, days: int, clusters: int, per_day: int, arm: np.ndarray | None = None) -> Cells:
    """Blocks of AR(1) noise with an hour and a weekday cycle and unequal rows."""
    n = days * per_day
    noise = np.zeros((clusters, n))
    for t in range(n):
        noise[:, t] = (0.6 * noise[:, t - 1] if t else 0.0) + rng.normal(size=clusters)
    hour = np.arange(n) % per_day * (24 // per_day)
    weekday = np.arange(n) // per_day % 7
    rows = rng.poisson(30 + 20 * np.sin(hour / 24 * 2 * np.pi), (clusters, n)) + 1.0
    y = 10 + 2 * np.sin(hour / 24 * 2 * np.pi) + 0.3 * weekday + noise + rng.normal(size=(clusters, 1))
    return Cells(
        num=(y * rows).ravel(),
        den=rows.ravel(),
        arm=np.zeros(clusters * n, int) if arm is None else arm.ravel(),
        cluster=np.repeat(np.arange(clusters), n),
        block=np.tile(np.arange(n), clusters),
        hour=np.tile(hour, clusters),
        weekday=np.tile(weekday, clusters),
        cluster_labels=tuple(map(str, range(clusters))),
    )


@pytest.mark.parametrize(("by", "days"), [("cell", 7), ("block", 14), ("cell", 14)])
def test_the_planned_error_of_a_switchback_is_that_of_the_block_regression(by: str, days: int) -> None:
    rng = np.random.default_rng(11)
    clusters, per_day, runs = 3, 6, 100
    randomized = days * per_day * (clusters if by == "cell" else 1)
    stated, reported, found, dfs, df = [], [], [], [], []
    for _ in range(runs):
        shape = (clusters, days * per_day)
        arm = rng.integers(0, 2, shape) if by == "cell" else np.tile(rng.integers(0, 2, shape[1]), (clusters, 1))
        seen = _cells(rng, days, clusters, per_day, arm)
        estimate = block_regression(seen, clustered_by=by)
        planned = blocks(_cells(rng, days, clusters, per_day), share=0.5, planned=randomized, clustered_by=by)
        stated.append(planned.std_error)
        df.append(planned.df)
        reported.append(estimate.std_error)
        dfs.append(estimate.df)
        found.append(estimate.estimate)
    mean = float(np.mean(stated))
    assert mean == pytest.approx(float(np.mean(reported)), rel=0.05)
    assert mean == pytest.approx(float(np.std(found)), rel=0.2)
    assert float(np.mean(df)) == pytest.approx(float(np.mean(dfs)), rel=0.15)


def test_an_unequal_share_costs_what_it_costs() -> None:
    cells = _cells(np.random.default_rng(2), 14, 2, 12)
    half, tenth = (blocks(cells, share=s, planned=300) for s in (0.5, 0.1))
    assert tenth.std_error / half.std_error == pytest.approx(math.sqrt(0.25 / 0.09))
    assert (tenth.n_control, tenth.n_treatment) == (270.0, 30.0)


def test_pairs_have_the_spread_that_their_coins_give() -> None:
    rng = np.random.default_rng(5)
    values, pair = rng.normal(size=8), np.array([0, 1, 2, 3, 3, 2, 1, 0])
    every = []
    for coins in range(16):
        arm = np.zeros(8, int)
        for k in range(4):
            arm[np.flatnonzero(pair == k)[coins >> k & 1]] = 1
        every.append(values[arm == 1].mean() - values[arm == 0].mean())
    planned = pairs(values, pair)
    assert planned.std_error == pytest.approx(float(np.std(every)), rel=1e-12)
    assert planned.df == 3.0
    with pytest.raises(EstimationError, match="two whole pairs"):
        pairs(values[:3], np.array([0, 0, 1]))


def test_two_arms_are_welchs() -> None:
    rng = np.random.default_rng(6)
    y = rng.normal(size=40)
    y = np.concatenate([y, y])
    found = cluster_means(Clusters(y, np.ones(80), np.repeat([0, 1], 40)), weights="units")
    planned = two_arms(float(y[:40].var(ddof=1)), 40, 40)
    assert (planned.std_error, planned.df) == pytest.approx((found.std_error, found.df), rel=1e-12)
    with pytest.raises(EstimationError, match="fewer than two"):
        two_arms(1.0, 1.5, 40)


def test_too_few_blocks_are_said() -> None:
    cells = _cells(np.random.default_rng(7), 1, 2, 2)
    with pytest.raises(EstimationError, match="too few for their calendar"):
        blocks(cells, share=0.5, planned=100)
    with pytest.raises(EstimationError, match="would be too few"):
        blocks(_cells(np.random.default_rng(7), 14, 2, 12), share=0.5, planned=4)


@pytest.mark.parametrize("noise", [0.0, 2.0])
def test_memory_is_that_of_the_state_whatever_the_noise_of_rows(noise: float) -> None:
    rng = np.random.default_rng(8)
    x = np.zeros((4, 2000))
    for t in range(1, 2000):
        x[:, t] = 0.8 * x[:, t - 1] + rng.normal(size=4)
    x += noise * rng.normal(size=x.shape)
    x[:, ::17] = np.nan
    found = memory(x)
    assert found.rho == pytest.approx(0.8, abs=0.05)
    assert found.steps_until(0.25) == pytest.approx(math.log(0.25) / math.log(0.8), rel=0.3)


def test_white_noise_has_no_memory_and_short_series_say_so() -> None:
    rng = np.random.default_rng(9)
    assert np.mean([memory(rng.normal(size=(2, 300))).rho == 0.0 for _ in range(100)]) >= 0.93
    with pytest.raises(EstimationError, match="too few neighbouring"):
        memory(rng.normal(size=(2, 10)))
    with pytest.raises(EstimationError, match="does not vary"):
        memory(np.zeros((2, 100)))
