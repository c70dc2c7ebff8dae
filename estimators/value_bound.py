"""A lower bound of a policy's value that holds in any sample size and for weights of any size, by betting.

Rewards are at least 0, so a unit's weighted rewards ``S`` are too, however large. Whoever claims that the value is at
most ``v`` says that ``S - v N`` (``N`` the unit's rows) is at most 0 in the mean; a gambler who stakes ``lambda`` on
each unit in turn, decided before it is seen, then cannot expect to win, and multiplies the capital by ``1 / alpha``
with probability at most ``alpha``. The bound is the largest ``v`` at which ``prod(1 + lambda (S - v N))`` reaches that.
Waudby-Smith and Ramdas (2024), *Estimating means of bounded random variables by betting*; Waudby-Smith, Wu, Ramdas,
Karampatziakis and Mineiro (2024), *Anytime-valid off-policy inference for contextual bandits*.

Stakes follow the running variance, ``sqrt(2 log(1 / alpha) / (n var))``, and stay below 3/4 of what a unit without
reward can lose. Units come in a random order; the mean capital over several orders is as valid as that of one (Vovk and
Wang 2021, *E-values*), and hangs on them less.

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
_STEPS = 60


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
    if not 0.0 < alpha < 1.0:
        raise EstimationError(f"alpha must lie between 0 and 1, not {alpha!r}")
    if orders < 1:
        raise ValueError("orders must be at least 1")
    if most_reward is not None and weights is None:
        raise ValueError("an upper bound needs the weights")
    s, n = np.asarray(scores, dtype=np.float64), np.asarray(rows, dtype=np.float64)
    if s.ndim != 1 or s.shape != n.shape:
        raise EstimationError("scores and rows must be one a unit")
    s, n, some = s[n > 0.0], n[n > 0.0], n > 0.0
    if len(s) < 2:
        raise EstimationError("a bound needs at least two independent units")
    if not np.isfinite(s).all():
        raise EstimationError("the outcome, or a weight, holds values that are not finite")
    if s.min() < 0.0:
        raise EstimationError("a bound needs rewards that are at least 0")
    largest = float(n.max()) if most_rows is None else float(most_rows)
    if largest < n.max():
        raise EstimationError(f"a unit has {n.max():g} rows, more than most_rows allows")
    lower = _lower(s, n, largest, alpha, orders, seed)
    upper = None
    if most_reward is not None:
        w = np.asarray(weights, dtype=np.float64)
        if w.shape != some.shape:
            raise EstimationError("weights must be one a unit")
        rest = most_reward * w[some] - s
        if rest.min() < -1e-9 * max(1.0, abs(most_reward)) * max(1.0, float(w[some].max())):
            raise EstimationError("a reward is larger than most_reward allows")
        upper = most_reward - _lower(np.maximum(rest, 0.0), n, largest, alpha, orders, seed)
    return ValueBound(lower, upper, alpha, len(s))


def _lower(s: Vector, n: Vector, largest: float, alpha: float, orders: int, seed: int) -> float:
    if not s.any():
        return 0.0
    scores, rows, largest = _ordered(s, n, largest, orders, seed)
    stakes = _stakes(scores, rows, alpha)
    goal = -math.log(alpha)

    def wins(v: float) -> bool:
        bet = np.minimum(stakes, STAKE / (v * largest)) if v > 0.0 else stakes
        capital = np.log1p(bet * (scores - v * rows)).sum(axis=1)
        top = float(capital.max())
        return top + math.log(float(np.exp(capital - top).mean())) >= goal

    if not wins(0.0):
        return 0.0
    low, high = 0.0, float(s.sum() / n.sum())
    while wins(high):
        low, high = high, 2.0 * high
    for _ in range(_STEPS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if wins(middle) else (low, middle)
        if high - low <= 1e-9 * high:
            break
    return low


def _ordered(s: Vector, n: Vector, largest: float, orders: int, seed: int) -> tuple[Matrix, Matrix, float]:
    """Scores and rows in each order; very many units are put together by as many at random, which stays valid."""
    # Sorted first, so that the order in which units come does not matter.
    by_value = np.lexsort((n, s))
    s, n = s[by_value], n[by_value]
    each = -(-len(s) // MOST_UNITS)
    whole = len(s) // each
    rng = np.random.default_rng(seed)
    draws = [rng.permutation(len(s))[: whole * each].reshape(whole, each) for _ in range(orders)]
    scores, rows = (np.stack([x[draw].sum(axis=1) for draw in draws]) for x in (s, n))
    return scores, rows, largest * each


def _stakes(scores: Matrix, rows: Matrix, alpha: float) -> Matrix:
    """``(orders, units)`` stakes, each from the units before it: none until the pilot is over and a reward was seen."""
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
