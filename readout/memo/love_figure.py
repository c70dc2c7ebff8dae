"""Love plot: how unlike the actions are in each covariate, before weighting and after it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from readout.memo.drawn import arm_read
from readout.memo.numbers import number
from readout.memo.svg import BLUE, MUTED, RULE, VERMILLION, WIDTH, fit
from readout.results import Readout
from readout.text import visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE: Final = "Balance before and after weighting"
_MOST = 24  # covariates drawn, the most unlike; the table has them all
_ROW: Final = 0.2  # inches
_WORD = 0.1

Row = Mapping[str, Any]


def drawable(readout: Readout) -> bool:
    """Whether covariates were compared before and after weighting."""
    return readout.design.get("kind") == "observational" and bool(_rows(readout))


def sentence(readout: Readout) -> str:
    """What the figure shows, in words."""
    rows = _rows(readout)
    counts = {when: sum(abs(row[when]) > _WORD for row in rows) for when in ("before", "after")}
    most = max(rows, key=lambda row: abs(row["before"]))
    return (
        f"Standardised differences between the actions in {len(rows)} covariates: over 0.1 in {counts['before']} "
        f"before weighting and {counts['after']} after; the largest before is {visible(most['covariate'], 60)}, "
        f"{number(most['before'], 2, True)} before and {number(most['after'], 2, True)} after"
    )


def figure(readout: Readout) -> Figure:
    """The figure; the readout has a balance table."""
    from matplotlib.figure import Figure

    rows = sorted(_rows(readout), key=lambda row: (-abs(row["before"]), row["covariate"]))
    left_out, rows = len(rows) - len(rows[:_MOST]), rows[:_MOST]
    height = 1.15 + _ROW * len(rows)
    made = Figure(figsize=(WIDTH, height))
    axes = made.add_axes((0.3, 0.45 / height, 0.68, _ROW * len(rows) / height))
    places = list(range(len(rows)))
    axes.axvspan(-_WORD, _WORD, color=RULE, alpha=0.3, linewidth=0)
    axes.axvline(0.0, color=RULE, linewidth=0.9)
    for place, row in zip(places, rows, strict=True):
        axes.plot([row["before"], row["after"]], [place, place], color=RULE, linewidth=0.9, zorder=1)
    for when, color, marker in (("before", VERMILLION, "o"), ("after", BLUE, "D")):
        inside = "white" if when == "before" else color
        axes.plot([row[when] for row in rows], places, linestyle="none", marker=marker, markersize=4.6, color=color,
                  markerfacecolor=inside, label=f"{when} weighting", zorder=3)  # fmt: skip
    axes.set_yticks(places, [fit(row["covariate"], 2.2, 8) for row in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("standardised difference, treatment minus control (grey: within 0.1)", fontsize=8)
    axes.tick_params(labelsize=8, length=3)
    for side in ("right", "top"):
        axes.spines[side].set_visible(False)
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, frameon=False, fontsize=8.5, borderaxespad=0.2)
    title = fit("How unlike the actions' requests are", 7.7, 11, "bold")
    made.text(0.012, 1 - 0.24 / height, title, fontsize=11, weight="bold")
    if left_out:
        note = fit(f"{left_out} more are in the table of the appendix", 3.0, 8.5)
        made.text(0.012, 1 - 0.45 / height, note, fontsize=8.5, color=MUTED)
    return made


def _rows(readout: Readout) -> list[Row]:
    """The covariates that have both numbers, of the arm that the decision is about."""
    rows = readout.diagnostics.get("balance") or ()
    arm = arm_read(readout, "balance")
    return [r for r in rows if r["arm"] == arm and r["before"] is not None and r.get("after") is not None]
