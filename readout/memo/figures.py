"""The memo's figures as SVG: effects with intervals against their margins, and a switchback's blocks over time."""

from __future__ import annotations

import math
from typing import Final

from readout.memo import words
from readout.memo.numbers import level, relative
from readout.results import MetricResult, Readout

EFFECTS: Final = "figures/effects.svg"
BLOCKS: Final = "figures/blocks.svg"
_SPOKEN = 8  # effects named in an alternative text; the tables have them all


def draw(readout: Readout) -> dict[str, bytes]:
    """SVG files by their path within the readout's folder; a figure with nothing to show is left out.

    The same readout gives the same bytes under one version of Matplotlib, whatever the user's own settings are.
    """
    files: dict[str, bytes] = {}
    if on_relative_axis(readout):
        from readout.memo.effects_figure import effects_figure
        from readout.memo.svg import render

        files[EFFECTS] = render(lambda: effects_figure(readout), "Relative effects", alt_text(EFFECTS, readout))
    if any(math.isfinite(point.value) for point in readout.blocks):
        from readout.memo.blocks_figure import blocks_figure
        from readout.memo.svg import render

        files[BLOCKS] = render(lambda: blocks_figure(readout), "Blocks over time", alt_text(BLOCKS, readout))
    return files


def on_relative_axis(readout: Readout) -> list[MetricResult]:
    """The results that have a relative effect with an interval, primary first."""
    return [
        m
        for m in words.by_role(readout.metrics)
        if m.relative is not None and m.relative_ci_low is not None and m.relative_ci_high is not None
    ]


def alt_text(path: str, readout: Readout) -> str:
    """What a figure shows, in words, for those who do not see it."""
    if path == BLOCKS:
        clusters = len({point.cluster for point in readout.blocks})
        arms = ", ".join(dict.fromkeys(point.arm for point in sorted(readout.blocks, key=lambda p: p.arm)))
        return f"{blocks_metric(readout)} by block over time in {clusters} clusters, by arm ({arms})"
    arms_named = words.several_arms(readout)
    parts = []
    rows = on_relative_axis(readout)
    for m in rows[:_SPOKEN]:
        arm = f" ({m.arm})" if arms_named else ""
        interval = relative(m.relative, m.relative_ci_low, m.relative_ci_high)
        parts.append(f"{m.metric}{arm} {interval}, {words.verdict(m)}")
    if len(rows) > _SPOKEN:
        parts.append(f"and {len(rows) - _SPOKEN} more")
    return f"Relative effects with {level(readout.alpha)} intervals: {'; '.join(parts)}"


def blocks_metric(readout: Readout) -> str:
    """The name of the metric that the blocks show: the first primary one."""
    return next((m.metric for m in words.by_role(readout.metrics) if m.role == "primary"), "Primary metric")


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
