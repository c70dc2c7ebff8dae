"""Which columns an off-policy evaluation reads, where the spec names each of them, and what slices of them hold."""

from __future__ import annotations

import polars as pl

from readout.logs import Logs
from readout.logs.treated import rule_columns
from readout.reduce import pilot
from readout.spec.designs import OPE
from readout.spec.model import Spec
from readout.spec.problems import KeyPath
from readout.terms import Term


def places(spec: Spec) -> dict[str, KeyPath]:
    """State, features and what the policies look at, each where the spec names it first."""
    assert isinstance(spec.design, OPE)
    found: dict[str, KeyPath] = {}
    for role in ("state", "features"):
        names: tuple[str, ...] = getattr(spec.logs.columns, role)
        for i, name in enumerate(names):
            found.setdefault(name, ("logs", "columns", role, i))
    for i, name in enumerate(spec.design.policy_inputs):
        found.setdefault(name, ("design", "policy_inputs", i))
    return found | {name: at for name, at in rule_columns(spec.design).items() if name not in found}


def model_columns(spec: Spec, logs: Logs) -> dict[str, KeyPath]:
    """Columns of the model of the rewards: those of :func:`places` that are logged."""
    return {name: at for name, at in places(spec).items() if name in logs.source.schema}


def policy_first(spec: Spec, logs: Logs) -> tuple[str, ...]:
    """The same columns, those first that a policy reads."""
    assert isinstance(spec.design, OPE)
    first = [*rule_columns(spec.design), *spec.design.policy_inputs]
    known = model_columns(spec, logs)
    return tuple(dict.fromkeys([*(name for name in first if name in known), *known]))


def first_values(logs: Logs, term: Term) -> tuple[float, float]:
    """Mean and standard deviation of a term on a row, from slices of the log; of a ratio over its mean denominator."""
    num, den = term.num.cast(pl.Float64).fill_nan(None), term.weight.cast(pl.Float64)
    asked = [num.mean().alias("mean"), num.std().alias("spread"), den.mean().alias("den")]
    seen = pilot(logs.frame, asked, logs.source.rows).mean().row(0, named=True)
    below = seen["den"] if term.den is not None and seen["den"] else 1.0
    return float(seen["mean"] or 0.0) / below, float(seen["spread"] or 0.0) / below
