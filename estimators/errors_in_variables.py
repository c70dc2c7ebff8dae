"""A line between two quantities that are both measured with known errors, and that does not fit every case.

``y_i = a + b xi_i + u_i + f_i``, ``x_i = xi_i + e_i``, where ``(e_i, f_i)`` have known variances and covariance and
``u_i`` the unknown variance ``tau^2`` between cases. At a slope ``b`` the residual ``r_i = y_i - b x_i`` has variance
``V_i = tau^2 + var f_i + b^2 var e_i - 2 b cov(e_i, f_i)``, and

    ``d_i = x_i - (cov(e_i, f_i) - b var e_i) / V_i * (r_i - a)``

is all that ``x_i`` and ``y_i`` tell of ``xi_i`` once ``b`` is given, and independent of ``r_i``, whatever the ``xi_i``
are (the conditional score of Stefanski and Carroll 1987). So at the true slope ``r`` does not depend on ``d``: the
estimate is the slope at which the weighted regression of ``r`` on ``g(d)`` is flat, and the interval holds every slope
at which its t test does not reject, as an Anderson-Rubin set does. It is unbounded where the ``x_i`` differ too little
beyond their errors. ``g(d)`` is the mean of ``xi_i`` given ``d_i`` under ``xi_i ~ N(mu, omega^2)``, which is efficient
where that holds and valid where not; with ``shrink=False`` it is ``d_i`` itself, and with ``tau^2 = 0`` the estimate is
York's (York et al. 2004), the minimum of orthogonal distances.

``tau^2`` is found by restricted maximum likelihood (in ``d`` that of the slope under test, in the weights that of the
regression), and the error of the slope is scaled by the residuals and referred to t with ``n - 2`` degrees of freedom
(Knapp and Hartung 2003). Without errors in ``x`` all of it is the ordinary random-effects meta-regression.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from estimators.inference import EstimationError, critical_value
from estimators.ols import Matrix, Vector
from estimators.random_effects import random_effects

_STEPS = 300
_CLOSE, _ROUGHLY = 1e-13, 1e-5  # relative, of the variance between: at an answer, and on the way to it
_GRID = 121  # slopes looked at, as angles between the standardized axes
_EDGE = 1e-3  # the steepest of them, from the vertical
_TRIES = 100


@dataclass(frozen=True, slots=True, eq=False)
class Cases:
    """What is known of ``n`` cases; all arrays are ``(n,)``.

    Attributes:
        x, y: The two estimates.
        var_x, var_y: Their squared standard errors; ``var_x`` may be zero.
        covariance: Of the two errors of a case.
    """

    x: Vector
    y: Vector
    var_x: Vector
    var_y: Vector
    covariance: Vector


@dataclass(frozen=True, slots=True)
class Line:
    """The line.

    Attributes:
        slope, intercept: In the units of ``y / x`` and ``y``.
        covariance: ``((var a, cov), (cov, var b))`` with the residuals' scale in it.
        between: ``tau^2``, what the line leaves between cases, in the squared unit of ``y``.
        mean, spread: ``mu`` and ``omega^2`` of the true ``x``.
        low, high: The slope's interval; infinite where unbounded.
        t_of_none, df: Test statistic of no slope, and its degrees of freedom.
    """

    slope: float
    intercept: float
    covariance: tuple[tuple[float, float], tuple[float, float]]
    between: float
    mean: float
    spread: float
    low: float
    high: float
    t_of_none: float
    df: int

    def at(self, x: float) -> tuple[float, float]:
        """The line's value at ``x`` and the variance of that estimate."""
        (aa, ab), (_, bb) = self.covariance
        return self.intercept + self.slope * x, aa + 2.0 * ab * x + bb * x * x


@dataclass(frozen=True, slots=True, eq=False)
class _Tested:
    """The regression of ``r`` on ``g`` at given slopes; arrays are ``(p,)``."""

    tilt: Vector  # slope of r on g
    error: Vector  # its standard error
    level: Vector  # weighted mean of r: the intercept where the tilt is zero
    between: Vector
    scale: Vector
    weight: Vector  # sum of weights
    middle: Vector  # weighted mean of g
    square: Vector  # weighted sum of squares of g around it
    likelihood: Vector


def fit(cases: Cases, *, alpha: float = 0.05, between: float | None = None, shrink: bool = True) -> Line:
    """The line, with its interval.

    Args:
        cases: At least three.
        alpha: Intervals are at ``1 - alpha``.
        between: ``tau^2``, where it is known; None: estimated.
        shrink: Whether a true ``x`` is taken for its mean given what is seen; else for what is seen, as York does.

    Raises:
        EstimationError: Fewer than three cases, ``x`` that do not differ beyond their errors, or no slope that fits.
    """
    if len(cases.x) < 3:
        raise EstimationError("a line needs three cases")
    if not np.ptp(cases.x) > 0.0:
        raise EstimationError("the short effects of past experiments are all the same")
    problem = _Problem(cases, between, shrink, np.ones((1, len(cases.x))))
    if shrink and not problem.spread[0] > 0.0:
        raise EstimationError("the short effects of past experiments do not differ beyond their errors")
    theta = np.linspace(-math.pi / 2 + _EDGE, math.pi / 2 - _EDGE, _GRID)
    on_grid = problem.at(np.tan(theta), _ROUGHLY)
    falls = np.flatnonzero((on_grid.tilt[:-1] > 0.0) & (on_grid.tilt[1:] <= 0.0))
    if not len(falls):
        raise EstimationError("no line fits the past experiments")
    best = int(falls[np.argmax(on_grid.likelihood[falls])])
    angle = problem.root(theta[best : best + 1], theta[best + 1 : best + 2], lambda tested: tested.tilt)
    found = problem.at(np.tan(angle))
    df = len(cases.x) - 2
    critical = critical_value(alpha, df)

    def past(tested: _Tested) -> Vector:
        beyond: Vector = np.abs(tested.tilt) - critical * tested.error
        return beyond

    ends = [_end(problem, theta, past(on_grid) > 0.0, angle, side, past) for side in (-1, 1)]
    none = problem.at(np.zeros(1))
    return problem.line(math.tan(angle[0]), found, ends, float(none.tilt[0] / none.error[0]), df)


def _end(
    problem: _Problem,
    theta: Vector,
    outside: NDArray[np.bool_],
    angle: Vector,
    side: int,
    past: Callable[[_Tested], Vector],
) -> float:
    """The interval's end on one side of the estimate, as a slope on the standardized axes."""
    order = np.flatnonzero(theta > angle) if side > 0 else np.flatnonzero(theta < angle)[::-1]
    beyond = np.flatnonzero(outside[order])
    if not len(beyond):
        return side * math.inf
    first = int(beyond[0])
    within = theta[order[first - 1 : first]] if first else angle
    return math.tan(problem.root(within, theta[order[first : first + 1]], past)[0])


def predictions_without(cases: Cases, line: Line, groups: NDArray[np.intp]) -> Vector:
    """``y`` of every case as the line says that is fitted without the case's group, at its measured ``x``.

    Args:
        cases: As the line was fitted to.
        line: Of all cases; each refit looks for the flat slope nearest to it.
        groups: ``(n,)`` codes from 0; one for each case leaves one out at a time.

    Returns:
        ``(n,)``; nan where the others tell no line.
    """
    keep = (groups[None, :] != np.arange(int(groups.max()) + 1)[:, None]).astype(float)
    problem = _Problem(cases, None, True, keep)
    whole = np.full(len(keep), math.atan(line.slope * problem.unit_x / problem.unit_y))
    low, high, missing = whole.copy(), whole.copy(), np.ones(len(keep), dtype=bool)
    steepest = math.pi / 2 - _EDGE
    for width in (0.05, 0.1, 0.2, 0.4, 0.8, 1.6):
        low = np.where(missing, np.maximum(whole - width, -steepest), low)
        high = np.where(missing, np.minimum(whole + width, steepest), high)
        with np.errstate(invalid="ignore", divide="ignore"):
            ends = [problem.at(np.tan(theta), _ROUGHLY).tilt for theta in (low, high)]
        missing &= ~((ends[0] > 0.0) & (ends[1] <= 0.0))
        if not missing.any():
            break
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = np.tan(problem.root(low, high, lambda tested: tested.tilt))
        level = problem.at(slope).level
    slope[missing | ~(problem.spread > 0.0)] = math.nan
    predicted: Vector = problem.unit_y * (level[groups] + slope[groups] * problem.x)
    return predicted


class _Problem:
    """The cases on standardized axes, so that slopes are angles."""

    def __init__(self, cases: Cases, between: float | None, shrink: bool, keep: Matrix) -> None:
        self.unit_x, self.unit_y = float(np.std(cases.x)), float(np.std(cases.y))
        if not self.unit_x > 0.0:
            raise EstimationError("the short effects of past experiments are all the same")
        self.unit_y = self.unit_y or float(np.sqrt(cases.var_y.mean())) or 1.0
        self.x, self.y = cases.x / self.unit_x, cases.y / self.unit_y
        self.var_x, self.var_y = cases.var_x / self.unit_x**2, cases.var_y / self.unit_y**2
        self.covariance = cases.covariance / (self.unit_x * self.unit_y)
        self.between = None if between is None else between / self.unit_y**2
        self.shrink, self.keep = shrink, keep
        self.mean, self.spread = random_effects(self.x[None, :], self.var_x[None, :], keep)

    def at(self, slopes: Vector, close: float = _CLOSE) -> _Tested:
        """Test ``(p,)`` slopes: one for each problem, or of a single problem many."""
        b, keep = slopes[:, None], self.keep
        r = self.y - b * self.x
        n = keep.sum(axis=1)
        noise = self.var_y + b * b * self.var_x - 2.0 * b * self.covariance
        if self.between is None:
            level, between = random_effects(r, noise, keep, close)
        else:
            between = np.full(len(slopes), self.between)
            level = (keep / (noise + self.between) * r).sum(axis=1) / (keep / (noise + self.between)).sum(axis=1)
        # What x and y tell of the true x if b is the slope, and the variance of its error.
        v = noise + between[:, None]
        pull = self.covariance - b * self.var_x
        d = self.x - pull / v * (r - level[:, None])
        if self.shrink:
            left = np.maximum(self.var_x - pull**2 / v, 0.0)
            mean, spread = self.mean[:, None], self.spread[:, None]
            d = mean + spread / (spread + left) * (d - mean)
        for _ in range(_STEPS):
            w = keep / (noise + between[:, None])
            weight = w.sum(axis=1)
            middle, level = (w * d).sum(axis=1) / weight, (w * r).sum(axis=1) / weight
            g = d - middle[:, None]
            square = (w * g * g).sum(axis=1)
            tilt = (w * g * r).sum(axis=1) / square
            e = r - level[:, None] - tilt[:, None] * g
            if self.between is not None:
                break
            found = np.maximum(between + _scoring(w, g, e, weight, square), 0.0)
            done = np.abs(found - between) <= close * (between + found + noise.min(axis=1))
            between = found
            if done.all():
                break
        scale = (w * e * e).sum(axis=1) / (n - 2.0)
        if self.between is not None:
            scale = np.ones(len(slopes))
        fitted = keep * (np.log(v) + (r - level[:, None]) ** 2 / v)
        return _Tested(
            tilt, np.sqrt(scale / square), level, between, scale, weight, middle, square, -0.5 * fitted.sum(axis=1)
        )

    def root(self, low: Vector, high: Vector, of: Callable[[_Tested], Vector]) -> Vector:
        """The ``(p,)`` angles at which a function that changes sign between two is zero (regula falsi, Illinois)."""
        at_low, at_high = (of(self.at(np.tan(theta))) for theta in (low, high))
        for _ in range(_TRIES):
            open_ = (np.abs(high - low) > 1e-15 * (np.abs(low) + np.abs(high))) & (np.abs(at_high) > 1e-15)
            if not open_.any():
                break
            gap = np.where(at_high == at_low, 1.0, at_high - at_low)
            middle = np.where(open_, high - at_high * (high - low) / gap, high)
            at_middle = np.where(open_, of(self.at(np.tan(middle))), at_high)
            crossed = at_middle * at_high < 0.0
            low, at_low = (
                np.where(open_ & crossed, high, low),
                np.where(open_, np.where(crossed, at_high, 0.5 * at_low), at_low),
            )
            high, at_high = middle, at_middle
        return high

    def line(self, slope: float, found: _Tested, ends: list[float], t_of_none: float, df: int) -> Line:
        """Back to the units of the cases."""
        per = self.unit_y / self.unit_x
        scale, middle = float(found.scale[0]), float(found.middle[0])
        bb = scale / float(found.square[0])
        aa, ab = scale / float(found.weight[0]) + bb * middle**2, -bb * middle
        return Line(
            slope=slope * per,
            intercept=float(found.level[0]) * self.unit_y,
            covariance=((aa * self.unit_y**2, ab * self.unit_y * per), (ab * self.unit_y * per, bb * per**2)),
            between=float(found.between[0]) * self.unit_y**2,
            mean=float(self.mean[0]) * self.unit_x,
            spread=float(self.spread[0]) * self.unit_x**2,
            low=ends[0] * per,
            high=ends[1] * per,
            t_of_none=t_of_none,
            df=df,
        )


def _scoring(w: Matrix, g: Matrix, e: Matrix, weight: Vector, square: Vector) -> Vector:
    """Fisher's step of the variance between, from the restricted likelihood of a regression on one and ``g``."""
    w2, w3 = w * w, w * w * w
    # With X = (1, g) and sum(w g) = 0, X'WX is diagonal.
    s11, s12, s22 = w2.sum(axis=1), (w2 * g).sum(axis=1), (w2 * g * g).sum(axis=1)
    t11, t22 = w3.sum(axis=1), (w3 * g * g).sum(axis=1)
    trace = weight - s11 / weight - s22 / square
    a11, a22, a12 = s11 / weight, s22 / square, s12**2 / (weight * square)
    information = s11 - 2.0 * (t11 / weight + t22 / square) + a11**2 + a22**2 + 2.0 * a12
    step: Vector = ((w2 * e * e).sum(axis=1) - trace) / information
    return step
