"""Sampled shares against all coalitions, the axiom that holds exactly, and that chance comes from the seed alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from attribution.asking import Asker, counted_out
from attribution.batches import Batches, resolve
from attribution.controls import Amount, Chains, Control, Counted, Largest, Own, controls_of
from attribution.game import Game
from attribution.games.rescheduled import admissions, rescheduled
from attribution.model import JOULES_PER_WH, EnergyModel
from attribution.permutations import Estimate, estimate
from attribution.sampling import Sampled, attribute_sampled, for_model, suggested
from attribution.shapley import attribute

from .games import TERMS, coalitions, enumerated, random_log, random_stays

MODEL = EnergyModel(
    name="test", source="test", gpu="test", e0_j=3.16, e_tok_j=0.0665, prefill_j_per_token=0.02, pue=1.25,
    prefill_j_per_token2=3.1e-7, gpus=2, step_base_ms=6.67, step_per_request_ms=0.09, host_w=150.0, prefill_w=700.0,
)  # fmt: skip
Masks = NDArray[np.bool_]
Floats = NDArray[np.float64]


def queued(batch: Mapping[str, NDArray[Any]], masks: Masks) -> Floats:
    """Few at a time, so that requests wait for each other."""
    return rescheduled(batch, masks, energy_model=MODEL, max_batch=3, max_tokens=6000)


def sampled(log: Batches, seed: int = 0, **options: Any) -> Sampled:
    return attribute_sampled(log, queued, seed=seed, **({"samples": 40, "cap": 80} | options))


@lru_cache
def looked_up(n: int, seed: int) -> tuple[Callable[[Masks], Floats], Floats, Mapping[str, NDArray[Any]]]:
    """A re-scheduled game by look-up, its exact shares and the log's columns."""
    stays = random_stays(n, seed, "continuous")
    columns = {
        "prompt_tokens": stays.prompt, "output_tokens": stays.output, "start_step": stays.start, "end_step": stays.end
    }  # fmt: skip
    joules = queued(columns, coalitions(n))
    return lambda masks: joules[masks @ (1 << np.arange(n))], enumerated(joules, n), columns


def drawn(n: int, seed: int, run: int, **options: Any) -> tuple[Estimate, Floats]:
    worth, exact, columns = looked_up(n, seed)
    given: dict[str, Any] = {"samples": 40, "tolerance": 0.02, "cap": 40, "exact": False} | options
    return estimate(worth, n, suggested(columns), rng=np.random.default_rng([seed, run]), **given), exact


@pytest.mark.parametrize("n", [7, 8, 10])
def test_shares_agree_with_all_coalitions_within_their_errors(n: int) -> None:
    for seed in range(4):
        found, exact = drawn(n, seed, 0, samples=100, cap=100)
        assert found.orders == 100
        assert np.abs(found.shares - exact).max() < 4 * found.std_error.max()
        assert found.std_error.mean() < 0.05 * exact.mean()


def test_the_estimate_is_unbiased_and_its_errors_cover() -> None:
    runs = [drawn(9, 2, run)[0] for run in range(50)]
    _, exact, _ = looked_up(9, 2)
    error = np.array([run.shares for run in runs]) - exact
    off = error.mean(axis=0) / (error.std(axis=0) / np.sqrt(len(runs)))
    assert np.abs(off).max() < 3.5
    inside = np.abs(error) <= 1.96 * np.array([run.std_error for run in runs])
    assert 0.9 < inside.mean() < 0.99


def test_errors_cover_where_sampling_stops_by_itself() -> None:
    runs = [drawn(9, 4, run, tolerance=0.012, cap=640) for run in range(40)]
    orders = [found.orders for found, _ in runs]
    assert all(found.reached for found, _ in runs)
    assert len(set(orders)) > 1
    inside = [np.abs(found.shares - exact) <= 1.96 * found.std_error for found, exact in runs]
    assert np.mean(inside) > 0.9


def test_shares_sum_to_the_batch_exactly() -> None:
    result = sampled(random_log(16, 2, "continuous"))
    assert result.n_sampled == 1
    assert result.shares.efficiency_error < 1e-12
    assert result.shares.wh.sum() == pytest.approx(result.shares.batch_wh[0], rel=1e-12)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not() -> None:
    log = random_log(16, 2, "continuous")
    first, again, other = sampled(log), sampled(log), sampled(log, seed=1)
    assert first.shares.wh.tobytes() == again.shares.wh.tobytes()
    assert first.std_error_wh.tobytes() == again.std_error_wh.tobytes()
    assert not np.array_equal(first.shares.wh, other.shares.wh)


def test_a_batch_is_sampled_alike_whatever_else_is_in_the_log() -> None:
    one, two = random_log(12, 2, "continuous"), random_log(13, 3, "static")
    both = Batches(
        np.repeat(["a", "b"], [13, 12]),
        *(np.concatenate([getattr(two, name), getattr(one, name)]) for name in COLUMNS),  # type: ignore[arg-type]
    )
    alone = Batches(np.repeat("b", 12), *(getattr(one, name) for name in COLUMNS))
    assert sampled(both).shares.wh[13:].tobytes() == sampled(alone).shares.wh.tobytes()


COLUMNS = ("prompt_tokens", "output_tokens", "start_step", "end_step")


def test_small_batches_are_counted_out() -> None:
    result = attribute_sampled(random_log(8, 2, "continuous"), for_model(rescheduled, MODEL))
    assert (result.n_exact, result.n_sampled) == (1, 0)
    assert set(result.methods) == {"shapley_exact"}
    assert not result.std_error_wh.any()
    worth, exact, _ = looked_up(8, 2)
    found = estimate(
        worth, 8, lambda alone, marginal: [], samples=200, tolerance=0.02, cap=200, rng=np.random.default_rng(0)
    )
    np.testing.assert_allclose(found.shares, exact, rtol=1e-12)
    everyone = worth(np.ones((1, 8), dtype=bool))[0]
    np.testing.assert_allclose(found.marginal, everyone - worth(~np.eye(8, dtype=bool)), rtol=1e-12)


def test_more_orders_are_drawn_until_the_tolerance_or_the_cap() -> None:
    log = random_log(16, 2, "continuous")
    loose, tight = sampled(log, tolerance=0.5, cap=160), sampled(log, tolerance=1e-6, cap=160)
    assert set(loose.samples) == {40}
    assert set(tight.samples) == {160}
    assert (loose.n_unreached, tight.n_unreached) == (0, 1)
    assert set(tight.methods) == {"shapley_truncated_K160"}
    assert tight.relative_error < loose.relative_error


def test_measured_energy_scales_shares_and_errors_alike() -> None:
    log = random_log(16, 2, "continuous")
    before = sampled(log)
    measured = np.full(16, 2 * before.shares.batch_wh[0])
    after = sampled(Batches(log.batch, *(getattr(log, name) for name in COLUMNS), measured_wh=measured))
    np.testing.assert_allclose(after.shares.wh, 2 * before.shares.wh, rtol=1e-12)
    np.testing.assert_allclose(after.std_error_wh, 2 * before.std_error_wh, rtol=1e-12)


def test_rows_that_cannot_be_attributed_have_no_method() -> None:
    log = random_log(12, 2, "continuous")
    output = np.array(log.output_tokens, dtype=float)
    output[3] = np.nan
    result = sampled(Batches(log.batch, log.prompt_tokens, output, log.start_step, log.end_step))
    assert result.methods[3] == ""
    assert np.isnan(result.std_error_wh[3])
    assert np.isfinite(np.delete(result.std_error_wh, 3)).all()


def test_a_game_with_a_closed_form_is_found_exactly() -> None:
    log = random_log(20, 2, "continuous")
    game = Game.of(MODEL)
    plain = Batches(log.batch, log.prompt_tokens, log.output_tokens, log.start_step, log.end_step)
    stays = resolve(plain)
    result = attribute_sampled(plain, lambda batch, masks: game.worth(stays, masks) * MODEL.pue)
    np.testing.assert_allclose(result.shares.wh, attribute(plain, MODEL).wh, rtol=1e-5)
    assert result.relative_error < 1e-5


def test_the_games_extra_columns_come_in_the_rows_of_its_batch() -> None:
    seen = []

    def game(batch: Mapping[str, NDArray[Any]], masks: Masks) -> Floats:
        seen.append(batch["tier"].tolist())
        return masks @ batch["output_tokens"].astype(float)

    log = Batches([0, 1, 0, 1], [1, 1, 1, 1], [3, 4, 5, 6])
    result = attribute_sampled(log, game, columns={"tier": ["a", "b", "c", "d"]})
    assert sorted({tuple(x) for x in seen}) == [("a", "c"), ("b", "d")]
    np.testing.assert_allclose(result.shares.wh * JOULES_PER_WH, [3, 4, 5, 6])


@pytest.mark.parametrize(
    ("game", "message"),
    [
        (lambda batch, masks: masks, r"batch 0: the game gave an array of shape \(2, 12\) for 2 coalitions"),
        (lambda batch, masks: ["x"] * len(masks), "batch 0: the game gave no numbers"),
        (lambda batch, masks: np.where(masks.any(axis=1), np.nan, 0.0), "not finite"),
        (lambda batch, masks: np.full(len(masks), 2.0), "gives 2 J to no request at all; expected 0"),
    ],
)
def test_a_game_that_answers_wrongly_is_named(game: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attribute_sampled(random_log(12, 2, "static"), game)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 20}, "samples: expected at least 40, got 20"),
        ({"tolerance": 0.0}, "tolerance: expected a number above 0"),
        ({"samples": 200, "cap": 100}, r"cap: expected at least samples \(200\), got 100"),
    ],
)
def test_arguments_that_cannot_be_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sampled(random_log(12, 2, "static"), **options)


def test_orders_are_cut_short_where_a_game_is_saturated() -> None:
    def saturated(masks: Masks) -> Floats:
        return np.minimum(masks[:, :14].sum(axis=1), 5).astype(float)

    exact = np.repeat([5 / 14, 0.0], [14, 6])
    found = estimate(
        saturated, 20, lambda alone, marginal: [Own(20)], samples=400, tolerance=0.02, cap=400,
        rng=np.random.default_rng(0),
    )  # fmt: skip
    assert found.cut
    assert found.evaluations < 0.75 * 400 * 19
    assert np.abs(found.shares - exact).max() < 4 * found.std_error.max()


def test_no_order_is_cut_short_in_a_game_that_leaves_its_whole_worth_again() -> None:
    def humped(masks: Masks) -> Floats:
        size = masks.sum(axis=1)
        return np.where(size == 15, 7.0, np.minimum(size, 5.0))

    found = estimate(
        humped, 20, lambda alone, marginal: [Own(20)], samples=100, tolerance=0.02, cap=100,
        rng=np.random.default_rng(0),
    )  # fmt: skip
    assert not found.cut
    np.testing.assert_allclose(found.shares.sum(), 5.0)
    assert np.abs(found.shares - 0.25).max() < 4 * found.std_error.max()


def test_one_long_request_among_short_ones_is_flagged_and_equal_ones_are_not() -> None:
    energy = partial(rescheduled, energy_model=MODEL, max_batch=32)
    prompt = np.full(24, 100)
    output = np.concatenate([[2000], np.full(11, 20), np.full(12, 300)])
    result = attribute_sampled(Batches(np.repeat([0, 1], 12), prompt, output), energy, samples=40)
    assert result.lopsided.tolist() == [True] * 12 + [False] * 12
    assert result.n_lopsided == 1


def control_worth(control: Control, masks: Masks) -> Floats:
    """(k, games) What the controls say they are, coalition by coalition."""
    if isinstance(control, Own):
        return masks.astype(float)
    if isinstance(control, Amount):
        return (masks @ control.amount)[:, None]
    if isinstance(control, Largest):
        return np.where(masks, control.amount, 0.0).max(axis=1, initial=0.0)[:, None]
    count = masks.astype(int) @ control.sets.T
    return np.stack([np.minimum(count, cap) @ control.weight for cap in control.caps], axis=1)


def test_controls_are_exact_and_odd_as_they_say() -> None:
    n, rng = 7, np.random.default_rng(3)
    start, amount = rng.integers(0, 20, n).astype(float), rng.integers(1, 9, n).astype(float)
    controls = controls_of(n, {"amount": amount}, start, start + amount)
    controls += [Amount(amount), Largest(amount), Counted(rng.random((4, n)) < 0.5, rng.random(4), (1, 3))]
    order = rng.permuted(np.tile(np.arange(n), (5, 1)), axis=1)
    chains = Chains.of(order)
    there = chains.place[:, None, :] < np.arange(1, n)[:, None]
    for control in controls:
        worth = control_worth(control, coalitions(n))
        exact = np.array([enumerated(column, n) for column in worth.T])
        np.testing.assert_allclose(control.shares, exact, rtol=1e-12, atol=1e-12)
        flat = there.reshape(-1, n)
        odd = control_worth(control, flat) - control_worth(control, ~flat)
        np.testing.assert_allclose(control.odd(chains).reshape(odd.shape), odd, atol=1e-9)


def test_large_batches_are_sampled_in_bounded_memory() -> None:
    rng = np.random.default_rng(0)
    output = rng.integers(1, 400, 300)
    longest = TERMS["longest_output"]
    log = Batches(np.zeros(300, dtype=int), rng.integers(1, 900, 300), output)
    stays = resolve(log)
    result = attribute_sampled(log, lambda batch, masks: longest.worth(stays, masks), samples=40, cap=40)
    np.testing.assert_allclose(result.shares.wh * JOULES_PER_WH, longest.shares(stays), rtol=1e-6)


def scheduled_naively(arrival: list[int], steps: list[int], tokens: list[int], at_once: int, limit: int) -> list[int]:
    """Step by step: who has arrived is admitted in order while there is room."""
    n = len(arrival)
    queue = sorted(range(n), key=lambda i: (arrival[i], i))
    start: dict[int, int] = {}
    moment = min(arrival)
    while queue:
        running = [i for i in start if start[i] <= moment < start[i] + steps[i]]
        first = queue[0]
        held = sum(tokens[i] for i in running)
        room = len(running) < at_once and (held + tokens[first] <= limit or not running)
        if arrival[first] <= moment and room:
            start[first] = moment
            queue.pop(0)
        else:
            moment += 1
    return [start[i] for i in range(n)]


@pytest.mark.parametrize("seed", range(6))
def test_requests_are_admitted_as_a_step_by_step_replica_does(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, at_once, limit = 9, int(rng.integers(1, 5)), int(rng.integers(10, 40))
    arrival, steps, tokens = rng.integers(0, 30, n), rng.integers(1, 25, n), rng.integers(1, 20, n)
    masks = rng.random((20, n)) < 0.6
    start = admissions(masks, arrival, steps, tokens, at_once, limit)
    for mask, found in zip(masks, start, strict=True):
        who = np.flatnonzero(mask)
        if who.size:
            expected = scheduled_naively(*(x[who].tolist() for x in (arrival, steps, tokens)), at_once, limit)
            assert found[who].tolist() == expected


def test_rescheduling_without_a_queue_is_the_logged_batch() -> None:
    stays = random_stays(9, 2, "continuous")
    columns = {
        "prompt_tokens": stays.prompt, "output_tokens": stays.output, "start_step": stays.start, "end_step": stays.end
    }  # fmt: skip
    bare = resolve(Batches(np.zeros(9), stays.prompt, stays.output, stays.start, stays.end))
    masks = coalitions(9)
    free = rescheduled(columns, masks, energy_model=MODEL, max_batch=9, max_tokens=10**9)
    np.testing.assert_allclose(free, MODEL.pue * Game.of(MODEL).worth(bare, masks), rtol=1e-12)


def test_counting_out_asks_each_coalition_once() -> None:
    ask = Asker(lambda masks: masks.sum(axis=1) ** 2.0, 5)
    shares, _ = counted_out(ask)
    assert ask.count == 31
    np.testing.assert_allclose(shares, 5.0)
