"""Regression adjustment of a randomized comparison: fully interacted least squares with HC2 errors.

Estimand: the average treatment effect on the units in the experiment. Source: Lin (2013), *Agnostic notes on regression
adjustments to experimental data: reexamining Freedman's critique*, Annals of Applied Statistics 7(1).

The regression of the outcome on arm, centred covariates and their products with the arm is a regression in each arm
whose intercept is that arm's adjusted mean; HC2 of the arm's coefficient is the sum of the intercepts' HC2 variances.
Both arms are fitted apart, so that no design of twice the width is ever built.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from estimators.difference_in_means import relative_effect
from estimators.estimate import Estimate
from estimators.inference import EstimationError, finish, satterthwaite
from estimators.joint_moments import linearise

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Sides = tuple[NDArray[np.bool_], NDArray[np.bool_]]

_ARMS = ("control", "treatment")
_CONSTANT = 1e-12  # spread below this share of the mean is rounding
_RANK = 1e-9  # part of a column that those before it do not span, as a share of its length
_NULL = 1e-9  # below it 1 - leverage is zero: the unit alone fits that direction, and leaves no residual there


@dataclass(frozen=True, slots=True)
class _Arm:
    """One arm's regression: its adjusted value with HC2 variance, and what it was before."""

    n: int
    df: float
    value: float
    variance: float
    slopes: Vector
    unadjusted_value: float
    unadjusted_variance: float


@dataclass(frozen=True, slots=True)
class _Design:
    """Covariates that enter, ``(n, k)``, centred at the mean of both arms and scaled; their names; those that do not
    enter, with the reason; and by arm the QR decomposition of intercept and covariates."""

    x: Matrix
    names: list[str]
    dropped: list[str]
    decompositions: list[tuple[Matrix, Matrix]]


def regression_adjusted(
    y: ArrayLike,
    arm: ArrayLike,
    covariates: ArrayLike,
    den: ArrayLike | None = None,
    *,
    names: Sequence[str] | None = None,
    alpha: float = 0.05,
) -> Estimate:
    """Treatment's adjusted value minus control's, covariates at their mean over both arms.

    A ratio of sums (a row mean with clustered rows: sums of the rows and row counts) is linearised at its arm's ratio
    first: ``ratio + (y - ratio * den) / mean(den)`` takes the place of the outcome, so that without covariates the
    estimate is the difference of the ratios with its delta-method error. Covariates stay one value per unit, whatever
    its denominator: weighting them by a denominator that treatment can move would let treatment into the adjustment.

    Args:
        y: ``(n,)`` outcome of every unit, or the numerator of a ratio.
        arm: ``(n,)`` 0 control, 1 treatment.
        covariates: ``(n, k)`` values fixed before treatment, categories as dummies; finite.
        den: ``(n,)`` denominator of a ratio; None: 1 throughout.
        names: ``(k,)`` names of the covariates for diagnostics and errors.
        alpha: Level of the test; intervals are at ``1 - alpha``.

    Returns:
        The estimate in the outcome's unit, HC2 standard error, Welch's degrees of freedom with ``n - k - 1`` in each
        arm; no covariates make it Welch's test. The relative effect is that of the adjusted values on the log ratio.
        Diagnostics: ``covariates``, the names that entered; ``dropped``, those that did not, with the reason (constant,
        collinear with those before it in an arm, or decided by one unit alone in an arm); ``variance_reduction``, the
        share of the unadjusted variance that is gone; ``unadjusted_estimate``, ``unadjusted_std_error``; and
        ``std_error_population``, the error for a population that the units are a sample of, which adds that of the
        covariates' mean where the arms' slopes differ.

    Raises:
        EstimationError: Values that are not finite, an arm with too few units for the covariates, no covariate left,
            an outcome that does not vary, or covariates that foretell it without error.
        ValueError: Arrays whose lengths do not agree.
    """
    num, weight, treated, x, labels = _checked(y, arm, covariates, den, names)
    sides = (~treated, treated)
    design = _design(x, sides, labels)
    control, treatment = (
        _fit(num[side], None if weight is None else weight[side], *qr)
        for side, qr in zip(sides, design.decompositions, strict=True)
    )
    variance = treatment.variance + control.variance
    before = treatment.unadjusted_variance + control.unadjusted_variance
    if math.sqrt(before) <= 1e-14 * max(abs(treatment.unadjusted_value), abs(control.unadjusted_value)):
        raise EstimationError("the outcome does not vary in either arm, so nothing says how sure the estimate is")
    if variance <= 1e-20 * before:
        raise EstimationError("the covariates foretell the outcome without error, so no spread is left to judge by")
    gap = treatment.slopes - control.slopes
    spread = float(((design.x @ gap) ** 2).sum()) / (len(num) - 1) / len(num)
    dfs = (treatment.df, control.df)
    return finish(
        "regression_adjusted",
        estimate=treatment.value - control.value,
        std_error=math.sqrt(variance),
        df=satterthwaite((treatment.variance, control.variance), dfs),
        alpha=alpha,
        control_value=control.value,
        treatment_value=treatment.value,
        n_control=control.n,
        n_treatment=treatment.n,
        relative=relative_effect(control.value, treatment.value, control.variance, treatment.variance, dfs, alpha),
        diagnostics={
            "covariates": design.names,
            "dropped": design.dropped,
            "variance_reduction": 1.0 - variance / before,
            "unadjusted_estimate": treatment.unadjusted_value - control.unadjusted_value,
            "unadjusted_std_error": math.sqrt(before),
            "std_error_population": math.sqrt(variance + spread),
        },
    )


def leave_one_out_moves(y: ArrayLike, arm: ArrayLike, covariates: ArrayLike, den: ArrayLike | None = None) -> Vector:
    """``(n,)`` by how much the estimate moves without each unit, covariates' mean and outcome's line held.

    Least squares without a unit moves the intercept by ``influence * residual / (1 - leverage)``.

    Raises:
        EstimationError, ValueError: As :func:`regression_adjusted`.
    """
    num, weight, treated, x, labels = _checked(y, arm, covariates, den, None)
    sides = (~treated, treated)
    moves = np.zeros(len(num))
    for side, (q, r) in zip(sides, _design(x, sides, labels).decompositions, strict=True):
        _, mean_den, residual = linearise(num[side], None if weight is None else weight[side])
        z = residual / mean_den
        error = z - q @ (q.T @ z)
        moves[side] = np.abs(_influence(q, r) * error / (1.0 - _leverage(q)))
    return moves


def _checked(
    y: ArrayLike, arm: ArrayLike, covariates: ArrayLike, den: ArrayLike | None, names: Sequence[str] | None
) -> tuple[Vector, Vector | None, NDArray[np.bool_], Matrix, list[str]]:
    """Outcome, denominator, mask of treatment, covariates and their names."""
    num = np.asarray(y, dtype=np.float64)
    weight = None if den is None else np.asarray(den, dtype=np.float64)
    code = np.asarray(arm)
    x = np.asarray(covariates, dtype=np.float64)
    labels = [f"covariate {j + 1}" for j in range(x.shape[1])] if names is None else list(names)
    if not (num.shape == code.shape == x.shape[:1] and (weight is None or weight.shape == num.shape)):
        raise ValueError("outcome, denominator, arm and covariates must have one entry per unit each")
    if len(labels) != x.shape[1]:
        raise ValueError(f"{len(labels)} names for {x.shape[1]} covariates")
    if not (np.isfinite(num).all() and (weight is None or np.isfinite(weight).all())):
        raise EstimationError("the outcome holds values that are not finite")
    if unfit := [label for j, label in enumerate(labels) if not np.isfinite(x[:, j]).all()]:
        raise EstimationError(f"covariates hold values that are missing or not finite: {', '.join(unfit)}")
    if not np.isin(code, (0, 1)).all():
        raise EstimationError("arms must be 0 (control) or 1 (treatment)")
    return num, weight, np.asarray(code == 1, dtype=np.bool_), x, labels


def _design(x: Matrix, sides: Sides, labels: list[str]) -> _Design:
    """Standardises the covariates and takes out, one at a time, the first that an arm cannot tell from the others."""
    mean = x.mean(axis=0)
    centred = x - mean
    centred -= centred.mean(axis=0)
    spread = np.sqrt((centred**2).mean(axis=0))
    constant: list[bool] = np.less_equal(spread, _CONSTANT * np.abs(mean)).tolist()
    kept = [j for j, flat in enumerate(constant) if not flat]
    dropped = [f"{label}: does not vary" for label, flat in zip(labels, constant, strict=True) if flat]
    for name, side in zip(_ARMS, sides, strict=True):
        if (n := int(side.sum())) < len(kept) + 2:
            needed = "two" if not kept else f"{len(kept) + 2} for {len(kept)} covariates"
            raise EstimationError(f"{name} has {n} independent unit{'s' * (n != 1)}; the regression needs {needed}")
    scaled = centred[:, kept] / spread[kept]
    arms = [_with_intercept(scaled[side]) for side in sides]
    columns = list(range(len(kept)))

    def drop(position: int, reason: str) -> None:
        dropped.append(f"{labels[kept[columns.pop(position)]]}: {reason}")

    decompositions = _decomposed(arms, columns)
    # Triangles of p x p say as much about rank as the rows do, and stay true when a column goes.
    triangles = [r for _, r in decompositions]
    while fault := _collinear([r[:, _with_first(columns)] for r in triangles]):
        drop(*fault)
    if len(columns) < len(kept):
        decompositions = _decomposed(arms, columns)
    while fault := _decided_by_one([q for q, _ in decompositions]):
        drop(*fault)
        decompositions = _decomposed(arms, columns)
    if labels and not columns:
        raise EstimationError("no covariate is left to adjust by: " + "; ".join(dropped))
    return _Design(scaled[:, columns], [labels[kept[j]] for j in columns], dropped, decompositions)


def _decomposed(arms: list[Matrix], columns: list[int]) -> list[tuple[Matrix, Matrix]]:
    """QR decomposition of intercept and chosen covariates by arm."""
    decompositions = (np.linalg.qr(arm[:, _with_first(columns)]) for arm in arms)
    return [(q, r) for q, r in decompositions]


def _with_first(columns: list[int]) -> list[int]:
    """Positions in a matrix whose first column is the intercept."""
    return [0, *(j + 1 for j in columns)]


def _collinear(triangles: list[Matrix]) -> tuple[int, str] | None:
    """Position and reason of the first covariate that those before it span in an arm."""
    for name, triangle in zip(_ARMS, triangles, strict=True):
        r = np.linalg.qr(triangle, mode="r")
        spanned = np.abs(np.diag(r)) <= _RANK * np.linalg.norm(r, axis=0)
        if spanned.any():
            return int(np.argmax(spanned)) - 1, f"constant or a combination of those before it in {name}"
    return None


def _decided_by_one(bases: list[Matrix]) -> tuple[int, str] | None:
    """Position and reason of the first covariate with which a unit's leverage reaches 1 in an arm."""
    for name, q in zip(_ARMS, bases, strict=True):
        alone = q[_leverage(q) > 1.0 - _NULL]
        if len(alone):
            reached = (np.cumsum(alone**2, axis=1) > 1.0 - _NULL).any(axis=0)
            return int(np.argmax(reached)) - 1, f"one unit alone decides its slope in {name}"
    return None


def _fit(num: Vector, den: Vector | None, q: Matrix, r: Matrix) -> _Arm:
    """Least squares of one arm's linearised outcome on an intercept and centred covariates."""
    n, p = q.shape
    value, mean_den, residual = linearise(num, den)
    z = residual / mean_den
    coef = np.asarray(np.linalg.solve(r, q.T @ z), dtype=np.float64)
    error = z - q @ (q.T @ z)
    variance = float((_influence(q, r) ** 2 * error**2 / (1.0 - _leverage(q))).sum())
    return _Arm(n, float(n - p), value + float(coef[0]), variance, coef[1:], value, float(z @ z) / (n - 1) / n)


def _influence(q: Matrix, r: Matrix) -> Vector:
    """The intercept is ``influence @ z``: the row of the pseudo-inverse that HC2 weighs the squared residuals by."""
    return np.asarray(q @ np.linalg.solve(r.T, np.eye(len(r))[0]), dtype=np.float64)


def _with_intercept(x: Matrix) -> Matrix:
    return np.column_stack([np.ones(len(x)), x])


def _leverage(q: Matrix) -> Vector:
    return np.asarray(np.einsum("ij,ij->i", q, q), dtype=np.float64)
