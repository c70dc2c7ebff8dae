"""Propensities by action: where rows of both stand, and where only one action's do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from readout.memo.drawn import arm_read
from readout.memo.numbers import percent
from readout.memo.svg import BLUE, MUTED, RULE, VERMILLION, WIDTH, fit
from readout.results import Readout
from readout.text import named

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE: Final = "Overlap of the actions"
_HEIGHT: Final = 2.9  # inches

Row = Mapping[str, Any]


def drawable(readout: Readout) -> bool:
    """Whether there are propensities."""
    return bool(_rows(readout))


def sentence(readout: Readout) -> str:
    """What the figure shows, in words."""
    rows = _rows(readout)
    parts = []
    for side, name in _sides(readout):
        n = sum(row[side] for row in rows)
        middle = sum(row[side] for row in rows if row["from"] >= 0.1 - 1e-9 and row["to"] <= 0.9 + 1e-9)
        parts.append(f"{percent(middle / n if n else None)} of the rows of {named(name)}")
    return (
        f"Fitted probability of {named(_treated(readout))} by action: between 10 % and 90 % for {' and '.join(parts)}"
    )


def figure(readout: Readout) -> Figure:
    """The figure; the readout has propensities."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    rows = _rows(readout)
    made = Figure(figsize=(WIDTH, _HEIGHT))
    axes = made.add_axes((0.075, 0.17, 0.91, 0.6))
    edges = [row["from"] for row in rows] + [rows[-1]["to"]]
    for (side, name), color, sign in zip(_sides(readout), (BLUE, VERMILLION), (-1.0, 1.0), strict=True):
        total = sum(row[side] for row in rows) or 1
        shares = [sign * row[side] / total for row in rows]
        axes.stairs(shares, edges, fill=True, color=color, alpha=0.55, label=fit(name, 3.0, 8.5))
    axes.axhline(0.0, color=RULE, linewidth=0.9)
    axes.set_xlim(0.0, 1.0)
    axes.set_xlabel(fit(f"fitted probability of {_treated(readout)}, given the adjusters", 7.0, 8), fontsize=8)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * abs(value):.3g} %"))
    axes.tick_params(labelsize=8, length=3)
    for side in ("right", "top"):
        axes.spines[side].set_visible(False)
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, frameon=False, fontsize=8.5, borderaxespad=0.2)
    title = fit(f"Who might have met the other action: probability of {_treated(readout)}", 7.7, 11, "bold")
    made.text(0.012, 1 - 0.24 / _HEIGHT, title, fontsize=11, weight="bold")
    note = "Shares of either action's rows; those opposite nothing cannot be compared"
    made.text(0.012, 1 - 0.45 / _HEIGHT, fit(note, 7.8, 8.5), fontsize=8.5, color=MUTED)
    return made


def _treated(readout: Readout) -> str:
    return arm_read(readout, "propensity_histogram")


def _sides(readout: Readout) -> tuple[tuple[str, str], tuple[str, str]]:
    return ("control", str(readout.design["control"])), ("treatment", _treated(readout))


def _rows(readout: Readout) -> list[Row]:
    """The arm's that the decision is about, else the first's."""
    rows = readout.diagnostics.get("propensity_histogram") or ()
    return [row for row in rows if row["arm"] == _treated(readout)]
