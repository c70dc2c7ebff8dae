"""The treated and their mix over time, and the gap between them among those of placebos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from readout.memo.numbers import number
from readout.memo.svg import BLUE, MUTED, RULE, VERMILLION, WIDTH, fit
from readout.results import Readout

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE: Final = "Synthetic control"
_HEIGHT: Final = 4.3  # inches
_PLACEBO: Final = "#c9c9c9"
_TICKS: Final = 6


def drawable(readout: Readout) -> bool:
    """Whether there is a gap to draw."""
    return readout.design.get("kind") == "synthetic_control" and bool(readout.diagnostics.get("gap"))


def sentence(readout: Readout) -> str:
    """What the figure shows, in words."""
    gap = readout.diagnostics["gap"]
    n = len(_placebos(readout))
    among = f" among those of {n} placebos" if n else ""
    return (
        f"{_title(readout)}: treated and synthetic control by period, and their gap{among}; "
        f"{number(gap[0]['gap'], 3, True)} in the first period, {number(gap[-1]['gap'], 3, True)} in the last"
    )


def figure(readout: Readout) -> Figure:
    """The figure; the readout has a gap."""
    from matplotlib.figure import Figure

    shown = readout.diagnostics
    gap: Sequence[Mapping[str, Any]] = shown["gap"]
    drawn = Figure(figsize=(WIDTH, _HEIGHT))
    above = drawn.add_axes((0.085, 0.53, 0.89, 0.31))
    below = drawn.add_axes((0.085, 0.12, 0.89, 0.31), sharex=above)
    at = range(len(gap))
    above.plot(at, [row["treated"] for row in gap], color=VERMILLION, linewidth=1.5, label="treated")
    above.plot(at, [row["synthetic"] for row in gap], color=BLUE, linewidth=1.5, linestyle="--", label="mix")
    above.legend(fontsize=8, frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0.0, 0.98), borderaxespad=0.0)
    placebos = _placebos(readout)
    for row in placebos:
        below.plot(at, row["gap"], color=_PLACEBO, linewidth=0.7)
    below.axhline(0.0, color=RULE, linewidth=0.8)
    below.plot(at, [row["gap"] for row in gap], color=VERMILLION, linewidth=1.5)
    start = int(readout.design["periods_before"]) - 0.5
    for axes in (above, below):
        axes.axvline(start, color=MUTED, linewidth=0.8, linestyle=":")
        axes.tick_params(labelsize=8, length=3)
        for side in ("right", "top"):
            axes.spines[side].set_visible(False)
    above.tick_params(labelbottom=False)
    _periods(below, [str(row["period"]) for row in gap])
    title = "Gap; grey: those of placebos" if placebos else "Gap"
    below.set_title(title, fontsize=8.5, loc="left", color=MUTED)
    drawn.text(0.012, 1 - 0.24 / _HEIGHT, fit(_title(readout), 6.5, 11, "bold"), fontsize=11, weight="bold")
    note = "Dotted: the rollout. The mix was fitted before it; from it on the gap is the effect, if all else went on"
    drawn.text(0.012, 1 - 0.45 / _HEIGHT, fit(note, 7.8, 8.5), fontsize=8.5, color=MUTED)
    return drawn


def _placebos(readout: Readout) -> list[Mapping[str, Any]]:
    """Those that have a gap to draw: synthetic_did keeps their estimates alone."""
    return [row for row in readout.diagnostics.get("placebos") or [] if row.get("gap")]


def _title(readout: Readout) -> str:
    first = next(m for m in readout.metrics if m.role == "primary")
    treated = ", ".join(readout.design.get("treated") or ())
    return f"{first.metric} of {treated}"


def _periods(axes: Axes, labels: Sequence[str]) -> None:
    step = max(1, -(-len(labels) // _TICKS))
    places = list(range(0, len(labels), step))
    axes.set_xticks(places, [fit(labels[i], 1.3, 8) for i in places])
