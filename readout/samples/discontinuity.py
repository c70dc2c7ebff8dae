"""Rows on either side of a cutoff, held one by one: the sample of a regression discontinuity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from estimators.estimate import Estimate
from estimators.inference import EstimationError
from estimators.local_linear import local_linear
from estimators.local_ratio import local_ratio
from readout.errors import LogError
from readout.logs import Logs
from readout.logs.treated import RUNNING
from readout.reduce import Table
from readout.samples import near_cutoff
from readout.samples.base import KEPT, NoTail
from readout.samples.design_matrix import Matrix, design_matrix, identifiers, unfit
from readout.samples.held import FINITE, Codes, Vector, finite_table, hold
from readout.samples.near_cutoff import Points
from readout.spec.designs import RDD
from readout.spec.metrics import Metric
from readout.spec.model import Spec
from readout.terms import Term
from readout.text import named, visible

FEATURE, STATE, ADJUSTER = "@feature ", "state ", "@adjuster "
RAW = "raw|"
X, TAKEUP, WITHOUT = "x", "takeup", "control ran"
NO_ACTION = "no executed action"
_NAMED = 3


class Discontinuity(NoTail):
    """Rows by the running variable; control stands below the cutoff, the treatment at it and above.

    Where a unit stands on several rows, errors are clustered by unit. A metric ``per: unit`` is one value a unit, whose
    running variable must then be one too.
    """

    def __init__(self, spec: Spec, logs: Logs, seed: int = 0) -> None:
        design = spec.design
        assert isinstance(design, RDD)
        self.method = spec.estimator.method
        self.design = design
        self._spec, self._logs, self.seed = spec, logs, seed
        self.action = "executed" if logs.has("executed") else "arm" if logs.has("arm") else ""
        self._treated: pl.Expr | None = None
        if self.action and design.treatment:
            self._treated = pl.col(f"@{self.action}") == design.treatment[0]
        self.rows = KEPT
        if design.fuzzy and self._treated is not None:
            self.rows = KEPT & self._treated.is_not_null()

    def tables(self, terms: Sequence[Term]) -> list[Table]:
        self._require_action()
        self._terms = terms
        self._known = self._before_treatment()
        numbers = {f"{RUNNING}|x": pl.col(RUNNING)}
        for mark, names in ((STATE, "state"), (FEATURE, "features")):
            numbers |= {f"{mark}{n}|x": pl.col(n) for n in self._logs.columns.get(names, ()) if self._is_float(n)}
        numbers |= {f"{ADJUSTER}{n}|x": pl.col(n) for n in self.design.covariates if self._is_float(n)}
        return [finite_table(terms, numbers)]

    def again(self, reduced: Mapping[str, pl.DataFrame]) -> list[Table]:
        return []

    def load(self, tables: Mapping[str, pl.DataFrame]) -> Mapping[str, int]:
        columns: dict[str, pl.Expr] = {X: pl.col(RUNNING)}
        if self._treated is not None:
            columns |= {TAKEUP: self._treated, WITHOUT: pl.col(f"@{self.action}") == str(self.design.control)}
        columns |= {RAW + name: pl.col(name) for name in dict.fromkeys([*self._known, *self.design.covariates])}
        held = hold(self._spec, self._logs, self._terms, columns, self.seed, int(tables[FINITE]["n"].sum()))
        frame, left = held.frame, {}
        if self.design.fuzzy:
            frame = frame.filter(pl.col(TAKEUP).is_not_null())
            left = {NO_ACTION: len(held.frame) - len(frame)}
        # In an order that is not the log's, so that sums come out alike however its rows lie.
        by = [name for name, kind in frame.schema.items() if name != X and not kind.is_nested()]
        self.held = replace(held, frame=frame.sort(X, *by))
        self._require_labels()
        self._require_takeup()
        units = self.held.codes("unit")
        self._units = units
        self._repeated = units is not None and len(units) > 0 and int(units.max()) + 1 < len(units)
        if any(term.per_unit for term in self._terms):
            self._require_one_place()
        self._covariates = self._matrix()
        return {reason: n for reason, n in left.items() if n}

    @property
    def unit(self) -> str:
        return "unit" if self._repeated else "row"

    @property
    def cutoff(self) -> float:
        """Where the treatment starts."""
        return self.design.cutoff

    @property
    def how(self) -> dict[str, Any]:
        """Options of the estimator: ``kernel``, ``order`` and ``variance``."""
        return dict(self._spec.estimator.options)

    @property
    def known(self) -> tuple[str, ...]:
        """Columns that stood before the treatment: state, features and covariates, the running variable left out."""
        return self._known

    def counts(self) -> list[int]:
        arm = self.held.arm
        if not self._repeated or self._units is None:
            return [int(n) for n in np.bincount(arm, minlength=2)]
        return [len(np.unique(self._units[arm == code])) for code in (0, 1)]

    def mixed(self) -> tuple[int, int]:
        return 0, sum(self.counts())

    def points(self, term: Term) -> Points:
        """What is read of a metric."""
        y, den, x = self.held.numerator(term), self.held.denominator(term), self.running
        takeup = self.takeup if self.design.fuzzy else None
        if term.per_unit and self._units is not None:
            return self._by_unit(y, x, takeup, self._units)
        keep = np.isfinite(y) if den is None else np.isfinite(y) & np.isfinite(den)
        clusters = self._units[keep] if self._repeated and self._units is not None else None
        if clusters is not None and len(np.unique(clusters)) == len(clusters):
            clusters = None
        return Points(
            y[keep],
            x[keep],
            None if den is None else den[keep],
            None if takeup is None else takeup[keep],
            None if self._covariates is None else self._covariates[keep],
            clusters,
        )

    @property
    def running(self) -> Vector:
        """``(n,)`` running variable of every row held, ascending."""
        return self.held.frame[X].to_numpy().astype(np.float64)

    @property
    def takeup(self) -> Vector | None:
        """``(n,)`` 1 where the treatment ran, NaN where that is not known; None where the log does not tell."""
        if TAKEUP not in self.held.frame.columns:
            return None
        return self.held.frame[TAKEUP].cast(pl.Float64).fill_null(np.nan).to_numpy()

    @property
    def clusters(self) -> Codes | None:
        """``(n,)`` codes of units where they stand on several rows; None where none does."""
        return self._units if self._repeated else None

    def fact_matrix(self) -> tuple[Matrix, tuple[str, ...], list[str]]:
        """Values of the facts by row, their names, and the columns that cannot be compared."""
        schema = self._logs.source.schema
        names = [name for name in self._known if not unfit(pl.Schema(schema), name)]
        frame = self._raw(names)
        ids = identifiers(frame, names)
        made = design_matrix(frame, [name for name in names if name not in ids])
        left = [name for name in self._known if name not in names or name in ids or name in made.left_out]
        return made.x, made.names, left

    def effect(self, term: Term, arm: int, alpha: float) -> Estimate:
        points, given = self.points(term), self.design.bandwidth
        if len(points.y) == 0:
            raise EstimationError("no row has a value of it")
        facts = {"cutoff": self.cutoff, "takeup": points.takeup, "clusters": points.clusters}
        how = {**facts, **self.how, "h": given and given.h, "b": given and given.b, "alpha": alpha}
        if points.den is not None:
            return local_ratio(points.y, points.den, points.x, **how)
        return local_linear(points.y, points.x, covariates=points.covariates, **how)

    def arm_total(self, term: Term, arm: int) -> tuple[float, float]:
        points = self.points(term)
        mine = (points.x >= self.cutoff) == bool(arm)
        if not mine.any():
            raise EstimationError("an arm has no value of it")
        den = float(mine.sum()) if points.den is None else float(points.den[mine].sum())
        return float(points.y[mine].sum()), den

    def mean(self, term: Term, arm: int) -> float:
        """A metric's mean over all rows, or units, of an arm."""
        num, den = self.arm_total(term, arm)
        return num / den

    def level_keys(self) -> Mapping[str, pl.Expr]:
        return {"arm": pl.col("@arm_code")}

    def level_shares(self, frame: pl.DataFrame, arm: int) -> tuple[np.ndarray, np.ndarray]:
        raise EstimationError("labels are compared at the cutoff, not by arm")

    def assignment(self) -> str:
        at = f"{visible(self.design.running)} of {self.cutoff:.15g} or more"
        below, above = self.counts()
        said = f"{self.unit.capitalize()}s: {below:,} below, {above:,} from the cutoff on."
        if not self.design.fuzzy:
            return f"Nothing was assigned at random: a row with {at} is taken as treated, one below as not. {said}"
        takeup, beyond = self.takeup, self.running >= self.cutoff
        assert takeup is not None
        shares = [f"{100 * float(takeup[side].mean()):.3g} %" for side in (~beyond, beyond)]
        ran = f"{named(self.design.treatment[0])} ran on {shares[0]} of the rows below and {shares[1]} of the others"
        return f"Nothing was assigned at random: {at} makes treatment likelier; {ran}. {said}"

    def facts(self) -> Mapping[str, Any]:
        given = self.design.bandwidth
        asked = "auto" if given is None else {"h": given.h, "b": given.h if given.b is None else given.b}
        return {"running": self.design.running, "cutoff": self.cutoff, "fuzzy": self.design.fuzzy, "bandwidth": asked}

    def measured(self, metric: Metric) -> str:
        return near_cutoff.measured(self.design, metric)

    def remarks_on(self, metric: Metric, found: Estimate) -> list[str]:
        return near_cutoff.remarks_on(self.design, self.points(self._named(metric.name)), metric, found)

    def remarks(self) -> list[str]:
        return near_cutoff.remarks(self._spec, self.design, self.held.said)

    def shown(self, term: Term, effects: Mapping[int, Estimate]) -> Mapping[str, Any]:
        found = effects.get(1)
        return {} if found is None else near_cutoff.shown(self.design, self.points(term), term, found, self.how)

    def _named(self, name: str) -> Term:
        return next(term for term in self._terms if term.name == name)

    def _require_action(self) -> None:
        """A fuzzy design reads which action ran.

        Raises:
            LogError: No column says it.
        """
        if not self.design.fuzzy or self._treated is not None:
            return
        message = "a fuzzy rdd needs a column for the role 'executed' (or 'arm'): which action ran"
        hint = f"the log has: {self._logs.expressions.names()}"
        raise LogError([self._spec.source.problem(("logs", "columns", "executed"), message, hint)])

    def _require_labels(self) -> None:
        """A label that no row has, beside actions that the spec does not name, is misspelt.

        Raises:
            LogError: Such labels.
        """
        frame = self.held.frame
        if TAKEUP not in frame.columns or (frame[TAKEUP] | frame[WITHOUT]).all():
            return
        at = {"treatment": (self.design.treatment[0], TAKEUP), "control": (str(self.design.control), WITHOUT)}
        problems = []
        for key, (label, column) in at.items():
            if not frame[column].any():
                message = f"{named(label)} ran on no kept row by the role {self.action!r}"
                problems.append(self._spec.source.problem(("design", key), message, self._actions()))
        if problems:
            raise LogError(problems)

    def _actions(self) -> str:
        """The actions in the log, for a hint."""
        seen = pl.col(f"@{self.action}").drop_nulls().unique().sort()
        labels = self._logs.frame.filter(KEPT).select(seen).head(10).collect(engine="streaming").to_series().to_list()
        return "actions in the log: " + ", ".join(repr(visible(str(label), 40)) for label in labels)

    def _require_takeup(self) -> None:
        """A fuzzy design compares rows on which the treatment ran with others.

        Raises:
            LogError: The treatment ran nowhere, or everywhere.
        """
        takeup = self.takeup
        if not self.design.fuzzy or takeup is None or 0.0 < takeup.sum() < len(takeup):
            return
        action = named(self.design.treatment[0])
        what = "on every" if len(takeup) and takeup.all() else "on no"
        message = f"{action} ran {what} kept row by the role {self.action!r}, so crossing the cutoff changes nothing"
        raise LogError([self._spec.source.problem(("design", "treatment"), message, self._actions())])

    def _require_one_place(self) -> None:
        """A sum within a unit belongs to one value of the running variable.

        Raises:
            LogError: Units whose rows stand at several.
        """
        by_unit = self.held.frame.group_by("unit").agg(low=pl.col(X).min(), high=pl.col(X).max())
        moving = by_unit.filter(pl.col("low") < pl.col("high")).sort("unit")
        if not len(moving):
            return
        some = ", ".join(repr(visible(str(unit), 40)) for unit in moving["unit"].head(_NAMED))
        more = " …" if len(moving) > _NAMED else ""
        message = (
            f"{visible(self.design.running)!r} varies within {len(moving):,} of {len(by_unit):,} units ({some}{more})"
        )
        hint = "a sum within a unit needs one value of the running variable a unit; drop 'per' for a mean over rows"
        names = [term.name for term in self._terms if term.per_unit and term.name in self._spec.metrics]
        raise LogError([self._spec.source.problem(("metrics", name, "per"), message, hint) for name in names])

    def _before_treatment(self) -> tuple[str, ...]:
        columns = self._logs.columns
        names = [*columns.get("features", ()), *columns.get("state", ()), *self.design.covariates]
        return tuple(name for name in dict.fromkeys(names) if name != self.design.running)

    def _is_float(self, name: str) -> bool:
        return self._logs.dtype(name).is_float()

    def _raw(self, names: Sequence[str]) -> pl.DataFrame:
        return self.held.frame.select(pl.col(RAW + name).alias(name) for name in names)

    def _matrix(self) -> Matrix | None:
        if not self.design.covariates:
            return None
        frame = self._raw(self.design.covariates)
        if ids := identifiers(frame, self.design.covariates):
            message = f"column {visible(ids[0])!r} has {frame[ids[0]].n_unique():,} different texts; expected groups"
            at = ("design", "covariates", self.design.covariates.index(ids[0]))
            raise LogError([self._spec.source.problem(at, message)])
        made = design_matrix(frame, self.design.covariates)
        return made.x if made.names else None

    def _by_unit(self, y: Vector, x: Vector, takeup: Vector | None, units: Codes) -> Points:
        """Sums of values by unit over its rows that have one; running variable, take-up and covariates as means."""
        rows = np.bincount(units)
        having = np.bincount(units, weights=np.isfinite(y)) > 0
        sums = np.bincount(units, weights=np.where(np.isfinite(y), y, 0.0))
        place = np.zeros(len(rows))
        place[units] = x

        def mean(values: Vector) -> Vector:
            return np.asarray(np.bincount(units, weights=values) / rows)

        covariates = None if self._covariates is None else np.column_stack([mean(z) for z in self._covariates.T])
        return Points(
            np.asarray(sums[having], dtype=np.float64),
            place[having],
            None,
            None if takeup is None else mean(takeup)[having],
            None if covariates is None else covariates[having],
            None,
        )
