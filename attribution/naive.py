"""The rules of thumb that are commonly used to share a batch's energy, for comparison."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from attribution.codes import sum_by
from attribution.stays import Stays

Floats = NDArray[np.float64]

RULES = ("per_token", "per_request", "provisioned")


def naive_shares(stays: Stays, batch_wh: Floats) -> Mapping[str, Floats]:
    """Shares (rows,) of each rule, summing to ``batch_wh`` (n_batches,) in every batch.

    - ``per_token``: by prompt plus output tokens.
    - ``per_request``: the same for each request.
    - ``provisioned``: by reserved time, the request's share of its batch's request-steps.

    Where a batch gives a rule nothing to go by (no tokens, no steps), its requests share alike.
    """
    weights = {
        "per_token": stays.prompt + stays.output,
        "per_request": np.ones(stays.batch.size),
        "provisioned": stays.steps.astype(np.float64),
    }
    return {rule: _proportional(stays, batch_wh, weights[rule]) for rule in RULES}


def _proportional(stays: Stays, batch_wh: Floats, weight: Floats) -> Floats:
    whole = sum_by(stays.batch, weight, stays.n_batches)
    empty = whole == 0
    if empty.any():
        weight = np.where(empty[stays.batch], 1.0, weight)
        whole = sum_by(stays.batch, weight, stays.n_batches)
    return weight * (batch_wh / whole)[stays.batch]
