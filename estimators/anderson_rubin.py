"""Anderson-Rubin confidence sets, robust to heteroskedasticity and clusters, exact for one treatment.

Anderson and Rubin (1949), *Estimation of the parameters of a single equation in a complete system of stochastic
equations*; Fieller (1954) for one instrument; Andrews, Stock and Sun (2019), *Weak instruments in instrumental
variables regression*, section 5. At a true effect ``b`` the instruments explain nothing of ``y - b d``, however weak
they are. So the set holds every ``b`` at which the robust Wald test of ``reduced form - b * first stage = 0`` does not
reject. The covariance of that difference is a quadratic in ``b``, so that the statistic is a ratio of polynomials of
degree ``2k``. Its ends are the roots of ``det(c V(b) - m(b) m(b)')``, a quadratic eigenvalue problem that gives all of
them at once: no grid. The set is an interval, two rays, the whole line, several pieces, or empty: with several
instruments that disagree, no effect fits them all.

Errors are the jackknife's (HC3, with clusters CR3) and the reference is Hotelling's T^2: with HC1 or CR1 and an F
reference the set of 20 clusters and 3 instruments covers 79 % instead of 95 %, with these 93 %.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from estimators.inference import EstimationError
from estimators.instruments import Instrumented
from estimators.jackknife import jackknife
from estimators.ols import Matrix, Vector


@dataclass(frozen=True, slots=True)
class AndersonRubin:
    """A confidence set of effects, and the test of none.

    Attributes:
        segments: The set's pieces, in order; ends may be infinite. Empty: every effect is rejected.
        statistic: F statistic of an effect of zero; infinite where the outcome follows the instruments to the letter.
        df: Its degrees of freedom: instruments, and those of the error.
        p_value: Of an effect of zero.
    """

    segments: tuple[tuple[float, float], ...]
    statistic: float
    df: tuple[int, float]
    p_value: float

    @property
    def bounded(self) -> bool:
        """Whether the set has two finite ends."""
        return bool(self.segments) and math.isfinite(self.segments[0][0]) and math.isfinite(self.segments[-1][1])

    def as_row(self) -> dict[str, Any]:
        """``ci_low``, ``ci_high`` (None unless ``bounded``), ``bounded``, ``empty``, ``segments`` (``[low, high]``,
        None where infinite), ``statistic`` (None where infinite), ``df`` and ``p_value``."""
        ends = [[x if math.isfinite(x) else None for x in segment] for segment in self.segments]
        return {
            "ci_low": ends[0][0] if self.bounded else None,
            "ci_high": ends[-1][1] if self.bounded else None,
            "bounded": self.bounded,
            "empty": not self.segments,
            "segments": ends,
            "statistic": self.statistic if math.isfinite(self.statistic) else None,
            "df": list(self.df),
            "p_value": self.p_value,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Forms:
    """Reduced form and first stage on ``k`` instruments, with their joint covariance.

    Attributes:
        reduced, first: ``(k,)`` coefficients.
        yy, yd, dd: ``(k, k)`` covariances: of the reduced form, between it and the first stage, of the first stage.
    """

    reduced: Vector
    first: Vector
    yy: Matrix
    yd: Matrix
    dd: Matrix

    def wald(self, effect: float) -> float:
        """Wald statistic of ``reduced - effect * first = 0``; infinite where the covariance is singular."""
        m = self.reduced - effect * self.first
        v = self.yy - effect * (self.yd + self.yd.T) + effect * effect * self.dd
        try:
            found = float(m @ np.linalg.solve(v, m))
        except np.linalg.LinAlgError:
            return math.inf
        return found if found >= 0.0 else math.inf  # below zero a variance is no more than rounding


def anderson_rubin(data: Instrumented, around: float, *, alpha: float = 0.05) -> AndersonRubin:
    """The set of effects that the instruments do not reject; errors of the jackknife: HC3, or CR3 with clusters.

    Args:
        data: Covariates taken out.
        around: An estimate of the effect. It changes nothing but rounding: residuals near it are small.
        alpha: Level; the set is at ``1 - alpha``.

    Raises:
        EstimationError: ``alpha`` out of range, an outcome that does not vary, or an instrument whose doing one row or
            cluster alone decides.
    """
    u = data.y - around * data.d
    left = np.column_stack([data.left_by_instruments(column) for column in (u, data.d)])
    y, d = jackknife(np.column_stack([data.q, data.z]), left, data.k, data.codes)
    forms = Forms(data.z.T @ u, data.z.T @ data.d, y.T @ y, y.T @ d, d.T @ d)
    return invert(forms, data.df(data.k), around=around, alpha=alpha)


def invert(forms: Forms, df: float, *, around: float = 0.0, alpha: float = 0.05) -> AndersonRubin:
    """The set from coefficients and covariances; ``forms`` are those of ``outcome - around * treatment``.

    Args:
        df: Degrees of freedom of the covariances, at least ``k``.

    Raises:
        EstimationError: ``alpha`` out of range, too few degrees of freedom, or no variation.
    """
    from scipy.special import fdtrc, fdtri

    if not 0.0 < alpha < 1.0:
        raise EstimationError(f"alpha must lie between 0 and 1, not {alpha!r}")
    if not np.trace(forms.yy) > 0.0:
        raise EstimationError("the outcome does not vary, so nothing says how sure the estimate is")
    k = len(forms.first)
    if df < k:
        raise EstimationError(
            "too few independent observations for a set that holds at any strength of the instruments"
        )
    # Hotelling's T^2: a covariance of k x k from df independent parts.
    left = df - k + 1.0
    scale = k * df / left
    limit = scale * float(fdtri(k, left, 1.0 - alpha))
    # Both sides in units of their own size, so that the roots are near 1.
    up = math.sqrt(float(np.trace(forms.yy)))
    side = math.sqrt(float(forms.first @ forms.first + np.trace(forms.dd)))
    scaled = Forms(forms.reduced / up, forms.first / side, forms.yy / up**2, forms.yd / (up * side), forms.dd / side**2)
    unit = up / side
    segments = tuple((around + unit * a, around + unit * b) for a, b in _pieces(scaled, limit))
    statistic = forms.wald(-around) / scale
    p_value = float(fdtrc(k, left, statistic)) if math.isfinite(statistic) else 0.0
    return AndersonRubin(segments, statistic, (k, left), p_value)


def _pieces(forms: Forms, limit: float) -> list[tuple[float, float]]:
    """Where the Wald statistic is at most ``limit``."""

    def inside(effect: float) -> bool:
        return forms.wald(effect) <= limit

    roots = _roots(forms, limit)
    if not roots:
        return [(-math.inf, math.inf)] if inside(0.0) else []
    reach = roots[-1] - roots[0] + 1.0
    probes = [roots[0] - reach, *((a + b) / 2.0 for a, b in pairwise(roots)), roots[-1] + reach]
    states = [inside(x) for x in probes]
    ends = [-math.inf] if states[0] else []
    for i in range(len(roots)):
        if states[i] != states[i + 1]:
            ends.append(_crossing(inside, probes[i], probes[i + 1]))
    ends += [math.inf] if states[-1] else []
    return list(zip(ends[::2], ends[1::2], strict=True))


def _roots(forms: Forms, limit: float) -> list[float]:
    """Real parts of all finite roots of ``det(limit V(b) - m(b) m(b)')``, in order.

    Those of complex roots only add probes between which nothing changes; a pair that rounding split stays in.
    """
    from scipy.linalg import eigvals

    a, b = forms.reduced, forms.first
    cross = np.outer(a, b)
    constant = limit * forms.yy - np.outer(a, a)
    linear = cross + cross.T - limit * (forms.yd + forms.yd.T)
    square = limit * forms.dd - np.outer(b, b)
    k = len(a)
    none, one = np.zeros((k, k)), np.eye(k)
    over, under = eigvals(
        np.block([[none, one], [-constant, -linear]]), np.block([[one, none], [none, square]]), homogeneous_eigvals=True
    )
    finite = np.abs(under) > 1e-13 * np.abs(over)
    return sorted({float(x) for x in (over[finite] / under[finite]).real})


def _crossing(inside: Callable[[float], bool], low: float, high: float) -> float:
    """The one place between ``low`` and ``high`` where ``inside`` changes, by bisection to the last digit."""
    first = inside(low)
    for _ in range(200):
        middle = (low + high) / 2.0
        if middle in (low, high):
            break
        low, high = (middle, high) if inside(middle) == first else (low, middle)
    return low if first else high
