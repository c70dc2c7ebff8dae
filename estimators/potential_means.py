"""Mean outcomes under either arm with each row's influence on them, and the effect that they make.

Estimand: ``E[h Y(1)] / E[h] - E[h Y(0)] / E[h]``, ``h`` as in ``estimators/tilting.py``. What must hold: treatment
is as good as random among rows of equal covariates, every kind of row may stand in either arm, and rows do not affect
each other. Weights are normalised in each arm (Hajek). The methods:

- ``aipw``: predictions averaged over people, plus the weighted mean of what they miss in the arm. Robins, Rotnitzky and
  Zhao (1994); cross-fitted, Chernozhukov et al. (2018), eq. 5.3 and 5.4; overlap: Li, Morgan and Zaslavsky (2018) with
  augmentation. Right where the propensity or the outcome models are; its first-order error does not hang on theirs.
- ``ipw``: the weighted mean of the arm. Its error has the part that comes of fitting the propensity; with boosting
  the propensity is taken as known, which makes the error too wide (Hirano, Imbens and Ridder 2003), and nothing
  corrects what the trees miss: see ``estimators/ipw.py``.
- ``outcome_regression``: predictions averaged over people; its error has the part that comes of fitting the models.

Errors are of influences summed by unit, ``sqrt(G / (G - 1) * sum(S_g^2)) / n``, against t with ``G - 1`` degrees of
freedom, ``G`` the units. The influence of ratios of sums and of log ratios follows by the delta method.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from estimators.estimate import Estimate
from estimators.few_units import few_units
from estimators.inference import (
    EstimationError,
    Relative,
    finish,
    relative_from_log,
    relative_reason,
    t_interval,
)
from estimators.nuisance_design import ARMS, Design, Matrix, Vector
from estimators.nuisances import Nuisances, Outcomes, Split, outcome_models
from estimators.penalised import Fitted
from estimators.tilting import Tilt, tilt, unit_sums, units_by_arm, weight_notes

METHODS = ("aipw", "ipw", "outcome_regression")


@dataclass(frozen=True, slots=True, eq=False)
class PotentialMeans:
    """Both arms' means from one split.

    Attributes:
        control, treatment: Means, in the outcome's unit.
        influence: ``(2, n)`` influence of each row on control's and treatment's mean; they average 0, and the variance
            of a mean is that of their sum over ``n^2``, units taken whole.
        weights: Weights that were used.
        outcomes: Predictions; None where the method has none.
        fit: ``{control, treatment}`` share of the outcome's variance that predictions explain, out of fold; None where
            there are no predictions for that arm.
    """

    control: float
    treatment: float
    influence: Matrix
    weights: Tilt
    outcomes: Outcomes | None
    fit: dict[str, float | None]


def potential_means(
    outcome: ArrayLike,
    shared: Nuisances,
    *,
    method: str = "aipw",
    estimand: str = "ate",
    trim: float | None = None,
    denominator: ArrayLike | None = None,
) -> list[PotentialMeans]:
    """Both arms' means with influences, one entry a split.

    Args:
        outcome: ``(n,)``; NaN: not seen, left out.
        shared: Propensities, folds and units.
        method: ``aipw``, ``ipw`` or ``outcome_regression``.
        estimand: ``ate``, ``att`` or ``overlap``.
        trim: Leave out rows whose propensity lies outside ``[trim, 1 - trim]``; None: none.
        denominator: ``(n,)``; the means are then ratios, the outcome's over the denominator's.

    Raises:
        ValueError: An option that is not in the lists.
        EstimationError: Arrays that do not fit, no overlap, too few units, or a denominator that is not positive in the
            mean.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}")
    if method == "outcome_regression" and shared.outcome == "boosting":
        raise EstimationError(
            "outcome_regression with boosting has no error that can be stood behind; take aipw, which corrects for "
            "what the trees miss"
        )
    above, seen = measured(outcome, shared, denominator)
    below = None if denominator is None else np.where(seen, np.asarray(denominator, dtype=np.float64), 0.0)
    found = []
    for split in shared.splits:
        needs_e = method != "outcome_regression"
        weights = tilt(shared, split, estimand, trim, seen, checked=needs_e or estimand == "overlap")
        means = _one(above, seen, shared, split, weights, method, estimand)
        if below is not None:
            means = ratio(means, _one(below, seen, shared, split, weights, method, estimand))
        found.append(means)
    return found


def measured(outcome: ArrayLike, shared: Nuisances, denominator: ArrayLike | None) -> tuple[Vector, NDArray[np.bool_]]:
    """The outcome, 0 where it was not seen, and the rows where it was (and its denominator too).

    Raises:
        EstimationError: Not one value a row, infinite values, or none at all.
    """
    seen = np.ones(len(shared.treated), dtype=np.bool_)
    values = np.asarray(outcome, dtype=np.float64)
    for array in (values,) if denominator is None else (values, np.asarray(denominator, dtype=np.float64)):
        if array.shape != seen.shape:
            raise EstimationError("the outcome must be one value per row of the treatment")
        if np.isinf(array).any():
            raise EstimationError("the outcome holds values that are not finite")
        seen &= ~np.isnan(array)
    if not seen.any():
        raise EstimationError("no row has an outcome")
    return values if seen.all() else np.where(seen, values, 0.0), seen


def ratio(above: PotentialMeans, below: PotentialMeans) -> PotentialMeans:
    """Ratios of two outcomes' means, by the delta method."""
    values = []
    influence = np.empty_like(above.influence)
    for arm, (a, b) in enumerate(((above.control, below.control), (above.treatment, below.treatment))):
        if not b > 0.0:
            raise EstimationError("the denominator's mean is not positive in one arm")
        values.append(a / b)
        influence[arm] = (above.influence[arm] - (a / b) * below.influence[arm]) / b
    return PotentialMeans(values[0], values[1], influence, above.weights, above.outcomes, above.fit)


def effect(
    name: str,
    means: Sequence[PotentialMeans],
    shared: Nuisances,
    *,
    alpha: float = 0.05,
    diagnostics: dict[str, Any] | None = None,
) -> Estimate:
    """Treatment's mean minus control's, the median over splits.

    Over splits the estimate is the median, its variance the median of each split's plus its squared distance from that:
    Chernozhukov et al. (2018), definition 3.3.

    Raises:
        EstimationError: No variation.
    """
    n_units = _n_units(shared, means[0].weights.kept)
    few = few_units(_unit_weights(shared, means[0].weights, weighed=name != "outcome_regression"))
    if few is not None:
        _require_variation(means[0])

    def of_units(m: PotentialMeans, control: float, treatment: float) -> Vector:
        return unit_sums(shared.units, shared.n_units, control * m.influence[0] + treatment * m.influence[1])

    def error(m: PotentialMeans, control: float, treatment: float) -> float:
        sums = of_units(m, control, treatment)
        square = n_units / (n_units - 1.0) * float(sums @ sums)
        return math.sqrt(square if few is None else max(square, few.square(sums))) / len(m.influence[0])

    df = n_units - 1.0 if few is None else min(few.df(of_units(means[0], -1.0, 1.0)), n_units - 1.0)
    points = np.array([m.treatment - m.control for m in means])
    estimate, std_error = _over_splits(points, [error(m, -1.0, 1.0) for m in means])
    control = float(np.median([m.control for m in means]))
    if std_error <= 1e-13 * max(abs(control), abs(control + estimate)):
        raise EstimationError("the outcome does not vary, so nothing says how sure the estimate is")
    n_control, n_treatment = units_by_arm(shared, means[0].weights.kept)
    return finish(
        name,
        estimate=estimate,
        std_error=std_error,
        df=df,
        alpha=alpha,
        control_value=control,
        treatment_value=control + estimate,
        n_control=n_control,
        n_treatment=n_treatment,
        relative=_relative(control, control + estimate, means, error, df, alpha),
        diagnostics=notes(means[0], shared) | (diagnostics or {}),
    )


def notes(means: PotentialMeans, shared: Nuisances) -> dict[str, Any]:
    """What the memo shows beside the number; of the first split where there are several."""
    left = len(shared.treated) - int(means.weights.kept.sum())
    return {
        **weight_notes(shared, means.weights),
        "propensity": shared.propensity_summary,
        "outcome_fit": means.fit,
        "rows_left_out": left,
        "n_units": _n_units(shared, means.weights.kept),
        "folds": shared.n_folds,
        "repeats": len(shared.splits),
        "models": {"propensity": shared.propensity, "outcome": shared.outcome},
    }


def _unit_weights(shared: Nuisances, weights: Tilt, weighed: bool) -> tuple[Vector, Vector]:
    """Units' weights in either arm: sums of its rows' weights, or their number where the method uses no weights."""
    control, treatment = weights.arms
    if not weighed:
        control, treatment = ((weights.kept & side).astype(np.float64) for side in (~shared.treated, shared.treated))
    units, n = shared.units, shared.n_units
    return unit_sums(units, n, control), unit_sums(units, n, treatment)


def _require_variation(means: PotentialMeans) -> None:
    """Refuse an arm of few units all of whose outcomes are alike: none of them failed, say.

    Raises:
        EstimationError: It is.
    """
    for arm, name in enumerate(("control", "treatment")):
        value, pull = (means.control, means.treatment)[arm], means.influence[arm]
        if float(np.abs(pull).max()) <= 1e-12 * max(abs(means.control), abs(means.treatment), abs(value)):
            raise EstimationError(f"the outcome does not vary in {name}, which rests on few units")


def _n_units(shared: Nuisances, kept: NDArray[np.bool_]) -> int:
    if shared.units is None:
        return int(kept.sum())
    return int(np.count_nonzero(np.bincount(shared.units[kept])))


def _over_splits(points: Vector, errors: Sequence[float]) -> tuple[float, float]:
    middle = float(np.median(points))
    return middle, math.sqrt(float(np.median(np.square(errors) + (points - middle) ** 2)))


def _relative(
    control: float,
    treatment: float,
    means: Sequence[PotentialMeans],
    error: Callable[[PotentialMeans, float, float], float],
    df: float,
    alpha: float,
) -> Relative:
    if reason := relative_reason(control):
        return Relative(reason=reason)
    if treatment > 0.0 and all(m.control > 0.0 and m.treatment > 0.0 for m in means):
        logs = np.array([math.log(m.treatment / m.control) for m in means])
        _, log_se = _over_splits(logs, [error(m, -1.0 / m.control, 1.0 / m.treatment) for m in means])
        return relative_from_log(control, treatment, log_se, df, alpha)
    value = treatment / control
    ratios = np.array([m.treatment / m.control for m in means])
    spread = [error(m, -r / m.control, 1.0 / m.control) for m, r in zip(means, ratios, strict=True)]
    _, ratio_se = _over_splits(ratios, spread)
    if not (math.isfinite(ratio_se) and ratio_se > 0.0):
        return Relative(value - 1.0, reason="treatment's value is zero throughout, so the ratio shows no spread")
    return Relative(value - 1.0, *t_interval(value - 1.0, ratio_se, df, alpha))


def _one(
    y: Vector,
    seen: NDArray[np.bool_],
    shared: Nuisances,
    split: Split,
    weights: Tilt,
    method: str,
    estimand: str,
) -> PotentialMeans:
    if method == "ipw":
        parts = [_weighted(y, w) for w in weights.arms]
        for arm, (mean, influence) in enumerate(parts):
            influence += _of_propensity(y - mean, split, shared, weights, arm)
        return _means(parts, weights, None, dict.fromkeys(("control", "treatment")))
    # The treated's own mean under treatment is seen, so that an effect on the treated needs controls' model only.
    arms = (0,) if estimand == "att" else ARMS
    outcomes = outcome_models(y, None if seen.all() else seen, shared, split, arms)
    predicted = (outcomes.control, outcomes.treatment)
    fit = {
        name: explained(y, predicted[arm], seen & (shared.treated == arm)) if arm in arms else None
        for arm, name in enumerate(("control", "treatment"))
    }
    if method == "aipw":
        parts = [augmented(y, predicted[arm], weights, arm) for arm in ARMS]
    else:
        parts = [
            _regressed(y, predicted[arm], weights, shared, split, outcomes, seen, arm)
            if arm in arms
            else _weighted(y, weights.base)
            for arm in ARMS
        ]
    return _means(parts, weights, outcomes, fit)


def _means(
    parts: list[tuple[float, Vector]], weights: Tilt, outcomes: Outcomes | None, fit: dict[str, float | None]
) -> PotentialMeans:
    (control, first), (treatment, second) = parts
    return PotentialMeans(control, treatment, np.stack([first, second]), weights, outcomes, fit)


def augmented(y: Vector, predicted: Vector, weights: Tilt, arm: int) -> tuple[float, Vector]:
    """AIPW mean of an arm and the rows' influence on it."""
    level, of_level = _weighted(predicted, weights.base)
    missed, of_missed = _weighted(y - predicted, weights.arms[arm])
    of_level += of_missed
    return level + missed, of_level


def _weighted(values: Vector, w: Vector) -> tuple[float, Vector]:
    """Weighted mean and the rows' influence on it."""
    total = float(w.sum())
    if not total > 0.0:
        raise EstimationError("the weights of an arm do not sum to a positive number")
    mean = float(w @ values) / total
    influence = values - mean
    influence *= w
    influence *= len(w) / total
    return mean, influence


def _of_propensity(rest: Vector, split: Split, shared: Nuisances, weights: Tilt, arm: int) -> Vector | float:
    """What fitting the propensity adds to the rows' influence on a weighted mean; 0 where it counts as known."""
    model, slope = split.model, weights.slopes[arm]
    if model is None or not slope.any():
        return 0.0
    e = split.propensity
    score, curvature = model.link.score(shared.treated.astype(np.float64), e)
    pull = slope * model.link.slope(e) * rest / float(weights.arms[arm].mean())
    return through(model, pull, curvature, score)


def _regressed(
    y: Vector,
    predicted: Vector,
    weights: Tilt,
    shared: Nuisances,
    split: Split,
    outcomes: Outcomes,
    seen: NDArray[np.bool_],
    arm: int,
) -> tuple[float, Vector]:
    """Mean of an arm's predictions, and influences with the part of fitting the model."""
    assert outcomes.models is not None
    mean, influence = _weighted(predicted, weights.base)
    model = outcomes.models[arm]
    mine = (seen & (shared.treated == arm)).astype(np.float64)
    score, curvature = model.link.score(y, predicted)
    pull = weights.base * model.link.slope(predicted) / float(weights.base.mean())
    influence += through(model, pull, curvature * mine, score * mine)
    return mean, influence


def through(model: Fitted, pull: Vector, curvature: Vector, score: Vector) -> Vector:
    """Influence of rows through fitted coefficients: ``(mean pull z)' (mean curvature z z' + penalty)^-1 z score``.

    Stefanski and Boos (2002), *The calculus of M-estimation*; predictions of other folds stand for the fit to all rows,
    which is the same to first order.
    """
    design: Design = model.design
    n, held = design.n, np.diag(np.concatenate([[0.0], np.ones(design.width - 1)]))
    share = float(np.count_nonzero(curvature)) / n
    hessian = design.gram(weights=curvature).sum(axis=0) / n + float(model.penalties.mean()) * share * held
    direction = design.cross(pull).sum(axis=0) / n
    return np.asarray(design.times(np.linalg.lstsq(hessian, direction, rcond=1e-13)[0]) * score)


def explained(y: Vector, predicted: Vector, rows: NDArray[np.bool_]) -> float | None:
    """Share of the outcome's variance that predictions explain; below 0 where the mean predicts better."""
    seen = y[rows]
    spread = float(((seen - seen.mean()) ** 2).sum()) if len(seen) else 0.0
    if not spread > 0.0:
        return None
    rest = seen - predicted[rows]
    return 1.0 - float(rest @ rest) / spread
