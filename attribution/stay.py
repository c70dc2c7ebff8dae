"""The shared cost of a step: exact Shapley shares of ``∫ dt / n(t)``, for all batches in one pass.

The game of one batch: a coalition costs 1 for every step in which at least one of its requests is active. It is a sum
over steps of "1 if anyone is there", whose Shapley value is 1/n for each of the n active requests (symmetry and
dummy), so by additivity (Shapley 1953) a request's share is the integral of 1/n(t) over its stay. For a static batch
this is the airport game of Littlechild and Owen (1973, doi:10.1287/mnsc.20.3.370).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from attribution.codes import sum_by

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def stay_shares(batch: Ints, start: Ints, end: Ints, n_batches: int) -> tuple[Floats, Floats]:
    """Shapley shares of the steps that the requests of a batch are there for, and those steps' number.

    Args:
        batch: (rows,) Codes 0 … n_batches - 1, in any order.
        start, end: (rows,) Active in steps ``[start, end)``; 0 ≤ start ≤ end.
        n_batches: Number of batches.

    Returns:
        Shares (rows,) in steps, exact to rounding whatever else is in the arrays, and unchanged by the order of the
        rows; and (n_batches,) the steps in which anyone was active. The first sum to the second, batch by batch.
    """
    rows = batch.size
    if rows == 0:
        return np.zeros(0), np.zeros(n_batches)
    moment = np.concatenate([start, end])
    owner = np.concatenate([batch, batch])
    order = _by_batch_and_moment(owner, moment, n_batches)
    moment, owner = moment[order], owner[order]
    # After its last event a batch has nobody active, so what lies between two batches counts for nothing.
    active = np.cumsum(np.where(order < rows, np.int8(1), np.int8(-1)), dtype=np.int64)[:-1]
    length = np.where(active > 0, np.diff(moment), 0).astype(np.float64)
    reached = sum_by(owner[:-1], length, n_batches)
    share = np.zeros(rows)
    for part in _exact_parts(length / np.maximum(active, 1)):
        elapsed = np.empty(2 * rows)
        elapsed[order[0]] = 0.0
        elapsed[order[1:]] = np.cumsum(part)
        share += elapsed[rows:] - elapsed[:rows]
    return share, reached


def _by_batch_and_moment(owner: Ints, moment: Ints, n_batches: int) -> Ints:
    """Order of the events by batch, then step.

    Batch, step and position are packed into one integer where 63 bits hold them: sorting plain integers takes half
    the time of sorting positions by them.
    """
    span = int(moment.max()) + 1
    bits = (moment.size - 1).bit_length()
    if (n_batches * span) << bits < 2**63:
        packed = ((owner * span + moment) << bits) | np.arange(moment.size)
        packed.sort()
        return packed & ((1 << bits) - 1)
    return np.lexsort((moment, owner))


def _exact_parts(terms: Floats) -> tuple[Floats, Floats]:
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
