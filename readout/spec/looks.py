"""What sequential looks and a stated exposure ask of the rest of a spec."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from readout.spec.problems import Finding, listing

EXPOSED = ("user_rct", "request_rct", "cluster_rct")
SEQUENTIAL = (*EXPOSED, "switchback")
# Methods whose interval is not the estimate plus and minus standard errors, and what to take instead.
OTHER_INTERVALS = {
    "randomization_inference": {"cluster_rct": "cluster_means or cluster_robust", "switchback": "block_regression"},
    "horvitz_thompson": {"switchback": "block_regression"},
}


def check(parts: Mapping[str, Any]) -> Iterator[Finding]:
    """What is wrong between ``decision`` and the sections that were read without fault."""
    decision, design, logs = (parts.get(name) for name in ("decision", "design", "logs"))
    if decision is None:
        return
    kind = None if design is None else design.kind
    if decision.exposure is not None and kind is not None and kind not in EXPOSED:
        hint = "a block counts when it has ended" if kind == "switchback" else "leave it out"
        message = f"is for {listing(EXPOSED)}: how long a unit or cluster is observed"
        yield Finding(("decision", "exposure"), message, hint, on_key=True)
    if decision.looks != "sequential":
        return
    if kind is not None and kind not in SEQUENTIAL:
        message = f"{kind} has no always-valid intervals; they are for {listing(SEQUENTIAL)}"
        yield Finding(("decision", "looks"), message, "looks: fixed, one look at the end")
    yield from _method(kind, parts.get("estimator"))
    for name, keys in parts.get("metrics", {}).items():
        if keys.robust is not None and keys.robust.method != "winsorize":
            message = f"{keys.robust.method} has no interval that holds under repeated looks; winsorize does"
            yield Finding(("metrics", name, "robust"), message, on_key=True)
    if logs is not None and logs.last is not None:
        message = "does not combine with sequential looks: a moving window drops observations that were in"
        yield Finding(("logs", "last"), message, "give logs.start, the begin of the experiment", on_key=True)
    if kind == "cluster_rct" and decision.exposure is None:
        message = "needed for sequential looks: a cluster that still gains rows changes after it was looked at"
        hint = "how long each cluster is observed from its first row on, such as exposure: 14d"
        yield Finding(("decision", "exposure"), message, hint)
    if design is not None and kind == "switchback" and design.block.column is not None:
        message = "sequential looks must know when a block ends, which a column does not say"
        yield Finding(("design", "block", "column"), message, "block: {length: 2h}", on_key=True)


def _method(kind: str | None, estimator: Any) -> Iterator[Finding]:
    if estimator is None or kind is None:
        return
    at = ("decision", "looks")
    if (instead := OTHER_INTERVALS.get(estimator.method, {}).get(kind)) is not None:
        message = f"{estimator.method} has no interval that holds under repeated looks"
        yield Finding(at, message, f"take the method {instead}, or looks: fixed")
    elif estimator.options.get("variance") == "wild":
        message = "the wild bootstrap has no interval that holds under repeated looks"
        yield Finding(at, message, "take variance: CR2, or looks: fixed")
