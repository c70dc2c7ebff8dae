"""Effects by matching with replacement: Abadie-Imbens, with bias adjustment and standard errors to match.

Estimand: the average effect over all rows (``ate``) or over the treated (``att``); a caliper narrows it to the rows
that have a match. What must hold: given the covariates, treatment is as good as random, and at every value of them
both treatments occur. Sources: Abadie and Imbens (2006), Econometrica 74, theorems 6 and 7, for the variance, in the
form with ties of Abadie, Drukker, Herr and Imbens (2004), Stata Journal 4; Abadie and Imbens (2011), *Bias-corrected
matching estimators*, eq. 6; Abadie and Imbens (2016) where the propensity is estimated; for units with several rows
Otsu and Rai (2017), *Bootstrap inference of matching estimators*, whose linear form is summed by unit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from estimators.estimate import Estimate
from estimators.few_units import FewUnits, few_units
from estimators.inference import EstimationError, Relative, finish, relative_from_log, relative_reason, t_interval
from estimators.matches import Matches
from estimators.neighbours import Codes
from estimators.ols import Vector
from estimators.overlap import weight_notes
from estimators.propensity_matching import correction

_HELD = 1 << 20  # numbers held at once


def matching(
    outcome: ArrayLike,
    matches: Matches,
    *,
    denominator: ArrayLike | None = None,
    bias_adjustment: bool = True,
    alpha: float = 0.05,
) -> Estimate:
    """Mean outcome with treatment minus mean outcome without, each row's missing one taken from its matches.

    Args:
        outcome: ``(n,)`` the rows' outcome, or a ratio's numerator.
        matches: Of the same rows, from ``match``.
        denominator: ``(n,)`` a ratio's denominator: the effect is then that on the ratio of means.
        bias_adjustment: Moves every match's outcome by what a regression on the covariates (the propensity, where
            rows are matched on it) within its arm says of the distance; rows weigh as often as they are used.
        alpha: Level; intervals are at ``1 - alpha``.

    Returns:
        The estimate in the outcome's unit, the values of both arms over the estimand's population. Errors are normal
        where every row is a unit, t with units less one where units have several rows. The relative effect's interval
        is that of the log ratio, by the delta method. ``diagnostics``: ``variance`` (which of the three the standard
        error is), ``metric``, ``neighbours``, ``bias_adjustment``, ``unmatched`` rows by arm, ``distance`` of the
        matches (mean and largest), ``most_used``, ``ess`` and ``weights``.

    Raises:
        EstimationError: Values that are not finite, too few matched rows for the bias adjustment, a denominator whose
            mean is not positive, or no variation.
    """
    num = _values(outcome, matches)
    den = None if denominator is None else _values(denominator, matches)
    work = _Work(matches, bias_adjustment)
    means = work.means(num)
    scales = (1.0, 1.0)
    if den is not None:
        scales = work.means(den)
        if min(scales) <= 0.0:
            raise EstimationError("the denominator's mean is not positive in one arm")
        means = (means[0] / scales[0], means[1] / scales[1])
    d = matches.treated
    rest = num - np.where(d, means[1], means[0]) * (1.0 if den is None else den)
    rest = rest / np.where(d, scales[1], scales[0])
    variance, df = work.variance(rest)
    std_error = math.sqrt(variance)
    if std_error <= 1e-13 * max(map(abs, means)):
        raise EstimationError("the outcome does not vary, so nothing says how sure the estimate is")
    return finish(
        "matching",
        estimate=means[1] - means[0],
        std_error=std_error,
        df=df,
        alpha=alpha,
        control_value=means[0],
        treatment_value=means[1],
        n_control=work.units(~d),
        n_treatment=work.units(d),
        relative=_relative(work, rest, means, df, alpha),
        diagnostics=_notes(work),
    )


@dataclass(frozen=True, slots=True)
class _Work:
    """The matches with the way that outcomes are read through them."""

    matches: Matches
    adjusted: bool

    def potential(self, values: Vector, adjusted: bool) -> tuple[Vector, Vector]:
        """``(n,)`` outcomes without and with treatment of the used rows; one is the row's own."""
        m = self.matches
        both = [values.copy(), values.copy()]
        for arm, found in enumerate(m.stand_ins):
            if found is None:
                continue
            lending, asking = m.rows[arm], m.rows[1 - arm]
            if not adjusted:
                both[arm][asking] = found.mean(values[lending])
                continue
            fitted = self.fitted(values, arm)
            both[arm][asking] = found.mean((values - fitted)[lending]) + fitted[asking]
        return both[0], both[1]

    def fitted(self, values: Vector, arm: int) -> Vector:
        """``(n,)`` predictions of the arm's regression on the adjusters, its rows weighing as often as used."""
        m = self.matches
        rows = m.rows[arm][m.uses[m.rows[arm]] > 0.0]
        n_columns = 1 + m.adjusters.shape[1]
        if len(rows) <= n_columns:
            side = "treated" if arm else "control"
            raise EstimationError(
                f"{len(rows)} matched {side} rows are too few to adjust for {n_columns - 1} covariates"
            )
        x = np.column_stack([np.ones(len(values)), m.adjusters])
        root = np.sqrt(m.uses[rows])
        centre = float(values[rows].mean())
        coef = np.linalg.lstsq(root[:, None] * x[rows], root * (values[rows] - centre), rcond=1e-10)[0]
        return np.asarray(centre + x @ coef, dtype=np.float64)

    def means(self, values: Vector) -> tuple[float, float]:
        """Mean without and with treatment over the used rows."""
        without, with_treatment = self.potential(values, self.adjusted)
        used = self.matches.used
        return float(without[used].mean()), float(with_treatment[used].mean())

    def variance(self, values: Vector) -> tuple[float, float]:
        """Variance of the effect on ``values``, whose effect is zero (or of any size: it is centred), and its df."""
        if self.matches.units is not None:
            return self._clustered(values, self.matches.units)
        return self._abadie_imbens(values), math.inf

    def _abadie_imbens(self, values: Vector) -> float:
        m = self.matches
        without, with_treatment = self.potential(values, self.adjusted)
        n, gaps = int(m.used.sum()), (with_treatment - without)[m.used]
        around = np.empty(len(values))
        for rows, alike in zip(m.rows, m.alike, strict=True):
            around[rows] = alike.covariance(values[rows], values[rows])
        lent = m.uses**2 - m.shared + (2.0 * m.uses if m.estimand == "ate" else 0.0)
        total = float(((gaps - gaps.mean()) ** 2).sum() + (lent * around).sum())
        if m.logit is not None:
            total += correction(m, m.logit, values, float(gaps.mean()))
        if total < 0.0:
            raise EstimationError("the matches are too few for a standard error under an estimated propensity")
        return total / n**2

    def _clustered(self, values: Vector, units: Codes) -> tuple[float, float]:
        """Variance, and its degrees of freedom."""
        m = self.matches
        n, d = int(m.used.sum()), m.treated
        control = self.fitted(values, 0)
        rest = values - self.left_out(values, 0, units)
        if m.estimand == "att":
            parts = np.where(m.used, values - control, 0.0) - np.where(d, 0.0, m.uses * rest)
        else:
            parts = np.where(m.used, self.fitted(values, 1) - control, 0.0)
            parts += np.where(d, values - self.left_out(values, 1, units), -rest) * m.weights
        parts -= np.where(m.used, parts.sum() / n, 0.0)
        involved = m.weights > 0.0
        sums = np.asarray(np.bincount(units[involved], weights=parts[involved]), dtype=np.float64)
        groups = len(np.unique(units[involved]))
        if groups < 2:
            raise EstimationError("a standard error needs at least two units")
        square = float((sums**2).sum()) * groups / (groups - 1)
        few = self.few()
        if few is not None:
            square = max(square, few.square(sums))
        return square / n**2, groups - 1.0 if few is None else min(few.df(sums), groups - 1.0)

    def few(self) -> FewUnits | None:
        """The units' parts where an arm has few of them."""
        m = self.matches
        assert m.units is not None
        n = int(m.units[m.weights > 0.0].max()) + 1
        control, treatment = (
            np.bincount(m.units[rows], weights=m.weights[rows], minlength=n).astype(np.float64)
            for rows in ((m.weights > 0.0) & ~m.treated, (m.weights > 0.0) & m.treated)
        )
        return few_units((control, treatment))

    def left_out(self, values: Vector, arm: int, units: Codes) -> Vector:
        """``(n,)`` for the arm's rows the prediction of a regression without the row's own unit; elsewhere 0.

        A residual of the regression itself is too small where few rows are used often.
        """
        m = self.matches
        rows = m.rows[arm]
        codes = np.unique(units[rows], return_inverse=True)[1].reshape(-1)
        order = np.argsort(codes, kind="stable")
        rows, codes = rows[order], codes[order]
        x = np.column_stack([np.ones(len(rows)), m.adjusters[rows]])
        weighted = x * m.uses[rows, None]
        y = values[rows] - values[rows].mean()
        moments, target = weighted.T @ x, weighted.T @ y
        first = np.searchsorted(codes, np.arange(codes[-1] + 2))
        out = np.zeros(len(values))
        step = max(1, _HELD // x.shape[1] ** 2)
        for low in range(0, len(first) - 1, step):
            high = min(low + step, len(first) - 1)
            span, starts = slice(first[low], first[high]), first[low:high] - first[low]
            own = np.stack([np.add.reduceat(weighted[span] * c[:, None], starts, axis=0) for c in x[span].T], axis=1)
            own_target = np.add.reduceat(weighted[span] * y[span, None], starts, axis=0)
            inverse = np.linalg.pinv(moments - own, rcond=1e-10, hermitian=True)
            coef = (inverse @ (target - own_target)[:, :, None])[:, :, 0]
            out[rows[span]] = (x[span] * coef[codes[span] - low]).sum(axis=1) + values[rows].mean()
        return out

    def units(self, rows: np.ndarray) -> int:
        codes = self.matches.units
        return int(rows.sum()) if codes is None else len(np.unique(codes[rows]))


def _relative(work: _Work, rest: Vector, means: tuple[float, float], df: float, alpha: float) -> Relative:
    control, treatment = means
    if reason := relative_reason(control):
        return Relative(reason=reason)
    d = work.matches.treated
    if treatment > 0.0:
        log_se = math.sqrt(work.variance(rest / np.where(d, treatment, control))[0])
        return relative_from_log(control, treatment, log_se, df, alpha)
    ratio = treatment / control
    error = math.sqrt(work.variance(rest * np.where(d, 1.0 / control, ratio / control))[0])
    low, high = t_interval(ratio - 1.0, error, df, alpha)
    return Relative(ratio - 1.0, low, high)


def _notes(work: _Work) -> dict[str, Any]:
    m = work.matches
    distances = np.concatenate([f.distance for f in m.stand_ins if f is not None])
    shares = np.concatenate(
        [f.source.count[f.start] * f.target.count[f.end] / f.size[f.start] for f in m.stand_ins if f is not None]
    )
    if m.units is not None:
        variance = "clustered"
    else:
        variance = "abadie_imbens" if m.logit is None else "abadie_imbens_estimated_propensity"
    return {
        "variance": variance,
        "metric": m.metric,
        "neighbours": m.neighbours,
        "bias_adjustment": work.adjusted,
        "unmatched": m.unmatched(),
        "distance": {"mean": float(distances @ shares / shares.sum()), "max": float(distances.max())},
        "most_used": float(m.uses.max()),
        **weight_notes(m.weights, m.treated),
    }


def _values(values: ArrayLike, matches: Matches) -> Vector:
    y = np.asarray(values, dtype=np.float64)
    if y.shape != matches.treated.shape:
        raise EstimationError("the outcome must have one entry per matched row")
    if not np.isfinite(y).all():
        raise EstimationError("the outcome holds values that are not finite")
    return y
