"""A lower bound of a policy's value that holds in any sample size and for weights of any size, by betting.

Rewards are at least 0, so a unit's weighted rewards ``S`` are too, however large. Whoever claims that the value is at
most ``v`` says that ``S - v N`` (``N`` the unit's rows) is at most 0 in the mean; a gambler who stakes ``lambda`` on
each unit in turn, decided before it is seen, then cannot expect to win, and multiplies the capital by ``1 / alpha``
with probability at most ``alpha``. The bound is the largest ``v`` at which ``prod(1 + lambda (S - v N))`` reaches that.
Waudby-Smith and Ramdas (2024), *Estimating means of bounded random variables by betting*; Waudby-Smith, Wu, Ramdas,
Karampatziakis and Mineiro (2024), *Anytime-valid off-policy inference for contextual bandits*.

Stakes follow the running variance, ``sqrt(2 log(1 / alpha) / (n var))``, and stay below 3/4 of what a unit without
reward can lose. Units are taken in random orders that the seed decides and their rewards do not; the mean capital over
several orders is as valid as that of one (Vovk and Wang 2021, *E-values*), and hangs on them less.

Exact for independent draws of units whose rows number at most ``most_rows``: any data where units have one size, else
where no unit can have more rows than the largest seen. Where logs do not hold all that the target does, ``S`` misses
some, and the lower bound stays below the value; the upper one does not stay above it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from estimators.inference import EstimationError

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

STAKE = 0.75
ORDERS = 8
MOST_UNITS = 50_000
_STEPS, _ROUNDING = 60, 1e-9


@dataclass(frozen=True, slots=True)
class ValueBound:
    """One-sided bounds, each at ``1 - alpha``.

    Attributes:
        lower: The value is at least this.
        upper: The value is at most this; None where rewards have no known maximum.
        alpha: Level of each.
        n_units: Units.
    """

    lower: float
    upper: float | None
    alpha: float
    n_units: int


def value_bound(
    scores: ArrayLike,
    rows: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    keys: ArrayLike | None = None,
    most_reward: float | None = None,
    most_rows: float | None = None,
    alpha: float = 0.05,
    orders: int = ORDERS,
    seed: int = 0,
) -> ValueBound:
    """Bounds of a target policy's mean reward per row, from sums by unit.

    Args:
        scores: ``(units,)`` sums of weight times reward, rewards at least 0; weights may have been capped, which leaves
            the lower bound valid.
        rows: ``(units,)`` rows of each unit.
        weights: ``(units,)`` sums of weights, none of them capped; with ``most_reward`` there is an upper bound, from
            ``most_reward - reward``.
        keys: ``(units,)`` names or numbers that do not hang on rewards; with them the result does not hang on the order
            in which units come. None: as they come, which must not hang on rewards.
        most_reward: Largest reward that there can be, known beforehand.
        most_rows: Most rows that a unit can have; None: as many as the largest has.
        alpha: Level.
        orders: How many random orders of the units.
        seed: Of the orders.

    Raises:
        ValueError: ``most_reward`` without ``weights``, or no order.
        EstimationError: Negative scores, a score that ``most_reward`` does not allow, fewer than two units, arrays
            that do not fit, or values that are not finite.
    """
    if most_reward is not None and weights is None:
        raise ValueError("an upper bound needs the weights")
    game = _Game.of(rows, keys, most_rows, alpha, orders, seed)
    s = game.sums(scores)
    upper = None
    if most_reward is not None and weights is not None:
        rest = most_reward * game.sums(weights) - s
        if rest.min() < -_ROUNDING * max(1.0, float(s.max())):
            raise EstimationError("a reward is larger than most_reward allows")
        upper = most_reward - game.lower(np.maximum(rest, 0.0), 0.0)
    return ValueBound(game.lower(s, 0.0), upper, alpha, int((np.asarray(rows) > 0).sum()))


def gain_bound(
    scores: ArrayLike,
    logged: ArrayLike,
    rows: ArrayLike,
    *,
    most_reward: float,
    keys: ArrayLike | None = None,
    most_rows: float | None = None,
    alpha: float = 0.05,
    orders: int = ORDERS,
    seed: int = 0,
) -> float:
    """A lower bound of the target policy's value minus the logging policy's, at ``1 - alpha``.

    A row gives ``w r - r``, which is at least ``-most_reward``; above 0, the target is better.

    Args:
        logged: ``(units,)`` sums of rewards as logged.
        most_reward: Largest reward that there can be, known beforehand.
        scores, rows, keys, most_rows, alpha, orders, seed: As in :func:`value_bound`.

    Raises:
        EstimationError: As :func:`value_bound`.
    """
    game = _Game.of(rows, keys, most_rows, alpha, orders, seed)
    s, earned = game.sums(scores), game.sums(logged)
    if (earned > most_reward * game.rows * (1.0 + _ROUNDING)).any():
        raise EstimationError("a reward is larger than most_reward allows")
    return game.lower(s - earned, most_reward)


@dataclass(frozen=True, slots=True, eq=False)
class _Game:
    """Units that have rows, in the orders that they are bet on.

    Attributes:
        kept: ``(bets, each)`` positions of units that have rows; very many are put together, ``each`` at random.
        rows: ``(bets,)`` their rows.
        draws: ``(orders, bets)``.
        largest: Most rows of a bet.
    """

    kept: NDArray[np.intp]
    rows: Vector
    draws: NDArray[np.intp]
    largest: float
    alpha: float
    n_given: int

    @classmethod
    def of(
        cls,
        rows: ArrayLike,
        keys: ArrayLike | None,
        most_rows: float | None,
        alpha: float,
        orders: int,
        seed: int,
    ) -> _Game:
        if not 0.0 < alpha < 1.0:
            raise EstimationError(f"alpha must lie between 0 and 1, not {alpha!r}")
        if orders < 1:
            raise ValueError("orders must be at least 1")
        n = np.asarray(rows, dtype=np.float64)
        if n.ndim != 1 or not np.isfinite(n).all():
            raise EstimationError("rows must be one number a unit")
        by_key = np.arange(len(n)) if keys is None else np.argsort(np.asarray(keys), kind="stable")
        if by_key.shape != n.shape:
            raise EstimationError("keys must be one a unit")
        kept = by_key[n[by_key] > 0.0]
        if len(kept) < 2:
            raise EstimationError("a bound needs at least two independent units")
        largest = float(n.max())
        if most_rows is not None and most_rows < largest:
            raise EstimationError(f"a unit has {largest:g} rows, more than most_rows allows")
        rng, each = np.random.default_rng(seed), -(-len(kept) // MOST_UNITS)
        if each > 1:
            kept = kept[rng.permutation(len(kept))[: len(kept) // each * each]]
        bets = kept.reshape(-1, each)
        draws = np.stack([rng.permutation(len(bets)) for _ in range(orders)])
        most = each * (largest if most_rows is None else most_rows)
        return cls(bets.astype(np.intp), n[bets].sum(axis=1), draws, most, alpha, len(n))

    def sums(self, values: ArrayLike) -> Vector:
        """``(bets,)`` sums of one value a unit.

        Raises:
            EstimationError: Not one a unit, values that are not finite, or, of those that count, a negative one.
        """
        x = np.asarray(values, dtype=np.float64)
        if x.shape != (self.n_given,):
            raise EstimationError("scores, weights and rows must be one a unit")
        if not np.isfinite(x).all():
            raise EstimationError("the outcome, or a weight, holds values that are not finite")
        found = x[self.kept]
        if found.min() < 0.0:
            raise EstimationError("a bound needs rewards that are at least 0")
        return np.asarray(found.sum(axis=1))

    def lower(self, s: Vector, floor: float) -> float:
        """Bound of ``E[s] / E[rows]`` where a bet's ``s`` is at least ``-floor`` times its rows."""
        scores, rows = s[self.draws], self.rows[self.draws]
        stakes, goal = _stakes(scores, rows, self.alpha), -math.log(self.alpha)

        def wins(v: float) -> bool:
            most = (v + floor) * self.largest
            bet = np.minimum(stakes, STAKE / most) if most > 0.0 else stakes
            capital = np.log1p(bet * (scores - v * rows)).sum(axis=1)
            top = float(capital.max())
            return top + math.log(float(np.exp(capital - top).mean())) >= goal

        if not wins(-floor):
            return -floor
        low, high = -floor, float(s.sum() / self.rows.sum())
        step = max(abs(high), floor)
        while wins(high):
            low, high, step = high, high + step, 2.0 * step
        for _ in range(_STEPS):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if wins(middle) else (low, middle)
            if high - low <= _ROUNDING * max(abs(low), abs(high)):
                break
        return low


def _stakes(scores: Matrix, rows: Matrix, alpha: float) -> Matrix:
    """``(orders, bets)`` stakes, each from the bets before it: none until the pilot is over and a reward was seen."""
    n = scores.shape[1]
    before = np.arange(1, n)
    value = np.cumsum(scores, axis=1)[:, :-1] / np.cumsum(rows, axis=1)[:, :-1]
    # Each unit against the value of those before it; the first one against nothing.
    rest = np.concatenate([scores[:, :1], scores[:, 1:] - value * rows[:, 1:]], axis=1) ** 2
    # The largest counts twice: a variance that misses the tail stakes too much.
    variance = (np.cumsum(rest, axis=1) + np.maximum.accumulate(rest, axis=1))[:, :-1] / before
    with np.errstate(divide="ignore"):
        stake = np.sqrt(2.0 * -math.log(alpha) / (n * variance))
    ready = (before >= math.isqrt(n)) & (variance > 0.0)
    return np.concatenate([np.zeros((len(scores), 1)), np.where(ready, stake, 0.0)], axis=1)
