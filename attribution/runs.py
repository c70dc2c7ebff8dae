"""Sorting by batch and amount, running sums without rounding, and the airport rule built on both."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def ordered(group: Ints, amount: Ints, n_groups: int) -> tuple[Ints, Ints, Ints]:
    """Positions in the order of group, then amount (both at least 0); and group and amount in that order.

    Group, amount and position are packed into one integer where 63 bits hold them: sorting plain integers takes half
    the time of sorting positions by them.
    """
    if not group.size:
        return np.zeros(0, dtype=np.int64), group, amount
    wide, bits = int(amount.max()).bit_length(), (group.size - 1).bit_length()
    if (n_groups - 1).bit_length() + wide + bits >= 64:
        order = np.lexsort((amount, group))
        return order, group[order], amount[order]
    packed = (((group << wide) | amount) << bits) | np.arange(group.size)
    packed.sort()
    return packed & ((1 << bits) - 1), packed >> (wide + bits), (packed >> bits) & ((1 << wide) - 1)


def exact_parts(terms: Floats) -> tuple[Floats, Floats]:
    """Splits non-negative terms into two on coarse grids, so that running sums of each are free of rounding.

    A running sum over millions of rows would otherwise carry its rounding into the small differences taken from it.
    The coarse part counts in units of 2**-51 of the total; the fine part, at most half such a unit a term, in units
    of 2**-52 of *its* largest possible sum. What is dropped is below 2**-80 of the total, a term.
    """
    coarse_unit = np.ldexp(1.0, int(np.frexp(terms.sum())[1]) - 51)
    coarse = np.rint(terms / coarse_unit) * coarse_unit
    fine_unit = np.ldexp(coarse_unit, int(np.frexp(float(terms.size))[1]) - 52)
    fine = np.rint((terms - coarse) / fine_unit) * fine_unit
    return coarse, fine


def between(terms: Floats, low: Ints, high: Ints) -> Floats:
    """Sums of ``terms[low:high]`` for many ranges, terms of at least 0, free of running sums' rounding."""
    total = np.zeros(low.size)
    for part in exact_parts(terms):
        running = np.concatenate([[0.0], np.cumsum(part)])
        total += running[high] - running[low]
    return total


def airport(group: Ints, amount: Ints, n_groups: int, cost: Floats | None = None) -> tuple[Floats, Floats]:
    """Shapley shares of the largest cost of each group (Littlechild and Owen 1973, doi:10.1287/mnsc.20.3.370).

    Each stretch from one cost to the next larger is paid in equal parts by those whose cost reaches beyond it.

    Args:
        group: (rows,) Codes 0 … n_groups - 1, in any order.
        amount: (rows,) At least 0; what the costs rise with.
        n_groups: Number of groups.
        cost: (rows,) At least 0, in the order of the amounts within each group; the amounts themselves if left out.

    Returns:
        Shares (rows,), and by how much each one's cost exceeds the largest of the others in its group (rows,),
        which is 0 for all but one.
    """
    share, beyond = np.zeros(group.size), np.zeros(group.size)
    if not group.size:
        return share, beyond
    order, owner, sorted_amount = ordered(group, amount, n_groups)
    rising = sorted_amount.astype(np.float64) if cost is None else cost[order]
    size = np.bincount(owner, minlength=n_groups)
    edge = np.concatenate([[0], np.cumsum(size)])
    fresh = edge[:-1][size > 0]
    step = np.diff(rising, prepend=0.0)
    step[fresh] = rising[fresh]
    reach = np.repeat(edge[1:], size) - np.arange(owner.size)  # how many go at least as far
    share[order] = between(step / reach, np.repeat(edge[:-1], size), np.arange(1, owner.size + 1))
    last = edge[1:][size > 0] - 1
    beyond[order[last]] = step[last]
    return share, beyond


def largest(group: Ints, amount: Floats, n_groups: int) -> Floats:
    """(n_groups,) Largest amount of each group, at least 0; 0 for a group without rows."""
    result = np.zeros(n_groups)
    np.maximum.at(result, group, amount)
    return result


def smallest(group: Ints, amount: Ints, n_groups: int) -> Ints:
    """(n_groups,) Smallest amount of each group, all of which have rows."""
    result = np.empty(n_groups, dtype=amount.dtype)
    result[group] = amount  # any one of the group's, to begin with
    np.minimum.at(result, group, amount)
    return result
