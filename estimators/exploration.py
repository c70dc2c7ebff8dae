"""What to log next: how often to try the target's action, and in how many requests, to learn what the logs do not hold.

In a cell of states (``pi_c``: the share of all requests that are in it and where the target takes an action that was
hardly tried) the target's value is the cell's mean reward under that action, known from ``t_c`` tries with an error of
``s_c / sqrt(t_c)``, ``s_c`` the spread of rewards there. Cells add ``sum pi_c^2 s_c^2 / t_c`` to the squared error of
the value. That this reaches ``goal^2`` with the fewest tries asks for

    t_c = pi_c s_c * sum_k(pi_k s_k) / goal^2        (Neyman 1934),

less what was tried already; and in all no fewer than :data:`FEWEST`, for the error of a mean over a handful of tries is
known no better than the mean. Tried with probability ``e`` a cell's requests give ``e`` tries each: the probability is
what the requests of one more log as long as this one need, and where that is above ``most`` it is ``most``, over more
requests.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from estimators.inference import EstimationError

MOST = 0.2
# Tries of all cells together below which a normal interval does not hold.
FEWEST = 30


@dataclass(frozen=True, slots=True)
class Exploration:
    """What one cell asks for.

    Attributes:
        tries: Tries of the target's action that are needed beyond those in the logs; 0 where they are enough.
        probability: With which the target's action should be taken.
        requests: Requests of the cell that must come by.
        logs: How many logs of this length that takes.
        std_error: What the cell then adds to the error of the value.
    """

    tries: int
    probability: float
    requests: int
    logs: float
    std_error: float


def exploration(
    requests: ArrayLike,
    tries: ArrayLike,
    *,
    total: float,
    spread: ArrayLike,
    goal: float,
    most: float = MOST,
    fewest: int = FEWEST,
) -> tuple[Exploration, ...]:
    """What each cell asks for.

    Args:
        requests: ``(cells,)`` logged requests of the cell in which the target takes the action that is in question.
        tries: ``(cells,)`` those of them in which it was taken; where propensities differ much, their effective number.
        total: All logged requests.
        spread: Standard deviation of a request's reward, one number or ``(cells,)``.
        goal: Standard error of the target's value that may come from these cells together, in the reward's unit.
        most: Largest probability of exploration.
        fewest: Tries of all cells together, however little they weigh.

    Raises:
        ValueError: ``most`` that is not a probability above 0.
        EstimationError: Arrays that do not fit, more tries than requests, or a goal or spread that is not positive.
    """
    if not 0.0 < most <= 1.0:
        raise ValueError("most must be a probability above 0")
    n, t = (np.atleast_1d(np.asarray(v, dtype=np.float64)) for v in (requests, tries))
    if n.ndim != 1 or n.shape != t.shape:
        raise EstimationError("requests and tries must be one a cell")
    if not (n > 0.0).all() or not ((t >= 0.0) & (t <= n)).all() or not n.sum() <= total * (1.0 + 1e-12):
        raise EstimationError("tries must not be more than a cell's requests, nor those more than all")
    s = np.broadcast_to(np.asarray(spread, dtype=np.float64), n.shape)
    if not (np.isfinite(s).all() and (s > 0.0).all() and math.isfinite(goal) and goal > 0.0):
        raise EstimationError("the spread of rewards and the goal must be positive numbers")
    load: NDArray[np.float64] = n / total * s
    needed = load * max(load.sum() / goal**2, fewest / load.sum())
    return tuple(
        _cell(*each, most) for each in zip(needed.tolist(), n.tolist(), t.tolist(), load.tolist(), strict=True)
    )


def together(cells: Sequence[Exploration]) -> float:
    """Standard error that the cells add to the value once they are explored."""
    return math.sqrt(math.fsum(cell.std_error**2 for cell in cells))


def _cell(needed: float, requests: float, tries: float, load: float, most: float) -> Exploration:
    more = math.ceil((needed - tries) * (1.0 - 1e-12)) if needed > tries else 0
    if not more:
        return Exploration(0, 0.0, 0, 0.0, load / math.sqrt(tries))
    probability = min(more / requests, most)
    asked = math.ceil(more / probability * (1.0 - 1e-12))
    return Exploration(more, probability, asked, asked / requests, load / math.sqrt(tries + more))
