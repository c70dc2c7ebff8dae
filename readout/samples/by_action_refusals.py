"""What a comparison by action refuses: options that it does not have, identifiers, and folds that teach nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from readout.errors import LogError, SpecError
from readout.estimands import estimand
from readout.logs import Logs
from readout.samples.adjusters import Adjusters
from readout.samples.compared_rows import Codes
from readout.samples.design_matrix import DesignMatrix, identifiers
from readout.spec.model import Spec
from readout.spec.problems import KeyPath
from readout.text import visible

ADJUST, FOLD = "adjust ", "fold"
FOLDS: KeyPath = ("estimator", "folds", "column")


def refuse(spec: Spec, logs: Logs) -> None:
    """What the method cannot do, and a column of folds that is not there.

    Raises:
        SpecError, LogError: The one or the other.
    """
    options, method = spec.estimator.options, spec.estimator.method
    if method == "matching" and estimand(spec) == "overlap":
        message = "matching has no overlap-weighted effect"
        raise SpecError([spec.source.problem(("design", "estimand"), message, "ate or att, or method: aipw")])
    if method == "outcome_regression" and options["outcome"] == "boosting":
        message = "outcome_regression has no error that can be stood behind with boosting"
        hint = "method: aipw corrects for what the trees miss"
        raise SpecError([spec.source.problem(("estimator", "outcome"), message, hint)])
    folds = options.get("folds")
    if isinstance(folds, Mapping):
        if options["repeats"] != 1:
            message = "folds that a column gives cannot be drawn repeatedly"
            raise SpecError([spec.source.problem(("estimator", "repeats"), message, "leave repeats out")])
        logs.expressions.column(str(folds["column"]), FOLDS)


def require_groups(spec: Spec, frame: pl.DataFrame, used: Sequence[str], adjust: Adjusters) -> None:
    """Refuse text that tells rows rather than groups.

    Raises:
        LogError: All such columns.
    """
    problems = []
    hint = "an identifier cannot be adjusted for: name the columns to adjust for in design.adjust"
    for held in identifiers(frame, [ADJUST + name for name in used]):
        name = held.removeprefix(ADJUST)
        message = f"column {visible(name)!r} has {frame[held].n_unique():,} different texts; expected groups"
        problems.append(spec.source.problem(adjust.at[name], message, hint))
    if problems:
        raise LogError(problems)


def require_not_unit(spec: Spec, logs: Logs, used: Sequence[str], adjust: Adjusters) -> None:
    """Refuse to adjust for the unit itself: models are fitted on other units, so none of them knows a row's own.

    Raises:
        LogError: It is adjusted for.
    """
    unit = logs.columns.get("unit")
    if isinstance(unit, str) and unit in used:
        message = f"column {visible(unit)!r} is the unit: models are fitted on other units, so none knows a row's own"
        hint = "adjust for facts of the unit instead: its tier, its traffic before"
        raise LogError([spec.source.problem(adjust.at[unit], message, hint)])


def require_taught(spec: Spec, folds: Codes, matrices: Sequence[DesignMatrix]) -> None:
    """Refuse folds of which one alone has a level: the model that is used there has never seen it.

    Raises:
        LogError: The covariates that vary in one fold alone.
    """
    elsewhere = int(np.argmax(folds != folds[0]))
    lone: dict[str, None] = {}
    for matrix in matrices:
        for name, values in zip(matrix.names, matrix.x.T, strict=True):
            for reference in (0, elsewhere):
                other = folds[values != values[reference]]
                if len(other) and other.min() == other.max():
                    lone[name] = None
    if lone:
        names = ", ".join(visible(name, 60) for name in lone)
        message = f"one fold alone has {names}: the model that is used there has never seen it"
        hint = "take folds: 5, or leave out what stands in one fold alone"
        raise LogError([spec.source.problem(FOLDS, message, hint)])


def given_folds(spec: Spec, frame: pl.DataFrame, column: str) -> Codes:
    """Codes of the folds that a column gives.

    Raises:
        LogError: Nulls, a single fold, or a unit in two of them.
    """
    shown = f"column {visible(column)!r}"
    folds = frame[FOLD]
    problem = ""
    if nulls := folds.null_count():
        problem = f"{shown} is null on {nulls:,} kept rows; expected a fold for each"
    elif folds.n_unique() < 2:
        problem = f"{shown} has one value throughout; expected two folds or more"
    elif "unit" in frame.columns:
        by_unit = frame.group_by("unit").agg(pl.col(FOLD).n_unique())
        if apart := int((by_unit[FOLD] > 1).sum()):
            problem = f"{shown} puts the rows of {apart:,} units into several folds; a model would have seen its unit"
    if problem:
        raise LogError([spec.source.problem(FOLDS, problem)])
    return folds.rank("dense").to_numpy().astype(np.intp) - 1
