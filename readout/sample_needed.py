"""What it would take to settle a primary that is inconclusive, in words."""

from __future__ import annotations

from collections.abc import Sequence

from readout.evidence import Evidence
from readout.memo import numbers
from readout.results import MetricResult
from readout.samples.base import Narrows

GO_ON = "Keep it running and read again as more comes in: these intervals hold at every look."


def sample_needed(evidence: Evidence, arm: int, primaries: Sequence[MetricResult]) -> str:
    """What it takes to settle each inconclusive primary of an arm with a power of 80 %."""
    said = [_sample_of(evidence, arm, m) for m in primaries if m.verdict in (None, "inconclusive")]
    # Always-valid intervals forgive looking again; fixed ones do not.
    going_on = [GO_ON] if evidence.sequential and said else []
    return " ".join(going_on + said)


def _sample_of(evidence: Evidence, arm: int, m: MetricResult) -> str:
    """What it takes to settle one primary."""
    if m.estimate is not None and isinstance(sample := evidence.sample, Narrows):
        return sample.narrowed_by(m.metric)
    if m.minimum_detectable_effect is None or m.estimate is None:
        return f"Mend what keeps {m.metric} from being estimated, then read again."
    effect = evidence.spec.metrics[m.metric].minimum_effect
    size, text = abs(m.estimate), f"an effect on {m.metric} as large as the one measured"
    if effect is not None:
        size = effect.value * (abs(m.control_value or 0.0) if effect.relative else 1.0)
        text = f"an effect of {effect.text} on {m.metric}"
    if size <= 0:
        return f"Set minimum_effect to plan for the smallest effect on {m.metric} worth acting on."
    factor = _factor(evidence, arm, m, size)
    found = evidence.effect(m.metric, arm)
    # A unit may have rows under both arms.
    n = (found.diagnostics if found is not None else {}).get("n_units", m.n_control + m.n_treatment)
    these = f"these {numbers.count(n)} {m.unit}s"
    if factor <= 1:
        # The interval then reaches from no effect past the minimum effect: what is open is which half it lies in.
        return (
            f"With 80 % power this window could see {text}; "
            f"seeing half of it takes about {_times(_factor(evidence, arm, m, size / 2))} times {these}."
        )
    advice = "" if effect is not None else " Set minimum_effect to plan for the smallest effect worth acting on."
    return f"With 80 % power, seeing {text} takes about {_times(factor)} times {these}.{advice}"


def _factor(evidence: Evidence, arm: int, m: MetricResult, size: float) -> float:
    """How many times the sample an effect of a size takes: as the square of what is detectable over it, with fixed
    intervals."""
    assert m.minimum_detectable_effect is not None
    if evidence.sequential:
        return evidence.sample_factor(m.metric, arm, size)
    return (m.minimum_detectable_effect / size) ** 2


def _times(factor: float) -> str:
    return numbers.number(float(f"{factor:.2g}"), 2)
