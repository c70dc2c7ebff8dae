"""What `readout attribute` takes, Parquet to Parquet with every column, against one Polars sort of the same rows.

    python -m benchmarks.attribute_command [--rows 1000000] [--batch-size 32]

Prints processor seconds and peak memory of a process of its own for each. Continuous batches, their rows in any order.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import yaml

SORT = "import polars as pl; pl.read_parquet('log.parquet').sort('batch').write_parquet('sorted.parquet')"
COMMAND = "import sys; from cli.main import main; sys.argv = ['readout', 'attribute', 'spec.yaml', '--quiet']; main()"


def write_log(folder: Path, rows: int, batch_size: int) -> None:
    """A log of continuous batches, and a spec."""
    rng = np.random.default_rng(1)
    first, output = rng.integers(0, 300, rows), rng.integers(1, 400, rows)
    pl.DataFrame(
        {
            "request": np.arange(rows), "batch": rng.permutation(rows) // batch_size, "arm": rng.random(rows) < 0.5,
            "prompt": rng.integers(10, 3000, rows), "output": output, "first": first, "last": first + output,
            "grid": rng.uniform(100, 500, rows),
        }
    ).write_parquet(folder / "log.parquet")  # fmt: skip
    columns = {"batch": "batch", "prompt_tokens": "prompt", "output_tokens": "output", "start": "first", "end": "last"}
    spec = {"logs": {"path": "log.parquet"}, "attribution": {"columns": columns, "carbon": {"column": "grid"}}}
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")


def cost(code: str, folder: Path) -> tuple[float, float]:
    """Processor seconds and peak GiB of the largest process so far."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, after.ru_maxrss / 2**20


def main() -> None:
    """Measure both and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--batch-size", type=int, default=32)
    asked = parser.parse_args()
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_log(folder, asked.rows, asked.batch_size)
        sort, memory = cost(SORT, folder)
        ours, peak = cost(COMMAND, folder)
    print(f"{asked.rows:,} requests: sort {sort:.1f} s, {memory:.1f} GiB; attribute {ours:.1f} s, {peak:.1f} GiB")
    print(f"ratio {ours / sort:.1f}, {1e6 * ours / asked.rows:.2f} µs a request")


if __name__ == "__main__":
    main()
