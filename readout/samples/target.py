"""The target policy of an off-policy evaluation, row by row: what it does in the logged state, as expressions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import polars as pl

from readout.errors import LogError, Problem, SpecError
from readout.logs import Logs
from readout.logs.values import coded, label
from readout.reduce import Table, collect
from readout.spec.designs import OPE
from readout.spec.model import Spec
from readout.spec.problems import KeyPath, listing
from readout.text import visible

OTHER = "another action"
MOST_ACTIONS = 1000
TABLE = "target policy"
PROBABILITY: KeyPath = ("design", "policy_probability")
COLUMN: KeyPath = ("design", "target_policy", "column")
# Probabilities that miss one by more add up to something else.
ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Target:
    """What both policies do on a row; actions are whole-number codes.

    Attributes:
        actions: Labels by code. Last may stand :data:`OTHER`, what was logged and the spec does not list: the target
            never takes it.
        executed: Code of the logged action.
        chance: Probability with which the target takes the logged action.
        chosen: Code of the action that it takes, or that it drew on this row; None where the spec does not say.
        chances: Its probability of every action, by code; None where it is certain, or the spec does not say.
        certain: Whether it always takes ``chosen``.
        columns: Raw columns that it reads.
    """

    actions: tuple[str, ...]
    executed: pl.Expr
    chance: pl.Expr
    chosen: pl.Expr | None
    chances: tuple[pl.Expr, ...] | None
    certain: bool
    columns: tuple[str, ...]

    @property
    def listed(self) -> tuple[str, ...]:
        """The actions that a policy may take."""
        return tuple(name for name in self.actions if name != OTHER)

    @property
    def whole(self) -> bool:
        """Whether it is known what it does, whatever was logged: a model of the rewards needs that."""
        return self.chosen is not None or self.chances is not None

    def taken(self, code: int) -> pl.Expr:
        """Probability with which it takes an action; of a policy that drew, whether it drew it."""
        if self.chances is not None:
            return self.chances[code]
        assert self.chosen is not None
        return (self.chosen == code).fill_null(False).cast(pl.Float64)


def target_of(spec: Spec, logs: Logs, rows: pl.Expr) -> Target:
    """The target policy over the log's columns.

    ``rows``: those that count.

    Raises:
        SpecError: Keys that say it twice, or rules that cannot be read.
        LogError: Columns that are not there, no action, or more of them than a log of decisions has.
    """
    design = spec.design
    assert isinstance(design, OPE)
    _once(spec, design, logs)
    column = None if design.target_policy is None else design.target_policy.column
    wanted = None if column is None else label(logs.expressions.column(column, COLUMN), logs.dtype(column))
    actions = _actions(spec, design, logs, rows, wanted)
    codes = {name: code for code, name in enumerate(actions) if name != OTHER}
    other = codes.get(OTHER, len(codes)) if OTHER in actions else None
    executed = coded(pl.col("@executed"), tuple(codes), other)
    chosen = _chosen(design, logs, wanted, codes)
    read = tuple(dict.fromkeys(_columns(design)))
    if design.policy_probability is None:
        assert chosen is not None
        return Target(actions, executed, (executed == chosen).cast(pl.Float64), chosen, None, True, read)
    chances = _chances(design, logs, actions)
    if chances is None:
        assert isinstance(design.policy_probability, str)
        number = logs.expressions.number(design.policy_probability, PROBABILITY).cast(pl.Float64)
        return Target(actions, executed, number, chosen, None, False, read)
    chance = reduce(add, (pl.when(executed == code).then(p).otherwise(0.0) for code, p in enumerate(chances)))
    return Target(actions, executed, chance, None, chances, False, read)


def table(target: Target, logs: Logs, spec: Spec, rows: pl.Expr) -> Table:
    """What must hold of the target on every row: it is known, and its probabilities are such."""
    ends: dict[str, pl.Expr] = {}
    sums: dict[str, pl.Expr] = {}
    if target.chosen is not None and target.chosen.meta.root_names():
        sums["unknown"] = target.chosen.is_null().cast(pl.Int8)
    parts = target.chances or (() if target.certain else (target.chance,))
    for code, part in enumerate(parts):
        if part.meta.root_names():
            ends[f"p {code}"] = part.fill_nan(None)
            sums[f"null {code}"] = part.fill_nan(None).is_null().cast(pl.Int8)
    if target.chances is not None:
        ends["sum"] = reduce(add, target.chances)
    if (lengths := _lengths(spec, logs)) is not None:
        ends["length"] = lengths
    minima, maxima = ({f"{end} {name}": expr for name, expr in ends.items()} for end in ("min", "max"))
    return Table(TABLE, {}, where=rows, sums=sums, minima=minima, maxima=maxima)


def require(target: Target, spec: Spec, found: pl.DataFrame) -> None:
    """Refuse a target that is not known on some row, and probabilities that are none.

    Raises:
        LogError: What is wrong, at the key that names it.
    """
    row = found.row(0, named=True)
    problems: list[Problem] = []
    if n := row.get("unknown"):
        design = spec.design
        assert isinstance(design, OPE)
        hint = f"the policy says what it does on every row; actions: {listing(target.listed, 20)}"
        message = f"is no action on {n:,} kept rows: null, or one that design.actions does not list"
        problems.append(spec.source.problem(COLUMN if design.target_policy else PROBABILITY, message, hint))
    nulls = {name: n for name, n in row.items() if name.startswith("null ") and n}
    if wrong := _length(target, spec, row):
        problems.append(wrong)
    elif nulls:
        message = f"is null or NaN on {max(nulls.values()):,} kept rows; expected a probability on each"
        problems.append(spec.source.problem(_at(spec, target, next(iter(nulls))), message))
    else:
        problems += _beyond(target, spec, row)
    if problems:
        raise LogError(problems)


def _length(target: Target, spec: Spec, row: dict[str, Any]) -> Problem | None:
    """Lists that do not have a probability for every action."""
    low, high, n = row.get("min length"), row.get("max length"), len(target.listed)
    if low is None or low == high == n:
        return None
    ends = f"{low}" if low == high else f"{low} to {high}"
    return spec.source.problem(PROBABILITY, f"holds lists of {ends} probabilities; design.actions lists {n} actions")


def _beyond(target: Target, spec: Spec, row: dict[str, Any]) -> list[Problem]:
    """Numbers that are no probabilities."""
    for key in (key for key in row if key.startswith("min p ")):
        low, high = row[key], row["max p " + key.removeprefix("min p ")]
        if low is not None and (low < -ROUNDING or high > 1.0 + ROUNDING):
            at = _at(spec, target, "null " + key.removeprefix("min p "))
            return [spec.source.problem(at, f"runs from {low:.6g} to {high:.6g}; expected probabilities")]
    low, high = row.get("min sum"), row.get("max sum")
    if low is not None and high is not None and (low < 1.0 - ROUNDING or high > 1.0 + ROUNDING):
        hint = "the target's probabilities of all actions add up to 1 on every row"
        return [spec.source.problem(PROBABILITY, f"adds up to between {low:.6g} and {high:.6g} on a row", hint)]
    return []


def _at(spec: Spec, target: Target, name: str) -> KeyPath:
    design = spec.design
    assert isinstance(design, OPE)
    if isinstance(design.policy_probability, dict):
        return (*PROBABILITY, target.actions[int(name.removeprefix("null "))])
    return PROBABILITY


def _once(spec: Spec, design: OPE, logs: Logs) -> None:
    """A policy that is written twice may be two.

    Raises:
        SpecError: It is.
    """
    policy, given = design.target_policy, design.policy_probability
    several = isinstance(given, dict) or (given is not None and _is_list(logs, given))
    if policy is not None and several:
        message = "policy_probability says what the policy does with every action already"
        raise SpecError([spec.source.problem(("design", "target_policy"), message, "leave one out", on_key=True)])
    if policy is not None and given is not None and policy.column is None:
        message = "rules leave nothing to chance, so there is no probability to give"
        raise SpecError([spec.source.problem(PROBABILITY, message, "leave one out", on_key=True)])
    if given is not None and not isinstance(given, dict) and several and not design.actions:
        message = "needed: the actions in the order of policy_probability's lists"
        raise SpecError([spec.source.problem(("design", "actions"), message)])


def _is_list(logs: Logs, column: str) -> bool:
    return isinstance(logs.source.schema.get(column), pl.List | pl.Array)


def _actions(spec: Spec, design: OPE, logs: Logs, rows: pl.Expr, wanted: pl.Expr | None) -> tuple[str, ...]:
    """Labels by code: those that the spec lists, else all that were logged or that the target takes."""
    asked = [logs.frame.filter(rows).select(pl.col("@executed").drop_nulls().unique())]
    listed = list(design.actions)
    if isinstance(design.policy_probability, dict) and not listed:
        listed = list(design.policy_probability)
    if wanted is not None and not listed:
        asked.append(logs.frame.filter(rows).select(wanted.drop_nulls().unique().alias("wanted")))
    found = collect(asked)
    logged = sorted(found[0].to_series().to_list())
    if len(logged) > MOST_ACTIONS:
        name = str(logs.columns["executed"])
        message = f"column {visible(name)!r} holds {len(logged):,} different actions; expected up to {MOST_ACTIONS:,}"
        raise LogError([spec.source.problem(("logs", "columns", "executed"), message)])
    if listed:
        others = [name for name in logged if name not in listed]
        return (*listed, *([OTHER] if others else []))
    named = [rule.action for rule in design.target_policy.rules] if design.target_policy is not None else []
    if design.target_policy is not None and design.target_policy.otherwise is not None:
        named.append(design.target_policy.otherwise)
    more = [str(one) for frame in found[1:] for one in frame.to_series().to_list()]
    return tuple(sorted({*logged, *named, *more}))


def _chosen(design: OPE, logs: Logs, wanted: pl.Expr | None, codes: dict[str, int]) -> pl.Expr | None:
    """Code of the action that rules or a column give; null where it is none of the actions."""
    if wanted is not None:
        return coded(wanted, tuple(codes))
    if design.target_policy is None:
        return None
    policy = design.target_policy
    code = pl.lit(codes[str(policy.otherwise)], dtype=pl.Int32)
    for i, rule in reversed(list(enumerate(policy.rules))):
        test = logs.expressions.condition(rule.when, ("design", "target_policy", "rules", i, "when"))
        code = pl.when(test).then(pl.lit(codes[rule.action], dtype=pl.Int32)).otherwise(code)
    return code


def _chances(design: OPE, logs: Logs, actions: Sequence[str]) -> tuple[pl.Expr, ...] | None:
    """Probability of every action, by code; None where only the logged one's is given."""
    given, zero = design.policy_probability, pl.lit(0.0)
    assert given is not None
    if isinstance(given, dict):
        read = logs.expressions
        return tuple(read.number(given[a], (*PROBABILITY, a)).cast(pl.Float64) if a in given else zero for a in actions)
    if not _is_list(logs, given):
        return None
    lists = pl.col(given)
    if isinstance(logs.dtype(given), pl.Array):
        lists = lists.arr.to_list()
    listed = [name for name in actions if name != OTHER]
    parts = [lists.list.get(i, null_on_oob=True).cast(pl.Float64) for i in range(len(listed))]
    return (*parts, *([zero] if len(actions) > len(listed) else []))


def _lengths(spec: Spec, logs: Logs) -> pl.Expr | None:
    given = getattr(spec.design, "policy_probability", None)
    if not isinstance(given, str) or not _is_list(logs, given):
        return None
    lists = pl.col(given)
    return (lists.arr.to_list() if isinstance(logs.dtype(given), pl.Array) else lists).list.len().cast(pl.Int64)


def _columns(design: OPE) -> list[str]:
    policy, given = design.target_policy, design.policy_probability
    found = [] if policy is None or policy.column is None else [policy.column]
    for rule in policy.rules if policy is not None else ():
        found += pl.sql_expr(rule.when).meta.root_names()
    if given is not None:
        found += [given] if isinstance(given, str) else list(given.values())
    return found
