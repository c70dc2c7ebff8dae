"""One region by hand, and what must hold of any workload."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from readout.simulate.arrivals import Workload
from readout.simulate.fleet import FleetParams
from readout.simulate.system import CURRENT, PREMIUM, RESERVED, Outcomes, SystemParams, run

BASE, SLOPE, PREFILL, CHUNK, HOP = 0.02, 0.001, 0.05, 512, 0.25
FLEET = FleetParams(BASE, SLOPE, PREFILL, CHUNK, kv_limit=4000, max_batch=8, gpus=4, usd_per_gpu_hour=3.0)
PARAMS = SystemParams(
    fleets=(FLEET, FLEET), sensitive_tiers=(1,), max_prompt=1000, max_region_kv=6000, hop_s=HOP, timeout_s=5.0,
    max_retries=1, warm_s=300.0, warm_share=0.5,
)  # fmt: skip


def workload(
    t: list[float],
    prompt: list[int],
    output: list[int],
    tier: int = 0,
    reserved: bool = False,
    session: int | None = None,
) -> Workload:
    n = len(t)
    return Workload(
        t_s=np.array(t), region=np.zeros(n, np.int64), workspace=np.zeros(n, np.int64),
        session=np.arange(n) if session is None else np.full(n, session), tier=np.full(n, tier),
        model=np.zeros(n, np.int64), reserved=np.full(n, reserved), prompt=np.array(prompt), output=np.array(output),
        runs_to=np.ones(n), backoff_s=np.full(n, 1.0), n_workspaces=1, wave_rate=1.0,
    )  # fmt: skip


def outcome(load: Workload, params: SystemParams = PARAMS, premium: bool = False) -> Outcomes:
    return run(load, load.output, params, np.full(load.t_s.size, premium))


def test_a_lone_request_reads_its_prompt_and_decodes_at_full_speed() -> None:
    done = outcome(workload([10.0], [1100], [100]))
    step = BASE + SLOPE
    assert done.ttft_s[0] == pytest.approx(HOP + 3 * (step + PREFILL))  # ceil(1100 / 512) = 3 chunks
    assert done.latency_s[0] == pytest.approx(done.ttft_s[0] + 100 * step)
    in_fleet = done.latency_s[0] - HOP
    assert done.gpu_s[0] == pytest.approx(4 * 1200 / 4000 * in_fleet)
    assert (done.batch[0], done.start_step[0], bool(done.served[0])) == (0, 3, True)


def test_a_prefix_in_the_store_shortens_the_reading_and_is_logged_as_state() -> None:
    load = workload([10.0], [1100], [100])
    never = np.zeros(1, dtype=bool)
    cold, warm = (run(load, load.output, PARAMS, never, np.array([held])) for held in (0.0, 0.9))
    step = BASE + SLOPE + PREFILL
    assert (cold.ttft_s[0], warm.ttft_s[0]) == pytest.approx((HOP + 3 * step, HOP + step))  # 1,100 and 110 tokens
    assert (bool(cold.cache_warm[0]), bool(warm.cache_warm[0])) == (False, True)


def test_two_at_once_share_the_steps() -> None:
    done = outcome(workload([0.0, 0.0], [512, 512], [10, 50]))
    both, one = BASE + 2 * SLOPE, BASE + SLOPE
    first_token = HOP + both + 2 * PREFILL
    assert done.ttft_s == pytest.approx([first_token, first_token])
    assert done.latency_s[0] == pytest.approx(first_token + 10 * both)
    assert done.latency_s[1] == pytest.approx(first_token + 10 * both + 40 * one)
    assert done.batch.tolist() == [0, 0]


def test_memory_bounds_admission_and_nobody_overtakes_the_head_of_the_queue() -> None:
    done = outcome(workload([0.0, 0.001, 0.002], [2000, 2900, 100], [100, 100, 10]))
    first_done = done.latency_s[0]
    assert done.ttft_s[1] > first_done - 0.001  # 2100 + 3000 tokens exceed 4000
    assert done.ttft_s[2] > first_done - 0.002  # would fit, but stands behind
    assert done.queue_depth.tolist() == [0, 0, 0]  # all decided before the first reached its fleet
    assert done.queue_depth_after.tolist() == [0, 1, 2]


def test_idle_moments_part_batches() -> None:
    assert outcome(workload([0.0, 100.0], [10, 10], [5, 5])).batch.tolist() == [0, 1]


def test_a_warm_session_reads_half_of_its_prompt() -> None:
    done = outcome(workload([0.0, 60.0, 1000.0], [1024] * 3, [10] * 3, session=7))
    assert done.cache_warm.tolist() == [False, True, False]
    assert done.ttft_s[1] == pytest.approx(HOP + BASE + SLOPE + PREFILL)
    assert done.ttft_s[2] == pytest.approx(done.ttft_s[0]) == pytest.approx(HOP + 2 * (BASE + SLOPE + PREFILL))


def test_a_client_waits_tries_again_and_gives_up() -> None:
    done = outcome(workload([0.0, 1.0], [3000, 3000], [900, 100]))
    assert done.latency_s[0] == pytest.approx(HOP + 6 * (BASE + SLOPE + PREFILL) + 900 * (BASE + SLOPE))
    assert done.timed_out.tolist() == [False, True]
    assert done.retries.tolist() == [0, 1]
    assert done.served.tolist() == [True, False]
    assert done.ttft_s[1] == pytest.approx(HOP + 5.0 + 1.0 + 5.0)  # wait, pause, wait
    assert done.batch[1] == -1
    assert done.gpu_s[1] == 0.0
    patient = outcome(workload([0.0, 1.0], [3000, 3000], [900, 100]), replace(PARAMS, timeout_s=18.0))
    assert patient.served.all()
    assert patient.retries.tolist() == [0, 1]


def test_the_new_policy_routes_short_sensitive_requests_and_only_those() -> None:
    assert outcome(workload([0.0], [900], [10], tier=1), premium=True).executed.tolist() == [PREMIUM]
    assert outcome(workload([0.0], [900], [10], tier=1)).executed.tolist() == [CURRENT]
    assert outcome(workload([0.0], [900], [10], tier=1)).premium_choice.tolist() == [True]
    assert outcome(workload([0.0], [1001], [10], tier=1), premium=True).executed.tolist() == [CURRENT]
    assert outcome(workload([0.0], [900], [10], tier=0), premium=True).executed.tolist() == [CURRENT]
    for premium in (False, True):
        done = outcome(workload([0.0], [900], [10], tier=1, reserved=True), premium=premium)
        assert done.executed.tolist() == [RESERVED]
        assert done.premium_choice.tolist() == [False]


def test_the_router_stops_where_the_region_is_full_by_what_it_logged() -> None:
    load = workload([0.0, 1.0], [1000, 1000], [900, 900], tier=1)
    done = outcome(load, replace(PARAMS, max_region_kv=1900), premium=True)
    assert done.kv_in_flight.tolist() == [0, 1900]
    assert done.intended.tolist() == [PREMIUM, CURRENT]


def test_a_fleet_that_fills_up_on_the_way_means_fallback() -> None:
    load = workload([0.0, 0.1, 0.2], [1000] * 3, [900] * 3, tier=1)  # two of 1900 tokens fit into 4000
    done = outcome(load, premium=True)
    assert done.intended.tolist() == [PREMIUM] * 3
    assert done.executed.tolist() == [PREMIUM, PREMIUM, CURRENT]
    assert done.fell_back.tolist() == [False, False, True]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 10_000), st.integers(1, 80), st.floats(0.01, 2.0), st.sampled_from([0.3, 1.0, 5.0]))
def test_every_request_has_one_consistent_end(seed: int, n: int, gap: float, timeout: float) -> None:
    rng = np.random.default_rng(seed)
    load = replace(
        workload(np.sort(rng.exponential(gap, n).cumsum()).tolist(), [1] * n, [1] * n),
        prompt=rng.integers(1, 2500, n), output=rng.integers(1, 1500, n), tier=rng.integers(0, 2, n),
        reserved=rng.random(n) < 0.2, session=rng.integers(0, 10, n),
    )  # fmt: skip
    done = run(load, load.output, replace(PARAMS, timeout_s=timeout), rng.random(n) < 0.5)
    assert (done.latency_s >= done.ttft_s).all()
    assert (done.ttft_s >= HOP).all()
    assert ((done.batch >= 0) == done.served).all()
    assert ((done.gpu_s > 0) == done.served).all()
    assert (done.timed_out == ((done.retries > 0) | ~done.served)).all()
    assert (done.fell_back == (done.intended != done.executed)).all()
    assert ((done.executed == RESERVED) == load.reserved).all()
    assert (done.kv_in_flight >= 0).all()
    assert (done.kv_in_flight <= 2 * FLEET.kv_limit).all()
    least = HOP + load.output * (BASE + SLOPE)
    assert (done.latency_s[done.served] >= least[done.served]).all()
