"""A cost that sets in beyond a threshold of what is in the batch or in a step: the kink of a roofline.

A roofline ``max(a, b * W)`` of the amount W is ``a + b * (W - a / b)+``: a fixed cost and a hinge. Where every request
weighs alike the cost depends on their number only, and ``StepTable`` has it in closed form; else see ``owen``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from attribution.codes import sum_by
from attribution.owen import TooDear, beyond
from attribution.stays import Stays
from attribution.terms.base import Amount, Floats, Ints, Masks, amount, one_batch, whole

_PAIRS = 2**22  # requests in intervals that are laid out at once


@dataclass(frozen=True, slots=True)
class Hinge:
    """``rate * max(W - threshold, 0)`` joules, W being the sum of the amounts in the batch.

    Attributes:
        rate: Joules per unit beyond the threshold, at least 0.
        threshold: At least 0, in units of the amount.
        of: Which amount.
        most: The largest price of one batch, in sums (n**2 * L), at which it is still computed.
    """

    rate: float
    threshold: float
    of: Amount = "tokens"
    most: float = 2.0**31

    def shares(self, stays: Stays) -> Floats:
        """(m,) Exact shares.

        Raises:
            TooDear: Some batches cost too much; nothing has been computed.
        """
        return self.rate * beyond(amount(stays, self.of), stays.batch, stays.n_batches, self.threshold, self.most)

    def totals(self, stays: Stays) -> Floats:
        """(n_batches,) What is beyond the threshold."""
        return self.rate * np.maximum(whole(stays, amount(stays, self.of).astype(np.float64)) - self.threshold, 0.0)

    def marginals(self, stays: Stays) -> Floats:
        """(m,) How much less is beyond the threshold without the request."""
        mine = amount(stays, self.of).astype(np.float64)
        over = np.maximum(whole(stays, mine) - self.threshold, 0.0)
        return self.rate * np.minimum(mine, over[stays.batch])

    def worth(self, stays: Stays, coalitions: Masks) -> Floats:
        """(k,) What of the members' sum is beyond the threshold."""
        masks = one_batch(stays, coalitions)
        held: Floats = masks.astype(np.float64) @ amount(stays, self.of).astype(np.float64)
        return self.rate * np.maximum(held - self.threshold, 0.0)


@dataclass(frozen=True, slots=True)
class StepHinge:
    """``rate * max(W - threshold, 0)`` joules a step, W being the sum of the amounts of the requests active in it.

    A request weighs the same in all of its steps, so that the steps between two events are one game, computed once.

    Attributes:
        rate, threshold, of: As in ``Hinge``.
        most: The largest price of one interval between two events.
    """

    rate: float
    threshold: float
    of: Amount = "prompt"
    most: float = 2.0**31

    def shares(self, stays: Stays) -> Floats:
        """(m,) Exact shares, interval by interval.

        Raises:
            TooDear: Some batches cost too much.
        """
        mine, length = amount(stays, self.of), stays.timeline.length
        joules = np.zeros(stays.batch.size)
        for row, interval in _pairs(stays):
            names, code = np.unique(interval, return_inverse=True)
            try:
                part = beyond(mine[row], code, names.size, self.threshold, self.most)
            except TooDear as dear:
                raise TooDear(str(dear), np.unique(stays.timeline.batch[names[dear.groups]])) from None
            joules += sum_by(row, part * length[interval], stays.batch.size)
        return self.rate * joules

    def totals(self, stays: Stays) -> Floats:
        """(n_batches,) What is beyond the threshold, over all steps."""
        line = stays.timeline
        return line.totals(self.rate * line.length * np.maximum(self._held(stays) - self.threshold, 0.0))

    def marginals(self, stays: Stays) -> Floats:
        """(m,) How much less is beyond the threshold without the request, over its steps."""
        mine, length = amount(stays, self.of).astype(np.float64), stays.timeline.length
        over = np.maximum(self._held(stays) - self.threshold, 0.0)
        joules = np.zeros(stays.batch.size)
        for row, interval in _pairs(stays):
            joules += sum_by(row, np.minimum(mine[row], over[interval]) * length[interval], stays.batch.size)
        return self.rate * joules

    def worth(self, stays: Stays, coalitions: Masks) -> Floats:
        """(k,) Interval by interval, the sum over the members that are there."""
        masks = one_batch(stays, coalitions).astype(np.float64)
        mine = amount(stays, self.of).astype(np.float64)
        moments = np.unique(np.concatenate([stays.start, stays.end]))
        joules = np.zeros(len(masks))
        for moment, later in zip(moments[:-1].tolist(), moments[1:].tolist(), strict=True):
            there = (stays.start <= moment) & (moment < stays.end)
            joules += (later - moment) * np.maximum(masks @ (mine * there) - self.threshold, 0.0)
        return self.rate * joules

    def _held(self, stays: Stays) -> Floats:
        """(intervals,) The sum of the amounts of those active."""
        line, mine = stays.timeline, amount(stays, self.of)
        rows = mine.size
        return np.cumsum(np.concatenate([mine, -mine])[line.order])[: max(2 * rows - 1, 0)].astype(np.float64)


def _pairs(stays: Stays) -> Iterator[tuple[Ints, Ints]]:
    """Every request in every interval of some length that it is active in, some batches at a time.

    Yields:
        Rows and intervals, (k,) each. All requests of an interval come together.
    """
    line, rows = stays.timeline, stays.batch.size
    if not rows:
        return
    counts = np.concatenate([[0], np.cumsum(line.length > 0)])  # intervals of some length before each one
    real = np.flatnonzero(line.length > 0)
    place = np.empty(2 * rows, dtype=np.int64)
    place[line.order] = np.arange(2 * rows)
    low, high = counts[place[:rows]], counts[place[rows:]]
    order, edges = stays.grouped
    pairs = np.concatenate([[0], np.cumsum((high - low)[order])])[edges]  # laid out before each batch
    begin = 0
    while begin < stays.n_batches:
        end = max(int(np.searchsorted(pairs, pairs[begin] + _PAIRS, side="right")) - 1, begin + 1)
        mine = order[edges[begin] : edges[end]]
        count = (high - low)[mine]
        first = np.repeat(low[mine] - (np.cumsum(count) - count), count)
        yield np.repeat(mine, count), real[first + np.arange(int(count.sum()))]
        begin = end
