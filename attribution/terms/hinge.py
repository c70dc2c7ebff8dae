"""A cost that sets in beyond a threshold of what is in the batch: the kink of a roofline.

A roofline ``max(a, b * W)`` of the amount W in the batch is ``a + b * (W - a / b)+``: a fixed cost and a hinge.

A hinge has no closed form, yet an exact value at a price, by the cheaper of two ways:

- few requests: all their ``2**n`` coalitions, many batches at once;
- Owen's integral (1972, doi:10.1287/mnsc.18.5.64): a request's share is its expected marginal cost when each of the
  others is present with probability q, integrated over q from 0 to 1. That expectation is a polynomial in q of degree
  n - 1, so Gauss-Legendre quadrature with ``ceil(n / 2)`` nodes is exact, once the expectation is. At a node it comes
  from the distribution of the sum of the whole amounts of those who are present, one request after another
  (``present``), and from what those to come are expected to leave unpaid (``missing``): at most ``2 * n**2 * L`` sums
  a batch, L the lesser of the threshold and of what is beyond it. Chances are added, never subtracted.

The amounts are whole numbers of tokens or steps; they are divided by what divides them all. Where both ways are too
dear the term says so and gives nothing: such batches are for sampling.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attribution.stays import Stays
from attribution.terms.base import Amount, Floats, Ints, Masks, amount, one_batch, whole

_FEW = 14  # requests up to which coalitions are counted out
_CELLS = 2**20  # numbers held at once
_MOST_STATES = 2**24  # requests × L: the numbers that one node keeps


class TooDear(ValueError):
    """Batches whose exact shares cost more than the term may spend.

    Attributes:
        batches: (k,) Their numbers in ``Stays``.
    """

    def __init__(self, message: str, batches: Ints) -> None:
        super().__init__(message)
        self.batches = batches


@dataclass(frozen=True, slots=True)
class Hinge:
    """``rate * max(W - threshold, 0)`` joules, W being the sum of the amounts in the batch.

    Attributes:
        rate: Joules per unit beyond the threshold, at least 0.
        threshold: At least 0, in units of the amount.
        of: Which amount.
        most: The largest price of one batch, in sums (n**2 * L), at which it is still computed.
    """

    rate: float
    threshold: float
    of: Amount = "tokens"
    most: float = 2.0**31

    def shares(self, stays: Stays) -> Floats:
        """(m,) Exact shares.

        Raises:
            TooDear: Some batches cost too much; nothing has been computed.
        """
        mine = amount(stays, self.of)
        over = whole(stays, mine.astype(np.float64)) - self.threshold
        joules = np.zeros(stays.batch.size)
        if self.threshold <= 0:
            return self.rate * mine.astype(np.float64)
        order, edges = stays.grouped
        size = stays.size
        reached = over > 0
        large = np.flatnonzero(reached & (size > _FEW))
        units = np.array([max(int(np.gcd.reduce(mine[order[edges[b] : edges[b + 1]]])), 1) for b in large.tolist()])
        self._afford(large, size[large], np.minimum(self.threshold, over[large]) / np.maximum(units, 1))
        for n in np.unique(size[reached & (size <= _FEW)]).tolist():
            batches = np.flatnonzero(reached & (size == n))
            step = max(_CELLS >> n, 1)
            for low in range(0, batches.size, step):
                rows = order[edges[batches[low : low + step], None] + np.arange(n)]
                joules[rows] = _counted_out(mine[rows].astype(np.float64), self.threshold)
        for batch, unit in zip(large.tolist(), units.tolist(), strict=True):
            rows = order[edges[batch] : edges[batch + 1]]
            # The dual game min(W, over) has the same shares, and (W - c)+ = W - min(W, c): the lower cap is computed.
            cap = min(self.threshold, float(over[batch]))
            capped = unit * _capped(mine[rows] // unit, cap / unit)
            joules[rows] = capped if over[batch] <= self.threshold else mine[rows] - capped
        return self.rate * joules

    def totals(self, stays: Stays) -> Floats:
        """(n_batches,) What is beyond the threshold."""
        return self.rate * np.maximum(whole(stays, amount(stays, self.of).astype(np.float64)) - self.threshold, 0.0)

    def marginals(self, stays: Stays) -> Floats:
        """(m,) How much less is beyond the threshold without the request."""
        mine = amount(stays, self.of).astype(np.float64)
        over = np.maximum(whole(stays, mine) - self.threshold, 0.0)
        return self.rate * np.minimum(mine, over[stays.batch])

    def worth(self, stays: Stays, coalitions: Masks) -> Floats:
        """(k,) What of the members' sum is beyond the threshold."""
        masks = one_batch(stays, coalitions)
        held: Floats = masks.astype(np.float64) @ amount(stays, self.of).astype(np.float64)
        return self.rate * np.maximum(held - self.threshold, 0.0)

    def _afford(self, batches: Ints, size: Ints, cap: Floats) -> None:
        states = np.ceil(cap)
        price = size.astype(np.float64) ** 2 * states
        dear = (price > self.most) | (size * states > _MOST_STATES)
        if dear.any():
            worst = int(np.argmax(np.where(dear, price, 0.0)))
            raise TooDear(
                f"batches too dear for exact shares beyond {self.threshold:,.0f} {self.of}: {int(dear.sum()):,}, the "
                f"dearest with {int(size[worst]):,} requests and {int(states[worst]):,} sums; sample them instead",
                batches[dear],
            )


def _counted_out(amounts: Floats, threshold: float) -> Floats:
    """(b, n) Shares of ``(W - threshold)+`` from the worth of all coalitions of each of b batches of n requests."""
    b, n = amounts.shape
    held, members = np.zeros((b, 1)), np.zeros(1, dtype=np.int64)
    for i in range(n):
        held = np.concatenate([held, held + amounts[:, i, None]], axis=1)
        members = np.concatenate([members, members + 1])
    over = np.maximum(held - threshold, 0.0)
    chance = _chances(n)[members]
    shares = np.empty((b, n))
    for i in range(n):
        pairs = over.reshape(b, -1, 2, 2**i)
        without = chance.reshape(-1, 2, 2**i)[:, 0]
        shares[:, i] = (pairs[:, :, 1] - pairs[:, :, 0]).reshape(b, -1) @ without.ravel()
    return shares


def _chances(n: int) -> Floats:
    """(n + 1,) Chance that exactly a given set of k of the others comes before a request, k = 0 … n - 1; then 0."""
    chance = np.zeros(n + 1)
    chance[0] = 1.0 / n
    for k in range(1, n):
        chance[k] = chance[k - 1] * k / (n - k)
    return chance


def _capped(amounts: Ints, cap: float) -> Floats:
    """(n,) Shares of ``min(W, cap)`` for whole amounts, by Owen's integral; W is at least the cap.

    Requests come in the order of their amounts, so that the sums which those before one can reach stay few for long.
    """
    n, states = amounts.size, int(np.ceil(cap))
    order = np.argsort(amounts, kind="stable")
    w = amounts[order].tolist()
    reach = np.minimum(np.cumsum([1, *w]), states).tolist()  # sums below the cap that the first i requests can have
    node, weight = np.polynomial.legendre.leggauss((n + 1) // 2)
    node, weight = (node + 1) / 2, weight / 2
    shares = np.zeros(n)
    block = max(_CELLS // sum(reach), 1)
    for low in range(0, node.size, block):
        q, part = node[low : low + block, None], weight[low : low + block]
        present = [np.ones((q.size, 1))]  # chances of every sum below the cap, before each request
        for i in range(n - 1):
            now, later = present[i], np.zeros((q.size, reach[i + 1]))
            later[:, : reach[i]] = (1 - q) * now
            later[:, w[i] : w[i] + reach[i]] += q * now[:, : max(reach[i + 1] - w[i], 0)]
            present.append(later)
        missing = np.tile(cap - np.arange(reach[n]), (q.size, 1))  # to the cap, as expected when all have come
        for i in range(n - 1, -1, -1):
            without, with_it = missing[:, : reach[i]], missing[:, w[i] : w[i] + reach[i]]
            k = with_it.shape[1]
            spared = without.copy()
            spared[:, :k] -= with_it
            shares[i] += part @ np.einsum("qs,qs->q", present.pop(), spared)
            missing = (1 - q) * without
            missing[:, :k] += q * with_it
    result = np.empty(n)
    result[order] = shares
    return result
