"""A cost of the batch that is there whoever is in it: equal parts (symmetry and efficiency)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attribution.stays import Stays
from attribution.terms.base import Floats, Masks, one_batch


@dataclass(frozen=True, slots=True)
class Fixed:
    """``joules`` for a batch with anyone in it, such as starting it."""

    joules: float

    def shares(self, stays: Stays) -> Floats:
        """(m,) ``joules / n``."""
        each: Floats = self.joules / np.maximum(stays.size, 1)
        return each[stays.batch]

    def totals(self, stays: Stays) -> Floats:
        """(n_batches,) ``joules`` each."""
        return np.full(stays.n_batches, float(self.joules))

    def marginals(self, stays: Stays) -> Floats:
        """(m,) Nothing, but for a request that is alone."""
        return np.where(stays.size[stays.batch] == 1, float(self.joules), 0.0)

    def worth(self, stays: Stays, coalitions: Masks) -> Floats:
        """(k,) ``joules`` unless nobody is there."""
        return np.where(one_batch(stays, coalitions).any(axis=1), float(self.joules), 0.0)
