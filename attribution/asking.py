"""Asking a game for the worth of coalitions: in portions, checked, counted, and no more often than needed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from attribution.stays import Floats, Ints

Masks = NDArray[np.bool_]
Worth = Callable[[Masks], Floats]

_CELLS = 2**22  # requests × coalitions asked for at once
_ROUNDING = 1e-9  # of the largest answer: below zero by so little is zero
_AUDIT = 10  # of truncated orders, one in so many is carried through
_BLOCKS = 8  # portions in which an order is asked for where it may be cut short


class Asker:
    """A game of n requests whose answers are checked and counted.

    Attributes:
        n: Requests.
        count: Coalitions asked for so far.
    """

    def __init__(self, worth: Worth, n: int) -> None:
        self._worth, self.n, self.count = worth, n, 0

    def __call__(self, masks: Masks) -> Floats:
        """(k,) Joules of coalitions (k, n).

        Raises:
            ValueError: The game gave anything but one finite number a coalition, none of them negative.
        """
        step = max(_CELLS // self.n, 1)
        parts = [self._checked(masks[low : low + step]) for low in range(0, len(masks), step)]
        return np.concatenate(parts) if parts else np.zeros(0)

    def _checked(self, masks: Masks) -> Floats:
        self.count += len(masks)
        answer = self._worth(masks)
        try:
            joules = np.asarray(answer, dtype=np.float64)
        except (TypeError, ValueError):
            raise ValueError("the game gave no numbers; expected joules, one a coalition") from None
        if joules.shape != (len(masks),):
            raise ValueError(
                f"the game gave an array of shape {joules.shape} for {len(masks)} coalitions; expected one number each"
            )
        if not np.isfinite(joules).all():
            raise ValueError("the game gave a worth that is not finite; expected joules of every coalition")
        if (least := joules.min(initial=0.0)) < -_ROUNDING * np.abs(joules).max(initial=0.0):
            raise ValueError(f"the game gave {least:.6g} J for a coalition; energy cannot be negative")
        return joules


class Odd:
    """The odd part ``v(S) - v(S's complement)`` along orders of requests, cut short where that is safe.

    The first k of an order and the first n - k of its reverse are complements. As in Data Shapley (Ghorbani and Zou
    2019, arXiv:1904.02868) an order is asked no further once its worth is within ``tail`` of the whole batch's. What
    is left out then counts as the whole batch's worth; in a game that stays within ``tail`` from there on, as one that
    never falls does, no share is thereby off by more than twice ``tail``. Whether this game does is seen: the first
    orders are carried through, and so is one in ten later. When one of them leaves, what was cut is asked for, and no
    order is cut any more.

    Attributes:
        cut: Whether an order was cut short.
    """

    def __init__(self, ask: Asker, total: float, alone: Floats, without: Floats, tail: float) -> None:
        self._ask, self._total, self._tail = ask, total, tail
        self._alone, self._without = alone, without
        self._place = np.zeros((0, ask.n), dtype=np.int64)  # of orders and reverses
        self._worth = np.zeros((0, ask.n - 1))
        self._safe = tail > 0
        self.cut = False

    def more(self, order: Ints) -> Floats:
        """(u, n - 1) The odd part of all orders so far, after these (u, n) are added."""
        place = np.empty_like(order)
        np.put_along_axis(place, order, np.broadcast_to(np.arange(self._ask.n), order.shape), axis=1)
        both = np.stack([place, self._ask.n - 1 - place], axis=1).reshape(-1, self._ask.n)
        worth = np.full((len(both), self._ask.n - 1), np.nan)
        first = both.argmin(axis=1)
        last = both.argmax(axis=1)
        worth[:, 0], worth[:, -1] = self._alone[first], self._without[last]
        seen = len(self._place)
        self._place, self._worth = np.concatenate([self._place, both]), np.concatenate([self._worth, worth])
        pilot = 0 if seen else min(20, len(both))
        self._carry(np.arange(seen, seen + pilot))
        rest = np.arange(seen + pilot, len(self._place))
        if self._worth_cutting():
            audited = rest // 2 % _AUDIT == 0
            self._carry(rest[audited])
            if self._safe:
                self._cut_short(rest[~audited])
        while (unknown := np.flatnonzero(np.isnan(self._worth).any(axis=1))).size:
            self._carry(unknown)
        self.cut = bool(np.isinf(self._worth).any())
        known = np.where(np.isinf(self._worth), self._total, self._worth)
        return known[0::2] - known[1::2, ::-1]

    def _carry(self, rows: Ints) -> None:
        """Asks for all that is not known of these orders, and looks whether any leaves the whole batch's worth."""
        self._fill(rows, np.arange(1, self._ask.n - 2))
        near = np.abs(self._worth[rows] - self._total) <= self._tail
        if (np.maximum.accumulate(near, axis=1) & ~near).any():
            self._safe = False
            self._worth[np.isinf(self._worth)] = np.nan

    def _fill(self, rows: Ints, at: Ints) -> None:
        """Asks for the first k + 1 of orders ``rows``, for each k of ``at``, where not known."""
        which, where = np.nonzero(np.isnan(self._worth[np.ix_(rows, at)]))
        step = max(_CELLS // self._ask.n, 1)
        for low in range(0, which.size, step):
            row, k = rows[which[low : low + step]], at[where[low : low + step]]
            self._worth[row, k] = self._ask(self._place[row] <= k[:, None])

    def _worth_cutting(self) -> bool:
        """Whether the orders carried through were near the whole batch's worth for a tenth of their way."""
        done = self._worth[~np.isnan(self._worth).any(axis=1), :-1]
        return self._safe and bool(np.mean(np.isinf(done) | (np.abs(done - self._total) <= self._tail)) > 0.1)

    def _cut_short(self, rows: Ints) -> None:
        """Asks portion by portion, and leaves out (inf) what lies behind an order's first worth near the whole's."""
        n = self._ask.n
        for at in np.array_split(np.arange(1, n - 2), min(_BLOCKS, max(n - 3, 1))):
            self._fill(rows, at)
            near = (np.abs(self._worth[np.ix_(rows, at)] - self._total) <= self._tail).any(axis=1)
            done = rows[near]
            if done.size:
                self._worth[done] = np.where(np.isnan(self._worth[done]), np.inf, self._worth[done])
            rows = rows[~near]


def counted_out(ask: Asker) -> tuple[Floats, Floats]:
    """Exact shares (n,) and the worth (2**n,) of all coalitions; coalition s holds request i where its bit i is set."""
    n = ask.n
    codes = np.arange(2**n)
    worth = np.zeros(2**n)
    worth[1:] = ask(((codes[1:, None] >> np.arange(n)) & 1).astype(bool))
    chance = np.zeros(n + 1)  # that exactly a given set of k of the others comes before a request
    chance[0] = 1.0 / n
    for k in range(1, n):
        chance[k] = chance[k - 1] * k / (n - k)
    weight = chance[np.bitwise_count(codes)]
    shares = np.empty(n)
    for i in range(n):
        pairs, without = worth.reshape(-1, 2, 2**i), weight.reshape(-1, 2, 2**i)[:, 0]
        shares[i] = ((pairs[:, 1] - pairs[:, 0]) * without).sum()
    return shares, worth
