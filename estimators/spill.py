"""Spill between clusters that switch apart: what the others' treatment does to a cluster left in control.

Model: the outcome of control cells on the share of the *other* clusters that are in treatment in the same block, with
effects of the cluster, the hour of day and the day of the week. Where clusters draw their arms apart, that share is as
random as the arms themselves, so its slope is the effect of treating every other cluster on one that is not treated.

Source: exposure mappings of Aronow and Samii (2017), *Estimating average causal effects under general interference*,
with the treated share as the exposure; errors are CR2 by block, because the cells of a block share their exposure.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from estimators.inference import EstimationError
from estimators.ols import Matrix, fit

_RANK = 1e-10
# Blocks for each parameter that the calendar may take.
_BLOCKS_A_PARAMETER = 2


def spill_between_clusters(
    outcome: ArrayLike,
    others_treated: ArrayLike,
    *,
    cluster: NDArray[np.intp],
    block: NDArray[np.intp],
    hour: NDArray[np.intp],
    weekday: NDArray[np.intp],
    weights: ArrayLike | None = None,
) -> tuple[float, float, float]:
    """Change of an untreated cell's outcome from no to all other clusters in treatment.

    Args:
        outcome, others_treated: ``(n,)`` of control cells: their outcome, and the share of the other clusters treated.
        cluster, block, hour, weekday: ``(n,)`` codes. Weekdays, then hours, are left out of the model where the blocks
            are fewer than twice its parameters.
        weights: ``(n,)`` positive weights; None: all 1.

    Returns:
        Slope in the outcome's unit, its CR2 error by block, and Satterthwaite degrees of freedom.

    Raises:
        EstimationError: Values that are not finite, a share that cluster and calendar foretell, too few blocks, or an
            outcome that does not vary.
    """
    y, share = (np.asarray(v, dtype=np.float64) for v in (outcome, others_treated))
    if not (np.isfinite(y).all() and np.isfinite(share).all()):
        raise EstimationError("the cells hold values that are not finite")
    weight = np.ones(len(y)) if weights is None else np.asarray(weights, dtype=np.float64)
    n_blocks = len(np.unique(block))
    factors = [cluster, hour, weekday]
    while len(factors) > 1 and n_blocks < _BLOCKS_A_PARAMETER * (2 + sum(len(np.unique(f)) - 1 for f in factors)):
        factors.pop()
    if n_blocks < _BLOCKS_A_PARAMETER * (1 + len(np.unique(cluster))):
        raise EstimationError(f"{n_blocks} blocks with control cells are too few")
    x = np.column_stack([np.ones(len(y)), *(f[:, None] == np.unique(f)[1:] for f in factors)]).astype(np.float64)
    x = np.column_stack([x[:, ~_spanned(x)], share])
    if _spanned(x)[-1]:
        raise EstimationError("the share of other clusters treated follows from cluster and calendar")
    regression = fit(x, y - np.average(y, weights=weight), weight, np.unique(block, return_inverse=True)[1])
    if float(np.abs(regression.residuals).max()) <= 1e-13 * float(np.abs(y).max()):
        raise EstimationError("the outcome does not vary between cells")
    return regression.contrast(np.arange(x.shape[1]) == x.shape[1] - 1)


def _spanned(x: Matrix) -> NDArray[np.bool_]:
    """``(p,)`` whether a column is a combination of those before it."""
    if len(x) < x.shape[1]:
        raise EstimationError(f"{len(x)} cells are too few for a regression with {x.shape[1]} parameters")
    r = np.abs(np.diag(np.linalg.qr(x, mode="r")))
    return np.asarray(r <= _RANK * np.linalg.norm(x, axis=0), dtype=np.bool_)
