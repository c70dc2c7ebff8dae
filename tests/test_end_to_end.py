"""Whole runs: the installed console script in a process of its own, and the same command in-process."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

SCRIPT = Path(sysconfig.get_path("scripts")) / "readout"
ECONOMICS = {
    "economics": {
        "value": {"metric": "good", "usd": 0.01},
        "cost": {"column": "tokens", "usd": 1e-5},
        "bar": {"net_usd_per_1k_requests": -5},
    }
}
FULL = {
    **ECONOMICS,
    "question": "Is it quicker?",
    "logs.columns.features": ["tokens", "tier"],
    "logs.columns.cluster": "region",
    "metrics.good": {"expr": "not failed", "better": "higher"},
    "metrics.p90": {"column": "ms", "quantile": 0.9, "role": "guardrail", "better": "lower", "margin": "10%"},
    "attribution": {"columns": {"batch": "batch", "prompt_tokens": "tokens", "output_tokens": "tokens"}},
    "rollback": [{"metric": "errors", "above": 0.5}],
}


def logged(world: Any, units: int = 120) -> pl.DataFrame:
    frame = world.log(units=units)
    return frame.with_columns(
        region=pl.concat_str(pl.lit("r"), pl.col("user") % 3),
        tier=pl.when(pl.col("user") % 4 < 2).then(pl.lit("free")).otherwise(pl.lit("paid")),
        batch=pl.int_range(pl.len()) // 6,
    )


def script(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """The installed console script, without what the environment of the tests says."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("READOUT_", "GITHUB_", "POLARS_"))}
    return subprocess.run(
        [SCRIPT, *map(str, arguments)],
        env={**inherited, **environment}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# The script


def test_a_run_of_the_script_writes_a_folder_and_json_is_its_readout_byte_for_byte(world):
    world.write(logged(world), FULL)
    done = script("run", world.folder / "spec.yaml", "--out", world.out, "--as-of", "2026-10-20", "--format", "json")
    assert done.returncode == 0, done.stderr
    written = files(world.out / "probe" / "2026-10-20")
    assert sorted(written) == ["figures/effects.svg", "memo.md", "readout.json"]
    assert done.stdout.encode() == written["readout.json"]
    assert done.stderr.splitlines()[0] == "reading the logs"
    assert done.stderr.splitlines()[-1] == f"memo: {world.out / 'probe' / '2026-10-20' / 'memo.md'}"


def test_the_same_inputs_give_the_same_bytes_whatever_the_threads(world):
    frame = logged(world, units=3000).sample(fraction=1.0, shuffle=True, seed=3)
    spec = world.write(None, FULL)
    frame.write_parquet(world.folder / "log.parquet", row_group_size=500)
    found = []
    for threads in ("1", "2"):
        out = world.folder / f"out-{threads}"
        done = script("run", spec, "--out", out, "--as-of", "2026-10-20", "-q", POLARS_MAX_THREADS=threads)
        assert done.returncode == 0, done.stderr
        found.append((done.stdout, files(out)))
    assert found[0] == found[1]
    assert len(found[0][1]) == 3


def test_exit_codes_of_the_script(world):
    spec = world.write(logged(world), FULL)
    run = ("run", spec, "--out", world.out, "--no-figures", "-q")
    assert script(*run, READOUT_FAIL_ON="ship").returncode == 1
    assert script(*run, "--set", "metrics.latency.bettr=lower").returncode == 2
    assert script(*run, "--set", "logs.path=gone.parquet").returncode == 3


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupt_exits_130_and_leaves_nothing(world, name):
    spec = world.write(logged(world), FULL)
    slow = (
        "import sys, time\n"
        "from cli import main\n"
        "from readout.memo import markdown\n"
        "markdown.memo = lambda readout: time.sleep(60)\n"
        "main.main()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", slow, "run", spec, "--out", world.out, "--no-figures"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        assert [process.stderr.readline() for _ in range(2)] == ["reading the logs\n", "estimating\n"]
        time.sleep(0.3)
        process.send_signal(getattr(signal, name))
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, out) == (130, "")
    assert "interrupted; nothing was left half-written" in err
    assert not world.out.exists()


# In-process


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        for item in value.values():
            yield from numbers(item)
    elif isinstance(value, list):
        for item in value:
            yield from numbers(item)
    elif isinstance(value, float):
        yield value


def test_the_json_has_the_contracts_fields_and_finite_numbers(world):
    world.write(logged(world), FULL)
    document = world.run("--format", "json").json
    top = {
        "schema", "name", "spec_sha256", "readout_version", "seed", "as_of", "window", "rows", "columns",
        "mapped_unasked", "design", "decision", "checks", "metrics", "segments", "diagnostics", "economics", "capacity",
        "surrogate", "attribution", "figures",
    }  # fmt: skip
    said = {"question", "counterfactual", "assignment", "assumptions", "alpha", "failure_mode", "mitigation", "monitor"}
    assert set(document) == top | said | {"notes"}
    assert document["schema"] == "readout/1"
    assert set(document["window"]) == {"start", "end", "first", "last"}
    assert set(document["rows"]) == {"read", "kept", "dropped"}
    assert {"kind", "estimand", "method", "unit", "n_units"} <= set(document["design"])
    assert set(document["decision"]) == {
        "action", "treatment", "by_arm", "rule", "headline", "reasons", "would_change", "stop_if", "next_step",
    }  # fmt: skip
    for check in document["checks"]:
        assert set(check) - {"details"} == {
            "name", "family", "status", "statistic", "p_value", "value", "threshold", "message", "action",
        }  # fmt: skip
        assert check["status"] in ("pass", "warn", "fail", "skip")
        assert check["message"]
    for metric in document["metrics"]:
        assert {
            "metric", "role", "arm", "control", "estimand", "method", "estimate", "std_error", "df", "statistic",
            "p_value", "ci_low", "ci_high", "relative", "relative_ci_low", "relative_ci_high", "control_value",
            "treatment_value", "n_control", "n_treatment", "minimum_detectable_effect", "verdict",
        } <= set(metric)  # fmt: skip
    assert set(document["economics"]) >= {
        "value_per_gpu_hour", "cost_per_success", "margin", "net_usd_per_1k_requests", "per_arm",
    }  # fmt: skip
    assert set(document["attribution"]) >= {
        "method", "batches", "requests", "total_wh", "efficiency_error_wh", "per_arm", "naive",
    }  # fmt: skip
    assert all(math.isfinite(n) for n in numbers(document))
    assert all(float(f"{n:.9g}") == n for n in numbers(document))


def test_the_same_bytes_twice_in_one_process(world):
    world.write(logged(world), FULL)
    arguments = ("run", world.folder / "spec.yaml", "--out", world.out, "--as-of", "2026-10-20", "-q", "--seed", "3")
    first = world.command(*arguments), files(world.out)
    second = world.command(*arguments), files(world.out)
    assert first == second
    assert first[0].code == 0


def test_another_run_of_the_day_replaces_the_readout_whole(world):
    spec = world.write(logged(world), FULL)
    world.command("run", spec, "--out", world.out, "--as-of", "2026-10-20", "-q")
    assert (world.out / "probe" / "2026-10-20" / "figures" / "effects.svg").exists()
    assert world.run("--set", "metrics.latency.minimum_effect=90%").code == 0
    assert world.written == ["out/probe/2026-10-20/memo.md", "out/probe/2026-10-20/readout.json"]
    written = json.loads((world.out / "probe" / "2026-10-20" / "readout.json").read_text(encoding="utf-8"))
    assert written["decision"]["rule"] == "nothing_gained"


def test_a_failed_run_leaves_the_last_readout_as_it_was(world):
    world.write(logged(world), FULL)
    assert world.run().code == 0
    before = files(world.out)
    assert world.run("--set", "logs.where=tokens < 0").code == 3
    assert world.run("--set", "logs.where=tokens <").code == 2
    assert files(world.out) == before


def test_set_overrides_and_changes_the_hash(world):
    world.write(logged(world), FULL)
    plain, less = (world.run("--format", "json", *given).json for given in ((), ("--set", "decision.alpha=0.2")))
    assert (plain["alpha"], less["alpha"]) == (0.05, 0.2)
    assert plain["spec_sha256"] != less["spec_sha256"]
    widths = [doc["metrics"][0]["ci_high"] - doc["metrics"][0]["ci_low"] for doc in (plain, less)]
    assert widths[1] < widths[0]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("metrics.latency.margn=3", "did you mean 'margin'?"),
        ("decision.alpha=2", "decision.alpha"),
        ("nonsense", "nonsense"),
        ("metrics.latency.column=gone", "the log has no column 'gone'"),
    ],
)
def test_a_wrong_override_names_itself(world, given, said):
    world.write(logged(world), FULL)
    outcome = world.run("--set", given)
    assert outcome.code == (3 if "gone" in given else 2)
    assert "--set" in outcome.err
    assert said in outcome.err
    assert not world.out.exists()


@pytest.mark.parametrize(("actions", "code"), [("ship", 1), ("rollback,ship", 1), ("rollback,pause", 0), ("", 0)])
def test_fail_on_is_told_by_the_exit_code_and_the_readout_is_written(world, actions, code):
    world.write(logged(world), FULL)
    assert world.run("--fail-on", actions).code == code
    assert len(world.written) == 2


def test_the_formats_say_the_same(world):
    world.write(logged(world), FULL)
    document = world.run("--format", "json").json
    folder = world.out / "probe" / "2026-10-20"
    assert world.run("--format", "markdown").out == (folder / "memo.md").read_text(encoding="utf-8")
    text = world.run().out
    assert "\x1b" not in text
    lines = world.run("--format", "github").out.splitlines()
    assert lines[0].startswith("::notice title=probe%3A Ship::")
    assert all(line.startswith(("::notice ", "::warning ", "::error ")) for line in lines)
    effect = f"{100 * document['metrics'][0]['relative']:.1f}"
    for shown in (text, lines[0], (folder / "memo.md").read_text(encoding="utf-8")):
        assert effect in shown


def test_colour_only_where_it_is_wanted(world, monkeypatch):
    world.write(logged(world), FULL)
    assert "\x1b" not in world.run().out
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[" in world.run().out
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in world.run().out


def test_the_step_summary_is_the_memo_and_nothing_without_one(world, monkeypatch):
    summary = world.folder / "log-summary.md"
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    world.write(logged(world), FULL)
    assert world.run("--set", "logs.path=gone.parquet").code == 3
    assert not summary.exists()
    assert world.run().code == 0
    memo = (world.out / "probe" / "2026-10-20" / "memo.md").read_text(encoding="utf-8")
    assert summary.read_text(encoding="utf-8") == memo


EFFECTS = ("estimate", "ci_low", "ci_high", "std_error", "verdict", "relative", "economics", "metrics")


@pytest.mark.parametrize("output_format", ["text", "json", "markdown", "github"])
def test_check_shows_no_effect_and_writes_nothing(world, output_format):
    frame = logged(world)
    world.write(frame, FULL)
    arguments = ("check", world.folder / "spec.yaml", "--format", output_format, "-q")
    outcome = world.command(*arguments)
    assert (outcome.code, world.written) == (0, [])
    if output_format == "json":
        assert not set(EFFECTS) & set(outcome.json)
    # The same assignment with other outcomes reads the same: nothing of the outcomes is in it.
    rng = np.random.default_rng(9)
    moved = {name: pl.Series(rng.permutation(frame[name].to_numpy())) for name in ("ms", "failed")}
    world.write(frame.with_columns(**moved), FULL)
    assert world.command(*arguments).out == outcome.out


def test_check_fails_on_what_it_found(world):
    frame = logged(world, units=400).filter((pl.col("arm") == "old") | (pl.col("user") % 3 == 0))
    spec = world.write(frame, FULL)
    assert world.command("check", spec, "-q").code == 0
    assert world.command("check", spec, "-q", "--fail-on", "pause").code == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"decision.frame": "rule"},
        {"decision.looks": "sequential"},
        {"metrics.kept": {"column": "failed", "role": "long_run", "better": "lower"}},
    ],
)
def test_what_is_not_there_yet_is_said_before_anything_is_read(world, changes):
    world.write(None, {**FULL, **changes, "logs.path": "gone.parquet"})
    outcome = world.run()
    if outcome.code == 3:
        pytest.skip("it is available now")
    assert outcome.code == 2
    assert "not available yet" in outcome.err


def test_a_switchback_from_end_to_end(world):
    hour = pl.col("at").dt.epoch("s") // 7200
    frame = logged(world, units=1500).with_columns(
        arm=pl.when((hour * 7919 % 13 + pl.col("user") % 3) % 2 == 0).then(pl.lit("old")).otherwise(pl.lit("new"))
    )
    rng = np.random.default_rng(4)
    faster = pl.when(pl.col("arm") == "new").then(0.8).otherwise(1.0)
    frame = frame.with_columns(ms=pl.Series(rng.normal(100, 10, len(frame))) * faster, busy=pl.col("tokens"))
    world.write(
        frame,
        {
            **FULL,
            "design": {"kind": "switchback", "control": "old", "treatment": "new", "block": "2h", "washout": "20m"},
            "logs.columns": {
                "time": "at", "arm": "arm", "cluster": "region", "intended": "arm", "executed": "arm",
                "state": ["busy"],
            },
        },
    )  # fmt: skip
    outcome = world.command(
        "run", world.folder / "spec.yaml", "--out", world.out, "--as-of", "2026-10-20", "-q", "--format", "json"
    )
    assert outcome.code == 0, outcome.err
    document = outcome.json
    assert document["figures"] == ["figures/effects.svg", "figures/blocks.svg", "figures/since_switch.svg"]
    latency = document["metrics"][0]
    assert latency["method"] == "block_regression"
    assert latency["ci_low"] < -20 < latency["ci_high"] < 0
    assert document["decision"]["action"] == "ship", document["decision"]
    assert document["rows"]["dropped"]["washout at the start of a block"] > 0
