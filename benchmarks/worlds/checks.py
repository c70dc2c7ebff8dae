"""Logs that the study of the checks draws: an assumption that holds, or that a stated amount breaks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import polars as pl

Rng = np.random.Generator
Log = Mapping[str, Any]
START = np.datetime64("2026-10-05T00:00:00", "us")
ARMS = np.array(["a", "b", "c"])


def ratio(n: int, *shares: float) -> Callable[[Rng], Log]:
    """Rows whose arm is drawn with these shares."""
    return lambda rng: {"arm": ARMS[rng.choice(len(shares), n, p=shares)]}


def users(rng: Rng, n: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Units with a Pareto number of rows: each row's unit, each row's arm, and each unit's arm (0 or 1)."""
    arm = rng.integers(0, 2, n)
    rows = 1 + rng.poisson(np.minimum(3 * (1 + rng.pareto(1.5, n)), 200))
    unit = np.repeat(np.arange(n), rows)
    return unit, ARMS[arm[unit]], arm


def eligible(shift: float) -> Callable[[Rng], Log]:
    """A share of about 0.7 that varies by unit; ``shift``: how much less under treatment."""

    def draw(rng: Rng) -> Log:
        unit, arm, of = users(rng)
        chance = rng.beta(7, 3, len(of)) - shift * of
        return {"unit": unit, "arm": arm, "eligible": rng.random(len(unit)) < chance[unit]}

    return draw


def flags(role: str, base: float, shift: float) -> Callable[[Rng], Log]:
    """A rare event, more frequent with some units."""

    def draw(rng: Rng) -> Log:
        unit, arm, of = users(rng)
        chance = base * rng.gamma(2.0, 0.5, len(of)) + shift * of
        return {"unit": unit, "arm": arm, role: rng.random(len(unit)) < chance[unit]}

    return draw


def feature(kind: str, shift: float, volume: float = 1.0) -> Callable[[Rng], Log]:
    """A fact of the user; ``shift``: in standard deviations or points of share; ``volume``: the rows that treated users
    of one kind send, against the others."""

    def draw(rng: Rng) -> Log:
        arm = rng.integers(0, 2, 400)
        pro = rng.random(400) < 0.3 + (shift * arm if kind == "label" else 0.0)
        more = np.where(pro & (arm == 1), volume, 1.0)
        unit = np.repeat(np.arange(400), 1 + rng.poisson(np.minimum(3 * (1 + rng.pareto(1.5, 400)), 200) * more))
        age = rng.normal(size=400) + pro + shift * arm
        x = np.where(pro, "pro", "free")[unit] if kind == "label" else age[unit]
        return {"unit": unit, "arm": ARMS[arm[unit]], "x": x}

    return draw


def diverged(share: float) -> Callable[[Rng], Log]:
    """Treated rows executed otherwise than intended."""

    def draw(rng: Rng) -> Log:
        arm = ARMS[rng.integers(0, 2, 4000)]
        moved = (arm == "b") & (rng.random(4000) < share)
        return {"arm": arm, "intended": arm, "executed": np.where(moved, "a", arm)}

    return draw


def tail(outlier: float, sigma: float = 0.5) -> Callable[[Rng], Log]:
    """Log-normal values with a lift of 0.3, and one treated unit lowered by ``outlier``."""

    def draw(rng: Rng) -> Log:
        arm = rng.integers(0, 2, 200)
        y = np.exp(sigma * rng.normal(size=200)) + 0.3 * arm
        y[np.argmax(arm)] -= outlier
        return {"unit": np.arange(200), "arm": ARMS[arm], "y": y}

    return draw


def outcomes(units: int, draw_one: Callable[[Rng, int], Any]) -> Callable[[Rng], Log]:
    """Two arms of like outcomes, a value a unit."""

    def draw(rng: Rng) -> Log:
        return {"unit": np.arange(units), "arm": ARMS[rng.integers(0, 2, units)], "y": draw_one(rng, units)}

    return draw


def log_normal(rng: Rng, n: int) -> Any:
    """Mean 1.6, standard deviation 2.2, skewness 6."""
    return np.exp(rng.normal(size=n))


def traffic(
    *, spill: float = 0.0, effect: float = 0.0, bursts: float = 0.0, people: int = 200, zones: float = 0.0,
    slow_heavy: float = 0.0, ineligible: float = 0.0, load: float = 0.0, picks: int | None = None,
) -> Callable[[Rng], Log]:  # fmt: skip
    """20,000 requests of users with Pareto activity in four regions over ten days, busy by day.

    Args:
        spill: Slows everybody by the share of treated requests in region and five minutes.
        effect: On treated requests themselves.
        bursts: Spread of the size of sessions, larger ones being slower.
        zones: How far regions keep different hours.
        slow_heavy: How much slower heavy users are.
        ineligible: Share of requests that may not be treated, slower than the others.
        load: Power of all traffic there that slows everybody.
        picks: The policy treats only so many of the assigned requests there, the fastest.
    """

    def draw(rng: Rng) -> Log:
        weight = 1 + rng.pareto(1.2, people)
        weight /= weight.sum()
        arm, region = rng.integers(0, 2, people), rng.integers(0, 4, people)
        own = np.exp(0.5 * rng.normal(size=people)) * (weight * people) ** slow_heavy
        who = rng.choice(people, 1000, p=weight)
        busy = 1 + 0.8 * np.sin(2 * np.pi * (np.arange(24) - 8) / 24)
        begin = (rng.integers(0, 10, 1000) * 24 + rng.choice(24, 1000, p=busy / busy.sum()) + rng.random(1000)) * 3600
        size = rng.poisson(20 * np.exp(bursts * rng.normal(size=1000)))
        unit, second = np.repeat(who, size), np.repeat(begin, size) + rng.random(size.sum()) * 1800
        slow = np.repeat(((size + 1) / 20) ** (0.5 if bursts else 0.0), size)
        may = rng.random(len(unit)) >= ineligible
        treated = (arm[unit] == 1) & may
        place = (second // 300).astype(int) * 4 + region[unit]
        all_there = np.bincount(place)[place]
        share = np.bincount(place, treated)[place] / np.maximum(np.bincount(place, may)[place], 1)
        hour = 1 + 0.4 * np.sin(2 * np.pi * (second / 3600 - 8 + 6 * zones * region[unit]) / 24)
        y = 100 * own[unit] * slow * hour * np.exp(0.5 * rng.normal(size=len(unit))) * (1 + spill * share)
        y *= np.where(may, 1.0, 1.6) * (all_there / 5.0) ** load * np.where(treated, 1 + effect, 1.0)
        queue = np.floor(10 * hour * (1 + spill * share) + rng.poisson(5, len(unit)))
        log = pl.DataFrame({"place": place, "may": treated, "y": y})
        nth = log.select(pl.when("may").then("y").rank("ordinal").over("place", "may")).to_series().to_numpy()
        treated &= nth <= (len(unit) if picks is None else picks)
        return {
            "time": START + (second * 1e6).astype("timedelta64[us]"), "unit": unit, "cluster": region[unit].astype(str),
            "arm": ARMS[arm[unit]], "executed": np.where(treated, "b", "a"), "eligible": may, "y": y, "queue": queue,
        }  # fmt: skip

    return draw


def blocks(late: float) -> Callable[[Rng], Log]:
    """60 blocks of two hours in two regions; the arm changes ``late`` minutes after the block."""

    def draw(rng: Rng) -> Log:
        coin = rng.integers(0, 2, (2, 60))
        minute, region = rng.uniform(0, 7200, 6000), rng.integers(0, 2, 6000)
        block = np.maximum(minute - late, 0) // 120
        return {
            "time": START + (minute * 60e6).astype("timedelta64[us]"), "cluster": region.astype(str),
            "arm": ARMS[coin[region, block.astype(int)]],
        }  # fmt: skip

    return draw


def switches(
    *, carry: float = 0.0, fades: float = math.inf, back: int = 1, noise: float = 3.0, memory: float = 0.0,
) -> Callable[[Rng], Log]:  # fmt: skip
    """Two weeks of blocks of two hours in two regions, by coins; treatment takes 10 off an outcome of about 100.

    Args:
        carry: What the arm ``back`` blocks before still adds at the start of a block.
        fades: Minutes after which a third of it is left.
        noise: Standard deviation of a block's own level, beside that of 8 of a request.
        memory: Correlation of the levels of successive blocks.
    """

    def draw(rng: Rng) -> Log:
        n = 14 * 12
        coin, level = rng.integers(0, 2, (2, n)), noise * rng.normal(size=(2, n))
        for t in range(1, n):
            level[:, t] = memory * level[:, t - 1] + math.sqrt(1 - memory**2) * level[:, t]
        minute, region = rng.uniform(0, 120 * n, 8000), rng.integers(0, 2, 8000)
        block = (minute // 120).astype(int)
        before = np.where(block >= back, coin[region, block - back], 0)
        demand = 8 * np.sin(2 * np.pi * (minute / 60 - 8) / 24) + 4 * (block // 12 % 7 >= 5)
        y = 100 + demand - 10 * coin[region, block] + level[region, block] + 8 * rng.normal(size=8000)
        y += carry * before * np.exp(-(minute % 120) / fades)
        return {
            "time": START + (minute * 60e6).astype("timedelta64[us]"), "cluster": region.astype(str),
            "arm": ARMS[coin[region, block]], "y": y,
        }  # fmt: skip

    return draw


def pool(usual: float, *, rise: float = 0.0, whole: float = 0.0, whole_treated: float = 0.0) -> Callable[[Rng], Log]:
    """Half-hours of three regions over 14 days, in blocks of two hours, some of them over a load of 100.

    Args:
        usual: Share of windows over it, which varies from block to block and over the day.
        rise: How much larger that share is under treatment.
        whole: Share of blocks that are over it throughout; ``whole_treated``: how much larger under treatment.
    """

    def draw(rng: Rng) -> Log:
        blocks, windows = 3 * 168, 3 * 168 * 4
        arm = np.repeat(rng.integers(0, 2, blocks), 4)
        busy = np.repeat(rng.gamma(2.0, 0.5, blocks), 4) * (1 + 0.5 * np.sin(np.arange(windows) % 48 / 48 * 2 * np.pi))
        over = rng.random(windows) < usual * busy + rise * arm
        over |= np.repeat(rng.random(blocks), 4) < whole + whole_treated * arm
        window = np.repeat(np.arange(windows), 3)
        least = np.where(np.arange(len(window)) % 3 == 0, 1.0, rng.uniform(0.2, 1.0, len(window)))
        minute = window % (168 * 4) * 30 + rng.uniform(0, 30, len(window))
        return {
            "time": START + (minute * 60e6).astype("timedelta64[us]"), "cluster": (window // (168 * 4)).astype(str),
            "arm": ARMS[arm[window]], "load": np.where(over, 120.0, 70.0)[window] * least,
        }  # fmt: skip

    return draw


def held(day: float, weekend: float, days: int = 14) -> Callable[[Rng], Log]:
    """Blocks of two hours in two regions; the share in treatment by day (6 to 18 h) and at weekends is shifted."""

    def draw(rng: Rng) -> Log:
        n = days * 12
        by_day, late = np.arange(n) % 12 // 3 % 3 > 0, np.arange(n) // 12 % 7 >= 5
        coin = rng.random((2, n)) < 0.5 + day * np.where(by_day, 1, -1) + weekend * late
        block, region = np.tile(np.arange(n), 8), np.repeat([0, 1], 4 * n)
        minute = 120 * block + rng.uniform(0, 120, 8 * n)
        return {
            "time": START + (minute * 60e6).astype("timedelta64[us]"), "cluster": region.astype(str),
            "arm": ARMS[coin[region, block].astype(int)],
        }  # fmt: skip

    return draw
