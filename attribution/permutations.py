"""Shapley values of one batch's game from random orders of its requests, with a standard error for each.

An order and its reverse are drawn together; their coalitions are each other's complements, and the game enters by its
odd part ``d(S) = v(S) - v(S's complement)`` alone. Two unbiased estimates come from the same coalitions:

- marginal contributions: what a request adds where it stands in the order (Castro, Gómez and Tejada 2009,
  doi:10.1016/j.cor.2008.04.004; pairs: Mitchell et al. 2022, arXiv:2104.12199);
- all coalitions for every request, weighed by ``1/k`` with it and ``-1/(n - k)`` without it (maximum sample reuse;
  the sizes in an order are alike likely, which is leverage score sampling: Musco and Witter 2025, arXiv:2410.01917).

Neither looks at the game itself but at what a weighted regression on ``controls`` leaves of it; the Shapley values of
the fitted controls, which are exact, are added (regression-adjusted Monte Carlo: Witter, Liu and Musco 2025,
arXiv:2506.11849). The two estimates, and two functions of a request's place in the order, are then weighed so that the
variance is least. All coefficients are fitted without the tenth of the orders that they are used on: what they multiply
has expectation zero there, whatever they are, so that the estimate is unbiased. It sums to the worth of the batch.

Pairs of orders are independent given the coefficients, and the standard error is theirs. Looking again after each
doubling, and stopping once the *standard errors* are small enough, never looks at the estimate itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from attribution.asking import Asker, Masks, Odd, Worth, counted_out
from attribution.controls import Chains, Control
from attribution.stays import Floats, Ints

Suggest = Callable[[Floats, Floats], Sequence[Control]]

FEWEST = 40  # orders below which no standard error is worth its name
_FOLDS = 10
_ALWAYS = 6  # requests up to which all coalitions are counted out whatever was asked for
_TAIL = 0.05  # of the tolerance: how near the whole batch's worth an order is cut short
_WIDENING = 5.0  # over pairs - 1: 1.2 is Student's; the rest is for coefficients learnt from few pairs, as measured
_ROUNDING = 1e-12  # of the total
_CELLS = 2**23  # numbers of the controls held at once


@dataclass(frozen=True, slots=True)
class Estimate:
    """Shares of one batch.

    Attributes:
        shares: (n,) Joules; they sum to ``total``.
        std_error: (n,) Standard error of each, 0 where exact. It is widened for few pairs, so that 1.96 of them cover
            in 95 of 100 cases, has in it what cutting orders short may have added, and is never smaller than what one
            more pair, as far out as the batch's pairs are on average, would move the share by.
        alone, marginal: (n,) Worth of each request by itself, and what the batch would save without it.
        total: Worth of the whole batch.
        orders: Orders drawn, reverses counted; 0 where all coalitions were counted out.
        evaluations: Coalitions whose worth was asked for.
        cut: Whether orders were cut short.
        reached: Whether the standard errors came below the tolerance.
    """

    shares: Floats
    std_error: Floats
    alone: Floats
    marginal: Floats
    total: float
    orders: int
    evaluations: int
    cut: bool
    reached: bool

    @property
    def relative_error(self) -> float:
        """Mean standard error over the mean share."""
        mean = abs(self.total) / self.shares.size
        return float(self.std_error.mean() / mean) if mean else float(self.std_error.max() > 0)


def estimate(
    worth: Worth,
    n: int,
    suggest: Suggest,
    *,
    samples: int,
    tolerance: float,
    cap: int,
    rng: np.random.Generator,
    exact: bool = True,
) -> Estimate:
    """Draws ``samples`` orders, then doubles them until the tolerance or the cap is reached.

    Args:
        worth: Joules of coalitions (k, n).
        n: Requests.
        suggest: Gives the controls from each request's worth alone and its marginal to all the others.
        samples: Orders at the first look, at least 40; an odd one is rounded up.
        tolerance: Of the mean standard error, over the mean share.
        cap: Most orders.
        rng: Where chance comes from.
        exact: Count out all coalitions where they are no more than the first look's.

    Raises:
        ValueError: The game gave anything but one finite number a coalition, or a worth to nobody.
    """
    ask = Asker(worth, n)
    everyone = np.ones((1, n), dtype=bool)
    nobody, total = ask(np.concatenate([~everyone, everyone])).tolist()
    if abs(nobody) > 1e-9 * abs(total):
        raise ValueError(f"the game gives {nobody:.6g} J to no request at all; expected 0")
    if n <= _ALWAYS or (exact and 2**n - 2 <= samples * (n - 1)):
        return _exact(ask)
    alone, without = np.split(ask(np.concatenate([np.eye(n, dtype=bool), ~np.eye(n, dtype=bool)])), 2)
    controls = suggest(alone, total - without)
    tail = _TAIL * tolerance * abs(total) / n
    odd_of = Odd(ask, total, alone, without, tail)
    order, pairs = np.zeros((0, n), dtype=np.int64), (samples + 1) // 2
    while True:
        fresh = rng.permuted(np.tile(np.arange(n), (pairs - len(order), 1)), axis=1)
        order = np.concatenate([order, fresh])
        drawn = _adjusted(Chains.of(order), odd_of.more(fresh), total, controls)
        std_error = drawn.std(axis=0, ddof=1) / np.sqrt(pairs) * (1 + _WIDENING / (pairs - 1))
        std_error = np.maximum(std_error, std_error.mean() / np.sqrt(pairs))  # one pair more may lie so far out
        std_error = np.hypot(std_error, 2 * tail if odd_of.cut else _ROUNDING * abs(total))
        reached = bool(std_error.mean() * n <= tolerance * abs(total))
        if reached or 2 * pairs >= cap:
            return Estimate(
                shares=drawn.mean(axis=0),
                std_error=std_error,
                alone=alone,
                marginal=total - without,
                total=total,
                orders=2 * pairs,
                evaluations=ask.count,
                cut=odd_of.cut,
                reached=reached,
            )
        pairs = min(2 * pairs, (cap + 1) // 2)


def _exact(ask: Asker) -> Estimate:
    shares, worth = counted_out(ask)
    bit = 2 ** np.arange(ask.n)
    return Estimate(
        shares=shares,
        std_error=np.zeros(ask.n),
        alone=worth[bit],
        marginal=worth[-1] - worth[worth.size - 1 - bit],
        total=float(worth[-1]),
        orders=0,
        evaluations=ask.count,
        cut=False,
        reached=True,
    )


def _adjusted(chains: Chains, odd: Floats, total: float, controls: Sequence[Control]) -> Floats:
    """(u, n) An estimate of the shares from every pair of orders; each sums to ``total``."""
    u, n = chains.order.shape
    shares = np.concatenate([control.shares for control in controls])
    fold = np.arange(u) % min(_FOLDS, u)
    portions = _Portions(chains, controls, fold, len(shares))
    slopes = _slopes(portions, odd, len(shares))
    rest = total - slopes @ shares.sum(axis=1)
    known = slopes @ shares
    added, reused = np.empty((len(slopes), u, n)), np.empty((len(slopes), u, n))
    for _, rows, games in portions:
        part = Chains(chains.order[rows], chains.place[rows])
        fitted = games @ slopes.T
        for f in range(len(slopes)):
            left = odd[rows] - fitted[:, :, f]
            added[f, rows] = known[f] + _marginals(part, left, rest[f])
            reused[f, rows] = known[f] + rest[f] / n + _reuse(part, left)
    place = _place(chains.place)
    drawn = np.empty((u, n))
    for f in range(len(slopes)):
        aside = [reused[f] - added[f], *(place if u >= 4 * len(slopes) else [])]
        drawn[fold == f] = _weighed(added[f], np.stack(aside, axis=2), fold == f, total)
    return drawn


class _Portions:
    """Goes through pairs of orders, fold by fold, with the odd parts of all controls; keeps these if there is room."""

    def __init__(self, chains: Chains, controls: Sequence[Control], fold: Ints, games: int) -> None:
        self._chains, self._controls = chains, controls
        cells = chains.order.shape[1] * games
        self._rows: list[tuple[int, Ints]] = []
        for f in range(int(fold.max()) + 1):
            mine = np.flatnonzero(fold == f)
            self._rows += [(f, rows) for rows in np.array_split(mine, min(mine.size, mine.size * cells // _CELLS + 1))]
        self._kept: list[Floats] | None = [] if len(fold) * cells <= 4 * _CELLS else None

    def __iter__(self) -> Iterator[tuple[int, Ints, Floats]]:
        for i, (f, rows) in enumerate(self._rows):
            if self._kept is not None and i < len(self._kept):
                yield f, rows, self._kept[i]
                continue
            part = Chains(self._chains.order[rows], self._chains.place[rows])
            games = np.concatenate([control.odd(part) for control in self._controls], axis=2)
            if self._kept is not None:
                self._kept.append(games)
            yield f, rows, games


def _slopes(portions: _Portions, odd: Floats, games: int) -> Floats:
    """(folds, games) Coefficients of the regression without each fold, the coalitions weighed as variance has them."""
    n = odd.shape[1] + 1
    size = np.arange(1, n)
    weight = n / (size * (n - size))
    grams: list[Floats] = []
    sides: list[Floats] = []
    for f, rows, values in portions:
        if f == len(grams):
            grams.append(np.zeros((games, games)))
            sides.append(np.zeros(games))
        flat, heavy = values.reshape(-1, games), np.tile(weight, rows.size)
        grams[f] += flat.T @ (heavy[:, None] * flat)
        sides[f] += flat.T @ (heavy * odd[rows].ravel())
    gram, side = np.sum(grams, axis=0), np.sum(sides, axis=0)
    return np.array([_solved(gram - g, side - s) for g, s in zip(grams, sides, strict=True)])


def _solved(gram: Floats, side: Floats) -> Floats:
    """Coefficients of a regression; games that say the same share one."""
    scale = np.sqrt(np.diag(gram))
    scale[scale <= 1e-9 * scale.max()] = np.inf
    value, vector = np.linalg.eigh(gram / scale / scale[:, None])
    keep = value > 1e-12 * value[-1]
    kept: Floats = vector[:, keep]
    slope: Floats = (kept @ (kept.T @ (side / scale) / value[keep])) / scale
    return slope


def _marginals(chains: Chains, odd: Floats, total: float) -> Floats:
    """(u, n) Half of what each request adds to the odd part, at its place."""
    edge = np.full((len(odd), 1), total)
    steps = np.diff(np.concatenate([-edge, odd, edge], axis=1), axis=1) / 2
    return np.take_along_axis(steps, chains.place, axis=1)


def _reuse(chains: Chains, odd: Floats) -> Floats:
    """(u, n) Half the sum of ``d(S) / k`` over the coalitions with the request, of ``-d(S) / (n - k)`` without it."""
    u, n = chains.order.shape
    size = np.arange(1, n)
    none = np.zeros((u, 1))
    within = np.concatenate([np.cumsum((odd / size)[:, ::-1], axis=1)[:, ::-1], none], axis=1)
    outside = np.concatenate([none, np.cumsum(odd / (n - size), axis=1)], axis=1)
    return np.take_along_axis(within - outside, chains.place, axis=1) / 2


def _place(place: Ints) -> list[Floats]:
    """(u, n) each: whether a request stands first or last, and its squared distance from the middle, less the mean."""
    n = place.shape[1]
    at_the_end = ((place == 0) | (place == n - 1)) - 2 / n
    middle = (place - (n - 1) / 2) / n
    return [at_the_end, middle**2 - (n * n - 1) / (12 * n * n)]


def _weighed(base: Floats, aside: Floats, here: Masks, total: float) -> Floats:
    """(here, n) Takes from ``base`` (u, n) what makes its variance least of ``aside`` (u, n, q), of expectation zero.

    The coefficients, for each request its own, are those of the pairs that are not ``here``. What the sum then misses
    of the total has expectation zero as well; each request takes of it in proportion to its variance.
    """
    wide = aside[~here] - aside[~here].mean(axis=0)
    mine = base[~here] - base[~here].mean(axis=0)
    gram = np.einsum("uiq,uir->iqr", wide, wide)
    side = np.einsum("uiq,ui->iq", wide, mine)
    scale = np.sqrt(np.einsum("iqq->iq", gram))
    scale[scale == 0] = np.inf
    gram = gram / scale[:, :, None] / scale[:, None, :] + 1e-9 * np.eye(aside.shape[2])
    slope = np.linalg.solve(gram, (side / scale)[:, :, None])[:, :, 0] / scale
    spread = ((mine - np.einsum("uiq,iq->ui", wide, slope)) ** 2).sum(axis=0)
    spread = spread / spread.sum() if spread.sum() > 0 else np.full(spread.size, 1 / spread.size)
    drawn: Floats = base[here] - np.einsum("uiq,iq->ui", aside[here], slope)
    drawn += (total - drawn.sum(axis=1, keepdims=True)) * spread
    return drawn
