"""Units whose treatment starts in different periods, or never: the sample of a difference in differences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from estimators import callaway_santanna, event_study, two_by_two
from estimators.callaway_santanna import event_effects
from estimators.estimate import Estimate
from estimators.event_effects import Effects
from estimators.event_study import event_study_effects
from estimators.panel import Panel
from readout.errors import LogError, SpecError
from readout.logs import Logs
from readout.logs.treated import ROLLOUT
from readout.logs.values import label
from readout.reduce import Table
from readout.samples.design_matrix import TEXT, DesignMatrix, design_matrix, unfit
from readout.samples.panel import CELLS, EPOCH, US, Matrix, UnitPeriods, Vector
from readout.spec.designs import DiD
from readout.spec.metrics import Metric
from readout.spec.model import Spec
from readout.terms import Term
from readout.text import duration, visible

ADJUST, ADJUST_ROWS, TEXT_LOW, TEXT_HIGH = "adjust ", "adjust rows ", "adjust first ", "adjust last "
EARLY, LATE, UNDATED = "rollout first", "rollout last", "rollout none"
PLACE_LOW, PLACE_HIGH = "cluster first", "cluster last"
CARRIED = "carried out"
NAMED = 3
# Numbers that are held at once for the influence of every unit on every cohort and period.
MOST_NUMBERS = 400_000_000


class Rollouts(UnitPeriods):
    """A panel and each unit's first treated period.

    The period that holds a unit's rollout is its first treated one. What is adjusted for is a unit's mean over the
    periods before anybody's rollout (text: its only label). Errors are by cluster where no cluster holds units of two
    starts.

    Attributes:
        start: ``(n,)`` position of each unit's first treated period; the number of periods: none in the window.
    """

    def __init__(self, spec: Spec, logs: Logs, seed: int = 0) -> None:
        super().__init__(spec, logs, seed)
        assert isinstance(spec.design, DiD)
        self._design = spec.design
        self._require_controls()
        self._text = [name for name in dict.fromkeys(self._design.adjust) if logs.dtype(name) in TEXT]
        self._numbers = [name for name in dict.fromkeys(self._design.adjust) if name not in self._text]
        schema = pl.Schema(logs.source.schema)
        problems = [
            spec.source.problem(("design", "adjust", i), wrong)
            for i, name in enumerate(self._design.adjust)
            if (wrong := unfit(schema, name))
        ]
        if problems:
            raise LogError(problems)
        role = "executed" if logs.has("executed") else "arm"
        self.carried = role if logs.has(role) and spec.design.treatment else None
        self._panels: dict[str, Panel] = {}
        self._clusters: np.ndarray | None = None
        self._matrix: DesignMatrix | None = None
        self._moving = self._within = 0

    def _require_controls(self) -> None:
        if self._design.controls == "never" or self.method == "callaway_santanna":
            return
        hint = "callaway_santanna takes units that are treated later; leave controls out for the others"
        message = f"not_yet does not combine with {self.method}"
        raise SpecError([self._spec.source.problem(("design", "controls"), message, hint)])

    def asked(self) -> Table:
        rollout = pl.col(ROLLOUT)
        number = rollout.dt.epoch("us") if self._length is not None else rollout.cast(pl.Float64)
        if self._length is None:
            number = pl.when(number.is_finite()).then(number)
        sums = {UNDATED: number.is_null().cast(pl.Int8)}
        lows, highs = {EARLY: number}, {LATE: number}
        for name in self._numbers:
            value = pl.col(name).cast(pl.Float64)
            sums |= {ADJUST + name: value, ADJUST_ROWS + name: value.is_not_null().cast(pl.Int8)}
        for name in self._text:
            text = label(pl.col(name), self._logs.dtype(name))
            lows[TEXT_LOW + name] = highs[TEXT_HIGH + name] = text
        if self._logs.has("cluster"):
            cluster = pl.col("@cluster").cast(pl.String)
            lows[PLACE_LOW] = highs[PLACE_HIGH] = cluster
        if self.carried is not None:
            treated = pl.col(f"@{self.carried}").is_in(list(self._design.treatment))
            sums[CARRIED] = treated.fill_null(False).cast(pl.Int8)
        return Table(CELLS, self._keys(), self.rows, sums=sums, minima=lows, maxima=highs)

    def load(self, tables: Mapping[str, pl.DataFrame]) -> Mapping[str, int]:
        left = super().load(tables)
        if not self.units:
            return left
        early, late = self.by_unit(pl.col(EARLY).min()), self.by_unit(pl.col(LATE).max())
        undated, rows = self.by_unit(pl.col(UNDATED).sum()), self.by_unit(pl.col("n").sum())
        apart = (early != late).fill_null(False) | ((undated > 0) & (undated < rows))
        self._require_constant(("design", "rollout"), self._design.rollout, apart.to_numpy(), early, late)
        self.start = np.array([self._position(value) for value in early.to_list()], dtype=np.intp)
        self._within = int(self._inside(early))
        self._require_comparison(undated.to_numpy() > 0)
        self._clusters = self._places()
        self._matrix = self._adjusters() if self._design.adjust else None
        return left

    def _position(self, rollout: float | None) -> int:
        """Position of the period that holds a rollout; the number of periods where there is none in the window."""
        if rollout is None:
            return self.axis.n
        return self.axis.position(rollout if self._length is None else rollout // self._length)

    def _inside(self, early: pl.Series) -> int:
        """Units rolled out in the course of a period of the window."""
        if self._length is None:
            return 0
        inside = (early % self._length != 0).fill_null(False).to_numpy()
        return int((inside & (self.start > 0) & (self.start < self.axis.n)).sum())

    def _require_constant(self, at: Any, column: str, apart: np.ndarray, low: pl.Series, high: pl.Series) -> None:
        """Refuse a fact of units that varies within some of them, by their names.

        Raises:
            LogError: It does.
        """
        if not (where := np.flatnonzero(apart)).size:
            return
        shown = ", ".join(repr(visible(self.units[i], 40)) for i in where[:NAMED]) + " …" * (len(where) > NAMED)
        first, last = low[int(where[0])], high[int(where[0])]
        has = f", which has {self._shown(first)} and {self._shown(last)}" if first != last else ", null on some rows"
        message = f"column {visible(column)!r} varies within {len(where):,} of {len(self.units):,} units: {shown}{has}"
        hint = "give each unit one value on all of its rows"
        raise LogError([self._spec.source.problem(at, message, hint)])

    def _shown(self, value: Any) -> str:
        if isinstance(value, int) and self._length is not None:
            return f"{EPOCH + value * US:%Y-%m-%d %H:%M} UTC"
        return f"{value:g}" if isinstance(value, float) else repr(visible(str(value), 40))

    def _require_comparison(self, undated: np.ndarray) -> None:
        """Refuse a panel in which nobody starts, or nobody is left to compare with.

        Raises:
            LogError: Why, with the counts.
        """
        n, t = len(self.units), self.axis.n
        throughout, starting, never = self.start == 0, (self.start > 0) & (self.start < t), self.start == t
        at = ("design", "rollout")
        said = (
            f"{n:,} units over {t:,} period{'s' * (t != 1)}: {int(throughout.sum()):,} treated from the first period "
        )
        said += f"on, {int(starting.sum()):,} that start later, {int(never.sum()):,} not treated in the window"
        problem = None
        if t < 2:
            hint = "widen the window, or take a shorter design.period"
            problem = self._spec.source.problem(("design", "period"), f"a change needs two periods; {said}", hint)
        elif not starting.any():
            hint = "widen the window to before the rollout; rollout is a unit's first treated period, null: never"
            problem = self._spec.source.problem(at, f"no unit starts treatment after the first period; {said}", hint)
        elif not never.any() and (self._design.controls == "never" or len(np.unique(self.start[starting])) < 2):
            later = "; units that start later can stand for them: design.controls: not_yet" * (
                len(np.unique(self.start[starting])) > 1 and self.method == "callaway_santanna"
            )
            hint = f"null in the column {visible(self._design.rollout)!r} means never{later}"
            if self.method == "event_study" and len(np.unique(self.start[starting])) > 1:
                return
            problem = self._spec.source.problem(at, f"no unit stays untreated; {said}", hint)
        if problem is not None:
            raise LogError([problem])

    def _places(self) -> np.ndarray | None:
        """``(n,)`` cluster of each unit; None where none is mapped, or a unit is seen in several."""
        if not self._logs.has("cluster"):
            return None
        low, high = self.by_unit(pl.col(PLACE_LOW).min()), self.by_unit(pl.col(PLACE_HIGH).max())
        self._moving = int((low != high).sum()) + int(low.null_count())
        return None if self._moving else low.to_numpy()

    def _adjusters(self) -> DesignMatrix:
        """What units were like before anybody's rollout.

        Raises:
            LogError: A text column that varies within a unit.
        """
        end = int(self.start[self.start > 0].min())
        before = pl.col("period") < self.axis.first + self.axis.step * end
        columns: dict[str, pl.Series] = {}
        for name in self._numbers:
            total, rows = (self.by_unit(pl.col(of + name).filter(before).sum()) for of in (ADJUST, ADJUST_ROWS))
            columns[name] = pl.select(pl.when(rows > 0).then(total / rows)).to_series()
        for i, name in enumerate(self._design.adjust):
            if name in self._text:
                low, high = self.by_unit(pl.col(TEXT_LOW + name).min()), self.by_unit(pl.col(TEXT_HIGH + name).max())
                apart = (low != high).fill_null(False).to_numpy()
                self._require_constant(("design", "adjust", i), name, apart, low, high)
                columns[name] = low
        names = list(dict.fromkeys(self._design.adjust))
        return design_matrix(pl.DataFrame({name: columns[name] for name in names}), names)

    def counts(self) -> list[int]:
        treated = int(((self.start > 0) & (self.start < self.axis.n)).sum())
        return [int((self.start == self.axis.n).sum()), treated]

    def panel(self, term: Term) -> Panel:
        """The outcomes of a term, with who starts when.

        Raises:
            EstimationError: No unit has a value.
        """
        if term.name not in self._panels:
            x = None if self._matrix is None else self._matrix.x
            y = self.values(term)
            self._panels[term.name] = Panel(y, self.start, x, self._clusters, self.axis.labels)
        return self._panels[term.name]

    def effect(self, term: Term, arm: int, alpha: float) -> Estimate:
        panel = self.panel(term)
        if self.method == "two_by_two":
            return two_by_two(panel, alpha=alpha)
        if self.method == "event_study":
            return event_study(panel, alpha=alpha, seed=self._seed)
        aggregate = str(self._spec.estimator.options["aggregate"])
        return callaway_santanna(
            panel, controls=self._design.controls, aggregate=aggregate, alpha=alpha, seed=self._seed
        )

    def by_event_time(self, term: Term) -> Effects:
        """Effects by periods since the start, all relative to the last one before it.

        Raises:
            EstimationError: As the methods.
        """
        if self.method == "event_study":
            return event_study_effects(self.panel(term))
        return event_effects(self.panel(term), controls=self._design.controls, base="universal")

    def event_weights(self, term: Term) -> tuple[Vector, Vector]:
        """Event times from 0 on, and the share of each in the estimate.

        Those of ``group`` and ``calendar`` differ by cohort; they are taken as those of ``simple``.

        Raises:
            EstimationError: As the methods.
        """
        effects = self.by_event_time(term).without_reference()
        times = np.array([t for t in effects.keys if t >= 0], dtype=np.float64)
        alike = self.method == "event_study" or self._spec.estimator.options.get("aggregate") == "dynamic"
        if alike:
            return times, np.full(len(times), 1.0 / len(times))
        panel = self.panel(term).comparable()
        t = panel.y.shape[1]
        units = np.array([float((panel.first + e < t).sum()) for e in times])
        return times, units / units.sum()

    def carried_out(self) -> Matrix:
        """``(n, T)`` rows whose executed action (or arm) is the treatment."""
        return self._wide(self._tables[CELLS][CARRIED].to_numpy().astype(np.float64), 0.0)

    def assignment(self) -> str:
        labels = self.axis.labels
        starts = np.unique(self.start[(self.start > 0) & (self.start < self.axis.n)])
        untreated, treated = self.counts()
        when = f"in {labels[starts[0]]}"
        if len(starts) > 1:
            when = f"in {len(starts)} different periods, {labels[starts[0]]} to {labels[starts[-1]]}"
        rest = f"{untreated:,} were not treated in the window" if untreated else "none stayed untreated"
        return (
            f"Nothing was assigned at random: {treated:,} unit{'s' * (treated != 1)} took up the treatment {when}, as "
            f"the column {visible(self._design.rollout)!r} says; {rest}."
        )

    def facts(self) -> Mapping[str, Any]:
        labels = self.axis.labels
        starts = self.start[self.start < self.axis.n]
        return {
            "period": "as the time column counts" if self._length is None else duration(self._design.period),
            "periods": self.axis.n,
            "first_period": labels[0],
            "last_period": labels[-1],
            "rollouts": {labels[g]: int((starts == g).sum()) for g in np.unique(starts)},
            "controls": self._design.controls,
        }

    def remarks(self) -> list[str]:
        found = ["units weigh alike in every period, whatever their traffic; so do the treated ones' periods"]
        throughout = int((self.start == 0).sum())
        if throughout:
            found.append(
                f"units treated from the first period on, which show no change and are left out: {throughout:,} "
                "(null, not a date before the window, means never treated)"
            )
        if self._within:
            found.append(
                f"units rolled out in the course of a period, all of which counts as treated: {self._within:,}"
            )
        if self._matrix is not None:
            first = self.axis.labels[int(self.start[self.start > 0].min())]
            names = ", ".join(visible(name, 60) for name in dict.fromkeys(self._matrix.column))
            found.append(f"adjusted for what units were like on average before {first}, the first rollout: {names}")
            if self._matrix.left_out:
                gone = ", ".join(visible(name, 60) for name in self._matrix.left_out)
                found.append(f"not adjusted for, since no unit differs in it: {gone}")
        if self._moving:
            found.append(f"units seen in several clusters, or in none: {self._moving:,}; errors are by unit")
        elif self._clusters is not None and self._design.shared_state and (mixed := self._shared_clusters()):
            found.append(
                f"clusters that hold units of different rollouts: {mixed:,}; where units of a cluster share a queue or "
                "a fleet, the untreated feel the treatment too"
            )
        if self._spec.economics is not None:
            found.append("net value against control is that of the average treated unit; sums by arm are over rows")
        return found

    def _shared_clusters(self) -> int:
        """Clusters whose units do not all start in the same period."""
        frame = pl.DataFrame({"cluster": self._clusters, "start": self.start})
        return int((frame.group_by("cluster").agg(pl.col("start").n_unique())["start"] > 1).sum())

    def measured(self, metric: Metric) -> str:
        if metric.numerator is not None:
            what = f"{metric.numerator} over {metric.denominator} of a unit in a period"
        elif metric.per == "unit":
            what = "sum of a unit in a period"
        else:
            what = "mean over a unit's rows in a period"
        what += ", rows that were not treated" * (metric.on == "untreated")
        averaged = {
            "simple": "averaged over treated units and periods alike",
            "dynamic": "averaged over periods since the rollout alike",
            "group": "averaged over rollouts by their units, each over its periods alike",
            "calendar": "averaged over calendar periods alike",
        }
        default = "averaged over treated units alike" if self.method == "two_by_two" else averaged["dynamic"]
        return f"change of the {what}, {averaged.get(str(self._spec.estimator.options.get('aggregate')), default)}"

    def remarks_on(self, metric: Metric, found: Estimate) -> list[str]:
        shown, notes = found.diagnostics, []
        if small := shown.get("small_groups"):
            names = ", ".join(small[:NAMED]) + " …" * (len(small) > NAMED)
            notes.append(f"fewer than five units started in each of {names}: its error is not to be leaned on")
        if metric.per == "unit":
            notes.append("a unit that was seen before and after, and not in a period, had a sum of 0 in it")
        cells = shown["n_units"] * shown["n_periods"]
        if missing := shown["missing_cells"]:
            notes.append(f"{missing:,} of {cells:,} units' periods have no value")
        if skipped := shown.get("skipped"):
            notes.append(f"{len(skipped):,} rollouts' periods have no unit to compare with and are left out")
        if unseen := shown.get("unseen"):
            notes.append(f"{unseen:,} units were not seen both before and after, and are left out")
        return notes

    def shown(self, term: Term, effects: Mapping[int, Estimate]) -> Mapping[str, Any]:
        found = effects.get(1)
        if found is None or "event_study" not in found.diagnostics:
            return {}
        keys = ("event_time", "estimate", "std_error", "ci_low", "ci_high", "band_low", "band_high")
        return {"event_study": [{key: row[key] for key in keys} for row in found.diagnostics["event_study"]]}

    def reach(self, term: Term) -> float:
        """What a straight trend of 1 a period adds to the estimate.

        Raises:
            EstimationError: As the methods.
        """
        times, weights = self.event_weights(term)
        if self.method != "two_by_two":
            return float(weights @ (times + 1.0))
        before = [t for t in self.by_event_time(term).keys if t < 0]
        return float(weights @ times - np.mean(before))
