from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from .logged import ATTRIBUTION, COLUMNS, MODEL, STATIC, logged, shares


def attributed(world, frame: pl.DataFrame, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    found = world.readout(frame, {**ATTRIBUTION, **(changes or {})}).attribution
    assert found is not None
    return dict(found)


@pytest.mark.parametrize("static", [False, True])
def test_energy_by_arm_and_the_naive_rules(world, static):
    frame = logged(world)
    found = attributed(world, frame, {"attribution": {"columns": STATIC}} if static else None)
    wh, naive = shares(frame, static)
    assert found["total_wh"] == pytest.approx(wh.sum(), rel=1e-9)
    assert sum(found["components"].values()) == pytest.approx(wh.sum(), rel=1e-9)
    assert (found["batches"], found["requests"], found["unattributed"]) == (48, 240, 0)
    assert found["efficiency_error_wh"] < 1e-9
    for arm in ("old", "new"):
        mine = (frame["arm"] == arm).to_numpy()
        assert found["per_arm"][arm]["requests"] == mine.sum()
        assert found["per_arm"][arm]["wh"] == pytest.approx(wh[mine].sum(), rel=1e-9)
        assert found["per_arm"][arm]["wh_per_request"] == pytest.approx(wh[mine].mean(), rel=1e-9)
        for rule, values in naive.items():
            assert found["naive"][rule][arm] == pytest.approx(values[mine].mean(), rel=1e-9)


@pytest.mark.parametrize(
    "changes",
    [
        {"logs.where": "keep"},
        {"logs.end": "2026-10-05T20:00Z"},
        {"logs.columns.eligible": "keep"},
    ],
)
def test_a_row_that_is_left_out_leaves_its_batch_mates_energy_alone(world, changes):
    frame = logged(world)
    wh, _ = shares(frame)
    if "logs.end" in changes:
        kept = (frame["at"] < datetime(2026, 10, 5, 20, tzinfo=UTC)).to_numpy()
    else:
        kept = frame["keep"].to_numpy()
    readout = world.readout(frame, {**ATTRIBUTION, **changes})
    found = readout.attribution
    assert found["total_wh"] == pytest.approx(wh.sum(), rel=1e-9)
    assert sum(row["requests"] for row in found["per_arm"].values()) == kept.sum() == readout.rows.kept
    for arm in ("old", "new"):
        mine = kept & (frame["arm"] == arm).to_numpy()
        assert found["per_arm"][arm]["wh"] == pytest.approx(wh[mine].sum(), rel=1e-9)


def test_arms_that_the_design_does_not_name_keep_their_share(world):
    frame = logged(world).with_columns(arm=pl.when(pl.col("user") % 5 == 0).then(pl.lit("beta")).otherwise("arm"))
    wh, _ = shares(frame)
    found = attributed(world, frame)
    mine = (frame["arm"] == "new").to_numpy()
    assert set(found["per_arm"]) == {"old", "new"}
    assert found["per_arm"]["new"]["wh"] == pytest.approx(wh[mine].sum(), rel=1e-9)
    assert found["total_wh"] == pytest.approx(wh.sum(), rel=1e-9)


@pytest.mark.parametrize(
    "ids",
    [
        pl.col("batch").cast(pl.String),
        pl.concat_str(pl.lit("b-"), "batch"),
        pl.col("batch").cast(pl.Float64),
        pl.col("batch").cast(pl.UInt8),
        pl.col("batch").cast(pl.String).cast(pl.Categorical),
        pl.col("batch") * 10**15,
    ],
    ids=["string", "text", "float", "uint8", "categorical", "wide"],
)
def test_batch_ids_of_any_kind(world, ids):
    frame = logged(world)
    assert attributed(world, frame.with_columns(batch=ids)) == attributed(world, frame)


@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_rows_without_a_batch_are_counted_and_told(world, nothing):
    frame = logged(world).with_columns(pl.col("batch").cast(pl.Float64))
    frame = frame.with_columns(batch=pl.when(pl.int_range(pl.len()) % 12 == 0).then(nothing).otherwise("batch"))
    readout = world.readout(frame, ATTRIBUTION)
    assert readout.attribution["unattributed"] == 20
    assert readout.attribution["requests"] == 220
    assert "requests without a share of energy (no batch): 20" in readout.notes


def test_incomplete_batches_are_noted_in_the_memo(world):
    frame = logged(world).with_columns(
        tokens=pl.when(pl.col("batch").is_in([3, 4]) & (pl.col("prompt") == pl.col("prompt").max().over("batch")))
        .then(-1)
        .otherwise("tokens")
    )
    world.write(frame, ATTRIBUTION)
    memo = world.run("--format", "markdown").out
    assert "requests without a share of energy (token count negative or not whole): 2" in memo
    assert "batches that lost such requests, so that the others in them carry the whole: 2" in memo


def test_measured_energy_is_shared_out_and_what_contradicts_itself_is_not_used(world):
    frame = logged(world)
    wh, _ = shares(frame)
    size = frame.with_columns(wh=pl.Series(wh)).select(pl.col("wh").sum().over("batch"))["wh"]
    batch = pl.col("batch")
    measured = (
        pl.when(batch == 0).then(None)
        .when(batch == 1).then(-1.0)
        .when(batch == 2).then(0.0)
        .when((batch == 3) & (pl.col("prompt") == pl.col("prompt").max().over("batch"))).then(9.0)
        .otherwise(2 * pl.Series("size", size))
    )  # fmt: skip
    readout = world.readout(
        frame.with_columns(measured=measured), {"attribution": {"columns": {**COLUMNS, "measured_wh": "measured"}}}
    )
    found = readout.attribution
    assert {k: found["measured"][k] for k in ("used", "missing", "invalid")} == {"used": 44, "missing": 1, "invalid": 3}
    assert found["measured"]["factor_median"] == pytest.approx(2.0)
    assert found["tier"] == 3
    factor = np.where(frame["batch"].to_numpy() < 4, 1.0, 2.0)
    for arm in ("old", "new"):
        mine = (frame["arm"] == arm).to_numpy()
        assert found["per_arm"][arm]["wh"] == pytest.approx((wh * factor)[mine].sum(), rel=1e-9)
    assert "batches without measured energy, for which the modelled stands: 1" in readout.notes
    assert any(note.startswith("batches whose measured energy cannot be") for note in readout.notes)


def test_steps_that_the_energy_model_was_not_measured_for_are_told(world):
    few = {"attribution": {"columns": COLUMNS, "energy_model": "h100_moe_30b_a3b"}}  # measured from 8 requests on
    readout = world.readout(logged(world), few)
    assert readout.attribution["beyond_step_table"] == 1.0
    assert readout.attribution["efficiency_error_wh"] < 1e-9
    assert readout.notes[-1].startswith("decode steps with fewer or more active requests than the energy model was")
    assert readout.notes[-1].endswith("so that their energy is a guess: 100.0%")
    assert attributed(world, logged(world))["beyond_step_table"] is None


def test_no_measurement_at_all_is_tier_2(world):
    frame = logged(world).with_columns(measured=pl.lit(None))
    found = attributed(world, frame, {"attribution": {"columns": {**COLUMNS, "measured_wh": "measured"}}})
    assert (found["tier"], found["measured"]["used"], found["measured"]["missing"]) == (2, 0, 48)
    assert attributed(world, logged(world))["tier"] == 2


def test_energy_per_success_counts_the_rows_that_have_both(world):
    frame = logged(world).with_columns(
        batch=pl.when(pl.int_range(pl.len()) % 3 == 0).then(None).otherwise("batch"),
        success=pl.when(pl.int_range(pl.len()) % 11 == 0).then(None).otherwise("success"),
    )
    success = {"column": "success", "better": "higher"}
    found = attributed(world, frame, {"metrics.success": success})
    inside = frame.filter(pl.col("batch").is_not_null())
    inside = inside.with_columns(wh=pl.Series(shares(inside)[0]))
    for arm in ("old", "new"):
        mine = inside.filter((pl.col("arm") == arm) & pl.col("success").is_not_null())
        expected = mine["wh"].sum() / mine["success"].sum()
        assert found["per_arm"][arm]["wh_per_success"] == pytest.approx(expected, rel=1e-9)
    without = attributed(world, logged(world))
    assert without["per_arm"]["new"]["wh_per_success"] is None


def test_an_arm_without_a_success_has_no_energy_per_success(world):
    frame = logged(world).with_columns(success=pl.col("arm") == "old")
    per_arm = attributed(world, frame, {"metrics.success": {"column": "success", "better": "higher"}})["per_arm"]
    assert per_arm["new"]["wh_per_success"] is None
    assert per_arm["old"]["wh_per_success"] == pytest.approx(per_arm["old"]["wh_per_request"])


def test_carbon_is_energy_times_intensity(world):
    found = attributed(world, logged(world), {"attribution": {"columns": COLUMNS, "carbon": {"g_per_kwh": 380}}})
    for row in found["per_arm"].values():
        assert row["g_co2e"] == pytest.approx(row["wh"] / 1000 * 380)
        assert row["g_per_request"] == pytest.approx(row["wh_per_request"] / 1000 * 380)
    free = attributed(world, logged(world), {"attribution": {"columns": COLUMNS, "carbon": {"g_per_kwh": 0}}})
    assert free["per_arm"]["new"]["g_co2e"] == 0
    assert attributed(world, logged(world))["per_arm"]["new"]["g_co2e"] is None


def refused(world, frame: pl.DataFrame, attribution: dict[str, Any], code: int) -> str:
    world.write(frame, {"attribution": attribution})
    outcome = world.run()
    assert (outcome.code, outcome.out, world.written) == (code, "", []), outcome.err
    return outcome.err


def test_columns_that_are_not_named_or_not_there(world):
    frame = logged(world)
    said = refused(world, frame, {"columns": {"batch": "batch"}}, 2)
    assert "attribution.columns.prompt_tokens: needed" in said
    assert "attribution.columns.output_tokens: needed" in said
    said = refused(world, frame, {"columns": {**STATIC, "batch": "batches", "measured_wh": "wh"}}, 3)
    assert "attribution.columns.batch: the log has no column 'batches'" in said
    assert "did you mean 'batch'?" in said
    assert "attribution.columns.measured_wh: the log has no column 'wh'" in said


@pytest.mark.parametrize("role", ["start", "end"])
def test_start_and_end_go_together(world, role):
    said = refused(world, logged(world), {"columns": {**STATIC, role: COLUMNS[role]}}, 2)
    assert "start and end go together" in said


@pytest.mark.parametrize(
    ("role", "column", "expected"),
    [
        ("batch", pl.struct("batch"), "text or whole numbers"),
        ("batch", pl.concat_list("batch"), "text or whole numbers"),
        ("batch", pl.col("batch").cast(pl.String).cast(pl.Binary), "text or whole numbers"),
        ("output_tokens", pl.lit("many"), "numbers"),
        ("output_tokens", pl.col("at"), "numbers"),
    ],
)
def test_columns_of_a_wrong_type(world, role, column, expected):
    frame = logged(world).with_columns(column.alias("odd"))
    said = refused(world, frame, {"columns": {**COLUMNS, role: "odd"}}, 3)
    assert f"attribution.columns.{role}: column 'odd' is " in said
    assert f"expected {expected}" in said


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("h100", None, "no energy model 'h100' can be read"),
        ("models/mine.yaml", None, "no energy model 'models/mine.yaml' can be read"),
        ("models/mine.yaml", "e0_j: much\n", "e0_j"),
        ("models/mine.yaml", "[", "not valid YAML"),
    ],
)
def test_an_energy_model_that_is_not_there_or_not_one(world, name, text, said):
    if text is not None:
        (world.folder / "models").mkdir()
        (world.folder / "models" / "mine.yaml").write_text(text, encoding="utf-8")
    world.write(logged(world), {"attribution": {"columns": COLUMNS, "energy_model": name}})
    outcome = world.run()
    assert (outcome.code, outcome.out, world.out.exists()) == (2, "", False)
    assert said in outcome.err


def test_an_energy_model_beside_the_spec(world):
    (world.folder / "models").mkdir()
    text = yaml.safe_dump({**MODEL, "gpus": 1, "name": "mine", "pue": MODEL["pue"] * 2})
    (world.folder / "models" / "mine.yaml").write_text(text, encoding="utf-8")
    mine = attributed(world, logged(world), {"attribution": {"columns": COLUMNS, "energy_model": "models/mine.yaml"}})
    usual = attributed(world, logged(world))
    assert mine["energy_model"] == "mine"
    assert mine["total_wh"] == pytest.approx(2 * usual["total_wh"], rel=1e-9)


def test_the_order_of_rows_does_not_matter(world):
    frame = logged(world)
    shuffled = frame.sample(fraction=1.0, shuffle=True, seed=5)
    mine, theirs = attributed(world, frame), attributed(world, shuffled)
    assert mine["total_wh"] == pytest.approx(theirs["total_wh"], rel=1e-12)
    for arm, row in mine["per_arm"].items():
        assert row["wh"] == pytest.approx(theirs["per_arm"][arm]["wh"], rel=1e-12)
