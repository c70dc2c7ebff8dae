"""Links of the nuisance models: means, losses with their derivatives. ``scipy.special`` is loaded where it is used."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


class Link(Protocol):
    """From a linear predictor ``eta`` to a mean, with the loss that belongs to it."""

    name: str

    def mean(self, eta: Vector) -> Vector:
        """The mean at ``eta``."""

    def inverse(self, mean: float) -> float:
        """``eta`` of a mean."""

    def slope(self, mean: Vector) -> Vector:
        """Derivative of the mean in ``eta``, at the mean."""

    def score(self, y: Vector, mean: Vector) -> tuple[Vector, Vector]:
        """Derivative of the log likelihood in ``eta``, and minus its second derivative, at the mean."""

    def loss(self, y: Vector, eta: Vector) -> tuple[float, Vector, Vector]:
        """Summed loss, minus its derivative and its second derivative in ``eta``."""


class Linear:
    """The mean is ``eta``; half the squared error."""

    name = "linear"

    def mean(self, eta: Vector) -> Vector:
        return eta

    def inverse(self, mean: float) -> float:
        return mean

    def slope(self, mean: Vector) -> Vector:
        return np.ones(len(mean))

    def score(self, y: Vector, mean: Vector) -> tuple[Vector, Vector]:
        return y - mean, np.ones(len(y))

    def loss(self, y: Vector, eta: Vector) -> tuple[float, Vector, Vector]:
        rest = y - eta
        return 0.5 * float(rest @ rest), rest, np.ones(len(y))


class Logit:
    """``1 / (1 + exp(-eta))``; minus the Bernoulli log likelihood."""

    name = "logit"

    def mean(self, eta: Vector) -> Vector:
        return self._mean(eta, np.exp(-np.abs(eta)))

    @staticmethod
    def _mean(eta: Vector, small: Vector) -> Vector:
        """``small`` is ``exp(-|eta|)``, which never overflows."""
        return np.where(eta >= 0.0, 1.0, small) / (1.0 + small)

    def inverse(self, mean: float) -> float:
        return math.log(mean / (1.0 - mean))

    def slope(self, mean: Vector) -> Vector:
        return mean * (1.0 - mean)

    def score(self, y: Vector, mean: Vector) -> tuple[Vector, Vector]:
        return y - mean, mean * (1.0 - mean)

    def loss(self, y: Vector, eta: Vector) -> tuple[float, Vector, Vector]:
        small = np.exp(-np.abs(eta))
        mean = self._mean(eta, small)
        return float((np.maximum(eta, 0.0) + np.log1p(small) - y * eta).sum()), y - mean, mean * (1.0 - mean)


class Probit:
    """The normal distribution function; minus the Bernoulli log likelihood."""

    name = "probit"

    def mean(self, eta: Vector) -> Vector:
        from scipy.special import ndtr

        return np.asarray(ndtr(eta))

    def inverse(self, mean: float) -> float:
        from scipy.special import ndtri

        return float(ndtri(mean))

    def slope(self, mean: Vector) -> Vector:
        from scipy.special import ndtri

        return np.asarray(np.exp(-0.5 * ndtri(mean) ** 2)) / math.sqrt(2.0 * math.pi)

    def score(self, y: Vector, mean: Vector) -> tuple[Vector, Vector]:
        from scipy.special import ndtri

        _, slope, curvature = self.loss(y, np.asarray(ndtri(mean)))
        return slope, curvature

    def loss(self, y: Vector, eta: Vector) -> tuple[float, Vector, Vector]:
        from scipy.special import log_ndtr

        logs = np.asarray(log_ndtr(eta)), np.asarray(log_ndtr(-eta))
        density = -0.5 * eta**2 - 0.5 * math.log(2.0 * math.pi)
        up, down = (np.exp(density - log) for log in logs)  # inverse Mills ratios
        curvature = y * up * (up + eta) + (1.0 - y) * down * (down - eta)
        return -float((y * logs[0] + (1.0 - y) * logs[1]).sum()), y * up - (1.0 - y) * down, curvature


_LINKS: dict[str, Link] = {"linear": Linear(), "logit": Logit(), "probit": Probit()}


def link_of(name: str) -> Link:
    """The link of this name."""
    return _LINKS[name]
