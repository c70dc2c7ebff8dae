"""Was every action that the target policy takes tried in the states where it takes it?"""

from __future__ import annotations

import math
from typing import Any

import polars as pl

from estimators.exploration import exploration
from estimators.inference import EstimationError
from readout.checks.base import percent, share, threshold
from readout.evidence import Evidence
from readout.memo.numbers import count
from readout.results import Check
from readout.samples import policy_cells
from readout.samples.cell_words import Statement, statements
from readout.samples.off_policy import OffPolicy
from readout.samples.policy_support import FEW, SPREAD, UNSUPPORTED, judged

NAME = "support"
# Cells that a message names.
NAMED = 5
NOT_DRAWN = "every logged probability is 1, so that nothing was drawn by chance"


def support(evidence: Evidence) -> Check:
    """The share of the target's requests in states where its action was never tried."""
    sample = evidence.sample
    assert isinstance(sample, OffPolicy)
    limit = threshold(evidence.spec, NAME, UNSUPPORTED)
    if not sample.target.whole:
        return _by_weight(evidence, sample, limit)
    cells = policy_cells.tried(sample.cells, sample.target, evidence.tables)
    found = judged(cells)
    logged = evidence.tables[policy_cells.LOGGED]
    ran = set(logged[policy_cells.ACTION].unique())
    lines = [(line, _said(sample, line, ran)) for line in statements(sample.cells, found.untried, cells)]
    rows = [_row(sample, line, found.mass) for line, _ in lines]
    told = _among(sample)
    if found.share > limit:
        lines += [(line, _shut(sample, line)) for line in statements(sample.cells, found.shut, cells)]
        lines.sort(key=lambda pair: -pair[0].mass)
        drawn = "" if _draws(logged) else f"{NOT_DRAWN}, and "
        said = "; ".join(text for _, text in lines[:NAMED])
        more = f"; and {len(lines) - NAMED} more" if len(lines) > NAMED else ""
        message = (
            f"{drawn}on {percent(found.share)} of the target's requests its action had no chance{told}: {said}{more}"
        )
        short = NOT_DRAWN if drawn else lines[0][1] if lines else f"{percent(found.share)} of the target's requests"
        plan = _plan(evidence, sample, [line for line, _ in lines], found.mass)
        return Check(
            NAME, "identification", "fail", message, value=found.share, threshold=limit, action="instrument",
            details={NAME: rows, "exploration": plan}, short=short,
        )  # fmt: skip
    details = {NAME: rows} if rows else {}
    worst = sum(one.mass for one in found.thin)
    if max(found.share, share(worst, found.mass)) > 0.5 * limit:
        never = f"{percent(found.share)} where it was never tried" if found.share else ""
        seldom = f"{percent(share(worst, found.mass))} where it was tried fewer than {FEW} times" if worst else ""
        places = ", and ".join(part for part in (never, seldom) if part)
        message = f"of the requests on which the target takes an action, {places}{told}"
        return Check(NAME, "identification", "warn", message, value=found.share, threshold=limit, details=details)
    beyond = f" but for {percent(found.share)} of its requests" if found.share else ""
    message = f"every action that the target takes was tried wherever it takes it{beyond}{told}"
    return Check(NAME, "identification", "pass", message, value=found.share, threshold=limit)


def _by_weight(evidence: Evidence, sample: OffPolicy, limit: float) -> Check:
    """Where only its probability of the logged action is known, the mean weight tells how much has support."""
    scored = sample.scored
    if isinstance(scored, str):
        return Check(NAME, "identification", "skip", scored)
    rows, w = scored.sums.get("n"), scored.sums.get("w")
    if not rows.any():
        return Check(NAME, "identification", "skip", "no term has a value on every request, so no weight is whole")
    mean = float(w.sum() / rows.sum())
    rest = w - mean * rows
    error = math.sqrt(float(rest @ rest) * len(w) / max(len(w) - 1, 1)) / float(rows.sum())
    missing = 1.0 - mean
    said = f"the mean weight is {mean:.3g} (std. error {error:.2g}; 1 where every action of the target had a chance)"
    if missing > limit and missing > SPREAD * error:
        message = f"{said}: its actions had no chance on about {percent(missing)} of its requests"
        return Check(
            NAME, "identification", "fail", message, value=missing, threshold=limit, action="instrument",
            short=f"the mean weight is {mean:.3g}",
        )  # fmt: skip
    why = "which actions it takes in which state is not said, so that only their weight is seen"
    return Check(NAME, "identification", "warn" if missing > SPREAD * error else "pass", f"{said}; {why}",
                 value=max(missing, 0.0), threshold=limit)  # fmt: skip


def _plan(evidence: Evidence, sample: OffPolicy, lines: list[Statement], mass: float) -> list[dict[str, Any]]:
    """For each part without support: with what probability its action is to be drawn, over how many requests, so that
    these parts add no more to the standard error than is fit to see the minimum effect."""
    spread, goal = sample.spread_and_goal()
    if not lines or not spread > 0.0 or not goal > 0.0:
        return []
    requests, tries = [line.mass for line in lines], [min(line.tries, line.mass) for line in lines]
    try:
        found = exploration(requests, tries, total=max(mass, sum(requests)), spread=spread, goal=goal)
    except EstimationError:
        return []
    return [
        {
            "where": line.where,
            "action": sample.target.actions[line.action],
            "probability": one.probability,
            "requests": one.requests,
            "tries": one.tries,
            "logs": one.logs,
            "goal_std_error": goal,
        }
        for line, one in zip(lines, found, strict=True)
        if one.tries
    ]


def _said(sample: OffPolicy, line: Statement, ran: set[int]) -> str:
    anywhere = "" if line.action in ran else ", nor anywhere else in the log"
    return f"{line.where}: {sample.target.actions[line.action]} never tried{anywhere} ({count(line.mass)} requests)"


def _shut(sample: OffPolicy, line: Statement) -> str:
    """Of a part in which the action ran, on other requests."""
    action = sample.target.actions[line.action]
    return f"{line.where}: {action} had no chance on {count(line.mass)} requests (another was certain)"


def _draws(logged: pl.DataFrame) -> bool:
    """Whether the log has requests on which more than one action had a chance."""
    return "certain" not in logged.columns or float(logged["certain"].sum()) < float(logged["n"].sum())


def _among(sample: OffPolicy) -> str:
    names = [axis.name for axis in sample.cells.axes]
    return f" (in cells of {', '.join(names)})" if names else ""


def _row(sample: OffPolicy, line: Statement, mass: float) -> dict[str, Any]:
    return {
        "where": line.where,
        "action": sample.target.actions[line.action],
        "requests": line.mass,
        "share": share(line.mass, mass),
        "tries": line.tries,
    }
