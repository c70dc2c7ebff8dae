"""The worlds: which experiment runs, and fleets sized so that a busy hour is congested and a quiet one is not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from readout.simulate import experiment
from readout.simulate.arrivals import WAVE_REQUESTS, WAVE_S, Trace
from readout.simulate.fleet import FleetParams
from readout.simulate.store import PrefixStore
from readout.simulate.system import SystemParams


@dataclass(frozen=True, slots=True)
class World:
    """A system with an experiment in it.

    Attributes:
        mechanism: How the policy in force is assigned: ``switchback``, ``rct`` or ``rollout``; ``routed``: nothing is
            assigned, a live router decides request by request.
        regions: Regions, each with its own two fleets.
        days, requests: Length and size of the log unless the caller says otherwise.
        block_h, washout_m: Switchback block in hours and washout in minutes, for the spec.
        load: What a wave of mean density brings the standard fleet, as a share of what it can serve.
        store: The regions' prefix store; None: there is none, and queues alone carry over.
        state_logged: Whether the log holds the live state that a live router looks at.
        explore: Share of requests on which a live router draws its action from all alike, and otherwise goes by a rule;
            None: its odds change with tier and queue.
    """

    name: str
    mechanism: str
    regions: int
    days: float
    requests: int
    block_h: float = 2.0
    washout_m: int = 20
    load: float = 1.8
    store: PrefixStore | None = None
    state_logged: bool = True
    explore: float | None = None


def _routed(name: str, *, state_logged: bool) -> World:
    return World(
        name, experiment.ROUTED, regions=4, days=7.0, requests=20_000, load=2.2, state_logged=state_logged
    )  # fmt: skip


WORLDS = {
    "router_switchback": World("router_switchback", experiment.SWITCHBACK, regions=4, days=14.0, requests=120_000),
    "router_rct": World("router_rct", experiment.RCT, regions=4, days=14.0, requests=120_000),
    "router_rollout": World("router_rollout", experiment.ROLLOUT, regions=8, days=28.0, requests=120_000),
    "router_cache": World(
        "router_cache",
        experiment.SWITCHBACK,
        regions=4,
        days=14.0,
        requests=200_000,
        washout_m=90,
        load=0.6,
        store=PrefixStore(turnover_s=5400.0, found_current=0.05, found_premium=0.95, saves=0.9),
    ),
    "routed_users": _routed("routed_users", state_logged=True),
    "routed_users_unlogged": _routed("routed_users_unlogged", state_logged=False),
    "router_explored": World(
        "router_explored", experiment.ROUTED, regions=4, days=7.0, requests=20_000, load=2.2, explore=0.2
    ),
}

# Decode step of a dense 70B model on four H100, as in the energy model h100_dense_70b. The prefill of a chunk is
# 512 tokens at 0.176 J each over four GPUs that draw some 450 W in prefill: about 50 ms.
_STEP_BASE_S, _STEP_PER_REQUEST_S, _STEP_PER_PREFILL_S, _CHUNK = 0.0165, 0.00014, 0.050, 512
_STANDARD_SLOTS, _PREMIUM_SLOTS = 8.0, 5.0  # requests of mean size that fit into the KV memory
_STANDARD_BATCH, _PREMIUM_BATCH = 64, 6  # latency before throughput: few at once
_PREMIUM_SPEED = 0.8  # step time of the premium fleet against the standard one


def system_for(trace: Trace, load: float) -> SystemParams:
    """Fleets fit for a trace: KV memory for its mean request, and a step time at which its waves load them so much.

    Without scaling, a trace of short answers would leave the fleets idle and one of long answers would bury them, and
    no policy could differ from another. The step time is scaled, never the trace.
    """
    size = trace.prompt + trace.output
    mean, largest = float(size.mean()), int(size.max())
    kv = max(int(_STANDARD_SLOTS * mean), largest)
    prefill = np.ceil(trace.prompt / _CHUNK)
    steps = prefill + trace.output
    reading = _STANDARD_SLOTS * float(prefill.mean() / steps.mean())  # of the requests active at once
    step_s = _STEP_BASE_S + _STEP_PER_REQUEST_S * _STANDARD_SLOTS + _STEP_PER_PREFILL_S * reading
    memory = float((size * steps).mean())  # token-steps that a request occupies
    scale = load * kv / (WAVE_REQUESTS / WAVE_S * memory * step_s)

    def fleet(slots: float, speed: float, gpus: int, usd: float, max_batch: int) -> FleetParams:
        return FleetParams(
            step_base_s=_STEP_BASE_S * scale * speed,
            step_per_request_s=_STEP_PER_REQUEST_S * scale * speed,
            step_per_prefill_s=_STEP_PER_PREFILL_S * scale * speed,
            chunk=_CHUNK,
            kv_limit=max(int(slots * mean), largest),
            max_batch=max_batch,
            gpus=gpus,
            usd_per_gpu_hour=usd,
        )

    standard = fleet(_STANDARD_SLOTS, 1.0, 4, 3.0, _STANDARD_BATCH)
    premium = fleet(_PREMIUM_SLOTS, _PREMIUM_SPEED, 2, 3.6, _PREMIUM_BATCH)
    return SystemParams(
        fleets=(standard, premium),
        sensitive_tiers=(1, 2),  # pro and enterprise
        max_prompt=int(np.quantile(trace.prompt, 0.4)),
        max_region_kv=int(0.9 * (standard.kv_limit + premium.kv_limit)),
        hop_s=0.25,
        timeout_s=15.0,
        max_retries=1,
        warm_s=300.0,
        warm_share=0.5,
    )
