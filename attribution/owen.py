"""Exact Shapley shares of what a sum of whole amounts has beyond a threshold, ``(W - threshold)+``.

There is no closed form, yet an exact value at a price, by the cheaper of two ways:

- few requests: all their ``2**n`` coalitions, many batches at once;
- Owen's integral (1972, doi:10.1287/mnsc.18.5.64): a request's share is its expected marginal cost when each of the
  others is present with probability q, integrated over q from 0 to 1. That expectation is a polynomial in q of degree
  n - 1, so Gauss-Legendre quadrature with ``ceil(n / 2)`` nodes is exact, once the expectation is. At a node it comes
  from the distribution of the sum of the amounts of those who are present, one request after another (``present``),
  and from what those to come are expected to leave unpaid (``missing``): at most ``2 * n**2 * L`` sums a batch, L the
  lesser of the threshold and of what is beyond it, over what divides all amounts. Chances are added, never subtracted.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from attribution.codes import sum_by

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_FEW = 14  # requests up to which coalitions are counted out
_CELLS = 2**20  # numbers held at once where coalitions are counted out
_KEPT = 2**23  # numbers held at once by the nodes that are gone through together
_MANY_NODES = 512  # from here on all eigenvalues of a full matrix, as numpy has them, take longer than the shares
_MOST_STATES = 2**24  # requests × L: the numbers that one node keeps


class TooDear(ValueError):
    """Groups whose exact shares cost more than may be spent; nothing has been computed.

    Attributes:
        groups: (k,) Which; for a term, the batches in ``Stays``.
    """

    def __init__(self, message: str, groups: Ints) -> None:
        super().__init__(message)
        self.groups = groups


def beyond(amount: Ints, group: Ints, n_groups: int, threshold: float, most: float) -> Floats:
    """(k,) Shares of ``max(W - threshold, 0)``, W the sum of the amounts in a group.

    Args:
        amount: (k,) At least 0.
        group: (k,) Codes 0 … n_groups - 1, in any order; every one has a member.
        n_groups: Number of groups.
        threshold: At least 0.
        most: The largest price of one group, ``n**2 * L``, at which it is still computed.

    Raises:
        TooDear: Some groups cost more.
    """
    if threshold <= 0:
        return amount.astype(np.float64)
    size = np.bincount(group, minlength=n_groups)
    order, edges = np.argsort(group, kind="stable"), np.concatenate([[0], np.cumsum(size)])
    over = sum_by(group, amount.astype(np.float64), n_groups) - threshold
    few, large = (over > 0) & (size <= _FEW), np.flatnonzero((over > 0) & (size > _FEW))
    members = [order[edges[g] : edges[g + 1]] for g in large.tolist()]
    units = np.array([np.gcd.reduce(amount[rows]) for rows in members], dtype=np.int64)
    _afford(large, size[large], np.ceil(np.minimum(threshold, over[large]) / units), most)

    shares = np.zeros(amount.size)
    for n in np.unique(size[few]).tolist():
        groups = np.flatnonzero(few & (size == n))
        step = max(_CELLS >> n, 1)
        for low in range(0, groups.size, step):
            block = order[edges[groups[low : low + step], None] + np.arange(n)]
            shares[block] = _counted_out(amount[block].astype(np.float64), threshold)
    for rows, unit, excess in zip(members, units.tolist(), over[large].tolist(), strict=True):
        # The dual game min(W, excess) has the same shares, and (W - c)+ = W - min(W, c): the lower cap is computed.
        capped = unit * _capped(amount[rows] // unit, min(threshold, excess) / unit)
        shares[rows] = capped if excess <= threshold else amount[rows] - capped
    return shares


def _afford(groups: Ints, size: Ints, states: Floats, most: float) -> None:
    price = size.astype(np.float64) ** 2 * states
    dear = (price > most) | (size * states > _MOST_STATES)
    if dear.any():
        worst = int(np.argmax(np.where(dear, price, 0.0)))
        raise TooDear(
            f"too dear for exact shares of a hinge: {int(dear.sum()):,} sets of requests, the dearest with "
            f"{int(size[worst]):,} requests and {int(states[worst]):,} sums; sample them instead",
            groups[dear],
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
    node, weight = _nodes((n + 1) // 2)
    shares = np.zeros(n)
    block = max(_KEPT // sum(reach), 1)
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


def _nodes(n: int) -> tuple[Floats, Floats]:
    """(n,) each: nodes and weights of Gauss-Legendre quadrature from 0 to 1."""
    if n < _MANY_NODES:
        node, weight = np.polynomial.legendre.leggauss(n)
    else:
        from scipy.special import roots_legendre

        node, weight = roots_legendre(n)
    return (node + 1) / 2, weight / 2
