"""A region's prefix store: host memory that keeps the KV blocks of shared prompt prefixes for both fleets.

A refresher writes blocks at a constant rate over the oldest ones, so the store holds what was written in the last
*turnover* (blocks over rate) and nothing older; for a least-recently-used cache that is the characteristic time of Che,
Tung and Wang (2002), *Hierarchical web caching systems*. The policy in force chooses what is written, and with it how
many requests find their prefix. After a switch the share that does drifts in a straight line from the one policy's
level to the other's and stands still once a turnover has passed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from readout.simulate.arrivals import Bools, Floats, Ints


@dataclass(frozen=True, slots=True)
class PrefixStore:
    """What the store does.

    Attributes:
        turnover_s: Time in which every block is written over once.
        found_current, found_premium: Share of requests that find their prefix where the store was written under one
            policy throughout.
        saves: Part of the prompt that a prefix found there saves.
    """

    turnover_s: float
    found_current: float
    found_premium: float
    saves: float


def written_by_premium(coins: Bools, block_s: float, region: Ints, t_s: Floats, turnover_s: float) -> Floats:
    """Share of a region's store that was written under policy *premium*, (rows,).

    Args:
        coins: Whether policy *premium* is in force, (regions, blocks); before the first block *current* is.
        block_s: Length of a block.
        region, t_s: Region code and time of the requests, (rows,).
    """
    done = np.concatenate([np.zeros((len(coins), 1)), np.cumsum(coins, axis=1)], axis=1)
    longer = np.concatenate([coins, coins[:, -1:]], axis=1)

    def until(t: Floats) -> Floats:
        block = np.minimum(np.floor_divide(t, block_s).astype(np.int64), coins.shape[1])
        seconds: Floats = done[region, block] * block_s + longer[region, block] * (t - block * block_s)
        return seconds

    share: Floats = (until(t_s) - until(np.maximum(t_s - turnover_s, 0.0))) / turnover_s
    return share


def found_in(store: PrefixStore, share: Floats, *, seed: int) -> Floats:
    """Part of a request's prompt that the store holds, (rows,): ``saves`` where it finds its prefix, else 0.

    Args:
        share: Of the store that was written under policy *premium*, (rows,).
    """
    found = store.found_current + share * (store.found_premium - store.found_current)
    held: Floats = np.where(np.random.default_rng([seed, 8]).random(share.size) < found, store.saves, 0.0)
    return held
