"""Designs without randomization: do intervals cover where the assumptions hold, and do checks see one that fails?

Two tables. The first holds every method against the truth where all that it assumes is true; what is promised is data
in the worlds' files and was published before the first run (docs/quasi_calibration.md). The second breaks one
assumption at a time, by as much as biases the estimate by one standard error, and counts how often the matching checks
fire there and where the assumption holds. Run from the root of the repository:

    python -m benchmarks.quasi_study --plan                # the promises alone
    python -m benchmarks.quasi_study --pilot               # the sizes of the failures; stand in the worlds' files
    OMP_NUM_THREADS=1 nice python -m benchmarks.quasi_study --experiments 1000 --write docs/quasi_calibration.md

Every row is written as soon as it is measured. ``--only did`` measures the rows of one family (``obs``, ``did``,
``sc``, ``iv``, ``rdd``) or those that a word occurs in. Rows of the first table that lie outside their band are
measured further, up to ``--further`` experiments: the first ones are too few to say of a coverage of 95 % that it lies
within 94 to 96. A test's false alarms likewise.
"""

from __future__ import annotations

import argparse
import math
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.worlds import quasi_cutoffs, quasi_instruments, quasi_observational, quasi_panels
from benchmarks.worlds.quasi import NOMINAL, PUBLISHED, Broken, Design, Reading, Rng
from estimators import EstimationError

SEED = 40410
MARKS = ("calibration", "broken")
FAMILIES = {"obs": quasi_observational, "panel": quasi_panels, "iv": quasi_instruments, "rdd": quasi_cutoffs}
DESIGNS = {row.name: row for world in FAMILIES.values() for row in world.designs()}
BROKEN = {row.name: row for world in FAMILIES.values() for row in world.broken()}
# Multiples of the size of one standard error at which the power is looked at, and experiments for each.
REACH, FOR_POWER, POWER = (1.5, 2.0, 3.0, 4.0, 6.0, 8.0), 300, 0.8
# A bias of this part of a standard error takes half a point off the coverage.
BIASED = 0.2


@dataclass
class Counts:
    """What so many experiments showed."""

    errors: list[float] = field(default_factory=list)
    std_errors: list[float] = field(default_factory=list)
    covered: list[bool] = field(default_factory=list)
    fired: dict[str, list[bool]] = field(default_factory=dict)
    refused: int = 0
    seconds: float = 0.0

    def add(self, other: Counts) -> Counts:
        """This and further experiments."""
        fired = {name: self.fired.get(name, []) + found for name, found in other.fired.items()} or self.fired
        return Counts(
            self.errors + other.errors, self.std_errors + other.std_errors, self.covered + other.covered, fired,
            self.refused + other.refused, self.seconds + other.seconds,
        )  # fmt: skip

    @property
    def n(self) -> int:
        """Experiments that gave an answer."""
        return len(self.covered)

    @property
    def coverage(self) -> float:
        return float(np.mean(self.covered))

    @property
    def bias(self) -> float:
        """Mean error of the estimates over their spread."""
        return float(np.mean(self.errors) / np.std(self.errors))

    @property
    def ratio(self) -> float:
        """Mean standard error over the spread of the estimates."""
        return float(np.mean(self.std_errors) / np.std(self.errors))

    def rate(self, check: str) -> float:
        return float(np.mean(self.fired[check]))


def experiment(name: str, seed: int, i: int) -> Rng:
    """The generator of one experiment: that of its number, whatever else is run."""
    return np.random.default_rng([zlib.crc32(name.encode()), seed, i])


def measure_design(name: str, first: int, last: int, seed: int = SEED) -> Counts:
    """Experiments ``first`` to ``last`` of a row of the first table."""
    row = DESIGNS[name]
    return _measured(lambda rng: (row.draw(rng), {}), name, first, last, seed)


def measure_broken(name: str, size: float, first: int, last: int, seed: int = SEED) -> Counts:
    """Experiments ``first`` to ``last`` of a row of the second table, at a size of the failure."""
    row = BROKEN[name]
    return _measured(lambda rng: row.draw(rng, size), name, first, last, seed)


def _measured(
    draw: Callable[[Rng], tuple[Reading, Mapping[str, bool]]], name: str, first: int, last: int, seed: int
) -> Counts:
    found, begin = Counts(), time.process_time()
    for i in range(first, last):
        try:
            read, fired = draw(experiment(name, seed, i))
        except EstimationError:
            found.refused += 1
            continue
        found.errors.append(read.error)
        found.std_errors.append(read.std_error)
        found.covered.append(read.covered)
        for check, answer in fired.items():
            found.fired.setdefault(check, []).append(bool(answer))
    found.seconds = time.process_time() - begin
    return found


def kept(row: Design, found: Counts) -> str:
    """Whether the promise held: ``yes``, ``no``, ``open`` where the experiments cannot tell, or nothing to hold."""
    if row.promise == PUBLISHED:
        return ""
    beyond = _outside(row, found)
    if row.promise == NOMINAL and abs(found.bias) > BIASED:
        return "**no**"
    if beyond <= 0.0:
        return "yes"
    return "open" if beyond < 2.0 * _error(0.05, found.n) else "**no**"


def _outside(row: Design, found: Counts) -> float:
    """How far the coverage lies outside its band, in percent; 0 or less inside."""
    coverage = 100.0 * found.coverage
    return max(94.0 - coverage, coverage - 96.0 if row.promise == NOMINAL else -1.0)


def _error(share: float, n: int) -> float:
    """Monte Carlo error of a share, in percent."""
    return 100.0 * math.sqrt(share * (1.0 - share) / n)


def study_design(name: str, experiments: int, further: int) -> Counts:
    """A row of the first table; measured on where it lies outside its band."""
    row = DESIGNS[name]
    found = measure_design(name, 0, min(experiments, row.most or experiments))
    if row.promise != PUBLISHED and _outside(row, found) > 0.0 and further > experiments:
        found = found.add(measure_design(name, experiments, further))
    return found


@dataclass
class Seen:
    """A row of the second table: where the assumption holds, where it fails by one standard error, and further."""

    holds: Counts
    fails: Counts
    further: list[Counts]

    def needed(self, check: str) -> str:
        """The bias in standard errors at which the check fires in 80 %, between the sizes looked at."""
        points = [(abs(c.bias), c.rate(check)) for c in (self.holds, self.fails, *self.further)]
        for (b0, p0), (b1, p1) in pairwise(points):
            if p0 < POWER <= p1:
                return f"{b0 + (b1 - b0) * (POWER - p0) / (p1 - p0):.1f}"
        bias, power = points[-1]
        return "always" if self.fails.rate(check) >= POWER else f"not by {bias:.1f} ({100 * power:.0f} %)"


def study_broken(name: str, experiments: int, further: int) -> Seen:
    """A row of the second table; the false alarms of tests are measured on where they lie outside 4 to 6 %."""
    row = BROKEN[name]
    holds = measure_broken(name, row.holds, 0, experiments)
    alarmed = [check for check, level in row.level.items() if abs(100.0 * holds.rate(check) - level) > 1.0]
    if alarmed and further > experiments:
        holds = holds.add(measure_broken(name, row.holds, experiments, further))
    fails = measure_broken(name, row.size, 0, experiments)
    seen = Seen(holds, fails, [])
    for times in REACH:
        last = seen.further[-1] if seen.further else fails
        if all(last.rate(check) >= POWER for check in row.checks) or row.holds:
            break
        seen.further.append(measure_broken(name, times * row.size, 0, min(FOR_POWER, experiments)))
    return seen


def pilot(name: str, experiments: int = 500) -> float:
    """The size of the failure that biases the estimate by one standard error, by secants on the same draws."""
    row = BROKEN[name]
    low, high = row.holds, row.size
    sound = measure_broken(name, low, 0, experiments, SEED + 1)

    def biased(size: float) -> float:
        """What the failure adds to the error on the same draws, over the spread of the estimates."""
        found = measure_broken(name, size, 0, experiments, SEED + 1)
        return abs(float((np.mean(found.errors) - np.mean(sound.errors)) / np.std(found.errors)))

    at_low, at_high = 0.0, biased(high)
    for _ in range(5):
        if abs(at_high - 1.0) < 0.03 or at_high == at_low:
            break
        step = high + (1.0 - at_high) * (high - low) / (at_high - at_low)
        low, at_low, high = high, at_high, min(max(step, high / 3.0), 3.0 * high)
        at_high = biased(high)
    return high


def calibration_table(found: Sequence[tuple[Design, Counts]]) -> str:
    """The first table."""
    lines = [
        "| method | where its assumptions hold | promised | coverage, % (± its MC error) | bias, SE | SE ratio "
        "| refused, % | experiments | kept |",
        "|---|---|---|---:|---:|---:|---:|---:|---|",
    ]
    for row, c in found:
        promise = f"{row.promise}: {row.why}" if row.why else row.promise
        point = f"{c.bias:+.2f} | {c.ratio:.3f}" if math.isfinite(c.errors[0]) else "– | –"
        lines.append(
            f"| {row.method} | {row.world} | {promise} | {100 * c.coverage:.1f} ({_error(0.05, c.n):.1f}) | {point} "
            f"| {100 * c.refused / (c.n + c.refused):.1f} | {c.n + c.refused:,} | {kept(row, c)} |"
        )
    return "\n".join(lines) + "\n"


def broken_table(found: Sequence[tuple[Broken, Seen]]) -> str:
    """The second table."""
    lines = [
        "| assumption that fails | method | bias, SE | coverage, % | check: what counts as fired "
        "| fires where it holds, % | fires where it fails, % | fires in 80 % at a bias of, SE |",
        "|---|---|---:|---:|---|---:|---:|---:|",
    ]
    for row, seen in found:
        for i, (check, criterion) in enumerate(row.checks.items()):
            note = f" ({row.note})" if row.note else ""
            left = (
                f"{row.assumption}{note} | {row.method} | {abs(seen.fails.bias):.2f} | {100 * seen.fails.coverage:.1f}"
                if not i else "″ | | | "
            )  # fmt: skip
            quiet, loud = seen.holds.rate(check), seen.fails.rate(check)
            needed = "–" if row.holds else seen.needed(check)
            lines.append(
                f"| {left} | `{check.split(' ')[0]}`: {criterion} | {_share(quiet, seen.holds.n)} "
                f"| {_share(loud, seen.fails.n)} | {needed} |"
            )
    return "\n".join(lines) + "\n"


def _share(rate: float, n: int) -> str:
    return f"{100 * rate:.1f} ({_error(max(rate, 1.0 / n), n):.1f})"


def plan() -> str:
    """The promises alone."""
    lines = ["| method | where its assumptions hold | promised |", "|---|---|---|"]
    for row in DESIGNS.values():
        lines.append(f"| {row.method} | {row.world} | {row.promise}{': ' * bool(row.why)}{row.why} |")
    return "\n".join(lines) + "\n"


def chosen(names: Sequence[str], only: str | None) -> list[str]:
    """Rows of a family, or those that a word occurs in."""
    if only is None:
        return list(names)
    own = FAMILIES.get("panel" if only in ("did", "sc") else only)
    if own is None:
        return [name for name in names if only in name]
    mine = {row.name for row in (*own.designs(), *own.broken())}
    if only in ("did", "sc"):
        mine = {name for name in mine if name.startswith("synthetic") == (only == "sc")}
    return [name for name in names if name in mine]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, default=1000)
    parser.add_argument("--further", type=int, default=3000)
    parser.add_argument("--only")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--plan", action="store_true")
    parser.add_argument("--pilot", action="store_true")
    parser.add_argument("--write", type=Path, help="the page to write")
    given = parser.parse_args()
    designs, broken = (chosen(list(rows), given.only) for rows in (DESIGNS, BROKEN))
    if given.plan:
        print(plan())
        return
    with ProcessPoolExecutor(given.processes) as pool:
        if given.pilot:
            for name, size in zip(broken, pool.map(pilot, broken), strict=True):
                print(f"{size:10.4g}  (was {BROKEN[name].size:g})  {name}", flush=True)
            return
        jobs: dict[Future[Any], str] = {
            pool.submit(study, name, given.experiments, given.further): name
            for study, names in ((study_broken, broken), (study_design, designs))
            for name in names
        }
        done: dict[str, Any] = {}
        for job in as_completed(jobs):
            done[jobs[job]] = job.result()
            print(f"{len(done)} of {len(jobs)}: {jobs[job]}", flush=True)
            if given.write:
                write(given.write, *tables_of({jobs[job]: job.result()}), part=True)
    own = {name: done[name] for name in (*designs, *broken)}
    tables = tables_of(own)
    seconds = sum(c.seconds for found in own.values() for c in _measurements(found))
    print(*tables, f"{seconds / 60:.1f} minutes of processor time", sep="\n")
    if given.write and given.only is None:
        how = f"{given.experiments:,} experiments a row; {seconds / 60:.0f} minutes of one core.\n"
        write(given.write, tables[0] + "\n" + how, tables[1])


def tables_of(found: Mapping[str, Any]) -> tuple[str, str]:
    """Both tables of the rows that were measured, by name."""
    return (
        calibration_table([(DESIGNS[name], c) for name, c in found.items() if name in DESIGNS]),
        broken_table([(BROKEN[name], seen) for name, seen in found.items() if name in BROKEN]),
    )


def _measurements(found: Counts | Seen) -> Sequence[Counts]:
    return [found] if isinstance(found, Counts) else [found.holds, found.fails, *found.further]


def write(page: Path, *sections: str, part: bool = False) -> None:
    """Puts what was measured between the page's marks; ``part``: in place of the same rows only."""
    text = page.read_text(encoding="utf-8")
    for mark, section in zip(MARKS, sections, strict=True):
        before, rest = text.split(f"<!-- {mark} -->")
        old, after = rest.split(f"<!-- /{mark} -->")
        new = merged(old.strip("\n"), section.strip("\n")) if part else section.strip("\n")
        text = f"{before}<!-- {mark} -->\n\n{new}\n\n<!-- /{mark} -->{after}"
    page.write_text(text, encoding="utf-8")


def merged(old: str, new: str) -> str:
    """A section with the rows of another in place of its own; a row is known by its first two cells."""
    taken = {key: lines for key, lines in _rows(new) if key.startswith("| ")}
    return "\n".join(line for key, lines in _rows(old) for line in taken.get(key, lines))


def _rows(section: str) -> list[tuple[str, list[str]]]:
    """Rows with the lines that go on with ditto marks, and single lines outside the table."""
    found: list[tuple[str, list[str]]] = []
    for i, line in enumerate(section.splitlines()):
        if line.startswith("| ″"):
            found[-1][1].append(line)
        else:
            found.append(("|".join(line.split("|")[:3]) if line.startswith("| ") else f"line {i}", [line]))
    return found


if __name__ == "__main__":
    main()
