"""The world of a live router: outcomes under either pool, what the router looks at, and what plain means say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from readout.simulate import simulate
from readout.simulate.arrivals import Workload, synthetic_trace
from readout.simulate.routed import Routed, RoutedParams
from readout.simulate.routed_files import log_of, outcomes, routed, truth
from readout.simulate.worlds import WORLDS

World = tuple[Workload, Routed, RoutedParams]


def _world(seed: int, requests: int = 8_000) -> World:
    trace = synthetic_trace(np.random.default_rng([seed, 0]))
    return routed(WORLDS["routed_users"], trace, days=7.0, requests=requests, seed=seed)


@pytest.fixture(scope="module")
def made() -> World:
    return _world(1)


def test_a_first_come_first_served_pool_by_hand_gives_the_same_waits(made: World) -> None:
    workload, found, params = made
    rows = np.flatnonzero(workload.region == 0)
    in_service: tuple[list[float], list[float]] = ([], [])
    for row in rows.tolist():
        t = workload.t_s[row]
        for pool in (0, 1):
            ends = sorted(in_service[pool], reverse=True)
            slots = params.slots[pool]
            wait = max(ends[slots - 1] - t, 0.0) if len(ends) >= slots else 0.0
            seen = params.hop_s + min(wait, params.timeout_s)
            assert bool(found.timed_out[row, pool]) == (wait > params.timeout_s)
            if wait > params.timeout_s:
                assert found.ttft_s[row, pool] == pytest.approx(seen)
            else:
                assert found.latency_s[row, pool] == pytest.approx(seen + found.slot_s[row, pool])
            if pool == found.action[row] and wait <= params.timeout_s:
                in_service[pool].append(t + wait + found.slot_s[row, pool])


def test_the_queue_is_of_those_that_came_before_and_still_wait(made: World) -> None:
    workload, found, params = made
    rows = np.flatnonzero(workload.region == 1)
    t, own = workload.t_s[rows], found.action[rows]
    reading = np.where(found.timed_out[rows, own], 0.0, found.ttft_s[rows, own] - params.hop_s)
    waits = np.where(found.timed_out[rows, own], params.timeout_s, found.latency_s[rows, own] - params.hop_s)
    leaves = t + np.where(found.timed_out[rows, own], waits, waits - found.slot_s[rows, own])
    depth = [int((leaves[:i] > t[i] + 1e-9).sum()) for i in range(len(rows))]
    assert (reading >= 0).all()
    assert depth == found.queue_depth[rows].tolist()


def test_chance_decides_the_route_given_tier_and_queue_and_nothing_else(made: World) -> None:
    workload, found, params = made
    logit = np.array(params.tier_logit)[workload.tier] + params.per_waiting * found.queue_depth
    assert found.propensity == pytest.approx(1 / (1 + np.exp(-logit)))
    assert 0.02 < found.propensity.min() < 0.2
    kept = [(found.action - found.propensity)[found.queue_depth == q] for q in range(6)]
    assert all(abs(one.mean()) < 3 * one.std() / np.sqrt(one.size) for one in kept)


@pytest.mark.parametrize("seed", [2, 3, 4])
def test_routed_requests_look_better_although_the_pool_is_worse(seed: int) -> None:
    _, found, params = _world(seed)
    told = truth(found, outcomes(found, params), params)
    naive, ate = (told[key]["ttft"]["relative"] for key in ("naive_difference", "ate"))  # type: ignore[index]
    assert naive < -0.05
    assert ate > 0.08


def test_weighing_by_the_router_s_own_probabilities_finds_the_truth() -> None:
    misses = []
    for seed in range(12):
        _, found, _ = _world(seed, 4_000)
        treated, p = found.action == 1, found.propensity
        y = np.where(treated, found.ttft_s[:, 1], found.ttft_s[:, 0])
        weighted = np.average(y, weights=treated / p) - np.average(y, weights=~treated / (1 - p))
        misses.append(weighted - float((found.ttft_s[:, 1] - found.ttft_s[:, 0]).mean()))
    assert abs(np.mean(misses)) < 3 * np.std(misses) / np.sqrt(len(misses))


def test_the_log_shows_the_outcome_of_the_pool_that_served(made: World) -> None:
    workload, found, params = made
    log = log_of(WORLDS["routed_users"], workload, found, outcomes(found, params))
    own = found.ttft_s[np.arange(log.height), found.action]
    assert log["ttft_ms"].to_numpy() == pytest.approx(own * 1000.0, abs=0.006)
    assert (log["executed_action"] == "premium").to_list() == (found.action == 1).tolist()
    assert (log["queue_depth_after"] - log["queue_depth"]).is_in([0, 1]).all()
    assert log.filter(pl.col("timed_out"))["output_tokens"].sum() == 0


def test_truth_holds_for_the_two_groups_apart(tmp_path: Path) -> None:
    simulate("routed_users", tmp_path, seed=5, requests=4_000)
    told, log = json.loads((tmp_path / "truth.json").read_text()), pl.read_parquet(tmp_path / "logs.parquet")
    share = (log["executed_action"] == "premium").mean()
    served = log.filter(pl.col("executed_action") == "premium")["ttft_ms"].mean()
    assert told["att"]["ttft"]["treatment"] == pytest.approx(served)
    assert told["naive_difference"]["ttft"]["treatment"] == pytest.approx(served)
    untreated = (told["ate"]["ttft"]["effect"] - share * told["att"]["ttft"]["effect"]) / (1 - share)
    assert untreated == pytest.approx(told["ate"]["ttft"]["effect"], rel=0.5)
