"""A short, seeded version of benchmarks/calibration.py: the same worlds, fewer experiments."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest


def _load() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "calibration.py"
    spec = importlib.util.spec_from_file_location("calibration_worlds", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


calibration = _load()
EXPERIMENTS = 300
# Three Monte Carlo standard errors of a share of 5 %.
BAND = 3 * math.sqrt(0.05 * 0.95 / EXPERIMENTS)


@pytest.mark.parametrize("world", calibration.WORLDS, ids=lambda world: world.name)
def test_false_positives_and_coverage_are_nominal(world: calibration.World) -> None:  # type: ignore[name-defined]
    null = calibration.measure(world, 0.0, EXPERIMENTS, seed=1)
    real = calibration.measure(world, world.effect, EXPERIMENTS, seed=2)
    assert null.refused <= 0.15
    assert null.rejected == pytest.approx(0.05, abs=BAND)
    assert real.coverage == pytest.approx(0.95, abs=BAND)
    assert abs(real.bias_over_error) < 4


@pytest.mark.slow
@pytest.mark.parametrize("world", calibration.WORLDS, ids=lambda world: world.name)
def test_false_positives_stay_nominal_in_a_long_study(world: calibration.World) -> None:  # type: ignore[name-defined]
    null = calibration.measure(world, 0.0, 5000, seed=3)
    # The outer interval of a far quantile is conservative; nothing may reject more often than it says.
    assert 0.02 < null.rejected < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 5000)
