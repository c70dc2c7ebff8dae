"""Double machine learning: the partially linear model by partialling out, or the interactive model.

Source: Chernozhukov et al. (2018), *Double/debiased machine learning for treatment and structural parameters*, eq. 4.4
(``plr``: the outcome's residual on the treatment's) and 5.3, 5.4 (``irm``, which is ``aipw``). What must hold is as in
``estimators/potential_means.py``; the partially linear model adds that the effect is the same for all. Where it is not,
its estimate is the effect weighted by ``e (1 - e)``, so its estimand is ``overlap`` whatever is asked for.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from estimators.estimate import Estimate
from estimators.inference import EstimationError
from estimators.nuisance_design import Vector
from estimators.nuisances import Nuisances, Split, outcome_models
from estimators.potential_means import (
    PotentialMeans,
    augmented,
    effect,
    explained,
    measured,
    potential_means,
    ratio,
)
from estimators.tilting import Tilt, tilt

MODELS = ("plr", "irm")


def dml(
    outcome: ArrayLike,
    nuisances: Nuisances,
    *,
    model: str = "plr",
    denominator: ArrayLike | None = None,
    estimand: str = "ate",
    trim: float | None = None,
    alpha: float = 0.05,
) -> Estimate:
    """The effect by double machine learning.

    Args:
        model: ``plr``: partially linear, partialling-out; ``irm``: interactive, the numbers of ``aipw``.
        estimand: Of ``irm``; ``plr`` always estimates ``overlap``, as its ``diagnostics`` say.

    Other arguments, returns and errors as in :func:`estimators.aipw.aipw`. ``control_value`` of ``plr`` is the
    overlap-weighted mean without treatment, ``treatment_value`` lies the effect above it.
    """
    if model not in MODELS:
        raise ValueError(f"model must be one of {MODELS}")
    if model == "irm":
        means = potential_means(outcome, nuisances, estimand=estimand, trim=trim, denominator=denominator)
        return effect("dml", means, nuisances, alpha=alpha, diagnostics={"estimand": estimand, "model": model})
    above, seen = measured(outcome, nuisances, denominator)
    below = None if denominator is None else np.where(seen, np.asarray(denominator, dtype=np.float64), 0.0)
    found = []
    for split in nuisances.splits:
        weights = tilt(nuisances, split, "overlap", trim, seen, checked=False)
        means_of = _partialled_out(above, seen, nuisances, split, weights)
        if below is not None:
            means_of = ratio(means_of, _partialled_out(below, seen, nuisances, split, weights))
        found.append(means_of)
    return effect("dml", found, nuisances, alpha=alpha, diagnostics={"estimand": "overlap", "model": model})


def _partialled_out(
    y: Vector, seen: NDArray[np.bool_], shared: Nuisances, split: Split, weights: Tilt
) -> PotentialMeans:
    outcomes = outcome_models(y, None if seen.all() else seen, shared, split, pooled=True)
    surprise = np.where(weights.kept, shared.treated - split.propensity, 0.0)
    square = float(surprise @ surprise)
    if not square > 0.0:
        raise EstimationError("the covariates tell treated from untreated rows without fail, so none are comparable")
    rest = y - outcomes.control
    slope = float(surprise @ rest) / square
    of_slope = surprise * (rest - slope * surprise) * (len(y) / square)
    # The model's own mean without treatment; small errors of the slope and of the propensity do not move it.
    untreated = outcomes.control - slope * split.propensity
    control, of_control = augmented(y, untreated, weights, 0)
    fit = explained(y, outcomes.control, seen)
    return PotentialMeans(
        control,
        control + slope,
        np.stack([of_control, of_control + of_slope]),
        weights,
        outcomes,
        {"control": fit, "treatment": fit},
    )
