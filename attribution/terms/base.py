"""What a term of an energy game is, and the amounts that terms are made of."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from attribution.codes import sum_by
from attribution.stays import Stays

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Masks = NDArray[np.bool_]

Amount = Literal["prompt", "output", "tokens", "steps", "end"]


class Term(Protocol):
    """A game for every batch: what a coalition of its requests would cost, in joules.

    The empty coalition costs nothing. ``shares``, ``totals`` and ``marginals`` take all batches at once; ``worth`` is
    the same game written down as such, for one batch, and owes nothing to the closed forms of the others.
    """

    def shares(self, stays: Stays) -> Floats:
        """(m,) Shapley value of every request, in joules."""

    def totals(self, stays: Stays) -> Floats:
        """(n_batches,) Joules of every batch."""

    def marginals(self, stays: Stays) -> Floats:
        """(m,) Joules that the batch would save without the request: its leave-one-out value."""

    def worth(self, stays: Stays, coalitions: Masks) -> Floats:
        """(k,) Joules of each coalition (k, m) of one batch's requests.

        Raises:
            ValueError: More or fewer than one batch, or masks that do not fit it.
        """


def one_batch(stays: Stays, coalitions: Masks) -> Masks:
    """The masks, when they fit the one batch in ``stays``.

    Raises:
        ValueError: They do not, or there are several batches.
    """
    masks = np.asarray(coalitions, dtype=bool)
    if stays.n_batches != 1:
        raise ValueError(f"worth: expected one batch, got {stays.n_batches}")
    if masks.ndim != 2 or masks.shape[1] != stays.batch.size:
        raise ValueError(f"worth: expected coalitions of {stays.batch.size} requests, got shape {masks.shape}")
    return masks


def amount(stays: Stays, of: Amount) -> Ints:
    """(m,) Whole numbers: prompt tokens, output tokens, both (``tokens``), active steps, or the last step's end."""
    if of == "end":
        return stays.end
    if of == "steps":
        return stays.steps
    if of == "tokens":
        return (stays.prompt + stays.output).astype(np.int64)
    return (stays.prompt if of == "prompt" else stays.output).astype(np.int64)


def whole(stays: Stays, values: Floats) -> Floats:
    """(n_batches,) Sums of ``values`` (m,) by batch."""
    return sum_by(stays.batch, values, stays.n_batches)


def masked_max(masks: Masks, values: Floats) -> Floats:
    """(k,) Largest value (m,) in each coalition; 0 for none, and for a largest value below 0."""
    largest: Floats = np.where(masks, values, 0.0).max(axis=1, initial=0.0)
    return largest
