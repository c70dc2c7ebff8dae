"""The world of a live router as files: its decision log, the truth beside it, and a spec that is ready to run."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np

from readout.simulate.arrivals import MODELS, REGIONS, TIERS, Bools, Floats, Ints, Trace, Workload, draw_workload
from readout.simulate.routed import Routed, RoutedParams, params_for, route
from readout.simulate.truth import difference
from readout.simulate.worlds import World
from readout.simulate.write import START, instants, numbered, parameters

if TYPE_CHECKING:
    import polars as pl

POOLS = ("standard", "premium")


def routed(
    world: World, trace: Trace, *, days: float, requests: int, seed: int
) -> tuple[Workload, Routed, RoutedParams]:
    """Draw the workload and run the router over it."""
    workload = draw_workload(trace, requests=requests, days=days, regions=world.regions, seed=seed)
    params = params_for(trace, world.load, world.explore)
    return workload, route(workload, params, seed=seed), params


def outcomes(found: Routed, params: RoutedParams) -> dict[str, Floats]:
    """Logged outcomes under either pool, (rows, 2) each."""
    price = np.array(params.usd_per_slot_hour) / 3600.0
    return {
        "timed_out": found.timed_out.astype(float),
        "ttft_ms": np.round(found.ttft_s * 1000.0, 2),
        "latency_ms": np.round(found.latency_s * 1000.0, 2),
        "error": (~found.success).astype(float),
        "success": found.success.astype(float),
        "cost_usd": np.round(found.slot_s * price, 7),
    }


def truth(found: Routed, values: Mapping[str, Floats], params: RoutedParams) -> dict[str, object]:
    """The effect of the premium pool on requests, each in the state that it met: over all (``ate``) and over those that
    were sent there (``att``); and what a comparison of the two by plain means would say."""
    everyone, treated = np.ones(found.action.size, np.bool_), found.action == 1

    def both(rows: Bools) -> dict[str, object]:
        return difference(_means(values, rows, 0), _means(values, rows, 1))

    return {
        "ate": both(everyone),
        "att": both(treated),
        "naive_difference": difference(_means(values, ~treated, 0), _means(values, treated, 1)),
        "parameters": parameters(params),
    }


_NAMES = {
    "ttft": "ttft_ms",
    "error_rate": "error",
    "latency": "latency_ms",
    "success": "success",
    "timed_out": "timed_out",
    "cost_per_request": "cost_usd",
}


def _means(values: Mapping[str, Floats], rows: Bools, pool: int) -> dict[str, float | None]:
    found: dict[str, float | None] = {
        name: float(values[column][rows, pool].mean()) if rows.any() else None for name, column in _NAMES.items()
    }
    served = float(values["success"][rows, pool].sum())
    found["cost_per_success"] = float(values["cost_usd"][rows, pool].sum()) / served if served else None
    return found


def log_of(world: World, workload: Workload, found: Routed, values: Mapping[str, Floats]) -> pl.DataFrame:
    """The decision log, one row per request, in the order of decisions; without live state where it is not logged."""
    import polars as pl

    n = workload.t_s.size
    rows = np.arange(n)
    regions = REGIONS[: int(workload.region.max()) + 1] if n else REGIONS
    met = {name: both[rows, found.action] for name, both in values.items()}
    success = met["success"] > 0
    decoded = np.where(success, workload.output, np.where(met["timed_out"] > 0, 0, _failed_at(workload)))

    def named(codes: Ints, names: tuple[str, ...]) -> pl.Series:
        return pl.Series(codes).replace_strict(dict(enumerate(names)), return_dtype=pl.String)

    state = {"queue_depth": found.queue_depth, "active_requests": found.active, "cache_warm": found.warm}
    chance = np.where(found.action == 1, found.propensity, 1.0 - found.propensity)
    return pl.DataFrame(
        {
            "decision_ts": instants(workload.t_s),
            "request_id": numbered("r", rows),
            "workspace_id": numbered("w", workload.workspace),
            "region": named(workload.region, regions),
            "session_id": numbered("s", workload.session),
            "intended_action": named(found.action, POOLS),
            "executed_action": named(found.action, POOLS),
            **({"propensity": chance} if world.explore is not None else {}),
            "timed_out": met["timed_out"] > 0,
            **(state if world.state_logged else {}),
            "tier": named(workload.tier, TIERS),
            "prompt_tokens": workload.prompt,
            "model": named(workload.model, MODELS),
            "output_tokens": decoded.astype(np.int64),
            "ttft_ms": met["ttft_ms"],
            "latency_ms": met["latency_ms"],
            "error": ~success,
            "success": success,
            "completed": success,
            **({"queue_depth_after": found.queue_depth_after} if world.state_logged else {}),
            "cost_usd": met["cost_usd"],
        }
    )


def _failed_at(workload: Workload) -> Floats:
    return np.maximum(np.ceil(workload.output * workload.runs_to), 1.0)


_SPEC = """\
# Simulated: the true effects stand in {truth}: ate and att, in the state that each request met.
version: 1
name: {name}
question: Do requests fare better in the premium pool?
counterfactual: The same requests at the same moments, served by the standard pool.
decision:
  frame: ship
  failure_mode: The live router sends requests there while few are waiting; those look better because of the queue.
  mitigation: Compare requests that met the same queue.
  monitor: TTFT by pool and queue depth.

logs:
  path: {log}
  start: {start}
  end: {end}
  columns:
    time: decision_ts
    request: request_id
    unit: workspace_id
    cluster: region
    workflow: session_id
    intended: intended_action
    executed: executed_action
    timeout: timed_out
{state}    features: [tier, prompt_tokens, model]
    after: [{after}]

design:
  kind: observational
  control: standard
  treatment: premium
  estimand: ate
  policy_inputs: [tier, queue_depth]   # what the live router looks at{missing}

metrics:
  ttft: {{column: ttft_ms, role: primary, better: lower, minimum_effect: 2%}}
  error_rate: {{column: error, role: guardrail, better: lower, margin: 0.01}}
  latency: {{column: latency_ms, role: secondary, better: lower}}
  cost_per_success: {{numerator: cost_usd, denominator: success, role: secondary, better: lower}}
"""
_STATE = "    state: [queue_depth, active_requests, cache_warm]\n"
_MISSING = "; the log does not hold the queue"


def spec_of(world: World, *, log: str, truth: str, days: float) -> str:
    """The YAML of a spec over the log that stands beside it."""
    return _SPEC.format(
        name=world.name.replace("_", "-"),
        truth=truth,
        log=log,
        start=START.strftime("%Y-%m-%dT%H:%MZ"),
        end=(START + timedelta(days=days)).strftime("%Y-%m-%dT%H:%MZ"),
        state=_STATE if world.state_logged else "",
        after="queue_depth_after, completed" if world.state_logged else "completed",
        missing="" if world.state_logged else _MISSING,
    )
