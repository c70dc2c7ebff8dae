"""Faults that show only while rows are read, said of the place in the spec or of the file that they come from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import polars as pl

from readout import economics
from readout.capacity import LOAD
from readout.checks import balance
from readout.errors import LogError, Problem
from readout.logs import Logs
from readout.logs.treated import RUNNING
from readout.reduce import NotFinite
from readout.samples import rollouts
from readout.samples.adjusters import places
from readout.samples.by_action_refusals import ADJUST
from readout.samples.discontinuity import ADJUSTER
from readout.samples.instrument_columns import places as instrument_places
from readout.samples.instrument_rows import EXECUTED, FACT, INSTRUMENT, PROPENSITY, fact_place
from readout.samples.joint_rows import JOINT
from readout.samples.off_policy import MODEL
from readout.samples.policy_columns import places as model_places
from readout.spec.designs import OPE, DiD, Observational
from readout.spec.model import Spec
from readout.spec.problems import KeyPath
from readout.terms import BEFORE, COVARIATE, SEGMENT
from readout.text import visible

FROM_POLARS = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)


@contextmanager
def reading(spec: Spec, logs: Logs) -> Iterator[None]:
    """What Polars says of rows, said of the spec or of a file.

    Raises:
        LogError: NaN or infinity where numbers are summed, a file that cannot be read whole, or values that cannot be
            computed with.
    """
    try:
        yield
    except NotFinite as error:
        raise _not_finite(spec, error) from error
    except (LogError, *FROM_POLARS) as error:
        fault = error if isinstance(error, FROM_POLARS) else error.__cause__
        if not isinstance(fault, FROM_POLARS):
            raise
        broken = [(file, why) for file in logs.source.files if (why := _broken(file))]
        if not broken and isinstance(fault, pl.exceptions.PanicException):
            raise
        problems = [
            Problem(visible(file), f"cannot be read to the end: {why}", "write or copy it again")
            for file, why in broken
        ]
        where = visible(", ".join(spec.logs.path))
        raise LogError(problems or [Problem(where, f"cannot be computed with: {_first_line(fault)}")]) from fault


def _broken(file: str) -> str:
    """Why a file cannot be read whole; empty where it can."""
    try:
        pl.scan_parquet(file).select(pl.all().null_count()).collect(engine="streaming")
    except FROM_POLARS as error:
        return _first_line(error)
    return ""


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return visible(text.splitlines()[0] if text else type(error).__name__, 300)


def _not_finite(spec: Spec, error: NotFinite) -> LogError:
    """Each place of the spec that asked for a sum with NaN or infinity in it, once."""
    found: dict[KeyPath, Problem] = {}
    both = list(zip(error.problems, error.names, strict=True))
    # Products of values that are named themselves, unless only their product is too large.
    alone = [(problem, name) for problem, name in both if not name.startswith(JOINT)]
    for problem, name in alone or both:
        at = _place(spec, name.rsplit("|", 1)[0])
        found.setdefault(at, spec.source.problem(at, problem.message, problem.hint, on_key=at[:1] == ("metrics",)))
    return LogError([found[at] for at in sorted(found, key=str)])


def _place(spec: Spec, name: str) -> KeyPath:
    """Where the spec asks for a sum of this name."""
    name = name.removeprefix(JOINT)
    if name.startswith(SEGMENT):
        name = name.removeprefix(SEGMENT).partition(" ")[2]
    name = name.removeprefix(BEFORE)
    if name in spec.metrics:
        return ("metrics", name)
    if name.startswith(COVARIATE):
        column = name.removeprefix(COVARIATE)
        uses = (m for m in spec.metrics.values() if m.covariate is not None and column in m.covariate.columns)
        return ("metrics", next(uses).name, "covariate")
    if name in (economics.NET, economics.VALUE, economics.COST):
        return ("economics",)
    if name == LOAD:
        return ("capacity", "load")
    if name.startswith("trigger "):
        return ("rollback", int(name.removeprefix("trigger ")))
    if name in (EXECUTED, PROPENSITY):
        return ("logs", "columns", name.removeprefix("@"))
    if name.startswith(MODEL) and isinstance(spec.design, OPE):
        return model_places(spec)[name.removeprefix(MODEL)]
    if name.startswith(INSTRUMENT):
        return instrument_places(spec)[name.removeprefix(INSTRUMENT)]
    if name.startswith(FACT):
        return fact_place(spec, name.removeprefix(FACT))
    if name == RUNNING:
        return ("design", "running")
    if name.startswith(ADJUSTER):
        names = getattr(spec.design, "covariates", ())
        return ("design", "covariates", names.index(name.removeprefix(ADJUSTER)))
    if name.startswith(ADJUST) and isinstance(spec.design, Observational):
        return places(spec)[name.removeprefix(ADJUST)]
    if name.startswith(rollouts.ADJUST) and isinstance(spec.design, DiD):
        return ("design", "adjust", spec.design.adjust.index(name.removeprefix(rollouts.ADJUST)))
    adjust = tuple(getattr(spec.design, "adjust", ())) if spec.estimator.method == "regression_adjusted" else ()
    if name.startswith(balance.FEATURE) and name.removeprefix(balance.FEATURE) in adjust:
        return ("design", "adjust", adjust.index(name.removeprefix(balance.FEATURE)))
    for role, prefix in (("features", balance.FEATURE), ("state", "state ")):
        names = getattr(spec.logs.columns, role)
        if name.startswith(prefix) and name.removeprefix(prefix) in names:
            return ("logs", "columns", role, names.index(name.removeprefix(prefix)))
    return ("logs",)
