"""Sample ratio mismatch under repeated looks.

Lindon & Malek (2022), "Anytime-valid inference for multinomial count data", NeurIPS 35: the Bayes factor of a
Dirichlet-multinomial, centred on the configured shares, over the multinomial with exactly those shares. Its inverse is
a p-value at every look, because the Bayes factor is a martingale while the shares hold (Ville's inequality). An average
of such Bayes factors is a martingale too: here of a prior for small deviations among many assignments (the 10,000 of
Optimizely's ssrm package, which alone would take hundreds of assignments to all one arm for chance) and of wider ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from estimators.inference import EstimationError

CONCENTRATIONS = (10.0, 300.0, 10_000.0)


def sequential_srm(
    counts: ArrayLike, shares: ArrayLike, concentrations: Sequence[float] = CONCENTRATIONS
) -> tuple[float, float]:
    """Test of arm counts against configured shares that may be read after every assignment.

    Args:
        counts: Independent assignments so far, by arm.
        shares: Configured weights by arm, non-negative; normalised to sum to 1.
        concentrations: Of the Dirichlet priors that are averaged, in assignments; fixed before the first look. One of
            ``c`` finds deviations of about ``1 / sqrt(c)`` soonest.

    Returns:
        The log of the Bayes factor, and the p-value ``min(1, 1 / Bayes factor)``. Assignments seen in an arm whose
        share is zero cannot happen by chance: infinity, and 0.

    Raises:
        EstimationError: No assignments, negative counts or shares, or fewer than two arms with a positive share.
    """
    observed = np.asarray(counts, dtype=np.float64)
    weight = np.asarray(shares, dtype=np.float64)
    if observed.shape != weight.shape or observed.ndim != 1:
        raise EstimationError("counts and shares must have one entry per arm each")
    if not (np.isfinite(observed).all() and np.isfinite(weight).all()) or observed.min() < 0 or weight.min() < 0:
        raise EstimationError("counts and shares of arms must be finite and not negative")
    if not concentrations or not all(c > 0.0 and math.isfinite(c) for c in concentrations):
        raise EstimationError("concentrations of the priors must be positive numbers")
    open_arms = weight > 0
    if int(open_arms.sum()) < 2:
        raise EstimationError("the split gives fewer than two arms a positive share")
    if observed.sum() == 0:
        raise EstimationError("nothing has been assigned yet")
    if observed[~open_arms].any():
        return math.inf, 0.0
    n, share = observed[open_arms], weight[open_arms] / weight.sum()
    factors = [_log_factor(n, share, concentration) for concentration in concentrations]
    largest = max(factors)
    log_factor = largest + math.log(sum(math.exp(f - largest) for f in factors) / len(factors))
    return log_factor, min(1.0, math.exp(-log_factor)) if log_factor > 0.0 else 1.0


def _log_factor(n: NDArray[np.float64], share: NDArray[np.float64], concentration: float) -> float:
    """Log of the Bayes factor of one prior."""
    from scipy.special import gammaln, xlogy

    prior = concentration * share
    whole = gammaln(concentration + n.sum()) - gammaln(concentration)
    return float((gammaln(prior + n) - gammaln(prior) - xlogy(n, share)).sum() - whole)
