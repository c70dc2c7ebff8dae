"""Requests fit to compute with, and the timeline of every batch: who is there when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from attribution.codes import sum_by
from attribution.pieces import Pieces
from attribution.timeline import Timeline, timeline

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LARGEST = 2.0**53  # beyond it a float no longer counts in ones


@dataclass(frozen=True)
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
        pieces: What the prompts of a batch share; None where the log does not say.
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
    pieces: Pieces | None = None

    @cached_property
    def steps(self) -> Ints:
        """(m,) Decode steps in which the request is active."""
        return self.end - self.start

    @cached_property
    def size(self) -> Ints:
        """(n_batches,) Requests in each batch."""
        return np.bincount(self.batch, minlength=self.n_batches)

    @cached_property
    def timeline(self) -> Timeline:
        """Who is active when; sorted once, used by every term that looks at steps."""
        return timeline(self.batch, self.start, self.end, self.n_batches)

    @cached_property
    def shared(self) -> tuple[Floats, Floats]:
        """(m,) each: tokens of the prompt that lie in pieces, and the sum of ``end**2 - start**2`` over its pieces."""
        rows, use = self.batch.size, self.pieces
        if use is None:
            return np.zeros(rows), np.zeros(rows)
        return sum_by(use.row, use.end - use.start, rows), sum_by(use.row, use.end**2 - use.start**2, rows)

    @cached_property
    def grouped(self) -> tuple[Ints, Ints]:
        """Rows ordered by batch (m,), and where in them each batch begins and the last one ends (n_batches + 1,)."""
        return np.argsort(self.batch, kind="stable"), np.concatenate([[0], np.cumsum(self.size)])

    @cached_property
    def uses(self) -> tuple[Ints, Ints]:
        """Uses of pieces ordered by batch (k,), and where in them each batch begins and the last one ends."""
        if self.pieces is None:
            return np.zeros(0, dtype=np.int64), np.zeros(self.n_batches + 1, dtype=np.int64)
        owner = self.pieces.batch[self.pieces.piece]
        count = np.bincount(owner, minlength=self.n_batches)
        return np.argsort(owner, kind="stable"), np.concatenate([[0], np.cumsum(count)])

    def only(self, batch: int) -> Stays:
        """One batch by itself, its rows in the order of the log."""
        order, edges = self.grouped
        mine = order[edges[batch] : edges[batch + 1]]
        return replace(
            self,
            rows=self.rows[mine],
            batch=np.zeros(mine.size, dtype=np.int64),
            n_batches=1,
            prompt=self.prompt[mine],
            output=self.output[mine],
            start=self.start[mine],
            end=self.end[mine],
            measured_wh=None if self.measured_wh is None else self.measured_wh[[batch]],
            measured_invalid=0,
            unattributed={},
            incomplete_batches=0,
            pieces=None if self.pieces is None else self._pieces_of(self.pieces, mine, batch),
        )

    def _pieces_of(self, pieces: Pieces, mine: Ints, batch: int) -> Pieces:
        """The pieces of one batch, whose rows ``mine`` (rising) become 0, 1, …"""
        order, edges = self.uses
        use = order[edges[batch] : edges[batch + 1]]
        codes, piece = np.unique(pieces.piece[use], return_inverse=True)
        return Pieces(
            row=np.searchsorted(mine, pieces.row[use]),
            piece=piece,
            start=pieces.start[use],
            end=pieces.end[use],
            batch=np.zeros(codes.size, dtype=np.int64),
        )
