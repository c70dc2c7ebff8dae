"""Does the estimate rest on more than a handful of observations?"""

from __future__ import annotations

from estimators.inference import EstimationError
from readout.checks.base import percent, threshold
from readout.evidence import Evidence
from readout.results import Check
from readout.verdicts import verdict_of

HALF = 0.5


def tail_dominance(evidence: Evidence) -> Check:
    """Leaving out one unit must not change a verdict; the top 1 % of units should not hold half of a sum."""
    limit = threshold(evidence.spec, "tail_dominance", 1.0)
    alpha = evidence.spec.decision.alpha
    failures, warnings, seen = [], [], 0
    for metric in evidence.spec.metrics.values():
        if metric.role not in ("primary", "guardrail") or metric.quantile is not None:
            continue
        term = evidence.terms[metric.name]
        for arm in evidence.treatments:
            whole = evidence.effect(metric.name, arm)
            if whole is None:
                continue
            try:
                without = evidence.sample.without_most_influential(term, arm, alpha)
            except EstimationError:
                continue
            if without is None:
                continue
            seen += 1
            moved = abs(without.estimate - whole.estimate) / whole.std_error
            before, after = verdict_of(metric, whole), verdict_of(metric, without)
            if before != after and moved > limit:
                failures.append(
                    f"{metric.name}: {before} becomes {after} without one {evidence.sample.unit} ({moved:.1f} errors)"
                )
        top = evidence.sample.top_share(term)
        if top is not None and top > HALF:
            warnings.append(f"1 % of units hold {percent(top)} of {metric.name}")
    if failures:
        return Check(
            "tail_dominance", "identification", "fail", "; ".join(failures), threshold=limit, action="stronger_design"
        )
    if warnings:
        return Check("tail_dominance", "identification", "warn", "; ".join(warnings), threshold=limit)
    if not seen:
        return Check(
            "tail_dominance",
            "identification",
            "skip",
            "no mean or ratio among primaries and guardrails could be computed without a unit",
        )
    return Check(
        "tail_dominance",
        "identification",
        "pass",
        f"no single {evidence.sample.unit} decides a primary's or guardrail's verdict",
        threshold=limit,
    )
