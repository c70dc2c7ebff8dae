"""A switchback's cells in time: which blocks follow each other, what stood before and beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

WASHED_KINDS = ("after a switch", "without a switch", "first of a cluster, or after a gap")


def time_grid(cells: pl.DataFrame, start: pl.Series, length: timedelta | None, together: bool) -> np.ndarray:
    """``(n_cells,)`` number of each cell's block in time, successive blocks differing by 1.

    Blocks of a length stand on their grid, so that a gap in time is a gap in the numbers; others follow in the order of
    their first rows (``start``, microseconds), of each cluster on its own where clusters switch apart.
    """
    if length is not None:
        order = (start - start.min()) // (length // timedelta(microseconds=1))
    else:
        rank = pl.struct("start", "block").rank("dense")
        frame = cells.select("cluster", "block", start.alias("start"))
        order = frame.select(rank if together else rank.over("cluster")).to_series()
    return order.cast(pl.Int64).to_numpy()


def washed_out(cells: pl.DataFrame, washout: pl.DataFrame, before: np.ndarray) -> list[dict[str, Any]]:
    """Blocks, and rows that the washout left out of them, by what stood before the block.

    Args:
        cells: ``cluster``, ``block``, ``arm``.
        washout: Rows ``n`` left out by ``cluster`` and ``block``.
        before: ``(n_cells,)`` arm of the block before; -1 where it is not in the log.
    """
    kind = np.where(before < 0, 2, (before == cells["arm"].to_numpy()).astype(int))
    keys = ["cluster", "block"]
    joined = cells.select(keys).join(washout.select(*keys, "n"), on=keys, how="left", maintain_order="left")
    rows = joined["n"].fill_null(0).to_numpy()
    return [
        {"blocks": name, "n": int((kind == i).sum()), "rows": int(rows[kind == i].sum())}
        for i, name in enumerate(WASHED_KINDS)
    ]


def others_treated(cells: pl.DataFrame) -> np.ndarray:
    """``(n_cells,)`` share of the other clusters in a treatment in the same block; nan where there is none."""
    treated = (pl.col("arm") > 0).cast(pl.Float64)
    n = pl.len().over("block")
    others = (treated.sum().over("block") - treated) / pl.when(n > 1).then(n - 1)
    return cells.select(others.alias("share"))["share"].fill_null(np.nan).to_numpy()


def by_bin(cells: pl.DataFrame, table: pl.DataFrame, bins: int, names: tuple[str, str]) -> np.ndarray:
    """``(2, n_cells, bins)`` of a table's two columns by cluster, block, arm and ``bin``; zero where it has no row."""
    keys = ["cluster", "block", "arm"]
    rows = table.join(cells.select(keys).with_row_index("cell"), on=keys, how="inner").sort("cell", "bin")
    sums = np.zeros((2, len(cells), bins))
    for i, name in enumerate(names):
        sums[i, rows["cell"].to_numpy(), rows["bin"].to_numpy()] = rows[name].fill_null(0).to_numpy()
    return sums


@dataclass(frozen=True, slots=True)
class Places:
    """Where each cell stands: codes of its cluster (in the order of ``labels``), of its block in time and of its arm,
    and the hour and day of the week at which the block began."""

    cluster: np.ndarray
    block: np.ndarray
    arm: np.ndarray
    hour: np.ndarray
    weekday: np.ndarray
    labels: list[str]


def places(frame: pl.DataFrame, starts: Sequence[datetime]) -> Places:
    """The cells of a table; ``starts`` are their blocks'."""
    began = pl.DataFrame({"start": pl.Series(starts, dtype=pl.Datetime("us", "UTC")), "block": frame["block"]})
    block = began.select(pl.struct("start", "block").rank("dense")).to_series()
    return Places(
        cluster=frame["cluster"].rank("dense").cast(pl.Int64).to_numpy() - 1,
        block=block.cast(pl.Int64).to_numpy() - 1,
        arm=frame["arm"].to_numpy(),
        hour=np.array([s.hour for s in starts], dtype=int),
        weekday=np.array([s.weekday() for s in starts], dtype=int),
        labels=frame["cluster"].unique().sort().to_list(),
    )
