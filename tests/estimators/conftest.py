"""A switchback whose truth is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from estimators.cells import Cells

World = Callable[..., Cells]


def _world(
    seed: int,
    *,
    days: int = 7,
    clusters: int = 3,
    effect: float = 0.0,
    carryover: tuple[float, ...] = (),
    together: bool = False,
    memory: float = 0.0,
    split: float = 0.5,
    arms: np.ndarray | None = None,
) -> Cells:
    """Two-hour blocks over days and clusters, with cluster, hour and weekday effects, AR(1) noise between blocks, and
    ``carryover[j - 1]`` from the arm ``j`` blocks before. ``arms`` is ``(clusters, blocks)``, else coins."""
    rng = np.random.default_rng(seed)
    blocks = 12 * days
    if arms is None:
        arms = (rng.random((1 if together else clusters, blocks)) < split).astype(int)
    arms = np.broadcast_to(arms, (clusters, blocks))
    noise = rng.normal(size=(1 if together else clusters, blocks))
    for i in range(1, blocks):
        noise[:, i] = memory * noise[:, i - 1] + np.sqrt(1 - memory**2) * noise[:, i]
    mean = 10 + effect * arms + noise + (0.3 * rng.normal(size=(clusters, blocks)) if together else 0.0)
    for j, size in enumerate(carryover, 1):
        mean[:, j:] += size * arms[:, :-j]
    cluster, block = np.repeat(np.arange(clusters), blocks), np.tile(np.arange(blocks), clusters)
    hour, weekday = 2 * (block % 12), (block // 12) % 7
    den = rng.integers(50, 150, blocks * clusters).astype(float)
    y = mean.ravel() + 2 * cluster + np.sin(hour / 4) + 0.1 * weekday
    return Cells(y * den, den, arms.ravel(), cluster, block, hour, weekday, tuple(f"c{i}" for i in range(clusters)))


@pytest.fixture(scope="session")
def switchback() -> World:
    return _world
