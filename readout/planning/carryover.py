"""How long a policy's effect stays after a switch: measured where the past log was a switchback, else guessed at from
how long the state of the system remembers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal

import numpy as np
import polars as pl

from estimators.carryover import SinceSwitch, effect_since_switch, lagged_effects
from estimators.cells import Cells
from estimators.fixed_effects import sweep
from estimators.inference import EstimationError, t_interval
from estimators.memory import memory
from readout.planning.ask import Ask
from readout.planning.past import GRID, Past, state_columns
from readout.planning.series import Floats, Series, calendar, raw_series, series, steps, summed
from readout.spec.model import Spec

BINS = 12
LEFT = 0.25  # of the effect may be left: the carryover check's own band
ENOUGH_BLOCKS = 12
PURE = 0.98  # of a past block's steps hold one arm
Source = Literal["measured", "state", "outcome", "none"]


@dataclass(frozen=True, slots=True)
class Bin:
    """Carryover of the arm before, by time since a block began; ``until`` is the bin's end.

    The intervals of all bins hold together at ``1 - alpha`` (Bonferroni): a bin that strays by chance is no carryover.
    """

    since: timedelta
    until: timedelta
    estimate: float | None
    ci_low: float | None
    ci_high: float | None


@dataclass(frozen=True, slots=True)
class Carryover:
    """What the past log says of carryover.

    Attributes:
        source: ``measured`` from past switches; ``state`` or ``outcome``: only how long these remember; ``none``.
        of: The metric or the state column.
        washout: Time after which the carryover is gone, or a quarter of it is left; None: it cannot be said.
        past_block: Block length of the past switchback.
        bins: The carryover by time since the switch.
        lags: ``(lag, estimate, std_error, p_value)`` of whole blocks.
        left: ``(estimate, std_error)`` of the carryover over the rest of a block, after the washout.
        rest: Share that is left after an hour, by the state's memory.
        reason: Why it was not measured.
    """

    source: Source
    of: str = ""
    washout: timedelta | None = None
    past_block: timedelta | None = None
    bins: tuple[Bin, ...] = ()
    lags: tuple[tuple[int, float, float, float], ...] = ()
    left: tuple[float, float] | None = None
    rest: float | None = None
    reason: str = ""

    def bias(self, block: timedelta, washout: timedelta) -> float | None:
        """Mean carryover over the kept part of a block: what a switchback would miss of a lasting change.

        Up to the washout that was found the bins' estimates count, and nothing after it; a carryover that did not fade
        within the past block is taken to stay at its last value. None where it was not measured.
        """
        if self.source != "measured" or block <= washout:
            return None
        total = 0.0
        for b in self.bins:
            if b.estimate is not None and (self.washout is None or b.since < self.washout):
                total += b.estimate * max(timedelta(0), min(b.until, block) - max(b.since, washout)).total_seconds()
        if self.washout is None and self.bins and block > self.bins[-1].until:
            beyond = block - max(self.bins[-1].until, washout)
            total += (self.bins[-1].estimate or 0.0) * beyond.total_seconds()
        return total / (block - washout).total_seconds()


def carryover(spec: Spec, past: Past, ask: Ask, names: list[str]) -> tuple[Carryover, ...]:
    """Of each primary where it can be measured; else one proxy for all."""
    found, reasons = [], []
    for name in names:
        try:
            found.append(_measured(spec, past, ask, name))
        except EstimationError as error:
            reasons.append(str(error))
    if found:
        return tuple(found)
    return (_proxy(spec, past, names, reasons[0] if reasons else "there is no primary to see it in"),)


def _measured(spec: Spec, past: Past, ask: Ask, name: str) -> Carryover:
    """From a past switchback.

    Raises:
        EstimationError: The past log is none, or cannot carry the regression.
    """
    found = raw_series(past, name)
    codes = _treated(spec, past)
    arm = np.where(found.arm >= 0, codes[np.maximum(found.arm, 0)], -1)
    length, offset = _past_block(spec, found, arm, ask)
    blocks = replace(found, arm=arm).cells(length, timedelta(0), offset)
    held = _held(found, arm, length, offset)
    bins = min(BINS, steps(length, found.step))
    num, den = (_binned(x, found, length, offset, bins) for x in (found.num, found.den))
    keep = (held >= 0) & (blocks.den > 0.0)
    cells = replace(blocks, arm=np.maximum(held, 0), order=blocks.block).take(keep)
    together = _together(cells)
    by = "block" if together else "cell"
    if min(int((cells.arm == a).sum()) for a in (0, 1)) < ENOUGH_BLOCKS:
        raise EstimationError(f"the past switchback has fewer than {ENOUGH_BLOCKS} blocks of an arm")
    lags = lagged_effects(cells, 1, alpha=ask.alpha, weights=ask.block_weights, clustered_by=by)
    since = effect_since_switch(cells, num[keep], den[keep], weights=ask.block_weights, clustered_by=by)
    table = _bins(since, length, ask.alpha)
    if all(b.estimate is None for b in table):
        raise EstimationError(since.reasons[0] or "no time since a switch has enough rows")
    washout = faded(table)
    return Carryover(
        "measured",
        of=name,
        washout=washout,
        past_block=length,
        bins=table,
        lags=tuple((lag.lag, lag.estimate, lag.std_error, lag.p_value) for lag in lags),
        left=_left(found, cells, keep, (length, max(washout or timedelta(0), ask.own_washout), offset), ask, by),
    )


def _left(
    found: Series, cells: Cells, keep: np.ndarray, blocks: tuple[timedelta, timedelta, timedelta], ask: Ask, by: str
) -> tuple[float, float] | None:
    """Carryover over what a washout leaves of the past blocks; None where it leaves nothing to judge by."""
    if blocks[1] >= blocks[0]:
        return None
    washed = found.cells(*blocks).take(keep)
    try:
        lags = lagged_effects(
            replace(cells, num=washed.num, den=washed.den), 1, weights=ask.block_weights, clustered_by=by
        )
    except EstimationError:
        return None
    return lags[1].estimate, lags[1].std_error


def faded(bins: tuple[Bin, ...]) -> timedelta | None:
    """The first bin's start from which every interval holds zero; None where the last does not."""
    washout: timedelta | None = None
    for b in reversed(bins):
        holds_zero = b.ci_low is None or b.ci_high is None or b.ci_low <= 0.0 <= b.ci_high
        if not holds_zero:
            break
        washout = b.since
    return washout


def _treated(spec: Spec, past: Past) -> np.ndarray:
    """Past labels as control 0 and the first treatment 1; -1 the others.

    Raises:
        EstimationError: The past log does not hold both.
    """
    control, treatment = str(spec.design.control), spec.design.treatment[0]
    if not past.labels:
        raise EstimationError("the past log holds no arms")
    if control not in past.labels or treatment not in past.labels:
        raise EstimationError("the past log does not hold the arms of this design")
    return np.array([0 if a == control else 1 if a == treatment else -1 for a in past.labels] + [-1])


def _past_block(spec: Spec, found: Series, arm: np.ndarray, ask: Ask) -> tuple[timedelta, timedelta]:
    """Length and offset of the past switchback's blocks: the longest candidate in which the arm hardly changes.

    Raises:
        EstimationError: The arm does not switch with blocks.
    """
    changes = sum(len(np.unique(row[row >= 0])) > 1 for row in arm)
    if changes < 1:
        raise EstimationError("the past log is no switchback: its clusters keep their arm")
    for length in reversed(ask.lengths):
        try:
            pure = _purity(found, arm, length, ask.offset)
        except EstimationError:
            continue
        if pure >= PURE:
            return length, ask.offset
    raise EstimationError("the past log is no switchback with blocks of a length that is compared here")


def _by_block(x: np.ndarray, found: Series, length: timedelta, offset: timedelta) -> np.ndarray:
    """``(n_clusters * n_blocks, steps in a block)``, in the order of ``Series.cells``."""
    block, shift = steps(length, found.step), steps(offset, found.step)
    skip = (shift - found.first) % block
    n = (x.shape[1] - skip) // block
    if n < 1:
        raise EstimationError("the log holds no whole block")
    return x[:, skip : skip + n * block].reshape(-1, block)


def _purity(found: Series, arm: np.ndarray, length: timedelta, offset: timedelta) -> float:
    """Share of the rows that stand in their block's arm."""
    arms, rows = _by_block(arm, found, length, offset), _by_block(found.den, found, length, offset)
    by_arm = np.stack([np.where(arms == a, rows, 0.0).sum(axis=1) for a in (0, 1)])
    total = float(by_arm.sum())
    return float(by_arm.max(axis=0).sum()) / total if total > 0.0 else 0.0


def _held(found: Series, arm: np.ndarray, length: timedelta, offset: timedelta) -> np.ndarray:
    arms, rows = _by_block(arm, found, length, offset), _by_block(found.den, found, length, offset)
    by_arm = np.stack([np.where(arms == a, rows, 0.0).sum(axis=1) for a in (0, 1)])
    return np.where(by_arm.sum(axis=0) > 0.0, by_arm.argmax(axis=0), -1)


def _binned(x: Floats, found: Series, length: timedelta, offset: timedelta, bins: int) -> Floats:
    within = _by_block(x, found, length, offset)
    place = np.arange(within.shape[1]) * bins // within.shape[1]
    return np.stack([within[:, place == b].sum(axis=1) for b in range(bins)], axis=1)


def _together(cells: Cells) -> bool:
    if len(np.unique(cells.cluster)) < 2:
        return True
    both = np.unique(np.column_stack([cells.block, cells.arm]), axis=0)
    return len(both) == len(np.unique(cells.block))


def _bins(since: SinceSwitch, length: timedelta, alpha: float) -> tuple[Bin, ...]:
    n = len(since.carryover)
    table = []
    for i in range(n):
        edges = (length * i / n, length * (i + 1) / n)
        if not np.isfinite(since.carryover_std_error[i]):
            table.append(Bin(*edges, None, None, None))
            continue
        estimate = float(since.carryover[i])
        error, df = float(since.carryover_std_error[i]), float(since.carryover_df[i])
        low, high = t_interval(estimate, error, df, alpha / n)
        table.append(Bin(*edges, estimate, low, high))
    return tuple(table)


def _proxy(spec: Spec, past: Past, names: list[str], reason: str) -> Carryover:
    """Memory of the slowest numeric state, else of the outcome; a stand-in that no treatment was needed for."""
    found: list[Carryover] = []
    for column in state_columns(spec, past.logs):
        try:
            found.append(_remembered("state", column, _state_series(past, column, names), reason))
        except EstimationError:
            continue
    for name in names if not found else []:
        try:
            found.append(_remembered("outcome", name, series(past, name), reason))
        except EstimationError:
            continue
    if not found:
        return Carryover("none", reason=reason)
    return max(found, key=lambda c: timedelta.max if c.washout is None else c.washout)


def _state_series(past: Past, column: str, names: list[str]) -> Series:
    """Means of a state by cluster and step; a metric's series lends the grid."""
    grid = next((s for s in (_or_none(past, name) for name in names) if s is not None), None)
    if grid is None:
        raise EstimationError("the past log has no grid of time")
    n = grid.num.shape[1]
    frame = past.tables[GRID].filter((pl.col("step") >= grid.first) & (pl.col("step") < grid.first + n))
    row = pl.Series(grid.clusters).search_sorted(frame["cluster"]).to_numpy().astype(np.intp)
    place = row * n + frame["step"].to_numpy() - grid.first
    num, den = (
        summed(place, frame[name].to_numpy().astype(float), grid.num.size).reshape(grid.num.shape)
        for name in (f"state {column}", f"state {column}|n")
    )
    return replace(grid, num=num, den=den)


def _or_none(past: Past, name: str) -> Series | None:
    try:
        return series(past, name)
    except EstimationError:
        return None


def _remembered(source: Literal["state", "outcome"], of: str, found: Series, reason: str) -> Carryover:
    n_clusters, n = found.num.shape
    seen = (found.den > 0.0).ravel()
    hour, weekday = (np.tile(code, n_clusters)[seen] for code in calendar((found.first + np.arange(n)) * found.step))
    cluster = np.repeat(np.arange(n_clusters), n)[seen]
    if not seen.any():
        raise EstimationError("the state was never seen")
    value = found.num.ravel()[seen] / found.den.ravel()[seen]
    codes = [np.unique(code, return_inverse=True)[1] for code in (cluster, hour, weekday)]
    rest = np.full(seen.shape, np.nan)
    rest[seen] = sweep(value[:, None], codes)[:, 0]
    kept = memory(rest.reshape(found.num.shape))
    step = timedelta(microseconds=found.step)
    until = kept.steps_until(LEFT)
    # Rounded up to whole steps of the grid; a state that does not fade within a day gives no washout.
    washout = step * int(np.ceil(until)) if until * step <= timedelta(days=1) else None
    return Carryover(source, of=of, washout=washout, rest=kept.rho ** (timedelta(hours=1) / step), reason=reason)
