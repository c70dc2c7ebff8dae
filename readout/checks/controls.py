"""Does anything that the spec takes for known before the decision stand after it?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from readout.checks.base import listing, percent, share
from readout.controls import INPUTS, INSTRUMENT, Later, adjusted, by_name, decided_after, declared, fixed, no_control
from readout.evidence import Evidence, count, rows_table
from readout.logs import Logs
from readout.logs.treated import arm_role
from readout.reduce import Table, pilot
from readout.results import Check
from readout.samples import Units
from readout.samples.base import KEPT
from readout.spec.designs import RANDOMIZED, Observational
from readout.spec.model import Spec
from readout.terms import COVARIATE

NAME = "bad_controls"
# A column whose values tell the action on so large a part of either arm's rows was set by it, or sets it alone.
TELLS = 0.99
# Values are told apart by a hash into so many parts; a part with fewer rows tells nothing.
PARTS, FEWEST = 1024, 10
# Fewer rows than these in an arm tell nothing either.
ENOUGH = 50
ACTION = "action"


def tables(spec: Spec, logs: Logs) -> list[Table]:
    """Rows by action and value of every adjuster, where the action is logged; and where adjusters are null."""
    names = adjusters(spec, logs)
    found = [rows_table({null_sum(name): count(absent(name, logs)) for name in names})] if names else []
    if (action := _action(spec, logs)) is not None:
        for name in _few_valued(_asked(spec, logs), logs):
            keys = {ACTION: action, "part": _value(name, logs).hash(0) % PARTS}
            found.append(Table(_tells(name), keys, where=KEPT & action.is_not_null()))
    return found


def adjusters(spec: Spec, logs: Logs) -> list[str]:
    """Columns of the log that a design without randomization leans on and that hold single values."""
    if spec.design.kind in RANDOMIZED:
        return []
    schema = logs.source.schema
    return [name for name in adjusted(spec, logs) if name in schema and not schema[name].is_nested()]


def absent(name: str, logs: Logs) -> pl.Expr:
    """Whether a row has no value of a column."""
    return _value(name, logs).is_null()


def bad_controls(evidence: Evidence) -> Check:
    """Nothing that is adjusted for, or declared as known before the decision, stands after the action."""
    spec, logs = evidence.spec, evidence.logs
    before, held = declared(spec, logs), fixed(spec, logs)
    if not before and not held:
        return Check(NAME, "logging", "skip", "no state, features or policy inputs are declared")
    after, never = decided_after(spec, logs), no_control(spec, logs)
    wrong = {name: after[name] for name in before if name in after}
    wrong |= {name: never[name] for name in held if name in never and not _natural(held[name], never[name])}
    said = {name: f"is {one.said}: {one.row.why}" for name, one in wrong.items()}
    leans = adjusted(spec, logs)
    for name in leans:
        if name not in said and (why := _named_so(spec, name) or _telling(evidence, name)):
            said[name] = why
    if said:
        return _failed(said, {**before, **held, **leans})
    warnings = [
        f"{name!r} is by its name {row.row}, though declared as known before the decision"
        for name in {**before, **held}
        if name not in spec.design.policy_inputs and (row := by_name(name)) is not None
    ]
    if varying := _varying(evidence):
        warnings.append(f"no fact from before the experiment, for it varies within units: {'; '.join(varying)}")
    if warnings:
        return Check(NAME, "logging", "warn", "; ".join(warnings), value=len(warnings), threshold=0)
    n = len({**before, **held})
    message = f"none of the {n} pre-decision columns is decided after the action"
    return Check(NAME, "logging", "pass", message)


def _failed(said: Mapping[str, str], places: Mapping[str, str]) -> Check:
    lines = [f"{name!r} ({places[name]}) {why}" for name, why in said.items()]
    table = [{"column": name, "named_in": places[name], "why": why} for name, why in said.items()]
    return Check(
        NAME,
        "logging",
        "fail",
        "taken for known before the decision, but decided after it: " + "; ".join(lines),
        value=len(said),
        threshold=0,
        action="instrument",
        details={NAME: table},
        short=listing(list(said)),
    )


def _natural(place: str, later: Later) -> bool:
    """Whether a column may be an instrument although the action hangs on it: what was chosen, if chance chose it."""
    return place == INSTRUMENT and "intended" in later.row.roles


def _named_so(spec: Spec, name: str) -> str:
    """What a column's name says against it, where nobody said more of it; empty where nothing does."""
    row = by_name(name)
    if row is None or name in spec.design.policy_inputs:
        return ""
    return (
        f"is by its name {row.row}: {row.why} (if the policy reads it, it stood before: name it under {INPUTS}; "
        f"if it stood before for another reason, log it under a name that says so, as {name}_before)"
    )


def _telling(evidence: Evidence, name: str) -> str:
    """Whether a column's values tell which action ran, in words; empty where they do not.

    They do where nearly all rows of either arm have values that only that arm has, or where the column is null under
    one action and under no other.
    """
    if isinstance(evidence.spec.design, Observational) and (where := _only_where(evidence, name)):
        return f"is there only where {where!r} ran: the action decides whether it is logged"
    if _tells(name) not in evidence.tables:
        return ""
    frame = evidence.tables[_tells(name)]
    by_arm = dict(frame.group_by(ACTION).agg(pl.col("n").sum()).iter_rows())
    if min(by_arm.get(0, 0), by_arm.get(1, 0)) < ENOUGH:
        return ""
    if where := _only_where(evidence, name):
        return f"is there only where {where!r} ran: the action decides whether it is logged"
    both = frame.pivot(ACTION, index="part", values="n", aggregate_function="sum").fill_null(0)
    n = pl.col("0") + pl.col("1")
    told = [int(both.filter((n >= FEWEST) & (pl.col(mine) >= TELLS * n))[mine].sum() or 0) for mine in ("0", "1")]
    if any(hits < TELLS * by_arm[arm] for arm, hits in enumerate(told)):
        return ""
    on = percent(share(sum(told), sum(by_arm.values())))
    return (
        f"tells on {on} of rows which action ran: the action set it, or it alone decides the action, and then no "
        "request of a kind had a chance of either"
    )


def _only_where(evidence: Evidence, name: str) -> str:
    """The arm under which alone a column has values; empty where there is none."""
    treated = evidence.total("n") - evidence.total("n", 0)
    if min(treated, evidence.total("n", 0)) < ENOUGH:
        return ""
    null = evidence.total(null_sum(name), 0)
    of_control = share(null, evidence.total("n", 0))
    of_treated = share(evidence.total(null_sum(name)) - null, treated)
    if of_control >= TELLS and of_treated <= 1 - TELLS:
        return evidence.arms[1]
    return evidence.arms[0] if of_treated >= TELLS and of_control <= 1 - TELLS else ""


def _action(spec: Spec, logs: Logs) -> pl.Expr | None:
    """0 control, 1 a treatment, null no arm; None where the log does not say which action ran."""
    role = arm_role(spec, logs.columns)
    if role is None or spec.design.control is None:
        return None
    if not isinstance(spec.design, Observational) and role != "executed":
        return None
    return pl.when(pl.col("@arm_code").is_not_null()).then((pl.col("@arm_code") > 0).cast(pl.Int8))


def _asked(spec: Spec, logs: Logs) -> list[str]:
    """Adjusters that could have been set by the action: what the policy reads stood before, and overlap judges it."""
    skipped = {*spec.design.policy_inputs, *no_control(spec, logs)}
    instruments = {name for name, key in adjusted(spec, logs).items() if key == INSTRUMENT}
    return [name for name in adjusters(spec, logs) if name not in skipped | instruments]


def _few_valued(names: list[str], logs: Logs) -> list[str]:
    """Columns with few enough values in slices of the log that a value can tell anything."""
    if not names:
        return []
    seen = pilot(logs.frame, [_value(name, logs).n_unique().alias(name) for name in names], logs.source.rows)
    return [name for name in names if int(seen[name].max()) <= PARTS]  # type: ignore[arg-type]


def _value(name: str, logs: Logs) -> pl.Expr:
    """A column's values, one null for all that is none."""
    dtype: Any = logs.dtype(name)
    if dtype.is_float():
        return pl.col(name).fill_nan(None)
    if dtype in (pl.Categorical, pl.Enum):
        return pl.col(name).cast(pl.String)
    return pl.col(name)


def null_sum(name: str) -> str:
    """The sum of the rows table that counts a column's nulls."""
    return f"null {name}"


def _tells(name: str) -> str:
    return f"tells {name}"


def _varying(evidence: Evidence) -> list[str]:
    """Columns named as a metric's covariate whose values a unit does not keep during the experiment."""
    if not isinstance(evidence.sample, Units):
        return []
    named = {c.name: c for t in evidence.terms.values() for c in t.covariates if c.name.startswith(COVARIATE)}
    found = {c.label: evidence.sample.varying(c) for c in named.values()}
    return [f"{name!r} ({n:,} of {units:,})" for name, (n, units) in found.items() if n]
