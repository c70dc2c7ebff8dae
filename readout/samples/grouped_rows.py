"""Effects where rows are the units and lie in strata or clusters: from moments by arm and group."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from estimators import clustered_difference, stratified
from estimators.clustered_difference import Cells
from estimators.estimate import Estimate
from estimators.moments import Moments
from readout.samples.labels import low

Sides = list[dict[str, Moments]]


@dataclass(frozen=True, slots=True)
class Group:
    """The rows of one arm (0 control, 1 treatment) in one stratum or cluster, their smallest and largest value."""

    arm: int
    code: int
    moments: Moments
    ends: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Grouped:
    """Control and one arm by group.

    Attributes:
        groups: Those with rows.
        names: Names of the strata or clusters by code.
        variance: The cluster-robust variance; None: the groups are strata.
    """

    groups: list[Group]
    names: tuple[str, ...]
    variance: str | None

    def effect(self, alpha: float) -> Estimate:
        """The effect averaged over strata, or with a cluster-robust error.

        Raises:
            EstimationError: As ``stratified`` and ``clustered_difference``.
        """
        if self.variance is not None:
            return clustered_difference(self.cells(), variance=self.variance, alpha=alpha)
        sides: Sides = [{}, {}]
        for group in self.groups:
            sides[group.arm][self.names[group.code]] = group.moments
        return stratified(*sides, alpha=alpha)

    def without_farthest(self, alpha: float) -> Estimate | None:
        """The effect of a plain mean without a group's value that is farthest from its mean, of the group where that
        moves its arm's sum most.

        None where no group has three rows.
        """
        moves = [
            abs(g.moments.mean_num - without(g.moments, farthest(g.moments, g.ends)).mean_num) * self._size(g.code)
            if g.moments.n >= 3
            else -1.0
            for g in self.groups
        ]
        at = int(np.argmax(moves))
        if moves[at] < 0.0:
            return None
        mine = self.groups[at]
        less = replace(mine, moments=without(mine.moments, farthest(mine.moments, mine.ends)))
        return replace(self, groups=[*self.groups[:at], less, *self.groups[at + 1 :]]).effect(alpha)

    def _size(self, code: int) -> int:
        """What a group's mean weighs: its stratum's rows; of clusters, its own."""
        return sum(g.moments.n for g in self.groups if g.code == code)

    def cells(self) -> Cells:
        """Sums by cluster and arm."""
        n = np.array([g.moments.n for g in self.groups], dtype=np.float64)
        num, den = (np.array([getattr(g.moments, f"mean_{part}") for g in self.groups]) for part in ("num", "den"))
        centre = float(n @ num) / float(n @ den) if float(n @ den) > 0.0 else 0.0
        arm, code = (np.array([getattr(g, name) for g in self.groups], dtype=np.intp) for name in ("arm", "code"))
        return Cells(n * (num - centre * den), n * den, n, arm, code, centre)


def by_arm(frame: pl.DataFrame, n_facts: int) -> pl.DataFrame:
    """A table of sums by arm and facts, by arm only."""
    frame = frame.drop([low(i) for i in range(n_facts)])
    largest, smallest = pl.selectors.ends_with("|max"), pl.selectors.ends_with("|min")
    sums = pl.selectors.all() - largest - smallest - pl.selectors.by_name("arm")
    return frame.group_by("arm").agg(sums.sum(), largest.max(), smallest.min()).sort("arm")


def farthest(m: Moments, ends: tuple[float, float]) -> float:
    """The smallest or the largest value, whichever lies farther from the mean."""
    return max(ends, key=lambda value: abs(value - m.mean_num))


def without(m: Moments, value: float) -> Moments:
    """Moments of a plain mean after one value is taken away (Chan's update, backwards)."""
    n = m.n - 1
    mean = m.mean_num + (m.mean_num - value) / n
    square = m.var_num * n - (value - m.mean_num) * (value - mean)
    var = max(square, 0.0) / (n - 1)
    return Moments(n, mean, 1.0, var, 0.0, 0.0, var)
