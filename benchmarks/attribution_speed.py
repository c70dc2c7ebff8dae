"""Exact energy shares from Parquet to Parquet, game by game, against one sort of the same rows.

    python benchmarks/attribution_speed.py [--rows 1000000] [--batch-size 32] [--repeats 5]

A game reads the columns of the log that it needs, attributes, and writes batch and share of every row. In the same
process and in turn with it stands one Polars sort of the log by batch and start step: in memory, the least that any
method has to do, and from Parquet to Parquet. Least of the repeats; ratios matter, seconds depend on the machine.

The hinge has no closed form. Its price is shown for batches of a size, per request, with its threshold at half of what
a batch holds, where it is dearest, and at a batch that begins to be bound by compute (160 prompt tokens).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from attribution.batches import Batches, resolve
from attribution.game import Game
from attribution.model import load_model
from attribution.shapley import Shares, attribute
from attribution.terms import Fixed, Hinge, Maximum, Own, Padded, Span, Square, Steps, StepTable

COLUMNS = ("batch", "prompt_tokens", "output_tokens", "start_step", "end_step")
GAMES = {
    "additive": Game({"own": Own(output_j=0.07, prompt_j=0.02, prompt_j2=3e-7)}),
    "fixed": Game({"fixed": Fixed(800.0)}),
    "maximum": Game({"maximum": Maximum(0.4, "output")}),
    "padded": Game({"padded": Padded(0.4, "output")}),
    "step count, affine": Game({"steps": Steps(3.16, 0.07)}),
    "step count, table": Game({"steps": StepTable((8, 16, 32, 64), (91.0, 100.7, 116.5, 135.3))}),
    "span": Game({"span": Span(2.5)}),
    "square": Game({"square": Square(1e-3)}),
}


def generate(rows: int, batch_size: int, seed: int = 0) -> pl.DataFrame:
    """Heavy-tailed tokens; the requests of a batch join it over 500 steps; rows in no order."""
    rng = np.random.default_rng(seed)
    output = np.clip(rng.lognormal(5.0, 1.0, rows), 1, 4096).astype(np.int64)
    start = rng.integers(0, 500, rows)
    return pl.DataFrame(
        {
            "batch": rng.integers(0, max(rows // batch_size, 1), rows),
            "prompt_tokens": np.clip(rng.lognormal(6.5, 1.0, rows), 1, 32_000).astype(np.int64),
            "output_tokens": output,
            "start_step": start,
            "end_step": start + output,
        }
    )


def attributed(log: Path, out: Path, game: object) -> Shares:
    """Reads, attributes, writes."""
    frame = pl.read_parquet(log, columns=list(COLUMNS))
    shares = attribute(Batches(**{name: frame[name].to_numpy() for name in COLUMNS}), game)  # type: ignore[arg-type]
    frame.select("batch").with_columns(share_wh=pl.Series(shares.wh)).write_parquet(out)
    return shares


def least(work: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Least seconds of each, all of them run in turn."""
    spent = dict.fromkeys(work, float("inf"))
    for _ in range(repeats):
        for name, run in work.items():
            began = time.perf_counter()
            run()
            spent[name] = min(spent[name], time.perf_counter() - began)
    return spent


def hinge_cost(size: int, seconds: float = 0.5) -> list[str]:
    """Microseconds a request of a hinge over prompts, in batches of a size, at both thresholds."""
    rng = np.random.default_rng(size)
    row = [f"{size:>6,}"]
    for threshold in (None, 160.0):
        batches = 2000 if size <= 14 else max(min(200_000 // size**2, 50), 1)
        prompt = np.clip(rng.lognormal(6.5, 1.0, size * batches), 1, 32_000).astype(np.int64)
        stays = resolve(Batches(np.repeat(np.arange(batches), size), prompt, np.ones(prompt.size)))
        at = float(prompt.sum()) / batches / 2 if threshold is None else threshold
        try:
            began = time.perf_counter()
            Hinge(0.02, at, "prompt").shares(stays)
            row.append(f"{(time.perf_counter() - began) / prompt.size * 1e6:>12,.1f}")
        except ValueError:
            row.append(f"{'refused':>12}")
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    root = Path(__file__).resolve().parents[1]
    model = load_model((root / "configs" / "energy" / "h100_dense_8b.yaml").read_text(encoding="utf-8"))
    frame = generate(options.rows, options.batch_size)

    with tempfile.TemporaryDirectory() as folder:
        log, out = Path(folder) / "log.parquet", Path(folder) / "out.parquet"
        frame.write_parquet(log)
        keys = ["batch", "start_step"]
        work: dict[str, Callable[[], object]] = {
            "one Polars sort, in memory": lambda: frame.sort(keys),
            "one Polars sort, Parquet to Parquet": lambda: pl.read_parquet(log).sort(keys).write_parquet(out),
        }
        every = {**GAMES, "the energy model h100_dense_8b": model}
        work |= {name: lambda game=game: attributed(log, out, game) for name, game in every.items()}
        spent = least(work, options.repeats)
        errors = {name: attributed(log, out, game).efficiency_error for name, game in every.items()}

    sorted_in, sorted_out = list(spent.values())[:2]
    print(f"{options.rows:,} requests in batches of about {options.batch_size}; least of {options.repeats}")
    print(f"{'':38}{'µs/request':>11}{'× sort':>8}{'× sort with files':>19}{'efficiency error':>18}")
    for name, seconds in spent.items():
        error = f"{errors[name]:18.0e}" if name in errors else ""
        per = seconds / options.rows * 1e6
        print(f"{name:38}{per:11.3f}{seconds / sorted_in:8.2f}{seconds / sorted_out:19.2f}{error}")
    print("\nhinge over prompt tokens, µs/request")
    print(f"{'n':>6}{'half the batch':>15}{'160 tokens':>12}")
    for size in (2, 8, 14, 16, 32, 64, 128, 256):
        print("".join(hinge_cost(size)))


if __name__ == "__main__":
    main()
