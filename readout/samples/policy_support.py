"""Where the logs hold nothing of what a policy would do: cells without a try that chance does not explain."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from readout.samples.policy_cells import Tried

# Of the target's requests, the share without support that no estimate is given for.
UNSUPPORTED = 0.01
# So many tries that were due, or more, are not all missed by chance.
SURE = 9.0
# Fewer tries than these in a cell of so many requests say little of it, where twice the sure number is usual.
FEW, MANY = 5, 200
SPREAD = 3.0
# A chance below which cells without a try are not put down to it.
RARE = 0.001


@dataclass(frozen=True, slots=True)
class Support:
    """Which part of the target's requests the logs say nothing of.

    Attributes:
        untried: Cells in which the target's action was never tried, and not by chance.
        shut: Cells in which it was tried, but had no chance on some requests, which are their mass.
        thin: Cells with a handful of tries.
        mass: The target's requests in all.
        missing: Without support: those cells, those that the log shuts, and what is beyond chance in small cells.
    """

    untried: tuple[Tried, ...]
    shut: tuple[Tried, ...]
    thin: tuple[Tried, ...]
    mass: float
    missing: float

    @property
    def share(self) -> float:
        """Of the target's requests without support."""
        return self.missing / self.mass if self.mass else 0.0


def judged(cells: Sequence[Tried]) -> Support:
    """Support over cells.

    A cell without a try is held against the tries that were due: with nine or more to be expected, that none came is
    not chance. So are all cells that share a part of one column, for what was closed in many small cells. What is left
    is judged together, by :func:`_beyond_chance`.
    """
    rates = _rates(cells)
    due = [_due(one, rates) for one in cells]
    closed = _closed(cells, due)
    untried, shut, thin = [], [], []
    missing = 0.0
    small: list[tuple[float, float, bool]] = []
    for i, one in enumerate(cells):
        if i not in closed and 0.0 < due[i] < SURE and one.shut < one.mass:
            small.append((one.mass, math.exp(-due[i]), one.tries == 0.0))
        elif one.tries == 0.0:
            untried.append(one)
            missing += one.mass
        if one.tries > 0.0:
            missing += one.shut
            if one.shut > 0.0:
                shut.append(replace(one, mass=one.shut, tries=0.0))
            usual = one.mass * rates[one.action].usual
            if one.tries < FEW and one.mass >= MANY and usual >= 2.0 * SURE:
                thin.append(one)
    missing += _beyond_chance(small)
    return Support(tuple(untried), tuple(shut), tuple(thin), sum(one.mass for one in cells), missing)


@dataclass(frozen=True, slots=True)
class _Rate:
    """How often an action is tried where it has a chance: in the mean, and where it is seldom."""

    usual: float
    seldom: float


def _rates(cells: Sequence[Tried]) -> dict[int, _Rate]:
    """By action. Seldom is the logged probability that all but a hundredth of its requests exceed, cell by cell: one
    that explores a little is no policy that never tries. Where none is logged it is the mean."""
    found = {}
    for action in {one.action for one in cells if one.tries > 0.0}:
        mine = [one for one in cells if one.action == action and one.tries > 0.0]
        mass = sum(one.mass for one in mine)
        usual = sum(one.tries for one in mine) / mass
        below, seldom = 0.0, usual
        for chance, requests in sorted((one.chance, one.mass) for one in mine if one.chance is not None):
            below, seldom = below + requests, min(usual, chance)
            if below > UNSUPPORTED * mass:
                break
        found[action] = _Rate(usual, seldom)
    return found


def _due(one: Tried, rates: Mapping[int, _Rate]) -> float:
    """Tries that a cell would have if the action had a chance there; 0 of an action that was never tried."""
    tries = one.mass * rates[one.action].seldom if one.action in rates else 0.0
    return min(tries, one.left) if one.left else tries


def _closed(cells: Sequence[Tried], due: Sequence[float]) -> set[int]:
    """Places of the cells in which an action was never tried throughout a part of some column, and not by chance."""
    parts: dict[tuple[int, int, int | None], list[int]] = {}
    for i, one in enumerate(cells):
        for axis, part in enumerate(one.parts):
            parts.setdefault((one.action, axis, part), []).append(i)
    found: set[int] = set()
    for places in parts.values():
        if not any(cells[i].tries for i in places) and sum(due[i] for i in places) >= SURE:
            found.update(places)
    return found


def _beyond_chance(small: Sequence[tuple[float, float, bool]]) -> float:
    """Untried mass of small cells that is more than chance leaves: none where as much has a chance of one in a thousand
    (Chernoff's bound, for a few cells are no normal sum), else what lies beyond the expected.

    Args:
        small: Mass of each cell, the chance that it has no try, and whether it has none.
    """
    untried = sum(mass for mass, _, none in small if none)
    expected = sum(mass * chance for mass, chance, _ in small)
    if untried <= expected:
        return 0.0
    largest = max(mass for mass, _, _ in small)
    # The bound's exponent over tilts, from far below one over the largest cell to far above it.
    for step in range(-24, 25):
        tilt = 2.0 ** (step / 4.0) / largest
        log_mean = sum(math.log1p(chance * math.expm1(tilt * mass)) for mass, chance, _ in small)
        if log_mean - tilt * untried < math.log(RARE):
            return untried - expected
    return 0.0
