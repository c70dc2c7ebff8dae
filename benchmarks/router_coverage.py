"""Does the switchback's interval cover the truth on a real arrival process, and what does a unit-level RCT say there?

For every seed, a world of two fleets is simulated on a real trace tiled to 14 days, under the current router, under
the new one, and under a switchback between them; `readout` reads the switchback's log and its interval for the primary
metric is compared with the true global effect. The same is done with an experiment that randomizes workspaces on the
same shared fleets: its interval is naive, and the decision has to be `stronger_design`.

    python benchmarks/router_coverage.py --trace TRACE.parquet            # 100 seeds, about 20 minutes of two cores
    python benchmarks/router_coverage.py --trace TRACE.parquet --seeds 10
    python benchmarks/router_coverage.py --seeds 10                       # the simulator's own arrivals
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

AS_OF = datetime(2026, 11, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One seed and world: the truth, the estimate with its interval, the decision and the checks that failed."""

    seed: int
    world: str
    truth: float
    estimate: float
    low: float
    high: float
    action: str
    failed: tuple[str, ...]

    @property
    def covered(self) -> bool:
        return self.low <= self.truth <= self.high


def outcome(world: str, seed: int, trace: Path | None, requests: int | None) -> Outcome:
    """Simulate, read, compare: effects relative to control, of the metric `ttft`."""
    from readout import pipeline
    from readout.simulate import simulate

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spec = simulate(world, folder, seed=seed, trace=trace, requests=requests)
        readout, _ = pipeline.run(spec, out=folder / "memos", as_of=AS_OF, figures=False)
        truth = json.loads((folder / "truth.json").read_text())
    ttft = next(m for m in readout.metrics if m.metric == "ttft")
    of = "global_effect_eligible" if world == "router_rct" else "global_effect"
    failed = tuple(c.name for c in readout.checks if c.status == "fail")
    effect = truth[of]["ttft"]["effect"]
    numbers = [float(x) for x in (ttft.estimate, ttft.ci_low, ttft.ci_high) if x is not None]
    return Outcome(seed, world, effect, *numbers, readout.decision.action, failed)


def report(outcomes: list[Outcome], show: int = 5) -> None:
    """Coverage, bias, decisions, and the first seeds one by one."""
    world = outcomes[0].world
    n = len(outcomes)
    covered = sum(o.covered for o in outcomes)
    errors = [o.estimate - o.truth for o in outcomes]
    bias = sum(errors) / n
    spread = math.sqrt(sum((e - bias) ** 2 for e in errors) / max(n - 1, 1))
    truth = sum(o.truth for o in outcomes) / n
    print(f"\n## {world}: {covered} of {n} intervals cover the truth\n")
    print(f"Mean truth {truth:.1f} ms; mean error {bias:+.1f} ms (Monte Carlo error {spread / math.sqrt(n):.1f}).")
    print(f"Decisions: {dict(Counter(o.action for o in outcomes))}.")
    print(f"Failed checks: {dict(Counter(name for o in outcomes for name in o.failed)) or 'none'}.\n")
    print("| seed | truth, ms | estimate [interval] | covers | decision |\n| ---: | ---: | --- | --- | --- |")
    for o in outcomes[:show]:
        interval = f"{o.estimate:.1f} [{o.low:.1f}, {o.high:.1f}]"
        print(f"| {o.seed} | {o.truth:.1f} | {interval} | {'yes' if o.covered else 'no'} | {o.action} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trace", type=Path)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--requests", type=int)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    with ProcessPoolExecutor(given.workers) as pool:
        for world in ("router_switchback", "router_rct"):
            jobs = [pool.submit(outcome, world, s, given.trace, given.requests) for s in range(1, given.seeds + 1)]
            report([job.result() for job in jobs])


if __name__ == "__main__":
    main()
