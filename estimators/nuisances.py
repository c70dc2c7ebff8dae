"""Propensities and outcome models, cross-fitted: a row's prediction comes from a model that never saw its unit.

Sources: Chernozhukov et al. (2018), *Double/debiased machine learning for treatment and structural parameters*,
definitions 3.1 to 3.3 (cross-fitting, and the median over repeated splits). The propensity is fitted once and serves
every metric; the sums of squares of the outcome models' design too. Models: ``linear``, ``logit`` and ``probit`` with a
cross-validated ridge penalty (``estimators/penalised.py``), ``boosting`` (``estimators/boosting.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from estimators.boosting import boosted
from estimators.inference import EstimationError
from estimators.links import link_of
from estimators.nuisance_design import ARMS, Codes, Columns, Design, Vector
from estimators.penalised import Fitted, Penalty, likelihood, ridge
from estimators.propensity_summary import propensity_summary

PROPENSITY = ("logit", "probit", "linear", "boosting")
OUTCOME = ("linear", "logit", "boosting")


@dataclass(frozen=True, eq=False)
class Split:
    """One partition into folds, with the propensities of it.

    Attributes:
        design: The outcome models' covariates by cell.
        propensity: ``(n,)`` fitted probabilities of treatment; those of ``linear`` may leave 0 to 1.
        model: The propensity model; None for boosting.
    """

    design: Design
    propensity: Vector
    model: Fitted | None

    @cached_property
    def gram(self) -> NDArray[np.float64]:
        """Sums of squares of the outcome models' design over all rows, by cell."""
        return self.design.gram()


@dataclass(frozen=True, eq=False)
class Nuisances:
    """What every metric shares: treatment, units, folds and propensities.

    Attributes:
        treated: ``(n,)`` who is treated.
        units: ``(n,)`` codes ``0 … n_units - 1`` of independent units; None: every row is one.
        n_units: How many.
        splits: One a repeat.
        propensity, outcome: Names of the models.
        penalty: Of ``estimators/penalised.py``.
        seed: Of boosting.
    """

    treated: NDArray[np.bool_]
    units: Codes | None
    n_units: int
    splits: tuple[Split, ...]
    propensity: str
    outcome: str
    penalty: Penalty
    seed: int

    @property
    def n_folds(self) -> int:
        """Folds of a split."""
        return self.splits[0].design.n_folds

    @cached_property
    def propensity_summary(self) -> dict[str, Any]:
        """Of the first split; see ``estimators/propensity_summary.py``."""
        return propensity_summary(self.splits[0].propensity, self.treated)

    @cached_property
    def light(self) -> Nuisances:
        """The same with penalties too light to bias a method that nothing corrects; refitted once where needed."""
        if self.penalty != "cross_validated":
            return self
        if self.splits[0].model is None:
            return replace(self, penalty="light")
        splits = []
        for split in self.splits:
            assert split.model is not None
            design = split.model.design
            model, fitted = _propensity(design, self.treated, self.propensity, "light", self.seed)
            splits.append(replace(split, propensity=fitted, model=model))
        return replace(self, splits=tuple(splits), penalty="light")


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """Predicted outcomes of all rows under either arm.

    Attributes:
        control, treatment: ``(n,)`` predictions.
        models: Control's and treatment's model; None for boosting.
    """

    control: Vector
    treatment: Vector
    models: tuple[Fitted, Fitted] | None


def nuisances(
    treated: ArrayLike,
    covariates: ArrayLike,
    *,
    outcome_covariates: ArrayLike | None = None,
    units: ArrayLike | None = None,
    folds: int | ArrayLike = 5,
    repeats: int = 1,
    propensity: str = "logit",
    outcome: str = "linear",
    penalty: Penalty = "cross_validated",
    seed: int = 0,
) -> Nuisances:
    """Fits the propensity, cross-fitted, and says how outcomes will be modelled.

    Args:
        treated: ``(n,)`` 0 or 1.
        covariates: ``(n, p)`` float64 facts from before the action, without a constant; rows in C order are cheapest.
            The matrix is kept, never copied.
        outcome_covariates: Those of the outcome models; None: the same.
        units: ``(n,)`` integers, rows of one unit alike: folds and errors keep units whole. Codes that do not hang on
            the order of rows (units sorted by name, or hashes of names) keep folds independent of it.
        folds: How many folds, units dealt to them evenly by a hash of unit and seed; 1: models are fitted to the rows
            that they predict; or ``(n,)`` labels of folds.
        repeats: Partitions; results are medians over them.
        propensity: ``logit``, ``probit``, ``linear`` or ``boosting``.
        outcome: ``linear``, ``logit`` (outcomes from 0 to 1) or ``boosting``.
        penalty: ``cross_validated``, ``light``, or a number (0: none); see ``estimators/penalised.py``.
        seed: Of the folds and of boosting.

    Raises:
        ValueError: An unknown model, no repeat, a negative penalty, or repeats of given folds.
        EstimationError: Arrays that do not fit, values that are not finite, an arm without rows, more folds than
            units, a unit in two folds, or a fold without which an arm has fewer than two rows.
    """
    _check_options(propensity, outcome, repeats, penalty)
    arm = _arm(treated)
    codes, keys = _units(units, len(arm))
    n_units = len(arm) if keys is None else len(keys)
    x = Columns.of(covariates, len(arm))
    other = x if outcome_covariates is None else Columns.of(outcome_covariates, len(arm))
    splits = []
    for repeat in range(repeats):
        pieces, n_folds = _pieces(folds, codes, keys, len(arm), repeats, seed + 7919 * repeat)
        design = Design.of(x, arm, pieces, n_folds)
        _both_arms(design)
        model, fitted = _propensity(design, arm, propensity, penalty, seed)
        splits.append(Split(design.on(other), fitted, model))
    return Nuisances(arm, codes, n_units, tuple(splits), propensity, outcome, penalty, seed)


def outcome_models(
    y: Vector,
    seen: NDArray[np.bool_] | None,
    shared: Nuisances,
    split: Split,
    arms: Sequence[int] = ARMS,
    pooled: bool = False,
) -> Outcomes:
    """Models of one outcome, by arm, or over both arms as one (``pooled``; both predictions are then the same).

    Args:
        y: ``(n,)`` outcome.
        seen: Rows that have one; None: all.
        shared, split: Of :func:`nuisances`.
        arms: Arms that are needed; the other's predictions are those of the first.

    Raises:
        EstimationError: Too few rows, or a logit of an outcome that leaves 0 to 1 or does not vary.
    """
    groups = [ARMS] if pooled else [(arm,) for arm in arms]
    if shared.outcome == "logit":
        values = y if seen is None else y[seen]
        if values.min() < 0.0 or values.max() > 1.0:
            raise EstimationError("a logit of the outcome needs values from 0 to 1; take a linear model")
    if shared.outcome == "boosting":
        shares = _is_binary(y if seen is None else y[seen])
        found = [boosted(split.design, y, shares=shares, arms=g, seen=seen, seed=shared.seed) for g in groups]
        return Outcomes(found[0], found[-1], None)
    if shared.outcome == "logit":
        link = link_of("logit")
        models = [likelihood(split.design, y, link, arms=g, seen=seen, penalty=shared.penalty) for g in groups]
    else:
        gram = split.gram if seen is None else None
        models = ridge(split.design, y, groups=groups, seen=seen, gram=gram, penalty=shared.penalty)
    predictions = [model.predict() for model in models]
    return Outcomes(predictions[0], predictions[-1], (models[0], models[-1]))


def _check_options(propensity: str, outcome: str, repeats: int, penalty: Penalty) -> None:
    if propensity not in PROPENSITY:
        raise ValueError(f"propensity must be one of {PROPENSITY}")
    if outcome not in OUTCOME:
        raise ValueError(f"outcome must be one of {OUTCOME}")
    if repeats < 1:
        raise ValueError("repeats must be at least 1")
    if penalty not in ("cross_validated", "light") and not (
        isinstance(penalty, int | float) and 0.0 <= penalty < np.inf
    ):
        raise ValueError("a penalty must be 'cross_validated', 'light', or a number from 0 up")


def _arm(treated: ArrayLike) -> NDArray[np.bool_]:
    values = np.asarray(treated)
    if values.ndim != 1 or not len(values):
        raise EstimationError("treatment must be one value a row")
    if not ((values == 0) | (values == 1)).all():
        raise EstimationError("treatment must be 0 or 1")
    arm = values.astype(np.bool_)
    for name, some in (("control", not arm.all()), ("treatment", arm.any())):
        if not some:
            raise EstimationError(f"{name} has no rows")
    return arm


def _units(units: ArrayLike | None, n: int) -> tuple[Codes | None, NDArray[Any] | None]:
    """Dense codes and the units' keys; None where every row is a unit."""
    if units is None:
        return None, None
    labels = np.asarray(units)
    if labels.shape != (n,) or labels.dtype.kind not in "iu":
        raise EstimationError("units must be one integer a row")
    keys, codes = np.unique(labels, return_inverse=True)
    return (None, keys[codes]) if len(keys) == n else (codes.astype(np.intp), keys)


def _pieces(
    folds: int | ArrayLike, codes: Codes | None, keys: NDArray[Any] | None, n: int, repeats: int, seed: int
) -> tuple[Codes, int]:
    """Piece of every row, and the folds. Few folds are cut finer, so that a penalty can be cross-validated."""
    n_units = n if keys is None else len(keys)
    chance = unit_hash(np.arange(n) if keys is None else keys, seed)
    if np.ndim(folds) == 0:
        n_folds = int(np.asarray(folds))
        if n_folds < 1 or n_folds != np.asarray(folds):
            raise EstimationError("folds must be a whole number of at least 1, or a label a row")
        if n_folds > n_units:
            raise EstimationError(f"{n_folds} folds need as many units; there are {n_units}")
        fold = _dealt(chance, n_folds)
    else:
        if repeats > 1:
            raise ValueError("folds that are given cannot be drawn repeatedly")
        fold, n_folds = _given(np.asarray(folds), codes, n, n_units)
    each = {1: 5, 2: 3, 3: 2}.get(n_folds, 1)
    piece = fold * each + (_dealt(unit_hash(chance, seed + 1), each) if each > 1 else 0)
    if 2 * n_folds * each > 60_000:
        raise EstimationError("too many folds")
    return (piece if codes is None else piece[codes]).astype(np.intp), n_folds


def _given(labels: NDArray[Any], codes: Codes | None, n: int, n_units: int) -> tuple[Codes, int]:
    if labels.shape != (n,):
        raise EstimationError("fold labels must be one a row")
    names, fold = np.unique(labels, return_inverse=True)
    if codes is None:
        return fold.astype(np.intp), len(names)
    of_unit = np.zeros(n_units, dtype=np.intp)
    of_unit[codes] = fold
    if (of_unit[codes] != fold).any():
        raise EstimationError("rows of one unit stand in two folds")
    return of_unit, len(names)


def _dealt(chance: NDArray[np.uint64], n_folds: int) -> Codes:
    """Units dealt to folds in the order of their hashes, so that folds are of one size."""
    fold = np.empty(len(chance), dtype=np.intp)
    fold[np.argsort(chance, kind="stable")] = np.arange(len(chance)) % n_folds
    return fold


def unit_hash(keys: NDArray[Any], seed: int) -> NDArray[np.uint64]:
    """SplitMix64 of integers (Steele, Lea and Flood 2014)."""
    z = keys.astype(np.uint64) + np.uint64((seed * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) % 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    return z ^ (z >> np.uint64(31))


def _both_arms(design: Design) -> None:
    counts = np.diff(design.starts)
    for fold in range(design.n_folds):
        for arm, name in ((0, "control"), (1, "treatment")):
            if (n := int(counts[design.cells(design.training(fold), [arm])].sum())) < 2:
                raise EstimationError(
                    f"without one of the folds {name} has {n} row{'s' * (n != 1)}, too few to fit models on; "
                    "take fewer folds"
                )


def _propensity(
    design: Design, arm: NDArray[np.bool_], name: str, penalty: Penalty, seed: int
) -> tuple[Fitted | None, Vector]:
    y = arm.astype(np.float64)
    if name == "boosting":
        return None, boosted(design, y, shares=True, seed=seed)
    if name == "linear":
        (model,) = ridge(design, y, groups=[ARMS], penalty=penalty)
    else:
        model = likelihood(design, y, link_of(name), penalty=penalty)
    return model, model.predict()


def _is_binary(values: Vector) -> bool:
    return bool(((values == 0.0) | (values == 1.0)).all())
