"""Does the estimate rest on more than a handful of observations?"""

from __future__ import annotations

from dataclasses import dataclass, replace

from estimators.inference import EstimationError
from readout.checks.base import percent, threshold
from readout.evidence import Evidence
from readout.results import Check, Status
from readout.spec.metrics import Metric
from readout.verdicts import guardrail_of, verdict_of

HALF = 0.5


@dataclass(frozen=True, slots=True)
class _Without:
    """What leaving out the most influential unit does.

    ``moved`` is in standard errors of the estimate without it: an outlier swells the error of the whole so much that a
    mean never moves by more than one of those.
    """

    arm: str
    moved: float
    before: tuple[str | None, str | None]
    after: tuple[str | None, str | None]

    @property
    def changed(self) -> str:
        """The verdict that changed, or the guardrail's state; empty where neither did."""
        pairs = [f"{b} becomes {a}" for b, a in zip(self.before, self.after, strict=True) if b != a]
        return pairs[0] if pairs else ""


def tail_dominance(evidence: Evidence) -> Check:
    """Leaving out one unit must not change a verdict; the top 1 % of units should not hold half of a sum."""
    name = "tail_dominance"
    limit = threshold(evidence.spec, name, 1.0)
    failures, warnings, seen = [], [], []
    for metric in evidence.spec.metrics.values():
        if metric.role not in ("primary", "guardrail") or metric.quantile is not None:
            continue
        for arm in evidence.treatments:
            one = _without_one(evidence, metric, arm)
            if one is None:
                continue
            seen.append(one)
            if one.changed and one.moved > limit:
                said = f"{metric.name}: {one.changed} without one {evidence.sample.unit}"
                failures.append((one, f"{said} ({one.moved:.1f} standard errors)"))
        try:
            top = evidence.sample.top_share(evidence.terms[metric.name])
        except EstimationError:
            top = None
        if top is not None and top > HALF:
            warnings.append(f"1 % of units hold {percent(top)} of {metric.name}")
    moved = max((one.moved for one in seen), default=None)
    by_arm: dict[str, Status] = dict.fromkeys(evidence.arms[1:], "warn" if warnings else "pass")
    by_arm |= {one.arm: "fail" for one, _ in failures}
    details = {"by_arm": by_arm}
    if failures:
        moved = max(one.moved for one, _ in failures)
        message = "; ".join(text for _, text in failures)
        numbers = (None, None, moved, limit)
        return Check(name, "identification", "fail", message, *numbers, "stronger_design", details)
    if warnings:
        return Check(name, "identification", "warn", "; ".join(warnings), value=moved, threshold=limit, details=details)
    if not seen:
        message = "no mean or ratio among primaries and guardrails could be computed without a unit"
        return Check(name, "identification", "skip", message, threshold=limit)
    message = f"no single {evidence.sample.unit} decides a primary's or guardrail's verdict"
    return Check(name, "identification", "pass", message, value=moved, threshold=limit)


def _without_one(evidence: Evidence, metric: Metric, arm: int) -> _Without | None:
    whole = evidence.effect(metric.name, arm)
    if whole is None:
        return None
    try:
        term = evidence.terms[metric.name]
        rest = evidence.sample.without_most_influential(term, arm, evidence.spec.decision.alpha)
        if rest is not None and rest.method != whole.method:
            # What is left out of the plain estimate is held against the plain one.
            plain = replace(term, covariates=())
            whole = evidence.as_read(evidence.sample.effect(plain, arm, evidence.spec.decision.alpha), term, arm)
        rest = None if rest is None else evidence.as_read(rest, term, arm)
    except EstimationError:
        return None
    if rest is None:
        return None
    before, after = ((verdict_of(metric, e), guardrail_of(metric, e)) for e in (whole, rest))
    return _Without(evidence.arms[arm], abs(rest.estimate - whole.estimate) / rest.std_error, before, after)
