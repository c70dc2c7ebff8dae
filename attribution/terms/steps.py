"""Decode steps whose cost depends on how many requests are active: ``h(n)`` joules for n ≥ 1, nothing for none.

The game of one step depends on a coalition only through the number of its members that are active, so each of the n
active ones has ``h(n) / n`` (symmetry, dummy, efficiency); a batch is the sum of its steps (additivity, Shapley 1953).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from attribution.stays import Stays
from attribution.terms.base import Floats, Ints, Masks, one_batch, whole

_CELLS = 2**22  # coalitions × intervals looked at at once


@dataclass(frozen=True, slots=True)
class Steps:
    """``h(n) = base + slope * n`` joules a step with n active requests.

    Attributes:
        base: Joules a step, however many share it.
        slope: Joules that one more active request adds.
    """

    base: float
    slope: float = 0.0

    def cost(self, active: Ints) -> Floats:
        """h of every count; 0 for none."""
        return np.where(active > 0, self.base + self.slope * active, 0.0)

    def shares(self, stays: Stays) -> Floats:
        """(m,) Sum of ``h(n) / n`` over the steps in which the request is active."""
        joules = self.base * stays.timeline.stay
        return joules + self.slope * stays.steps if self.slope else joules

    def totals(self, stays: Stays) -> Floats:
        """(n_batches,) Sum of ``h(n)`` over the steps with anyone active."""
        joules = self.base * stays.timeline.reached
        return joules + self.slope * whole(stays, stays.steps.astype(np.float64)) if self.slope else joules

    def marginals(self, stays: Stays) -> Floats:
        """(m,) The steps in which it is alone, and what it adds to each of its steps."""
        line = stays.timeline
        alone = line.over_stays(np.where(line.active == 1, line.length, 0.0))
        return self.base * alone + self.slope * stays.steps

    def worth(self, stays: Stays, coalitions: Masks) -> Floats:
        """(k,) Interval by interval, by counting who is there."""
        return counted(stays, coalitions, self.cost)


@dataclass(frozen=True)
class StepTable:
    """``h(n)`` by a table: straight lines between its counts.

    Below the first count and above the last one the nearest line goes on, with its own slope.

    Attributes:
        counts: Numbers of active requests, rising; at least two.
        joules: Joules a step at each of them.

    Raises:
        ValueError: Fewer than two counts, counts that do not rise from at least 1, or joules that fall below 0 at one
            of them, at a single request, or somewhere beyond the last.
    """

    counts: tuple[int, ...]
    joules: tuple[float, ...]

    def __post_init__(self) -> None:
        if fault := table_fault(self.counts, self.joules):
            raise ValueError(fault)

    def cost(self, active: Ints) -> Floats:
        """h of every count; 0 for none."""
        x, y = np.asarray(self.counts, dtype=np.float64), np.asarray(self.joules, dtype=np.float64)
        left = np.clip(np.searchsorted(x, active, side="right") - 1, 0, x.size - 2)
        joules = y[left] + (active - x[left]) * (y[left + 1] - y[left]) / (x[left + 1] - x[left])
        return np.where(active > 0, joules, 0.0)

    def shares(self, stays: Stays) -> Floats:
        """(m,) Sum of ``h(n) / n`` over the steps in which the request is active."""
        line = stays.timeline
        count, table = self._table(stays)
        return line.over_stays(line.length * (table / np.maximum(count, 1))[line.active])

    def totals(self, stays: Stays) -> Floats:
        """(n_batches,) Sum of ``h(n)`` over the steps with anyone active."""
        line = stays.timeline
        return line.totals(line.length * self._table(stays)[1][line.active])

    def marginals(self, stays: Stays) -> Floats:
        """(m,) Sum of ``h(n) - h(n - 1)`` over its steps; where the table falls, rising and falling parts apart."""
        line = stays.timeline
        step = np.diff(self._table(stays)[1], prepend=0.0)
        paid = line.length * step[line.active]
        saved = line.over_stays(np.maximum(paid, 0.0))
        return saved - line.over_stays(np.maximum(-paid, 0.0)) if (step < 0).any() else saved

    def worth(self, stays: Stays, coalitions: Masks) -> Floats:
        """(k,) Interval by interval, by counting who is there."""
        return counted(stays, coalitions, self.cost)

    def beyond(self, stays: Stays) -> float:
        """Share of the steps with anyone active whose count lies outside the table, where h is a guess."""
        line = stays.timeline
        outside = (line.active < self.counts[0]) | (line.active > self.counts[-1])
        steps = float(line.length.sum())
        return float(line.length[outside].sum()) / steps if steps else 0.0

    def _table(self, stays: Stays) -> tuple[Ints, Floats]:
        """Every count up to the most that are ever active, and its h."""
        count = np.arange(int(stays.timeline.active.max(initial=0)) + 1)
        return count, self.cost(count)


def table_fault(counts: tuple[int, ...], joules: tuple[float, ...]) -> str:
    """What is wrong with a table of h; empty when nothing is."""
    if len(counts) < 2 or len(counts) != len(joules):
        return "expected joules for at least two numbers of active requests"
    if counts[0] < 1 or any(b <= a for a, b in pairwise(counts)):
        return "expected numbers of active requests that rise, from 1 on"
    if not all(np.isfinite(joules)) or min(joules) < 0:
        return "expected joules of at least 0"
    if joules[0] + (1 - counts[0]) * (joules[1] - joules[0]) / (counts[1] - counts[0]) < 0:
        return f"its first line falls below 0 J before one request; start the table below {counts[0]}"
    if joules[-1] < joules[-2]:
        return "its last line falls, so that many requests would cost less than nothing; end the table where it rises"
    return ""


def counted(stays: Stays, coalitions: Masks, cost: Callable[[Ints], Floats]) -> Floats:
    """(k,) Sum over intervals of their length times ``cost`` of the coalition's members that are active in them."""
    masks = one_batch(stays, coalitions)
    moments = np.unique(np.concatenate([stays.start, stays.end]))
    length = np.diff(moments).astype(np.float64)
    there = (stays.start[:, None] <= moments[:-1]) & (moments[:-1] < stays.end[:, None])
    rows = max(_CELLS // max(length.size, 1), 1)
    worth = np.zeros(len(masks))
    for low in range(0, len(masks), rows):
        part = masks[low : low + rows].astype(np.float64) @ there
        worth[low : low + rows] = cost(part.astype(np.int64)) @ length
    return worth
