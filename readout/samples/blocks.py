"""Cluster × block cells: the sample of a switchback."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from estimators.block_regression import Cells, block_quantile
from estimators.calendar_effects import WEEKDAYS
from estimators.carryover import earlier_arms
from estimators.estimate import Estimate
from estimators.inference import EstimationError
from estimators.quantiles import Histogram
from estimators.tail_index import Tail
from readout.errors import SpecError
from readout.logs import Logs
from readout.planned import Against, against, schedule_of
from readout.reduce import Table
from readout.results import BlockPoint
from readout.samples import block_arms, capped, histograms
from readout.samples.base import KEPT, den_sum, num_sum, placed, row_count, term_sums
from readout.samples.block_methods import BlockMethod
from readout.samples.block_time import by_bin, others_treated, places, time_grid, washed_out
from readout.samples.drawn import Logged
from readout.spec.designs import Switchback
from readout.spec.metrics import Metric
from readout.spec.model import Spec
from readout.terms import Term

WASHED = "washout at the start of a block"
OFF_BLOCK = "arm differs from its block's"
OWN_UNIT = "units of {}"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
KEYS = ("cluster", "block", "arm")


class Blocks:
    """Sums by cluster, block and arm; a block belongs to the arm that most of its rows carry.

    Attributes:
        length, washout: Of a block; no length where a column names the blocks.
        since: Microseconds since the block's start, of a row; None without a length.
        rows: The rows that count: kept, and after the washout.
        schedule: The planned blocks, where the spec names them.
        plan: Logged blocks against the planned ones; known once loaded.
        together: Whether all clusters switch together; known once loaded.
    """

    def __init__(self, spec: Spec, logs: Logs, seed: int = 0) -> None:
        assert isinstance(spec.design, Switchback)
        block = spec.design.block
        washout = spec.design.washout or timedelta(0)
        if block.length is None and washout:
            hint = "give `block: {length: 2h}`, or leave the washout rows out with logs.where"
            message = "needs blocks of a stated length, not a block column"
            raise SpecError([spec.source.problem(("design", "washout"), message, hint)])
        self._assignment = spec.design.assignment
        self._arms = 1 + len(spec.design.treatment)
        self.labels = (str(spec.design.control), *spec.design.treatment)
        self.method = spec.estimator.method
        self._options = dict(spec.estimator.options)
        self._cluster = pl.col("@cluster").cast(pl.String) if logs.has("cluster") else pl.lit("")
        self.length = block.length
        self.washout = washout
        self.since: pl.Expr | None = None
        if block.length is not None:
            from_grid = pl.col("@time").dt.epoch("us") - _us(block.offset)
            self.since = from_grid % _us(block.length)
            self._block = from_grid - self.since + _us(block.offset)
            self.washed = (self.since < _us(washout)) if washout else pl.lit(False)
        else:
            name = str(block.column)
            self._block = logs.expressions.column(name, ("design", "block", "column")).cast(pl.String)
            self.washed = pl.lit(False)
        self.rows = KEPT & ~self.washed
        self._has_washout = bool(washout)
        self.schedule = schedule_of(spec, logs.has("cluster"))
        self._window = logs.times
        self._how = BlockMethod(spec, self.schedule, seed)
        capped.require(spec, "block")

    @property
    def unit(self) -> str:
        """The randomized unit: the block where all clusters switch together, else cluster × block."""
        return "block" if self.together else "cluster-block"

    def tables(self, terms: Sequence[Term]) -> list[Table]:
        sums: dict[str, pl.Expr] = {}
        tables = []
        for term in terms:
            if term.quantile is not None:
                continue
            sums |= term_sums(term)
            if term.per_unit:
                keys = {**self._keys(), "unit": pl.col("@unit").hash(0)}
                where = self.rows & term.num.is_not_null()
                tables.append(Table(OWN_UNIT.format(term.name), keys, where))
        time = pl.col("@time").dt.epoch("us")
        cells = Table("cells", self._keys(), self.rows, sums=sums, minima={"start": time}, maxima={"end": time})
        washed = Table("washout", {k: v for k, v in self._keys().items() if k != "arm"}, KEPT & self.washed)
        quantiles = histograms.tables([t for t in terms if t.quantile is not None], self._keys(), self.rows)
        return [cells, *([washed] if self._has_washout else []), *tables, *quantiles]

    def again(self, reduced: Mapping[str, pl.DataFrame]) -> list[Table]:
        return []

    def load(self, tables: Mapping[str, pl.DataFrame]) -> Mapping[str, int]:
        self._tables = tables
        frame = tables["cells"]
        plan = None if self.schedule is None or self.schedule.mechanism is None else self.schedule.together
        self._held = block_arms.held(frame, plan)
        self.together = self._held.together
        kept = frame.join(self._held.cells, on=["cluster", "block", "arm"]).sort("cluster", "block")
        self.off_block_rows = int(frame["n"].sum()) - int(kept["n"].sum())
        self._frame = kept
        if kept["block"].dtype == pl.Int64:
            start = kept["block"]
        else:
            start = kept.select(pl.col("start").min().over("block"))["start"]
        self._starts = [EPOCH + timedelta(microseconds=us) for us in start.to_list()]
        self._order = time_grid(kept, start, self.length, self.together)
        self._places = places(kept, self._starts)
        self.plan: Against | None = None
        if self.schedule is not None:
            self.plan = against(self.schedule, frame, self.labels, self._window[0])
        left = {OFF_BLOCK: self.off_block_rows} if self.off_block_rows else {}
        if self._has_washout and (washed := int(tables["washout"]["n"].sum())):
            left[WASHED] = washed
        return left

    @property
    def assignment(self) -> str:
        """How the arms were drawn: as the schedule records it, else as the spec says."""
        how = None if self.schedule is None else self.schedule.mechanism
        return self._assignment if how is None else how.kind

    def calendar(self) -> pl.DataFrame:
        """The blocks as they stand in time: ``cluster``, ``start`` and ``end`` (UTC; without a length, of the rows),
        ``arm`` (code), ``n`` rows after the washout, ``unit`` (the randomized one)."""
        start = pl.Series("start", self._starts, dtype=pl.Datetime("us", "UTC"))
        last = pl.col("end").cast(pl.Datetime("us")).dt.replace_time_zone("UTC") + timedelta(microseconds=1)
        end = last if self.length is None else pl.col("start") + self.length
        unit = pl.col("block") if self.together else pl.struct("cluster", "block")
        frame = self._frame.with_columns(start)
        return frame.select("cluster", "start", end.alias("end"), "arm", "n", unit.rank("dense").alias("unit"))

    def drawn_every(self) -> int:
        """Of how many blocks the runs are between which alone the log's arm changes: 1 where blocks are as stated."""
        series = self._frame["cluster"].rank("dense").to_numpy()
        at = np.zeros_like(series) if self.together else series
        return block_arms.run_length(self._order, at, self._frame["arm"].to_numpy())

    def counts(self) -> list[int]:
        arms = self._frame.unique("block")["arm"] if self.together else self._frame["arm"]
        return [int(n) for n in np.bincount(arms.to_numpy(), minlength=self._arms)]

    def mixed(self) -> tuple[int, int]:
        return self._held.mixed, self._held.units

    def effect(self, term: Term, arm: int, alpha: float) -> Estimate:
        if term.quantile is not None:
            cells, histogram = self._cells_and_histogram(term, arm)
            return block_quantile(
                cells, histogram, term.quantile, alpha=alpha, weights=self.weights, clustered_by=self.clustered_by
            )
        mine, code = self.with_value(term, arm), self._frame["arm"].to_numpy()
        if term.robust is None:
            return self._how.effect(self, *self._arrays(term), mine, arm, alpha)

        def by(num: np.ndarray, den: np.ndarray) -> Estimate:
            return self._how.effect(self, num, den, mine, arm, alpha)

        return self._capped(term).estimated(by, mine & (code == 0), mine & (code == arm))

    def effect_of(self, sums: pl.DataFrame, arm: int, alpha: float) -> Estimate:
        """The effect of an arm on sums that were not asked for by a term.

        Args:
            sums: A row for each cell, by :meth:`level_keys`, with ``num``, ``den`` and the ``rows`` behind them; cells
                that are absent or have no rows are left out.
            arm, alpha: As in :meth:`effect`.

        Raises:
            EstimationError: The cells cannot carry it.
        """
        num, den, rows = placed(self._frame, sums, KEYS)
        mine = self._frame["arm"].is_in([0, arm]).to_numpy() & (rows > 0)
        return self._how.effect(self, num, den, mine, arm, alpha)

    def belonging(self, table: pl.DataFrame) -> pl.DataFrame:
        """The rows of a table by :meth:`level_keys` that belong to the sample; ``unit`` is the randomized one."""
        unit = pl.col("block") if self.together else pl.struct("cluster", "block")
        units = self._frame.select(*KEYS, unit.rank("dense").alias("unit"))
        return table.join(units, on=KEYS, how="inner", maintain_order="left")

    def cells(self, term: Term, arm: int) -> Cells:
        """The cells of control and one arm that have a value."""
        return self.as_cells(*self._values(term), self.with_value(term, arm), arm)

    @property
    def units(self) -> np.ndarray:
        """``(cells of all arms,)`` code of each cell's randomized unit."""
        if not self.together:
            return np.arange(len(self._frame))
        return (self._frame["block"].rank("dense") - 1).cast(pl.Int64).to_numpy()

    def earlier(self, term: Term, arm: int, lags: int) -> np.ndarray:
        """``(n_cells, lags)`` arms of the blocks 1, 2 … before each of :meth:`cells`: 0 control, 1 the arm, -1 another
        one or not in the log."""
        before = self._before(lags)
        mine = np.where(before == arm, 1, np.where(before == 0, 0, -1))
        return np.asarray(mine[self.with_value(term, arm)])

    def _before(self, lags: int) -> np.ndarray:
        """``(cells of all arms, lags)`` codes of the arms of the blocks before; -1 where not in the log."""
        everything = np.ones(len(self._frame))
        whole = self.as_cells(everything, everything, np.ones(len(self._frame), dtype=bool), 1)
        codes = self._frame["arm"].to_numpy().astype(np.intp)
        return earlier_arms(replace(whole, arm=codes), lags, self.clustered_by)

    def washed_out(self) -> list[dict[str, Any]]:
        """What the washout left out: blocks and rows, by what stood before the block in the log."""
        return washed_out(self._frame, self._tables["washout"], self._before(1)[:, 0]) if self._has_washout else []

    def others_treated(self, term: Term) -> np.ndarray:
        """``(n_cells,)`` share of the other clusters that are in a treatment in the block of each control cell of
        ``cells(term, 0)``; nan where no other cluster is in the log."""
        return np.asarray(others_treated(self._frame)[self.with_value(term, 0)])

    def by_bin(self, term: Term, arm: int, table: pl.DataFrame, bins: int) -> tuple[np.ndarray, np.ndarray]:
        """``(n_cells, bins)`` numerators and denominators of :meth:`cells` from a table by their keys and ``bin``."""
        num, den = by_bin(self._frame, table, bins, (num_sum(term), den_sum(term)))
        keep = self.with_value(term, arm)
        return num[keep], den[keep]

    def with_value(self, term: Term, arm: int) -> np.ndarray:
        """The cells of control and the arm that have a value.

        Known by its rows, not by its denominator: costs without a success are the estimator's to judge.
        """
        has_value = self._frame[row_count(term)].to_numpy() > 0
        code = self._places.arm
        return np.asarray(((code == 0) | (code == arm)) & has_value)

    def one_armed_weekdays(self) -> list[str]:
        """Days of the week on whose blocks one arm only ever stood."""
        arms: dict[int, set[int]] = {}
        for start, arm in zip(self._starts, self._frame["arm"].to_list(), strict=True):
            arms.setdefault(start.weekday(), set()).add(arm)
        return [WEEKDAYS[day] for day, held in sorted(arms.items()) if len(held) < 2]

    def points(self, term: Term) -> tuple[BlockPoint, ...]:
        """Cell means over time, for the figure."""
        num, den = self._arrays(term)
        clusters, arms = self._frame["cluster"].to_list(), self._frame["arm"].to_list()
        return tuple(
            BlockPoint(start.isoformat(), cluster, self.labels[arm], float(n / d))
            for start, cluster, arm, n, d in zip(self._starts, clusters, arms, num, den, strict=True)
            if d > 0
        )

    def without_most_influential(self, term: Term, arm: int, alpha: float) -> Estimate | None:
        if term.quantile is not None:
            return None
        return self._how.without_one(self, *self._values(term), self.with_value(term, arm), arm, alpha)

    def notes(self, metric: Metric) -> list[str]:
        """What a reader of the metric's effect should know of its method."""
        return self._how.notes(self, metric)

    def top_share(self, term: Term) -> float | None:
        return None

    def tail(self, term: Term) -> Tail | None:
        return None

    def arm_total(self, term: Term, arm: int) -> tuple[float, float]:
        num, den = self._arrays(term)
        mine = self._frame["arm"].to_numpy() == arm
        return float(num[mine].sum()), float(den[mine].sum())

    def level_keys(self) -> Mapping[str, pl.Expr]:
        return self._keys()

    def level_shares(self, frame: pl.DataFrame, arm: int) -> tuple[np.ndarray, np.ndarray]:
        levels = frame["level"].unique().sort()
        mine = self._frame.filter(pl.col("arm") == arm).with_row_index("cell")
        rows = frame.join(mine.select("cluster", "block", "arm", "cell"), on=["cluster", "block", "arm"])
        counts = np.zeros((len(levels), len(mine)))
        np.add.at(
            counts, (levels.search_sorted(rows["level"]).to_numpy(), rows["cell"].to_numpy()), rows["n"].to_numpy()
        )
        total = counts.sum(axis=0)
        return counts[:, total > 0], total[total > 0]

    @property
    def clustered_by(self) -> str:
        """The randomized unit in the estimators' words."""
        return "block" if self.together else "cell"

    @property
    def weights(self) -> str:
        """``rows``: cells weigh their rows; ``units``: alike."""
        return str(self._options.get("weights", "rows"))

    def logged(self) -> Logged:
        """The cells of the log, for drawing their arms anew."""
        return Logged(
            block=self._frame["block"],
            cluster=self._frame["cluster"],
            starts=np.array([s.replace(tzinfo=None) for s in self._starts], dtype="datetime64[us]"),
            order=self._order,
            arm=self._frame["arm"].to_numpy(),
            length=self.length,
        )

    def _keys(self) -> dict[str, pl.Expr]:
        return {"cluster": self._cluster, "block": self._block, "arm": pl.col("@arm_code")}

    def _arrays(self, term: Term) -> tuple[np.ndarray, np.ndarray]:
        num = self._frame[num_sum(term)].to_numpy().astype(float)
        if not term.per_unit:
            return num, self._frame[den_sum(term)].to_numpy().astype(float)
        units = (
            self._tables[OWN_UNIT.format(term.name)].group_by("cluster", "block", "arm").agg(pl.len().alias("units"))
        )
        joined = self._frame.select("cluster", "block", "arm").join(
            units, on=["cluster", "block", "arm"], how="left", maintain_order="left"
        )
        return num, joined["units"].fill_null(0).to_numpy().astype(float)

    def _capped(self, term: Term) -> capped.Capped:
        return capped.capped(term, *self._arrays(term), self._frame[row_count(term)].to_numpy() > 0)

    def _values(self, term: Term) -> tuple[np.ndarray, np.ndarray]:
        """What the effect is estimated from: the sums, capped where the metric asks for it."""
        return self._arrays(term) if term.robust is None else self._capped(term).sums

    def as_cells(self, num: np.ndarray, den: np.ndarray, keep: np.ndarray, arm: int) -> Cells:
        """The cells that ``keep`` chooses, with these sums; arms other than ``arm`` stand as control."""
        if not keep.any():
            raise EstimationError("no block has a value of it")
        at = self._places
        clusters, cluster = np.unique(at.cluster[keep], return_inverse=True)
        return Cells(
            num=num[keep],
            den=den[keep],
            arm=(at.arm[keep] == arm).astype(int),
            cluster=cluster,
            block=np.unique(at.block[keep], return_inverse=True)[1],
            hour=at.hour[keep],
            weekday=at.weekday[keep],
            cluster_labels=tuple(at.labels[code] for code in clusters),
            order=self._order[keep],
        )

    def _cells_and_histogram(self, term: Term, arm: int) -> tuple[Cells, Histogram]:
        frame = histograms.read(self._tables, term)
        cells = self._frame.with_row_index("cell").filter(pl.col("arm").is_in([0, arm]))
        placed = frame.join(
            cells.select("cluster", "block", "arm", "cell"),
            on=["cluster", "block", "arm"],
            how="left",
            maintain_order="left",
        )["cell"]
        whole = histograms.dense(frame, placed.cast(pl.Int64).fill_null(-1).to_numpy(), len(self._frame))
        rows = whole.counts.sum(axis=1)
        keep = rows > 0
        histogram = Histogram(whole.lower, whole.upper, whole.counts[keep])
        return self.as_cells(np.zeros(len(rows)), rows.astype(float), keep, arm), histogram


def _us(duration: timedelta | None) -> int:
    return 0 if duration is None else duration // timedelta(microseconds=1)
