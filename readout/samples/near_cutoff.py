"""What a regression discontinuity reads of a metric, and what it says beside the number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from estimators.estimate import Estimate
from estimators.rdd_bins import binned_means, fitted_curves
from readout.samples.design_matrix import Matrix
from readout.samples.held import Codes, Vector
from readout.spec.designs import RDD
from readout.spec.metrics import Metric
from readout.spec.model import Spec
from readout.terms import Term
from readout.text import visible

# Clusters on a side below which errors by cluster come out too small, and values below which a line rests on few.
FEW_CLUSTERS, FEW_VALUES = 30, 20
# The figure shows this many bandwidths on either side, in at most so many bins each; take-up, which may not vary at all
# on a side, in a fixed number.
REACH, BINS, TAKEUP_BINS = 3.0, 25, 15


@dataclass(frozen=True, slots=True)
class Points:
    """What is read of a metric: one entry a row that has a value, or a unit for sums within units.

    Attributes:
        y: ``(n,)`` the value, or the numerator.
        x: ``(n,)`` the running variable.
        den: ``(n,)`` denominator of a ratio; None of a mean.
        takeup: ``(n,)`` whether the treatment ran, of a unit the share of its rows; None: sharp.
        covariates: ``(n, k)``; None: none.
        clusters: ``(n,)`` codes of units that stand on several entries; None: none does.
    """

    y: Vector
    x: Vector
    den: Vector | None
    takeup: Vector | None
    covariates: Matrix | None
    clusters: Codes | None


def measured(design: RDD, metric: Metric) -> str:
    """What a metric's number is of."""
    if metric.numerator is not None:
        what = f"{metric.numerator} over {metric.denominator}"
    elif metric.per == "unit":
        what = "the mean over units of the sum within a unit"
    else:
        what = "the mean over rows"
    if design.fuzzy:
        return f"difference of {what} at the cutoff, among those whom crossing it treats"
    return f"jump of {what} at the cutoff"


def remarks_on(design: RDD, points: Points, metric: Metric, found: Estimate) -> list[str]:
    """How near rows were read, and where that carries an interval badly."""
    shown = found.diagnostics
    h, rows = shown["bandwidth"]["h"], shown["rows_within_h"]
    said = f"read within {h:.4g} of the cutoff, on {rows['below']:,} rows below and {rows['above']:,} from it on"
    if metric.per == "unit":
        said = said.replace("rows", "units")
    notes = [said]
    if (clusters := shown.get("clusters_within_h")) is not None:
        notes[0] += f", of {clusters['below']:,} and {clusters['above']:,} units, by which errors are clustered"
        if min(clusters.values()) < FEW_CLUSTERS:
            notes.append("with so few units errors by unit may be too small; estimator: {variance: hc3} allows for it")
    if metric.role == "primary" and (few := values_within(design, points, h)) < FEW_VALUES:
        notes.append(
            f"{visible(design.running)} takes {few} different values there on a side: how far the outcome bends "
            "between them is not in the interval"
        )
    if metric.numerator is not None and design.covariates:
        notes.append("a ratio is not adjusted for covariates")
    return notes


def values_within(design: RDD, points: Points, h: float) -> int:
    """Different values of the running variable within ``h``, on the side that has fewer."""
    at = points.x - design.cutoff
    return min(len(np.unique(at[near])) for near in ((at < 0.0) & (at > -h), (at >= 0.0) & (at < h)))


def remarks(spec: Spec, design: RDD, held: str) -> list[str]:
    """What holds of all numbers of the design."""
    found = [
        "effects are at the cutoff and tell nothing of rows far from it; intervals and p-values are bias-corrected, so "
        "that an interval is not centred at its effect"
    ]
    if design.fuzzy:
        found.append("rows stand under the arm of their side of the cutoff, whatever ran on them; so do sums by arm")
    if design.covariates:
        found.append("the figure's lines are those without covariates, so that their gap is not quite the effect")
    if spec.economics is not None:
        found.append("net value against control is that at the cutoff; sums by arm are over all rows")
    return [*found, held] if held else found


def shown(design: RDD, points: Points, term: Term, found: Estimate, how: Mapping[str, Any]) -> dict[str, Any]:
    """The first primary's bandwidths, first stage, and what its figure draws."""
    bandwidth = found.diagnostics["bandwidth"]
    out = {"bandwidth": bandwidth}
    if "first_stage" in found.diagnostics:
        out |= {name: found.diagnostics[name] for name in ("first_stage", "first_stage_f")}
    if points.den is not None:
        return out
    drawn: dict[str, Any] = {"metric": term.name, "running": design.running, "cutoff": design.cutoff, **bandwidth}
    drawn |= _drawn(design, points.y, points.x, bandwidth, how)
    if points.takeup is not None:
        takeup = _drawn(design, points.takeup, points.x, bandwidth, how, TAKEUP_BINS)
        drawn |= {f"takeup_{name}": value for name, value in takeup.items()}
    return {**out, "discontinuity": drawn}


def _drawn(
    design: RDD, y: Vector, x: Vector, bandwidth: Mapping[str, float], how: Mapping[str, Any], count: int | None = None
) -> dict[str, Any]:
    """Bins of the rows near the cutoff, and the curves of the two sides."""
    near = np.abs(x - design.cutoff) <= REACH * max(bandwidth.values())
    bins = binned_means(y[near], x[near], cutoff=design.cutoff, bins=count, most=BINS)
    curves = fitted_curves(y, x, h=bandwidth["h"], cutoff=design.cutoff, order=how["order"], kernel=how["kernel"])
    return {"bins": [asdict(one) for one in bins], "curves": [asdict(one) for one in curves]}
