"""Value of a target policy against that of the logging policy, from scores summed by independent unit.

Estimand: ``V(target) - V(logging)``, where a policy's value is what a request would yield in the mean (of a ratio
metric, mean numerator over mean denominator) if the policy chose its action. A method scores each row so that the
scores' mean is the target's value; with ``w = pi(A|x) / p(A|x)`` of the logged action ``A``, reward ``r`` and a model
``q`` of it:

==============  =====================================  ===========
method          numerator                              denominator
==============  =====================================  ===========
ips             ``w r``                                1
snips           ``w r``                                ``w``
direct_method   ``sum_a pi(a|x) q(x, a)``              1
doubly_robust   the direct method's ``+ w (r - q)``    1
==============  =====================================  ===========

A ratio metric has its numerator and its denominator scored so, each for itself. What must hold: the propensities are
those that the logging policy drew with, it takes every action that the target takes, and rows do not affect each other.
Sources: Horvitz and Thompson (1952); Swaminathan and Joachims (2015), *The self-normalized estimator for
counterfactual learning*; Dudik, Langford and Li (2011), *Doubly robust policy evaluation and learning*.

Both values come from the same units, so the error is that of the difference of their influences: with ``u_g`` a unit's
sum, ``sqrt(G / (G - 1) * sum(u_g^2))`` against t with ``G - 1`` degrees of freedom, ``G`` the units.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from estimators.estimate import Estimate
from estimators.inference import (
    EstimationError,
    Relative,
    finish,
    relative_from_log,
    relative_reason,
    t_interval,
)

Vector = NDArray[np.float64]
# Rounding leaves a trace of the outcome's size; a spread below it is none.
_TRACE = 1e-13


@dataclass(frozen=True, slots=True, eq=False)
class UnitSums:
    """Sums over the rows of every unit that have an outcome; all that a policy's value needs.

    Attributes:
        rows: ``(units,)`` rows.
        logged_num, logged_den: ``(units,)`` rewards as logged; the denominator of a plain mean is ``rows``.
        target_num, target_den: ``(units,)`` scores of the target policy, as in the module's table.
        w, w2: ``(units,)`` weights, after clipping, and their squares; None where the method has none.
        fitted_num, fitted_den: ``(units,)`` what fitting the reward model adds to the influence on the sums of
            ``target_num`` and ``target_den``; None: nothing.
        largest: Largest weight of a row.
        clipped: Rows whose weight was cut, or set to 0 by ``switch``.
        cut: By how much in all.
    """

    rows: Vector
    logged_num: Vector
    logged_den: Vector
    target_num: Vector
    target_den: Vector
    w: Vector | None = None
    w2: Vector | None = None
    fitted_num: Vector | None = None
    fitted_den: Vector | None = None
    largest: float | None = None
    clipped: float = 0.0
    cut: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """A policy's value with its interval; ``influence`` is each unit's, and sums to 0."""

    value: float
    std_error: float
    df: float
    ci_low: float
    ci_high: float
    influence: Vector

    def shown(self) -> dict[str, float]:
        """The numbers, as in ``diagnostics``."""
        return {name: getattr(self, name) for name in ("value", "std_error", "ci_low", "ci_high")}


def value_of(
    num: ArrayLike,
    den: ArrayLike,
    *,
    fitted_num: Vector | None = None,
    fitted_den: Vector | None = None,
    alpha: float = 0.05,
) -> Value:
    """A policy's value from scores summed by unit; units without rows may stand in with zeros and do not count.

    Args:
        num, den: ``(units,)`` sums of numerators and denominators.
        fitted_num, fitted_den: As in :class:`UnitSums`.
        alpha: The interval is at ``1 - alpha``.

    Raises:
        EstimationError: Arrays that do not fit, fewer than two units, values that are not finite, or a denominator
            that does not sum to a positive number.
    """
    above, below = _checked(num), _checked(den)
    if above.shape != below.shape:
        raise EstimationError("numerators and denominators must be one a unit each")
    n_units = len(above)
    if n_units < 2:
        raise EstimationError("an error needs at least two independent units")
    total = float(below.sum())
    if not total > 0.0:
        raise EstimationError("the denominator of a policy's value does not sum to a positive number")
    value = float(above.sum()) / total
    # A second pass takes back what the division lost, so that a large level costs no digits.
    value += float((above - value * below).sum()) / total
    influence = (above - value * below) / total
    if fitted_num is not None:
        influence += fitted_num / total
    if fitted_den is not None:
        influence -= value / total * fitted_den
    std_error = _error(influence)
    if not (math.isfinite(value) and math.isfinite(std_error)):
        raise EstimationError("a policy's value is not a finite number")
    df = n_units - 1.0
    return Value(value, std_error, df, *t_interval(value, std_error, df, alpha), influence)


def policy_value(
    sums: UnitSums, *, method: str = "ips", alpha: float = 0.05, diagnostics: Mapping[str, Any] | None = None
) -> Estimate:
    """Value of the target policy minus that of the logging policy.

    Args:
        sums: Scores and rewards by unit; units without rows that have an outcome are left out.
        method: Name of the method that scored them.
        alpha: Level; intervals are at ``1 - alpha``.
        diagnostics: More of them.

    Returns:
        The difference in the outcome's unit. ``control_value``: the logging policy's value; ``treatment_value``: the
        target's. ``n_control`` and ``n_treatment``: units, the same ones. The relative effect's interval is of the log
        ratio (of the ratio itself where the target's value is not positive). ``diagnostics``: ``values {logging,
        target}`` each with ``value``, ``std_error``, ``ci_low``, ``ci_high``; ``n_units``, ``rows``, and where there
        are weights ``weights`` as in :func:`weight_notes`, and ``ess``.

    Raises:
        EstimationError: Fewer than two units, no row whose logged action the target takes, values that are not finite,
            or no variation.
    """
    sums = _kept(sums)
    logging = value_of(sums.logged_num, sums.logged_den, alpha=alpha)
    if sums.w is not None and not sums.w.any():
        if sums.clipped:
            raise EstimationError("every weight is above the switch, so nothing corrects the model; take a larger one")
        raise EstimationError("the target policy never takes an action that was logged, so the logs hold none of it")
    target = value_of(
        sums.target_num, sums.target_den, fitted_num=sums.fitted_num, fitted_den=sums.fitted_den, alpha=alpha
    )
    size = max(abs(logging.value), abs(target.value))
    std_error = _error(target.influence - logging.influence)
    if std_error <= _TRACE * size:
        raise EstimationError(_why_no_spread(logging, size))
    if target.std_error <= _TRACE * size and logging.std_error > _TRACE * size:
        raise EstimationError(
            "the outcome does not vary among rows whose logged action the target policy takes, so nothing says how "
            "sure its value is"
        )
    shown: dict[str, Any] = {
        "values": {"logging": logging.shown(), "target": target.shown()},
        "n_units": len(sums.rows),
        "rows": int(sums.rows.sum()),
    }
    if sums.w is not None and sums.w2 is not None:
        notes = weight_notes(sums)
        shown |= {"ess": notes["ess"], "weights": notes}
    return finish(
        method,
        estimate=target.value - logging.value,
        std_error=std_error,
        df=logging.df,
        alpha=alpha,
        control_value=logging.value,
        treatment_value=target.value,
        n_control=len(sums.rows),
        n_treatment=len(sums.rows),
        relative=_relative(logging, target, alpha),
        diagnostics=shown | dict(diagnostics or {}),
    )


def weight_notes(sums: UnitSums) -> dict[str, float | None]:
    """What the weights look like.

    Returns:
        ``ess``: effective sample size in rows, ``(sum w)^2 / sum w^2`` (Kish 1965); ``ess_units``: the same of the
        units' sums; ``mean``: mean weight, 1 where propensities are right and nothing is clipped, with
        ``mean_std_error``; ``max``: the largest weight; ``max_unit_share``: the largest share of one unit;
        ``share_clipped``: rows whose weight was cut; ``share_cut``: how much of all weight that took.

    Raises:
        EstimationError: No weights.
    """
    if sums.w is None or sums.w2 is None:
        raise EstimationError("these sums have no weights")
    total, squares, rows = float(sums.w.sum()), float(sums.w2.sum()), float(sums.rows.sum())
    by_unit = float(sums.w @ sums.w)
    mean = total / rows
    return {
        "ess": total * total / squares if squares > 0.0 else 0.0,
        "ess_units": total * total / by_unit if by_unit > 0.0 else 0.0,
        "mean": mean,
        "mean_std_error": _error((sums.w - mean * sums.rows) / rows),
        "max": sums.largest,
        "max_unit_share": float(sums.w.max()) / total if total > 0.0 else 0.0,
        "share_clipped": sums.clipped / rows,
        "share_cut": sums.cut / (total + sums.cut) if total + sums.cut > 0.0 else 0.0,
    }


def _checked(values: ArrayLike) -> Vector:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1:
        raise EstimationError("sums must be one a unit")
    if not np.isfinite(x).all():
        raise EstimationError("the outcome, or a weight, holds values that are not finite")
    return x


def _kept(sums: UnitSums) -> UnitSums:
    """Only units that have a row with an outcome."""
    rows = _checked(sums.rows)
    if (rows > 0.0).all():
        return sums
    some = rows > 0.0

    def cut(x: Vector) -> Vector:
        return np.asarray(x)[some]

    return replace(
        sums,
        rows=rows[some],
        logged_num=cut(sums.logged_num),
        logged_den=cut(sums.logged_den),
        target_num=cut(sums.target_num),
        target_den=cut(sums.target_den),
        w=None if sums.w is None else cut(sums.w),
        w2=None if sums.w2 is None else cut(sums.w2),
        fitted_num=None if sums.fitted_num is None else cut(sums.fitted_num),
        fitted_den=None if sums.fitted_den is None else cut(sums.fitted_den),
    )


def _error(influence: Vector) -> float:
    n = len(influence)
    return math.sqrt(n / (n - 1.0) * float(influence @ influence))


def _why_no_spread(logging: Value, size: float) -> str:
    if logging.std_error > _TRACE * size:
        return (
            "the target policy gives every row the weight it has under the logging policy, so there is no difference "
            "to estimate"
        )
    return "the outcome does not vary, so nothing says how sure the estimate is"


def _relative(logging: Value, target: Value, alpha: float) -> Relative:
    if reason := relative_reason(logging.value):
        return Relative(reason=reason)
    c, t, df = logging.value, target.value, logging.df
    if t > 0.0:
        return relative_from_log(c, t, _error(target.influence / t - logging.influence / c), df, alpha)
    ratio = t / c
    spread = _error((target.influence - ratio * logging.influence) / c)
    return Relative(ratio - 1.0, *t_interval(ratio - 1.0, spread, df, alpha))
