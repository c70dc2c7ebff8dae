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
    # ML.ENERGY Leaderboard v3.0, Llama 3.1 Instruct on H100, lm-arena-chat: active requests, J per output token, GPU W
    [
        ("h100_dense_8b", 15.95, 0.26274, 513.3),
        ("h100_dense_8b", 127.62, 0.09511, 669.2),
        ("h100_dense_8b", 510.87, 0.07019, 688.3),
        ("h100_dense_70b", 63.79, 50.86 / 63.79, 2001.5),
        ("h100_dense_70b", 510.51, 214.93 / 510.51, 2492.9),
    ],
)
def test_bundled_models_reproduce_published_measurements(
    name: str, active: float, joules_per_token: float, watts: float
) -> None:
    model = load_model((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))
    step_j = model.e0_j + model.e_tok_j * active
    assert step_j / active == pytest.approx(joules_per_token, rel=0.05)
    step_s = (model.step_base_ms + model.step_per_request_ms * active) / 1000
    assert step_j / step_s == pytest.approx(watts, rel=0.08)


def test_text_and_mapping_give_the_same_model_and_the_same_hash() -> None:
    text = "pue: 1\n" + "".join(f"{key}: {value}\n" for key, value in SMALL.items() if key != "pue") + "# a comment\n"
    assert load_model(text) == load_model(SMALL)
    assert load_model(text).sha256 == load_model(SMALL).sha256 == EnergyModel(**{**SMALL, "pue": 1}).sha256  # type: ignore[arg-type]
    assert load_model({**SMALL, "e0_j": 2.1}).sha256 != load_model(SMALL).sha256


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
