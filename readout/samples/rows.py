"""Rows as the independent observations: a request-level experiment, or a log with one row a unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from estimators import cuped, difference_in_means
from estimators.estimate import Estimate
from estimators.inference import EstimationError
from estimators.moments import Moments
from estimators.quantiles import Histogram, quantile_effect
from estimators.tail_index import Tail
from readout.errors import SpecError
from readout.logs import Logs
from readout.reduce import Table, pilot_means
from readout.samples import grouped_rows, histograms, joint_rows, labels, tails
from readout.samples.base import KEPT, den_sum, num_sum
from readout.samples.units import Units
from readout.spec.metrics import Metric
from readout.spec.model import Spec
from readout.spec.problems import KeyPath
from readout.terms import SEGMENT, Term

# Clusters are joined into this many independent groups for quantiles.
GROUPS = 256
# Single rows are held in memory up to so many: a few hundred bytes each at the peak.
MOST_ROWS = 5_000_000


class RowArms:
    """Centred moments by arm: squares are of values minus a pilot mean, so that they do not cancel.

    A ratio's numerator is centred on the pilot ratio times its denominator, so that the residual's variance does not
    come from the difference of two large ones.

    Robust means and regression adjustment need every row by itself: those metrics are held as units of one row.
    """

    def __init__(self, spec: Spec, logs: Logs, seed: int = 0) -> None:
        self._units = Units(spec, logs, "row", seed)
        self.method = spec.estimator.method
        self.unit = "request" if spec.design.kind == "request_rct" else "row"
        self._arms = 1 + len(spec.design.treatment)
        self._spec, self._logs = spec, logs
        self.rows = KEPT
        self._variance = labels.clustered_by(spec)
        by_cluster = self._variance is not None
        self._facts = (
            [labels.cluster_of_units(logs, self.unit)] if by_cluster else labels.strata_and_pairs(spec, logs, self.unit)
        )
        # Quantiles see the clusters in groups; without clusters each row is on its own.
        cluster = pl.col("@cluster").hash(0) % GROUPS if by_cluster else pl.lit(0)
        self._groups = GROUPS if by_cluster else 1
        self._group = pl.col("@arm_code").cast(pl.Int64) * self._groups + cluster.cast(pl.Int64)

    def tables(self, terms: Sequence[Term]) -> list[Table]:
        held = [t for t in terms if self._by_row(t)]
        self._require_room(held)
        # What is held by row is summed too: totals, shares and the row counts are read from sums.
        plain = [t for t in terms if t.quantile is None]
        wanted = {num_sum(t): t.num for t in plain} | {den_sum(t): t.den for t in plain if t.den is not None}
        self._shift = pilot_means(self._logs.frame, wanted, self._logs.source.rows)
        sums: dict[str, pl.Expr] = {}
        minima: dict[str, pl.Expr] = {}
        maxima: dict[str, pl.Expr] = {}
        self._watches = tails.watches(self._logs, {t.name: self._centred(t) for t in plain if self._decides(t)})
        for term in plain:
            x = self._centred(term)
            sums |= {f"{term.name}|n": term.count, f"{term.name}|x": x, f"{term.name}|xx": x * x}
            # Levels of segments are not read without their farthest value; clusters ask for it of whatever they hold.
            if self._facts or not term.name.startswith(SEGMENT):
                minima[f"{term.name}|min"] = maxima[f"{term.name}|max"] = term.num.cast(pl.Float64)
            if term.den is not None:
                d = term.den.cast(pl.Float64) - self._shift[den_sum(term)]
                sums |= {f"{term.name}|d": d, f"{term.name}|dd": d * d, f"{term.name}|xd": x * d}
            if watch := self._watches.get(term.name):
                sums |= watch.sums(term.name, x)
                maxima |= watch.maxima(term.name, x)
            if term.covariates and not self._by_row(term):
                sums |= joint_rows.sums(term, x, None if term.den is None else d, self._shifts(term))
        keys = {"arm": pl.col("@arm_code")} | {labels.low(i): fact.value for i, fact in enumerate(self._facts)}
        self._quantiles = [t for t in terms if t.quantile is not None]
        quantiles = histograms.packed(self._quantiles, self._group, KEPT, self._logs)
        arms = Table("arms", keys, where=KEPT, sums=sums, minima=minima, maxima=maxima)
        single = self._units.tables([*held, *(c for t in held for c in t.covariates)]) if held else []
        return [arms, *single, *quantiles]

    def again(self, reduced: Mapping[str, pl.DataFrame]) -> list[Table]:
        missed = histograms.missed(self._quantiles, reduced, lambda group: group // self._groups)
        return histograms.packed(missed, self._group, KEPT, self._logs, whole=True)

    def load(self, tables: Mapping[str, pl.DataFrame]) -> Mapping[str, int]:
        self._tables = tables
        self._frame = frame = tables["arms"]
        if self._facts:
            labels.require_known(self._spec, frame, self._facts)
            self._code, self._names = labels.codes(frame, len(self._facts))
            frame = grouped_rows.by_arm(frame, len(self._facts))
        self._by_arm = {row["arm"]: row for row in frame.iter_rows(named=True)}
        if "units" in tables:
            self._units.load(tables)
        return {}

    def counts(self) -> list[int]:
        return [int(self._by_arm[a]["n"]) if a in self._by_arm else 0 for a in range(self._arms)]

    def mixed(self) -> tuple[int, int]:
        return 0, sum(self.counts())

    def effect(self, term: Term, arm: int, alpha: float) -> Estimate:
        if term.quantile is not None:
            control, treatment = self._histogram(term, 0), self._histogram(term, arm)
            independent = self._variance is None
            return quantile_effect(control, treatment, term.quantile, alpha=alpha, independent_rows=independent)
        if self._by_row(term):
            return self._units.effect(term, arm, alpha)
        if term.covariates:
            return self._cuped(term, arm, alpha)
        if self._facts:
            return self._in_groups(term, arm).effect(alpha)
        return difference_in_means(self.moments(term, 0), self.moments(term, arm), alpha=alpha)

    def moments(self, term: Term, arm: int) -> Moments:
        """One arm's moments over rows that have a value."""
        return self._moments_of(self._by_arm.get(arm), term)

    def _moments_of(self, row: Mapping[str, Any] | None, term: Term) -> Moments:
        """Moments from one row of sums."""
        n = int(row[f"{term.name}|n"]) if row else 0
        if row is None or n == 0:
            raise EstimationError("an arm has no value of it")
        x, xx = row[f"{term.name}|x"], row[f"{term.name}|xx"]
        if term.den is None:
            return Moments.from_sums(n, self._shift[num_sum(term)], x, xx)
        parts = (row[f"{term.name}|{part}"] for part in ("d", "dd", "xd"))
        rest = Moments.from_sums(n, 0.0, x, xx, self._shift[den_sum(term)], *parts)
        return _with_slope(rest, self._slope(term))

    @property
    def drawn(self) -> str:
        """Within what the arms were drawn, in words; empty where nothing."""
        return labels.within(self._facts)

    def notes(self, metric: Metric) -> list[str]:
        """What a reader of the metric's interval should know of its strata or clusters."""
        n_clusters = len(self._names) if self._variance is not None else None
        return labels.notes(metric, self._facts, self._variance, n_clusters)

    def _in_groups(self, term: Term, arm: int) -> grouped_rows.Grouped:
        """The moments of control and of an arm by stratum or cluster."""
        for code in (0, arm):
            self.moments(term, code)  # says so where an arm has no value
        rows = [
            grouped_rows.Group(int(row["arm"] == arm), int(code), self._moments_of(row, term), _ends(row, term))
            for row, code in zip(self._frame.iter_rows(named=True), self._code, strict=True)
            if row["arm"] in (0, arm) and row[f"{term.name}|n"]
        ]
        return grouped_rows.Grouped(rows, self._names, self._variance)

    @property
    def grouped(self) -> bool:
        """Whether rows of one cluster are alike, so that levels share independent observations."""
        return self._variance is not None

    def contributions(self, term: Term, arm: int) -> np.ndarray:
        """What each cluster adds to the effect of an arm; of rows that stand apart there is no table."""
        if self._by_row(term):
            return self._units.contributions(term, arm)
        cells = self._in_groups(term, arm).cells()
        found = np.zeros(len(self._names))
        for code in (0, 1):
            mine = cells.arm == code
            below = float(cells.den[mine].sum())
            rest = cells.num[mine] - float(cells.num[mine].sum()) / below * cells.den[mine]
            np.add.at(found, cells.cluster[mine], (1.0 if code else -1.0) * rest / below)
        return found

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
        """Without the value of either arm that is farthest from its mean, whichever moves a plain mean more; not
        adjusted.

        The sums do not tell which covariate that value goes with.
        """
        if self._by_row(term):
            return self._units.without_most_influential(term, arm, alpha)
        if term.quantile is not None or term.den is not None:
            return None
        if self._facts:
            return self._in_groups(term, arm).without_farthest(alpha)
        candidates = []
        for code in (0, arm):
            moments = {0: self.moments(term, 0), arm: self.moments(term, arm)}
            if moments[code].n < 3:
                continue
            far = grouped_rows.farthest(moments[code], _ends(self._by_arm[code], term))
            moments[code] = grouped_rows.without(moments[code], far)
            candidates.append(difference_in_means(moments[0], moments[arm], alpha=alpha))
        if not candidates:
            return None
        whole = self.effect(replace(term, covariates=()), arm, alpha).estimate
        return max(candidates, key=lambda e: abs(e.estimate - whole))

    def top_share(self, term: Term) -> float | None:
        return self._units.top_share(term) if self._by_row(term) else None

    def tail(self, term: Term) -> Tail | None:
        if self._by_row(term):
            return self._units.tail(term)
        watch = self._watches.get(term.name)
        return None if watch is None else watch.read(term.name, list(self._by_arm.values()))

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

    def _by_row(self, term: Term) -> bool:
        """Whether a metric needs every row by itself."""
        return term.robust is not None or (bool(term.covariates) and self.method == "regression_adjusted")

    def _decides(self, term: Term) -> bool:
        """Whether the tail of a metric is looked at: a primary's or guardrail's mean."""
        metric = self._spec.metrics.get(term.name)
        return metric is not None and metric.role in ("primary", "guardrail") and not self._by_row(term)

    def _centred(self, term: Term) -> pl.Expr:
        """A row's value less the pilot's mean; of a ratio, less the pilot's ratio times the denominator."""
        num = term.num.cast(pl.Float64)
        if term.den is None:
            return num - self._shift[num_sum(term)]
        return num - self._slope(term) * term.den.cast(pl.Float64)

    def _require_room(self, terms: Sequence[Term]) -> None:
        """Refuse to hold more single rows than memory is meant for.

        Raises:
            SpecError: All such metrics.
        """
        rows = self._logs.source.rows
        if rows <= MOST_ROWS:
            return
        problems = []
        for term in terms:
            of_method = term.robust is None
            at: KeyPath = ("estimator", "method") if of_method else ("metrics", term.name, "robust")
            what = f"{self.method} of {term.name!r}" if of_method else "a robust mean"
            message = f"{what} holds every row by itself, up to {MOST_ROWS:,}; the log has {rows:,}"
            hint = "map the role unit with `per: unit`, take difference_in_means or a quantile, or name fewer files"
            problems.append(self._spec.source.problem(at, message, hint))
        if problems:
            raise SpecError(problems)

    def _histogram(self, term: Term, arm: int) -> Histogram:
        frame = histograms.read(self._tables, term)
        code, group = np.divmod(frame["group"].to_numpy(), self._groups)
        return histograms.dense(frame, np.where(code == arm, group, -1), self._groups)


def _ends(row: Mapping[str, Any], term: Term) -> tuple[float, float]:
    """The smallest and the largest value."""
    return row[f"{term.name}|min"], row[f"{term.name}|max"]


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
