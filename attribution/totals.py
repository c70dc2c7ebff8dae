"""Shares summed by a label of the requests: experiment arm, tier, region."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attribution.codes import factorize, sum_by
from attribution.shapley import Shares


@dataclass(frozen=True, slots=True)
class LabelTotals:
    """Energy of the attributed requests that carry one label.

    Attributes:
        requests: How many.
        wh: Sum of their Shapley shares, in Wh.
        wh_per_request: ``wh / requests``.
        naive: Rule of thumb → sum of their shares under it, in Wh.
        naive_per_request: The same over ``requests``.
    """

    requests: int
    wh: float
    wh_per_request: float
    naive: Mapping[str, float]
    naive_per_request: Mapping[str, float]


def by_label(shares: Shares, labels: ArrayLike) -> dict[Any, LabelTotals]:
    """Totals of each label, in sorted order; rows without a label or without a share count nowhere.

    Args:
        shares: Of the whole log.
        labels: (rows,) Strings or integers, None or NaN for no label.

    Raises:
        ValueError: ``labels`` has another number of rows than ``shares``.
    """
    codes, names = factorize(labels)
    if codes.size != shares.wh.size:
        raise ValueError(f"labels: expected {shares.wh.size} values, one a row, got {codes.size}")
    kept = (codes >= 0) & (shares.batch_size > 0)
    everything = bool(kept.all())
    codes = codes if everything else codes[kept]

    def sums(values: NDArray[np.float64]) -> list[float]:
        total: list[float] = sum_by(codes, values if everything else values[kept], len(names)).tolist()
        return total

    requests = np.bincount(codes, minlength=len(names)).tolist()
    wh = sums(shares.wh)
    naive = {rule: sums(values) for rule, values in shares.naive.items()}
    return {
        name: LabelTotals(
            requests=requests[i],
            wh=wh[i],
            wh_per_request=wh[i] / requests[i],
            naive={rule: totals[i] for rule, totals in naive.items()},
            naive_per_request={rule: totals[i] / requests[i] for rule, totals in naive.items()},
        )
        for i, name in enumerate(names.tolist())
        if requests[i]
    }
