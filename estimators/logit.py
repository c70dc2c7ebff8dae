"""A logit by maximum likelihood, unpenalised: the propensity that matching is done on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from estimators.inference import EstimationError
from estimators.ols import Matrix, Vector
from estimators.overlap import Flags

_ROUNDS = 100
_RANK = 1e-10
_CERTAIN = 1e-9


@dataclass(frozen=True)
class Logit:
    """A logit by maximum likelihood.

    Attributes:
        design: ``(n, p + 1)`` intercept and covariates.
        probability: ``(n,)`` fitted.
    """

    design: Matrix
    probability: Vector

    @property
    def density(self) -> Vector:
        """``(n,)`` change of the probability with the index."""
        return self.probability * (1.0 - self.probability)

    @cached_property
    def inverse_information(self) -> Matrix:
        """``(p + 1, p + 1)`` covariance of the coefficients."""
        information = (self.design * self.density[:, None]).T @ self.design
        return np.asarray(np.linalg.inv(information), dtype=np.float64)


def fit_logit(covariates: Matrix, treated: Flags) -> Logit:
    """Logit of ``(n,)`` ``treated`` on ``(n, p)`` standardised covariates and an intercept, by Newton's steps.

    Raises:
        EstimationError: Covariates that are collinear, or that tell the arms apart without fail.
    """
    d = treated.astype(np.float64)
    x = np.column_stack([np.ones(len(d)), covariates])
    r = np.linalg.qr(x, mode="r")
    if x.shape[1] > len(x) or (np.abs(np.diag(r)) <= _RANK * np.linalg.norm(x, axis=0)).any():
        raise EstimationError("a covariate of the propensity is a combination of the others")
    beta = np.zeros(x.shape[1])
    beta[0] = np.log(d.mean() / (1.0 - d.mean()))
    for _ in range(_ROUNDS):
        p = 1.0 / (1.0 + np.exp(-np.clip(x @ beta, -700.0, 700.0)))
        weight = p * (1.0 - p)
        # Likelihoods without a maximum drive whole arms to certainty.
        if p[~treated].max() < _CERTAIN or p[treated].min() > 1.0 - _CERTAIN or weight.max() < _CERTAIN:
            break
        information = (x * weight[:, None]).T @ x
        if np.linalg.cond(information) > 1e14:
            break
        step = np.linalg.solve(information, x.T @ (d - p))
        beta = beta + step * min(1.0, 5.0 / max(1e-300, float(np.abs(step).max())))
        if np.abs(step).max() < 1e-10 * max(1.0, float(np.abs(beta).max())):
            p = 1.0 / (1.0 + np.exp(-(x @ beta)))
            if min(p.min(), 1.0 - p.max()) <= 0.0:
                break
            return Logit(x, p)
    raise EstimationError("the covariates tell treated rows from controls without fail, so none are comparable")
