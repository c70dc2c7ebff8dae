"""Carryover by a warm cache: what is missed without a washout, whether the check finds it, what the washout repairs.

For every seed the world `router_cache` is simulated: a switchback in blocks of two hours whose policy chooses what a
region's prefix store keeps, and the store is written over once in 90 minutes. `readout` reads the log twice: with the
spec as it was written (`washout: 90m`), and with `--set design.washout=0m`. Both intervals for the mean time to first
token are compared with the true total effect, policy *premium* everywhere against policy *current* everywhere, the
store as that policy keeps it.

    python benchmarks/carryover_study.py                # 100 seeds, about 8 minutes of two cores
    python benchmarks/carryover_study.py --seeds 10
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

AS_OF = datetime(2026, 11, 1, tzinfo=UTC)
WASHOUTS = ("0m", "90m")


@dataclass(frozen=True, slots=True)
class Reading:
    """What one washout gives: the truth, the estimate with its interval, the decision and the checks by status."""

    truth: float
    estimate: float
    low: float
    high: float
    action: str
    statuses: dict[str, str]

    @property
    def covered(self) -> bool:
        return self.low <= self.truth <= self.high


def readings(seed: int) -> tuple[Reading, ...]:
    """Simulate a seed, and read it under either washout."""
    from readout import pipeline
    from readout.simulate import simulate

    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spec = simulate("router_cache", folder, seed=seed)
        truth = json.loads((folder / "truth.json").read_text())["global_effect"]["ttft"]["effect"]
        for washout in WASHOUTS:
            readout, _ = pipeline.run(
                spec, overrides=[f"design.washout={washout}"], out=folder / "memos", as_of=AS_OF, figures=False
            )
            ttft = next(m for m in readout.metrics if m.metric == "ttft")
            numbers = [float(x) for x in (ttft.estimate, ttft.ci_low, ttft.ci_high) if x is not None]
            statuses = {c.name: c.status for c in readout.checks}
            found.append(Reading(truth, *numbers, readout.decision.action, statuses))
    return tuple(found)


def report(washout: str, found: Sequence[Reading]) -> str:
    """A row of the table."""
    n = len(found)
    errors = [r.estimate - r.truth for r in found]
    mean = sum(errors) / n
    spread = math.sqrt(sum((e - mean) ** 2 for e in errors) / max(n - 1, 1) / n)
    carryover, length = (
        ", ".join(f"{k} {v}" for k, v in sorted(Counter(r.statuses[name] for r in found).items()))
        for name in ("carryover", "block_length")
    )
    actions = ", ".join(f"{k} {v}" for k, v in Counter(r.action for r in found).most_common())
    return (
        f"| {washout} | {sum(r.covered for r in found)} of {n} | {mean:+.1f} ms ({spread:.1f}) "
        f"| {carryover} | {length} | {actions} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    with ProcessPoolExecutor(given.workers) as pool:
        found = list(pool.map(readings, range(1, given.seeds + 1)))
    truth = sum(r[0].truth for r in found) / len(found)
    print(f"Mean true effect on ttft: {truth:.1f} ms.\n")
    print("| washout | covered | mean error (Monte Carlo error) | carryover | block_length | decisions |")
    print("| --- | ---: | ---: | --- | --- | --- |")
    for i, washout in enumerate(WASHOUTS):
        print(report(washout, [r[i] for r in found]))


if __name__ == "__main__":
    main()
