"""Long-run outcomes: whether they are in the log, not in yet, or in for some of the rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from readout.errors import SpecError
from readout.evidence import Evidence, count
from readout.logs import Logs
from readout.memo import numbers
from readout.spec.metrics import Metric
from readout.spec.model import Spec
from readout.spec.problems import KeyPath
from readout.terms import Term, candidates, not_logged
from readout.text import visible

ROLE = "long_run"


@dataclass(frozen=True, slots=True)
class Arrived:
    """How much of a long-run outcome is in.

    Attributes:
        known, rows: Rows with a value, and rows that should have one.
        by_arm: The share that is in by arm, control first; empty where rows stand under no arm.
        why: Why nothing is in; empty where something is.
    """

    known: int
    rows: int
    by_arm: Mapping[str, float]
    why: str

    @property
    def absent(self) -> bool:
        """Whether nothing is in."""
        return self.known == 0

    @property
    def partly(self) -> bool:
        """Whether some rows are in and others are not."""
        return 0 < self.known < self.rows

    @property
    def awaited(self) -> bool:
        """Whether it is not in yet, or not whole: no verdict rests on it."""
        return self.known < self.rows or self.absent

    @property
    def words(self) -> str:
        """How much is in, in words."""
        if self.absent:
            return f"not in yet: {self.why}"
        share = numbers.percent(self.known / self.rows, 3)
        arms = ", ".join(f"{visible(arm, 40)} {numbers.percent(one, 3)}" for arm, one in self.by_arm.items())
        return f"in for {share} of the rows" + (f" ({arms})" if arms else "")


def metrics(spec: Spec) -> list[Metric]:
    """The metrics of that role, in the spec's order."""
    return [metric for metric in spec.metrics.values() if metric.role == ROLE]


def arrived(evidence: Evidence, name: str) -> Arrived:
    """How much of a long-run metric is in."""
    if name not in evidence.terms:
        why = not_logged(evidence.spec.metrics[name], evidence.spec, evidence.logs)
        return Arrived(0, evidence.total("n"), {}, why)
    known, rows = (evidence.total(column) for column in (_known(name), _rows(name)))
    by_arm = {}
    for code, arm in enumerate(evidence.arms):
        if of := evidence.total(_rows(name), code):
            by_arm[arm] = evidence.total(_known(name), code) / of
    why = "no kept row has a value" if rows else "no kept row is one that it is about"
    return Arrived(known, rows, by_arm, "" if known else why)


def awaited(evidence: Evidence) -> list[str]:
    """Long-run metrics that no verdict rests on yet."""
    return [metric.name for metric in metrics(evidence.spec) if arrived(evidence, metric.name).awaited]


def sums(spec: Spec, logs: Logs, terms: Sequence[Term]) -> dict[str, pl.Expr]:
    """What says how much is in: rows that a long-run metric is about, and those of them with a value."""
    found: dict[str, pl.Expr] = {}
    for term in terms:
        metric = spec.metrics[term.name]
        if metric.role == ROLE and term.missing is not None:
            rows = candidates(metric, spec, logs)
            found[_rows(term.name)] = count(rows)
            found[_known(term.name)] = count(rows & ~term.missing.fill_null(True))
    return found


def note(found: Arrived) -> str:
    """What a reader must know beside the effect of an outcome that is not in, or not whole; else empty."""
    if found.absent:
        return found.words
    if not found.partly:
        return ""
    shares = list(found.by_arm.values())
    differ = shares and max(shares) - min(shares) >= 0.01
    who = "more are in of one arm than of the other, so part of the effect is who is in" if differ else ""
    who = who or "the arms may differ in who is in"
    return f"{found.words}, so the verdict is withheld: {who}; give it a where that leaves only those observed in full"


def refuse_absent(spec: Spec, terms: Sequence[Term], logs: Logs) -> None:
    """Refuse sections that build on a long-run metric whose column is not in the log.

    Raises:
        SpecError: All such places.
    """
    known = {term.name for term in terms}
    problems = [
        spec.source.problem(
            at, f"{name!r} is not in yet: {not_logged(spec.metrics[name], spec, logs)}", "name another metric"
        )
        for at, name in _built_on(spec)
        if name in spec.metrics and name not in known
    ]
    if problems:
        raise SpecError(problems)


def _built_on(spec: Spec) -> Iterator[tuple[KeyPath, str]]:
    for key in ("value", "cost"):
        priced = getattr(spec.economics, key, None)
        if priced is not None and priced.metric is not None:
            yield ("economics", key, "metric"), priced.metric
    for i, name in enumerate(spec.capacity.outcomes if spec.capacity is not None else ()):
        yield ("capacity", "outcomes", i), name
    for i, trigger in enumerate(spec.rollback):
        if trigger.metric is not None and not trigger.no_movement:
            yield ("rollback", i, "metric"), trigger.metric
    if (control := getattr(spec.design, "negative_control", None)) is not None:
        yield ("design", "negative_control"), control


def _known(name: str) -> str:
    return f"{name}|known"


def _rows(name: str) -> str:
    return f"{name}|about"
