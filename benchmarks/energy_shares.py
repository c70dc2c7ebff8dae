"""Energy attribution of a whole log at once, against the same sums batch by batch and against one sort of the rows.

    python benchmarks/energy_shares.py [--rows 1000000] [--batch-size 32]

All alternatives run in this process on the same arrays; ratios matter, seconds depend on the machine:

- *numpy, batch by batch*: rows grouped by one argsort, then the closed form with numpy on each batch in turn;
- *Polars sort*: the same rows sorted by batch and start step, the least that any method has to do.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attribution.batches import Batches
from attribution.model import JOULES_PER_WH, EnergyModel, load_model
from attribution.shapley import attribute
from attribution.totals import by_label

Log = dict[str, NDArray[np.int64]]


def generate(rows: int, batch_size: int, seed: int = 0) -> Log:
    """Heavy-tailed tokens; the requests of a batch join it over 500 steps; rows in no order."""
    rng = np.random.default_rng(seed)
    output = np.clip(rng.lognormal(5.0, 1.0, rows), 1, 4096).astype(np.int64)
    start = rng.integers(0, 500, rows)
    return {
        "batch": rng.integers(0, max(rows // batch_size, 1), rows),
        "prompt_tokens": np.clip(rng.lognormal(6.5, 1.0, rows), 1, 32_000).astype(np.int64),
        "output_tokens": output,
        "start_step": start,
        "end_step": start + output,
    }


def batch_by_batch(log: Log, model: EnergyModel) -> NDArray[np.float64]:
    """The same shares with a Python loop over batches and numpy inside each."""
    order = np.argsort(log["batch"], kind="stable")
    edges = np.flatnonzero(np.diff(log["batch"][order], prepend=-1, append=-1))
    wh = np.empty(order.size)
    for low, high in pairwise(edges):
        rows = order[low:high]
        start, end = log["start_step"][rows], log["end_step"][rows]
        moments = np.unique(np.concatenate([start, end]))
        opens, closes = np.searchsorted(moments, start), np.searchsorted(moments, end)
        change = np.bincount(opens, minlength=moments.size) - np.bincount(closes, minlength=moments.size)
        active = np.maximum(np.cumsum(change)[:-1], 1)
        elapsed = np.concatenate([[0.0], np.cumsum(np.diff(moments) / active)])
        prompt = log["prompt_tokens"][rows].astype(np.float64)
        wh[rows] = (
            (model.e0_j + model.host_j_per_step) * (elapsed[closes] - elapsed[opens])
            + model.e_tok_j * log["output_tokens"][rows]
            + model.host_j_per_request_step * (end - start)
            + model.prefill_j(prompt)
            + model.prefill_host_j(prompt)
        )
    return wh * model.pue / JOULES_PER_WH


def seconds(work: Callable[[], object], times: int = 5) -> float:
    """Least of a few runs."""
    spent = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        spent.append(time.perf_counter() - began)
    return min(spent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--batch-size", type=int, default=32)
    options = parser.parse_args()
    import polars as pl

    root = Path(__file__).resolve().parents[1]
    model = load_model((root / "configs" / "energy" / "h100_dense_8b.yaml").read_text(encoding="utf-8"))
    log = generate(options.rows, options.batch_size)
    static = {name: log[name] for name in ("batch", "prompt_tokens", "output_tokens")}
    labels = np.random.default_rng(1).integers(0, 2, options.rows)
    frame = pl.DataFrame(log)

    shares = attribute(Batches(**log), model)
    agree = np.max(np.abs(shares.wh / batch_by_batch(log, model) - 1))
    ours = seconds(lambda: attribute(Batches(**log), model))
    figures = {
        "attribute, continuous batches": ours,
        "attribute, static batches": seconds(lambda: attribute(Batches(**static), model)),
        "by_label, two arms": seconds(lambda: by_label(shares, labels)),
        "Polars sort of the same rows": seconds(lambda: frame.sort("batch", "start_step")),
        "numpy, batch by batch": seconds(lambda: batch_by_batch(log, model), times=1),
    }
    tracemalloc.start()
    attribute(Batches(**log), model)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    print(f"{options.rows:,} requests in {shares.n_batches:,} batches, largest {shares.batch_size.max():,}")
    print(f"{'':32}{'s':>8}{'µs/request':>12}{'× ours':>9}")
    for name, spent in figures.items():
        print(f"{name:32}{spent:8.3f}{spent / options.rows * 1e6:12.3f}{spent / ours:9.2f}")
    print(f"ours over one Polars sort: {ours / figures['Polars sort of the same rows']:.2f}")
    print(f"peak memory beyond the log: {peak / options.rows:.0f} bytes a request")
    print(f"largest relative efficiency error: {shares.efficiency_error:.1e}")
    print(f"largest relative difference from batch by batch: {agree:.1e}")


if __name__ == "__main__":
    main()
