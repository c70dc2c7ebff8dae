"""Who they are whom an instrument treats: their share, and how they differ from everybody.

Abadie (2003), *Semiparametric instrumental variable estimation of treatment response models*, Journal of Econometrics
113, theorem 3.1: rows weighed by ``kappa = 1 - D(1-Z)/(1-p) - (1-D)Z/p``, with ``p = P(Z=1|X)``, have the means of
compliers. Needed: an instrument that is as good as random given the covariates, moves nobody's treatment the other way
and has ``0 < p < 1``. ``p`` is the instrument's share, or a logit model of it on ``adjust``; that it was estimated is
counted in the errors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from estimators.inference import EstimationError, two_sided_p
from estimators.instruments import columns, is_binary, with_constant
from estimators.ols import Matrix, Vector

_ROUNDS = 50


@dataclass(frozen=True, slots=True)
class Trait:
    """A covariate's mean among compliers and among everybody.

    Attributes:
        compliers, everybody: Means in the covariate's unit.
        std_error: Of the compliers' mean.
        difference, difference_std_error: Compliers less everybody.
        p_value: Of no difference; None where the covariate does not vary.
    """

    compliers: float
    everybody: float
    std_error: float
    difference: float
    difference_std_error: float
    p_value: float | None


@dataclass(frozen=True, slots=True)
class Compliers:
    """Those whom the instrument treats.

    Attributes:
        share: Of all; where nothing is adjusted for, the absolute first stage.
        std_error: Of the share.
        always, never: Shares that are treated, and that are not, whatever the instrument says.
        reversed: Whether the instrument at 1 takes treatment away; compliers are then those it treats at 0.
        profile: One entry per column of the profile.
    """

    share: float
    std_error: float
    always: float
    never: float
    reversed: bool
    profile: tuple[Trait, ...]

    def as_row(self) -> dict[str, Any]:
        """``share``, ``std_error``, ``always_takers``, ``never_takers``, ``reversed`` and ``profile``: a list of
        ``{covariate, compliers, everybody, std_error, difference, difference_std_error, p_value}`` by position."""
        return {
            "share": self.share,
            "std_error": self.std_error,
            "always_takers": self.always,
            "never_takers": self.never,
            "reversed": self.reversed,
            "profile": [
                {"covariate": i} | {name: getattr(trait, name) for name in Trait.__dataclass_fields__}
                for i, trait in enumerate(self.profile)
            ],
        }


@dataclass(frozen=True, slots=True, eq=False)
class _Weighed:
    """Kappa of every row, and what the estimation of the instrument's model adds to the error.

    Attributes:
        w: ``(n,)`` weights.
        kappa, always, never: ``(n,)`` parts whose weighted means are the shares.
        slope: ``(n,)`` derivative of kappa by the model's linear predictor.
        design: ``(n, p)`` columns of the model.
        influence: ``(n, p)`` contributions of the rows to the model's coefficients.
    """

    w: Vector
    kappa: Vector
    always: Vector
    never: Vector
    slope: Vector
    design: Matrix
    influence: Matrix

    def parts(self, values: Vector) -> Vector:
        """``(n,)`` contributions to ``sum(w kappa values)``, whose own mean the values must be about."""
        moved = self.design.T @ (self.w * self.slope * values)
        return np.asarray(self.w * self.kappa * values + self.influence @ moved, dtype=np.float64)


def compliers(
    treatment: ArrayLike,
    instrument: ArrayLike,
    profile: ArrayLike | None = None,
    *,
    adjust: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> Compliers:
    """Share and profile of those whose treatment the instrument changes.

    Args:
        treatment, instrument: ``(n,)`` 0 and 1.
        profile: ``(n, m)`` facts from before the instrument to describe them by.
        adjust: ``(n, p)`` covariates given which the instrument is as good as random; None: without any.
        clusters: ``(n,)`` labels within which rows are not independent; None: every row is.
        weights: ``(n,)`` positive weights of the rows; None: all 1.

    Returns:
        Shares and means. Errors are of the normal approximation, with ``n/(n-1)``, or ``G/(G-1)`` and ``t(G-1)`` by
        cluster.

    Raises:
        EstimationError: Treatment or instrument other than 0 and 1 or without both, values that are not finite,
            covariates that tell the instrument without doubt, or no first stage.
    """
    d, z = np.asarray(treatment, dtype=np.float64), np.asarray(instrument, dtype=np.float64)
    n = len(d)
    facts, x = columns(profile, n), columns(adjust, n)
    w = np.ones(n) if weights is None else np.asarray(weights, dtype=np.float64)
    if z.shape != (n,) or w.shape != (n,) or d.ndim != 1:
        raise EstimationError("treatment, instrument and weights need a row a unit each")
    if not (n and is_binary(d) and is_binary(z)):
        raise EstimationError("compliers are defined for a treatment and an instrument that are 0 and 1, both of them")
    if not all(np.isfinite(a).all() for a in (facts, x, w)) or not (w > 0.0).all():
        raise EstimationError("weights must be positive, and covariates finite")
    codes = np.arange(n) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1].reshape(-1)
    if len(codes) != n or codes.max() < 1:
        raise EstimationError("clusters need a label a row, and at least two of them")
    w = w / w.sum()
    found = _weigh(d, z, w, x)
    if turned := float(w @ found.kappa) < 0.0:
        found = _weigh(d, 1.0 - z, w, x)
    share = float(w @ found.kappa)
    # The shares of the three kinds add up to 1, each is a mean; a first stage of rounding is none.
    if share <= 1e-12:
        raise EstimationError("the instrument does not move treatment at all, so it has no compliers")
    error = _norm(found.parts(np.ones(n)) - w * share, codes)
    traits = tuple(_trait(found, column, share, codes) for column in facts.T)
    return Compliers(share, error, float(w @ found.always), float(w @ found.never), turned, traits)


def _weigh(d: Vector, z: Vector, w: Vector, adjust: Matrix) -> _Weighed:
    root = np.sqrt(w)
    design = with_constant(adjust, root)[0] / root[:, None]
    p, influence = _logit(design, z, w)
    always, never = d * (1.0 - z) / (1.0 - p), (1.0 - d) * z / p
    slope = (1.0 - d) * z * (1.0 - p) / p - d * (1.0 - z) * p / (1.0 - p)
    return _Weighed(w, 1.0 - always - never, always, never, slope, design, influence)


def _trait(found: _Weighed, column: Vector, share: float, codes: NDArray[np.intp]) -> Trait:
    everybody = float(found.w @ column)
    own = column - everybody if np.ptp(column) else np.zeros_like(column)
    difference = float(found.w @ (found.kappa * own)) / share
    parts = found.parts(own - difference) / share
    gap = _norm(parts - found.w * own, codes)
    p_value = two_sided_p(difference / gap, float(codes.max())) if gap > 0.0 else None
    return Trait(everybody + difference, everybody, _norm(parts, codes), difference, gap, p_value)


def _norm(parts: Vector, codes: NDArray[np.intp]) -> float:
    """Standard error from contributions that add up to the estimate's deviation, by group."""
    sums = np.bincount(codes, weights=parts)
    return float(np.linalg.norm(sums)) * float(np.sqrt(len(sums) / (len(sums) - 1.0)))


def _logit(design: Matrix, z: Vector, w: Vector) -> tuple[Vector, Matrix]:
    """Fitted probabilities of a logit model by Newton's method, and the rows' contributions to its coefficients.

    Raises:
        EstimationError: Covariates that tell the two values apart.
    """
    mean = float(w @ z)
    coef = design.T @ (w * math.log(mean / (1.0 - mean)))
    for _ in range(_ROUNDS):
        p = _expit(design @ coef)
        spread = p * (1.0 - p)
        if spread.min() <= 1e-12:
            break
        hessian = design.T @ ((w * spread)[:, None] * design)
        step = np.linalg.solve(hessian, design.T @ (w * (z - p)))
        if np.linalg.norm(step) <= 1e-12:
            return p, (w * (z - p))[:, None] * np.linalg.solve(hessian, design.T).T
        coef = coef + step
    raise EstimationError("the covariates tell the instrument without doubt for some rows, so nobody can be compared")


def _expit(eta: Vector) -> Vector:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * eta)), dtype=np.float64)
