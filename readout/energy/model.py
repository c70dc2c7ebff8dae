"""What an attribution is asked with: the energy model, and the columns of the log."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from attribution.model import EnergyModel, load_model
from readout.bundled import bundled
from readout.errors import LogError, Problem, SpecError
from readout.logs import Source
from readout.logs.expressions import Expressions
from readout.logs.frame import TIME_ROLES
from readout.spec.model import Attribution, Spec
from readout.spec.problems import KeyPath
from readout.text import visible

NUMBERS = ("prompt_tokens", "output_tokens", "start", "end", "measured_wh", "prefix_tokens")
KEYS = ("batch", "prefix")
# Columns that join the log.
ENERGY, CARBON = "energy_wh", "carbon_g"
_TOGETHER = {
    "start": "start and end go together: name both, or neither where all requests of a batch start at once",
    "prefix": "prefix and prefix_tokens go together: name both, or neither",
}
_PAIRS = (("start", "end"), ("prefix", "prefix_tokens"))


def asked(spec: Spec) -> Attribution:
    """The spec's attribution.

    Raises:
        SpecError: It has none.
    """
    if spec.attribution is None:
        message = "the spec has no section attribution, which says what served each request"
        hint = "attribution: {columns: {batch: …, prompt_tokens: …, output_tokens: …}}; `readout init` shows it"
        raise SpecError([Problem(visible(str(spec.path)), message, hint)])
    return spec.attribution


def energy_model(spec: Spec) -> EnergyModel:
    """The spec's energy model: a bundled name, or a path beside the spec.

    Raises:
        SpecError: No such model, or one that cannot be read.
    """
    name = asked(spec).energy_model
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


def require_columns(spec: Spec, source: Source) -> None:
    """Refuse an attribution whose columns the log lacks.

    Raises:
        SpecError: Batch or token columns are not named.
        LogError: A named column is missing, of a wrong type, or bears the name of one that the attribution gives.
    """
    asked_for = asked(spec)
    columns, section = asked_for.columns, ("attribution", "columns")
    needed = ["batch", "prompt_tokens", "output_tokens"]
    needed += [r for pair in _PAIRS if any(getattr(columns, r) is not None for r in pair) for r in pair]
    unnamed = [
        spec.source.problem((*section, role), _unnamed(role)) for role in needed if getattr(columns, role) is None
    ]
    if unnamed:
        raise SpecError(unnamed)
    expressions = Expressions(spec, source.schema)
    problems = []
    for path, name, role in _named(spec):
        if name not in source.schema:
            problems.append(expressions.missing(name, path))
        elif expected := _expected(role, source.schema[name]):
            message = f"column {visible(name)!r} is {source.schema[name]}; expected {expected}"
            problems.append(spec.source.problem(path, message))
    problems += _untimed(spec, source)
    for name in given(spec):
        if name in source.schema:
            message = f"the log has a column {name!r}, which is the name of what the attribution gives each request"
            problems.append(Problem(visible(", ".join(spec.logs.path)), message, "rename it in the log"))
    if problems:
        raise LogError(problems)


def given(spec: Spec) -> tuple[str, ...]:
    """Columns that the attribution adds to the log."""
    if spec.attribution is None:
        return ()
    return (ENERGY,) if spec.attribution.carbon is None else (ENERGY, CARBON)


def role_column(spec: Spec, source: Source, role: str) -> str | None:
    """The log's column for a role: the one the spec names, or one of the role's own name."""
    name = getattr(spec.logs.columns, role)
    if name is None and role in source.schema and not (role in TIME_ROLES and not _is_time(source.schema[role])):
        return role
    return name if name in source.schema else None


def _named(spec: Spec) -> list[tuple[KeyPath, str, str]]:
    """Every column that the attribution names: where, which, and what it should hold."""
    asked_for = asked(spec)
    found: list[tuple[KeyPath, str, str]] = []
    for role in (*KEYS, *NUMBERS):
        if (name := getattr(asked_for.columns, role)) is not None:
            found.append((("attribution", "columns", role), name, role))
    if asked_for.carbon is not None and asked_for.carbon.column is not None:
        found.append((("attribution", "carbon", "column"), asked_for.carbon.column, "number"))
    if asked_for.cold_start is not None:
        found.append((("attribution", "cold_start", "column"), asked_for.cold_start.column, "number"))
        if asked_for.cold_start.by is not None:
            found.append((("attribution", "cold_start", "by"), asked_for.cold_start.by, "key"))
    return found


def _untimed(spec: Spec, source: Source) -> list[Problem]:
    """Model loads are spread in the order of the time, which must be one."""
    name = spec.logs.columns.time
    if asked(spec).cold_start is None or name is None:
        return []
    if name not in source.schema:
        return [Expressions(spec, source.schema).missing(name, ("logs", "columns", "time"))]
    if _is_time(source.schema[name]):
        return []
    message = (
        f"column {visible(name)!r} is {source.schema[name]}; expected a timestamp, a date or whole numbers, in whose "
        "order model loads are spread"
    )
    return [
        spec.source.problem(("logs", "columns", "time"), message, "write it as a timestamp: text is not guessed at")
    ]


def _unnamed(role: str) -> str:
    for pair in _PAIRS:
        if role in pair:
            return _TOGETHER[pair[0]]
    return "needed: which column holds it?"


def _expected(role: str, dtype: pl.DataType) -> str:
    """What a column should hold; empty where it does."""
    if role in (*NUMBERS, "number"):
        return "" if dtype.is_numeric() or dtype == pl.Null else "numbers"
    if dtype.is_nested() or dtype in (pl.Binary, pl.Object):
        return "text or whole numbers"
    return ""


def _is_time(dtype: pl.DataType) -> bool:
    return isinstance(dtype, pl.Datetime | pl.Date) or dtype.is_integer()
