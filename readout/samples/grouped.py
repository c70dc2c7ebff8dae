"""Effects of units that lie in strata, or in clusters that errors are clustered by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from estimators import clustered_difference, leave_one_out_means, leave_one_out_stratified, stratified
from estimators.clustered_difference import Cells
from estimators.estimate import Estimate
from estimators.stratified import StratifiedArm

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Arm:
    """One arm's units.

    Attributes:
        num, den: ``(n,)`` outcome; ``den`` None where the outcome is a mean over units.
        group: ``(n,)`` codes of their strata or clusters.
    """

    num: Vector
    den: Vector | None
    group: NDArray[np.intp]

    def without(self, index: int) -> Arm:
        """The arm less one unit."""
        rest = np.arange(len(self.num)) != index
        return Arm(self.num[rest], None if self.den is None else self.den[rest], self.group[rest])


def in_strata(control: Arm, treatment: Arm, names: tuple[str, ...], *, alpha: float) -> Estimate:
    """The effect averaged over strata.

    Raises:
        EstimationError: As ``stratified``.
    """
    sides = (_by_stratum(control, names), _by_stratum(treatment, names))
    return stratified(*(side.moments() for side in sides), alpha=alpha)


def in_strata_without_one(control: Arm, treatment: Arm, names: tuple[str, ...], *, alpha: float) -> Estimate | None:
    """As :func:`in_strata`, without the unit that moves it most."""
    return leave_one_out_stratified(_by_stratum(control, names), _by_stratum(treatment, names), alpha=alpha)


def by_cluster(control: Arm, treatment: Arm, variance: str, *, alpha: float) -> Estimate:
    """The difference in means with a cluster-robust error.

    Raises:
        EstimationError: As ``clustered_difference``.
    """
    arms = (control, treatment)
    dens = [np.ones(len(arm.num)) if arm.den is None else arm.den for arm in arms]
    below = float(sum(den.sum() for den in dens))
    centre = float(sum(arm.num.sum() for arm in arms)) / below if below > 0.0 else 0.0
    num = np.concatenate([arm.num - centre * den for arm, den in zip(arms, dens, strict=True)])
    group = np.concatenate([2 * arm.group + code for code, arm in enumerate(arms)])
    cells, place = np.unique(group, return_inverse=True)
    sums, weights, units = (
        np.bincount(place, values).astype(np.float64) for values in (num, np.concatenate(dens), np.ones(len(num)))
    )
    table = Cells(sums, weights, units, cells % 2, cells // 2, centre)
    return clustered_difference(table, variance=variance, alpha=alpha)


def by_cluster_without_one(control: Arm, treatment: Arm, variance: str, *, alpha: float) -> Estimate:
    """As :func:`by_cluster`, without the unit that moves it most.

    Raises:
        EstimationError: As :func:`by_cluster`, or fewer than three units in an arm.
    """
    plain = leave_one_out_means((control.num, control.den), (treatment.num, treatment.den), alpha=alpha)
    left = plain.diagnostics["left_out"]
    arms = [control, treatment]
    arms[left["arm"]] = arms[left["arm"]].without(left["index"])
    return by_cluster(arms[0], arms[1], variance, alpha=alpha)


def _by_stratum(arm: Arm, names: tuple[str, ...]) -> StratifiedArm:
    return StratifiedArm(arm.num, arm.den, arm.group, names)
