"""The system: in every region a standard and a premium fleet, a router, and clients that time out and try again.

Regions share nothing. Policy *current* sends all eligible traffic to the standard fleet; policy *premium* sends
latency-sensitive short requests to the premium fleet while the region's memory in flight is below a bound. Reserved
workspaces are served by the premium fleet under both. A request reaches its fleet a moment after the decision; if the
premium fleet filled up in between, it falls back.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np

from readout.simulate.arrivals import Bools, Floats, Ints, Workload
from readout.simulate.fleet import NEVER, Fleet, FleetParams

CURRENT, PREMIUM, RESERVED = 0, 1, 2  # actions
STANDARD_FLEET, PREMIUM_FLEET = 0, 1


@dataclass(frozen=True, slots=True)
class SystemParams:
    """Both fleets of a region, the premium router's rule and the clients' patience.

    Attributes:
        fleets: Standard and premium fleet.
        sensitive_tiers: Codes of the tiers that policy *premium* routes.
        max_prompt: Longest prompt that it routes.
        max_region_kv: It routes while fewer KV tokens are in flight in the region.
        hop_s: From the decision to the fleet.
        timeout_s: A client gives an attempt up after waiting this long in the queue.
        max_retries: Attempts after the first.
        warm_s: A session's prefix stays in a fleet's own cache this long.
        warm_share: Part of the prompt that a warm prefix saves.
    """

    fleets: tuple[FleetParams, FleetParams]
    sensitive_tiers: tuple[int, ...]
    max_prompt: int
    max_region_kv: int
    hop_s: float
    timeout_s: float
    max_retries: int
    warm_s: float
    warm_share: float


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What happened to every request of a workload, in its order.

    Attributes:
        intended, executed: Action codes.
        premium_choice: What policy *premium* would have intended in the state it met, whatever policy was in force.
        fell_back: The premium fleet had filled up on arrival.
        timed_out: At least one attempt was given up.
        retries: Attempts after the first.
        queue_depth, kv_in_flight, cache_warm: The region's state just before the decision.
        queue_depth_after: The region's queue just after the request reached its fleet.
        served: It was admitted in the end; False where the client gave up.
        ttft_s, latency_s: From the decision to the first token and to the end; to giving up where it was not served.
        gpu_s: GPU seconds: the fleet's GPUs times the part of its KV memory the request held, while it held it.
        batch: Batch within its fleet and region, -1 where it was not served.
        start_step: Decode step of its first token, on its fleet's clock.
    """

    intended: Ints
    executed: Ints
    premium_choice: Bools
    fell_back: Bools
    timed_out: Bools
    retries: Ints
    queue_depth: Ints
    kv_in_flight: Ints
    cache_warm: Bools
    queue_depth_after: Ints
    served: Bools
    ttft_s: Floats
    latency_s: Floats
    gpu_s: Floats
    batch: Ints
    start_step: Ints


def run(
    workload: Workload, decoded: Ints, params: SystemParams, premium_arm: Bools, held: Floats | None = None
) -> Outcomes:
    """Run the system over a workload.

    Args:
        decoded: Tokens each request decodes before it ends or fails.
        premium_arm: Whether policy *premium* is in force for a request.
        held: Part of its prompt that the region's prefix store holds; None: there is no store.
    """
    stored = np.zeros(workload.t_s.size) if held is None else held
    n = workload.t_s.size
    out = Outcomes(
        intended=np.zeros(n, np.int64), executed=np.zeros(n, np.int64), premium_choice=np.zeros(n, np.bool_),
        fell_back=np.zeros(n, np.bool_), timed_out=np.zeros(n, np.bool_), retries=np.zeros(n, np.int64),
        queue_depth=np.zeros(n, np.int64), kv_in_flight=np.zeros(n, np.int64), cache_warm=np.zeros(n, np.bool_),
        queue_depth_after=np.zeros(n, np.int64), served=np.zeros(n, np.bool_), ttft_s=np.zeros(n),
        latency_s=np.zeros(n), gpu_s=np.zeros(n), batch=np.full(n, -1, np.int64), start_step=np.zeros(n, np.int64),
    )  # fmt: skip
    for region in np.unique(workload.region).tolist():
        rows = np.flatnonzero(workload.region == region)
        result = _Region(workload, decoded, params, premium_arm, stored, rows).run()
        for name, values in result.items():
            getattr(out, name)[rows] = values
    return out


class _Region:
    """One region's event loop over plain Python lists: indexing them is several times faster than indexing arrays."""

    def __init__(
        self, workload: Workload, decoded: Ints, params: SystemParams, premium_arm: Bools, held: Floats, rows: Ints
    ) -> None:
        n = rows.size
        self.params = params
        self.fleets = (Fleet(params.fleets[0]), Fleet(params.fleets[1]))
        self.t: list[float] = workload.t_s[rows].tolist()
        self.session: list[int] = workload.session[rows].tolist()
        self.prompt: list[int] = workload.prompt[rows].tolist()
        self.tokens: list[int] = (workload.prompt + workload.output)[rows].tolist()
        self.decoded: list[int] = decoded[rows].tolist()
        self.backoff: list[float] = workload.backoff_s[rows].tolist()
        self.reserved: list[bool] = workload.reserved[rows].tolist()
        self.premium_arm: list[bool] = premium_arm[rows].tolist()
        self.held: list[float] = held[rows].tolist()
        routable = np.isin(workload.tier, params.sensitive_tiers) & (workload.prompt <= params.max_prompt)
        self.routable: list[bool] = (routable & ~workload.reserved)[rows].tolist()
        self.inbox: list[tuple[float, int]] = []  # (arrival at the fleet, request)

        self.intended = [CURRENT] * n
        self.executed = [CURRENT] * n
        self.premium_choice = [False] * n
        self.fell_back = [False] * n
        self.timed_out = [False] * n
        self.retries = [0] * n
        self.queue_depth = [0] * n
        self.kv_in_flight = [0] * n
        self.cache_warm = [False] * n
        self.queue_depth_after = [0] * n
        self.served = [False] * n
        self.ttft_s = [0.0] * n
        self.latency_s = [0.0] * n
        self.gpu_s = [0.0] * n
        self.batch = [-1] * n
        self.start_step = [0] * n

    def run(self) -> dict[str, list[int] | list[float] | list[bool]]:
        """Handle all events in the order of time and return the columns of :class:`Outcomes`."""
        standard, premium = self.fleets
        arrivals, inbox = self.t, self.inbox
        n, i = len(arrivals), 0
        while True:
            arrival = arrivals[i] if i < n else NEVER
            delivery = inbox[0][0] if inbox else NEVER
            external = arrival if arrival < delivery else delivery
            fleet = standard if standard.next_t <= premium.next_t else premium
            if fleet.next_t <= external:
                if fleet.next_t == NEVER:
                    break
                self._step(fleet)
            elif arrival < delivery:
                self._decide(i)
                i += 1
            else:
                self._deliver(*heappop(inbox))
        names = Outcomes.__dataclass_fields__
        return {name: getattr(self, name) for name in names}

    def _decide(self, i: int) -> None:
        """Log the state and choose a route."""
        standard, premium = self.fleets
        t = self.t[i]
        kv = standard.kv + premium.kv
        self.queue_depth[i] = len(standard.queue) + len(premium.queue)
        self.kv_in_flight[i] = kv
        seen = standard.seen.get(self.session[i], -NEVER) >= t - self.params.warm_s
        self.cache_warm[i] = seen or self.held[i] > 0.0
        choice = self.routable[i] and kv < self.params.max_region_kv
        self.premium_choice[i] = choice
        if self.reserved[i]:
            self.intended[i] = RESERVED
        elif choice and self.premium_arm[i]:
            self.intended[i] = PREMIUM
        heappush(self.inbox, (t + self.params.hop_s, i))

    def _deliver(self, t: float, i: int) -> None:
        """A request, or its retry, reaches the fleet."""
        standard, premium = self.fleets
        action = self.intended[i]
        if self.retries[i] == 0:
            if action == PREMIUM and not premium.has_room(self.tokens[i]):
                action = CURRENT
                self.fell_back[i] = True
            self.executed[i] = action
        fleet = standard if self.executed[i] == CURRENT else premium
        fleet.advance(t)
        fleet.queue.append((i, self.tokens[i], t + self.params.timeout_s))
        self._admit(fleet)
        if self.retries[i] == 0:
            self.queue_depth_after[i] = len(standard.queue) + len(premium.queue)

    def _admit(self, fleet: Fleet) -> None:
        """Start everything that fits, in order of arrival."""
        while fleet.admissible():
            i, tokens, _ = fleet.queue.popleft()
            prompt, saved = self.prompt[i], self.held[i]
            if fleet.seen.get(self.session[i], -NEVER) >= fleet.t - self.params.warm_s:
                saved = max(saved, self.params.warm_share)
            if saved:
                prompt = max(1, int(prompt * (1.0 - saved)))
            self.batch[i] = fleet.admit(i, tokens, prompt)
            self.gpu_s[i] = -fleet.t
        fleet.settle()

    def _step(self, fleet: Fleet) -> None:
        """A first token, an end, or the head of the queue giving up."""
        t = fleet.next_t
        fleet.advance(t)
        if fleet.queue and fleet.queue[0][2] <= t:
            self._give_up(fleet, t)
        else:
            _, i, is_first = fleet.heap[0]
            if is_first:
                fleet.first_token(i, self.decoded[i])
                self.ttft_s[i] = t - self.t[i]
                self.start_step[i] = round(fleet.v)
                fleet.settle()
                return
            fleet.finish(self.tokens[i])
            self.served[i] = True
            self.latency_s[i] = t - self.t[i]
            self.gpu_s[i] = (self.gpu_s[i] + t) * fleet.gpus_per_token * self.tokens[i]
            fleet.seen[self.session[i]] = t
        self._admit(fleet)

    def _give_up(self, fleet: Fleet, t: float) -> None:
        """The client cancels a waiting attempt and, if it has one left, sends the request to the same fleet again."""
        i = fleet.queue.popleft()[0]
        self.timed_out[i] = True
        if self.retries[i] < self.params.max_retries:
            self.retries[i] += 1
            heappush(self.inbox, (t + self.backoff[i], i))
        else:
            self.ttft_s[i] = self.latency_s[i] = t - self.t[i]
