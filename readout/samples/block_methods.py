"""How a switchback's effect is estimated: the method that the spec asks for, on the sample's cells."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from estimators.block_regression import block_regression
from estimators.estimate import Estimate
from estimators.horvitz_thompson import horvitz_thompson, leave_one_out_paths
from estimators.leave_one_out import leave_one_out_blocks
from estimators.randomization_blocks import leave_one_out_schedule, randomization_blocks
from estimators.randomization_inference import Assignments
from readout.errors import SpecError
from readout.mechanisms import Kind
from readout.samples.drawn import coins, mechanism_of, redrawn
from readout.schedules import Schedule
from readout.spec.designs import Switchback
from readout.spec.metrics import Metric
from readout.spec.model import Spec

if TYPE_CHECKING:
    from readout.samples.blocks import Blocks

# Below so many randomized units an interval leans on the shape of few scores, and on how alike neighbours are.
FEW = 40
_REDRAWN: dict[Kind, str] = {
    "bernoulli": "a coin for every {unit}",
    "balanced": "balanced over weekday or weekend and time of day",
    "paired": "pairs of consecutive blocks",
}


class BlockMethod:
    """The method of a switchback with its options.

    ``schedule`` is the planned one, where the spec names it; ``seed`` that of schedules drawn anew.

    Raises:
        SpecError: ``horvitz_thompson`` where the probability of a path of arms is not known.
    """

    def __init__(self, spec: Spec, schedule: Schedule | None, seed: int) -> None:
        assert isinstance(spec.design, Switchback)
        self.name = spec.estimator.method
        self._order = spec.design.carryover_blocks
        self._options = spec.estimator.options
        self._spec, self._schedule, self._seed = spec, schedule, seed
        self._drawn: dict[int, Assignments] = {}
        if self.name == "horvitz_thompson":
            self._require_paths(spec.design)

    def effect(
        self, sample: Blocks, num: np.ndarray, den: np.ndarray, keep: np.ndarray, arm: int, alpha: float
    ) -> Estimate:
        """The effect of an arm on the cells that ``keep`` chooses.

        Raises:
            EstimationError: The cells cannot carry it.
        """
        return self._estimate(sample, num, den, keep, arm, alpha, leave_out=False)

    def without_one(
        self, sample: Blocks, num: np.ndarray, den: np.ndarray, keep: np.ndarray, arm: int, alpha: float
    ) -> Estimate:
        """The effect without the randomized unit that moves it most."""
        return self._estimate(sample, num, den, keep, arm, alpha, leave_out=True)

    def notes(self, sample: Blocks, metric: Metric) -> list[str]:
        """What a reader of the metric's effect should know of the method."""
        lags = self._options.get("hac", "none")
        if metric.quantile is not None:
            asked = self.name != "block_regression" or lags != "none"
            return [f"its interval is block_regression's with errors by {sample.unit}"] if asked else []
        if metric.role != "primary":
            return []
        if self.name == "randomization_inference":
            how = _REDRAWN[mechanism_of(self._spec, self._schedule, sample.together).kind].format(unit=sample.unit)
            return [
                f"schedules were drawn anew ({how}): p-value and interval are exact for an effect that is the same in "
                "every block and ends with it, and approximate otherwise"
            ]
        if self.name == "horvitz_thompson":
            before = f" and the {'one' if self._order == 1 else self._order} before it" if self._order else ""
            return [
                f"a block counts where it{before} had one arm, over the probability of that: unbiased whatever moves "
                "the outcome, and wide where the outcome's level is far from zero",
                *_few(sample),
            ]
        lagged = []
        if lags != "none":
            lagged.append(
                f"its error lets blocks up to {lags} apart be alike, whatever their arms; where arms come in runs of "
                "blocks such an interval is too narrow: state the blocks that were drawn (design.block)"
            )
        return [*lagged, *_few(sample)]

    def _estimate(
        self,
        sample: Blocks,
        num: np.ndarray,
        den: np.ndarray,
        keep: np.ndarray,
        arm: int,
        alpha: float,
        *,
        leave_out: bool,
    ) -> Estimate:
        by = sample.clustered_by
        if self.name == "horvitz_thompson":
            # The arms of all blocks make the paths, whether or not a block has a value; and those of other arms count
            # among the blocks, as a path's probability is that among all that the mechanism draws.
            code = sample.logged().arm
            value = keep | ~np.isin(code, (0, arm))
            whole = sample.as_cells(np.where(value, num, 0.0), np.where(value, den, 0.0), np.ones_like(keep), arm)
            cells = replace(whole, arm=np.where(code == 0, 0, np.where(code == arm, 1, 2)))
            chances = coins(mechanism_of(self._spec, self._schedule, sample.together), sample.labels, arm)
            paths = leave_one_out_paths if leave_out else horvitz_thompson
            return paths(cells, chances, order=self._order, alpha=alpha, clustered_by=by)
        cells = sample.as_cells(num, den, keep, arm)
        if self.name == "randomization_inference":
            drawn = self._redrawn(sample, arm)
            mine = replace(drawn, arms=drawn.arms[:, keep])
            test = leave_one_out_schedule if leave_out else randomization_blocks
            return test(cells, mine, alpha=alpha, weights=sample.weights, clustered_by=by)
        regress = leave_one_out_blocks if leave_out else block_regression
        lags = self._options.get("hac", "none")
        hac = None if lags == "none" else int(lags)
        return regress(cells, alpha=alpha, weights=sample.weights, clustered_by=by, hac=hac)

    def _redrawn(self, sample: Blocks, arm: int) -> Assignments:
        """Schedules that might have been, a column for every logged cell: the same ones for all metrics."""
        if arm not in self._drawn:
            how = mechanism_of(self._spec, self._schedule, sample.together)
            draws = int(self._options["draws"])
            self._drawn[arm] = redrawn(how, self._schedule, sample.logged(), sample.labels, arm, draws, self._seed)
        return self._drawn[arm]

    def _require_paths(self, design: Switchback) -> None:
        kind = str(design.assignment)
        if self._schedule is not None:
            kind = "undescribed" if self._schedule.mechanism is None else self._schedule.mechanism.kind
        if kind == "bernoulli":
            return
        message = f"horvitz_thompson needs the probabilities of paths of arms, and those of {kind} blocks are unknown"
        hint = "block_regression or randomization_inference; or blocks drawn one by one (bernoulli)"
        if kind == "undescribed":
            message = (
                "horvitz_thompson needs the probabilities of paths of arms; nothing says how the schedule was drawn"
            )
            hint = "say design.assignment, where the schedule's blocks were drawn one by one (bernoulli)"
        raise SpecError([self._spec.source.problem(("design", "assignment"), message, hint)])


def _few(sample: Blocks) -> list[str]:
    """That an interval leans on few randomized units, which may follow each other closely."""
    n = sum(sample.counts())
    if n >= FEW:
        return []
    return [
        f"it rests on {n} {sample.unit}s, fewer than {FEW}: its interval is approximate, the more so where blocks are "
        "like the one before; randomization_inference does not need that"
    ]
