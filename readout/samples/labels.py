"""Facts of what was randomized that each of its rows repeats: strata, pairs, and the cluster that holds a unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from readout.errors import LogError, Problem, SpecError
from readout.logs import Logs
from readout.logs.frame import PAIRS, drawn_within
from readout.logs.values import label
from readout.reduce import Table
from readout.spec.metrics import Metric
from readout.spec.model import Spec
from readout.spec.problems import KeyPath
from readout.text import visible

# Below so many clusters CR1 falls short.
FEW_FOR_CR1 = 50
VARIANCE: KeyPath = ("estimator", "variance")


@dataclass(frozen=True, slots=True)
class Fact:
    """A label that is to be the same on all rows of one unit or cluster.

    Attributes:
        at: Where the spec names its column.
        column: The column.
        what: What it says: stratum, pair or cluster.
        value: The label of a row.
        hint: What to do where it is null or varies.
    """

    at: KeyPath
    column: str
    what: str
    value: pl.Expr
    hint: str


def strata_and_pairs(spec: Spec, logs: Logs, owner: str) -> list[Fact]:
    """The strata and pairs within which ``owner`` (unit, cluster) was randomized; the pairs last."""
    found = []
    for at, name in drawn_within(spec):
        what = "pair" if at == PAIRS else "stratum"
        hint = f"give each {owner} one {what} on all of its rows, fixed before its assignment"
        found.append(Fact(at, name, what, label(pl.col(name), logs.dtype(name)), hint))
    return found


def cluster_of_units(logs: Logs, owner: str) -> Fact:
    """The cluster that holds a unit whole, which errors are clustered by."""
    hint = (
        f"errors by cluster need {owner}s that lie within one cluster each: map the role cluster to such a column, or "
        "leave estimator.variance out"
    )
    at: KeyPath = ("logs", "columns", "cluster")
    return Fact(at, str(logs.columns["cluster"]), "cluster", pl.col("@cluster").cast(pl.String), hint)


def require_cluster(spec: Spec, logs: Logs) -> None:
    """Refuse errors clustered by a role that no column plays.

    Raises:
        SpecError: The spec asks for them.
    """
    if clustered_by(spec) is not None and not logs.has("cluster"):
        hint = "map the role cluster in logs.columns, or leave variance out: errors are then by unit (Welch)"
        raise SpecError([spec.source.problem(VARIANCE, "needs the role 'cluster', which no column plays", hint)])


def clustered_by(spec: Spec) -> str | None:
    """The cluster-robust variance that the spec asks for where units or requests are randomized; None: Welch's."""
    asked = spec.estimator.method == "difference_in_means" and "variance" in spec.estimator.said
    return str(spec.estimator.options["variance"]) if asked else None


def within(facts: Sequence[Fact]) -> str:
    """Within what the arms were drawn, in words; empty where nothing."""
    names = [visible(fact.column, 60) for fact in facts if fact.what == "stratum"]
    pairs = any(fact.what == "pair" for fact in facts)
    if names:
        return f", within strata of {', '.join(names)}" + " and pairs" * pairs
    return ", within pairs" if pairs else ""


def notes(metric: Metric, facts: Sequence[Fact], variance: str | None, n_clusters: int | None) -> list[str]:
    """What strata, or errors by cluster, mean for a metric's interval.

    Args:
        metric: The metric.
        facts: The strata, or the cluster that errors are clustered by.
        variance: The cluster-robust variance; None: there are strata or nothing.
        n_clusters: How many clusters hold units, where errors are clustered.
    """
    if variance is not None:
        few = variance == "CR1" and n_clusters is not None and n_clusters < FEW_FOR_CR1
        if metric.quantile is not None:
            return ["its interval takes clusters as the independent groups, arms as independent of each other"]
        short = f"CR1 errors are too small with so few clusters ({n_clusters}, fewer than {FEW_FOR_CR1})"
        return [f"{short}: variance CR2 holds better"] if few else []
    if facts and metric.quantile is not None:
        return ["strata do not narrow its interval"]
    return []


def with_facts(table: Table, facts: Sequence[Fact]) -> Table:
    """The table, asked for the facts of its groups too: the first and last label, and the rows without one."""
    sums = {_nulls(i): fact.value.is_null().cast(pl.Int8) for i, fact in enumerate(facts)}
    lows = {low(i): fact.value for i, fact in enumerate(facts)}
    highs = {_high(i): fact.value for i, fact in enumerate(facts)}
    return table | Table(table.name, table.keys, table.where, sums=sums, minima=lows, maxima=highs)


def low(i: int) -> str:
    """Column of the i-th fact in a table asked for it."""
    return f"label {i} low"


def _high(i: int) -> str:
    return f"label {i} high"


def _nulls(i: int) -> str:
    return f"no label {i}"


def require_constant(spec: Spec, frame: pl.DataFrame, facts: Sequence[Fact], owner: str, *, named: bool) -> None:
    """Refuse facts that are null somewhere, or differ between rows of one owner.

    Args:
        spec: The spec, which names the columns.
        frame: A table asked for the facts, its owners in the column ``owner``.
        facts: Those that were asked for.
        owner: What they are facts of: unit, request or cluster.
        named: Whether the column holds names that a reader knows.

    Raises:
        LogError: All such columns at once.
    """
    problems: list[Problem] = []
    for i, fact in enumerate(facts):
        by = frame.group_by(owner).agg(
            pl.col(low(i)).min().alias("low"),
            pl.col(_high(i)).max().alias("high"),
            pl.col(_nulls(i)).sum().alias("nulls"),
        )
        column = visible(fact.column)
        if nulls := int(by["nulls"].sum()):
            owners = int((by["nulls"] > 0).sum())
            message = f"column {column!r} is null on {nulls:,} kept rows, of {owners:,} {owner}s"
            problems.append(spec.source.problem(fact.at, message, fact.hint))
        elif len(apart := by.filter(pl.col("low") != pl.col("high")).sort(owner)):
            name, first, last = (visible(str(apart[part][0]), 60) for part in (owner, "low", "high"))
            such = f"such as {name!r}, which has" if named else f"such as a {owner} that has"
            message = f"column {column!r} varies within {len(apart):,} of {len(by):,} {owner}s"
            problems.append(spec.source.problem(fact.at, f"{message}, {such} {first!r} and {last!r}", fact.hint))
    if problems:
        raise LogError(problems)


def require_known(spec: Spec, frame: pl.DataFrame, facts: Sequence[Fact]) -> None:
    """Refuse facts that are null somewhere, in a table that is keyed by them.

    Raises:
        LogError: All such columns at once.
    """
    found = [(fact, int(frame.filter(pl.col(low(i)).is_null())["n"].sum())) for i, fact in enumerate(facts)]
    problems = [
        spec.source.problem(fact.at, f"column {visible(fact.column)!r} is null on {nulls:,} kept rows", fact.hint)
        for fact, nulls in found
        if nulls
    ]
    if problems:
        raise LogError(problems)


def codes(frame: pl.DataFrame, n_facts: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Code of each row's labels in a table with facts, and the codes' names, sorted; several facts go by all labels."""
    columns = [low(i) for i in range(n_facts)]
    order = frame.select(columns).unique().sort(columns).with_row_index("@code")
    joined = frame.select(columns).join(order, on=columns, how="left", maintain_order="left")
    names = tuple(str(row[0] if len(row) == 1 else row) for row in order.drop("@code").rows())
    return joined["@code"].cast(pl.Int64).to_numpy(), names
