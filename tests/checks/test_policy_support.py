"""Support by cell: what chance leaves untried, and what it does not."""

from __future__ import annotations

from readout.samples.policy_cells import Tried
from readout.samples.policy_support import judged


def cell(part: int, mass: float, tries: float, chance: float | None, other: int = 0) -> Tried:
    return Tried((part, other), 1, mass, tries, 0.0, None, chance if tries else None)


def test_a_cell_that_is_explored_little_may_be_empty_by_chance() -> None:
    """Ninety requests at 4 % are 3.6 tries: none has a chance of 3 %, however often the action runs elsewhere."""
    usual = [cell(0, 2000, 1300, 0.65), cell(1, 400, 16, 0.04)]
    assert judged([*usual, cell(2, 90, 0, None)]).share == 0.0
    assert judged([*usual, cell(2, 300, 0, None)]).untried
    # Without probabilities, how often it ran elsewhere is all that is known.
    bare = [Tried(one.parts, 1, one.mass, one.tries, 0.0) for one in usual]
    assert judged([*bare, cell(2, 90, 0, None)]).untried


def test_what_is_closed_in_many_small_cells_is_seen_in_all_of_them() -> None:
    """Every cell alone would be empty by chance; a part of one column without any try is not."""
    tried = [cell(0, 40, 4, 0.1, other) for other in range(20)]
    closed = [cell(1, 10, 0, None, other) for other in range(20)]
    found = judged([*tried, *closed])
    assert len(found.untried) == 20
    assert found.share == 0.2


def test_small_cells_are_judged_together_where_no_column_tells_them() -> None:
    """Of 60 cells in which one try each is due, 22 are empty in the mean: 40 have a chance below one in a thousand."""

    def cells(empty: int) -> list[Tried]:
        return [cell(i % 12, 10, 0 if i < empty else 1, 0.1, i % 10) for i in range(60)]

    assert judged(cells(28)).missing == 0.0
    assert 100 < judged(cells(40)).missing < 250
