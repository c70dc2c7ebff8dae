"""The decision memo as Markdown: what a decision maker reads in two minutes, then an appendix with everything else."""

from __future__ import annotations

from readout.memo import sections
from readout.memo.adjustment_section import adjustment
from readout.memo.appendix import appendix
from readout.memo.capacity_section import capacity
from readout.memo.identification_section import identification
from readout.memo.long_run_section import long_run
from readout.memo.policy_section import policies
from readout.memo.segments_section import segments
from readout.results import Readout


def memo(readout: Readout) -> str:
    """The whole memo, the same bytes for the same readout.

    The order is the reader's: decision and reasons, what must be true where nothing was randomized, what was compared
    and how, effects, how they divide over segments, how they were adjusted where actions were not drawn, what policies
    are worth where one is valued, guardrails, the long run, risks, checks that weighed on the decision, money,
    capacity, energy, what stops it, what would change it, what comes next.
    """
    parts = (
        sections.decision(readout),
        identification(readout),
        sections.comparison(readout),
        sections.effects(readout),
        segments(readout),
        adjustment(readout),
        policies(readout),
        sections.guardrails(readout),
        long_run(readout),
        sections.failure_mode(readout),
        sections.checks(readout),
        sections.economics(readout),
        capacity(readout),
        sections.energy(readout),
        sections.outlook(readout),
        appendix(readout),
    )
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"
