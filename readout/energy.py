"""Energy by arm: whole batches of the unfiltered log are attributed first, then the kept rows are summed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from attribution.batches import Batches
from attribution.model import EnergyModel, load_model
from attribution.shapley import Shares, attribute, carbon_g
from attribution.totals import by_label
from readout.bundled import bundled
from readout.errors import LogError, Problem, ReadoutError, SpecError
from readout.evidence import Evidence
from readout.logs import Logs
from readout.spec.model import Spec
from readout.text import visible

NUMBERS = ("prompt_tokens", "output_tokens", "start", "end", "measured_wh")
# Shares of a batch must add up to its energy within this part of it.
EFFICIENCY = 1e-9


def energy_model(spec: Spec) -> EnergyModel:
    """The spec's energy model: a bundled name, or a path beside the spec.

    Raises:
        SpecError: No such model, or one that cannot be read.
    """
    assert spec.attribution is not None
    name = spec.attribution.energy_model
    folder = bundled("configs") / "energy"
    is_path = "/" in name or name.endswith((".yaml", ".yml"))
    path = spec.base / Path(name) if is_path else folder / f"{name}.yaml"
    try:
        return load_model(path.read_text(encoding="utf-8"))
    except OSError as error:
        names = ", ".join(sorted(p.stem for p in folder.glob("*.yaml")))
        message, hint = f"no energy model {visible(name)!r} can be read", f"bundled: {names}; or a path"
        raise SpecError([spec.source.problem(("attribution", "energy_model"), message, hint)]) from error
    except ValueError as error:
        raise SpecError([Problem(visible(str(path)), visible(str(error), 500))]) from error


def require_columns(spec: Spec, logs: Logs) -> None:
    """Refuse an attribution whose columns the log lacks.

    Raises:
        SpecError: Batch or token columns are not named.
        LogError: A named column is missing or not numeric.
    """
    assert spec.attribution is not None
    columns = spec.attribution.columns
    unnamed = [role for role in ("batch", "prompt_tokens", "output_tokens") if getattr(columns, role) is None]
    if unnamed:
        section = ("attribution", "columns")
        raise SpecError([spec.source.problem((*section, r), "needed: which column holds it?") for r in unnamed])
    problems = []
    for role in ("batch", *NUMBERS):
        name = getattr(columns, role)
        if name is None:
            continue
        at = ("attribution", "columns", role)
        if name not in logs.source.schema:
            problems.append(logs.expressions.missing(name, at))
        elif role in NUMBERS and not (logs.dtype(name).is_numeric() or logs.dtype(name) == pl.Null):
            message = f"column {visible(name)!r} is {logs.dtype(name)}; expected numbers"
            problems.append(spec.source.problem(at, message))
    if problems:
        raise LogError(problems)


def attributed(spec: Spec, logs: Logs, model: EnergyModel) -> tuple[Shares, pl.DataFrame]:
    """Shares of every row of the log, and per row its arm code where it is kept."""
    assert spec.attribution is not None
    columns = spec.attribution.columns
    wanted = {
        role: pl.col(getattr(columns, role)).cast(pl.Float64) for role in NUMBERS if getattr(columns, role) is not None
    }
    batch = pl.col(str(columns.batch)).cast(pl.String)
    arm = pl.when(pl.col("@drop").is_null()).then(pl.col("@arm_code"))
    frame = logs.frame.select(batch.alias("batch"), arm.alias("arm"), **wanted).collect(engine="streaming")
    codes = frame["batch"].cast(pl.Categorical).to_physical().cast(pl.Float64)
    arrays = {role: frame[role].to_numpy() for role in wanted}
    shares = attribute(
        Batches(
            batch=codes.to_numpy(),
            prompt_tokens=arrays["prompt_tokens"],
            output_tokens=arrays["output_tokens"],
            start_step=arrays.get("start"),
            end_step=arrays.get("end"),
            measured_wh=arrays.get("measured_wh"),
        ),
        model,
    )
    return shares, frame.select("arm")


def summary(evidence: Evidence) -> dict[str, Any] | None:
    """The ``attribution`` of readout.json.

    Raises:
        ReadoutError: Shares that do not add up to their batch's energy.
    """
    spec = evidence.spec
    if spec.attribution is None:
        return None
    model = energy_model(spec)
    shares, rows = attributed(spec, evidence.logs, model)
    if shares.efficiency_error > EFFICIENCY:
        raise ReadoutError(
            [Problem("attribution", f"shares miss a batch's energy by {shares.efficiency_error:.1e} of it")]
        )
    intensity = spec.attribution.carbon.g_per_kwh if spec.attribution.carbon is not None else None
    totals = by_label(shares, rows["arm"].cast(pl.Float64).to_numpy())
    per_arm: dict[str, dict[str, float | None]] = {}
    naive: dict[str, dict[str, float]] = {rule: {} for rule in shares.naive}
    successes = _successes(evidence)
    for code, arm in enumerate(evidence.arms):
        if (found := totals.get(code)) is None:
            continue
        grams = None if intensity is None else float(carbon_g(np.array([found.wh]), intensity)[0])
        per_arm[arm] = {
            "requests": found.requests,
            "wh": found.wh,
            "wh_per_request": found.wh_per_request,
            "wh_per_success": found.wh / successes[code] if successes.get(code) else None,
            "g_co2e": grams,
            "g_per_request": None if grams is None else grams / found.requests,
        }
        for rule, value in found.naive_per_request.items():
            naive[rule][arm] = value
    measured = shares.measured
    return {
        "method": "shapley_exact",
        "energy_model": model.name,
        "batches": shares.n_batches,
        "requests": shares.n_requests,
        "total_wh": shares.total_wh,
        "efficiency_error_wh": shares.efficiency_error_wh,
        "per_arm": per_arm,
        "naive": naive,
        "components": dict(shares.components),
        "measured": None if measured is None else {
            "used": measured.used, "missing": measured.missing, "invalid": measured.invalid,
            "factor_median": measured.factor_median, "factor_low": measured.factor_low,
            "factor_high": measured.factor_high,
        },
        "tier": 3 if measured is not None and measured.used else 2,
        "unattributed": sum(shares.unattributed.values()),
        "incomplete_batches": shares.incomplete_batches,
        "g_per_kwh": intensity,
        "pue": model.pue,
    }  # fmt: skip


def _successes(evidence: Evidence) -> dict[int, float]:
    """Successful requests by arm over kept rows, where the economics name the metric that counts them."""
    if "succeeded" not in evidence.tables["rows"].columns:
        return {}
    return {code: evidence.amount("succeeded", code) for code in range(len(evidence.arms))}


def success_sum(spec: Spec, metrics: dict[str, Any]) -> dict[str, pl.Expr]:
    """The addend that counts successes: the metric named ``success``, or the one that the economics value."""
    if spec.attribution is None:
        return {}
    valued = spec.economics.value.metric if spec.economics is not None and spec.economics.value is not None else None
    for name in ("success", valued):
        term = metrics.get(name) if name is not None else None
        if term is not None and term.den is None and term.quantile is None:
            return {"succeeded": term.num.cast(pl.Float64)}
    return {}
