"""The memo's figures as SVG: effects with intervals against their margins, blocks in time, the tail by hour."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from readout.memo import (
    discontinuity_figure,
    event_study_figure,
    first_stage_figure,
    love_figure,
    overlap_figure,
    policies_figure,
    segments_figure,
    surrogate_figure,
    synthetic_figure,
    words,
)
from readout.memo.capacity_figure import drawable
from readout.memo.capacity_section import sentence
from readout.memo.drawn import blocks_metric, on_relative_axis, since_rows
from readout.memo.numbers import level, number, relative
from readout.results import Readout
from readout.text import named

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class OwnFigure(Protocol):
    """A module that draws one figure."""

    TITLE: str

    def drawable(self, readout: Readout) -> bool:
        """Whether there is something to draw."""
        ...

    def sentence(self, readout: Readout) -> str:
        """What the figure shows, in words."""
        ...

    def figure(self, readout: Readout) -> Figure:
        """The figure."""
        ...


EFFECTS: Final = "figures/effects.svg"
BLOCKS: Final = "figures/blocks.svg"
SINCE: Final = "figures/since_switch.svg"
CAPACITY: Final = "figures/capacity.svg"
# Modules with TITLE, drawable, sentence and figure: of designs in which no arm was drawn, and of the long run.
OWN: Final[Mapping[str, OwnFigure]] = {
    "figures/discontinuity.svg": discontinuity_figure,
    "figures/event_study.svg": event_study_figure,
    "figures/overlap.svg": overlap_figure,
    "figures/love.svg": love_figure,
    "figures/synthetic.svg": synthetic_figure,
    "figures/first_stage.svg": first_stage_figure,
    "figures/segments.svg": segments_figure,
    "figures/policies.svg": policies_figure,
    "figures/long_run.svg": surrogate_figure,
}
_SPOKEN = 8  # effects named in an alternative text; the tables have them all


def draw(readout: Readout) -> dict[str, bytes]:
    """SVG files by their path within the readout's folder; a figure with nothing to show is left out.

    The same readout gives the same bytes under one version of Matplotlib, whatever the user's own settings are.
    """
    files: dict[str, bytes] = {}
    if on_relative_axis(readout):
        from readout.memo.effects_figure import effects_figure
        from readout.memo.svg import render

        files[EFFECTS] = render(lambda: effects_figure(readout), "Relative effects", alt_text(EFFECTS, readout))
    if any(math.isfinite(point.value) for point in readout.blocks):
        from readout.memo.blocks_figure import blocks_figure
        from readout.memo.svg import render

        files[BLOCKS] = render(lambda: blocks_figure(readout), "Blocks over time", alt_text(BLOCKS, readout))
    if since_rows(readout):
        from readout.memo.since_figure import since_figure
        from readout.memo.svg import render

        files[SINCE] = render(lambda: since_figure(readout), "Since the switch", alt_text(SINCE, readout))
    if drawable(readout):
        from readout.memo.capacity_figure import capacity_figure
        from readout.memo.svg import render

        title = "Windows over the limit by hour"
        files[CAPACITY] = render(lambda: capacity_figure(readout), title, alt_text(CAPACITY, readout))
    for path, own in OWN.items():
        if own.drawable(readout):
            from readout.memo.svg import render

            files[path] = render(partial(own.figure, readout), own.TITLE, alt_text(path, readout))
    return files


def alt_text(path: str, readout: Readout) -> str:
    """What a figure shows, in words, for those who do not see it."""
    if path == BLOCKS:
        clusters = len({point.cluster for point in readout.blocks})
        arms = ", ".join(dict.fromkeys(point.arm for point in sorted(readout.blocks, key=lambda p: p.arm)))
        return f"{blocks_metric(readout)} by block over time in {clusters} clusters, by arm ({arms})"
    if path == SINCE:
        bins = since_rows(readout)
        first, last = bins[0], bins[-1]
        against = f"{named(first['arm'])} against {named(readout.design['control'])}"
        return (
            f"{first['metric']} by minutes since the block began, {against}: "
            f"effect {number(first['effect'])} at the start, {number(last['effect'])} at the end; of the block before "
            f"{number(first['carryover'])} at the start, {number(last['carryover'])} at the end"
        )
    if path == CAPACITY:
        return f"Share of windows over the limit by hour of day and arm. {sentence(readout)}"
    if path in OWN:
        return OWN[path].sentence(readout)
    arms_named = words.several_arms(readout)
    parts = []
    rows = on_relative_axis(readout)
    for m in rows[:_SPOKEN]:
        arm = f" ({named(m.arm)})" if arms_named else ""
        interval = relative(m.relative, m.relative_ci_low, m.relative_ci_high)
        parts.append(f"{m.metric}{arm} {interval}, {words.verdict(m)}")
    if len(rows) > _SPOKEN:
        parts.append(f"and {len(rows) - _SPOKEN} more")
    return f"Relative effects with {level(readout.alpha)} {words.intervals(readout)}: {'; '.join(parts)}"
