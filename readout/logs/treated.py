"""Which rows stand under which arm, design by design, and the columns of its own that a design names."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from readout.logs.values import to_utc
from readout.spec.designs import IV, OPE, RDD, DiD, Observational, SyntheticControl
from readout.spec.model import Spec
from readout.spec.problems import KeyPath
from readout.text import visible

Columns = Mapping[str, str | tuple[str, ...]]
Schema = Mapping[str, pl.DataType]
# Names of the arms where the spec may leave them out.
UNNAMED: Mapping[str, tuple[str, str]] = {
    "did": ("untreated", "treatment"),
    "synthetic_control": ("untreated", "treatment"),
    "iv": ("as it is", "one unit more"),
}
LOGGING, TARGET = "logging policy", "target policy"
"""Names of the policies of an ope that the spec does not name."""
# First treated period of the row's unit; the running variable.
ROLLOUT, RUNNING = "@rollout", "@running"


def arms(spec: Spec) -> Sequence[str]:
    """Control first, then the treatments, as labels."""
    control, design = spec.design.control, spec.design
    if isinstance(design, OPE):
        return control or LOGGING, *(design.treatment or (TARGET,))
    if control is None and isinstance(design, RDD):
        at = f"{design.cutoff:.15g}"
        return f"{design.running} < {at}", f"{design.running} >= {at}"
    if control is None:
        return (*UNNAMED.get(spec.design.kind, ()), *spec.design.treatment)
    return (control, *spec.design.treatment)


def arm_role(spec: Spec, columns: Columns) -> str | None:
    """The role whose labels are the design's arms; None where a row's time or running variable says its arm.

    In an iv it is the assigned arm where that is the instrument, else the executed action; None where the action is a
    number.
    """
    design = spec.design
    if isinstance(design, DiD | SyntheticControl | RDD | OPE):
        return None
    if isinstance(design, Observational):
        return "executed" if "executed" in columns else "arm"
    if isinstance(design, IV):
        if design.control is None:
            return None
        return "arm" if columns.get("arm") in design.instrument else "executed"
    return "arm" if "arm" in columns else None


def named_columns(spec: Spec) -> list[tuple[KeyPath, str, str]]:
    """Columns that the design names beside the roles: the place, the column, and whether it holds ``time``, ``number``,
    ``fact`` (numbers, flags or groups), ``chance`` (a number, or a list of them) or ``value``."""
    design = spec.design
    found: list[tuple[KeyPath, str, str]] = []
    if isinstance(design, DiD):
        found.append((("design", "rollout"), design.rollout, "time"))
    if isinstance(design, RDD):
        found.append((("design", "running"), design.running, "number"))
        found += [(("design", "covariates", i), name, "fact") for i, name in enumerate(design.covariates)]
    if isinstance(design, IV):
        found += [(("design", "instrument", i), name, "value") for i, name in enumerate(design.instrument)]
    if isinstance(design, Observational):
        found += [(path, name, "value") for path, name in adjusted_at(design)]
    if isinstance(design, OPE):
        return policy_columns(design)
    elif isinstance(design, DiD | IV):
        found += [(("design", "adjust", i), name, "value") for i, name in enumerate(design.adjust)]
    return found


def policy_columns(design: OPE) -> list[tuple[KeyPath, str, str]]:
    """Columns that the target policy is written in, besides those of its rules, as :func:`named_columns`."""
    policy, given = design.target_policy, design.policy_probability
    found: list[tuple[KeyPath, str, str]] = []
    if policy is not None and policy.column is not None:
        found.append((("design", "target_policy", "column"), policy.column, "value"))
    if isinstance(given, str):
        found.append((("design", "policy_probability"), given, "chance"))
    elif given is not None:
        found += [(("design", "policy_probability", action), name, "number") for action, name in given.items()]
    return found


def rules_of(design: OPE) -> tuple[str, ...]:
    """SQL conditions of the target policy."""
    return () if design.target_policy is None else tuple(rule.when for rule in design.target_policy.rules)


def rule_columns(design: OPE) -> dict[str, KeyPath]:
    """Columns of the rules, at the first that names each; none of a rule that cannot be read."""
    found: dict[str, KeyPath] = {}
    for i, rule in enumerate(rules_of(design)):
        with contextlib.suppress(pl.exceptions.PolarsError):
            for name in pl.sql_expr(rule).meta.root_names():
                found.setdefault(name, ("design", "target_policy", "rules", i, "when"))
    return found


def adjusted_at(design: Observational) -> list[tuple[KeyPath, str]]:
    """The columns that ``design.adjust`` names, each at its place; one list serves both models."""
    if design.adjust is None:
        return []
    propensity, outcome = design.adjust.propensity, design.adjust.outcome
    if propensity == outcome:
        return [(("design", "adjust", i), name) for i, name in enumerate(propensity)]
    both = (("propensity", propensity), ("outcome", outcome))
    return [(("design", "adjust", model, i), name) for model, names in both for i, name in enumerate(names)]


def misfit(column: str, kind: str, columns: Columns, schema: Schema) -> str:
    """What is wrong with a column that the design names, in words; empty where nothing is."""
    dtype = schema[column]
    found = "null on every row" if dtype == pl.Null else str(dtype)
    said = f"column {visible(column)!r} is {found}; expected"
    if kind == "time":
        time = columns.get("time")
        whole = isinstance(time, str) and time in schema and schema[time].is_integer()
        if whole and not dtype.is_integer() and not dtype.is_float():
            return f"{said} integer periods, as the role 'time' has"
        if not whole and not isinstance(dtype, pl.Datetime | pl.Date):
            return f"{said} a timestamp or a date, as the role 'time' has"
        return ""
    if kind == "chance" and isinstance(dtype, pl.List | pl.Array):
        return "" if dtype.inner is not None and dtype.inner.is_numeric() else f"{said} numbers, or lists of them"
    if kind in ("number", "chance") and not (dtype.is_numeric() or dtype == pl.Boolean):
        return f"{said} numbers"
    if kind == "fact" and not (dtype.is_numeric() or dtype in (pl.Boolean, pl.String, pl.Categorical, pl.Enum)):
        return f"{said} numbers, true/false or text"
    if dtype.is_nested() or dtype == pl.Null:
        return f"{said} text, numbers or booleans"
    return ""


def own_columns(spec: Spec, schema: Schema) -> dict[str, pl.Expr]:
    """Canonical columns of the design's own: ``@rollout`` on the scale of ``@time``, ``@running`` as floats."""
    design = spec.design
    if isinstance(design, DiD):
        dtype, expr = schema[design.rollout], pl.col(design.rollout)
        if isinstance(dtype, pl.Datetime | pl.Date):
            return {ROLLOUT: to_utc(expr, dtype, spec.logs.timezone)}
        return {ROLLOUT: expr.fill_nan(None) if dtype.is_float() else expr}
    if isinstance(design, RDD):
        return {RUNNING: pl.col(design.running).cast(pl.Float64).fill_nan(None)}
    return {}


def arm_code(spec: Spec, columns: Columns) -> pl.Expr:
    """0 control, 1… treatments, null: no arm of the spec.

    In panels a row is treated from its unit's rollout on; in an rdd from the cutoff on. Where an iv's arms are the
    actions that ran, any action but the treatment is none: rows left out by what ran on them would be a selection by
    what the instrument moves. Where its action is a number every row stands under the treatment: it is the action's
    slope that is read. In an ope every row was logged under the logging policy.
    """
    design = spec.design
    if isinstance(design, OPE):
        return pl.lit(0, dtype=pl.Int8)
    if isinstance(design, DiD):
        return (pl.col("@time") >= pl.col(ROLLOUT)).fill_null(False).cast(pl.Int8)
    if isinstance(design, SyntheticControl):
        unit = pl.col("@unit").cast(pl.String).is_in(list(design.treated))
        return (unit & (pl.col("@time") >= design.rollout_at)).fill_null(False).cast(pl.Int8)
    if isinstance(design, RDD):
        return (pl.col(RUNNING) >= design.cutoff).cast(pl.Int8)
    if isinstance(design, IV) and design.control is None:
        return pl.lit(1, dtype=pl.Int8)
    role, labels = arm_role(spec, columns), arms(spec)
    if role not in columns or not labels:
        return pl.lit(None, dtype=pl.Int8)
    if isinstance(design, IV) and role == "executed":
        return (pl.col("@executed") == labels[1]).cast(pl.Int8)
    chain: Any = pl.when(pl.col(f"@{role}") == labels[0]).then(pl.lit(0, dtype=pl.Int8))
    for code, name in enumerate(labels[1:], start=1):
        chain = chain.when(pl.col(f"@{role}") == name).then(pl.lit(code, dtype=pl.Int8))
    expr: pl.Expr = chain.otherwise(None)
    return expr
