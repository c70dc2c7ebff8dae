"""A short, seeded version of benchmarks/sequential.py: the same worlds, fewer experiments."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="module")
def study() -> Any:
    path = Path(__file__).parents[2] / "benchmarks" / "sequential.py"
    found = importlib.util.spec_from_file_location("sequential_study", path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module
    found.loader.exec_module(module)
    return module


@pytest.mark.parametrize("world", ["unit, normal", "log-normal, sigma 2", "ratio", "clusters, 6 to 100"])
def test_a_hundred_looks_keep_the_error_rate_that_fixed_intervals_lose(study: Any, world: str) -> None:
    (found,) = [w for w in study.WORLDS if world in w.name]
    _, ever, fixed, _, _ = study.run(found, np.random.default_rng(3), 150)
    assert ever <= 0.05
    assert fixed > 0.2


@pytest.mark.parametrize("together", [False, True])
def test_so_do_the_blocks_of_a_switchback(study: Any, together: bool) -> None:
    world = study.World("", study.blocks(7, together), 50.0)
    _, ever, fixed, _, width = study.run(world, np.random.default_rng(4), 20)
    assert ever <= 0.05
    assert fixed > 0.1
    assert width > 1.3


def test_the_sample_ratio_keeps_its_level_at_every_look(study: Any) -> None:
    sequential, chi_square = study.sample_ratio(np.random.default_rng(5), 600, 0.5, 0.05)
    assert sequential <= 0.05
    assert chi_square > 0.2
