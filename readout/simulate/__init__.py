"""Logs of a simulated shared-compute system whose true effects are known."""

from __future__ import annotations

import difflib
import math
from pathlib import Path

__all__ = ["WORLD_NAMES", "simulate"]

WORLD_NAMES = (
    "router_switchback", "router_rct", "router_rollout", "router_cache", "routed_users", "routed_users_unlogged",
    "router_explored",
)  # fmt: skip
ENERGY_MODEL = "h100_dense_70b"


def simulate(
    world: str,
    out: Path,
    *,
    seed: int = 0,
    trace: Path | None = None,
    days: float | None = None,
    requests: int | None = None,
    name: str | None = None,
) -> Path:
    """Simulate a world and write its log, its truth and a spec that is ready to run.

    The same requests, with the same tokens and the same chance draws, meet policy *current* everywhere, policy
    *premium* everywhere, and the world's experiment between them; the log is the experiment's, the truth is the
    difference of the other two. In the worlds ``routed_users`` nothing is assigned: the truth is the effect of the
    action on each request, in the state that it met. In ``router_explored`` the router draws its action and logs with
    what chance; the truth is what policies are worth on the requests, each in the state that it met.

    Args:
        world: One of :data:`WORLD_NAMES`.
        out: Folder for the files; made where it is missing.
        seed: Fixes every draw. The same arguments give the same log.
        trace: Parquet file with real arrivals and token counts; without it a synthetic trace is drawn from the seed.
        days: Length of the log; whole days keep its calendar balanced. The world's own by default.
        requests: Mean number of requests. The world's own by default.
        name: Stem of the files: ``<name>.parquet``, ``<name>.json`` and ``<name>.yaml``. By default they are
            ``logs.parquet``, ``truth.json`` and ``spec.yaml``.

    Returns:
        The path of the spec.

    Raises:
        SpecError: An unknown world, an impossible size, a trace that cannot be replayed, or a folder that cannot be
            written.
    """
    from readout.errors import Problem, SpecError
    from readout.simulate.study import study
    from readout.simulate.worlds import WORLDS

    if world not in WORLDS:
        near = difflib.get_close_matches(world, WORLDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"the worlds are: {', '.join(WORLDS)}"
        raise SpecError([Problem("WORLD", f"no such world: {world!r}", hint)])
    days = WORLDS[world].days if days is None else days
    requests = WORLDS[world].requests if requests is None else requests
    problems = []
    if not (math.isfinite(days) and 1.0 <= days <= 366.0):
        problems.append(Problem("--days", f"expected between 1 and 366 days, got {days:g}"))
    if not 1_000 <= requests <= 20_000_000:
        problems.append(Problem("--requests", f"expected between 1,000 and 20,000,000 requests, got {requests:,}"))
    if seed < 0:
        problems.append(Problem("--seed", f"expected 0 or more, got {seed}"))
    if problems:
        raise SpecError(problems)
    return study(WORLDS[world], out, seed=seed, trace=trace, days=days, requests=requests, name=name)
