"""Shapley shares against their definition, and the axioms that define them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from attribution.batches import Batches
from attribution.model import JOULES_PER_WH, EnergyModel
from attribution.shapley import Shares, attribute, carbon_g

MODEL = EnergyModel(
    name="test", source="test", gpu="test", e0_j=3.16, e_tok_j=0.0665, prefill_j_per_token=0.02, pue=1.25,
    prefill_j_per_token2=3.1e-7, gpus=2, step_base_ms=6.67, step_per_request_ms=0.09, host_w=150.0, prefill_w=700.0,
)  # fmt: skip
FEW = settings(deadline=None, max_examples=60, derandomize=True)

Row = tuple[int, int, int, int]  # batch, prompt tokens, start step, output tokens
rows = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 5000), st.integers(0, 40), st.integers(0, 60)), min_size=1, max_size=24
)


def continuous(table: list[Row]) -> Batches:
    batch, prompt, start, output = np.array(table).T
    return Batches(batch, prompt, output, start, start + output)


def static(table: list[Row]) -> Batches:
    batch, prompt, _, output = np.array(table).T
    return Batches(batch, prompt, output)


def enumerated(prompt: NDArray[np.int64], start: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.float64]:
    """Shapley value in Wh by its definition: every coalition's batch is run step by step, then the weighted sum."""
    n = len(prompt)
    steps = np.arange(end.max(initial=0) + 1)
    active = ((start[:, None] <= steps) & (steps < end[:, None])).astype(float)
    members = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    count = members @ active
    gpu = np.where(count > 0, MODEL.e0_j + MODEL.e_tok_j * count, 0)
    seconds = np.where(count > 0, MODEL.step_base_ms + MODEL.step_per_request_ms * count, 0) / 1000
    prefill = MODEL.prefill_j_per_token * prompt + MODEL.prefill_j_per_token2 * prompt**2
    host = MODEL.host_w * MODEL.gpus * (seconds.sum(axis=1) + members @ prefill / (MODEL.prefill_w * MODEL.gpus))
    energy = (gpu.sum(axis=1) + members @ prefill + host) / JOULES_PER_WH * MODEL.pue
    size = members.sum(axis=1)
    weight = np.array([math.factorial(k) * math.factorial(n - 1 - k) / math.factorial(n) for k in range(n)])
    without = [np.flatnonzero(members[:, i] == 0) for i in range(n)]
    return np.array([weight[size[s]] @ (energy[s | (1 << i)] - energy[s]) for i, s in enumerate(without)])


def random_batches(n: int, seed: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    rng = np.random.default_rng([n, seed])
    prompt = rng.integers(0, 4000, n)
    output = np.minimum(rng.geometric(0.02, n), 400) - 1
    start = rng.integers(0, 120, n)
    yield prompt, np.zeros(n, dtype=np.int64), output
    yield prompt, start, start + output
    yield prompt, 20 * start, 20 * start + output  # often alone, with pauses
    yield prompt, start // 40, start // 40 + output // 100  # many ties and empty stays


@pytest.mark.parametrize("n", range(1, 11))
def test_parity_with_enumeration_of_every_coalition(n: int) -> None:
    for seed in range(2):
        for prompt, start, end in random_batches(n, seed):
            batches = Batches(np.zeros(n, dtype=int), prompt, end - start, start, end)
            expected = enumerated(prompt, start, end)
            np.testing.assert_allclose(attribute(batches, MODEL).wh, expected, rtol=1e-12, atol=0)
            if not start.any():
                without_steps = Batches(np.zeros(n, dtype=int), prompt, end)
                np.testing.assert_allclose(attribute(without_steps, MODEL).wh, expected, rtol=1e-12, atol=0)


def test_two_requests_by_hand() -> None:
    # Both decode in steps 0 and 1, the first alone in step 2: step cost 1 J gives 1/2 + 1/2 + 1 and 1/2 + 1/2.
    model = EnergyModel(name="m", source="s", gpu="g", e0_j=1.0, e_tok_j=0.0, prefill_j_per_token=0.0, pue=1.0)
    shares = attribute(Batches(["a", "a"], [10, 10], [3, 2]), model)
    np.testing.assert_allclose(shares.wh * JOULES_PER_WH, [2.0, 1.0], rtol=1e-15)
    assert shares.total_wh * JOULES_PER_WH == pytest.approx(3.0)


@given(rows)
@FEW
def test_efficiency_and_components(table: list[Row]) -> None:
    for batches in (continuous(table), static(table)):
        shares = attribute(batches, MODEL)
        batch = np.array(table)[:, 0]
        for code in np.unique(batch):
            mine = batch == code
            assert shares.wh[mine].sum() == pytest.approx(shares.batch_wh[mine][0], rel=1e-12, abs=1e-300)
            for rule in shares.naive.values():
                assert rule[mine].sum() == pytest.approx(shares.batch_wh[mine][0], rel=1e-12, abs=1e-300)
        assert shares.efficiency_error <= 1e-12
        assert shares.efficient
        assert sum(shares.components.values()) == pytest.approx(shares.total_wh, rel=1e-12, abs=1e-300)
        assert tuple(shares.components) == ("decode_step", "decode_token", "prefill", "host")


@given(rows, st.randoms(use_true_random=False))
@FEW
def test_order_of_rows_and_names_of_batches_change_nothing(table: list[Row], random: object) -> None:
    order = list(range(len(table)))
    random.shuffle(order)  # type: ignore[attr-defined]
    straight, shuffled = attribute(continuous(table), MODEL), attribute(continuous([table[i] for i in order]), MODEL)
    np.testing.assert_array_equal(straight.wh[order], shuffled.wh)
    batch, prompt, start, output = np.array(table).T
    named = attribute(Batches([f"batch-{9 - b}" for b in batch], prompt, output, start, start + output), MODEL)
    np.testing.assert_allclose(named.wh, straight.wh, rtol=1e-14)


@given(rows)
@FEW
def test_symmetry_twins_get_the_same(table: list[Row]) -> None:
    shares = attribute(continuous([*table, table[0]]), MODEL)
    assert shares.wh[0] == shares.wh[-1]


@given(rows)
@FEW
def test_dummy_who_adds_nothing_gets_nothing_and_changes_nothing(table: list[Row]) -> None:
    dummy = (table[0][0], 0, table[0][2], 0)
    shares = attribute(continuous([*table, dummy]), MODEL)
    assert shares.wh[-1] == 0
    np.testing.assert_allclose(shares.wh[:-1], attribute(continuous(table), MODEL).wh, rtol=1e-14, atol=0)


@given(rows, st.tuples(*[st.floats(0, 50)] * 4), st.tuples(*[st.floats(0, 50)] * 4))
@FEW
def test_additivity_over_energy_models(
    table: list[Row], one: tuple[float, float, float, float], other: tuple[float, float, float, float]
) -> None:
    def shares(parameters: list[float]) -> NDArray[np.float64]:
        e0, e_tok, linear, square = parameters
        model = EnergyModel(
            name="m", source="s", gpu="g", e0_j=e0, e_tok_j=e_tok, prefill_j_per_token=linear, pue=1.0,
            prefill_j_per_token2=square / 1000,
        )  # fmt: skip
        return attribute(continuous(table), model).wh

    both = shares([a + b for a, b in zip(one, other, strict=True)])
    np.testing.assert_allclose(shares(list(one)) + shares(list(other)), both, rtol=1e-12, atol=1e-300)


@given(rows)
@FEW
def test_other_batches_do_not_matter(table: list[Row]) -> None:
    alone = [row for row in table if row[0] == table[0][0]]
    together = attribute(continuous(table), MODEL).wh[[row[0] == table[0][0] for row in table]]
    np.testing.assert_allclose(together, attribute(continuous(alone), MODEL).wh, rtol=1e-14, atol=0)


def test_a_short_stay_keeps_its_digits_beside_millions_of_steps() -> None:
    # 200,000 long stays in batches of three (1/3 has no exact float), then one step shared by seven.
    n = 200_001
    batch = np.concatenate([np.arange(n) // 3, np.full(7, n)])
    steps = np.concatenate([np.full(n, 1_000_003), np.ones(7, dtype=np.int64)])
    model = EnergyModel(name="m", source="s", gpu="g", e0_j=1.0, e_tok_j=0.0, prefill_j_per_token=0.0, pue=1.0)
    wh = attribute(Batches(batch, np.zeros(n + 7), steps), model).wh * JOULES_PER_WH
    np.testing.assert_allclose(wh[-7:], 1 / 7, rtol=1e-12)
    np.testing.assert_allclose(wh[:n], 1_000_003 / 3, rtol=1e-14)


def test_single_request_carries_its_whole_batch() -> None:
    shares = attribute(Batches([5], [100], [20]), MODEL)
    gpu = 20 * (3.16 + 0.0665) + 100 * 0.02 + 3.1e-7 * 100**2
    host = 300 * 20 * (6.67 + 0.09) / 1000 + (100 * 0.02 + 3.1e-7 * 100**2) * 150 / 700
    assert shares.wh[0] == pytest.approx((gpu + host) / 3600 * 1.25, rel=1e-14)
    assert (shares.n_batches, shares.n_requests, shares.batch_size.tolist()) == (1, 1, [1])


def test_zero_output_tokens_pay_for_prefill_alone() -> None:
    shares = attribute(Batches([1, 1], [1000, 1000], [0, 50]), MODEL)
    assert shares.wh[0] == pytest.approx((20 + 0.31) * (1 + 150 / 700) / 3600 * 1.25, rel=1e-14)


def test_a_batch_of_nothing_costs_nothing() -> None:
    shares = attribute(Batches([1, 1, 2], [0, 0, 10], [0, 0, 10]), MODEL)
    np.testing.assert_array_equal(shares.wh[:2], 0)
    assert all(np.all(rule[:2] == 0) for rule in shares.naive.values())
    assert np.isfinite(shares.total_wh)


def test_ten_thousand_requests_in_one_batch_beside_small_ones() -> None:
    rng = np.random.default_rng(3)
    batch = np.concatenate([np.zeros(10_000, dtype=int), np.arange(1, 501), np.repeat(np.arange(501, 601), 32)])
    output = rng.integers(1, 800, batch.size)
    shares = attribute(Batches(batch, rng.integers(1, 4000, batch.size), output), MODEL)
    assert shares.efficiency_error <= 1e-12
    assert shares.n_batches == 601
    # the airport formula for a static batch, request by request
    ends = np.sort(output[:10_000])
    airport = np.cumsum(np.diff(ends, prepend=0) / (10_000 - np.arange(10_000)))
    own = 0.0665 * ends + 300 * 0.09 / 1000 * ends
    order = np.argsort(output[:10_000], kind="stable")
    prompt_part = attribute(Batches(batch, np.zeros(batch.size), output), MODEL)
    expected = (own + (3.16 + 300 * 6.67 / 1000) * airport) / 3600 * 1.25
    np.testing.assert_allclose(prompt_part.wh[:10_000][order], expected, rtol=1e-12)


def test_steps_too_far_apart_for_one_sort_key_are_sorted_all_the_same() -> None:
    far = 2**53  # 64 batches of such a span do not fit a key of 63 bits
    batch = np.tile(np.arange(64), 3)
    start = np.repeat([-far, far - 8, far - 6], 64)
    shares = attribute(Batches(batch, np.zeros(192), np.full(192, 4), start, start + 4), MODEL)
    model = attribute(Batches([0, 1, 1], [0] * 3, [4] * 3, [0, 0, 2], [4, 4, 6]), MODEL)
    np.testing.assert_allclose(shares.wh.reshape(3, 64), np.tile(model.wh[:, None], 64), rtol=1e-12)


def test_naive_rules_by_hand() -> None:
    shares = attribute(Batches(["x", "x"], [100, 0], [100, 200], [0, 0], [100, 300]), MODEL)
    whole = shares.batch_wh[0]
    np.testing.assert_allclose(shares.naive["per_token"], [whole / 2, whole / 2])
    np.testing.assert_allclose(shares.naive["per_request"], [whole / 2, whole / 2])
    np.testing.assert_allclose(shares.naive["provisioned"], [whole / 4, whole * 3 / 4])


def measured(values: list[float]) -> Shares:
    return attribute(Batches([1, 1, 2, 2], [10] * 4, [10, 20, 10, 20], measured_wh=values), MODEL)


def test_measured_energy_is_shared_out_whole() -> None:
    modelled = attribute(Batches([1, 1], [10, 10], [10, 20]), MODEL)
    shares = measured([0.5, 0.5, np.nan, np.nan])
    assert shares.wh[:2].sum() == pytest.approx(0.5, rel=1e-14)
    assert shares.wh[0] / shares.wh[1] == pytest.approx(modelled.wh[0] / modelled.wh[1], rel=1e-14)
    np.testing.assert_allclose(shares.wh[2:], modelled.wh, rtol=1e-14)
    np.testing.assert_allclose(shares.modelled_wh, np.tile(modelled.wh, 2), rtol=1e-14)
    assert shares.naive["per_request"].tolist()[:2] == [0.25, 0.25]
    assert shares.measured is not None
    assert (shares.measured.used, shares.measured.missing, shares.measured.invalid) == (1, 1, 0)
    assert shares.measured.factor_median == pytest.approx(0.5 / modelled.total_wh)
    assert sum(shares.components.values()) == pytest.approx(shares.total_wh)


@pytest.mark.parametrize("wrong", [[0.0, 0.0], [-1.0, -1.0], [np.inf, np.inf], [0.5, 0.6], [-0.5, 0.5]])
def test_an_impossible_measurement_is_counted_and_not_used(wrong: list[float]) -> None:
    shares = measured([*wrong, 0.5, 0.5])
    assert shares.measured is not None
    assert (shares.measured.used, shares.measured.missing, shares.measured.invalid) == (1, 0, 1)
    np.testing.assert_array_equal(shares.wh[:2], shares.modelled_wh[:2])


def test_a_measurement_below_idle_is_counted_and_not_used() -> None:
    model = replace(MODEL, idle_w=70.0)
    seconds = (20 * 6.67 + 30 * 0.09) / 1000  # 20 steps with anyone active, 30 with each of two
    idle = 2 * 70.0 * seconds / JOULES_PER_WH
    for wh, used in ((idle * 0.999, 0), (idle * 1.001, 1)):
        shares = attribute(Batches([1, 1], [10, 10], [10, 20], measured_wh=[wh, wh]), model)
        assert shares.measured is not None
        assert (shares.measured.used, shares.measured.invalid, shares.measured.below_idle) == (used, 1 - used, 1 - used)
    assert attribute(Batches([1, 1], [10, 10], [10, 20], measured_wh=[idle / 9] * 2), MODEL).measured.used == 1  # type: ignore[union-attr]


def test_a_measurement_on_some_rows_of_a_batch_holds_for_the_batch() -> None:
    shares = measured([0.5, np.nan, 0.25, 0.25 * (1 + 1e-12)])
    assert shares.wh[:2].sum() == pytest.approx(0.5, rel=1e-14)
    assert shares.measured is not None
    assert shares.measured.used == 2


def test_no_measurement_to_use_leaves_no_factor() -> None:
    shares = measured([np.nan] * 4)
    assert shares.measured is not None
    assert (shares.measured.used, shares.measured.missing, shares.measured.factor_median) == (0, 2, None)
    assert attribute(Batches([1], [1], [1]), MODEL).measured is None


def test_a_measurement_of_a_batch_that_the_model_gives_nothing_cannot_be_shared() -> None:
    shares = attribute(Batches([1], [0], [0], measured_wh=[0.5]), MODEL)
    assert shares.measured is not None
    assert (shares.measured.used, shares.measured.invalid, shares.total_wh) == (0, 1, 0.0)


def test_an_empty_log() -> None:
    shares = attribute(Batches([], [], [], measured_wh=[]), MODEL)
    assert (shares.n_batches, shares.n_requests, shares.total_wh, shares.efficiency_error_wh) == (0, 0, 0.0, 0.0)
    assert shares.wh.shape == (0,)


def test_carbon_by_constant_and_by_row() -> None:
    np.testing.assert_allclose(carbon_g(np.array([1000.0, 2.0]), 380.0), [380.0, 0.76])
    np.testing.assert_allclose(carbon_g(np.array([1000.0, 2.0]), np.array([100.0, 500.0])), [100.0, 1.0])
