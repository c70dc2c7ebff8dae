"""Sample ratio mismatch under repeated looks.

Lindon & Malek (2022), "Anytime-valid inference for multinomial count data", NeurIPS 35: the Bayes factor of a
Dirichlet-multinomial, centred on the configured shares, over the multinomial with exactly those shares. Its inverse is
a p-value at every look, because the Bayes factor is a martingale while the shares hold (Ville's inequality).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from estimators.inference import EstimationError

# Of Optimizely's ssrm package: it looks for small deviations in many assignments.
CONCENTRATION = 10_000.0


def sequential_srm(counts: ArrayLike, shares: ArrayLike, concentration: float = CONCENTRATION) -> tuple[float, float]:
    """Test of arm counts against configured shares that may be read after every assignment.

    Args:
        counts: Independent assignments so far, by arm.
        shares: Configured weights by arm, non-negative; normalised to sum to 1.
        concentration: Of the Dirichlet prior, in assignments; fixed before the first look. Deviations of about
            ``1 / sqrt(concentration)`` are found soonest.

    Returns:
        The log of the Bayes factor, and the p-value ``min(1, 1 / Bayes factor)``. Assignments seen in an arm whose
        share is zero cannot happen by chance: infinity, and 0.

    Raises:
        EstimationError: No assignments, negative counts or shares, or fewer than two arms with a positive share.
    """
    from scipy.special import gammaln, xlogy

    observed = np.asarray(counts, dtype=np.float64)
    weight = np.asarray(shares, dtype=np.float64)
    if observed.shape != weight.shape or observed.ndim != 1:
        raise EstimationError("counts and shares must have one entry per arm each")
    if not (np.isfinite(observed).all() and np.isfinite(weight).all()) or observed.min() < 0 or weight.min() < 0:
        raise EstimationError("counts and shares of arms must be finite and not negative")
    if not (concentration > 0.0 and math.isfinite(concentration)):
        raise EstimationError("the prior's concentration must be a positive number")
    open_arms = weight > 0
    if int(open_arms.sum()) < 2:
        raise EstimationError("the split gives fewer than two arms a positive share")
    if observed.sum() == 0:
        raise EstimationError("nothing has been assigned yet")
    if observed[~open_arms].any():
        return math.inf, 0.0
    n, share = observed[open_arms], weight[open_arms] / weight.sum()
    prior = concentration * share
    log_factor = float(
        (gammaln(prior + n) - gammaln(prior) - xlogy(n, share)).sum()
        - (gammaln(concentration + n.sum()) - gammaln(concentration))
    )
    return log_factor, min(1.0, math.exp(-log_factor)) if log_factor > 0.0 else 1.0
