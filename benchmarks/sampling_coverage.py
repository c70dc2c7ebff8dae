"""Do standard errors of sampled shares cover when sampling stops by itself? And which batches are flagged as lopsided?

Run from the root of the repository:

    OMP_NUM_THREADS=1 nice python -m benchmarks.sampling_coverage --write docs/attribution.md

Ten batches of 12 requests that queue for 3 places on a replica, the coalition's requests re-scheduled; the truth is the
game's enumeration. Every run samples afresh, as it does for batches too large to be counted out, looks after each
doubling of its orders, and stops once the mean standard error is within the tolerance.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attribution.asking import Asker, counted_out
from attribution.controls import controls_of
from attribution.games.rescheduled import rescheduled
from attribution.permutations import Suggest, estimate
from attribution.sampling import suggested
from benchmarks.worlds.energy_games import KINDS, batches, model

Floats = NDArray[np.float64]
MARK, N, WORLDS = "sampling_coverage", 12, 10
ROWS = (  # orders at first, tolerance, cap, the log's control games
    (40, 0.01, 40, True),
    (40, 0.01, 3200, True),
    (40, 0.02, 3200, False),
    (200, 0.02, 3200, True),
)


def world(seed: int) -> tuple[Callable[[NDArray[np.bool_]], Floats], Floats, Suggest]:
    """A game by look-up, its exact shares and the log's control games."""
    rng = np.random.default_rng([11, seed])
    output, prompt = np.minimum(rng.geometric(0.01, N), 600), rng.integers(50, 3000, N)
    start = np.sort(rng.integers(0, 400, N))
    columns = {"prompt_tokens": prompt, "output_tokens": output, "start_step": start, "end_step": start + output}
    game = partial(rescheduled, columns, energy_model=model(), max_batch=3, max_tokens=6000)
    exact, joules = counted_out(Asker(game, N))
    return lambda masks: joules[masks @ (1 << np.arange(N))], exact, suggested(columns)


def without_log(alone: Floats, marginal: Floats) -> list[object]:
    """Control games for a batch of which nothing is known but the game's own answers."""
    return list(controls_of(N, {"alone": np.maximum(alone, 0.0)}, None, None))


def row(samples: int, tolerance: float, cap: int, log: bool, runs: int) -> str:
    """One line of the table."""
    inside, orders, bias = [], [], []
    for number in range(WORLDS):
        worth, exact, suggest = world(number)
        error = np.empty((runs // WORLDS, N))
        for run in range(len(error)):
            rng = np.random.default_rng([number, run, 5])
            found = estimate(
                worth, N, suggest if log else without_log,  # type: ignore[arg-type]
                samples=samples, tolerance=tolerance, cap=cap, rng=rng, exact=False,
            )  # fmt: skip
            error[run] = found.shares - exact
            inside.append(np.abs(error[run]) <= 1.96 * found.std_error)
            orders.append(found.orders)
        bias.append(np.abs(error.mean(axis=0)) / error.std(axis=0))
    by_run = np.mean(inside, axis=1)
    return (
        f"| {samples} | {tolerance:.1%} | {cap:,} | {'yes' if log else 'no'} | {np.mean(orders):,.0f} | "
        f"{100 * by_run.mean():.1f} ± {100 * by_run.std() / np.sqrt(len(by_run)):.1f} | "
        f"{100 * np.mean(inside, axis=0).min():.1f} | {np.mean(bias):.2f} |"
    )


def flagged(traces: Path | None, count: int = 200) -> str:
    """Share of the batches of every kind with a closed form that the rule for lopsided batches flags."""
    kinds = [kind for kind in KINDS if not kind.startswith("re-scheduled")]
    shares = []
    for kind in kinds:
        found = [batch.shares for batch in batches(kind, traces, count)]
        shares.append(np.mean([float(np.median(x) * 3 < x.mean()) for x in found if x is not None]))
    names = " | ".join(kinds)
    cells = " | ".join(f"{100 * x:.0f}" for x in shares)
    return f"| | {names} |\n|---|{'---|' * len(kinds)}\n| flagged, % of {count} batches | {cells} |"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--traces", type=Path, help="directory with the Azure traces as Parquet; else requests drawn")
    parser.add_argument("--write", type=Path, help="the page to write")
    given = parser.parse_args()
    lines = [
        "| orders at first | tolerance | cap | log's control games | orders used, mean | shares within 1.96 s.e., % | "
        "the worst request, % | bias over deviation, mean |",
        "|---|---|---|---|---|---|---|---|",
        *(row(*setting, given.runs) for setting in ROWS),
    ]
    text = "\n".join(lines) + "\n\n" + flagged(given.traces)
    print(text)
    if given.write:
        start, end = f"<!-- {MARK} -->", f"<!-- /{MARK} -->"
        before, rest = given.write.read_text(encoding="utf-8").split(start, 1)
        page = before + start + "\n\n" + text + "\n\n" + end + rest.split(end, 1)[1]
        given.write.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
