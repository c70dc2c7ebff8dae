"""The ``capacity`` of readout.json."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import polars as pl

from readout.capacity.cost import cost_by_state
from readout.capacity.tables import SEEN, WINDOWS, inside
from readout.capacity.windows import FEW, Windows, windows_of
from readout.economics import NET, PER, VALUE
from readout.evidence import Evidence
from readout.samples.base import den_sum, num_sum, row_count
from readout.terms import FALLBACK, TIMEOUT, Term

OWN = {FALLBACK: "fallback", TIMEOUT: "timeouts", NET: "net_usd_per_1k_requests"}
QUANTILES = (0.5, 0.95, 0.99)


def summary(evidence: Evidence) -> dict[str, Any] | None:
    """Windows, how often and how far they are over the limit, what happens inside them, and cost by state.

    Where units within a pool are randomized, the arms meet the same windows: these are described for the pool, and
    only cost stands by arm.
    """
    capacity = evidence.spec.capacity
    if capacity is None:
        return None
    windows = windows_of(evidence)
    one, over = pl.col("one"), pl.col("over")
    found: dict[str, Any] = {
        "load": capacity.load,
        "limit": capacity.limit,
        "window": spoken(capacity.window),
        "margin": capacity.margin,
        "windows": windows.by_arm(one),
        "over": windows.by_arm(over),
        "rows_per_window": _rows(windows),
        "rows_without_load": int(evidence.tables[WINDOWS].select((pl.col("n") - pl.col(SEEN)).sum()).item()),
        "windows_without_load": windows.unseen,
        "windows_cut_by_a_block": _cut(windows.frame),
        "pool": _pool(windows.frame),
    }
    if windows.sample is not None:
        found |= {
            "unit": evidence.sample.unit,
            "units_over": {arm: windows.units(code)[0] for code, arm in enumerate(evidence.arms)},
            "share_over": _share_over(windows),
            "expected_shortfall": windows.quantity(windows.cells(windows.over, pl.col("excess"), one)),
            "mean_excess": windows.quantity(windows.cells(windows.frame, pl.col("excess"), one)),
            "peak": _peak(windows),
            "inside": _inside(windows),
        }
    else:
        empty = dict.fromkeys(("share_over", "expected_shortfall", "mean_excess", "peak", "inside"))
        found |= {"unit": None, "units_over": {}, **empty}
    return found | {"hours": _hours(windows)} | cost_by_state(windows)


def _share_over(windows: Windows) -> dict[str, Any]:
    """The share of windows over the limit; no interval by arm where too few units have one."""
    found = windows.quantity(windows.share_over())
    for code, arm in enumerate(windows.evidence.arms):
        if windows.units(code)[0] < FEW:
            found["by_arm"][arm] |= {"ci_low": None, "ci_high": None}
    return found


def spoken(length: timedelta) -> str:
    """A duration as the spec writes it."""
    seconds = length.total_seconds()
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds % size == 0:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:g}s"


def _rows(windows: Windows) -> dict[str, float | None]:
    """Mean rows a window by arm: the more rows look, the higher a window's largest load."""
    rows, n = windows.by_arm(pl.col("n")), windows.by_arm(pl.col("one"))
    return {arm: rows[arm] / n[arm] if n[arm] else None for arm in rows}


def _cut(frame: pl.DataFrame) -> int:
    """Windows that a block's start cuts in two (or more), each part with rows of its own."""
    if "block" not in frame.columns or frame.is_empty():
        return 0
    return int((frame.group_by("cluster", "window").len()["len"] > 1).sum())


def _pool(frame: pl.DataFrame) -> dict[str, Any]:
    """All windows together, whatever the arm."""
    return {
        "windows": len(frame),
        "over": int(frame["over"].sum()),
        "share_over": _mean(frame["over"]),
        "expected_shortfall": _mean(frame.filter("over")["excess"]),
        "maximum": _largest(frame["load"]),
    }


def _mean(values: pl.Series) -> float | None:
    return float(values.cast(pl.Float64).to_numpy().mean()) if len(values) else None


def _largest(values: pl.Series) -> float | None:
    return float(values.to_numpy().max()) if len(values) else None


def _peak(windows: Windows) -> dict[str, Any]:
    """The mean of the cells' largest loads, compared; and by arm the largest of all and quantiles of windows."""
    assert windows.sample is not None
    keys = [*windows.sample.level_keys(), "unit"]
    highest = windows.frame.group_by(keys, maintain_order=True).agg(num=pl.col("load").max())
    cells = highest.with_columns(den=pl.lit(1.0), rows=pl.lit(1.0))
    found = windows.quantity(cells)
    for code, arm in enumerate(windows.evidence.arms):
        mine = windows.frame.filter(pl.col("arm") == code)["load"]
        found["by_arm"][arm] |= {"maximum": _largest(mine)}
        found["by_arm"][arm] |= {f"p{100 * q:g}": mine.quantile(q, "linear") for q in QUANTILES}
    return found


def _inside(windows: Windows) -> dict[str, Any]:
    """What happened in the windows over the limit; each with the rows behind it."""
    terms = windows.evidence.terms
    names = inside(windows.capacity, terms)
    metrics = {n: _of_term(windows, terms[n]) for n in names if n in windows.evidence.spec.metrics}
    own = {OWN[n]: _of_term(windows, terms[n], PER if n == NET else 1.0) for n in names if n in OWN}
    if NET in terms and VALUE in terms:
        net, value = num_sum(terms[NET]), num_sum(terms[VALUE])
        rows = pl.col(row_count(terms[NET]))
        own["margin"] = windows.quantity(windows.cells(windows.over, pl.col(net), pl.col(value), rows))
    return {"metrics": metrics, **own}


def _of_term(windows: Windows, term: Term, scale: float = 1.0) -> dict[str, Any]:
    rows = row_count(term)
    cells = windows.cells(windows.over, pl.col(num_sum(term)), pl.col(den_sum(term)), pl.col(rows))
    return {**windows.quantity(cells, scale), "rows": windows.by_arm(pl.col(rows), pl.col("over"))}


def _hours(windows: Windows) -> list[dict[str, Any]]:
    """Windows and those over the limit by hour of day (UTC) of their start and arm (None: the pool)."""
    frame = windows.frame.with_columns(hour=pl.col("window") // 3_600_000_000 % 24)
    keys = ["hour", "arm"] if "arm" in frame.columns else ["hour"]
    counts = frame.group_by(keys).agg(windows=pl.len(), over=pl.col("over").sum()).sort(keys)
    arms = windows.evidence.arms
    return [
        {
            "hour": int(row["hour"]),
            "arm": arms[row["arm"]] if "arm" in row else None,
            "windows": int(row["windows"]),
            "over": int(row["over"]),
        }
        for row in counts.iter_rows(named=True)
    ]
