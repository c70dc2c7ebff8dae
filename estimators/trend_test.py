"""Did units move apart before treatment, and what move would have been seen.

Jointly where independent units are many: Wald's test of all effects before treatment, as Hotelling's T². Else of the
straight trend alone, the least-squares slope through the reference period, which takes one degree of freedom. Power
against a straight trend is that of the same test, from the non-central F and t; why it must be told: Roth (2022),
*Pretest with caution*.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from estimators.event_effects import Effects
from estimators.inference import EstimationError, critical_value, two_sided_p
from estimators.pre_trend import pre_trend

# Beyond this share of the degrees of freedom, testing every period spends more than it finds.
MOST_TESTED = 0.5


@dataclass(frozen=True, slots=True)
class TrendTest:
    """A test of trends before treatment.

    Attributes:
        kind: ``joint``: no effect before treatment; ``slope``: no straight trend.
        statistic: Hotelling's T² or Wald's statistic; of a slope, t.
        df: Effects tested.
        df_error: Degrees of freedom of their covariance (``inf``: normal).
        p_value: Two-sided.
        slope: Straight trend through the reference period, in the outcome's unit a period.
        std_error: Of the slope.
        alpha: Level that the power is for.
        distance: Non-centrality of the test per squared unit of slope.
    """

    kind: Literal["joint", "slope"]
    statistic: float
    df: int
    df_error: float
    p_value: float
    slope: float
    std_error: float
    alpha: float
    distance: float

    def power(self, slope: float) -> float:
        """Chance of finding a straight trend of so much a period at level ``alpha``."""
        return self._found(slope * slope * self.distance)

    def detectable(self, power: float = 0.8) -> float:
        """The slope that is found with a stated power, above the level."""
        if not self.alpha < power < 1.0:
            raise ValueError("power must lie between the level and 1")
        far = _least(self._found, power)
        return math.sqrt(far / self.distance)

    def _found(self, noncentrality: float) -> float:
        from scipy.special import chdtri, chndtr, fdtri, ncfdtr, nctdtr, ndtr

        if self.kind == "slope":
            delta, half = math.sqrt(noncentrality), critical_value(self.alpha, self.df_error)
            if math.isinf(self.df_error):
                return float(ndtr(delta - half) + ndtr(-delta - half))
            return float(1.0 - nctdtr(self.df_error, delta, half) + nctdtr(self.df_error, delta, -half))
        if math.isinf(self.df_error):
            return float(1.0 - chndtr(chdtri(self.df, self.alpha), self.df, noncentrality))
        rest = self.df_error - self.df + 1.0
        limit = float(fdtri(self.df, rest, 1.0 - self.alpha))
        return float(1.0 - ncfdtr(self.df, rest, noncentrality, limit))


def trend_test(effects: Effects, *, alpha: float = 0.05) -> TrendTest:
    """Test the effects before treatment.

    Args:
        effects: By event time, all relative to -1 (a universal base), with their joint covariance and degrees of
            freedom: their mean is taken for the joint test, the least for the slope.
        alpha: Level for the power.

    Raises:
        EstimationError: No effect before the reference, or effects that determine each other.
    """
    before = effects.before()
    m = len(before.keys)
    if not m:
        raise EstimationError("a pre-trend test needs two periods before treatment")
    line = np.asarray(before.keys, dtype=np.float64) + 1.0
    df = float(before.df.mean())
    share = line / (line @ line)
    slope, std_error = float(share @ before.estimates), math.sqrt(float(share @ before.covariance @ share))
    if m == 1 or m <= MOST_TESTED * df:
        found = pre_trend(before, alpha=alpha, df=df)
        # An inverse of an estimated covariance is too large on average, by this factor.
        shrink = 1.0 if math.isinf(df) else max(df - m - 1.0, 1.0) / df
        distance = shrink * float(line @ np.linalg.solve(before.covariance, line))
        return TrendTest("joint", found.statistic, m, df, found.p_value, slope, std_error, alpha, distance)
    if not std_error > 0.0:
        raise EstimationError("the effects before treatment do not vary")
    t, df = slope / std_error, float(before.df.min())
    return TrendTest("slope", t, 1, df, two_sided_p(t, df), slope, std_error, alpha, std_error**-2)


def _least(found: Callable[[float], float], power: float) -> float:
    """The least non-centrality with a power."""
    low, high = 0.0, 1.0
    while found(high) < power:
        low, high = high, 2.0 * high
    for _ in range(80):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if found(middle) < power else (low, middle)
    return 0.5 * (low + high)
