"""Off-policy evaluation of many logged requests: time and memory of whole processes, against a bare scan.

    python -m benchmarks.ope_speed [ROWS] [ACTIONS]

Writes a log of ROWS requests (10,000,000) of 100,000 units under ACTIONS actions (10) into a temporary folder, and then
times, each in a process of its own: a bare Polars scan that sums the columns that ips reads; ips and doubly_robust by
`readout run`, without figures; the same sums by numpy, the columns in memory; and the same command on 1,000 requests,
which is what a readout costs at all. Peak memory is the kernel's (ru_maxrss). Prints a table in Markdown, as it stands
in docs/off_policy.md.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

UNITS, CHUNK = 100_000, 1_000_000

SPEC = """\
logs: {{path: {log}, columns: {{unit: u, intended: a, executed: a, propensity: p, state: [q], features: [tier]}}}}
design:
  kind: ope
  target_policy: {{rules: [{{when: "q >= 6", action: a1}}], else: a0}}
  actions: [{actions}]
estimator: {method}
metrics: {{y: {{column: y, role: primary, better: higher}}}}
"""
SCAN = """\
import polars as pl
columns = pl.col("p").sum(), pl.col("y").sum(), pl.col("q").sum(), pl.col("a").len(), pl.col("u").hash(0).max()
print(pl.scan_parquet({log!r}).select(*columns, pl.col("a").hash(0).max().alias("h")).collect(engine="streaming"))
"""
NUMPY = """\
import numpy as np, polars as pl
frame = pl.read_parquet({log!r}, columns=["u", "a", "p", "y", "q"])
unit = frame["u"].cast(pl.Categorical).to_physical().to_numpy()
target = np.where(frame["q"].to_numpy() >= 6, "a1", "a0")
w = (frame["a"].to_numpy() == target) / frame["p"].to_numpy()
y, n = frame["y"].to_numpy(), int(unit.max()) + 1
score, logged, rows = np.bincount(unit, w * y, n), np.bincount(unit, y, n), np.bincount(unit, minlength=n)
gap = (score - score.sum() / rows.sum() * rows) - (logged - logged.sum() / rows.sum() * rows)
print((score.sum() - logged.sum()) / rows.sum(), np.sqrt(n / (n - 1) * (gap @ gap)) / rows.sum())
"""


def write(path: Path, rows: int, actions: int) -> None:
    """The log, in parts so that making it takes little memory."""
    rng = np.random.default_rng(0)
    parts = []
    for start in range(0, rows, CHUNK):
        n = min(CHUNK, rows - start)
        q, a = rng.poisson(6, n), rng.integers(0, actions, n)
        frame = pl.DataFrame(
            {
                "u": pl.Series(rng.integers(0, UNITS, n)).cast(pl.String),
                "a": pl.Series(a).cast(pl.String),
                "p": np.full(n, 1.0 / actions),
                "q": q,
                "tier": pl.Series(rng.integers(0, 3, n)).cast(pl.String),
                "y": 10.0 + 0.3 * q + (a == 1) + rng.normal(0.0, 2.0, n),
            }
        ).with_columns("w" + pl.col("u"), a="a" + pl.col("a"), tier="t" + pl.col("tier"))
        parts.append(path / f"part{start // CHUNK:03d}.parquet")
        frame.write_parquet(parts[-1])


def timed(command: list[str], folder: Path) -> tuple[float, float]:
    """Seconds of wall time and peak MB of a process."""
    code = (
        "import os, resource, subprocess, sys\n"
        "found = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)\n"
        "print(found.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    start = time.perf_counter()
    out = subprocess.run([sys.executable, "-c", code, *command], cwd=folder, capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - start
    status, peak = out.stdout.split()[-2:]
    if status != "0":
        raise SystemExit(f"{' '.join(command)} ended with {status}: {out.stderr[-2000:]}")
    return seconds, int(peak) / 1024


def main() -> None:
    """Writes the log, times, prints the table."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000
    actions = int(sys.argv[2]) if len(sys.argv) > 2 else 10
    os.environ.setdefault("PYTHONPATH", str(Path.cwd()))
    names = ", ".join(f"a{i}" for i in range(actions))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for log, n in (("log", rows), ("few", 1_000)):
            (folder / log).mkdir()
            write(folder / log, n, actions)
        for log in ("log", "few"):
            for method in ("ips", "doubly_robust"):
                text = SPEC.format(log=f"{log}/*.parquet", method=method, actions=names)
                (folder / f"{log}_{method}.yaml").write_text(text, encoding="utf-8")
        python = [sys.executable, "-c"]
        readout = [sys.executable, "-m", "cli.main", "run", "--no-figures", "--quiet", "--out", "out"]
        runs = {
            "bare Polars scan": [*python, SCAN.format(log="log/*.parquet")],
            "numpy, columns in memory (ips)": [*python, NUMPY.format(log="log/*.parquet")],
            "readout run, ips": [*readout, "log_ips.yaml"],
            "readout run, doubly_robust": [*readout, "log_doubly_robust.yaml"],
            "readout run, ips, 1,000 requests": [*readout, "few_ips.yaml"],
        }
        found = {
            title: min((timed(command, folder) for _ in range(2)), key=lambda t: t[0])
            for title, command in runs.items()
        }
    scan = found["bare Polars scan"][0]
    print(f"{rows:,} requests, {actions} actions, {UNITS:,} units; {os.cpu_count()} processors\n")
    print("| what | seconds | times the scan | peak MB |\n| --- | ---: | ---: | ---: |")
    for title, (seconds, peak) in found.items():
        print(f"| {title} | {seconds:.1f} | {seconds / scan:.1f} | {peak:,.0f} |")


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
