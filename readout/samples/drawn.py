"""The arms of a switchback's blocks as its mechanism might have drawn them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np
import polars as pl

from estimators.inference import EstimationError
from estimators.randomization_inference import Assignments
from readout import planned
from readout.logs.treated import arms as arms_of
from readout.mechanisms import Mechanism, draws, strata
from readout.schedules import Schedule
from readout.spec.designs import Switchback
from readout.spec.model import Spec

_GIVE = "give design.schedule, with its mechanism"


@dataclass(frozen=True, slots=True)
class Logged:
    """The cells of the log, in the order of the sample.

    Attributes:
        block: Keys of the blocks: their starts in microseconds since 1970 where they have a length.
        cluster: Names of the clusters.
        starts: ``(n,)`` UTC starts.
        order: ``(n,)`` number of the block on the time grid.
        arm: ``(n,)`` codes of the arms.
        length: Of a block; None where a column names the blocks.
    """

    block: pl.Series
    cluster: pl.Series
    starts: np.ndarray
    order: np.ndarray
    arm: np.ndarray
    length: timedelta | None


def mechanism_of(spec: Spec, schedule: Schedule | None, together: bool) -> Mechanism:
    """How the arms were drawn: as the schedule records it, else as ``design.assignment`` and ``design.split`` say.

    Raises:
        EstimationError: A split that the mechanism cannot have, or a schedule of which neither says how it was drawn.
    """
    if schedule is not None:
        if schedule.mechanism is None:
            raise EstimationError("nothing says how the schedule was drawn: say design.assignment")
        return schedule.mechanism
    design = spec.design
    assert isinstance(design, Switchback)
    shares = {arm: 1.0 if design.split is None else design.split.get(arm, 0.0) for arm in arms_of(spec)}
    try:
        return Mechanism(design.assignment, shares, together=together)
    except ValueError as error:
        raise EstimationError(str(error)) from error


def coins(mechanism: Mechanism, labels: Sequence[str], arm: int) -> tuple[float, float]:
    """Probabilities of control and of an arm for every randomized unit.

    Raises:
        EstimationError: Units are not drawn one by one, or an arm is never drawn.
    """
    if mechanism.coin is None:
        raise EstimationError(f"path probabilities of {mechanism.kind} blocks are not known")
    control, treatment = (mechanism.coin.get(labels[code], 0.0) for code in (0, arm))
    if not (control > 0.0 and treatment > 0.0):
        raise EstimationError("the split gives an arm nothing, so it was not drawn")
    return control, treatment


def redrawn(
    mechanism: Mechanism,
    schedule: Schedule | None,
    logged: Logged,
    labels: Sequence[str],
    arm: int,
    n: int,
    seed: int,
) -> Assignments:
    """``n`` other schedules by the same mechanism: 0 control, 1 the arm; columns in the order of ``logged``.

    Where there are other arms, their blocks stay theirs, and coins decide between control and the arm in the rest.
    Without a schedule the blocks are those from the first logged one to the last; pairs begin with the first.

    Raises:
        EstimationError: Blocks that are not planned, logged arms that the mechanism could not have drawn, or several
            treatments that are not drawn by coins.
    """
    if mechanism.coin is not None:
        control, treatment = coins(mechanism, labels, arm)
        two = replace(mechanism, split={labels[0]: control, labels[arm]: treatment})
        arms = draws(two, logged.starts, _codes(logged.cluster), n, np.random.default_rng([2, seed]))
        return Assignments(arms, False, mechanism=mechanism.kind)
    if len(labels) > 2:
        raise EstimationError(f"{mechanism.kind} blocks of several treatments are not drawn anew for one of them")
    if schedule is not None:
        cells = pl.DataFrame({"cluster": logged.cluster, "block": logged.block})
        return Assignments(planned.redrawn(schedule, cells, labels[arm], n, seed), False, mechanism=mechanism.kind)
    starts, cluster, place = _grid(logged)
    _require_fit(mechanism, starts, cluster, place, logged, len(labels))
    codes = draws(mechanism, starts, cluster, n, np.random.default_rng([1, seed]))[:, place]
    return Assignments((codes == mechanism.arms.index(labels[arm])).astype(np.int8), False, mechanism=mechanism.kind)


def _grid(logged: Logged) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Starts and clusters of all blocks between the first and the last, and the place of every logged cell."""
    if logged.length is None:
        raise EstimationError(f"the blocks have no stated length, so only coins can be drawn anew; {_GIVE}")
    cluster = _codes(logged.cluster)
    n_slots, n_clusters = int(logged.order.max()) + 1, int(cluster.max()) + 1
    slots = np.tile(np.arange(n_slots), n_clusters)
    starts = logged.starts.min() + slots * np.timedelta64(logged.length)
    return starts, np.repeat(np.arange(n_clusters), n_slots), cluster * n_slots + logged.order


def _require_fit(
    mechanism: Mechanism, starts: np.ndarray, cluster: np.ndarray, place: np.ndarray, logged: Logged, n_arms: int
) -> None:
    """Refuses a mechanism that cannot have drawn the logged arms: pairs with one arm, strata off their shares."""
    n_slots = len(starts) // (int(cluster.max()) + 1)
    slot = np.arange(len(starts)) % n_slots
    group = slot // n_arms if mechanism.kind == "paired" else strata(starts)
    group = group + cluster * (int(group.max()) + 1)
    size = np.bincount(group)
    share = np.array(list(mechanism.split.values()))
    held = np.zeros((len(size), n_arms))
    np.add.at(held, (group[place], logged.arm), 1)
    whole = held.sum(axis=1) == size
    if mechanism.kind == "paired":
        whole &= size == n_arms
    expected = size[:, None] * share
    off = (held < np.floor(expected + 1e-9)) | (held > np.ceil(expected - 1e-9))
    if (bad := int((off.any(axis=1) & whole).sum())) or not whole.any():
        what = "pairs of blocks" if mechanism.kind == "paired" else "weekday or weekend times of day"
        raise EstimationError(
            f"{bad} of {int(whole.sum())} {what} in the log are not as {mechanism.kind} blocks are drawn; {_GIVE}"
        )


def _codes(names: pl.Series) -> np.ndarray:
    return np.asarray(names.rank("dense").cast(pl.Int64).to_numpy().astype(np.intp) - 1)
