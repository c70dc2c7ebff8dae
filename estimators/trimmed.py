"""Trimmed means compared by Yuen's test.

Estimand: the difference of the arms' trimmed means, each the mean of what is left after the same share of its units is
taken off either end. It is the difference of the means for a shift, or for symmetric outcomes; of skewed ones it is
another quantity, and lies nearer to the bulk.

Each arm is trimmed at its own order statistics, as Yuen does: cut points pooled over the arms would cut more off the
arm that lies higher, and pull the arms together. Source: Yuen (1974), *The two-sample trimmed t for unequal population
variances*; Tukey and McLaughlin (1963) for the winsorized variance.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from estimators.difference_in_means import relative_effect
from estimators.estimate import Estimate
from estimators.inference import EstimationError, finish, satterthwaite

QUANTILE = 0.95


def trimmed(control: ArrayLike, treatment: ArrayLike, *, quantile: float = QUANTILE, alpha: float = 0.05) -> Estimate:
    """Difference of trimmed means with Yuen's standard error and degrees of freedom.

    Args:
        control, treatment: ``(n,)`` one value a unit.
        quantile: ``1 - quantile`` of an arm's units, rounded down, are taken off either end; between 0.5 and 1.

    Returns:
        The estimate in the outcome's unit; ``diagnostics`` hold by arm ``trimmed_…``, units taken off both ends
        together, and ``low_…`` and ``high_…``, the least and largest value that stayed.

    Raises:
        EstimationError: Fewer than two units stay in an arm, a value is not finite, or what stays does not vary.
    """
    if not 0.5 < quantile < 1.0:
        raise EstimationError(f"a trimming quantile lies between 0.5 and 1, not {quantile!r}")
    parts = [_arm(values, 1.0 - quantile) for values in (control, treatment)]
    (c, var_c, df_c, _), (t, var_t, df_t, _) = parts
    if math.sqrt(var_t + var_c) <= 1e-14 * max(abs(t), abs(c)):
        raise EstimationError("what trimming leaves does not vary in either arm; trim less, or winsorize")
    dfs = (df_t, df_c)
    shown = {f"{key}_{name}": value for name, part in zip(("control", "treatment"), parts, strict=True)
             for key, value in part[3].items()}  # fmt: skip
    return finish(
        "trim",
        estimate=t - c,
        std_error=math.sqrt(var_t + var_c),
        df=satterthwaite((var_t, var_c), dfs),
        alpha=alpha,
        control_value=c,
        treatment_value=t,
        n_control=len(np.asarray(control)),
        n_treatment=len(np.asarray(treatment)),
        relative=relative_effect(c, t, var_c, var_t, dfs, alpha),
        diagnostics=shown,
    )


def _arm(values: ArrayLike, share: float) -> tuple[float, float, float, dict[str, float]]:
    """Trimmed mean, its variance, that variance's degrees of freedom, and what was cut."""
    x = np.sort(np.asarray(values, dtype=np.float64))
    if not np.isfinite(x).all():
        raise EstimationError("the outcome holds values that are not finite")
    n = len(x)
    # 5 % of 1,000 units is 50, though (1 - 0.95) * 1,000 is a little more or less.
    off = math.floor(share * n * (1.0 + 1e-12) + 1e-12)
    left = n - 2 * off
    if left < 2:
        raise EstimationError("trimming leaves fewer than two units of an arm")
    middle = x[off : n - off]
    centre = float(middle.mean())
    mean = centre + float((middle - centre).mean())
    pulled = np.clip(x - mean, middle[0] - mean, middle[-1] - mean)
    squares = float(np.square(pulled - pulled.mean()).sum())
    cuts = {"trimmed": 2 * off, "low": float(middle[0]), "high": float(middle[-1])}
    return mean, squares / (left * (left - 1.0)), left - 1.0, cuts
