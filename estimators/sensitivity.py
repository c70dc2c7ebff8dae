"""Sensitivity of a regression's effect to a confounder that was not measured.

Source: Cinelli and Hazlett (2020), *Making sense of sensitivity: extending omitted variable bias*, JRSS B 82: the bias
of eq. 7, the robustness value of eq. 18 and section 4.2, the bounds from observed covariates of eq. 21 (appendix B).
It rests on the linear regression of the outcome on the treatment and the covariates, whatever method gave the estimate
that is reported beside it; for a doubly robust estimate see ``riesz_sensitivity``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from estimators.inference import EstimationError, critical_value
from estimators.matches import unit_codes
from estimators.ols import Matrix, Vector

_RANK = 1e-10
_CHUNK = 1 << 15


@dataclass(frozen=True, slots=True)
class Bound:
    """What a confounder some times as strong as an observed covariate would do.

    Attributes:
        covariate: The covariate (or group of columns) that it is measured by.
        multiple: How many times as strong, for the treatment and for the outcome alike.
        r2_treatment: Largest share of the treatment's remaining variance that it would explain.
        r2_outcome: Of the outcome's.
        estimate, std_error, ci_low, ci_high: The effect if it were measured, moved towards zero and beyond, and its
            interval.
    """

    covariate: str
    multiple: float
    r2_treatment: float
    r2_outcome: float
    estimate: float
    std_error: float
    ci_low: float
    ci_high: float


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """A regression's effect and how much confounding it stands.

    Attributes:
        estimate, std_error, df: Of the treatment's coefficient; the error is clustered where units have several rows.
        partial_r2: Share of the outcome's remaining variance that the treatment explains: a confounder that explained
            all of the outcome's would have to explain this much of the treatment's to bring the estimate to zero.
        robustness_value: Share of the remaining variance of both treatment and outcome that a confounder must explain
            to take away the part ``q`` of the estimate, from 0 to 1.
        robustness_value_alpha: The same, to make the interval hold what is left of it.
        scale: Bias in the outcome's unit per unit of ``sqrt(r2_outcome r2_treatment / (1 - r2_treatment))``.
        bounds: For every benchmark and multiple; those that no confounder can reach are left out.
    """

    estimate: float
    std_error: float
    df: float
    partial_r2: float
    robustness_value: float
    robustness_value_alpha: float
    scale: float
    bounds: tuple[Bound, ...]

    def robustness_of(self, amount: float) -> float:
        """Share of the remaining variance of both that a confounder must explain for a bias of ``amount``."""
        return robustness(abs(amount) / self.scale)


def sensitivity(
    outcome: ArrayLike,
    treated: ArrayLike,
    covariates: ArrayLike,
    *,
    benchmarks: Mapping[str, Sequence[int]] | None = None,
    multiples: Sequence[float] = (1.0, 2.0, 3.0),
    q: float = 1.0,
    units: ArrayLike | None = None,
    alpha: float = 0.05,
) -> Sensitivity:
    """Regresses and says what a confounder would have to be.

    Args:
        outcome: ``(n,)``.
        treated: ``(n,)`` treatment, 0 and 1 or a dose.
        covariates: ``(n, p)``; columns that are constant or collinear do no harm.
        benchmarks: Columns by name that a confounder is compared with, the dummies of one covariate together; None: no
            bounds.
        multiples: How many times as strong.
        q: Part of the estimate that the confounder is to take away.
        units: ``(n,)`` labels of the independent units; None: every row is one. Where units have several rows, the
            error is clustered by them (CR1, t with units less one) and an interval moves with the bias; a confounder
            changes a clustered error as it would change that of independent rows.
        alpha: Level of the intervals.

    Raises:
        EstimationError: Values that are not finite, too few rows, a treatment that the covariates determine, or an
            outcome that treatment and covariates determine.
    """
    y, d, x = _inputs(outcome, treated, covariates)
    model = _Triangle(np.column_stack([x, d, y]))
    n, p = len(y), x.shape[1]
    everything = list(range(p))
    left_d, left_y = model.left(p, everything), model.left(p + 1, [*everything, p])
    if left_d <= _RANK**2 * model.left(p, []):
        raise EstimationError("the covariates determine the treatment, so nothing is left to compare")
    df = float(n - 1 - model.rank(everything) - 1)
    if df < 2.0:
        raise EstimationError("too few rows for a regression on the covariates")
    if left_y <= _RANK**2 * model.left(p + 1, []) or not left_y > 0.0:
        raise EstimationError(
            "treatment and covariates determine the outcome, so nothing says how sure the estimate is"
        )
    estimate = model.slope(p + 1, p, everything)
    scale = math.sqrt(left_y / left_d)
    plain = scale / math.sqrt(df)
    codes = unit_codes(units, n)
    std_error, error_df = plain, df
    if codes is not None:
        std_error, error_df = _clustered(model, y, d, x, codes, df)
    critical = critical_value(alpha, error_df)
    bounds: list[Bound] = []
    for name, columns in (benchmarks or {}).items():
        others = [j for j in everything if j not in set(columns)]
        in_treatment = 1.0 - left_d / model.left(p, others)
        in_outcome = 1.0 - left_y / model.left(p + 1, [*others, p])
        for k in multiples:
            strength = _strength(max(in_treatment, 0.0), max(in_outcome, 0.0), float(k))
            if strength is not None:
                bounds.append(_bound(name, float(k), *strength, estimate, std_error, scale, df, critical))
    f = q * abs(estimate) / scale
    if codes is None:
        with_alpha = _robustness_with_alpha(f, critical_value(alpha, df - 1.0) / math.sqrt(df - 1.0))
    else:
        with_alpha = robustness(max(0.0, q * abs(estimate) - critical * std_error) / scale)
    explained = (estimate / scale) ** 2
    return Sensitivity(
        estimate=estimate,
        std_error=std_error,
        df=error_df,
        partial_r2=explained / (1.0 + explained),
        robustness_value=robustness(f),
        robustness_value_alpha=with_alpha,
        scale=scale,
        bounds=tuple(bounds),
    )


def robustness(f: float) -> float:
    """The ``r`` in [0, 1) with ``r / sqrt(1 - r) = f``: equal strength on both sides that makes a bias of ``f``."""
    # 2 f / (f + sqrt(f^2 + 4)): the root of r^2 + f^2 r - f^2 without cancellation.
    return 2.0 * f / (f + math.sqrt(f * f + 4.0))


def _robustness_with_alpha(f: float, critical: float) -> float:
    if f <= critical:
        return 0.0
    if f > 1.0 / critical:
        return (f * f - critical * critical) / (1.0 + f * f)
    return robustness(f - critical)


def _strength(in_treatment: float, in_outcome: float, k: float) -> tuple[float, float] | None:
    """Shares of treatment and outcome of a confounder ``k`` times as strong as one with these; None: none can be."""
    if in_treatment >= 1.0 or in_outcome >= 1.0:
        return None
    treatment = k * in_treatment / (1.0 - in_treatment)
    if treatment >= 1.0:
        return None
    shared = k * in_treatment**2 / ((1.0 - k * in_treatment) * (1.0 - in_treatment))
    if k * in_treatment >= 1.0 or shared >= 1.0:
        return None
    outcome = ((math.sqrt(k) + math.sqrt(shared)) / math.sqrt(1.0 - shared)) ** 2 * in_outcome / (1.0 - in_outcome)
    return treatment, min(outcome, 1.0)


def _bound(
    name: str,
    k: float,
    treatment: float,
    outcome: float,
    estimate: float,
    std_error: float,
    scale: float,
    df: float,
    critical: float,
) -> Bound:
    bias = scale * math.sqrt(outcome * treatment / (1.0 - treatment))
    moved = math.copysign(1.0, estimate) * (abs(estimate) - bias)
    error = std_error * math.sqrt((1.0 - outcome) / (1.0 - treatment) * df / (df - 1.0))
    return Bound(name, k, treatment, outcome, moved, error, moved - critical * error, moved + critical * error)


class _Triangle:
    """The triangular factor of centred columns: every regression among them from a matrix of their number."""

    def __init__(self, columns: Matrix) -> None:
        mean = columns.mean(axis=0)
        spread = columns.std(axis=0)
        # A column that does not vary is zero, whatever rounding left of it.
        varies = spread > 1e-13 * np.abs(columns).max(axis=0)
        self.unit = np.where(varies, spread, 1.0)
        self.mean, self.varies = mean, varies
        parts = [
            np.linalg.qr((columns[i : i + _CHUNK] - mean) * (varies / self.unit), mode="r")
            for i in range(0, len(columns), _CHUNK)
        ]
        self.r = np.asarray(np.linalg.qr(np.concatenate(parts), mode="r"), dtype=np.float64)

    def coef(self, target: int, on: list[int]) -> Vector:
        """Coefficients of standardised columns, of least norm where some are collinear."""
        if not on:
            return np.zeros(0)
        return np.asarray(np.linalg.lstsq(self.r[:, on], self.r[:, target], rcond=_RANK)[0], dtype=np.float64)

    def left(self, target: int, on: list[int]) -> float:
        """Sum of squares that a regression of one column on others leaves, in the column's unit."""
        rest = self.r[:, target] - self.r[:, on] @ self.coef(target, on)
        return float(rest @ rest) * float(self.unit[target]) ** 2

    def rank(self, on: list[int]) -> int:
        return int(np.linalg.matrix_rank(self.r[:, on], rtol=_RANK)) if on else 0

    def slope(self, target: int, of: int, on: list[int]) -> float:
        """Coefficient of the column ``of`` beside ``on``, in the columns' units."""
        return float(self.coef(target, [*on, of])[-1] * self.unit[target] / self.unit[of])


def _clustered(model: _Triangle, y: Vector, d: Vector, x: Matrix, codes: np.ndarray, df: float) -> tuple[float, float]:
    """CR1 error of the treatment's coefficient and its degrees of freedom."""
    p = x.shape[1]
    z = (np.column_stack([x, d, y]) - model.mean) * (model.varies / model.unit)
    rest_d = z[:, p] - z[:, :p] @ model.coef(p, list(range(p)))
    rest_y = z[:, p + 1] - z[:, : p + 1] @ model.coef(p + 1, list(range(p + 1)))
    sums = np.bincount(codes, weights=rest_d * rest_y)
    groups, n = len(sums), len(y)
    factor = groups / (groups - 1.0) * (n - 1.0) / df
    error = math.sqrt(factor * float(sums @ sums)) / float(rest_d @ rest_d)
    return error * float(model.unit[p + 1] / model.unit[p]), groups - 1.0


def _inputs(outcome: ArrayLike, treated: ArrayLike, covariates: ArrayLike) -> tuple[Vector, Vector, Matrix]:
    y, d, x = (np.asarray(v, dtype=np.float64) for v in (outcome, treated, covariates))
    x = x[:, None] if x.ndim == 1 else x
    if y.ndim != 1 or y.shape != d.shape or len(x) != len(y):
        raise EstimationError("outcome, treatment and covariates must have one entry per row each")
    if not (np.isfinite(y).all() and np.isfinite(d).all() and np.isfinite(x).all()):
        raise EstimationError("the regression holds values that are not finite")
    if len(y) < 4:
        raise EstimationError("too few rows for a regression on the covariates")
    return y, d, x
