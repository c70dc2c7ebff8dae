"""Rollback triggers: point values over treated rows that end the treatment whatever the average says."""

from __future__ import annotations

import math

import polars as pl

from readout.errors import SpecError
from readout.evidence import Evidence, count, rows_table
from readout.logs import Logs
from readout.logs.treated import arm_role
from readout.reduce import Table
from readout.results import Check
from readout.samples.discontinuity import Discontinuity
from readout.spec.designs import IV, RDD
from readout.spec.model import Spec, Trigger
from readout.terms import Term, eligible_only
from readout.text import named

# Rows on which the treatment did not run, and on which it did.
SIDES = (" other", " treated")


def tables(spec: Spec, logs: Logs, terms: list[Term]) -> list[Table]:
    """For each trigger: numerator, denominator and rows by arm; by what ran where that is not the arm.

    Raises:
        SpecError: A condition on a metric that is no mean of rows.
    """
    by_name = {t.name: t for t in terms}
    sums: dict[str, pl.Expr] = {}
    mask, sides = eligible_only(spec, logs), _sides(spec, logs)
    for i, trigger in enumerate(spec.rollback):
        if trigger.no_movement:
            continue
        where = _where(i, trigger, logs)
        if trigger.expr is not None:
            value = mask(logs.expressions.sql_number(trigger.expr, ("rollback", i, "expr")))
            num, den = value, count(value.is_not_null())
        else:
            term = by_name[str(trigger.metric)]
            if term.quantile is not None or term.per_unit:
                _refuse_where(spec, i, trigger)
                continue
            num, den = term.num, term.weight
        for side, mine in sides.items():
            rows = where & mine
            sums |= {f"trigger {i}|{what}{side}": pl.when(rows).then(e) for what, e in (("num", num), ("den", den))}
            sums[f"trigger {i}|n{side}"] = count(num.is_not_null() & rows)
    return [rows_table(sums)]


def rollback_trigger(evidence: Evidence) -> Check:
    """Fails when any trigger fires."""
    triggers = evidence.spec.rollback
    if not triggers:
        return Check("rollback_trigger", "rollback", "skip", "the spec states no rollback trigger")
    if evidence.spec.design.kind == "ope":
        message = "nothing has run under the target policy, so no trigger could fire; they stand ready for the ramp"
        return Check("rollback_trigger", "rollback", "skip", message)
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
    if not {f"trigger {i}|n{side}" for side in ("", *SIDES)}.isdisjoint(evidence.tables["rows"].columns):
        n = int(_sum(evidence, i, "n", arm))
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
    den = _sum(evidence, i, "den", arm)
    value = _sum(evidence, i, "num", arm) / den if den else math.nan
    return value if math.isfinite(value) else None


def _sum(evidence: Evidence, i: int, what: str, arm: int) -> float:
    name = f"trigger {i}|{what}"
    if name in evidence.tables["rows"].columns:
        return evidence.amount(name, arm)
    return sum(evidence.amount(name + SIDES[int(arm > 0)], code) for code in range(len(evidence.arms)))


def _sides(spec: Spec, logs: Logs) -> dict[str, pl.Expr]:
    """Rows on which the treatment ran and others, where an arm is not what ran; elsewhere all, to be told by arm."""
    design = spec.design
    instrument = isinstance(design, IV) and arm_role(spec, logs.columns) == "arm"
    if not (instrument or (isinstance(design, RDD) and design.fuzzy)):
        return {"": pl.lit(True)}
    ran = pl.col("@executed" if logs.has("executed") else "@arm") == design.treatment[0]
    return dict(zip(SIDES, (~ran, ran), strict=True))


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
