"""How heavy a tail is: Hill's index with its interval, and how much of the sums one unit carries.

``P(X > x)`` falls like ``x ** -index`` in a heavy tail: below 2 the variance is infinite, and below 1 the mean. Hill's
estimate is the inverse of the mean log excess over a high threshold. Where the tail beyond it is a power law, twice the
number of excesses times index over estimate is chi-squared with twice that number of degrees of freedom, which gives an
interval that is exact. Sources: Hill (1975), *A simple general approach to inference about the tail of a distribution*;
for the shares of maxima, Embrechts, Klueppelberg and Mikosch (1997), *Modelling extremal events*, section 6.2.6.

A Hill index depends on where zero lies. Distances are taken from the first quartile, so that a constant added to the
outcome does not matter: from the median, log-normal outcomes look heavier than they are in a few hundred units.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from estimators.inference import EstimationError

# The tail is the largest n ** POWER values: more and log-normal shoulders count as tail, fewer and nothing is seen.
POWER = 0.6
# Fewer excesses say nothing of a tail.
LEAST = 12
# With fewer units neither number tells a log-normal outcome from one without a variance.
ENOUGH = 300
HALF = 0.5


@dataclass(frozen=True, slots=True)
class TailIndex:
    """Hill's index with its interval; ``excesses`` values lie above ``threshold`` (in the outcome's unit)."""

    index: float
    low: float
    high: float
    excesses: int
    threshold: float


@dataclass(frozen=True, slots=True)
class Tail:
    """What the tail says of a mean.

    Attributes:
        units: How many values were looked at.
        index: Of the distances from the first quartile; None where there are too few.
        largest_share: As ``share_of_largest``.
        settling: As ``settling``; None where single values are not at hand.
    """

    units: int
    index: TailIndex | None
    largest_share: float
    settling: float | None = None

    @property
    def heavy(self) -> bool:
        """Whether the index's interval ends below 2: the variance is then infinite as far as the data tell."""
        return self.units >= ENOUGH and self.index is not None and self.index.high < 2.0

    @property
    def concentrated(self) -> bool:
        """Whether one unit carries over half of the sum of squares."""
        return self.units >= ENOUGH and self.largest_share > HALF


def tail_of(values: ArrayLike, *, alpha: float = 0.05, seed: int = 0) -> Tail:
    """The tail of one value a unit, each less its arm's mean where arms are put together.

    Raises:
        EstimationError: No value, or one that is not finite.
    """
    x = np.asarray(values, dtype=np.float64)
    if not len(x) or not np.isfinite(x).all():
        raise EstimationError("the outcome holds values that are not finite")
    place = max(math.ceil(0.25 * len(x)) - 1, 0)
    index = tail_index(x - np.partition(x, place)[place], alpha=alpha)
    return Tail(len(x), index, share_of_largest(x), settling(x, seed=seed))


def tail_size(n: int) -> int:
    """How many of the largest values of ``n`` are the tail."""
    return math.ceil(math.pow(n, POWER) * (1.0 - 1e-12))


def tail_index(values: ArrayLike, *, alpha: float = 0.05) -> TailIndex | None:
    """Hill's index of the largest absolute values.

    Args:
        values: ``(n,)``, a value a unit, any sign.
        alpha: The interval is at ``1 - alpha``.

    Returns:
        None where there are fewer than twelve different excesses over a positive threshold: counts of a few levels
        have no tail.

    Raises:
        EstimationError: A value that is not finite.
    """
    size = np.abs(np.asarray(values, dtype=np.float64))
    if not np.isfinite(size).all():
        raise EstimationError("the outcome holds values that are not finite")
    n = len(size)
    k = tail_size(n)
    if k < LEAST or k >= n:
        return None
    top = np.partition(size, n - k - 1)[n - k - 1 :]
    threshold = float(top[0])
    if not threshold > 0.0:
        return None
    above = top[top > threshold]
    if len(np.unique(above)) < LEAST:
        return None
    return from_sums(len(above), float(np.log(above / threshold).sum()), threshold, alpha=alpha)


def from_sums(excesses: int, log_excess: float, threshold: float, *, alpha: float = 0.05) -> TailIndex | None:
    """Hill's index from the sum of ``log(x / threshold)`` over values above a threshold; None where they are few."""
    from scipy.special import chdtri

    if excesses < LEAST or not log_excess > 0.0:
        return None
    index, df = excesses / log_excess, 2.0 * excesses
    low, high = (float(chdtri(df, p)) / df for p in (1.0 - alpha / 2.0, alpha / 2.0))
    return TailIndex(index, index * low, index * high, excesses, threshold)


def share_of_largest(values: ArrayLike) -> float:
    """Share of the sum of squares about the mean that the farthest unit carries: it goes to zero where the variance is
    finite, and does not where it is infinite. 0 of values that do not vary."""
    x = np.asarray(values, dtype=np.float64)
    square = np.square(x - x.mean())
    total = float(square.sum())
    return float(square.max()) / total if total > 0.0 else 0.0


def settling(values: ArrayLike, *, seed: int = 0) -> float:
    """How far the running mean strays over the second half of the units, in random order, from the mean of all.

    In standard errors of the mean; the order is the seed's, whatever that of the values. 0 of values that do not vary.
    """
    x = np.random.default_rng(seed).permutation(np.sort(np.asarray(values, dtype=np.float64)))
    n = len(x)
    error = float(x.std(ddof=1)) / math.sqrt(n) if n > 1 else 0.0
    if not error > 0.0:
        return 0.0
    centred = np.cumsum(x - x.mean()) / np.arange(1, n + 1)
    return float(np.abs(centred[n // 2 - 1 :]).max()) / error
