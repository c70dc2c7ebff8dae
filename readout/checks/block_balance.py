"""Do the arms of a switchback meet the same days and hours?"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import numpy as np
import polars as pl

from readout.checks.base import percent, share, threshold
from readout.events import lopsided
from readout.evidence import Evidence
from readout.results import Check
from readout.samples import Blocks
from readout.text import named

# The part of the rows that may stand at days and hours which one arm alone held.
ONE_ARMED = 0.2
# P-values of the arms' counts over days and hours.
FAILS, WARNS = 0.001, 0.05
DRAWS = 9_999
QUARTER = 6  # hours
DAY = timedelta(days=1)


def block_balance(evidence: Evidence) -> Check:
    """Arms over weekday or weekend x quarter of the day (UTC), by randomized unit.

    The p-value is that of Pearson's statistic under all assignments with as many units by arm, which is what coins
    give; balanced and paired schedules lie inside it. Bonferroni over treatment arms.
    """
    name, sample = "block_balance", evidence.sample
    if not isinstance(sample, Blocks):
        return Check(name, "balance", "skip", "blocks do not switch in this design")
    limit = threshold(evidence.spec, name, ONE_ARMED)
    blocks = _strata(sample.calendar(), sample.length)
    if min(sample.counts()) < 2:
        return Check(name, "balance", "skip", f"an arm has fewer than two {sample.unit}s")
    details = {name: _table(evidence, blocks)}
    worst, p, statistic = 0.0, 1.0, 0.0
    for arm in evidence.treatments:
        mine = blocks.filter(pl.col("arm").is_in([0, arm]))
        worst = max(worst, _one_armed(mine))
        found, own_p = _counts_test(mine.unique("unit"), arm)
        if own_p * len(evidence.treatments) < p:
            p, statistic = own_p * len(evidence.treatments), found
    numbers = (statistic, p, worst, limit)
    said = f"{percent(worst)} of rows stand at days and hours that one arm alone held; arms over them: p = {p:.2g}"
    seen = _window(blocks)
    if worst > limit:
        message = f"{said}: the arm cannot be told from the time of day or week{seen}"
        return Check(name, "balance", "fail", message, *numbers, "stronger_design", details)
    if p < FAILS:
        message = f"{said}: the arms stand at other days and hours than chance gives{seen}"
        return Check(name, "balance", "fail", message, *numbers, "stronger_design", details)
    doubts = [*_hours(evidence, blocks), *lopsided(evidence)]
    if p < WARNS:
        doubts.insert(0, "the arms stand unevenly over days and hours")
    if doubts:
        return Check(name, "balance", "warn", f"{said}; {'; '.join(doubts)}{seen}", *numbers, None, details)
    return Check(name, "balance", "pass", said + seen, *numbers, None, details)


def _strata(blocks: pl.DataFrame, length: timedelta | None) -> pl.DataFrame:
    """The blocks with ``weekend`` and ``quarter`` of the day; blocks of days hold every hour alike."""
    start = pl.col("start")
    quarter = pl.lit(0) if length is not None and length >= DAY else start.dt.hour() // QUARTER
    return blocks.with_columns((start.dt.weekday() > 5).alias("weekend"), quarter.cast(pl.Int64).alias("quarter"))


def _one_armed(blocks: pl.DataFrame) -> float:
    """Share of the rows in strata that hold one arm."""
    strata = blocks.group_by("weekend", "quarter").agg(pl.col("arm").n_unique().alias("arms"), pl.col("n").sum())
    return share(int(strata.filter(pl.col("arms") < 2)["n"].sum()), int(strata["n"].sum()))


def _counts_test(units: pl.DataFrame, arm: int) -> tuple[float, float]:
    """Pearson's statistic of arm by stratum and its p-value over assignments with these totals."""
    treated = pl.col("arm") == arm
    counts = units.group_by("weekend", "quarter").agg(pl.len().alias("units"), treated.sum().alias("treated"))
    counts = counts.sort("weekend", "quarter")
    sizes, held = counts["units"].to_numpy().astype(np.int64), counts["treated"].to_numpy().astype(np.int64)
    part = held.sum() / sizes.sum()
    if len(sizes) < 2 or part in (0.0, 1.0):
        return 0.0, 1.0
    scale = sizes * part * (1.0 - part)
    observed = float(((held - sizes * part) ** 2 / scale).sum())
    drawn = np.random.default_rng(0).multivariate_hypergeometric(sizes, int(held.sum()), DRAWS, method="marginals")
    statistics = ((drawn - sizes * part) ** 2 / scale).sum(axis=1)
    return observed, float((1 + (statistics >= observed * (1 - 1e-12)).sum()) / (1 + DRAWS))


def _hours(evidence: Evidence, blocks: pl.DataFrame) -> Sequence[str]:
    """Hours of the day at which blocks start and an arm never held one."""
    found = []
    for arm in evidence.treatments:
        mine = blocks.filter(pl.col("arm").is_in([0, arm])).with_columns(pl.col("start").dt.hour().alias("hour"))
        held = mine.group_by("hour").agg(pl.col("arm").n_unique().alias("arms")).filter(pl.col("arms") < 2)
        if len(held):
            hours = ", ".join(f"{hour:02d}h" for hour in held["hour"].sort())
            both = f"{named(evidence.arms[arm])} and {named(evidence.arms[0])}"
            found.append(f"{both} did not both hold the blocks of {hours}")
    return found


def _window(blocks: pl.DataFrame) -> str:
    """What the window is too short to show."""
    kinds = blocks["weekend"].unique()
    if len(kinds) == 2:
        return ""
    return f"; no {'weekdays' if kinds[0] else 'weekend'} in the window, so the week cannot be judged"


def _table(evidence: Evidence, blocks: pl.DataFrame) -> list[dict[str, object]]:
    """Randomized units by arm, and rows, in every stratum."""
    whole_days = blocks["quarter"].n_unique() == 1
    rows: list[dict[str, object]] = []
    for stratum in blocks.select("weekend", "quarter").unique().sort("weekend", "quarter").iter_rows(named=True):
        mine = blocks.filter(weekend=stratum["weekend"], quarter=stratum["quarter"])
        first = QUARTER * stratum["quarter"]
        hours = "" if whole_days else f" {first:02d}-{first + QUARTER:02d}h"
        held = mine.unique("unit")["arm"].to_list()
        by_arm = {f"blocks {label}": held.count(code) for code, label in enumerate(evidence.arms)}
        day = "weekend" if stratum["weekend"] else "weekday"
        rows.append({"when": day + hours, **by_arm, "rows": int(mine["n"].sum())})
    return rows
