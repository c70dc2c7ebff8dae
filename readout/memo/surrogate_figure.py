"""Past experiments, long effect against short, with the fitted line, its prediction band and the present effect."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from estimators.inference import critical_value
from readout.memo.long_run_section import predicted
from readout.memo.numbers import level, number, percent
from readout.memo.svg import BLUE, INK, MUTED, RULE, VERMILLION, WIDTH, fit
from readout.results import Readout

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE: Final = "Long-run effects against short ones"
_HEIGHT: Final = 3.6  # inches
_POINTS: Final = 121  # of the band
_MOST: Final = 200  # experiments with error bars; of more, bars hide the points


def drawable(readout: Readout) -> bool:
    """Whether past experiments gave a line."""
    return "slope" in ((readout.surrogate or {}).get("evidence") or {})


def sentence(readout: Readout) -> str:
    """What the figure shows, in words."""
    found = _found(readout)
    evidence, p = found["evidence"], found["predicted"]
    return (
        f"{evidence['n']} past experiments: effect on {evidence['long_metric']} against effect on "
        f"{evidence['short_metric']}, slope {number(evidence['slope'])}, R² {percent(evidence['r2'])}; foretold at the "
        f"present effect of {number(p['short_estimate'], 3, True)}: {predicted(found)}"
    )


def figure(readout: Readout) -> Figure:
    """The figure; the readout has a line of past experiments."""
    from matplotlib.figure import Figure

    found = _found(readout)
    evidence, p = found["evidence"], found["predicted"]
    scale = 100.0 if found["scale"] == "relative" else 1.0
    drawn = Figure(figsize=(WIDTH, _HEIGHT))
    axes = drawn.add_axes((0.1, 0.14, 0.87, 0.63))
    rows = evidence["experiments"]
    short, short_se, long, long_se = (
        scale * np.array([row[key] for row in rows]) for key in ("short_effect", "short_se", "long_effect", "long_se")
    )
    critical = critical_value(readout.alpha, math.inf)
    x, y = scale * p["short_estimate"], scale * p["estimate"]
    half = critical_value(readout.alpha, evidence["df"])
    _band(axes, readout, scale, (min(short.min(), x), max(short.max(), x)), half)
    wide, high = (critical * short_se, critical * long_se) if len(rows) <= _MOST else (None, None)
    axes.errorbar(short, long, xerr=wide, yerr=high, fmt="o", markersize=3.5, color=BLUE, elinewidth=0.6, zorder=2)
    ends = [[y - scale * p["ci_low"]], [scale * p["ci_high"] - y]]
    axes.errorbar([x], [y], yerr=ends, xerr=[scale * critical * p["short_std_error"]], fmt="D", markersize=6,
                  color=VERMILLION, elinewidth=1.6, zorder=4)  # fmt: skip
    for line in (axes.axhline, axes.axvline):
        line(0.0, color=RULE, linewidth=0.8, zorder=0)
    unit = ", %" if scale > 1.0 else ""
    axes.set_xlabel(fit(f"Effect on {evidence['short_metric']} (short run){unit}", 6.0, 8), fontsize=8)
    axes.set_ylabel(fit(f"Effect on {evidence['long_metric']}{unit}", 2.2, 8), fontsize=8)
    axes.tick_params(labelsize=8, length=3)
    for side in ("right", "top"):
        axes.spines[side].set_visible(False)
    heading = fit(f"What past experiments say of {evidence['long_metric']}", 7.5, 11, "bold")
    drawn.text(0.012, 1 - 0.24 / _HEIGHT, heading, fontsize=11, weight="bold")
    about = (
        f"{evidence['n']} past experiments with {level(readout.alpha)} bars (circles); line with its prediction band"
    )
    drawn.text(0.012, 1 - 0.45 / _HEIGHT, fit(about, 7.8, 8.5), fontsize=8.5, color=MUTED)
    present = f"This experiment's effect and what it foretells (diamond): {predicted(found)}"
    drawn.text(0.012, 1 - 0.64 / _HEIGHT, fit(present, 7.8, 8.5), fontsize=8.5, color=VERMILLION)
    return drawn


def _band(axes: Axes, readout: Readout, scale: float, ends: tuple[float, float], half: float) -> None:
    """The line, and where the true long effect of an experiment with that true short effect is foretold to lie."""
    evidence = _found(readout)["evidence"]
    room = 0.06 * (ends[1] - ends[0])
    x = np.linspace(ends[0] - room, ends[1] + room, _POINTS)
    at = x / scale
    line = evidence["intercept"] + evidence["slope"] * at
    error = evidence["intercept_std_error"] ** 2 + 2.0 * evidence["covariance"] * at
    error = error + evidence["slope_std_error"] ** 2 * at**2 + evidence["between"] ** 2
    width = half * np.sqrt(np.maximum(error, 0.0))
    axes.fill_between(x, scale * (line - width), scale * (line + width), color=MUTED, alpha=0.16, linewidth=0, zorder=1)
    axes.plot(x, scale * line, color=INK, linewidth=1.2, zorder=3)


def _found(readout: Readout) -> Mapping[str, Any]:
    assert readout.surrogate is not None
    return readout.surrogate
