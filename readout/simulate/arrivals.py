"""Who asks, when, and for how much: the workload that every policy of one simulation meets.

Requests come in *waves*: short pulses (a scheduled job, a class that starts, an agent that fans out) in one region. A
wave is a slice of a base trace, real or synthetic, replayed at the trace's own speed. To hit a target number of
requests the trace is thinned by whole slices, so that the burstiness inside a slice (what fills a queue) stays, while
day, night and weekday decide how many slices a region replays and how dense they are. Thinning request by request over
the whole span would leave a smooth trickle and no queue. Slices are short against a block of hours, so queues drain
within a minute or so and the policy of one block leaves little to the next.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

REGIONS = ("us-east", "us-west", "eu-west", "ap-south", "eu-north", "ap-east", "sa-east", "us-central")
_PEAK_HOUR_UTC = (19.0, 22.0, 14.0, 9.0, 13.0, 6.0, 17.0, 20.0)  # early afternoon, local time
_REGION_WEIGHT = (1.3, 1.0, 1.1, 0.8, 0.9, 0.9, 0.8, 1.0)
TIERS = ("free", "pro", "enterprise")
_TIER_SHARE = (0.55, 0.33, 0.12)
MODELS = ("atlas-70b", "atlas-70b-tools")

CONTEXT_WINDOW = 8192  # tokens, synthetic trace
WAVE_S = 8.0  # length of a slice, seconds
WAVE_REQUESTS = 10.0  # mean requests of a slice
SLOT_S = 20.0  # a region replays one slice in so many seconds, or none
_PER_WORKSPACE = 40  # mean requests of a workspace over the whole log
_PER_SESSION = 2.5
_ENGINE_ERROR = 0.003


class CrowdedError(ValueError):
    """More requests are asked for than the span holds; ``most`` says how many it does."""

    def __init__(self, most: int) -> None:
        self.most = most
        super().__init__(f"at most {most} requests fit")


@dataclass(frozen=True, slots=True)
class Trace:
    """A base trace, sorted by time.

    Attributes:
        t_s: Arrival, seconds from the trace's start.
        prompt, output: Tokens, at least 1 each.
        name: For the record.
    """

    t_s: Floats
    prompt: Ints
    output: Ints
    name: str


@dataclass(frozen=True, slots=True)
class Workload:
    """All requests of a simulation, sorted by time; one entry per request unless said otherwise.

    Attributes:
        t_s: Seconds from the start of the log.
        region, workspace, session, tier, model: Integer codes.
        reserved: Workspace with a reservation on the premium fleet: outside every experiment.
        prompt, output: Tokens.
        runs_to: Fraction of the output after which the engine fails; 1 where it does not (a latent draw, alike under
            every policy).
        backoff_s: Pause of the client before a retry (latent draw).
        n_workspaces: Number of workspaces, those without a request included.
        wave_rate: Mean arrivals per second inside a wave of mean density.
    """

    t_s: Floats
    region: Ints
    workspace: Ints
    session: Ints
    tier: Ints
    model: Ints
    reserved: Bools
    prompt: Ints
    output: Ints
    runs_to: Floats
    backoff_s: Floats
    n_workspaces: int
    wave_rate: float


def synthetic_trace(rng: np.random.Generator, hours: float = 6.0, rate: float = 5.5) -> Trace:
    """A base trace in the likeness of a chat service: uneven arrivals, heavy-tailed tokens inside the context window.

    The rate wanders by the minute (gamma with shape 20); prompts mix a lognormal body with a Pareto tail of long
    documents; outputs are lognormal. Prompt plus output never exceeds the context window.
    """
    minutes = int(hours * 60)
    per_minute = rng.poisson(60.0 * rate * rng.gamma(20.0, 0.05, minutes))
    t_s = np.sort(np.repeat(np.arange(minutes) * 60.0, per_minute) + rng.uniform(0.0, 60.0, int(per_minute.sum())))
    n = t_s.size
    prompt = rng.lognormal(6.5, 0.7, n)
    long = rng.random(n) < 0.05
    prompt[long] = 1500.0 * (1.0 + rng.pareto(1.8, int(long.sum())))
    output = np.clip(rng.lognormal(5.1, 0.6, n), 4.0, 1200.0).astype(np.int64)
    prompt_tokens = np.clip(prompt, 8.0, CONTEXT_WINDOW - output).astype(np.int64)
    return Trace(t_s, prompt_tokens, output, "synthetic")


def activity(hours: Floats, region: int) -> Floats:
    """Relative demand in (0, 1] of a region at hours since a Monday 00:00 UTC: one peak a day, quieter weekends."""
    local = 2.0 * np.pi * (hours - _PEAK_HOUR_UTC[region % len(REGIONS)]) / 24.0
    weekend = (hours // 24.0) % 7.0 >= 5.0
    demand: Floats = (0.25 + 0.75 * (0.5 + 0.5 * np.cos(local))) * np.where(weekend, 0.6, 1.0)
    return demand


def draw_workload(trace: Trace, *, requests: int, days: float, regions: int, seed: int) -> Workload:
    """Replay slices of ``trace`` until about ``requests`` requests stand in ``days`` days over ``regions`` regions.

    Every draw comes from ``seed``; the number of requests is random, with ``requests`` as its mean.

    Raises:
        CrowdedError: The busiest slots would have to hold more than one slice.
    """
    rng = np.random.default_rng([seed, 1])
    start_s, region, density = _waves(rng, trace, requests, days, regions)
    t_s, source, wave = _replay(rng, trace, start_s, density)
    inside = t_s < days * 86400.0
    t_s, source, wave = t_s[inside], source[inside], wave[inside]
    order = np.argsort(t_s, kind="stable")
    t_s, source, wave = t_s[order], source[order], wave[order]
    session, workspace, population = _sessions(np.random.default_rng([seed, 2]), wave, region, requests, regions)
    latent = np.random.default_rng([seed, 3])
    n = t_s.size
    runs_to = np.where(latent.random(n) < _ENGINE_ERROR, latent.uniform(0.05, 0.95, n), 1.0)
    return Workload(
        t_s=t_s,
        region=region[wave],
        workspace=workspace,
        session=session,
        tier=population.tier[workspace],
        model=(latent.random(n) < 0.2).astype(np.int64),
        reserved=population.reserved[workspace],
        prompt=trace.prompt[source],
        output=trace.output[source],
        runs_to=runs_to,
        backoff_s=latent.uniform(0.5, 2.0, n),
        n_workspaces=population.tier.size,
        wave_rate=WAVE_REQUESTS / WAVE_S,
    )


def _waves(
    rng: np.random.Generator, trace: Trace, requests: int, days: float, regions: int
) -> tuple[Floats, Ints, Floats]:
    """Start (s), region and density (share of the trace's requests kept) of every wave; at most one a slot."""
    slots = int(days * 86400.0 // SLOT_S)
    hours: Floats = np.arange(slots, dtype=np.float64) * (SLOT_S / 3600.0)
    demand = np.stack([activity(hours, r) for r in range(regions)])
    relative = 0.8 + 0.35 * demand  # a wave by day is denser than one by night
    weight = (demand * np.array([[_REGION_WEIGHT[r % len(REGIONS)]] for r in range(regions)])).ravel()
    per_wave = WAVE_REQUESTS * float((weight * relative.ravel()).sum() / weight.sum())
    keep = weight * (requests / per_wave / weight.sum())
    if keep.max() > 1.0:
        raise CrowdedError(int(requests / keep.max()))
    slot = np.flatnonzero(rng.random(weight.size) < keep)
    region, position = np.divmod(slot, slots)
    start_s = (position + rng.random(slot.size) * (1.0 - WAVE_S / SLOT_S)) * SLOT_S
    at_full = trace.t_s.size / float(trace.t_s[-1] - trace.t_s[0]) * WAVE_S
    density = np.minimum(WAVE_REQUESTS / at_full * relative.ravel()[slot], 1.0)
    return start_s, region.astype(np.int64), density


def _replay(rng: np.random.Generator, trace: Trace, start_s: Floats, density: Floats) -> tuple[Floats, Ints, Ints]:
    """Arrival (s), index into the trace and wave of every request kept.

    Of a slice every ``1 / density``-th request is kept from a random start: thinning by a coin for every request would
    add a noise of its own to the number that arrives together.
    """
    span = float(trace.t_s[-1])
    offset = rng.uniform(0.0, max(span - WAVE_S, 1e-9), start_s.size)
    first = np.searchsorted(trace.t_s, offset)
    count = np.searchsorted(trace.t_s, offset + WAVE_S) - first
    wave = np.repeat(np.arange(start_s.size), count)
    position = np.arange(wave.size) - np.repeat(np.cumsum(count) - count, count)
    source = position + first[wave]
    phase = rng.random(start_s.size)[wave]
    keep = np.floor((position + 1) * density[wave] + phase) > np.floor(position * density[wave] + phase)
    wave, source = wave[keep], source[keep]
    jitter = rng.uniform(0.0, 0.05, wave.size)
    t_s = start_s[wave] + (trace.t_s[source] - offset[wave]) + jitter
    return t_s, source.astype(np.int64), wave.astype(np.int64)


@dataclass(frozen=True, slots=True)
class _Population:
    tier: Ints
    reserved: Bools


def _sessions(
    rng: np.random.Generator, wave: Ints, wave_region: Ints, requests: int, regions: int
) -> tuple[Ints, Ints, _Population]:
    """Session and workspace of every request. A workspace lives in one region; its activity is heavy-tailed."""
    size = max(12 * regions, requests // _PER_WORKSPACE)
    home = np.arange(size) % regions
    tier = rng.choice(len(TIERS), size=size, p=_TIER_SHARE)
    reserved = (tier == 2) & (rng.random(size) < 0.4)
    weight = np.minimum(rng.lognormal(0.0, 1.0, size), 8.0) * np.where(tier == 2, 1.8, 1.0)

    per_wave = np.bincount(wave, minlength=wave_region.size)
    slots = np.maximum(np.ceil(per_wave / _PER_SESSION), 1.0)
    slot = np.floor(rng.random(wave.size) * slots[wave]).astype(np.int64)
    key, session = np.unique(wave * (int(slots.max()) + 1) + slot, return_inverse=True)
    session_region = wave_region[key // (int(slots.max()) + 1)]

    pick = rng.random(key.size)
    session_workspace = np.empty(key.size, dtype=np.int64)
    for region in range(regions):
        here = np.flatnonzero(home == region)
        mine = session_region == region
        cumulative = np.cumsum(weight[here])
        session_workspace[mine] = here[np.searchsorted(cumulative, pick[mine] * cumulative[-1], side="right")]
    return session.astype(np.int64), session_workspace[session], _Population(tier.astype(np.int64), reserved)
