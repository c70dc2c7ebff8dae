"""Synthetic control: did the mix follow the treated before the rollout, and does it find nothing where nothing was?"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from estimators.estimate import Estimate
from estimators.inference import EstimationError, minimum_detectable_effect
from readout.checks.base import threshold
from readout.evidence import Evidence
from readout.memo.numbers import number, p_value
from readout.results import Check, Status
from readout.samples.synthetic import Synthetic
from readout.spec.metrics import Metric

# How many times the placebos' median error before the rollout the treated's may be, where ranks cannot tell.
MANY_TIMES = 3.0
# Fewer periods before the rollout than this, and any mix follows the treated.
FEW_PERIODS = 8


@dataclass(frozen=True, slots=True)
class _Fit:
    """How the treated's fit before the rollout stands among the placebos'.

    Attributes:
        error, median: Root mean square gap of the treated's, and the placebos' median.
        rank: Share of the fits that are as bad, the treated counted.
        n: Fits.
    """

    metric: str
    error: float
    median: float
    rank: float
    n: int

    @property
    def times(self) -> float:
        """The treated's error over the placebos' median."""
        return self.error / self.median if self.median > 0.0 else float("inf")


def pre_period_fit(evidence: Evidence) -> Check:
    """The treated's error before the rollout is no rarity among those of placebos.

    Donors differ from the treated where no mix of them comes near: its rank among the placebos' errors tests that at
    the threshold. Where there are too few units for such a rank, the error must not be three times their median.
    """
    name, sample = "pre_period_fit", evidence.sample
    assert isinstance(sample, Synthetic)
    limit = threshold(evidence.spec, name, 0.05)
    found, unseen = [], []
    for metric in _primaries(evidence):
        try:
            errors = sample.errors_before(evidence.terms[metric.name])
        except EstimationError as error:
            unseen.append(f"{metric.name}: {error}")
            continue
        rank = sum(e >= errors[0] * (1.0 - 1e-12) for e in errors) / len(errors)
        found.append(_Fit(metric.name, errors[0], statistics.median(errors[1:]), rank, len(errors)))
    if not found:
        return Check(name, "identification", "skip", "; ".join(unseen) or "no primary", threshold=limit)
    worst = min(found, key=lambda one: (one.rank, -one.times))
    ranks = 1.0 / worst.n <= limit / len(found)
    broken = worst.rank <= limit / len(found) if ranks else worst.times > MANY_TIMES
    said = "; ".join([*(_said(one) for one in found), *unseen])
    p, value, most = (worst.rank, worst.rank, limit) if ranks else (None, worst.times, MANY_TIMES)
    if broken:
        message = f"no mix of donors comes near the treated before the rollout: {said}"
        return Check(name, "identification", "fail", message, None, p, value, most, "stronger_design")
    status: Status = "warn" if unseen else "pass"
    if sample.start < FEW_PERIODS:
        status = "warn"
        said += f"; over {sample.start} periods before the rollout nearly any mix fits, so a good fit says little"
    return Check(name, "identification", status, said, None, p, value, most)


def _said(one: _Fit) -> str:
    return (
        f"{one.metric}: the mix misses the treated by {number(one.error)} before the rollout, "
        f"{number(one.times, 2)} times the median of the placebos ({one.rank * one.n:.0f} of {one.n} fit no better)"
    )


def placebo(evidence: Evidence) -> Check:
    """Placebo in time: the same method finds nothing where treatment is said to begin earlier than it did."""
    name, sample = "placebo", evidence.sample
    assert isinstance(sample, Synthetic)
    limit = threshold(evidence.spec, name, 0.05)
    found: list[tuple[float, str]] = []
    unseen: list[str] = []
    blind: list[str] = []
    for metric in _primaries(evidence):
        effect = evidence.effect(metric.name, 1)
        if effect is None:
            unseen.append(f"{metric.name}: {evidence.why_not(metric.name, 1)}")
            continue
        earlier = effect.diagnostics.get("placebo_in_time")
        ranked = effect.diagnostics.get("ranked")
        if earlier is None:
            unseen.append(f"{metric.name}: {sample.start} periods before the rollout are too few for an earlier one")
        elif ranked is not None and 1.0 / ranked > limit:
            unseen.append(f"{metric.name}: among {ranked} units no rank is rarer than 1 in {ranked}")
        else:
            if (least := _seen_half(earlier, metric, effect, limit)) is not None:
                blind.append(f"{metric.name}: {least}")
            moved = f"{number(earlier['estimate'], 3, True)} where treatment is said to begin in {earlier['start']}"
            found.append((earlier["p_value"], f"{metric.name}: {moved} (p = {p_value(earlier['p_value'])})"))
    if not found:
        return Check(name, "identification", "skip", "; ".join(unseen) or "no primary", threshold=limit)
    p = min(1.0, len(found) * min(p for p, _ in found))
    message = "; ".join([*(text for _, text in found), *blind, *unseen])
    numbers = (None, p, p, limit)
    if p <= limit:
        message = f"an effect is found before there was one: {message}"
        return Check(name, "identification", "fail", message, *numbers, "stronger_design")
    return Check(name, "identification", "warn" if unseen or blind else "pass", message, *numbers)


def _seen_half(earlier: Mapping[str, Any], metric: Metric, effect: Estimate, limit: float) -> str | None:
    """What is said where a placebo as large as the effect, or as the minimum effect, would have been missed more often
    than not; None where it would not, or where the method gives no error to tell it by."""
    if "std_error" not in earlier:
        return None
    least = metric.minimum_effect
    smallest = 0.0 if least is None else least.value * (abs(effect.control_value) if least.relative else 1.0)
    half = minimum_detectable_effect(earlier["std_error"], effect.df, limit, power=0.5)
    if max(abs(effect.estimate), smallest) >= half:
        return None
    return f"only one beyond {number(half)} would have been found more often than not, so passing says little"


def _primaries(evidence: Evidence) -> Iterable[Metric]:
    return [m for m in evidence.spec.metrics.values() if m.role == "primary"]
