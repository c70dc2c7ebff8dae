"""Games of energy models, and what attribution says of them beside the shares."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from attribution.batches import Batches, resolve
from attribution.game import Game
from attribution.model import JOULES_PER_WH, EnergyModel, load_model
from attribution.pieces import Blocks
from attribution.shapley import attribute
from attribution.stays import Stays
from attribution.terms import Fixed, Hinge, Maximum

from .games import coalitions, enumerated, random_log

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "energy"
MODELS = {path.stem: load_model(path.read_text(encoding="utf-8")) for path in sorted(CONFIGS.glob("*.yaml"))}
MODELS["all keys"] = replace(
    MODELS["h100_dense_8b"], kv_j_per_token_step=2.5e-5, longest_j_per_token=0.1, span_j_per_step=0.6, fixed_j=40.0
)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", ["static", "continuous"])
def test_shares_of_every_model_are_the_shapley_value_of_its_game(name: str, kind: str) -> None:
    model = MODELS[name]
    for seed in (0, 1):
        log = random_log(9, seed, kind)
        shares = attribute(log, model, by_term=True, leave_one_out=True)
        worth = Game.of(model).worth(resolve(log), coalitions(9)) * model.pue / JOULES_PER_WH
        np.testing.assert_allclose(shares.wh, enumerated(worth, 9), rtol=1e-12)
        np.testing.assert_allclose(shares.leave_one_out, worth[-1] - worth[511 ^ (1 << np.arange(9))], rtol=1e-10)
        assert shares.by_term is not None
        assert tuple(shares.by_term) == tuple(shares.components)
        np.testing.assert_allclose(sum(shares.by_term.values()), shares.wh, rtol=1e-12)
        for term, wh in shares.by_term.items():
            assert wh.sum() == pytest.approx(shares.components[term], rel=1e-12, abs=1e-300)
        assert shares.efficiency_error <= 1e-12


def test_what_keys_make_up_a_batch() -> None:
    model = EnergyModel(
        name="m", source="s", gpu="g", prefill_j_per_token=0.0, pue=2.0, kv_j_per_token_step=1.0,
        longest_j_per_token=10.0, span_j_per_step=100.0, fixed_j=1000.0, step_table={1: 5.0, 2: 7.0},
    )  # fmt: skip
    shares = attribute(Batches([0, 0], [10, 20], [2, 1], [0, 5], [2, 6]), model)
    joules = {name: wh * JOULES_PER_WH / 2 for name, wh in shares.components.items() if wh}
    assert joules == pytest.approx(
        {"kv_read": 10 + 11 + 20, "longest": 20.0, "span": 600.0, "fixed": 1000.0, "decode_step": 15.0}
    )


def test_leave_one_out_misses_what_is_shared() -> None:
    model = MODELS["h100_dense_8b"]
    log = random_log(9, 0, "static")
    shares = attribute(log, model, leave_one_out=True)
    assert shares.leave_one_out is not None
    assert shares.leave_one_out.sum() < 0.9 * shares.total_wh
    measured = attribute(replace(log, measured_wh=np.full(9, shares.total_wh * 2)), model, leave_one_out=True)
    assert measured.leave_one_out is not None
    np.testing.assert_allclose(measured.leave_one_out, 2 * shares.leave_one_out, rtol=1e-12)
    assert attribute(log, model).leave_one_out is None
    assert attribute(log, model).by_term is None


def test_a_game_of_one_s_own() -> None:
    log = Batches([3, 3, 4], [10, 20, 30], [2, 4, 4])
    shares = attribute(log, Game({"start": Fixed(3600.0), "longest": Maximum(3600.0)}))
    np.testing.assert_allclose(shares.wh, [0.5 + 1, 0.5 + 3, 1 + 4])
    assert shares.components == pytest.approx({"start": 2.0, "longest": 8.0})
    with pytest.raises(ValueError, match="sample them instead"):
        attribute(Batches(np.zeros(20), np.arange(20), np.ones(20)), Game({"hinge": Hinge(1.0, 5.0, "prompt", most=0)}))


@dataclass(frozen=True)
class Wrong(Fixed):
    """Shares that do not add up to what the batch costs."""

    factor: float = 1.0

    def shares(self, stays: Stays) -> np.ndarray:
        return self.factor * super().shares(stays)


@pytest.mark.parametrize(("joules", "factor"), [(10.0, 1 + 1e-8), (10.0, np.nan), (np.nan, 1.0), (np.inf, 1.0)])
def test_shares_that_do_not_add_up_are_not_efficient(joules: float, factor: float) -> None:
    log = Batches([3, 3, 4], [10, 20, 30], [2, 4, 4])
    assert not attribute(log, Game({"wrong": Wrong(joules, factor)})).efficient
    assert attribute(log, Game({"right": Fixed(10.0)})).efficient


def test_steps_that_no_table_holds_are_told() -> None:
    log = random_log(9, 0, "static")
    assert attribute(log, MODELS["h100_dense_8b"]).beyond_table is None
    beyond = attribute(log, MODELS["h100_moe_30b_a3b"]).beyond_table
    assert beyond is not None
    output = np.asarray(log.output_tokens)
    active = (output[:, None] > np.arange(int(output.max()))).sum(axis=0)
    assert beyond == pytest.approx((active < 8).mean(), abs=1e-12)


def test_shared_prompts_are_computed_once() -> None:
    model = MODELS["h100_dense_70b"]
    prompt, output = [1024, 1024], [10, 10]
    apart = attribute(Batches([1, 1], prompt, output), model)
    blocks = Blocks(ids=["system", "a", "system", "b"], offsets=np.array([0, 2, 4]), tokens=512)
    shared = attribute(Batches([1, 1], prompt, output, blocks=blocks), model)
    named = attribute(Batches([1, 1], prompt, output, prefix=["system"] * 2, prefix_tokens=[512] * 2), model)
    np.testing.assert_allclose(named.wh, shared.wh, rtol=1e-14)
    saved = float(model.prefill_j(np.array([512.0]))[0]) * (1 + 150 / 700) * 1.2 / JOULES_PER_WH
    assert apart.total_wh - shared.total_wh == pytest.approx(saved, rel=1e-12)
    np.testing.assert_allclose(apart.wh - shared.wh, saved / 2, rtol=1e-10)


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"prefix": ["a", "a"], "prefix_tokens": [np.nan, 5]}, "no prefix token count"),
        ({"prefix": ["a", "a"], "prefix_tokens": [-1, 5]}, "prefix tokens negative or not whole"),
        ({"prefix": ["a", "a"], "prefix_tokens": [2.5, 5]}, "prefix tokens negative or not whole"),
        ({"prefix": ["a", "a"], "prefix_tokens": [11, 5]}, "prefix longer than prompt"),
    ],
)
def test_a_prefix_that_cannot_be_leaves_its_row_out(columns: dict[str, list[object]], reason: str) -> None:
    shares = attribute(Batches([0, 0], [10, 10], [1, 1], **columns), MODELS["h100_dense_8b"])
    assert shares.unattributed == {reason: 1}
    assert np.isnan(shares.wh).tolist() == [True, False]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Batches([0], [1], [1], prefix=["a"]), "prefix and prefix_tokens go together"),
        (lambda: Batches([0], [1], [1], prefix=["a", "b"], prefix_tokens=[1]), "prefix: expected 1 values"),
        (lambda: Batches([0], [1], [1], prefix=["a"], prefix_tokens=[1], blocks=Blocks([1], np.array([0, 1]), 16)),
         "blocks: stand in place of prefix"),
        (lambda: Batches([0], [1], [1], blocks=Blocks([1], np.array([0, 1, 1]), 16)), "blocks: expected 1 lists"),
        (lambda: Blocks([1], np.array([0, 2]), 16), "offsets end at 2, ids at 1"),
        (lambda: Blocks([1], np.array([1, 0]), 16), "offsets must not fall"),
        (lambda: Blocks([1], np.array([0, 1]), 0), "expected a whole number of tokens of at least 1"),
    ],
)  # fmt: skip
def test_prefixes_that_do_not_fit_are_an_error(make: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()  # type: ignore[operator]
