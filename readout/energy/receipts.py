"""``readout receipt``: where one request's energy comes from, as JSON-LD."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import polars as pl

from attribution import EnergyModel
from attribution.sampling import method_name
from readout.energy import files, requests
from readout.energy.command import opened
from readout.energy.games import load_game, sampling
from readout.energy.jsonld import CONTEXT
from readout.energy.model import asked, energy_model, role_column
from readout.energy.rows import ROW, RULES, Attributed, SharedOut, attribute_log, key, read_part, share_out
from readout.energy.totals import Totals
from readout.errors import LogError, Problem, SpecError
from readout.logs import Source
from readout.logs.values import label
from readout.memo.document import dump
from readout.reduce import collect
from readout.spec.model import Spec
from readout.text import visible

URN = "urn:policy-readout"


def receipt(
    spec_path: Path,
    request: str,
    *,
    overrides: Sequence[str] = (),
    game: str | None = None,
    seed: int | None = None,
    out: Path | None = None,
) -> tuple[str, Path | None]:
    """The receipt of one request.

    Args:
        spec_path: A spec; of its sections only logs and attribution are needed.
        request: The request's id, as text.
        overrides: ``dotted.key=value`` entries of ``--set``.
        game: ``module:function`` of a game that is sampled instead of the energy model's.
        seed: Of sampled shares; an exact share needs none.
        out: Also write it to ``<out>/<name>/attribution/``, where the file of shares points to.

    Returns:
        The JSON-LD text, and where it was written.

    Raises:
        SpecError: The command line or spec is wrong; no request has this id.
        LogError: The logs cannot support it: several rows have this id, or its row has no share.
    """
    spec, source = opened(spec_path, overrides)
    model = energy_model(spec)
    place, batch = _found(spec, source, request)
    sampled = sampling(spec, model, None if game is None else load_game(game), seed or 0)
    mine = key(source, str(asked(spec).columns.batch)) == batch
    frame = read_part(spec, source, 0, 1, where=mine, sampled=sampled)
    shared = share_out(frame, model, full=True, sampled=sampled)
    shares = shared.shares
    Totals().add(shares)
    here = int(frame[ROW].index_of(place) or 0)
    if not shares.batch_size[here]:
        raise LogError([Problem(visible(request), f"has no share of energy: {' or '.join(shares.unattributed)}")])
    content = _content(spec, source, model, shared, here, place, seed or 0, game)
    text = dump(content)
    if out is None:
        return text, None
    path = files.folder(out, spec) / files.receipt_url(request)
    files.write_text(path, text)
    return text, path


def _found(spec: Spec, source: Source, request: str) -> tuple[int, str]:
    """The row of a request, and its batch.

    Raises:
        SpecError, LogError: As :func:`receipt`.
    """
    column = role_column(spec, source, "request")
    if column is None:
        message = "a receipt needs the column of the requests' ids"
        raise SpecError([spec.source.problem(("logs", "columns", "request"), message)])
    ids, batch = label(pl.col(column), source.schema[column]), key(source, str(asked(spec).columns.batch))
    scan = source.scan().with_row_index(ROW)
    rows = collect([scan.filter(ids == request).select(ROW, batch=batch)])[0]
    where = visible(request)
    if rows.is_empty():
        some = collect([source.scan().head(1000).select(ids.drop_nulls().unique(maintain_order=True).head(3))])[0]
        named = ", ".join(repr(visible(one, 60)) for one in some.to_series())
        message = f"no row of the log has this id in the column {visible(column)!r}"
        raise SpecError([Problem(where, message, f"ids look like {named}" if named else "the column is empty")])
    if len(rows) > 1:
        places = ", ".join(f"{place:,}" for place in rows[ROW].sort().head(5))
        message = f"{len(rows):,} rows of the log have this id (rows {places}{' …' if len(rows) > 5 else ''} from 0)"
        hint = "a receipt is of one row: give every attempt an id of its own"
        raise LogError([Problem(where, message, hint)])
    place, name = rows.row(0)
    if name is None:
        raise LogError([Problem(where, "has no share of energy: no batch")])
    return int(place), str(name)


def _content(
    spec: Spec,
    source: Source,
    model: EnergyModel,
    shared: SharedOut,
    here: int,
    place: int,
    seed: int,
    game: str | None,
) -> dict[str, Any]:
    """The receipt, its keys in the order in which they are read."""
    shares, drawn = shared.shares, shared.drawn
    samples = 0 if drawn is None else int(drawn.samples[here])
    assert shares.leave_one_out is not None
    assert shares.concurrency is not None
    share, factor = float(shares.wh[here]), float(shares.factor[here])
    cold = _cold(spec, source, model, place)
    raw = collect([source.scan().slice(place, 1).select(**requests.names(spec, source), **_grid(spec))])[0]
    ids = raw.row(0, named=True)
    grid, carbon = ids.get("grid"), asked(spec).carbon
    grid = float(grid) if grid is not None and np.isfinite(grid) and grid >= 0 else None
    energy = share + cold
    grams = None if grid is None else energy / 1000 * grid
    embodied = 0.0 if carbon is None else carbon.embodied_g_per_request
    owner = f"{URN}:{quote(spec.name, safe='')}"
    name, batch = quote(str(ids[requests.LABEL]), safe=""), quote(str(ids[requests.BATCH]), safe="")
    return {
        "@context": CONTEXT,
        "@id": f"{owner}:request:{name}",
        "@type": ["prov:Entity", "EnergyReceipt"],
        "request_id": ids[requests.REQUEST],
        "arm": ids.get(requests.ARM),
        "batch_id": ids[requests.BATCH],
        "batch_size": int(shares.batch_size[here]),
        "batch_total_wh": float(shares.batch_wh[here]),
        "this_request_share_wh": share,
        "attribution_method": method_name(samples),
        "game": game,
        "shapley_sample_count": samples or None,
        "shapley_std_error_wh": 0.0 if drawn is None else float(drawn.std_error_wh[here]),
        "tier": 2 if np.isnan(factor) else 3,
        "calibration_factor": None if np.isnan(factor) else factor,
        "components": {term: float(wh[here]) for term, wh in shared.components.items()},
        "cold_start_share_wh": cold,
        "energy_wh": energy,
        "grid_g_per_kwh": grid,
        "carbon_g": grams,
        "pue": model.pue,
        "sci": None if grams is None else {
            "e_kwh": energy / 1000, "i_g_per_kwh": grid, "m_g": embodied, "r_requests": 1,
            "sci_g_per_request": grams + embodied, "basis": "location-based",
        },
        "naive": {f"{rule}_wh": float(shares.naive[rule][here]) for rule in RULES},
        "leave_one_out_wh": float(shares.leave_one_out[here]),
        "mean_active_requests": float(shares.concurrency[here]),
        "energy_model": {
            "@id": f"{URN}:energy-model:{model.sha256}", "@type": "prov:Entity", "name": model.name,
            "sha256": model.sha256, "source": model.source,
        },
        "seed": seed,
        "wasDerivedFrom": {
            "@id": f"{owner}:batch:{batch}", "@type": ["prov:Entity", "Batch"],
        },
        "wasGeneratedBy": {
            "@type": ["prov:Activity", "EnergyAttribution"],
            "used": [
                {"@id": f"{URN}:energy-model:{model.sha256}"},
                {"@id": f"{URN}:spec:{spec.sha256}", "@type": "prov:Plan", "name": spec.name},
            ],
            "wasAssociatedWith": {
                "@type": ["prov:Agent", "prov:SoftwareAgent"], "name": "policy-readout",
                "version": version("policy-readout"),
            },
        },
    }  # fmt: skip


def _cold(spec: Spec, source: Source, model: EnergyModel, place: int) -> float:
    """The request's part of a model load, for which all of the log must be looked at: who came before it."""
    if asked(spec).cold_start is None:
        return 0.0
    attributed: Attributed = attribute_log(spec, source, model)
    assert attributed.cold is not None
    return float(attributed.cold[place])


def _grid(spec: Spec) -> Mapping[str, pl.Expr]:
    carbon = asked(spec).carbon
    if carbon is None:
        return {}
    return {"grid": pl.lit(carbon.g_per_kwh) if carbon.column is None else pl.col(carbon.column).cast(pl.Float64)}
