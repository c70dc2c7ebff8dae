"""How often a segment is targeted where effects do not differ, and how often the right one is found where they do.

Run from the root of the repository (about 8 minutes of processor time; writes the table of docs/targeting.md):

    OMP_NUM_THREADS=1 POLARS_MAX_THREADS=1 python -m benchmarks.targeting_study --seeds 500 --out docs/targeting.md

A design's ``--seeds`` small logs are shared out over the worlds in which effects do not differ; a fifth as many are
drawn where they do. Each is read as ``readout run`` does: one pass, estimates, checks, decision. Segments are a tier
(three levels) and a condition on the prompt's length; both levels of the condition, and in clusters and blocks all
tiers too, share independent units. Tiers differ in their latency, its spread and their success. The average effect is
below the smallest worth acting on in every world, so that what is targeted rests on segments alone.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml

from readout import pipeline, spec
from readout.results import Readout

Rng = np.random.Generator
AS_OF = datetime(2026, 11, 1, tzinfo=UTC)
START = np.datetime64("2026-10-05T00:00:00", "us")
MARKS = ("<!-- measured -->", "<!-- /measured -->")
TIERS, SHARES = np.array(["free", "pro", "top"]), (0.5, 0.3, 0.2)
DAYS, BLOCKS, REGIONS, CLUSTERS = 7, 84, 3, 24


@dataclass(frozen=True)
class World:
    """Effects by tier on latency (ms) and on the chance of success."""

    what: str
    latency: tuple[float, float, float]
    success: tuple[float, float, float]
    differs: bool
    share: float  # of the asked number of experiments


WORLDS = (
    World("no effect", (0.0, 0.0, 0.0), (0.0, 0.0, 0.0), False, 0.4),
    World("the same small effect", (-2.0, -2.0, -2.0), (0.04, 0.04, 0.04), False, 0.3),
    World("the same effect, worth its compute", (-2.0, -2.0, -2.0), (0.2, 0.2, 0.2), False, 0.3),
    World("an effect on one tier", (0.0, 0.0, -12.0), (0.0, 0.0, 0.3), True, 0.2),
)


@dataclass(frozen=True)
class Design:
    """A design, its log's units, and whether net value decides."""

    name: str
    said: str
    money: bool
    keys: Mapping[str, Any]
    columns: Mapping[str, str]


DESIGNS = (
    Design("user_rct", "600 users, 4 requests each", True, {"kind": "user_rct"}, {"unit": "user"}),
    Design("request_rct", "2,400 requests; no economics stated", False, {"kind": "request_rct"}, {}),
    Design("switchback", "3 regions, 84 blocks of 2 h, 10 requests each", True, {"kind": "switchback", "block": "2h"},
           {"cluster": "region"}),
    Design("cluster_rct", "24 clusters, 120 requests each", True, {"kind": "cluster_rct"}, {"cluster": "region"}),
)  # fmt: skip


def draw(rng: Rng, design: str, world: World) -> pl.DataFrame:
    """One log."""
    tier, alike, minute, region, on = _assigned(rng, design)
    n = len(tier)
    noise = np.array([12.0, 15.0, 18.0])[tier] * rng.standard_normal(n)
    latency = 100 + np.array([0.0, -4.0, -8.0])[tier] + alike + noise + np.array(world.latency)[tier] * on
    chance = np.array([0.5, 0.6, 0.55])[tier] + alike / 100 + np.array(world.success)[tier] * on
    return pl.DataFrame(
        {
            "at": START + (60_000_000 * minute).astype("timedelta64[us]"),
            "region": np.array([f"r{i:02d}" for i in range(CLUSTERS)])[region],
            "arm": np.array(["old", "new"])[on],
            "tier": TIERS[tier],
            "prompt_tokens": rng.integers(1, 16_000, n),
            "ms": latency,
            "success": rng.random(n) < chance,
            "failed": rng.random(n) < 0.02,
            "gpu_seconds": rng.gamma(4.0, 0.25, n) * (1 + 0.2 * on),
            **({"user": np.arange(n) // 4} if design == "user_rct" else {}),
        }
    )


def _assigned(rng: Rng, design: str) -> tuple[np.ndarray, ...]:
    """Tier, what rows of one unit have in common, minute, region and arm of every row."""
    rows = {"user_rct": 2400, "request_rct": 2400, "switchback": REGIONS * BLOCKS * 10, "cluster_rct": CLUSTERS * 120}
    n = rows[design]
    minute = rng.integers(0, DAYS * 24 * 60, n)
    region = rng.integers(0, REGIONS, n)
    tier = rng.choice(3, n, p=SHARES)
    if design == "user_rct":
        user = np.arange(n) // 4
        tier, alike = tier[::4][user], 6.0 * rng.standard_normal(n // 4)[user]
        return tier, alike, minute, region, rng.integers(0, 2, n // 4)[user]
    if design == "request_rct":
        return tier, np.zeros(n), minute, region, rng.integers(0, 2, n)
    if design == "switchback":
        cell = np.arange(n) // 10
        region, block = cell // BLOCKS, cell % BLOCKS
        alike = 3.0 * rng.standard_normal(REGIONS * BLOCKS)[cell] + 4.0 * np.sin(block % 12 / 2.0)
        return tier, alike, 120 * block + minute % 120, region, rng.integers(0, 2, (REGIONS, BLOCKS))[region, block]
    region = np.arange(n) // 120
    order = rng.permutation(np.arange(CLUSTERS) % 2)
    return tier, 4.0 * rng.standard_normal(CLUSTERS)[region], minute, region, order[region]


def text(design: Design) -> str:
    """The spec."""
    metrics = {
        "latency": {"column": "ms", "role": "primary", "better": "lower", "minimum_effect": 7},
        "errors": {"column": "failed", "role": "guardrail", "better": "lower", "margin": 0.1},
        "success": {"column": "success", "better": "higher"},
    }
    given: dict[str, Any] = {
        "version": 1,
        "name": "study",
        "logs": {"path": "log.parquet", "columns": {"time": "at", "arm": "arm", **design.columns}},
        "design": {"control": "old", "treatment": "new", "shared_state": False, **design.keys},
        "metrics": metrics,
        "segments": ["tier", {"name": "long", "where": "prompt_tokens >= 8000"}],
    }
    if design.money:
        given["economics"] = {
            "value": {"metric": "success", "usd": 0.01},
            "cost": {"column": "gpu_seconds", "usd": 0.002},
        }
    return yaml.safe_dump(given, sort_keys=False)


def read(folder: Path, frame: pl.DataFrame, seed: int) -> Readout:
    """What ``readout run`` concludes, unwritten."""
    frame.write_parquet(folder / "log.parquet")
    loaded = spec.load(folder / "spec.yaml")
    return pipeline.assemble(loaded, pipeline.gather(loaded, AS_OF, seed), AS_OF, seed)


def study(design: Design, world: World, seeds: int) -> list[str]:
    """A row of the table: how often a segment was targeted, and how often the test of equal effects spoke."""
    targeted = found = spoke = recommended = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "spec.yaml").write_text(text(design))
        for seed in range(seeds):
            rng = np.random.default_rng([seed, DESIGNS.index(design), WORLDS.index(world)])
            readout = read(folder, draw(rng, design.name, world), seed)
            fired = readout.decision.rule == "segment_clears_the_bar"
            targeted += fired
            found += fired and "tier = top" in readout.decision.headline
            decides = "net value" if design.money else "latency"
            tests = [t for t in readout.segments.heterogeneity if t.metric == decides]
            spoke += any((t.p_value_holm or 1.0) < 0.05 for t in tests if t.p_value_holm is not None)
            recommended += any(one.recommended for one in readout.segments.results)
    shares = [f"{100 * k / seeds:.1f} %" for k in (spoke, recommended, targeted)]
    right = f"{100 * found / seeds:.1f} %" if world.differs else "–"
    return [f"`{design.name}`: {design.said}", world.what, f"{seeds:,}", *shares, right]


def main() -> None:
    """Run the study, print the table, and put it into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=500)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    began = time.process_time()
    headers = [
        "Design",
        "World",
        "Experiments",
        "Effects called different",
        "A level recommended",
        "A segment targeted",
        "Tier found",
    ]
    rows = [headers, ["---", "---", *["---:"] * 5]]
    for design in DESIGNS:
        for world in WORLDS:
            rows.append(study(design, world, round(world.share * asked.seeds)))
            print(" | ".join(rows[-1]), f"({time.process_time() - began:.0f} s)", flush=True)
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    said = f"\n{table}\n"
    if asked.out is not None:
        page = asked.out.read_text(encoding="utf-8")
        before, rest = page.split(MARKS[0])
        _, after = rest.split(MARKS[1])
        asked.out.write_text(f"{before}{MARKS[0]}\n{said}\n{MARKS[1]}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
