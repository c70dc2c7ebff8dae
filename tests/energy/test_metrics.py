"""Attributed energy and carbon as metrics of an experiment."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from readout.energy import rows as energy_rows

from .logged import ATTRIBUTION, COLUMNS, logged, shares

CARBON = {"attribution": {"columns": COLUMNS, "carbon": {"g_per_kwh": 400}}}
ENERGY = {"column": "energy_wh", "better": "lower"}
GRAMS = {"column": "carbon_g", "better": "lower"}
PER_SUCCESS = {"numerator": "energy_wh", "denominator": "success", "better": "lower"}


def metric(readout, name: str):
    return next(m for m in readout.metrics if m.metric == name)


def test_energy_and_carbon_by_request_and_by_success(world):
    frame = logged(world)
    changes = {**CARBON, "metrics.wh": ENERGY, "metrics.grams": GRAMS, "metrics.wh_per_success": PER_SUCCESS}
    readout = world.readout(frame, changes)
    wh, _ = shares(frame)
    for arm, side in (("old", "control_value"), ("new", "treatment_value")):
        mine = (frame["arm"] == arm).to_numpy()
        assert getattr(metric(readout, "wh"), side) == pytest.approx(wh[mine].mean(), rel=1e-9)
        assert getattr(metric(readout, "grams"), side) == pytest.approx(wh[mine].mean() * 0.4, rel=1e-9)
        per_success = wh[mine].sum() / frame["success"].to_numpy()[mine].sum()
        assert getattr(metric(readout, "wh_per_success"), side) == pytest.approx(per_success, rel=1e-9)
        assert readout.attribution["per_arm"][arm]["wh_per_request"] == pytest.approx(wh[mine].mean(), rel=1e-9)
    assert metric(readout, "wh").std_error > 0


def test_the_effect_is_that_of_a_log_with_the_column(world):
    """All that a metric can be, on energy as on any column: the same numbers as when the log had it."""
    frame = logged(world)
    metrics = {
        "metrics.wh": ENERGY,
        "metrics.wh_q": {**ENERGY, "quantile": 0.9},
        "metrics.wh_unit": {**ENERGY, "per": "unit"},
        "metrics.wh_long": {**ENERGY, "where": "prompt > 400"},
        "metrics.joules": {"expr": "energy_wh * 3600", "better": "lower"},
    }
    mine = world.readout(frame, {**ATTRIBUTION, **metrics, "logs.where": "keep"})
    theirs = world.readout(frame.with_columns(energy_wh=pl.Series(shares(frame)[0])), {**metrics, "logs.where": "keep"})
    for name in ("wh", "wh_unit", "wh_long", "joules", "wh_q"):
        one, other = metric(mine, name), metric(theirs, name)
        assert one.estimate == pytest.approx(other.estimate, rel=1e-8)
        assert one.std_error == pytest.approx(other.std_error, rel=1e-8)


def test_rows_that_are_left_out_keep_their_part_of_the_batch(world):
    frame = logged(world)
    readout = world.readout(frame, {**ATTRIBUTION, "metrics.wh": ENERGY, "logs.where": "keep"})
    mine = (frame["keep"] & (frame["arm"] == "new")).to_numpy()
    assert metric(readout, "wh").treatment_value == pytest.approx(shares(frame)[0][mine].mean(), rel=1e-9)


def test_a_long_log_in_parts_gives_the_same_readout(world, monkeypatch):
    frame = logged(world)
    changes = {**CARBON, "metrics.wh": ENERGY, "metrics.grams": GRAMS}
    whole = world.readout(frame, changes)
    monkeypatch.setattr(energy_rows, "CHUNK", 37)
    parts = world.readout(frame, changes)
    assert parts.metrics == whole.metrics
    assert parts.attribution["per_arm"] == whole.attribution["per_arm"]


def test_the_caveat_and_the_mixed_batches_stand_beside_the_metric(world):
    frame = logged(world)
    readout = world.readout(frame, {**ATTRIBUTION, "metrics.wh": ENERGY})
    note = metric(readout, "wh").note
    assert "an outcome of the state of shared capacity, not of the request alone" in note
    check = next(c for c in readout.checks if c.name == "mixed_batches")
    assert f"(check mixed_batches: {check.message})" in note
    assert "shared capacity" not in metric(readout, "latency").note
    world.write(frame, {**ATTRIBUTION, "metrics.wh": ENERGY})
    assert "outcome of the state of shared capacity" in world.run("--format", "markdown").out


def test_in_blocks_that_no_batch_crosses_the_energy_of_a_policy_is_seen(world):
    """A switchback whose batches stay within a block, in which treatment halves the output."""
    rng = np.random.default_rng(2)
    frame = world.log(units=480, rows=1, effect=1.0).with_columns(block=pl.int_range(pl.len()) // 8)
    arm = np.where(rng.random(60) < 0.5, "old", "new")
    tokens = rng.integers(50, 150, 480) // np.where(arm[np.arange(480) // 8] == "new", 2, 1)
    frame = frame.with_columns(
        arm=pl.Series(arm[np.arange(480) // 8]), tokens=pl.Series(tokens), batch=pl.int_range(pl.len()) // 4,
        prompt=100,
        at=pl.col("at").min() + pl.duration(hours=pl.col("block")) + pl.duration(minutes=pl.int_range(pl.len()) % 8),
        first=0, last=pl.Series(tokens),
    )  # fmt: skip
    design = {
        "kind": "switchback",
        "control": "old",
        "treatment": "new",
        "block": "1h",
        "shared_state": True,
        "assignment": "bernoulli",
    }
    found = metric(world.readout(frame, {**ATTRIBUTION, "design": design, "metrics.wh": ENERGY}), "wh")
    logged_wh = frame.with_columns(energy_wh=pl.Series(shares(frame)[0]))
    expected = metric(world.readout(logged_wh, {"design": design, "metrics.wh": ENERGY}), "wh")
    assert (found.estimate, found.ci_high) == pytest.approx((expected.estimate, expected.ci_high), rel=1e-8)
    assert found.ci_high < 0
    assert "0 of 120 batches mix arms" in found.note


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"metrics.wh": ENERGY}, "an attribution section gives each request its energy_wh"),
        ({**ATTRIBUTION, "metrics.grams": GRAMS}, "attribution.carbon gives each request its carbon_g"),
    ],
)
def test_energy_that_nothing_gives_is_told(world, changes, hint):
    world.write(logged(world), changes)
    outcome = world.run()
    assert outcome.code == 3
    assert "the log has no column" in outcome.err
    assert hint in outcome.err


def test_energy_as_a_covariate_is_a_bad_control(world):
    frame = logged(world)
    world.write(frame, {**ATTRIBUTION, "logs.columns.features": ["energy_wh"], "estimator": "regression_adjusted"})
    outcome = world.run("--format", "json")
    bad = next(c for c in outcome.json["checks"] if c["name"] == "bad_controls")
    assert bad["status"] in ("warn", "fail")
    assert "'energy_wh' is by its name cost or energy" in bad["message"]


def test_energy_pays_and_is_planned_for(world):
    """Economics take it as a cost, and a plan as a metric of past logs."""
    frame = logged(world)
    economics = {"value": {"metric": "success", "usd": 0.001}, "cost": {"column": "energy_wh", "usd": 0.0002}}
    success = {"column": "success", "better": "higher"}
    readout = world.readout(frame, {**ATTRIBUTION, "metrics.success": success, "economics": economics})
    wh, _ = shares(frame)
    net = 0.001 * frame["success"].to_numpy() - 0.0002 * wh
    treated = (frame["arm"] == "new").to_numpy()
    expected = 1000 * (net[treated].mean() - net[~treated].mean())
    assert readout.economics["net_usd_per_1k_requests"]["estimate"] == pytest.approx(expected, rel=1e-8)
    primary = {"latency": {**ENERGY, "role": "primary", "minimum_effect": "5%"}}
    spec = world.write(frame, {**ATTRIBUTION, "metrics": primary})
    planned = world.command("plan", spec, "--out", world.out, "--as-of", "2026-10-20", "-q", "--format", "json")
    assert planned.code == 0, planned.err
    sight = next(d for d in planned.json["designs"] if d["kind"] == "user_rct")["metrics"][0]
    assert sight["past_value"] == pytest.approx(wh.mean(), rel=0.01)


def test_the_same_logs_give_the_same_bytes(world):
    world.write(logged(world), {**CARBON, "metrics.wh": ENERGY})
    first = world.run("--format", "json").out
    assert world.run("--format", "json").out == first


def test_an_arm_measured_beside_one_modelled_asks_for_instruments(world):
    """The model is 1.5 times off; only the treated arm's batches were measured."""
    frame = logged(world).with_columns(batch=pl.concat_str("arm", pl.col("batch").cast(pl.String)))
    total = pl.Series(shares(frame)[0])
    frame = frame.with_columns(total=total).with_columns(pl.col("total").sum().over("batch") * 1.5)
    one_arm = frame.with_columns(total=pl.when(pl.col("arm") == "new").then("total"))
    changes = {"attribution": {"columns": {**COLUMNS, "measured_wh": "total"}}, "metrics.wh": {**ENERGY}}
    guard = {**changes, "metrics.wh": {**ENERGY, "role": "guardrail", "margin": "50%"}}

    def logging(readout):
        return next(c for c in readout.checks if c.name == "required_fields")

    found = world.readout(one_arm, guard)
    assert logging(found).status == "fail"
    assert "100 % of the energy of 'new' was measured and 0 % of that of 'old'" in logging(found).message
    assert "1.50 times the modelled" in logging(found).message
    assert found.decision.action == "instrument"
    assert found.attribution["per_arm"]["new"]["measured_share"] == 1.0
    assert found.attribution["per_arm"]["old"]["measured_share"] == 0.0
    assert logging(world.readout(one_arm, changes)).status == "warn"  # no decision hangs on a secondary metric
    assert "measured" not in logging(world.readout(frame, guard)).message
    no_energy = {key: value for key, value in changes.items() if key != "metrics.wh"}
    assert "measured" not in logging(world.readout(one_arm, no_energy)).message
