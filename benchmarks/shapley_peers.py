"""Sampled Shapley values against shapiq, shap and plain permutation sampling, at equal evaluations of the game.

Batches of 32 requests of every kind of `benchmarks/worlds/energy_games.py`. Run from the root of the repository, with
the dependency group `benchmarks` installed; what a missing package measures is left out and said:

    OMP_NUM_THREADS=1 nice python -m benchmarks.shapley_peers --traces DIR --write docs/attribution.md

`--samples` is the number of orders that readout draws; all others may ask the game as often as it did. The games with
a closed form are in the span of readout's control games, so it finds them exactly: what it does without knowing the
game shows where requests are re-scheduled, and in the row without the log's control games. The truth of re-scheduled
games is a run of readout of 16,000 orders, whose own error the last lines give, beside its largest distance, in
standard errors, from a run of plain permutation sampling as long.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attribution.controls import Control, controls_of
from attribution.permutations import Estimate, estimate
from attribution.sampling import suggested
from benchmarks.worlds.energy_games import KINDS, Batch, N, batches

Floats = NDArray[np.float64]
Masks = NDArray[np.bool_]
Method = Callable[[Callable[[Masks], Floats], Batch, int, int], Floats]
SLOW = ("StratifiedSamplingSV", "OwenSamplingSV")  # run once a kind
MARK, LONG = "peers", 16_000


@dataclass
class Counted:
    """A game that counts how often it is asked."""

    worth: Callable[[Masks], Floats]
    asked: int = 0

    def __call__(self, coalitions: Any) -> Floats:
        masks = np.atleast_2d(np.asarray(coalitions, dtype=bool))
        self.asked += len(masks)
        return self.worth(masks)


@dataclass
class Cell:
    """Runs of one method on one kind of batch: errors relative to each request's own share, seconds, evaluations."""

    mean: list[float] = field(default_factory=list)
    worst: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    covered: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)

    def add(self, found: Floats, truth: Floats, seconds: float, asked: int) -> None:
        """One run."""
        error = np.abs(found - truth)
        self.mean.append(float((error / truth).mean()))
        self.worst.append(float((error / truth).max()))
        self.beside.append(float(error.mean() / truth.mean()))
        self.seconds.append(seconds)
        self.asked.append(asked)


def ours(batch: Batch, worth: Callable[[Masks], Floats], samples: int, seed: int, *, log: bool = True) -> Estimate:
    """readout's estimate with exactly so many orders."""
    columns = {name: column for name, column in batch.columns.items() if name != "arrival_step"}

    def without_log(alone: Floats, marginal: Floats) -> list[Control]:
        return controls_of(N, {"alone": np.maximum(alone, 0.0)}, None, None)

    suggest = suggested(columns) if log else without_log
    rng = np.random.default_rng(seed)
    return estimate(worth, N, suggest, samples=samples, tolerance=1e-9, cap=samples, rng=rng, exact=False)


def plain(worth: Callable[[Masks], Floats], batch: Batch, budget: int, seed: int) -> Floats:
    """Permutation sampling as the source method has it: marginal contributions, averaged over random orders."""
    return plain_orders(worth, max((budget - 1) // (N - 1), 1), seed).mean(axis=0)


def plain_orders(worth: Callable[[Masks], Floats], orders: int, seed: int) -> Floats:
    """(orders, n) Marginal contributions."""
    rng = np.random.default_rng(seed)
    place = rng.permuted(np.tile(np.arange(N), (orders, 1)), axis=1)
    total = float(worth(np.ones((1, N), dtype=bool))[0])
    value = np.zeros((orders, N + 1))
    value[:, -1] = total
    for low in range(0, orders, 500):
        part = place[low : low + 500]
        masks = part[:, None, :] < np.arange(1, N)[:, None]
        value[low : low + 500, 1:-1] = worth(masks.reshape(-1, N)).reshape(len(part), N - 1)
    return np.take_along_axis(np.diff(value, axis=1), place, axis=1)


def shapiq_method(name: str, **options: Any) -> Method:
    """An approximator of shapiq."""
    import shapiq.approximator as approximators

    kind = getattr(approximators, name)

    def run(worth: Callable[[Masks], Floats], batch: Batch, budget: int, seed: int) -> Floats:
        found = kind(n=N, random_state=seed, **options).approximate(budget, worth)
        return np.array([found[(i,)] for i in range(N)])

    return run


def shap_method(name: str) -> Method:
    """An explainer of shap: the request is a feature, 1 where it is there."""
    import shap

    def permutation(worth: Callable[[Masks], Floats], batch: Batch, budget: int, seed: int) -> Floats:
        explainer = shap.PermutationExplainer(worth, np.zeros((1, N)), seed=seed)
        rounds = budget // (2 * N + 1) * (2 * N + 1)
        return np.asarray(explainer(np.ones((1, N)), max_evals=rounds, silent=True).values[0])

    def kernel(worth: Callable[[Masks], Floats], batch: Batch, budget: int, seed: int) -> Floats:
        np.random.seed(seed)
        explainer = shap.KernelExplainer(worth, np.zeros((1, N)))
        return np.asarray(explainer.shap_values(np.ones((1, N)), nsamples=budget, l1_reg=0, silent=True)[0])

    return permutation if name == "permutation" else kernel


def peers() -> tuple[dict[str, Method], list[str]]:
    """Label → method, for the packages that are installed; and what is missing."""
    found: dict[str, Method] = {"plain permutations": plain}
    wanted: dict[str, Callable[[], Method]] = {
        "shapiq PermutationSamplingSV": lambda: shapiq_method("PermutationSamplingSV"),
        "shapiq StratifiedSamplingSV": lambda: shapiq_method("StratifiedSamplingSV"),
        "shapiq OwenSamplingSV": lambda: shapiq_method("OwenSamplingSV"),
        "shapiq SVARM": lambda: shapiq_method("SVARM"),
        "shapiq KernelSHAP, paired": lambda: shapiq_method("KernelSHAP", pairing_trick=True),
        "shapiq UnbiasedKernelSHAP, paired": lambda: shapiq_method("UnbiasedKernelSHAP", pairing_trick=True),
        "shap PermutationExplainer": lambda: shap_method("permutation"),
        "shap KernelExplainer": lambda: shap_method("kernel"),
    }
    missing = []
    for label, make in wanted.items():
        try:
            found[label] = make()
        except ImportError:
            missing.append(label)
    return found, missing


def truth(batch: Batch) -> tuple[Floats, float, float]:
    """Shares; where they are a long run: its mean relative standard error, and how far plain sampling lies from it."""
    if batch.shares is not None:
        return batch.shares, 0.0, 0.0
    run = ours(batch, batch.worth, LONG, 99)
    other = plain_orders(batch.worth, LONG, 98)
    apart = (other.mean(axis=0) - run.shares) / np.hypot(run.std_error, other.std(axis=0) / np.sqrt(LONG))
    return run.shares, float((run.std_error / run.shares).mean()), float(np.abs(apart).max())


def study(traces: Path | None, samples: int, count: int, repeats: int) -> tuple[dict[tuple[str, str], Cell], list[str]]:
    """(method, kind) → what was measured, and lines on truth and on what is missing."""
    methods, missing = peers()
    for method in methods.values():  # what compiles at its first call does so here
        _measure(Cell(), method, next(batches("homogeneous", traces, 1)), np.ones(N), 200, 0)
    notes = [f"{label}: not installed, left out" for label in missing]
    cells: dict[tuple[str, str], Cell] = {}
    for kind in KINDS:
        for number, batch in enumerate(batches(kind, traces, 1 if kind == "homogeneous" else count)):
            print(f"{kind}, batch {number}", file=sys.stderr, flush=True)
            exact, error, apart = truth(batch)
            if error:
                notes.append(f"{kind}, batch {number}: truth known to {error:.2%}; plain sampling {apart:.1f} s.e. off")
            for seed in range(repeats):
                budget = _measure_ours(cells, kind, batch, exact, samples, seed)
                for label, method in methods.items():
                    if (seed or number) and label.endswith(SLOW):
                        continue
                    _measure(cells.setdefault((label, kind), Cell()), method, batch, exact, budget, seed)
    failed = [label for label in methods if any(np.isnan(cells[label, kind].mean).any() for kind in KINDS)]
    return cells, notes + [f"{label}: stopped with an error of its own in some runs" for label in failed]


def _measure_ours(
    cells: dict[tuple[str, str], Cell], kind: str, batch: Batch, exact: Floats, samples: int, seed: int
) -> int:
    budget = 0
    for label, log in (("readout", True), ("readout, without the log's control games", False)):
        game, began = Counted(batch.worth), time.process_time()
        found = ours(batch, game, samples, seed, log=log)
        cell = cells.setdefault((label, kind), Cell())
        cell.add(found.shares, exact, time.process_time() - began, game.asked)
        cell.covered.append(float(np.mean(np.abs(found.shares - exact) <= 1.96 * found.std_error + 1e-9 * exact)))
        budget = game.asked
    return budget


def _measure(cell: Cell, method: Method, batch: Batch, exact: Floats, budget: int, seed: int) -> None:
    game, began = Counted(batch.worth), time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = method(game, batch, budget, seed)
    except (ValueError, TypeError, np.linalg.LinAlgError):
        found = np.full(N, np.nan)
    cell.add(found, exact, time.process_time() - began, game.asked)


def tables(cells: dict[tuple[str, str], Cell], samples: int) -> str:
    """Errors and times of all methods, then what plain sampling and readout need for 2 %."""
    methods = list(dict.fromkeys(label for label, _ in cells))
    lines = [
        "| mean / worst error, % of a request's share | " + " | ".join(KINDS) + " | µs/request | evaluations |",
        "|---|" + "---|" * (len(KINDS) + 2),
    ]
    for label in methods:
        row = [cells[label, kind] for kind in KINDS]
        spent = np.mean([np.mean(cell.seconds) for cell in row]) / N * 1e6
        asked = np.mean([np.mean(cell.asked) for cell in row])
        errors = " | ".join(f"{_percent(np.mean(c.mean))} / {_percent(np.mean(c.worst))}" for c in row)
        lines.append(f"| {label} | {errors} | {spent:,.0f} | {asked:,.0f} |")
    lines += [
        "",
        "| | " + " | ".join(KINDS) + " |",
        "|---|" + "---|" * len(KINDS),
        f"| plain permutations: orders for a mean error of 2 % | {_orders(cells, 'plain permutations', samples)} |",
        f"| readout: orders for a mean error of 2 % | {_orders(cells, 'readout', samples)} |",
        "| readout: mean error over the mean share, % | "
        + " | ".join(_percent(np.mean(cells["readout", kind].beside)) for kind in KINDS) + " |",
        "| readout: shares within 1.96 standard errors, % | "
        + " | ".join(f"{np.mean(cells['readout', kind].covered):.1%}"[:-1] for kind in KINDS) + " |",
    ]  # fmt: skip
    return "\n".join(lines)


def _percent(part: float) -> str:
    return "–" if np.isnan(part) else f"{100 * part:.2f}" if part < 0.0995 else f"{100 * part:.0f}"


def _orders(cells: dict[tuple[str, str], Cell], label: str, samples: int) -> str:
    """Error falls with the square root of the orders; at least 40 are drawn."""
    needed = [samples * (float(np.mean(cells[label, kind].mean)) / 0.02) ** 2 for kind in KINDS]
    return " | ".join("40" if k <= 40 else f"{k:,.0f}" for k in needed)


def write(page: Path, text: str) -> None:
    """Puts the tables between the page's marks."""
    start, end = f"<!-- {MARK} -->", f"<!-- /{MARK} -->"
    before, rest = page.read_text(encoding="utf-8").split(start, 1)
    page.write_text(before + start + "\n\n" + text + "\n\n" + end + rest.split(end, 1)[1], encoding="utf-8")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--traces", type=Path, help="directory with the Azure traces as Parquet; else requests drawn")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--batches", type=int, default=1, help="of each kind")
    parser.add_argument("--repeats", type=int, default=2, help="of each batch")
    parser.add_argument("--write", type=Path, help="the page to write")
    given = parser.parse_args()
    cells, notes = study(given.traces, given.samples, given.batches, given.repeats)
    text = tables(cells, given.samples) + "\n\n" + "\n".join(f"- {note}" for note in notes)
    print(text)
    if given.write:
        write(given.write, text)


if __name__ == "__main__":
    main()
