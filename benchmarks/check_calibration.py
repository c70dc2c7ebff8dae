"""How often the checks fail where their assumption holds, and where it is broken by a stated amount.

Run from the root of the repository (about 45 minutes of processor time; writes the table of docs/checks.md):

    OMP_NUM_THREADS=1 POLARS_MAX_THREADS=1 python -m benchmarks.check_calibration --seeds 500 --out docs/checks.md

Every world draws ``--seeds`` small logs, reads them as ``readout run`` does (one pass, then the check), and counts the
check's answers; a log that is refused counts as ``skip``. A world is a check, a log drawn from a seeded generator, and
whether the check's assumption is true in it. ``--simulator N`` adds N logs of the simulated router, whose arms queue at
the same fleets.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml

from benchmarks.worlds import off_policy
from benchmarks.worlds.checks import (
    Log,
    Rng,
    blocks,
    diverged,
    eligible,
    feature,
    flags,
    held,
    log_normal,
    outcomes,
    pool,
    ratio,
    switches,
    tail,
    traffic,
)
from readout import checks, pipeline, spec
from readout.errors import LogError
from readout.results import Check

AS_OF = datetime(2026, 11, 1, tzinfo=UTC)
MARKS = ("<!-- measured -->", "<!-- /measured -->")
HEAD = (
    "| check | world | assumption | fail, % | warn, % | pass, % | skip, % |",
    "|---|---|---|---:|---:|---:|---:|",
)
BY_NAME = {one.__name__: one for one in checks.of("switchback")}


@dataclass(frozen=True)
class World:
    """``draw(rng)`` gives a log; ``holds``: the check's assumption is true in it; ``short``: it is quick, and six
    seeds show what is broken, so that the short test draws it too."""

    check: str
    what: str
    holds: bool
    draw: Callable[[Rng], Log] | off_policy.Policy
    columns: Mapping[str, Any] = field(default_factory=dict)
    design: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    capacity: Mapping[str, Any] | None = None
    short: bool = True


THREE = {"treatment": ["b", "c"], "split": {"a": 0.8, "b": 0.1, "c": 0.1}}
STATE = {"state": ["queue"]}
SWITCHBACK = {"kind": "switchback", "block": "2h"}
X = {"features": ["x"]}
LIMIT = {"load": "load", "limit": 100, "window": "30m", "margin": 0.05}


def worlds() -> list[World]:
    """In the order of the table: every check first where it holds."""
    found = []
    for what, holds, draw, design in (
        ("as configured, 400 units", True, ratio(400, 0.5, 0.5), {}),
        ("as configured, 80:10:10", True, ratio(2000, 0.8, 0.1, 0.1), THREE),
        ("as configured, 15 units", True, ratio(15, 0.5, 0.5), {}),
        ("as configured, 1 % of 300 units", True, ratio(300, 0.99, 0.01), {"split": {"a": 99, "b": 1}}),
        ("58:42 for 50:50, 1,000 units", False, ratio(1000, 0.58, 0.42), {}),
        ("80:13:7 for 80:10:10, 2,000 units", False, ratio(2000, 0.8, 0.13, 0.07), THREE),
        ("6 % of 300 units for 1 %", False, ratio(300, 0.94, 0.06), {"split": {"a": 99, "b": 1}}),
        ("51:49 for 50:50, 100,000 rows", False, ratio(100_000, 0.51, 0.49), {}),
    ):
        found.append(World("srm", what, holds, draw, design=design))
    found += [
        World("eligibility", "the same under both arms, 400 units", True, eligible(0.0)),
        World("eligibility", "10 points less under treatment", False, eligible(0.10)),
        World("treatment_start", "arms change with the block", True, blocks(0), {}, SWITCHBACK),
        World("treatment_start", "arms change 5 minutes late", False, blocks(5), {}, SWITCHBACK),
        World("covariate_balance", "numbers, 400 heavy-tailed units", True, feature("number", 0.0), X),
        World("covariate_balance", "numbers, treated pro users send 3 x the rows", True, feature("number", 0, 3), X),
        World("covariate_balance", "labels, 400 heavy-tailed units", True, feature("label", 0.0), X),
        World("covariate_balance", "labels, treated pro users send 3 x the rows", True, feature("label", 0, 3), X),
        World("covariate_balance", "numbers half a deviation apart", False, feature("number", 0.5), X),
        World("covariate_balance", "labels 25 points apart", False, feature("label", 0.25), X),
        World("execution_divergence", "4 % of treated rows", True, diverged(0.04)),
        World("execution_divergence", "7 % of treated rows", False, diverged(0.07)),
        World("execution_divergence", "23 % of treated rows", False, diverged(0.23)),
        World("fallback", "5 % in both arms, clustered in units", True, flags("fallback", 0.05, 0.0)),
        World("fallback", "3 points more under treatment", False, flags("fallback", 0.05, 0.03)),
        World("timeouts_and_retries", "5 % in both arms, clustered in units", True, flags("timeout", 0.05, 0.0)),
        World("timeouts_and_retries", "3 points more under treatment", False, flags("timeout", 0.05, 0.03)),
        World("tail_dominance", "log-normal, s.d. of the logarithm 0.5", True, tail(0)),
        World("tail_dominance", "log-normal, s.d. of the logarithm 1", True, tail(0, 1.0)),
        World("tail_dominance", "one of 200 units lowered by 60 s.d.", False, tail(35)),
    ]
    for what, holds, units, one in (
        ("log-normal, s.d. of the logarithm 1, 400 units", True, 400, log_normal),
        ("log-normal, the same, 10,000 units", True, 10_000, log_normal),
        ("exponential, 10,000 units", True, 10_000, lambda r, n: r.exponential(size=n)),
        ("normal, 10,000 units", True, 10_000, lambda r, n: r.normal(size=n)),
        ("Pareto of index 2.5, 10,000 units", True, 10_000, lambda r, n: r.pareto(2.5, n)),
        ("Pareto of index 1.5, 10,000 units", False, 10_000, lambda r, n: r.pareto(1.5, n)),
    ):
        found.append(World("tail_dominance", what, holds, outcomes(units, one)))
    washed = {**SWITCHBACK, "washout": "40m"}
    found += [
        World("carryover", "no carryover", True, switches(), {}, SWITCHBACK),
        World("carryover", "no carryover, levels of blocks correlate 0.7", True, switches(memory=0.7), {}, SWITCHBACK),
        World("carryover", "gone before the washout of 40 minutes ends", True, switches(carry=9, fades=8), {}, washed),
        World(
            "carryover",
            "9 % at the start, a third after an hour",
            False,
            switches(carry=9, fades=60),
            {},
            SWITCHBACK,
        ),
        World("carryover", "5 % all through the block", False, switches(carry=5), {}, SWITCHBACK),
        World("block_length", "no carryover", True, switches(), {}, SWITCHBACK),
        World("block_length", "gone after 40 minutes", True, switches(carry=9, fades=8), {}, SWITCHBACK),
        World("block_length", "5 % all through the block", False, switches(carry=5), {}, SWITCHBACK),
        World("block_length", "5 % two blocks on", False, switches(carry=5, back=2), {}, SWITCHBACK),
    ]
    for what, holds, draw in (
        ("4 % of windows over the limit in both arms", True, pool(0.04)),
        ("one block in 200 over it throughout, in both arms", True, pool(0.0, whole=0.005)),
        ("5 points more under treatment, as much as the margin", False, pool(0.04, rise=0.05)),
        ("10 points more under treatment", False, pool(0.04, rise=0.1)),
        ("one block in 200, and one in 20 more under treatment", False, pool(0.0, whole=0.005, whole_treated=0.05)),
    ):
        found.append(World("capacity_limit", what, holds, draw, {}, SWITCHBACK, capacity=LIMIT))
    for what, holds, draw in (
        ("coins over 14 days", True, held(0, 0)),
        ("coins over 7 days", True, held(0, 0, 7)),
        ("treated 70 % by day, 30 % by night", False, held(0.2, 0)),
        ("one arm alone at weekends", False, held(0, 0.5)),
    ):
        found.append(World("block_balance", what, holds, draw, {}, SWITCHBACK))
    wide = {"y": {"column": "y", "role": "primary", "better": "lower", "minimum_effect": "40%"}}
    for what, holds, draw in (
        ("nothing happens", True, traffic()),
        ("the treatment takes 30 % off the treated", True, traffic(effect=-0.3)),
        ("larger sessions are slower", True, traffic(bursts=0.8)),
        ("12 users", True, traffic(people=12)),
        ("30 users, regions keep different hours", True, traffic(people=30, zones=1.0)),
        ("heavy users are slower", True, traffic(slow_heavy=0.5)),
        ("half is ineligible, and slower", True, traffic(ineligible=0.5, bursts=0.5)),
        ("traffic slows everybody alike", True, traffic(load=0.4)),
        ("the policy picks two fast requests a window", True, traffic(picks=2)),
        ("all of it", True, traffic(effect=-0.3, bursts=0.5, zones=0.5, slow_heavy=0.5, ineligible=0.3, load=0.3)),
        ("all neighbours treated: 10 % slower", False, traffic(spill=0.1)),
        ("all neighbours treated: 20 % slower", False, traffic(spill=0.2)),
        ("all neighbours treated: 50 % slower", False, traffic(spill=0.5)),
    ):
        found.append(World("untreated_outcomes", what, holds, draw, STATE, metrics=wide))
    return found + [
        World(check, what, holds, logs, short=short) for check, what, holds, short, logs in off_policy.WORLDS
    ]


def answer(world: World, rng: Rng, folder: Path) -> Check:
    """The check's answer to one log of the world."""
    assert not isinstance(world.draw, off_policy.Policy)
    log = pl.DataFrame(dict(world.draw(rng)))
    if "y" not in log.columns:
        log = log.with_columns(y=pl.Series(rng.normal(size=len(log))))
    log.write_parquet(folder / "log.parquet")
    return BY_NAME[world.check](pipeline.gather(spec.load(folder / "spec.yaml"), AS_OF))


def study(world: World, seeds: int) -> Counter[str]:
    """Answers over so many seeds."""
    if isinstance(world.draw, off_policy.Policy):
        return Counter(off_policy.answers(world.draw, seed)[world.check] for seed in range(seeds))
    arms = {"kind": "user_rct", "control": "a", "treatment": "b"}
    if world.design.get("kind") != "switchback":
        arms["shared_state"] = False
    text = {
        "logs": {"path": "log.parquet", "columns": dict(world.columns)},
        "design": {**arms, **world.design},
        "metrics": dict(world.metrics) or {"y": {"column": "y", "role": "primary", "better": "higher"}},
    }
    if world.capacity is not None:
        text["capacity"] = dict(world.capacity)
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "spec.yaml").write_text(yaml.safe_dump(text), encoding="utf-8")
        for seed in range(seeds):
            try:
                found[answer(world, np.random.default_rng([seed, 11]), folder).status] += 1
            except LogError:  # an arm that nobody was drawn into
                found["skip"] += 1
    return found


def simulator(seeds: int) -> Counter[str]:
    """The simulated router whose workspaces are randomized one by one although they share the fleets."""
    from readout.simulate import simulate

    found: Counter[str] = Counter()
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as name:
            path = simulate("router_rct", Path(name), seed=seed)
            found[checks.untreated_outcomes(pipeline.gather(spec.load(path), AS_OF)).status] += 1
    return found


def row(check: str, what: str, holds: bool, found: Counter[str]) -> str:
    """A line of the table."""
    n = sum(found.values())
    shares = " | ".join(f"{100 * found[status] / n:.3g}" for status in ("fail", "warn", "pass", "skip"))
    return f"| `{check}` | {what} | {'holds' if holds else 'broken'} | {shares} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=500)
    parser.add_argument("--simulator", type=int, default=40)
    parser.add_argument("--only", nargs="+", help="names of checks; of the page, only their rows are replaced")
    parser.add_argument("--out", type=Path, help="a page whose marked table is replaced")
    given = parser.parse_args()
    begin = time.process_time()
    lines: list[str] = []
    print(*HEAD, sep="\n")
    for world in worlds():
        if given.only is None or world.check in given.only:
            lines.append(row(world.check, world.what, world.holds, study(world, given.seeds)))
            print(lines[-1], flush=True)
    if given.simulator and (given.only is None or "untreated_outcomes" in given.only):
        what = f"the simulated router, 120,000 requests ({given.simulator} seeds)"
        lines.append(row("untreated_outcomes", what, False, simulator(given.simulator)))
        print(lines[-1])
    print(f"\n{time.process_time() - begin:.0f} s of processor time")
    if given.out:
        write(given.out, lines, given.only)


def write(path: Path, lines: Sequence[str], only: Sequence[str] | None) -> None:
    """Puts rows into a page's table; with ``only``, rows of other checks stay."""
    page = path.read_text(encoding="utf-8")
    before, rest = page.split(MARKS[0])
    old, after = rest.split(MARKS[1])
    kept = [line for line in old.splitlines() if only and line.startswith("| `") and _check(line) not in only]
    order = list(dict.fromkeys(world.check for world in worlds()))
    table = "\n".join([*HEAD, *sorted([*kept, *lines], key=lambda line: order.index(_check(line)))])
    path.write_text(f"{before}{MARKS[0]}\n\n{table}\n\n{MARKS[1]}{after}", encoding="utf-8")


def _check(line: str) -> str:
    return line.split("`")[1]


if __name__ == "__main__":
    main()
