"""Model loads that the log marks, spread over the requests that follow them."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from attribution.cold_start import ColdStarts, spread_loads
from readout.energy.model import asked, role_column
from readout.logs import Source
from readout.logs.values import label, to_utc
from readout.reduce import collect
from readout.spec.model import Spec

_LAST = np.iinfo(np.int64).max


def spread(spec: Spec, source: Source, carries: NDArray[np.bool_]) -> ColdStarts:
    """Energy of every load over the first requests after it, of those that were loaded for the same.

    Requests come in the order of the role ``time`` where the log has it (those without a time last), rows of one time
    in the order of the log; without it, in the order of the log.

    Args:
        spec: With a cold start.
        source: The files.
        carries: (rows,) Whether the row has a share of energy, and so can carry more.
    """
    cold = asked(spec).cold_start
    assert cold is not None
    scope = cold.by if cold.by is not None else role_column(spec, source, "cluster")
    time = role_column(spec, source, "time")
    wanted = {"load": pl.col(cold.column).cast(pl.Float64)}
    if time is not None:
        dtype = source.schema[time]
        moment = pl.col(time) if dtype.is_integer() else to_utc(pl.col(time), dtype, spec.logs.timezone)
        wanted["time"] = moment.cast(pl.Int64).fill_null(_LAST)
    if scope is not None:
        wanted["scope"] = label(pl.col(scope), source.schema[scope])
    frame = collect([source.scan().select(**wanted)])[0]
    codes = np.zeros(source.rows, dtype=np.int64)
    if scope is not None:
        physical = frame["scope"].cast(pl.Categorical(pl.Categories.random())).to_physical()
        codes = physical.cast(pl.Int64).fill_null(-1).to_numpy()
    order = np.argsort(codes, kind="stable") if time is None else np.lexsort((frame["time"].to_numpy(), codes))
    return spread_loads(frame["load"].to_numpy(), order, codes, carries, cold.requests)
