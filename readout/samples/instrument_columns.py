"""What an instrumental variable design reads of a log, and what of it cannot be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from readout.errors import LogError, Problem, SpecError
from readout.logs import Logs
from readout.samples.design_matrix import unfit
from readout.spec.designs import IV
from readout.spec.model import Spec
from readout.spec.problems import KeyPath
from readout.text import visible

VARIANCE: KeyPath = ("estimator", "variance")


@dataclass(frozen=True, slots=True)
class Instruments:
    """The columns of the design, by use.

    Attributes:
        columns: The instruments that are read as they are: all but the assigned arm.
        arm: Whether the assigned arm is an instrument: 1 where it is the treatment's, 0 where control's.
        chosen: The column of the intended action where it is one; its probabilities are then known. Empty: it is none.
        amount: Whether the executed action is a number, of which the effect is that of one unit.
        adjust: Columns given which the instruments are as good as random.
        known: Columns known from before the decision that can be compared: features, state, policy inputs, adjusters.
    """

    columns: tuple[str, ...]
    arm: bool
    chosen: str
    amount: bool
    adjust: tuple[str, ...]
    known: tuple[str, ...]

    @property
    def names(self) -> int:
        """How many columns the instruments are."""
        return len(self.columns) + self.arm


def instruments_of(spec: Spec, logs: Logs) -> Instruments:
    """The design's columns.

    Raises:
        SpecError: What the design or the method cannot do.
        LogError: Columns of a type that no model can be given.
    """
    design, schema = spec.design, logs.source.schema
    assert isinstance(design, IV)
    arm, intended = (logs.columns.get(role) for role in ("arm", "intended"))
    amount = design.control is None
    drawn = arm in design.instrument and not amount
    found = Instruments(
        columns=tuple(dict.fromkeys(name for name in design.instrument if not (drawn and name == arm))),
        arm=drawn,
        chosen=str(intended) if intended in design.instrument else "",
        amount=amount,
        adjust=tuple(dict.fromkeys(design.adjust)),
        known=tuple(name for name in _before(spec, logs) if not unfit(schema, name)),
    )
    if problems := [*_amount(spec, found), *_chosen(spec, logs, found), *_method(spec, logs, found)]:
        raise SpecError(problems)
    _require_types(spec, logs, found)
    return found


def places(spec: Spec) -> Mapping[str, KeyPath]:
    """Where the design names each of its columns first."""
    design = spec.design
    assert isinstance(design, IV)
    found: dict[str, KeyPath] = {}
    for key, names in (("instrument", design.instrument), ("adjust", design.adjust)):
        for i, name in enumerate(names):
            found.setdefault(name, ("design", key, i))
    return found


def _before(spec: Spec, logs: Logs) -> list[str]:
    """Columns known from before the decision that are in the log, instruments aside."""
    design = spec.design
    assert isinstance(design, IV)
    names = (*logs.columns.get("features", ()), *logs.columns.get("state", ()), *design.policy_inputs, *design.adjust)
    return [name for name in dict.fromkeys(names) if name in logs.source.schema and name not in design.instrument]


def _amount(spec: Spec, found: Instruments) -> list[Problem]:
    """What sums by arm are asked for where no row stands under an arm."""
    if not found.amount:
        return []
    message = "needs rows by arm, and where the executed action is a number there are none"
    hint = "name design.control and design.treatment, or leave this out"
    keys: list[KeyPath] = [(key,) for key in ("economics", "attribution", "capacity") if getattr(spec, key) is not None]
    keys += [("rollback", i) for i, trigger in enumerate(spec.rollback) if not trigger.no_movement]
    return [spec.source.problem(key, message, hint, on_key=len(key) == 1) for key in keys]


def _chosen(spec: Spec, logs: Logs, found: Instruments) -> list[Problem]:
    """That the policy's choice is no instrument unless it is known with what probability it fell."""
    design = spec.design
    assert isinstance(design, IV)
    if not found.chosen or design.split is not None or (logs.has("propensity") and not found.amount):
        return []
    message = (
        f"{visible(found.chosen)!r} is what the policy chose; it is an instrument only where chance chose, with known "
        "probabilities"
    )
    hint = "map the role propensity (the probability of the choice), say design.split, or take the assigned arm"
    return [spec.source.problem(("design", "instrument", design.instrument.index(found.chosen)), message, hint)]


def _method(spec: Spec, logs: Logs, found: Instruments) -> list[Problem]:
    problems = []
    hint = "method: two_stage_least_squares"
    if spec.estimator.method == "wald" and found.adjust:
        message = "wald compares two groups and adjusts for nothing"
        problems.append(spec.source.problem(("design", "adjust"), message, hint, on_key=True))
    if spec.estimator.method == "wald" and found.names > 1:
        message = f"wald takes one instrument of two values, got {found.names} columns"
        problems.append(spec.source.problem(("design", "instrument"), message, hint))
    if spec.estimator.options["variance"] == "cluster" and not logs.has("cluster"):
        message = "needs the role 'cluster', which no column plays"
        hint = "map the role cluster in logs.columns, or leave variance out: errors are then by unit"
        problems.append(spec.source.problem(VARIANCE, message, hint))
    return problems


def _require_types(spec: Spec, logs: Logs, found: Instruments) -> None:
    """Refuse columns that no model can be given.

    Raises:
        LogError: All of them.
    """
    schema, at = logs.source.schema, places(spec)
    wrong = [(at[name], unfit(schema, name)) for name in dict.fromkeys((*found.columns, *found.adjust))]
    problems = [spec.source.problem(path, said) for path, said in wrong if said]
    executed = str(logs.columns["executed"])
    if found.amount and not (schema[executed].is_numeric() or str(schema[executed]) == "Boolean"):
        message = f"the executed action, column {visible(executed)!r}, is {schema[executed]}; expected numbers"
        hint = "where actions are labels, name design.control and design.treatment"
        problems.append(spec.source.problem(("design",), message, hint, on_key=True))
    if problems:
        raise LogError(problems)
