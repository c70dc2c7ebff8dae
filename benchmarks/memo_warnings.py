"""Does the memo warn where theory promises nothing? Small logs of the worlds that docs/methods.md calls `warned`.

Every experiment is written as a Parquet log and read by `readout.pipeline` with a spec of its design's defaults:

  infinite variance   user_rct, a value a unit, Pareto with index 1.5
  10 clusters         cluster_rct under every method that leans on a t distribution
  24 AR(1) blocks     switchback of one cluster over two days of two-hour blocks

A warning counts where a reader meets it: beside the primary metric, or in a check on it that warns or fails.

    OMP_NUM_THREADS=1 python -m benchmarks.memo_warnings --experiments 200
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.worlds import blocks, clusters, units
from readout import pipeline
from readout.results import Readout

AS_OF = datetime(2026, 11, 1, tzinfo=UTC)
Log = Callable[[np.random.Generator], pl.DataFrame]

HEAD = "version: 1\nname: warned\nmetrics: {y: {column: y, role: primary, better: higher, minimum_effect: 0.05}}\n"
LOGS = "logs: {path: log.parquet, columns: {%s}}\n"
USERS = LOGS % "arm: arm" + "design: {kind: user_rct, control: a, treatment: b, shared_state: false}\n"
REGIONS = LOGS % "cluster: region, arm: arm" + (
    "design: {kind: cluster_rct, control: a, treatment: b, shared_state: false}\n"
)
TIMES = LOGS % "time: t, arm: arm" + (
    "design: {kind: switchback, control: a, treatment: b, shared_state: false, block: 2h}\n"
)


def heavy(rng: np.random.Generator) -> pl.DataFrame:
    """One row a unit."""
    values = [units.values(rng, "infinite variance", n) for n in units.SIZES]
    arm = np.repeat(["a", "b"], [len(v) for v in values])
    return pl.DataFrame({"arm": arm, "y": np.concatenate(values)})


def few_clusters(rng: np.random.Generator) -> pl.DataFrame:
    """The rows of ten clusters."""
    found = clusters.clusters(rng, "10 clusters", 0.1)
    n = found.den.astype(np.int64)
    cluster = np.repeat(np.arange(len(n)), n)
    noise = rng.normal(size=len(cluster))
    y = (found.num / found.den)[cluster] + noise
    return pl.DataFrame({"region": cluster, "arm": np.where(found.arm[cluster] == 1, "b", "a"), "y": y})


def few_blocks(rng: np.random.Generator) -> pl.DataFrame:
    """Ten rows in each of the blocks."""
    found = blocks.cells(rng, "24 AR(1) blocks", 0.4, together=False)
    cell = np.repeat(np.arange(len(found.arm)), 10)
    start = np.datetime64("2026-10-05T00:00", "us")
    minutes = found.block[cell] * 120 + np.tile(np.arange(10) * 12, len(found.arm))
    y = (found.num / found.den)[cell] + rng.normal(size=len(cell))
    t = pl.Series(start + minutes * np.timedelta64(60_000_000, "us")).dt.replace_time_zone("UTC")
    return pl.DataFrame({"t": t, "arm": np.where(found.arm[cell] == 1, "b", "a"), "y": y})


WORLDS: dict[str, tuple[str, Log]] = {
    "infinite variance": (USERS, heavy),
    **{
        f"10 clusters, {method}": (REGIONS + f"estimator: {{method: {method}}}\n", few_clusters)
        for method in ("cluster_means", "cluster_robust", "cluster_robust, variance: CR1")
    },
    "24 AR(1) blocks": (TIMES, few_blocks),
}


def warnings(readout: Readout) -> list[str]:
    """What the memo says against trusting the primary's interval."""
    (primary,) = (m for m in readout.metrics if m.role == "primary")
    checks = [f"{c.name} {c.status}" for c in readout.checks if c.name in ABOUT and c.status in ("warn", "fail")]
    return [*([primary.note.split(",")[0].split(":")[0]] if primary.note else []), *checks]


ABOUT = ("tail_dominance", "block_length", "carryover", "block_balance")


def study(experiments: int, seed: int) -> None:
    """Print the table."""
    print("| world | memos that warn | by |\n| --- | ---: | --- |")
    for name, (spec, log) in WORLDS.items():
        rng = np.random.default_rng(seed)
        warned, by = 0, Counter[str]()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "spec.yaml"
            path.write_text(HEAD + spec)
            for _ in range(experiments):
                log(rng).write_parquet(Path(folder) / "log.parquet")
                readout, _ = pipeline.run(path, out=Path(folder) / "memos", as_of=AS_OF, figures=False)
                found = warnings(readout)
                warned += bool(found)
                by.update(found)
        said = "; ".join(f"{what}: {count}" for what, count in by.most_common(4))
        print(f"| {name} | {warned} of {experiments} | {said} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    study(given.experiments, given.seed)


if __name__ == "__main__":
    main()
