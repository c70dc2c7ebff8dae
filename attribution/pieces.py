"""Prefixes that prompts share: what a log says of them, and as pieces with their users.

A *piece* is a run of prompt tokens that several requests of one batch begin with or go on with, so that its keys and
values are computed once. A log names either one shared prefix a request, or the blocks of its prompt.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attribution.codes import factorize

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Blocks:
    """Blocks of every prompt, from its first token on, in the layout of an Arrow list column.

    An id at a position stands for the whole prompt up to there, as the chained hashes of prefix caches do: two
    requests share a block where they have the same id at the same position.

    Attributes:
        ids: (k,) Block ids of all rows, one row after the other; integers, floats or strings.
        offsets: (rows + 1,) Row i has ``ids[offsets[i]:offsets[i + 1]]``; an empty list where it has none.
        tokens: Tokens a block; the last one ends where the prompt ends.

    Raises:
        ValueError: Offsets that do not fit the ids, or a block without tokens.
    """

    ids: ArrayLike
    offsets: NDArray[np.int64]
    tokens: int

    def __post_init__(self) -> None:
        offsets = np.asarray(self.offsets, dtype=np.int64)
        object.__setattr__(self, "offsets", offsets)
        if offsets.ndim != 1 or not offsets.size or offsets[0] < 0 or (np.diff(offsets) < 0).any():
            raise ValueError("blocks: offsets must not fall")
        if offsets[-1] > np.size(self.ids):
            raise ValueError(f"blocks: offsets end at {offsets[-1]}, ids at {np.size(self.ids)}")
        if isinstance(self.tokens, bool) or int(self.tokens) != self.tokens or self.tokens < 1:
            raise ValueError(f"blocks: expected a whole number of tokens of at least 1, got {self.tokens!r}")


@dataclass(frozen=True, slots=True)
class Pieces:
    """Every use of a piece by a request.

    Attributes:
        row: (k,) The request, as an index into the rows of ``Stays``.
        piece: (k,) Which piece, 0 … n_pieces - 1; pieces of different batches are different.
        start, end: (k,) The prompt's tokens ``[start, end)``. A piece starts everywhere at the same token; its users
            may go along with it for different lengths.
        batch: (n_pieces,) The batch of each piece.
    """

    row: Ints
    piece: Ints
    start: Floats
    end: Floats
    batch: Ints


def prefix_faults(prefix: Ints, tokens: Floats, prompt: Floats) -> dict[str, NDArray[np.bool_]]:
    """Reason → rows whose prefix cannot be."""
    has = prefix >= 0
    usable = (tokens >= 0) & (np.floor(tokens) == tokens)
    return {
        "no prefix token count": has & np.isnan(tokens),
        "prefix tokens negative or not whole": has & ~np.isnan(tokens) & ~usable,
        "prefix longer than prompt": has & usable & (tokens > prompt),
    }


def pieces_of_prefixes(prefix: Ints, batch: Ints, tokens: Floats) -> Pieces:
    """One piece for each prefix of each batch; rows (m,) with a prefix of -1 have none."""
    row = np.flatnonzero((prefix >= 0) & (tokens > 0))
    return _pieces(row, prefix[row], np.zeros(row.size, dtype=np.int64), batch, np.zeros(row.size), tokens[row])


def pieces_of_blocks(blocks: Blocks, rows: Ints, batch: Ints, prompt: Floats) -> Pieces:
    """One piece for each block of each batch. ``rows`` (m,) says which rows of the log the others are."""
    low, count = blocks.offsets[rows], np.diff(blocks.offsets)[rows]
    row = np.repeat(np.arange(rows.size), count)
    place = np.arange(row.size) - np.repeat(np.cumsum(count) - count, count)
    ids = factorize(blocks.ids)[0][low[row] + place]
    start = place * float(blocks.tokens)
    real = (ids >= 0) & (start < prompt[row])
    row, place, ids, start = row[real], place[real], ids[real], start[real]
    return _pieces(row, ids, place, batch, start, np.minimum(start + blocks.tokens, prompt[row]))


def _pieces(row: Ints, key: Ints, place: Ints, batch: Ints, start: Floats, end: Floats) -> Pieces:
    """Numbers the pieces by batch, place and key."""
    owner = batch[row]
    order = np.lexsort((key, place, owner))
    keys = (owner[order], place[order], key[order])
    fresh = np.ones(row.size, dtype=bool)
    fresh[1:] = np.logical_or.reduce([k[1:] != k[:-1] for k in keys])
    piece = np.empty(row.size, dtype=np.int64)
    piece[order] = np.cumsum(fresh) - 1
    return Pieces(row=row, piece=piece, start=start, end=end, batch=owner[order][fresh])
