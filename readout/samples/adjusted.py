"""Adjusted effects from a unit table: outcome sums and covariate means by unit, to what the estimators take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from estimators import cuped, leave_one_out_adjusted, leave_one_out_cuped, regression_adjusted
from estimators.estimate import Estimate
from estimators.inference import EstimationError
from estimators.joint_moments import JointMoments

Vector = NDArray[np.float64]
Sides = tuple[tuple[Vector, Vector | None], tuple[Vector, Vector | None]]


@dataclass(frozen=True, slots=True, eq=False)
class Arm:
    """One arm's units.

    Attributes:
        num, den: ``(n,)`` outcome; ``den`` None where the outcome is a mean over units.
        x: ``(n, k)`` covariates, NaN where a unit has none.
    """

    num: Vector
    den: Vector | None
    x: Vector


def means(num: np.ndarray, den: np.ndarray) -> Vector:
    """Mean over each unit's rows with a value; NaN for a unit without any."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(den > 0, num.astype(float) / den, np.nan)


def effect(method: str, control: Arm, treatment: Arm, names: Sequence[str], *, alpha: float) -> Estimate:
    """The effect by ``cuped`` or ``regression_adjusted``.

    A unit without a value of a covariate is given the mean of those that have one, both arms together; of a ratio, a
    unit that lacks either part is given both. ``diagnostics["units_without"]`` counts them by covariate.

    Raises:
        EstimationError: As the estimators, and for a covariate without any value.
    """
    x, lacking = _filled(method, control, treatment, names)
    if method == "cuped":
        sides = (_pairs(arm, x[part]) for arm, part in _parts(control, treatment))
        found = cuped(*(JointMoments.from_arrays(*pairs) for pairs in sides), alpha=alpha)
    else:
        y, code, den = _stacked(control, treatment)
        found = regression_adjusted(y, code, x, den, names=names, alpha=alpha)
    return replace(found, diagnostics={**found.diagnostics, "units_without": lacking})


def without_one(method: str, control: Arm, treatment: Arm, names: Sequence[str], *, alpha: float) -> Estimate:
    """The effect without the unit that moves it most, by the same method.

    Raises:
        EstimationError: As :func:`effect`.
    """
    x, _ = _filled(method, control, treatment, names)
    if method == "cuped":
        before, after = (_pairs(arm, x[part]) for arm, part in _parts(control, treatment))
        return leave_one_out_cuped(before, after, alpha=alpha)
    y, code, den = _stacked(control, treatment)
    return leave_one_out_adjusted(y, code, x, den, alpha=alpha)


def _filled(method: str, control: Arm, treatment: Arm, names: Sequence[str]) -> tuple[Vector, dict[str, int]]:
    """Covariates of both arms, control first, none missing; and of how many units each was missing."""
    x = np.concatenate([control.x, treatment.x])
    none = np.isnan(x)
    if method == "cuped":
        none[none.any(axis=1)] = True
    if unknown := [name for name, column in zip(names, none.T, strict=True) if column.all()]:
        raise EstimationError(f"no unit of the two arms has a value of {', '.join(unknown)}")
    for j in np.flatnonzero(none.any(axis=0)):
        x[none[:, j], j] = x[~none[:, j], j].mean()
    return x, {name: int(n) for name, n in zip(names, none.sum(axis=0), strict=True) if n}


def _parts(control: Arm, treatment: Arm) -> tuple[tuple[Arm, slice], tuple[Arm, slice]]:
    n = len(control.num)
    return (control, slice(0, n)), (treatment, slice(n, None))


def _pairs(arm: Arm, x: Vector) -> Sides:
    """Outcome and covariate, each a numerator with its denominator."""
    return (arm.num, arm.den), (x[:, 0], x[:, 1] if x.shape[1] == 2 else None)


def _stacked(control: Arm, treatment: Arm) -> tuple[Vector, NDArray[np.int8], Vector | None]:
    y = np.concatenate([control.num, treatment.num])
    code = np.repeat(np.array([0, 1], dtype=np.int8), [len(control.num), len(treatment.num)])
    den = None if control.den is None or treatment.den is None else np.concatenate([control.den, treatment.den])
    return y, code, den
