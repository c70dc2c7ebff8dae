"""The long run in the memo: the ladder, what past experiments foretell, and the holdout that answers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from readout.memo import numbers, words
from readout.memo.escape import markdown, name
from readout.memo.tables import section, table
from readout.results import Readout
from readout.text import named

Found = Mapping[str, Any]


def long_run(readout: Readout) -> list[str]:
    """The lines of the section; none where the spec has neither a long-run metric nor a surrogate section."""
    found = readout.surrogate
    if not found:
        return []
    of_arm = f"For {name(found['arm'])}." if words.several_arms(readout) else ""
    return section(
        "## Long run",
        [of_arm] if of_arm else [],
        [_standing(readout, found)],
        _ladder(found),
        _evidence(readout, found),
        _holdout(found),
    )


def sentence(readout: Readout) -> str:
    """The long run in one line, for a terminal; empty where nothing is awaited."""
    found = readout.surrogate
    if not found or not found["awaited"]:
        return ""
    waiting = "; ".join(f"{named(metric)} is {said}" for metric, said in found["awaited"].items())
    foretold = f"; foretold: {predicted(found)}" if found["predicted"] else ""
    return f"Long run: {waiting}{foretold}." + (" Surrogate risk." if found["risk"] else "")


def predicted(found: Found) -> str:
    """The predicted effect with its interval."""
    p = found["predicted"]
    shown = numbers.relative if found["scale"] == "relative" else numbers.effect
    return shown(p["estimate"], p["ci_low"], p["ci_high"])


def _standing(readout: Readout, found: Found) -> str:
    """What is in, and whether anything stands for what is not."""
    if not any(metric.role == "long_run" for metric in readout.metrics):
        return "No metric has the role long_run: the ladder shows what moved, and nothing is said of later."
    if not found["awaited"]:
        return "The long-run outcome is in: its effect stands among the others, and nothing has to stand for it."
    waiting = "; ".join(f"{name(metric)} is {markdown(said)}" for metric, said in found["awaited"].items())
    if found["risk"]:
        return (
            f"**Surrogate risk:** {waiting}, and the short run is not shown to stand for it: {markdown(found['why'])}."
        )
    return (
        f"{waiting[:1].upper()}{waiting[1:]}. Past experiments let the short run stand for it, so the decision is "
        "conditional: it holds as long as the long-run outcome turns out as foretold."
    )


def _ladder(found: Found) -> list[str]:
    rows = found["ladder"]
    if not rows:
        return []
    cells = [
        [
            row["rung"],
            name(row["metric"]),
            numbers.effect(row["estimate"], row["ci_low"], row["ci_high"]),
            numbers.relative(row["relative"], row["relative_ci_low"], row["relative_ci_high"]),
            markdown(row["status"]),
        ]
        for row in rows
    ]
    lines = table(["Rung", "Metric", "Effect", "Relative effect", "Reading"], cells, right="llrrl")
    ends = markdown(found["ends"])
    return [*lines, "", f"{ends[:1].upper()}{ends[1:]}."]


def _evidence(readout: Readout, found: Found) -> list[str]:
    evidence = found["evidence"]
    if not evidence:
        return []
    n, short = evidence["n"], name(str(evidence["short_metric"]))
    own = " This experiment is among them in the file and was left out." if evidence["left_out_own"] else ""
    if "slope" not in evidence:
        return [f"The file holds {numbers.count(n)} past experiments on {short}.{own}"]
    return [" ".join([_line(readout, evidence) + own, *_quality(evidence), *_foretold(readout, found)])]


def _line(readout: Readout, evidence: Found) -> str:
    low, high = evidence["slope_ci_low"], evidence["slope_ci_high"]
    ends = [numbers.number(end, 3) if end is not None else "unbounded" for end in (low, high)]
    return (
        f"Over {numbers.count(evidence['n'])} past experiments, the true effect on {name(evidence['long_metric'])} was "
        f"{numbers.number(evidence['slope'])} [{ends[0]}, {ends[1]}] times that on {name(evidence['short_metric'])} "
        f"({numbers.level(readout.alpha)} interval, errors of both effects counted), "
        f"{'plus' if evidence['intercept'] >= 0 else 'less'} {numbers.number(abs(evidence['intercept']))}."
    )


def _quality(evidence: Found) -> list[str]:
    loo, mean = evidence["loo_error"], numbers.number(evidence["mean_error"])
    foretold = (
        f"Experiments left out are foretold with an error of {numbers.number(loo)}; the mean alone would leave {mean}."
        if loo is not None and math.isfinite(loo)
        else "With an experiment left out, the others tell no line."
    )
    said = [
        f"Short effects explain {numbers.percent(evidence['r2'])} of the variance of true long ones (R²). {foretold}"
    ]
    if off := evidence["farthest"]:
        measured, others = (numbers.number(off[key], 3, True) for key in ("long_effect", "foretold"))
        said.append(
            f"Far off is {name(off['experiment'])}: its long effect is {measured} where the others foretell {others}; "
            "is that row right?"
        )
    if not evidence["between"]:
        said.append("What the line leaves between them cannot be told from their noise, so R² is an upper guess.")
    if evidence["paradox"]:
        said.append(f"Surrogate paradox: {markdown(evidence['paradox'])}.")
    return said


def _foretold(readout: Readout, found: Found) -> list[str]:
    p, evidence = found["predicted"], found["evidence"]
    if not p:
        return []
    said = [
        f"For this experiment they foretell {name(p['metric'])} {predicted(found)}, counting the line's error, what it "
        f"leaves between experiments and the error of the effect on {name(p['short_metric'])}; the chance of an effect "
        f"in the bad direction is {_chance(p['reversal'])}."
    ]
    least = evidence["threshold_effect"]
    if least is None:
        said.append("No short effect, however large, would foretell a good long one for sure.")
    elif least:
        size = numbers.percent(least, 3, True) if found["scale"] == "relative" else numbers.number(least, 3, True)
        said.append(f"An effect of {size} on {name(p['short_metric'])} is where a good long one is foretold for sure.")
    result = next((m for m in readout.metrics if m.metric == p["metric"] and m.arm == found["arm"]), None)
    if result is not None and result.verdict is not None:
        measured = numbers.effect(result.estimate, result.ci_low, result.ci_high)
        said.append(f"Measured, now that it is in: {measured}.")
    return said


def _chance(value: float) -> str:
    return "below 0.1 %" if value < 0.001 else "above 99.9 %" if value > 0.999 else numbers.percent(value)


def _holdout(found: Found) -> list[str]:
    plan = found["holdout"]
    if not plan or not plan["why"]:
        return []
    lines = [f"Holdout: {markdown(plan['why'])}."]
    if plan["variance_from"]:
        grows = plan["units_per_week"]
        more = "" if not grows else f", and {numbers.count(grows)} new ones come in a week"
        unit = markdown(str(plan["unit"]))
        lines.append(
            f"Planned with {numbers.count(plan['units'])} {unit}s seen in the log{more}; how much {unit}s differ is "
            f"from {markdown(plan['variance_from'])}; the outcome of every {unit} is taken to be in by then."
        )
    return [" ".join(lines)]
