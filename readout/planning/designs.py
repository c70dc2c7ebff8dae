"""The designs that a plan compares, and what each could see of every metric."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Protocol

from estimators.inference import EstimationError
from estimators.planned_error import PlannedError
from estimators.power import detectable_effect, power
from readout.planning.ask import Ask, Target

MOST_DAYS = 366
SHARED = "not valid here: arms share capacity"
SEEN = "not valid here: a unit would see both arms, and users notice"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One design.

    Attributes:
        kind: As in ``design.kind``.
        unit: What is randomized.
        block, washout: Of a switchback.
        together: Whether all clusters of a switchback switch at one time.
        several: Whether there is more than one cluster.
        pairs: Whether clusters are drawn within matched pairs.
        invalid: Why it must not be run; empty: it may.
    """

    kind: str
    unit: str
    block: timedelta | None = None
    washout: timedelta = timedelta(0)
    together: bool = False
    pairs: bool = False
    several: bool = False
    invalid: str = ""

    @property
    def label(self) -> str:
        """As the plan names it."""
        if self.block is not None:
            how = ", together" if self.together and self.several else ""
            return f"switchback {said(self.block)}{how}"
        return f"{self.kind} in pairs" if self.pairs else self.kind


@dataclass(frozen=True, slots=True)
class Sight:
    """What a design could see of a metric; numbers are None where ``reason`` says why.

    Attributes:
        n_control, n_treatment: Randomized units by arm over the planned duration.
        detectable: Smallest effect (or margin) with the wanted power.
        relative: The same as a fraction of the metric's value.
        size: The effect or margin that was asked for.
        power: Its power.
        days: Days until it has the wanted power; None where a year would not do, or where ``dated`` is false.
        dated: Whether it is known how the error falls with time.
    """

    target: Target
    n_control: float | None = None
    n_treatment: float | None = None
    std_error: float | None = None
    df: float | None = None
    detectable: float | None = None
    relative: float | None = None
    power: float | None = None
    days: int | None = None
    dated: bool = True
    reason: str = ""


@dataclass(frozen=True, slots=True)
class DesignPlan:
    """A design with what it could see of every metric, and its carryover bias where that is known."""

    candidate: Candidate
    sights: tuple[Sight, ...]
    bias: float | None = None

    @property
    def first(self) -> Sight:
        """Of the first primary."""
        return next(s for s in self.sights if s.target.role == "primary")

    @property
    def weakest(self) -> Sight:
        """Of the primary that is seen worst: one that is not seen at all, then one of the least power."""
        found = [s for s in self.sights if s.target.role == "primary"]
        return min(found, key=lambda s: (s.detectable is not None, s.power is not None, s.power or 0.0))

    @property
    def sees_all(self) -> bool:
        """Whether it could estimate every primary."""
        return self.weakest.detectable is not None

    @property
    def weakest_power(self) -> float | None:
        """The least power over primaries; None where one has none."""
        found = [s.power for s in self.sights if s.target.role == "primary"]
        return None if any(p is None for p in found) else min(p for p in found if p is not None)


class ErrorOf(Protocol):
    """What errors are planned from: past logs or stated moments."""

    def __call__(self, candidate: Candidate, name: str, days: float) -> PlannedError:
        """The error of a design for a metric after ``days``."""

    def dated(self, candidate: Candidate) -> bool:
        """Whether it is known how the design's error falls with time."""


def sight(candidate: Candidate, target: Target, ask: Ask, error_of: ErrorOf) -> Sight:
    """What one design could see of one metric; ``error_of`` gives the error after so many days."""
    try:
        planned = error_of(candidate, target.metric, ask.days)
        detectable = detectable_effect(planned.std_error, planned.df, ask.alpha, ask.power, one_sided=target.one_sided)
    except EstimationError as error:
        return Sight(target, reason=str(error))
    found = Sight(
        target,
        n_control=planned.n_control,
        n_treatment=planned.n_treatment,
        std_error=planned.std_error,
        df=planned.df if math.isfinite(planned.df) else None,
        detectable=detectable,
        relative=detectable / target.value if target.value > 0.0 else None,
    )
    if target.size is None:
        return replace(found, reason=f"no {'margin' if target.one_sided else 'minimum_effect'} is stated")
    found = replace(
        found, power=power(target.size, planned.std_error, planned.df, ask.alpha, one_sided=target.one_sided)
    )
    # What a unit's sum is worth grows with the time: another duration is another effect.
    if target.per_unit or not error_of.dated(candidate):
        return replace(found, dated=False)
    return replace(found, days=_days(candidate, target, ask, error_of))


def _days(candidate: Candidate, target: Target, ask: Ask, error_of: ErrorOf) -> int | None:
    """Whole days until the wanted power, by halving; None where a year would not do."""

    def enough(days: int) -> bool:
        assert target.size is not None
        try:
            planned = error_of(candidate, target.metric, float(days))
        except EstimationError:
            return False
        found = power(target.size, planned.std_error, planned.df, ask.alpha, one_sided=target.one_sided)
        return found >= ask.power

    low, high = 0, 1
    while not enough(high):
        if high >= MOST_DAYS:
            return None
        low, high = high, min(2 * high, MOST_DAYS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def said(duration: timedelta) -> str:
    """``2h``, ``30m``, ``1d``: as the spec writes it."""
    seconds = round(duration / timedelta(seconds=1))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
