"""Rows with their instruments, held one by one: the sample of an instrumental variable design.

The action that ran is the treatment. Where units stand on several rows, errors are clustered by unit; where the
instruments do not vary within clusters, by cluster, for there they were drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from estimators.compliers import Compliers, compliers
from estimators.estimate import Estimate
from estimators.first_stage import critical_f, effective_f, first_stage
from estimators.inference import EstimationError
from estimators.instrumented_ratio import instrumented_ratio, relative_set
from estimators.instruments import is_binary, prepare
from estimators.two_stage_least_squares import two_stage_least_squares, wald
from readout.logs import Logs
from readout.reduce import Table
from readout.samples import instrument_rows as rows_of
from readout.samples import instrument_words as said
from readout.samples.base import KEPT, NoTail
from readout.samples.design_matrix import DesignMatrix, Matrix
from readout.samples.held import FINITE, Codes, Vector, finite_table
from readout.samples.instrument_columns import Instruments, instruments_of
from readout.samples.weak_instruments import as_set, weakness
from readout.spec.metrics import Metric
from readout.spec.model import Spec
from readout.terms import Term

WEAK_F = 10.0


@dataclass(frozen=True, slots=True)
class Points:
    """What is read of a metric: one entry a row that has a value, or a unit for sums within units.

    Attributes:
        y: ``(n,)`` the value, or the numerator.
        den: ``(n,)`` denominator of a ratio; None of a mean.
        d: ``(n,)`` the action that ran: 0 and 1, of a unit the share of its rows; or an amount.
        z: ``(n, k)`` instruments.
        x: ``(n, p)`` adjusters; None: none.
        clusters: ``(n,)`` codes of the groups by which errors are clustered; None: every entry is its own.
    """

    y: Vector
    den: Vector | None
    d: Vector
    z: Matrix
    x: Matrix | None
    clusters: Codes | None

    @property
    def groups(self) -> int:
        """Independent groups."""
        return len(self.y) if self.clusters is None else len(np.unique(self.clusters))


class ByInstrument(NoTail):
    """Single rows with the action that ran, the instruments, what is adjusted for, and the metrics' values."""

    def __init__(self, spec: Spec, logs: Logs, seed: int = 0) -> None:
        self.method = spec.estimator.method
        self._spec, self._logs, self._seed = spec, logs, seed
        self.read: Instruments = instruments_of(spec, logs)
        self.rows = KEPT & rows_of.complete(self.read)
        given = spec.checks.get("first_stage")
        self.weak_below = WEAK_F if given is None or given.threshold is None else given.threshold

    def tables(self, terms: Sequence[Term]) -> list[Table]:
        self._terms = list(terms)
        return [finite_table(terms, rows_of.numbers(self._logs, self.read))]

    def again(self, reduced: Mapping[str, pl.DataFrame]) -> list[Table]:
        return []

    def load(self, tables: Mapping[str, pl.DataFrame]) -> Mapping[str, int]:
        n = int(tables[FINITE]["n"].sum())
        self.held, left = rows_of.load(self._spec, self._logs, self.read, self._terms, self._seed, n)
        return left

    @property
    def unit(self) -> str:
        by = self.held.group.by
        return by if by != "row" or not self._logs.has("unit") else "unit"

    def counts(self) -> list[int]:
        """Independent groups by arm: the assigned one where that is the instrument, else the one that ran."""
        arm, codes = self.held.arm, self.held.drawn.codes
        if codes is None:
            return [int(n) for n in np.bincount(arm, minlength=2)]
        return [len(np.unique(codes[arm == code])) for code in (0, 1)]

    def mixed(self) -> tuple[int, int]:
        return 0, sum(self.counts())

    def points(self, term: Term) -> Points:
        """What is read of a metric.

        Raises:
            EstimationError: No row has a value.
        """
        held = self.held
        y, den = held.numerator(term), held.denominator(term)
        if term.per_unit and held.units is not None:
            return self._by_unit(y, held.units)
        keep = np.isfinite(y) if den is None else np.isfinite(y) & np.isfinite(den)
        if not keep.any():
            raise EstimationError("no row has a value of it")
        if den is not None and (den[keep] == 1.0).all():
            den = None  # a ratio over rows is their mean
        taken: Any = slice(None) if keep.all() else keep
        return Points(
            y[taken],
            None if den is None else den[taken],
            held.taken[taken],
            held.z.x[taken],
            None if held.x is None else held.x[taken],
            None if held.group.codes is None else held.group.codes[taken],
        )

    def effect(self, term: Term, arm: int, alpha: float) -> Estimate:
        p = self.points(term)
        how = self.how(p)
        if p.den is not None:
            found = instrumented_ratio(p.y, p.den, p.d, p.z, covariates=p.x, alpha=alpha, **how)
            if why := weakness(found.diagnostics, p.groups, self.weak_below):
                raise EstimationError(f"a ratio has no interval that holds where {why}")
            return replace(found, method=self.method)
        if self.method == "wald":
            found = wald(p.y, p.d, p.z[:, 0] if p.z.shape[1] == 1 else p.z, alpha=alpha, whom=False, **how)
        else:
            found = two_stage_least_squares(p.y, p.d, p.z, covariates=p.x, alpha=alpha, whom=False, **how)
        found = self._counted(found, p)
        why = weakness(found.diagnostics, p.groups, self.weak_below)
        return as_set(found, why, self.weak_below, self._ratio(p, alpha) if is_binary(p.d) else None) if why else found

    def how(self, p: Points) -> dict[str, Any]:
        """The estimator's ``variance`` and ``clusters``."""
        if p.clusters is not None:
            return {"variance": "cluster", "clusters": p.clusters}
        asked = str(self._spec.estimator.options["variance"])
        return {"variance": "HC1" if asked == "cluster" else asked, "clusters": None}

    def first_stage(self, term: Term) -> dict[str, Any]:
        """``first_stage`` of a metric's rows, its effective F and critical value, as its effect has them.

        Raises:
            EstimationError: As :func:`prepare`, or no row has a value.
        """
        p = self.points(term)
        data = prepare(p.d, p.d, p.z, covariates=p.x, **self.how(p))
        shown = {"first_stage": first_stage(data), "first_stage_f": effective_f(data)}
        return {**shown, "first_stage_f_critical": critical_f(data), "groups": p.groups}

    def facts_before(self) -> DesignMatrix:
        """What is known from before the decision, of every row held."""
        return self.held.facts

    @cached_property
    def compliers(self) -> Compliers | None:
        """Whom the instrument treats, with what is known of them; None where that is not defined."""
        held = self.held
        if held.z.x.shape[1] != 1 or held.given or not (is_binary(held.z.x[:, 0]) and is_binary(held.taken)):
            return None
        try:
            return compliers(held.taken, held.z.x[:, 0], held.facts.x, adjust=held.x, clusters=held.group.codes)
        except EstimationError:
            return None

    def arm_total(self, term: Term, arm: int) -> tuple[float, float]:
        if self.read.amount:
            raise EstimationError("the action is a number, so that no row stands under an arm")
        y, den, mine = self.held.numerator(term), self.held.denominator(term), self.held.arm == arm
        keep = mine & np.isfinite(y) if den is None else mine & np.isfinite(y) & np.isfinite(den)
        if not keep.any():
            raise EstimationError("an arm has no value of it")
        return float(y[keep].sum()), float(keep.sum() if den is None else den[keep].sum())

    def level_keys(self) -> Mapping[str, pl.Expr]:
        return {"arm": pl.col("@arm_code")}

    def level_shares(self, frame: pl.DataFrame, arm: int) -> tuple[np.ndarray, np.ndarray]:
        raise EstimationError("labels are compared by instrument, not by arm")

    def assignment(self) -> str:
        return said.assignment(self._spec, self.read, self.held, self.counts())

    def facts(self) -> Mapping[str, Any]:
        return said.facts(self._spec, self.read, self.held, self.unit)

    def remarks(self) -> list[str]:
        return said.remarks(self._spec, self.read, self.held)

    def measured(self, metric: Metric) -> str:
        return said.measured(self._spec, self.read, metric)

    def remarks_on(self, metric: Metric, found: Estimate) -> list[str]:
        first = next(m for m in self._spec.metrics.values() if m.role == "primary").name == metric.name
        notes = said.remarks_on(self._spec, metric, found)
        if metric.per == "unit" and not np.isin(self.points(self._term(metric.name)).d, (0.0, 1.0)).all():
            notes.append("a unit's treatment is the mean of its rows', and the effect that of one more")
        return notes + (said.moved(self._spec, self.compliers, self.held, self.unit) if first else [])

    def shown(self, term: Term, effects: Mapping[int, Estimate]) -> Mapping[str, Any]:
        found = effects.get(1)
        if found is None:
            return {}
        p = self.points(term)
        return said.shown(self._spec, self.read, self.held, term, found, self.compliers, p, self.how(p))

    def _term(self, name: str) -> Term:
        return next(term for term in self._terms if term.name == name)

    def _counted(self, found: Estimate, p: Points) -> Estimate:
        """Where every row stands on both sides, it counts once."""
        both = not is_binary(p.d) and not (p.z.shape[1] == 1 and is_binary(p.z[:, 0]))
        return replace(found, n_control=0) if both else found

    def _ratio(self, p: Points, alpha: float) -> Any:
        try:
            return relative_set(p.y, p.d, p.z, covariates=p.x, alpha=alpha, **self.how(p))
        except EstimationError:
            return None

    def _by_unit(self, y: Vector, units: Codes) -> Points:
        """Sums of values by unit over its rows that have one; instruments, take-up and adjusters as means."""
        held, n = self.held, np.bincount(units)
        having = np.bincount(units, weights=np.isfinite(y)) > 0
        if not having.any():
            raise EstimationError("no row has a value of it")

        def mean(table: Matrix) -> Matrix:
            return np.column_stack([np.bincount(units, weights=column) / n for column in table.T])[having]

        group = held.group
        owner = None
        if group.by == "cluster" and group.codes is not None:
            owner = np.zeros(len(n), dtype=np.intp)
            owner[units] = group.codes
        return Points(
            np.asarray(np.bincount(units, weights=np.where(np.isfinite(y), y, 0.0))[having], dtype=np.float64),
            None,
            mean(held.taken[:, None])[:, 0],
            mean(held.z.x),
            None if held.x is None else mean(held.x),
            None if owner is None else owner[having],
        )
