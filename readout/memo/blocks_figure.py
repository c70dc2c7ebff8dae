"""A switchback's blocks over time: one panel a cluster, cell means coloured by arm."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from readout.memo.drawn import blocks_metric
from readout.memo.svg import MARKERS, MUTED, PALETTE, RULE, WIDTH, fit
from readout.results import BlockPoint, Readout

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANELS_SHOWN = 12
_BLOCKS_SHOWN = 400  # of one cluster, the latest
_PANEL, _GAP, _ABOVE, _BELOW = 1.05, 0.3, 0.68, 0.42  # inches
_ARMS_A_ROW, _LEGEND_ROW = 4, 0.2
_CONTROL: Final = (MUTED, "o")


def blocks_figure(readout: Readout) -> Figure:
    """The figure; the readout has at least one finite block value."""
    from matplotlib.figure import Figure

    points = sorted((p for p in readout.blocks if math.isfinite(p.value)), key=lambda p: (p.cluster, p.start, p.arm))
    clusters = sorted({p.cluster for p in points}, key=_natural)
    panels = [[p for p in points if p.cluster == cluster][-_BLOCKS_SHOWN:] for cluster in clusters[:_PANELS_SHOWN]]
    styles = _styles(readout, points)
    above = _ABOVE + _LEGEND_ROW * math.ceil(len(styles) / _ARMS_A_ROW)
    height = above + len(panels) * (_PANEL + _GAP) + _BELOW
    figure = Figure(figsize=(WIDTH, height))
    first: Axes | None = None
    for i, panel in enumerate(panels):
        bottom = height - above - (i + 1) * (_PANEL + _GAP) + 0.12
        axes = figure.add_axes((0.085, bottom / height, 0.88, _PANEL / height), sharex=first)
        first = first or axes
        axes.set_ylim(*_limits(panel))
        _panel(axes, panel, styles, last=i == len(panels) - 1)
    _heading(figure, readout, panels, clusters, height)
    _legend(figure, styles, height)
    return figure


def _natural(text: str) -> list[str | int]:
    """A sorting key that sets ``pool-2`` before ``pool-10``: text and numbers in turn."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d{1,15})", text))]


def _styles(readout: Readout, points: Sequence[BlockPoint]) -> dict[str, tuple[str, str]]:
    """Colour and marker by arm: control muted, treatments from the palette."""
    control = readout.design.get("control")
    treatments = [arm for arm in sorted({p.arm for p in points}) if arm != control]
    styles = {str(control): _CONTROL} if any(p.arm == control for p in points) else {}
    for i, arm in enumerate(treatments):
        styles[arm] = (PALETTE[i % len(PALETTE)], MARKERS[(i + 1) % len(MARKERS)])
    return styles


def _limits(points: Sequence[BlockPoint]) -> tuple[float, float]:
    low, high = min(p.value for p in points), max(p.value for p in points)
    room = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
    return low - room, high + room


def _panel(axes: Axes, points: Sequence[BlockPoint], styles: dict[str, tuple[str, str]], last: bool) -> None:
    from matplotlib import dates
    from matplotlib.ticker import MaxNLocator

    untyped: Any = dates

    for arm, (colour, marker) in styles.items():
        chosen = [p for p in points if p.arm == arm]
        if not chosen:
            continue
        values = [p.value for p in chosen]
        times = [float(untyped.date2num(_time(p.start))) for p in chosen]
        axes.plot(times, values, linestyle="none", marker=marker, markersize=3.2, color=colour, markeredgewidth=0)
        axes.axhline(math.fsum(values) / len(values), color=colour, linewidth=1.1, zorder=1)
    locator = untyped.AutoDateLocator(tz=UTC, minticks=3, maxticks=8)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(untyped.ConciseDateFormatter(locator, tz=UTC))
    axes.yaxis.set_major_locator(MaxNLocator(3))
    axes.tick_params(labelsize=8, length=3, labelbottom=last)
    axes.grid(axis="y", color=RULE, linewidth=0.4)
    axes.set_axisbelow(True)
    for side in ("right", "top"):
        axes.spines[side].set_visible(False)
    axes.text(
        0.0, 1.04, fit(points[0].cluster, 7.0, 8.5), transform=axes.transAxes, ha="left", va="bottom", fontsize=8.5
    )


def _time(text: str) -> datetime:
    """A block's start in UTC; a time without a zone is UTC already."""
    time = datetime.fromisoformat(text)
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _heading(
    figure: Figure, readout: Readout, panels: Sequence[Sequence[BlockPoint]], clusters: Sequence[str], height: float
) -> None:
    title = f"{fit(blocks_metric(readout), 6.5, 11, 'bold')} by block"
    note = "Cell means over time (UTC); lines: each arm's mean of these; each panel has its own scale"
    if len(clusters) > len(panels):
        note += f"; first {len(panels)} of {len(clusters)} clusters"
    if any(len(panel) == _BLOCKS_SHOWN for panel in panels):
        note += f"; latest {_BLOCKS_SHOWN} blocks"
    figure.text(0.012, 1 - 0.24 / height, title, fontsize=11, weight="bold")
    figure.text(0.012, 1 - 0.45 / height, note, fontsize=8.5, color=MUTED)


def _legend(figure: Figure, styles: dict[str, tuple[str, str]], height: float) -> None:
    from matplotlib.lines import Line2D

    handles: list[Any] = [
        Line2D([], [], marker=marker, color=colour, linewidth=1.1, markersize=5, label=fit(arm, 1.3, 8.5))
        for arm, (colour, marker) in styles.items()
    ]
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0.0, 1 - 0.5 / height), ncols=_ARMS_A_ROW, frameon=False,
        fontsize=8.5, columnspacing=1.4,
    )  # fmt: skip
