"""Batches of requests as a log has them, and the same made fit to compute with.

A request is *active* in the decode steps ``[start_step, end_step)`` of its batch (continuous batching). Where a
batch has neither, it is static: all its requests start together and each is active for ``output_tokens`` steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attribution.codes import factorize

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_LARGEST = 2.0**53  # beyond it a float no longer counts in ones


@dataclass(frozen=True, slots=True)
class Batches:
    """One row a request, in any order; NaN or None stands for a null.

    Attributes:
        batch: (rows,) Which batch: integers, floats or strings; equal means together.
        prompt_tokens, output_tokens: (rows,) Whole numbers, at least 0.
        start_step, end_step: (rows,) Decode steps in which the request is active, ``[start, end)``; both or neither.
        measured_wh: (rows,) The batch's measured facility energy, the same on each of its rows. It is shared out as
            it stands: a reading taken at the GPU or the server is to be multiplied by the site's PUE before.

    Raises:
        ValueError: Columns of unequal length, a column that holds no numbers, or only one of start and end.
    """

    batch: ArrayLike
    prompt_tokens: ArrayLike
    output_tokens: ArrayLike
    start_step: ArrayLike | None = None
    end_step: ArrayLike | None = None
    measured_wh: ArrayLike | None = None

    def __post_init__(self) -> None:
        if (self.start_step is None) != (self.end_step is None):
            raise ValueError("start_step and end_step go together: give both, or neither for static batches")
        rows = np.shape(self.batch)
        if len(rows) != 1:
            raise ValueError(f"batch: expected one value a row, got an array of shape {rows}")
        for name in ("prompt_tokens", "output_tokens", "start_step", "end_step", "measured_wh"):
            column = getattr(self, name)
            if column is None:
                continue
            if np.shape(column) != rows:
                raise ValueError(f"{name}: expected {rows[0]} values as in batch, got shape {np.shape(column)}")
            try:
                object.__setattr__(self, name, np.asarray(column, dtype=np.float64))
            except (TypeError, ValueError):
                raise ValueError(f"{name}: expected numbers, got {np.asarray(column).dtype}") from None


@dataclass(frozen=True, slots=True)
class Stays:
    """The rows of ``Batches`` that can be attributed: no nulls, batches numbered 0 … n_batches - 1.

    Attributes:
        rows: (m,) Where each stands in the log.
        batch: (m,) Its batch.
        n_batches: How many batches have at least one such row.
        prompt, output: (m,) Tokens.
        start, end: (m,) Steps in which it is active, ``[start, end)``, counted from its batch's first step.
        measured_wh: (n_batches,) Measured energy, NaN where there is none to use; None without such a column.
        measured_invalid: Batches whose measurement is zero, negative, infinite, or differs between rows.
        unattributed: Reason → rows of the log left out, each row under its first reason.
        incomplete_batches: Batches that lost some of their rows this way.
    """

    rows: Ints
    batch: Ints
    n_batches: int
    prompt: Floats
    output: Floats
    start: Ints
    end: Ints
    measured_wh: Floats | None
    measured_invalid: int
    unattributed: Mapping[str, int]
    incomplete_batches: int

    @property
    def steps(self) -> Ints:
        """(m,) Decode steps in which the request is active."""
        return self.end - self.start


def resolve(batches: Batches) -> Stays:
    """Leaves out, and counts, the rows that cannot be attributed; numbers batches and steps from 0."""
    code, names = factorize(batches.batch)
    prompt, output = np.asarray(batches.prompt_tokens), np.asarray(batches.output_tokens)
    reasons = {"no batch": code < 0, **_token_faults(prompt, output)}
    if batches.start_step is None or batches.end_step is None:
        start, end = np.zeros_like(output), output
    else:
        start, end = np.asarray(batches.start_step), np.asarray(batches.end_step)
        start, end, faults = _steps(code, len(names), start, end, output)
        reasons |= faults

    bad = np.zeros(code.size, dtype=bool)
    unattributed: dict[str, int] = {}
    for reason, rows in reasons.items():
        fresh = np.count_nonzero(rows & ~bad)
        bad |= rows
        if fresh:
            unattributed[reason] = int(fresh)
    keep = np.flatnonzero(~bad)
    kept, alive = _renumber(code[keep], len(names))
    touched = np.bincount(code[bad & (code >= 0)], minlength=len(names)) > 0
    start, end = start[keep].astype(np.int64), end[keep].astype(np.int64)
    if batches.start_step is not None:
        first = _reduce(np.minimum, start, kept, int(alive.sum()))
        start, end = start - first[kept], end - first[kept]
    measured, invalid = _measured(batches.measured_wh, keep, kept, int(alive.sum()))
    return Stays(
        rows=keep,
        batch=kept,
        n_batches=int(alive.sum()),
        prompt=prompt[keep],
        output=output[keep],
        start=start,
        end=end,
        measured_wh=measured,
        measured_invalid=invalid,
        unattributed=unattributed,
        incomplete_batches=int(np.count_nonzero(touched & alive)),
    )


def _token_faults(prompt: Floats, output: Floats) -> dict[str, NDArray[np.bool_]]:
    null = np.isnan(prompt) | np.isnan(output)
    usable = (prompt >= 0) & (output >= 0) & (prompt <= _LARGEST) & (output <= _LARGEST)
    usable &= (np.floor(prompt) == prompt) & (np.floor(output) == output)
    return {"no token count": null, "token count negative or not whole": ~null & ~usable}


def _steps(
    code: Ints, n_batches: int, start: Floats, end: Floats, output: Floats
) -> tuple[Floats, Floats, dict[str, NDArray[np.bool_]]]:
    """Steps of every row, a batch without any taken as static, and the rows whose steps make no sense."""
    known = ~np.isnan(start) | ~np.isnan(end)
    continuous = np.zeros(n_batches + 1, dtype=bool)  # the last entry takes the rows without a batch
    continuous[code[known]] = True
    static = ~continuous[code]
    if static.any():
        start, end = np.where(static, 0.0, start), np.where(static, output, end)
    missing = ~static & (np.isnan(start) | np.isnan(end))
    usable = (np.abs(start) <= _LARGEST) & (np.abs(end) <= _LARGEST)
    usable &= (np.floor(start) == start) & (np.floor(end) == end)
    return start, end, {
        "no start or end step": missing,
        "start or end step not whole": ~static & ~missing & ~usable,
        "end step before start step": ~static & (end < start),
    }  # fmt: skip


def _renumber(code: Ints, n: int) -> tuple[Ints, NDArray[np.bool_]]:
    """Codes without gaps, and which of the old ones are still there."""
    alive = np.bincount(code, minlength=n) > 0
    return (code if alive.all() else (np.cumsum(alive) - 1)[code]), alive


def _reduce(rule: np.ufunc, values: NDArray[np.generic], batch: Ints, n_batches: int) -> NDArray[np.generic]:
    """Least or greatest value of each batch; every batch has a row."""
    result = np.empty(n_batches, dtype=values.dtype)
    result[batch] = values  # any one of the batch's values, to begin with
    rule.at(result, batch, values)
    return result


def _measured(column: ArrayLike | None, keep: Ints, batch: Ints, n_batches: int) -> tuple[Floats | None, int]:
    """One measurement a batch: nulls are passed over, anything that contradicts itself or physics is not used."""
    if column is None:
        return None, 0
    values = np.asarray(column, dtype=np.float64)[keep]
    given = ~np.isnan(values)
    least, most = np.full(n_batches, np.inf), np.full(n_batches, -np.inf)
    np.minimum.at(least, batch[given], values[given])
    np.maximum.at(most, batch[given], values[given])
    seen = most >= least
    with np.errstate(invalid="ignore"):  # inf - inf, which is not usable either
        usable = seen & (least > 0) & np.isfinite(most) & (most - least <= 1e-9 * most)
    return np.where(usable, most, np.nan), int(np.count_nonzero(seen & ~usable))
