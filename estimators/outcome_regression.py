"""Outcome regression (g-computation): each arm's model predicts everybody, and the predictions are averaged.

Estimand, what must hold and the source papers: ``estimators/potential_means.py``. Right where the outcome models are,
so that a cross-validated penalty is replaced by a light one. A model extrapolates without a word where an arm has no
rows: look at the propensities in ``diagnostics``.
"""

from __future__ import annotations

from numpy.typing import ArrayLike

from estimators.estimate import Estimate
from estimators.nuisances import Nuisances
from estimators.potential_means import effect, potential_means


def outcome_regression(
    outcome: ArrayLike,
    nuisances: Nuisances,
    *,
    denominator: ArrayLike | None = None,
    estimand: str = "ate",
    trim: float | None = None,
    alpha: float = 0.05,
) -> Estimate:
    """The effect by outcome models, one for each arm; arguments and returns as in :func:`estimators.aipw.aipw`.

    ``ess`` and ``weights`` in ``diagnostics`` are those that weighting would have; they do not enter the estimate.

    Raises:
        EstimationError: As ``aipw``; and ``outcome: boosting``, whose error cannot be stated.
    """
    nuisances = nuisances.light
    means = potential_means(
        outcome, nuisances, method="outcome_regression", estimand=estimand, trim=trim, denominator=denominator
    )
    return effect("outcome_regression", means, nuisances, alpha=alpha, diagnostics={"estimand": estimand})
