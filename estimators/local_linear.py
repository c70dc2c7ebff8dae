"""Regression discontinuity by local polynomials with robust bias-corrected intervals, sharp and fuzzy.

Estimand: the effect at the cutoff. Sharp: the jump of the outcome's mean, treated where ``running >= cutoff``. Fuzzy:
the outcome's jump over the jump of take-up, the effect at the cutoff among those whom crossing it treats. What must
hold: without the treatment the mean would run through the cutoff without a jump, so that nobody sorts across it;
fuzzy too: crossing keeps nobody from treatment, and moves the outcome through it alone.

Sources: Calonico, Cattaneo and Titiunik (2014), *Robust nonparametric confidence intervals for
regression-discontinuity designs*, Econometrica 82, theorems 1 and 3; with covariates Calonico, Cattaneo, Farrell and
Titiunik (2019), Review of Economics and Statistics 101. The point is the conventional one at the bandwidth of least
mean squared error, whose bias is of the size of its error; the interval, its error, statistic and p-value are of the
bias-corrected point, with the noise of the correction in the error. So the interval is not centred at the point.

Coverage of the 95 % interval over 1,000 draws: 95 % where the mean is a parabola; 91 to 92 % on the authors' first
simulated curve, at 800 and at 5,000 rows, where a chosen bandwidth leaves bias of a higher order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from estimators import local_polynomial as lp
from estimators.estimate import Estimate
from estimators.inference import EstimationError, Relative, relative_reason, t_interval, two_sided_p
from estimators.local_polynomial import Matrix, Side, Vector
from estimators.rdd_bandwidth import optimal_bandwidth
from estimators.rdd_fits import Fits, Jump, fit_sides, split

_FARTHEST = 700.0  # log ratios beyond it overflow


def local_linear(
    outcome: ArrayLike,
    running: ArrayLike,
    *,
    cutoff: float = 0.0,
    takeup: ArrayLike | None = None,
    covariates: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    kernel: str = "triangular",
    order: int = 1,
    variance: str = "nn",
    h: float | None = None,
    b: float | None = None,
    alpha: float = 0.05,
) -> Estimate:
    """Jump of the outcome at the cutoff; over the jump of take-up where there is one (fuzzy).

    Args:
        outcome: ``(n,)`` one value a unit.
        running: ``(n,)`` running variable; ``running >= cutoff`` is treated, or offered treatment.
        takeup: ``(n,)`` treatment received, from 0 to 1; None: sharp.
        covariates: ``(n, k)`` facts from before the treatment; they narrow the interval and leave the estimand.
        clusters: ``(n,)`` labels within which rows are not independent. The sides' errors are added as though no
            cluster stood on both, which is too wide where clusters move both sides alike.
        kernel: ``triangular``, ``uniform`` or ``epanechnikov``.
        order: Degree of the polynomial for the point; that for its bias is one higher.
        variance: ``nn``, ``hc0``, ``hc1``, ``hc2`` or ``hc3``; with clusters the first three become CR1, the others
            CR2 and CR3.
        h, b: Bandwidths of the point and of its bias, in the running variable's unit. Both None: chosen for the least
            mean squared error; only ``h`` given: ``b = h``.
        alpha: Level; the interval is at ``1 - alpha``.

    Returns:
        ``estimate``: the conventional point; ``std_error``, ``statistic``, ``p_value`` and the interval robust
        bias-corrected (normal reference). ``control_value`` and ``treatment_value``: the outcome's limits from below
        and above, at the covariates' mean of the two limits; fuzzy: means of those whom crossing treats, without and
        with treatment. ``n_control``, ``n_treatment``: rows, or clusters, within ``h``. ``diagnostics``: ``bandwidth``
        ``{h, b}``, ``conventional_std_error``, ``bias_corrected``, ``rows_within_h`` and ``rows_within_b``
        ``{below, above}``, ``limits`` ``{below, above}`` of the outcome; with clusters ``clusters_within_h``; fuzzy:
        ``first_stage`` ``{estimate, std_error, p_value}`` and ``first_stage_f``, its squared robust statistic (None
        where take-up follows the cutoff to the letter).

    Raises:
        EstimationError: An option out of range, values that are not finite, too few distinct values on a side, no
            variation, or take-up that does not jump.
    """
    sides = split(outcome, running, cutoff, takeup=takeup, covariates=covariates, clusters=clusters)
    check_options(kernel, order, variance, h, b)
    fuzzy = takeup is not None
    if h is None:
        h, b = _chosen(sides, fuzzy, order, kernel, variance)
    b = h if b is None else b
    how: dict[str, Any] = {"order": order, "kernel": kernel, "variance": variance}
    fits = fit_sides(sides, h, b, outcomes=1 + fuzzy, **how)
    found = fits.ratio() if fuzzy else fits.jump()
    diagnostics = diagnostics_of(fits, found, h, b, kernel)
    if fuzzy:
        diagnostics |= first_stage_of(fits.jump(1))
        control, treatment, relative = _of_compliers(sides, fits, h, b, how, alpha)
    else:
        control, treatment, relative = _of_everyone(fits, alpha)
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
        control_value=control,
        treatment_value=treatment,
        n_control=counts["below"],
        n_treatment=counts["above"],
        relative=relative.value,
        relative_ci_low=relative.low,
        relative_ci_high=relative.high,
        relative_reason=relative.reason,
        diagnostics=diagnostics,
    )


def check_options(kernel: str, order: int, variance: str, h: float | None, b: float | None) -> None:
    """Refuses what is not in the lists, and bandwidths that are not positive.

    Raises:
        ValueError: An unknown kernel or variance, or an order below 1.
        EstimationError: A bandwidth that is not a positive number, or ``b`` without ``h``.
    """
    if kernel not in lp.KERNELS:
        raise ValueError(f"kernel must be one of {lp.KERNELS}")
    if variance not in lp.VARIANCES:
        raise ValueError(f"variance must be one of {lp.VARIANCES}")
    if order < 1:
        raise ValueError("the order of the polynomial must be at least 1")
    if h is None and b is not None:
        raise EstimationError("a bandwidth for the bias needs one for the point too")
    if any(x is not None and not (math.isfinite(x) and x > 0.0) for x in (h, b)):
        raise EstimationError("a bandwidth must be a positive number")


def _chosen(sides: tuple[Side, Side], fuzzy: bool, order: int, kernel: str, variance: str) -> tuple[float, float]:
    """The bandwidths of least mean squared error; those of the outcome's jump where a side complies perfectly."""
    varies = fuzzy and all(float(np.ptp(side.values[:, 1])) > 0.0 for side in sides)
    if fuzzy and not varies:
        sides = _with_values(sides, lambda v: np.delete(v, 1, axis=1))
    return optimal_bandwidth(*sides, takeup=varies, order=order, kernel=kernel, variance=variance)


def _with_values(sides: tuple[Side, Side], change: Callable[[Matrix], Matrix]) -> tuple[Side, Side]:
    below, above = (replace(side, values=change(side.values)) for side in sides)
    return below, above


def first_stage_of(first: Jump) -> dict[str, Any]:
    """The jump of take-up as diagnostics, with its squared robust statistic."""
    exact = first.std_error <= 1e-13  # take-up is 0 to 1; a spread this small is rounding
    p_value = 0.0 if exact else two_sided_p(first.statistic, math.inf)
    return {
        "first_stage": {"estimate": first.estimate, "std_error": first.std_error, "p_value": p_value},
        "first_stage_f": None if exact else first.statistic**2,
    }


def diagnostics_of(fits: Fits, found: Jump, h: float, b: float, kernel: str) -> dict[str, Any]:
    """Bandwidths, rows within them, and the first value's limits."""
    rows: dict[str, dict[str, int]] = {"rows_within_h": {}, "rows_within_b": {}}
    limits = {}
    for limit in (fits.below, fits.above):
        side = limit.side
        limits[side.name] = float(limit.values[0])
        for key, reach in (("rows_within_h", h), ("rows_within_b", b)):
            near = side.within(reach, kernel)
            rows[key][side.name] = len(near.x)
            if near.clusters is not None and reach == h:
                rows.setdefault("clusters_within_h", {})[side.name] = len(np.unique(near.clusters))
    return {
        "bandwidth": {"h": h, "b": b},
        "conventional_std_error": found.conventional_error,
        "bias_corrected": found.corrected,
        "limits": limits,
        **rows,
    }


def _of_everyone(fits: Fits, alpha: float) -> tuple[float, float, Relative]:
    """The outcome's limits, at the covariates' mean of both sides, and their ratio."""
    half = fits.gamma[:, 0] / 2.0
    low, high = fits.below.values, fits.above.values
    middle = half @ (low[1:] + high[1:])
    control = float(low[0] - 2.0 * half @ low[1:] + middle)
    treatment = float(high[0] - 2.0 * half @ high[1:] + middle)
    if reason := relative_reason(control):
        return control, treatment, Relative(reason=reason)
    ratio = treatment / control
    # The covariates' mean moves with both sides' limits; so does the ratio.
    scale = (1.0 / control, 1.0 / treatment) if treatment > 0.0 else (ratio / control, 1.0 / control)
    shared = -half * sum(scale)
    below, above = (np.concatenate(([s], shared)) for s in scale)
    start = math.log(ratio) if treatment > 0.0 else ratio
    return control, treatment, relative_of(fits.combined(start, below, above), ratio, treatment > 0.0, alpha)


def _of_compliers(
    sides: tuple[Side, Side], fits: Fits, h: float, b: float, how: dict[str, Any], alpha: float
) -> tuple[float, float, Relative]:
    """Means of those whom crossing treats, without and with treatment, and their ratio (Abadie 2002)."""
    if any(not np.isin(side.values[:, 1], (0.0, 1.0)).all() for side in sides):
        low, high = (float(limit.values[0]) for limit in (fits.below, fits.above))
        return low, high, Relative(reason="take-up is not 0 or 1 throughout, so those it would treat have no mean")

    def of(change: Callable[[Vector, Vector], tuple[Vector, Vector]]) -> Jump:
        def columns(v: Matrix) -> Matrix:
            return np.column_stack([*change(v[:, 0], v[:, 1]), v[:, 2:]])

        return fit_sides(_with_values(sides, columns), h, b, outcomes=2, **how).ratio()

    control = of(lambda y, t: ((1.0 - t) * y, 1.0 - t)).estimate
    treatment = of(lambda y, t: (t * y, t)).estimate
    if reason := relative_reason(control):
        return control, treatment, Relative(reason=reason)
    found = of(lambda y, t: (t * y, (t - 1.0) * y))
    if treatment > 0.0:
        ratio = found.estimate
        log = Jump(math.log(ratio), math.log(ratio) + (found.corrected - ratio) / ratio, 0.0, found.std_error / ratio)
        return control, treatment, relative_of(log, ratio, True, alpha)
    return control, treatment, relative_of(found, found.estimate, False, alpha)


def relative_of(found: Jump, ratio: float, logs: bool, alpha: float) -> Relative:
    """A ratio less one, from the ratio itself or from its logarithm."""
    low, high = t_interval(found.corrected, found.std_error, math.inf, alpha)
    if logs and low >= _FARTHEST:
        return Relative(ratio - 1.0, reason="control's value is too near 0 for an interval of the log ratio")
    if logs:
        return Relative(ratio - 1.0, math.expm1(low), math.expm1(high) if high < _FARTHEST else None)
    return Relative(ratio - 1.0, low - 1.0, high - 1.0)
