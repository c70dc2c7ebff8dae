"""Where the logs hold nothing of what a policy would do: cells without a try that chance does not explain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from readout.samples.policy_cells import Tried

# Of the target's requests, the share without support that no estimate is given for.
UNSUPPORTED = 0.01
# Where an action is tried as often as elsewhere, so many tries or more are not all missed by chance.
SURE = 9.0
# Fewer tries than these in a cell of so many requests say little of it.
FEW, MANY = 5, 200
SPREAD = 3.0


@dataclass(frozen=True, slots=True)
class Support:
    """Which part of the target's requests the logs say nothing of.

    Attributes:
        untried: Cells in which the target's action was never tried, and not by chance.
        thin: Cells with a handful of tries.
        mass: The target's requests in all.
        missing: Without support: those cells, those that the log shuts, and what is beyond chance in small cells.
    """

    untried: tuple[Tried, ...]
    thin: tuple[Tried, ...]
    mass: float
    missing: float

    @property
    def share(self) -> float:
        """Of the target's requests without support."""
        return self.missing / self.mass if self.mass else 0.0


def judged(cells: Sequence[Tried]) -> Support:
    """Support over cells.

    A cell without a try is held against how often the action is tried elsewhere, or what the logged probabilities leave
    to it where that is less: with nine tries or more to be expected, that none came is not chance. Smaller cells are
    judged together: what is beyond the mass that chance leaves untried, and three of its standard deviations.
    """
    rates: dict[int, tuple[float, float]] = {}
    for one in cells:
        if one.tries > 0.0:
            tries, mass = rates.get(one.action, (0.0, 0.0))
            rates[one.action] = (tries + one.tries, mass + one.mass)
    untried, thin = [], []
    missing = small = expected = variance = 0.0
    for one in cells:
        tries, mass = rates.get(one.action, (0.0, 0.0))
        due = one.mass * tries / mass if mass else 0.0
        if one.left is not None and one.left > 0.0:
            due = min(due, one.left)
        if due < SURE and due > 0.0 and one.shut < one.mass:
            chance = math.exp(-due)
            expected += one.mass * chance
            variance += one.mass**2 * chance * (1.0 - chance)
            small += one.mass if one.tries == 0.0 else 0.0
        elif one.tries == 0.0:
            untried.append(one)
            missing += one.mass
        if one.tries > 0.0:
            missing += one.shut
            if one.tries < FEW and one.mass >= MANY:
                thin.append(one)
    missing += max(0.0, small - expected - SPREAD * math.sqrt(variance))
    return Support(tuple(untried), tuple(thin), sum(one.mass for one in cells), missing)
