"""Energy models as files: what loads, what they say, and what is refused in which words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from attribution.model import EnergyModel, load_model

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "energy"
SMALL = {"name": "m", "source": "s", "gpu": "g", "e0_j": 2.0, "e_tok_j": 0.5, "prefill_j_per_token": 0.01, "pue": 1.0}


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_bundled_models_load_under_their_own_name_and_state_their_source(path: Path) -> None:
    model = load_model(path.read_text(encoding="utf-8"))
    assert model.name == path.stem
    assert "arXiv" in model.source
    assert model.pue >= 1


@pytest.mark.parametrize(
    ("name", "active", "joules_per_token", "watts"),
    # ML.ENERGY Leaderboard v3.0, Llama 3.1 and Qwen3 Instruct 2507 on H100, lm-arena-chat, and v2.0, Llama 3.1 on
    # A100, chat: active requests, J per output token, GPU W
    [
        ("h100_dense_8b", 15.95, 0.26274, 513.3),
        ("h100_dense_8b", 127.62, 0.09511, 669.2),
        ("h100_dense_8b", 510.87, 0.07019, 688.3),
        ("h100_dense_70b", 63.79, 50.86 / 63.79, 2001.5),
        ("h100_dense_70b", 510.51, 214.93 / 510.51, 2492.9),
        ("h100_dense_405b", 7.973, 13.97487, 3260.4),
        ("h100_dense_405b", 63.864, 3.08247, 4162.1),
        ("h100_dense_405b", 255.208, 2.06256, 4874.8),
        ("h100_moe_235b_a22b", 15.984, 6.29694, 3638.4),
        ("h100_moe_235b_a22b", 127.826, 1.36415, 3874.1),
        ("h100_moe_235b_a22b", 511.187, 0.74147, 3960.9),
        ("h100_moe_30b_a3b", 31.926, 0.33569, 467.9),
        ("h100_moe_30b_a3b", 88.508, 0.18587, 494.2),
        ("a100_dense_8b", 31.938, 0.21136, 198.3),
        ("a100_dense_8b", 319.204, 0.10552, 195.2),
    ],
)
def test_bundled_models_reproduce_published_measurements(
    name: str, active: float, joules_per_token: float, watts: float
) -> None:
    model = load_model((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))
    step_j = model.e0_j + model.e_tok_j * active
    if model.step_table:
        step_j = float(np.interp(active, list(model.step_table), list(model.step_table.values())))
    assert step_j / active == pytest.approx(joules_per_token, rel=0.05)
    step_s = (model.step_base_ms + model.step_per_request_ms * active) / 1000
    assert step_j / step_s == pytest.approx(watts, rel=0.12 if model.step_table else 0.1)


def test_text_and_mapping_give_the_same_model_and_the_same_hash() -> None:
    text = "pue: 1\n" + "".join(f"{key}: {value}\n" for key, value in SMALL.items() if key != "pue") + "# a comment\n"
    assert load_model(text) == load_model(SMALL)
    assert load_model(text).sha256 == load_model(SMALL).sha256 == EnergyModel(**{**SMALL, "pue": 1}).sha256  # type: ignore[arg-type]
    assert load_model({**SMALL, "e0_j": 2.1}).sha256 != load_model(SMALL).sha256


def test_a_key_at_its_default_does_not_change_the_hash() -> None:
    assert load_model({**SMALL, "kv_j_per_token_step": 0, "gpus": 1}).sha256 == load_model(SMALL).sha256
    assert load_model({**SMALL, "kv_j_per_token_step": 1e-5}).sha256 != load_model(SMALL).sha256


def test_a_step_table_stands_in_place_of_a_line() -> None:
    rest = "".join(f"{key}: {value}\n" for key, value in SMALL.items() if key not in ("e0_j", "e_tok_j"))
    model = load_model(rest + "step_table:\n  16: 10\n  8: 7.5 # a comment\n")
    assert dict(model.step_table) == {8: 7.5, 16: 10.0}
    assert (model.e0_j, model.e_tok_j) == (0.0, 0.0)
    flow = load_model(rest + "step_table: {8: 7.5, 16: 10}")
    assert flow == model
    assert flow.sha256 == model.sha256 != load_model(rest + "step_table: {8: 7.5, 16: 11}").sha256


TABLE = {key: value for key, value in SMALL.items() if key not in ("e0_j", "e_tok_j")}


def test_exponents_without_a_point_are_numbers() -> None:
    assert load_model({**SMALL, "prefill_j_per_token2": "1e-7"}).prefill_j_per_token2 == 1e-7


def test_prefill_and_host_energy() -> None:
    model = load_model(
        {**SMALL, "prefill_j_per_token2": 1e-6, "gpus": 2, "host_w": 150, "prefill_w": 600, "step_base_ms": 8,
         "step_per_request_ms": 0.1}
    )  # fmt: skip
    np.testing.assert_allclose(model.prefill_j(np.array([0.0, 1000.0])), [0.0, 10 + 1])
    np.testing.assert_allclose(model.prefill_host_j(np.array([1000.0])), [11 / 4])
    assert model.host_j_per_step == pytest.approx(2 * 150 * 0.008)
    assert model.host_j_per_request_step == pytest.approx(2 * 150 * 0.0001)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({**SMALL, "e0": 1}, "'e0': unknown key; did you mean 'e0_j'?"),
        ({key: SMALL[key] for key in SMALL if key != "gpu"}, "gpu: missing"),
        ({**SMALL, "e0_j": -1}, "e0_j: expected a number of at least 0, got -1"),
        ({**SMALL, "e0_j": "nan"}, "e0_j: expected a number of at least 0, got nan"),
        ({**SMALL, "e0_j": "much"}, "e0_j: expected a number, got 'much'"),
        ({**SMALL, "e0_j": True}, "e0_j: expected a number, got True"),
        ({**SMALL, "e0_j": None}, "e0_j: expected a number, got None"),
        ({**SMALL, "pue": 0.9}, "pue: expected a number of at least 1, got 0.9"),
        ({**SMALL, "gpus": 1.5}, "gpus: expected a whole number of at least 1, got 1.5"),
        ({**SMALL, "name": ""}, "name: expected text, got ''"),
        ({**SMALL, "host_w": 150}, "host_w: needs step_base_ms"),
        ({**SMALL, "host_w": 150, "step_base_ms": 7}, "host_w: needs prefill_w"),
        ({**SMALL, "step_table": {1: 2, 2: 3}}, "step_table: stands in place of e0_j and e_tok_j"),
        ({**TABLE, "step_table": {}}, "step_table: expected joules by active requests"),
        ({**TABLE, "step_table": 3}, "step_table: expected joules by active requests"),
        ({**TABLE, "step_table": {"8": 1.0, "8.0": 2.0}}, "step_table: expected each number of active requests once"),
        ({**TABLE, "step_table": {8: 1.0}}, "step_table: expected joules for at least two numbers"),
        ({**TABLE, "step_table": {"few": 1.0, 9: 2.0}}, "step_table: expected whole numbers of active requests"),
        ({**TABLE, "step_table": {8: "much", 9: 2.0}}, "step_table: 8: expected joules, got 'much'"),
        ({**TABLE, "step_table": {8: 3.0, 9: 2.0}}, "step_table: its last line falls"),
        ({**SMALL, "kv_j_per_token": 1}, "did you mean 'kv_j_per_token_step'?"),
        ({**SMALL, "fixed_j": -1}, "fixed_j: expected a number of at least 0"),
        ("step_table: {8: 1, 8: 2}", "line 1: key '8' stands twice"),
        ("step_table: {8: {9: 1}}", "line 1: expected one key and one plain value"),
        ("- 1", "expected a mapping"),
        ("", "expected a mapping"),
        ("a: 1\na: 2", "line 2: key 'a' stands twice"),
        ("name: {a: 1}", "line 1: expected one key and one plain value"),
        ("name: [", "not valid YAML"),
    ],
)
def test_faults_are_named_in_plain_words(content: object, words: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the words are compared below
        load_model(content)  # type: ignore[arg-type]
    assert words in str(caught.value)


def test_all_faults_come_at_once() -> None:
    with pytest.raises(ValueError, match=r"e_tok_j: missing.*pue: missing.*e0_j: expected a number"):
        load_model({"name": "m", "source": "s", "gpu": "g", "e0_j": -1, "prefill_j_per_token": 0})
