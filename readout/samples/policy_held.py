"""Rows held in memory for what sums cannot serve: boosted models of rewards, and propensities that are estimated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from estimators.action_model import action_probabilities
from estimators.ips import logged
from estimators.modelled_rewards import modelled_rewards
from estimators.reward_model import fold_of
from readout.samples.design_matrix import design_matrix
from readout.samples.held import Held, hold
from readout.samples.policy_rows import (
    ACTION,
    CHANCE,
    CHOSEN,
    FOLD,
    WEIGHT,
    Chunk,
    How,
    Matrix,
    Rows,
    places,
    rewards_of,
)  # fmt: skip
from readout.samples.policy_scores import Predicted, Scored, add_chunk, empty, fitted
from readout.samples.policy_sums import Codes, Vector
from readout.spec.model import Spec

P, X = "@ope propensity", "@ope x "


def score_held(
    spec: Spec, rows: Rows, how: How, options: Mapping[str, Any], columns: tuple[str, ...]
) -> tuple[Scored, Held]:
    """Scores of every term from rows that are held, all of them or those of units drawn by the seed.

    Raises:
        EstimationError: The models cannot be fitted, or do not know an action that the target takes.
        LogError: The files cannot be read to the end.
    """
    held = hold(spec, rows.logs, rows.terms, _columns(rows, how, columns), how.seed, rows.total)
    frame = _in_order(held.frame)
    held = Held(frame, held.rows, held.share)
    units = held.codes("unit")
    codes = np.arange(len(frame), dtype=np.intp) if units is None else units
    keys = codes if units is not None else frame.hash_rows(seed=how.seed).to_numpy()
    rows = replace(rows, n=int(codes.max()) + 1, total=len(frame))
    fold = _folds(frame, how, keys)
    facts = frame.select(pl.col(X + name).alias(name) for name in columns)
    x = design_matrix(facts, columns).x
    action = frame[ACTION].to_numpy().astype(np.intp)
    p = (
        frame[P].to_numpy()
        if options["propensity"] == "logged"
        else action_probabilities(x, action, fold, model=str(options["propensity"]), seed=how.seed)
    )
    chance = frame[WEIGHT].to_numpy()
    inverse = np.divide(1.0, p, out=np.zeros(len(p)), where=p > 0.0)
    chunk = Chunk(
        codes, action, _policy(frame, rows), chance * inverse, inverse, rewards_of(frame, rows.terms), x, fold
    )
    scored = empty(rows, how)
    add_chunk(scored, rows, how, chunk, _predicted(rows, how, chunk, str(options["outcome"])) if how.models else None)
    return scored, held


def _columns(rows: Rows, how: How, columns: tuple[str, ...]) -> dict[str, pl.Expr]:
    target = rows.target
    asked: dict[str, pl.Expr] = {ACTION: target.executed, WEIGHT: target.chance.cast(pl.Float64).fill_null(0.0)}
    if rows.propensity:
        asked[P] = pl.col("@propensity").cast(pl.Float64)
    if target.chances is not None:
        asked |= {f"{CHANCE} {i}": part for i, part in enumerate(target.chances)}
    elif target.chosen is not None:
        asked[CHOSEN] = target.chosen
    if how.fold_column is not None:
        asked[FOLD] = pl.col(how.fold_column)
    return asked | {X + name: pl.col(name) for name in columns}


def _in_order(frame: pl.DataFrame) -> pl.DataFrame:
    """Rows by unit and content, so that nothing hangs on the order of the log."""
    keys = [frame["unit"].alias("unit")] if "unit" in frame.columns else []
    by = pl.DataFrame([*keys, frame.hash_rows(seed=0).alias("content")])
    return frame[by.select(pl.arg_sort_by(by.columns)).to_series()]


def _folds(frame: pl.DataFrame, how: How, keys: Codes) -> Codes:
    if how.fold_codes is None:
        return fold_of(keys, how.folds, how.seed)
    order = {value: i for i, value in enumerate(how.fold_codes)}
    return frame[FOLD].replace_strict(order, return_dtype=pl.Int32).to_numpy().astype(np.intp)


def _policy(frame: pl.DataFrame, rows: Rows) -> Any:
    if rows.target.chances is not None:
        return np.column_stack([frame[f"{CHANCE} {i}"].to_numpy() for i in range(len(rows.target.actions))])
    return None if rows.target.chosen is None else frame[CHOSEN].to_numpy().astype(np.intp)


def _predicted(rows: Rows, how: How, chunk: Chunk, outcome: str) -> Predicted:
    """What the models say of the rows; of boosted ones, nothing of actions that neither policy took."""
    assert chunk.x is not None
    assert chunk.fold is not None
    assert chunk.policy is not None
    if outcome == "linear":
        return Predicted.of(fitted(rows, how, [chunk]), rows, how, chunk)
    direct: Matrix = np.zeros(chunk.rewards.shape)
    taken: Matrix = np.full(chunk.rewards.shape, np.nan)
    for num, den in places(rows.terms).values():
        denominator: Vector | None = None if den is None else chunk.rewards[:, den]
        seen = logged(chunk.rewards[:, num], None, denominator=denominator, units=chunk.codes)
        found = modelled_rewards(
            seen, chunk.x, chunk.action, chunk.policy, actions=rows.target.actions, outcome=outcome, folds=chunk.fold,
            seed=how.seed,
        )  # fmt: skip
        for j, column in enumerate([num] if den is None else [num, den]):
            direct[seen.seen, column], taken[seen.seen, column] = found.direct[:, j], found.logged[:, j]
    return Predicted(direct, taken, None, None)
