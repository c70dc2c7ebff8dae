"""How far parallel trends may fail: effects under trends at most so many times as bad as those before treatment.

The assumption, called relative magnitudes: from one period to the next after treatment began, the difference in trends
changes by no more than ``bound`` times the largest such change before. The interval holds the effect under it; the
breakdown value is the least bound at which the interval reaches zero. Source: Rambachan and Roth (2023), *A more
credible approach to parallel trends*, section 2.4.1, with the conditional and least favourable hybrid test of Andrews,
Roth and Pakes (2023), *Inference for linear conditional moment inequalities*, section 5, on the moments of the periods
after treatment, as in their R package HonestDiD.

For each pair of periods before treatment that may have the largest change, and its sign, the assumption is a set of
linear inequalities; the other effects after treatment are nuisance parameters. Their linear program is solved by hand:
the vertices of its dual are the two combinations of steps that bound the estimate, and a pair per step that bounds the
largest change itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from estimators.event_effects import Effects
from estimators.inference import EstimationError
from estimators.panel import Matrix, Vector, consecutive

_DRAWS = 10_000
_FIRST = 0.1  # share of alpha that the least favourable test may spend
_GRID = 400
_SPAN = 20.0
_FLAT = 1e-12


@dataclass(frozen=True, slots=True)
class Breakdown:
    """The least bound at which the interval reaches zero.

    Attributes:
        value: The bound; 0 where the interval holds zero already under parallel trends.
        beyond: Whether the interval still misses zero at the largest bound that was tried, which ``value`` then is.
        alpha: Level of the interval.
    """

    value: float
    beyond: bool
    alpha: float


def breakdown(
    effects: Effects,
    *,
    weights: ArrayLike | None = None,
    alpha: float = 0.05,
    most: float = 10.0,
    seed: int = 0,
) -> Breakdown:
    """How many times the largest violation before treatment it takes to lose the finding that the effect is not zero.

    Args:
        effects: By event time, all relative to -1 (a universal base), with their joint covariance.
        weights: Of the effects at event times 0 and later in the estimate; None: alike.
        alpha: Level of the interval.
        most: Largest bound to try.
        seed: Of the draws for the least favourable critical value.

    Raises:
        EstimationError: Fewer than one effect before the reference or after, gaps between event times.
    """
    problem = _Problem.of(effects, weights, alpha, seed)

    def holds(bound: float) -> bool:
        return any(test.accepts(np.zeros(1))[0] for test in problem.tests(bound))

    if holds(0.0):
        return Breakdown(0.0, False, alpha)
    if not holds(most):
        return Breakdown(most, True, alpha)
    low, high = 0.0, most
    while high - low > 1e-3 * max(1.0, low):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if holds(middle) else (middle, high)
    return Breakdown(0.5 * (low + high), False, alpha)


def relative_magnitudes(
    effects: Effects,
    bound: float,
    *,
    weights: ArrayLike | None = None,
    alpha: float = 0.05,
    seed: int = 0,
) -> tuple[float, float]:
    """Interval at level ``1 - alpha`` for the effect, where trends fail at most ``bound`` times as badly as before.

    Args:
        effects, weights, alpha, seed: As in ``breakdown``.
        bound: At least 0; 0: trends are parallel after treatment began.

    Returns:
        Its ends, in the outcome's unit: the least and greatest effect that is not rejected; infinite where that lies
        more than twenty standard errors, widened by what the bound lets the trends do, from the estimate.

    Raises:
        EstimationError: As ``breakdown``, or no effect is compatible with the data.
    """
    if not bound >= 0.0:
        raise EstimationError(f"a bound on trends must not be negative, not {bound!r}")
    problem = _Problem.of(effects, weights, alpha, seed)
    reach = _SPAN * problem.error + bound * problem.width
    grid = problem.estimate + np.linspace(-reach, reach, 2 * _GRID + 1)
    tests = list(problem.tests(bound))
    kept = np.flatnonzero(np.any([test.accepts(grid) for test in tests], axis=0))
    if not len(kept):
        raise EstimationError("no effect is compatible with the trends allowed")
    ends = []
    for inner, step in ((int(kept[0]), -1), (int(kept[-1]), 1)):
        if not 0 <= inner + step < len(grid):
            ends.append(step * np.inf)
            continue
        inside, outside = float(grid[inner]), float(grid[inner + step])
        for _ in range(20):
            middle = 0.5 * (inside + outside)
            held = any(test.accepts(np.array([middle]))[0] for test in tests)
            inside, outside = (middle, outside) if held else (inside, middle)
        ends.append(0.5 * (inside + outside))
    return ends[0], ends[1]


def compatible(
    effects: Effects,
    value: float,
    bound: float,
    *,
    weights: ArrayLike | None = None,
    alpha: float = 0.05,
    seed: int = 0,
) -> bool:
    """Whether ``value`` is an effect that ``relative_magnitudes`` does not reject; arguments and errors as there."""
    tests = _Problem.of(effects, weights, alpha, seed).tests(bound)
    return any(bool(test.accepts(np.array([value]))[0]) for test in tests)


@dataclass(frozen=True, slots=True, eq=False)
class _Problem:
    """The estimate, and what moves it.

    Attributes:
        values, covariance: Effects without the reference, and their covariance.
        steps_before: ``(a, m)`` changes between neighbouring periods up to the reference, as combinations of effects.
        steps_after: ``(b, m)`` those from the reference on.
        pull: ``(b,)`` what each step after adds to the estimate.
        estimate, error: Weighted effect after treatment, and its standard error.
        width: A scale of the bias that the trends allow per unit of bound.
        draws: ``(draws, m)`` normal draws with ``covariance``.
    """

    values: Vector
    covariance: Matrix
    steps_before: Matrix
    steps_after: Matrix
    pull: Vector
    estimate: float
    error: float
    width: float
    draws: Matrix
    alpha: float

    @classmethod
    def of(cls, effects: Effects, weights: ArrayLike | None, alpha: float, seed: int) -> _Problem:
        some = effects.without_reference()
        times = [int(k) for k in some.keys]
        after = [t for t in times if t >= 0]
        if not after or min(times, default=0) > -2:
            raise EstimationError("a bound on trends needs an effect after treatment and one before the reference")
        if not consecutive(times) or times != sorted(times):
            raise EstimationError("event times must follow each other without a gap")
        share = np.full(len(after), 1.0 / len(after)) if weights is None else np.asarray(weights, dtype=np.float64)
        if share.shape != (len(after),) or not np.isfinite(share).all() or not share.any():
            raise EstimationError("weights must be one finite number per event time from 0, not all zero")
        m = len(times)
        levels = np.insert(np.eye(m), m - len(after), 0.0, axis=0)
        steps = np.diff(levels, axis=0)
        before, later = steps[: m - len(after)], steps[m - len(after) :]
        load = np.r_[np.zeros(m - len(after)), share]
        pull = np.cumsum(share[::-1])[::-1]
        values, vectors = np.linalg.eigh(some.covariance)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        largest = np.abs(before @ some.estimates) + 2.0 * np.sqrt(np.diag(before @ some.covariance @ before.T))
        return cls(
            some.estimates,
            some.covariance,
            before,
            later,
            pull,
            float(load @ some.estimates),
            float(np.sqrt(load @ some.covariance @ load)),
            float(np.abs(pull).sum() * largest.max()),
            np.random.default_rng(seed).standard_normal((_DRAWS, m)) @ root.T,
            alpha,
        )

    def tests(self, bound: float) -> Iterator[_Test]:
        """One test for each place and sign that the largest change before treatment may have."""
        kappa = self.alpha * _FIRST
        for step in self.steps_before:
            for sign in (1.0, -1.0):
                moments, slope = self._vertices(bound * sign * step)
                worst = float(np.quantile((self.draws @ moments.T).max(axis=1), 1.0 - kappa))
                covariance = moments @ self.covariance @ moments.T
                p = 1.0 - (self.alpha - kappa) / (1.0 - kappa)
                yield _Test(moments @ self.values, slope, covariance, worst, p)

    def _vertices(self, allowed: Vector) -> tuple[Matrix, Vector]:
        """Moments ``(2 + b, m)``, none of them positive in expectation, and how the effect enters each.

        Steps and their bounds are ``±step - allowed``; a vertex weighs them so that the nuisance effects drop out, and
        so that the weights times the moments' standard deviations add up to 1.
        """
        sides = [sign * self.steps_after - allowed for sign in (1.0, -1.0)]
        errors = [np.sqrt(np.maximum(np.einsum("ij,jk,ik->i", s, self.covariance, s), 0.0)) for s in sides]
        up, down = np.maximum(self.pull, 0.0), np.maximum(-self.pull, 0.0)
        combined, slope = [], []
        for sign, plus, minus in ((1.0, up, down), (-1.0, down, up)):
            norm = float(plus @ errors[0] + minus @ errors[1])
            combined.append((plus @ sides[0] + minus @ sides[1]) / norm)
            slope.append(sign / norm)
        pairs = (sides[0] + sides[1]) / (errors[0] + errors[1])[:, None]
        return np.vstack([combined, pairs]), np.r_[slope, np.zeros(len(pairs))]


@dataclass(frozen=True, slots=True, eq=False)
class _Test:
    """The hybrid test of moments that are not positive in expectation.

    Attributes:
        values, slope: ``(k,)`` moments at an effect of zero, and how much an effect takes off them.
        covariance: ``(k, k)`` of the moments.
        worst: Least favourable critical value: the test rejects beyond it at once.
        p: Quantile of what the largest moment may be, given the others, short of that.
    """

    values: Vector
    slope: Vector
    covariance: Matrix
    worst: float
    p: float

    def accepts(self, theta: Vector) -> NDArray[np.bool_]:
        """Whether each value of the effect is not rejected."""
        y = self.values - np.outer(theta, self.slope)
        rows = np.arange(len(theta))
        top = y.argmax(axis=1)
        eta = y[rows, top]
        variance = np.diag(self.covariance)[top]
        known = variance <= _FLAT * np.diag(self.covariance).max()
        safe = np.where(known, 1.0, variance)
        share = self.covariance[top] / safe[:, None]
        rest = y - share * eta[:, None]
        gain = 1.0 - share
        gain[rows, top] = 0.0
        # Moments whose shares are 1 move with the largest one, and leave no bound.
        ratio = rest / np.where(np.abs(gain) > 1e-9, gain, 1.0)
        low = np.where(gain > 1e-9, ratio, -np.inf).max(axis=1)
        high = np.minimum(np.where(gain < -1e-9, ratio, np.inf).min(axis=1), self.worst)
        sd = np.sqrt(safe)
        critical = np.maximum(_truncated_quantile(self.p, low / sd, high / sd), 0.0)
        rejected = np.where(known, eta > 0.0, (eta > self.worst) | (eta / sd > critical))
        return np.asarray(~rejected, dtype=np.bool_)


def _truncated_quantile(p: float, low: Vector, high: Vector) -> Vector:
    """Quantile of a standard normal between ``low`` and ``high``, in logarithms of its upper tail."""
    from scipy.special import log_ndtr, ndtri_exp

    with np.errstate(divide="ignore", invalid="ignore"):
        tail = np.logaddexp(np.log1p(-p) + log_ndtr(-low), np.log(p) + log_ndtr(-high))
        found = -np.asarray(ndtri_exp(np.minimum(tail, 0.0)), dtype=np.float64)
    return np.clip(found, low, high)
