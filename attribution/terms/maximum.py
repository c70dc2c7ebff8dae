"""Costs that the largest request of a batch sets: the airport rule, and padding to the longest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attribution.runs import airport, between, largest, ordered
from attribution.stays import Stays
from attribution.terms.base import Amount, Floats, Ints, Masks, amount, masked_max, one_batch


@dataclass(frozen=True, slots=True)
class Maximum:
    """``rate`` joules for each unit of the largest amount in the batch.

    With ``of="end"`` it is the makespan: the replica is held from the batch's first step to its last.

    Attributes:
        rate: Joules per unit, at least 0.
        of: Which amount.
    """

    rate: float
    of: Amount = "output"

    def shares(self, stays: Stays) -> Floats:
        """(m,) Airport rule: every stretch is paid by those that reach beyond it."""
        return self.rate * airport(stays.batch, amount(stays, self.of), stays.n_batches)[0]

    def totals(self, stays: Stays) -> Floats:
        """(n_batches,) The largest amount's joules."""
        return self.rate * largest(stays.batch, amount(stays, self.of).astype(np.float64), stays.n_batches)

    def marginals(self, stays: Stays) -> Floats:
        """(m,) What the largest adds to the next largest; nothing for the others."""
        return self.rate * airport(stays.batch, amount(stays, self.of), stays.n_batches)[1]

    def worth(self, stays: Stays, coalitions: Masks) -> Floats:
        """(k,) Largest amount among the members."""
        return self.rate * masked_max(one_batch(stays, coalitions), amount(stays, self.of).astype(np.float64))


@dataclass(frozen=True, slots=True)
class Padded:
    """``rate`` joules for each unit of the largest amount, times the number of requests: all are padded to it.

    Write the amounts in rising order; a stretch of length d that m of the n requests reach beyond costs ``d * |S|``
    once one of these m is in the coalition S. Its Shapley value is ``d * m / (m + 1)`` for each of the other n - m
    requests (the chance that one of the m comes before it), and ``d * (1 + (n - m) / (m * (m + 1)))`` for each of
    the m.

    Attributes:
        rate: Joules per unit, at least 0.
        of: Which amount.
    """

    rate: float
    of: Amount = "output"

    def shares(self, stays: Stays) -> Floats:
        """(m,) Sum over stretches, two airport-like sums: below one's own amount and beyond it."""
        order, edge, step = self._stretches(stays)
        size, place = np.diff(edge), np.arange(order.size)
        n, low, high = (np.repeat(x, size) for x in (size, edge[:-1], edge[1:]))
        reach = (high - place).astype(np.float64)  # how many go at least as far
        joules = np.empty(order.size)
        joules[order] = between(step * (1 + (n - reach) / (reach * (reach + 1))), low, place + 1)
        joules[order] += between(step * reach / (reach + 1), place + 1, high)
        return self.rate * joules

    def totals(self, stays: Stays) -> Floats:
        """(n_batches,) Requests times the largest amount."""
        return Maximum(self.rate, self.of).totals(stays) * stays.size

    def marginals(self, stays: Stays) -> Floats:
        """(m,) The largest amount once, and what it adds to the next largest for all the others."""
        top = Maximum(self.rate, self.of)
        return top.totals(stays)[stays.batch] + (stays.size[stays.batch] - 1) * top.marginals(stays)

    def worth(self, stays: Stays, coalitions: Masks) -> Floats:
        """(k,) Members times their largest amount."""
        masks = one_batch(stays, coalitions)
        members: Floats = masks.sum(axis=1).astype(np.float64)
        return members * Maximum(self.rate, self.of).worth(stays, masks)

    def _stretches(self, stays: Stays) -> tuple[Ints, Ints, Floats]:
        """Rows by batch and amount, where each batch begins in them (n_batches + 1,), and each row's stretch."""
        mine = amount(stays, self.of)
        order, _, rising = ordered(stays.batch, mine, stays.n_batches)
        edge = np.concatenate([[0], np.cumsum(stays.size)])
        step = np.diff(rising, prepend=0).astype(np.float64)
        fresh = edge[:-1]  # every batch has a row
        step[fresh] = rising[fresh]
        return order, edge, step
