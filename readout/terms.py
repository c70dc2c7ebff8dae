"""What has to be summed for each metric: a numerator and a denominator per row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import polars as pl

from readout.errors import LogError, Problem, SpecError
from readout.logs import Logs
from readout.logs.frame import condition, missing_column, sql
from readout.spec.metrics import Metric
from readout.spec.model import Spec
from readout.text import visible

UNIT_LEVEL = ("user_rct", "request_rct")


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
    """

    name: str
    num: pl.Expr
    den: pl.Expr | None = None
    per_unit: bool = False
    quantile: float | None = None
    source: str = ""
    missing: pl.Expr | None = None

    @property
    def count(self) -> pl.Expr:
        """One for every row that has a value."""
        return self.num.is_not_null().cast(pl.Int64)

    @property
    def weight(self) -> pl.Expr:
        """The denominator as a row expression."""
        return self.count if self.den is None else self.den


def metric_terms(spec: Spec, logs: Logs) -> list[Term]:
    """One term for each metric of the spec.

    Raises:
        LogError: Columns that are missing or not numeric, all of them at once.
        SpecError: SQL that does not parse, or a metric that the design cannot carry.
    """
    terms: list[Term] = []
    logged: list[Problem] = []
    asked: list[Problem] = []
    for metric in spec.metrics.values():
        try:
            terms.append(_term(metric, spec, logs))
        except LogError as error:
            logged.extend(error.problems)
        except SpecError as error:
            asked.extend(error.problems)
    if asked:
        raise SpecError(asked + logged)
    if logged:
        raise LogError(logged)
    return terms


def number(name: str, where: str, logs: Logs) -> pl.Expr:
    """A column as integers or floats; booleans count as 0 and 1."""
    return _numeric(sql_column(name, where, logs), logs.dtype(name), f"{where}: column {visible(name)!r}")


def sql_column(name: str, where: str, logs: Logs) -> pl.Expr:
    """A raw column, or an error that says which columns exist."""
    if name not in logs.source.schema:
        raise LogError([missing_column(f"{where} names the column", name, logs.source.schema)])
    return pl.col(name)


def row_number(text: str, where: str, logs: Logs) -> pl.Expr:
    """A spec's SQL as numbers; a condition counts as 1 where it is true, and a null condition as false."""
    expr, dtype = sql(text, where, logs.source.schema), _dtype(text, logs.source.schema)
    number = _numeric(expr, dtype, where)
    return number.fill_null(0) if dtype == pl.Boolean else number


def eligible_only(spec: Spec, logs: Logs) -> Callable[[pl.Expr], pl.Expr]:
    """Keeps a value on eligible rows only, in designs whose effect is on those who could be treated.

    In switchback and cluster designs everybody in the pool feels the policy, so every row counts there.
    """
    if spec.design.kind in UNIT_LEVEL and logs.has("eligible"):
        return lambda expr: pl.when(pl.col("@eligible").fill_null(False)).then(expr)
    return lambda expr: expr


def untreated(spec: Spec) -> pl.Expr:
    """Rows whose executed action is known and is no treatment's."""
    return pl.col("@executed").is_not_null() & ~pl.col("@executed").is_in(list(spec.design.treatment))


def _term(metric: Metric, spec: Spec, logs: Logs) -> Term:
    where = f"metrics.{metric.name}"
    schema = logs.source.schema
    mask = eligible_only(spec, logs)
    if metric.where is not None:
        keep = condition(metric.where, f"{where}.where", schema)
        mask = _and(mask, keep)
    if metric.on == "untreated":
        if not logs.has("executed"):
            raise LogError([Problem(f"{where}.on", "'untreated' needs the role 'executed' in logs.columns")])
        mask = _and(mask, untreated(spec))
    if metric.numerator is not None and metric.denominator is not None:
        top = number(metric.numerator, f"{where}.numerator", logs)
        bottom = number(metric.denominator, f"{where}.denominator", logs)
        both = top.is_not_null() & bottom.is_not_null()
        num, den = mask(pl.when(both).then(top)), mask(pl.when(both).then(bottom))
        return Term(metric.name, num, den, missing=mask(~both))
    if metric.expr is not None:
        value = _numeric(sql(metric.expr, f"{where}.expr", schema), _dtype(metric.expr, schema), f"{where}.expr")
    else:
        assert metric.column is not None
        value = number(metric.column, f"{where}.column", logs)
    per_unit = metric.per == "unit"
    if per_unit and spec.design.kind == "request_rct":
        hint = "randomize units (user_rct) or blocks (switchback), or drop 'per'"
        raise SpecError(
            [Problem(f"{where}.per", "a unit sees both arms under request_rct, so its sum belongs to neither", hint)]
        )
    if per_unit and not logs.has("unit"):
        raise LogError([Problem(f"{where}.per", "'unit' needs the role 'unit' in logs.columns")])
    source = f"{metric.column or metric.expr}|{metric.where}|{metric.on}"
    missing = mask(value.is_null())
    return Term(metric.name, mask(value), per_unit=per_unit, quantile=metric.quantile, source=source, missing=missing)


def _and(mask: Callable[[pl.Expr], pl.Expr], keep: pl.Expr) -> Callable[[pl.Expr], pl.Expr]:
    return lambda expr: mask(pl.when(keep).then(expr))


def _dtype(expr: str, schema: Mapping[str, pl.DataType]) -> pl.DataType:
    empty = pl.DataFrame(schema=dict(schema)).lazy()
    return empty.select(pl.sql_expr(expr).alias("value")).collect_schema()["value"]


def _numeric(expr: pl.Expr, dtype: pl.DataType, where: str) -> pl.Expr:
    if dtype == pl.Boolean or dtype.is_integer():
        return expr.cast(pl.Int64)
    if dtype.is_float() or dtype.is_decimal():
        return expr.cast(pl.Float64)
    if dtype.is_temporal() or dtype == pl.String or dtype.is_nested() or dtype in (pl.Categorical, pl.Enum, pl.Binary):
        raise LogError([Problem(where, f"is {dtype}; expected numbers or true/false")])
    if dtype == pl.Null:
        raise LogError([Problem(where, "is null on every row; expected numbers")])
    raise LogError([Problem(where, f"is {dtype}; expected numbers")])
