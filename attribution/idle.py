"""What replicas draw while no request asks for anything: stated apart, in no share.

Of a log of requests it can be told for steps between a batch's first and last in which nobody was active. Idle time
between batches is in no such log.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from attribution.codes import sum_by
from attribution.model import JOULES_PER_WH, EnergyModel
from attribution.runs import largest
from attribution.stays import Stays


def idle_floor_wh(stays: Stays, model: EnergyModel) -> NDArray[np.float64]:
    """(n_batches,) Wh that idle GPUs alone draw in the time of a batch's decode steps, prefill and PUE left out: less
    than that was not measured."""
    if not model.idle_w or stays.measured_wh is None:
        return np.zeros(stays.n_batches)
    request_steps = sum_by(stays.batch, stays.steps.astype(np.float64), stays.n_batches)
    seconds = (model.step_base_ms * stays.timeline.reached + model.step_per_request_ms * request_steps) / 1000
    floor: NDArray[np.float64] = model.idle_w * model.gpus * seconds / JOULES_PER_WH
    return floor


def gaps_wh(stays: Stays, model: EnergyModel) -> NDArray[np.float64]:
    """(n_batches,) Facility Wh of idle GPUs in the steps of each batch in which nobody was active."""
    if not model.idle_w:
        return np.zeros(stays.n_batches)
    span = largest(stays.batch, stays.end.astype(np.float64), stays.n_batches)
    seconds = model.step_base_ms / 1000 * np.maximum(span - stays.timeline.reached, 0.0)
    return seconds * (model.idle_w * model.gpus * model.pue / JOULES_PER_WH)
