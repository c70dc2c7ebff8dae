"""P-values of several tests that are read together, adjusted so that reading them all keeps its error rate."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Vector = NDArray[np.float64]


def holm(p_values: ArrayLike) -> Vector:
    """Step-down p-values: those below ``alpha`` hold one false finding or more with probability at most ``alpha``.

    Valid whatever the dependence between the tests. Source: Holm (1979), *A simple sequentially rejective multiple test
    procedure*.

    Args:
        p_values: ``(m,)`` p-values of the family.

    Returns:
        ``(m,)`` adjusted p-values, in the given order.

    Raises:
        ValueError: A p-value outside [0, 1] or not a number.
    """
    p, order = _sorted(p_values)
    steps = np.maximum.accumulate(p * np.arange(len(p), 0, -1))
    return _unsorted(steps, order)


def benjamini_hochberg(p_values: ArrayLike) -> Vector:
    """Step-up p-values: of those below ``alpha`` an expected share of at most ``alpha`` is false.

    Valid for tests that are independent or positively dependent. Source: Benjamini and Hochberg (1995), *Controlling
    the false discovery rate*.

    Args:
        p_values: ``(m,)`` p-values of the family.

    Returns:
        ``(m,)`` adjusted p-values, in the given order.

    Raises:
        ValueError: As :func:`holm`.
    """
    p, order = _sorted(p_values)
    m = len(p)
    steps = np.minimum.accumulate((p * m / np.arange(1, m + 1))[::-1])[::-1]
    return _unsorted(steps, order)


def _sorted(p_values: ArrayLike) -> tuple[Vector, NDArray[np.intp]]:
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0.0) & (p <= 1.0)).all():
        raise ValueError("p-values must be a list of numbers between 0 and 1")
    order = np.argsort(p, kind="stable")
    return p[order], order


def _unsorted(adjusted: Vector, order: NDArray[np.intp]) -> Vector:
    found = np.empty_like(adjusted)
    found[order] = np.minimum(adjusted, 1.0)
    return found
