"""What an instrumental variable design says beside its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from estimators.compliers import Compliers
from estimators.estimate import Estimate
from estimators.multiplicity import holm
from readout.memo.numbers import effect, number, p_value, percent
from readout.samples.instrument_bins import bins
from readout.samples.instrument_columns import Instruments
from readout.samples.instrument_rows import Rows
from readout.samples.weak_instruments import ANDERSON_RUBIN, BY
from readout.spec.metrics import Metric
from readout.spec.model import Spec
from readout.terms import Term
from readout.text import named, visible

_TOP = ("first_stage", "reduced_form", "first_stage_f", "first_stage_f_critical", ANDERSON_RUBIN, "overidentification")
# Instruments that disagree at this level are worth a word, and facts in which compliers differ.
_TELLS = 0.05
_TRAITS = 3


def assignment(spec: Spec, read: Instruments, rows: Rows, counts: Sequence[int]) -> str:
    """How it came about who was treated."""
    unit = rows.drawn.by
    if read.amount:
        low, high = float(rows.taken.min()), float(rows.taken.max())
        return (
            f"The action was not assigned at random: its amount runs from {low:.4g} to {high:.4g}. What is used of it "
            f"is that part which {_instruments(spec)} moves. {unit.capitalize()}s: {sum(counts):,}."
        )
    arms = [str(spec.design.control), spec.design.treatment[0]]
    each = ", ".join(f"{n:,} to {named(arm)}" for arm, n in zip(arms, counts, strict=True))
    if read.arm:
        shares = [percent(float(rows.taken[rows.arm == code].mean()), 3) for code in (0, 1)]
        return (
            f"Arms were assigned, and did not decide alone which action ran: {named(arms[1])} ran on {shares[0]} of "
            f"the rows assigned to {named(arms[0])} and on {shares[1]} of those assigned to {named(arms[1])}. "
            f"{unit.capitalize()}s: {each}."
        )
    return (
        f"Which action ran was not assigned at random; what is used of it is that part which {_instruments(spec)} "
        f"moves. {unit.capitalize()}s by the action that ran: {each}."
    )


def facts(spec: Spec, read: Instruments, rows: Rows, unit: str) -> dict[str, Any]:
    """What the ``design`` of readout.json lists besides."""
    found: dict[str, Any] = {
        "instrument": list(getattr(spec.design, "instrument", ())),
        "instruments": list(rows.z.names),
        "adjust": list(read.adjust),
        "unit": rows.drawn.by,
        "treated_by": "amount of executed" if read.amount else "executed",
        "rows": len(rows.frame),
        "errors_by": unit if rows.group.by != "row" else "row",
        "variance": "cluster" if rows.group.codes is not None else spec.estimator.options["variance"],
    }
    if read.amount:
        codes = rows.group.codes
        found["n_units"] = {"all": len(rows.frame) if codes is None else len(np.unique(codes))}
    return found


def remarks(spec: Spec, read: Instruments, rows: Rows) -> list[str]:
    """What holds of all numbers of the design."""
    whom = "the effect is on those whom the instrument moves, and tells nothing of the others"
    notes = [whom if read.amount else f"{whom}; control's and treatment's values are their means"]
    group = rows.group
    if group.unasked:
        notes.append(
            "errors are clustered by cluster: the instrument does not vary within clusters, so it was drawn there"
        )
    if group.overruled:
        notes.append("units stand on several rows, so errors are clustered by unit, not those of independent rows")
    if rows.others:
        control, treatment = named(str(spec.design.control)), named(spec.design.treatment[0])
        notes.append(f"on {rows.others:,} rows neither {control} nor {treatment} ran; they count as not treated")
    if rows.given:
        notes.append("adjusted for the probability of the choice, given which it is as good as random")
    if rows.z.left_out:
        notes.append("one value throughout, so no instrument: " + _listed(rows.z.left_out))
    if spec.economics is not None:
        by = "the assigned arm" if read.arm else "the action that ran"
        notes.append(f"net value against control is that on those whom the instrument moves; sums by arm are by {by}")
    return [*notes, rows.said] if rows.said else notes


def measured(spec: Spec, read: Instruments, metric: Metric) -> str:
    """What a metric's number is of."""
    if metric.numerator is not None:
        what = f"{metric.numerator} over {metric.denominator}"
    elif metric.per == "unit":
        what = "the mean over units of the sum within a unit"
    else:
        what = "the mean over rows"
    if read.amount:
        return f"change of {what} with one unit more of the executed action, among those whom the instrument moves"
    return f"difference of {what} among those whom the instrument moves"


def remarks_on(spec: Spec, metric: Metric, found: Estimate) -> list[str]:
    """Whose interval it is where that is not the t interval, and instruments that disagree."""
    shown, notes = found.diagnostics, []
    if shown.get(BY) == ANDERSON_RUBIN:
        plain = shown["t_interval"]
        would = effect(found.estimate, plain["ci_low"], plain["ci_high"])
        notes.append(
            f"{shown['because']}, so interval and p-value are Anderson and Rubin's, which hold all the same; the t "
            f"interval would say {would}"
        )
        notes += _set(shown[ANDERSON_RUBIN])
    if (j := shown.get("overidentification")) is not None and j["p_value"] < _TELLS:
        notes.append(
            f"the instruments disagree (Hansen's J, p {_p(j['p_value'])}): one of them is not as good as random or "
            "moves the outcome by itself, or they move different people"
        )
    return notes


def moved(spec: Spec, found: Compliers | None, rows: Rows, unit: str) -> list[str]:
    """Who they are whom the instrument moves."""
    if found is None or not found.share <= 1.0:
        return []
    treatment = named(spec.design.treatment[0]) if spec.design.treatment else "the action"
    said = (
        f"the effect is on the {percent(found.share)} of rows whose action the instrument decides (compliers); on "
        f"{percent(max(found.always, 0.0))} {treatment} runs whatever it says, on {percent(max(found.never, 0.0))} "
        "never"
    )
    if not found.profile:
        return [said]
    p_values = holm([1.0 if t.p_value is None else t.p_value for t in found.profile])
    apart = [abs(t.difference) > 1e-6 * max(abs(t.everybody), t.std_error) for t in found.profile]
    tells = [i for i in np.argsort(p_values, kind="stable") if p_values[i] < _TELLS and apart[i]][:_TRAITS]
    if not tells:
        return [f"{said}; in what is known of them before the decision they do not differ from everybody beyond chance"]
    traits = [
        f"{visible(rows.facts.names[i], 60)} {number(found.profile[i].compliers)} against "
        f"{number(found.profile[i].everybody)}"
        for i in tells
    ]
    return [f"{said}; their means against everybody's: {', '.join(traits)}"]


def shown(
    spec: Spec,
    read: Instruments,
    rows: Rows,
    term: Term,
    found: Estimate,
    whom: Compliers | None,
    points: Any,
    how: Mapping[str, Any],
) -> dict[str, Any]:
    """The first primary's first stage, reduced form and Anderson-Rubin set, the compliers, and the figure's bins."""
    out = {name: found.diagnostics[name] for name in _TOP if found.diagnostics.get(name) is not None}
    if whom is not None:
        row = whom.as_row()
        profile = [{**one, "covariate": rows.facts.names[one["covariate"]]} for one in row.pop("profile")]
        out["compliers"] = {**row, "profile": profile}
    if points.den is None:
        out["instrument_bins"] = {
            "metric": term.name,
            "instrument": _instruments(spec),
            "adjusted": points.x is not None,
            "amount": read.amount,
            "arm": read.arm and read.names == 1,
            "bins": bins(points, rows.z.names, how),
        }
    return out


def _set(shown: Mapping[str, Any]) -> list[str]:
    """What a set is that is no interval."""
    if shown["empty"]:
        return ["no effect fits all instruments, so that there is no interval: they disagree"]
    if shown["bounded"]:
        pieces = shown["segments"]
        return [] if len(pieces) == 1 else [f"the set has {len(pieces)} pieces, of which the interval is the hull"]
    if len(shown["segments"]) == 2 and shown["segments"][0][0] is None and shown["segments"][1][1] is None:
        low, high = number(shown["segments"][0][1], 3, True), number(shown["segments"][1][0], 3, True)
        return [f"the set has no ends: it rules out the effects between {low} and {high} only, and no sign"]
    return ["no effect is ruled out, however large" if shown["segments"] == [[None, None]] else "the set has no ends"]


def _instruments(spec: Spec) -> str:
    return _listed(getattr(spec.design, "instrument", ()))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(visible(name, 60) for name in names)


def _p(value: float) -> str:
    shown = p_value(value)
    return shown if shown.startswith("<") else f"= {shown}"
