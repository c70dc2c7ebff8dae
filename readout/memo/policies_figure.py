"""What each policy is worth, with intervals: the logging policy, the target, and those that always do the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from readout.memo.numbers import level, number
from readout.memo.policy_section import shown_first
from readout.memo.svg import BLUE, MUTED, RULE, VERMILLION, WIDTH, fit
from readout.results import Readout

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE: Final = "Value of each policy"
_ROW: Final = 0.27  # inches
_MOST: Final = 22
_SPOKEN: Final = 6

Row = Mapping[str, Any]


def drawable(readout: Readout) -> bool:
    """Whether there are policies with a value."""
    return readout.design.get("kind") == "ope" and len(_rows(readout)) > 1


def sentence(readout: Readout) -> str:
    """What the figure shows, in words."""
    rows = _rows(readout)
    said = [f"{row['policy']} {number(row['value'])}{_interval(row)}" for row in rows[:_SPOKEN]]
    more = f"; and {len(rows) - _SPOKEN} more" if len(rows) > _SPOKEN else ""
    return f"Value of {rows[0]['metric']} by policy: {'; '.join(said)}{more}"


def figure(readout: Readout) -> Figure:
    """The figure; the readout has values of policies."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    rows = _rows(readout)
    height = 1.15 + _ROW * len(rows)
    drawn = Figure(figsize=(WIDTH, height))
    axes = drawn.add_axes((0.27, 0.5 / height, 0.69, (_ROW * len(rows)) / height))
    axes.axvline(rows[0]["value"], color=RULE, linewidth=1.0, linestyle=(0, (4, 3)))
    for i, row in enumerate(rows):
        at = len(rows) - 1 - i
        colour = VERMILLION if i == 1 else MUTED if i == 0 else BLUE
        marker = "D" if i == 1 else "s" if i == 0 else "o"
        if row["ci_low"] is not None:
            axes.plot([row["ci_low"], row["ci_high"]], [at, at], color=colour, linewidth=1.6)
        axes.plot([row["value"]], [at], marker=marker, markersize=6 if i < 2 else 5, color=colour)
    axes.set_yticks(range(len(rows)), [fit(str(row["policy"]), 1.95, 9) for row in reversed(rows)])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.margins(x=0.06)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.tick_params(labelsize=8.5, length=3)
    axes.tick_params(axis="y", length=0)
    for side in ("right", "top", "left"):
        axes.spines[side].set_visible(False)
    axes.set_xlabel(fit(str(rows[0]["metric"]), 5.0, 8.5), fontsize=8.5)
    heading = fit(f"{rows[0]['metric']} under each policy", 7.5, 11, "bold")
    drawn.text(0.012, 1 - 0.24 / height, heading, fontsize=11, weight="bold")
    note = f"Bars: {level(readout.alpha)} intervals; dashed: the logging policy; policies without support are left out"
    drawn.text(0.012, 1 - 0.45 / height, fit(note, 7.8, 8.5), fontsize=8.5, color=MUTED)
    return drawn


def _rows(readout: Readout) -> list[Row]:
    rows = shown_first(readout)
    first = [row for row in rows[:2] if row["value"] is not None]
    return first + [row for row in rows[2:] if row["value"] is not None and row["supported"]][: _MOST - 2]


def _interval(row: Row) -> str:
    return "" if row["ci_low"] is None else f" [{number(row['ci_low'])}, {number(row['ci_high'])}]"
