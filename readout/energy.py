"""Energy by arm: whole batches of the unfiltered log are attributed first, then the kept rows are summed."""

from __future__ import annotations

from collections.abc import Mapping
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
from readout.terms import eligible_only
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
    needed = ["batch", "prompt_tokens", "output_tokens"]
    if columns.start is not None or columns.end is not None:
        needed += ["start", "end"]
    section = ("attribution", "columns")
    unnamed = [spec.source.problem((*section, r), _unnamed(r)) for r in needed if getattr(columns, r) is None]
    if unnamed:
        raise SpecError(unnamed)
    problems = []
    for role in ("batch", *NUMBERS):
        name = getattr(columns, role)
        if name is None:
            continue
        at = ("attribution", "columns", role)
        if name not in logs.source.schema:
            problems.append(logs.expressions.missing(name, at))
        elif expected := _expected(role, logs.dtype(name)):
            message = f"column {visible(name)!r} is {logs.dtype(name)}; expected {expected}"
            problems.append(spec.source.problem(at, message))
    if problems:
        raise LogError(problems)


def _unnamed(role: str) -> str:
    if role in ("start", "end"):
        return "start and end go together: name both, or neither where all requests of a batch start at once"
    return "needed: which column holds it?"


def _expected(role: str, dtype: pl.DataType) -> str:
    """What the role's column should hold; empty where it does."""
    if role in NUMBERS and not (dtype.is_numeric() or dtype == pl.Null):
        return "numbers"
    if role == "batch" and (dtype.is_nested() or dtype in (pl.Binary, pl.Object)):
        return "text or whole numbers"
    return ""


def attributed(evidence: Evidence, model: EnergyModel) -> tuple[Shares, pl.DataFrame]:
    """Shares of every row of the log; and per row its arm code where it is kept, and whether it succeeded."""
    spec, logs = evidence.spec, evidence.logs
    assert spec.attribution is not None
    columns = spec.attribution.columns
    wanted = {
        role: pl.col(getattr(columns, role)).cast(pl.Float64) for role in NUMBERS if getattr(columns, role) is not None
    }
    batch = pl.col(str(columns.batch))
    if logs.dtype(str(columns.batch)).is_float():
        batch = batch.fill_nan(None)
    counted = evidence.sample.rows & eligible_only(spec, logs)(pl.lit(True)).fill_null(False)
    arm = pl.when(counted).then(pl.col("@arm_code"))
    success = _success(evidence)
    frame = logs.frame.select(
        batch.cast(pl.String).alias("batch"), arm.alias("arm"), success.cast(pl.Float64).alias("success"), **wanted
    ).collect(engine="streaming")
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
    return shares, frame.select("arm", "success")


def summary(evidence: Evidence) -> dict[str, Any] | None:
    """The ``attribution`` of readout.json.

    Raises:
        ReadoutError: Shares that do not add up to their batch's energy.
    """
    spec = evidence.spec
    if spec.attribution is None:
        return None
    model = energy_model(spec)
    shares, rows = attributed(evidence, model)
    if not shares.efficiency_error <= EFFICIENCY:
        raise ReadoutError(
            [Problem("attribution", f"shares miss a batch's energy by {shares.efficiency_error:.1e} of it")]
        )
    intensity = spec.attribution.carbon.g_per_kwh if spec.attribution.carbon is not None else None
    arms = rows["arm"].cast(pl.Float64).to_numpy()
    totals = by_label(shares, arms)
    per_arm: dict[str, dict[str, float | None]] = {}
    naive: dict[str, dict[str, float]] = {rule: {} for rule in shares.naive}
    for code, arm in enumerate(evidence.arms):
        if (found := totals.get(code)) is None:
            continue
        grams = None if intensity is None else float(carbon_g(np.array([found.wh]), intensity)[0])
        per_arm[arm] = {
            "requests": found.requests,
            "wh": found.wh,
            "wh_per_request": found.wh_per_request,
            "wh_per_success": _per_success(shares, arms == code, rows["success"].to_numpy()),
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
        "unattributed_because": dict(shares.unattributed),
        "incomplete_batches": shares.incomplete_batches,
        "g_per_kwh": intensity,
        "pue": model.pue,
        "beyond_step_table": shares.beyond_table,
    }  # fmt: skip


def notes(summary: Mapping[str, Any] | None) -> list[str]:
    """What the reader of an attribution must know of the rows and batches behind it."""
    if summary is None:
        return []
    measured = summary["measured"] or {"missing": 0, "invalid": 0}
    counted = {
        **{f"requests without a share of energy ({why})": n for why, n in summary["unattributed_because"].items()},
        "batches that lost such requests, so that the others in them carry the whole": summary["incomplete_batches"],
        "batches without measured energy, for which the modelled stands": measured["missing"],
        "batches whose measured energy cannot be, or contradicts itself, for which the modelled stands": measured[
            "invalid"
        ],
    }
    found = [f"{what}: {n:,}" for what, n in counted.items() if n]
    if beyond := summary.get("beyond_step_table"):
        found.append(
            "decode steps with fewer or more active requests than the energy model was measured for, so that their "
            f"energy is a guess: {beyond:.1%}"
        )
    return found


def _per_success(shares: Shares, mine: np.ndarray, success: np.ndarray) -> float | None:
    """Energy over successes of an arm's rows that have both a share and a known outcome; None without a success."""
    both = mine & (shares.batch_size > 0) & ~np.isnan(success)
    successes = float(success[both].sum())
    return float(shares.wh[both].sum()) / successes if successes > 0 else None


def _success(evidence: Evidence) -> pl.Expr:
    """What counts a success: the metric named ``success``, or the one that the economics value; null without one."""
    economics = evidence.spec.economics
    valued = economics.value.metric if economics is not None and economics.value is not None else None
    for name in ("success", valued):
        term = evidence.terms.get(name) if name is not None else None
        if term is not None and term.den is None and term.quantile is None:
            return term.num
    return pl.lit(None)
