"""What must be true, for designs without randomization: the identification story leads, the estimate follows."""

from __future__ import annotations

from readout.memo.escape import markdown, name
from readout.memo.numbers import DASH, number
from readout.memo.tables import bullets, section, table
from readout.results import Readout


def identification(readout: Readout) -> list[str]:
    """The design's assumptions, the checks that could break each, and how they stand; nothing where arms were drawn."""
    if not readout.assumptions:
        return []
    opening = "Nothing was randomized here. The numbers below are an effect only if all of this holds:"
    if readout.design.get("kind") == "iv":
        opening = "The action itself was not randomized. The numbers below are an effect only if all of this holds:"
    if readout.design.get("kind") == "ope":
        opening = "Nothing has run under the target policy. The numbers below are its value only if all of this holds:"
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
    lines = bullets(markdown(said) for said in breakdown_sentences(readout))
    return section("## What must be true", [opening], table(headers, rows, right="llll"), lines)


def breakdown_sentences(readout: Readout) -> list[str]:
    """How far trends may part before a difference in differences loses its finding, for each primary."""
    found = []
    for row in readout.diagnostics.get("breakdown") or ():
        value, metric = row["value"], row["metric"]
        if value is None:
            found.append(f"{metric}: no breakdown value, {row['reason']}.")
        elif value == 0.0:
            found.append(f"{metric}: the interval holds zero already where trends are parallel, so nothing can break.")
        else:
            times = f"more than {number(value)}" if row["beyond"] else number(value, 2)
            weak = " Bends as large as before it would undo it." if value < 1.0 and not row["beyond"] else ""
            found.append(
                f"{metric}: the finding of an effect stands unless trends bend, from one period to the next after the "
                f"rollout, by {times} times the most that they did before it (breakdown value).{weak}"
            )
    return found
