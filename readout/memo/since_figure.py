"""A switchback's effect, and what the block before still does, by minutes since the switch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from readout.memo.drawn import since_rows
from readout.memo.svg import BLUE, MUTED, RULE, VERMILLION, WIDTH, fit
from readout.results import Readout
from readout.text import named

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HEIGHT: Final = 2.7  # inches
_PANELS: Final = (
    ("effect", "std_error", "Effect of the block's own arm", BLUE),
    ("carryover", "carryover_std_error", "Effect of the block before", VERMILLION),
)
_NORMAL: Final = 1.96

Row = Mapping[str, Any]


def since_figure(readout: Readout) -> Figure:
    """The figure; the readout has at least one bin with an effect."""
    from matplotlib.figure import Figure

    rows = since_rows(readout)
    figure = Figure(figsize=(WIDTH, _HEIGHT))
    shared: Axes | None = None
    for i, (value, error, title, colour) in enumerate(_PANELS):
        axes = figure.add_axes((0.085 + 0.475 * i, 0.2, 0.415, 0.46), sharey=shared)
        shared = shared or axes
        _panel(axes, rows, value, error, colour)
        axes.set_title(title, fontsize=9, loc="left", color=colour)
    against = f"{named(rows[0]['arm'])} against {named(str(readout.design.get('control')))}"
    arm = fit(f"{rows[0]['metric']}: {against}", 6.5, 11, "bold")
    figure.text(0.012, 1 - 0.24 / _HEIGHT, arm, fontsize=11, weight="bold")
    note = "By minutes since the block began, washout included; bars: 95 % of each bin alone"
    figure.text(0.012, 1 - 0.45 / _HEIGHT, note, fontsize=8.5, color=MUTED)
    return figure


def _panel(axes: Axes, rows: Sequence[Row], value: str, error: str, colour: str) -> None:
    from matplotlib.ticker import MaxNLocator

    width = rows[1]["minutes"] - rows[0]["minutes"] if len(rows) > 1 else 1.0
    finite = [row for row in rows if math.isfinite(row[value]) and math.isfinite(row[error])]
    middle = [row["minutes"] + width / 2 for row in finite]
    axes.axhline(0.0, color=RULE, linewidth=0.8)
    axes.errorbar(
        middle, [row[value] for row in finite], yerr=[_NORMAL * row[error] for row in finite], fmt="o", markersize=3.2,
        color=colour, ecolor=colour, elinewidth=0.9, capsize=0,
    )  # fmt: skip
    axes.set_xlim(left=0.0)
    axes.set_xlabel("minutes since the block began", fontsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.tick_params(labelsize=8, length=3)
    for side in ("right", "top"):
        axes.spines[side].set_visible(False)
