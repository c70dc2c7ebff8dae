"""The reduced evidence of one readout: what the pass is asked for, and what checks and estimates are given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import polars as pl

from estimators.confidence_sequence import confidence_sequence, detectable_effect, sample_factor
from estimators.estimate import Estimate
from estimators.inference import EstimationError, minimum_detectable_effect
from estimators.tail_index import Tail
from readout.errors import LogError, Problem
from readout.logs import Logs
from readout.logs.frame import NO_CHANCE, OUTSIDE, REASONS
from readout.logs.treated import RUNNING, arm_role, arms
from readout.reduce import Table, pilot
from readout.results import MetricResult, Rows, Segments
from readout.samples import Sample
from readout.samples.weak_instruments import WEAK
from readout.segments.groups import Groups
from readout.spec.designs import IV, OPE, RDD
from readout.spec.model import Spec
from readout.terms import OF_ELIGIBLE, UNIT_LEVEL, Term
from readout.text import visible

if TYPE_CHECKING:
    from readout.energy.rows import Attributed

NOT_ELIGIBLE = "not eligible"
ROWS = "rows"
T = TypeVar("T")


def rows_table(sums: Mapping[str, pl.Expr] | None = None) -> Table:
    """Counts over all rows by arm and by the reason they were dropped; any part of readout may add sums to it."""
    keys = {"drop": pl.col("@drop"), "arm": pl.col("@arm_code")}
    return Table(ROWS, keys, sums=sums or {})


def count(test: pl.Expr) -> pl.Expr:
    """A boolean expression as a sum's addend; null counts as false."""
    return test.fill_null(False).cast(pl.Int8)


@dataclass(frozen=True)
class Evidence:
    """Everything after the pass; no row is touched from here on.

    Attributes:
        arms: Control first, then the treatments.
        terms: Metrics and readout's own quantities (``@…``) by name.
        tables: The reduced tables by name.
        left_out: Rows that the sample left out, by reason.
        met: Independent assignments by arm so far where some do not count in the estimates yet; None: the sample's.
        until: The end of observation where units or blocks must be complete, else None.
        attributed: The energy attribution of the unfiltered log; None where the spec asks for none.
        metrics: Results, filled in once the effects stand.
        groups: The levels of the spec's segments.
        segments: What is read of them, filled in as ``metrics`` are.
    """

    spec: Spec
    logs: Logs
    sample: Sample
    terms: Mapping[str, Term]
    tables: Mapping[str, pl.DataFrame]
    left_out: Mapping[str, int]
    metrics: tuple[MetricResult, ...] = ()
    groups: Groups = field(default_factory=Groups)
    segments: Segments = field(default_factory=Segments)
    met: tuple[int, ...] | None = None
    until: datetime | None = None
    attributed: Attributed | None = None
    _effects: dict[tuple[str, int], Estimate | str] = field(default_factory=dict)
    _made: dict[str, Any] = field(default_factory=dict)

    @property
    def arms(self) -> tuple[str, ...]:
        return tuple(arms(self.spec))

    @property
    def treatments(self) -> range:
        """Codes of the treatment arms."""
        return range(1, len(self.arms))

    @property
    def unit_level(self) -> bool:
        """Whether units or requests are randomized one by one."""
        return self.spec.design.kind in UNIT_LEVEL

    @property
    def assigned(self) -> tuple[int, ...]:
        """Independent assignments by arm so far, whether or not they count in the estimates yet."""
        return tuple(self.sample.counts()) if self.met is None else self.met

    @property
    def sequential(self) -> bool:
        """Whether intervals and p-values hold at every look."""
        return self.spec.decision.looks == "sequential"

    def effect(self, name: str, arm: int) -> Estimate | None:
        """The effect of an arm on a term; None, with the reason kept, where the data cannot carry it.

        Its interval and p-value are always-valid under sequential looks.
        """
        return self.effect_at(name, arm, self.spec.decision.alpha)

    def effect_at(self, name: str, arm: int, alpha: float) -> Estimate | None:
        """As :meth:`effect`, with an interval at ``1 - alpha``."""
        key = (name, arm) if alpha == self.spec.decision.alpha else (f"{name} at {alpha!r}", arm)
        if key not in self._effects:
            try:
                if name in self.spec.metrics and name not in self.terms:
                    raise EstimationError("the log does not have it yet")
                term = self.terms[name]
                found = self.sample.effect(term, arm, alpha)
                self._effects[key] = self.as_read(found, term, arm)
            except EstimationError as error:
                self._effects[key] = str(error)
        kept = self._effects[key]
        return kept if isinstance(kept, Estimate) else None

    def as_read(self, estimate: Estimate, term: Term, arm: int) -> Estimate:
        """An estimate of the sample as the memo reads it: with always-valid interval and p-value where looks ask.

        Raises:
            EstimationError: Its method has no such interval.
        """
        if not self.sequential:
            return estimate
        decision = self.spec.decision
        observations = self._observations(estimate, term, arm)
        return confidence_sequence(estimate, alpha=decision.alpha, tuning=decision.tuning, observations=observations)

    def detectable(self, name: str, arm: int) -> float | None:
        """The smallest effect on a term that is found with a power of 80 %, at this look where looks are sequential."""
        found, decision = self.effect(name, arm), self.spec.decision
        if found is None or found.diagnostics.get(WEAK):
            return None  # no standard error says what would be seen
        if not self.sequential:
            return minimum_detectable_effect(found.std_error, found.df, decision.alpha)
        observations = self._observations(found, self.terms[name], arm)
        return detectable_effect(found, alpha=decision.alpha, tuning=decision.tuning, observations=observations)

    def sample_factor(self, name: str, arm: int, size: float) -> float:
        """How many times the sample it takes until an always-valid interval finds an effect of a size on a term that
        has one, with a power of 80 %."""
        found, decision = self.effect(name, arm), self.spec.decision
        assert found is not None
        observations = self._observations(found, self.terms[name], arm)
        return sample_factor(found, size, alpha=decision.alpha, tuning=decision.tuning, observations=observations)

    def _observations(self, estimate: Estimate, term: Term, arm: int) -> int:
        """Independent observations behind an estimate; a quantile's are joined into groups, and count as they were."""
        n, counts = estimate.n_control + estimate.n_treatment, self.sample.counts()
        return max(n, counts[0] + counts[arm]) if term.quantile is not None else n

    def why_not(self, name: str, arm: int) -> str:
        """Why :meth:`effect` gave None."""
        found = self._effects.get((name, arm), "")
        return found if isinstance(found, str) else ""

    def once(self, name: str, make: Callable[[], T]) -> T:
        """What ``make`` gives, made at the first call only: several checks read it."""
        if name not in self._made:
            self._made[name] = make()
        found: T = self._made[name]
        return found

    def tail(self, name: str) -> Tail | None:
        """The tail of a metric's units; None where it cannot be seen."""

        def seen() -> Tail | None:
            try:
                return self.sample.tail(self.terms[name])
            except EstimationError:
                return None

        return self.once(f"tail of {name}", seen)

    def total(self, name: str, arm: int | None = None, kept: bool = True) -> int:
        """A sum of the rows table over kept rows (or all that were read), of one arm or all."""
        frame = self.tables[ROWS]
        if kept:
            frame = frame.filter(pl.col("drop").is_null())
        if arm is not None:
            frame = frame.filter(pl.col("arm") == arm)
        return int(frame[name].sum())

    def amount(self, name: str, arm: int) -> float:
        """As :meth:`total` for a sum of floats, over kept rows of an arm."""
        frame = self.tables[ROWS].filter(pl.col("drop").is_null() & (pl.col("arm") == arm))
        return float(frame[name].sum())

    def rows(self) -> Rows:
        """Rows read, kept, and dropped by reason."""
        by_reason = self.tables[ROWS].group_by("drop").agg(pl.col("n").sum()).sort("drop")
        dropped = {REASONS[r["drop"]]: int(r["n"]) for r in by_reason.iter_rows(named=True) if r["drop"] is not None}
        read = int(by_reason["n"].sum())
        if self.spec.design.kind in OF_ELIGIBLE and self.logs.has("eligible"):
            dropped[NOT_ELIGIBLE] = self.total("not_eligible")
        dropped = {k: v for k, v in {**dropped, **self.left_out}.items() if v}
        return Rows(read, read - sum(dropped.values()), dropped)


NEEDS_CHANCE = (
    "logs.columns.propensity holds the probability of the logged action, above 0 and at most 1: no percentage and no "
    "logarithm; where none was logged, estimator: {propensity: logit} estimates it"
)


def require_rows(rows: Rows, evidence: Evidence) -> None:
    """Refuse logs that leave nothing to compare.

    Raises:
        LogError: No rows, none in the window, or an arm without rows.
    """
    path = visible(", ".join(evidence.spec.logs.path))
    if rows.read == 0:
        raise LogError([Problem(path, "the log has no rows")])
    if rows.kept == 0:
        why = "; ".join(f"{n:,} {reason}" for reason, n in sorted(rows.dropped.items(), key=lambda kv: -kv[1]))
        hint = (
            "nothing has been observed for as long as it is to be: read again later"
            if evidence.until is not None and evidence.left_out
            else _widen(evidence)
            if OUTSIDE in rows.dropped
            else NEEDS_CHANCE
            if max(rows.dropped, key=lambda reason: rows.dropped[reason]) == NO_CHANCE
            else "see logs.where, design and logs.columns"
        )
        raise LogError([Problem(path, f"no row is left of {rows.read:,} read: {why}", hint)])
    if isinstance(evidence.spec.design, IV) and evidence.spec.design.control is None:
        return  # the action is a number, and no row stands under an arm
    if isinstance(evidence.spec.design, OPE):
        return  # all rows are the logging policy's
    empty = [arm for code, arm in enumerate(evidence.arms) if evidence.total("n", code) == 0]
    if empty:
        if arm_role(evidence.spec, evidence.logs.columns) is None:
            raise LogError([_nobody(evidence, empty[0])])
        names = ", ".join(repr(a) for a in empty)
        hint = f"arms in the log: {arms_seen(evidence)}; see design.control and design.treatment, and the window"
        at = ("design", "control") if empty[0] == evidence.arms[0] else ("design", "treatment")
        message = f"no kept row of arm {names}; an effect needs both arms"
        raise LogError([evidence.spec.source.problem(at, message, hint)])


def _nobody(evidence: Evidence, arm: str) -> Problem:
    """That a row's time or running variable puts no row under an arm."""
    design, source = evidence.spec.design, evidence.spec.source
    if isinstance(design, RDD):
        value = pl.col(RUNNING).filter(pl.col("@drop").is_null())
        ends = evidence.logs.frame.select(low=value.min(), high=value.max()).collect(engine="streaming").row(0)
        name = visible(design.running)
        message = f"every kept row stands on one side of the cutoff: {name} runs from {ends[0]:.6g} to {ends[1]:.6g}"
        return source.problem(("design", "cutoff"), message, f"no row of {arm!r}; an effect needs rows on both sides")
    message = f"no kept row is {arm}; an effect needs rows of both kinds"
    return source.problem(("design", "kind"), message, "see design, logs.where and the window")


def _widen(evidence: Evidence) -> str:
    """What to do where the window leaves no row: with the times that the log has."""
    time = pl.col("@time")
    seen = evidence.logs.frame.select(time.min().alias("first"), time.max().alias("last")).collect(engine="streaming")
    first, last = seen.row(0)
    within = "" if first is None else f": the log's times run from {visible(str(first))} to {visible(str(last))}"
    return f"widen logs.start/end or logs.last{within}"


def arms_seen(evidence: Evidence) -> str:
    """The arm labels in slices of the log, for a hint."""
    logs = evidence.logs
    role = f"@{arm_role(evidence.spec, logs.columns)}"
    seen = pilot(logs.frame, [pl.col(role).drop_nulls().unique().implode().alias("arms")], logs.source.rows)
    labels = sorted({str(label) for found in seen["arms"] for label in found})
    return ", ".join(repr(visible(label, 40)) for label in labels[:10]) + (" …" if len(labels) > 10 else "")
