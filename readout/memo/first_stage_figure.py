"""Who is treated and how they fare, by the value of the instrument: first stage and reduced form side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from readout.memo.numbers import number
from readout.memo.svg import BLUE, MUTED, VERMILLION, WIDTH, fit
from readout.results import Readout
from readout.text import named

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE: Final = "First stage and reduced form"
_HEIGHT: Final = 3.0  # inches
_LEVELS: Final = 6  # named on the axis

Row = Mapping[str, Any]


def drawable(readout: Readout) -> bool:
    """Whether there are two values of the instrument to draw."""
    shown = readout.diagnostics.get("instrument_bins") or {}
    return readout.design.get("kind") == "iv" and len(shown.get("bins") or ()) > 1


def sentence(readout: Readout) -> str:
    """What the figure shows, in words."""
    shown = readout.diagnostics["instrument_bins"]
    low, high = shown["bins"][0], shown["bins"][-1]
    ends = [f"{number(row['taken'])} and {number(row['outcome'])} at {_label(readout, row)}" for row in (low, high)]
    return f"{_taken(readout)} and mean {shown['metric']} by {_instrument(readout)}: {', '.join(ends)}"


def figure(readout: Readout) -> Figure:
    """The figure; the readout has bins of the instrument."""
    from matplotlib.figure import Figure

    shown = readout.diagnostics["instrument_bins"]
    rows: Sequence[Row] = shown["bins"]
    drawn = Figure(figsize=(WIDTH, _HEIGHT))
    titles = (("taken", _taken(readout), BLUE), ("outcome", f"Mean {shown['metric']}", VERMILLION))
    for i, (name, title, colour) in enumerate(titles):
        axes = drawn.add_axes((0.085 + 0.485 * i, 0.19, 0.405, 0.47))
        _panel(axes, readout, rows, name, colour)
        axes.set_title(fit(title, 3.1, 9), fontsize=9, loc="left", color=colour)
    heading = fit(f"Action and {shown['metric']} by {_instrument(readout)}", 7.5, 11, "bold")
    drawn.text(0.012, 1 - 0.24 / _HEIGHT, heading, fontsize=11, weight="bold")
    adjusted = ", adjusters taken out" if shown["adjusted"] else ""
    note = f"The effect is the slope on the right over the slope on the left; bars: 95 % of each mean{adjusted}"
    drawn.text(0.012, 1 - 0.45 / _HEIGHT, fit(note, 7.8, 8.5), fontsize=8.5, color=MUTED)
    return drawn


def _panel(axes: Axes, readout: Readout, rows: Sequence[Row], name: str, colour: str) -> None:
    from matplotlib.ticker import MaxNLocator

    at = [row["at"] for row in rows]
    middle = [row[name] for row in rows]
    ends = [
        [m - row[f"{name}_low"] for m, row in zip(middle, rows, strict=True)],
        [row[f"{name}_high"] - m for m, row in zip(middle, rows, strict=True)],
    ]
    axes.errorbar(at, middle, yerr=ends, fmt="o", markersize=4, color=colour, ecolor=colour, elinewidth=1.0)
    axes.plot(at, middle, color=colour, linewidth=0.8, alpha=0.5)
    axes.margins(x=0.15, y=0.12)
    if all(row["label"] for row in rows) and len(rows) <= _LEVELS:
        axes.set_xticks(at, [fit(_label(readout, row), 1.3, 8) for row in rows])
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel(fit(_instrument(readout), 3.1, 8), fontsize=8)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.tick_params(labelsize=8, length=3)
    for side in ("right", "top"):
        axes.spines[side].set_visible(False)


def _taken(readout: Readout) -> str:
    if readout.diagnostics["instrument_bins"]["amount"]:
        return "Mean of the executed action"
    return f"Share on which {named(str(readout.decision.treatment))} ran"


def _instrument(readout: Readout) -> str:
    shown = readout.diagnostics["instrument_bins"]
    if shown["arm"]:
        return "assigned arm"
    several = len(readout.design.get("instruments") or ()) > 1
    fitted = not all(row["label"] for row in shown["bins"]) and (several or shown["adjusted"])
    return f"the action as told by {shown['instrument']}" if fitted else str(shown["instrument"])


def _label(readout: Readout, row: Row) -> str:
    """The instrument's value, and of the assigned arm its name."""
    if readout.diagnostics["instrument_bins"]["arm"]:
        return str(readout.decision.treatment if row["at"] else readout.design.get("control"))
    return str(row["label"]) or number(row["at"])
