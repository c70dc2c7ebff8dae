"""Take-up and outcome by the instrument's value, for a figure of the first stage beside the reduced form."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from estimators.inference import EstimationError, critical_value
from estimators.instruments import prepare
from readout.samples.design_matrix import Matrix
from readout.samples.held import Codes, Vector

MOST = 12
_ROUNDING = 1e-12  # of the largest value


def bins(points: Any, names: Sequence[str], how: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a level of the instrument, or a tenth or so of its values.

    Several instruments are one: the part of the action that they move. Adjusters are taken out of all, and the means
    put back.

    Returns:
        ``at`` (the instrument's mean there; of several, the fitted action's), ``label``, ``n`` groups, ``taken`` and
        ``outcome`` with their 95 % ends ``…_low`` and ``…_high``, errors by the groups of the estimate.
    """
    try:
        data = prepare(points.y, points.d, points.z, covariates=points.x, **how)
    except EstimationError:
        return []
    y, d = points.y, points.d
    if points.x is not None:
        y, d = data.y + float(y.mean()), data.d + float(d.mean())
    sizes = (float(np.abs(points.d).max()), float(np.abs(points.y).max()))
    levels = _levels(points.z, names)
    if levels is not None:
        at, codes, labels = levels
    else:
        at = _index(data.z @ (data.z.T @ data.d), points)
        codes = _quantiles(at)
        labels = [""] * (int(codes.max()) + 1)
    found = []
    for code in range(int(codes.max()) + 1):
        mine = codes == code
        if not mine.any():
            continue
        clusters = None if points.clusters is None else points.clusters[mine]
        row: dict[str, Any] = {"at": float(at[mine].mean()), "label": labels[code]}
        row["n"] = int(mine.sum()) if clusters is None else len(np.unique(clusters))
        for name, values, size in (("taken", d[mine], sizes[0]), ("outcome", y[mine], sizes[1])):
            half = _half(values, clusters)
            mean = float(values.mean())
            if abs(mean) <= _ROUNDING * size:
                mean = 0.0  # what taking adjusters out leaves of nothing
            row |= {name: mean, f"{name}_low": mean - half, f"{name}_high": mean + half}
        found.append(row)
    return sorted(found, key=lambda row: row["at"])


def _levels(z: Matrix, names: Sequence[str]) -> tuple[Vector, Codes, list[str]] | None:
    """A single instrument of few values, each a level; None of others."""
    if z.shape[1] != 1:
        return None
    values, codes = np.unique(z[:, 0], return_inverse=True)
    if len(values) > MOST:
        return None
    return z[:, 0], codes.reshape(-1), [f"{value:.6g}" for value in values]


def _index(fitted: Vector, points: Any) -> Vector:
    """The instrument itself where there is one and nothing is adjusted for, else the fitted action."""
    if points.z.shape[1] == 1 and points.x is None:
        return np.asarray(points.z[:, 0], dtype=np.float64)
    return np.asarray(fitted + float(points.d.mean()), dtype=np.float64)


def _quantiles(at: Vector) -> Codes:
    edges = np.unique(np.quantile(at, np.linspace(0.0, 1.0, MOST + 1)[1:-1]))
    return np.unique(np.searchsorted(edges, at, side="right"), return_inverse=True)[1].reshape(-1)


def _half(values: Vector, clusters: Codes | None) -> float:
    """Half the width of a mean's 95 % interval; 0 where a single group is there."""
    off = values - values.mean()
    sums = off if clusters is None else np.bincount(np.unique(clusters, return_inverse=True)[1], weights=off)
    groups = len(sums)
    if groups < 2:
        return 0.0
    error = math.sqrt(float(sums @ sums) * groups / (groups - 1)) / len(values)
    return critical_value(0.05, groups - 1.0) * error
