"""What checks share: thresholds from the spec, and how a number reads in a message."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from estimators.inference import EstimationError
from readout.evidence import Evidence
from readout.spec.model import Spec


@dataclass(frozen=True, slots=True)
class Shift:
    """An arm's share less control's, with its test; ``statistic`` is None where the test is exact."""

    estimate: float
    statistic: float | None
    p_value: float


@dataclass(frozen=True, slots=True)
class Slope:
    """Change of an untreated outcome from no to all neighbours treated; ``detectable``: seen with a power of 80 %."""

    outcome: str
    estimate: float
    std_error: float
    p_value: float
    mean: float
    detectable: float
    cells: int


def share_shift(evidence: Evidence, name: str, arm: int) -> Shift | None:
    """How far an arm moves a share; None where nothing can be compared.

    A share that is all or nothing in both arms has no spread to test it with: where it differs, the p-value is the
    chance that a random assignment separates the units so.
    """
    effect = evidence.effect(name, arm)
    if effect is not None:
        return Shift(effect.estimate, effect.statistic, effect.p_value)
    try:
        totals = [evidence.sample.arm_total(evidence.terms[name], code) for code in (0, arm)]
    except EstimationError:
        return None
    if not all(weight for _, weight in totals):
        return None
    control, treated = (part / weight for part, weight in totals)
    if control not in (0.0, 1.0) or treated not in (0.0, 1.0):
        return None
    counts = evidence.sample.counts()
    return Shift(treated - control, None, 1.0 if treated == control else separation_p(counts[0], counts[arm]))


def separation_p(n_control: int, n_treatment: int) -> float:
    """Chance that a random assignment of so many units separates two kinds of them entirely, either way round."""
    n = n_control + n_treatment
    log = math.lgamma(n_control + 1) + math.lgamma(n_treatment + 1) - math.lgamma(n + 1)
    return min(1.0, 2.0 * math.exp(log))


def threshold(spec: Spec, name: str, default: float) -> float:
    """The spec's threshold for a check, else the contract's."""
    given = spec.checks.get(name)
    return default if given is None or given.threshold is None else given.threshold


def share(part: float, whole: float) -> float:
    """``part / whole``, zero where there is no whole."""
    return part / whole if whole else 0.0


def percent(value: float) -> str:
    """A share as a percentage with the digits that matter."""
    return f"{100 * value:.3g} %"


def listing(names: Sequence[str]) -> str:
    """Names in one sentence."""
    quoted = [f"{n!r}" for n in names]
    return quoted[0] if len(quoted) == 1 else ", ".join(quoted[:-1]) + " and " + quoted[-1]
