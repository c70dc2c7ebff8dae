"""Inverse probability weighting with weights normalised in each arm (Hajek).

Estimand, what must hold and the source papers: ``estimators/potential_means.py``. Right where the propensity is: unlike
``aipw`` nothing mends a propensity that is wrong, so that a cross-validated penalty is replaced by a light one. A
boosted propensity leaves bias that shrinks slowly: at 600 rows 0.6 to 1.6 of the estimate's spread, with errors 1.3 to
1.5 times that spread, so that 90 to 98 % of intervals covered where those of ``aipw`` on the same trees did in 94 to
96 % (52 draws); take ``aipw`` there.
"""

from __future__ import annotations

from numpy.typing import ArrayLike

from estimators.estimate import Estimate
from estimators.nuisances import Nuisances
from estimators.potential_means import effect, potential_means


def ipw(
    outcome: ArrayLike,
    nuisances: Nuisances,
    *,
    denominator: ArrayLike | None = None,
    estimand: str = "ate",
    trim: float | None = None,
    alpha: float = 0.05,
) -> Estimate:
    """The effect by weighting; arguments, returns and errors as in :func:`estimators.aipw.aipw`.

    Returns:
        ``diagnostics`` besides: ``error``, whether the propensity counts as ``fitted`` or as ``known`` (boosting).
    """
    nuisances = nuisances.light
    means = potential_means(outcome, nuisances, method="ipw", estimand=estimand, trim=trim, denominator=denominator)
    known = "known" if nuisances.propensity == "boosting" else "fitted"
    return effect("ipw", means, nuisances, alpha=alpha, diagnostics={"estimand": estimand, "error": known})
