from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest


def test_run_passes_every_option_on(readout_command, pipeline, tmp_path):
    outcome = readout_command(
        "run", "exp.yaml", "--out", tmp_path, "--as-of", "2026-10-19T02:00+02:00", "--set", "decision.alpha=0.1",
        "--set", "logs.where=not is_internal", "--seed", "7", "--engine", "polars", "--no-figures", "--format", "json",
    )  # fmt: skip
    assert outcome.code == 0
    (call,) = pipeline.calls
    call.pop("progress")
    assert call == {
        "spec": Path("exp.yaml"),
        "out": tmp_path,
        "as_of": datetime(2026, 10, 19, tzinfo=UTC),
        "overrides": ["decision.alpha=0.1", "logs.where=not is_internal"],
        "seed": 7,
        "engine": "polars",
        "figures": False,
    }


def test_defaults_of_run(readout_command, pipeline):
    assert readout_command("run", "exp.yaml").code == 0
    (call,) = pipeline.calls
    assert (call["out"], call["as_of"], call["seed"], call["engine"]) == (Path("memos"), None, None, "polars")
    assert call["figures"] is True
    assert list(call["overrides"]) == []


def test_environment_stands_in_for_options_and_the_line_wins(readout_command, pipeline, monkeypatch, tmp_path):
    for name, value in {
        "READOUT_OUT": str(tmp_path), "READOUT_AS_OF": "2026-10-19", "READOUT_SEED": "3", "READOUT_QUIET": "1",
        "READOUT_SET": "decision.alpha=0.1\nlogs.where=not is_internal\n", "READOUT_NO_FIGURES": "true",
        "READOUT_FORMAT": "json", "READOUT_FAIL_ON": "pause",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    first = readout_command("run", "exp.yaml")
    second = readout_command("run", "exp.yaml", "--seed", "4", "--set", "name=other", "--fail-on", "ramp")
    assert (first.code, second.code) == (0, 1)
    assert first.err == ""
    assert json.loads(first.out)["schema"] == "readout/1"
    assert pipeline.calls[0]["out"] == tmp_path
    assert pipeline.calls[0]["as_of"] == datetime(2026, 10, 19, tzinfo=UTC)
    assert pipeline.calls[0]["overrides"] == ["decision.alpha=0.1", "logs.where=not is_internal"]
    assert (pipeline.calls[0]["seed"], pipeline.calls[0]["figures"]) == (3, False)
    assert (pipeline.calls[1]["seed"], pipeline.calls[1]["overrides"]) == (4, ["name=other"])


@pytest.mark.parametrize(
    ("asked", "code"), [("ramp", 1), ("rollback, ramp", 1), ("rollback,pause", 0), ("stronger_design", 0)]
)
def test_fail_on_turns_the_decision_into_exit_code_1(readout_command, pipeline, asked, code):
    outcome = readout_command("run", "exp.yaml", "--fail-on", asked)
    assert outcome.code == code
    assert "premium" in outcome.out


def test_fail_on_names_the_nearest_action(readout_command, pipeline):
    outcome = readout_command("run", "exp.yaml", "--fail-on", "ramp,rolback")
    assert outcome.code == 2
    assert "'rolback' is none of" in outcome.err
    assert "did you mean 'rollback'?" in outcome.err
    assert pipeline.calls == []


def test_each_format_prints_what_the_memo_package_renders(readout_command, pipeline, ramp):
    from readout.memo import document, github, markdown

    printed = {name: readout_command("run", "x.yaml", "--format", name).out for name in ("json", "markdown", "github")}
    assert printed["json"] == document.to_json(ramp)
    assert printed["markdown"] == markdown.memo(ramp)
    assert printed["github"].splitlines() == github.annotations(ramp)


def test_text_is_plain_and_at_most_100_wide_where_stdout_is_no_terminal(readout_command, pipeline, monkeypatch):
    monkeypatch.setenv("COLUMNS", "37")
    text = readout_command("run", "exp.yaml").out
    assert "ttft" in text
    assert "\x1b" not in text
    assert 60 < max(map(len, text.splitlines())) <= 100


def test_force_color_colours_and_no_color_wins_over_it(readout_command, pipeline, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[" in readout_command("run", "exp.yaml").out
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in readout_command("run", "exp.yaml").out


def test_progress_and_the_memos_place_go_to_stderr_and_quiet_silences_them(readout_command, pipeline, tmp_path):
    loud = readout_command("run", "exp.yaml", "--out", tmp_path)
    memo = tmp_path / "premium-router" / "2026-10-19" / "memo.md"
    assert loud.err.splitlines() == ["reading the logs", f"memo: {memo}"]
    quiet = readout_command("run", "exp.yaml", "--out", tmp_path, "--quiet")
    assert (quiet.err, quiet.out) == ("", loud.out)


def test_under_github_actions_the_memo_joins_the_step_summary(readout_command, pipeline, monkeypatch, tmp_path, ramp):
    from readout.memo import markdown

    summary = tmp_path / "summary.md"
    summary.write_text("before\n", encoding="utf-8")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    readout_command("run", "exp.yaml")
    assert summary.read_text(encoding="utf-8") == "before\n"
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    readout_command("run", "exp.yaml", "--format", "json")
    assert summary.read_text(encoding="utf-8") == "before\n" + markdown.memo(ramp)


def test_the_step_summary_stays_below_its_limit(readout_command, pipeline, monkeypatch, tmp_path):
    summary = tmp_path / "summary.md"
    summary.write_text("x" * (1024 * 1024 - 500), encoding="utf-8")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    readout_command("run", "exp.yaml")
    assert 1024 * 1024 - 500 < summary.stat().st_size < 1024 * 1024


def test_a_step_summary_that_cannot_be_written_is_only_a_warning(readout_command, pipeline, monkeypatch, tmp_path):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    outcome = readout_command("run", "exp.yaml")
    assert outcome.code == 0
    assert "warning: the memo could not be added to the step summary" in outcome.err


def test_check_exits_0_with_a_failed_check_unless_fail_on_asks(readout_command, pipeline):
    assert readout_command("check", "exp.yaml").code == 0
    assert readout_command("check", "exp.yaml", "--fail-on", "pause").code == 1
    assert readout_command("check", "exp.yaml", "--fail-on", "rollback,instrument").code == 0
    assert "out" not in pipeline.calls[0]


def test_check_speaks_every_format(readout_command, pipeline):
    text = readout_command("check", "exp.yaml").out
    assert "srm" in text
    document = json.loads(readout_command("check", "exp.yaml", "--format", "json").out)
    assert (document["schema"], document["failed"], document["rows"]["kept"]) == ("readout-check/1", True, 990)
    assert [check["status"] for check in document["checks"]] == ["fail", "pass"]
    table = readout_command("check", "exp.yaml", "--format", "markdown").out
    assert "| srm | fail | 81 % of cells are treated, 50 % were expected |" in table
    annotations = readout_command("check", "exp.yaml", "--format", "github").out
    assert annotations == "::error title=Check srm failed::81 %25 of cells are treated, 50 %25 were expected\n"


@pytest.mark.parametrize(
    "line",
    [["run", "x", "--engine", "spark"], ["check", "x", "--engine", "spark"]],
)
def test_what_is_not_there_yet_says_so_with_exit_code_2(readout_command, pipeline, line):
    outcome = readout_command(*line, "--format", "json")
    assert outcome.code == 2
    assert "not available yet" in outcome.err
    (error,) = json.loads(outcome.out)["errors"]
    assert "not available yet" in error["message"]
    assert pipeline.calls == []


def test_demo_runs_the_bundled_switchback_wherever_one_stands(readout_command, pipeline, tmp_path, monkeypatch):
    example = tmp_path / "sample_logs" / "router_switchback.yaml"
    example.parent.mkdir()
    example.write_text("version: 1\n", encoding="utf-8")
    monkeypatch.setattr("readout.demo.bundled", lambda folder: tmp_path / folder)
    monkeypatch.chdir(tmp_path)
    outcome = readout_command("demo", "--out", "here")
    assert outcome.code == 0
    assert pipeline.calls[0]["spec"] == example
    assert "memo: here/premium-router/2026-10-19/memo.md" in outcome.err
