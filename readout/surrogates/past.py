"""The evidence of past experiments, as the spec's Parquet file has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from estimators.ols import Vector
from readout.errors import LogError, Problem
from readout.logs.sources import REMOTE, SAMPLE, find_source
from readout.spec.model import Spec
from readout.text import visible

NEEDED = ("experiment", "short_effect", "short_se", "long_effect", "long_se")
METRIC, CORRELATION = "short_metric", "error_correlation"
_NAMED = 5  # experiments in one message


@dataclass(frozen=True, slots=True, eq=False)
class Past:
    """Past experiments; all arrays are ``(n,)``.

    Attributes:
        experiments: Their names, sorted.
        metric: The short metric of each; empty where the file does not say.
        short, short_se, long, long_se: Estimated effects and their standard errors.
        correlation: Of the two estimates' errors; None where the file does not say.
        own: Whether the file held this very experiment, which was left out.
    """

    experiments: tuple[str, ...]
    metric: tuple[str, ...]
    short: Vector
    short_se: Vector
    long: Vector
    long_se: Vector
    correlation: Vector | None
    own: bool

    def of(self, metric: str) -> Past:
        """Those whose short effect is on a metric; all where the file does not say."""
        if not self.metric:
            return self
        keep = np.array([name == metric for name in self.metric], dtype=bool)
        return replace(
            self,
            experiments=tuple(e for e, k in zip(self.experiments, keep, strict=True) if k),
            metric=tuple(m for m in self.metric if m == metric),
            short=self.short[keep],
            short_se=self.short_se[keep],
            long=self.long[keep],
            long_se=self.long_se[keep],
            correlation=None if self.correlation is None else self.correlation[keep],
        )


def load(spec: Spec) -> Past | None:
    """The spec's evidence; None where it names none or where the file is not there.

    Raises:
        LogError: A file that cannot be read, lacks a column, or holds what no estimate is; every problem at once.
    """
    given = spec.surrogate
    if given is None or given.evidence is None or missing(spec):
        return None
    source = find_source([given.evidence], spec.base)
    absent = [name for name in NEEDED if name not in source.schema]
    if absent:
        has = ", ".join(visible(name, 60) for name in source.schema)
        raise _refusal(spec, [(f"the evidence lacks the column {name!r}", f"it has: {has}") for name in absent])
    numeric = [*NEEDED[1:], *([CORRELATION] if CORRELATION in source.schema else [])]
    wrong = [name for name in numeric if not source.schema[name].is_numeric()]
    if wrong:
        said = [(f"column {name!r} of the evidence is {source.schema[name]}; expected numbers", "") for name in wrong]
        raise _refusal(spec, said)
    labels = ["experiment", *([METRIC] if METRIC in source.schema else [])]
    frame = source.scan().select(
        *(pl.col(n).cast(pl.String) for n in labels), *(pl.col(n).cast(pl.Float64) for n in numeric)
    )
    read = frame.collect().sort(labels, maintain_order=True)
    if problems := _faults(read, labels, numeric):
        raise _refusal(spec, problems)
    rest = read.filter(pl.col("experiment") != spec.name)
    values = {name: rest[name].to_numpy().astype(float) for name in numeric}
    return Past(
        experiments=tuple(rest["experiment"]),
        metric=tuple(rest[METRIC]) if METRIC in rest.columns else (),
        short=values["short_effect"],
        short_se=values["short_se"],
        long=values["long_effect"],
        long_se=values["long_se"],
        correlation=values.get(CORRELATION),
        own=len(rest) < len(read),
    )


def missing(spec: Spec) -> bool:
    """Whether the evidence that the spec names is not there: a local file or folder, without a pattern."""
    path = "" if spec.surrogate is None else spec.surrogate.evidence or ""
    if not path or path.startswith((*REMOTE, SAMPLE, "file://")) or any(mark in path for mark in "*?["):
        return False
    return not (spec.base / path).expanduser().exists()


def notes(spec: Spec) -> list[str]:
    """That the evidence is not there, for those who only check."""
    if spec.surrogate is None or not missing(spec):
        return []
    path = visible(spec.surrogate.evidence or "")
    return [f"surrogate.evidence: {path} is not there (paths are relative to the spec): the memo says surrogate risk"]


def _faults(read: pl.DataFrame, labels: Sequence[str], numeric: Sequence[str]) -> list[tuple[str, str]]:
    """What is wrong with the rows, each with what to do about it."""
    found = []

    def say(test: pl.Expr, what: str, hint: str = "") -> None:
        rows = read.filter(test)
        if len(rows):
            names = [visible(str(name), 40) for name in rows["experiment"]]
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            found.append((f"{what}: {', '.join(names[:_NAMED])}{more}", hint))

    say(pl.any_horizontal(pl.col(n).is_null() for n in labels), "an experiment without a name or a short metric")
    for name in numeric:
        say(
            pl.col(name).is_null() | ~pl.col(name).is_finite(), f"{name!r} is null or not finite", "leave such rows out"
        )
    say(pl.col("short_se") < 0, "'short_se' is below zero")
    say(pl.col("long_se") <= 0, "'long_se' is not above zero", "no long-run effect is known without error")
    if CORRELATION in numeric:
        say(pl.col(CORRELATION).abs() >= 1, f"{CORRELATION!r} is not between -1 and 1")
    twice = "one row an experiment" + (" and short metric" if METRIC in labels else "")
    say(pl.struct(labels).is_duplicated() & (pl.struct(labels).cum_count().over(labels) == 2), "given twice", twice)
    return found


def _refusal(spec: Spec, said: Sequence[tuple[str, str]]) -> LogError:
    problems: list[Problem] = [spec.source.problem(("surrogate", "evidence"), *one) for one in said]
    return LogError(problems)
