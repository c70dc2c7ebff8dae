"""A regression discontinuity: means in bins of the running variable, and the two lines that meet the cutoff."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from readout.memo.numbers import number
from readout.memo.svg import BLUE, INK, MUTED, WIDTH, fit
from readout.results import Readout
from readout.text import named

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANEL, _GAP, _ABOVE, _BELOW = 2.5, 0.5, 0.72, 0.52  # inches
_NORMAL: Final = 1.96
_SIDES: Final = {"below": (MUTED, "o"), "above": (BLUE, "s")}
_SHADE: Final = "#f0f0f0"
_NOTE: Final = "Means in bins with 95 % bars; lines fitted within the bandwidth (shaded);"
TITLE: Final = "Discontinuity at the cutoff"
_GAP_IS: Final = "the effect is their gap at the cutoff"

Drawn = Mapping[str, Any]


def drawable(readout: Readout) -> bool:
    """Whether the first primary has bins to draw."""
    return bool(drawn(readout))


def drawn(readout: Readout) -> Drawn:
    """What the figure shows; empty where there is nothing."""
    found: Drawn = readout.diagnostics.get("discontinuity") or {}
    return found if found.get("bins") else {}


def figure(readout: Readout) -> Figure:
    """The figure: the outcome's panel and, where the cutoff only moves take-up, that of take-up below it."""
    from matplotlib.figure import Figure

    shown = drawn(readout)
    panels = [("", str(shown["metric"]))]
    if "takeup_bins" in shown:
        panels.append(("takeup_", f"share on which {named(readout.decision.treatment)} ran"))
    height = _ABOVE + len(panels) * _PANEL + (len(panels) - 1) * _GAP + _BELOW
    made = Figure(figsize=(WIDTH, height))
    shared: Axes | None = None
    for i, (prefix, title) in enumerate(panels):
        bottom = height - _ABOVE - (i + 1) * _PANEL - i * _GAP
        axes = made.add_axes((0.085, bottom / height, 0.89, _PANEL / height), sharex=shared)
        shared = shared or axes
        _panel(axes, shown, prefix)
        axes.set_ylabel(fit(title, 2.3, 8.5), fontsize=8.5)
    assert shared is not None
    _arms(shared, readout, shown)
    axes.set_xlabel(fit(str(shown["running"]), 6.0, 8.5), fontsize=8.5)
    heading = fit(f"{shown['metric']} by {shown['running']}", 7.6, 11, "bold")
    made.text(0.012, 1 - 0.24 / height, heading, fontsize=11, weight="bold")
    gap = f"{_GAP_IS}, over that of take-up" if len(panels) > 1 else _GAP_IS
    made.text(0.012, 1 - 0.45 / height, f"{_NOTE} {gap}", fontsize=7.6, color=MUTED)
    return made


def _panel(axes: Axes, shown: Drawn, prefix: str) -> None:
    from matplotlib.ticker import MaxNLocator

    cutoff, h = shown["cutoff"], shown["h"]
    axes.axvspan(cutoff - h, cutoff + h, color=_SHADE, linewidth=0, zorder=0)
    axes.axvline(cutoff, color=INK, linewidth=0.9, linestyle=(0, (3, 2)), zorder=1)
    for side, (colour, marker) in _SIDES.items():
        bins = [one for one in shown[f"{prefix}bins"] if one["side"] == side]
        spread = [_NORMAL * (one["std_error"] or 0.0) for one in bins]
        axes.errorbar(
            [one["running"] for one in bins], [one["mean"] for one in bins], yerr=spread, fmt=marker, markersize=3.6,
            color=colour, ecolor=colour, elinewidth=0.8, alpha=0.75, capsize=0, zorder=2,
        )  # fmt: skip
    for curve in shown[f"{prefix}curves"]:
        axes.plot(curve["running"], curve["value"], color=_SIDES[curve["side"]][0], linewidth=2.0, zorder=3)
    axes.xaxis.set_major_locator(MaxNLocator(7))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.tick_params(labelsize=8, length=3)
    for name in ("right", "top"):
        axes.spines[name].set_visible(False)


def _arms(axes: Axes, readout: Readout, shown: Drawn) -> None:
    """Which side is which arm, said at the top of the outcome's panel."""
    arms = (str(readout.design["control"]), readout.decision.treatment)
    if "takeup_bins" in shown or shown["running"] in arms[0]:
        arms = ("below", "from the cutoff on")  # take-up has a panel; unnamed arms are named by the axis
    for text, side, at, where in zip(arms, _SIDES, (0.01, 0.99), ("left", "right"), strict=True):
        axes.text(
            at, 1.02, fit(text, 3.0, 8.5), transform=axes.transAxes, ha=where, va="bottom", fontsize=8.5,
            color=_SIDES[side][0],
        )  # fmt: skip
    axes.annotate(
        f"cutoff {_cutoff(shown)}", (shown["cutoff"], 1.0), xycoords=("data", "axes fraction"), xytext=(0, 3),
        textcoords="offset points", ha="center", va="bottom", fontsize=8, color=INK,
    )  # fmt: skip


def _cutoff(shown: Drawn) -> str:
    """The cutoff as it is stated."""
    return f"{shown['cutoff']:,.15g}"


def sentence(readout: Readout) -> str:
    """What the figure shows, in words."""
    shown = drawn(readout)
    ends = {curve["side"]: curve["value"][-1 if curve["side"] == "below" else 0] for curve in shown["curves"]}
    said = (
        f"{shown['metric']} by {shown['running']}: the line from below meets the cutoff {_cutoff(shown)} at "
        f"{number(ends['below'])}, that from above at {number(ends['above'])}; bandwidth {number(shown['h'])}"
    )
    if "takeup_curves" not in shown:
        return said
    share = {c["side"]: c["value"][-1 if c["side"] == "below" else 0] for c in shown["takeup_curves"]}
    return f"{said}; take-up goes from {100 * share['below']:.3g} % to {100 * share['above']:.3g} %"
