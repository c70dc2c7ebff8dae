"""Makes the bundled sample logs: ``python -m readout.simulate.samples sample_logs``."""

from __future__ import annotations

import sys
from pathlib import Path

from readout.simulate import simulate

SEEDS = {"router_switchback": 7, "router_rct": 2, "router_rollout": 7, "router_explored": 7}
REQUESTS = 24_000


def write_samples(out: Path) -> None:
    """Write log, truth and spec of every world, named after it, into a folder."""
    for world, seed in SEEDS.items():
        simulate(world, out, seed=seed, requests=REQUESTS, name=world)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m readout.simulate.samples FOLDER")
    write_samples(Path(sys.argv[1]))
