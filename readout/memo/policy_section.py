"""What the target policy is worth beside the logging policy and those that always do the same, and what carries it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from readout.memo.escape import markdown, name
from readout.memo.numbers import DASH, count, decimals, fixed, level, number, percent
from readout.memo.tables import bullets, section, table
from readout.results import Readout
from readout.text import visible

_SHOWN = 14  # policies in the table; the diagnostics have them all


def policies(readout: Readout) -> list[str]:
    """The lines of the section; none of a design that values no policy."""
    if readout.design.get("kind") != "ope":
        return []
    rows = shown_first(readout)
    lines = [*_chosen(rows), *_made(readout), *_bound(readout), *_weights(readout), *_trade(readout)]
    return section("## What each policy is worth", _table(rows[:_SHOWN]), bullets(markdown(line) for line in lines))


def shown_first(readout: Readout) -> list[Mapping[str, Any]]:
    """Values of policies; where there are too many to show, after the two that are compared the best come first."""
    rows: list[Mapping[str, Any]] = list(readout.diagnostics.get("values") or [])
    if len(rows) <= _SHOWN:
        return rows
    better = next((m.better for m in readout.metrics if m.metric == rows[0]["metric"]), "higher")
    sign = 1.0 if better == "lower" else -1.0
    return rows[:2] + sorted(rows[2:], key=lambda row: math.inf if row["value"] is None else sign * row["value"])


def _chosen(rows: list[Mapping[str, Any]]) -> list[str]:
    """That not all are shown."""
    if len(rows) <= _SHOWN:
        return []
    return [
        f"Of {len(rows) - 2} policies that always do the same the best {_SHOWN - 2} are shown, and the diagnostics "
        "have the others: the best of many owes a part of its lead to chance."
    ]


def _table(rows: list[Mapping[str, Any]]) -> list[str]:
    if not rows:
        return []
    ends = [row[key] for row in rows for key in ("ci_low", "ci_high") if row[key] is not None]
    places = decimals(ends)
    cells = [
        [
            name(row["policy"]),
            fixed(row["value"], places) if row["supported"] else "not told",
            f"[{fixed(row['ci_low'], places)}, {fixed(row['ci_high'], places)}]" if row["ci_low"] is not None else DASH,
            count(row["ess"]),
            markdown(row["reason"]) or DASH,
        ]
        for row in rows
    ]
    metric = markdown(visible(str(rows[0]["metric"]), 60))
    headers = ["Policy", f"Value of {metric}", "Interval", "Weighs as many requests alike", "Note"]
    return table(headers, cells, right="lrrrl")


def _made(readout: Readout) -> list[str]:
    """How values were made, in words."""
    design = readout.design
    lines = []
    if design.get("propensity") not in (None, "logged"):
        lines.append(
            "The probabilities of the logged actions were not taken from the log but estimated "
            f"({design['propensity']}), on units that the model had not seen; the values lean on that model."
        )
    if design.get("errors_by") == "request":
        lines.append(
            "The spec maps no unit, so every request counts as independent: where one customer sends many, intervals "
            "are too narrow."
        )
    model = readout.diagnostics.get("reward_model")
    if model:
        fit = model.get("explained")
        columns = ", ".join(visible(str(c), 60) for c in model["columns"])
        folds = design.get("folds")
        parts = "" if not isinstance(folds, int) or folds < 2 else f", cross-fitted over {folds} parts of the units"
        explained = (
            "" if fit is None else f"; on rows that it has not seen it explains {percent(max(fit, 0.0))} of what varies"
        )
        lines.append(f"A model of the rewards by action ({design.get('outcome')}{parts}) reads {columns}{explained}.")
    return lines


def _bound(readout: Readout) -> list[str]:
    bound = readout.diagnostics.get("value_bound")
    if not bound:
        return []
    title, at = visible(str(bound["metric"]), 60), level(1.0 - bound["level"])
    if bound["lower"] is None:
        return [f"No bound of {title} that holds in any sample size: {bound['reason']}."]
    ends = f"at least {number(bound['lower'])}"
    if bound["upper"] is not None:
        ends += f", and at most {number(bound['upper'])}"
    said = f"In any sample size and however heavy the weights, the target's {title} is {ends} (one-sided, {at})"
    logging = number(bound["logging_value"])
    if bound["beats_logging"] is None:
        return [f"{said}; {bound['reason']}."]
    verdict = "better than" if bound["beats_logging"] else "not enough to beat"
    return [f"{said}: that is {verdict} the logging policy's {logging}.{_difference(bound)}"]


def _difference(bound: Mapping[str, Any]) -> str:
    """A bound of the difference in words; empty where there is none."""
    low, high = bound.get("difference_lower"), bound.get("difference_upper")
    if low is not None:
        return f" As surely, the target's is {_beyond(low, 'higher', 'lower')} than the logging policy's."
    if high is not None:
        return f" As surely, the target's is {_beyond(-high, 'lower', 'higher')} than the logging policy's."
    return ""


def _beyond(least: float, better: str, worse: str) -> str:
    return f"at least {number(least)} {better}" if least > 0.0 else f"at most {number(-least)} {worse}"


def _weights(readout: Readout) -> list[str]:
    weights = readout.diagnostics.get("weights")
    if not weights:
        return []
    tail = weights.get("pareto_k")
    shape = (
        f", Pareto k of their tail {number(tail, 2)} (above 0.7 no mean is to be trusted)" if tail is not None else ""
    )
    return [
        f"The weights tell as much as {count(weights['ess'])} requests alike; the largest is {number(weights['max'])}, "
        f"one {readout.design['errors_by']} holds {percent(weights['max_unit_share'])} of all{shape}."
    ]


def _trade(readout: Readout) -> list[str]:
    """What cutting the weights would change."""
    rows = readout.diagnostics.get("clipping") or []
    plain = next((row for row in rows if row["kind"] == "none"), None)
    others = [row for row in rows if row["kind"] == "clip"]
    if plain is None or not others:
        return []
    lowest = others[0]
    asked = readout.design.get("clip") or readout.design.get("switch")
    models = readout.design.get("method") == "doubly_robust"
    own = " The errors of cuts leave out that of fitting the models, which asking for one adds." if models else ""
    now = "" if asked is None else f" Asked for: {number(float(asked))}."
    return [
        f"Cutting weights at {number(lowest['at'])} would touch {percent(lowest['share_clipped'])} of the requests, "
        f"move the target's value by {number(lowest['bias'], 3, True)} and its standard error from "
        f"{number(plain['std_error'])} to {number(lowest['std_error'])}: error against bias; the diagnostics have the "
        f"other cuts. A cut that is chosen after seeing them has no interval.{own}{now}"
    ]
