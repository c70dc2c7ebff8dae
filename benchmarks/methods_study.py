"""Every method in every world: what its interval promises there, and how often it covers.

The table of promises is data in this file and was published before the first run (docs/methods.md). Run from the root
of the repository; `--plan` prints the promises alone, `--out` writes the page with what was measured:

    python -m benchmarks.methods_study --plan
    OMP_NUM_THREADS=1 nice python -m benchmarks.methods_study --experiments 5000 --out docs/methods.md

With `--keep FILE` every row is kept as it is done, and a call with the same file measures only those that are missing
or had fewer experiments.

Promises: `94–96`, the coverage of 95 % intervals, and a bias within Monte Carlo error; `≥ 94`, methods that are
conservative by construction; `warned`, where theory promises nothing: coverage is published, and the memo of such an
experiment warns in at least 90 % of them (measured through `readout.pipeline` by `benchmarks.memo_warnings`);
`published`, where a method only holds in the limit.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.calibration import Figures, World, measure
from benchmarks.worlds import blocks, clusters, units

NOMINAL, CONSERVATIVE, WARNED, PUBLISHED = "94–96", "≥ 94", "warned", "published"
PLAIN = ("plain", "nulls", "mean 1e9", "ties")
WEIGHTED = (*PLAIN, "weights")
# Bias beyond so many of its Monte Carlo errors is one: over 150 rows 3.5 comes by chance once in fifteen studies.
BIASED = 3.5
# The band of 94 to 96 is for so many experiments, refused ones left out.
ENOUGH = 4500


@dataclass(frozen=True)
class Cell:
    """A method in a world: what is promised, the effect that is put in, and how an experiment is drawn."""

    method: str
    world: str
    promise: str
    effect: float
    draw: units.Draw

    def kept(self, f: Figures) -> str:
        """Whether the promise held: ``yes``, ``no``, ``open`` where too few experiments tell, or nothing to hold."""
        if self.promise not in (NOMINAL, CONSERVATIVE):
            return ""
        coverage = 100 * f.coverage
        beyond = max(94.0 - coverage, coverage - 96.0 if self.promise == NOMINAL else 0.0)
        if self.promise == NOMINAL and abs(f.bias_over_error) >= BIASED:
            return "**no**"
        if beyond <= 0.0:
            return "yes"
        undecided = f.experiments < ENOUGH and beyond < 3 * 100 * math.sqrt(0.05 * 0.95 / f.experiments)
        return "open" if undecided else "**no**"


def cells() -> Iterator[Cell]:
    """The table, row by row."""
    yield from _of_units()
    yield from _of_clusters()
    yield from _of_blocks()


def _of_units() -> Iterator[Cell]:
    effects = {"ties": 1.0, "infinite variance": 0.5}
    singles = {
        "difference_in_means, mean": units.welch,
        "cuped, mean": units.cuped_mean,
        "regression_adjusted": units.adjusted,
        "difference_in_means, strata": units.in_strata,
    }
    in_units = {
        "difference_in_means, row mean": units.row_mean,
        "difference_in_means, ratio": units.ratio,
        "cuped, ratio": units.cuped_ratio,
    }
    for worlds, methods in ((PLAIN, singles), (WEIGHTED, in_units)):
        for method, make in methods.items():
            for world in worlds:
                yield Cell(method, world, NOMINAL, effects.get(world, 0.2), make(world))
    yield Cell("difference_in_means, mean", "infinite variance", WARNED, 0.5, units.welch("infinite variance"))
    for world in ("plain", "nulls"):
        yield Cell("quantile, p50", world, NOMINAL, 0.2, units.median(world))
    yield Cell("quantile, p50", "ties", CONSERVATIVE, 1.0, units.median("ties"))
    for method in ("winsorize", "trim", "median_of_means", "catoni"):
        for world in PLAIN:
            yield Cell(f"robust: {method}", world, NOMINAL, effects.get(world, 0.2), units.robust(method, world))
        promise = NOMINAL if method == "trim" else PUBLISHED
        yield Cell(f"robust: {method}", "infinite variance", promise, 0.5, units.robust(method, "infinite variance"))
    for world in PLAIN:
        name = "sequential, 100 looks together"
        yield Cell(name, world, CONSERVATIVE, effects.get(world, 0.2), units.looks(world, sequential=True))
    fixed = "fixed intervals, 100 looks together"
    yield Cell(fixed, "plain", PUBLISHED, 0.2, units.looks("plain", sequential=False))


def _of_clusters() -> Iterator[Cell]:
    methods = {
        "cluster_means, units": (NOMINAL, partial(clusters.means, "units")),
        "cluster_means, rows": (NOMINAL, partial(clusters.means, "rows")),
        "cluster_robust, CR2": (NOMINAL, partial(clusters.robust, "CR2")),
        "cluster_robust, CR1": (NOMINAL, partial(clusters.robust, "CR1")),
        "cluster_robust, CR3": (CONSERVATIVE, partial(clusters.robust, "CR3")),
        "cluster_robust, wild": (NOMINAL, partial(clusters.robust, "wild")),
        "difference_in_means, CR1 by cluster": (NOMINAL, partial(clusters.units_in_clusters, "CR1")),
        "difference_in_means, CR2 by cluster": (NOMINAL, partial(clusters.units_in_clusters, "CR2")),
        "randomization_inference, complete": (CONSERVATIVE, partial(clusters.randomization, "complete")),
        "randomization_inference, strata": (CONSERVATIVE, partial(clusters.randomization, "stratified")),
        "randomization_inference, pairs": (CONSERVATIVE, partial(clusters.randomization, "paired")),
    }
    for method, (promise, make) in methods.items():
        for world in WEIGHTED:
            yield Cell(method, world, promise, 0.1, make(world))
        if method.endswith("pairs"):
            continue  # of the 32 draws of five pairs none is rare enough for an interval: it is always refused
        few = CONSERVATIVE if method.startswith("randomization") else WARNED
        yield Cell(method, "10 clusters", few, 0.1, make("10 clusters"))


def _of_blocks() -> Iterator[Cell]:
    for together in (False, True):
        how = "together" if together else "apart"
        for world in WEIGHTED:
            yield Cell(f"block_regression, {how}", world, NOMINAL, 0.4, blocks.regression(world, together=together))
            drawn = blocks.schedules(world, together=together)
            yield Cell(f"randomization_inference, blocks {how}", world, CONSERVATIVE, 0.4, drawn)
        for order in (0, 1):
            for world in WEIGHTED:
                name = f"horvitz_thompson, order {order}, {how}"
                yield Cell(name, world, CONSERVATIVE, 0.6, blocks.paths(world, together=together, order=order))
        lagged = blocks.lagged("plain", together=together)
        yield Cell(f"block_regression, hac, arms in runs, {how}", "plain", PUBLISHED, 0.4, lagged)
        share = blocks.share_over("plain", together=together)
        yield Cell(f"share of windows over the limit, {how}", "plain", NOMINAL, 0.05, share)
    few = "24 AR(1) blocks"
    yield Cell("block_regression", few, WARNED, 0.4, blocks.regression(few, together=False))
    yield Cell("randomization_inference, blocks", few, CONSERVATIVE, 0.4, blocks.schedules(few, together=False))
    yield Cell("horvitz_thompson, order 0", few, CONSERVATIVE, 0.4, blocks.paths(few, together=False, order=0))


def figures(method: str, world: str, experiments: int, seed: int) -> dict[str, Any]:
    """What a cell shows, and the CPU seconds it took. Its draws come from the seed and its names."""
    cell = next(c for c in cells() if (c.method, c.world) == (method, world))
    begin = time.process_time()
    own = zlib.crc32(f"{seed} {method} {world}".encode())
    found = measure(World(cell.method, cell.effect, cell.draw), cell.effect, experiments, own)
    return {
        "method": method, "world": world, "experiments": experiments, "seed": seed, "figures": asdict(found),
        "seconds": time.process_time() - begin,
    }  # fmt: skip


def measured(experiments: int, seed: int, workers: int, keep: Path | None) -> list[tuple[Figures, float]]:
    """All cells, in the order of the table."""
    known: dict[tuple[str, str], dict[str, Any]] = {}
    for line in keep.read_text(encoding="utf-8").splitlines() if keep and keep.exists() else ():
        row = json.loads(line)
        names = (row["method"], row["world"])
        if row["seed"] == seed and row["experiments"] >= known.get(names, {"experiments": experiments})["experiments"]:
            known[names] = row
    wanted = [(c.method, c.world) for c in cells()]
    with ProcessPoolExecutor(workers) as pool:
        jobs = [pool.submit(figures, *names, experiments, seed) for names in wanted if names not in known]
        for job in as_completed(jobs):
            row = job.result()
            known[row["method"], row["world"]] = row
            if keep:
                with keep.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
    return [(Figures(**known[names]["figures"]), known[names]["seconds"]) for names in wanted]


def plan() -> str:
    """The promises alone."""
    lines = ["| method | world | promised |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {c.method} | {c.world} | {c.promise} |" for c in cells())]) + "\n"


def table(found: list[Figures]) -> str:
    """Promises and what was measured."""
    lines = [
        "| method | world | promised | coverage, % (± its MC error) | bias / MC error | se / sd | refused, % "
        "| experiments | kept |",
        "|---|---|---|---:|---:|---:|---:|---:|---|",
    ]
    for cell, f in zip(cells(), found, strict=True):
        lines.append(
            f"| {cell.method} | {cell.world} | {cell.promise} "
            f"| {100 * f.coverage:.2f} ({100 * math.sqrt(0.05 * 0.95 / f.experiments):.2f}) | {f.bias_over_error:+.1f} "
            f"| {f.se_over_sd:.3f} | {100 * f.refused:.1f} | {f.experiments:,} | {cell.kept(f)} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Command line: prints the plan, or measures every cell, prints the table and writes the page."""
    parser = argparse.ArgumentParser(description="What every method promises in every world, and what it keeps.")
    parser.add_argument("--experiments", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=40260)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--plan", action="store_true", help="print the promises and measure nothing")
    parser.add_argument("--keep", type=Path, help="rows that are done, to go on from")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.plan:
        text, how = plan(), "Not measured yet."
    else:
        found = measured(args.experiments, args.seed, args.workers, args.keep)
        text = table([f for f, _ in found])
        minutes = sum(seconds for _, seconds in found) / 60
        how = f"The whole took {minutes:.0f} minutes of one core."
    print(text)
    if args.out:
        args.out.write_text(_PAGE.format(how=how, table=text), encoding="utf-8")


_PAGE = """# What every method promises, world by world

The rows were written down before they were measured. {how}
The worlds are the functions of `benchmarks/worlds/`.

```
OMP_NUM_THREADS=1 nice python -m benchmarks.methods_study --experiments 5000 --out docs/methods.md
```

`94–96`: coverage of 95 % intervals, and a bias within Monte Carlo error (3.5 of its errors, over so many rows). `≥ 94`:
conservative by construction. `warned`: theory promises nothing; the memo of such an experiment warns, in at least 90 %
of them. `published`: the method holds in the limit only. `nulls`: every second value, row or unit is null. `weights`:
units, clusters or blocks of very unequal size. `refused`: the method says that it cannot give an interval.
`open`: outside the band by less than three Monte Carlo errors, of fewer than 4,500 experiments.

{table}"""


if __name__ == "__main__":
    main()
