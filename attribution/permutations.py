"""Shapley values of one batch's game from random orders of its requests, with a standard error for each.

An order and its reverse are drawn together; their coalitions are each other's complements, and the game enters by its
odd part ``d(S) = v(S) - v(S's complement)`` alone. Two unbiased estimates come from the same coalitions:

- marginal contributions: what a request adds where it stands in the order (Castro, Gómez and Tejada 2009,
  doi:10.1016/j.cor.2008.04.004; pairs: Mitchell et al. 2022, arXiv:2104.12199);
- all coalitions for every request, weighed by ``1/k`` with it and ``-1/(n - k)`` without it (maximum sample reuse;
  the sizes of an order are alike likely, which is leverage score sampling: Musco and Witter 2025, arXiv:2410.01917).

Neither looks at the game itself but at what a weighted regression on ``controls`` leaves of it; the Shapley values of
the fitted controls, which are exact, are added (regression-adjusted Monte Carlo: Witter, Liu and Musco 2025,
arXiv:2506.11849). Coefficients are fitted without the fold of orders that they are used on, as is the weight between
the two estimates: what is added has expectation zero whatever the coefficients, so the estimate is unbiased. Each
estimate sums to the worth of the whole batch.

Pairs of orders are independent, and the standard error is theirs. Looking again after each doubling, and stopping once
the *standard error* is small enough, never looks at the estimate itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attribution.controls import Chains, Control
from attribution.stays import Floats, Ints

Masks = NDArray[np.bool_]
Worth = Callable[[Masks], Floats]
Suggest = Callable[[Floats, Floats], Sequence[Control]]

FEWEST = 20  # orders below which no standard error is worth its name
_FOLDS = 10
_ALWAYS = 6  # requests up to which all coalitions are counted out whatever was asked for
_CELLS = 2**22  # requests × coalitions asked for at once


@dataclass(frozen=True, slots=True)
class Estimate:
    """Shares of one batch.

    Attributes:
        shares: (n,) Joules; they sum to ``total``.
        std_error: (n,) Standard error of each, 0 where exact.
        alone, marginal: (n,) Worth of each request by itself, and what the batch would save without it.
        total: Worth of the whole batch.
        orders: Orders drawn, reverses counted; 0 where all coalitions were counted out.
        evaluations: Coalitions whose worth was asked for.
        reached: Whether the standard errors came below the tolerance.
    """

    shares: Floats
    std_error: Floats
    alone: Floats
    marginal: Floats
    total: float
    orders: int
    evaluations: int
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
        samples: Orders at the first look, at least 20; an odd one is rounded up.
        tolerance: Of the mean standard error, over the mean share.
        cap: Most orders.
        rng: Where chance comes from.
        exact: Count out all coalitions where they are no more than the first look's.

    Raises:
        ValueError: The game gave anything but one finite number a coalition, or a worth to nobody.
    """
    ask = _Asker(worth, n)
    everyone = np.ones((1, n), dtype=bool)
    nobody, total = ask(np.concatenate([~everyone, everyone])).tolist()
    if abs(nobody) > 1e-9 * abs(total):
        raise ValueError(f"the game gives {nobody:.6g} J to no request at all; expected 0")
    if n <= _ALWAYS or (exact and 2**n - 2 <= samples * (n - 1)):
        return _counted_out(ask, n)
    alone, without = np.split(ask(np.concatenate([np.eye(n, dtype=bool), ~np.eye(n, dtype=bool)])), 2)
    controls = suggest(alone, total - without)
    order, odd = np.zeros((0, n), dtype=np.int64), np.zeros((0, n - 1))
    pairs = (samples + 1) // 2
    while True:
        fresh = rng.permuted(np.tile(np.arange(n), (pairs - len(order), 1)), axis=1)
        order = np.concatenate([order, fresh])
        odd = np.concatenate([odd, _odd_parts(ask, fresh, alone - without)])
        drawn = _adjusted(Chains.of(order), odd, total, controls)
        std_error = drawn.std(axis=0, ddof=1) / np.sqrt(pairs)
        found = Estimate(
            shares=drawn.mean(axis=0),
            std_error=std_error,
            alone=alone,
            marginal=total - without,
            total=total,
            orders=2 * pairs,
            evaluations=ask.count,
            reached=bool(std_error.mean() * n <= tolerance * abs(total)),
        )
        if found.reached or 2 * pairs >= cap:
            return found
        pairs = min(2 * pairs, (cap + 1) // 2)


class _Asker:
    """The game, its answers checked and counted."""

    def __init__(self, worth: Worth, n: int) -> None:
        self._worth, self._n, self.count = worth, n, 0

    def __call__(self, masks: Masks) -> Floats:
        """(k,) Joules, asked for in portions."""
        step = max(_CELLS // self._n, 1)
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
        return joules


def _counted_out(ask: _Asker, n: int) -> Estimate:
    """Exact shares from the worth of all coalitions; coalition s holds request i where bit i of s is set."""
    worth = np.zeros(2**n)
    codes = np.arange(1, 2**n)
    worth[1:] = ask(((codes[:, None] >> np.arange(n)) & 1).astype(bool))
    members = np.bitwise_count(np.arange(2**n)).astype(np.int64)
    chance = np.zeros(n + 1)
    chance[0] = 1.0 / n
    for k in range(1, n):
        chance[k] = chance[k - 1] * k / (n - k)
    shares = np.empty(n)
    for i in range(n):
        pairs, weight = worth.reshape(-1, 2, 2**i), chance[members].reshape(-1, 2, 2**i)[:, 0]
        shares[i] = ((pairs[:, 1] - pairs[:, 0]) * weight).sum()
    bit = 2 ** np.arange(n)
    return Estimate(
        shares=shares,
        std_error=np.zeros(n),
        alone=worth[bit],
        marginal=worth[-1] - worth[2**n - 1 - bit],
        total=float(worth[-1]),
        orders=0,
        evaluations=ask.count,
        reached=True,
    )


def _odd_parts(ask: _Asker, order: Ints, ends: Floats) -> Floats:
    """(u, n - 1) d of the first k of each order, k = 1 … n - 1; ``ends`` (n,) has it for single requests."""
    u, n = order.shape
    odd = np.empty((u, n - 1))
    odd[:, 0], odd[:, -1] = ends[order[:, 0]], -ends[order[:, -1]]
    place = Chains.of(order).place
    sizes = np.arange(2, n - 1)
    step = max(_CELLS // (2 * n * n), 1)
    for low in range(0, u, step):
        there = (place[low : low + step, None, :] < sizes[:, None]).reshape(-1, n)
        both = ask(np.concatenate([there, ~there]))
        odd[low : low + step, 1:-1] = (both[: len(there)] - both[len(there) :]).reshape(-1, sizes.size)
    return odd


def _adjusted(chains: Chains, odd: Floats, total: float, controls: Sequence[Control]) -> Floats:
    """(u, n) An estimate of the shares from every pair of orders; each sums to ``total``."""
    u, n = chains.order.shape
    shares = np.concatenate([control.shares for control in controls])
    fold = np.arange(u) % min(_FOLDS, u)
    size = np.arange(1, n)
    weight = n / (size * (n - size))
    parts = [Chains(chains.order[fold == f], chains.place[fold == f]) for f in range(fold.max() + 1)]
    games = [np.concatenate([control.odd(part) for control in controls], axis=2) for part in parts]
    grams, sides = [], []
    for f, game in enumerate(games):
        flat, heavy = game.reshape(-1, len(shares)), np.tile(weight, len(game))
        grams.append(flat.T @ (heavy[:, None] * flat))
        sides.append(flat.T @ (heavy * odd[fold == f].ravel()))
    gram, side = np.sum(grams, axis=0), np.sum(sides, axis=0)
    added, reused = np.empty((u, n)), np.empty((u, n))
    for f, game in enumerate(games):
        slope = _solved(gram - grams[f], side - sides[f])
        known, left = slope @ shares, odd[fold == f] - game @ slope
        rest = total - float(known.sum())
        added[fold == f] = known + _marginals(parts[f], left, rest)
        reused[fold == f] = known + rest / n + _reuse(parts[f], left)
    return _weighed(reused, added - reused, fold, total)


def _solved(gram: Floats, side: Floats) -> Floats:
    """Coefficients of the regression; games that say the same share one."""
    scale = np.sqrt(np.diag(gram))
    scale[scale <= 1e-9 * scale.max()] = np.inf
    value, vector = np.linalg.eigh(gram / scale / scale[:, None])
    keep = value > 1e-9 * value[-1]
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


def _weighed(base: Floats, difference: Floats, fold: Ints, total: float) -> Floats:
    """Adds the part of a difference of expectation zero that makes the variance least, a part for each request.

    What the sum then misses of the total has expectation zero as well; each request takes of it in proportion to its
    variance.
    """
    result = np.empty_like(base)
    for f in range(fold.max() + 1):
        here, others = fold == f, fold != f
        wide = difference[others] - difference[others].mean(axis=0)
        mine = base[others] - base[others].mean(axis=0)
        square = (wide**2).sum(axis=0)
        part = np.divide(-(wide * mine).sum(axis=0), square, out=np.zeros_like(square), where=square > 0)
        part = np.clip(part, 0, 1)
        spread = ((mine + part * wide) ** 2).sum(axis=0)
        spread = spread / spread.sum() if spread.sum() > 0 else np.full(part.size, 1 / part.size)
        drawn = base[here] + part * difference[here]
        result[here] = drawn + (total - drawn.sum(axis=1, keepdims=True)) * spread
    return result
