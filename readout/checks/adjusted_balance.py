"""Are the actions' requests alike, once they are weighed, in what is known from before the decision?"""

from __future__ import annotations

import math
from typing import Any

from estimators.balance_table import Balance, balance_table
from estimators.inference import EstimationError, critical_value
from readout.checks.base import threshold
from readout.checks.overlap import effective, weighting_of
from readout.evidence import Evidence
from readout.results import Check
from readout.samples.by_action import ByAction
from readout.samples.compared_rows import Weighting
from readout.text import visible

NAME = "covariate_balance"
# A standardised difference that is worth a word, where chance alone would not show it.
UNLIKE = 0.1
CHANCE = 0.05


def covariate_balance(evidence: Evidence) -> Check:
    """Standardised differences of everything known from before, before and after weighting.

    It only warns: what is left of a difference, outcome models may mend, and what is not logged it cannot see. A
    difference that random draws of so many rows would show is none.
    """
    limit = threshold(evidence.spec, NAME, UNLIKE)
    tables = {arm: _table(evidence, arm) for arm in evidence.treatments}
    rows = [row for arm, found in tables.items() if not isinstance(found, str) for row in _rows(evidence, arm, found)]
    if not rows:
        reasons = "; ".join(dict.fromkeys(found for found in tables.values() if isinstance(found, str)))
        message = f"no difference to look at: {reasons}" if reasons else "nothing known from before varies"
        return Check(NAME, "balance", "skip", message)
    before, after = (max(rows, key=lambda row: _size(row[when])) for when in ("before", "after"))
    value = _size(after["after"])
    sizes = f"{_said(before, 'before')} before weighting and {_said(after, 'after')} after"
    shown = f"largest standardised difference {sizes}"
    numbers = (None, None, value if math.isfinite(value) else None, limit)
    beyond = [row for row in rows if _size(row["after"]) > max(limit, row["chance"])]
    details = {"balance": [{k: v for k, v in row.items() if k != "chance"} for row in rows]}
    if not beyond:
        by_chance = ", no more than chance draws of so many rows would show" if value > limit else ""
        return Check(NAME, "balance", "pass", f"{len(rows)} compared; {shown}{by_chance}", *numbers, None, details)
    names = ", ".join(visible(row["covariate"], 60) for row in beyond[:5]) + ", …" * (len(beyond) > 5)
    message = f"still unlike after weighting: {names} ({shown}); the weights' model misses how the action was chosen"
    return Check(NAME, "balance", "warn", message, *numbers, None, details)


def _table(evidence: Evidence, arm: int) -> tuple[Weighting, tuple[Balance, ...]] | str:
    sample, found = evidence.sample, weighting_of(evidence, arm)
    assert isinstance(sample, ByAction)
    if isinstance(found, str):
        return found
    known = sample.known(arm)
    try:
        names = [visible(name, 80) for name in known.names]
        return found, balance_table(known.x, found.treated, found.weights, names=names)
    except EstimationError as error:
        return str(error)


def _rows(evidence: Evidence, arm: int, found: tuple[Weighting, tuple[Balance, ...]]) -> list[dict[str, Any]]:
    weighting, table = found
    chance = _by_chance(weighting, len(table))
    return [
        {"covariate": one.covariate, "arm": evidence.arms[arm], "before": one.before, "after": one.after,
         "chance": chance}
        for one in table
    ]  # fmt: skip


def _by_chance(found: Weighting, comparisons: int) -> float:
    """The largest difference of so many covariates that random draws of the weighted units exceed in 5 % of logs."""
    square = sum(1.0 / effective(found.of_units(side)) for side in (~found.treated, found.treated))
    return critical_value(CHANCE / max(comparisons, 1), math.inf) * math.sqrt(square)


def _size(value: float | None) -> float:
    """How large a difference is; without spread to measure it by, beyond all measure."""
    return math.inf if value is None else abs(value)


def _said(row: dict[str, Any], when: str) -> str:
    value = row[when]
    size = "without measure" if value is None else f"{abs(value):.3f}"
    return f"{size} ({row['covariate']})"
