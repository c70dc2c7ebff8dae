"""Sensitivity of a doubly robust effect to a confounder that was not measured.

Source: Chernozhukov, Cinelli, Newey, Sharma and Syrgkanis (2022), *Long story short: omitted variable bias in causal
machine learning*, theorems 2 and 4. Whatever the outcome's and the propensity's models, the bias is at most ``rho sqrt(
E[(y - g)^2] E[a^2]) sqrt(c_y c_d / (1 - c_d))``: ``g`` the outcome's regression, ``a`` the representer (the inverse
propensity weights, with sign), ``c_y`` the share of the outcome's remaining variance that the confounder explains,
``c_d`` the share by which it would raise ``E[a^2]``, taken of the raised one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from estimators.inference import EstimationError, critical_value
from estimators.matches import unit_codes
from estimators.neighbours import Codes
from estimators.ols import Vector
from estimators.overlap import arms
from estimators.sensitivity import robustness


@dataclass(frozen=True, slots=True)
class Strength:
    """How strong a measured covariate is, as a benchmark for what was not measured.

    Attributes:
        outcome: What it takes from the outcome's residual variance, over what remains with it; at most 1.
        treatment: What it adds to ``E[a^2]``, over what it is without it; at most 1.
        rho: Correlation between what it changes in both, from -1 to 1; None where it changes nothing.
        change: Estimate without it minus estimate with it.
    """

    outcome: float
    treatment: float
    rho: float | None
    change: float


@dataclass(frozen=True, slots=True)
class RieszBound:
    """The effect under a confounder of a strength: it lies between ``low`` and ``high``; their interval's ends."""

    outcome: float
    treatment: float
    rho: float
    low: float
    high: float
    ci_low: float
    ci_high: float


@dataclass(frozen=True, slots=True, eq=False)
class RieszSensitivity:
    """How much confounding a doubly robust effect stands.

    Attributes:
        estimate: The effect.
        scale: Bias per unit of ``rho sqrt(c_y c_d / (1 - c_d))``: ``sqrt(residual_variance * weight_square)``.
        residual_variance, weight_square: ``E[(y - g)^2]`` and ``E[a^2]``.
        robustness_value: Strength on both sides that brings the estimate to zero, from 0 to 1.
        robustness_value_alpha: That brings the end of the interval to zero; 0 where it is there already.
        bounds: Under the strengths asked for.
    """

    estimate: float
    scale: float
    residual_variance: float
    weight_square: float
    robustness_value: float
    robustness_value_alpha: float
    bounds: tuple[RieszBound, ...]


def representer(treated: ArrayLike, propensity: ArrayLike, estimand: str = "ate") -> tuple[Vector, Vector]:
    """``(n,)`` inverse propensity weights with sign, and values whose mean is that of their square.

    Args:
        treated: ``(n,)`` 0 or 1.
        propensity: ``(n,)`` strictly between 0 and 1.
        estimand: ``ate`` or ``att``.

    Returns:
        ``a``, and ``b`` with ``E[b] = E[a^2]`` whose first-order error in the propensity is zero.

    Raises:
        EstimationError: Propensities of 0 or 1, or another estimand.
    """
    side, e = arms(treated), np.asarray(propensity, dtype=np.float64)
    if e.shape != side.shape or not ((e > 0.0) & (e < 1.0)).all():
        raise EstimationError(
            "propensities must lie strictly between 0 and 1: rows of certain treatment do not overlap"
        )
    d = side.astype(np.float64)
    if estimand == "ate":
        a, m = d / e - (1.0 - d) / (1.0 - e), 1.0 / e + 1.0 / (1.0 - e)
    elif estimand == "att":
        share = d.mean()
        a = (d - (1.0 - d) * e / (1.0 - e)) / share
        m = d / share**2 * (1.0 + e / (1.0 - e))
    else:
        raise EstimationError("sensitivity of a weighted effect is known for ate and att only")
    return a, 2.0 * m - a * a


def riesz_sensitivity(
    estimate: float,
    influence: ArrayLike,
    residual: ArrayLike,
    weight_square: ArrayLike,
    *,
    strengths: Sequence[tuple[float, float, float]] = (),
    units: ArrayLike | None = None,
    alpha: float = 0.05,
) -> RieszSensitivity:
    """Bounds on the effect under confounders, and the strength that would explain it away.

    Args:
        estimate: The doubly robust effect.
        influence: ``(n,)`` its influence values, of mean 0: its variance is the mean of their squares over ``n``.
        residual: ``(n,)`` outcome minus the outcome's model under the row's own arm, out of fold.
        weight_square: ``(n,)`` the second part of ``representer``, or ``a^2`` itself.
        strengths: ``(c_y, c_d, rho)`` to bound the effect under, ``c`` in [0, 1), ``rho`` in [-1, 1].
        units: ``(n,)`` labels of the independent units; None: every row is one.
        alpha: Level; each end of an interval errs in ``alpha / 2`` of samples.

    Raises:
        EstimationError: Arrays that do not fit, an outcome that its model fits exactly, or strengths out of range.
    """
    psi, rest, square = (np.asarray(v, dtype=np.float64) for v in (influence, residual, weight_square))
    if not psi.ndim == 1 or psi.shape != rest.shape or psi.shape != square.shape or len(psi) < 2:
        raise EstimationError("influence values, residuals and weights must have one entry per row each")
    if not all(np.isfinite(v).all() for v in (psi, rest, square)):
        raise EstimationError("the sensitivity analysis holds values that are not finite")
    sigma2, nu2 = float((rest * rest).mean()), float(square.mean())
    if not sigma2 > 0.0:
        raise EstimationError("the outcome's model fits it exactly, so a confounder has nothing to explain")
    if not nu2 > 0.0:
        raise EstimationError("the propensities are too extreme for a bound on confounding")
    scale = math.sqrt(sigma2 * nu2)
    slope = (sigma2 * (square - nu2) + nu2 * (rest * rest - sigma2)) / (2.0 * scale)
    work = _Band(estimate, scale, *_moments(psi, slope, unit_codes(units, len(psi))), critical_value(alpha, math.inf))
    return RieszSensitivity(
        estimate=estimate,
        scale=scale,
        residual_variance=sigma2,
        weight_square=nu2,
        robustness_value=robustness(abs(estimate) / scale),
        robustness_value_alpha=robustness(work.reach()),
        bounds=tuple(work.bound(*strength) for strength in strengths),
    )


def strength_of(with_it: RieszSensitivity, without: RieszSensitivity) -> Strength:
    """Strength of a covariate (section 4 of the paper) from the analyses with and without it, of the same rows."""
    long, short = with_it, without
    outcome = (short.residual_variance - long.residual_variance) / long.residual_variance
    treatment = (long.weight_square - short.weight_square) / short.weight_square
    change = without.estimate - with_it.estimate
    room = math.sqrt(
        max(0.0, without.residual_variance - with_it.residual_variance)
        * max(0.0, with_it.weight_square - without.weight_square)
    )
    rho = None if room <= 0.0 else max(-1.0, min(1.0, change / room))
    return Strength(max(0.0, min(1.0, outcome)), max(0.0, min(1.0, treatment)), rho, change)


@dataclass(frozen=True, slots=True)
class _Band:
    """Bounds ``estimate -+ c scale`` with the variances of estimate and scale and their covariance."""

    estimate: float
    scale: float
    variance: float
    covariance: float
    scale_variance: float
    critical: float

    def error(self, c: float, sign: float) -> float:
        """Standard error of ``estimate + sign c scale``."""
        v = self.variance + 2.0 * sign * c * self.covariance + c * c * self.scale_variance
        return math.sqrt(max(0.0, v))

    def bound(self, outcome: float, treatment: float, rho: float) -> RieszBound:
        if not (0.0 <= outcome < 1.0 and 0.0 <= treatment < 1.0 and -1.0 <= rho <= 1.0):
            raise EstimationError("a confounder's strengths lie from 0 to below 1, rho from -1 to 1")
        c = abs(rho) * math.sqrt(outcome * treatment / (1.0 - treatment))
        low, high = self.estimate - c * self.scale, self.estimate + c * self.scale
        ends = low - self.critical * self.error(c, -1.0), high + self.critical * self.error(c, 1.0)
        return RieszBound(outcome, treatment, rho, low, high, *ends)

    def reach(self) -> float:
        """The ``c`` at which the interval's nearer end is zero; 0 where it has passed zero already.

        ``(|estimate| - c scale)^2 = critical^2 var(c)`` is a quadratic in ``c``; its first root before the bound
        itself is zero.
        """
        size, sign = abs(self.estimate), math.copysign(1.0, self.estimate)
        if size <= self.critical * self.error(0.0, -sign):
            return 0.0
        z2 = self.critical**2
        a = self.scale**2 - z2 * self.scale_variance
        b = -2.0 * (size * self.scale - z2 * sign * self.covariance)
        c = size**2 - z2 * self.variance
        roots = np.roots([a, b, c]) if a else np.array([-c / b])
        real = [float(r.real) for r in roots if abs(r.imag) < 1e-9 * max(1.0, abs(r))]
        limit = size / self.scale * (1.0 + 1e-9)
        return min((r for r in real if 0.0 <= r <= limit), default=0.0)


def _moments(psi: Vector, slope: Vector, codes: Codes | None) -> tuple[float, float, float]:
    """Variances and covariance of two means, by unit."""
    n, factor = len(psi), 1.0
    if codes is not None:
        psi, slope = (np.bincount(codes, weights=v).astype(np.float64) for v in (psi, slope))
        factor = len(psi) / (len(psi) - 1.0)
    scale = factor / n**2
    return scale * float(psi @ psi), scale * float(psi @ slope), scale * float(slope @ slope)
