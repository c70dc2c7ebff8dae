"""How long a series of states remembers: the decay of its autocovariance, row noise left out.

A state that follows ``x_t = rho * x_{t-1} + u_t`` and is seen with independent noise has autocovariances
``c_k = c * rho**k`` from lag 1 on; lag 0 also holds the noise and is not used. ``rho`` is the slope of ``c_{k+1}`` on
``c_k`` through the origin. Source: Walker (1931), the Yule-Walker equations of an ARMA(1, 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from estimators.inference import EstimationError

LAGS = 12
ENOUGH = 30  # pairs of neighbouring steps


@dataclass(frozen=True, slots=True)
class Memory:
    """What is left of a state, step by step.

    Attributes:
        rho: Share that is left after one step; 0 where neighbours do not correlate beyond chance.
        lag1: Correlation of neighbouring steps as seen, row noise included.
        n_pairs: Pairs of neighbouring steps that were compared.
    """

    rho: float
    lag1: float
    n_pairs: int

    def steps_until(self, left: float) -> float:
        """Steps until at most the share ``left`` of the state remains; infinite where it does not fade."""
        if self.rho <= 0.0:
            return 0.0
        return math.inf if self.rho >= 1.0 else math.log(left) / math.log(self.rho)


def memory(values: ArrayLike) -> Memory:
    """Memory of residual states.

    Args:
        values: ``(n_series, n_steps)`` residuals around their calendar and series means, nan where nothing was seen.

    Raises:
        EstimationError: Fewer than 30 pairs of neighbouring steps, or no variation.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 2:
        raise EstimationError("states must have one row per series and one column per step")
    x = x - np.nanmean(x) if np.isfinite(x).any() else x
    pairs = [_covariance(x, k) for k in range(min(LAGS, max(x.shape[1] - 1, 0)) + 1)]
    if len(pairs) < 2 or pairs[1][1] < ENOUGH:
        raise EstimationError("too few neighbouring steps to see how a state fades")
    cov = np.array([c for c, n in pairs if n >= ENOUGH])
    if not cov[0] > 0.0:
        raise EstimationError("the state does not vary")
    lag1, n = float(cov[1] / cov[0]), pairs[1][1]
    if lag1 <= 2.0 / math.sqrt(n):
        return Memory(0.0, lag1, n)
    # From the first lag that chance could have made, what follows is noise.
    small = np.flatnonzero(cov[1:] <= 2.0 * cov[0] / math.sqrt(n))
    last = int(small[0]) if len(small) else len(cov) - 1
    before, after = cov[1 : last + 1], cov[2 : last + 2]
    before = before[: len(after)]
    rho = float(before @ after / (before @ before)) if len(after) else lag1
    return Memory(min(max(rho, 0.0), 1.0), lag1, n)


def _covariance(x: NDArray[np.float64], lag: int) -> tuple[float, int]:
    first, second = x[:, : x.shape[1] - lag], x[:, lag:]
    both = np.isfinite(first) & np.isfinite(second)
    n = int(both.sum())
    return (float((first[both] * second[both]).sum()) / n if n else 0.0), n
