"""A replica that is held from the first request's start to the last one's end, pauses included."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attribution.runs import airport, largest, smallest
from attribution.stays import Stays
from attribution.terms.base import Floats, Ints, Masks, one_batch


@dataclass(frozen=True, slots=True)
class Span:
    """``rate`` joules a step from the first start to the last end among those present.

    Beyond ``min e - max s``, which everyone brings along (and which may be negative), the game is two airport games:
    how far a request's end lies behind the first end, and its start before the last start.
    """

    rate: float

    def shares(self, stays: Stays) -> Floats:
        """(m,) airport(e - min e) + airport(max s - s) + (min e - max s) / n."""
        common, behind, before = self._amounts(stays)
        ends = airport(stays.batch, behind, stays.n_batches)[0]
        starts = airport(stays.batch, before, stays.n_batches)[0]
        return self.rate * (ends + starts + (common / np.maximum(stays.size, 1))[stays.batch])

    def totals(self, stays: Stays) -> Floats:
        """(n_batches,) Steps from the first start to the last end."""
        common, behind, before = self._amounts(stays)
        reach = [largest(stays.batch, x.astype(np.float64), stays.n_batches) for x in (behind, before)]
        return self.rate * (reach[0] + reach[1] + common)

    def marginals(self, stays: Stays) -> Floats:
        """(m,) By how much it alone starts before, and ends after, all the others; the whole where it is alone."""
        _, behind, before = self._amounts(stays)
        ends = airport(stays.batch, behind, stays.n_batches)[1]
        starts = airport(stays.batch, before, stays.n_batches)[1]
        alone = stays.size[stays.batch] == 1
        return self.rate * np.where(alone, stays.steps, ends + starts)

    def worth(self, stays: Stays, coalitions: Masks) -> Floats:
        """(k,) Last end less first start among the members."""
        masks = one_batch(stays, coalitions)
        last = np.where(masks, stays.end, -np.inf).max(axis=1, initial=-np.inf)
        first = np.where(masks, stays.start, np.inf).min(axis=1, initial=np.inf)
        anyone = masks.any(axis=1)
        span: Floats = np.zeros(len(masks))
        span[anyone] = last[anyone] - first[anyone]
        return self.rate * span

    def _amounts(self, stays: Stays) -> tuple[Ints, Ints, Ints]:
        """First end less last start (n_batches,); ends behind the first and starts before the last (m,)."""
        first_end = smallest(stays.batch, stays.end, stays.n_batches)
        last_start = -smallest(stays.batch, -stays.start, stays.n_batches)
        return (
            first_end - last_start,
            stays.end - first_end[stays.batch],
            last_start[stays.batch] - stays.start,
        )
