"""How strong a cause that is not logged would have to be, for an effect that rests on what is adjusted for.

The bounds are those of the linear regression of the outcome on the action and the adjusters, whatever method gave the
effect that they are held against: Cinelli and Hazlett (2020), see ``estimators/sensitivity.py``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from estimators.estimate import Estimate
from estimators.evalue import evalue
from estimators.inference import EstimationError
from estimators.sensitivity import Sensitivity, sensitivity
from readout.samples.compared_rows import Codes, Flags, Matrix, Vector

MULTIPLES = (1.0, 2.0, 3.0)


def confounding(
    found: Estimate,
    outcome: Vector,
    treated: Flags,
    x: Matrix,
    columns: Sequence[str],
    units: Codes | None,
    alpha: float,
) -> dict[str, Any]:
    """What a confounder would do to an effect.

    Args:
        found: The effect, in the outcome's unit.
        outcome: ``(n,)`` the metric on the rows that have it.
        treated, x, units: As the effect's.
        columns: ``(p,)`` the log's column behind each of the matrix's.
        alpha: Level.

    Returns:
        ``robustness_value`` and ``robustness_value_alpha``: the share of what the adjusters leave of action and outcome
        both that it would have to explain to bring the estimate, or the nearer end of its interval, to zero.
        ``benchmarks``: estimate and interval under a confounder once, twice and three times as strong as each adjuster,
        moved towards zero; those that no confounder can be are left out. All are None, with ``reason``, where the
        regression cannot be had.
    """
    groups: dict[str, list[int]] = {}
    for j, name in enumerate(columns):
        groups.setdefault(name, []).append(j)
    try:
        model = sensitivity(outcome, treated, x, benchmarks=groups, multiples=MULTIPLES, units=units, alpha=alpha)
    except EstimationError as error:
        nothing = dict.fromkeys(("robustness_value", "robustness_value_alpha"))
        return {**nothing, "benchmarks": [], "reason": str(error)}
    away = max(found.ci_low, -found.ci_high, 0.0)
    return {
        "robustness_value": model.robustness_of(found.estimate),
        "robustness_value_alpha": model.robustness_of(away),
        "benchmarks": _benchmarks(found, model),
        "reason": "",
    }


def _benchmarks(found: Estimate, model: Sensitivity) -> list[dict[str, Any]]:
    """The effect moved by each bound's bias, strongest first."""
    sign = math.copysign(1.0, found.estimate)
    rows: list[dict[str, Any]] = []
    for bound in model.bounds:
        bias = sign * abs(bound.estimate - model.estimate)
        rows.append(
            {
                "covariate": bound.covariate,
                "multiple": bound.multiple,
                "r2_action": bound.r2_treatment,
                "r2_outcome": bound.r2_outcome,
                "estimate": found.estimate - bias,
                "ci_low": found.ci_low - bias,
                "ci_high": found.ci_high - bias,
            }
        )
    strongest = {row["covariate"]: abs(row["estimate"] - found.estimate) for row in rows if row["multiple"] == 1.0}
    return sorted(rows, key=lambda row: (-strongest.get(row["covariate"], 0.0), row["covariate"], row["multiple"]))


def risk(found: Estimate, outcome: NDArray[np.float64]) -> Mapping[str, float | None] | None:
    """E-values of an effect on a share; None of another outcome, or where the ratio of shares has no interval."""
    if not ((outcome == 0.0) | (outcome == 1.0)).all():
        return None
    if found.relative is None or found.relative_ci_low is None or found.relative <= -1.0:
        return None
    high = math.inf if found.relative_ci_high is None else 1.0 + found.relative_ci_high
    one = evalue(1.0 + found.relative, 1.0 + found.relative_ci_low, high)
    return {"risk_ratio": one.risk_ratio, "e_value": one.point, "e_value_of_interval": one.limit}
