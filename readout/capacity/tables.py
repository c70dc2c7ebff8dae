"""What the pass is asked for: windows with their largest load, and cost by load and day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

import polars as pl

from readout.economics import COST, NET, VALUE
from readout.errors import LogError, SpecError
from readout.evidence import count
from readout.logs import Logs
from readout.reduce import Table
from readout.samples import Blocks, Clusters, Sample
from readout.samples.base import term_sums
from readout.spec.model import Capacity, Spec
from readout.terms import FALLBACK, TIMEOUT, Term

WINDOWS, STATES = "capacity windows", "capacity states"
# Goes before sums and messages about the load itself.
LOAD = "capacity.load"
SEEN = "seen"
DAY_US = timedelta(days=1) // timedelta(microseconds=1)
# Loads at or below the limit in quarters of it, and those over it.
BINS = 5


def tables(spec: Spec, logs: Logs, sample: Sample, terms: Sequence[Term]) -> list[Table]:
    """Windows by the sample's groups (the pool alone where units within it are treated one by one), and cost by load.

    Raises:
        LogError: No time, or a load that is missing or not numeric.
        SpecError: An outcome that has no value inside a window.
    """
    capacity = spec.capacity
    if capacity is None:
        return []
    if not logs.has("time"):
        message = "windows need the role 'time' in logs.columns"
        raise LogError([spec.source.problem(("capacity",), message, on_key=True)])
    if logs.dtype(str(logs.columns["time"])).is_integer():
        message = "windows need timestamps, and the role 'time' holds integer periods"
        raise LogError([spec.source.problem(("capacity",), message, on_key=True)])
    _refuse_outcomes(spec, capacity)
    by_name = {t.name: t for t in terms}
    load = logs.expressions.number(capacity.load, ("capacity", "load")).cast(pl.Float64).fill_nan(None)
    sums: dict[str, pl.Expr] = {SEEN: count(load.is_not_null())}
    for name in inside(capacity, by_name):
        sums |= term_sums(by_name[name])
    unit_level = not isinstance(sample, Blocks | Clusters)
    arm = {"arm": pl.col("@arm_code")}
    cluster = pl.col("@cluster").cast(pl.String).fill_null("") if logs.has("cluster") else pl.lit("")
    places: Mapping[str, pl.Expr] = {"cluster": cluster} if unit_level else sample.level_keys()
    time = pl.col("@time").dt.epoch("us")
    where = sample.rows & pl.col("@time").is_not_null()
    found = [
        Table(
            WINDOWS,
            {**places, "window": _start(time, capacity.window)},
            where,
            sums=sums,
            maxima={"load": load},
            finite={f"{LOAD}|x": load},
        ),
    ]
    if (cost := cost_name(spec, by_name)) is not None:
        keys = {**(arm if unit_level else places), "day": time // DAY_US, "bin": _bin(load, capacity.limit)}
        found.append(Table(STATES, keys, where & load.is_not_null(), sums=term_sums(by_name[cost])))
    return found


def inside(capacity: Capacity, terms: Mapping[str, Term]) -> list[str]:
    """Names of the terms that are read inside windows over the limit."""
    own = (FALLBACK, TIMEOUT, NET, VALUE)
    return [*dict.fromkeys(capacity.outcomes), *(name for name in own if name in terms)]


def cost_name(spec: Spec, terms: Mapping[str, Term]) -> str | None:
    """What a request takes: its cost where the spec prices it, else the first outcome or primary that is a mean."""
    if spec.economics is not None and spec.economics.cost is not None:
        return COST
    capacity = spec.capacity
    primaries = [m.name for m in spec.metrics.values() if m.role == "primary"]
    names = [*(capacity.outcomes if capacity is not None else ()), *primaries]
    return next((n for n in names if terms[n].quantile is None and not terms[n].per_unit), None)


def _refuse_outcomes(spec: Spec, capacity: Capacity) -> None:
    problems = []
    for i, name in enumerate(capacity.outcomes):
        metric = spec.metrics[name]
        if metric.quantile is not None or metric.per is not None:
            message = f"{name!r} is a quantile or a sum within units and has no value inside a window"
            hint = "name a metric that is a mean or a ratio over rows"
            problems.append(spec.source.problem(("capacity", "outcomes", i), message, hint))
    if problems:
        raise SpecError(problems)


def _start(time: pl.Expr, window: timedelta) -> pl.Expr:
    """Start of a row's window; those that do not divide a day begin anew at midnight."""
    length = window // timedelta(microseconds=1)
    if length >= DAY_US:
        return time // length * length
    since = time % DAY_US
    return time - since % length


def _bin(load: pl.Expr, limit: float) -> pl.Expr:
    quarter = (load / (limit / (BINS - 1))).floor().clip(0, BINS - 2).cast(pl.Int8)
    return pl.when(load > limit).then(pl.lit(BINS - 1, dtype=pl.Int8)).otherwise(quarter)
