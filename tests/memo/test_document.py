"""readout.json: the contract's fields in its order, finite numbers of nine digits, the same bytes each time."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from readout.errors import LogError, NotAvailableYet, Problem
from readout.memo.document import error_json, plain, to_json
from readout.results import Readout


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} in JSON")


def _parsed(readout: Readout) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(to_json(readout), parse_constant=_refuse)
    return parsed


def test_fields_stand_in_the_contracts_order(switchback: Readout) -> None:
    document = _parsed(switchback)
    assert list(document)[:21] == [
        "schema", "name", "spec_sha256", "readout_version", "seed", "as_of", "window", "rows", "columns",
        "mapped_unasked", "design", "decision", "checks", "metrics", "segments", "diagnostics", "economics", "capacity",
        "surrogate", "attribution", "figures",
    ]  # fmt: skip
    assert document["schema"] == "readout/1"
    assert list(document["decision"]) == [
        "action", "treatment", "by_arm", "rule", "headline", "reasons", "would_change", "stop_if", "next_step",
    ]  # fmt: skip
    assert list(document["checks"][0]) == [
        "name", "family", "status", "statistic", "p_value", "value", "threshold", "message", "action",
    ]  # fmt: skip
    assert list(document["metrics"][0])[:22] == [
        "metric", "role", "arm", "control", "estimand", "method", "estimate", "std_error", "df", "statistic", "p_value",
        "ci_low", "ci_high", "relative", "relative_ci_low", "relative_ci_high", "control_value", "treatment_value",
        "n_control", "n_treatment", "minimum_detectable_effect", "verdict",
    ]  # fmt: skip
    assert document["rows"] == {"read": 1234567, "kept": 1134000, "dropped": {"washout": 100000, "null arm": 567}}
    assert document["columns"]["state"] == ["queue_depth", "cache_warm"]
    assert document["segments"] == []
    assert document["capacity"] is None
    assert document["surrogate"] is None
    assert document["attribution"]["naive"]["per_token"] == {"current": 0.0471, "premium": 0.0433}


def test_numbers_are_finite_and_have_nine_digits(switchback: Readout) -> None:
    first = replace(switchback.metrics[0], estimate=math.nan, df=math.inf, std_error=0.1 + 0.2, ci_low=1 / 3)
    metric = _parsed(replace(switchback, metrics=(first,)))["metrics"][0]
    assert (metric["estimate"], metric["df"], metric["std_error"], metric["ci_low"]) == (None, None, 0.3, 0.333333333)


def test_sums_in_another_order_give_the_same_bytes(switchback: Readout) -> None:
    forward, backward = (0.1 + 0.2) + 0.3, 0.1 + (0.2 + 0.3)
    assert forward != backward
    assert to_json(replace(switchback, diagnostics={"s": forward})) == to_json(
        replace(switchback, diagnostics={"s": backward})
    )


def test_a_readout_of_nothing_has_nulls(instrument: Readout) -> None:
    document = _parsed(instrument)
    assert document["economics"] is None
    assert document["attribution"] is None
    assert document["metrics"][0]["verdict"] is None
    assert document["window"] == {"start": None, "end": None, "first": None, "last": None}


def test_hostile_text_is_kept_whole_in_plain_ascii(hostile: Readout) -> None:
    text = to_json(hostile)
    assert text.isascii()
    assert text.endswith("}\n")
    assert "##[" not in text
    assert "\x1b" not in text
    assert _parsed(hostile)["name"] == hostile.name


def test_values_of_numpy_and_time_have_a_form_and_others_are_refused() -> None:
    assert plain({"a": np.float64(1.5), "b": np.array([1, 2]), "c": np.bool_(True), "d": np.int64(3)}) == {
        "a": 1.5, "b": [1, 2], "c": True, "d": 3,
    }  # fmt: skip
    assert plain((datetime(2026, 10, 5, tzinfo=UTC), frozenset({"b", "a"}))) == [
        "2026-10-05T00:00:00+00:00",
        ["a", "b"],
    ]
    assert str(plain(-0.0)) == "0.0"
    with pytest.raises(TypeError, match="object"):
        plain({"x": object()})


def test_an_error_says_where_what_and_what_to_do() -> None:
    error = LogError([Problem("logs/a.parquet", "not Parquet", "name a file"), Problem("b", "nan \x1b", source="src")])
    assert json.loads(error_json(error)) == {
        "schema": "readout-error/1",
        "code": 3,
        "errors": [
            {"where": "logs/a.parquet", "message": "not Parquet", "hint": "name a file"},
            {"where": "b", "message": "nan \x1b", "hint": ""},
        ],
    }
    assert json.loads(error_json(NotAvailableYet("--engine spark", "Spark")))["code"] == 2
