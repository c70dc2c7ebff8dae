"""Augmented inverse probability weighting, cross-fitted: the doubly robust effect of an action that was not randomized.

Estimand, what must hold and the source papers: ``estimators/potential_means.py``.
"""

from __future__ import annotations

from numpy.typing import ArrayLike

from estimators.estimate import Estimate
from estimators.nuisances import Nuisances
from estimators.potential_means import effect, potential_means


def aipw(
    outcome: ArrayLike,
    nuisances: Nuisances,
    *,
    denominator: ArrayLike | None = None,
    estimand: str = "ate",
    trim: float | None = None,
    alpha: float = 0.05,
) -> Estimate:
    """The effect by augmented weighting; right where the propensity or the outcome models are.

    Args:
        outcome: ``(n,)``; NaN: left out.
        nuisances: Treatment, units, folds and propensities, shared by all metrics.
        denominator: ``(n,)`` of a ratio metric: means are then ratios of means.
        estimand: ``ate``, ``att`` or ``overlap``.
        trim: Leave out rows whose propensity lies outside ``[trim, 1 - trim]``, which narrows the estimand to the
            others; None: none.
        alpha: Level; intervals are at ``1 - alpha``.

    Returns:
        The effect in the outcome's unit, errors clustered by unit, ``t`` with ``n_units - 1`` degrees of freedom.
        ``control_value`` and ``treatment_value``: mean outcomes of the estimand's people under either arm.
        ``n_control``, ``n_treatment``: units with rows in the arm. ``diagnostics``: ``estimand``, ``ess {control,
        treatment}`` (with units of several rows ``ess_units`` too), ``weights {max_share, top_1pct_share}``,
        ``trimmed`` (a share), ``propensity {min, max, quantiles, auc, explained}``, ``outcome_fit {control,
        treatment}`` (share of variance explained out of fold), ``rows_left_out``, ``n_units``, ``folds``,
        ``repeats``, ``models``.

    Raises:
        ValueError: An option that is not in the lists.
        EstimationError: Propensities of 0 or 1, too few units, no variation, or values that are not finite.
    """
    means = potential_means(outcome, nuisances, estimand=estimand, trim=trim, denominator=denominator)
    return effect("aipw", means, nuisances, alpha=alpha, diagnostics={"estimand": estimand})
