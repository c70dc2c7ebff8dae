"""What has to be summed for each metric: a numerator and a denominator per row."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, replace

import polars as pl

from readout.errors import LogError, Problem, SpecError
from readout.logs import Logs
from readout.spec.metrics import Metric, Robust
from readout.spec.model import Spec
from readout.spec.problems import KeyPath
from readout.text import visible

# Marks the share of rows at one level of a text column.
LEVEL = "@level "
FALLBACK, TIMEOUT, RETRIES = "@fallback", "@timeout", "@retries"
# Marks a column that a metric names as its covariate.
COVARIATE = "@covariate "
# Marks a term at one level of a segment.
SEGMENT = "@segment "
# Marks a metric over the pre-period.
BEFORE = "@before "
UNIT_LEVEL = ("user_rct", "request_rct")
# Designs whose effect is on rows that could be treated.
OF_ELIGIBLE = (*UNIT_LEVEL, "observational", "iv", "ope")


@dataclass(frozen=True, slots=True)
class AtLevel:
    """Where a term stands among the levels of a segment.

    Attributes:
        segment: The segment's place in the spec.
        cells: Values of :meth:`column` on the term's rows.
        whole: The term over the whole log.
    """

    segment: int
    cells: tuple[int, ...]
    whole: Term

    @staticmethod
    def column(segment: int) -> str:
        """The column of the log that holds each row's level and half of the window; null where it has no level."""
        return f"@cell {segment}"


@dataclass(frozen=True, slots=True)
class Term:
    """A mean, ratio, per-unit sum or quantile, as expressions over one row.

    Attributes:
        name: The metric's name; names of readout's own begin with ``@``.
        num: The value; null where the row does not count.
        den: The denominator; None: one for every row with a value.
        per_unit: The sum within a unit, averaged over units.
        quantile: Level of a quantile, None otherwise.
        source: Terms with one source share a histogram.
        missing: True where the row should count and its value is null.
        covariates: What its effect is adjusted for, by the spec's method; each a mean over rows.
        robust: The mean that its effect is of, where that is not the plain one. Sums by arm stay plain.
        before: Its rows are those of the pre-period.
        at: The level of a segment whose rows alone have a value; None: the whole log.
    """

    name: str
    num: pl.Expr
    den: pl.Expr | None = None
    per_unit: bool = False
    quantile: float | None = None
    source: str = ""
    missing: pl.Expr | None = None
    covariates: tuple[Term, ...] = ()
    robust: Robust | None = None
    before: bool = False
    at: AtLevel | None = None

    @property
    def count(self) -> pl.Expr:
        """One for every row that has a value."""
        return self.num.is_not_null().cast(pl.Int8)

    @property
    def label(self) -> str:
        """Its name without the mark of readout's own: ``tier`` of ``@feature tier``; in the pre-period ``x before``."""
        name = self.name.partition(" ")[2] if self.name.startswith("@") else self.name
        return f"{name} before" if self.before else name

    @property
    def weight(self) -> pl.Expr:
        """The denominator as a row expression."""
        return self.count if self.den is None else self.den


def metric_terms(spec: Spec, logs: Logs) -> list[Term]:
    """One term for each metric of the spec; none for a long-run metric whose column the log does not have yet.

    Raises:
        LogError: Columns that are missing or not numeric, all of them at once.
        SpecError: SQL that does not parse, or a metric that the design cannot carry.
    """
    terms: list[Term] = []
    logged: list[Problem] = []
    asked: list[Problem] = []
    for metric in spec.metrics.values():
        if metric.role == "long_run" and not_logged(metric, spec, logs):
            continue
        try:
            terms.append(_term(metric, spec, logs, eligible_only(spec, logs)))
        except LogError as error:
            logged.extend(error.problems)
        except SpecError as error:
            asked.extend(error.problems)
    if asked:
        raise SpecError(asked + logged)
    if logged:
        raise LogError(logged)
    return terms


def not_logged(metric: Metric, spec: Spec, logs: Logs) -> str:
    """Which of a metric's columns the log does not have, or has without a single value, in words; empty where none."""
    schema = logs.source.schema
    names = [name for name in (metric.column, metric.numerator, metric.denominator) if name is not None]
    if metric.expr is not None:
        try:
            names = pl.sql_expr(metric.expr).meta.root_names()
        except Exception:  # what cannot be parsed is said where it is read
            return ""
    others = spec.metrics.values()
    taken = {column for m in others for column in (m.column, m.numerator, m.denominator) if m is not metric}
    for name in names:
        if name not in schema:
            close = difflib.get_close_matches(name, [c for c in schema if c not in taken], n=1)
            near = f" (there is {visible(close[0])!r})" if close else ""
            return f"the log has no column {visible(name)!r}{near}"
        if schema[name] == pl.Null:
            return f"the column {visible(name)!r} is null on every row"
    return ""


def candidates(metric: Metric, spec: Spec, logs: Logs) -> pl.Expr:
    """Rows that should have a value of the metric."""
    keep = _rows_of(metric, spec, logs)
    rows = pl.col("@drop").is_null() if keep is None else pl.col("@drop").is_null() & keep
    return rows & eligible_only(spec, logs)(pl.lit(True)).fill_null(False)


def eligible_only(spec: Spec, logs: Logs) -> Callable[[pl.Expr], pl.Expr]:
    """Keeps a value on eligible rows only, in designs whose effect is on those who could be treated.

    In switchback and cluster designs everybody in the pool feels the policy, so every row counts there.
    """
    if spec.design.kind in OF_ELIGIBLE and logs.has("eligible"):
        return lambda expr: pl.when(pl.col("@eligible").fill_null(False)).then(expr)
    return lambda expr: expr


def untreated(spec: Spec) -> pl.Expr:
    """Rows whose executed action is known and is no treatment's."""
    return pl.col("@executed").is_not_null() & ~pl.col("@executed").is_in(list(spec.design.treatment))


def before_term(metric: Metric, spec: Spec, logs: Logs) -> Term:
    """The metric over all rows of the pre-period: eligible or not, for nobody was treated or could be.

    Raises:
        LogError, SpecError: As :func:`metric_terms`.
    """
    term = _term(replace(metric, on=None, robust=None), spec, logs, lambda expr: expr)
    return replace(term, name=BEFORE + metric.name, missing=None, before=True)


def _term(metric: Metric, spec: Spec, logs: Logs, counts: Callable[[pl.Expr], pl.Expr]) -> Term:
    """The metric over the rows that ``counts`` keeps a value on."""
    at: KeyPath = ("metrics", metric.name)
    read = logs.expressions
    mask = counts
    keep = _rows_of(metric, spec, logs)
    if keep is not None:
        mask = _and(mask, keep)
    if metric.numerator is not None and metric.denominator is not None:
        top = read.number(metric.numerator, (*at, "numerator"))
        bottom = read.number(metric.denominator, (*at, "denominator"))
        both = top.is_not_null() & bottom.is_not_null()
        num, den = mask(pl.when(both).then(top)), mask(pl.when(both).then(bottom))
        return Term(metric.name, num, den, missing=mask(~both), robust=metric.robust)
    if metric.expr is not None:
        # What is not known yet of the long run must not count as false.
        value = read.sql_number(metric.expr, (*at, "expr"), keep_null=metric.role == "long_run")
    else:
        value = read.number(str(metric.column), (*at, "column"))
    per_unit = metric.per == "unit"
    if per_unit and spec.design.kind == "request_rct":
        message = "a unit sees both arms under request_rct, so its sum belongs to neither"
        hint = "randomize units (user_rct) or blocks (switchback), or drop 'per'"
        raise SpecError([spec.source.problem((*at, "per"), message, hint)])
    if per_unit and not logs.has("unit"):
        raise LogError([spec.source.problem((*at, "per"), "'unit' needs the role 'unit' in logs.columns")])
    nothing = value.is_null()
    if per_unit:
        # A row of no unit adds to no unit's sum; it is counted with the nulls.
        nothing = nothing | pl.col("@unit").is_null()
        value = pl.when(~nothing).then(value)
        if keep is not None:
            # A unit without such rows has a sum of nothing, not no sum.
            value = pl.when(keep).then(value).otherwise(0)
            nothing = keep & nothing
            mask = counts
    return Term(
        metric.name,
        mask(value),
        per_unit=per_unit,
        quantile=metric.quantile,
        source=repr((metric.column, metric.expr, metric.where, metric.on)),
        missing=mask(nothing),
        robust=metric.robust,
    )


def _rows_of(metric: Metric, spec: Spec, logs: Logs) -> pl.Expr | None:
    """The rows that the metric is about; None: all."""
    at: KeyPath = ("metrics", metric.name)
    keep = None if metric.where is None else logs.expressions.condition(metric.where, (*at, "where"))
    if metric.on != "untreated":
        return keep
    if not logs.has("executed"):
        message = "'untreated' needs the role 'executed' in logs.columns"
        raise LogError([spec.source.problem((*at, "on"), message)])
    if not spec.design.treatment:
        message = "'untreated' needs design.treatment: rows whose executed action is another"
        raise SpecError([spec.source.problem((*at, "on"), message)])
    return untreated(spec) if keep is None else keep & untreated(spec)


def _and(mask: Callable[[pl.Expr], pl.Expr], keep: pl.Expr) -> Callable[[pl.Expr], pl.Expr]:
    return lambda expr: mask(pl.when(keep).then(expr))
