"""Rollback triggers: point values over treated rows that end the treatment whatever the average says."""

from __future__ import annotations

import math

import polars as pl

from readout.errors import SpecError
from readout.evidence import Evidence, count, rows_table
from readout.logs import Logs
from readout.reduce import Table
from readout.results import Check
from readout.samples.discontinuity import Discontinuity
from readout.spec.model import Spec, Trigger
from readout.terms import Term, eligible_only
from readout.text import named


def tables(spec: Spec, logs: Logs, terms: list[Term]) -> list[Table]:
    """For each trigger: numerator, denominator and rows by arm.

    Raises:
        SpecError: A condition on a metric that is no mean of rows.
    """
    by_name = {t.name: t for t in terms}
    sums: dict[str, pl.Expr] = {}
    mask = eligible_only(spec, logs)
    for i, trigger in enumerate(spec.rollback):
        if trigger.no_movement:
            continue
        where = _where(i, trigger, logs)
        if trigger.expr is not None:
            value = mask(logs.expressions.sql_number(trigger.expr, ("rollback", i, "expr")))
            num, den = pl.when(where).then(value), count(where & value.is_not_null())
        else:
            term = by_name[str(trigger.metric)]
            if term.quantile is not None or term.per_unit:
                _refuse_where(spec, i, trigger)
                continue
            num, den = pl.when(where).then(term.num), pl.when(where).then(term.weight)
        sums |= {f"trigger {i}|num": num, f"trigger {i}|den": den, f"trigger {i}|n": count(num.is_not_null() & where)}
    return [rows_table(sums)]


def rollback_trigger(evidence: Evidence) -> Check:
    """Fails when any trigger fires."""
    triggers = evidence.spec.rollback
    if not triggers:
        return Check("rollback_trigger", "rollback", "skip", "the spec states no rollback trigger")
    said: dict[str, list[str]] = {"fired": [], "quiet": [], "unseen": []}
    value: float | None = None
    limit: float | None = None
    rows = []
    fired_for: set[str] = set()
    for i, trigger in enumerate(triggers):
        for arm in evidence.treatments:
            status, message, mine = _judge(evidence, i, trigger, arm)
            said[status].append(message)
            label = evidence.arms[arm]
            rows.append(
                {"trigger": _name(trigger), "arm": label, "status": status, "value": mine, "above": trigger.above}
            )
            if status == "fired":
                fired_for.add(label)
                if value is None:
                    value, limit = mine, trigger.above
    by_arm = {label: "fail" if label in fired_for else "pass" for label in evidence.arms[1:]}
    details = {"rollback_triggers": rows, "by_arm": by_arm}
    if said["fired"]:
        message = "; ".join(said["fired"])
        return Check("rollback_trigger", "rollback", "fail", message, None, None, value, limit, "rollback", details)
    if not said["quiet"]:
        return Check("rollback_trigger", "rollback", "skip", "; ".join(said["unseen"]), details=details)
    message = "; ".join([*said["quiet"], *said["unseen"]])
    return Check("rollback_trigger", "rollback", "warn" if said["unseen"] else "pass", message, details=details)


def _judge(evidence: Evidence, i: int, trigger: Trigger, arm: int) -> tuple[str, str, float | None]:
    name, label = _name(trigger), evidence.arms[arm]
    if trigger.no_movement:
        result = next((m for m in evidence.metrics if m.metric == trigger.metric and m.arm == label), None)
        moved = None if result is None else result.verdict
        if moved is None:
            return "unseen", f"{name}: no verdict", None
        return (
            ("fired" if moved == "no_effect" else "quiet"),
            f"{trigger.metric} has the verdict {moved} under {named(label)}",
            None,
        )
    assert trigger.above is not None
    if f"trigger {i}|n" in evidence.tables["rows"].columns:
        n = evidence.total(f"trigger {i}|n", arm)
        treated = _ratio(evidence, i, arm)
        control = _ratio(evidence, i, 0)
    else:
        effect = evidence.effect(str(trigger.metric), arm)
        if effect is None:
            return "unseen", f"{name}: {evidence.why_not(str(trigger.metric), arm)}", None
        n = evidence.total("n", arm) - evidence.total(f"{trigger.metric}|null", arm)
        treated, control = effect.treatment_value, effect.control_value
        if isinstance(evidence.sample, Discontinuity):
            # Of all treated rows, not of those at the cutoff.
            control, treated = (evidence.sample.mean(evidence.terms[str(trigger.metric)], code) for code in (0, arm))
    if n < trigger.min_rows:
        return "unseen", f"{name}: only {n:,} rows under {named(label)}, {trigger.min_rows:,} are needed", None
    if treated is None:
        return "unseen", f"{name}: no value under {named(label)}", None
    beside = "" if control is None else f", control {control:.3g}"
    said = f"{name} is {treated:.3g} under {named(label)} on {n:,} rows (limit {trigger.above:.3g}{beside})"
    return ("fired" if treated > trigger.above else "quiet"), said, treated


def _ratio(evidence: Evidence, i: int, arm: int) -> float | None:
    den = evidence.amount(f"trigger {i}|den", arm)
    value = evidence.amount(f"trigger {i}|num", arm) / den if den else math.nan
    return value if math.isfinite(value) else None


def _where(i: int, trigger: Trigger, logs: Logs) -> pl.Expr:
    if trigger.where is None:
        return pl.col("@drop").is_null()
    return logs.expressions.condition(trigger.where, ("rollback", i, "where"))


def _refuse_where(spec: Spec, i: int, trigger: Trigger) -> None:
    if trigger.where is not None:
        message = f"does not combine with {trigger.metric!r}, which is a quantile or a sum within units"
        hint = "give the condition to a metric of its own (metrics.NAME.where)"
        raise SpecError([spec.source.problem(("rollback", i, "where"), message, hint, on_key=True)])


def _name(trigger: Trigger) -> str:
    what = str(trigger.metric) if trigger.metric is not None else f"share with {trigger.expr}"
    return what if trigger.where is None else f"{what} where {trigger.where}"
