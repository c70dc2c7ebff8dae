"""How far weights can be trusted: effective sample size, the largest share, and how heavy their right tail is.

The tail of the largest weights is fitted by a generalised Pareto distribution; its shape ``k`` says how many moments
the weights have, about ``1 / k``: the mean's error is finite below 0.5, and above 0.7 no practical number of rows makes
the mean reliable. Vehtari, Simpson, Gelman, Yao and Gabry (2024), *Pareto smoothed importance sampling*; the fit: Zhang
and Stephens (2009), *A new and efficient estimation method for the generalized Pareto distribution*; Kish (1965).

All that is needed are sums and the largest weights, so weights can be looked at as rows stream by.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from estimators.inference import EstimationError

Vector = NDArray[np.float64]

# Above it the weighted mean cannot be relied on, however many rows there are.
UNRELIABLE = 0.7
_LEAST = 5
# Share of different values among the tail's weights below which it has no shape.
_DISTINCT = 0.5
# The shape is drawn towards 0.5 as by this many more values.
_PRIOR_SHAPE, _PRIOR_VALUES, _PRIOR_SCALE = 0.5, 10, 3.0


@dataclass(frozen=True, slots=True)
class WeightDiagnostics:
    """What weights look like.

    Attributes:
        n: Rows, those of weight 0 counted.
        ess: Effective sample size, ``(sum w)^2 / sum w^2``.
        mean: Mean weight; about 1 where propensities are right and the logs hold all that the target does.
        largest: The largest weight.
        largest_share: Its share of all weight.
        pareto_k: Shape of the tail; None with ``reason`` where there is none to be seen.
        reason: Why there is no ``pareto_k``.
    """

    n: int
    ess: float
    mean: float
    largest: float
    largest_share: float
    pareto_k: float | None
    reason: str = ""

    @property
    def unreliable(self) -> bool:
        """Whether the tail is too heavy for a mean."""
        return self.pareto_k is not None and self.pareto_k > UNRELIABLE


def weight_diagnostics(weights: ArrayLike) -> WeightDiagnostics:
    """Of ``(n,)`` weights.

    Raises:
        EstimationError: As :func:`weight_diagnostics_from`.
    """
    w = np.asarray(weights, dtype=np.float64)
    if w.ndim != 1 or not len(w):
        raise EstimationError("weights must be one a row")
    if not np.isfinite(w).all():
        raise EstimationError("weights must be finite")
    if w.min() < 0.0:
        raise EstimationError("weights must not be negative")
    return weight_diagnostics_from(largest_of(w, len(w)), n=len(w), total=float(w.sum()), squares=float(w @ w))


def weight_diagnostics_from(largest: ArrayLike, *, n: int, total: float, squares: float) -> WeightDiagnostics:
    """From sums over all rows and the largest weights.

    Args:
        largest: The largest weights, in any order, at least ``tail_length(n) + 1`` of them, or all there are.
        n: Rows, those of weight 0 counted.
        total, squares: Sums of the weights and of their squares.

    Raises:
        EstimationError: Too few of the largest, weights that are negative or not finite, or no weight above 0.
    """
    top = np.sort(np.asarray(largest, dtype=np.float64))
    if not (np.isfinite(top).all() and math.isfinite(total) and math.isfinite(squares)):
        raise EstimationError("weights must be finite")
    if not len(top) or len(top) < min(n, tail_length(n) + 1):
        raise EstimationError(f"{n} rows need their {tail_length(n) + 1} largest weights; there are {len(top)}")
    if top[0] < 0.0:
        raise EstimationError("weights must not be negative")
    if not (squares > 0.0 and total > 0.0):
        raise EstimationError("the target policy never takes an action that was logged, so the logs hold none of it")
    k, reason = _pareto_k(top, n)
    biggest = float(top[-1])
    return WeightDiagnostics(n, total * total / squares, total / n, biggest, biggest / total, k, reason)


def tail_length(n: int) -> int:
    """How many of the largest of ``n`` weights are the tail: ``3 sqrt(n)``, a fifth of few."""
    return math.isqrt(9 * n) if n > 225 else n // 5


def largest_of(weights: Vector, n: int) -> Vector:
    """The largest weights that ``n`` rows need, or all of these where they are fewer.

    A stream keeps ``largest_of(concatenate([kept, chunk]), rows in all)``.
    """
    keep = tail_length(n) + 1
    return weights if len(weights) <= keep else np.partition(weights, len(weights) - keep)[len(weights) - keep :]


def _pareto_k(top: Vector, n: int) -> tuple[float | None, str]:
    if top[-min(len(top), tail_length(n) + 1)] == 0.0:
        # Rows of weight 0 are no tail: where they would fall into it, the tail is that of the others.
        top = top[top > 0.0]
        n = len(top)
    length = tail_length(n)
    if length < _LEAST:
        return None, f"{n} weights are too few to see a tail"
    cutoff, tail = top[-length - 1], top[-length:]
    if tail[0] == tail[-1]:
        return None, "the largest weights are all the same, so they have no tail"
    # A Pareto tail has no ties: fitted to steps, its shape says how far apart they are.
    steps = np.count_nonzero(np.diff(tail)) < _DISTINCT * length
    k = None if steps else _shape(tail - cutoff)
    return (None, "the largest weights take a few values only, so they have no tail") if k is None else (k, "")


def _shape(x: Vector) -> float | None:
    """Shape of a generalised Pareto distribution of sorted excesses; None where a quarter of them are no larger than
    the smallest."""
    n = len(x)
    quarter = x[int(n / 4 + 0.5) - 1]
    if not quarter > x[0]:
        return None
    count = 30 + math.isqrt(n)
    b = 1.0 - np.sqrt(count / (np.arange(1, count + 1) - 0.5))
    b = b / (_PRIOR_SCALE * quarter) + 1.0 / x[-1]
    shapes = np.log1p(-b[:, None] * x).mean(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        likelihood = n * (np.log(-b / shapes) - shapes - 1.0)
    likelihood = np.where(np.isfinite(likelihood), likelihood, -np.inf)
    share = np.exp(likelihood - likelihood.max())
    share /= share.sum()
    share = np.where(share >= 10.0 * np.finfo(float).eps, share, 0.0)
    k = float(np.log1p(-float(share @ b / share.sum()) * x).mean())
    return (n * k + _PRIOR_VALUES * _PRIOR_SHAPE) / (n + _PRIOR_VALUES)
