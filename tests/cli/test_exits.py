from __future__ import annotations

import errno
import json

import pytest

from readout.errors import LogError, Problem, SpecError

UNKNOWN_KEY = Problem(
    "spec.yaml:14:5",
    "metrics.ttft.colum: unknown key; did you mean 'column'?",
    "see `readout schema`",
    "    colum: ttft_ms\n    ^^^^^",
)


def test_a_spec_error_shows_place_line_caret_and_hint(readout_command, pipeline):
    pipeline.error = SpecError([UNKNOWN_KEY, Problem("spec.yaml:2:1", "name: expected text, got 3")])
    outcome = readout_command("run", "spec.yaml", "--quiet")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == (
        "error: spec.yaml:14:5: metrics.ttft.colum: unknown key; did you mean 'column'?\n"
        "        colum: ttft_ms\n"
        "        ^^^^^\n"
        "  hint: see `readout schema`\n"
        "error: spec.yaml:2:1: name: expected text, got 3\n"
        "2 problems\n"
    )


def test_json_puts_the_errors_on_stdout(readout_command, pipeline):
    pipeline.error = LogError([Problem("logs/a.parquet", "not a Parquet file", "name a Parquet file")])
    outcome = readout_command("run", "spec.yaml", "--format=json")
    assert outcome.code == 3
    assert json.loads(outcome.out) == {
        "schema": "readout-error/1",
        "code": 3,
        "errors": [{"where": "logs/a.parquet", "message": "not a Parquet file", "hint": "name a Parquet file"}],
    }


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["run"], "missing argument 'SPEC'"),
        (["run", "x", "--nosuch"], "no such option: --nosuch"),
        (["rnu", "x"], "Did you mean 'run'?"),
        (["run", "x", "--as-of", "yesterday"], "'yesterday' is not a time; expected ISO 8601"),
        (["run", "x", "--seed", "1.5"], "'1.5' is not a seed; expected a whole number from 0 up"),
        (["run", "x", "--engine", "sparc"], "did you mean 'spark'?"),
        (["simulate", "router_rct", "--out", "o", "--days", "-1"], "'-1' is not a number of days"),
        (["simulate", "router_rct", "--out", "o", "--requests", "0"], "'0' is not a count"),
    ],
)
def test_usage_errors_exit_2_and_are_json_where_json_is_asked(readout_command, pipeline, monkeypatch, line, said):
    outcome = readout_command(*line)
    assert (outcome.code, outcome.out) == (2, "")
    assert said in outcome.err
    assert "Traceback" not in outcome.err
    monkeypatch.setenv("READOUT_FORMAT", "json")
    as_json = readout_command(*line)
    assert as_json.code == 2
    document = json.loads(as_json.out)
    assert (document["schema"], document["code"]) == ("readout-error/1", 2)
    assert said in document["errors"][0]["message"]


def test_an_unknown_format_from_the_environment_is_a_usage_error(readout_command, pipeline, monkeypatch):
    monkeypatch.setenv("READOUT_FORMAT", "jsn")
    outcome = readout_command("run", "x")
    assert outcome.code == 2
    assert "did you mean 'json'?" in outcome.err


def test_out_that_is_a_file_is_refused_before_anything_is_read(readout_command, pipeline, tmp_path):
    taken = tmp_path / "memos"
    taken.write_text("", encoding="utf-8")
    outcome = readout_command("run", "x", "--out", taken)
    assert outcome.code == 2
    assert pipeline.calls == []


def test_a_fault_of_its_own_is_one_plain_sentence_with_code_70(readout_command, pipeline, monkeypatch):
    pipeline.error = ZeroDivisionError("division by zero")
    plain = readout_command("run", "x", "--quiet")
    assert plain.code == 70
    assert "a fault of readout's own" in plain.err
    assert "Traceback" not in plain.err
    monkeypatch.setenv("READOUT_DEBUG", "1")
    debug = readout_command("run", "x", "--quiet")
    assert debug.code == 70
    assert debug.err.startswith("Traceback")
    assert "ZeroDivisionError: division by zero" in debug.err


def test_a_panic_of_a_native_library_is_no_traceback_either(readout_command, pipeline):
    class PanicException(BaseException):
        """As pyo3 raises it: no Exception."""

    pipeline.error = PanicException("index out of bounds")
    outcome = readout_command("run", "x")
    assert outcome.code == 70
    assert "PanicException: index out of bounds" in outcome.err


def test_a_full_disk_is_not_called_a_fault_of_readout(readout_command, pipeline):
    pipeline.error = OSError(errno.ENOSPC, "No space left on device", "memos/x")
    outcome = readout_command("run", "x", "--quiet")
    assert outcome.code == 70
    assert outcome.err.startswith("error: memos/x: the system refused: no space left on device\n")
    assert "fault" not in outcome.err


def test_an_interrupt_is_130_and_json_says_so(readout_command, pipeline):
    pipeline.error = KeyboardInterrupt()
    outcome = readout_command("run", "x", "--format", "json")
    assert outcome.code == 130
    assert json.loads(outcome.out)["code"] == 130
    assert "interrupted" in outcome.err


def test_control_characters_of_the_data_do_not_reach_the_terminal(readout_command, pipeline):
    pipeline.error = LogError([Problem("logs/\x1b]0;x\x07.parquet", "arm '\x1b[2Jred\u202e' is unknown")])
    outcome = readout_command("run", "x")
    assert "\x1b" not in outcome.err
    assert "\u202e" not in outcome.err
    assert "red" in outcome.err


def test_errors_are_coloured_only_where_asked(readout_command, pipeline, monkeypatch):
    pipeline.error = SpecError([UNKNOWN_KEY])
    monkeypatch.setenv("FORCE_COLOR", "1")
    coloured = readout_command("run", "x").err
    assert "\x1b[1;31merror:\x1b[0m" in coloured
    assert "\x1b[1;31m    ^^^^^\x1b[0m" in coloured
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in readout_command("run", "x").err
