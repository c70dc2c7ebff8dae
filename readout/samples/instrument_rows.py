"""The rows of an instrumental variable design, with what is read of them as matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from readout.errors import LogError
from readout.logs import Logs
from readout.samples.base import KEPT
from readout.samples.design_matrix import IDENTIFIER, DesignMatrix, Matrix, design_matrix, identifiers
from readout.samples.held import Codes, Held, Vector, hold
from readout.samples.instrument_columns import VARIANCE, Instruments, places
from readout.spec.model import Spec
from readout.spec.problems import KeyPath
from readout.terms import Term
from readout.text import named, visible

INSTRUMENT, FACT, RAW = "@instrument ", "@fact ", "raw|"
DRAWN, TAKEN, CHANCE, CHOSEN, OTHER = "drawn", "taken", "chance", "chosen", "other action"
EXECUTED, PROPENSITY = "@executed", "@propensity"
NO_ACTION, NO_INSTRUMENT, NO_CLUSTER = "no executed action", "no instrument", "no cluster to group errors by"
NO_CHANCE, UNNAMED = "no probability of the choice", "a choice the spec does not name"
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Group:
    """Within what errors are not independent.

    Attributes:
        by: ``row``, ``unit`` or ``cluster``.
        codes: ``(n,)``; None: rows are independent.
        unasked: Whether it is the cluster because the instruments do not vary within clusters.
        overruled: Whether the spec asks for errors of independent rows.
    """

    by: str
    codes: Codes | None
    unasked: bool = False
    overruled: bool = False


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows in an order of their own.

    Attributes:
        frame: As they are held.
        said: That not all rows are read, in words; empty where all are.
        arm: ``(n,)`` arm codes.
        taken: ``(n,)`` the action that ran: 1 the treatment, 0 another; or its amount.
        z, facts: Instruments, and what is known from before the decision.
        x: ``(n, p)`` what is adjusted for; None: nothing.
        given: Whether the instrument's probabilities differ by row, so that it is adjusted for them.
        units: ``(n,)`` codes; None: no unit is mapped.
        group: By what errors are clustered.
        drawn: What counts once: the coarsest of row, unit and group within which the assigned arm does not vary; of
            other instruments the unit, where units stand on several rows.
        others: Rows on which an action ran that is neither control nor treatment.
    """

    frame: pl.DataFrame
    said: str
    arm: Codes
    taken: Vector
    z: DesignMatrix
    facts: DesignMatrix
    x: Matrix | None
    given: bool
    units: Codes | None
    group: Group
    drawn: Group
    others: int
    held: Held

    def numerator(self, term: Term) -> Vector:
        """``(n,)`` NaN where the row has no value."""
        return self.held.numerator(term)

    def denominator(self, term: Term) -> Vector | None:
        """``(n,)`` of a ratio; None of a mean."""
        return self.held.denominator(term)


def complete(read: Instruments) -> pl.Expr:
    """Whether a row has an action and all instruments."""
    found = pl.col("@executed").is_not_null()
    for name in read.columns:
        found &= pl.col(name).is_not_null()
    return found


def numbers(logs: Logs, read: Instruments) -> dict[str, pl.Expr]:
    """What must hold neither NaN nor infinity, by where it is named."""
    found = {f"{INSTRUMENT}{name}|x": pl.col(name) for name in read.columns if logs.dtype(name).is_float()}
    found |= {f"{FACT}{name}|x": pl.col(name) for name in read.known if logs.dtype(name).is_float()}
    executed = str(logs.columns["executed"])
    if read.amount and logs.dtype(executed).is_float():
        found[f"{EXECUTED}|x"] = pl.col(executed)
    if read.chosen and logs.has("propensity"):
        found[f"{PROPENSITY}|x"] = pl.col("@propensity")
    return found


def load(
    spec: Spec, logs: Logs, read: Instruments, terms: Sequence[Term], seed: int, rows: int
) -> tuple[Rows, dict[str, int]]:
    """The rows, and how many are left out by reason.

    Raises:
        LogError: An instrument or action that does not vary, text that tells rows rather than groups, groups that do
            not nest, or sums within units of which an instrument changes.
    """
    held = hold(spec, logs, terms, _columns(spec, logs, read), seed, rows)
    frame, left = _filtered(spec, logs, read, held.frame)
    frame = _in_order(frame)
    _require_groups(spec, frame, read)
    raw = frame.select(pl.col(RAW + name).alias(name) for name in dict.fromkeys((*read.known, *read.adjust)))
    told = identifiers(raw, read.known)
    fit = tuple(name for name in read.known if name not in told)
    facts = design_matrix(raw, fit)
    x = facts.x if fit == read.adjust else design_matrix(raw, read.adjust).x
    frame = frame.drop([name for name in frame.columns if name.startswith(RAW)])
    taken = frame[TAKEN].cast(pl.Float64).to_numpy().astype(np.float64)
    z = _instruments(frame, read)
    if not read.arm or held.frame["arm"].n_unique() > 1:  # an arm without rows is said where rows are counted
        _require_moves(spec, logs, read, taken, z)
        _require_control(spec, logs, read, frame)
    mine = Held(frame, held.rows, held.share)
    units = mine.codes("unit")
    group = _group(spec, mine, z.x, units)
    if any(term.per_unit for term in terms):
        _require_one_instrument(spec, frame, z.x, units, terms)
    given = False
    if CHANCE in frame.columns:
        chance = _chance(spec, frame)
        given = bool(np.ptp(chance) > 0.0)
        x = np.column_stack([x, chance]) if given else x
    return Rows(
        frame=frame,
        said=held.said,
        arm=mine.arm,
        taken=taken,
        z=z,
        facts=facts,
        x=x if x.shape[1] else None,
        given=given,
        units=units,
        group=group,
        drawn=_drawn(read, group, mine.arm, units),
        others=int(frame[OTHER].sum()),
        held=mine,
    ), left


def _columns(spec: Spec, logs: Logs, read: Instruments) -> dict[str, pl.Expr]:
    control, treatment = spec.design.control, spec.design.treatment
    executed = pl.col(str(logs.columns["executed"]))
    columns: dict[str, pl.Expr] = {INSTRUMENT + name: pl.col(name) for name in read.columns}
    if read.amount:
        columns |= {TAKEN: executed.cast(pl.Float64), OTHER: pl.lit(False)}
    else:
        ran = pl.col("@executed")
        columns |= {TAKEN: ran == treatment[0], OTHER: ~ran.is_in([str(control), treatment[0]])}
    if read.arm:
        columns[DRAWN] = pl.col("@arm") == treatment[0]
    if read.chosen and not read.amount:
        columns[CHOSEN] = (
            pl.when(pl.col("@intended") == treatment[0]).then(True).when(pl.col("@intended") == control).then(False)
        )
        if logs.has("propensity") and spec.design.split is None:
            columns[CHANCE] = pl.col("@propensity").cast(pl.Float64)
    return columns | {RAW + name: pl.col(name) for name in dict.fromkeys((*read.known, *read.adjust))}


def _filtered(spec: Spec, logs: Logs, read: Instruments, frame: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, int]]:
    """The rows that have all that is read, and how many lack each, at the first that they lack."""
    tests = {NO_ACTION: [TAKEN], NO_INSTRUMENT: [INSTRUMENT + name for name in read.columns]}
    if CHOSEN in frame.columns:
        tests[UNNAMED] = [CHOSEN]
    if CHANCE in frame.columns:
        tests[NO_CHANCE] = [CHANCE]
    if spec.estimator.options["variance"] == "cluster":
        tests[NO_CLUSTER] = ["cluster"]
    left = {}
    for reason, names in tests.items():
        kept = frame.drop_nulls(names) if names else frame
        if len(kept) < len(frame):
            left[reason] = len(frame) - len(kept)
        frame = kept
    return frame, left


def _in_order(frame: pl.DataFrame) -> pl.DataFrame:
    """Rows by unit and content, so that nothing hangs on the order of the log."""
    keys = [frame["unit"].alias("unit")] if "unit" in frame.columns else []
    by = pl.DataFrame([*keys, frame.hash_rows(seed=0).alias("content")])
    return frame[by.select(pl.arg_sort_by(by.columns)).to_series()]


def _instruments(frame: pl.DataFrame, read: Instruments) -> DesignMatrix:
    """Numbers and flags as they are, text by level, the arm and the choice as 1 where they are the treatment's."""
    made: dict[str, pl.Series] = {}
    if read.arm:
        made["arm"] = frame[DRAWN]
    for name in read.columns:
        made[name] = frame[CHOSEN if name == read.chosen and CHOSEN in frame.columns else INSTRUMENT + name]
    table = pl.DataFrame(made)
    return design_matrix(table, table.columns)


def _chance(spec: Spec, frame: pl.DataFrame) -> Vector:
    """``(n,)`` probability that the choice was the treatment.

    Raises:
        LogError: Values that are no probabilities.
    """
    chance = frame[CHANCE].to_numpy()
    if ((chance <= 0.0) | (chance > 1.0)).any():
        message = f"the role 'propensity' runs from {chance.min():.6g} to {chance.max():.6g}; expected probabilities"
        raise LogError([spec.source.problem(("logs", "columns", "propensity"), message)])
    return np.where(frame[CHOSEN].to_numpy(), chance, 1.0 - chance)


def _require_groups(spec: Spec, frame: pl.DataFrame, read: Instruments) -> None:
    """Refuse text that tells rows rather than groups.

    Raises:
        LogError: All such columns.
    """
    at = places(spec)
    asked = {**{RAW + n: at[n] for n in read.adjust}, **{INSTRUMENT + n: at[n] for n in read.columns}}
    problems = []
    for name in identifiers(frame, list(asked)):
        column = name.removeprefix(RAW).removeprefix(INSTRUMENT)
        message = f"column {visible(column)!r} has {frame[name].n_unique():,} different texts; expected groups"
        hint = f"text with more than {IDENTIFIER:,} levels tells rows apart, not groups"
        problems.append(spec.source.problem(asked[name], message, hint))
    if problems:
        raise LogError(problems)


def _require_moves(spec: Spec, logs: Logs, read: Instruments, taken: Vector, z: DesignMatrix) -> None:
    """Refuse an instrument or an action of one value.

    Raises:
        LogError: The one or the other.
    """
    if not len(taken):
        return  # said where rows are counted
    problems = []
    if not z.names:
        message = "the instrument has one value on all kept rows, so that it moves nothing"
        if read.arm and read.names == 1:
            message = "all kept rows on which an action ran were assigned to one arm; an effect needs both"
        problems.append(spec.source.problem(("design", "instrument"), message))
    if not np.ptp(taken):
        if read.amount:
            what, hint = f"the executed action is {taken[0]:g} on every kept row", ""
            at: KeyPath = ("logs", "columns", "executed")
        else:
            treatment = named(spec.design.treatment[0])
            what = f"{treatment} was executed on {'every' if taken[0] else 'no'} kept row"
            at, hint = ("design", "treatment"), f"actions that ran: {_labels(logs)}"
        problems.append(spec.source.problem(at, what, hint))
    if spec.estimator.method == "wald" and len(z.names) != 1:
        message = "wald takes one instrument of two values; this one has more"
        problems.append(spec.source.problem(("design", "instrument"), message, "method: two_stage_least_squares"))
    elif spec.estimator.method == "wald" and len(np.unique(z.x[:, 0])) != 2:
        message = f"wald takes an instrument of two values; this one has {len(np.unique(z.x[:, 0])):,}"
        problems.append(spec.source.problem(("design", "instrument"), message, "method: two_stage_least_squares"))
    if problems:
        raise LogError(problems)


def _require_control(spec: Spec, logs: Logs, read: Instruments, frame: pl.DataFrame) -> None:
    """Refuse a control that ran nowhere, where the arms are the actions that ran and other actions are among them.

    Raises:
        LogError: The label.
    """
    others = int(frame[OTHER].sum())
    if read.arm or not others or others < len(frame) - int(frame[TAKEN].sum()):
        return
    message = f"{named(str(spec.design.control))} was executed on no kept row"
    raise LogError([spec.source.problem(("design", "control"), message, f"actions that ran: {_labels(logs)}")])


def _labels(logs: Logs) -> str:
    seen = pl.col("@executed").drop_nulls().unique().sort()
    found = logs.frame.filter(KEPT).select(seen).head(10).collect(engine="streaming").to_series().to_list()
    return ", ".join(repr(visible(str(one), 40)) for one in found)


def _group(spec: Spec, held: Held, z: Matrix, units: Codes | None) -> Group:
    """The coarsest of row, unit and cluster within which the instruments were drawn.

    Raises:
        LogError: Units in several of the clusters by which errors are asked, or errors of equal variances where units
            stand on several rows.
    """
    asked, stated = spec.estimator.options["variance"], "variance" in spec.estimator.said
    repeated = units is not None and len(units) > 0 and int(units.max()) + 1 < len(units)
    known = "cluster" in held.frame.columns and held.frame["cluster"].null_count() == 0
    clusters = held.codes("cluster") if known else None
    apart = 0 if clusters is None or units is None else _apart(units, clusters)
    if asked == "cluster" and clusters is not None:
        if apart:
            message = f"{apart:,} units stand in several clusters, so that clusters are not independent of each other"
            hint = "map the role cluster to what holds units whole, or leave variance out: errors are then by unit"
            raise LogError([spec.source.problem(VARIANCE, message, hint)])
        return Group("cluster", clusters)
    finer = int(units.max()) + 1 if repeated and units is not None else len(z)
    fewer = clusters is not None and len(z) > 0 and int(clusters.max()) + 1 < finer
    if clusters is not None and fewer and not stated and not apart and _constant(clusters, z):
        return Group("cluster", clusters, unasked=True)
    if not repeated or units is None:
        return Group("row", None)
    if asked == "classical":
        message = "units stand on several rows, so that errors of independent rows would come out too small"
        hint = "leave variance out: errors are then clustered by unit"
        raise LogError([spec.source.problem(VARIANCE, message, hint)])
    return Group("unit", units, overruled=stated)


def _drawn(read: Instruments, group: Group, arm: Codes, units: Codes | None) -> Group:
    """What counts once by arm."""
    repeated = units is not None and len(units) > 0 and int(units.max()) + 1 < len(units)
    by_unit = Group("unit" if units is not None else "row", units if repeated else None)
    if not read.arm:
        return by_unit
    found = next(
        (g for g in (group, by_unit) if g.codes is not None and _constant(g.codes, arm[:, None].astype(np.float64))),
        None,
    )
    return found or Group("row" if repeated or units is None else "unit", None)


def _apart(units: Codes, clusters: Codes) -> int:
    """Units with rows in several clusters."""
    pairs = pl.DataFrame({"unit": units, "cluster": clusters}).unique()
    return len(pairs) - int(pairs["unit"].n_unique())


def _constant(codes: Codes, z: Matrix) -> bool:
    """Whether no column varies within a group."""
    first = np.zeros(int(codes.max()) + 1, dtype=np.intp) if len(codes) else np.zeros(0, dtype=np.intp)
    first[codes] = np.arange(len(codes))
    return bool((z == z[first[codes]]).all())


def _require_one_instrument(
    spec: Spec, frame: pl.DataFrame, z: Matrix, units: Codes | None, terms: Sequence[Term]
) -> None:
    """A sum within a unit belongs to one value of the instrument.

    Raises:
        LogError: Units whose rows have several.
    """
    if units is None or _constant(units, z):
        return
    moving = pl.DataFrame({"unit": frame["unit"], "z": pl.DataFrame(z).hash_rows()}).unique()
    several = moving.group_by("unit").len().filter(pl.col("len") > 1).sort("unit")
    some = ", ".join(repr(visible(str(unit), 40)) for unit in several["unit"].head(_NAMED))
    more = " …" if len(several) > _NAMED else ""
    message = f"the instrument varies within {len(several):,} units ({some}{more})"
    hint = "a sum within a unit needs one value of the instrument a unit; drop 'per' for a mean over rows"
    at: list[KeyPath] = [("metrics", t.name, "per") for t in terms if t.per_unit and t.name in spec.metrics]
    raise LogError([spec.source.problem(path, message, hint) for path in at])


def fact_place(spec: Spec, name: str) -> KeyPath:
    """Where the spec names a fact from before the decision."""
    found: Mapping[str, KeyPath] = places(spec)
    if name in found:
        return found[name]
    for role in ("features", "state"):
        names = getattr(spec.logs.columns, role)
        if name in names:
            return ("logs", "columns", role, names.index(name))
    return ("design", "policy_inputs", spec.design.policy_inputs.index(name))
