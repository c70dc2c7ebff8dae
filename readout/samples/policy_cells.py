"""What was tried in which state: the sums by cell that tell support, and propensities that are right, from the pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from readout.logs import Logs
from readout.logs.frame import proper
from readout.reduce import Table
from readout.samples.state_cells import Cells, parts_of
from readout.samples.target import OTHER, Target

TARGETS, LOGGED = "what the target does by cell", "what was logged by cell"
GROUP, ACTION, CHOSEN, MOVED = "group", "action", "chosen", "moved"
# Units are dealt to so many groups, whose spread tells how sure a mean of inverse propensities is.
GROUPS = 32
# A logged action with this probability leaves none to the others.
CERTAIN = 1.0 - 1e-9

Part = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Tried:
    """What the target asks of a cell, and what the logs hold there.

    Attributes:
        parts: The cell.
        action: Code of the action that the target takes there.
        mass: Requests on which it takes it (expected, where it is a matter of chance).
        tries: Requests among those on which it was logged.
        shut: Part of the mass on which the log says that it had no chance: another action was certain.
        left: Chance that the logged probabilities leave to it on requests where another action ran; None: not logged.
        chance: The action's logged probability in the mean over the cell's requests (over those on which the target
            takes it, where that is certain); None: not logged, or never tried.
    """

    parts: Part
    action: int
    mass: float
    tries: float
    shut: float
    left: float | None = None
    chance: float | None = None


def tables(logs: Logs, cells: Cells, target: Target, rows: pl.Expr, propensity: bool) -> list[Table]:
    """By cell: what the target does, and what was logged with what chance."""
    keys = cells.keys(logs)
    number = pl.col("@propensity").cast(pl.Float64).fill_nan(None)
    sums: dict[str, pl.Expr] = {}
    if propensity:
        sums["inverse"] = pl.when(proper(number)).then(1.0 / number)
        sums["left"] = pl.when(proper(number)).then(1.0 - number)
        sums["certain"] = (number >= CERTAIN).fill_null(False).cast(pl.Int8)
    if logs.has("intended") and logs.has("executed"):
        sums[MOVED] = (pl.col("@intended") != pl.col("@executed")).fill_null(False).cast(pl.Int8)
    chosen = {CHOSEN: target.chosen} if target.chosen is not None and target.chosen.meta.root_names() else {}
    by = {**keys, GROUP: _group(logs), ACTION: target.executed, **chosen}
    logged = Table(LOGGED, by, where=rows, sums=sums)
    if target.chances is None:
        return [logged]
    certain = (number >= CERTAIN).fill_null(False)
    found: dict[str, pl.Expr] = {}
    for code, chance in enumerate(target.chances):
        if not chance.meta.root_names():
            continue
        same = target.executed == code
        found |= {f"mass {code}": chance, f"tries {code}": (same & (chance > 0.0)).cast(pl.Int8)}
        if propensity:
            found[f"shut {code}"] = pl.when(certain & ~same).then(chance).otherwise(0.0)
            found[f"left {code}"] = pl.when(~same & proper(number)).then(chance * (1.0 - number)).otherwise(0.0)
    return [logged, Table(TARGETS, keys, where=rows, sums=found)]


def _group(logs: Logs) -> pl.Expr:
    """A group of a row's unit, or of the row itself."""
    for role in ("unit", "request"):
        if logs.has(role):
            return pl.col(f"@{role}").hash(0) % GROUPS
    names = [name for name in logs.source.schema if not logs.source.schema[name].is_nested()]
    return pl.struct(names).hash(0) % GROUPS


def tried(cells: Cells, target: Target, found: Mapping[str, pl.DataFrame]) -> list[Tried]:
    """What the target asks of every cell; empty where only its probability of the logged action is known."""
    if target.chances is None:
        return _chosen(cells, target, found[LOGGED]) if target.chosen is not None else []
    rows: list[Tried] = []
    chances = _chances(cells, found[LOGGED])
    for row in found[TARGETS].iter_rows(named=True):
        for code in range(len(target.actions)):
            if (mass := float(row.get(f"mass {code}") or 0.0)) > 0.0:
                shut, tries = float(row.get(f"shut {code}") or 0.0), float(row[f"tries {code}"])
                parts, left = parts_of(cells, row), row.get(f"left {code}")
                rows.append(Tried(parts, code, mass, tries, shut, left, chances.get((parts, code))))
    return rows


def _chosen(cells: Cells, target: Target, frame: pl.DataFrame) -> list[Tried]:
    """Of a target that takes one action on a row, or drew one."""
    if CHOSEN not in frame.columns:
        assert target.chosen is not None
        only = pl.select(target.chosen).item()
        frame = frame.with_columns(pl.lit(only, dtype=pl.Int32).alias(CHOSEN))
    logged = {} if target.certain else _logged(cells, frame)
    known = "left" in frame.columns
    same = pl.col(ACTION) == pl.col(CHOSEN)
    chances = _chances(cells, frame.filter(same) if target.certain else frame)
    by = [*cells.columns, CHOSEN]
    missed = [pl.col(name).filter(~same).sum().alias(name) for name in ("certain", "left") if known]
    sums = frame.group_by(by).agg(pl.col("n").sum(), pl.col("n").filter(same).sum().alias("tries"), *missed).sort(by)
    rows = []
    for row in sums.iter_rows(named=True):
        parts, action = parts_of(cells, row), int(row[CHOSEN])
        # A policy that drew another action here might have drawn the one that was logged.
        tries = float(row["tries"]) if target.certain else logged.get((parts, action), 0.0)
        shut = float(row["certain"]) if known else 0.0
        left = float(row["left"]) if known else None
        rows.append(Tried(parts, action, float(row["n"]), tries, shut, left, chances.get((parts, action))))
    return rows


def constant(cells: Cells, code: int, found: Mapping[str, pl.DataFrame]) -> list[Tried]:
    """What the policy that always takes one action asks of every cell."""
    frame, chances = found[LOGGED], _chances(cells, found[LOGGED])
    mine = pl.col(ACTION) == code
    known = "left" in frame.columns
    missed = [pl.col(name).filter(~mine).sum().alias(name) for name in ("certain", "left") if known]
    tries = pl.col("n").filter(mine).sum().alias("tries")
    keys = cells.columns or ["all"]
    sums = frame.with_columns(all=0).group_by(keys).agg(pl.col("n").sum(), tries, *missed).sort(keys)
    return [
        Tried(
            parts_of(cells, row), code, float(row["n"]), float(row["tries"]),
            float(row["certain"]) if known else 0.0, float(row["left"]) if known else None,
            chances.get((parts_of(cells, row), code)),
        )
        for row in sums.iter_rows(named=True)
    ]  # fmt: skip


def _logged(cells: Cells, frame: pl.DataFrame) -> dict[tuple[Part, int], float]:
    by = [*cells.columns, ACTION]
    counts = frame.group_by(by).agg(pl.col("n").sum()).sort(by)
    return {(parts_of(cells, row), row[ACTION]): float(row["n"]) for row in counts.iter_rows(named=True)}


def _chances(cells: Cells, frame: pl.DataFrame) -> dict[tuple[Part, int], float]:
    """Mean probability of each action that ran in a cell: its tries over the sum of their inverse probabilities."""
    if "inverse" not in frame.columns:
        return {}
    by = [*cells.columns, ACTION]
    sums = frame.group_by(by).agg(pl.col("n").sum(), pl.col("inverse").sum()).filter(pl.col("inverse") > 0.0).sort(by)
    return {(parts_of(cells, row), row[ACTION]): row["n"] / row["inverse"] for row in sums.iter_rows(named=True)}


def listed(target: Target) -> Sequence[tuple[int, str]]:
    """Actions with their codes."""
    return [(code, name) for code, name in enumerate(target.actions) if name != OTHER]
