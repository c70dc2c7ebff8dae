"""Off-policy values: do intervals cover, and does the bound hold, with 2, 10 and 80 actions?

What is promised is data at the top of this file. Run from the root of the repository:

    OMP_NUM_THREADS=1 nice python -m benchmarks.ope_coverage --experiments 1000 --write docs/off_policy.md
    OMP_NUM_THREADS=1 nice python -m benchmarks.ope_coverage --only thin        # rows whose world has the word in it

In every world a request has two features. The logging policy takes its favourite, which hangs on the first, half of the
time and any action otherwise; the target takes the same favourite in half of the requests, by the second, and the next
action in the others. Rewards are linear in the features by action, with normal noise, or clicks whose chance is not.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from estimators import Estimate, EstimationError, direct_method, doubly_robust, ips, snips, value_bound

Rng = np.random.Generator
Vector = NDArray[np.float64]
Codes = NDArray[np.int64]
MARK, SEED, EXPLORE, ALPHA = "coverage", 50505, 0.5, 0.05
TRUTH_DRAWS, CHUNK = 400_000, 20_000
NOMINAL, PUBLISHED = "94–96", "published"


@dataclass(frozen=True)
class World:
    """Logs of one kind.

    Attributes:
        name: What they are.
        actions: How many.
        units, rows: Units, and rows of each; rows of a unit share an effect on the reward where they are several.
        clicks: Whether rewards are 0 or 1, with a chance that is not linear in the features.
        why: Why nothing is promised of a method; empty: 94 to 96.
    """

    name: str
    actions: int
    units: int
    rows: int = 1
    clicks: bool = False
    why: dict[str, str] = field(default_factory=dict)


ALONE = {"direct_method": "the model is wrong, and nothing corrects it"}
BENT = ALONE | {"doubly_robust, clip 5": "the model is wrong, and cut weights correct it in part"}
THIN = dict.fromkeys(("ips", "snips", "doubly_robust"), "a dozen tries carry half of the target's value")
WORLDS = (
    World("2 actions, 1,000 rows, linear rewards", 2, 1000),
    World("10 actions, 2,000 rows, linear rewards", 10, 2000),
    World("80 actions, 20,000 rows, linear rewards", 80, 20_000),
    World("10 actions, 600 units of 4 rows, linear rewards", 10, 600, rows=4),
    World("2 actions, 1,000 rows, clicks", 2, 1000, clicks=True, why=ALONE),
    World("10 actions, 2,000 rows, clicks", 10, 2000, clicks=True, why=BENT),
    World("80 actions, 20,000 rows, clicks", 80, 20_000, clicks=True, why=BENT),
    World("80 actions, 4,000 rows (thin), clicks", 80, 4000, clicks=True, why=BENT | THIN),
)


@dataclass(frozen=True, eq=False)
class Logs:
    """One draw."""

    x: Vector
    action: Codes
    target: Codes
    weight: Vector
    reward: Vector
    units: Codes


def expected(world: World, x: Vector) -> Vector:
    """``(n, actions)`` mean rewards."""
    slope = np.random.default_rng(77).normal(size=(world.actions, 2))
    index = x @ slope.T
    if world.clicks:
        return np.asarray(1.0 / (1.0 + np.exp(1.0 - index - 0.5 * (x[:, 1:] ** 2 - 1.0))))
    return np.asarray(3.0 + 0.5 * index)


def choices(world: World, x: Vector) -> tuple[Codes, Codes]:
    """The logging policy's favourite, and the target's action."""
    from scipy.special import ndtr

    favourite = np.minimum((world.actions * ndtr(x[:, 0])).astype(np.int64), world.actions - 1)
    return favourite, np.where(x[:, 1] > 0.0, (favourite + 1) % world.actions, favourite)


def draw(world: World, rng: Rng) -> Logs:
    """Logs of a world."""
    n, each = world.units * world.rows, np.arange(world.units * world.rows)
    x = rng.normal(size=(n, 2))
    favourite, target = choices(world, x)
    action = np.where(rng.random(n) < EXPLORE, rng.integers(0, world.actions, n), favourite)
    p = EXPLORE / world.actions + (1.0 - EXPLORE) * (action == favourite)
    mean = expected(world, x)[each, action]
    units = each // world.rows
    if world.clicks:
        reward = (rng.random(n) < mean).astype(np.float64)
    else:
        shared = rng.normal(size=world.units)[units] if world.rows > 1 else 0.0
        reward = mean + shared + rng.normal(size=n)
    return Logs(x, action, target, (action == target) / p, reward, units)


def truth(world: World) -> tuple[float, float]:
    """Values of the logging policy and of the target."""
    rng, sums = np.random.default_rng(SEED), np.zeros(2)
    for _ in range(TRUTH_DRAWS // CHUNK):
        x = rng.normal(size=(CHUNK, 2))
        mean, (favourite, target), each = expected(world, x), choices(world, x), np.arange(CHUNK)
        logging = EXPLORE * mean.mean(axis=1) + (1.0 - EXPLORE) * mean[each, favourite]
        sums += logging.mean(), mean[each, target].mean()
    return float(sums[0] / (TRUTH_DRAWS // CHUNK)), float(sums[1] / (TRUTH_DRAWS // CHUNK))


def estimates(world: World, logs: Logs) -> Iterator[tuple[str, Estimate | None]]:
    """Every method's reading of one draw; None where it is refused."""
    units = logs.units if world.rows > 1 else None
    names = tuple(str(a) for a in range(world.actions))
    more = {"features": logs.x, "action": logs.action, "target": logs.target, "actions": names, "units": units}
    readings: dict[str, Callable[[], Estimate]] = {
        "ips": lambda: ips(logs.reward, logs.weight, units=units),
        "snips": lambda: snips(logs.reward, logs.weight, units=units),
        "direct_method": lambda: direct_method(logs.reward, **more),
        "doubly_robust": lambda: doubly_robust(logs.reward, logs.weight, **more),
        "doubly_robust, clip 5": lambda: doubly_robust(logs.reward, logs.weight, clip=5.0, **more),
    }
    for name, reading in readings.items():
        try:
            yield name, reading()
        except EstimationError:
            yield name, None


@dataclass
class Counts:
    """What so many experiments showed of one method in one world."""

    errors: list[float] = field(default_factory=list)
    std_errors: list[float] = field(default_factory=list)
    covered: list[bool] = field(default_factory=list)
    value_covered: list[bool] = field(default_factory=list)
    refused: int = 0


@dataclass
class Bounds:
    """Lower bounds of the target's value: by betting, normal, and empirical Bernstein on weights capped at 10."""

    betting: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    normal: list[float] = field(default_factory=list)
    bernstein: list[float] = field(default_factory=list)


def study(world: World, experiments: int) -> tuple[dict[str, Counts], Bounds]:
    """Draws and reads ``experiments`` logs."""
    logging, target = truth(world)
    found: dict[str, Counts] = {}
    bounds = Bounds()
    seed = sum(map(ord, world.name))
    for i in range(experiments):
        logs = draw(world, np.random.default_rng((SEED, seed, i)))
        for name, e in estimates(world, logs):
            mine = found.setdefault(name, Counts())
            if e is None:
                mine.refused += 1
                continue
            value = e.diagnostics["values"]["target"]
            mine.errors.append(e.estimate - (target - logging))
            mine.std_errors.append(e.std_error)
            mine.covered.append(e.ci_low <= target - logging <= e.ci_high)
            mine.value_covered.append(value["ci_low"] <= target <= value["ci_high"])
        if world.clicks:
            _bounds(logs, bounds)
    return found, bounds


def _bounds(logs: Logs, bounds: Bounds) -> None:
    n, score = len(logs.reward), logs.weight * logs.reward
    found = value_bound(score, np.ones(n), weights=logs.weight, most_reward=1.0, alpha=ALPHA)
    bounds.betting.append(found.lower)
    bounds.upper.append(found.upper if found.upper is not None else math.nan)
    bounds.normal.append(float(score.mean() - 1.645 * score.std(ddof=1) / math.sqrt(n)))
    cut, log = np.minimum(logs.weight, 10.0) * logs.reward, math.log(2.0 / ALPHA)
    width = math.sqrt(2.0 * float(cut.var(ddof=1)) * log / n) + 7.0 * 10.0 * log / (3.0 * (n - 1))
    bounds.bernstein.append(max(0.0, float(cut.mean()) - width))


def coverage_rows(world: World, found: dict[str, Counts]) -> Iterator[str]:
    """Rows of the first table."""
    for method, counts in found.items():
        n, why = len(counts.errors), world.why.get(method)
        if not n:
            yield f"| {method} | {world.name} | – | – | – | – | – | 100.0 | 0 |  |"
            continue
        share, errors = float(np.mean(counts.covered)), np.array(counts.errors)
        spread, noise = float(errors.std(ddof=1)), math.sqrt(max(share * (1.0 - share), 1e-4) / n)
        bias, ratio = float(errors.mean()) / spread, float(np.mean(counts.std_errors)) / spread
        outside = max(0.94 - share, share - 0.96, 0.0)
        kept = "" if why else "yes" if not outside and abs(bias) <= 0.2 else "open" if outside < 2 * noise else "**no**"
        yield (
            f"| {method} | {world.name} | {f'{PUBLISHED}: {why}' if why else NOMINAL} "
            f"| {100 * share:.1f} ({100 * noise:.1f}) | {100 * float(np.mean(counts.value_covered)):.1f} "
            f"| {bias:+.2f} | {ratio:.3f} | {100 * counts.refused / (n + counts.refused):.1f} | {n} | {kept} |"
        )


def bound_row(world: World, bounds: Bounds) -> str:
    """A row of the second table."""
    target = truth(world)[1]

    def share(holds: NDArray[np.bool_]) -> str:
        return f"{100 * float(holds.mean()):.1f}"

    lower, upper, normal, bernstein = map(np.array, (bounds.betting, bounds.upper, bounds.normal, bounds.bernstein))
    kept = "yes" if min(float((lower <= target).mean()), float((upper >= target).mean())) >= 0.95 else "**no**"
    return (
        f"| {world.name} | {target:.3f} | {share(lower <= target)} | {lower.mean():.3f} | {share(upper >= target)} "
        f"| {upper.mean():.3f} | {share(normal <= target)} | {normal.mean():.3f} | {share(bernstein <= target)} "
        f"| {bernstein.mean():.3f} | {len(lower)} | {kept} |"
    )


def tables(worlds: Sequence[World], experiments: int) -> str:
    """Both tables in Markdown."""
    first, second = [], []
    for world in worlds:
        found, bounds = study(world, experiments)
        first += coverage_rows(world, found)
        if bounds.betting:
            second.append(bound_row(world, bounds))
        print("\n".join([*first[-len(found) :], *second[-1:]]), flush=True)
    head = (
        "| method | logs | promised | coverage, % (± its MC error) | of the target's value, % | bias, SE | SE ratio "
        "| refused, % | experiments | kept |\n|---|---|---|---:|---:|---:|---:|---:|---:|---|"
    )
    bound = (
        "| logs | value | betting holds, % | its mean | from above holds, % | its mean | normal holds, % | its mean "
        "| Bernstein, weights capped at 10, holds, % | its mean | experiments | kept |\n"
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|"
    )
    return (
        "\n".join([head, *first])
        + "\n\nOne-sided bounds at 95 % of the target's value:\n\n"
        + "\n".join([bound, *second])
    )


PAGE = """# Off-policy evaluation

## Coverage

Do the intervals of the four methods hold the true difference of the two policies' values, and does the bound of the
target's value hold? Logs of `benchmarks/ope_coverage.py` answer, whose truth is known. The promises stand at its top.
`94–96`: coverage of 95 % intervals, and a bias of at most a fifth of a standard error. `published`: theory promises
nothing there, for the reason given. `open`: outside by less than two Monte Carlo errors. `refused`: the method says
that it can give no estimate. Bounds are promised to hold in at least 95 % of the logs.

```
OMP_NUM_THREADS=1 nice python -m benchmarks.ope_coverage --experiments 1000 --write docs/off_policy.md
```

<!-- coverage -->

<!-- /coverage -->
"""


def write(page: Path, table: str) -> None:
    """Puts the tables between the page's marks; makes the page where there is none."""
    text = page.read_text(encoding="utf-8") if page.exists() else PAGE
    start, end = f"<!-- {MARK} -->", f"<!-- /{MARK} -->"
    before, rest = text.split(start, 1)
    page.write_text(before + start + "\n\n" + table + "\n\n" + end + rest.split(end, 1)[1], encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, default=1000)
    parser.add_argument("--only", help="worlds with this word in their name; nothing is written")
    parser.add_argument("--write", type=Path, help="the page to write")
    given = parser.parse_args()
    worlds = [world for world in WORLDS if given.only is None or given.only in world.name]
    table = tables(worlds, given.experiments)
    if given.write and given.only is None:
        write(given.write, table)


if __name__ == "__main__":
    main()
