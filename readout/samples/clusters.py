"""Clusters that keep one arm: the sample of a cluster-randomized experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import polars as pl

from estimators import cluster_means, cluster_robust, randomization_inference
from estimators.cluster_means import Clusters as Sums
from estimators.cluster_means import design_effect, intraclass_correlation
from estimators.estimate import Estimate
from estimators.inference import EstimationError
from estimators.leave_one_out import share_of_top
from estimators.leave_one_out_clusters import leave_one_out_clusters
from estimators.quantiles import Histogram, quantile_effect
from estimators.tail_index import Tail
from readout.errors import LogError
from readout.logs import Logs
from readout.reduce import Table, pilot_means
from readout.samples import before, capped, histograms, labels
from readout.samples.base import KEPT, den_sum, num_sum, placed, row_count, term_sums
from readout.spec.designs import ClusterRCT
from readout.spec.metrics import Metric
from readout.spec.model import Spec
from readout.terms import Term

# A cluster belongs to the arm that at least this share of its rows carry.
ITS_ARM = 0.99
IN_TWO_ARMS = "cluster seen in two arms"
OFF_ARM = "arm differs from its cluster's"
OWN_UNIT = "cluster units of {}"
KEYS = ("cluster", "arm")
# Clusters are joined into this many independent groups for quantiles, where there are more.
GROUPS = 2048
# The top 1 % of fewer clusters is not one of them.
ENOUGH_FOR_TOP = 100
# Below so many clusters an interval by Student's t leans on the shape of their outcomes.
FEW = 20
# Clusters that count as less than this part of their number, and as fewer than these, are too unlike to weigh by rows.
UNEQUAL, ENOUGH = 0.7, 50


class Clusters:
    """Sums by cluster and arm.

    A cluster belongs to the arm that at least 99 % of its rows carry; the stray rows are left out and counted. One
    that is more mixed than that was half treated and says nothing of either arm: it is left out whole, as a unit seen
    in two arms is, for choosing the arm with more rows would choose by an outcome. Both kinds count as contaminated.
    """

    unit = "cluster"

    def __init__(self, spec: Spec, logs: Logs, seed: int = 0) -> None:
        assert isinstance(spec.design, ClusterRCT)
        self._spec, self._logs, self._seed = spec, logs, seed
        self._arms = 1 + len(spec.design.treatment)
        self.method = spec.estimator.method
        self._options: dict[str, Any] = dict(spec.estimator.options)
        self.weights = str(self._options.get("weights", "rows"))
        self._cluster = pl.col("@cluster").cast(pl.String)
        self.rows = KEPT
        self._facts = labels.strata_and_pairs(spec, logs, "cluster")
        capped.require(spec, "cluster")

    @property
    def drawn(self) -> str:
        """Within what the arms were drawn, in words; empty where nothing."""
        return labels.within(self._facts)

    def tables(self, terms: Sequence[Term]) -> list[Table]:
        sums: dict[str, pl.Expr] = {}
        tables = []
        earlier = [term for term in terms if term.before]
        terms = [term for term in terms if not term.before]
        for term in terms:
            if term.quantile is None:
                sums |= term_sums(term)
            if term.per_unit:
                keys = {**self._keys(), "unit": pl.col("@unit").hash(0)}
                tables.append(Table(OWN_UNIT.format(term.name), keys, KEPT & term.num.is_not_null()))
        # The spread of rows about their cluster's mean, for the intraclass correlation of primaries.
        correlated = [t for t in terms if self._is_primary(t) and t.quantile is None and t.den is None]
        correlated = [t for t in correlated if not t.per_unit]
        shift = pilot_means(self._logs.frame, {t.name: t.num for t in correlated}, self._logs.source.rows)
        for term in correlated:
            x = term.num.cast(pl.Float64) - shift[term.name]
            sums |= {f"{term.name}|x": x, f"{term.name}|xx": x * x}
        clusters = labels.with_facts(Table("clusters", self._keys(), KEPT, sums=sums), self._facts)
        quantiles = histograms.tables([t for t in terms if t.quantile is not None], self._keys(), KEPT)
        period = [*before.tables(self._logs, self._cluster, earlier), *before.unit_tables(self._cluster, earlier)]
        return [clusters, *period, *tables, *quantiles]

    def again(self, reduced: Mapping[str, pl.DataFrame]) -> list[Table]:
        return []

    def load(self, tables: Mapping[str, pl.DataFrame]) -> Mapping[str, int]:
        self._tables = tables
        frame = tables["clusters"]
        labels.require_constant(self._spec, frame, self._facts, "cluster", named=True)
        whole = frame.group_by("cluster").agg(
            pl.col("arm").sort_by("n", "arm", descending=[True, False]).first(),
            pl.col("n").max().alias("most"),
            pl.col("n").sum().alias("all"),
            pl.len().alias("n_arms"),
        )
        self._n_clusters, self._mixed = len(whole), int((whole["n_arms"] > 1).sum())
        own = pl.col("most") >= ITS_ARM * pl.col("all")
        kept, torn = whole.filter(own), whole.filter(~own)
        self._frame = frame.join(kept.select("cluster", "arm"), on=["cluster", "arm"], how="semi").sort("cluster")
        self._frame = before.joined(self._frame, self._frame["cluster"], tables)
        self._arm = self._frame["arm"].to_numpy()
        if len(whole) and not len(kept):
            self._refuse_all_torn(len(whole))
        left = {IN_TWO_ARMS: int(torn["all"].sum()), OFF_ARM: int((kept["all"] - kept["most"]).sum())}
        return {reason: rows for reason, rows in left.items() if rows}

    def counts(self) -> list[int]:
        return [int(n) for n in np.bincount(self._arm, minlength=self._arms)]

    def mixed(self) -> tuple[int, int]:
        return self._mixed, self._n_clusters

    def effect(self, term: Term, arm: int, alpha: float) -> Estimate:
        if term.quantile is not None:
            control, treatment = (self._histogram(term, code) for code in (0, arm))
            return quantile_effect(control, treatment, term.quantile, alpha=alpha)
        if term.robust is None:
            estimate = self._estimate(self.sums(term, arm), alpha)
        else:
            estimate = self._winsorized(term, arm, alpha)
        return replace(estimate, diagnostics={**estimate.diagnostics, **self._diagnostics(term, arm, estimate)})

    def effect_of(self, sums: pl.DataFrame, arm: int, alpha: float) -> Estimate:
        """The effect of an arm on sums that were not asked for by a term.

        Args:
            sums: A row for each cluster, by :meth:`level_keys`, with ``num``, ``den`` and the ``rows`` behind them;
                clusters that are absent or have no rows are left out.
            arm, alpha: As in :meth:`effect`.

        Raises:
            EstimationError: The clusters cannot carry it.
        """
        return self._estimate(self._as_sums(*placed(self._frame, sums, KEYS), arm, own_rows=True), alpha)

    def belonging(self, table: pl.DataFrame) -> pl.DataFrame:
        """The rows of a table by :meth:`level_keys` that belong to the sample; ``unit`` is the randomized one."""
        units = self._frame.select(*KEYS, pl.col("cluster").rank("dense").alias("unit"))
        return table.join(units, on=KEYS, how="inner", maintain_order="left")

    def sums(self, term: Term, arm: int) -> Sums:
        """The clusters of control and one arm that have a value, capped where the metric asks for it."""
        num, den = self._sums(term) if term.robust is None else self._capped(term).sums
        return self._as_sums(num, den, self._rows(term), arm, own_rows=term.den is not None)

    def placed_sums(self, term: Term, arm: int) -> tuple[Sums, np.ndarray, int]:
        """As :meth:`sums`, with each cluster's place (its pair's, where there are pairs) and their number."""
        keep = np.isin(self._arm, (0, arm)) & (self._rows(term) > 0)
        pairs = self._codes(self._frame)[1]
        places = np.arange(len(keep)) if pairs is None else np.unique(pairs, return_inverse=True)[1]
        return self.sums(term, arm), places[keep], int(places.max()) + 1

    def _as_sums(self, num: np.ndarray, den: np.ndarray, rows: np.ndarray, arm: int, own_rows: bool = False) -> Sums:
        """Those of control and one arm that have rows; ``own_rows``: the denominator is not their number."""
        keep = np.isin(self._arm, (0, arm)) & (rows > 0)
        if not keep.any():
            raise EstimationError("no cluster has a value of it")
        frame = self._frame.filter(pl.Series(keep))
        strata, pairs = self._codes(frame)
        return Sums(
            num=num[keep],
            den=den[keep],
            arm=(self._arm[keep] == arm).astype(int),
            strata=strata,
            pairs=pairs,
            labels=tuple(frame["cluster"].to_list()),
            rows=rows[keep] if own_rows else None,
        )

    def notes(self, metric: Metric) -> list[str]:
        """What a reader of the metric's interval should know of its method."""
        if metric.quantile is not None:
            apart = "; strata and pairs do not narrow it" if self._facts else ""
            return [f"its interval takes clusters as the independent groups, whatever the method{apart}"]
        return self._warnings() if metric.role == "primary" else []

    def without_most_influential(self, term: Term, arm: int, alpha: float) -> Estimate | None:
        if term.quantile is not None:
            return None
        again = partial(self._estimate, alpha=alpha)
        least_squares = self.method != "cluster_means"
        return leave_one_out_clusters(self.sums(term, arm), again, weights=self.weights, least_squares=least_squares)

    def top_share(self, term: Term) -> float | None:
        num, _ = self._sums(term)
        return share_of_top(num) if len(num) >= ENOUGH_FOR_TOP else None

    def tail(self, term: Term) -> Tail | None:
        return None

    def arm_total(self, term: Term, arm: int) -> tuple[float, float]:
        num, den = self._sums(term)
        mine = self._arm == arm
        return float(num[mine].sum()), float(den[mine].sum())

    def arrays(self, term: Term, arm: int) -> tuple[np.ndarray, np.ndarray]:
        """Numerators and denominators of an arm's clusters that have a value."""
        num, den = self._sums(term)
        keep = (self._arm == arm) & (self._frame[row_count(term)].to_numpy() > 0)
        if not keep.any():
            raise EstimationError("an arm has no value of it")
        return num[keep], den[keep]

    def level_keys(self) -> Mapping[str, pl.Expr]:
        return self._keys()

    def level_shares(self, frame: pl.DataFrame, arm: int) -> tuple[np.ndarray, np.ndarray]:
        levels = frame["level"].unique().sort()
        rows, place = self._placed(frame, arm)
        counts = np.zeros((len(levels), int((self._arm == arm).sum())))
        np.add.at(counts, (levels.search_sorted(rows["level"]).to_numpy(), place), rows["n"].to_numpy())
        total = counts.sum(axis=0)
        # Shares within a cluster count once: how many rows it sends is an outcome, and may differ by arm.
        return counts[:, total > 0] / total[total > 0], np.ones(int((total > 0).sum()))

    def _estimate(self, clusters: Sums, alpha: float) -> Estimate:
        if self.method == "cluster_means":
            return cluster_means(clusters, alpha=alpha, weights=self.weights)
        if self.method == "cluster_robust":
            variance = str(self._options["variance"])
            return cluster_robust(clusters, alpha=alpha, variance=variance, weights=self.weights, seed=self._seed)
        draws = int(self._options["draws"])
        return randomization_inference(clusters, alpha=alpha, weights=self.weights, draws=draws, seed=self._seed)

    def _diagnostics(self, term: Term, arm: int, estimate: Estimate) -> dict[str, Any]:
        """Clusters by arm; of a primary that is a mean of rows, how alike a cluster's rows are and what that costs."""
        found: dict[str, Any] = {"clusters_control": estimate.n_control, "clusters_treatment": estimate.n_treatment}
        if f"{term.name}|xx" not in self._frame.columns:
            return found
        clusters = self.sums(replace(term, robust=None), arm)
        x, xx = (
            self._frame.filter(pl.col("cluster").is_in(clusters.labels))[f"{term.name}|{part}"].to_numpy()
            for part in ("x", "xx")
        )
        try:
            icc = intraclass_correlation(clusters, np.maximum(xx - x * x / clusters.den, 0.0))
        except EstimationError:
            return found
        return found | {"intraclass_correlation": icc, "design_effect": design_effect(clusters.den, icc)}

    def _warnings(self) -> list[str]:
        n, notes = sum(self.counts()), []
        variance = self._options.get("variance")
        if self.method == "randomization_inference":
            notes.append(
                "p-value and interval are exact for an effect that is the same everywhere, and approximate where "
                "clusters differ in it"
            )
        elif variance == "CR1" and n < labels.FEW_FOR_CR1:
            notes.append(
                f"CR1 errors are too small with so few clusters ({n}, fewer than {labels.FEW_FOR_CR1}): variance CR2 "
                "or wild, or randomization_inference, holds"
            )
        elif n < FEW:
            notes.append(
                f"it rests on {n} clusters, fewer than {FEW}: the interval holds as far as their outcomes are near "
                "normal; randomization_inference does not need that"
            )
        elif variance != "CR3" and self.weights == "rows" and (alike := self._alike()) < min(UNEQUAL * n, ENOUGH):
            notes.append(
                f"clusters weigh their rows, and these {n} of unlike size count as about {alike:.0f} alike ones: the "
                "interval is a little too narrow; cluster_robust with CR3 or randomization_inference does better"
            )
        return notes

    def _alike(self) -> float:
        """How many clusters of one size would weigh as evenly (Kish 1965), the arms together."""
        sizes = self._frame["n"].to_numpy().astype(float)
        arms = (sizes[self._arm == code] for code in np.unique(self._arm))
        return float(sum(mine.sum() ** 2 / (mine**2).sum() for mine in arms))

    def _rows(self, term: Term) -> np.ndarray:
        return self._frame[row_count(term)].to_numpy().astype(float)

    def _capped(self, term: Term) -> capped.Capped:
        return capped.capped(term, *self._sums(term), self._rows(term) > 0)

    def _winsorized(self, term: Term, arm: int, alpha: float) -> Estimate:
        rows = self._rows(term)

        def by(num: np.ndarray, den: np.ndarray) -> Estimate:
            return self._estimate(self._as_sums(num, den, rows, arm, own_rows=term.den is not None), alpha)

        return self._capped(term).estimated(by, (rows > 0) & (self._arm == 0), (rows > 0) & (self._arm == arm))

    def _sums(self, term: Term) -> tuple[np.ndarray, np.ndarray]:
        num = self._frame[num_sum(term)].to_numpy().astype(float)
        if not term.per_unit:
            return num, self._frame[den_sum(term)].to_numpy().astype(float)
        if term.before:
            return num, before.units(self._frame["cluster"], term, self._tables)
        keys = ["cluster", "arm"]
        units = self._tables[OWN_UNIT.format(term.name)].group_by(keys).agg(pl.len().alias("units"))
        joined = self._frame.select(keys).join(units, on=keys, how="left", maintain_order="left")
        return num, joined["units"].fill_null(0).to_numpy().astype(float)

    def _codes(self, frame: pl.DataFrame) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Stratum and pair of each cluster; a stratum of several columns goes by all their labels."""
        paired = bool(self._facts) and self._facts[-1].what == "pair"
        n_strata = len(self._facts) - paired
        pairs = np.array(frame[labels.low(n_strata)].to_list()) if paired else None
        if not n_strata:
            return None, pairs
        code, names = labels.codes(frame, n_strata)
        return np.array(names)[code], pairs

    def _histogram(self, term: Term, arm: int) -> Histogram:
        frame = histograms.read(self._tables, term)
        groups = min(int((self._arm == arm).sum()), GROUPS)
        mine, place = self._placed(frame, arm)
        if not len(mine):
            raise EstimationError("an arm has no value of it")
        return histograms.dense(mine, place % groups, groups)

    def _placed(self, frame: pl.DataFrame, arm: int) -> tuple[pl.DataFrame, np.ndarray]:
        """The rows of a table that belong to an arm's clusters, and the position of each row's cluster among them."""
        mine = self._frame.filter(pl.col("arm") == arm).with_row_index("place").select("cluster", "arm", "place")
        rows = frame.join(mine, on=["cluster", "arm"], how="inner", maintain_order="left")
        return rows, rows["place"].cast(pl.Int64).to_numpy()

    def _keys(self) -> dict[str, pl.Expr]:
        return {"cluster": self._cluster, "arm": pl.col("@arm_code")}

    def _is_primary(self, term: Term) -> bool:
        metric = self._spec.metrics.get(term.name)
        return metric is not None and metric.role == "primary"

    def _refuse_all_torn(self, n: int) -> None:
        """Logs in which each cluster carries both arms are of another design.

        Raises:
            LogError: Always.
        """
        which = "the one cluster carries" if n == 1 else f"each of the {n:,} clusters carries"
        message = f"{which} rows of several arms, so clusters are not what was randomized"
        hint = "user_rct where units keep an arm, switchback where clusters change it over time; or another window"
        raise LogError([self._spec.source.problem(("design", "kind"), message, hint)])
