"""Rows by the action that was executed: the sample of an observational design.

Each treatment is compared with control on the rows of both. What is adjusted for becomes one matrix; the propensity is
fitted once an arm and serves every metric. A metric that is null on some rows is read on its own rows, with a
propensity of their own: whether a value is there may hang on the action.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from estimators.estimate import Estimate
from estimators.inference import EstimationError
from readout.estimands import estimand
from readout.logs import Logs
from readout.reduce import Table
from readout.samples.adjusters import Adjusters, adjusters
from readout.samples.base import KEPT, NoTail, den_sum, num_sum, term_sums
from readout.samples.by_action_refusals import (
    ADJUST,
    FOLD,
    given_folds,
    refuse,
    require_groups,
    require_not_unit,
    require_taught,
)
from readout.samples.compared_rows import Codes, Compared, Flags, How, Matrix, Vector, Weighting
from readout.samples.confounding import confounding, risk
from readout.samples.design_matrix import MOST_LEVELS, DesignMatrix, design_matrix, other_level
from readout.samples.held import Held, finite_table, hold
from readout.spec.metrics import Metric
from readout.spec.model import Spec
from readout.terms import Term
from readout.text import named, visible

ARMS = "arms"
_OVER = {
    "ate": ", adjusted",
    "att": ", adjusted, on the treated",
    "overlap": ", adjusted, weighted by how open the action was",
}


class ByAction(NoTail):
    """Single rows with their arm, their unit, what is adjusted for, and the metrics' values."""

    def __init__(self, spec: Spec, logs: Logs, seed: int = 0) -> None:
        self.method = spec.estimator.method
        self.rows = KEPT
        self._spec, self._logs, self._seed = spec, logs, seed
        self._how = How(self.method, estimand(spec), spec.estimator.options, seed)
        self._arms = 1 + len(spec.design.treatment)
        refuse(spec, logs)
        self._adjust = adjusters(spec, logs)
        self._compared: dict[tuple[int, bytes], Compared] = {}

    @property
    def unit(self) -> str:
        return "unit" if self._logs.has("unit") else "row"

    @property
    def how(self) -> How:
        """The method and what it is asked for."""
        return self._how

    @property
    def adjusted_for(self) -> Adjusters:
        """The columns, by use."""
        return self._adjust

    def tables(self, terms: Sequence[Term]) -> list[Table]:
        self._terms = list(terms)
        schema = self._logs.source.schema
        numbers = {ADJUST + name: pl.col(name) for name in self._used if schema[name].is_float()}
        sums = {name: expr for term in terms for name, expr in term_sums(term).items()}
        keys = {"arm": pl.col("@arm_code")}
        return [Table(ARMS, keys, where=KEPT, sums=sums), finite_table(terms, numbers)]

    def again(self, reduced: Mapping[str, pl.DataFrame]) -> list[Table]:
        return []

    def load(self, tables: Mapping[str, pl.DataFrame]) -> Mapping[str, int]:
        self._sums = {row["arm"]: row for row in tables[ARMS].iter_rows(named=True)}
        columns = {ADJUST + name: pl.col(name) for name in dict.fromkeys((*self._used, *self._adjust.known))}
        if (fold := self._fold_column) is not None:
            columns[FOLD] = pl.col(fold)
        n = int(tables[ARMS]["n"].sum())
        held = hold(self._spec, self._logs, self._terms, columns, self._seed, n)
        frame = _in_order(held.frame)
        require_groups(self._spec, frame, self._used, self._adjust)
        require_not_unit(self._spec, self._logs, self._used, self._adjust)
        self._folds = None if fold is None else given_folds(self._spec, frame, fold)
        wanted = {self._adjust.propensity, self._adjust.outcome, self._adjust.known}
        mine = [name for name in frame.columns if name.startswith(ADJUST)]
        facts = frame.select(pl.col(name).alias(name.removeprefix(ADJUST)) for name in mine)
        self._x = {names: design_matrix(facts, names) for names in wanted}
        if self._folds is not None:
            require_taught(self._spec, self._folds, [self._x[self._adjust.propensity], self._x[self._adjust.outcome]])
        self._held = Held(frame.drop(mine), held.rows, held.share)
        self._units = self._held.codes("unit")
        return {}

    def counts(self) -> list[int]:
        frame = self._held.frame
        one = pl.col("unit").n_unique() if "unit" in frame.columns else pl.len()
        found = dict(frame.group_by("arm").agg(one.alias("n")).iter_rows())
        return [int(found.get(arm, 0)) for arm in range(self._arms)]

    def mixed(self) -> tuple[int, int]:
        return 0, sum(self.counts())

    def effect(self, term: Term, arm: int, alpha: float) -> Estimate:
        num, den, compared = self._of_term(term, arm)
        return compared.effect(num, den, alpha)

    def weighting(self, arm: int) -> Weighting:
        """Propensities and weights of an arm's rows and control's, whatever a metric's nulls are.

        Raises:
            EstimationError: No propensity can be fitted, or no weight follows from it.
        """
        rows = self._of_arm(arm)
        return self._of(arm, rows, np.ones(len(rows), dtype=np.bool_)).weighting()

    def known(self, arm: int) -> DesignMatrix:
        """What is known from before the decision of an arm's rows and control's."""
        rows, whole = self._of_arm(arm), self._x[self._adjust.known]
        return whole if len(rows) == len(whole.x) else replace(whole, x=whole.x[rows])

    def arm_total(self, term: Term, arm: int) -> tuple[float, float]:
        row = self._sums.get(arm)
        if row is None:
            raise EstimationError("an arm has no value of it")
        return float(row[num_sum(term)]), float(row[den_sum(term)])

    def level_keys(self) -> Mapping[str, pl.Expr]:
        return {"arm": pl.col("@arm_code")}

    def level_shares(self, frame: pl.DataFrame, arm: int) -> tuple[NDArray[Any], NDArray[Any]]:
        raise AssertionError("labels of an observational design are compared by weight")

    def measured(self, metric: Metric) -> str:
        what = f"{metric.numerator} over {metric.denominator}" if metric.numerator is not None else "the mean over rows"
        return f"difference of {what}{_OVER[self._how.estimand]}"

    def remarks_on(self, metric: Metric, found: Estimate) -> list[str]:
        notes = []
        if share := found.diagnostics.get("trimmed"):
            notes.append(
                f"trim {self._how.trim:g} left out {100.0 * share:.2g} % of its rows: the effect is of the others"
            )
        if lost := sum(found.diagnostics.get("unmatched", {}).values()):
            notes.append(f"no match within the caliper for {lost:,} rows: the effect is of the others")
        return notes

    def shown(self, term: Term, effects: Mapping[int, Estimate]) -> Mapping[str, Any]:
        """How the first primary was adjusted, and how strong an unlogged cause would have to be."""
        sensitive, risks = [], []
        for arm, found in effects.items():
            said = {"metric": term.name, "arm": self._spec.design.treatment[arm - 1]}
            num, den, compared = self._of_term(term, arm)
            if den is not None:
                sensitive.append({**said, "benchmarks": [], "reason": "a ratio has no such bound"})
                continue
            x, columns = self._all_adjusters(compared)
            alpha = self._spec.decision.alpha
            sensitive.append({**said, **confounding(found, num, compared.treated, x, columns, compared.units, alpha)})
            if (values := risk(found, num)) is not None:
                risks.append({**said, **values})
        first = next(iter(effects.values()), None)
        models = {} if first is None else {"adjustment": self._models(term.name, first)}
        return {**models, **({"sensitivity": sensitive} if sensitive else {}), **({"evalue": risks} if risks else {})}

    def _models(self, name: str, found: Estimate) -> dict[str, Any]:
        """How rows were made alike, and how well the models predict rows that they have not seen."""
        options, seen = self._how.options, found.diagnostics
        if self.method == "matching":
            kept = ("neighbours", "metric", "bias_adjustment", "caliper")
            return {"metric_read": name, **{key: options[key] for key in kept}}
        fit: Mapping[str, Any] = seen.get("outcome_fit") or {}
        return {
            "metric_read": name,
            "propensity_model": options["propensity"],
            "outcome_model": None if self.method == "ipw" else options["outcome"],
            "folds": seen["folds"],
            "repeats": seen["repeats"],
            "auc": seen["propensity"]["auc"],
            "outcome_explained_control": fit.get("control"),
            "outcome_explained_treatment": fit.get("treatment"),
        }

    def _all_adjusters(self, compared: Compared) -> tuple[Matrix, tuple[str, ...]]:
        """The covariates of both models, each once, and the log's column behind each."""
        first, second = (self._x[names] for names in (self._adjust.propensity, self._adjust.outcome))
        if second is first:
            return compared.x, first.column
        more = [j for j, name in enumerate(second.names) if name not in first.names]
        columns = first.column + tuple(second.column[j] for j in more)
        return np.column_stack([compared.x, compared.x_outcome[:, more]]), columns

    def assignment(self) -> str:
        """Who was treated, and by what was read."""
        rows = zip(self._labels, self._rows_by_arm(), strict=True)
        said = ", ".join(f"{n:,} of {named(arm)}" for arm, n in rows)
        if self._logs.has("executed"):
            return (
                f"Nothing was assigned at random: a request is treated where the treatment was executed. Rows: {said}."
            )
        return (
            "Nothing was assigned at random. The log holds no executed action, so the assigned arm is taken for it: "
            f"where the two parted, the effect is that of being assigned. Rows: {said}."
        )

    def facts(self) -> Mapping[str, Any]:
        one = self._adjust.propensity == self._adjust.outcome
        adjust: Any = {"propensity": list(self._adjust.propensity), "outcome": list(self._adjust.outcome)}
        return {
            "treated_by": "executed" if self._logs.has("executed") else "arm",
            "adjust": list(self._adjust.propensity) if one else adjust,
            "rows_by_arm": dict(zip(self._labels, self._rows_by_arm(), strict=True)),
            "errors_by": self.unit,
            **{name: value for name, value in self._how.options.items() if value != "none"},
        }

    def remarks(self) -> list[str]:
        notes = [self._held.said] if self._held.said else []
        asked = getattr(self._spec.design, "estimand", None)
        if asked not in (None, self._how.estimand):
            notes.append(
                f"{asked} was asked for: the partially linear model of dml tells it only where the effect is the same "
                "for all, and else the effect weighted by overlap; estimator: {method: dml, model: irm} tells it"
            )
        if self._adjust.unasked:
            inputs = ", ".join(visible(name, 60) for name in self._adjust.unasked)
            notes.append(f"adjusted for besides state and features, since the policy looks at it: {inputs}")
        if self._arms > 2:
            notes.append(
                "each treatment is compared with control on the requests of the two: effects of several treatments are "
                "of other requests each, so that their difference is not the effect of one rather than the other"
            )
        lumped = {c for m in self._x.values() for c, n in zip(m.column, m.names, strict=True) if n == other_level(c)}
        for name in sorted(lumped):
            notes.append(
                f"{visible(name, 60)} has many different texts: the {MOST_LEVELS + 1} most frequent are adjusted for "
                "one by one, the others as one"
            )
        if left := sorted({name for matrix in self._x.values() for name in matrix.left_out}):
            notes.append("one value throughout, so not adjusted for: " + ", ".join(visible(name, 60) for name in left))
        return notes

    @property
    def _labels(self) -> tuple[str, ...]:
        """Control's label and the treatments'."""
        return (str(self._spec.design.control), *self._spec.design.treatment)

    @property
    def _used(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self._adjust.propensity, *self._adjust.outcome)))

    @property
    def _fold_column(self) -> str | None:
        given = self._how.options.get("folds")
        return str(given["column"]) if isinstance(given, Mapping) else None

    def _rows_by_arm(self) -> list[int]:
        return [int(n) for n in np.bincount(self._held.arm, minlength=self._arms)]

    def _of_arm(self, arm: int) -> NDArray[np.intp]:
        """Rows of control and of an arm.

        Raises:
            EstimationError: One of them has none.
        """
        codes = self._held.arm
        if not ((codes == 0).any() and (codes == arm).any()):
            raise EstimationError("an arm has no row")
        return np.flatnonzero((codes == 0) | (codes == arm))

    def _of_term(self, term: Term, arm: int) -> tuple[Vector, Vector | None, Compared]:
        """A metric's numerator and denominator on the rows of an arm and control that have them, and those rows.

        Raises:
            EstimationError: There are none.
        """
        rows = self._of_arm(arm)
        num, den = self._held.numerator(term)[rows], self._held.denominator(term)
        seen = ~np.isnan(num)
        if den is not None:
            den = den[rows]
            seen &= ~np.isnan(den)
        for code, label in ((0, self._labels[0]), (arm, self._labels[arm])):
            if not (seen & (self._held.arm[rows] == code)).any():
                raise EstimationError(f"no row of {named(label)} has a value of it")
        return num[seen], None if den is None else den[seen], self._of(arm, rows, seen)

    def _of(self, arm: int, rows: Codes, seen: Flags) -> Compared:
        """The rows of an arm and of control that have a value.

        Those of all rows are kept, and of others the last, so that what they share is fitted once.
        """
        everywhere = bool(seen.all())
        key = (arm, b"" if everywhere else np.packbits(seen).tobytes())
        if key not in self._compared:
            self._compared = {k: v for k, v in self._compared.items() if not k[1]}
            whole = everywhere and len(rows) == len(self._held.frame)
            taken: Any = slice(None) if whole else rows[seen]
            x, x_outcome = (self._x[names].x for names in (self._adjust.propensity, self._adjust.outcome))
            first = x[taken]
            self._compared[key] = Compared(
                how=self._how,
                treated=self._held.arm[taken] == arm,
                x=first,
                x_outcome=first if x_outcome is x else x_outcome[taken],
                units=None if self._units is None else self._units[taken],
                folds=None if self._folds is None else self._folds[taken],
            )
        return self._compared[key]


def _in_order(frame: pl.DataFrame) -> pl.DataFrame:
    """Rows by unit and content, so that nothing hangs on the order of the log."""
    keys = [frame["unit"].alias("unit")] if "unit" in frame.columns else []
    by = pl.DataFrame([*keys, frame.hash_rows(seed=0).alias("content")])
    return frame[by.select(pl.arg_sort_by(by.columns)).to_series()]
