"""A few treated units against a weighted mean of the others: the sample of a synthetic control."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl

from estimators import synthetic_control, synthetic_did
from estimators.donors import Block, block
from estimators.estimate import Estimate
from estimators.inference import EstimationError
from estimators.panel import Panel
from estimators.placebos import rank
from estimators.synthetic_did import penalties, weigh
from readout.errors import LogError
from readout.logs import Logs
from readout.memo import numbers
from readout.samples.panel import EPOCH, US, Codes, UnitPeriods
from readout.spec.designs import SyntheticControl
from readout.spec.metrics import Metric
from readout.spec.model import Spec
from readout.terms import Term
from readout.text import duration, visible

NAMED = 5
# Sets of units that several treated ones are ranked among.
DRAWS, PLACEBOS = 999, 200


class Synthetic(UnitPeriods):
    """A panel whose treated units, named by the spec, start together.

    The period that holds ``design.rollout_at`` is the first treated one.

    Attributes:
        start: Position of the first treated period.
        treated: ``(n,)`` which units are treated.
    """

    def __init__(self, spec: Spec, logs: Logs, seed: int = 0) -> None:
        super().__init__(spec, logs, seed)
        assert isinstance(spec.design, SyntheticControl)
        self._design = spec.design
        self._panels: dict[str, Panel] = {}
        self._errors: dict[str, list[float]] = {}

    def load(self, tables: Mapping[str, pl.DataFrame]) -> Mapping[str, int]:
        left = super().load(tables)
        if not self.units:
            return left
        names = set(self._design.treated)
        self.treated = np.array([unit in names for unit in self.units], dtype=bool)
        self.start = self._position()
        self._require_comparison()
        return left

    def _position(self) -> int:
        """Position of the period that holds the rollout."""
        at = self._design.rollout_at
        if isinstance(at, datetime):
            assert self._length is not None
            return self.axis.position((at - EPOCH) // US // self._length)
        return self.axis.position(at)

    def _inside(self) -> bool:
        """Whether the rollout falls in the course of a period."""
        at = self._design.rollout_at
        return isinstance(at, datetime) and self._length is not None and bool((at - EPOCH) // US % self._length)

    def _require_comparison(self) -> None:
        """Refuse names that no unit bears, and a rollout that leaves no time before or after it.

        Raises:
            LogError: All of it at once.
        """
        source, problems = self._spec.source, []
        shown = ", ".join(repr(visible(u, 40)) for u in self.units[:NAMED]) + " …" * (len(self.units) > NAMED)
        for i, name in enumerate(self._design.treated):
            if name not in self.units:
                close = difflib.get_close_matches(name, self.units, n=1)
                hint = f"did you mean {visible(close[0], 40)!r}? " if close else ""
                message = f"no kept row is of the unit {visible(name, 40)!r}"
                at = ("design", "treated", i)
                problems.append(source.problem(at, message, f"{hint}units in the log: {shown}"))
        labels = self.axis.labels
        seen = f"the kept rows' periods run from {labels[0]} to {labels[-1]}"
        if self.start == 0:
            message = f"no period before the rollout: {seen}"
            problems.append(source.problem(("design", "rollout_at"), message, "widen the window to before it"))
        if self.start >= self.axis.n:
            message = f"no period from the rollout on: {seen}"
            problems.append(source.problem(("design", "rollout_at"), message, "the treated show no effect before it"))
        if self.treated.all():
            problems.append(source.problem(("design", "treated"), "every unit in the log is treated; expected donors"))
        if problems:
            raise LogError(problems)

    def starts(self) -> Codes:
        return np.where(self.treated, self.start, self.axis.n).astype(np.intp)

    def counts(self) -> list[int]:
        return [int((~self.treated).sum()), int(self.treated.sum())]

    def panel(self, term: Term) -> Panel:
        """The outcomes of a term, with who is treated from when.

        Raises:
            EstimationError: No unit has a value.
        """
        if term.name not in self._panels:
            labels, units = self.axis.labels, tuple(visible(unit, 60) for unit in self.units)
            self._panels[term.name] = Panel(self.values(term), self.starts(), periods=labels, units=units)
        return self._panels[term.name]

    def effect(self, term: Term, arm: int, alpha: float) -> Estimate:
        if self.method == "synthetic_did":
            return synthetic_did(self.panel(term), alpha=alpha, seed=self._seed)
        return synthetic_control(self.panel(term), alpha=alpha, draws=DRAWS, seed=self._seed)

    def errors_before(self, term: Term) -> list[float]:
        """Root mean square gap before the rollout: the treated's first, then those of placebos in its place.

        Of synthetic_did around its own mean: that method asks for parallel paths, not for equal ones.

        Raises:
            EstimationError: As the methods.
        """
        if term.name not in self._errors:
            data = block(self.panel(term), self.method)
            if self.method == "synthetic_did":
                found = self._parallel(data)
            else:
                found = [fit.before for fit in rank(data, draws=DRAWS, seed=self._seed).fits]
            self._errors[term.name] = found
        return self._errors[term.name]

    def _parallel(self, data: Block) -> list[float]:
        """Sets of as many donors as are treated stand in their place; the donors one by one where one is treated."""
        many, donors = len(data.treated), data.donors
        if len(donors) <= many + 1:
            raise EstimationError(f"{len(donors)} untreated units are too few for placebos of {many}")
        penalty, rng = penalties(data), np.random.default_rng(self._seed)
        sets = [np.array([j]) for j in donors]
        if many > 1:
            sets = [np.sort(rng.choice(donors, many, replace=False)) for _ in range(PLACEBOS)]
        fits = [weigh(data, data.treated, donors, penalty)]
        fits += [weigh(data, rows, np.setdiff1d(donors, rows), penalty) for rows in sets]
        return [float(one.gap[: data.start].std()) for one in fits]

    def assignment(self) -> str:
        named = ", ".join(visible(unit, 40) for unit, one in zip(self.units, self.treated, strict=True) if one)
        donors, treated = self.counts()
        return (
            f"Nothing was assigned at random: {named} {'was' if treated == 1 else 'were'} treated from "
            f"{self.axis.labels[self.start]} on; {donors:,} units that were not stand for what would have been, in the "
            "mix that followed the treated best before."
        )

    def facts(self) -> Mapping[str, Any]:
        labels = self.axis.labels
        return {
            "period": "as the time column counts" if self._length is None else duration(self._design.period),
            "periods": self.axis.n,
            "first_period": labels[0],
            "last_period": labels[-1],
            "rollout_period": labels[self.start],
            "periods_before": self.start,
            "treated": [visible(u, 60) for u, one in zip(self.units, self.treated, strict=True) if one],
        }

    def remarks(self) -> list[str]:
        found = []
        if self.counts()[1] > 1:
            found.append("several units are treated: they are taken as their mean, each alike whatever its traffic")
        if self._inside():
            found.append("the rollout falls within a period, all of which counts as treated")
        if self._spec.economics is not None:
            found.append("net value against control is that of the treated units' mean; sums by arm are over rows")
        return found

    def measured(self, metric: Metric) -> str:
        if metric.numerator is not None:
            what = f"{metric.numerator} over {metric.denominator} of the treated in a period"
        elif metric.per == "unit":
            what = "sum of a treated unit in a period"
        else:
            what = "mean over the treated's rows in a period"
        what += ", rows that were not treated" * (metric.on == "untreated")
        return (
            f"gap between the {what} and that of the mix of untreated units, averaged over the periods from the rollout"
        )

    def remarks_on(self, metric: Metric, found: Estimate) -> list[str]:
        shown, notes = found.diagnostics, []
        weights = sorted(((w, unit) for unit, w in shown["donor_weights"].items() if w >= 0.005), reverse=True)
        mix = ", ".join(f"{unit} {numbers.percent(w)}" for w, unit in weights[:NAMED])
        notes.append(f"the mix: {mix}" + (f" and {len(weights) - NAMED} more" if len(weights) > NAMED else ""))
        if not math.isfinite(found.ci_low) and not math.isfinite(found.ci_high):
            notes.append(self._no_interval(shown, self._spec.decision.alpha))
        elif self.method == "synthetic_control":
            notes.append(
                f"p = {numbers.p_value(found.p_value)} is the treated's rank among {shown['ranked']} by error after "
                "the rollout over error before it; the interval inverts the rank of the mean gap, so the two may "
                "disagree at the limit"
            )
        if without := shown.get("leave_one_out"):
            low, high = (numbers.number(without[end], 3, True) for end in ("low", "high"))
            decides = ", so that a single donor decides its sign" * (without["low"] < 0.0 < without["high"])
            notes.append(f"without one of the donors it lies between {low} and {high}{decides}")
        if shown.get("unique_weights") is False:
            notes.append("other mixes fit as well before the rollout, so the weights themselves are not to be read")
        return notes

    def _no_interval(self, shown: Mapping[str, Any], alpha: float) -> str:
        ranked = int(shown["ranked"])
        if 1.0 / ranked > alpha:
            return (
                f"no interval: among {ranked} no rank is rarer than 1 in {ranked}, and at alpha {alpha:g} it takes "
                f"{math.ceil(1.0 / alpha)}"
            )
        return "no interval: too many placebos show as large a gap for any effect to be ruled out"

    def narrowed_by(self, metric: str) -> str:
        """What would make an interval narrower, in words for the next step."""
        if self.method == "synthetic_control" and 1.0 / (len(self.units)) > self._spec.decision.alpha:
            least = math.ceil(1.0 / self._spec.decision.alpha)
            return (
                f"Give {metric} an interval: with {len(self.units)} units none is possible at alpha "
                f"{self._spec.decision.alpha:g}; add donors until there are {least} units, or take synthetic_did."
            )
        return (
            f"Narrow the interval of {metric}: more donors that follow the treated closely, more periods before the "
            "rollout, or a rollout to further units in an order that is drawn."
        )

    def shown(self, term: Term, effects: Mapping[int, Estimate]) -> Mapping[str, Any]:
        found = effects.get(1)
        if found is None:
            return {}
        keys = ("donor_weights", "time_weights", "pre_rmspe", "post_rmspe", "gap", "placebo_in_time", "leave_one_out")
        top = {key: found.diagnostics[key] for key in keys if found.diagnostics.get(key) is not None}
        return {**top, "placebos": self._paths(term, found)}

    def _paths(self, term: Term, found: Estimate) -> list[Mapping[str, Any]]:
        """Every placebo's gap by period, for the figure; nothing where several units are treated."""
        rows: list[Mapping[str, Any]] = found.diagnostics.get("placebos") or []
        return rows if self.counts()[1] == 1 else []
