"""A cost that grows with the square of what is in the batch, such as contention."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attribution.stays import Stays
from attribution.terms.base import Amount, Floats, Masks, amount, one_batch, whole


@dataclass(frozen=True, slots=True)
class Square:
    """``rate * (sum of amounts)**2`` joules.

    The square is the sum of ``w_i * w_j`` over ordered pairs; each pair's two requests share it alike, so that a
    request has ``w_i`` times the sum of all.

    Attributes:
        rate: Joules per squared unit.
        of: Which amount.
    """

    rate: float
    of: Amount = "tokens"

    def shares(self, stays: Stays) -> Floats:
        """(m,) ``rate * w_i * W``."""
        mine, all_ = self._amounts(stays)
        return self.rate * mine * all_[stays.batch]

    def totals(self, stays: Stays) -> Floats:
        """(n_batches,) ``rate * W**2``."""
        return self.rate * self._amounts(stays)[1] ** 2

    def marginals(self, stays: Stays) -> Floats:
        """(m,) ``rate * (W**2 - (W - w_i)**2)``."""
        mine, all_ = self._amounts(stays)
        return self.rate * mine * (2 * all_[stays.batch] - mine)

    def worth(self, stays: Stays, coalitions: Masks) -> Floats:
        """(k,) ``rate`` times the squared sum over the members."""
        held: Floats = one_batch(stays, coalitions).astype(np.float64) @ self._amounts(stays)[0]
        return self.rate * held**2

    def _amounts(self, stays: Stays) -> tuple[Floats, Floats]:
        mine = amount(stays, self.of).astype(np.float64)
        return mine, whole(stays, mine)
