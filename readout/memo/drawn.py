"""What the figures show of a readout, in numbers and names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from readout.memo import words
from readout.results import MetricResult, Readout


def on_relative_axis(readout: Readout) -> list[MetricResult]:
    """The results that have a relative effect with an interval, primary first."""
    return [
        m
        for m in words.by_role(readout.metrics)
        if m.relative is not None and m.relative_ci_low is not None and m.relative_ci_high is not None
    ]


def blocks_metric(readout: Readout) -> str:
    """The name of the metric that the blocks show: the first primary one."""
    return next((m.metric for m in words.by_role(readout.metrics) if m.role == "primary"), "Primary metric")


def since_rows(readout: Readout) -> list[Mapping[str, Any]]:
    """What is drawn: the first primary that was split by minutes, for the arm that the decision is about."""
    rows = [row for row in readout.diagnostics.get("since_switch", ()) if math.isfinite(row["effect"])]
    mine = [row for row in rows if row["arm"] == readout.decision.treatment] or rows
    return [row for row in mine if (row["metric"], row["arm"]) == (mine[0]["metric"], mine[0]["arm"])]


def spec_effect(text: str | None, control_value: float | None) -> float | None:
    """An effect as the spec writes it (``5%`` or ``0.002``), as a positive fraction of control, if it has one."""
    if text is None:
        return None
    stripped = text.strip()
    try:
        if stripped.endswith("%"):
            return abs(float(stripped[:-1])) / 100
        return abs(float(stripped)) / control_value if control_value is not None and control_value > 0 else None
    except ValueError:
        return None


def arm_read(readout: Readout, table: str) -> str:
    """Of a diagnostic by arm, the arm that is drawn: the one that the decision is about, else its first."""
    arms = [str(row["arm"]) for row in readout.diagnostics.get(table) or () if "arm" in row]
    return readout.decision.treatment if readout.decision.treatment in arms or not arms else arms[0]
