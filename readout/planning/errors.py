"""The error that each design would have, from past logs."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from typing import TypeVar

import numpy as np

from estimators.inference import EstimationError
from estimators.moments import Moments
from estimators.planned_error import PlannedError, blocks, pairs, two_arms
from readout.planning.ask import DAY, Ask
from readout.planning.designs import Candidate
from readout.planning.past import Past
from readout.planning.series import Codes, Floats, Series, UnitDays, row_variance, series, unit_days

FEWEST_CLUSTERS = 4
T = TypeVar("T")


class PastErrors:
    """Errors of planned designs; what is costly is computed once."""

    def __init__(self, past: Past, ask: Ask) -> None:
        self._past, self._ask = past, ask
        self.series: Callable[[str], Series] = cache(lambda name: series(past, name))
        self.units: Callable[[str], UnitDays] = cache(lambda name: unit_days(past, name))
        self._curve: Callable[[str], Curve] = cache(lambda name: Curve(self.units(name)))
        self._blocks = cache(self._block_error)

    def __call__(self, candidate: Candidate, name: str, days: float) -> PlannedError:
        """The error of a design for a metric after ``days``.

        Raises:
            EstimationError: The past log or the plan cannot carry it.
        """
        if candidate.kind == "user_rct" and candidate.unit == "unit":
            return self._unit_error(name, days)
        if candidate.kind in ("user_rct", "request_rct"):
            return self._row_error(name, days)
        if candidate.kind == "cluster_rct":
            return self._cluster_error(candidate, name, days)
        assert candidate.block is not None
        planned = self._blocks(name, candidate.block, candidate.washout, candidate.together)
        return planned.with_units(self._randomized(name, candidate.block, candidate.together, days))

    def dated(self, candidate: Candidate) -> bool:
        """A log without times does not say how many rows and units a day brings."""
        return self._past.days > 0.0

    def _unit_error(self, name: str, days: float) -> PlannedError:
        n, variance = self._curve(name).at(days)
        control, treatment = (share * n * self._ask.traffic for share in self._ask.shares)
        return two_arms(variance, control, treatment)

    def _row_error(self, name: str, days: float) -> PlannedError:
        variance, rows, _ = row_variance(self._past, name)
        n = rows * (days / self._past.days if self._past.days else 1.0) * self._ask.traffic
        control, treatment = (share * n for share in self._ask.shares)
        return two_arms(variance, control, treatment)

    def _cluster_error(self, candidate: Candidate, name: str, days: float) -> PlannedError:
        found = self.series(name)
        if len(found.clusters) < FEWEST_CLUSTERS:
            raise EstimationError(f"{len(found.clusters)} clusters are too few; {FEWEST_CLUSTERS} are the least")
        if candidate.pairs:
            return self._pair_error(found, days)
        variances = []
        for window in _windows(found, days):
            num, den = _by_cluster(window)
            moments = Moments.from_arrays(*_weighted(num, den, self._ask.cluster_weights))
            variances.append(moments.value_variance * moments.n)
        control, treatment = (round(share * len(found.clusters)) for share in self._ask.shares)
        return two_arms(float(np.mean(variances)), control, treatment)

    def _pair_error(self, found: Series, days: float) -> PlannedError:
        """Clusters matched on the log's first half, judged by its second."""
        half = found.days // 2
        if half < 1:
            raise EstimationError("matching needs two days of past logs, one to match by and one to judge by")
        pair = matched(cluster_values(found.window(0, half)))
        later = _windows(found.window(half, found.days - half), days)
        kept = pair >= 0
        errors = [pairs(cluster_values(window)[kept], pair[kept]) for window in later]
        return _mean_error(errors)

    def _block_error(self, name: str, block: timedelta, washout: timedelta, together: bool) -> PlannedError:
        found = self.series(name)
        if found.days < 2:
            raise EstimationError("the past log covers less than two whole days")
        control, treatment = self._ask.shares
        planned = self._randomized(name, block, together, self._ask.days)
        errors = [
            blocks(
                window.cells(block, washout, self._ask.offset),
                share=treatment / (control + treatment),
                planned=planned,
                clustered_by="block" if together else "cell",
                weights=self._ask.block_weights,
            )
            for window in _windows(found, self._ask.days)
        ]
        return _mean_error(errors)

    def _randomized(self, name: str, block: timedelta, together: bool, days: float) -> float:
        """Blocks, or cluster-blocks, of control and the treatment."""
        n = math.floor(days * DAY / block) * sum(self._ask.shares)
        return n if together else n * len(self.series(name).clusters)


class Curve:
    """Units seen and their variance by the length of the window; beyond the log, as its second half went on."""

    def __init__(self, units: UnitDays) -> None:
        self._days = 0 if units.per_unit else units.days
        lengths = sorted({*(d for d in (1, 2, 3, 5, 7, 10, 14, 21, 28, 42) if d < units.days), max(units.days, 1)})
        if units.days > 1:
            lengths = sorted({*lengths, (units.days + 1) // 2})
        self._points = []
        for length in lengths:
            num, den = units.window(length)
            if len(num) > 1:
                moments = Moments.from_arrays(num, den)
                self._points.append((length, moments.n * units.keep, moments.value_variance / units.keep))
        if not self._points:
            raise EstimationError("fewer than two past units have a value of it")

    def at(self, days: float) -> tuple[float, float]:
        """Units and the variance of one unit's contribution after ``days``."""
        lengths, counts, errors = (np.log(np.array(x, dtype=float)) for x in zip(*self._points, strict=True))
        if not np.isfinite(errors).all():
            raise EstimationError("the outcome does not vary between units")
        at = math.log(max(days, 1.0))
        if at <= lengths[-1] or len(lengths) == 1 or not self._days:
            n, error = float(np.interp(at, lengths, counts)), float(np.interp(at, lengths, errors))
        else:
            half = int(np.argmin(np.abs(lengths - (lengths[-1] - math.log(2.0)))))
            half = min(half, len(lengths) - 2)
            far = (at - lengths[-1]) / (lengths[-1] - lengths[half])
            n = float(counts[-1] + min(max(counts[-1] - counts[half], 0.0), lengths[-1] - lengths[half]) * far)
            error = float(errors[-1] - min(max(errors[half] - errors[-1], 0.0), lengths[-1] - lengths[half]) * far)
        return math.exp(n), math.exp(error + n)


def matched(values: Floats) -> Codes:
    """Pairs of clusters with neighbouring values; -1: the one that an odd number leaves over, chosen to match best."""
    order = np.argsort(values, kind="stable")
    if len(order) % 2:
        x = values[order]
        cost = [float(np.abs(np.diff(np.delete(x, i).reshape(-1, 2), axis=1)).sum()) for i in range(0, len(order), 2)]
        order = np.delete(order, 2 * int(np.argmin(cost)))
    pair = np.full(len(values), -1, np.intp)
    pair[order] = np.arange(len(order)) // 2
    return pair


def cluster_values(found: Series) -> Floats:
    """A cluster's value over the series' days; the overall value where it has no rows."""
    num, den = found.num.sum(axis=1), found.den.sum(axis=1)
    return np.asarray(np.divide(num, den, out=np.full(len(num), found.value), where=den > 0), dtype=np.float64)


def _by_cluster(found: Series) -> tuple[Floats, Floats]:
    num, den = found.num.sum(axis=1), found.den.sum(axis=1)
    return num[den > 0], den[den > 0]


def _weighted(num: Floats, den: Floats, weights: str) -> tuple[Floats, Floats | None]:
    return (num / den, None) if weights == "units" else (num, den)


def _windows(found: Series, days: float) -> list[Series]:
    """Windows of the planned length that do not overlap; the whole log where it is shorter."""
    length = min(max(1, round(days)), found.days)
    return [found.window(i * length, length) for i in range(found.days // length)]


def _mean_error(errors: list[PlannedError]) -> PlannedError:
    first = errors[0]
    error = math.sqrt(float(np.mean([e.std_error**2 for e in errors])))
    df = float(np.mean([e.df for e in errors]))
    return PlannedError(error, df, first.n_control, first.n_treatment, first.parameters)
