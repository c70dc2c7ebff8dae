"""The share of windows over the limit by hour of day, a line an arm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from readout.memo.numbers import number
from readout.memo.svg import MARKERS, MUTED, PALETTE, RULE, WIDTH, fit
from readout.results import Readout

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HEIGHT: Final = 2.9
_POOL: Final = "all windows"


def drawable(readout: Readout) -> bool:
    """Whether there is a window over the limit to show."""
    return bool(readout.capacity) and any(row["over"] for row in (readout.capacity or {})["hours"])


def capacity_figure(readout: Readout) -> Figure:
    """The figure; some window is over the limit."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    found = readout.capacity or {}
    figure = Figure(figsize=(WIDTH, _HEIGHT))
    axes = figure.add_axes((0.085, 0.17, 0.88, 0.56))
    for arm, (colour, marker) in _styles(readout, found).items():
        mine = [row for row in found["hours"] if (row["arm"] or _POOL) == arm and row["windows"]]
        shares = [100 * row["over"] / row["windows"] for row in mine]
        axes.plot(
            [row["hour"] for row in mine], shares, color=colour, marker=marker, markersize=3.6, linewidth=1.1,
            label=fit(arm, 1.3, 8.5),
        )  # fmt: skip
    axes.set_xlim(-0.5, 23.5)
    axes.set_ylim(bottom=0)
    axes.set_xticks(range(0, 24, 3))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.set_xlabel("hour of day (UTC)", fontsize=8.5)
    axes.tick_params(labelsize=8, length=3)
    axes.grid(axis="y", color=RULE, linewidth=0.4)
    axes.set_axisbelow(True)
    for side in ("right", "top"):
        axes.spines[side].set_visible(False)
    title = f"Windows with {fit(found['load'], 4.5, 11, 'bold')} over {number(found['limit'])}"
    figure.text(0.012, 1 - 0.24 / _HEIGHT, title, fontsize=11, weight="bold")
    note = f"Per cent of windows of {found['window']} by hour of day, as logged and not adjusted"
    figure.text(0.012, 1 - 0.45 / _HEIGHT, note, fontsize=8.5, color=MUTED)
    figure.legend(
        loc="upper left", bbox_to_anchor=(0.0, 1 - 0.5 / _HEIGHT), ncols=4, frameon=False, fontsize=8.5,
        columnspacing=1.4,
    )  # fmt: skip
    return figure


def _styles(readout: Readout, found: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Colour and marker by arm: control muted, treatments from the palette."""
    arms = list(dict.fromkeys(row["arm"] or _POOL for row in found["hours"]))
    control = readout.design.get("control")
    styles = {}
    treatments = sorted(arm for arm in arms if arm != control)
    for i, arm in enumerate([*(a for a in arms if a == control), *treatments]):
        treated = treatments.index(arm) if arm in treatments else -1
        styles[arm] = (
            (MUTED, "o") if treated < 0 else (PALETTE[treated % len(PALETTE)], MARKERS[(i + 1) % len(MARKERS)])
        )
    return styles
