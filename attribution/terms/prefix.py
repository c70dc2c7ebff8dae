"""Prompt tokens that several requests share: computed once, by whichever of them is there.

A coalition pays for each piece as far as the member that goes along with it furthest. Users who go equally far share a
piece's cost alike, ``c / users``; others by the airport rule, since who stops early has no part in the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attribution.codes import sum_by
from attribution.pieces import Pieces
from attribution.runs import airport, largest
from attribution.stays import Stays
from attribution.terms.base import Floats, Masks, one_batch


@dataclass(frozen=True, slots=True)
class Prefix:
    """Prefill of shared tokens, once a batch. Needs a log that says what prompts share; else it costs nothing.

    Attributes:
        prompt_j: Joules per prompt token.
        prompt_j2: Joules per squared prompt token; tokens ``[s, e)`` take this times ``e² - s²``.
    """

    prompt_j: float
    prompt_j2: float = 0.0

    def shares(self, stays: Stays) -> Floats:
        """(m,) Its parts of the pieces it uses."""
        use = stays.pieces
        if use is None:
            return np.zeros(stays.batch.size)
        return sum_by(use.row, self._airport(use)[0], stays.batch.size)

    def totals(self, stays: Stays) -> Floats:
        """(n_batches,) Every piece once, as far as anyone goes along with it."""
        use = stays.pieces
        if use is None:
            return np.zeros(stays.n_batches)
        return sum_by(use.batch, largest(use.piece, self._cost(use), use.batch.size), stays.n_batches)

    def marginals(self, stays: Stays) -> Floats:
        """(m,) Pieces, or ends of pieces, that nobody else uses."""
        use = stays.pieces
        if use is None:
            return np.zeros(stays.batch.size)
        return sum_by(use.row, self._airport(use)[1], stays.batch.size)

    def worth(self, stays: Stays, coalitions: Masks) -> Floats:
        """(k,) Piece by piece, the dearest use among the members."""
        masks = one_batch(stays, coalitions)
        use = stays.pieces
        joules = np.zeros(len(masks))
        if use is None:
            return joules
        cost = self._cost(use)
        for piece in range(use.batch.size):
            mine = use.piece == piece
            joules += np.where(masks[:, use.row[mine]], cost[mine], 0.0).max(axis=1, initial=0.0)
        return joules

    def _airport(self, use: Pieces) -> tuple[Floats, Floats]:
        """(k,) each: every use's part of its piece, and what it adds to what the others need of it."""
        length = (use.end - use.start).astype(np.int64)
        return airport(use.piece, length, use.batch.size, self._cost(use))

    def _cost(self, use: Pieces) -> Floats:
        return self.prompt_j * (use.end - use.start) + self.prompt_j2 * (use.end**2 - use.start**2)
