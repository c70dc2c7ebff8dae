"""A short, seeded version of benchmarks/methods_study.py: every method in one world after another."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.calibration import World, measure
from benchmarks.methods_study import CONSERVATIVE, NOMINAL, Cell, cells, plan

PROMISED = [c for c in cells() if c.promise in (NOMINAL, CONSERVATIVE)]
DEAR = ("randomization", "sequential", "wild", "block_regression", "share")


def one_a_method() -> list[Cell]:
    """Each method once, in a world that the method before it did not have."""
    chosen: dict[str, list[Cell]] = {}
    for cell in PROMISED:
        chosen.setdefault(cell.method, []).append(cell)
    return [mine[i % len(mine)] for i, mine in enumerate(chosen.values())]


def holds(cell: Cell, experiments: int) -> None:
    found = measure(World(cell.method, cell.effect, cell.draw), cell.effect, experiments, seed=5)
    error = math.sqrt(0.05 * 0.95 / experiments)
    assert found.coverage > 0.94 - 4 * error
    if cell.promise == NOMINAL:
        assert found.coverage < 0.96 + 4 * error
    assert abs(found.bias_over_error) < 4.5
    assert found.refused < 0.01


@pytest.mark.parametrize("cell", one_a_method(), ids=lambda cell: f"{cell.method}: {cell.world}")
def test_intervals_cover_as_promised(cell: Cell) -> None:
    holds(cell, 30 if any(name in cell.method for name in DEAR) else 200)


@pytest.mark.slow
@pytest.mark.parametrize("cell", PROMISED, ids=lambda cell: f"{cell.method}: {cell.world}")
def test_intervals_cover_as_promised_in_every_world(cell: Cell) -> None:
    holds(cell, 500)


def test_the_published_page_holds_every_row_of_the_plan() -> None:
    page = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")
    for row in plan().splitlines()[2:]:
        assert row.rstrip("|").strip() in page
