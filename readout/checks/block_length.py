"""Are the blocks of a switchback long enough for carryover to fade, and short enough to tell it from demand?"""

from __future__ import annotations

from datetime import timedelta

from readout.checks.base import threshold
from readout.checks.between_blocks import Carried, duration, fading, lags, unseen
from readout.evidence import Evidence
from readout.results import Check
from readout.samples import Blocks
from readout.text import named

# Below this many randomized units in an arm no interval carries a decision; below twice as many it is a rough one.
FEWEST_UNITS = 5
# Blocks of so long hold every hour of the day: what they have to be told from is the day of the week.
DAY = timedelta(days=1)
# A carryover is looked for over this many blocks back.
LAGS = 2


def block_length(evidence: Evidence) -> Check:
    """Too short where carryover outlasts half a block, or acts two blocks on; too long where few blocks are left."""
    name, sample = "block_length", evidence.sample
    if not isinstance(sample, Blocks):
        return Check(name, "spillover", "skip", "blocks do not switch in this design")
    limit = threshold(evidence.spec, name, FEWEST_UNITS)
    counts = dict(zip(evidence.arms, sample.counts(), strict=True))
    arm = min(counts, key=lambda a: counts[a])
    least = counts[arm]
    held = f"{named(arm)} holds {least:,} {sample.unit}{'s' * (least != 1)}"
    if least < limit:
        message = f"{held}, too few to tell an effect from swings of demand: take shorter blocks or a longer window"
        return Check(name, "spillover", "fail", message, None, None, least, limit, "stronger_design")
    near = lags(evidence, 1)
    far = lags(evidence, LAGS)
    outlasting = _outlasting(evidence, near, far)
    if outlasting:
        message = f"too short for the carryover that is seen: {outlasting}; take longer blocks"
        return Check(name, "spillover", "fail", message, None, None, least, limit, "stronger_design")
    if sample.length is not None and sample.length >= DAY and (days := sample.one_armed_weekdays()):
        which = ", ".join(days)
        message = f"blocks of {duration(sample.length)} leave one arm on {which}: the day's own level is not told apart"
        return Check(name, "spillover", "warn", message, None, None, least, limit)
    if least < 2 * limit:
        message = f"{held}: intervals rest on few of them; shorter blocks or a longer window would do better"
        return Check(name, "spillover", "warn", message, None, None, least, limit)
    if isinstance(near, str):
        return Check(name, "spillover", "skip", f"carryover cannot be seen: {near}", None, None, least, limit)
    if seen := _seen(evidence, near):
        shown = {(f.metric, f.arm) for f in fading(evidence)}
        fades = "fades within half a block: a washout takes it away"
        if any((c.metric, c.arm) not in shown for c in seen):
            fades = "is seen, and not how fast it fades: longer blocks would leave less of it"
        message = f"the carryover on {seen[0].metric} {fades}"
        return Check(name, "spillover", "warn", message, None, None, least, limit)
    if reasons := unseen(evidence, 1):
        message = f"carryover cannot be seen everywhere: {'; '.join(reasons)}"
        return Check(name, "spillover", "skip", message, None, None, least, limit)
    if blind := [c for c in near if max(-c.ci_low, c.ci_high) > c.band / c.part]:
        c = max(blind, key=lambda c: max(-c.ci_low, c.ci_high))
        message = f"a carryover as large as the effect on {c.metric} could not be seen; {held}"
        return Check(name, "spillover", "skip", message, None, None, least, limit)
    message = f"no carryover of weight is seen over {LAGS if not isinstance(far, str) else 1} blocks; {held}"
    return Check(name, "spillover", "pass", message, None, None, least, limit)


def _outlasting(evidence: Evidence, near: list[Carried] | str, far: list[Carried] | str) -> str:
    """The carryover that a washout of half a block does not take away, in words; empty where there is none."""
    late = [c for c in _seen(evidence, far) if c.lag > 1]
    if late:
        c = min(late, key=lambda c: c.p_value_holm)
        return f"the arm of {c.lag} blocks before still moves {c.metric} (p = {c.p_value_holm:.2g})"
    for c in _seen(evidence, near):
        course = next((f for f in fading(evidence) if (f.metric, f.arm) == (c.metric, c.arm)), None)
        if course is not None:
            if course.enough is None:
                return f"it moves {c.metric} up to the end of the block"
            if course.enough > course.length / 2:
                return f"it moves {c.metric} for {duration(course.enough)} of {duration(course.length)}"
    return ""


def _seen(evidence: Evidence, found: list[Carried] | str) -> list[Carried]:
    """Lags that are significant and of weight."""
    if isinstance(found, str):
        return []
    return [c for c in found if c.p_value_holm < evidence.spec.decision.alpha and c.weight >= 1.0]
