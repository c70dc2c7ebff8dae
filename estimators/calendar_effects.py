"""Calendar effects that a switchback can carry: every level of a factor must hold both arms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@dataclass(frozen=True, slots=True)
class Factor:
    """A calendar factor as it stands in the regression.

    Attributes:
        name: ``hour`` or ``weekday``.
        codes: ``(n,)`` level of each cell after joining, ``0 .. levels - 1``.
        levels: Levels that are left; 1: the factor has no effect in the model.
        dropped: A sentence per level that no longer stands alone.
    """

    name: str
    codes: NDArray[np.intp]
    levels: int
    dropped: tuple[str, ...]

    @property
    def columns(self) -> NDArray[np.float64]:
        """``(n, levels - 1)`` dummies, the first level left out."""
        return np.asarray(self.codes[:, None] == np.arange(1, self.levels), dtype=np.float64)


def factor(name: str, values: NDArray[np.intp], arm: NDArray[np.intp]) -> Factor:
    """The factor over ``values``, a level that holds one arm joined to its neighbour in the calendar.

    A level with a single arm says nothing of the effect; alone it would only take its cells out of the comparison.
    Joined to the level that follows it (the first follows the last), its cells stay in, with a coarser calendar. Only
    arms and calendar decide, never the outcome.
    """
    levels = [[int(v)] for v in np.unique(values)]
    arms = [set(arm[values == group[0]].tolist()) for group in levels]
    dropped: list[str] = []
    while len(levels) > 1 and any(len(held) < 2 for held in arms):
        k = next(i for i, held in enumerate(arms) if len(held) < 2)
        neighbour = (k + 1) % len(levels)
        dropped.append(f"{_label(name, levels[k])} joined to {_label(name, levels[neighbour])}: it holds one arm")
        levels[neighbour] += levels[k]
        arms[neighbour] |= arms[k]
        del levels[k], arms[k]
    code = {v: i for i, group in enumerate(levels) for v in group}
    codes = np.array([code[int(v)] for v in values], dtype=np.intp)
    return Factor(name, codes, len(levels), tuple(dropped))


def plain(name: str, values: NDArray[np.intp]) -> Factor:
    """The factor with every level as it is, whatever the arms."""
    levels, codes = np.unique(values, return_inverse=True)
    return Factor(name, codes.reshape(-1).astype(np.intp), len(levels), ())


def without(f: Factor, reason: str) -> Factor:
    """The factor taken out of the model, with the reason."""
    return Factor(f.name, np.zeros_like(f.codes), 1, (*f.dropped, f"{f.name}: all levels dropped: {reason}"))


def _label(name: str, group: list[int]) -> str:
    names = [WEEKDAYS[v % 7] if name == "weekday" else f"{v:02d}h" for v in sorted(group)]
    return f"{name} {'+'.join(names)}"
