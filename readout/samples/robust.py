"""Robust means of units: which estimator a metric's ``robust`` asks for, and what it is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from estimators import Moments, catoni, difference_in_means, leave_one_out_means, median_of_means, trimmed
from estimators.estimate import Estimate
from estimators.median_of_means import ArmArrays, Split, split_arms
from estimators.trimmed import QUANTILE as TRIM
from estimators.winsorized import QUANTILE, Caps, Vector, cap, cut, pooled_caps
from readout.errors import SpecError
from readout.spec.metrics import Robust
from readout.spec.model import Spec
from readout.terms import SEGMENT, Term

Arrays = tuple[Vector, Vector | None]
WINSORIZE = "winsorize"
# Where the sums of a unit are compared one by one there is no weighing of a unit by its rows.
ONE_VALUE = ("trim", "catoni")
NAMES = {"trim": "trimming", "catoni": "Catoni's estimate", "median_of_means": "median of means"}


def winsorizes(term: Term) -> bool:
    """Whether the metric's values are capped; everything else then stays as it is."""
    return term.robust is not None and term.robust.method == WINSORIZE


def stands_alone(term: Term) -> bool:
    """Whether the metric has an estimator of its own."""
    return term.robust is not None and term.robust.method != WINSORIZE


def require(spec: Spec, terms: Sequence[Term], *, single: bool) -> None:
    """Refuse what a robust mean does not go with.

    Args:
        single: Whether a unit is a single row.

    Raises:
        SpecError: All such metrics.
    """
    problems = []
    for term in terms:
        # What does not go with a metric is said of it, and not once more of each of its segments.
        if term.robust is None or not stands_alone(term) or term.name.startswith(SEGMENT):
            continue
        named, at = NAMES[term.robust.method], ("metrics", term.name, "robust")
        if term.covariates:
            message = f"{named} does not go with {spec.estimator.method}"
            hint = "take winsorize, which caps the outcome and then adjusts it, or difference_in_means"
            problems.append(spec.source.problem(at, message, hint))
        elif term.robust.method in ONE_VALUE and not term.per_unit and (term.den is not None or not single):
            message = f"{named} needs one value a unit, and this is a mean over the unit's rows"
            hint = "add `per: unit`, or take winsorize or median_of_means"
            problems.append(spec.source.problem(at, message, hint))
    if problems:
        raise SpecError(problems)


def caps(robust: Robust, arms: Sequence[ArmArrays]) -> tuple[Caps, Caps | None]:
    """Where winsorizing cuts, from the units of all arms."""
    return pooled_caps(arms, QUANTILE if robust.quantile is None else robust.quantile)


def capped(arm: Arrays, at: tuple[Caps, Caps | None]) -> Arrays:
    """An arm's capped numerator and denominator."""
    return cap(arm, at)


def both(arm: Arrays) -> tuple[Vector, Vector]:
    """Numerator and denominator of what has both."""
    num, den = arm
    assert den is not None
    return num, den


def capped_covariates(robust: Robust, x: Sequence[Vector]) -> list[Vector]:
    """The arms' covariates ``(n, k)``, each column capped at its own pooled quantile; NaN stays."""
    together = np.concatenate(x)
    done = [arm.copy() for arm in x]
    for j, column in enumerate(together.T):
        known = column[~np.isnan(column)]
        if len(known):
            at, _ = caps(robust, [(known, None)])
            for arm in done:
                arm[:, j] = at.apply(arm[:, j])
    return done


def noted(
    found: Estimate, plain: Estimate, control: Arrays, treatment: Arrays, at: tuple[Caps, Caps | None]
) -> Estimate:
    """An estimate from capped values, with what capping did and the same estimate of the values as they are beside."""
    method = WINSORIZE if found.method == "difference_in_means" else found.method
    shown = {**found.diagnostics, **cut(control, treatment, at), **_beside(plain)}
    return replace(found, method=method, diagnostics=shown)


def effect(robust: Robust, control: Arrays, treatment: Arrays, *, seed: int, alpha: float) -> Estimate:
    """The effect by trimming, median of means or Catoni's estimate; the plain one beside it in ``diagnostics``.

    Raises:
        EstimationError: As the estimators.
    """
    control, treatment = _ordered(control), _ordered(treatment)
    found = _estimate(robust, control, treatment, _splits(robust, control, treatment, seed, alpha), alpha)
    plain = difference_in_means(Moments.from_arrays(*control), Moments.from_arrays(*treatment), alpha=alpha)
    return replace(found, diagnostics={**found.diagnostics, **_beside(plain)})


def without_one(robust: Robust, control: Arrays, treatment: Arrays, *, seed: int, alpha: float) -> Estimate:
    """The effect without the unit that moves the plain mean most; the others keep their groups.

    Raises:
        EstimationError: An arm has fewer than three units, and as :func:`effect`.
    """
    control, treatment = _ordered(control), _ordered(treatment)
    left_out = leave_one_out_means(control, treatment, alpha=alpha).diagnostics["left_out"]
    arms, splits = [control, treatment], list(_splits(robust, control, treatment, seed, alpha) or ())
    code, index = left_out["arm"], left_out["index"]
    num, den = arms[code]
    arms[code] = np.delete(num, index), None if den is None else np.delete(den, index)
    if splits:
        splits[code] = np.delete(splits[code], index)
    found = _estimate(robust, arms[0], arms[1], (splits[0], splits[1]) if splits else None, alpha)
    return replace(found, diagnostics={**found.diagnostics, "left_out": left_out})


def _estimate(
    robust: Robust, control: Arrays, treatment: Arrays, splits: tuple[Split, Split] | None, alpha: float
) -> Estimate:
    if robust.method == "trim":
        quantile = TRIM if robust.quantile is None else robust.quantile
        return trimmed(control[0], treatment[0], quantile=quantile, alpha=alpha)
    if robust.method == "catoni":
        return catoni(control[0], treatment[0], alpha=alpha)
    return median_of_means(control, treatment, splits=splits, alpha=alpha)


def _ordered(arm: Arrays) -> Arrays:
    """The arm by value: single rows come in the order of the log, which must not choose their random groups."""
    num, den = arm
    order = np.lexsort((num,) if den is None else (den, num))
    return num[order], None if den is None else den[order]


def _splits(robust: Robust, control: Arrays, treatment: Arrays, seed: int, alpha: float) -> tuple[Split, Split] | None:
    """Each unit's group for median of means; None for the others."""
    if robust.method != "median_of_means":
        return None
    sizes = len(control[0]), len(treatment[0])
    return split_arms(sizes, robust.groups, alpha=alpha, seed=seed)


def _beside(plain: Estimate) -> dict[str, Any]:
    return {"plain_estimate": plain.estimate, "plain_std_error": plain.std_error}
