"""Rows as the independent observations: a request-level experiment, or a log with one row a unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from estimators import cuped, difference_in_means
from estimators.estimate import Estimate
from estimators.inference import EstimationError
from estimators.moments import Moments
from estimators.quantiles import Histogram, quantile_effect
from readout.logs import Logs
from readout.reduce import Table, pilot_means
from readout.samples import histograms, joint_rows
from readout.samples.base import KEPT, den_sum, num_sum
from readout.spec.model import Spec
from readout.terms import Term


class RowArms:
    """Centred moments by arm: squares are of values minus a pilot mean, so that they do not cancel.

    A ratio's numerator is centred on the pilot ratio times its denominator, so that the residual's variance does not
    come from the difference of two large ones.
    """

    def __init__(self, spec: Spec, logs: Logs) -> None:
        self.method = spec.estimator.method
        self.unit = "request" if spec.design.kind == "request_rct" else "row"
        self._arms = 1 + len(spec.design.treatment)
        self._logs = logs
        self.rows = KEPT

    def tables(self, terms: Sequence[Term]) -> list[Table]:
        plain = [t for t in terms if t.quantile is None]
        wanted = {num_sum(t): t.num for t in plain} | {den_sum(t): t.den for t in plain if t.den is not None}
        self._shift = pilot_means(self._logs.frame, wanted, self._logs.source.rows)
        sums: dict[str, pl.Expr] = {}
        maxima: dict[str, pl.Expr] = {}
        for term in plain:
            num = term.num.cast(pl.Float64)
            if term.den is None:
                x = num - self._shift[num_sum(term)]
            else:
                x = num - self._slope(term) * term.den.cast(pl.Float64)
            sums |= {f"{term.name}|n": term.count, f"{term.name}|x": x, f"{term.name}|xx": x * x}
            maxima[f"{term.name}|max"] = term.num.cast(pl.Float64)
            if term.den is not None:
                d = term.den.cast(pl.Float64) - self._shift[den_sum(term)]
                sums |= {f"{term.name}|d": d, f"{term.name}|dd": d * d, f"{term.name}|xd": x * d}
            if term.covariates:
                sums |= joint_rows.sums(term, x, None if term.den is None else d, self._shifts(term))
        arm = {"arm": pl.col("@arm_code")}
        self._quantiles = [t for t in terms if t.quantile is not None]
        quantiles = histograms.packed(self._quantiles, pl.col("@arm_code"), KEPT, self._logs)
        return [Table("arms", arm, where=KEPT, sums=sums, maxima=maxima), *quantiles]

    def again(self, reduced: Mapping[str, pl.DataFrame]) -> list[Table]:
        missed = histograms.missed(self._quantiles, reduced, lambda group: group)
        return histograms.packed(missed, pl.col("@arm_code"), KEPT, self._logs, whole=True)

    def load(self, tables: Mapping[str, pl.DataFrame]) -> Mapping[str, int]:
        self._tables = tables
        self._by_arm = {row["arm"]: row for row in tables["arms"].iter_rows(named=True)}
        return {}

    def counts(self) -> list[int]:
        return [int(self._by_arm[a]["n"]) if a in self._by_arm else 0 for a in range(self._arms)]

    def mixed(self) -> tuple[int, int]:
        return 0, sum(self.counts())

    def effect(self, term: Term, arm: int, alpha: float) -> Estimate:
        if term.quantile is not None:
            control, treatment = self._histogram(term, 0), self._histogram(term, arm)
            return quantile_effect(control, treatment, term.quantile, alpha=alpha, independent_rows=True)
        if term.covariates:
            return self._cuped(term, arm, alpha)
        return difference_in_means(self.moments(term, 0), self.moments(term, arm), alpha=alpha)

    def moments(self, term: Term, arm: int) -> Moments:
        """One arm's moments over rows that have a value."""
        row = self._by_arm.get(arm)
        n = int(row[f"{term.name}|n"]) if row else 0
        if row is None or n == 0:
            raise EstimationError("an arm has no value of it")
        x, xx = row[f"{term.name}|x"], row[f"{term.name}|xx"]
        if term.den is None:
            return Moments.from_sums(n, self._shift[num_sum(term)], x, xx)
        parts = (row[f"{term.name}|{part}"] for part in ("d", "dd", "xd"))
        rest = Moments.from_sums(n, 0.0, x, xx, self._shift[den_sum(term)], *parts)
        return _with_slope(rest, self._slope(term))

    def _cuped(self, term: Term, arm: int, alpha: float) -> Estimate:
        for code in (0, arm):
            self.moments(term, code)  # says so where an arm has no value
        pair = self._by_arm[0], self._by_arm[arm]
        if term.den is None:
            outcome = joint_rows.Outcome(self._shift[num_sum(term)])
        else:
            outcome = joint_rows.Outcome(0.0, self._shift[den_sum(term)], self._slope(term))
        control, treatment, lacking = joint_rows.moments(term, pair, outcome, self._shifts(term))
        found = cuped(control, treatment, alpha=alpha)
        return replace(found, diagnostics={**found.diagnostics, "units_without": lacking})

    def _shifts(self, term: Term) -> list[float]:
        """Pilot means of the covariates."""
        return [self._shift[num_sum(c)] for c in term.covariates]

    def _slope(self, term: Term) -> float:
        """The pilot's ratio."""
        den = self._shift[den_sum(term)]
        return self._shift[num_sum(term)] / den if den else 0.0

    def without_most_influential(self, term: Term, arm: int, alpha: float) -> Estimate | None:
        """Without the largest value of either arm, whichever moves a plain mean more; not adjusted.

        The sums do not tell which covariate the largest value goes with.
        """
        if term.quantile is not None or term.den is not None:
            return None
        candidates = []
        for code in (0, arm):
            moments = {0: self.moments(term, 0), arm: self.moments(term, arm)}
            if moments[code].n < 3:
                continue
            moments[code] = _without(moments[code], self._by_arm[code][f"{term.name}|max"])
            candidates.append(difference_in_means(moments[0], moments[arm], alpha=alpha))
        if not candidates:
            return None
        whole = self.effect(replace(term, covariates=()), arm, alpha).estimate
        return max(candidates, key=lambda e: abs(e.estimate - whole))

    def top_share(self, term: Term) -> float | None:
        return None

    def arm_total(self, term: Term, arm: int) -> tuple[float, float]:
        m = self.moments(term, arm)
        return m.n * m.mean_num, m.n * m.mean_den

    def level_keys(self) -> Mapping[str, pl.Expr]:
        return {"arm": pl.col("@arm_code")}

    def level_shares(self, frame: pl.DataFrame, arm: int) -> tuple[np.ndarray, np.ndarray]:
        levels = frame["level"].unique().sort()
        rows = frame.filter(pl.col("arm") == arm)
        counts = np.zeros((len(levels), 1))
        counts[levels.search_sorted(rows["level"]).to_numpy(), 0] = rows["n"].to_numpy()
        return counts, counts.sum(axis=0)

    def _histogram(self, term: Term, arm: int) -> Histogram:
        frame = histograms.read(self._tables, term)
        return histograms.dense(frame, np.where(frame["group"].to_numpy() == arm, 0, -1), 1)


def _with_slope(m: Moments, slope: float) -> Moments:
    """Moments of ``num`` and ``den`` from those of ``num - slope * den`` and ``den``."""
    left = m.mean_num / m.mean_den if m.mean_den > 0.0 else 0.0
    return Moments(
        n=m.n,
        mean_num=m.mean_num + slope * m.mean_den,
        mean_den=m.mean_den,
        var_num=m.var_num + 2.0 * slope * m.cov + slope**2 * m.var_den,
        var_den=m.var_den,
        cov=m.cov + slope * m.var_den,
        var_residual=max(0.0, m.var_num - 2.0 * left * m.cov + left**2 * m.var_den),
    )


def _without(m: Moments, value: float) -> Moments:
    """Moments after one value is taken away (Chan's update, backwards)."""
    n = m.n - 1
    mean = m.mean_num + (m.mean_num - value) / n
    square = m.var_num * n - (value - m.mean_num) * (value - mean)
    var = max(square, 0.0) / (n - 1)
    return Moments(n, mean, 1.0, var, 0.0, 0.0, var)
