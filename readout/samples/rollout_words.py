"""What a difference in differences says of who was treated when, and of its effects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from estimators.callaway_santanna import SMALL
from estimators.estimate import Estimate
from readout.spec.metrics import Metric
from readout.text import duration, visible

if TYPE_CHECKING:
    from readout.samples.rollouts import Rollouts

NAMED = 3
_AVERAGED = {
    "simple": "averaged over treated units and periods alike",
    "dynamic": "averaged over periods since the rollout alike",
    "group": "averaged over rollouts by their units, each over its periods alike",
    "calendar": "averaged over calendar periods alike",
}


def some(names: Sequence[str]) -> str:
    """The first few names, and a sign that there are more."""
    return ", ".join(names[:NAMED]) + " …" * (len(names) > NAMED)


def assignment(sample: Rollouts) -> str:
    """How it came about who was treated."""
    labels = sample.axis.labels
    starts = np.unique(sample.start[(sample.start > 0) & (sample.start < sample.axis.n)])
    untreated, treated = sample.counts()
    when = f"in {labels[starts[0]]}"
    if len(starts) > 1:
        when = f"in {len(starts)} different periods, from {labels[starts[0]]} to {labels[starts[-1]]}"
    rest = f"{untreated:,} were not treated in the window" if untreated else "none stayed untreated"
    return (
        f"Nothing was assigned at random: {treated:,} unit{'s' * (treated != 1)} took up the treatment {when}, as "
        f"the column {visible(sample.design.rollout)!r} says; {rest}."
    )


def facts(sample: Rollouts) -> dict[str, Any]:
    """What ``design`` of readout.json lists besides."""
    labels = sample.axis.labels
    starts = sample.start[sample.start < sample.axis.n]
    return {
        "period": "as the time column counts" if sample.axis.length is None else duration(sample.design.period),
        "periods": sample.axis.n,
        "first_period": labels[0],
        "last_period": labels[-1],
        "rollouts": {labels[g]: int((starts == g).sum()) for g in np.unique(starts)},
        "controls": sample.design.controls,
    }


def remarks(sample: Rollouts) -> list[str]:
    """Notes on the panel as a whole."""
    found = ["units weigh alike in every period, whatever their traffic; so do the treated ones' periods"]
    throughout = int((sample.start == 0).sum())
    if throughout:
        found.append(
            f"units treated from the first period on, which show no change and are left out: {throughout:,} "
            "(null, not a date before the window, means never treated)"
        )
    if sample.within:
        found.append(f"units rolled out in the course of a period, all of which counts as treated: {sample.within:,}")
    if sample.matrix is not None:
        first = sample.axis.labels[int(sample.start[sample.start > 0].min())]
        if names := ", ".join(visible(name, 60) for name in dict.fromkeys(sample.matrix.column)):
            found.append(f"adjusted for what units were like on average before {first}, the first rollout: {names}")
        for name, n in sample.at_mean.items():
            found.append(f"units without a value of {visible(name, 60)} before that, which are given its mean: {n:,}")
        if sample.matrix.left_out:
            gone = ", ".join(visible(name, 60) for name in sample.matrix.left_out)
            found.append(f"not adjusted for, since no unit differs in it: {gone}")
    if sample.moving:
        found.append(f"units seen in several clusters, or in none: {sample.moving:,}; errors are by unit")
    elif sample.clusters is not None and sample.design.shared_state and (mixed := _shared_clusters(sample)):
        found.append(
            f"clusters that hold units of different rollouts: {mixed:,}; where units of a cluster share a queue or "
            "a fleet, the untreated feel the treatment too"
        )
    if sample.spec.economics is not None:
        found.append("net value against control is that of the average treated unit; sums by arm are over rows")
    return found


def _shared_clusters(sample: Rollouts) -> int:
    """Clusters whose units do not all start in the same period."""
    frame = pl.DataFrame({"cluster": sample.clusters, "start": sample.start})
    return int((frame.group_by("cluster").agg(pl.col("start").n_unique())["start"] > 1).sum())


def measured(sample: Rollouts, metric: Metric) -> str:
    """What a metric's number is of."""
    if metric.numerator is not None:
        what = f"{metric.numerator} over {metric.denominator} of a unit in a period"
    elif metric.per == "unit":
        what = "sum of a unit in a period"
    else:
        what = "mean over a unit's rows in a period"
    what += ", rows that were not treated" * (metric.on == "untreated")
    default = "averaged over treated units alike" if sample.method == "two_by_two" else _AVERAGED["dynamic"]
    return f"change of the {what}, {_AVERAGED.get(str(sample.spec.estimator.options.get('aggregate')), default)}"


def remarks_on(metric: Metric, found: Estimate) -> list[str]:
    """What a reader must know beside a metric's effect."""
    shown, notes = found.diagnostics, []
    if small := shown.get("borrowed"):
        few = f"fewer than {SMALL} {shown['clustered_by']}s started in each of {some(small)}"
        notes.append(f"{few}: the error takes them to vary as the untreated do")
    if metric.per == "unit":
        notes.append("a unit that was seen before and after, and not in a period, had a sum of 0 in it")
    cells = shown["n_units"] * shown["n_periods"]
    if missing := shown["missing_cells"]:
        notes.append(f"{missing:,} of {cells:,} units' periods have no value")
    if skipped := shown.get("skipped"):
        notes.append(f"{len(skipped):,} rollouts' periods have no unit to compare with and are left out")
    if unseen := shown.get("unseen"):
        notes.append(f"{unseen:,} units were not seen both before and after, and are left out")
    return notes
