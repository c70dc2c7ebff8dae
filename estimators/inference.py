"""Tests and intervals from a point, its standard error and its degrees of freedom.

Only ``scipy.special`` is used, and loaded where it is needed: ``scipy.stats`` costs a second of import time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from estimators.estimate import Estimate


class EstimationError(ValueError):
    """The data cannot carry this estimate; the message says why, in a plain sentence."""


@dataclass(frozen=True, slots=True)
class Relative:
    """A relative effect with its interval, as fractions of control's value; ``reason`` says why a part is None."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str = ""


def t_quantile(p: float, df: float) -> float:
    """Quantile of Student's t; of the standard normal where ``df`` is infinite."""
    from scipy.special import ndtri, stdtrit

    return float(ndtri(p)) if math.isinf(df) else float(stdtrit(df, p))


def critical_value(alpha: float, df: float) -> float:
    """Two-sided critical value at level ``alpha`` (in (0, 1))."""
    if not 0.0 < alpha < 1.0:
        raise EstimationError(f"alpha must lie between 0 and 1, not {alpha!r}")
    return t_quantile(1.0 - alpha / 2.0, df)


def t_interval(estimate: float, std_error: float, df: float, alpha: float) -> tuple[float, float]:
    """Two-sided interval at level ``1 - alpha``."""
    half = critical_value(alpha, df) * std_error
    return estimate - half, estimate + half


def two_sided_p(statistic: float, df: float) -> float:
    """Two-sided p-value of a t statistic (normal where ``df`` is infinite)."""
    from scipy.special import ndtr, stdtr

    tail = ndtr(-abs(statistic)) if math.isinf(df) else stdtr(df, -abs(statistic))
    return float(min(1.0, 2.0 * tail))


def minimum_detectable_effect(std_error: float, df: float, alpha: float, power: float = 0.8) -> float:
    """Smallest true effect that a two-sided test finds with probability ``power``, in the unit of ``std_error``.

    ``(t[1 - alpha/2] + t[power]) * std_error``: Bloom (1995), *Minimum detectable effects*.
    """
    return (critical_value(alpha, df) + t_quantile(power, df)) * std_error


def satterthwaite(variances: tuple[float, float], dfs: tuple[float, float]) -> float:
    """Degrees of freedom of a sum of two independent variance estimates (Welch 1947, Satterthwaite 1946)."""
    largest = max(variances)
    if not largest > 0.0:
        raise EstimationError("the outcome does not vary in either arm, so nothing says how sure the estimate is")
    parts = sum((v / largest) ** 2 / df for v, df in zip(variances, dfs, strict=True))
    return (sum(variances) / largest) ** 2 / parts if parts > 0.0 else math.inf


def relative_from_log(control: float, treatment: float, log_se: float, df: float, alpha: float) -> Relative:
    """Relative effect ``treatment / control - 1`` of two positive values, its interval from the log ratio."""
    low, high = t_interval(math.log(treatment / control), log_se, df, alpha)
    return Relative(treatment / control - 1.0, math.expm1(low), _expm1(high))


def relative_to_seen(level: float, effect: float, low: float, high: float) -> Relative:
    """Effect over what the treated would have had, where their own mean ``level`` is as seen, without error.

    Each end of the effect's interval leaves control ``level - end``, so that the relative interval holds zero where the
    effect's does; None where that is not positive: the interval is then open upwards.
    """
    control = level - effect
    if reason := relative_reason(control):
        return Relative(reason=reason)

    def of(end: float) -> float | None:
        return end / (level - end) if math.isfinite(end) and end < level else None

    return Relative(effect / control, of(low), of(high))


def relative_reason(control: float) -> str:
    """Why there is no relative effect; empty where there is one (control's value is positive)."""
    return "" if control > 0.0 else "control's value is not positive"


def finish(
    method: str,
    *,
    estimate: float,
    std_error: float,
    df: float,
    alpha: float,
    control_value: float,
    treatment_value: float,
    n_control: int,
    n_treatment: int,
    relative: Relative,
    diagnostics: Mapping[str, Any] | None = None,
) -> Estimate:
    """Builds the ``Estimate``: statistic, p-value and interval from the point and its standard error.

    Raises:
        EstimationError: Where a number is not finite or the standard error is not positive.
    """
    if not all(map(math.isfinite, (estimate, control_value, treatment_value))):
        raise EstimationError("the estimate is not a finite number")
    if not (math.isfinite(std_error) and std_error > 0.0):
        raise EstimationError("the outcome does not vary, so nothing says how sure the estimate is")
    if not df > 0.0:
        raise EstimationError("no degrees of freedom are left for the standard error")
    low, high = t_interval(estimate, std_error, df, alpha)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise EstimationError("too few independent observations for an interval")
    return Estimate(
        method=method,
        estimate=estimate,
        std_error=std_error,
        df=df,
        statistic=estimate / std_error,
        p_value=two_sided_p(estimate / std_error, df),
        ci_low=low,
        ci_high=high,
        control_value=control_value,
        treatment_value=treatment_value,
        n_control=n_control,
        n_treatment=n_treatment,
        relative=relative.value,
        relative_ci_low=relative.low,
        relative_ci_high=relative.high,
        relative_reason=relative.reason,
        diagnostics=dict(diagnostics or {}),
    )


def _expm1(x: float) -> float | None:
    """``exp(x) - 1``, None where it overflows: the interval is then open upwards."""
    return math.expm1(x) if x < 700.0 else None
