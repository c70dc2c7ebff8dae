"""Requests with what the logging policy did on each and with what chance: the sample of an off-policy evaluation.

Scores of the target policy are summed by unit in streaming passes, so that memory grows with units, not rows. What
needs single rows (boosting, propensities that are estimated) holds them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from estimators.estimate import Estimate
from estimators.inference import EstimationError
from estimators.left_out import LeftOut
from estimators.policy_value import policy_value
from estimators.weight_diagnostics import WeightDiagnostics, weight_diagnostics_from
from readout.errors import LogError, SpecError
from readout.logs import Logs
from readout.logs.treated import rules_of
from readout.reduce import Table, collect
from readout.samples import encoding as encodings
from readout.samples import policy_cells
from readout.samples import policy_words as said
from readout.samples import target as targets
from readout.samples.base import KEPT, NoTail
from readout.samples.held import finite_table
from readout.samples.policy_columns import first_values, model_columns, policy_first
from readout.samples.policy_held import score_held
from readout.samples.policy_rows import How, Rows, shared
from readout.samples.policy_scores import Scored, score
from readout.samples.policy_sums import caps_below, unit_sums, unused
from readout.samples.policy_support import UNSUPPORTED, judged
from readout.samples.policy_terms import in_several, lost, of_those_seen, seen
from readout.samples.state_cells import Cells, cells_of
from readout.spec.designs import OPE
from readout.spec.metrics import Metric
from readout.spec.model import Spec
from readout.spec.problems import KeyPath
from readout.terms import Term, eligible_only
from readout.text import visible

FOLDS, HEAVIEST = "policy folds", "largest weight"
FOLD_AT: KeyPath = ("estimator", "folds", "column")
MODEL = "@model "
# An effect is seen with a power of 80 % at 5 % where it is so many standard errors.
SEEN = 2.8
# How far the mean weight may lie from 1, and how many of its standard errors that must be.
OFF, SURELY = 0.1, 4.0


@dataclass(frozen=True, slots=True)
class Weights:
    """What the weights of the target policy look like.

    Attributes:
        found: Of single requests.
        weighted: Requests with a weight above 0.
        largest_share, rows_share: The heaviest unit's share of the weight as used, and of the requests.
    """

    found: WeightDiagnostics
    weighted: int
    largest_share: float
    rows_share: float


class OffPolicy(NoTail):
    """Rows of the logging policy, scored for the target."""

    def __init__(self, spec: Spec, logs: Logs, seed: int = 0) -> None:
        self.method = spec.estimator.method
        self._spec, self._logs, self._seed = spec, logs, seed
        self.held = ""
        counts = eligible_only(spec, logs)(pl.lit(True)).fill_null(False) if logs.has("eligible") else None
        self.rows = KEPT if counts is None else KEPT & counts
        self.options = spec.estimator.options
        self.target = targets.target_of(spec, logs, self.rows)
        self.propensity = logs.has("propensity")
        self._require_known()
        names = model_columns(spec, logs)
        if self.models or self.estimated:
            encodings.require_fit(spec, logs, names)
        self.columns = tuple(names)
        design = spec.design
        assert isinstance(design, OPE)
        self.cells: Cells = cells_of(logs, policy_first(spec, logs), rules_of(design))

    @property
    def unit(self) -> str:
        return "unit" if self._logs.has("unit") else "request"

    @property
    def models(self) -> bool:
        """Whether rewards are modelled."""
        return self.method in ("doubly_robust", "direct_method")

    @property
    def estimated(self) -> bool:
        """Whether the propensities are estimated."""
        return bool(self.options["propensity"] != "logged")

    @property
    def _boosted(self) -> bool:
        return self.models and self.options["outcome"] == "boosting"

    @property
    def _holds(self) -> bool:
        """Whether single rows are needed."""
        return self.estimated or self._boosted

    @property
    def _fold_column(self) -> str | None:
        given = self.options["folds"]
        return str(given["column"]) if isinstance(given, Mapping) else None

    def tables(self, terms: Sequence[Term]) -> list[Table]:
        first = next(m.name for m in self._spec.metrics.values() if m.role == "primary")
        self._terms = sorted(terms, key=lambda term: term.name != first)
        self._pilot = first_values(self._logs, self._terms[0])
        schema = self._logs.source.schema
        numbers = {MODEL + name: pl.col(name) for name in self.columns if schema[name].is_float()}
        known = {f"seen {t.name}": seen(t).cast(pl.Int8) for t in self._terms}
        known |= {f"lost {t.name}": lost(t).cast(pl.Int8) for t in self._terms}
        heaviest = {}
        if self.propensity:
            weight = self.target.chance / pl.col("@propensity").cast(pl.Float64)
            heaviest[HEAVIEST] = weight.fill_nan(None)
        found = [
            finite_table(terms, numbers),
            targets.table(self.target, self._logs, self._spec, self.rows),
            Table(targets.TABLE, {}, where=self.rows, sums=known, maxima=heaviest),
        ]
        found += policy_cells.tables(self._logs, self.cells, self.target, self.rows, self.propensity)
        if self.models:
            found += encodings.tables(self._logs, self.columns, self.rows)
        return [*found, *(self._fold_tables() if self.models or self.estimated else ())]

    def again(self, reduced: Mapping[str, pl.DataFrame]) -> list[Table]:
        return []

    def load(self, tables: Mapping[str, pl.DataFrame]) -> Mapping[str, int]:
        self._tables = tables
        targets.require(self.target, self._spec, tables[targets.TABLE])
        present = tables[targets.TABLE].row(0, named=True)
        self.n_rows = int(present["n"])
        units = self._unit_names()
        self.n_units = self.n_rows if units is None else len(units)
        coded = None if units is None else units.with_row_index("code").select("unit", "code")
        most = float(present.get(HEAVIEST) or 0.0)
        self._lost = {t.name: int(n) for t in self._terms if (n := present[f"lost {t.name}"])}
        terms = {t.name: of_those_seen(t) if t.name in self._lost else t for t in self._terms}
        self._ratios = frozenset(name for name, term in terms.items() if term.den is not None)
        self._rows = Rows(
            logs=self._logs,
            rows=self.rows,
            target=self.target,
            terms=list(terms.values()),
            encoding=encodings.encoding(self._logs, self.columns, tables) if self.models and not self._holds else None,
            units=coded,
            n=self.n_units,
            total=self.n_rows,
            propensity=self.propensity,
            complete=frozenset(t for t in terms if present[f"seen {t}"] + present[f"lost {t}"] == self.n_rows),
        )
        codes = self._fold_codes(tables)
        self._how = How(
            method=self.method,
            clip=_number(self.options["clip"]),
            switch=_number(self.options.get("switch", "none")),
            folds=int(self.options["folds"]) if codes is None else len(codes),
            fold_codes=codes,
            fold_column=self._fold_column,
            seed=self._seed,
            caps=caps_below(most),
        )
        return {}

    @cached_property
    def scored(self) -> Scored | str:
        """What the passes found, or why they could not."""
        if why := self.blind:
            return why
        try:
            if not self._holds:
                return score(self._rows, self._how)
            scored, held = score_held(self._spec, self._rows, self._how, self.options, self.columns)
            self.held = held.said
            return scored
        except EstimationError as error:
            return str(error)

    @property
    def blind(self) -> str:
        """Why nothing can be valued, in words; empty where something can."""
        return said.blind(self)

    def weights(self) -> Weights | None:
        """What the weights look like, before any is cut; None where no request has one.

        Raises:
            EstimationError: There are no scores.
        """
        scored = self._read()
        if not scored.positive:
            return None
        found = weight_diagnostics_from(scored.top, n=self.n_rows, total=scored.total, squares=scored.squares)
        by_unit, rows = scored.sums.get("w"), scored.sums.get("n")
        heaviest = int(by_unit.argmax())
        return Weights(
            found, scored.positive, float(by_unit[heaviest] / by_unit.sum()), float(rows[heaviest] / rows.sum())
        )

    def off_balance(self) -> float | None:
        """The mean weight where it is not 1: beyond chance and by more than a tenth.

        Raises:
            EstimationError: There are no scores.
        """
        scored = self._read()
        by_unit, rows = scored.sums.get("w"), scored.sums.get("n")
        if self._how.clip is not None or self._how.switch is not None or len(rows) < 2:
            return None
        mean = float(by_unit.sum() / rows.sum())
        rest = by_unit - mean * rows
        error = math.sqrt(float(rest @ rest) * len(rest) / (len(rest) - 1)) / float(rows.sum())
        return mean if abs(mean - 1.0) > max(OFF, SURELY * error) else None

    def spread_and_goal(self) -> tuple[float, float]:
        """Standard deviation of the first primary on a request, from slices of the log, and the standard error at which
        its minimum effect (2 % of its mean where none is stated) is seen with a power of 80 %."""
        mean, spread = self._pilot
        effect = self._spec.metrics[self._terms[0].name].minimum_effect
        size = 0.02 * abs(mean) if effect is None else effect.value * (abs(mean) if effect.relative else 1.0)
        return spread, (size or 0.02 * spread) / SEEN

    def supported(self, code: int) -> bool:
        """Whether the policy that always takes an action has support in all but a hundredth of the requests."""
        return judged(policy_cells.constant(self.cells, code, self._tables)).share <= UNSUPPORTED

    def counts(self) -> list[int]:
        return [self.n_units, self.n_units]

    def mixed(self) -> tuple[int, int]:
        return 0, self.n_units

    def effect(self, term: Term, arm: int, alpha: float) -> Estimate:
        scored = self._read()
        prefix = shared(self._rows, term)
        sums = unit_sums(
            scored.sums, term.name, prefix, term.name in self._ratios, self.method, scored.largest,
            scored.clipped.get(prefix, (0.0, 0.0)),
        )  # fmt: skip
        return policy_value(sums, method=self.method, alpha=alpha)

    def left_out(self, term: Term, value: float) -> LeftOut:
        """What weights that are not used would change of the target's value.

        Raises:
            EstimationError: There are no scores, or too few units.
        """
        prefix, ratio = shared(self._rows, term), term.name in self._ratios
        return unused(self._read().sums, term.name, prefix, ratio, self.method, value)

    def arm_total(self, term: Term, arm: int) -> tuple[float, float]:
        """Sums of numerator and denominator over the requests: as logged, or as the target would have them."""
        scored = self._read()
        prefix = shared(self._rows, term)
        rows = scored.sums.get(f"{prefix}n")
        if not rows.any():
            raise EstimationError("no row has a value of it")
        num, den = ("ln", "ld") if arm == 0 else ("tn", "td")
        ratio = term.name in self._ratios
        below = float(scored.sums.get(f"{term.name}|{den}").sum()) if ratio else float(rows.sum())
        above = float(scored.sums.get(f"{term.name}|{num}").sum())
        if arm and not ratio and self.method == "snips":
            above *= below / float(scored.sums.get(f"{prefix}w").sum())
        return above, below

    def level_keys(self) -> Mapping[str, pl.Expr]:
        return {"arm": pl.col("@arm_code")}

    def level_shares(self, frame: pl.DataFrame, arm: int) -> tuple[np.ndarray, np.ndarray]:
        raise AssertionError("no arm of an off-policy evaluation was drawn")

    def assignment(self) -> str:
        return said.assignment(self._spec, self._logs, self)

    def facts(self) -> Mapping[str, Any]:
        return said.facts(self)

    def remarks(self) -> list[str]:
        return said.remarks(self._spec, self)

    def measured(self, metric: Metric) -> str:
        return said.measured(metric)

    def remarks_on(self, metric: Metric, found: Estimate) -> list[str]:
        return said.remarks_on(self._spec, self, metric, found)

    def shown(self, term: Term, effects: Mapping[int, Estimate]) -> Mapping[str, Any]:
        found = effects.get(1)
        return {} if found is None else said.shown(self._spec, self, term, found)

    def lost(self, name: str) -> int:
        """Rows that should have a value of a term and have none."""
        return self._lost.get(name, 0)

    @property
    def encoding(self) -> encodings.Encoding | None:
        """How the models read rows; None where nothing is modelled."""
        return self._rows.encoding

    @property
    def how(self) -> How:
        """What the passes were asked for."""
        return self._how

    def read(self) -> Scored:
        """The scores.

        Raises:
            EstimationError: There are none.
        """
        return self._read()

    def _read(self) -> Scored:
        found = self.scored
        if isinstance(found, str):
            raise EstimationError(found)
        return found

    def _require_known(self) -> None:
        """A model of the rewards needs to know what the target does where another action was logged.

        Raises:
            SpecError: It is not said.
        """
        if self.method == "direct_method" and self._boosted:
            hint = "outcome: linear, or method: doubly_robust, which corrects what the trees miss"
            message = "the direct method with boosting has no error that can be stood behind"
            raise SpecError([self._spec.source.problem(("estimator", "outcome"), message, hint)])
        if self.models and not self.target.whole:
            message = (
                f"{self.method} needs the target policy's probability of every action, not of the logged one alone"
            )
            hint = (
                "give a list column or {action: column}, or target_policy: {column: the action that it drew}; "
                "estimator: snips or ips needs no more than the logged one's"
            )
            raise SpecError([self._spec.source.problem(targets.PROBABILITY, message, hint)])

    def _unit_names(self) -> pl.DataFrame | None:
        """The units in order of their names; None where every row is one.

        Looked up after the pass and not in it: what is read at once by several queries is held in memory at once.
        """
        if not self._logs.has("unit"):
            return None
        names = self._logs.frame.filter(self.rows).select(pl.col("@unit").alias("unit")).unique()
        return collect([names])[0].sort("unit")

    def _fold_tables(self) -> list[Table]:
        if (name := self._fold_column) is None:
            return []
        fold = self._logs.expressions.column(name, FOLD_AT)
        keys = {"unit": pl.col("@unit"), "fold": fold} if self._logs.has("unit") else {"fold": fold}
        return [Table(FOLDS, keys, where=self.rows)]

    def _fold_codes(self, tables: Mapping[str, pl.DataFrame]) -> tuple[Any, ...] | None:
        """Values of the column of folds.

        Raises:
            LogError: Nulls, a single fold, or a unit in two of them.
        """
        if FOLDS not in tables:
            return None
        frame, shown = tables[FOLDS], f"column {visible(str(self._fold_column))!r}"
        problem = ""
        if frame["fold"].null_count():
            nulls = int(frame.filter(pl.col("fold").is_null())["n"].sum())
            problem = f"{shown} is null on {nulls:,} kept rows; expected a fold for each"
        elif frame["fold"].n_unique() < 2:
            problem = f"{shown} has one value throughout; expected two folds or more"
        elif "unit" in frame.columns and (apart := in_several(frame["unit"])):
            problem = f"{shown} puts the rows of {apart:,} units into several folds; a model would have seen its unit"
        if problem:
            raise LogError([self._spec.source.problem(FOLD_AT, problem)])
        return tuple(frame["fold"].unique().sort().to_list())


def _number(option: Any) -> float | None:
    return None if option == "none" else float(option)
