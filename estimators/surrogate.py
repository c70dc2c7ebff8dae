"""What past experiments say of a long-run effect, given a short-run one.

The line of true long effects on true short ones (:mod:`estimators.errors_in_variables`), and beside it what surrogate
endpoints are judged by: the share of the variance of true long effects that true short effects explain (the trial-level
R² of Daniels and Hughes 1997 and of Buyse et al. 2000), how well left-out experiments are foretold, the smallest short
effect that foretells a long one for sure (the surrogate threshold effect, Burzykowski and Buyse 2006), and how likely a
good short effect goes with a bad long one (the surrogate paradox, VanderWeele 2013). A plain regression of estimates
is pulled to zero by the noise of the short effects, and towards the noise that both effects share where they come from
the same units (Bibaut et al. 2024, *Learning the covariance of treatment effects across many weak experiments*).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from estimators.errors_in_variables import Cases, Line, fit, predictions_without
from estimators.inference import EstimationError, critical_value, two_sided_p
from estimators.ols import Vector
from estimators.random_effects import random_effects

FEWEST = 5
"""Experiments below which nothing is said."""
_FAR = 6.0  # standard deviations, by the median, at which an experiment is said to be far off
_PARTS = 50  # in which experiments are left out, where they are more


@dataclass(frozen=True, slots=True)
class Prediction:
    """A long-run effect foretold; ``std_error`` counts the line's error, what it leaves, and the short effect's error.

    Attributes:
        estimate, std_error, df, ci_low, ci_high: In the long effect's unit; the interval is for the true effect.
        below_zero: Probability of a true long effect below zero.
    """

    estimate: float
    std_error: float
    df: int
    ci_low: float
    ci_high: float
    below_zero: float


@dataclass(frozen=True, slots=True)
class Surrogate:
    """Evidence of past experiments.

    Attributes:
        n: Experiments.
        line: The line of true long on true short effects.
        alpha: Intervals are at ``1 - alpha``.
        p_value: Of no slope.
        r2: Share of the variance of true long effects that true short ones explain.
        loo_error: Root mean square of measured long effects less what the other experiments foretell.
        mean_error: The same where the others' mean long effect foretells it.
        shortest, longest: Range of the measured short effects.
        rests_on: The experiment that holds more than half of what the slope rests on, and without which none is shown;
            None where there is none.
        farthest: The experiment farthest from what the others foretell, and what they do; None where it is not far off.
    """

    n: int
    line: Line
    alpha: float
    p_value: float
    r2: float
    loo_error: float
    mean_error: float
    shortest: float
    longest: float
    rests_on: int | None = None
    farthest: tuple[int, float] | None = None

    def predict(self, short: float, std_error: float = 0.0) -> Prediction:
        """The long-run effect of an experiment with this short effect; ``std_error`` is the short effect's own."""
        line = self.line
        value, error = line.at(short)
        own = (line.slope**2 + line.covariance[1][1]) * std_error**2
        total = math.sqrt(max(error, 0.0) + line.between + own)
        half = critical_value(self.alpha, line.df) * total
        two = two_sided_p(value / total, line.df)
        below = two / 2.0 if value > 0.0 else 1.0 - two / 2.0
        return Prediction(value, total, line.df, value - half, value + half, below)

    def threshold(self, *, short_sign: int, long_sign: int) -> float | None:
        """The smallest good short effect, measured without error, whose whole prediction interval is a good long one.

        Args:
            short_sign, long_sign: 1 where higher is better, -1 where lower is.

        Returns:
            The effect with its sign; None where none foretells a good long effect for sure.
        """
        line, c2 = self.line, critical_value(self.alpha, self.line.df) ** 2
        a, b = long_sign * line.intercept, long_sign * short_sign * line.slope
        (aa, ab), (_, bb) = line.covariance
        # (a + b x)² = c² (aa + 2 ab x + bb x² + tau²), of which the root where a + b x is positive and goes on rising.
        square, mixed, rest = b * b - c2 * bb, a * b - c2 * short_sign * ab, a * a - c2 * (aa + line.between)
        if b <= 0.0 or square <= 0.0:
            return None
        root = (-mixed + math.sqrt(max(mixed * mixed - square * rest, 0.0))) / square
        return short_sign * max(root, 0.0)


def surrogate(
    short: Vector,
    short_se: Vector,
    long: Vector,
    long_se: Vector,
    *,
    correlation: Vector | None = None,
    alpha: float = 0.05,
) -> Surrogate:
    """Evidence of past experiments.

    Args:
        short, long: ``(n,)`` estimated effects, each in one unit throughout.
        short_se, long_se: ``(n,)`` their standard errors; a long one is above zero.
        correlation: ``(n,)`` of the two errors of an experiment, in (-1, 1); None: zero.
        alpha: Intervals are at ``1 - alpha``.

    Raises:
        EstimationError: Fewer than :data:`FEWEST` experiments, or short effects that do not differ beyond their errors.
    """
    n = len(short)
    if n < FEWEST:
        count = "one past experiment says" if n == 1 else f"{n} past experiments say"
        said = f"{count} nothing yet" if n else "there is no past experiment"
        raise EstimationError(f"{said}: at least {FEWEST} are needed")
    shared = np.zeros(n) if correlation is None else correlation * short_se * long_se
    cases = Cases(short, long, short_se**2, long_se**2, shared)
    line = fit(cases, alpha=alpha)
    explained = line.slope**2 * line.spread
    groups = np.arange(n) % _PARTS
    missed = long - predictions_without(cases, line, groups)
    keep = (groups[None, :] != np.unique(groups)[:, None]).astype(float)
    means, _ = random_effects(long[None, :], long_se[None, :] ** 2, keep)
    return Surrogate(
        n=n,
        line=line,
        alpha=alpha,
        p_value=two_sided_p(line.t_of_none, line.df),
        r2=explained / (explained + line.between) if explained > 0.0 else 0.0,
        loo_error=float(np.sqrt(np.mean(missed**2))),
        mean_error=float(np.sqrt(np.mean((long - means[groups]) ** 2))),
        shortest=float(short.min()),
        longest=float(short.max()),
        rests_on=_rests_on(cases, line, alpha),
        farthest=_farthest(missed, long),
    )


def _farthest(missed: Vector, long: Vector) -> tuple[int, float] | None:
    """The largest miss where it is far beyond the others: what is usual is measured without it, by the median."""
    size = np.abs(np.where(np.isfinite(missed), missed, 0.0))
    most = int(np.argmax(size))
    usual = float(np.median(np.delete(size, most))) / 0.6745
    return (most, float(long[most] - missed[most])) if size[most] > _FAR * usual else None


def _rests_on(cases: Cases, line: Line, alpha: float) -> int | None:
    """The experiment with more than half of the weighted squares of short effects, if no slope is shown without it."""
    way = math.copysign(1.0, line.slope)
    if not min(way * line.low, way * line.high) > 0.0:
        return None
    weight = 1.0 / (line.between + cases.var_y + line.slope**2 * cases.var_x - 2.0 * line.slope * cases.covariance)
    squares = weight * (cases.x - float(weight @ cases.x) / float(weight.sum())) ** 2
    most = int(np.argmax(squares))
    if squares[most] <= 0.5 * squares.sum():
        return None
    rest = Cases(*(np.delete(v, most) for v in (cases.x, cases.y, cases.var_x, cases.var_y, cases.covariance)))
    try:
        without = fit(rest, alpha=alpha)
    except EstimationError:
        return most
    return None if min(way * without.low, way * without.high) > 0.0 else most
