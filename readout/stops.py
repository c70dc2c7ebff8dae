"""What stops a treatment once it runs, from the spec's triggers, guardrails, bar and limit."""

from __future__ import annotations

from readout.evidence import Evidence
from readout.memo import numbers


def stop_if(evidence: Evidence, everybody: bool = True) -> tuple[str, ...]:
    """The conditions in words, each once; ``everybody``: all traffic is treated, not segments with conditions of their
    own."""
    found = []
    for trigger in evidence.spec.rollback:
        where = f" where {trigger.where}" if trigger.where is not None else ""
        if trigger.no_movement:
            found.append(f"{trigger.metric} does not move")
        else:
            what = trigger.metric if trigger.metric is not None else f"the share with {trigger.expr}"
            found.append(f"{what}{where} rises above {trigger.above:g} in treated rows")
    for metric in evidence.spec.metrics.values():
        if metric.role == "guardrail" and everybody:
            direction = "rises" if metric.better == "lower" else "falls"
            by = f"by more than {metric.margin.text}" if metric.margin is not None else "beyond chance"
            found.append(f"{metric.name} {direction} {by}")
    economics = evidence.spec.economics
    if economics is not None and everybody:
        bar = 0.0 if economics.bar is None else economics.bar.net_usd_per_1k_requests
        found.append(f"net value falls below {bar:g} USD per 1,000 requests against control")
    if (capacity := evidence.spec.capacity) is not None:
        more = f" by more than {100 * capacity.margin:.6g} points" if capacity.margin else ""
        found.append(f"the share of windows with {capacity.load} over {numbers.number(capacity.limit)} rises{more}")
    return tuple(dict.fromkeys(found))
