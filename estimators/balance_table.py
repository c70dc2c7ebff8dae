"""How alike two arms are, covariate by covariate, before and after weighting.

Sources: Rosenbaum and Rubin (1985), *Constructing a control group*, for the standardised difference; Austin (2009),
*Balance diagnostics for comparing the distribution of baseline covariates*, for the variance ratio. The same spread
divides before and after, so that a change of the number is a change of the difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from estimators.inference import EstimationError
from estimators.ols import Matrix, Vector
from estimators.overlap import arms

_CONSTANT = 1e-13


@dataclass(frozen=True, slots=True)
class Balance:
    """One covariate.

    Attributes:
        covariate: Its name.
        control, treatment: Its means by arm, without weights.
        weighted_control, weighted_treatment: With them.
        before, after: Treatment's mean minus control's, without and with weights, over ``spread``; 0 where the means
            are equal, None where they are not and neither arm varies: no difference is larger.
        variance_ratio_before, variance_ratio_after: Treatment's variance over control's; None where control's is 0.
        spread: Root of the mean of the arms' variances, without weights.
    """

    covariate: str
    control: float
    treatment: float
    weighted_control: float
    weighted_treatment: float
    before: float | None
    after: float | None
    variance_ratio_before: float | None
    variance_ratio_after: float | None
    spread: float


def balance_table(
    covariates: ArrayLike, treated: ArrayLike, weights: ArrayLike | None = None, *, names: Sequence[str] | None = None
) -> tuple[Balance, ...]:
    """The table, in the order of the columns.

    Args:
        covariates: ``(n, p)`` finite values.
        treated: ``(n,)`` 0 or 1.
        weights: ``(n,)`` of any method, not negative, of any scale within an arm; None: all 1.
        names: ``p`` names; None: ``x0``, ``x1``, …

    Raises:
        EstimationError: Values that are not finite, an empty arm, weights that are negative or zero throughout an arm,
            or names that do not fit the columns.
    """
    d, x = arms(treated), np.asarray(covariates, dtype=np.float64)
    x = x[:, None] if x.ndim == 1 else x
    w = np.ones(len(d)) if weights is None else np.asarray(weights, dtype=np.float64)
    labels = [f"x{j}" for j in range(x.shape[1])] if names is None else list(names)
    if len(x) != len(d) or w.shape != d.shape or len(labels) != x.shape[1]:
        raise EstimationError("covariates, arms, weights and names do not fit each other")
    if not (np.isfinite(x).all() and np.isfinite(w).all() and (w >= 0.0).all()):
        raise EstimationError("covariates must be finite, weights finite and not negative")
    if not (w[d].any() and w[~d].any()):
        raise EstimationError("no row of an arm has weight")
    size = np.abs(x).max(axis=0)
    before = [_moments(x[side], np.ones(int(side.sum()))) for side in (~d, d)]
    after = [_moments(x[side], w[side]) for side in (~d, d)]
    rows = zip(labels, size, *(part for pair in (*before, *after) for part in pair), strict=True)
    return tuple(_row(str(label), float(most), *map(float, numbers)) for label, most, *numbers in rows)


def largest(table: Sequence[Balance]) -> tuple[float | None, float | None]:
    """Largest absolute standardised difference before and after; None where one is beyond all measure."""

    def of(values: list[float | None]) -> float | None:
        sizes = [abs(v) for v in values if v is not None]
        return max(sizes, default=0.0) if len(sizes) == len(values) else None

    return of([row.before for row in table]), of([row.after for row in table])


def _moments(x: Matrix, w: Vector) -> tuple[Vector, Vector]:
    """Weighted means and variances (unbiased under weights of reliability) of the columns."""
    share = w / w.max()
    share = share / share.sum()
    mean = share @ x
    free = 1.0 - float(share @ share)
    spread = share @ (x - mean) ** 2
    return mean, spread / free if free > _CONSTANT else np.zeros_like(spread)


def _row(
    label: str,
    size: float,
    control: float,
    var_control: float,
    treatment: float,
    var_treatment: float,
    weighted_control: float,
    weighted_var_control: float,
    weighted_treatment: float,
    weighted_var_treatment: float,
) -> Balance:
    spread = float(np.sqrt((var_control + var_treatment) / 2.0))
    rounding = _CONSTANT * size

    def standardised(difference: float) -> float | None:
        if abs(difference) <= rounding:
            return 0.0
        return difference / spread if spread > rounding else None

    def ratio(of_treatment: float, of_control: float) -> float | None:
        return of_treatment / of_control if of_control > rounding**2 else None

    return Balance(
        covariate=label,
        control=control,
        treatment=treatment,
        weighted_control=weighted_control,
        weighted_treatment=weighted_treatment,
        before=standardised(treatment - control),
        after=standardised(weighted_treatment - weighted_control),
        variance_ratio_before=ratio(var_treatment, var_control),
        variance_ratio_after=ratio(weighted_var_treatment, weighted_var_control),
        spread=spread,
    )
