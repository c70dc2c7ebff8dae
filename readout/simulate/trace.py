"""Real traces: the Parquet layouts of Azure's and Mooncake's published arrival logs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from readout.errors import Problem, SpecError
from readout.simulate.arrivals import WAVE_S, Floats, Trace

# column of arrivals, its seconds per unit, prompt tokens, output tokens
_LAYOUTS = (
    ("arrival_s", 1.0, "context_tokens", "generated_tokens"),
    ("timestamp_ms", 0.001, "input_length", "output_length"),
)
_LEAST_ROWS = 100


def read_trace(path: Path) -> Trace:
    """Read a trace with the columns ``arrival_s, context_tokens, generated_tokens`` (the Azure LLM inference traces) or
    ``timestamp_ms, input_length, output_length`` (Mooncake); other columns are ignored.

    Rows without a positive number of tokens on both sides are left out.

    Raises:
        SpecError: Not a readable Parquet file, neither layout, or too short to replay.
    """
    import polars as pl

    where = f"--trace {path}"
    if not path.is_file():
        raise SpecError([Problem(where, "no such file")])
    try:
        names = list(pl.read_parquet_schema(path))
        for time, unit, prompt, output in _LAYOUTS:
            if {time, prompt, output} <= set(names):
                frame = pl.read_parquet(path, columns=[time, prompt, output])
                columns = [frame[name].cast(pl.Float64).to_numpy() for name in (time, prompt, output)]
                return _build(columns[0] * unit, columns[1], columns[2], path, where)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise SpecError([Problem(where, f"cannot be read as a Parquet trace: {str(error).splitlines()[0]}")]) from error
    layouts = " or ".join("(" + ", ".join((time, prompt, output)) + ")" for time, _, prompt, output in _LAYOUTS)
    raise SpecError([Problem(where, f"expected the columns {layouts}, found: {', '.join(names)}")])


def _build(t_s: Floats, prompt: Floats, output: Floats, path: Path, where: str) -> Trace:
    usable = np.isfinite(t_s) & (prompt >= 1) & (output >= 1)
    t_s, prompt, output = t_s[usable], prompt[usable], output[usable]
    order = np.argsort(t_s, kind="stable")
    t_s = t_s[order] - (t_s[order[0]] if order.size else 0.0)
    if t_s.size < _LEAST_ROWS or t_s[-1] < 10 * WAVE_S:
        expected = f"at least {_LEAST_ROWS} usable rows over {10 * WAVE_S:g} seconds"
        raise SpecError([Problem(where, f"too short to replay: expected {expected}, found {t_s.size} rows")])
    return Trace(t_s, prompt[order].astype(np.int64), output[order].astype(np.int64), path.name)
