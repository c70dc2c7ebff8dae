"""Roles of the spec as canonical columns: labels, UTC times, the window, and why a row is dropped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from readout.errors import LogError, Problem, SpecError
from readout.logs.expressions import Expressions
from readout.logs.sources import Source, find_source
from readout.logs.treated import RUNNING, arm_code, arm_role, misfit, named_columns, own_columns
from readout.logs.values import label, to_utc
from readout.spec.designs import BY_ROW, PANELS, Switchback
from readout.spec.model import Spec
from readout.spec.problems import KeyPath
from readout.text import visible

SINGLE_ROLES = (
    "time", "request", "unit", "cluster", "workflow", "arm", "assigned_at", "eligible",
    "intended", "executed", "fallback", "timeout", "retries", "propensity",
)  # fmt: skip
LIST_ROLES = ("state", "features", "after")
NEEDED = {
    "user_rct": ("arm",),
    "request_rct": ("arm",),
    "cluster_rct": ("arm", "cluster"),
    "switchback": ("arm", "time"),
    "did": ("unit", "time"),
    "synthetic_control": ("unit", "time"),
    "iv": ("executed",),
    "ope": ("executed",),
}
# Rows without a time count in none of these.
TIMED = ("switchback", *PANELS)
TIME_ROLES = ("time", "assigned_at")
LABEL_ROLES = ("arm", "intended", "executed")
NUMERIC_ROLES = ("retries", "propensity")
FLAG_ROLES = ("eligible", "timeout")
PAIRS: KeyPath = ("design", "pairs")

# A time in UTC, or an integer period of a panel.
Moment = datetime | int
Window = tuple[Moment | None, Moment | None]

OUTSIDE = "outside the window"
NO_TIME = "no time"
FILTERED = "logs.where"
NO_ARM = "no arm"
OTHER_ARM = "an arm the spec does not name"
NO_UNIT = "no unit"
NO_CLUSTER = "no cluster"
NO_BLOCK = "no block"
NO_RUNNING = "no running variable"
NO_ACTION = "no executed action"
NO_CHANCE = "no probability of the logged action, or one that is not in (0, 1]"
PRE_PERIOD = "pre-period"
SKIPPED = "a local time that the clock skipped"
AFTER_AS_OF = "after the as-of time"
REASONS = (
    OUTSIDE, NO_TIME, SKIPPED, FILTERED, NO_ARM, OTHER_ARM, NO_UNIT, NO_CLUSTER, NO_BLOCK, AFTER_AS_OF, PRE_PERIOD,
    NO_RUNNING, NO_ACTION, NO_CHANCE,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Logs:
    """The scanned logs with canonical columns beside the raw ones.

    Attributes:
        frame: Raw columns plus ``@role`` for every mapped role (labels as strings, times in UTC), ``@arm_code``
            (0 control, 1… treatments, null other) and ``@drop`` (index in ``REASONS``, null: kept); with a pre-period
            ``@pre``, true on its rows.
        source: The files.
        expressions: Columns and SQL of the spec over the frame.
        columns: Role to column name (list roles: tuple of names).
        mapped_unasked: Roles found by their own name.
        window: Start and end in UTC, or as integer periods of a panel; either may be None.
        before: Start and end of the pre-period in UTC; None: the design has none.
    """

    frame: pl.LazyFrame
    source: Source
    expressions: Expressions
    columns: Mapping[str, str | tuple[str, ...]]
    mapped_unasked: tuple[str, ...]
    window: Window
    before: tuple[datetime, datetime] | None = None

    def has(self, role: str) -> bool:
        """Whether the role is mapped."""
        return bool(self.columns.get(role))

    @property
    def times(self) -> tuple[datetime | None, datetime | None]:
        """The window where it is of times, not of integer periods."""
        start, end = (moment if isinstance(moment, datetime) else None for moment in self.window)
        return start, end

    def dtype(self, column: str) -> pl.DataType:
        """Type of a raw column."""
        return self.source.schema[column]


def open_logs(spec: Spec, as_of: datetime, *, past: bool = False, source: Source | None = None) -> Logs:
    """Scan the spec's logs and map its roles; nothing but footers is read.

    Args:
        spec: A loaded spec.
        as_of: End of a ``last:`` window.
        past: Logs from before the experiment: no role is needed, and the arm is left alone.
        source: The files, where they have been found already.

    Raises:
        LogError: Files, columns or types that cannot support the readout, every problem at once.
        SpecError: SQL that does not parse, or a pre-period that reaches into the window.
    """
    source = source or find_source(spec.logs.path, spec.base)
    expressions = Expressions(spec, source.schema)
    window = _window(spec, as_of)
    before = _before(spec, window[0])
    needed = dict.fromkeys(() if past else NEEDED.get(spec.design.kind, ()), f"the design {spec.design.kind}")
    if any(moment is not None for moment in window):
        needed["time"] = "a window"
    if before is not None:
        needed[_owner(spec)] = "a pre-period"
    columns, unasked = _map_roles(spec, source.schema, list(needed))
    if spec.design.kind == "observational" and not past and "arm" not in columns:
        needed["executed"] = "the design observational"
    if past:
        columns.pop("arm", None)
    problems = _problems(expressions, columns, needed)
    if problems:
        raise LogError(problems)
    canonical = {f"@{role}": _canonical(role, columns, source.schema, spec.logs.timezone) for role in _single(columns)}
    frame = source.scan().with_columns(**canonical, **own_columns(spec, source.schema))
    frame = frame.with_columns(**{"@arm_code": arm_code(spec, columns)})
    if before is not None:
        frame = frame.with_columns(**{"@pre": _in_pre_period(expressions, before)})
    frame = frame.with_columns(**{"@drop": _drop(expressions, columns, window, before is not None)})
    return Logs(frame, source, expressions, columns, unasked, window, before)


def _single(columns: Mapping[str, str | tuple[str, ...]]) -> list[str]:
    return [role for role in SINGLE_ROLES if role in columns]


def _map_roles(
    spec: Spec, schema: Mapping[str, pl.DataType], needed: Sequence[str]
) -> tuple[dict[str, str | tuple[str, ...]], tuple[str, ...]]:
    """Role to column, and the roles found by their own name.

    A column that only happens to bear a role's name and cannot hold what the role means is mapped where the role is
    needed, so that the error names it, and left alone elsewhere.
    """
    given = spec.logs.columns
    columns: dict[str, str | tuple[str, ...]] = {}
    unasked = []
    for role in SINGLE_ROLES:
        name = getattr(given, role)
        if name is None and role in schema and (role in needed or not _expected(spec, role, schema[role])):
            name = role
            unasked.append(role)
        if name is not None:
            columns[role] = name
    for role in LIST_ROLES:
        if names := tuple(getattr(given, role)):
            columns[role] = names
    return columns, tuple(unasked)


def _window(spec: Spec, as_of: datetime) -> Window:
    if spec.logs.last is not None:
        return as_of.astimezone(UTC) - spec.logs.last, as_of.astimezone(UTC)
    return spec.logs.start, spec.logs.end


def _before(spec: Spec, start: Moment | None) -> tuple[datetime, datetime] | None:
    """The pre-period.

    Raises:
        SpecError: It ends after the window's start.
    """
    given: timedelta | tuple[datetime, datetime] | None = getattr(spec.design, "pre_period", None)
    if given is None or not isinstance(start, datetime):
        return None
    if isinstance(given, timedelta):
        return start - given, start
    if given[1] > start:
        message = f"expected a pair of times that ends by the window's start, {start.isoformat(timespec='minutes')}"
        raise SpecError([spec.source.problem(("design", "pre_period"), message)])
    return given


def _owner(spec: Spec) -> str:
    """The role of what is randomized, whose rows before the window count as its own."""
    return "cluster" if spec.design.kind == "cluster_rct" else "unit"


def _in_pre_period(expressions: Expressions, before: tuple[datetime, datetime]) -> pl.Expr:
    """Rows of the pre-period that ``logs.where`` keeps and that belong to something; they need no arm."""
    spec, (start, end) = expressions.spec, before
    inside = (pl.col("@time") >= start) & (pl.col("@time") < end) & pl.col(f"@{_owner(spec)}").is_not_null()
    if spec.logs.where is not None:
        inside &= expressions.condition(spec.logs.where, ("logs", "where"))
    return inside.fill_null(False)


def _problems(
    expressions: Expressions, columns: Mapping[str, str | tuple[str, ...]], needed: Mapping[str, str]
) -> list[Problem]:
    """Every mapped column that is missing or of a wrong type, and every needed role that is not mapped."""
    spec, schema = expressions.spec, expressions.schema
    own = {f"@{role}" for role in SINGLE_ROLES}
    own |= {"@arm_code", "@drop", "@rollout", "@running", "@pre", "@owner", "@code", "@wait", "@key", "@exposed until"}
    problems = [
        Problem(", ".join(spec.logs.path), f"column {visible(name)!r} has a name that readout uses itself", "rename it")
        for name in schema
        if name in own
    ]
    for role, mapped in columns.items():
        names = [mapped] if isinstance(mapped, str) else mapped
        for i, name in enumerate(names):
            at = ("logs", "columns", role) if isinstance(mapped, str) else ("logs", "columns", role, i)
            if name not in schema:
                problems.append(expressions.missing(name, at))
            elif expected := _expected(spec, role, schema[name]):
                found = "null on every row" if schema[name] == pl.Null else str(schema[name])
                message = f"column {visible(name)!r} is {found}; expected {expected}"
                hint = (
                    "write it as a timestamp: text and counted seconds are not guessed at" if role in TIME_ROLES else ""
                )
                problems.append(spec.source.problem(at, message, hint))
    for role, why in needed.items():
        if role not in columns:
            message = f"{why} needs a column for the role {role!r}"
            problems.append(
                spec.source.problem(("logs", "columns", role), message, f"the log has: {expressions.names()}")
            )
    if (block := _block_column(spec)) is not None and block not in schema:
        problems.append(expressions.missing(block, ("design", "block", "column")))
    for path, name in drawn_within(spec):
        if name not in schema:
            problems.append(expressions.missing(name, path))
        elif schema[name].is_nested() or schema[name] == pl.Null:
            found = "null on every row" if schema[name] == pl.Null else str(schema[name])
            message = f"column {visible(name)!r} is {found}; expected text, numbers or booleans"
            problems.append(spec.source.problem(path, message))
    for path, name, kind in named_columns(spec):
        if name not in schema:
            problems.append(expressions.missing(name, path))
        elif wrong := misfit(name, kind, columns, schema):
            problems.append(spec.source.problem(path, wrong))
    return problems + _other_scale(spec, columns, schema)


def _other_scale(
    spec: Spec, columns: Mapping[str, str | tuple[str, ...]], schema: Mapping[str, pl.DataType]
) -> list[Problem]:
    """Times of the spec that are not on the scale of the time column."""
    name = columns.get("time")
    if not isinstance(name, str) or name not in schema or _expected(spec, "time", schema[name]):
        return []
    whole = schema[name].is_integer()
    given: list[tuple[KeyPath, Any]] = [(("logs", key), getattr(spec.logs, key)) for key in ("start", "end")]
    given.append((("design", "rollout_at"), getattr(spec.design, "rollout_at", None)))
    for i, event in enumerate(spec.events):
        given += [(("events", i, "at"), event.at), (("events", i, "until"), event.until)]
    expected = "an integer period" if whole else "a time such as 2026-10-05T00:00Z"
    message = f"expected {expected}: the column {visible(name)!r} is {schema[name]}"
    found = [
        spec.source.problem(at, message) for at, value in given if value is not None and isinstance(value, int) != whole
    ]
    if whole and spec.logs.last is not None:
        found.append(
            spec.source.problem(
                ("logs", "last"), f"a duration needs timestamps: the column {visible(name)!r} is {schema[name]}"
            )
        )
    return found


def _expected(spec: Spec, role: str, dtype: pl.DataType) -> str:
    """What the role's column should hold; empty where it does."""
    if role in TIME_ROLES and not isinstance(dtype, pl.Datetime | pl.Date):
        panel = spec.design.kind in PANELS
        return "" if panel and dtype.is_integer() else "a timestamp or a date" + " or an integer period" * panel
    if role in NUMERIC_ROLES and not dtype.is_numeric():
        return "numbers"
    if role in FLAG_ROLES and not (dtype == pl.Boolean or dtype.is_numeric()):
        return "true/false or 0/1"
    if role not in LIST_ROLES and dtype.is_nested():
        return "text, whole numbers or booleans"
    return ""


def _block_column(spec: Spec) -> str | None:
    return spec.design.block.column if isinstance(spec.design, Switchback) else None


def drawn_within(spec: Spec) -> list[tuple[KeyPath, str]]:
    """Where the design names a column of strata or pairs within which arms were drawn, and the column; pairs last."""
    strata, pairs = getattr(spec.design, "strata", ()), getattr(spec.design, "pairs", None)
    found: list[tuple[KeyPath, str]] = [(("design", "strata", i), name) for i, name in enumerate(strata)]
    return found + ([(PAIRS, pairs)] if pairs is not None else [])


def _canonical(
    role: str, columns: Mapping[str, str | tuple[str, ...]], schema: Mapping[str, pl.DataType], timezone: str
) -> pl.Expr:
    name = columns[role]
    assert isinstance(name, str)
    expr, dtype = pl.col(name), schema[name]
    if role in TIME_ROLES and not dtype.is_integer():
        return to_utc(expr, dtype, timezone)
    if role in LABEL_ROLES:
        return label(expr, dtype)
    if role in FLAG_ROLES:
        if dtype.is_float():
            expr = expr.fill_nan(None)
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


def _drop(
    expressions: Expressions,
    columns: Mapping[str, str | tuple[str, ...]],
    window: Window,
    pre_period: bool,
) -> pl.Expr:
    """The first reason to leave a row out, as its place in ``REASONS``; null keeps it."""
    spec = expressions.spec
    steps: list[tuple[pl.Expr, str]] = []
    start, end = window
    if "time" in columns and (any(m is not None for m in window) or spec.design.kind in TIMED):
        steps.append((pl.col(str(columns["time"])).is_null(), NO_TIME))
        steps.append((pl.col("@time").is_null(), SKIPPED))
        inside = (pl.lit(True) if start is None else pl.col("@time") >= start) & (
            pl.lit(True) if end is None else pl.col("@time") < end
        )
        if pre_period:
            steps.append((pl.col("@pre"), PRE_PERIOD))
        steps.append((~inside, OUTSIDE))
    if spec.logs.where is not None:
        steps.append((~expressions.condition(spec.logs.where, ("logs", "where")), FILTERED))
    if (role := arm_role(spec, columns)) in columns:
        steps.append((pl.col(f"@{role}").is_null(), NO_ARM))
        steps.append((pl.col("@arm_code").is_null(), OTHER_ARM))
    if spec.design.kind == "rdd":
        steps.append((pl.col(RUNNING).is_null(), NO_RUNNING))
    if spec.design.kind == "ope":
        steps.append((pl.col("@executed").is_null(), NO_ACTION))
        if weighs(spec) and "propensity" in columns:
            steps.append((~proper(pl.col("@propensity")), NO_CHANCE))
    if "unit" in columns and spec.design.kind in ("user_rct", *PANELS, *BY_ROW):
        steps.append((pl.col("@unit").is_null(), NO_UNIT))
    if "cluster" in columns and spec.design.kind in ("switchback", "cluster_rct"):
        steps.append((pl.col("@cluster").is_null(), NO_CLUSTER))
    if (block := _block_column(spec)) is not None:
        steps.append((pl.col(block).is_null(), NO_BLOCK))
    if not steps:
        return pl.lit(None, dtype=pl.Int8)
    chain: Any = pl.when(steps[0][0]).then(_reason(steps[0][1]))
    for test, reason in steps[1:]:
        chain = chain.when(test).then(_reason(reason))
    expr: pl.Expr = chain.otherwise(None)
    return expr


def weighs(spec: Spec) -> bool:
    """Whether an ope leans on the logged propensities."""
    return spec.estimator.method != "direct_method" and spec.estimator.options.get("propensity") == "logged"


def proper(propensity: pl.Expr) -> pl.Expr:
    """Whether it is a probability of something that happened."""
    known = propensity.cast(pl.Float64).fill_nan(None)
    return ((known > 0.0) & (known <= 1.0)).fill_null(False)


def _reason(reason: str) -> pl.Expr:
    return pl.lit(REASONS.index(reason), dtype=pl.Int8)
