"""Markdown tables and lists from cells that are already escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], right: str = "") -> list[str]:
    """Lines of a table; ``right`` holds an ``r`` for every column that is set to the right, any other letter if not."""
    marks = ["---:" if right[i : i + 1] == "r" else "---" for i in range(len(headers))]
    return [_row(headers), _row(marks), *(_row(cells) for cells in rows)]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def bullets(items: Iterable[str]) -> list[str]:
    """Lines of a list."""
    return [f"- {item}" for item in items]


def section(heading: str, *parts: Sequence[str]) -> list[str]:
    """A heading and its parts (each some lines) with empty lines between; nothing where every part is empty."""
    filled = [part for part in parts if part]
    if not filled:
        return []
    lines = [heading]
    for part in filled:
        lines += ["", *part]
    return lines
