"""``readout attribute``: the file of shares and what is told of it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import polars as pl
import pytest

from readout.energy import rows as energy_rows

from .logged import ATTRIBUTION, COLUMNS, MODEL, STATIC, logged, shares

ONLY = {"design": None, "metrics": None}
CARBON = {"attribution": {"columns": COLUMNS, "carbon": {"g_per_kwh": 380}}}


def with_ids(world, **options: Any) -> pl.DataFrame:
    return logged(world, **options).with_columns(request=pl.concat_str(pl.lit("r-"), pl.int_range(pl.len())))


def attribute(world, frame: pl.DataFrame | None, changes: dict[str, Any], *arguments: object) -> Any:
    world.write(frame, changes)
    return world.command("attribute", world.folder / "spec.yaml", "--out", world.out, "--quiet", *arguments)


def written(world) -> pl.DataFrame:
    return pl.read_parquet(world.out / "probe" / "attribution" / "shares.parquet")


def test_one_row_a_request_in_the_order_of_the_log(world):
    frame = with_ids(world)
    outcome = attribute(world, frame, CARBON)
    assert (outcome.code, outcome.err) == (0, "")
    found = written(world)
    wh, naive = shares(frame)
    assert found["row"].to_list() == list(range(len(frame)))
    assert found["request_id"].to_list() == frame["request"].to_list()
    assert found["batch_id"].to_list() == frame["batch"].to_list()
    assert found["arm"].to_list() == frame["arm"].to_list()
    np.testing.assert_allclose(found["this_request_share_wh"], wh, rtol=1e-12)
    np.testing.assert_allclose(found["energy_wh"], wh, rtol=1e-12)
    np.testing.assert_allclose(found["carbon_g"], wh / 1000 * 380, rtol=1e-12)
    for rule, values in naive.items():
        np.testing.assert_allclose(found[f"{rule}_wh"], values, rtol=1e-12)
    np.testing.assert_allclose(found["components"].struct.unnest().to_numpy().sum(axis=1), wh, rtol=1e-12)
    whole = found.group_by("batch_id").agg(pl.col("this_request_share_wh").sum(), pl.col("batch_total_wh").first())
    np.testing.assert_allclose(whole["this_request_share_wh"], whole["batch_total_wh"], rtol=1e-12)
    assert found["attribution_method"].unique().to_list() == ["shapley_exact"]
    assert found["shapley_sample_count"].null_count() == len(frame)
    assert found["shapley_std_error_wh"].unique().to_list() == [0.0]
    assert found["tier"].unique().to_list() == [2]
    assert found["batch_size"].unique().to_list() == [5]
    assert found["pue"].unique().to_list() == [MODEL["pue"]]
    assert found["lineage_url"][7] == "receipts/r-7.jsonld"


def test_leave_one_out_and_mean_active_requests_by_hand(world):
    """Two requests of one batch, in steps [0, 10) and [0, 30)."""
    frame = world.log(units=2, rows=1).with_columns(
        batch=1, prompt=0, tokens=pl.Series([10, 30]), first=0, last=pl.Series([10, 30])
    )
    attribute(world, frame, ATTRIBUTION)
    found = written(world)
    assert found["mean_active_requests"].to_list() == [2.0, pytest.approx((10 * 2 + 20) / 30)]
    step = MODEL["e0_j"] + MODEL["host_w"] * MODEL["step_base_ms"] / 1000
    token = MODEL["e_tok_j"] + MODEL["host_w"] * MODEL["step_per_request_ms"] / 1000
    to_wh = MODEL["pue"] / 3600
    saved = np.array([10 * token, 30 * token + 20 * step]) * to_wh
    np.testing.assert_allclose(found["leave_one_out_wh"], saved, rtol=1e-12)


def test_logs_and_attribution_are_all_that_a_spec_needs(world):
    outcome = attribute(world, with_ids(world), {**ATTRIBUTION, **ONLY}, "--format", "json")
    assert outcome.code == 0, outcome.err
    assert (outcome.json["schema"], outcome.json["requests"], outcome.json["batches"]) == (
        "readout-attribution/1", 240, 48,
    )  # fmt: skip
    assert outcome.json["efficiency_error"] <= 1e-9
    by = {group["grouping"] for group in outcome.json["groups"]}
    assert by >= {"all", "arm", "prompt tokens", "concurrency"}


def test_the_same_bytes_in_one_part_and_twice_and_in_many_parts(world, monkeypatch):
    frame = with_ids(world)
    attribute(world, frame, CARBON)
    path = world.out / "probe" / "attribution" / "shares.parquet"
    first, whole = path.read_bytes(), written(world)
    attribute(world, None, CARBON)
    assert path.read_bytes() == first
    monkeypatch.setattr(energy_rows, "CHUNK", 50)
    before = set(world.folder.iterdir())
    outcome = attribute(world, None, CARBON, "--format", "json")
    assert set(world.folder.iterdir()) == before
    parts = written(world)
    assert parts.drop("components").equals(whole.drop("components"))
    assert outcome.json["total_wh"] == pytest.approx(whole["energy_wh"].sum(), rel=1e-9)
    again = path.read_bytes()
    attribute(world, None, CARBON)
    assert path.read_bytes() == again
    assert [p.name for p in path.parent.iterdir()] == ["shares.parquet"]


def test_rows_without_a_share_keep_their_row(world):
    frame = with_ids(world).with_columns(batch=pl.when(pl.int_range(pl.len()) % 12 > 0).then("batch"))
    outcome = attribute(world, frame, CARBON)
    found = written(world)
    assert len(found) == len(frame)
    empty = found.filter(pl.col("row") % 12 == 0)
    for column in ("this_request_share_wh", "energy_wh", "carbon_g", "components", "tier", "attribution_method"):
        assert empty[column].null_count() == len(empty) == 20
    assert "requests without a share of energy (no batch): 20" in outcome.out


def test_a_log_of_which_nothing_can_be_attributed_is_refused(world):
    outcome = attribute(world, with_ids(world).with_columns(batch=pl.lit(None, dtype=pl.Int64)), ATTRIBUTION)
    assert (outcome.code, outcome.out, world.out.exists()) == (3, "", False)
    assert "none of 240 rows can be attributed: 240 no batch" in outcome.err


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({}, 2, "the spec has no section attribution"),
        ({"attribution": {"columns": {"batch": "batch"}}}, 2, "attribution.columns.prompt_tokens: needed"),
        (
            {"attribution": {"columns": {**STATIC, "prefix": "batch"}}},
            2,
            "prefix and prefix_tokens go together: name both, or neither",
        ),
        (
            {"attribution": {"columns": COLUMNS, "carbon": {"column": "arm"}}},
            3,
            "carbon.column: column 'arm' is String",
        ),
        ({"attribution": {"columns": COLUMNS, "carbon": {"column": "grid"}}}, 3, "the log has no column 'grid'"),
        (
            {"attribution": {"columns": COLUMNS, "cold_start": {"column": "batch", "by": "pod"}}},
            3,
            "attribution.cold_start.by: the log has no column 'pod'",
        ),
        ({"attribution": {"columns": COLUMNS, "samples": 5, "method": "sampled"}}, 2, "samples: expected at least 40"),
    ],
)
def test_what_is_wrong_is_told_where_it_stands(world, changes, code, said):
    outcome = attribute(world, with_ids(world), {**ONLY, **changes})
    assert (outcome.code, outcome.out, world.out.exists()) == (code, "", False)
    assert said in outcome.err


def test_a_log_with_a_column_of_the_attributions_own_name_is_refused(world):
    outcome = attribute(world, with_ids(world).with_columns(energy_wh=1.0), ATTRIBUTION)
    assert outcome.code == 3
    assert "the log has a column 'energy_wh', which is the name of what the attribution gives" in outcome.err


def test_an_hourly_intensity_prices_each_row_and_an_impossible_one_prices_none(world):
    hours = pl.when(pl.int_range(pl.len()) % 5 == 0).then(None).otherwise(100.0 + pl.int_range(pl.len()))
    frame = with_ids(world).with_columns(grid=hours)
    frame = frame.with_columns(grid=pl.when(pl.int_range(pl.len()) % 60 == 1).then(-3.0).otherwise("grid"))
    changes = {"attribution": {"columns": COLUMNS, "carbon": {"column": "grid", "embodied_g_per_request": 0.25}}}
    outcome = attribute(world, frame, changes, "--format", "json")
    found = written(world)
    possible = frame["grid"].to_numpy()
    possible = np.where(possible >= 0, possible, np.nan)
    wh = shares(frame)[0]
    np.testing.assert_allclose(found["carbon_g"].to_numpy(), wh / 1000 * possible, rtol=1e-12)
    assert found["grid_g_per_kwh"].null_count() == 48 + 4
    notes = outcome.json["notes"]
    assert "requests without a grid intensity, and so without carbon: 48" in notes
    assert "requests whose grid intensity is negative or infinite, and so without carbon: 4" in notes
    sci = outcome.json["sci"]
    priced = ~np.isnan(possible)
    assert sci["r_requests"] == priced.sum() == 188
    assert sci["e_kwh"] == pytest.approx(wh[priced].sum() / 1000)
    assert sci["m_g"] == pytest.approx(0.25 * 188)
    assert sci["sci_g_per_request"] == pytest.approx((sci["e_kwh"] * sci["i_g_per_kwh"] + sci["m_g"]) / 188)


def test_measured_energy_far_from_the_model_is_flagged(world):
    frame = with_ids(world)
    batch = frame.with_columns(wh=pl.Series(shares(frame)[0])).select(pl.col("wh").sum().over("batch"))["wh"]
    measured = {"attribution": {"columns": {**COLUMNS, "measured_wh": "meter"}}}
    usual = attribute(world, frame.with_columns(meter=1.1 * batch), measured)
    assert "Tier 3: the energy of 48 of 48 batches was measured, at 1.10 times the modelled" in usual.out
    assert "Note" not in usual.out
    assert written(world)["tier"].unique().to_list() == [3]
    assert written(world)["calibration_factor"].to_list() == pytest.approx([1.1] * 240)
    far = attribute(world, frame.with_columns(meter=3 * batch), measured)
    assert "measured energy is 3 times the modelled in the middle batch" in " ".join(far.out.split())
    assert "batches measured below half or above twice the modelled energy: 48" in far.out


def test_energy_below_idle_power_cannot_be(world):
    frame = with_ids(world)
    batch = frame.with_columns(wh=pl.Series(shares(frame)[0])).select(pl.col("wh").sum().over("batch"))["wh"]
    low = pl.when(pl.col("batch") < 3).then(0.02).otherwise(1.0) * pl.Series("batch_wh", batch)
    measured = {"attribution": {"columns": {**COLUMNS, "measured_wh": "meter"}}}
    outcome = attribute(world, frame.with_columns(meter=low), measured, "--format", "json")
    assert {k: outcome.json["measured"][k] for k in ("used", "missing", "invalid", "below_idle")} == {
        "used": 45, "missing": 0, "invalid": 3, "below_idle": 3,
    }  # fmt: skip
    assert any(n.endswith("idle GPUs draw for as long as the model's step times say: 3") for n in outcome.json["notes"])
    np.testing.assert_allclose(written(world)["this_request_share_wh"], shares(frame)[0], rtol=1e-9)


def test_idle_energy_inside_a_batch_is_told_and_in_no_share(world):
    """Two requests with 20 steps between them in which nobody is active."""
    frame = world.log(units=2, rows=1).with_columns(
        batch=1, prompt=0, tokens=10, first=pl.Series([0, 30]), last=pl.Series([10, 40])
    )
    outcome = attribute(world, frame, ATTRIBUTION, "--format", "json")
    idle = MODEL["idle_w"] * 20 * MODEL["step_base_ms"] / 1000 / 3600 * MODEL["pue"]
    assert outcome.json["idle"]["inside_batches_wh"] == pytest.approx(idle)
    assert outcome.json["total_wh"] == pytest.approx(shares(frame)[0].sum())


def test_bias_of_rules_by_segment_against_plain_sums(world):
    frame = with_ids(world)
    changes = {**CARBON, "segments": ["user", "failed", {"name": "long", "where": "prompt >= 500"}, "absent"]}
    outcome = attribute(world, frame, changes, "--format", "json")
    groups = {(g["grouping"], g["level"]): g for g in outcome.json["groups"]}
    wh, naive = shares(frame)
    for level, mine in {"yes": frame["prompt"] >= 500, "no": frame["prompt"] < 500}.items():
        rows = mine.to_numpy()
        group = groups["long", level]
        assert group["requests"] == rows.sum()
        for rule, values in naive.items():
            assert group["rules"][rule]["bias"] == pytest.approx(values[rows].sum() / wh[rows].sum() - 1, abs=1e-8)
            off = np.abs(values - wh)[rows].sum() / wh[rows].sum()
            assert group["rules"][rule]["mean_absolute"] == pytest.approx(off, rel=1e-8)
    assert {level for by, level in groups if by == "failed"} == {"true", "false"}
    assert not any(by == "user" for by, _ in groups)
    assert "user has more than 30 levels and is no grouping" in outcome.json["notes"]
    assert any(n.startswith("segment absent is left out: ") for n in outcome.json["notes"])


def test_words_say_whom_a_rule_overcharges(world):
    """Prompts cost next to nothing here, so that sharing by tokens charges long ones for the steps of all."""
    rng = np.random.default_rng(3)
    frame = with_ids(world, units=120).with_columns(
        prompt=pl.Series(np.where(rng.random(480) < 0.5, 50, 3000)), tokens=100, last=pl.col("first") + 100
    )
    out = " ".join(attribute(world, frame, ATTRIBUTION).out.split())
    assert "Per-token undercharges short prompts in" in out or "Per-token overcharges long prompts in" in out
    assert "Concurrency-tolerant requests are those that ran among at least" in out


def test_every_format(world):
    frame = with_ids(world)
    markdown = attribute(world, frame, CARBON, "--format", "markdown").out
    assert markdown.startswith("# Energy of probe\n")
    assert "| `arm` | `new` | 120 |" in markdown
    assert "::notice title=Energy of probe::240 requests" in attribute(world, None, CARBON, "--format", "github").out
    text = attribute(world, None, CARBON).out
    assert max(map(len, text.splitlines())) <= 100
    assert "SCI, location-based" in text


def test_a_folder_that_cannot_be_written_is_told(world):
    world.out.mkdir()
    (world.out / "probe").write_text("in the way")
    outcome = attribute(world, with_ids(world), ATTRIBUTION)
    assert outcome.code == 2
    assert "cannot be written" in outcome.err
    assert [p.name for p in world.out.iterdir()] == ["probe"]


def test_hostile_names_are_shown_and_stay_in_the_folder(world):
    odd = ["../../etc/x", ".", "..", "a/b", "\x1b[31m", "ä" * 300, "CON", "=2F", ""]
    frame = with_ids(world).with_columns(
        request=pl.Series(odd + [f"r{i}" for i in range(240 - len(odd))]),
        arm=pl.Series(["\x1b[31mred", "::error::x"] * 120),
    )
    outcome = attribute(world, frame, ATTRIBUTION)
    assert "\x1b" not in outcome.out
    assert "::error" not in outcome.out
    urls = written(world)["lineage_url"].to_list()
    assert len(set(urls)) == 240
    assert all(url.startswith("receipts/") and url.count("/") == 1 and len(url) < 200 for url in urls)
    assert not any(name in urls for name in ("receipts/..jsonld", "receipts/...jsonld"))


GAME = '''
import numpy as np


def square(batch, coalitions):
    """Joules: the square of the output tokens present, so that a request's share is w_i * W."""
    assert set(batch) >= {"prompt_tokens", "output_tokens", "start_step", "end_step", "weight"}
    return (coalitions @ batch["weight"]) ** 2


def negative(batch, coalitions):
    return np.full(len(coalitions), np.nan)


def broken(batch, coalitions):
    return batch["nothing"]
'''


def test_a_game_of_ones_own_is_sampled_with_a_standard_error(world):
    (world.folder / "mine.py").write_text(GAME)
    rng = np.random.default_rng(5)
    n = 60
    frame = with_ids(world)[:n].with_columns(
        batch=pl.int_range(pl.len()) // 20, weight=pl.Series(rng.gamma(1.0, 5.0, n))
    )
    game = f"{world.folder / 'mine.py'}:square"
    changes = {"attribution": {"columns": COLUMNS, "tolerance": 0.005}}
    outcome = attribute(world, frame, changes, "--game", game, "--format", "json")
    assert outcome.code == 0, outcome.err
    found = written(world)
    weight = frame["weight"].to_numpy()
    truth = weight * frame.select(pl.col("weight").sum().over("batch"))["weight"].to_numpy() / 3600
    error = found["shapley_std_error_wh"].to_numpy()
    assert (np.abs(found["this_request_share_wh"].to_numpy() - truth) <= 5 * error + 1e-12).all()
    drawn = found["shapley_sample_count"].to_list()
    assert found["attribution_method"].to_list() == [f"shapley_truncated_K{k}" for k in drawn]
    assert outcome.json["method"] == f"shapley_truncated_K{max(drawn)}"
    assert found["components"].struct.field("game").to_list() == found["this_request_share_wh"].to_list()
    assert written(world).equals(found)
    receipt = world.command("receipt", world.folder / "spec.yaml", "r-7", "--game", game).json
    assert receipt["this_request_share_wh"] == pytest.approx(found["this_request_share_wh"][7], rel=1e-8)
    assert receipt["shapley_sample_count"] == drawn[7]


@pytest.mark.parametrize(
    ("game", "said"),
    [
        ("square", "expected module:function"),
        ("nowhere_at_all:f", "there is no module 'nowhere_at_all'"),
        ("nowhere.py:f", "there is no file 'nowhere.py'"),
        ("attribution.games.rescheduled:f", "has no function 'f'"),
        ("FOLDER/mine.py:negative", "the game cannot be asked: ValueError: batch 0"),
        ("FOLDER/mine.py:broken", "the game cannot be asked: KeyError"),
    ],
)
def test_a_game_that_cannot_be_asked_is_told(world, game, said):
    (world.folder / "mine.py").write_text(GAME)
    outcome = attribute(world, with_ids(world), ATTRIBUTION, "--game", game.replace("FOLDER", str(world.folder)))
    assert (outcome.code, outcome.out, world.out.exists()) == (2, "", False)
    assert said in outcome.err


def test_the_models_own_game_sampled_agrees_with_its_exact_shares(world):
    frame = with_ids(world)[:64].with_columns(batch=pl.int_range(pl.len()) // 16)
    sampled = {"attribution": {"columns": COLUMNS, "method": "sampled"}}
    assert attribute(world, frame, sampled).code == 0
    found = written(world)
    error = found["shapley_std_error_wh"].to_numpy()
    assert (np.abs(found["energy_wh"].to_numpy() - shares(frame)[0]) <= 5 * error + 1e-9).all()
    document = json.loads(attribute(world, None, sampled, "--format", "json").out)
    assert document["method"].startswith("shapley_truncated_K")
    assert document["idle"]["inside_batches_wh"] is None


@pytest.mark.parametrize(("scale", "flagged"), [(1, False), (20, True)])
def test_stays_that_count_no_decode_steps_are_flagged(world, scale, flagged):
    frame = with_ids(world).with_columns(pl.col("first", "last") * scale)
    outcome = attribute(world, frame, ATTRIBUTION, "--format", "json")
    told = [note for note in outcome.json["notes"] if "decode steps for each token" in note]
    assert bool(told) is flagged
    assert not flagged or told[0].startswith("requests stay 20 decode steps for each token")


def test_model_loads_need_a_time_to_be_ordered_by(world):
    frame = with_ids(world).with_columns(load=1.0, at=pl.lit("2026-10-05 12:00"))
    changes = {
        "attribution": {"columns": COLUMNS, "cold_start": {"column": "load"}},
        "logs.columns.time": "at",
    }
    outcome = attribute(world, frame, changes)
    assert outcome.code == 3
    assert "logs.columns.time: column 'at' is String; expected a timestamp" in outcome.err


def test_what_a_game_says_is_told_as_the_games(world):
    game = world.folder / "mine.py"
    game.write_text("def tokens(batch, coalitions):\n    return coalitions @ batch['prompt_tokens']\n")
    named = f"{game}:tokens"
    outcome = attribute(world, with_ids(world), {**ATTRIBUTION, **ONLY}, "--game", named, "--format", "markdown")
    assert outcome.code == 0, outcome.err
    assert "facility, as the game says" in outcome.out
    assert "under the energy model" not in outcome.out
    assert written(world)["game"].unique().to_list() == [named]
    receipt = world.command("receipt", world.folder / "spec.yaml", "r-3", "--game", named)
    assert json.loads(receipt.out)["game"] == named


def test_a_game_of_negative_energy_is_refused(world):
    game = world.folder / "mine.py"
    game.write_text("def owed(batch, coalitions):\n    return -1.0 * coalitions.sum(axis=1)\n")
    outcome = attribute(world, with_ids(world), {**ATTRIBUTION, **ONLY}, "--game", f"{game}:owed")
    assert outcome.code == 2
    assert "energy cannot be negative" in outcome.err
