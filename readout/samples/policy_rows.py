"""The rows of an off-policy evaluation, read chunk by chunk in the order of the files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from estimators.reward_model import fold_of
from readout.logs import Logs
from readout.samples.base import den_sum, num_sum
from readout.samples.encoding import Encoding
from readout.samples.policy_sums import Codes, Vector, chunks
from readout.samples.target import Target
from readout.terms import Term

CODE, ACTION, WEIGHT, INVERSE, CHOSEN, FOLD, CHANCE = (
    "@ope unit", "@ope action", "@ope weight", "@ope inverse", "@ope chosen", "@ope fold", "@ope chance",
)  # fmt: skip
Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class How:
    """What is asked for.

    Attributes:
        method: The estimator's name.
        clip, switch: None: none.
        folds: How many; of a column, as many as it has values.
        fold_codes: Values of the column of folds in order; None: folds are drawn by unit.
        fold_column: Its name.
        seed: Of folds.
        caps: Clips whose bias and error are shown.
    """

    method: str
    clip: float | None
    switch: float | None
    folds: int
    fold_codes: tuple[Any, ...] | None
    fold_column: str | None
    seed: int
    caps: Sequence[float]

    @property
    def models(self) -> bool:
        """Whether rewards are modelled."""
        return self.method in ("doubly_robust", "direct_method")

    @property
    def cut(self) -> bool:
        """Whether residuals of the models are given less than their weight, so that the models' own error counts."""
        return self.method == "doubly_robust" and (self.clip is not None or self.switch is not None)

    @property
    def own_error(self) -> bool:
        """Whether the error of linear models is a part of the value's."""
        return self.method == "direct_method" or self.cut

    @property
    def weighs(self) -> bool:
        """Whether it leans on weights."""
        return self.method != "direct_method"

    @property
    def uses_all(self) -> bool:
        """Whether it uses the whole of every weight."""
        return self.weighs and self.clip is None and self.switch is None


@dataclass(frozen=True, slots=True)
class Rows:
    """What is read of the logs.

    Attributes:
        rows: Rows that count.
        units: ``unit`` and ``code``; None: every row is one.
        n: Units, or rows.
        total: Rows.
        propensity: Whether the log has one.
        complete: Names of terms that have a value on every row.
    """

    logs: Logs
    rows: pl.Expr
    target: Target
    terms: Sequence[Term]
    encoding: Encoding | None
    units: pl.DataFrame | None
    n: int
    total: int
    propensity: bool
    complete: frozenset[str]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows as arrays; rewards are NaN where a term has no value."""

    codes: Codes
    action: Codes
    policy: NDArray[Any] | None
    weight: Vector
    inverse: Vector
    rewards: Matrix
    x: Matrix | None
    fold: Codes | None


def shared(rows: Rows, term: Term) -> str:
    """Prefix of the sums of rows and weights that a term goes with: its own where it is null on some rows."""
    return "" if term.name in rows.complete else f"{term.name}|"


def query(rows: Rows, how: How) -> pl.LazyFrame:
    """The columns that are read of the rows that count."""
    target = rows.target
    asked: dict[str, pl.Expr] = {ACTION: target.executed}
    p = pl.col("@propensity").cast(pl.Float64).fill_nan(None)
    if rows.propensity:
        proper = (p > 0.0) & (p <= 1.0)
        inverse = pl.when(proper).then(1.0 / p).otherwise(0.0)
        chance = target.chance.cast(pl.Float64).fill_null(0.0)
        asked |= {INVERSE: inverse, WEIGHT: inverse * chance}
    if target.chances is not None:
        asked |= {f"{CHANCE} {i}": part for i, part in enumerate(target.chances)}
    elif target.chosen is not None:
        asked[CHOSEN] = target.chosen
    for term in rows.terms:
        asked[num_sum(term)] = term.num.cast(pl.Float64)
        if term.den is not None:
            asked[den_sum(term)] = term.den.cast(pl.Float64)
    if how.models and rows.encoding is not None:
        asked |= {name: pl.col(name) for name in rows.encoding.used}
    if how.fold_column is not None:
        asked[FOLD] = pl.col(how.fold_column)
    frame = rows.logs.frame.filter(rows.rows)
    if rows.units is None:
        keyed = frame.select(**asked)
        return keyed.with_columns(pl.struct(pl.all()).hash(how.seed).alias(CODE)) if how.models else keyed
    keyed = frame.select(pl.col("@unit").alias("unit"), **asked)
    return keyed.join(rows.units.lazy(), on="unit", how="left", maintain_order="left").drop("unit")


def read(rows: Rows, how: How) -> Iterator[Chunk]:
    """The rows, chunk by chunk."""
    wide = len(rows.target.actions) > 20
    start = 0
    for frame in chunks(query(rows, how), 100_000 if wide else 250_000):
        n = len(frame)
        codes = np.arange(start, start + n, dtype=np.intp)
        start += n
        if rows.units is not None:
            codes = frame["code"].to_numpy().astype(np.intp)
        nothing = np.zeros(n)
        policy: NDArray[Any] | None = None
        if rows.target.chances is not None:
            policy = np.column_stack([frame[f"{CHANCE} {i}"].to_numpy() for i in range(len(rows.target.actions))])
        elif rows.target.chosen is not None:
            policy = _full(frame[CHOSEN], n)
        yield Chunk(
            codes=codes,
            action=frame[ACTION].to_numpy().astype(np.intp),
            policy=policy,
            weight=frame[WEIGHT].to_numpy() if rows.propensity else nothing,
            inverse=frame[INVERSE].to_numpy() if rows.propensity else nothing,
            rewards=rewards_of(frame, rows.terms),
            x=rows.encoding.matrix(frame) if how.models and rows.encoding is not None else None,
            fold=_folds(frame, rows, how, codes) if how.models else None,
        )


def _full(series: pl.Series, n: int) -> Codes:
    return np.asarray(np.broadcast_to(series.to_numpy().astype(np.intp), n))


def rewards_of(frame: pl.DataFrame, terms: Sequence[Term]) -> Matrix:
    """A column a term, and after it one for a ratio's denominator; a row lacks both where it lacks one."""
    parts: list[Vector] = []
    for term in terms:
        num = frame[num_sum(term)].fill_null(np.nan).to_numpy()
        if term.den is None:
            parts.append(num)
            continue
        den = frame[den_sum(term)].fill_null(np.nan).to_numpy()
        seen = ~(np.isnan(num) | np.isnan(den))
        parts += [np.where(seen, num, np.nan), np.where(seen, den, np.nan)]
    return np.column_stack(parts)


def _folds(frame: pl.DataFrame, rows: Rows, how: How, codes: Codes) -> Codes:
    if how.fold_codes is not None:
        order = {value: i for i, value in enumerate(how.fold_codes)}
        return frame[FOLD].replace_strict(order, return_dtype=pl.Int32).to_numpy().astype(np.intp)
    keys = codes if rows.units is not None else frame[CODE].to_numpy()
    return fold_of(keys, how.folds, how.seed)


def places(terms: Sequence[Term]) -> dict[str, tuple[int, int | None]]:
    """Columns of a term's numerator and denominator among the rewards."""
    found: dict[str, tuple[int, int | None]] = {}
    at = 0
    for term in terms:
        found[term.name] = (at, None if term.den is None else at + 1)
        at += 1 if term.den is None else 2
    return found
