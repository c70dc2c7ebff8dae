"""Units that keep one arm: the sample of a user-level experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from estimators import difference_in_means
from estimators.estimate import Estimate
from estimators.inference import EstimationError
from estimators.leave_one_out import leave_one_out_means, share_of_top
from estimators.moments import Moments
from estimators.quantiles import Histogram, quantile_effect
from estimators.segments import arm_parts, without_covariates
from estimators.tail_index import Tail
from estimators.winsorized import Caps, Vector
from readout.logs import Logs
from readout.reduce import Table
from readout.samples import adjusted, before, by_level, grouped, histograms, labels, robust, tails
from readout.samples.base import KEPT, den_sum, num_sum, row_count, term_sums
from readout.spec.metrics import Metric
from readout.spec.model import Spec
from readout.terms import COVARIATE, LEVEL, Term

# Units are spread over this many groups for quantiles and labels: enough for their variance, few enough for memory.
GROUPS = 256
SUMS = (num_sum, den_sum)
# A regression takes a column for each stratum.
MOST_STRATA = 100
# More arms than an experiment has.
ARMS = 64
IN_TWO_ARMS = "{} seen in two arms"
NO_REQUEST = "no request id"
ELIGIBLE = "eligible"


class Units:
    """Sums by unit and arm; a unit seen in two arms is left out and counted.

    ``role`` is what was randomized: the unit, or the request where its id stands on several rows; ``row`` where every
    row is a unit of its own.
    """

    def __init__(self, spec: Spec, logs: Logs, role: str = "unit", seed: int = 0) -> None:
        self.unit = role
        self._seed = seed
        self._single = role == "row"
        self.method = spec.estimator.method
        self._spec, self._logs = spec, logs
        self._arms = 1 + len(spec.design.treatment)
        self._variance = labels.clustered_by(spec)
        by_cluster = self._variance is not None
        self._facts = [labels.cluster_of_units(logs, role)] if by_cluster else labels.strata_and_pairs(spec, logs, role)
        own = pl.int_range(pl.len(), dtype=pl.UInt64)
        self._key = own if self._single else pl.col(f"@{role}").hash(0)
        self._eligible = pl.col("@eligible").fill_null(False).cast(pl.Int8) if logs.has("eligible") else None
        # A row without the id belongs to no request; who has no unit is left out before.
        self._without_id = pl.col("@request").is_null() if role == "request" else None
        self.rows = KEPT if self._without_id is None else KEPT & ~self._without_id

    def tables(self, terms: Sequence[Term]) -> list[Table]:
        robust.require(self._spec, terms, single=self._single)
        sums: dict[str, pl.Expr] = {}
        self._quantiles = [t for t in terms if t.quantile is not None]
        # A row is a group of its own where units are rows: nothing is gained by a key.
        whole, self._by_level = (list(terms), []) if self._single else by_level.split(terms)
        for term in whole:
            if term.quantile is not None:
                sums[row_count(term)] = term.count
            elif not term.before:
                sums |= term_sums(term)
        if self._eligible is not None:
            sums[ELIGIBLE] = self._eligible
        # One key of hash and arm groups in two thirds of the time of two.
        keys = {"unit": self._key // ARMS * ARMS + pl.col("@arm_code").cast(pl.UInt64)}
        units = Table("units", keys, where=self.rows, sums=sums, single=self._single)
        units = labels.with_facts(units, self._facts) | self._facts_of_units(terms, units)
        levels = by_level.tables(keys["unit"], self.rows, self._by_level)
        tables = [
            units,
            *levels,
            *before.tables(self._logs, self._key // ARMS, terms),
            *self._histogram_tables(self._quantiles),
        ]
        if self._without_id is not None:
            counted = {} if self._eligible is None else {ELIGIBLE: self._eligible}
            tables.append(Table(NO_REQUEST, {}, where=KEPT & self._without_id, sums=counted))
        return tables

    def again(self, reduced: Mapping[str, pl.DataFrame]) -> list[Table]:
        missed = histograms.missed(self._quantiles, reduced, lambda group: group // GROUPS)
        return self._histogram_tables(missed, whole=True)

    def load(self, tables: Mapping[str, pl.DataFrame]) -> Mapping[str, int]:
        frame = tables["units"]
        if self._facts:
            owner = pl.int_range(pl.len()) if self._single else pl.col("unit") // ARMS
            whole = frame.with_columns(owner.alias(self.unit))
            labels.require_constant(self._spec, whole, self._facts, self.unit, named=False)
        unit, arm = np.divmod(frame["unit"].to_numpy(), ARMS)
        frame = frame.with_columns(arm=pl.Series(arm).cast(pl.Int8))
        same = np.zeros(max(len(unit) - 1, 0), dtype=bool) if self._single else unit[1:] == unit[:-1]
        twice = np.zeros(len(unit), dtype=bool)
        twice[1:] |= same
        twice[:-1] |= same
        self._all_units = len(unit) - int(same.sum())
        self._mixed = self._all_units - int((~twice).sum())
        self._tables = tables
        self._frame = frame.filter(pl.Series(~twice)) if twice.any() else frame
        self._frame = before.joined(self._frame, self._frame["unit"] // ARMS, tables)
        self._frame = by_level.joined(self._frame, self._by_level, tables)
        self._arm = self._frame["arm"].to_numpy()
        if self._facts:
            self._code, self._names = labels.codes(self._frame, len(self._facts))
        self._caps: dict[str, tuple[Caps, Caps | None]] = {}
        # Rows that are not eligible are counted as that already.
        rows = frame["n" if self._eligible is None else ELIGIBLE].to_numpy()
        left = {IN_TWO_ARMS.format(self.unit): int(rows[twice].sum())}
        if NO_REQUEST in tables:
            left[NO_REQUEST] = int(tables[NO_REQUEST]["n" if self._eligible is None else ELIGIBLE].sum())
        return {reason: n for reason, n in left.items() if n}

    def counts(self) -> list[int]:
        return [int(n) for n in np.bincount(self._arm, minlength=self._arms)]

    def mixed(self) -> tuple[int, int]:
        return self._mixed, self._all_units

    def effect(self, term: Term, arm: int, alpha: float) -> Estimate:
        if term.quantile is not None:
            control, treatment = self._histograms(term, arm)
            found = quantile_effect(control, treatment, term.quantile, alpha=alpha)
            n_control, n_treatment = (int(self._mask(term, code).sum()) for code in (0, arm))
            return replace(found, n_control=n_control, n_treatment=n_treatment)
        if term.robust is None:
            return self._effect(term, arm, alpha)
        raw = self.raw(term, 0), self.raw(term, arm)
        if robust.stands_alone(term):
            return robust.effect(term.robust, *raw, seed=self._seed, alpha=alpha)
        plain = self._effect(replace(term, robust=None), arm, alpha)
        return robust.noted(self._effect(term, arm, alpha), plain, *raw, self._caps_of(term))

    def _facts_of_units(self, terms: Sequence[Term], units: Table) -> Table:
        """Smallest and largest value of covariates that a unit's rows are to repeat."""
        facts = [t for t in terms if t.name.startswith(COVARIATE) and not t.before and not self._single]
        lows = {f"{t.name}|low": t.num for t in facts}
        return Table(
            units.name, units.keys, units.where, minima=lows, maxima={f"{t.name}|high": t.num for t in facts},
            single=self._single,
        )  # fmt: skip

    def _effect(self, term: Term, arm: int, alpha: float) -> Estimate:
        """The effect on values as they are compared: winsorized where the metric asks for it."""
        if term.covariates:
            return adjusted.effect(self.method, *self._with_covariates(term, arm), alpha=alpha)
        if self._variance is not None:
            return grouped.by_cluster(*self._in_groups(term, arm), self._variance, alpha=alpha)
        if self._facts:
            return grouped.in_strata(*self._in_groups(term, arm), self._names, alpha=alpha)
        return difference_in_means(self.moments(term, 0), self.moments(term, arm), alpha=alpha)

    def moments(self, term: Term, arm: int) -> Moments:
        """One arm's moments over units that have a value."""
        num, den = self.arrays(term, arm)
        return Moments.from_arrays(num, self._weight(term, den))

    @property
    def drawn(self) -> str:
        """Within what the arms were drawn, in words; empty where nothing."""
        return labels.within(self._facts)

    def notes(self, metric: Metric) -> list[str]:
        """What a reader of the metric's interval should know of its strata or clusters."""
        n_clusters = len(self._names) if self._variance is not None else None
        return labels.notes(metric, self._facts, self._variance, n_clusters)

    def varying(self, term: Term) -> tuple[int, int]:
        """Units within which a covariate's column takes several values, and units that have one."""
        if f"{term.name}|low" not in self._frame.columns:
            return 0, 0
        low, high = (self._frame[f"{term.name}|{end}"] for end in ("low", "high"))
        return int((low < high).sum()), int(low.is_not_null().sum())

    def without_most_influential(self, term: Term, arm: int, alpha: float) -> Estimate | None:
        control, treatment = ((num, self._weight(term, den)) for num, den in (self.arrays(term, a) for a in (0, arm)))
        if term.quantile is not None or min(len(control[0]), len(treatment[0])) < 3:
            return None
        if term.robust is not None and robust.stands_alone(term):
            return robust.without_one(term.robust, control, treatment, seed=self._seed, alpha=alpha)
        if term.covariates:
            return adjusted.without_one(self.method, *self._with_covariates(term, arm), alpha=alpha)
        if self._variance is not None:
            return grouped.by_cluster_without_one(*self._in_groups(term, arm), self._variance, alpha=alpha)
        if self._facts:
            return grouped.in_strata_without_one(*self._in_groups(term, arm), self._names, alpha=alpha)
        return leave_one_out_means(control, treatment, alpha=alpha)

    def top_share(self, term: Term) -> float | None:
        return share_of_top(np.concatenate([self._sums(term, a)[0] for a in range(self._arms)]))

    def tail(self, term: Term) -> Tail | None:
        if term.quantile is not None:
            return None
        return tails.of_units([self.raw(term, a) for a in range(self._arms)], self._seed)

    def arm_total(self, term: Term, arm: int) -> tuple[float, float]:
        num, den = self._sums(term, arm)
        return float(num.sum()), float(den.sum())

    def level_keys(self) -> Mapping[str, pl.Expr]:
        return {"arm": pl.col("@arm_code"), "group": (self._key % GROUPS).cast(pl.Int32)}

    def level_shares(self, frame: pl.DataFrame, arm: int) -> tuple[np.ndarray, np.ndarray]:
        levels = frame["level"].unique().sort()
        rows = frame.filter(pl.col("arm") == arm)
        counts = np.zeros((len(levels), GROUPS))
        np.add.at(
            counts, (levels.search_sorted(rows["level"]).to_numpy(), rows["group"].to_numpy()), rows["n"].to_numpy()
        )
        total = counts.sum(axis=0)
        return counts[:, total > 0], total[total > 0]

    def arrays(self, term: Term, arm: int) -> tuple[Vector, Vector]:
        """Numerator and denominator of an arm, an entry a unit that has a value; capped where they are compared so."""
        num, den = self._sums(term, arm)
        if not robust.winsorizes(term):
            return num, den
        num, cut = robust.capped((num, self._weight(term, den)), self._caps_of(term))
        return num, den if cut is None else cut

    def raw(self, term: Term, arm: int) -> robust.Arrays:
        """As :meth:`arrays`, never capped; no denominator where each unit has one value."""
        num, den = self._sums(term, arm)
        return num, self._weight(term, den)

    def contributions(self, term: Term, arm: int) -> Vector:
        """``(n,)`` what each unit (each cluster, where errors are by cluster) adds to the effect of an arm."""
        found = np.zeros(len(self._frame))
        strata = bool(self._facts) and self._variance is None and not term.covariates
        share = self._strata_shares(term, arm) if strata else None
        adjusted_for = self._with_covariates(term, arm)[:2] if term.covariates else (None, None)
        for code, side in zip((0, arm), adjusted_for, strict=True):
            keep = self._having(term, code)
            num, den = self.arrays(term, code)
            weight = self._weight(term, den)
            below = np.ones(len(num)) if weight is None else weight
            parts = arm_parts(num, below, self._code[keep] if strata else None, share)
            found[keep] = (1.0 if code else -1.0) * (parts if side is None else without_covariates(parts, side.x))
        if self._variance is None:
            return found
        return np.asarray(np.bincount(self._code, found, len(self._names)), dtype=np.float64)

    def _strata_shares(self, term: Term, arm: int) -> Vector:
        """Share of each stratum in the effect: of the units of both arms that have a value."""
        counts = np.zeros(len(self._names))
        for code in (0, arm):
            counts += np.bincount(self._code[self._having(term, code)], minlength=len(self._names))
        return np.asarray(counts / counts.sum(), dtype=np.float64)

    def _weight(self, term: Term, den: Vector) -> Vector | None:
        return None if term.per_unit or (self._single and term.den is None) else den

    def _sums(self, term: Term, arm: int) -> tuple[Vector, Vector]:
        keep = self._having(term, arm)
        num = self._frame[num_sum(term)].to_numpy()[keep].astype(float)
        den = self._frame[den_sum(term)].to_numpy()[keep].astype(float)
        return num, den

    def _caps_of(self, term: Term) -> tuple[Caps, Caps | None]:
        """Where a metric's values are cut, over the units of all arms that have a value."""
        assert term.robust is not None
        if term.name not in self._caps:
            seen = [a for a in range(self._arms) if self._mask(term, a).any()]
            self._caps[term.name] = robust.caps(term.robust, [self.raw(term, a) for a in seen])
        return self._caps[term.name]

    def _having(self, term: Term, arm: int) -> np.ndarray:
        """An arm's units that have a value, as a mask of the unit table."""
        keep = self._mask(term, arm)
        if not keep.any():
            raise EstimationError("an arm has no value of it")
        return keep

    def _mask(self, term: Term, arm: int) -> np.ndarray:
        # Known by its rows, not by its denominator: costs without a success count too.
        keep: np.ndarray = (self._arm == arm) & (self._frame[row_count(term)].to_numpy() > 0)
        return keep

    def _with_covariates(self, term: Term, arm: int) -> tuple[adjusted.Arm, adjusted.Arm, list[str]]:
        """Outcome and covariates of control's and of an arm's units, and the covariates' names."""
        # A level that no row is at needs no word.
        covariates = [
            c for c in term.covariates if not c.name.startswith(LEVEL) or self._frame[num_sum(c)].to_numpy().any()
        ]
        strata = self._names if self._facts else ()
        if len(strata) > MOST_STRATA:
            raise EstimationError(f"{len(strata):,} strata are more than regression_adjusted takes ({MOST_STRATA})")
        arms = []
        for code in (0, arm):
            num, den = self.arrays(term, code)
            keep = self._having(term, code)
            x = [value[keep] for c in covariates for value in self._covariate(c)]
            x += [(self._code[keep] == stratum).astype(float) for stratum in range(1, len(strata))]
            arms.append(adjusted.Arm(num, self._weight(term, den), np.column_stack(x)))
        if term.robust is not None and self.method == "cuped":
            # A wild covariate would have a capped outcome follow it, and adjust for nothing.
            cut = robust.capped_covariates(term.robust, [one.x for one in arms])
            arms = [replace(one, x=x) for one, x in zip(arms, cut, strict=True)]
        names = [name for c in covariates for name in (before.names(c) if c.before else [c.label])]
        return arms[0], arms[1], names + [f"stratum {name}" for name in strata[1:]]

    def _covariate(self, term: Term) -> list[np.ndarray]:
        """Values of a covariate by unit, NaN where it has none."""
        if term.before:
            return before.values(self._frame, term)
        return [adjusted.means(*(self._frame[of(term)].to_numpy() for of in SUMS))]

    def _in_groups(self, term: Term, arm: int) -> tuple[grouped.Arm, grouped.Arm]:
        """Outcome and stratum or cluster of control's and of an arm's units."""
        control, treatment = (
            grouped.Arm(num, self._weight(term, den), self._code[self._having(term, code)])
            for code, (num, den) in ((code, self.arrays(term, code)) for code in (0, arm))
        )
        return control, treatment

    def _histograms(self, term: Term, arm: int) -> tuple[Histogram, Histogram]:
        frame = histograms.read(self._tables, term)
        code, group = np.divmod(frame["group"].to_numpy(), GROUPS)
        control, treatment = (
            histograms.dense(frame, np.where(code == wanted, group, -1), GROUPS) for wanted in (0, arm)
        )
        return control, treatment

    def _histogram_tables(self, terms: Sequence[Term], *, whole: bool = False) -> list[Table]:
        owner = self._key if self._variance is None else pl.col("@cluster").hash(0)
        group = pl.col("@arm_code").cast(pl.Int64) * GROUPS + (owner % GROUPS).cast(pl.Int64)
        return histograms.packed(terms, group, self.rows, self._logs, whole=whole)
