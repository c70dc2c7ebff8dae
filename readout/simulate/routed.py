"""A live router without an experiment: it sends a request to the premium pool the likelier, the fewer are waiting.

In every region a standard and a premium pool of slots serve first come, first served; a request holds a slot while its
prompt is read and its answer written. What a request would wait in either pool follows from those that came before it,
so both of its outcomes are known, with everything before it as it was and the same chance draws: the workload of Kiefer
and Wolfowitz (1955), *On the theory of queues with many servers*. The true effect of the action is the mean of their
difference over requests. Chance decides the route given tier and queue depth, and nothing else does, so these two are
what there is to adjust for.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from heapq import heapreplace

import numpy as np

from readout.simulate.arrivals import WAVE_REQUESTS, WAVE_S, Bools, Floats, Ints, Trace, Workload

STANDARD, PREMIUM = 0, 1
_CHUNK = 512  # prompt tokens read at once
_CHUNK_STEPS = 20.0  # and the time that it takes, in decode steps


@dataclass(frozen=True, slots=True)
class RoutedParams:
    """Both pools of a region, the router and the clients' patience.

    Attributes:
        slots: Requests that the standard and the premium pool serve at once.
        pace: Time that a token takes in either pool, against the standard one.
        usd_per_slot_hour: Price of a slot in either pool.
        token_s: Time of a decode step in the standard pool.
        hop_s: From the decision to the pool.
        timeout_s: A client gives up after waiting this long.
        warm_s, warm_share: A session's prefix stays in the region's cache so long, and saves this part of the prompt.
        tier_logit: Log odds of the premium pool with nobody waiting, by tier.
        per_waiting: Added to the log odds by every request that waits.
        explore: Share of requests on which either pool is as likely; on the others tiers above the lowest go to the
            premium pool while fewer than ``short`` wait. None: the log odds decide.
    """

    slots: tuple[int, int]
    pace: tuple[float, float]
    usd_per_slot_hour: tuple[float, float]
    token_s: float
    hop_s: float
    timeout_s: float
    warm_s: float
    warm_share: float
    tier_logit: tuple[float, float, float]
    per_waiting: float
    explore: float | None = None
    short: int = 3


@dataclass(frozen=True, slots=True)
class Routed:
    """What was logged of every request, and what it would have met in either pool; ``(rows,)`` or ``(rows, 2)``.

    Attributes:
        action: Pool that served it.
        propensity: The router's probability of the premium pool.
        queue_depth, active: Requests waiting and in service in the region just before the decision.
        warm: The session's prefix is in the region's cache.
        queue_depth_after: Requests waiting just after this one reached its pool.
        ttft_s, latency_s: By pool; to giving up where the client did.
        timed_out, success: By pool.
        slot_s: Time in a slot by pool.
    """

    action: Ints
    propensity: Floats
    queue_depth: Ints
    active: Ints
    warm: Bools
    queue_depth_after: Ints
    ttft_s: Floats
    latency_s: Floats
    timed_out: Bools
    success: Bools
    slot_s: Floats


def params_for(trace: Trace, load: float, explore: float | None = None) -> RoutedParams:
    """Pools fit for a trace: at their decode step a wave of mean density brings ``load`` times what they can serve."""
    slots, pace = (2, 2), (1.0, 0.85)
    steps = float((_CHUNK_STEPS * np.ceil(trace.prompt / _CHUNK) + trace.output).mean())
    capacity = slots[0] / pace[0] + slots[1] / pace[1]
    return RoutedParams(
        slots=slots,
        pace=pace,
        usd_per_slot_hour=(2.0, 3.0),
        token_s=load * capacity * WAVE_S / (WAVE_REQUESTS * steps),
        hop_s=0.25,
        timeout_s=15.0,
        warm_s=300.0,
        warm_share=0.5,
        tier_logit=(0.3, 0.7, 1.1),
        per_waiting=-0.25,
        explore=explore,
    )


def route(workload: Workload, params: RoutedParams, *, seed: int) -> Routed:
    """Run the router over a workload; its draws come from ``seed``."""
    n = workload.t_s.size
    coin = np.random.default_rng([seed, 9]).random(n)
    out = Routed(
        action=np.zeros(n, np.int64), propensity=np.zeros(n), queue_depth=np.zeros(n, np.int64),
        active=np.zeros(n, np.int64), warm=_warm(workload, params.warm_s), queue_depth_after=np.zeros(n, np.int64),
        ttft_s=np.zeros((n, 2)), latency_s=np.zeros((n, 2)), timed_out=np.zeros((n, 2), np.bool_),
        success=np.zeros((n, 2), np.bool_), slot_s=np.zeros((n, 2)),
    )  # fmt: skip
    reading, writing = _service(workload, out.warm, params)
    wait = np.zeros((n, 2))
    logit = np.array(params.tier_logit)[workload.tier]
    for region in np.unique(workload.region).tolist():
        rows = np.flatnonzero(workload.region == region)
        pools = _Pool(params.slots[STANDARD]), _Pool(params.slots[PREMIUM])
        holds = (reading + writing)[rows]
        for i, row in enumerate(rows.tolist()):
            t = float(workload.t_s[row])
            waiting = [pool.waiting(t) for pool in pools]
            queue = sum(waiting)
            if params.explore is None:
                p = 1.0 / (1.0 + np.exp(-(logit[row] + params.per_waiting * queue)))
            else:
                rule = workload.tier[row] > 0 and queue < params.short
                p = 0.5 * params.explore + (1.0 - params.explore) * float(rule)
            action = PREMIUM if coin[row] < p else STANDARD
            out.action[row], out.propensity[row], out.queue_depth[row] = action, p, queue
            out.active[row] = sum(pool.active(t) for pool in pools)
            wait[row] = [pool.wait(t) for pool in pools]
            joined = wait[row, action] > 0.0
            out.queue_depth_after[row] = queue + int(joined)
            pools[action].take(t, params.timeout_s, float(holds[i, action]))
    gave_up = wait > params.timeout_s
    out.timed_out[:] = gave_up
    out.success[:] = ~gave_up & (workload.runs_to >= 1.0)[:, None]
    seen = params.hop_s + np.minimum(wait, params.timeout_s)
    out.ttft_s[:] = np.where(gave_up, seen, seen + reading)
    out.latency_s[:] = np.where(gave_up, seen, seen + reading + writing)
    out.slot_s[:] = np.where(gave_up, 0.0, reading + writing)
    return out


class _Pool:
    """Slots that serve first come, first served; times must not go back."""

    def __init__(self, slots: int) -> None:
        self.free_at = [0.0] * slots  # a heap
        self.leaves_queue: deque[float] = deque()  # never falls

    def waiting(self, t: float) -> int:
        while self.leaves_queue and self.leaves_queue[0] <= t:
            self.leaves_queue.popleft()
        return len(self.leaves_queue)

    def active(self, t: float) -> int:
        return sum(end > t for end in self.free_at)

    def wait(self, t: float) -> float:
        return max(self.free_at[0] - t, 0.0)

    def take(self, t: float, patience: float, holds: float) -> None:
        wait = self.wait(t)
        self.leaves_queue.append(t + min(wait, patience))
        if wait <= patience:
            heapreplace(self.free_at, t + wait + holds)


def _warm(workload: Workload, warm_s: float) -> Bools:
    """Whether a request's session asked within the last ``warm_s`` seconds."""
    order = np.lexsort((workload.t_s, workload.session))
    session, t = workload.session[order], workload.t_s[order]
    warm = np.zeros(t.size, np.bool_)
    warm[1:] = (session[1:] == session[:-1]) & (t[1:] - t[:-1] <= warm_s)
    found = np.empty_like(warm)
    found[order] = warm
    return found


def _service(workload: Workload, warm: Bools, params: RoutedParams) -> tuple[Floats, Floats]:
    """Seconds that reading the prompt and writing the answer take in either pool, (rows, 2) each."""
    prompt = workload.prompt * np.where(warm, 1.0 - params.warm_share, 1.0)
    reading = _CHUNK_STEPS * np.ceil(prompt / _CHUNK) * params.token_s
    writing = np.maximum(np.ceil(workload.output * workload.runs_to), 1.0) * params.token_s
    pace = np.array(params.pace)
    return reading[:, None] * pace, writing[:, None] * pace
