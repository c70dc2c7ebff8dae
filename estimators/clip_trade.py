"""What capping weights costs and gains: bias against error, at several caps.

A cap of ``c`` moves the value by ``E[(min(w, c) - w) r]``, which the same rows estimate without bias: the value with
the cap minus that without, their errors taken together. The error goes down with the cap. The sum of both squared is
the trade that is shown; the square of an estimated bias is too large by the square of its error, which is taken off.
Dudik, Erhan, Langford and Li (2014), *Doubly robust policy evaluation and optimization*, section 5; for ``switch``
Wang, Agarwal and Dudik (2017), section 4. An interval under a cap that was chosen after seeing this table covers less
than it says: choose it before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from estimators.inference import EstimationError
from estimators.policy_value import UnitSums, Value, value_of

# A cap is in multiples of the mean weight, 1.
CAPS: tuple[float, ...] = (2.0, 5.0, 10.0, 20.0, 50.0, 100.0)


@dataclass(frozen=True, slots=True)
class Trade:
    """The target's value under one cap.

    Attributes:
        cap: The largest weight; None: no cap.
        value, std_error: The target's value and its error.
        bias, bias_std_error: By how much the cap moves it, and the error of that.
        root_mean_square: Root of the squared error and the squared bias, what chance adds to the latter taken off.
        share_clipped: Rows whose weight is cut.
        share_cut: How much of all weight that takes.
    """

    cap: float | None
    value: float
    std_error: float
    bias: float
    bias_std_error: float
    root_mean_square: float
    share_clipped: float
    share_cut: float


def clip_trade(sums: Mapping[float | None, UnitSums]) -> tuple[Trade, ...]:
    """Rows from the lowest cap to none.

    Args:
        sums: By cap, the same units in the same order; ``None``, without a cap, must be among them. The cap may be that
            of ``clip`` or of ``switch``.

    Raises:
        EstimationError: No sums without a cap, other units, or a value that cannot be had.
    """
    if None not in sums:
        raise EstimationError("the trade of caps needs the sums without a cap")
    free = sums[None]
    plain = _value(free)
    rows = []
    for cap in [*sorted(c for c in sums if c is not None), None]:
        mine = sums[cap]
        if len(mine.rows) != len(free.rows) or not np.array_equal(mine.rows, free.rows):
            raise EstimationError("the sums of all caps must be of the same units")
        found = plain if cap is None else _value(mine)
        gap = found.influence - plain.influence
        bias, n = found.value - plain.value, len(gap)
        error = math.sqrt(n / (n - 1.0) * float(gap @ gap))
        squared = max(bias**2 - error**2, 0.0) + found.std_error**2
        count, weight = float(mine.rows.sum()), 0.0 if mine.w is None else float(mine.w.sum())
        rows.append(
            Trade(
                cap,
                found.value,
                found.std_error,
                bias,
                error,
                math.sqrt(squared),
                mine.clipped / count,
                mine.cut / (weight + mine.cut) if weight + mine.cut > 0.0 else 0.0,
            )
        )
    return tuple(rows)


def _value(sums: UnitSums) -> Value:
    return value_of(sums.target_num, sums.target_den)
