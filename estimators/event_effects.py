"""Effects by time since treatment began: their joint covariance, intervals and simultaneous bands."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from estimators.inference import (
    EstimationError,
    Relative,
    critical_value,
    relative_reason,
    t_interval,
    two_sided_p,
)

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

_DRAWS = 20_000


@dataclass(frozen=True, slots=True, eq=False)
class Effects:
    """Effects by event time, by cohort or by period.

    Attributes:
        keys: ``(m,)`` event times (0: first treated period), or labels of cohorts or periods.
        estimates: ``(m,)`` in the outcome's unit.
        covariance: ``(m, m)`` their covariance; a zero row and column for a reference that is zero by construction.
        df: ``(m,)`` degrees of freedom (``inf``: normal).
    """

    keys: tuple[Any, ...]
    estimates: Vector
    covariance: Matrix
    df: Vector

    @property
    def std_errors(self) -> Vector:
        """``(m,)`` roots of the diagonal."""
        return np.asarray(np.sqrt(np.maximum(np.diag(self.covariance), 0.0)), dtype=np.float64)

    def at(self, chosen: NDArray[Any]) -> Effects:
        """Those that ``chosen`` (a mask or positions) picks."""
        index = np.arange(len(self.keys))[chosen]
        keys = tuple(self.keys[i] for i in index)
        return Effects(keys, self.estimates[index], self.covariance[np.ix_(index, index)], self.df[index])

    def without_reference(self) -> Effects:
        """Those with an error: what pre-trend tests and sensitivity analyses take."""
        return self.at(self.std_errors > 0.0)

    def before(self) -> Effects:
        """Event times below zero that have an error."""
        return self.at((np.asarray(self.keys) < 0) & (self.std_errors > 0.0))

    def critical(self, *, alpha: float = 0.05, seed: int = 0) -> float:
        """Critical value of a band that holds all effects at once with probability ``1 - alpha``.

        The ``1 - alpha`` quantile of the largest absolute t statistic. Callaway and Sant'Anna (2021, algorithm 1) find
        it by multiplying influence functions by random signs; with normal multipliers, as here, the sums are exactly
        normal with ``covariance``, and are drawn as such, over a chi-square with the least degrees of freedom.
        """
        some = self.at(self.std_errors > 0.0)
        df = float(some.df.min()) if len(some.keys) else math.inf
        single = critical_value(alpha, df)
        if len(some.keys) < 2:
            return single
        scale = some.std_errors
        values, vectors = np.linalg.eigh(some.covariance / np.outer(scale, scale))
        rng = np.random.default_rng(seed)
        draws = rng.standard_normal((_DRAWS, len(scale))) @ (vectors * np.sqrt(np.maximum(values, 0.0))).T
        largest = np.abs(draws).max(axis=1)
        if math.isfinite(df):
            largest = largest / np.sqrt(rng.chisquare(df, _DRAWS) / df)
        return max(single, float(np.quantile(largest, 1.0 - alpha)))

    def rows(self, name: str, *, alpha: float = 0.05, seed: int = 0) -> list[dict[str, Any]]:
        """One object per effect: ``name``, ``estimate``, ``std_error``, ``ci_low``, ``ci_high`` (each on its own),
        ``band_low`` and ``band_high`` (all at once), ``p_value``; without an error, the interval is None."""
        half = self.critical(alpha=alpha, seed=seed)
        out: list[dict[str, Any]] = []
        for key, estimate, error, df in zip(self.keys, self.estimates, self.std_errors, self.df, strict=True):
            row: dict[str, Any] = {name: key, "estimate": float(estimate), "std_error": float(error)}
            if error > 0.0:
                low, high = t_interval(float(estimate), float(error), float(df), alpha)
                row |= {"ci_low": low, "ci_high": high, "p_value": two_sided_p(float(estimate / error), float(df))}
                row |= {"band_low": float(estimate - half * error), "band_high": float(estimate + half * error)}
            else:
                row |= dict.fromkeys(("ci_low", "ci_high", "p_value", "band_low", "band_high"))
            out.append(row)
        return out


def cohort_df(scores: Vector, cohort: NDArray[np.intp], groups: int | None = None) -> float:
    """Satterthwaite's degrees of freedom of ``sum(scores^2)``, whose parts differ in size between cohorts.

    A cohort of ``m`` independent groups tells its own variance with ``m - 1`` degrees of freedom; few treated groups
    against many untreated ones leave few.

    Args:
        scores: ``(n_groups,)`` contributions to the estimate.
        cohort: ``(n_groups,)`` codes of the cohorts.
        groups: How many of the entries are groups; those after them stand for cohorts whose variance the groups of the
            entry's cohort tell. None: all.
    """
    sizes = np.bincount(cohort[:groups], minlength=int(cohort.max()) + 1)
    part = np.bincount(cohort, weights=scores**2)
    sure = (sizes > 1) & (part > 0.0)
    if not part.any():
        return math.inf
    if not sure.any():
        raise EstimationError("no cohort has two independent units, so nothing says how sure the estimate is")
    return float(part[sure].sum() ** 2 / (part[sure] ** 2 / (sizes[sure] - 1.0)).sum())


def beyond_rounding(std_error: float, outcomes: Matrix) -> float:
    """The error, or 0 where it is no more than the rounding of outcomes of that size."""
    return std_error if std_error > 1e-13 * float(np.nanmax(np.abs(outcomes))) else 0.0


def relative_to_untreated(
    treated: float, effect: float, treated_scores: Vector, effect_scores: Vector, df: float, alpha: float
) -> Relative:
    """Effect relative to what the treated would have had, ``treated - effect``, with its interval.

    The interval is Fieller's (1954): the ``r`` at which ``effect - r control`` is not told from 0. It holds zero where
    the effect's own does, which one of the log ratio need not where control is told badly; its ends are None where
    control is not told from 0 itself.

    Args:
        treated, effect: Mean outcome of the treated, and the effect on them.
        treated_scores, effect_scores: ``(n_groups,)`` contributions; products add up to (co)variances.
    """
    control = treated - effect
    if reason := relative_reason(control):
        return Relative(reason=reason)
    control_scores = treated_scores - effect_scores
    squared = critical_value(alpha, df) ** 2
    a = control**2 - squared * float(control_scores @ control_scores)
    if not a > 0.0:
        return Relative(effect / control, reason="control's value is not told from 0, so the ratio has no interval")
    b = effect * control - squared * float(effect_scores @ control_scores)
    c = effect**2 - squared * float(effect_scores @ effect_scores)
    half = math.sqrt(max(b**2 - a * c, 0.0))
    return Relative(effect / control, (b - half) / a, (b + half) / a)
