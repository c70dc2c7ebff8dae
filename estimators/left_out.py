"""What weights that are not used would have told: the shift of a policy's value by all of them.

A value of the direct method uses no weight, one that is cut uses less than all of it. With ``u`` the part of a row's
weight that is not used and ``e`` what it would have multiplied (the residual of the reward's model; the reward itself
where nothing is modelled), ``mean(u e)`` is the shift to the value by whole weights, which has no bias where the
probabilities are right. Clearly not 0, it shows that the value as it stands is biased. Dudik, Erhan, Langford and Li
(2014), *Doubly robust policy evaluation and optimization*.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from estimators.inference import EstimationError, two_sided_p


@dataclass(frozen=True, slots=True)
class LeftOut:
    """The shift of a value.

    Attributes:
        shift: By whole weights less as it stands, in the reward's unit.
        std_error: Of the shift, by independent unit.
        p_value: Two-sided, against no shift.
    """

    shift: float
    std_error: float
    p_value: float


def left_out(num: ArrayLike, den: ArrayLike | None, below: ArrayLike, *, value: float) -> LeftOut:
    """From sums by independent unit.

    Args:
        num: ``(units,)`` sums of ``u e`` of the numerator.
        den: The same of the denominator, where the value is a ratio; of ``u`` alone where weights are normalised.
        below: Scores of the denominator as used; rows where it has none.
        value: The value as it stands.

    Raises:
        EstimationError: Fewer than two units, or denominators that do not add up to more than 0.
    """
    scores, rows = np.asarray(num, dtype=np.float64), np.asarray(below, dtype=np.float64)
    units = len(scores)
    if units < 2:
        raise EstimationError("one unit tells nothing of how sure a shift is")
    if den is not None:
        more = np.asarray(den, dtype=np.float64)
        scores, rows = scores - value * more, rows + more
    total = float(rows.sum())
    if not total > 0.0:
        raise EstimationError("the denominators do not add up to more than 0")
    shift = float(scores.sum()) / total
    rest = scores - shift * rows
    error = math.sqrt(units / (units - 1.0) * float(rest @ rest)) / total
    p = two_sided_p(shift / error, units - 1.0) if error > 0.0 else float(shift == 0.0)
    return LeftOut(shift, error, p)
