"""``readout attribute --fit``: a known model is found again from noisy meters, and what cannot be told is said."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from attribution import Batches, Game, load_model, resolve

from .logged import COLUMNS, MODEL, STATIC, logged

MEASURED = {"columns": {**COLUMNS, "measured_wh": "meter"}}
TRUTH = {"e0_j": 5.0, "e_tok_j": 0.2, "prefill_j_per_token": 0.05, "prefill_j_per_token2": 0.0}


def batches(size: int, seed: int = 0, noise: float = 0.02, n: int = 200) -> pl.DataFrame:
    """Batches whose meters read what a model with ``TRUTH`` says, within ``noise``."""
    rng = np.random.default_rng(seed)
    rows = n * size
    first, tokens = rng.integers(0, 200, rows) if size > 1 else np.zeros(rows, int), rng.integers(1, 300, rows)
    frame = pl.DataFrame(
        {
            "batch": np.repeat(np.arange(n), size), "prompt": rng.integers(1, 4000, rows), "tokens": tokens,
            "first": first, "last": first + tokens,
        }
    )  # fmt: skip
    model = load_model({**MODEL, **TRUTH, "gpus": 1})
    stays = resolve(
        Batches(frame["batch"], frame["prompt"], frame["tokens"], frame["first"].to_numpy(), frame["last"].to_numpy())
    )
    wh = Game.of(model).totals(stays) * model.pue / 3600
    meter = wh * np.exp(rng.normal(0, noise, n))
    return frame.with_columns(meter=pl.Series(np.repeat(meter, size)))


def fit(world, frame: pl.DataFrame, attribution: dict[str, Any] = MEASURED, *arguments: object) -> Any:
    world.write(frame, {"attribution": attribution, "design": None, "metrics": None, "logs.columns": None})
    spec = world.folder / "spec.yaml"
    return world.command("attribute", spec, "--fit", "--out", world.out, "--quiet", *arguments)


def test_a_known_model_is_found_again_within_its_errors(world):
    found = fit(world, batches(8), MEASURED, "--format", "json").json
    told = {p["name"]: p for p in found["parameters"]}
    for name, value in TRUTH.items():
        assert abs(told[name]["value"] - value) <= 4 * told[name]["std_error"], name
        assert (
            told[name]["ci_low"] - told[name]["std_error"] <= value <= told[name]["ci_high"] + told[name]["std_error"]
        )
    held = found["quality"]["held_out"]
    assert 0.010 < held["median_error"] < 0.018  # of a meter's 2 % noise
    assert held["r_squared"] > 0.96
    assert found["quality"]["before"]["median_error"] > 0.2
    assert (found["used"], found["unusable"]) == (200, 0)


def test_its_file_is_an_energy_model(world):
    frame = batches(8)
    printed = fit(world, frame).out
    assert "e0_j" in printed
    assert "Held-out batches: R2 0.9" in printed
    path = world.out / "probe" / "attribution" / "energy_model.yaml"
    mine = {**MEASURED, "energy_model": str(path)}
    world.write(frame, {"attribution": mine, "design": None, "metrics": None, "logs.columns": None})
    outcome = world.command("attribute", world.folder / "spec.yaml", "--out", world.out, "-q", "--format", "json")
    assert outcome.json["energy_model"]["name"] == "probe_fit"
    assert outcome.json["measured"]["factor_median"] == pytest.approx(1.0, abs=0.01)
    text = path.read_text()
    assert fit(world, frame).out == printed
    assert path.read_text() == text


def test_noiseless_meters_give_the_model_itself(world):
    found = fit(world, batches(8, noise=0.0), MEASURED, "--format", "json").json
    for parameter in found["parameters"]:
        assert parameter["value"] == pytest.approx(TRUTH.get(parameter["name"], 0.0), rel=1e-6, abs=1e-9)
    assert found["quality"]["fitted"]["worst_error"] < 1e-9


def test_intervals_cover_the_truth():
    from attribution.fit import Deeds
    from attribution.fit import fit as fitted

    model = load_model({**MODEL, "gpus": 1})
    inside = []
    for seed in range(12):
        frame = batches(6, seed=seed, noise=0.05, n=150)
        column = [frame[name].to_numpy() for name in ("batch", "prompt", "tokens", "first", "last", "meter")]
        stays = resolve(Batches(*column))
        deeds = Deeds.of(stays, model, np.ones(150, dtype=bool))
        found = fitted(deeds, model, Game.of(model).totals(stays), name="f", seed=seed)
        told = {p.name: p for p in found.parameters}
        inside += [told[name].ci_low <= value <= told[name].ci_high for name, value in TRUTH.items()]
    assert np.mean(inside) >= 0.85  # 48 of them at 95 %


def test_what_cannot_be_told_apart_is_kept_and_said(world):
    """Batches of one request: as many steps as output tokens."""
    outcome = fit(world, batches(1), MEASURED, "--format", "json")
    told = {p["name"]: p for p in outcome.json["parameters"]}
    assert told["e0_j"]["value"] == MODEL["e0_j"]
    assert told["e0_j"]["std_error"] is None
    assert (
        told["e0_j"]["kept"] == "decode steps follow from output tokens in every batch, so that it cannot be told apart"
    )
    together = TRUTH["e0_j"] + TRUTH["e_tok_j"] - MODEL["e0_j"]
    assert told["e_tok_j"]["value"] == pytest.approx(together, rel=0.02)
    assert any(s.startswith("e0_j is not fitted and stays 3.16") for s in outcome.json["sentences"])


def test_columns_that_move_together_are_said(world):
    """Outputs of nearly one length, so that steps and tokens rise together with the batch."""
    outcome = fit(world, batches(8), MEASURED)
    words = " ".join(outcome.out.split())
    assert "squared prompt tokens move with prompt tokens over these batches" in words
    assert "what they cost together is known better than either" in words


def test_no_parameter_is_negative_and_a_zero_is_said(world):
    outcome = fit(world, batches(8, seed=1), MEASURED, "--format", "json")
    assert all(p["value"] >= 0 for p in outcome.json["parameters"])
    zero = [p["name"] for p in outcome.json["parameters"] if p["value"] == 0]
    assert zero
    assert all(any(s.startswith(f"{name} is 0, the bound") for s in outcome.json["sentences"]) for name in zero)


def test_a_bad_fit_is_called_one(world):
    frame = batches(8).with_columns(meter=pl.col("meter") * (1 + pl.col("batch") % 4))
    assert "is no good fit" in " ".join(fit(world, frame).out.split())


def test_impossible_meters_are_left_out(world):
    odd = (
        pl.when(pl.col("batch") < 4)
        .then(None)
        .when(pl.col("batch") < 6)
        .then(-1.0)
        .when(pl.col("batch") == 6)
        .then(1e-9)
    )
    frame = batches(8).with_columns(meter=odd.otherwise("meter"))
    found = fit(world, frame, MEASURED, "--format", "json").json
    assert (found["used"], found["unusable"]) == (193, 7)


@pytest.mark.parametrize(
    ("attribution", "code", "said"),
    [
        ({"columns": STATIC}, 2, "attribution.columns.measured_wh: a fit needs the measured energy of batches"),
        (MEASURED, 3, "5 batches with usable measured energy: a fit takes at least 15"),
    ],
)
def test_a_fit_that_cannot_be_made_is_told(world, attribution, code, said):
    outcome = fit(world, batches(8, n=5), attribution)
    assert (outcome.code, outcome.out, world.out.exists()) == (code, "", False)
    assert said in outcome.err


def test_every_format(world):
    frame = batches(8)
    assert fit(world, frame, MEASURED, "--format", "markdown").out.startswith(
        "# Energy model of probe\n\n| Parameter |"
    )
    assert fit(world, frame, MEASURED, "--format", "github").out.startswith(
        "::notice title=Energy model of probe::200 of"
    )
    assert fit(world, logged(world).with_columns(meter=1.0), MEASURED, "--game", "a:b").code == 2
