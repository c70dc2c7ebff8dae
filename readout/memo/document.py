"""``readout.json``, and the JSON that stands in its place when there is no readout."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date, datetime
from typing import Any

from readout.errors import ReadoutError
from readout.results import Check, MetricResult, Readout, SegmentResult

_CHECK_FIELDS = ("name", "family", "status", "statistic", "p_value", "value", "threshold", "message", "action")
_METRIC_FIELDS = (
    "metric", "role", "arm", "control", "estimand", "method", "estimate", "std_error", "df", "statistic", "p_value",
    "ci_low", "ci_high", "relative", "relative_ci_low", "relative_ci_high", "control_value", "treatment_value",
    "n_control", "n_treatment", "minimum_detectable_effect", "verdict",
)  # fmt: skip
_METRIC_ADDITIONS = (
    "guardrail", "better", "unit", "minimum_effect", "margin", "relative_reason", "nulls", "note", "p_value_holm",
    "p_value_bh",
)  # fmt: skip


def to_json(readout: Readout) -> str:
    """``readout.json`` as text: one object in the contract's field order, ASCII only, with a closing newline.

    Every number is finite or null and has at most 9 significant digits, so that sums taken in another order give
    the same bytes.

    Raises:
        TypeError: A free-form part holds a value that JSON has no form for.
    """
    return dump(
        {
            "schema": "readout/1",
            "name": readout.name,
            "spec_sha256": readout.spec_sha256,
            "readout_version": readout.readout_version,
            "seed": readout.seed,
            "as_of": readout.as_of,
            "window": {key: readout.window.get(key) for key in ("start", "end", "first", "last")},
            "rows": asdict(readout.rows),
            "columns": readout.columns,
            "mapped_unasked": readout.mapped_unasked,
            "design": readout.design,
            "decision": asdict(readout.decision),
            "checks": [_check(readout, check) for check in readout.checks],
            "metrics": [_metric(metric) for metric in readout.metrics],
            "segments": [_segment(one) for one in readout.segments.results],
            "diagnostics": readout.diagnostics,
            "economics": readout.economics,
            "capacity": readout.capacity,
            "surrogate": readout.surrogate,
            "attribution": readout.attribution,
            "figures": readout.figures,
            "question": readout.question,
            "counterfactual": readout.counterfactual,
            "assignment": readout.assignment,
            "assumptions": [asdict(one) for one in readout.assumptions],
            "alpha": readout.alpha,
            "failure_mode": readout.failure_mode,
            "mitigation": readout.mitigation,
            "monitor": readout.monitor,
            "notes": readout.notes,
        }
    )


def error_json(error: ReadoutError) -> str:
    """``readout-error/1``: the exit code and every problem of a command that gave no readout."""
    errors = [{"where": p.where, "message": p.message, "hint": p.hint} for p in error.problems]
    return dump({"schema": "readout-error/1", "code": error.code, "errors": errors})


def own_details(readout: Readout, check: Check) -> dict[str, Any]:
    """The check's tables that do not stand in the diagnostics already."""
    known = readout.diagnostics
    return {key: value for key, value in check.details.items() if key not in known or plain(known[key]) != plain(value)}


def _check(readout: Readout, check: Check) -> dict[str, Any]:
    fields = {field: getattr(check, field) for field in _CHECK_FIELDS}
    details = own_details(readout, check)
    return {**fields, "details": details} if details else fields


def _metric(metric: MetricResult) -> dict[str, Any]:
    return {field: getattr(metric, field) for field in _METRIC_FIELDS + _METRIC_ADDITIONS}


def _segment(one: SegmentResult) -> dict[str, Any]:
    return {
        "segment": one.segment,
        "level": one.level,
        **_metric(one.result),
        "difference": one.difference,
        "difference_p_value": one.difference_p_value,
        "net_usd_per_1k_requests": one.net,
        "net_ci_low": one.net_low,
        "net_ci_high": one.net_high,
        "pooled": one.pooled,
        "pooled_ci_low": one.pooled_low,
        "pooled_ci_high": one.pooled_high,
        "stable": one.stable,
        "recommended": one.recommended,
        "descriptive": one.descriptive,
        "why_not": one.why,
        "rows": one.rows,
    }


def dump(value: Mapping[str, Any]) -> str:
    """An object as JSON text, ASCII only, with a closing newline; numbers as :func:`plain` gives them."""
    text = json.dumps(plain(value), indent=2, allow_nan=False)
    # The same JSON, in a spelling that a CI runner cannot take for one of its commands, and without a raw DEL.
    return text.replace("##[", "##\\u005b").replace("\x7f", "\\u007f") + "\n"


def plain(value: Any) -> Any:
    """``value`` in JSON's own types: floats rounded to 9 significant digits, those that are not finite None."""
    if value is None or isinstance(value, (bool, str)):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(f"{value:.9g}") + 0.0 if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return [plain(item) for item in sorted(value)]
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [plain(item) for item in value]
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if hasattr(value, "tolist"):  # NumPy's scalars and arrays
        return plain(value.tolist())
    raise TypeError(f"no JSON form for a value of type {type(value).__name__}")
