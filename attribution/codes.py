"""Dense codes for arbitrary keys (batch ids, arm labels), and sums over them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def factorize(values: ArrayLike) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Codes 0 … k-1 of the distinct values, in sorted order; a null (None, NaN) gets -1.

    Args:
        values: (rows,) integers, floats, booleans or strings. An object array may mix them; it is then sorted
            as text.

    Returns:
        The codes (rows,) and the distinct values (k,).

    Raises:
        ValueError: Not one-dimensional.
    """
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"expected one value a row, got an array of shape {array.shape}")
    if array.dtype.kind in "iu":
        return _integers(array)
    if array.dtype.kind == "f":
        present = ~np.isnan(array)
        codes = np.full(array.size, -1, dtype=np.int64)
        distinct, codes[present] = np.unique(array[present], return_inverse=True)
        return codes, distinct
    return _objects(array.tolist())


def sum_by(codes: NDArray[np.int64], values: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """(n,) Sums of ``values`` (rows,) over the rows of each code 0 … n - 1."""
    return np.bincount(codes, weights=values, minlength=n).astype(np.float64, copy=False)


def _integers(array: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Counting where the values lie close together, which ids made by a database or a rank do; sorting elsewhere."""
    if array.size and int(array.max()) - int(array.min()) <= 4 * array.size + 1024:
        low = array.min()
        # narrow signed integers would overflow in the difference, wide unsigned ones in the conversion
        offset = (array - low).astype(np.int64) if array.dtype.kind == "u" else array.astype(np.int64) - int(low)
        present = np.bincount(offset) > 0
        codes = (np.cumsum(present) - 1)[offset]
        return codes, np.flatnonzero(present).astype(array.dtype) + low
    distinct, codes = np.unique(array, return_inverse=True)
    return codes.astype(np.int64, copy=False), distinct


def _objects(values: list[Any]) -> tuple[NDArray[np.int64], NDArray[Any]]:
    distinct = sorted((value for value in dict.fromkeys(values) if value is not None and value == value), key=str)
    index = dict.fromkeys(values, -1)  # a NaN keeps its -1: it is left out of ``distinct``
    index.update(zip(distinct, range(len(distinct)), strict=True))
    codes = np.fromiter(map(index.__getitem__, values), dtype=np.int64, count=len(values))
    return codes, np.array(distinct, dtype=object)
