"""Which arm a switchback's blocks held, whether clusters switched together, and how often the arm was drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

# Clusters that hold one arm in so many of the blocks, beyond chance, switch together; the rest are slips.
MOSTLY = 0.9
CHANCE = 0.001
# Blocks are held against runs of up to so many of them.
LONGEST_RUN = 48
# Of the boundaries inside runs, so many may see a switch: a slip of the log.
SLIPS = 0.01


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """The arms of a log's blocks.

    Attributes:
        cells: ``cluster``, ``block``, ``arm``: the arm that a cell, or the block where all switch together, holds.
        together: Whether all clusters switch together.
        mixed, units: Randomized units in which rows carry another arm than theirs, and all of them.
    """

    cells: pl.DataFrame
    together: bool
    mixed: int
    units: int


def held(sums: pl.DataFrame, planned: bool | None) -> Held:
    """The arm that most rows of a randomized unit carry.

    Args:
        sums: Rows ``n`` by ``cluster``, ``block`` and ``arm``.
        planned: Whether a schedule says that clusters switch together; None: what the log shows.
    """
    most = pl.col("arm").sort_by("n", "arm", descending=[True, False]).first()
    cells = sums.group_by("cluster", "block").agg(most, pl.len().alias("n_arms")).sort("cluster", "block")
    together = cells["cluster"].n_unique() > 1 and (switch_together(cells) if planned is None else planned)
    if not together:
        mixed = int((cells["n_arms"] > 1).sum())
        return Held(cells.drop("n_arms"), False, mixed, len(cells))
    by_arm = sums.group_by("block", "arm").agg(pl.col("n").sum())
    blocks = by_arm.group_by("block").agg(most, pl.len().alias("n_arms")).sort("block")
    whole = cells.select("cluster", "block").join(blocks, on="block", how="left", maintain_order="left")
    return Held(whole.drop("n_arms"), True, int((blocks["n_arms"] > 1).sum()), len(blocks))


def switch_together(cells: pl.DataFrame) -> bool:
    """Whether clusters hold one arm at a time: in every block, or in nearly all of them and in far more than clusters
    that switch apart would. A cluster that missed a switch does not make its blocks independent of the others'."""
    shares = cells["arm"].value_counts()["count"].to_numpy() / len(cells)
    blocks = cells.group_by("block").agg(pl.col("arm").n_unique().alias("arms"), pl.len().alias("n"))
    alike = blocks["arms"] == 1
    if alike.all():
        return True
    several = blocks.filter(pl.col("n") > 1)
    found, n = int((several["arms"] == 1).sum()), len(several)
    by_chance = float((shares[:, None] ** several["n"].to_numpy()).sum(axis=0).mean())
    from scipy.special import bdtrc

    return found >= MOSTLY * n and float(bdtrc(found - 1, n, by_chance)) < CHANCE


def run_length(order: np.ndarray, series: np.ndarray, arm: np.ndarray) -> int:
    """Of how many blocks the runs are between which alone the arm changes; 1 where it may change at every block.

    Args:
        order: ``(n,)`` number of a cell's block in time, successive blocks differing by 1.
        series: ``(n,)`` code of what switches on its own: the cluster, or 0 where all switch together.
        arm: ``(n,)`` its arm.

    Returns:
        The longest run of which chance makes so few switches inside less often than once in a thousand times, over all
        runs that are tried.
    """
    if len(order) < 2:
        return 1
    at = np.lexsort((arm, order, series))
    order, series, arm = order[at], series[at], arm[at]
    follows = (series[1:] == series[:-1]) & (order[1:] == order[:-1] + 1)
    boundary, change = order[1:][follows], (arm[1:] != arm[:-1])[follows]
    if not change.any():
        return 1
    shares = np.unique(arm, return_counts=True)[1] / len(arm)
    by_chance = 1.0 - float(shares @ shares)
    from scipy.special import bdtr

    longest = min(LONGEST_RUN, int(np.ptp(order)) // 2)
    tried = longest * (longest + 1) / 2
    for length in range(longest, 1, -1):
        phase = int(np.bincount(boundary[change] % length, minlength=length).argmax())
        inside = boundary % length != phase
        n, switches = int(inside.sum()), int(change[inside].sum())
        if n and switches <= SLIPS * n and float(bdtr(switches, n, by_chance)) * tried < CHANCE:
            return length
    return 1
