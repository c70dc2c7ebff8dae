"""What a request takes by the state it was served in, and whether that mean settles over the window."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from estimators.difference_in_means import difference_in_means
from estimators.inference import EstimationError
from estimators.moments import Moments
from readout.capacity.tables import BINS, STATES, cost_name
from readout.capacity.windows import Windows
from readout.economics import COST
from readout.samples.base import den_sum, num_sum, row_count

LABELS = (*(f"{25 * i}-{25 * (i + 1)} % of the limit" for i in range(BINS - 1)), "over the limit")
FEWEST_DAYS = 6
# How far the mean so far may stray from where it ends, over the last third of the days.
NEAR = 0.05
# Halves that lie further apart than this do not show a settled mean, even where chance may do that.
APART = 0.1


def cost_by_state(windows: Windows) -> dict[str, Any]:
    """``cost_of``, ``cost_by_state`` (a row for each state and arm), ``settling`` and ``settled``."""
    evidence = windows.evidence
    name = cost_name(evidence.spec, evidence.terms)
    if name is None:
        return {"cost_of": None, "cost_by_state": [], "settling": [], "settled": None}
    term, frame = evidence.terms[name], evidence.tables[STATES]
    if windows.sample is not None:
        frame = windows.sample.belonging(frame)
    sums = frame.select(
        pl.exclude(num_sum(term), den_sum(term), row_count(term)),
        pl.col(num_sum(term)).cast(pl.Float64).alias("num"),
        pl.col(den_sum(term)).cast(pl.Float64).alias("den"),
        pl.col(row_count(term)).alias("rows"),
    )
    settling = [_settling(windows, sums, code) for code in range(len(evidence.arms))]
    settled = [one["settled"] for one in settling]
    return {
        "cost_of": "cost (USD)" if name == COST else name,
        "cost_by_state": [row for b in range(BINS) for row in _state(windows, sums.filter(pl.col("bin") == b), b)],
        "settling": settling,
        "settled": False if False in settled else None if None in settled else True,
    }


def _state(windows: Windows, sums: pl.DataFrame, state: int) -> list[dict[str, Any]]:
    """One state's means by arm; intervals where the pools themselves are randomized."""
    found = []
    quantity = None
    if windows.sample is not None and len(sums):
        quantity = windows.quantity(windows.cells(sums, pl.col("num"), pl.col("den"), pl.col("rows")))
    for code, arm in enumerate(windows.evidence.arms):
        mine = sums.filter(pl.col("arm") == code)
        num, den, rows = (float(mine[column].sum()) for column in ("num", "den", "rows"))
        if not rows:
            continue
        row: dict[str, Any] = {"bin": LABELS[state], "arm": arm, "rows": int(rows), "mean": num / den if den else None}
        if quantity is not None:
            row |= {end: quantity["by_arm"][arm][end] for end in ("ci_low", "ci_high")}
            if code:
                effect = quantity["effects"][arm]
                row |= {
                    name: effect[of]
                    for name, of in (
                        ("difference", "estimate"), ("difference_ci_low", "ci_low"), ("difference_ci_high", "ci_high"),
                    )
                }  # fmt: skip
        found.append(row)
    return found


def _settling(windows: Windows, sums: pl.DataFrame, code: int) -> dict[str, Any]:
    """Of an arm's fullest state: its mean day by day, and whether it has come to rest.

    Settled: over the last third of the days the mean so far stays within 5 % of where it ends, and the second half's
    mean lies within 10 % of the first's. Not settled: it strays further, or the halves differ by more than days do
    (Welch's test on days). None where neither can be told.
    """
    evidence = windows.evidence
    mine = sums.filter((pl.col("arm") == code) & (pl.col("rows") > 0))
    found: dict[str, Any] = {
        "arm": evidence.arms[code], "bin": None, "days": 0, "first_half": None, "second_half": None, "p_value": None,
        "strays": None, "settled": None,
    }  # fmt: skip
    if not len(mine):
        return found | {"reason": "no row has a value of it"}
    top = max(int(b) for b in mine["bin"])
    days = (
        mine.filter(pl.col("bin") == top)
        .group_by("day", maintain_order=True)
        .agg(pl.col("num", "den").sum())
        .filter(pl.col("den") > 0)
        .sort("day")
    )
    found |= {"bin": LABELS[top], "days": len(days)}
    if len(days) < FEWEST_DAYS:
        return found | {"reason": f"{len(days)} days reach that state; {FEWEST_DAYS} are needed"}
    num, den = days["num"].to_numpy(), days["den"].to_numpy()
    half = len(num) // 2
    halves = [Moments.from_arrays(num[part], den[part]) for part in (slice(half), slice(half, None))]
    so_far = np.cumsum(num) / np.cumsum(den)
    tail = so_far[-max(len(num) // 3, 2) :]
    found |= {"first_half": halves[0].value, "second_half": halves[1].value}
    if not (so_far[-1] and halves[0].value):
        return found | {"reason": "its mean is zero"}
    strays = float(np.abs(tail / so_far[-1] - 1.0).max())
    found |= {"strays": strays}
    try:
        p_value = difference_in_means(*halves).p_value
    except EstimationError as error:
        return found | {"settled": True} if strays == 0.0 else found | {"reason": str(error)}
    alpha = evidence.spec.decision.alpha
    found |= {"p_value": p_value}
    if strays > NEAR or p_value < alpha:
        return found | {"settled": False}
    if abs(halves[1].value / halves[0].value - 1.0) > APART:
        return found | {"reason": "its halves lie apart, though by no more than chance may set them"}
    return found | {"settled": True}
