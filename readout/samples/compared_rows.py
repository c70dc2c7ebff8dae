"""A treatment's rows against control's, as the estimators of observational designs are given them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from estimators import aipw, dml, ipw, match, matching, nuisances, outcome_regression
from estimators.estimate import Estimate
from estimators.matches import Matches
from estimators.nuisances import Nuisances
from estimators.tilting import tilt

Flags = NDArray[np.bool_]
Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Codes = NDArray[np.intp]
WEIGHTING = {"aipw": aipw, "ipw": ipw, "outcome_regression": outcome_regression}
UNCORRECTED = ("ipw", "outcome_regression")
# What a propensity is fitted with where the method itself needs none.
DEFAULTS: Mapping[str, Any] = {"folds": 5, "repeats": 1, "propensity": "logit", "outcome": "linear"}


@dataclass(frozen=True, slots=True)
class How:
    """The method and what it is asked for; ``options`` as in the spec."""

    method: str
    estimand: str
    options: Mapping[str, Any]
    seed: int

    @property
    def trim(self) -> float | None:
        """Rows whose propensity lies outside ``[trim, 1 - trim]`` are left out; None: none are."""
        given = self.options.get("trim", "none")
        return None if given == "none" else float(given)


@dataclass(frozen=True, slots=True, eq=False)
class Weighting:
    """How a treatment's rows and control's are weighed, as a check looks at it.

    Attributes:
        treated: ``(n,)``.
        propensity: ``(n,)`` fitted out of fold.
        people: ``(n,)`` weight of each row in what the effect is of.
        weights: ``(n,)`` weight of each row within its own arm.
        units: ``(n,)`` codes; None where every row is one.
        trimmed: Share of rows that trimming, or a caliper, left out of those whom the effect was to be of.
    """

    treated: Flags
    propensity: Vector
    people: Vector
    weights: Vector
    units: Codes | None
    trimmed: float

    def of_units(self, side: Flags) -> Vector:
        """Weights of the units of some rows, each the sum over them."""
        weights = self.weights[side]
        if self.units is None:
            return weights
        sums = np.bincount(self.units[side], weights)
        return np.asarray(sums[sums > 0.0], dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Compared:
    """Rows of two arms.

    Attributes:
        how: The method.
        treated: ``(n,)``.
        x, x_outcome: ``(n, p)`` covariates of the models for treatment and for outcomes.
        units: ``(n,)`` codes; None where every row is one.
        folds: ``(n,)`` labels where the spec names their column.
    """

    how: How
    treated: Flags
    x: Matrix
    x_outcome: Matrix
    units: Codes | None
    folds: Codes | None

    @cached_property
    def nuisances(self) -> Nuisances:
        """Propensities, fitted once.

        Raises:
            EstimationError: They cannot be fitted.
        """
        given = {name: self.how.options.get(name, default) for name, default in DEFAULTS.items()}
        if self.folds is not None:
            given["folds"] = self.folds
        same = self.x_outcome is self.x
        return nuisances(
            self.treated,
            self.x,
            outcome_covariates=None if same else self.x_outcome,
            units=self.units,
            seed=self.how.seed,
            **given,
        )

    @cached_property
    def matches(self) -> Matches:
        """Who stands in for whom, found once.

        Raises:
            EstimationError: Nobody can.
        """
        options = self.how.options
        return match(
            self.treated,
            self.x,
            estimand=self.how.estimand,
            neighbours=int(options["neighbours"]),
            metric=str(options["metric"]),
            caliper=None if options["caliper"] == "none" else float(options["caliper"]),
            units=self.units,
        )

    def effect(self, num: Vector, den: Vector | None, alpha: float) -> Estimate:
        """The effect on an outcome, or on a ratio's numerator and denominator, that no row lacks.

        Raises:
            EstimationError: The rows cannot carry it.
        """
        how = self.how
        if how.method == "matching":
            adjusted = bool(how.options["bias_adjustment"])
            return matching(num, self.matches, denominator=den, bias_adjustment=adjusted, alpha=alpha)
        given: dict[str, Any] = {"denominator": den, "estimand": how.estimand, "trim": how.trim, "alpha": alpha}
        if how.method == "dml":
            return dml(num, self.nuisances, model=str(how.options["model"]), **given)
        return WEIGHTING[how.method](num, self.nuisances, **given)

    def weighting(self) -> Weighting:
        """Propensities and weights.

        Raises:
            EstimationError: No propensity can be fitted, or no weight follows from it.
        """
        # What nothing corrects is fitted with light penalties only.
        shared = self.nuisances.light if self.how.method in UNCORRECTED else self.nuisances
        split = shared.splits[0]
        if self.how.method == "matching":
            found = self.matches
            people, weights = found.used.astype(np.float64), found.weights
            trimmed = sum(found.unmatched().values()) / (
                len(people) if self.how.estimand == "ate" else sum(self.treated)
            )
        else:
            everywhere = np.ones(len(self.treated), dtype=np.bool_)
            tilted = tilt(shared, split, self.how.estimand, self.how.trim, everywhere, checked=False)
            people, trimmed = tilted.base, tilted.trimmed
            weights = np.where(self.treated, tilted.arms[1], tilted.arms[0])
        return Weighting(self.treated, split.propensity, people, weights, self.units, trimmed)
