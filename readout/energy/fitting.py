"""``readout attribute --fit``: an energy model of the batches that were measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import polars as pl

from attribution import EnergyModel, Game, Stays, resolve
from attribution.fit import INFLATED, OF, Deeds, Fit, Parameter, Quality, fit
from attribution.idle import idle_floor_wh
from attribution.model import JOULES_PER_WH
from readout.energy import files
from readout.energy.command import opened
from readout.energy.model import asked, energy_model
from readout.energy.rows import CHUNK, batches_of, read_part
from readout.errors import LogError, SpecError
from readout.logs import Source
from readout.memo.numbers import count, number, percent
from readout.spec.model import Spec
from readout.text import visible

Say = Callable[[str], None]
GOOD = 0.05  # median held-out error below which a fit is called good
TEXT = ("name", "source", "gpu")


@dataclass(frozen=True, slots=True)
class FitReport:
    """What ``readout attribute --fit`` tells.

    Attributes:
        name, spec_sha256, seed: Of the spec and the command.
        before: Name of the model that the fit started from.
        fit: The fit.
        batches: Batches of the log.
        unusable: Of these, batches without measured energy, or with one that cannot be.
        worst: Id of the batch that is predicted worst when held out.
    """

    name: str
    spec_sha256: str
    seed: int
    before: str
    fit: Fit
    batches: int
    unusable: int
    worst: str


def fit_model(
    spec_path: Path,
    *,
    overrides: Sequence[str] = (),
    out: Path = Path("memos"),
    seed: int | None = None,
    progress: Say = lambda _: None,
) -> tuple[FitReport, Path]:
    """Fits an energy model to the measured batches of the spec's logs and writes it as YAML.

    Args:
        spec_path: A spec; of its sections only logs and attribution are needed.
        overrides: ``dotted.key=value`` entries of ``--set``.
        out: Folder under which ``<name>/attribution/energy_model.yaml`` is written.
        seed: Of the bootstrap and the held-out folds.
        progress: Called with a word on what happens next.

    Raises:
        SpecError: The command line or spec is wrong.
        LogError: The logs cannot support it: too few measured batches.
    """
    spec, source = opened(spec_path, overrides)
    if asked(spec).columns.measured_wh is None:
        message = "a fit needs the measured energy of batches: which column holds it?"
        raise SpecError([spec.source.problem(("attribution", "columns", "measured_wh"), message)])
    model = energy_model(spec)
    progress("reading the logs")
    parts = [_deeds(spec, source, model, i) for i in range(_parts(source))]
    deeds, before = Deeds.join([p.deeds for p in parts]), np.concatenate([p.before for p in parts])
    ids = pl.concat([p.ids for p in parts])
    progress("fitting")
    try:
        found = fit(deeds, model, before, name=f"{spec.name}_fit", seed=seed or 0)
    except ValueError as error:
        problem = spec.source.problem(("attribution", "columns", "measured_wh"), str(error))
        raise LogError([problem]) from error
    report = FitReport(
        name=spec.name,
        spec_sha256=spec.sha256,
        seed=seed or 0,
        before=model.name,
        fit=found,
        batches=sum(p.batches for p in parts),
        unusable=sum(p.batches for p in parts) - found.batches,
        worst=str(ids[found.held_out.worst]),
    )
    path = files.folder(out, spec) / files.MODEL
    files.write_text(path, model_yaml(report))
    return report, path


@dataclass(frozen=True, slots=True)
class _Part:
    deeds: Deeds
    before: np.ndarray[tuple[int], np.dtype[np.float64]]
    ids: pl.Series
    batches: int


def _parts(source: Source) -> int:
    return max(1, -(-source.rows // CHUNK))


def _deeds(spec: Spec, source: Source, model: EnergyModel, part: int) -> _Part:
    """What the batches of a part did, those whose measured energy can be."""
    frame = read_part(spec, source, part, _parts(source))
    stays = resolve(batches_of(frame))
    before = Game.of(model).totals(stays)
    usable = _usable(stays, model)
    first = np.zeros(stays.n_batches, dtype=np.int64)
    first[stays.batch[::-1]] = stays.rows[::-1]
    return _Part(Deeds.of(stays, model, usable), before[usable], frame["batch"].gather(first[usable]), stays.n_batches)


def _usable(stays: Stays, model: EnergyModel) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    assert stays.measured_wh is not None
    with np.errstate(invalid="ignore"):
        possible = stays.measured_wh >= idle_floor_wh(stays, model)
    return np.asarray(possible & (stays.measured_wh * JOULES_PER_WH > 0))


def model_yaml(report: FitReport) -> str:
    """The fitted model as an energy model's file, with what is known of each parameter."""
    fitted, held = report.fit, report.fit.held_out
    model = fitted.model
    told = {p.name: p for p in fitted.parameters}
    lines = [
        f"# Fitted by `readout attribute --fit` to {fitted.batches:,} measured batches of {visible(report.name)}.",
        f"# Held-out batches: median error {percent(held.median_error)}, R2 {held.r_squared:.4f}.",
        "# What each key means stands at the top of attribution/model.py.",
    ]
    for key in fields(EnergyModel):
        value = getattr(model, key.name)
        if key.name == "step_table" or (value == key.default and key.name not in told):
            continue
        if key.name in TEXT:
            lines.append(f"{key.name}: '{_quoted(value)}'")
            continue
        lines.append(f"{key.name}: {value:g}".ljust(34) + _comment(told.get(key.name)))
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _quoted(text: str) -> str:
    return visible(text).replace("'", "''")


def _comment(parameter: Parameter | None) -> str:
    if parameter is None:
        return "# as before"
    if parameter.kept:
        return f"# not fitted: {parameter.kept}"
    return f"# std. error {number(parameter.std_error)}, before {number(parameter.before)}"


def sentences(report: FitReport) -> list[str]:
    """How well the model fits, and what it cannot tell apart, in words."""
    found, held = report.fit, report.fit.held_out
    said = [
        f"{count(found.batches)} of {count(report.batches)} batches have measured energy that can be; the other "
        f"{count(report.unusable)} are left out.",
        _quality("Held-out batches", held) + f" (batch {visible(report.worst, 60)})",
        _quality("The batches it was fitted to", found.fitted),
        _quality(f"The model before, {visible(report.before, 60)}", found.before),
    ]
    if held.median_error > GOOD:
        said.append(
            f"A middle error of {percent(held.median_error)} is no good fit: the batches do something that the "
            "energy model does not know of, or their meter holds more than their energy."
        )
    for parameter in found.parameters:
        said += _doubts(parameter)
    return said


def _quality(what: str, quality: Quality) -> str:
    return (
        f"{what}: R2 {quality.r_squared:.4f}, median error {percent(quality.median_error)}, nine in ten within "
        f"{percent(quality.p90_error)}, worst {percent(quality.worst_error)}"
    )


def _doubts(parameter: Parameter) -> list[str]:
    if parameter.kept:
        return [f"{parameter.name} is not fitted and stays {number(parameter.value)}: {parameter.kept}."]
    assert parameter.inflation is not None
    said = []
    if parameter.inflation >= INFLATED and parameter.with_name:
        said.append(
            f"{parameter.name}: {OF[parameter.name]} move with {parameter.with_name} over these batches, which makes "
            f"its variance {number(parameter.inflation)} times what it would be alone; what they cost together is "
            "known better than either."
        )
    if parameter.value == 0:
        said.append(
            f"{parameter.name} is 0, the bound: these batches do not show that {OF[parameter.name]} cost anything of "
            f"their own (up to {number(parameter.ci_high)} J would fit)."
        )
    return said
