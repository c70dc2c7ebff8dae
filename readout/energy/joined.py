"""A log with what its requests used beside its own columns: attribution comes before any filter."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from readout.energy.games import sampling
from readout.energy.model import CARBON, ENERGY, energy_model, given, require_columns
from readout.energy.rows import COLD, MODELLED, RULES, SHARE, Attributed, attribute_log, rule_column
from readout.errors import LogError
from readout.logs import Beside, Source
from readout.scratch import Scratch
from readout.spec.model import Spec

HIDDEN = (SHARE, MODELLED, COLD, *map(rule_column, RULES))


def promised(spec: Spec, source: Source) -> Source:
    """The files with the columns that the attribution will give, empty as yet, so that the spec can be held against
    them before anything is computed.

    Raises:
        SpecError, LogError: The attribution's model or columns are not there.
    """
    if spec.attribution is None:
        return source
    energy_model(spec)
    require_columns(spec, source)
    empty = Beside(dict.fromkeys((*given(spec), *HIDDEN), pl.Float64()), ())
    return replace(source, schema={**source.schema, **dict.fromkeys(given(spec), pl.Float64())}, beside=empty)


def attributed(spec: Spec, source: Source, seed: int = 0) -> tuple[Source, Attributed]:
    """The files with these columns filled in, and the attribution behind them.

    Args:
        spec: With an attribution.
        source: As `promised` gave it.
        seed: Of sampled shares.

    Raises:
        ReadoutError: Shares that do not add up.
        LogError: The files cannot be read to the end.
    """
    model = energy_model(spec)
    sampled = sampling(spec, model, None, seed)
    found = attribute_log(spec, replace(source, beside=None), model, sampled=sampled)
    assert source.beside is not None
    columns = [c for c in (ENERGY, CARBON, *HIDDEN) if c in source.beside.schema]
    folder = Scratch()
    files = []
    for i, frame in enumerate(found.ranges()):
        path = folder.path / f"rows-{i:05d}.parquet"
        frame.select(columns).write_parquet(path, compression="lz4")
        files.append(str(path))
    return replace(source, beside=replace(source.beside, files=tuple(files), folder=folder)), found


def joined_if_asked(spec: Spec, source: Source, seed: int = 0) -> Source:
    """The files with the attribution's columns where a metric of the spec names one and the log can give it, else as
    they are."""
    asked = any(name in repr(metric) for name in given(spec) for metric in spec.metrics.values())
    if not asked:
        return source
    try:
        return attributed(spec, promised(spec, source), seed)[0]
    except LogError:
        return source
