"""Does the value of a policy miss what the weights that it does not use would have told?"""

from __future__ import annotations

import math
from dataclasses import dataclass

from estimators import holm
from estimators.inference import EstimationError
from estimators.left_out import LeftOut
from readout.checks.base import percent, threshold
from readout.evidence import Evidence
from readout.memo.numbers import number
from readout.results import Check
from readout.samples.off_policy import OffPolicy
from readout.spec.metrics import Metric
from readout.text import visible

NAME = "left_out"
FAR = 1.96
# Of the effect, or of the smallest one worth acting on, what a shift may be.
QUARTER = 0.25


def left_out(evidence: Evidence) -> Check:
    """The shift of primaries and guardrails by whole weights, where the method uses none or cuts them."""
    sample = evidence.sample
    assert isinstance(sample, OffPolicy)
    if sample.how.uses_all:
        return Check(NAME, "identification", "skip", f"{sample.method} uses the whole of every weight")
    if not (sample.propensity or sample.estimated):
        return Check(
            NAME, "identification", "skip", "without probabilities of the logged action nothing can correct it"
        )
    limit = threshold(evidence.spec, NAME, QUARTER)
    found = [one for one in (_of(evidence, sample, metric) for metric in evidence.spec.metrics.values()) if one]
    if not found:
        return Check(NAME, "identification", "skip", "no primary metric or guardrail was estimated")
    alpha = evidence.spec.decision.alpha
    adjusted = [float(p) for p in holm([one.shift.p_value for one in found])]
    sure = [one for one, p in zip(found, adjusted, strict=True) if p < alpha]
    broken = [one for one in sure if one.part > limit]
    unclear = [one for one in found if one.most > limit]
    worst = max(broken or unclear or found, key=lambda one: one.part)
    numbers = (None, min(adjusted), worst.part if math.isfinite(worst.part) else None, limit)
    if broken:
        cure = "take the cut away, or raise it" if sample.how.weighs else "doubly_robust corrects it"
        message = f"{_why(sample)}: {'; '.join(map(_said, broken))}; {cure}"
        return Check(NAME, "identification", "fail", message, *numbers, "stronger_design", short=_said(broken[0]))
    if unclear:
        open_ = "the logs do not rule out" if not sure else "the logs say"
        message = f"{open_} that {_why(sample)}: {'; '.join(map(_said, unclear))}"
        return Check(NAME, "identification", "warn", message, *numbers)
    message = f"whole weights would move no value by more than {percent(limit)} of its effect"
    return Check(NAME, "identification", "pass", message, *numbers)


@dataclass(frozen=True, slots=True)
class _Shift:
    """A metric's shift, and how large it is as a share of what matters: as measured, and at its interval's far end."""

    metric: str
    shift: LeftOut
    part: float
    most: float


def _of(evidence: Evidence, sample: OffPolicy, metric: Metric) -> _Shift | None:
    """Of a primary or guardrail; None of others, and where there is none."""
    effect = evidence.effect(metric.name, 1) if metric.role in ("primary", "guardrail") else None
    if effect is None:
        return None
    try:
        shift = sample.left_out(evidence.terms[metric.name], effect.treatment_value)
    except EstimationError:
        return None
    worth = metric.minimum_effect or metric.margin
    least = 0.0 if worth is None else worth.value * (abs(effect.control_value) if worth.relative else 1.0)
    size = max(abs(effect.estimate), least)
    if not size > 0.0:
        return None
    return _Shift(metric.name, shift, abs(shift.shift) / size, (abs(shift.shift) + FAR * shift.std_error) / size)


def _why(sample: OffPolicy) -> str:
    if not sample.how.weighs:
        return "the model of the rewards is off where the target acts"
    return "the weights that are cut hold a part of the value"


def _said(one: _Shift) -> str:
    return (
        f"by whole weights the target's {visible(one.metric, 60)} would be {number(one.shift.shift, 3, True)} "
        f"(std. error {number(one.shift.std_error, 2)}) from what is reported"
    )
