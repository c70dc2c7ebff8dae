"""Roles of the spec as canonical columns: labels, UTC times, the window, and why a row is dropped."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import polars as pl

from readout.errors import LogError, Problem, SpecError
from readout.logs.sources import Source, find_source
from readout.spec.model import Spec
from readout.text import visible

SINGLE_ROLES = (
    "time", "request", "unit", "cluster", "workflow", "arm", "assigned_at", "eligible",
    "intended", "executed", "fallback", "timeout", "retries", "propensity",
)  # fmt: skip
LIST_ROLES = ("state", "features", "after")
NEEDED = {"user_rct": ("arm",), "request_rct": ("arm",), "switchback": ("arm", "time")}
TIME_ROLES = ("time", "assigned_at")
LABEL_ROLES = ("arm", "intended", "executed")
NUMERIC_ROLES = ("retries", "propensity")
FLAG_ROLES = ("eligible", "timeout")

OUTSIDE = "outside the window"
NO_TIME = "no time"
FILTERED = "logs.where"
NO_ARM = "no arm"
OTHER_ARM = "an arm the spec does not name"
NO_UNIT = "no unit"
REASONS = (OUTSIDE, NO_TIME, FILTERED, NO_ARM, OTHER_ARM, NO_UNIT)


@dataclass(frozen=True, slots=True)
class Logs:
    """The scanned logs with canonical columns beside the raw ones.

    Attributes:
        frame: Raw columns plus ``@role`` for every mapped role (labels as strings, times in UTC), ``@arm_code``
            (0 control, 1… treatments, null other) and ``@drop`` (index in ``REASONS``, null: kept).
        source: The files.
        columns: Role to column name (list roles: tuple of names).
        mapped_unasked: Roles found by their own name.
        window: Start and end in UTC, either may be None.
    """

    frame: pl.LazyFrame
    source: Source
    columns: Mapping[str, str | tuple[str, ...]]
    mapped_unasked: tuple[str, ...]
    window: tuple[datetime | None, datetime | None]

    def has(self, role: str) -> bool:
        """Whether the role is mapped."""
        return bool(self.columns.get(role))

    def dtype(self, column: str) -> pl.DataType:
        """Type of a raw column."""
        return self.source.schema[column]


def open_logs(spec: Spec, as_of: datetime) -> Logs:
    """Scan the spec's logs and map its roles; nothing but footers is read.

    Args:
        spec: A loaded spec.
        as_of: End of a ``last:`` window.

    Raises:
        LogError: Files, columns or types that cannot support the readout, every problem at once.
        SpecError: SQL that does not parse.
    """
    source = find_source(spec.logs.path, spec.base)
    columns, unasked = _map_roles(spec, source.schema)
    window = _window(spec, as_of)
    problems = _problems(spec, source.schema, columns, window)
    if problems:
        raise LogError(problems)
    canonical = {f"@{role}": _canonical(role, columns, source.schema, spec.logs.timezone) for role in _single(columns)}
    frame = source.scan().with_columns(**canonical)
    frame = frame.with_columns(**{"@arm_code": _arm_code(spec, columns)})
    frame = frame.with_columns(**{"@drop": _drop(spec, source.schema, columns, window)})
    return Logs(frame, source, columns, unasked, window)


def sql(text: str, where: str, schema: Mapping[str, pl.DataType]) -> pl.Expr:
    """A Polars expression from a spec's SQL.

    Raises:
        SpecError: It does not parse, or is more than a row-wise expression.
        LogError: It names a column that the logs do not have.
    """
    try:
        expr = pl.sql_expr(text)
        roots = expr.meta.root_names()
    except Exception as error:
        raise SpecError(
            [Problem(where, f"not a SQL expression that can be read: {_short(error)}", visible(text))]
        ) from error
    missing = [name for name in dict.fromkeys(roots) if name not in schema]
    if missing:
        raise LogError([missing_column(f"{where} names the column", name, schema) for name in missing])
    try:
        empty = pl.DataFrame(schema=dict(schema)).lazy().select(expr.alias("value")).collect()
    except Exception as error:
        raise SpecError(
            [Problem(where, f"cannot be computed from the log's columns: {_short(error)}", visible(text))]
        ) from error
    if len(empty) and roots:
        raise SpecError([Problem(where, "must give one value a row, not an aggregate", visible(text))])
    return expr


def condition(text: str, where: str, schema: Mapping[str, pl.DataType]) -> pl.Expr:
    """As :func:`sql`, and boolean; a null counts as false."""
    expr = sql(text, where, schema)
    dtype = pl.DataFrame(schema=dict(schema)).lazy().select(expr.alias("value")).collect_schema()["value"]
    if dtype != pl.Boolean:
        raise SpecError([Problem(where, f"must be true or false for each row; this is {dtype}", visible(text))])
    return expr.fill_null(False)


def label(expr: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Values as labels: strings as they are, whole floats as their integers, booleans as true and false."""
    if dtype == pl.String:
        return expr
    if dtype.is_float():
        whole = expr.is_finite() & (expr == expr.floor()) & (expr.abs() < 2**53)
        return pl.when(whole).then(expr.cast(pl.Int64, strict=False).cast(pl.String)).otherwise(expr.cast(pl.String))
    return expr.cast(pl.String)


def to_utc(expr: pl.Expr, dtype: pl.DataType, timezone: str) -> pl.Expr:
    """A timestamp or date column as UTC microseconds; without a zone it is read in ``timezone``."""
    if dtype == pl.Date:
        expr, dtype = expr.cast(pl.Datetime("us")), pl.Datetime("us")
    assert isinstance(dtype, pl.Datetime)
    if dtype.time_zone is None:
        expr = expr.dt.replace_time_zone(timezone, ambiguous="earliest", non_existent="null")
    return expr.dt.convert_time_zone("UTC").dt.cast_time_unit("us")


def _single(columns: Mapping[str, str | tuple[str, ...]]) -> list[str]:
    return [role for role in SINGLE_ROLES if role in columns]


def _map_roles(
    spec: Spec, schema: Mapping[str, pl.DataType]
) -> tuple[dict[str, str | tuple[str, ...]], tuple[str, ...]]:
    given = spec.logs.columns
    columns: dict[str, str | tuple[str, ...]] = {}
    unasked = []
    for role in SINGLE_ROLES:
        name = getattr(given, role)
        if name is None and role in schema:
            name = role
            unasked.append(role)
        if name is not None:
            columns[role] = name
    for role in LIST_ROLES:
        if names := tuple(getattr(given, role)):
            columns[role] = names
    return columns, tuple(unasked)


def _window(spec: Spec, as_of: datetime) -> tuple[datetime | None, datetime | None]:
    if spec.logs.last is not None:
        return as_of - spec.logs.last, as_of
    return _instant(spec.logs.start), _instant(spec.logs.end)


def _instant(value: object) -> datetime | None:
    if value is None:
        return None
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    if isinstance(value, int):
        raise SpecError(
            [Problem("logs", "an integer period is for panel designs; expected a time such as 2026-10-05T00:00Z")]
        )
    return datetime.fromisoformat(str(value)).replace(tzinfo=UTC)


def _problems(
    spec: Spec,
    schema: Mapping[str, pl.DataType],
    columns: Mapping[str, str | tuple[str, ...]],
    window: tuple[datetime | None, datetime | None],
) -> list[Problem]:
    problems = []
    for role, mapped in columns.items():
        for name in [mapped] if isinstance(mapped, str) else mapped:
            if name not in schema:
                problems.append(missing_column(f"logs.columns.{role} names the column", name, schema))
            elif problem := _wrong_type(role, name, schema[name]):
                problems.append(problem)
    needed = list(NEEDED.get(spec.design.kind, ()))
    if any(window) and "time" not in needed:
        needed.append("time")
    for role in needed:
        if role not in columns:
            problems.append(
                Problem(
                    f"logs.columns.{role}",
                    f"{spec.design.kind} needs a column for the role {role!r}{' to have a window' * (role == 'time')}",
                    f"the log has: {_listing(schema)}",
                )
            )
    return problems


def _wrong_type(role: str, name: str, dtype: pl.DataType) -> Problem | None:
    expected = ""
    if role in TIME_ROLES and not isinstance(dtype, pl.Datetime | pl.Date):
        expected = "a timestamp or a date"
    elif role in NUMERIC_ROLES and not dtype.is_numeric():
        expected = "numbers"
    elif role in FLAG_ROLES and not (dtype == pl.Boolean or dtype.is_numeric()):
        expected = "true/false or 0/1"
    elif role in (*LABEL_ROLES, "unit", "cluster", "request", "workflow") and dtype.is_nested():
        expected = "labels (text, whole numbers or booleans)"
    if not expected:
        return None
    if dtype == pl.Null:
        return Problem(f"logs.columns.{role}", f"column {visible(name)!r} is all null; expected {expected}")
    return Problem(f"logs.columns.{role}", f"column {visible(name)!r} is {dtype}; expected {expected}")


def missing_column(what: str, name: str, schema: Mapping[str, pl.DataType]) -> Problem:
    close = difflib.get_close_matches(name, list(schema), n=1)
    hint = f"did you mean {visible(close[0])!r}? " if close else ""
    where, _, rest = what.partition(" ")
    return Problem(
        where, f"{rest} {visible(name)!r}, which the log does not have", f"{hint}the log has: {_listing(schema)}"
    )


def _listing(schema: Mapping[str, pl.DataType], limit: int = 40) -> str:
    names = [visible(n, 60) for n in schema]
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _canonical(
    role: str, columns: Mapping[str, str | tuple[str, ...]], schema: Mapping[str, pl.DataType], timezone: str
) -> pl.Expr:
    name = columns[role]
    assert isinstance(name, str)
    expr, dtype = pl.col(name), schema[name]
    if role in TIME_ROLES:
        return to_utc(expr, dtype, timezone)
    if role in LABEL_ROLES:
        return label(expr, dtype)
    if role in FLAG_ROLES:
        return expr if dtype == pl.Boolean else expr != 0
    if role == "fallback":
        return _fell_back(expr, dtype)
    if dtype in (pl.Categorical, pl.Enum):
        return expr.cast(pl.String)
    return expr


def _fell_back(expr: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """True where the log says that the request fell back: a reason, a true flag or a positive count."""
    if dtype == pl.Boolean:
        return expr.fill_null(False)
    if dtype.is_numeric():
        return (expr > 0).fill_null(False)
    if dtype == pl.Null:
        return pl.lit(False)
    return expr.is_not_null() & (expr.cast(pl.String) != "")


def _arm_code(spec: Spec, columns: Mapping[str, str | tuple[str, ...]]) -> pl.Expr:
    if "arm" not in columns:
        return pl.lit(None, dtype=pl.Int8)
    labels = arms(spec)
    chain: Any = pl.when(pl.col("@arm") == labels[0]).then(pl.lit(0, dtype=pl.Int8))
    for code, name in enumerate(labels[1:], start=1):
        chain = chain.when(pl.col("@arm") == name).then(pl.lit(code, dtype=pl.Int8))
    expr: pl.Expr = chain.otherwise(None)
    return expr


def arms(spec: Spec) -> Sequence[str]:
    """Control first, then the treatments, as labels."""
    control = spec.design.control
    return ((control,) if control is not None else ()) + tuple(spec.design.treatment)


def _drop(
    spec: Spec,
    schema: Mapping[str, pl.DataType],
    columns: Mapping[str, str | tuple[str, ...]],
    window: tuple[datetime | None, datetime | None],
) -> pl.Expr:
    """The first reason to leave a row out, as its place in ``REASONS``; null keeps it."""
    steps: list[tuple[pl.Expr, str]] = []
    start, end = window
    if "time" in columns and (start is not None or end is not None or spec.design.kind == "switchback"):
        steps.append((pl.col("@time").is_null(), NO_TIME))
        inside = (pl.lit(True) if start is None else pl.col("@time") >= start) & (
            pl.lit(True) if end is None else pl.col("@time") < end
        )
        steps.append((~inside, OUTSIDE))
    if spec.logs.where is not None:
        steps.append((~condition(spec.logs.where, "logs.where", schema), FILTERED))
    if "arm" in columns:
        steps.append((pl.col("@arm").is_null(), NO_ARM))
        steps.append((pl.col("@arm_code").is_null(), OTHER_ARM))
    if "unit" in columns and spec.design.kind == "user_rct":
        steps.append((pl.col("@unit").is_null(), NO_UNIT))
    if not steps:
        return pl.lit(None, dtype=pl.Int8)
    chain: Any = pl.when(steps[0][0]).then(_reason(steps[0][1]))
    for test, reason in steps[1:]:
        chain = chain.when(test).then(_reason(reason))
    expr: pl.Expr = chain.otherwise(None)
    return expr


def _reason(reason: str) -> pl.Expr:
    return pl.lit(REASONS.index(reason), dtype=pl.Int8)


def _short(error: Exception) -> str:
    text = str(error).strip()
    return visible(text.splitlines()[0] if text else type(error).__name__, 160)
