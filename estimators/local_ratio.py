"""Regression discontinuity of a ratio of two means, such as cost per success, by the delta method at the cutoff.

Estimand: sharp, the ratio of the limits of two means from above less the same from below; fuzzy, the ratio of the two
means among those whom crossing treats, with the treatment less without it (their means as in Abadie 2002, *Bootstrap
tests for distributional treatment effects in instrumental variable models*, Journal of the American Statistical
Association 97). A ratio of limits moves to first order as a weighted sum of them, so that bias correction and robust
errors are those of ``local_linear`` (Calonico, Cattaneo and Titiunik 2014, Econometrica 82, theorems 1 and 3). With a
denominator of one throughout it is ``local_linear`` to rounding. The bandwidth is that for the numerator less the
overall ratio times the denominator.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from estimators.estimate import Estimate
from estimators.inference import EstimationError, Relative, relative_reason, t_interval, two_sided_p
from estimators.local_linear import check_options, diagnostics_of, first_stage_of, local_linear, relative_of
from estimators.local_polynomial import Vector
from estimators.rdd_fits import Fits, fit_sides, split


def local_ratio(
    numerator: ArrayLike,
    denominator: ArrayLike,
    running: ArrayLike,
    *,
    cutoff: float = 0.0,
    takeup: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    kernel: str = "triangular",
    order: int = 1,
    variance: str = "nn",
    h: float | None = None,
    b: float | None = None,
    alpha: float = 0.05,
) -> Estimate:
    """Difference of two ratios at the cutoff.

    Args:
        numerator, denominator: ``(n,)`` one value a row.
        running, cutoff, takeup, clusters, kernel, order, variance, h, b, alpha: As in ``local_linear``.

    Returns:
        As ``local_linear``; ``control_value`` and ``treatment_value`` are the two ratios, ``limits`` in
        ``diagnostics`` those of the numerator (fuzzy: of its part that was treated).

    Raises:
        EstimationError: As ``local_linear``, and where a denominator is not positive at the cutoff.
    """
    num, den = (np.asarray(v, dtype=np.float64) for v in (numerator, denominator))
    check_options(kernel, order, variance, h, b)
    if h is None:
        line = _linear(num, den)
        options: dict[str, Any] = {"cutoff": cutoff, "takeup": takeup, "clusters": clusters}
        pilot = local_linear(line, running, **options, kernel=kernel, order=order, variance=variance, alpha=alpha)
        h, b = (pilot.diagnostics["bandwidth"][name] for name in ("h", "b"))
    b = h if b is None else b
    values = [num, den] if takeup is None else _parts(num, den, np.asarray(takeup, dtype=np.float64))
    sides = split(values[0], running, cutoff, covariates=np.column_stack(values[1:]), clusters=clusters)
    fits = fit_sides(sides, h, b, outcomes=len(values), order=order, kernel=kernel, variance=variance)
    ratios, weights = _sharp(fits) if takeup is None else _fuzzy(fits)
    found = fits.combined(ratios[1] - ratios[0], *weights)
    if found.std_error <= 1e-13 * max(map(abs, ratios)):
        raise EstimationError("the ratio does not vary near the cutoff, so nothing says how sure the estimate is")
    diagnostics = diagnostics_of(fits, found, h, b, kernel)
    if takeup is not None:
        last = np.eye(len(values))[-1]
        jump = float(last @ (fits.above.values - fits.below.values))
        diagnostics |= first_stage_of(fits.combined(jump, last, last))
    relative = _relative(fits, ratios, weights, takeup is not None, alpha)
    low, high = t_interval(found.corrected, found.std_error, math.inf, alpha)
    counts = diagnostics["clusters_within_h" if clusters is not None else "rows_within_h"]
    return Estimate(
        method="local_linear",
        estimate=found.estimate,
        std_error=found.std_error,
        df=math.inf,
        statistic=found.statistic,
        p_value=two_sided_p(found.statistic, math.inf),
        ci_low=low,
        ci_high=high,
        control_value=ratios[0],
        treatment_value=ratios[1],
        n_control=counts["below"],
        n_treatment=counts["above"],
        relative=relative.value,
        relative_ci_low=relative.low,
        relative_ci_high=relative.high,
        relative_reason=relative.reason,
        diagnostics=diagnostics,
    )


def _linear(num: Vector, den: Vector) -> Vector:
    """What the bandwidth is chosen for, in the ratio's unit: the ratio, moved as numerator and denominator move it."""
    level = float(den.mean()) if len(den) else 0.0
    if not (math.isfinite(level) and level > 0.0):
        raise EstimationError("the denominator's mean is not positive")
    ratio = float(num.mean()) / level
    return np.asarray(ratio + (num - ratio * den) / level, dtype=np.float64)


def _parts(num: Vector, den: Vector, takeup: Vector) -> list[Vector]:
    """Numerator and denominator under the treatment and without it, and take-up."""
    return [takeup * num, takeup * den, (1.0 - takeup) * num, (1.0 - takeup) * den, takeup]


def _sharp(fits: Fits) -> tuple[tuple[float, float], tuple[Vector, Vector]]:
    """The ratio from either side, and how it moves with its limits."""
    (below, low), (above, high) = (_ratio(*limit.values) for limit in (fits.below, fits.above))
    return (below, above), (low, high)


def _fuzzy(fits: Fits) -> tuple[tuple[float, float], tuple[Vector, Vector]]:
    """The ratio without and with treatment among those whom crossing treats; both move with the same jumps."""
    jumps = fits.above.values - fits.below.values
    toward = math.copysign(1.0, jumps[4])
    treated, up = _ratio(toward * jumps[0], toward * jumps[1])
    control, down = _ratio(-toward * jumps[2], -toward * jumps[3])
    up, down = toward * up, toward * down
    weights = np.concatenate([up, down, [0.0]])
    return (control, treated), (weights, weights)


def _ratio(num: float, den: float) -> tuple[float, Vector]:
    if not den > 0.0:
        raise EstimationError("the denominator is not positive at the cutoff")
    return float(num / den), np.array([1.0 / den, -num / den**2])


def _relative(
    fits: Fits, ratios: tuple[float, float], weights: tuple[Vector, Vector], fuzzy: bool, alpha: float
) -> Relative:
    """The ratio of the ratios, by its logarithm where both are positive."""
    control, treatment = ratios
    if reason := relative_reason(control):
        return Relative(reason=reason)
    logs = treatment > 0.0
    scale = (1.0 / control, 1.0 / treatment) if logs else (treatment / control**2, 1.0 / control)
    ratio = treatment / control
    start = math.log(ratio) if logs else ratio
    if fuzzy:
        # The first two jumps make the treated ratio, the next two the other one.
        one = weights[0] * np.array([scale[1], scale[1], scale[0], scale[0], 0.0])
        return relative_of(fits.combined(start, one, one), ratio, logs, alpha)
    below, above = (s * w for s, w in zip(scale, weights, strict=True))
    return relative_of(fits.combined(start, below, above), ratio, logs, alpha)
