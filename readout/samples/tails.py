"""The tail of an outcome: from one value a unit, or from sums where rows are the units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from estimators.tail_index import LEAST, Tail, from_sums, tail_index, tail_of, tail_size
from estimators.winsorized import Vector
from readout.logs import Logs
from readout.reduce import pilot
from readout.samples.base import KEPT

# Longer logs are looked at where slices of them do not rule a heavy tail out.
LONG = 1_000_000
FINITE = 2.0


def of_units(arms: Sequence[tuple[Vector, Vector | None]], seed: int) -> Tail:
    """The tail of units' values less their arm's, all arms together; of a ratio, of what makes its error.

    Args:
        arms: Numerator and denominator by unit; None for a plain mean.

    Raises:
        EstimationError: As ``tail_of``.
    """
    residuals = []
    for num, den in arms:
        if den is None:
            residuals.append(num - num.mean())
        else:
            total = float(den.sum())
            residuals.append(num - (num.sum() / total if total > 0.0 else 0.0) * den)
    return tail_of(np.concatenate(residuals), seed=seed)


@dataclass(frozen=True, slots=True)
class Watch:
    """What to sum of a row's centred value ``x`` to see its tail: distances from ``origin`` above ``threshold``."""

    origin: float
    threshold: float

    def sums(self, name: str, x: pl.Expr) -> dict[str, pl.Expr]:
        """The excesses, and the logarithms of how far they go."""
        ratio = (x - self.origin).abs() / self.threshold
        return {
            f"{name}|tail": (ratio > 1.0).cast(pl.Int8),
            f"{name}|tail log": pl.when(ratio > 1.0).then(ratio.log()),
        }

    @staticmethod
    def maxima(name: str, x: pl.Expr) -> dict[str, pl.Expr]:
        """How far the values go to either side."""
        return {f"{name}|top|max": x, f"{name}|bottom|max": -x}

    def read(self, name: str, rows: Sequence[Mapping[str, Any]]) -> Tail:
        """The tail from the reduced rows of all arms; the settling of the mean is not seen from sums."""
        excesses = sum(int(row[f"{name}|tail"]) for row in rows)
        index = from_sums(excesses, sum(float(row[f"{name}|tail log"]) for row in rows), self.threshold)
        total = largest = 0.0
        for row in rows:
            n = int(row[f"{name}|n"])
            if n:
                mean = row[f"{name}|x"] / n
                total += max(row[f"{name}|xx"] - row[f"{name}|x"] * mean, 0.0)
                ends = row[f"{name}|top|max"] - mean, row[f"{name}|bottom|max"] + mean
                largest = max(largest, *(end**2 for end in ends))
        share = min(largest / total, 1.0) if total > 0.0 else 0.0
        return Tail(sum(int(row[f"{name}|n"]) for row in rows), index, share)


def watches(logs: Logs, values: Mapping[str, pl.Expr]) -> dict[str, Watch]:
    """Where the tails of rows' values begin, from slices of the log; none for what takes few values.

    In a long log also none for what the slices show to have a variance.
    """
    if not values:
        return {}
    kept = [pl.when(KEPT).then(x).cast(pl.Float64).drop_nulls().implode().alias(name) for name, x in values.items()]
    seen = pilot(logs.frame, kept, logs.source.rows)
    found = {}
    for name in values:
        x = seen[name].explode().drop_nulls().to_numpy()
        x = x[np.isfinite(x)]
        watch = _watch(x, logs.source.rows)
        if watch is None:
            continue
        index = tail_index(x - watch.origin)
        if logs.source.rows <= LONG or (index is not None and index.low < FINITE):
            found[name] = watch
    return found


def _watch(x: Vector, rows: int) -> Watch | None:
    n = len(x)
    k = max(int(n * tail_size(rows) / max(rows, 1)), LEAST)
    if n <= k:
        return None
    origin = float(np.quantile(x, 0.25, method="inverted_cdf"))
    size = np.sort(np.abs(x - origin))
    threshold = float(size[n - k - 1])
    above = size[size > threshold]
    return Watch(origin, threshold) if threshold > 0.0 and len(np.unique(above)) >= LEAST else None
