"""Relative effects on one axis, one row a metric and arm, against minimum effects and margins."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from readout.memo import words
from readout.memo.drawn import on_relative_axis, spec_effect
from readout.memo.numbers import DASH, level, relative
from readout.memo.svg import BLUE, INK, MUTED, RULE, VERMILLION, WIDTH, fit
from readout.results import MetricResult, Readout
from readout.text import named

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROWS_SHOWN = 24
_ROW, _ABOVE, _BELOW = 0.46, 0.62, 0.86  # inches
_LEFT, _RIGHT = 0.245, 0.66  # the axis, as shares of the width; names stand left of it, numbers right
_NAME_WIDTH = _LEFT * WIDTH - 0.2  # inches
_MINIMUM_EFFECT: Final = "#e3e3e3"
_ACCEPTED_HARM: Final = "#f9dcc4"

# Verdict: marker, colour, filled. Shape and filling tell them apart without colour.
_STYLE: Final[dict[str, tuple[str, str, bool]]] = {
    "better": ("o", BLUE, True),
    "worse": ("s", VERMILLION, True),
    "no effect": ("o", MUTED, False),
    "inconclusive": ("D", INK, False),
    DASH: ("|", MUTED, True),
}


def effects_figure(readout: Readout) -> Figure:
    """The figure; the readout has at least one result on a relative axis."""
    from matplotlib.figure import Figure

    every = on_relative_axis(readout)
    rows = every[:_ROWS_SHOWN]
    height = _ABOVE + _ROW * len(rows) + _BELOW
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.add_axes((_LEFT, _BELOW / height, _RIGHT - _LEFT, _ROW * len(rows) / height))
    reach = _reach(rows)
    axes.set_xlim(-reach, reach)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    _dress(axes, rows)
    arms = words.several_arms(readout)
    for y, metric in enumerate(rows):
        _bands(axes, y, metric)
        _interval(axes, y, metric, reach)
        _texts(axes, y, metric, arms)
    of_arm = "s" if arms else f" of {named(rows[0].arm)}"
    title = fit(f"Relative effect{of_arm} against {named(rows[0].control)}", WIDTH - 0.2, 11, "bold")
    figure.text(0.012, 1 - 0.24 / height, title, fontsize=11, weight="bold")
    _subtitle(figure, readout, left_out=len(readout.metrics) - len(rows), height=height)
    _legend(figure, rows, height)
    return figure


def _subtitle(figure: Figure, readout: Readout, left_out: int, height: float) -> None:
    note = f"Points with {level(readout.alpha)} {words.intervals(readout)}"
    if left_out:
        note += f"; {left_out} more in the memo's tables"
    failed = words.undermining(readout)
    if failed:
        names = fit(", ".join(check.name for check in failed), 2.6, 8.5)
        note += f". Failed: {names}; these may not be the treatment's effects."
    figure.text(0.012, 1 - 0.46 / height, note, fontsize=8.5, color=VERMILLION if failed else MUTED)


def _percent_ends(metric: MetricResult) -> tuple[float, float, float]:
    """Estimate and interval in percent."""
    ends = (metric.relative, metric.relative_ci_low, metric.relative_ci_high)
    estimate, low, high = (100 * end for end in ends if end is not None)
    return estimate, low, high


def _reach(rows: Sequence[MetricResult]) -> float:
    """Half the axis, in percent: all of the primary intervals, and of the others what does not flatten them."""
    reaches, needed = [], 0.0
    for metric in rows:
        reach = max(abs(end) for end in _percent_ends(metric))
        limits = [spec_effect(text, metric.control_value) for text in (metric.margin, metric.minimum_effect)]
        with_limits = max(reach, *(min(100 * x, 3 * reach) for x in limits if x is not None), 0.0)
        reaches.append(with_limits)
        if metric.role == "primary":
            needed = max(needed, with_limits)
    return 1.08 * min(max(reaches), max(3 * needed, 4 * statistics.median(reaches))) or 1.0


def _dress(axes: Axes, rows: Sequence[MetricResult]) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.axvline(0, color=MUTED, linewidth=0.9, zorder=2)
    for y in range(1, len(rows)):
        axes.axhline(y - 0.5, color=RULE, linewidth=0.5, zorder=1)
    axes.set_yticks([])
    axes.xaxis.set_major_locator(MaxNLocator(5, symmetric=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value + 0.0:+g} %" if value else "0"))
    axes.tick_params(axis="x", labelsize=8, length=3)
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)


def _bands(axes: Axes, y: int, metric: MetricResult) -> None:
    """The smallest effect worth acting on, to both sides, and the harm a guardrail accepts, to the harmful side."""
    minimum = spec_effect(metric.minimum_effect, metric.control_value)
    if minimum is not None:
        axes.barh(y, 200 * minimum, left=-100 * minimum, height=0.72, color=_MINIMUM_EFFECT, zorder=0)
    margin = spec_effect(metric.margin, metric.control_value)
    if margin is not None:
        end = 100 * margin if metric.better == "lower" else -100 * margin
        axes.barh(y, end, height=0.72, color=_ACCEPTED_HARM, zorder=0)
        axes.plot([end, end], [y - 0.36, y + 0.36], color=VERMILLION, linewidth=1.6, zorder=2)


def _interval(axes: Axes, y: int, metric: MetricResult, reach: float) -> None:
    """Interval and point; an end beyond the axis becomes an arrow at its edge."""
    estimate, low, high = _percent_ends(metric)
    marker, colour, filled = _STYLE[words.verdict(metric)]
    edge = 0.985 * reach
    axes.plot([max(low, -edge), min(high, edge)], [y, y], color=colour, linewidth=1.6, zorder=3)
    for beyond, at, arrow in ((low < -edge, -edge, "<"), (high > edge, edge, ">")):
        if beyond:
            axes.plot([at], [y], marker=arrow, markersize=5, color=colour, zorder=3)
    if abs(estimate) <= edge:
        face = colour if filled else "white"
        axes.plot([estimate], [y], marker=marker, markersize=6.5, color=colour, markerfacecolor=face, zorder=4)


def _texts(axes: Axes, y: int, metric: MetricResult, arms: bool) -> None:
    beside: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "clip_on": False}
    primary = metric.role == "primary"
    first = metric.arm if arms else metric.role.replace("_", " ")
    weight = "bold" if primary else "normal"
    title = fit(metric.metric, _NAME_WIDTH, weight=weight)
    axes.text(-0.03, y - 0.05, title, ha="right", va="bottom", weight=weight, **beside)
    under = f"{fit(first, _NAME_WIDTH - 0.85, 7.5)}, {metric.better} is better"
    axes.text(-0.03, y + 0.05, under, ha="right", va="top", fontsize=7.5, color=MUTED, **beside)
    shown = relative(metric.relative, metric.relative_ci_low, metric.relative_ci_high)
    reading = words.verdict(metric) if metric.verdict else "verdict withheld"
    if metric.guardrail is not None:
        reading += f"; guardrail {words.guardrail(metric)}"
    harmed = metric.guardrail == "harmed"
    axes.text(1.03, y - 0.05, shown, ha="left", va="bottom", **beside)
    axes.text(
        1.03, y + 0.05, reading, ha="left", va="top", fontsize=7.5,
        color=VERMILLION if harmed else _STYLE[words.verdict(metric)][1], **beside,
    )  # fmt: skip


def _legend(figure: Figure, rows: Sequence[MetricResult], height: float) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = []
    for verdict, (marker, colour, filled) in _STYLE.items():
        if any(words.verdict(metric) == verdict for metric in rows):
            face = colour if filled else "white"
            text = "verdict withheld" if verdict == DASH else verdict
            handles.append(Line2D([], [], marker=marker, color=colour, markerfacecolor=face, label=text))
    if any(metric.minimum_effect for metric in rows):
        handles.append(Patch(color=_MINIMUM_EFFECT, label="within minimum effect"))
    if any(metric.margin for metric in rows):
        handles.append(Patch(facecolor=_ACCEPTED_HARM, edgecolor=VERMILLION, label="accepted harm, up to margin"))
    figure.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0.005, 0.04 / height), ncols=math.ceil(len(handles) / 2),
        frameon=False, fontsize=8, labelcolor=MUTED, handlelength=1.8, columnspacing=1.6,
    )  # fmt: skip
