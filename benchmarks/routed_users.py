"""Routed users look better because of the queue: what each way of reading the same logs says of the true effect.

For every seed the world `routed_users` is simulated: a live router sends requests to the premium pool the likelier, the
fewer are waiting. `readout` reads the log with the ready spec, which adjusts for the logged state, and in ways that do
not or that adjust for too much; and it reads the log of the same requests without the state. Intervals for the mean
time to first token are held against the true effect of the action on these requests, each in the state that it met.

    python -m benchmarks.routed_users                # 100 seeds, about 10 minutes of two cores
    python -m benchmarks.routed_users --seeds 10
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
REQUESTS = 20_000
LOGGED, UNLOGGED = "routed_users", "routed_users_unlogged"


@dataclass(frozen=True, slots=True)
class Way:
    """A way of reading: what the table calls it, the world, changes of its spec, and the effect that it is after."""

    name: str
    world: str = LOGGED
    changes: tuple[str, ...] = ()
    estimand: str = "ate"


def _adjusting(*names: str) -> tuple[str, ...]:
    return (f"design.adjust=[{', '.join(names)}]",)


WAYS = (
    Way("state logged (the ready spec)"),
    Way("the same, effect on the routed (`estimand: att`)", changes=("design.estimand=att",), estimand="att"),
    Way("state logged and left out of `adjust`", changes=_adjusting("tier", "prompt_tokens", "model")),
    Way("adjusted for the queue after too", changes=_adjusting("tier", "queue_depth", "queue_depth_after")),
    Way("completed requests only (`logs.where`)", changes=("logs.where=completed",)),
    Way("state not logged", UNLOGGED),
)


@dataclass(frozen=True, slots=True)
class Reading:
    """What one way gives of one log: the truth, the estimate with its interval, the decision and its rule's checks."""

    truth: float
    estimate: float
    low: float
    high: float
    action: str
    failed: tuple[str, ...]

    @property
    def covered(self) -> bool:
        return self.low <= self.truth <= self.high


def read(folder: Path, way: Way) -> Reading:
    """One way's reading of a simulated log."""
    from readout import pipeline

    truth = json.loads((folder / "truth.json").read_text())[way.estimand]["ttft"]["effect"]
    readout, _ = pipeline.run(
        folder / "spec.yaml", overrides=way.changes, out=folder / "memos", as_of=AS_OF, figures=False
    )
    ttft = next(m for m in readout.metrics if m.metric == "ttft")
    numbers = [math.nan if x is None else float(x) for x in (ttft.estimate, ttft.ci_low, ttft.ci_high)]
    failed = tuple(c.name for c in readout.checks if c.status == "fail")
    return Reading(truth, *numbers, readout.decision.action, failed)


def readings(seed: int, requests: int = REQUESTS) -> tuple[Reading, ...]:
    """Simulate a seed, and read it in every way."""
    from readout.simulate import simulate

    with tempfile.TemporaryDirectory() as name:
        folders = {world: Path(name) / world for world in (LOGGED, UNLOGGED)}
        for world, folder in folders.items():
            simulate(world, folder, seed=seed, requests=requests)
        return tuple(read(folders[way.world], way) for way in WAYS)


def report(way: Way, found: Sequence[Reading]) -> str:
    """A row of the table."""
    n = len(found)
    errors = [r.estimate - r.truth for r in found]
    mean = sum(errors) / n
    spread = math.sqrt(sum((e - mean) ** 2 for e in errors) / max(n - 1, 1) / n)
    actions = ", ".join(f"{k} {v}" for k, v in Counter(r.action for r in found).most_common())
    failed = ", ".join(f"`{k}` {v}" for k, v in Counter(name for r in found for name in r.failed).most_common())
    return (
        f"| {way.name} | {sum(r.covered for r in found)} of {n} | {mean:+.0f} ms ({spread:.0f}) | {failed or '–'} "
        f"| {actions} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    with ProcessPoolExecutor(given.workers) as pool:
        found = list(pool.map(readings, range(1, given.seeds + 1)))
    for i, estimand in ((0, "ate"), (1, "att")):
        print(f"Mean true effect on ttft ({estimand}): {sum(r[i].truth for r in found) / len(found):+.0f} ms.")
    print("\n| what is read | covered | mean error (Monte Carlo error) | checks that fail | decisions |")
    print("| --- | ---: | ---: | --- | --- |")
    for i, way in enumerate(WAYS):
        print(report(way, [r[i] for r in found]))


if __name__ == "__main__":
    main()
