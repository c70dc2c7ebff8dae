"""Shares of every row of a log, in parts that fit in memory.

Whole batches are attributed, whatever the experiment leaves out later. A log that is too long for one part is read
once for each part, a part holding the batches whose id has one hash; the parts are then laid side by side again in the
order of the log.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from attribution import Batches, EnergyModel, Shares, attribute
from attribution.sampling import CAP, Sampled, attribute_sampled
from readout.energy.cold import spread
from readout.energy.games import PREFIX, PREFIX_TOKENS, Sampling
from readout.energy.model import CARBON, ENERGY, KEYS, NUMBERS, asked
from readout.energy.totals import Totals
from readout.errors import Problem, ReadoutError, SpecError
from readout.logs import Source
from readout.reduce import collect
from readout.scratch import Scratch
from readout.spec.model import Carbon, Spec
from readout.text import visible

CHUNK = 1_000_000  # rows of a part, and of what is written at once
ROW = "@row"
OWN = "@own "  # marks the log's own columns for a game
SHARE, COLD, GRID = "@energy share", "@energy cold", "@energy grid"
MODELLED = "@energy modelled"  # the share where the batch was not measured, else 0
RULES = ("per_token", "per_request", "provisioned")


def rule_column(rule: str) -> str:
    """The column of a rule of thumb."""
    return f"@energy {rule}"


@dataclass(frozen=True)
class Attributed:
    """A log whose requests have their shares.

    Attributes:
        spec, source, model: What was asked, of which files, with which energy model.
        totals: Sums over all of it.
        parts: Frames or files with the shares of some batches each, sorted by row.
        cold: (rows,) Energy of loads by row; None where the spec names none.
        folder: Where the files are; they go when it does.
    """

    spec: Spec
    source: Source
    model: EnergyModel
    totals: Totals
    parts: tuple[pl.LazyFrame, ...]
    cold: NDArray[np.float64] | None
    folder: Scratch | None

    @property
    def carbon(self) -> Carbon | None:
        """How carbon is counted; None: it is not."""
        return asked(self.spec).carbon

    def ranges(self, extra: Mapping[str, pl.Expr] | None = None) -> Iterator[pl.DataFrame]:
        """The rows in the order of the log, so many at a time.

        Args:
            extra: Name → expression over the raw columns of the log, put beside the shares.
        """
        for low in range(0, self.source.rows, CHUNK):
            n = min(CHUNK, self.source.rows - low)
            mine = [part.filter(pl.col(ROW).is_between(low, low + n, closed="left")) for part in self.parts]
            frame = pl.concat(collect(mine))
            frame = frame.sort(ROW) if len(mine) > 1 else frame
            cold = pl.lit(0.0) if self.cold is None else pl.Series(COLD, self.cold[low : low + n])
            frame = frame.with_columns(cold.alias(COLD), self._constant().alias(GRID))
            if wanted := {**(extra or {}), **self._by_row()}:
                raw = collect([self.source.scan().slice(low, n).select(**wanted)])[0]
                frame = frame.with_columns(raw.get_columns())
            yield self._priced(frame)

    def _priced(self, frame: pl.DataFrame) -> pl.DataFrame:
        """With energy and carbon; a row without a share has neither, and one without an intensity no carbon."""
        energy, grid = pl.col(SHARE) + pl.col(COLD), pl.col(GRID)
        possible = grid.is_finite() & (grid >= 0)
        if self.carbon is not None:
            mine = frame.filter(pl.col(SHARE).is_not_null()).select(
                none=(grid.is_null() | grid.is_nan()).sum(), bad=(~possible & ~grid.is_nan()).fill_null(False).sum()
            )
            self.totals.no_intensity += int(mine["none"][0])
            self.totals.bad_intensity += int(mine["bad"][0])
        frame = frame.with_columns(pl.when(possible).then(grid).alias(GRID), energy.alias(ENERGY))
        return frame.with_columns((pl.col(ENERGY) / 1000 * pl.col(GRID)).alias(CARBON))

    def _constant(self) -> pl.Expr:
        return pl.lit(None if self.carbon is None else self.carbon.g_per_kwh, dtype=pl.Float64)

    def _by_row(self) -> dict[str, pl.Expr]:
        column = None if self.carbon is None else self.carbon.column
        return {} if column is None else {GRID: pl.col(column).cast(pl.Float64)}


def attribute_log(
    spec: Spec, source: Source, model: EnergyModel, *, full: bool = False, sampled: Sampling | None = None
) -> Attributed:
    """Attributes every batch of the log.

    Args:
        spec: With an attribution whose columns the log has (`model.require_columns`).
        source: The files.
        model: The energy model.
        full: Also the shares of each term, leave-one-out values and what batches were like.
        sampled: How shares are sampled; None: they are the energy model's exact ones.

    Raises:
        SpecError: A game that gives no joules.
        ReadoutError: Shares that do not add up to their batch's energy.
        LogError: The files cannot be read to the end.
    """
    count = max(1, -(-source.rows // CHUNK))
    folder = Scratch() if count > 1 else None
    totals, parts = Totals(), []
    carries = np.zeros(source.rows, dtype=bool) if asked(spec).cold_start is not None else None
    for part in range(count):
        frame = read_part(spec, source, part, count, sampled=sampled)
        shared = share_out(frame, model, full=full, sampled=sampled)
        totals.add(shared.shares, shared.drawn)
        if {"start", "end"} <= set(frame.columns):
            totals.add_stays(*(frame[role].to_numpy() for role in ("start", "end", "output_tokens")))
        found = _columns(frame, shared, full)
        if carries is not None:
            carries[found[ROW].to_numpy()] = found[SHARE].is_not_null().to_numpy()
        parts.append(_kept(found, folder, part))
    if carries is not None:
        totals.cold = spread(spec, source, carries)
    cold = None if totals.cold is None else totals.cold.shares
    return Attributed(spec, source, model, totals, tuple(parts), cold, folder)


@dataclass(frozen=True, slots=True)
class SharedOut:
    """The shares of a part, and how they were drawn; None where they are exact."""

    shares: Shares
    drawn: Sampled | None

    @property
    def components(self) -> Mapping[str, NDArray[np.float64]]:
        """Shares by term; a game that is only asked has one."""
        return {"game": self.shares.wh} if self.shares.by_term is None else self.shares.by_term


def share_out(frame: pl.DataFrame, model: EnergyModel, *, full: bool, sampled: Sampling | None) -> SharedOut:
    """Shares of the rows of `read_part`.

    Raises:
        SpecError: A game that gives no joules.
    """
    if sampled is None:
        found = attribute(batches_of(frame), model, by_term=full, leave_one_out=full, concurrency=full)
        return SharedOut(found, None)
    columns = {name: frame[name].to_numpy() for name in frame.columns if name.startswith(OWN)}
    given = {name.removeprefix(OWN): values for name, values in columns.items()}
    if "prefix" in frame.columns and not sampled.named:
        given |= {PREFIX: _codes(frame["prefix"]), PREFIX_TOKENS: frame["prefix_tokens"].to_numpy()}
    try:
        drawn = attribute_sampled(
            batches_of(frame, named=True), sampled.game, samples=sampled.samples, tolerance=sampled.tolerance,
            cap=max(CAP, sampled.samples), seed=sampled.seed, columns=given, leave_one_out=full, concurrency=full,
        )  # fmt: skip
    except ReadoutError:
        raise
    except Exception as error:
        message = f"the game cannot be asked: {type(error).__name__}: {visible(str(error), 300)}"
        raise SpecError([Problem("--game" if sampled.named else "attribution.method", message)]) from error
    return SharedOut(drawn.shares, drawn)


def read_part(
    spec: Spec,
    source: Source,
    part: int,
    parts: int,
    *,
    where: pl.Expr | None = None,
    sampled: Sampling | None = None,
) -> pl.DataFrame:
    """Rows of some batches: their place in the log, and the columns of the attribution by role; for a game that was
    named, also the log's own numbers."""
    named = asked(spec).columns
    keys = {role: key(source, str(getattr(named, role))) for role in KEYS if getattr(named, role) is not None}
    numbers = {
        role: pl.col(getattr(named, role)).cast(pl.Float64) for role in NUMBERS if getattr(named, role) is not None
    }
    if sampled is not None and sampled.named:
        own = [name for name, dtype in source.schema.items() if dtype.is_numeric() or dtype == pl.Boolean]
        numbers |= {OWN + name: pl.col(name).cast(pl.Float64) for name in own}
    frame = source.scan().with_row_index(ROW)
    if where is not None:
        frame = frame.filter(where)
    frame = frame.select(ROW, **keys, **numbers)
    if parts > 1:
        frame = frame.filter(pl.col("batch").hash(0) % parts == part)
    return collect([frame])[0]


def key(source: Source, column: str) -> pl.Expr:
    """A column that names something, as text; NaN is null."""
    expr = pl.col(column)
    return (expr.fill_nan(None) if source.schema[column].is_float() else expr).cast(pl.String)


def batches_of(frame: pl.DataFrame, *, named: bool = False) -> Batches:
    """The rows of a part as the engine takes them; with the names of the batches, where chance hangs on these."""
    arrays = {role: frame[role].to_numpy() for role in NUMBERS if role in frame.columns}
    return Batches(
        batch=frame["batch"].to_numpy() if named else _codes(frame["batch"]),
        prompt_tokens=arrays["prompt_tokens"],
        output_tokens=arrays["output_tokens"],
        start_step=arrays.get("start"),
        end_step=arrays.get("end"),
        measured_wh=arrays.get("measured_wh"),
        prefix=_codes(frame["prefix"]) if "prefix" in frame.columns else None,
        prefix_tokens=arrays.get("prefix_tokens"),
    )


def _codes(keys: pl.Series) -> NDArray[np.float64]:
    """Numbers for names, in the order in which they are met; NaN for none."""
    codes = keys.cast(pl.Categorical(pl.Categories.random())).to_physical().cast(pl.Float64)
    return codes.to_numpy()


def _columns(frame: pl.DataFrame, shared: SharedOut, full: bool) -> pl.DataFrame:
    """What is kept of a part's shares; nulls where a row has none."""
    shares, drawn = shared.shares, shared.drawn
    modelled = np.where(np.isnan(shares.factor), shares.wh, 0.0)
    columns: dict[str, NDArray[np.float64] | NDArray[np.int64]] = {SHARE: shares.wh, MODELLED: modelled}
    columns |= {rule_column(rule): shares.naive[rule] for rule in RULES}
    if full:
        assert shares.leave_one_out is not None
        assert shares.concurrency is not None
        columns |= {
            "batch_size": shares.batch_size, "batch_total_wh": shares.batch_wh, "calibration_factor": shares.factor,
            "leave_one_out_wh": shares.leave_one_out, "concurrency": shares.concurrency,
        }  # fmt: skip
        columns |= {f"component {name}": values for name, values in shared.components.items()}
        columns["samples"] = drawn.samples if drawn is not None else np.zeros(shares.wh.size, dtype=np.int64)
        columns["std_error"] = drawn.std_error_wh if drawn is not None else np.zeros(shares.wh.size)
        columns["prompt_tokens"] = frame["prompt_tokens"].to_numpy()
    found = pl.DataFrame({ROW: frame[ROW], **columns})
    return found.with_columns(pl.col(pl.Float64).fill_nan(None))


def _kept(found: pl.DataFrame, folder: Scratch | None, part: int) -> pl.LazyFrame:
    """In memory where there is one part, else in a file."""
    if folder is None:
        return found.lazy()
    path = folder.path / f"part-{part:05d}.parquet"
    found.write_parquet(path, compression="lz4", row_group_size=1 << 16)
    return pl.scan_parquet(path)
