"""Pre-trends: a joint test of the effects before treatment, and what it could have seen.

A test that passes says little where it would have passed anyway. Source: Roth (2022), *Pretest with caution:
event-study estimates after testing for parallel trends*: the power of a pre-test against a trend, the slope it finds
with a stated probability, and the bias of effects that are looked at only because the pre-test passed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from estimators.event_effects import Effects
from estimators.inference import EstimationError, critical_value

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

_POINTS = 30_000
_RANK = 1e-10


@dataclass(frozen=True, slots=True)
class PreTrend:
    """Joint test that all effects before treatment are zero.

    Attributes:
        statistic: Wald's statistic.
        df: Effects tested.
        df_error: Degrees of freedom of their covariance (``inf``: chi-square).
        p_value: Its p-value.
        significant: Event times, or keys, whose own effect is significant.
    """

    statistic: float
    df: int
    df_error: float
    p_value: float
    significant: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class TrendPower:
    """What a pre-test could have seen of a straight trend that starts at the reference period.

    Attributes:
        slope: Change a period, in the outcome's unit.
        power: Chance that some effect before treatment is significant on its own.
        power_joint: Chance that the joint test is.
        bias: What the trend adds to the effect after treatment.
        bias_if_passed: The same among those experiments whose effects before treatment are all insignificant.
    """

    slope: float
    power: float
    power_joint: float
    bias: float
    bias_if_passed: float


def pre_trend(before: Effects, *, alpha: float = 0.05, df: float = math.inf) -> PreTrend:
    """Wald test of the effects before treatment, by Hotelling's T² where ``df`` is finite.

    Args:
        before: Effects that parallel trends make zero, without the reference.
        alpha: Level of the single tests.
        df: Degrees of freedom of the covariance.

    Raises:
        EstimationError: No effect before treatment, effects that determine each other, or more than ``df`` can tell.
    """
    from scipy.special import chdtrc, fdtrc

    m = len(before.keys)
    if not m:
        raise EstimationError("a pre-trend test needs two periods before treatment")
    z = before.estimates / before.std_errors
    statistic = float(z @ np.linalg.solve(_correlation(before.covariance), z))
    if math.isinf(df):
        p = float(chdtrc(m, statistic))
    elif df - m + 1.0 > 0.0:
        p = float(fdtrc(m, df - m + 1.0, statistic * (df - m + 1.0) / (df * m)))
    else:
        raise EstimationError(f"{m} periods before treatment are too many to test with so few independent units")
    half = critical_value(alpha, df)
    keys = tuple(k for k, t in zip(before.keys, z, strict=True) if abs(t) > half)
    return PreTrend(statistic, m, df, p, keys)


def trend_power(effects: Effects, slope: float, *, weights: ArrayLike | None = None, alpha: float = 0.05) -> TrendPower:
    """Power of the pre-test against a straight trend, and the bias that the trend leaves.

    Args:
        effects: By event time, all relative to -1 (universal base), with their joint covariance.
        slope: Of the trend, per period; the trend is zero at -1.
        weights: Of the effects at event times 0 and later in the estimate; None: alike.
        alpha: Level of the pre-test.

    Raises:
        EstimationError: As ``pre_trend``; no effect after treatment.
    """
    from scipy.special import chndtr

    sample = _Sample.of(effects, weights, alpha)
    trend = slope * (sample.times + 1.0)
    m = len(sample.before)
    passed, mean = rectangle(trend[sample.before], sample.covariance[np.ix_(sample.before, sample.before)], sample.half)
    delta = trend[sample.before] / np.sqrt(np.diag(sample.covariance)[sample.before])
    distance = float(delta @ np.linalg.solve(sample.correlation, delta))
    bias = float(sample.weights @ trend[sample.after])
    return TrendPower(
        slope,
        1.0 - passed,
        1.0 - float(chndtr(_chi_square_quantile(1.0 - alpha, m), m, distance)),
        bias,
        bias + float(sample.pull @ (mean - trend[sample.before])),
    )


def slope_for_power(effects: Effects, *, power: float = 0.5, alpha: float = 0.05) -> float:
    """The slope, in the outcome's unit a period, of which some effect before treatment is significant with chance
    ``power``.

    Raises:
        EstimationError: As ``trend_power``; ``power`` not between the pre-test's size and 1.
    """
    sample = _Sample.of(effects, None, alpha)
    covariance = sample.covariance[np.ix_(sample.before, sample.before)]
    line = sample.times[sample.before] + 1.0

    def found(slope: float) -> float:
        return 1.0 - rectangle(slope * line, covariance, sample.half)[0]

    if not found(0.0) < power < 1.0:
        raise EstimationError(f"power must lie between {found(0.0):.3g}, the pre-test's size, and 1, not {power!r}")
    low, high = 0.0, float(np.min(sample.half / np.abs(line)))
    while found(high) < power:
        low, high = high, 2.0 * high
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if found(middle) < power else (low, middle)
        if high - low < 1e-7 * high:
            break
    return 0.5 * (low + high)


def rectangle(mean: Vector, covariance: Matrix, half: Vector) -> tuple[float, Vector]:
    """Chance that a normal vector lies within ``±half``, and its mean there.

    Separation of variables on a fixed lattice: Genz (1992), *Numerical computation of multivariate normal
    probabilities*; the lattice is Richtmyer's, its points folded. Errors are near 1e-5.
    """
    from scipy.special import ndtr, ndtri

    m = len(mean)
    root = np.linalg.cholesky(covariance)
    primes = [p for p in range(2, 2000) if all(p % q for q in range(2, math.isqrt(p) + 1))][:m]
    steps = np.arange(1, _POINTS + 1)[:, None] * np.sqrt(primes)
    u = np.abs(2.0 * (steps % 1.0) - 1.0)
    z = np.zeros((_POINTS, m))
    weight = np.ones(_POINTS)
    for k in range(m):
        shift = mean[k] + z[:, :k] @ root[k, :k]
        low, high = ndtr((-half[k] - shift) / root[k, k]), ndtr((half[k] - shift) / root[k, k])
        weight = weight * (high - low)
        z[:, k] = ndtri(np.clip(low + u[:, k] * (high - low), 1e-300, 1.0 - 1e-16))
    total = float(weight.sum())
    if not total > 0.0:
        return 0.0, np.clip(mean, -half, half)
    return total / _POINTS, np.asarray(mean + root @ (weight @ z) / total, dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class _Sample:
    """Effects laid out for power: positions before and after, the pre-test's bounds, how one pulls the other."""

    times: Vector
    covariance: Matrix
    before: NDArray[np.intp]
    after: NDArray[np.intp]
    half: Vector
    weights: Vector
    pull: Vector
    correlation: Matrix

    @classmethod
    def of(cls, effects: Effects, weights: ArrayLike | None, alpha: float) -> _Sample:
        some = effects.without_reference()
        times = np.asarray(some.keys, dtype=np.float64)
        before, after = np.flatnonzero(times < -1.0), np.flatnonzero(times >= 0.0)
        if not len(before):
            raise EstimationError("a pre-trend test needs two periods before treatment")
        if not len(after):
            raise EstimationError("no period after treatment is left")
        share = np.full(len(after), 1.0 / len(after)) if weights is None else np.asarray(weights, dtype=np.float64)
        if share.shape != after.shape:
            raise EstimationError("weights must be one per event time from 0")
        inner = some.covariance[np.ix_(before, before)]
        correlation = _correlation(inner)
        half = critical_value(alpha, math.inf) * some.std_errors[before]
        pull = np.linalg.solve(inner, some.covariance[np.ix_(before, after)] @ share).astype(np.float64)
        return cls(times, some.covariance, before, after, half, share, pull, correlation)


def _correlation(covariance: Matrix) -> Matrix:
    scale = np.sqrt(np.diag(covariance))
    out = covariance / np.outer(scale, scale)
    if not np.linalg.eigvalsh(out)[0] > _RANK:
        raise EstimationError("the effects before treatment determine each other: too few independent units for a test")
    return np.asarray(out, dtype=np.float64)


def _chi_square_quantile(p: float, df: int) -> float:
    from scipy.special import chdtri

    return float(chdtri(df, 1.0 - p))
