"""Panels: did treatment begin in the units and periods in which the rollout says, and nowhere else?"""

from __future__ import annotations

import numpy as np

from readout.checks.base import percent, share, threshold
from readout.evidence import Evidence
from readout.results import Check
from readout.samples.panel import UnitPeriods
from readout.samples.rollout_words import some
from readout.text import named, visible

# Rows after the rollout without treatment are no chance where their chance is below this.
BY_CHANCE = 0.001


def treatment_start(evidence: Evidence) -> Check:
    """Executed treatment begins with the rollout: not before, not later, not elsewhere, and it stays."""
    name, sample = "treatment_start", evidence.sample
    assert isinstance(sample, UnitPeriods)
    if sample.carried is None:
        message = "needs the role 'executed' (or 'arm') and design.treatment to see when treatment began"
        return Check(name, "assignment", "skip", message)
    limit = threshold(evidence.spec, name, 0.01)
    treated = sample.carried_out()
    if not treated.any():
        message = f"no row was treated: none has {sample.carried} {named(evidence.arms[1])}"
        return Check(name, "assignment", "fail", message, value=1.0, threshold=limit, action="pause")
    starts, n = sample.starts(), sample.axis.n
    before = np.arange(n) < starts[:, None]
    early = share(float(treated[before].sum()), float(treated.sum()))
    late = _not_carried(sample, treated, before)
    rolled_out = int((starts < n).sum())
    said = f"{percent(early)} of treated rows stand before their unit's rollout"
    elsewhere = np.flatnonzero((starts == n) & (treated.sum(axis=1) > 0))
    if elsewhere.size:
        said += f" or in {elsewhere.size:,} units that it says were not treated: {_names(sample, elsewhere)}"
    if late:
        said += f"; {len(late)} of {rolled_out} units were not treated at first, or not to the end, or never: "
        said += _names(sample, late)
    worst = max(early, share(len(late), rolled_out))
    if worst > limit:
        return Check(name, "assignment", "fail", said, None, None, worst, limit, "pause")
    return Check(name, "assignment", "pass", said, None, None, worst, limit)


def _names(sample: UnitPeriods, units: np.ndarray | list[int]) -> str:
    return some([repr(visible(sample.units[i], 40)) for i in units])


def _not_carried(sample: UnitPeriods, treated: np.ndarray, before: np.ndarray) -> list[int]:
    """Units with more rows without treatment after the rollout, before the first treated row's period or after the
    last one's, than chance leaves at their share of treated rows between."""
    found = []
    for i in np.flatnonzero(sample.starts() < sample.axis.n):
        rows, mine = sample.n_rows[i] * ~before[i], treated[i] * ~before[i]
        if not mine.any():
            found.append(int(i))
            continue
        first, last = np.flatnonzero(mine)[[0, -1]]
        share_between = mine[first : last + 1].sum() / rows[first : last + 1].sum()
        empty = max(rows[:first].sum(), rows[last + 1 :].sum())
        if empty and (1.0 - share_between) ** empty < BY_CHANCE:
            found.append(int(i))
    return found
