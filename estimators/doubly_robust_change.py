"""Effect on the treated from changes: doubly robust difference in differences.

Source: Sant'Anna and Zhao (2020), *Doubly robust difference-in-differences estimators*, eq. 2.6 (panel data, with
logit propensities by maximum likelihood and the outcome's change by least squares among controls) and its influence
function, eq. 3.1. Right where either model is: that of who is treated, or that of how controls change.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from estimators.inference import EstimationError

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

_ROUNDS = 100
_RANK = 1e-10


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """An effect on the treated.

    Attributes:
        effect: Change of the treated minus that of comparable controls, in the outcome's unit.
        influence: ``(n,)`` influence function; its mean is 0, the effect's variance ``mean(influence^2) / n``.
        largest_propensity: Greatest fitted probability of treatment among controls.
    """

    effect: float
    influence: Vector
    largest_propensity: float


def doubly_robust_change(change: Vector, treated: NDArray[np.bool_], covariates: Matrix | None = None) -> Change:
    """Effect on the treated; without covariates the plain difference of mean changes.

    Args:
        change: ``(n,)`` outcome after minus outcome before.
        treated: ``(n,)`` who is treated.
        covariates: ``(n, k)`` values that stood before, without a constant.

    Raises:
        EstimationError: No treated or no controls, covariates that are collinear among controls or too many for them,
            or covariates that tell the treated from the controls without fail. Propensities are never clipped.
    """
    n, d = len(change), treated.astype(np.float64)
    if not treated.any() or treated.all():
        raise EstimationError("an effect on the treated needs treated units and controls")
    if covariates is None:
        parts = [np.where(side, change - change[side].mean(), 0.0) * n / side.sum() for side in (treated, ~treated)]
        effect = float(change[treated].mean() - change[~treated].mean())
        return Change(effect, parts[0] - parts[1], float(d.mean()))
    # Centred and scaled, so that large levels cost no digits; the results are the same.
    spread = covariates.std(axis=0)
    x = np.column_stack([np.ones(n), (covariates - covariates.mean(axis=0)) / np.where(spread > 0.0, spread, 1.0)])
    score, hessian_inverse, probability = _logit(x, d)
    inverse = _inverse(x[~treated])
    rest = change - x @ (inverse @ (x[~treated].T @ change[~treated]))
    odds = np.where(treated, 0.0, probability / (1.0 - probability))
    mean_d, mean_odds = d.mean(), odds.mean()
    effect_treated = float((d * rest).mean() / mean_d)
    effect_control = float((odds * rest).mean() / mean_odds)
    outcome_model = n * ((1.0 - d) * rest)[:, None] * x @ inverse
    propensity_model = n * score @ hessian_inverse
    treated_part = d * (rest - effect_treated) - outcome_model @ (d[:, None] * x).mean(axis=0)
    control_part = (
        odds * (rest - effect_control)
        + propensity_model @ ((odds * (rest - effect_control))[:, None] * x).mean(axis=0)
        - outcome_model @ (odds[:, None] * x).mean(axis=0)
    )
    influence = treated_part / mean_d - control_part / mean_odds
    return Change(effect_treated - effect_control, influence, float(probability[~treated].max()))


def _inverse(x: Matrix) -> Matrix:
    """``(X'X)^-1`` of a design of full rank."""
    if len(x) <= x.shape[1]:
        raise EstimationError(f"{len(x)} controls are too few for {x.shape[1]} parameters of the covariates")
    r = np.linalg.qr(x, mode="r")
    if (np.abs(np.diag(r)) <= _RANK * np.linalg.norm(x, axis=0)).any():
        raise EstimationError("a covariate is constant, or a combination of the others, among the controls")
    inverse = np.linalg.inv(r)
    return np.asarray(inverse @ inverse.T, dtype=np.float64)


def _logit(x: Matrix, d: Vector) -> tuple[Matrix, Matrix, Vector]:
    """Scores ``(n, p)``, inverse information ``(p, p)`` and fitted probabilities of a logit, by Newton's steps."""
    r = np.linalg.qr(x, mode="r")
    if (np.abs(np.diag(r)) <= _RANK * np.linalg.norm(x, axis=0)).any():
        raise EstimationError("a covariate is constant, or a combination of the others")
    beta = np.zeros(x.shape[1])
    beta[0] = np.log(d.mean() / (1.0 - d.mean()))
    for _ in range(_ROUNDS):
        p = 1.0 / (1.0 + np.exp(-np.clip(x @ beta, -700.0, 700.0)))
        information = (x * (p * (1.0 - p))[:, None]).T @ x
        if np.linalg.cond(information) > 1e14 or float(p[d == 0.0].max()) > 1.0 - 1e-9:
            break
        step = np.linalg.solve(information, x.T @ (d - p))
        beta = beta + step
        if np.abs(step).max() < 1e-12 * max(1.0, float(np.abs(beta).max())):
            p = 1.0 / (1.0 + np.exp(-(x @ beta)))
            information = (x * (p * (1.0 - p))[:, None]).T @ x
            return x * (d - p)[:, None], np.linalg.inv(information).astype(np.float64), p
    raise EstimationError("the covariates tell treated units from controls without fail, so none are comparable")
