"""What a design adjusts for, and which columns cannot be adjusted for because they stand after the action.

The rows that say why are data: configs/bad_controls.yaml.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import polars as pl
import yaml

from readout.bundled import bundled
from readout.logs import Logs
from readout.logs.frame import drawn_within
from readout.logs.treated import arm_role, policy_columns, rule_columns
from readout.spec.designs import IV, OPE, RANDOMIZED, RDD, DiD, Observational
from readout.spec.metrics import Metric
from readout.spec.model import Spec

ADJUST, INPUTS, INSTRUMENT = "design.adjust", "design.policy_inputs", "design.instrument"
TARGET = "design.target_policy"


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table: what something is, the roles that play it, words of its names, and why it is no control."""

    row: str
    roles: tuple[str, ...]
    words: tuple[tuple[str, ...], ...]
    why: str


@dataclass(frozen=True, slots=True)
class Later:
    """A column that stands after the action: how that is known, in words, and the row that says why it matters."""

    said: str
    row: Row


@cache
def rows() -> tuple[Row, ...]:
    """The table, in order; the last row holds the words that take a name's suspicion away."""
    found = yaml.safe_load((bundled("configs") / "bad_controls.yaml").read_text(encoding="utf-8"))
    return tuple(Row(one["row"], tuple(one["roles"]), _words(one["words"]), one["why"]) for one in found)


def _words(given: list[str | list[str]]) -> tuple[tuple[str, ...], ...]:
    return tuple((words,) if isinstance(words, str) else tuple(words) for words in given)


def by_name(name: str) -> Row | None:
    """The row that a column's name speaks of; None where it speaks of none, or of the time before."""
    parts = re.findall(r"e2e|[a-z]+|[0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower())
    *table, before = rows()
    if any(_spoken(words, parts) for words in before.words):
        return None
    return next((row for row in table if any(_spoken(words, parts) for words in row.words)), None)


def _spoken(words: tuple[str, ...], parts: list[str]) -> bool:
    """Whether all words are among the parts, in their order."""
    rest = iter(parts)
    return all(word in rest for word in words)


def _of_role(role: str) -> Row:
    return next(row for row in rows() if role in row.roles)


def adjusted(spec: Spec, logs: Logs) -> dict[str, str]:
    """The columns that the effect of a design without randomization leans on, with the key that names each first:
    what is adjusted for, the instruments, the running variable, what a target policy is written in."""
    design = spec.design
    if isinstance(design, Observational):
        if design.adjust is None:
            return {name: key for name, key in declared(spec, logs).items() if name in logs.source.schema}
        return dict.fromkeys((*design.adjust.propensity, *design.adjust.outcome), ADJUST)
    if isinstance(design, RDD):
        return _first(((design.running,), "design.running"), (design.covariates, "design.covariates"))
    if isinstance(design, IV):
        return _first((design.adjust, ADJUST), (design.instrument, INSTRUMENT))
    if isinstance(design, OPE):
        return _first(
            (rule_columns(design), TARGET),
            *(((name,), ".".join(map(str, path))) for path, name, _ in policy_columns(design)),
        )
    return dict.fromkeys(design.adjust, ADJUST) if isinstance(design, DiD) else {}


def declared(spec: Spec, logs: Logs) -> dict[str, str]:
    """The columns that the spec says stood before the decision, with the key that says so first."""
    state, features = (logs.columns.get(role, ()) for role in ("state", "features"))
    return _first(
        (state, "logs.columns.state"), (features, "logs.columns.features"), (spec.design.policy_inputs, INPUTS)
    )


def fixed(spec: Spec, logs: Logs) -> dict[str, str]:
    """The columns that must be facts from before, whatever else they are: what is adjusted for, and strata."""
    key = "covariate" if spec.estimator.method == "cuped" else ADJUST
    strata = [((name,), ".".join(map(str, path[:2]))) for path, name in drawn_within(spec)]
    return adjusted(spec, logs) | _first((_covariates(spec), key), *strata)


def _first(*named: tuple[Iterable[str], str]) -> dict[str, str]:
    """Each name with the key that it stands under first."""
    found: dict[str, str] = {}
    for names, key in named:
        found |= {name: key for name in names if name not in found}
    return found


def decided_after(spec: Spec, logs: Logs) -> dict[str, Later]:
    """Columns that stand after the action by the spec's own word.

    State may be an outcome too, and what stands below a ratio's line may be a fact from before.
    """
    found = {
        str(name): Later("declared under logs.columns.after", _row(str(name), "after"))
        for name in logs.columns.get("after", ())
    }
    for role in ("executed", "fallback", "timeout", "retries"):
        if logs.has(role):
            said = f"the {role} role, known only after the action"
            found[str(logs.columns[role])] = Later(said, _of_role(role))
    state = logs.columns.get("state", ())
    before = (*state, *logs.columns.get("features", ()), *spec.design.policy_inputs)
    for metric in _moved(spec):
        for name, exempt in ((metric.column, state), (metric.numerator, state), (metric.denominator, before)):
            if name is not None and name not in exempt:
                found.setdefault(name, _measured_by(name, metric))
    return found


def no_control(spec: Spec, logs: Logs) -> dict[str, Later]:
    """Columns that cannot be adjusted for, by the spec's own word: what stands after the action, what tells the action,
    and what metrics and prices are made of."""
    found: dict[str, Later] = {}
    drawn = spec.design.kind in RANDOMIZED
    before = () if drawn else declared(spec, logs)
    for metric in _moved(spec):
        names = [metric.column, metric.numerator, metric.denominator]
        if metric.denominator in before:
            names.pop()
        if metric.expr is not None and len(roots := set(pl.sql_expr(metric.expr).meta.root_names())) == 1:
            names += roots
        found |= {name: _measured_by(name, metric) for name in names if name is not None}
    cost = spec.economics.cost.column if spec.economics is not None and spec.economics.cost is not None else None
    if cost is not None:
        found.setdefault(cost, Later("what economics.cost prices", _row(cost, "metric")))
    if not drawn:
        told = {
            "intended": "the intended role, the policy's choice",
            "propensity": "the propensity role, of the action that ran",
        }
        if arm_role(spec, logs.columns) == "arm" and isinstance(spec.design, Observational):
            told["arm"] = "the arm itself"
        for role, what in told.items():
            if logs.has(role):
                found.setdefault(str(logs.columns[role]), Later(what, _of_role(role)))
    return {**found, **decided_after(spec, logs)}


def _row(name: str, role: str) -> Row:
    """The row that the column's name speaks of, else that of its role."""
    return by_name(name) or _of_role(role)


def _measured_by(name: str, metric: Metric) -> Later:
    return Later(f"measured by the metric {metric.name!r}", _row(name, "metric"))


def _moved(spec: Spec) -> list[Metric]:
    """The metrics that the action may move: all but the negative control."""
    control = getattr(spec.design, "negative_control", None)
    return [metric for metric in spec.metrics.values() if metric.name != control]


def _covariates(spec: Spec) -> list[str]:
    """Columns that the method of a randomized design adjusts for, beside the features."""
    before = getattr(spec.design, "pre_period", None) is not None
    if spec.estimator.method == "cuped" and not before:
        given = [m.covariate.columns for m in spec.metrics.values() if m.covariate is not None and m.quantile is None]
        return list(dict.fromkeys(name for columns in given for name in columns))
    if spec.estimator.method == "regression_adjusted":
        return list(dict.fromkeys(getattr(spec.design, "adjust", ())))
    return []
