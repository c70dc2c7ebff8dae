"""Cheap games whose Shapley values are known exactly, to be regressed on: control variates for sampled games.

What is sampled is a coalition and its complement together, so that only the *odd part* of a game counts,
``v(S) - v(S's complement)``: the other part has no Shapley value but for the equal share of ``v(N)``. Fixed costs and
everything that is a sum over pairs of requests is thereby exact before any control is at work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attribution.stays import Floats, Ints

Bools = NDArray[np.bool_]

PER_REQUEST = 256  # requests up to which each has a coefficient of its own, and counts by set are kept
_CELLS = 2**21  # counts held at once
_CAPS = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True, slots=True)
class Chains:
    """Orders in which requests join; the first k of an order are its k-th coalition.

    Attributes:
        order: (u, n) Who comes k-th.
        place: (u, n) When each comes.
    """

    order: Ints
    place: Ints

    @classmethod
    def of(cls, order: Ints) -> Chains:
        """From the orders alone."""
        place = np.empty_like(order)
        np.put_along_axis(place, order, np.broadcast_to(np.arange(order.shape[1]), order.shape), axis=1)
        return cls(order, place)


@dataclass(frozen=True, slots=True)
class Own:
    """Every request's own cost, a game for each: 1 where it is there."""

    n: int

    @property
    def shares(self) -> Floats:
        """(n, n) Game by request."""
        return np.eye(self.n)

    def odd(self, chains: Chains) -> Floats:
        """(u, n - 1, n) 1 where the request is in the coalition, -1 where it is in its complement."""
        there = chains.place[:, None, :] < np.arange(1, self.n)[:, None]
        return np.where(there, 1.0, -1.0)


@dataclass(frozen=True, slots=True)
class Amount:
    """A sum of amounts over the members, for batches too large for a coefficient each."""

    amount: Floats

    @property
    def shares(self) -> Floats:
        """(1, n) The amounts."""
        return self.amount[None, :]

    def odd(self, chains: Chains) -> Floats:
        """(u, n - 1, 1) The members' sum less the others'."""
        held = np.cumsum(self.amount[chains.order], axis=1)
        return (2 * held[:, :-1] - held[:, -1:])[:, :, None]


@dataclass(frozen=True, slots=True)
class Largest:
    """The largest amount: the airport game."""

    amount: Floats

    @property
    def shares(self) -> Floats:
        """(1, n) Each stretch is paid in equal parts by those that reach beyond it."""
        n = self.amount.size
        order = np.argsort(self.amount, kind="stable")
        shares = np.empty((1, n))
        shares[0, order] = np.cumsum(np.diff(self.amount[order], prepend=0.0) / np.arange(n, 0, -1))
        return shares

    def odd(self, chains: Chains) -> Floats:
        """(u, n - 1, 1) The members' largest less the others'."""
        mine = self.amount[chains.order]
        first = np.maximum.accumulate(mine, axis=1)[:, :-1]
        last = np.maximum.accumulate(mine[:, ::-1], axis=1)[:, -2::-1]
        return (first - last)[:, :, None]


@dataclass(frozen=True, slots=True)
class Counted:
    """Sum over sets of ``weight * min(c, members in the set)``, a game for each cap c.

    With the sets of those active in each stretch of steps and a cap of 1 it is a step cost; with the sets of those
    that reach beyond an amount it is the sum of the c largest amounts; with one set of all it depends on size alone.
    The game of one set is symmetric in its members, so each has ``min(c, m) / m`` of it.

    Attributes:
        sets: (t, n) Who is in each.
        weight: (t,) What each counts.
        caps: The c.
    """

    sets: Bools
    weight: Floats
    caps: tuple[int, ...]

    @property
    def shares(self) -> Floats:
        """(caps, n) Game by request."""
        size = self.sets.sum(axis=1)
        each = [self.weight * np.minimum(cap, size) / np.maximum(size, 1) for cap in self.caps]
        return np.array(each) @ self.sets

    def odd(self, chains: Chains) -> Floats:
        """(u, n - 1, caps) The members' worth less the others'."""
        u, n = chains.order.shape
        odd = np.zeros((len(self.caps), u * (n - 1)))
        step = max(_CELLS // (u * n), 1)
        for low in range(0, len(self.sets), step):
            sets, weight = self.sets[low : low + step], self.weight[low : low + step]
            count = np.cumsum(sets[:, chains.order], axis=2, dtype=np.int32)
            size = count[:, :, -1:]
            within, outside = count[:, :, :-1], size - count[:, :, :-1]
            for i, cap in enumerate(self.caps):
                more = np.minimum(within, cap) - np.minimum(outside, cap)
                odd[i] += weight @ more.reshape(len(sets), -1)
        return odd.T.reshape(u, n - 1, -1)


Control = Own | Amount | Largest | Counted


def controls_of(n: int, amounts: Mapping[str, Floats], start: Floats | None, end: Floats | None) -> list[Control]:
    """The games that a batch's log suggests.

    Args:
        n: Requests, at least 2.
        amounts: Name → (n,) numbers of at least 0 that costs may rise with.
        start, end: (n,) Steps in which each is active, ``[start, end)``, if known.
    """
    found: list[Control] = []
    distinct = {a.tobytes(): a / a.mean() for a in amounts.values() if np.ptp(a) > 0}
    caps = tuple(c for c in _CAPS if c < n)
    if n > PER_REQUEST:
        found += [Amount(np.ones(n)), *(Amount(a) for a in distinct.values())]
        return found + [Largest(a) for a in distinct.values()]
    found.append(Own(n))
    found.append(Counted(np.ones((1, n), dtype=bool), np.ones(1), caps))
    for a in distinct.values():
        levels = np.unique(a)
        found.append(Counted(a >= levels[:, None], np.diff(levels, prepend=0.0), caps))
    if start is not None and end is not None:
        moments = np.unique(np.concatenate([start, end]))
        there = (start <= moments[:-1, None]) & (moments[:-1, None] < end)
        length = np.diff(moments)
        busy = there.any(axis=1)
        if busy.any():
            found.append(Counted(there[busy], length[busy] / length[busy].mean(), caps))
    return found
