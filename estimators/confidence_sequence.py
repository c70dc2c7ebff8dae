"""Asymptotic confidence sequences: intervals that hold at every look, however often one looks and whenever one stops.

Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas (2024), "Time-uniform central limit theory and asymptotic confidence
sequences", Annals of Statistics 52(6), Theorem 2.2: after ``n`` observations the half-width is

    std_error * sqrt(2 (x + 1) / x * log(sqrt(x + 1) / alpha)),    x = n * rho**2.

``rho`` is that of their closed form, ``rho**2 = (-2 log(alpha) + log(-2 log(alpha) + 1)) / tuning``, with which the
interval is nearly as narrow at ``tuning`` observations as it can be there: the exact optimum (by Lambert's W) is
narrower by less than 0.1 %, and the closed form is what GrowthBook computes, so that both give the same numbers.
``alpha`` and ``tuning`` must be fixed before the first look. What the sequence is of must not change once it is in.
"""

from __future__ import annotations

import math
from dataclasses import replace

from estimators.estimate import Estimate
from estimators.inference import EstimationError, critical_value, t_quantile

# Their intervals are not the estimate plus and minus a number of standard errors.
OTHER_INTERVALS = ("randomization_inference", "horvitz_thompson")
TUNING = 5000.0
# Beyond this normal quantile Student's quantiles lose their digits; there Wallace's (1959) approximation carries over.
FARTHEST = 26.0


def mixing_variance(alpha: float, tuning: float) -> float:
    """``rho**2``: how fast the interval narrows, tuned for ``tuning`` observations at level ``alpha``.

    Raises:
        EstimationError: ``alpha`` outside (0, 1), or ``tuning`` not positive.
    """
    if not 0.0 < alpha < 1.0:
        raise EstimationError(f"alpha must lie between 0 and 1, not {alpha!r}")
    if not (tuning > 0.0 and math.isfinite(tuning)):
        raise EstimationError(f"tuning must be a positive number of observations, not {tuning!r}")
    spent = -2.0 * math.log(alpha)
    return (spent + math.log(spent + 1.0)) / tuning


def boundary(n: float, alpha: float, tuning: float = TUNING, df: float = math.inf) -> float:
    """Half-width in standard errors after ``n`` observations.

    Args:
        n: Observations so far, all arms of the comparison together.
        alpha: Level; the sequence covers at all looks together with probability ``1 - alpha``.
        tuning: Where the interval is narrowest.
        df: Of the standard error. Where they are finite, the standard normal's boundary is carried over to Student's
            t at the same tail probability, so that few clusters or blocks are not read as many.

    Raises:
        EstimationError: As :func:`mixing_variance`; fewer than one observation; no degrees of freedom.
    """
    if not n >= 1.0:
        raise EstimationError("there are no observations to look at")
    if not df > 0.0:
        raise EstimationError("no degrees of freedom are left for the standard error")
    x = n * mixing_variance(alpha, tuning)
    return _to_t(math.sqrt(2.0 * (x + 1.0) / x * (0.5 * math.log1p(x) - math.log(alpha))), df)


def always_valid_p(statistic: float, n: float, alpha: float, tuning: float = TUNING, df: float = math.inf) -> float:
    """The smallest level at which the sequence tuned for ``alpha`` excludes zero; at most 1.

    ``sqrt(x + 1) * exp(-z**2 * x / (2 (x + 1)))``, ``z`` the normal quantile of the t statistic's tail probability.
    """
    x = n * mixing_variance(alpha, tuning)
    z = _to_normal(abs(statistic), df)
    return min(1.0, math.exp(0.5 * math.log1p(x) - 0.5 * z * z * x / (x + 1.0)))


def confidence_sequence(
    estimate: Estimate, *, alpha: float = 0.05, tuning: float = TUNING, observations: float | None = None
) -> Estimate:
    """An estimate as it reads under repeated looks.

    Args:
        estimate: Of independent observations that do not change once they are in, its interval at ``alpha`` being the
            estimate plus and minus standard errors.
        alpha, tuning: As in :func:`boundary`.
        observations: How many there are so far; None: ``n_control + n_treatment``.

    Returns:
        The estimate with the interval, p-value and relative interval (on the log ratio, like the one given) of the
        sequence. Point, standard error, statistic and method are as they were; ``diagnostics`` gains ``looks``,
        ``tuning``, ``fixed_ci_low`` and ``fixed_ci_high``.

    Raises:
        EstimationError: As :func:`boundary`; a method whose interval does not come from a standard error.
    """
    if estimate.method in OTHER_INTERVALS or estimate.diagnostics.get("variance") == "wild":
        raise EstimationError(f"{estimate.method} has no interval that holds under repeated looks")
    n = estimate.n_control + estimate.n_treatment if observations is None else observations
    reach = boundary(n, alpha, tuning, estimate.df)
    low, high = (estimate.estimate + sign * reach * estimate.std_error for sign in (-1.0, 1.0))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise EstimationError("too few independent observations for an always-valid interval")
    relative_low, relative_high = _relative(estimate, reach / critical_value(alpha, estimate.df))
    fixed = {"fixed_ci_low": estimate.ci_low, "fixed_ci_high": estimate.ci_high}
    return replace(
        estimate,
        p_value=always_valid_p(estimate.statistic, n, alpha, tuning, estimate.df),
        ci_low=low,
        ci_high=high,
        relative_ci_low=relative_low,
        relative_ci_high=relative_high,
        diagnostics={**estimate.diagnostics, "looks": "sequential", "tuning": tuning, **fixed},
    )


def detectable_effect(
    estimate: Estimate,
    *,
    alpha: float = 0.05,
    tuning: float = TUNING,
    power: float = 0.8,
    observations: float | None = None,
) -> float:
    """Smallest true effect that the sequence excludes zero for at this look with probability ``power``."""
    n = estimate.n_control + estimate.n_treatment if observations is None else observations
    return (boundary(n, alpha, tuning, estimate.df) + t_quantile(power, estimate.df)) * estimate.std_error


def sample_factor(
    estimate: Estimate,
    size: float,
    *,
    alpha: float = 0.05,
    tuning: float = TUNING,
    power: float = 0.8,
    observations: float | None = None,
) -> float:
    """How many times the observations so far it takes to find an effect of ``size > 0`` with probability ``power``."""
    n = estimate.n_control + estimate.n_treatment if observations is None else observations

    def beyond(log_factor: float) -> float:
        more = math.exp(log_factor)
        df = estimate.df * max(more, 1.0)
        reach = boundary(max(n * more, 1.0), alpha, tuning, df) + t_quantile(power, df)
        return reach * estimate.std_error / math.sqrt(more) - size

    low, high = -math.log(n), 1.0
    while beyond(high) > 0.0:
        high += 5.0
    while high - low > 1e-9:
        middle = 0.5 * (low + high)
        low, high = (middle, high) if beyond(middle) > 0.0 else (low, middle)
    return math.exp(high)


def _relative(estimate: Estimate, wider: float) -> tuple[float | None, float | None]:
    """The relative interval made ``wider`` times as wide: on the log ratio, where it was made there."""
    value, low, high = estimate.relative, estimate.relative_ci_low, estimate.relative_ci_high
    if value is None or low is None:
        return low, high
    if value > -1.0 and low > -1.0:
        centre = math.log1p(value)
        half = wider * (centre - math.log1p(low))
        return math.expm1(centre - half), math.expm1(centre + half) if centre + half < 700.0 else None
    # A value that is not positive has no log: its interval was made on the ratio itself.
    return value - wider * (value - low), None if high is None else value + wider * (high - value)


def _to_t(z: float, df: float) -> float:
    """Student's quantile at the tail probability of a normal quantile ``z >= 0``."""
    if math.isinf(df):
        return z
    if z > FARTHEST:
        exponent = (z * (8.0 * df + 3.0) / (8.0 * df + 1.0)) ** 2 / df
        return math.sqrt(df * math.expm1(exponent)) if exponent < 700.0 else math.inf
    from scipy.special import ndtr, stdtrit

    return -float(stdtrit(df, float(ndtr(-z))))


def _to_normal(t: float, df: float) -> float:
    """The normal quantile at the tail probability of Student's quantile ``t >= 0``."""
    if math.isinf(df):
        return t
    from scipy.special import ndtr, ndtri, stdtr

    tail = float(stdtr(df, -t))
    if tail < float(ndtr(-FARTHEST)):
        return (8.0 * df + 1.0) / (8.0 * df + 3.0) * math.sqrt(df * math.log1p(t * t / df))
    return -float(ndtri(tail))
