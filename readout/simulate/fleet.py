"""One fleet: replicas behind one queue that decode in a continuous batch.

Time inside a fleet is counted in *decode steps*. All active requests advance one step together, so with ``n`` active,
``m`` of them still reading their prompt, a step lasts ``base + slope n + prefill m`` seconds (processor sharing; Yu et
al., Orca, OSDI 2022; chunked prefill: Agrawal et al., Sarathi-Serve, OSDI 2024). A request admitted at step ``v`` shows
its first token after ``ceil(prompt / chunk)`` steps and ends ``output`` steps later, so one heap of step numbers orders
all events and no request is touched in between.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from heapq import heappop, heappush

NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class FleetParams:
    """What a fleet can do.

    Attributes:
        step_base_s, step_per_request_s: Decode step time: base, and per active request.
        step_per_prefill_s: Added to a step by every request that reads a chunk of its prompt in it.
        chunk: Prompt tokens read in one step.
        kv_limit: KV-cache memory in tokens; a request holds prompt plus output from admission to its end.
        max_batch: Most requests active at once.
        gpus: GPUs of the fleet; a request answers for them in proportion to the memory it holds.
        usd_per_gpu_hour: Price of one.
    """

    step_base_s: float
    step_per_request_s: float
    step_per_prefill_s: float
    chunk: int
    kv_limit: int
    max_batch: int
    gpus: int
    usd_per_gpu_hour: float


class Fleet:
    """State of a fleet at time ``t``; ``next_t`` is when it next needs :meth:`step`.

    The caller must :meth:`advance` to a time before it changes anything at that time, and call :meth:`settle` after.
    """

    __slots__ = (
        "batch", "batch_size", "busy", "gpus_per_token", "heap", "kv", "kv_limit", "max_batch", "next_t", "params",
        "prefilling", "queue", "seen", "step_s", "t", "v",
    )  # fmt: skip

    MAX_BATCH_ROWS = 200

    def __init__(self, params: FleetParams) -> None:
        self.params = params
        self.kv_limit = params.kv_limit
        self.max_batch = params.max_batch
        self.gpus_per_token = params.gpus / params.kv_limit
        self.t = 0.0
        self.v = 0.0  # decode steps done
        self.step_s = params.step_base_s
        self.busy = 0  # active requests, those in prefill included
        self.prefilling = 0
        self.kv = 0
        self.heap: list[tuple[float, int, bool]] = []  # (step, request, is it the first token)
        self.queue: deque[tuple[int, int, float]] = deque()  # (request, tokens, deadline)
        self.seen: dict[int, float] = {}  # session -> when its prefix was last in cache
        self.next_t = NEVER
        self.batch = -1
        self.batch_size = 0

    def advance(self, t: float) -> None:
        """Let the fleet run to time ``t``; no event may lie between."""
        if self.busy:
            self.v += (t - self.t) / self.step_s
        self.t = t

    def settle(self) -> None:
        """Recompute the step time and ``next_t`` after a change."""
        params = self.params
        self.step_s = (
            params.step_base_s + params.step_per_request_s * self.busy + params.step_per_prefill_s * self.prefilling
        )
        next_t = self.t + max(self.heap[0][0] - self.v, 0.0) * self.step_s if self.heap else NEVER
        if self.queue and self.queue[0][2] < next_t:
            next_t = self.queue[0][2]
        self.next_t = next_t

    def has_room(self, tokens: int) -> bool:
        """Would a request of this size start at once?"""
        return not self.queue and self.kv + tokens <= self.kv_limit and self.busy < self.max_batch

    def admissible(self) -> bool:
        """May the head of the queue start? (First come, first served: nobody overtakes it.)"""
        return bool(self.queue) and self.kv + self.queue[0][1] <= self.kv_limit and self.busy < self.max_batch

    def admit(self, request: int, tokens: int, prompt: int) -> int:
        """Start a request now; returns its batch, counted from 0 in this fleet.

        A batch is what runs between two idle moments; one of more than ``MAX_BATCH_ROWS`` requests is closed and
        the next request opens a new one.
        """
        if not self.busy or self.batch_size >= self.MAX_BATCH_ROWS:
            self.batch += 1
            self.batch_size = 0
        self.batch_size += 1
        self.busy += 1
        self.prefilling += 1
        self.kv += tokens
        heappush(self.heap, (self.v + -(-prompt // self.params.chunk), request, True))
        return self.batch

    def first_token(self, request: int, output: int) -> None:
        """The head of the heap has read its prompt and decodes from now on."""
        step = heappop(self.heap)[0]
        self.v = max(self.v, step)
        self.prefilling -= 1
        heappush(self.heap, (step + output, request, False))

    def finish(self, tokens: int) -> None:
        """The head of the heap is done and frees its memory."""
        self.v = max(self.v, heappop(self.heap)[0])
        self.busy -= 1
        self.kv -= tokens
