"""Effects by periods since the rollout: each with its interval, all of them with a band, incidents shaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from readout.memo.numbers import effect, level, number
from readout.memo.svg import BLUE, INK, MUTED, RULE, WIDTH, fit
from readout.results import Readout
from readout.text import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE: Final = "Effects by time since the rollout"
_HEIGHT: Final = 3.3  # inches
_SHADE: Final = "#E69F00"
_NAMED = 3  # incidents in the heading

Row = Mapping[str, Any]


def drawable(readout: Readout) -> bool:
    """Whether there are effects by event time."""
    return any(row["std_error"] for row in readout.diagnostics.get("event_study") or ())


def sentence(readout: Readout) -> str:
    """What the figure shows, in words."""
    rows = list(_estimated(readout))
    before, after = ([r for r in rows if (r["event_time"] < 0) == early] for early in (True, False))
    parts = [f"{_metric(readout)} by {_periods(readout)}s since the rollout, with {level(readout.alpha)} intervals"]
    if before:
        off = sum(not r["ci_low"] <= 0.0 <= r["ci_high"] for r in before)
        parts.append(f"before it {off} of {len(before)} intervals leave zero out")
    if after:
        last = after[-1]
        parts.append(f"after it from {_said(after[0])} to {_said(last)} at {_periods(readout)} {last['event_time']}")
    if events := _events(readout):
        parts.append("marked: " + ", ".join(visible(name, 60) for name in events))
    return "; ".join(parts)


def figure(readout: Readout) -> Figure:
    """The figure; the readout has effects by event time."""
    from matplotlib.figure import Figure

    made = Figure(figsize=(WIDTH, _HEIGHT))
    axes = made.add_axes((0.085, 0.145, 0.9, 0.59))
    for times in _events(readout).values():
        for first, last in _stretches(times):
            axes.axvspan(first - 0.5, last + 0.5, color=_SHADE, alpha=0.16, linewidth=0, zorder=0)
    _effects(axes, list(_estimated(readout)))
    _reference(axes, readout)
    _dress(axes, readout)
    title = fit(f"{_metric(readout)}: effect by {_periods(readout)}s since the rollout", 7.7, 11, "bold")
    made.text(0.012, 1 - 0.24 / _HEIGHT, title, fontsize=11, weight="bold")
    for i, note in enumerate(_notes(readout)):
        made.text(0.012, 1 - (0.45 + 0.19 * i) / _HEIGHT, fit(note, 7.8, 8.5), fontsize=8.5, color=MUTED)
    return made


def _notes(readout: Readout) -> tuple[str, str]:
    """How to read the marks, and what effects are held against."""
    size = level(readout.alpha)
    shaded = f"; shaded: {', '.join(list(_events(readout))[:_NAMED])}" if _events(readout) else ""
    base = "Each is a change from the last period before the rollout"
    if readout.design.get("method") == "callaway_santanna":
        base = (
            "Before the rollout each is the change from the period before it, a placebo; after it, from the last before"
        )
    return f"Bars: {size} of each alone; band: {size} of all at once{shaded}", base


def _effects(axes: Axes, rows: list[Row]) -> None:
    """Bands, intervals and points."""
    times = [row["event_time"] for row in rows]
    runs = [*_stretches([t for t in times if t < 0]), *_stretches([t for t in times if t >= 0])]
    for first, last in runs:
        run = [row for row in rows if first <= row["event_time"] <= last]
        edge = [run[0]["event_time"] - 0.3, *(r["event_time"] for r in run), run[-1]["event_time"] + 0.3]
        low, high = ([run[0][k], *(r[k] for r in run), run[-1][k]] for k in ("band_low", "band_high"))
        axes.fill_between(edge, low, high, color=BLUE, alpha=0.13, linewidth=0, zorder=1)
    values = [row["estimate"] for row in rows]
    down = [row["estimate"] - row["ci_low"] for row in rows]
    up = [row["ci_high"] - row["estimate"] for row in rows]
    axes.errorbar(
        times, values, yerr=[down, up], fmt="o", markersize=3.6, color=BLUE, ecolor=BLUE, elinewidth=1.0, capsize=0,
        zorder=3,
    )  # fmt: skip


def _reference(axes: Axes, readout: Readout) -> None:
    """Zero, the rollout, and the period that is zero by construction, where there is one."""
    axes.axhline(0.0, color=RULE, linewidth=0.9, zorder=1)
    axes.axvline(-0.5, color=INK, linewidth=0.8, linestyle=(0, (3, 2)), zorder=2)
    zero = [row["event_time"] for row in readout.diagnostics["event_study"] if not row["std_error"]]
    axes.plot(zero, [0.0] * len(zero), linestyle="none", marker="o", markersize=4.2, color=MUTED, fillstyle="none",
              zorder=3)  # fmt: skip


def _dress(axes: Axes, readout: Readout) -> None:
    from matplotlib.ticker import MaxNLocator

    times = [row["event_time"] for row in readout.diagnostics["event_study"]]
    axes.set_xlim(min(times) - 0.7, max(times) + 0.7)
    axes.set_xlabel(f"{_periods(readout)}s since the rollout (0: the first treated)", fontsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(15, integer=True, min_n_ticks=3))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.tick_params(labelsize=8, length=3)
    for side in ("right", "top"):
        axes.spines[side].set_visible(False)


def _estimated(readout: Readout) -> Iterator[Row]:
    """Effects that have an interval, by event time."""
    rows = sorted(readout.diagnostics["event_study"], key=lambda row: int(row["event_time"]))
    return (row for row in rows if row["ci_low"] is not None)


def _events(readout: Readout) -> dict[str, list[int]]:
    """Event times at which treated units were hit, by the event's name."""
    rows = readout.diagnostics.get("events") or ()
    return {visible(str(row["name"]), 60): list(row["event_times"]) for row in rows if row.get("event_times")}


def _stretches(times: list[int]) -> Iterator[tuple[int, int]]:
    """First and last of every run of neighbouring times."""
    first = 0
    for i, time in enumerate(times):
        if i + 1 == len(times) or times[i + 1] != time + 1:
            yield times[first], time
            first = i + 1


def _metric(readout: Readout) -> str:
    return next(m.metric for m in readout.metrics if m.role == "primary")


def _periods(readout: Readout) -> str:
    return {"1d": "day", "7d": "week", "1h": "hour"}.get(str(readout.design.get("period")), "period")


def _said(row: Row) -> str:
    return effect(row["estimate"], row["ci_low"], row["ci_high"]) if row["ci_low"] is not None else number(0.0)
