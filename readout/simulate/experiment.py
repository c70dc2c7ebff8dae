"""Which policy is in force for a request: always one, or assigned by one of three mechanisms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from readout.simulate.arrivals import Bools, Floats, Ints, Workload

DAY_S = 86400.0
SWITCHBACK, RCT, ROLLOUT = "switchback", "rct", "rollout"
ROUTED = "routed"  # nothing is assigned
_NO_DAYS = np.empty(0, np.int64)
_NO_COINS = np.empty((0, 0), np.bool_)


@dataclass(frozen=True, slots=True)
class Assignment:
    """An experiment over a workload.

    Attributes:
        premium: Whether policy *premium* is in force for a request, (rows,).
        probability: That the mechanism puts policy *premium* in force for it, (rows,).
        assigned_s: When its arm was fixed, seconds from the start of the log, (rows,).
        rollout_day: First day with policy *premium* by region, -1 for never; empty where the mechanism is another.
        coins: Whether policy *premium* is in force, (regions, blocks); empty where the mechanism is another.
    """

    premium: Bools
    probability: Floats
    assigned_s: Floats
    rollout_day: Ints
    coins: Bools


def switchback(workload: Workload, *, regions: int, days: float, block_s: float, seed: int) -> Assignment:
    """A fair, independent coin for every region and block; blocks start with the log, at 00:00 UTC."""
    blocks = int(np.ceil(days * DAY_S / block_s))
    coins = np.random.default_rng([seed, 4]).random((regions, blocks)) < 0.5
    block = np.floor_divide(workload.t_s, block_s).astype(np.int64)
    half: Floats = np.full(workload.t_s.size, 0.5)
    return Assignment(coins[workload.region, block], half, block.astype(np.float64) * block_s, _NO_DAYS, coins)


def rct(workload: Workload, *, seed: int) -> Assignment:
    """A fair, independent coin for every workspace, tossed as the log starts; both arms share the live fleets."""
    coins = np.random.default_rng([seed, 5]).random(workload.n_workspaces) < 0.5
    half = np.full(workload.t_s.size, 0.5)
    return Assignment(coins[workload.workspace], half, np.zeros(workload.t_s.size), _NO_DAYS, _NO_COINS)


def rollout(workload: Workload, *, regions: int, days: float, seed: int) -> Assignment:
    """Half of the regions, chosen by the seed, switch on, each on its own day in mid-log; the others never do."""
    chosen = np.sort(np.random.default_rng([seed, 6]).permutation(regions)[: max(1, regions // 2)])
    first = np.full(regions, -1, dtype=np.int64)
    first[chosen] = np.unique(np.linspace(0.4 * days, 0.75 * days, chosen.size).round().astype(np.int64))[: chosen.size]
    day = (workload.t_s // DAY_S).astype(np.int64)
    mine = first[workload.region]
    premium = (mine >= 0) & (day >= mine)
    assigned = np.where(premium, mine * DAY_S, 0.0)
    return Assignment(premium, premium.astype(np.float64), assigned, first, _NO_COINS)
