"""Catoni's M-estimate of the mean: every unit's pull grows with the logarithm of its distance only.

Estimand: the difference of the arms' means. An arm's value is the root ``m`` of ``sum psi(a (x - m)) = 0`` with
``psi(u) = sign(u) log(1 + |u| + u^2 / 2)``; ``a = sqrt(2 L / (n (v + 2 v L / (n - 2 L))))``, ``L = log(2 / alpha)``, is
the scale that Catoni chooses for a variance ``v``, for which the sample's variance stands. As ``n`` grows ``a`` goes to
zero and the estimate to the mean.

The interval is that of an M-estimate (Huber 1964): variance ``mean(psi^2) / (n (a mean(psi'))^2)``, with Welch's
degrees of freedom. Catoni's own bound holds at every ``n`` for a known variance and is about twice as wide, which would
give no verdict where the data have one; ``diagnostics["bound"]`` is its half-width. Source: Catoni (2012),
*Challenging the empirical mean and empirical variance: a deviation study*, proposition 2.4.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from estimators.difference_in_means import relative_effect
from estimators.estimate import Estimate
from estimators.inference import EstimationError, finish, satterthwaite
from estimators.moments import Moments

Vector = NDArray[np.float64]
STEPS = 200


def catoni(control: ArrayLike, treatment: ArrayLike, *, alpha: float = 0.05) -> Estimate:
    """Difference of Catoni's M-estimates.

    Args:
        control, treatment: ``(n,)`` one value a unit.

    Returns:
        The estimate in the outcome's unit; ``diagnostics["bound"]`` is the half-width of Catoni's own interval for the
        difference.

    Raises:
        EstimationError: An arm has fewer units than its scale needs (``2 log(2 / alpha)``), a value is not finite, or
            the outcome does not vary.
    """
    # Each arm's bound at half the level, so that the two together hold at alpha.
    (c, var_c, bound_c, n_c), (t, var_t, bound_t, n_t) = (_arm(values, alpha) for values in (control, treatment))
    if math.sqrt(var_t + var_c) <= 1e-14 * max(abs(t), abs(c)):
        raise EstimationError("the outcome does not vary in either arm, so nothing says how sure the estimate is")
    dfs = (n_t - 1.0, n_c - 1.0)
    return finish(
        "catoni",
        estimate=t - c,
        std_error=math.sqrt(var_t + var_c),
        df=satterthwaite((var_t, var_c), dfs),
        alpha=alpha,
        control_value=c,
        treatment_value=t,
        n_control=n_c,
        n_treatment=n_t,
        relative=relative_effect(c, t, var_c, var_t, dfs, alpha),
        diagnostics={"bound": bound_c + bound_t},
    )


def scale(n: int, variance: float, alpha: float) -> float:
    """Catoni's ``a``, in one over the outcome's unit."""
    log = math.log(2.0 / alpha)
    if n <= 2.0 * log:
        raise EstimationError(f"Catoni's estimate needs more than {2.0 * log:.0f} units in each arm, and one has {n}")
    return math.sqrt(2.0 * log / (n * variance * (1.0 + 2.0 * log / (n - 2.0 * log))))


def influence(u: Vector) -> Vector:
    """``psi``."""
    size = np.abs(u)
    found: Vector = np.sign(u) * np.log1p(size + 0.5 * size * size)
    return found


def root(x: Vector, a: float) -> float:
    """The value about which the pulls of all units cancel, by Newton's steps kept inside a shrinking bracket."""
    low, high = float(x.min()), float(x.max())
    m = float(x.mean())
    for _ in range(STEPS):
        u = a * (x - m)
        pull = float(influence(u).mean())
        low, high = (m, high) if pull > 0.0 else (low, m)
        step = pull / (a * float(_slope(u).mean()))
        following = m + step
        if not low <= following <= high:
            following = 0.5 * (low + high)
        if abs(following - m) <= 1e-14 / a:
            return following
        m = following
    return m


def _arm(values: ArrayLike, alpha: float) -> tuple[float, float, float, int]:
    """Value, its variance, the half-width of the bound at ``alpha / 2``, and units."""
    x = np.asarray(values, dtype=np.float64)
    moments = Moments.from_arrays(x)
    n, mean, variance = moments.n, moments.mean_num, moments.var_num
    if not variance > 0.0:
        return mean, 0.0, 0.0, n
    a = scale(n, variance, alpha)
    centred = x - mean
    shift = root(centred, a)
    u = a * (centred - shift)
    slope = float(_slope(u).mean())
    spread = float(np.square(influence(u)).sum()) / (n - 1.0) / n
    log = math.log(4.0 / alpha)
    bound = math.sqrt(2.0 * variance * log / (n - 2.0 * log)) if n > 2.0 * log else math.inf
    return mean + shift, spread / (a * slope) ** 2, bound, n


def _slope(u: Vector) -> Vector:
    """The derivative of ``psi``."""
    size = np.abs(u)
    found: Vector = (1.0 + size) / (1.0 + size + 0.5 * size * size)
    return found
