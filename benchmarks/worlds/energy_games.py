"""Batches of 32 requests, and the games that their energy is shared by: six kinds, one without a closed form.

Requests of the Azure LLM inference traces of 2023 (conversation and code; CC-BY-4.0, Splitwise, ISCA 2024) where their
Parquet files are given; else requests drawn to the same summary: log-normal prompts and outputs with the traces' means
and deviations of logarithms, cut at their largest, gaps between arrivals exponential with the traces' medians.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attribution.batches import Batches, resolve
from attribution.game import Game
from attribution.games.rescheduled import admissions, rescheduled
from attribution.model import EnergyModel, load_model
from attribution.stays import Stays

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Masks = NDArray[np.bool_]

N = 32
STEP_S = 0.00667  # a decode step of the 8B model
_SUMMARY = {  # mean and deviation of log prompt and log output, largest of each, median gap in seconds
    "conversation": ((6.633, 0.985, 14_050), (5.019, 0.859, 1_000), 0.118),
    "code": ((6.999, 1.360, 7_437), (2.788, 0.847, 1_899), 0.064),
}
_FILES = {"conversation": "azure_llm_2023_conv.parquet", "code": "azure_llm_2023_code.parquet"}


@dataclass(frozen=True)
class Batch:
    """One batch and its game.

    Attributes:
        columns: What the log has of its requests.
        worth: Joules of coalitions (k, n).
        shares: The exact shares; None where there is no closed form.
    """

    columns: Mapping[str, NDArray[Any]]
    worth: Callable[[Masks], Floats]
    shares: Floats | None

    def log(self) -> Batches:
        """The batch as a log of its own."""
        c = self.columns
        return Batches(
            np.zeros(c["prompt_tokens"].size, dtype=np.int64), c["prompt_tokens"], c["output_tokens"], c["start_step"],
            c["end_step"],
        )  # fmt: skip


def model() -> EnergyModel:
    """The 8B model on one H100."""
    path = Path(__file__).resolve().parents[2] / "configs" / "energy" / "h100_dense_8b.yaml"
    return load_model(path.read_text(encoding="utf-8"))


def batches(kind: str, traces: Path | None, count: int) -> Iterator[Batch]:
    """``count`` batches of a kind of ``KINDS``."""
    make = KINDS[kind]
    for seed in range(count):
        yield make(np.random.default_rng([seed, *kind.encode()]), traces)


def _closed(prompt: Ints, output: Ints, start: Ints) -> Batch:
    game, energy = Game.of(model()), model()
    log = Batches(np.zeros(prompt.size, dtype=np.int64), prompt, output, start, start + output)
    stays: Stays = resolve(log)
    columns = {
        "prompt_tokens": prompt, "output_tokens": output, "start_step": stays.start, "end_step": stays.end
    }  # fmt: skip
    return Batch(columns, lambda masks: game.worth(stays, masks) * energy.pue, game.shares(stays) * energy.pue)


def _homogeneous(rng: np.random.Generator, traces: Path | None) -> Batch:
    return _closed(np.full(N, 500), np.full(N, 200), np.zeros(N, dtype=np.int64))


def _one_long(rng: np.random.Generator, traces: Path | None) -> Batch:
    output = rng.integers(10, 40, N)
    output[0] = 2000
    return _closed(rng.integers(50, 400, N), output, np.zeros(N, dtype=np.int64))


def _traced(trace: str, continuous: bool, rng: np.random.Generator, traces: Path | None) -> Batch:
    prompt, output, arrival = _requests(trace, rng, traces)
    return _closed(prompt, output, arrival if continuous else np.zeros(N, dtype=np.int64))


def _queued(at_once: int, rng: np.random.Generator, traces: Path | None) -> Batch:
    prompt, output, arrival = _requests("conversation", rng, traces)
    limit = 65_536
    start = admissions(np.ones((1, N), dtype=bool), arrival, output, prompt + output, at_once, limit)[0]
    columns = {
        "prompt_tokens": prompt, "output_tokens": output, "arrival_step": arrival, "start_step": start,
        "end_step": start + output,
    }  # fmt: skip
    game = partial(rescheduled, columns, energy_model=model(), max_batch=at_once, max_tokens=limit)
    return Batch(columns, game, None)


def _requests(trace: str, rng: np.random.Generator, traces: Path | None) -> tuple[Ints, Ints, Ints]:
    """Prompt tokens, output tokens and arrival steps of 32 requests in a row."""
    if traces is None:
        *lengths, gap = _SUMMARY[trace]
        prompt, output = (
            np.clip(np.rint(rng.lognormal(mean, deviation, N)), 1, most).astype(np.int64)
            for mean, deviation, most in lengths
        )
        seconds = np.cumsum(rng.exponential(gap / np.log(2), N))
    else:
        import polars as pl

        frame = pl.read_parquet(traces / _FILES[trace])
        rows = frame.slice(int(rng.integers(0, frame.height - N)), N)
        prompt, output = (
            np.maximum(rows[name].to_numpy(), 1).astype(np.int64) for name in ("context_tokens", "generated_tokens")
        )
        seconds = rows["arrival_s"].to_numpy()
    return prompt, output, ((seconds - seconds[0]) / STEP_S).astype(np.int64)


KINDS: dict[str, Callable[[np.random.Generator, Path | None], Batch]] = {
    "homogeneous": _homogeneous,
    "one long, 31 short": _one_long,
    "conversation, static": partial(_traced, "conversation", False),
    "conversation, continuous": partial(_traced, "conversation", True),
    "code, static": partial(_traced, "code", False),
    "code, continuous": partial(_traced, "code", True),
    "re-scheduled, 8 at once": partial(_queued, 8),
    "re-scheduled, 4 at once": partial(_queued, 4),
}
