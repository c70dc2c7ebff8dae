"""Every batch's requests as they come and go: sums over their stays, for all batches in one pass.

The events (a request begins, a request ends) are sorted once by batch and step. Between two events the same requests
are active, so that what each of them pays is one number an interval, and a request's share is the sum of these numbers
over its stay: the difference of a running sum at its end and at its start.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from attribution.codes import sum_by
from attribution.runs import exact_parts, ordered

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Timeline:
    """Intervals between the events of all batches; there are 2 × rows events and one interval fewer.

    Attributes:
        order: (2 × rows,) Which event stands where: row ``i`` begins as event i and ends as event rows + i.
        batch: (intervals,) The batch of each interval.
        active: (intervals,) Requests active in it.
        length: (intervals,) Its steps; 0 where nobody is active.
        n_batches: Number of batches.
    """

    order: Ints
    batch: Ints
    active: Ints
    length: Floats
    n_batches: int

    @cached_property
    def reached(self) -> Floats:
        """(n_batches,) Steps in which anyone is active."""
        return self.totals(self.length)

    @cached_property
    def stay(self) -> Floats:
        """(rows,) Each request's equal part of the steps it is active in: the sum of 1/n over them."""
        return self.over_stays(self.length / np.maximum(self.active, 1))

    def over_stays(self, paid: Floats) -> Floats:
        """(rows,) Sum over each request's stay of what an active request pays in every interval, ``paid >= 0``.

        Exact to rounding whatever else is in the arrays, and bit for bit the same in whatever order the rows stand.
        """
        rows = self.order.size // 2
        if not rows:
            return np.zeros(0)
        coarse, fine = exact_parts(paid)
        running = np.zeros(2 * rows, dtype=np.complex128)  # both parts side by side: one walk through memory
        np.cumsum(coarse, out=running.real[1:])
        np.cumsum(fine, out=running.imag[1:])
        elapsed = np.empty_like(running)
        elapsed[self.order] = running
        stayed = elapsed[rows:] - elapsed[:rows]
        return stayed.real + stayed.imag

    def totals(self, cost: Floats) -> Floats:
        """(n_batches,) Sum over each batch's intervals of ``cost`` (intervals,)."""
        return sum_by(self.batch, cost, self.n_batches)


def timeline(batch: Ints, start: Ints, end: Ints, n_batches: int) -> Timeline:
    """Sorts the events.

    Args:
        batch: (rows,) Codes 0 … n_batches - 1, in any order.
        start, end: (rows,) Active in steps ``[start, end)``; 0 ≤ start ≤ end.
        n_batches: Number of batches.
    """
    rows = batch.size
    owner, moment = np.concatenate([batch, batch]), np.concatenate([start, end])
    order, owner, moment = ordered(owner, moment, n_batches)
    # After its last event a batch has nobody active, so what lies between two batches counts for nothing.
    active = np.cumsum(np.where(order < rows, np.int8(1), np.int8(-1)), dtype=np.int64)[:-1]
    length = np.where(active > 0, np.diff(moment), 0).astype(np.float64)
    return Timeline(order=order, batch=owner[:-1], active=active, length=length, n_batches=n_batches)
