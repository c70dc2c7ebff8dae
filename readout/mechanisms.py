"""How the arms of a switchback's blocks are drawn: by coins, balanced over the calendar, or in pairs of blocks.

A mechanism and a number give a schedule; the mechanism alone gives all the schedules that might have been, which is
what randomization inference compares with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

Kind = Literal["bernoulli", "balanced", "paired"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Arms = NDArray[np.int8]
Codes = NDArray[np.intp]

_DAY = np.timedelta64(1, "D")
_MONDAY = np.datetime64("1970-01-05")


@dataclass(frozen=True, slots=True)
class Mechanism:
    """How arms were drawn.

    Attributes:
        kind: ``bernoulli``: a coin for every randomized unit. ``balanced``: within a cluster and a stratum (weekday or
            weekend x time of day of the block's start) every arm holds its share of the blocks, rounded up or down, in
            random order. ``paired``: consecutive blocks of a cluster, as many as there are arms, hold every arm once,
            in random order; the rest at the end holds different arms.
        split: Share of each arm, control first, in the order of the arms' codes; the shares add up to one.
        seed: What the schedule was drawn from; None where it is not known.
        together: Whether all clusters switch together, so that the block is what is randomized.

    Raises:
        ValueError: An unknown kind, fewer than two arms with a share, or unequal shares of pairs.
    """

    kind: Kind
    split: Mapping[str, float]
    seed: int | None = None
    together: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {self.kind!r}")
        shares = list(self.split.values())
        if not all(0.0 <= s < np.inf for s in shares) or sum(s > 0.0 for s in shares) < 2:
            raise ValueError("split must give at least two arms a share above zero")
        if self.kind == "paired" and max(shares) - min(shares) > 1e-9 * max(shares):
            raise ValueError("paired blocks hold every arm once: split must give equal shares")
        total = sum(shares)
        object.__setattr__(self, "split", {arm: share / total for arm, share in self.split.items()})

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms, control first; their places are their codes."""
        return tuple(self.split)

    @property
    def coin(self) -> Mapping[str, float] | None:
        """Probability of each arm where every randomized unit has a coin of its own; None in other mechanisms."""
        return self.split if self.kind == "bernoulli" else None


def strata(starts: NDArray[np.datetime64]) -> Codes:
    """``(n,)`` code of weekday or weekend x time of day of UTC block starts ``(n,)``."""
    day = starts.astype("datetime64[D]")
    weekend = ((day - _MONDAY) // _DAY) % 7 >= 5
    of_day = (starts - day).astype("timedelta64[us]").astype(np.int64)
    return np.unique(np.stack([of_day, weekend]), axis=1, return_inverse=True)[1].reshape(-1)


def draws(
    mechanism: Mechanism, starts: NDArray[np.datetime64], cluster: Codes, n: int, rng: np.random.Generator
) -> Arms:
    """Draws all blocks anew.

    Args:
        mechanism: How.
        starts: ``(m,)`` UTC starts of the blocks.
        cluster: ``(m,)`` codes; every cluster's blocks are drawn on their own, unless ``mechanism.together``.
        n: Number of draws.
        rng: Where the numbers come from.

    Returns:
        ``(n, m)`` codes of arms.
    """
    if mechanism.together:
        unique, place = np.unique(starts, return_inverse=True)
        return _by_cluster(mechanism, unique, np.zeros(len(unique), np.intp), n, rng)[:, place.reshape(-1)]
    return _by_cluster(mechanism, starts, cluster, n, rng)


def _by_cluster(
    mechanism: Mechanism, starts: NDArray[np.datetime64], cluster: Codes, n: int, rng: np.random.Generator
) -> Arms:
    shares = np.array(list(mechanism.split.values()))
    arms = np.empty((n, len(starts)), np.int8)
    for code in np.unique(cluster):
        mine = np.flatnonzero(cluster == code)
        mine = mine[np.argsort(starts[mine], kind="stable")]
        if mechanism.kind == "bernoulli":
            arms[:, mine] = _coins(shares, n, len(mine), rng)
        elif mechanism.kind == "paired":
            arms[:, mine] = _pairs(len(shares), n, len(mine), rng)
        else:
            arms[:, mine] = _balanced(shares, strata(starts[mine]), n, rng)
    return arms


def _coins(shares: NDArray[np.float64], n: int, m: int, rng: np.random.Generator) -> Arms:
    return cast(Arms, np.searchsorted(np.cumsum(shares)[:-1], rng.random((n, m)), side="right").astype(np.int8))


def _pairs(k: int, n: int, m: int, rng: np.random.Generator) -> Arms:
    groups = -(-m // k)
    orders = np.argsort(rng.random((n, groups, k)), axis=2)
    return orders.reshape(n, groups * k)[:, :m].astype(np.int8)


def _balanced(shares: NDArray[np.float64], stratum: Codes, n: int, rng: np.random.Generator) -> Arms:
    """Every stratum's blocks in the arms' rounded counts, in random order."""
    counts = _counts(shares, np.bincount(stratum), n, rng)
    arms = np.empty((n, len(stratum)), np.int8)
    for code in range(counts.shape[1]):
        mine = np.flatnonzero(stratum == code)
        rank = np.argsort(np.argsort(rng.random((n, len(mine))), axis=1), axis=1)
        ends = np.cumsum(counts[:, code], axis=1)[:, :-1]
        arms[:, mine] = (rank[:, :, None] >= ends[:, None, :]).sum(axis=2)
    return arms


def _counts(shares: NDArray[np.float64], sizes: NDArray[np.intp], n: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """``(n, strata, arms)`` blocks by arm: each stratum's shares rounded up or down, the totals by the shares too.

    Strata come in random order; what is left over after rounding down goes to the arms that are furthest behind their
    share so far. Two arms start with opposite random leads of up to half a block, which makes an arm's expected count
    exactly its share.
    """
    n_strata, k = len(sizes), len(shares)
    order = np.argsort(rng.random((n, n_strata)), axis=1)
    lead = rng.random((n, 1)) - 0.5
    ahead = np.hstack([lead, -lead]) if k == 2 else 0.5 * rng.random((n, k))
    counts = np.zeros((n, n_strata, k), np.intp)
    draw = np.arange(n)
    for step in range(n_strata):
        code = order[:, step]
        target = sizes[code][:, None] * shares
        given = np.floor(target + 1e-9)
        left = np.rint(sizes[code] - given.sum(axis=1))
        behind = np.where(target - given > 1e-9, target - given - ahead, -np.inf)
        place = np.argsort(np.argsort(-behind, axis=1, kind="stable"), axis=1, kind="stable")
        given += place < left[:, None]
        ahead += given - target
        counts[draw, code] = given.astype(np.intp)
    return counts
