"""Does every kind of request occur under both actions, and does the estimate rest on more than a few of them?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from estimators.common_support import CALIPER, NEAREST, without_counterpart
from estimators.inference import EstimationError
from estimators.overlap import crump_threshold
from readout.checks.base import percent, share, threshold
from readout.evidence import Evidence
from readout.results import Action, Check, Family, Status
from readout.samples.by_action import ByAction
from readout.samples.compared_rows import Weighting
from readout.text import named

FAMILY: Family = "identification"
BINS = 20
# Of those whom the effect is of, the share without a counterpart that is worth a word, and that no estimate bridges.
SPARSE, TORN = 0.01, 0.05
# Share of an arm's weight on one unit that is worth a word, and that no interval holds for.
HEAVY, CARRIED = 0.05, 0.10
# A unit that would hold this much less without weights owes its share to them.
BY_WEIGHT = 2.0
# An effective size below this part of the smaller arm's rows is worth a word.
THIN = 0.1
# Trimming that leaves fewer than the other half is no advice.
MOST_TRIMMED = 0.5
WITH_TRIM = ("aipw", "ipw", "outcome_regression", "dml")


@dataclass(frozen=True, slots=True)
class _Arm:
    """What one comparison shows."""

    label: str
    status: Status
    value: float | None
    said: str


def weighting_of(evidence: Evidence, arm: int) -> Weighting | str:
    """An arm's weighting, made once, or why there is none."""
    sample = evidence.sample
    assert isinstance(sample, ByAction)

    def made() -> Weighting | str:
        try:
            return sample.weighting(arm)
        except EstimationError as error:
            return str(error)

    return evidence.once(f"weighting {arm}", made)


def overlap(evidence: Evidence) -> Check:
    """Rows with a propensity that the other action's rows come near to.

    The value is the share, of those whom the effect is of, without one: trimmed rows are no part of them, and rows of
    a certain action weigh nothing in the overlap-weighted effect.
    """
    limit = threshold(evidence.spec, "overlap", TORN)
    found = [_supported(evidence, arm, limit) for arm in evidence.treatments]
    rows = [row for arm in evidence.treatments for row in _histogram(evidence, arm)]
    return _together("overlap", evidence, found, limit, {"propensity_histogram": rows} if rows else {})


def weight_concentration(evidence: Evidence) -> Check:
    """The largest unit's share of an arm's weight, where weights and not its rows give it to it."""
    limit = threshold(evidence.spec, "weight_concentration", CARRIED)
    found = [_concentrated(evidence, arm, limit) for arm in evidence.treatments]
    return _together("weight_concentration", evidence, found, limit, _sizes(evidence))


def _together(name: str, evidence: Evidence, found: list[_Arm], limit: float, details: Mapping[str, Any]) -> Check:
    """The worst arm's status and value, and what is said of all."""
    status: Status = next(s for s in ("fail", "warn", "pass", "skip") if any(one.status == s for one in found))
    worst = max((one.value for one in found if one.value is not None), default=None)
    several = len(found) > 1
    message = "; ".join(f"{named(one.label)}: {one.said}" if several else one.said for one in found)
    action: Action | None = "stronger_design" if status == "fail" else None
    by_arm = {"by_arm": {one.label: one.status for one in found}} if several else {}
    return Check(name, FAMILY, status, message, None, None, worst, limit, action, {**details, **by_arm})


def _supported(evidence: Evidence, arm: int, limit: float) -> _Arm:
    label, found = evidence.arms[arm], weighting_of(evidence, arm)
    if isinstance(found, str):
        return _Arm(label, "skip", None, f"no propensity to look at: {found}")
    whole = float(found.people.sum())
    if not whole > 0.0:
        return _Arm(label, "fail", 1.0, "no row is left whose action was not certain")
    alone = without_counterpart(found.propensity, found.treated)
    value = share(float(found.people[alone].sum()), whole)
    ends = f"propensities {found.propensity.min():.3g} to {found.propensity.max():.3g}"
    near = f"within {CALIPER:g} standard deviations of the propensity's logit, or among the {NEAREST} nearest"
    said = f"{percent(value)} of those whom the effect is of have no row of the other action near them ({near}; {ends})"
    if found.trimmed:
        said += (
            f"; {_narrowed_by(evidence)} left out {percent(found.trimmed)} of the rows, and the effect is of the others"
        )
    status: Status = "fail" if value > limit else "warn" if value > min(SPARSE, limit) else "pass"
    return _Arm(label, status, value, said if status == "pass" else said + _advice(evidence, found))


def _narrowed_by(evidence: Evidence) -> str:
    return "trimming" if evidence.sample.method in WITH_TRIM else "the caliper"


def _advice(evidence: Evidence, found: Weighting) -> str:
    """What narrows the effect to those that can be compared."""
    sample = evidence.sample
    assert isinstance(sample, ByAction)
    if sample.method not in WITH_TRIM:
        return "; estimator.caliper leaves such rows out, and the effect is then of the others"
    inner = np.clip(found.propensity, 0.0, 1.0)
    trim = np.ceil(100.0 * crump_threshold(inner)) / 100.0
    out = float(((inner < trim) | (inner > 1.0 - trim)).mean())
    if not 0.0 < trim < 0.5 or out > MOST_TRIMMED or sample.how.trim is not None:
        return "; design.estimand: overlap weighs such rows down, and the effect is then of the others"
    return (
        f"; estimator.trim: {trim:.2g} leaves out {percent(out)} of the rows, design.estimand: overlap weighs them "
        "down: either way the effect is of the others"
    )


def _histogram(evidence: Evidence, arm: int) -> list[dict[str, Any]]:
    """Rows by propensity and action."""
    found = weighting_of(evidence, arm)
    if isinstance(found, str):
        return []
    edges = np.linspace(0.0, 1.0, BINS + 1)
    inner = np.clip(found.propensity, 0.0, 1.0)
    counts = [np.histogram(inner[side], edges)[0] for side in (~found.treated, found.treated)]
    return [
        {"arm": evidence.arms[arm], "from": float(edges[i]), "to": float(edges[i + 1]),
         "control": int(counts[0][i]), "treatment": int(counts[1][i])}
        for i in range(BINS)
    ]  # fmt: skip


def _concentrated(evidence: Evidence, arm: int, limit: float) -> _Arm:
    label, found = evidence.arms[arm], weighting_of(evidence, arm)
    if isinstance(found, str):
        return _Arm(label, "skip", None, f"no weights to look at: {found}")
    unit = evidence.sample.unit
    worst, said, thin = 0.0, [], False
    fewest = min(int(found.treated.sum()), int((~found.treated).sum()))
    for side, name in ((~found.treated, evidence.arms[0]), (found.treated, label)):
        weights = found.weights[side]
        if not weights.sum() > 0.0:
            return _Arm(label, "fail", 1.0, f"no row of {named(name)} has any weight")
        if n := int((~np.isfinite(weights)).sum()):
            against = f"{n:,} of {len(weights):,} rows of {named(name)} ran against all odds: no weight is large enough"
            return _Arm(label, "fail", 1.0, against)
        largest, plain = _largest(weights, None if found.units is None else found.units[side])
        size = effective(weights)
        thin |= size < THIN * fewest
        said.append(
            f"{named(name)}: one {unit} holds {percent(largest)} of the weight, and {len(weights):,} rows weigh as "
            f"much as {size:,.0f} alike"
        )
        if largest > BY_WEIGHT * plain:
            worst = max(worst, largest)
    status: Status = "fail" if worst > limit else "warn" if worst > min(HEAVY, limit) or thin else "pass"
    return _Arm(label, status, worst, "; ".join(said))


def _largest(weights: NDArray[np.float64], units: NDArray[np.intp] | None) -> tuple[float, float]:
    """The heaviest unit's share of the weight, and of the rows."""
    if units is None:
        return float(weights.max() / weights.sum()), 1.0 / len(weights)
    of_units, rows = np.bincount(units, weights), np.bincount(units)
    heaviest = int(of_units.argmax())
    return float(of_units[heaviest] / weights.sum()), float(rows[heaviest] / len(weights))


def effective(weights: NDArray[np.float64]) -> float:
    """Kish's effective size of weights: ``sum(w)^2 / sum(w^2)``."""
    scaled = weights / weights.max()
    return float(scaled.sum()) ** 2 / float(scaled @ scaled)


def _sizes(evidence: Evidence) -> dict[str, Any]:
    """Effective sizes by arm, and shares of weight; control's is that of the first comparison."""
    sizes: dict[str, float] = {}
    trimmed: dict[str, float] = {}
    for arm in evidence.treatments:
        found = weighting_of(evidence, arm)
        if isinstance(found, str) or not all(
            0.0 < found.weights[side].sum() < np.inf for side in (~found.treated, found.treated)
        ):
            continue
        sizes.setdefault(evidence.arms[0], effective(found.weights[~found.treated]))
        sizes[evidence.arms[arm]] = effective(found.weights[found.treated])
        trimmed[evidence.arms[arm]] = found.trimmed
    return {"ess": sizes, "trimmed": trimmed} if sizes else {}
