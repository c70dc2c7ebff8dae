"""What a spec may say of segments, and of compute that is shared out over them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from readout.spec.fields import Effect
from readout.spec.problems import Finding, KeyPath

# A column whose sums are GPU seconds, by its name.
GPU_SECONDS = re.compile(r"gpu_?(s|sec|secs|second|seconds)$", re.IGNORECASE)


def check(data: Mapping[str, Any], parts: Mapping[str, Any]) -> Iterator[Finding]:
    """What is wrong with segments, with a frame that asks for them, and with a budget over them.

    Args:
        data: The spec as plain data.
        parts: Sections that were read, by key.
    """
    seen: set[str] = set()
    for index, segment in enumerate(parts.get("segments", ())):
        if (segment.column is None) == (segment.where is None):
            yield Finding(("segments", index), "needs either column or where beside its name")
        if segment.name in seen:
            yield Finding(("segments", index), f"a second segment is named {segment.name!r}")
        seen.add(segment.name)
        for name, margin in segment.margin.items():
            yield from _stricter(("segments", index, "margin", name), margin, parts.get("metrics", {}).get(name))
    none = not data.get("segments")
    if none and getattr(parts.get("decision"), "frame", None) == "target":
        hint = "name them, such as segments: [tier]; who is treated is then decided by segment"
        yield Finding(("decision", "frame"), "target needs segments", hint)
    budget = getattr(parts.get("economics"), "budget", None)
    if budget is not None:
        yield from _budget(parts["economics"], none)


def _stricter(path: KeyPath, margin: Effect, of: Any) -> Iterator[Finding]:
    """A segment's own margin is that of a guardrail, and no looser than the guardrail's."""
    if of is None:
        return
    if of.role != "guardrail":
        yield Finding(path, f"{of.name!r} is no guardrail", "a margin in a segment is that of a guardrail", on_key=True)
    if margin.text[0] in "+-":
        yield Finding(path, "expected no sign", "better gives the direction of the harm")
    elif of.margin is not None and margin.relative == of.margin.relative and margin.value > of.margin.value:
        message = f"{margin.text} is looser than the metric's own margin of {of.margin.text}"
        yield Finding(path, message, "a segment may be stricter; the rest of the traffic is judged by the metric's own")


def _budget(economics: Any, none: bool) -> Iterator[Finding]:
    """A budget of GPU-hours needs what they cost, what they bring, and whom they go to."""
    path: KeyPath = ("economics", "budget")
    cost = economics.cost
    if cost is None or not GPU_SECONDS.search(cost.column or "") or not cost.usd:
        hint = "cost: {column: gpu_seconds, usd: 0.0011}, a column whose name ends in gpu_seconds, at a price"
        yield Finding(path, "needs economics.cost on a column of GPU seconds", hint, on_key=True)
    if economics.value is None:
        hint = "compute goes first where it is worth most"
        yield Finding(path, "needs economics.value", hint, on_key=True)
    if none:
        hint = "it is shared out over the levels of the first, such as segments: [tier]"
        yield Finding(path, "needs segments", hint, on_key=True)
    if economics.budget.explore > 0.5:
        yield Finding((*path, "explore"), "expected at most 0.5: as much stays treated as stays untreated")
