"""Cells in few words: where all cells of a wider part are alike, the part is named, not each of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

from readout.samples.policy_cells import Part, Tried
from readout.samples.state_cells import Cells

EVERYWHERE = "everywhere"
# Parts of up to so many columns are tried before cells are named one by one.
WIDEST = 3

Fixed = tuple[tuple[int, int | None], ...]


@dataclass(frozen=True, slots=True)
class Statement:
    """A part of the states in which all cells are alike.

    Attributes:
        where: In words.
        action: Code.
        mass: The target's requests in it.
        tries: Times that the action was logged there.
    """

    where: str
    action: int
    mass: float
    tries: float


def statements(cells: Cells, found: Sequence[Tried], everything: Iterable[Tried]) -> list[Statement]:
    """The cells ``found`` among all that the target reaches, in as few parts as describe them; the largest first."""
    known = list(everything)
    lines: list[Statement] = []
    for action in sorted({one.action for one in found}):
        mine = {one.parts: one for one in found if one.action == action}
        others = {one.parts for one in known} - set(mine)
        fixed = _covers(len(cells.axes), mine, others)
        lines += _worded(cells, action, fixed)
    return sorted(lines, key=lambda line: (-line.mass, line.where))


def _covers(axes: int, mine: dict[Part, Tried], others: set[Part]) -> list[tuple[Fixed, float, float]]:
    """Parts that hold cells of ``mine`` and none of ``others``, the widest first, each cell once."""
    left = dict(mine)
    found: list[tuple[Fixed, float, float]] = []
    for width in (*range(min(WIDEST, axes) + 1), axes):
        for columns in combinations(range(axes), width):
            spoilt = {tuple(parts[c] for c in columns) for parts in others}
            groups: dict[Part, list[Tried]] = {}
            for parts, one in left.items():
                key = tuple(parts[c] for c in columns)
                if key not in spoilt:
                    groups.setdefault(key, []).append(one)
            for key, held in groups.items():
                fixed = tuple(zip(columns, key, strict=True))
                found.append((fixed, sum(one.mass for one in held), sum(one.tries for one in held)))
                for one in held:
                    left.pop(one.parts, None)
        if not left:
            break
    return found


def _worded(cells: Cells, action: int, parts: list[tuple[Fixed, float, float]]) -> list[Statement]:
    """Parts that differ in one numeric column by neighbouring ranges are one."""
    lines: list[Statement] = []
    joined: dict[tuple[Fixed, int], list[tuple[int, float, float]]] = {}
    for fixed, mass, tries in parts:
        ranged = next(((c, p) for c, p in fixed if cells.axes[c].cuts and p is not None), None)
        if ranged is None:
            lines.append(Statement(_where(cells, fixed, None), action, mass, tries))
            continue
        rest = tuple(pair for pair in fixed if pair[0] != ranged[0])
        assert ranged[1] is not None
        joined.setdefault((rest, ranged[0]), []).append((ranged[1], mass, tries))
    for (rest, column), held in joined.items():
        held.sort()
        start = 0
        for i in range(1, len(held) + 1):
            if i < len(held) and held[i][0] == held[i - 1][0] + 1:
                continue
            run = held[start:i]
            span = (column, run[0][0], run[-1][0])
            where = _where(cells, rest, span)
            lines.append(Statement(where, action, sum(r[1] for r in run), sum(r[2] for r in run)))
            start = i
    return lines


def _where(cells: Cells, fixed: Fixed, span: tuple[int, int, int] | None) -> str:
    """The part in words, columns in the cells' order."""
    words = {column: cells.axes[column].said(part) for column, part in fixed}
    if span is not None:
        words[span[0]] = cells.axes[span[0]].span(span[1], span[2])
    return ", ".join(words[column] for column in sorted(words)) or EVERYWHERE
