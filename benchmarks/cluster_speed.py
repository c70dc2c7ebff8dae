"""Cluster-robust errors of a cluster-randomized experiment: readout against cluster-experiments, in one process.

A log of 1,000,000 rows in 2,000 clusters is generated, with three metrics (a mean, a skewed mean, a share). Both sides
give, for every metric, the effect, its CR1 standard error (``variance: CR1``; statsmodels' ``cov_type="cluster"`` in
``ClusteredOLSAnalysis``), p-value and interval; the script stops where a standard error differs by more than 1e-6 of
itself. Timed, in turn, after a round that is not counted; medians:

  estimates     readout: `cluster_robust` from the sums by cluster; cluster-experiments: its call on the frame in memory
  frame         readout: sums by cluster of a Polars frame in memory, then the estimates; theirs as before
  file          readout: spec and Parquet file to the estimates, every table that its checks need included;
                cluster-experiments: pandas reads the four or five columns that the call needs, then the call
  run           readout: `pipeline.run`, checks, decision and memo written; theirs as in `file`

    pip install policy-readout cluster-experiments      # or the dependency group "benchmarks"
    OMP_NUM_THREADS=1 python benchmarks/cluster_speed.py
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

METRICS = ("latency", "cost", "success")
SPEC = """\
version: 1
name: cluster-speed
logs: {path: log.parquet, columns: {cluster: region, arm: arm}}
design: {kind: cluster_rct, control: control, treatment: treatment, shared_state: false}
estimator: {method: cluster_robust, variance: CR1}
metrics:
  latency: {column: latency, role: primary, better: lower, minimum_effect: 2%}
  cost: {column: cost, role: secondary, better: lower}
  success: {column: success, role: secondary, better: higher}
"""

Found = dict[str, tuple[float, float]]  # metric: estimate, standard error


def generate(folder: Path, rows: int, clusters: int) -> None:
    """The log and the spec."""
    import polars as pl

    rng = np.random.default_rng(11)
    size = rng.dirichlet(np.full(clusters, 4.0))
    cluster = np.sort(rng.choice(clusters, size=rows, p=size))
    treated = rng.permutation(np.arange(clusters) % 2 == 0)[cluster]
    shared = rng.normal(0.0, 0.2, clusters)[cluster]
    mixed = rng.permutation(rows)
    frame = pl.DataFrame(
        {
            "region": cluster[mixed],
            "arm": np.where(treated, "treatment", "control")[mixed],
            "latency": (200.0 + 20.0 * shared - 2.0 * treated + 30.0 * rng.normal(size=rows))[mixed],
            "cost": (np.exp(shared) * rng.gamma(2.0, 0.01, rows))[mixed],
            "success": (rng.random(rows) < 0.95 + 0.02 * np.tanh(shared))[mixed],
        }
    )
    frame.with_columns(region=pl.format("region-{}", "region")).write_parquet(folder / "log.parquet")
    (folder / "spec.yaml").write_text(SPEC)


def theirs(frame: Any) -> Found:
    """cluster-experiments on a pandas frame: one call a metric."""
    from cluster_experiments import ClusteredOLSAnalysis

    found = {}
    for metric in METRICS:
        analysis = ClusteredOLSAnalysis(
            cluster_cols=["region"], target_col=metric, treatment_col="arm", treatment="treatment"
        )
        result = analysis.get_inference_results(frame, alpha=0.05)
        found[metric] = (float(result.ate), float(result.std_error))
    return found


def from_sums(sums: Any) -> Found:
    """`cluster_robust` on a Polars frame of sums by cluster and arm."""
    from estimators.cluster_means import Clusters
    from estimators.cluster_robust import cluster_robust

    arm = (sums["arm"] == "treatment").to_numpy()
    n = sums["n"].to_numpy()
    found = {}
    for metric in METRICS:
        e = cluster_robust(Clusters(sums[metric].to_numpy(), n, arm.astype(int)), variance="CR1")
        found[metric] = (e.estimate, e.std_error)
    return found


def sums_of(frame: Any) -> Any:
    """Sums by cluster and arm of a Polars frame."""
    import polars as pl

    return frame.group_by("region", "arm").agg(pl.len().alias("n"), pl.col(METRICS).sum()).sort("region")


def from_file(spec_path: Path) -> Found:
    """The way of `readout run` up to the estimates."""
    from datetime import UTC, datetime

    from readout import pipeline
    from readout.spec import load

    evidence = pipeline.gather(load(spec_path), datetime(2026, 11, 1, tzinfo=UTC))
    found = {}
    for metric in METRICS:
        e = evidence.sample.effect(evidence.terms[metric], 1, 0.05)
        found[metric] = (e.estimate, e.std_error)
    return found


def whole_run(spec_path: Path) -> Found:
    """`readout run` in this process, its memo written."""
    from readout import pipeline

    readout, _ = pipeline.run(spec_path, out=spec_path.parent / "memos", figures=False)
    return {m.metric: (float(m.estimate or 0.0), float(m.std_error or 0.0)) for m in readout.metrics}


def agree(ours: Found, other: Found) -> float:
    """Largest relative difference of a standard error.

    Raises:
        SystemExit: Estimates or standard errors differ by more than 1e-6.
    """
    worst = 0.0
    for metric in METRICS:
        for mine, yours in zip(ours[metric], other[metric], strict=True):
            gap = abs(mine - yours) / other[metric][1]
            if not gap <= 1e-6:
                raise SystemExit(f"{metric}: {ours[metric]} against {other[metric]}")
        worst = max(worst, abs(ours[metric][1] / other[metric][1] - 1.0))
    return worst


def study(rows: int, clusters: int, runs: int) -> None:
    """Print the table."""
    import pandas as pd
    import polars as pl

    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate(folder, rows, clusters)
        spec, log = folder / "spec.yaml", folder / "log.parquet"
        columns = ["region", "arm", *METRICS]

        def read() -> Any:
            return pd.read_parquet(log, columns=columns).astype({"success": int})

        frame, pandas = pl.read_parquet(log), read()
        sums = sums_of(frame)
        calls: dict[str, tuple[Callable[[], Found], str]] = {
            "estimates": (lambda: from_sums(sums), "frame"),
            "frame": (lambda: from_sums(sums_of(frame)), "frame"),
            "file": (lambda: from_file(spec), "file"),
            "run": (lambda: whole_run(spec), "file"),
        }
        other = {"frame": lambda: theirs(pandas), "file": lambda: theirs(read())}
        reference, worst = theirs(pandas), 0.0
        order = [(f"their {k}", c) for k, c in other.items()] + [(k, c) for k, (c, _) in calls.items()]
        seconds: dict[str, list[float]] = {}
        for turn in range(runs + 1):
            for label, call in order:
                begin = time.perf_counter()
                found = call()
                if turn:
                    seconds.setdefault(label, []).append(time.perf_counter() - begin)
                worst = max(worst, agree(found, reference))
    packages = ", ".join(f"{p} {version(p)}" for p in ("cluster-experiments", "statsmodels", "pandas", "polars"))
    print(f"{rows:,} rows, {clusters:,} clusters, {len(METRICS)} metrics; medians of {runs} runs; {packages}.")
    print(f"Standard errors agree to {worst:.0e} of themselves.\n")
    print("| from | readout, s | cluster-experiments, s | times faster |\n| --- | ---: | ---: | ---: |")
    for label, (_, base) in calls.items():
        mine, yours = (statistics.median(seconds[k]) for k in (label, f"their {base}"))
        print(f"| {label} | {mine:.4f} | {yours:.2f} | {yours / mine:,.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--clusters", type=int, default=2_000)
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    study(given.rows, given.clusters, given.runs)


if __name__ == "__main__":
    main()
