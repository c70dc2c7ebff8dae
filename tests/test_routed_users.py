"""Routed users look better because of the queue: with the state logged the truth is found, without it nothing is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.routed_users import WAYS, readings, report
from readout.simulate import simulate


@pytest.mark.parametrize("seed", [2, 3])
def test_what_each_reading_of_the_same_requests_says(seed: int) -> None:
    logged, routed, left_out, after, completed, unlogged = readings(seed, requests=6_000)
    assert logged.covered
    assert routed.covered
    assert logged.failed == routed.failed == ()
    assert logged.action == "rollback"
    assert left_out.estimate < 0 < left_out.truth
    assert left_out.high < left_out.truth
    assert (left_out.action, left_out.failed) == ("stronger_design", ("required_fields",))
    assert after.high < after.truth
    assert (after.action, after.failed) == ("instrument", ("bad_controls",))
    assert (completed.action, completed.failed) == ("instrument", ("completed_only",))
    assert unlogged.high < unlogged.truth
    assert (unlogged.action, unlogged.failed) == ("instrument", ("required_fields",))


def test_the_headline_of_an_unlogged_state_names_it(tmp_path: Path) -> None:
    from cli.main import run

    spec = simulate("routed_users_unlogged", tmp_path, seed=1, requests=2_000)
    fixed = ["--out", str(tmp_path / "memos"), "--as-of", "2026-11-01", "--no-figures", "--quiet"]
    assert run(["run", str(spec), *fixed, "--fail-on", "instrument"]) == 1
    found = json.loads((tmp_path / "memos/routed-users-unlogged/2026-11-01/readout.json").read_text())
    assert "'queue_depth' and 'state' are not logged" in found["decision"]["headline"]
    assert run(["check", str(spec), "--as-of", "2026-11-01", "--quiet"]) == 0


def test_refused_adjusters_stand_in_the_diagnostics_by_name(tmp_path: Path) -> None:
    from cli.main import run

    spec = simulate("routed_users", tmp_path, seed=1, requests=2_000)
    fixed = ["--out", str(tmp_path / "memos"), "--as-of", "2026-11-01", "--no-figures", "--quiet"]
    assert run(["run", str(spec), *fixed, "--set", "design.adjust=[tier, queue_depth, ttft_ms, completed]"]) == 0
    found = json.loads((tmp_path / "memos/routed-users/2026-11-01/readout.json").read_text())
    assert [row["column"] for row in found["diagnostics"]["bad_controls"]] == ["ttft_ms", "completed"]
    assert "'ttft_ms' and 'completed'" in found["decision"]["headline"]
    assert found["metrics"][0]["estimate"] is not None


def test_a_row_of_the_study_s_table() -> None:
    rows = [readings(3, requests=2_000)[0]]
    assert report(WAYS[0], rows).startswith("| state logged (the ready spec) | ")
