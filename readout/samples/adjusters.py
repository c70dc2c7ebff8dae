"""Which columns an observational design adjusts for, and where the spec names each of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from readout.errors import LogError, SpecError
from readout.logs import Logs
from readout.logs.treated import adjusted_at
from readout.samples.design_matrix import unfit
from readout.spec.designs import Observational
from readout.spec.model import Spec
from readout.spec.problems import KeyPath


@dataclass(frozen=True, slots=True)
class Adjusters:
    """Columns by use.

    Attributes:
        propensity, outcome: Columns of the model for treatment and of that for outcomes, in the order of the spec.
        known: All columns that are known from before the decision and can be compared: those, state, features and
            logged policy inputs.
        unasked: Policy inputs that are adjusted for although neither state nor features name them.
        at: Where the spec names each.
    """

    propensity: tuple[str, ...]
    outcome: tuple[str, ...]
    known: tuple[str, ...]
    unasked: tuple[str, ...]
    at: Mapping[str, KeyPath]


def adjusters(spec: Spec, logs: Logs) -> Adjusters:
    """``design.adjust``, else state, features and the policy inputs that are logged.

    Raises:
        LogError: Columns that cannot be adjusted for.
        SpecError: Lists by model under a method that has one list.
    """
    design, schema = spec.design, logs.source.schema
    assert isinstance(design, Observational)
    at = places(spec)
    if design.adjust is None:
        inputs = [name for name in design.policy_inputs if name in schema]
        named = (*logs.columns.get("state", ()), *logs.columns.get("features", ()), *inputs)
        outcome = propensity = tuple(dict.fromkeys(named))
        unasked = tuple(name for name in dict.fromkeys(inputs) if name not in named[: len(named) - len(inputs)])
    else:
        propensity = tuple(dict.fromkeys(design.adjust.propensity))
        outcome = tuple(dict.fromkeys(design.adjust.outcome))
        unasked = ()
        if spec.estimator.method == "matching" and set(propensity) != set(outcome):
            hint = "adjust: [columns]"
            message = "matching compares rows by one list of columns, not by one for each model"
            raise SpecError([spec.source.problem(("design", "adjust"), message, hint, on_key=True)])
    _require_fit(spec, logs, dict.fromkeys((*propensity, *outcome)), at)
    known = tuple(name for name in at if name in schema and not unfit(schema, name))
    return Adjusters(propensity, outcome, known, unasked, at)


def places(spec: Spec) -> dict[str, KeyPath]:
    """Every column known from before the decision, and where the spec names it first."""
    design = spec.design
    assert isinstance(design, Observational)
    found: dict[str, KeyPath] = {}
    for path, name in adjusted_at(design):
        found.setdefault(name, path)
    for role in ("state", "features"):
        names: tuple[str, ...] = getattr(spec.logs.columns, role)
        for i, name in enumerate(names):
            found.setdefault(name, ("logs", "columns", role, i))
    for i, name in enumerate(design.policy_inputs):
        found.setdefault(name, ("design", "policy_inputs", i))
    return found


def _require_fit(spec: Spec, logs: Logs, names: Mapping[str, None], at: Mapping[str, KeyPath]) -> None:
    """Refuse columns that no model can be given.

    Raises:
        LogError: All of them.
    """
    hint = "name the columns to adjust for in design.adjust"
    found = [(name, unfit(logs.source.schema, name)) for name in names]
    if problems := [spec.source.problem(at[name], wrong, hint) for name, wrong in found if wrong]:
        raise LogError(problems)
