"""Effects by segment on one axis against the average, raw and pooled; net value beside it where it is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from readout.memo.numbers import effect, level
from readout.memo.segments_section import reading, rows_of
from readout.memo.svg import BLUE, INK, MUTED, RULE, VERMILLION, WIDTH, fit
from readout.results import MetricResult, Readout, SegmentResult
from readout.text import named

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE: Final = "Effects by segment"
_SHOWN = 24
_SPOKEN = 8
_ROW, _ABOVE, _BELOW = 0.34, 0.66, 0.62  # inches
_NAMES, _ONE, _TWO = 0.25, (0.265, 0.66), ((0.265, 0.385), (0.7, 0.275))


def drawable(readout: Readout) -> bool:
    """Whether any level has an effect with an interval."""
    return bool(_rows(readout))


def sentence(readout: Readout) -> str:
    """What the figure shows, in words."""
    rows = _rows(readout)
    average = _average(readout, rows)
    parts = [f"on average {effect(average.estimate, average.ci_low, average.ci_high)}"] if average is not None else []
    parts += [
        f"{one.said} {effect(one.result.estimate, one.result.ci_low, one.result.ci_high)}, {reading(one)}"
        for one in rows[:_SPOKEN]
    ]
    if len(rows) > _SPOKEN:
        parts.append(f"and {len(rows) - _SPOKEN} more")
    return f"Effect on {rows[0].result.metric} by segment with {level(readout.alpha)} intervals: {'; '.join(parts)}"


def figure(readout: Readout) -> Figure:
    """The figure; some level has an effect."""
    from matplotlib.figure import Figure

    rows = _rows(readout)
    height = _ABOVE + _BELOW + _ROW * (len(rows) + 1)
    made = Figure(figsize=(WIDTH, height))
    money = any(one.net_low is not None for one in rows)
    bottom, tall = _BELOW / height, _ROW * (len(rows) + 1) / height
    left, width = _TWO[0] if money else _ONE
    axes = made.add_axes((left, bottom, width, tall))
    _effects(axes, readout, rows)
    _names(axes, rows)
    if money:
        _net(made.add_axes((_TWO[1][0], bottom, _TWO[1][1], tall)), readout, rows)
    arm = f" of {named(rows[0].result.arm)}" if rows else ""
    made.text(0.012, 1 - 0.24 / height, fit(f"{TITLE}{arm}", 7.7, 11, "bold"), fontsize=11, weight="bold")
    note = (
        f"Filled: the level alone, {level(readout.alpha)} interval; hollow: pooled; line and band: the average; "
        "bold: recommended"
    )
    made.text(0.012, 1 - 0.45 / height, fit(note, 7.8, 8.5), fontsize=8.5, color=MUTED)
    return made


def _rows(readout: Readout) -> list[SegmentResult]:
    """Levels under the arm that the decision is about, on the first primary."""
    rows = [one for one in rows_of(readout) if one.result.ci_low is not None and one.result.ci_high is not None]
    mine = [one for one in rows if one.result.arm == readout.decision.treatment] or rows
    return [one for one in mine if (one.result.metric, one.result.arm) == _first(mine)][:_SHOWN]


def _first(rows: list[SegmentResult]) -> tuple[str, str]:
    return rows[0].result.metric, rows[0].result.arm


def _average(readout: Readout, rows: list[SegmentResult]) -> MetricResult | None:
    found = (m for m in readout.metrics if (m.metric, m.arm) == _first(rows))
    return next((m for m in found if m.estimate is not None), None)


def _effects(axes: Axes, readout: Readout, rows: list[SegmentResult]) -> None:
    average = _average(readout, rows)
    if average is not None and average.estimate is not None:
        if average.ci_low is not None and average.ci_high is not None:
            axes.axvspan(average.ci_low, average.ci_high, color=BLUE, alpha=0.12, linewidth=0, zorder=0)
        axes.axvline(average.estimate, color=BLUE, linewidth=0.9, zorder=1)
    axes.axvline(0.0, color=RULE, linewidth=0.9, linestyle=(0, (3, 2)), zorder=1)
    for place, one in enumerate(rows):
        m = one.result
        if m.estimate is None or m.ci_low is None or m.ci_high is None:
            continue
        colour = BLUE if one.recommended else INK
        axes.plot([m.ci_low, m.ci_high], [place, place], color=colour, linewidth=1.2, zorder=2)
        axes.plot([m.estimate], [place], marker="s", markersize=5, color=colour, linestyle="none", zorder=3)
        if one.pooled is not None and one.pooled_low is not None and one.pooled_high is not None:
            low = place + 0.26
            axes.plot([one.pooled_low, one.pooled_high], [low, low], color=MUTED, linewidth=0.8, zorder=2)
            axes.plot([one.pooled], [low], marker="o", markersize=4, color=MUTED, fillstyle="none", linestyle="none")
    _dress(axes, len(rows), fit(f"effect on {rows[0].result.metric}", 3.0, 8))


def _net(axes: Axes, readout: Readout, rows: list[SegmentResult]) -> None:
    bar = float((readout.economics or {}).get("bar") or 0.0)
    axes.axvline(bar, color=VERMILLION, linewidth=0.9, zorder=1)
    for place, one in enumerate(rows):
        if one.net is None or one.net_low is None or one.net_high is None:
            continue
        colour = BLUE if one.recommended else INK
        axes.plot([one.net_low, one.net_high], [place, place], color=colour, linewidth=1.2, zorder=2)
        axes.plot([one.net], [place], marker="s", markersize=5, color=colour, linestyle="none", zorder=3)
    _dress(axes, len(rows), "net USD per 1,000 (all levels at once)")
    axes.annotate("bar", (bar, 1.0), (2, 1), xycoords=("data", "axes fraction"), textcoords="offset points",
                  fontsize=7.5, color=VERMILLION)  # fmt: skip


def _names(axes: Axes, rows: list[SegmentResult]) -> None:
    for place, one in enumerate(rows):
        inches = _NAMES * WIDTH - 0.15
        weight = "bold" if one.recommended else "normal"
        y = 1.0 - (place + 0.8) / (len(rows) + 0.6)
        axes.text(-0.03, y, fit(one.said, inches, 9, weight), transform=axes.transAxes, ha="right", va="center",
                  weight=weight)  # fmt: skip


def _dress(axes: Axes, n: int, label: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_ylim(n - 0.2, -0.8)
    axes.set_yticks([])
    axes.set_xlabel(label, fontsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.tick_params(labelsize=8, length=3)
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
