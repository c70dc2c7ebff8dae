"""What must be true, for designs without randomization: the identification story leads, the estimate follows."""

from __future__ import annotations

from readout.memo.escape import markdown, name
from readout.memo.numbers import DASH
from readout.memo.tables import section, table
from readout.results import Readout


def identification(readout: Readout) -> list[str]:
    """The design's assumptions, the checks that could break each, and how they stand; nothing where arms were drawn."""
    if not readout.assumptions:
        return []
    opening = "Nothing was randomized here. The numbers below are an effect only if all of this holds:"
    if readout.design.get("kind") == "iv":
        opening = "The action itself was not randomized. The numbers below are an effect only if all of this holds:"
    rows = [
        [
            markdown(one.what),
            ", ".join(name(check) for check in one.checks) or DASH,
            f"**{one.standing}**" if one.standing in ("broken", "in doubt") else one.standing,
            markdown(one.unseen) or DASH,
        ]
        for one in readout.assumptions
    ]
    headers = ["What must be true", "Checks that could break it", "Here", "What no check sees"]
    return section("## What must be true", [opening], table(headers, rows, right="llll"))
