"""The error that each design would have, from stated moments where there are no past logs."""

from __future__ import annotations

import math
from datetime import timedelta

from estimators.inference import EstimationError
from estimators.planned_error import PlannedError, stated_blocks, two_arms
from readout.planning.ask import DAY, Ask
from readout.planning.designs import Candidate
from readout.planning.errors import FEWEST_CLUSTERS
from readout.spec.model import Spec
from readout.spec.planning import StatedMoments

HOUR = timedelta(hours=1)


class StatedErrors:
    """Errors of planned designs from the variance of a row and its correlations."""

    def __init__(self, spec: Spec, ask: Ask) -> None:
        self._moments, self._ask = spec.plan.moments, ask

    def __call__(self, candidate: Candidate, name: str, days: float) -> PlannedError:
        """The error of a design for a metric after ``days``.

        Raises:
            EstimationError: A moment that the design needs was not stated, or too few units.
        """
        known = self._moments[name]
        rows = known.requests_per_day * days
        variance = known.std_dev**2
        control, treatment = self._ask.shares
        if candidate.kind == "request_rct":
            n = rows * self._ask.traffic
            return two_arms(variance, control * n, treatment * n)
        if candidate.kind == "user_rct":
            units = _needed(known.units, "units")
            n = units * self._ask.traffic
            return two_arms(variance * _shared(rows / units, known.icc_unit), control * n, treatment * n)
        if candidate.kind == "cluster_rct":
            clusters = _needed(known.clusters, "clusters")
            if clusters < FEWEST_CLUSTERS:
                raise EstimationError(f"{clusters:.0f} clusters are too few; {FEWEST_CLUSTERS} are the least")
            spread = variance * _shared(rows / clusters, _needed(known.icc_cluster, "icc_cluster"))
            return two_arms(spread, round(control * clusters), round(treatment * clusters))
        return self._blocks(candidate, known, days)

    def dated(self, candidate: Candidate) -> bool:
        """Units, and the correlation within a cluster, are stated for the planned duration alone."""
        return candidate.kind in ("request_rct", "switchback")

    def _blocks(self, candidate: Candidate, known: StatedMoments, days: float) -> PlannedError:
        assert candidate.block is not None
        clusters = known.clusters or 1
        kept = candidate.block - candidate.washout
        icc = _needed(known.icc_hour, "icc_hour")
        rows = known.requests_per_day / clusters * (kept / DAY)
        lasting = icc * alike(kept, known.memory) / alike(HOUR, known.memory)
        variance = known.std_dev**2 * ((1.0 - icc) / rows + lasting)
        n = math.floor(days * DAY / candidate.block) * sum(self._ask.shares)
        together = candidate.together
        planned = n if together else n * clusters
        per_day = max(1, math.floor(DAY / candidate.block))
        levels = (min(24, per_day), min(7, max(1, round(days))))
        parameters = 1 if together else clusters
        parameters += 1 + sum(level - 1 for level in levels)
        for level in reversed(levels):
            parameters -= level - 1 if planned < 2 * parameters else 0
        control, treatment = self._ask.shares
        return stated_blocks(
            variance / (clusters if together else 1),
            share=treatment / (control + treatment),
            planned=planned,
            parameters=parameters,
        )


def alike(length: timedelta, memory: timedelta) -> float:
    """Variance of the mean of a state over a stretch of time, as a share of its variance: its correlation decays
    exponentially, to 1/e after ``memory``."""
    x = length / memory
    return 2.0 / x * (1.0 - -math.expm1(-x) / x)


def _shared(rows: float, icc: float) -> float:
    """Variance of the mean of ``rows`` rows with this intraclass correlation, as a share of one row's."""
    return (1.0 + (max(rows, 1.0) - 1.0) * icc) / max(rows, 1.0)


def _needed(value: float | None, name: str) -> float:
    if value is None:
        raise EstimationError(f"plan.moments does not state {name}")
    return float(value)
