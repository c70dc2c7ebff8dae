"""Energy of model loads, spread over the first requests that each load served.

A load's energy belongs to no batch. It is divided equally among the first N requests that come after it (the one that
carries the mark counts as the first) and before the next load; where fewer come, those that came carry it all, and
where none comes it is carried by nobody and said so. Nothing is lost: what is carried and what is not add up to the
energy of the loads.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class ColdStarts:
    """How the energy of loads was spread.

    Attributes:
        shares: (rows,) Wh that each request carries; 0 for the others.
        loads: Loads that the log marks.
        wh: Their energy.
        short: Loads that fewer than N requests followed before the next, at least one.
        unused: Loads that no request followed.
        unused_wh: Energy of these: in no share.
        invalid: Marks that are negative or infinite, and no loads.
    """

    shares: Floats
    loads: int
    wh: float
    short: int
    unused: int
    unused_wh: float
    invalid: int

    @property
    def carried_wh(self) -> float:
        """Energy of loads that requests carry."""
        return self.wh - self.unused_wh


def spread_loads(load_wh: Floats, order: Ints, scope: Ints, carries: Bools, requests: int) -> ColdStarts:
    """Spreads every load over the requests that follow it.

    Args:
        load_wh: (rows,) Energy of the load that a row marks, at the facility; NaN or 0 for none.
        order: (rows,) The rows in the order in which they came, those of a scope together.
        scope: (rows,) What was loaded: a replica, a region.
        carries: (rows,) Whether the request can carry energy.
        requests: N, at least 1.
    """
    energy = load_wh[order]
    with np.errstate(invalid="ignore"):
        marks = (energy > 0) & np.isfinite(energy)
        invalid = int(np.count_nonzero((energy < 0) | np.isposinf(energy)))
    at = np.flatnonzero(marks)
    shares = np.zeros(load_wh.size)
    wh = energy[at]
    if not at.size:
        return ColdStarts(shares, 0, 0.0, 0, 0, 0.0, invalid)
    event = np.cumsum(marks) - 1
    within, able = scope[order], carries[order]
    came = np.cumsum(able)
    before: Ints = came[at] - able[at]  # requests that came before each load
    safe = np.maximum(event, 0)
    takes = able & (event >= 0) & (within[at][safe] == within) & (came - before[safe] <= requests)
    carriers = np.bincount(event[takes], minlength=at.size)
    shares[order[takes]] = (wh / np.maximum(carriers, 1))[event[takes]]
    none = carriers == 0
    return ColdStarts(
        shares=shares,
        loads=int(at.size),
        wh=float(wh.sum()),
        short=int(np.count_nonzero((carriers < requests) & ~none)),
        unused=int(np.count_nonzero(none)),
        unused_wh=float(wh[none].sum()),
        invalid=invalid,
    )
