"""How an observational comparison was made alike, and how strong an unlogged cause would have to be to undo it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from readout.memo import words
from readout.memo.escape import markdown
from readout.memo.numbers import count, effect, number, percent
from readout.memo.tables import bullets, section
from readout.results import Readout
from readout.text import named, visible

_OTHERS = 2  # further adjusters named as benchmarks


def adjustment(readout: Readout) -> list[str]:
    """The lines of the section; none of a design that adjusts for nothing of the kind."""
    shown = readout.diagnostics
    if readout.design.get("kind") != "observational":
        return []
    said = [
        *_models(readout, shown.get("adjustment")),
        *_balance(readout),
        *_weights(readout),
        *sensitivity_sentences(readout),
        *_risks(readout),
    ]
    return section("## How it was adjusted, and what could undo it", bullets(markdown(line) for line in said))


def _models(readout: Readout, models: Mapping[str, Any] | None) -> list[str]:
    """What stood in for the draw, and how well the models predict; cross-fitting in one sentence."""
    adjusted = readout.design.get("adjust") or []
    names = adjusted if isinstance(adjusted, list) else list(dict.fromkeys(n for one in adjusted.values() for n in one))
    listed = ", ".join(visible(str(name), 60) for name in names) or "nothing"
    lines = [f"Adjusted for: {listed}. Errors are by {readout.design['errors_by']}."]
    if not models:
        return lines
    if "neighbours" in models:
        n, metric = models["neighbours"], str(models["metric"]).replace("_", " ")
        near = "the nearest row" if n == 1 else f"the {n} nearest rows"
        mended = "; a regression mends what they differ by" if models["bias_adjustment"] else ""
        return [*lines, f"Each row stands beside {near} of the other action by {metric} distance{mended}."]
    return [*lines, _cross_fitting(readout, models), *_fit(readout, models)]


def _cross_fitting(readout: Readout, models: Mapping[str, Any]) -> str:
    action, outcome = (
        f"that of the action ({models['propensity_model']})",
        f"that of outcomes ({models['outcome_model']})",
    )
    both = f"Two models, {action} and {outcome}," if models["outcome_model"] else f"One model, {action},"
    folds, unit = models["folds"], readout.design["errors_by"]
    was = "were" if models["outcome_model"] else "was"
    if folds == 1:
        return f"{both} {was} fitted to the same rows that they predict (folds: 1)."
    times = f" This was done {models['repeats']} times with other parts, and results are medians." * (
        models["repeats"] > 1
    )
    return (
        f"{both} {was} fitted {folds} times, each time to all but one of {folds} parts of the {unit}s, and used on the "
        f"part that was left out (cross-fitting): no {unit} is predicted by a model that has seen it.{times}"
    )


def _fit(readout: Readout, models: Mapping[str, Any]) -> list[str]:
    """How well they predict rows that they have not seen."""
    said = []
    unseen = "On rows that it has not seen, the" if models["folds"] > 1 else "The"
    if (auc := models["auc"]) is not None:
        said.append(f"{unseen} action's model tells a treated row from an untreated one in {percent(auc)} of pairs "
                    "(50 %: the action looks random given the adjusters).")  # fmt: skip
    shares = [(arm, models[f"outcome_explained_{arm}"]) for arm in ("control", "treatment")]
    known = [f"{percent(max(share, 0.0))} under {arm}" for arm, share in shares if share is not None]
    if known:
        metric = visible(str(models["metric_read"]), 60)
        said.append(f"The outcome's model explains {' and '.join(known)} of how {metric} varies.")
    return [" ".join(said)] if said else []


def _balance(readout: Readout) -> list[str]:
    rows = [row for row in readout.diagnostics.get("balance") or () if "after" in row]
    if not rows:
        return []
    worst = {
        when: max(rows, key=lambda row: math.inf if row[when] is None else abs(row[when]))
        for when in ("before", "after")
    }
    parts = [
        f"{number(None if row[when] is None else abs(row[when]), 2)} ({visible(row['covariate'], 60)}) {when} weighting"
        for when, row in worst.items()
    ]
    would = " (outcome_regression itself does not weigh)" * (readout.design.get("method") == "outcome_regression")
    return [
        f"Largest standardised difference between the actions: {', '.join(parts)}{would}; over 0.1 after it is worth a "
        "word."
    ]


def _weights(readout: Readout) -> list[str]:
    sizes = readout.diagnostics.get("ess") or {}
    rows: Mapping[str, Any] = readout.design.get("rows_by_arm") or {}
    parts = [
        f"{count(rows.get(arm))} rows of {named(arm)} weigh as much as {count(n)} alike" for arm, n in sizes.items()
    ]
    lines = [f"After weighting {'; '.join(parts)}."] if parts else []
    out = {arm: share for arm, share in (readout.diagnostics.get("trimmed") or {}).items() if share}
    if out:
        what = (
            "The caliper" if readout.design.get("method") == "matching" else f"Trimming ({readout.design.get('trim')})"
        )
        shares = ", ".join(
            percent(share) + (f" for {named(arm)}" if len(sizes) > 2 else "") for arm, share in out.items()
        )
        lines.append(f"{what} left out {shares} of the rows: the effect is of the others, not of all.")
    return lines


def sensitivity_sentences(readout: Readout) -> list[str]:
    """What an unlogged cause as strong as the adjusters would do, and how strong it must be, for the first primary."""
    lines = []
    for row in readout.diagnostics.get("sensitivity") or ():
        title = visible(str(row["metric"]), 60)
        title += f" under {named(row['arm'])}" if words.several_arms(readout) else ""
        if row["reason"]:
            lines.append(f"How strong an unlogged cause would have to be is not known for {title}: {row['reason']}.")
            continue
        lines.append(_benchmarked(title, row["benchmarks"]) + _needed(row))
    return lines


def _benchmarked(title: str, benchmarks: list[Mapping[str, Any]]) -> str:
    once = [b for b in benchmarks if b["multiple"] == 1.0]
    if not once:
        return ""
    said = []
    for one in once[: 1 + _OTHERS]:
        moved = effect(one["estimate"], one["ci_low"], one["ci_high"])
        said.append(f"one as strong as {visible(one['covariate'], 60)} would leave {moved}")
    towards = f"An unlogged cause of both the action and {title} would move its effect towards zero, or past it"
    return f"{towards}: {'; '.join(said)}. "


def _needed(row: Mapping[str, Any]) -> str:
    whole, end = row["robustness_value"], row["robustness_value_alpha"]
    left = "of what the adjusters leave of both the action and the outcome"
    if not end:
        reached = "The interval holds zero as it is; to bring the estimate there"
        return f"{reached} such a cause would have to explain {percent(whole)} {left}."
    return (
        f"To bring the interval to zero it would have to explain {percent(end)} {left}, to bring the estimate there "
        f"{percent(whole)}."
    )


def _risks(readout: Readout) -> list[str]:
    lines = []
    for row in readout.diagnostics.get("evalue") or ():
        title = visible(str(row["metric"]), 60)
        arm = named(row["arm"])
        needs = number(row["e_value"])
        end = row["e_value_of_interval"]
        limit = "its interval holds no effect as it is" if end <= 1.0 else f"{number(end)} brings its interval to none"
        lines.append(
            f"E-value of {title}: a cause that multiplies the chance of {arm} and that of {title} by {needs} each, "
            f"beyond the adjusters, would explain the effect away; {limit}."
        )
    return lines
