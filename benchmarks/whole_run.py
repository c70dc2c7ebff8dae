"""Time and memory of a whole `readout run` against the same sums written by hand.

A log of user-level randomized requests is generated (three metrics: a mean, a ratio, a 99th percentile; intended and
executed action), and each of these runs as a process of its own, in turn, cold:

  readout           `readout run spec.yaml` (`--no-figures` as a second row): checks, intervals, decision, memo
  polars            one script with Polars' streaming engine: sums by unit and arm, rows executed otherwise than
                    intended, units by arm, the percentile by arm, and rows below it by unit (without which no
                    interval of the percentile is right where rows cluster in units)
  duckdb            the same in DuckDB's SQL
  polars + imports  the polars script after importing the packages that `readout run --no-figures` imports
  polars + readout  the polars script after importing all that it imports, readout's own modules too

Ratios are of medians over the runs of this call; peak memory is the largest resident set of the process.

    python benchmarks/whole_run.py                 # 10M rows, 10,000 and 1M units, 5 runs each
    python benchmarks/whole_run.py --rows 1000000 --units 10000
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SPEC = """\
version: 1
name: whole-run
logs: {path: log.parquet, columns: {unit: unit, arm: arm, intended: intended, executed: executed}}
design: {kind: user_rct, control: control, treatment: treatment, shared_state: false}
metrics:
  latency: {column: latency, role: primary, better: lower, minimum_effect: 2%}
  cost_per_success: {numerator: cost, denominator: success, role: guardrail, better: lower, margin: 5%}
  latency_p99: {column: latency, quantile: 0.99, role: guardrail, better: lower, margin: 10%}
"""

POLARS = """\
import polars as pl
log = pl.scan_parquet("log.parquet")
cut, by_arm = pl.collect_all([
    log.group_by("arm").agg(pl.col("latency").quantile(0.99).alias("cut")),
    log.group_by("arm").agg(pl.len(), (pl.col("intended") != pl.col("executed")).sum().alias("diverged")),
], engine="streaming")
units = (
    log.join(cut.lazy(), on="arm")
    .group_by("unit", "arm")
    .agg(
        pl.col("latency").sum(), pl.col("latency").count().alias("rows"),
        pl.col("cost").sum(), pl.col("success").sum(),
        (pl.col("latency") <= pl.col("cut")).sum().alias("below"),
    )
    .collect(engine="streaming")
)
print(units.group_by("arm").agg(pl.len(), pl.exclude("unit").sum()), by_arm, cut)
"""

DUCKDB = """\
import duckdb
db = duckdb.connect()
db.sql("create table cut as select arm, quantile_cont(latency, 0.99) as cut from 'log.parquet' group by arm")
db.sql('''create table units as
    select unit, l.arm, sum(latency) as latency, count(latency) as n, sum(cost) as cost, sum(success::int) as success,
           sum((latency <= cut)::int) as below
    from 'log.parquet' l join cut using (arm) group by unit, l.arm''')
print(db.sql("select arm, count(*), sum(latency), sum(cost), sum(success), sum(below) from units group by arm"))
print(db.sql("select arm, count(*), sum((intended <> executed)::int) from 'log.parquet' group by arm"))
"""

IMPORTS = """\
import sys
sys.argv = ["readout", "run", "spec.yaml", "--no-figures", "--quiet"]
import typer, rich.table, rich.panel, pydantic, yaml, numpy, polars, scipy.special
"""


def generate(folder: Path, rows: int, units: int) -> None:
    """A log of `rows` requests by `units` users, about half of them in treatment."""
    import numpy as np
    import polars as pl

    rng = np.random.default_rng(7)
    unit = rng.integers(0, units, rows)
    arm = np.where(rng.random(units) < 0.5, "control", "treatment")[unit]
    frame = pl.DataFrame(
        {
            "unit": unit,
            "arm": arm,
            "latency": rng.lognormal(5, 1, rows),
            "cost": rng.gamma(2, 0.01, rows),
            "success": rng.random(rows) < 0.95,
            "intended": arm,
            "executed": np.where(rng.random(rows) < 0.02, "control", arm),
        }
    )
    frame.with_columns(unit=pl.format("user-{}", "unit")).write_parquet(folder / "log.parquet", row_group_size=500_000)
    (folder / "spec.yaml").write_text(SPEC)


def measure(command: list[str], folder: Path) -> tuple[float, float]:
    """Wall seconds and peak megabytes of one cold process."""
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command} failed:\n{said.decode()}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def study(rows: int, units: int, runs: int) -> None:
    """Print a table of one size."""
    readout = [str(Path(sys.executable).with_name("readout")), "run", "spec.yaml", "--quiet"]
    own = "import cli.main, readout.pipeline, readout.memo.terminal, rich.table, scipy.special\n"
    commands = {
        "readout": readout,
        "readout --no-figures": [*readout, "--no-figures"],
        "polars": [sys.executable, "-c", POLARS],
        "duckdb": [sys.executable, "-c", DUCKDB],
        "polars + imports": [sys.executable, "-c", IMPORTS + POLARS],
        "polars + readout": [sys.executable, "-c", own + POLARS],
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # In a process of its own: a child's peak memory is at least its parent's at the fork.
        subprocess.run([sys.executable, __file__, "--generate", name, str(rows), str(units)], check=True)
        taken: dict[str, list[tuple[float, float]]] = {label: [] for label in commands}
        for turn in range(runs + 1):
            for label, command in commands.items():
                result = measure(command, folder)
                if turn:  # the first turn warms the file cache
                    taken[label].append(result)
    median = {label: statistics.median(t for t, _ in results) for label, results in taken.items()}
    print(f"\n{rows:,} rows, {units:,} units, median of {runs} runs\n")
    bases = ("polars", "duckdb", "polars + imports", "polars + readout")
    print("| process | seconds | min–max | peak MB | " + " | ".join(f"/ {base}" for base in bases) + " |")
    print("| --- |" + " ---: |" * (3 + len(bases)))
    for label, results in taken.items():
        seconds = [t for t, _ in results]
        ratios = " | ".join(f"{median[label] / median[base]:.2f}" for base in bases)
        peak = max(mb for _, mb in results)
        print(f"| {label} | {median[label]:.2f} | {min(seconds):.2f}–{max(seconds):.2f} | {peak:.0f} | {ratios} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--units", type=int, nargs="*", default=[10_000, 1_000_000])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--generate", nargs=3, metavar=("FOLDER", "ROWS", "UNITS"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.generate:
        folder, n, m = given.generate
        generate(Path(folder), int(n), int(m))
        return
    for units in given.units:
        study(given.rows, units, given.runs)


if __name__ == "__main__":
    main()
