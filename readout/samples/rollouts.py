"""Units whose treatment starts in different periods, or never: the sample of a difference in differences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from estimators import callaway_santanna, event_study, two_by_two
from estimators.callaway_santanna import SMALL, event_effects
from estimators.estimate import Estimate
from estimators.event_effects import Effects
from estimators.event_study import event_study_effects
from estimators.inference import EstimationError
from estimators.panel import Panel
from readout.errors import LogError, SpecError
from readout.logs import Logs
from readout.logs.treated import ROLLOUT
from readout.logs.values import label
from readout.reduce import Table
from readout.samples import rollout_words
from readout.samples.design_matrix import TEXT, DesignMatrix, design_matrix, unfit
from readout.samples.panel import CELLS, EPOCH, PLACE_HIGH, PLACE_LOW, US, Codes, UnitPeriods, Vector
from readout.spec.designs import DiD
from readout.spec.metrics import Metric
from readout.spec.model import Spec
from readout.spec.problems import KeyPath
from readout.terms import Term
from readout.text import visible

ADJUST, ADJUST_ROWS, TEXT_LOW, TEXT_HIGH = "adjust ", "adjusted rows ", "adjusted first ", "adjusted last "
EARLY, LATE, UNDATED = "rollout first", "rollout last", "rollout none"
MISSING, ENOUGH = " is missing", 10
# From so many units that start together on, dividing their variance by one less changes an error by under 3 %.
FEW = 20
# Numbers that are held at once for the influence of every unit on every cohort and period.
MOST_NUMBERS = 120_000_000


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
        self.spec, self.design = spec, spec.design
        self._require_controls()
        self._text = [name for name in dict.fromkeys(self.design.adjust) if logs.dtype(name) in TEXT]
        self._numbers = [name for name in dict.fromkeys(self.design.adjust) if name not in self._text]
        schema = pl.Schema(logs.source.schema)
        problems = [
            spec.source.problem(("design", "adjust", i), wrong)
            for i, name in enumerate(self.design.adjust)
            if (wrong := unfit(schema, name))
        ]
        if problems:
            raise LogError(problems)
        self._panels: dict[str, Panel] = {}
        self._effects: dict[str, Effects] = {}
        self.clusters: np.ndarray | None = None
        self.matrix: DesignMatrix | None = None
        self.moving = self.within = 0
        self.at_mean: dict[str, int] = {}

    def _require_controls(self) -> None:
        if self.design.controls == "never" or self.method == "callaway_santanna":
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
        return Table(CELLS, self._keys(), self.rows, sums=sums, minima=lows, maxima=highs)

    def load(self, tables: Mapping[str, pl.DataFrame]) -> Mapping[str, int]:
        left = super().load(tables)
        if not self.units:
            return left
        early, late = self.by_unit(pl.col(EARLY).min()), self.by_unit(pl.col(LATE).max())
        undated, rows = self.by_unit(pl.col(UNDATED).sum()), self.by_unit(pl.col("n").sum())
        apart = (early != late).fill_null(False) | ((undated > 0) & (undated < rows))
        self._require_constant(("design", "rollout"), self.design.rollout, apart.to_numpy(), early, late)
        self.start = np.array([self._position(value) for value in early.to_list()], dtype=np.intp)
        self.within = int(self._inside(early))
        self._require_comparison()
        self._require_room()
        self.clusters = self._places()
        self.matrix = self._adjusters() if self.design.adjust else None
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
        shown = ", ".join(repr(visible(self.units[i], 40)) for i in where[: rollout_words.NAMED]) + " …" * (
            len(where) > rollout_words.NAMED
        )
        first, last = low[int(where[0])], high[int(where[0])]
        has = f", which has {self._shown(first)} and {self._shown(last)}" if first != last else ", null on some rows"
        message = f"column {visible(column)!r} varies within {len(where):,} of {len(self.units):,} units: {shown}{has}"
        hint = "give each unit one value on all of its rows"
        raise LogError([self._spec.source.problem(at, message, hint)])

    def _shown(self, value: Any) -> str:
        if isinstance(value, int) and self._length is not None:
            return f"{EPOCH + value * US:%Y-%m-%d %H:%M} UTC"
        return f"{value:g}" if isinstance(value, float) else repr(visible(str(value), 40))

    def _require_comparison(self) -> None:
        """Refuse a panel in which nobody starts, or nobody is left to compare with.

        Raises:
            LogError: Why, with the counts.
        """
        t = self.axis.n
        sides = (self.start == 0, (self.start > 0) & (self.start < t), self.start == t)
        throughout, starting, never = (int(side.sum()) for side in sides)
        starts = len(np.unique(self.start[sides[1]]))
        said = f"{len(self.units):,} units over {t:,} period{'s' * (t != 1)}: {throughout:,} treated from the first "
        said += f"period on, {starting:,} that start later, {never:,} not treated in the window"
        alone = never == 0 and (starts < 2 or self.method == "two_by_two" or self._design_never())
        at: KeyPath = ("design", "rollout")
        if t < 2:
            at, why = ("design", "period"), f"a change needs two periods; {said}"
            hint = "widen the window, or take a shorter design.period"
        elif not starting:
            why = f"no unit starts treatment after the first period; {said}"
            hint = "widen the window to before the rollout; rollout is a unit's first treated period, null: never"
        elif alone:
            why = f"no unit stays untreated; {said}"
            hint = f"null in the column {visible(self.design.rollout)!r} means never"
            hint += ", and 0 does not" * (self._length is None and throughout > 0)
            if starts > 1 and self.method == "callaway_santanna":
                hint += "; units that start later can stand for them: design.controls: not_yet"
        elif self.method == "two_by_two" and starts > 1:
            at, why = ("estimator", "method"), f"two_by_two takes one start, and units start in {starts:,} periods"
            hint = "callaway_santanna takes several starts"
        else:
            return
        raise LogError([self.spec.source.problem(at, why, hint)])

    def _design_never(self) -> bool:
        """Whether only units that are never treated stand for the untreated; an event study takes the last to start."""
        return self.design.controls == "never" and self.method != "event_study"

    def _require_room(self) -> None:
        """Refuse what would not fit in memory: each unit's influence on every rollout's periods.

        Raises:
            LogError: It would not, with the counts.
        """
        n, t = len(self.units), self.axis.n
        starts = len(np.unique(self.start[(self.start > 0) & (self.start < t)]))
        numbers = n * starts * t * (t if self.method == "event_study" else 1)
        if numbers <= MOST_NUMBERS:
            return
        message = f"{n:,} units, {starts:,} rollouts and {t:,} periods are too many for {self.method} at once"
        hint = "take longer periods, or larger units such as regions"
        raise LogError([self.spec.source.problem(("design", "period"), message, hint)])

    def _places(self) -> np.ndarray | None:
        """``(n,)`` cluster of each unit; None where none is mapped, or a unit is seen in several."""
        if not self._logs.has("cluster"):
            return None
        low, high = self.by_unit(pl.col(PLACE_LOW).min()), self.by_unit(pl.col(PLACE_HIGH).max())
        self.moving = int((low != high).sum()) + int(low.null_count())
        return None if self.moving else low.to_numpy()

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
        for i, name in enumerate(self.design.adjust):
            if name in self._text:
                low, high = self.by_unit(pl.col(TEXT_LOW + name).min()), self.by_unit(pl.col(TEXT_HIGH + name).max())
                apart = (low != high).fill_null(False).to_numpy()
                self._require_constant(("design", "adjust", i), name, apart, low, high)
                columns[name] = low
        wanted = list(dict.fromkeys(self.design.adjust))
        made = design_matrix(pl.DataFrame({name: columns[name] for name in wanted}), wanted)
        # Few units without a value would be told from the others by that alone.
        few = [title.endswith(MISSING) and made.x[:, j].sum() < ENOUGH for j, title in enumerate(made.names)]
        self.at_mean = {made.column[j]: int(made.x[:, j].sum()) for j in np.flatnonzero(few)}
        keep = [j for j, gone in enumerate(few) if not gone]
        names, column = (tuple(of[j] for j in keep) for of in (made.names, made.column))
        return DesignMatrix(made.x[:, keep], names, column, made.left_out)

    def counts(self) -> list[int]:
        treated = int(((self.start > 0) & (self.start < self.axis.n)).sum())
        return [int((self.start == self.axis.n).sum()), treated]

    def panel(self, term: Term) -> Panel:
        """The outcomes of a term, with who starts when.

        Raises:
            EstimationError: No unit has a value.
        """
        if term.name not in self._panels:
            x = None if self.matrix is None else self.matrix.x
            y = self.values(term)
            self._panels[term.name] = Panel(y, self.start, x, self.clusters, self.axis.labels)
        return self._panels[term.name]

    def effect(self, term: Term, arm: int, alpha: float) -> Estimate:
        return self._effect(self.panel(term), alpha)

    def effect_without(self, term: Term, hit: NDArray[np.bool_], alpha: float) -> Estimate:
        """The effect as if the units' periods that were hit had not been seen.

        Raises:
            EstimationError: What is left cannot carry it.
        """
        panel = self.panel(term)
        return self._effect(replace(panel, y=np.where(hit, np.nan, panel.y)), alpha)

    def event_times(self, hit: NDArray[np.bool_]) -> list[int]:
        """Periods since the rollout in which treated units were hit."""
        treated = (self.start > 0) & (self.start < self.axis.n)
        since = np.arange(self.axis.n) - self.start[:, None]
        return [int(e) for e in np.unique(since[treated][hit[treated]])]

    def _effect(self, panel: Panel, alpha: float) -> Estimate:
        if self.method == "two_by_two":
            return two_by_two(panel, alpha=alpha)
        if self.method == "event_study":
            self._require_company(panel)
            return event_study(panel, alpha=alpha, seed=self._seed)
        return callaway_santanna(
            panel,
            controls=self.design.controls,
            aggregate=str(self.spec.estimator.options["aggregate"]),
            small=SMALL,
            unbiased=self._few(panel),
            alpha=alpha,
            seed=self._seed,
        )

    @staticmethod
    def _few(panel: Panel) -> bool:
        """Whether some start has so few independent units that the paper's errors are clearly too small."""
        used = panel.comparable()
        codes, _ = used.error_groups()
        sizes = np.bincount(used.cohorts(codes))
        return bool(sizes[sizes > 0].min() < FEW)

    def by_event_time(self, term: Term) -> Effects:
        """Effects by periods since the start, all relative to the last one before it.

        Raises:
            EstimationError: As the methods.
        """
        if term.name not in self._effects:
            self._effects[term.name] = self._by_event_time(self.panel(term))
        return self._effects[term.name]

    def _by_event_time(self, panel: Panel) -> Effects:
        if self.method == "event_study":
            self._require_company(panel)
            return event_study_effects(panel)
        return event_effects(panel, controls=self.design.controls, small=SMALL, unbiased=True)

    @staticmethod
    def _require_company(panel: Panel) -> None:
        """Refuse a regression whose errors leave out how units vary that start alone.

        Raises:
            EstimationError: There are such.
        """
        used = panel.comparable()
        codes, by = used.error_groups()
        cohort = used.cohorts(codes)
        alone = [used.periods[g] for g in used.groups if int((cohort == g).sum()) == 1]
        if alone:
            names = rollout_words.some(alone)
            raise EstimationError(
                f"a single {by} starts in each of {names}, and a regression cannot tell how it varies; "
                "callaway_santanna takes that from the untreated"
            )

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

    def starts(self) -> Codes:
        return self.start

    def assignment(self) -> str:
        return rollout_words.assignment(self)

    def facts(self) -> Mapping[str, Any]:
        return rollout_words.facts(self)

    def remarks(self) -> list[str]:
        return rollout_words.remarks(self)

    def measured(self, metric: Metric) -> str:
        return rollout_words.measured(self, metric)

    def remarks_on(self, metric: Metric, found: Estimate) -> list[str]:
        return rollout_words.remarks_on(metric, found)

    def shown(self, term: Term, effects: Mapping[int, Estimate]) -> Mapping[str, Any]:
        found = effects.get(1)
        if found is None or "event_study" not in found.diagnostics:
            return {}
        return {"event_study": found.diagnostics["event_study"]}

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
