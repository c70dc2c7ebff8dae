"""Worlds as a user gets them: files, truth, errors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from readout.errors import SpecError
from readout.simulate import WORLD_NAMES, simulate
from readout.simulate.arrivals import synthetic_trace
from readout.simulate.samples import REQUESTS, SEEDS
from readout.simulate.study import Runs, runs
from readout.simulate.worlds import WORLDS
from readout.spec import load

SAMPLES = Path(__file__).resolve().parents[2] / "sample_logs"
COLUMNS = [
    "decision_ts", "request_id", "workspace_id", "region", "session_id", "arm", "assigned_at", "eligible",
    "intended_action", "executed_action", "fallback_reason", "timed_out", "retry_count", "propensity", "queue_depth",
    "kv_tokens_in_flight", "cache_warm", "tier", "prompt_tokens", "model", "output_tokens", "ttft_ms", "latency_ms",
    "error", "success", "completed", "queue_depth_after", "cost_usd", "gpu_seconds", "batch_id", "start_step",
    "end_step", "batch_wh",
]  # fmt: skip
LIVE = ["queue_depth", "active_requests", "cache_warm", "queue_depth_after"]
ROUTED = [
    "decision_ts", "request_id", "workspace_id", "region", "session_id", "intended_action", "executed_action",
    "timed_out", "queue_depth", "active_requests", "cache_warm", "tier", "prompt_tokens", "model", "output_tokens",
    "ttft_ms", "latency_ms", "error", "success", "completed", "queue_depth_after", "cost_usd",
]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All worlds, small."""
    out = tmp_path_factory.mktemp("worlds")
    for world in WORLD_NAMES:
        simulate(world, out / world, seed=3, requests=9_000, days=14)
    return out


def _log(made: Path, world: str) -> pl.DataFrame:
    return pl.read_parquet(made / world / "logs.parquet")


def _truth(made: Path, world: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((made / world / "truth.json").read_text())
    return found


@pytest.mark.parametrize("world", WORLD_NAMES)
def test_the_log_has_the_promised_columns_and_a_spec_that_loads(made: Path, world: str) -> None:
    log = _log(made, world)
    own = ROUTED if WORLDS[world].mechanism == "routed" else COLUMNS
    own = [name for name in own if name not in LIVE] if world == "routed_users_unlogged" else own
    own = [*ROUTED[:7], "propensity", *ROUTED[7:]] if world == "router_explored" else own
    assert log.columns == own + (["premium_from", "day"] if world == "router_rollout" else [])
    assert log["decision_ts"].dtype == pl.Datetime("us", "UTC")
    assert log["decision_ts"].is_sorted()
    assert log["request_id"].n_unique() == log.height == _truth(made, world)["rows"]
    assert abs(log.height - 9_000) < 900
    spec = load(made / world / "spec.yaml")
    roles = (spec.logs.columns.time, spec.logs.columns.cluster, spec.logs.columns.executed)
    inputs = {"tier"} if world == "routed_users_unlogged" else set(spec.design.policy_inputs)
    assert set(roles) | inputs <= set(log.columns)


@pytest.mark.parametrize("world", SEEDS)
def test_the_bundled_sample_is_what_its_command_makes(tmp_path: Path, world: str) -> None:
    simulate(world, tmp_path, seed=SEEDS[world], requests=REQUESTS, name=world)
    assert_frame_equal(pl.read_parquet(tmp_path / f"{world}.parquet"), pl.read_parquet(SAMPLES / f"{world}.parquet"))
    assert (tmp_path / f"{world}.yaml").read_text() == (SAMPLES / f"{world}.yaml").read_text()
    made, kept = (json.loads((folder / f"{world}.json").read_text()) for folder in (tmp_path, SAMPLES))
    assert made["command"] == kept["command"]
    effect = "global_effect" if "global_effect" in kept else "effect"
    for metric, values in kept[effect].items():
        assert made[effect][metric] == pytest.approx(values, rel=1e-7, abs=1e-12)


def test_the_samples_stay_small() -> None:
    assert sum(path.stat().st_size for path in SAMPLES.iterdir()) <= 3_000_000


def test_the_same_seed_gives_the_same_files_and_another_seed_others(made: Path, tmp_path: Path) -> None:
    simulate("router_rct", tmp_path / "same", seed=3, requests=9_000, days=14)
    simulate("router_rct", tmp_path / "other", seed=4, requests=9_000, days=14)
    for name in ("logs.parquet", "truth.json", "spec.yaml"):
        assert (tmp_path / "same" / name).read_bytes() == (made / "router_rct" / name).read_bytes()
    assert (tmp_path / "other" / "logs.parquet").read_bytes() != (made / "router_rct" / "logs.parquet").read_bytes()


def test_worlds_of_one_seed_differ_only_in_who_was_assigned_what(made: Path) -> None:
    switchback, rct = _truth(made, "router_switchback"), _truth(made, "router_rct")
    assert switchback["global_effect"] == rct["global_effect"]
    given = ["decision_ts", "workspace_id", "region", "tier", "prompt_tokens"]
    assert_frame_equal(_log(made, "router_switchback").select(given), _log(made, "router_rct").select(given))


def test_the_switchback_holds_one_arm_in_a_region_and_block(made: Path) -> None:
    log = _log(made, "router_switchback").with_columns(block=pl.col("decision_ts").dt.truncate("2h"))
    assert log.group_by("region", "block").agg(pl.col("arm").n_unique())["arm"].max() == 1
    assert (log["assigned_at"] == log["block"]).all()
    assert 0.4 < (log["arm"] == "premium").mean() < 0.6  # type: ignore[operator]


def test_the_rct_keeps_a_workspace_in_its_arm_and_mixes_arms_in_batches(made: Path) -> None:
    log = _log(made, "router_rct")
    assert log.group_by("workspace_id").agg(pl.col("arm").n_unique())["arm"].max() == 1
    mixed = log.drop_nulls("batch_id").group_by("batch_id").agg(pl.col("arm").n_unique() > 1)["arm"]
    assert mixed.mean() > 0.5  # type: ignore[operator]


def test_the_rollout_treats_a_region_from_its_day_on(made: Path) -> None:
    log = _log(made, "router_rollout")
    expected = (pl.col("day") >= pl.col("premium_from")).fill_null(False)
    assert log.select((expected == (pl.col("arm") == "premium")).all()).item()
    first = log.select("region", "premium_from").unique()["premium_from"]
    assert (first.len(), first.null_count(), first.drop_nulls().n_unique()) == (8, 4, 4)


@pytest.mark.parametrize("world", ["router_switchback", "router_rct"])
def test_propensity_is_that_of_the_logged_intended_action(made: Path, world: str) -> None:
    log = _log(made, world)
    assert set(log["propensity"].unique()) == {0.5, 1.0}
    assert (log.filter(pl.col("intended_action") == "premium")["propensity"] == 0.5).all()
    kv = json.loads((made / world / "truth.json").read_text())["parameters"]
    routable = (
        pl.col("eligible")
        & pl.col("tier").is_in(["pro", "enterprise"])
        & (pl.col("prompt_tokens") <= kv["max_prompt"])
        & (pl.col("kv_tokens_in_flight") < kv["max_region_kv"])
    )
    assert log.select((routable == (pl.col("propensity") == 0.5)).all()).item()


def test_divergence_is_small_explained_and_always_towards_the_standard_fleet(made: Path) -> None:
    log = _log(made, "router_switchback")
    diverged = log.filter(pl.col("intended_action") != pl.col("executed_action"))
    treated = log.filter(pl.col("intended_action") == "premium")
    assert 0.002 < diverged.height / treated.height < 0.05
    assert set(diverged["fallback_reason"]) == {"premium_full"}
    assert set(diverged["executed_action"]) == {"current"}
    assert log.filter(pl.col("fallback_reason").is_not_null()).height == diverged.height


def test_batches_are_bounded_and_carry_one_energy(made: Path) -> None:
    for world in (name for name in WORLD_NAMES if "batch_id" in _log(made, name).columns):
        batches = _log(made, world).drop_nulls("batch_id").group_by("batch_id").agg(
            pl.len(), pl.col("batch_wh", "region").n_unique(), start=pl.col("start_step").min()
        )  # fmt: skip
        assert batches.filter(pl.col("len") > 200).is_empty()
        assert batches["start"].to_list() == [0] * batches.height
        assert batches["batch_wh"].max() == batches["region"].max() == 1
    log = _log(made, "router_rct")
    served = log.filter(pl.col("batch_id").is_not_null())
    assert (served["end_step"] - served["start_step"] == served["output_tokens"]).all()
    assert (log.filter(pl.col("batch_id").is_null())["output_tokens"] == 0).all()


def test_measured_energy_follows_the_energy_model(made: Path) -> None:
    from attribution.batches import Batches
    from attribution.model import load_model
    from attribution.shapley import attribute
    from readout.bundled import bundled

    log = _log(made, "router_rct").drop_nulls("batch_id")
    columns = ("batch_id", "prompt_tokens", "output_tokens", "start_step", "end_step", "batch_wh")
    model = load_model((bundled("configs") / "energy" / "h100_dense_70b.yaml").read_text())
    measured = attribute(Batches(*(log[name].to_numpy() for name in columns)), model).measured
    assert measured is not None
    assert measured.factor_median == pytest.approx(1.0, abs=0.005)
    assert measured.factor_low is not None
    assert measured.factor_low > 0.9


def test_queues_drain_long_before_the_washout_ends(made: Path) -> None:
    log = _log(made, "router_switchback").with_columns(
        lull=pl.col("decision_ts").diff().over("region").dt.total_seconds()
    )
    rested = log.filter(pl.col("lull") > 600)
    assert rested.height > 300
    assert rested["queue_depth"].max() == 0
    assert rested["kv_tokens_in_flight"].max() == 0


def test_demand_has_days_nights_and_weekends(made: Path) -> None:
    log = _log(made, "router_switchback").filter(pl.col("region") == "eu-west")
    by_hour = log.group_by(pl.col("decision_ts").dt.hour()).len().sort("decision_ts")["len"].to_numpy()
    assert by_hour[12:17].sum() > 2.0 * by_hour[0:5].sum()
    weekend = log.filter(pl.col("decision_ts").dt.weekday() >= 6).height / 4
    assert weekend < 0.8 * (log.height - 4 * weekend) / 10


@pytest.fixture(scope="module")
def twins() -> tuple[Runs, Runs]:
    trace = synthetic_trace(np.random.default_rng([2, 0]))
    names = ("router_switchback", "router_rct")
    first, second = (runs(WORLDS[name], trace, days=14, requests=24_000, seed=2) for name in names)
    return first, second


def test_the_new_policy_shortens_the_wait_of_all_by_a_tenth_or_two(twins: tuple[Runs, Runs]) -> None:
    outcomes = twins[0].outcomes
    effect = outcomes["premium"].ttft_s.mean() / outcomes["current"].ttft_s.mean() - 1
    assert -0.22 < effect < -0.15


def test_the_naive_rct_misses_half_of_the_global_effect(twins: tuple[Runs, Runs]) -> None:
    done = twins[1]
    current, premium, ttft = (done.outcomes[name].ttft_s for name in ("current", "premium", "experiment"))
    eligible, arm = ~done.workload.reserved, done.assignment.premium
    truth = premium[eligible].mean() - current[eligible].mean()
    assert 0.3 < (ttft[arm & eligible].mean() - ttft[~arm & eligible].mean()) / truth < 0.7


def test_the_switchback_finds_it(twins: tuple[Runs, Runs]) -> None:
    effect, std_error = _block_effect(twins[0])
    done = twins[0].outcomes
    truth = float(done["premium"].ttft_s.mean() - done["current"].ttft_s.mean())
    assert abs(effect - truth) < 2.0 * std_error
    assert effect < -2.5 * std_error


def _block_effect(done: Runs) -> tuple[float, float]:
    """Row-weighted difference of region-block means after a washout of 20 minutes, with its HC1 standard error."""
    load = done.workload
    kept = load.t_s % 7200 >= 1200
    key = load.region[kept] * 1000 + (load.t_s[kept] // 7200).astype(int)
    cell = np.unique(key, return_inverse=True)[1]
    rows = np.bincount(cell).astype(float)
    mean = np.bincount(cell, done.outcomes["experiment"].ttft_s[kept]) / rows
    arm = np.bincount(cell, done.assignment.premium[kept]) / rows
    design = np.stack([np.ones_like(arm), arm], axis=1)
    inverse = np.linalg.inv(design.T @ (design * rows[:, None]))
    beta = inverse @ design.T @ (rows * mean)
    score = design * (rows * (mean - design @ beta))[:, None]
    variance = inverse @ score.T @ score @ inverse * rows.size / (rows.size - 2)
    return float(beta[1]), float(np.sqrt(variance[1, 1]))


@pytest.mark.slow
def test_switchback_intervals_cover_the_truth_over_seeds() -> None:
    covered = 0
    for seed in range(40):
        trace = synthetic_trace(np.random.default_rng([seed, 0]))
        done = runs(WORLDS["router_switchback"], trace, days=14, requests=60_000, seed=seed)
        effect, std_error = _block_effect(done)
        truth = done.outcomes["premium"].ttft_s.mean() - done.outcomes["current"].ttft_s.mean()
        covered += abs(effect - truth) <= 1.97 * std_error
    assert covered >= 36


@pytest.mark.parametrize("azure", [True, False])
def test_a_trace_drives_it_with_its_own_tokens(tmp_path: Path, azure: bool) -> None:
    rng = np.random.default_rng(0)
    seconds, prompt, output = (
        np.sort(rng.uniform(0, 900, 4000)),
        rng.integers(5, 900, 4000) * 2,
        rng.integers(9, 300, 4000),
    )
    names = (
        ("arrival_s", "context_tokens", "generated_tokens")
        if azure
        else ("timestamp_ms", "input_length", "output_length")
    )
    time = seconds if azure else (seconds * 1000).astype(int)
    trace = tmp_path / "trace.parquet"
    pl.DataFrame(dict(zip(names, (time, prompt, output), strict=True))).write_parquet(trace)
    spec = simulate("router_switchback", tmp_path / "out", trace=trace, requests=3_000, days=7)
    log = pl.read_parquet(spec.parent / "logs.parquet")
    assert abs(log.height - 3_000) < 500
    assert log["prompt_tokens"].is_in(prompt.tolist()).all()
    assert json.loads((spec.parent / "truth.json").read_text())["trace"] == "trace.parquet"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"world": "router_switchbak"}, "no such world"),
        ({"days": 0.5}, "between 1 and 366 days"),
        ({"days": float("nan")}, "between 1 and 366 days"),
        ({"requests": 10}, "between 1,000 and"),
        ({"seed": -1}, "0 or more"),
        ({"requests": 5_000_000, "days": 1}, "do not fit into 1 days"),
        ({"trace": Path("nowhere.parquet")}, "no such file"),
    ],
)
def test_what_cannot_be_simulated_is_said_and_nothing_is_written(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    given: dict[str, object] = {"world": "router_rct", "out": tmp_path / "out"} | change
    with pytest.raises(SpecError, match=message):
        simulate(**given)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_a_misspelt_world_is_recognised(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        simulate("router_switchbak", tmp_path)
    assert caught.value.problems[0].hint == "did you mean 'router_switchback'?"


def test_a_folder_that_is_a_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(SpecError, match="cannot be written"):
        simulate("router_rct", tmp_path / "taken", requests=1_000, days=7)


def test_traces_that_are_none_are_told_apart(tmp_path: Path) -> None:
    other, short, broken = tmp_path / "other.parquet", tmp_path / "short.parquet", tmp_path / "broken.parquet"
    pl.DataFrame({"when": [1.0], "tokens": [2]}).write_parquet(other)
    pl.DataFrame({"arrival_s": [1.0], "context_tokens": [2], "generated_tokens": [2]}).write_parquet(short)
    broken.write_bytes(b"PAR1 not really")
    for path, message in ((other, "expected the columns"), (short, "too short to replay"), (broken, "cannot be read")):
        with pytest.raises(SpecError, match=message):
            simulate("router_rct", tmp_path / "out", trace=path)


def test_naming_the_worlds_loads_nothing_heavy() -> None:
    code = "import sys, readout.simulate; print(sorted({'numpy', 'polars', 'scipy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
