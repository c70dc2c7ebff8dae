"""Batches of requests as a log has them, and the same made fit to compute with.

A request is *active* in the decode steps ``[start_step, end_step)`` of its batch (continuous batching). Where a
batch has neither, it is static: all its requests start together and each is active for ``output_tokens`` steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attribution.codes import factorize
from attribution.pieces import Blocks, Pieces, pieces_of_blocks, pieces_of_prefixes, prefix_faults
from attribution.stays import LARGEST, Floats, Ints, Stays


@dataclass(frozen=True, slots=True)
class Batches:
    """One row a request, in any order; NaN or None stands for a null.

    Attributes:
        batch: (rows,) Which batch: integers, floats or strings; equal means together.
        prompt_tokens, output_tokens: (rows,) Whole numbers, at least 0.
        start_step, end_step: (rows,) Decode steps in which the request is active, ``[start, end)``; both or neither.
        measured_wh: (rows,) The batch's measured facility energy, the same on each of its rows. It is shared out as
            it stands: a reading taken at the GPU or the server is to be multiplied by the site's PUE before.
        prefix: (rows,) Which shared prefix the prompt begins with (any key; null: none), and
        prefix_tokens: (rows,) how many tokens of the prompt it is. Both or neither.
        blocks: Instead of these, the prompt's shareable blocks, as a prefix cache hashes them.

    Raises:
        ValueError: Columns of unequal length, a column that holds no numbers, only one of start and end or of
            prefix and prefix_tokens, or both prefixes and blocks.
    """

    batch: ArrayLike
    prompt_tokens: ArrayLike
    output_tokens: ArrayLike
    start_step: ArrayLike | None = None
    end_step: ArrayLike | None = None
    measured_wh: ArrayLike | None = None
    prefix: ArrayLike | None = None
    prefix_tokens: ArrayLike | None = None
    blocks: Blocks | None = None

    def __post_init__(self) -> None:
        if (self.start_step is None) != (self.end_step is None):
            raise ValueError("start_step and end_step go together: give both, or neither for static batches")
        if (self.prefix is None) != (self.prefix_tokens is None):
            raise ValueError("prefix and prefix_tokens go together: give both or neither")
        if self.prefix is not None and self.blocks is not None:
            raise ValueError("blocks: stand in place of prefix and prefix_tokens; give one of them")
        rows = np.shape(self.batch)
        if len(rows) != 1:
            raise ValueError(f"batch: expected one value a row, got an array of shape {rows}")
        if self.blocks is not None and self.blocks.offsets.size != rows[0] + 1:
            raise ValueError(f"blocks: expected {rows[0]} lists as in batch, got {self.blocks.offsets.size - 1}")
        if self.prefix is not None and np.shape(self.prefix) != rows:
            raise ValueError(f"prefix: expected {rows[0]} values as in batch, got shape {np.shape(self.prefix)}")
        for name in ("prompt_tokens", "output_tokens", "start_step", "end_step", "measured_wh", "prefix_tokens"):
            column = getattr(self, name)
            if column is None:
                continue
            if np.shape(column) != rows:
                raise ValueError(f"{name}: expected {rows[0]} values as in batch, got shape {np.shape(column)}")
            try:
                object.__setattr__(self, name, np.asarray(column, dtype=np.float64))
            except (TypeError, ValueError):
                raise ValueError(f"{name}: expected numbers, got {np.asarray(column).dtype}") from None


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
    if batches.prefix is not None:
        prefix = factorize(batches.prefix)[0]
        reasons |= prefix_faults(prefix, np.asarray(batches.prefix_tokens), prompt)

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
    if keep.size < code.size:
        prompt, output, start, end = prompt[keep], output[keep], start[keep], end[keep]
    start, end = start.astype(np.int64), end.astype(np.int64)
    if batches.start_step is not None:
        first = _reduce(np.minimum, start, kept, int(alive.sum()))
        start, end = start - first[kept], end - first[kept]
    measured, invalid = _measured(batches.measured_wh, keep, kept, int(alive.sum()))
    pieces: Pieces | None = None
    if batches.blocks is not None:
        pieces = pieces_of_blocks(batches.blocks, keep, kept, prompt)
    elif batches.prefix is not None:
        pieces = pieces_of_prefixes(prefix[keep], kept, np.asarray(batches.prefix_tokens)[keep])
    return Stays(
        rows=keep,
        batch=kept,
        n_batches=int(alive.sum()),
        prompt=prompt,
        output=output,
        start=start,
        end=end,
        measured_wh=measured,
        measured_invalid=invalid,
        unattributed=unattributed,
        incomplete_batches=int(np.count_nonzero(touched & alive)),
        pieces=pieces,
    )


def _token_faults(prompt: Floats, output: Floats) -> dict[str, NDArray[np.bool_]]:
    null = np.isnan(prompt) | np.isnan(output)
    usable = (prompt >= 0) & (output >= 0) & (prompt <= LARGEST) & (output <= LARGEST)
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
    usable = (np.abs(start) <= LARGEST) & (np.abs(end) <= LARGEST)
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
