"""A simulation as files: the decision log, the truth beside it, and a spec that is ready to run."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from readout.simulate.arrivals import MODELS, REGIONS, TIERS, Floats, Ints, Workload
from readout.simulate.experiment import DAY_S, Assignment
from readout.simulate.fleet import FleetParams
from readout.simulate.system import CURRENT, PREMIUM, PREMIUM_FLEET, RESERVED, STANDARD_FLEET, Outcomes

if TYPE_CHECKING:
    import polars as pl

    from attribution.model import EnergyModel

START = datetime(2026, 10, 5, tzinfo=UTC)  # a Monday
ARMS = ("current", "premium")
_ACTIONS = {CURRENT: "current", PREMIUM: "premium", RESERVED: "reserved"}


def columns(
    workload: Workload, decoded: Ints, outcomes: Outcomes, fleets: tuple[FleetParams, FleetParams], model: EnergyModel
) -> dict[str, Floats]:
    """Numeric outcome columns of a run, (rows,) each, with the modelled energy of every request and batch."""
    completed = outcomes.served & (workload.runs_to >= 1.0)
    price = np.array([fleet.usd_per_gpu_hour for fleet in fleets]) / 3600.0
    energy_wh, batch, start, batch_wh = _energy(workload, decoded, outcomes, model)
    return {
        "timed_out": outcomes.timed_out.astype(float),
        "output_tokens": np.where(outcomes.served, decoded, 0).astype(float),
        "ttft_ms": np.round(outcomes.ttft_s * 1000.0, 2),
        "latency_ms": np.round(outcomes.latency_s * 1000.0, 2),
        "error": (~completed).astype(float),
        "success": completed.astype(float),
        "completed": completed.astype(float),
        "gpu_seconds": np.round(outcomes.gpu_s, 4),
        "cost_usd": np.round(outcomes.gpu_s * price[_fleet(outcomes)], 7),
        "energy_wh": energy_wh,
        "batch": batch,
        "start_step": start,
        "batch_wh": batch_wh,
    }


def _fleet(outcomes: Outcomes) -> Ints:
    return np.where(outcomes.executed == CURRENT, STANDARD_FLEET, PREMIUM_FLEET)


def _energy(
    workload: Workload, decoded: Ints, outcomes: Outcomes, model: EnergyModel
) -> tuple[Floats, Floats, Floats, Floats]:
    """Modelled share (Wh, 0 where not served); batch code, first decode step in it, its energy (Wh): NaN there."""
    from attribution.batches import Batches
    from attribution.shapley import attribute

    n = workload.t_s.size
    share, batch, start, whole = np.zeros(n), np.full(n, np.nan), np.full(n, np.nan), np.full(n, np.nan)
    served = np.flatnonzero(outcomes.served)
    if not served.size:
        return share, batch, start, whole
    span = int(outcomes.batch.max()) + 1
    key = (workload.region * 2 + _fleet(outcomes))[served] * span + outcomes.batch[served]
    code = np.unique(key, return_inverse=True)[1]
    first = np.full(int(code.max()) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, code, outcomes.start_step[served])
    begin = (outcomes.start_step[served] - first[code]).astype(float)
    tokens = decoded[served].astype(float)
    shares = attribute(Batches(code, workload.prompt[served], tokens, begin, begin + tokens), model)
    share[served], batch[served], start[served], whole[served] = shares.wh, code, begin, shares.batch_wh
    return share, batch, start, whole


def frame(
    workload: Workload, outcomes: Outcomes, assignment: Assignment, numbers: Mapping[str, Floats], *, seed: int
) -> pl.DataFrame:
    """The decision log of a run, one row per request, in the order of decisions.

    ``batch_wh`` is the batch's modelled energy with a measurement error of 1.5 %; ``propensity`` is the probability,
    over the assignment mechanism, of the logged intended action in the logged state.
    """
    import polars as pl

    n = workload.t_s.size
    regions = REGIONS[: int(workload.region.max()) + 1] if n else REGIONS
    by_premium = outcomes.premium_choice & ~workload.reserved
    p = assignment.probability
    propensity = np.where(by_premium, np.where(outcomes.intended == PREMIUM, p, 1.0 - p), 1.0)
    batch = pl.Series(numbers["batch"], nan_to_null=True).cast(pl.Int64)
    noise = np.random.default_rng([seed, 7]).lognormal(0.0, 0.015, int(batch.max() or 0) + 1)  # type: ignore[arg-type]
    measured = numbers["batch_wh"] * noise[np.nan_to_num(numbers["batch"]).astype(np.int64)]
    start = pl.Series(numbers["start_step"], nan_to_null=True).cast(pl.Int64)

    def named(codes: Ints, names: Mapping[int, str] | tuple[str | None, ...]) -> pl.Series:
        table = dict(enumerate(names)) if isinstance(names, tuple) else dict(names)
        return pl.Series(codes).replace_strict(table, return_dtype=pl.String)

    log = pl.DataFrame(
        {
            "decision_ts": instants(workload.t_s),
            "request_id": numbered("r", np.arange(n)),
            "workspace_id": numbered("w", workload.workspace),
            "region": named(workload.region, regions),
            "session_id": numbered("s", workload.session),
            "arm": named(assignment.premium.astype(np.int64), ARMS),
            "assigned_at": instants(assignment.assigned_s),
            "eligible": ~workload.reserved,
            "intended_action": named(outcomes.intended, _ACTIONS),
            "executed_action": named(outcomes.executed, _ACTIONS),
            "fallback_reason": named(outcomes.fell_back.astype(np.int64), (None, "premium_full")),
            "timed_out": outcomes.timed_out,
            "retry_count": outcomes.retries,
            "propensity": propensity,
            "queue_depth": outcomes.queue_depth,
            "kv_tokens_in_flight": outcomes.kv_in_flight,
            "cache_warm": outcomes.cache_warm,
            "tier": named(workload.tier, TIERS),
            "prompt_tokens": workload.prompt,
            "model": named(workload.model, MODELS),
            "output_tokens": numbers["output_tokens"].astype(np.int64),
            "ttft_ms": numbers["ttft_ms"],
            "latency_ms": numbers["latency_ms"],
            "error": numbers["error"] > 0,
            "success": numbers["success"] > 0,
            "completed": numbers["completed"] > 0,
            "queue_depth_after": outcomes.queue_depth_after,
            "cost_usd": numbers["cost_usd"],
            "gpu_seconds": numbers["gpu_seconds"],
            "batch_id": ("b" + batch.cast(pl.String).str.zfill(7)).alias("batch_id"),
            "start_step": start,
            "end_step": start + pl.Series(numbers["output_tokens"]).cast(pl.Int64),
            "batch_wh": pl.Series(np.round(measured, 5), nan_to_null=True),
        }
    )
    if not assignment.rollout_day.size:
        return log
    first = [START.date() + timedelta(days=d) if d >= 0 else None for d in assignment.rollout_day.tolist()]
    return log.with_columns(
        pl.Series("premium_from", [first[r] for r in workload.region.tolist()], dtype=pl.Date),
        pl.col("decision_ts").dt.date().alias("day"),
    )


def numbered(prefix: str, codes: Ints) -> pl.Series:
    """Ids such as ``r000012``."""
    import polars as pl

    return prefix + pl.Series(codes).cast(pl.String).str.zfill(6)


def instants(seconds: Floats) -> pl.Series:
    """Times from seconds since the start of the log."""
    import polars as pl

    micros = int(START.timestamp()) * 1_000_000 + np.round(seconds * 1e6).astype(np.int64)
    return pl.Series(micros).cast(pl.Datetime("us", "UTC"))


def write_log(path: Path, log: pl.DataFrame) -> None:
    """Write the log as Parquet (zstd), whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    try:
        log.write_parquet(part, compression="zstd", compression_level=12, statistics=True)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(text, encoding="utf-8", newline="\n")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def truth_json(content: Mapping[str, object]) -> str:
    """Content as JSON, floats at 9 significant digits."""

    def rounded(value: object) -> object:
        if isinstance(value, float):
            return float(f"{value:.9g}")
        if isinstance(value, Mapping):
            return {key: rounded(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [rounded(item) for item in value]
        return value.isoformat() if isinstance(value, (date, datetime)) else value

    return json.dumps(rounded(content), indent=2, allow_nan=False) + "\n"


def parameters(params: object) -> dict[str, object]:
    """A parameter dataclass as plain data."""
    return asdict(params)  # type: ignore[call-overload, no-any-return]


__all__ = [
    "ARMS", "DAY_S", "START", "columns", "frame", "instants", "numbered", "parameters", "truth_json", "write_log",
    "write_text",
]  # fmt: skip
