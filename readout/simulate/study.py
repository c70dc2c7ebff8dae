"""One simulation from the arrivals to the files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from readout.errors import Problem, SpecError
from readout.simulate import ENERGY_MODEL, experiment, explored, routed_files
from readout.simulate.arrivals import CrowdedError, Floats, Ints, Trace, Workload, draw_workload, synthetic_trace
from readout.simulate.experiment import Assignment
from readout.simulate.spec import spec_text
from readout.simulate.store import found_in, written_by_premium
from readout.simulate.system import Outcomes, SystemParams, run
from readout.simulate.trace import read_trace
from readout.simulate.truth import compare
from readout.simulate.worlds import World, system_for
from readout.simulate.write import columns, frame, parameters, truth_json, write_log, write_text

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, slots=True)
class Runs:
    """The same workload under both policies and under the experiment between them.

    Attributes:
        decoded: Tokens that each request decodes before it ends or fails, (rows,).
        outcomes: By run: ``current``, ``premium``, ``experiment``.
    """

    workload: Workload
    params: SystemParams
    assignment: Assignment
    decoded: Ints
    outcomes: dict[str, Outcomes]


@dataclass(frozen=True, slots=True)
class _Made:
    """The log, what is true of it, and the text of its spec."""

    log: pl.DataFrame
    truth: Mapping[str, object]
    spec: str


def runs(world: World, trace: Trace, *, days: float, requests: int, seed: int) -> Runs:
    """Draw the workload and run it under both policies and under the world's experiment."""
    workload = draw_workload(trace, requests=requests, days=days, regions=world.regions, seed=seed)
    params = system_for(trace, world.load)
    decoded = np.maximum(np.ceil(workload.output * workload.runs_to), 1.0).astype(np.int64)
    assignment = assign(world, workload, days=days, seed=seed)
    everyone = np.ones(workload.t_s.size, dtype=bool)
    in_force = {"current": ~everyone, "premium": everyone, "experiment": assignment.premium}
    held = _held(world, workload, assignment, seed=seed)
    outcomes = {name: run(workload, decoded, params, arm, held.get(name)) for name, arm in in_force.items()}
    return Runs(workload, params, assignment, decoded, outcomes)


def _held(world: World, workload: Workload, assignment: Assignment, *, seed: int) -> dict[str, Floats]:
    """By run, the part of a prompt that the region's store holds; under one policy the store is all its own.

    The experiment follows upon policy *current*. A world without a store has no entry.
    """
    if world.store is None:
        return {}
    block_s, turnover_s = world.block_h * 3600.0, world.store.turnover_s
    mixed = written_by_premium(assignment.coins, block_s, workload.region, workload.t_s, turnover_s)
    shares = {"current": np.zeros(mixed.size), "premium": np.ones(mixed.size), "experiment": mixed}
    return {name: found_in(world.store, share, seed=seed) for name, share in shares.items()}


def assign(world: World, workload: Workload, *, days: float, seed: int) -> Assignment:
    """The world's assignment mechanism, drawn."""
    if world.mechanism == experiment.SWITCHBACK:
        block_s = world.block_h * 3600.0
        return experiment.switchback(workload, regions=world.regions, days=days, block_s=block_s, seed=seed)
    if world.mechanism == experiment.RCT:
        return experiment.rct(workload, seed=seed)
    return experiment.rollout(workload, regions=world.regions, days=days, seed=seed)


def study(
    world: World, out: Path, *, seed: int, trace: Path | None, days: float, requests: int, name: str | None
) -> Path:
    """Simulate and write; see :func:`readout.simulate.simulate`."""
    base = read_trace(trace) if trace is not None else synthetic_trace(np.random.default_rng([seed, 0]))
    names = (f"{name}.parquet", f"{name}.json", f"{name}.yaml") if name else ("logs.parquet", "truth.json", "spec.yaml")
    make = _routed if world.mechanism == experiment.ROUTED else _experiment
    try:
        made = make(world, base, seed=seed, days=days, requests=requests, log=names[0], truth=names[1])
    except CrowdedError as error:
        message = f"{requests:,} requests do not fit into {days:g} days: expected at most {error.most:,}"
        raise SpecError([Problem("--requests", message, "give more --days or fewer --requests")]) from None
    command = f"readout simulate {world.name} --seed {seed} --days {days:g} --requests {requests}"
    truth: dict[str, object] = {
        "schema": "readout-truth/1",
        "world": world.name,
        "command": command + (f" --trace {base.name}" if trace is not None else ""),
        "seed": seed,
        "days": days,
        "rows": made.log.height,
        "trace": base.name,
        **made.truth,
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_log(out / names[0], made.log)
        write_text(out / names[1], truth_json(truth))
        write_text(out / names[2], made.spec)
    except OSError as error:
        raise SpecError([Problem(f"--out {out}", f"cannot be written: {error.strerror or error}")]) from error
    return out / names[2]


def _experiment(world: World, base: Trace, *, seed: int, days: float, requests: int, log: str, truth: str) -> _Made:
    """An experiment between two policies; the truth is what either does everywhere."""
    from attribution.model import load_model
    from readout.bundled import bundled

    model = load_model((bundled("configs") / "energy" / f"{ENERGY_MODEL}.yaml").read_text(encoding="utf-8"))
    done = runs(world, base, days=days, requests=requests, seed=seed)
    logs: dict[str, dict[str, Floats]] = {
        key: columns(done.workload, done.decoded, outcome, done.params.fleets, model)
        for key, outcome in done.outcomes.items()
    }
    found: dict[str, object] = {
        **compare(done.workload, logs, done.outcomes, done.assignment),
        "energy_model": ENERGY_MODEL,
        "parameters": parameters(done.params),
    }
    if world.store is not None:
        found["prefix_store"] = parameters(world.store)
    rows = frame(done.workload, done.outcomes["experiment"], done.assignment, logs["experiment"], seed=seed)
    busy = done.params.fleets[0].kv_limit
    return _Made(rows, found, spec_text(world, log=log, truth=truth, days=days, busy=busy, energy_model=ENERGY_MODEL))


def _routed(world: World, base: Trace, *, seed: int, days: float, requests: int, log: str, truth: str) -> _Made:
    """A live router; the truth is the effect of its action on each request."""
    workload, found, params = routed_files.routed(world, base, days=days, requests=requests, seed=seed)
    values = routed_files.outcomes(found, params)
    if world.explore is not None:
        return _Made(
            routed_files.log_of(world, workload, found, values),
            explored.truth(workload, found, values, params),
            explored.spec_of(world, log=log, truth=truth, days=days),
        )
    return _Made(
        routed_files.log_of(world, workload, found, values),
        routed_files.truth(found, values, params),
        routed_files.spec_of(world, log=log, truth=truth, days=days),
    )
