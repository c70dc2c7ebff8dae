"""When a decision is for a segment: what must hold, and how it is said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from readout.economics import NET, PER
from readout.evidence import Evidence
from readout.memo import numbers
from readout.results import MetricResult, SegmentResult
from readout.segments.asked import decisive
from readout.segments.reading import NET_VALUE, bar_of
from readout.text import named

# Of segments, in a decision that is about all of the traffic.
MOST_SAID: Final = 4
UNSTABLE: Final = "the sign is not that of both halves of the window"


def clearing(evidence: Evidence, arm: int) -> list[SegmentResult]:
    """The levels that are worth treating although the average is not: one row a level, the first primary's.

    None where the average stands by itself: neither no effect nor inconclusive, and not below the bar.
    """
    if not evidence.segments.results or not falls_short(evidence, arm):
        return []
    return standing_out(evidence, arm)


def standing_out(evidence: Evidence, arm: int) -> list[SegmentResult]:
    """The levels that are worth treating by themselves, whatever the average is: one row a level.

    Each is recommended and stable, and of a segment whose levels were shown to differ in what decides. A segment of
    which every level is worth treating picks nobody.
    """
    rows = _one_a_level(evidence, evidence.arms[arm])
    differ = _differing(evidence, arm)
    found = [one for one in rows if one.recommended and one.stable and not one.descriptive and one.segment in differ]
    others = {one.segment for one in rows if one not in found and one.result.estimate is not None}
    return [one for one in found if one.segment in others]


def _differing(evidence: Evidence, arm: int) -> set[str]:
    """Segments whose levels were shown to differ in what decides."""
    label = evidence.arms[arm]
    titles = [NET_VALUE if name == NET else name for name in decisive(evidence.spec)]
    return {
        test.segment
        for test in evidence.segments.heterogeneity
        if test.arm == label
        and test.metric in titles
        and test.p_value_holm is not None
        and test.p_value_holm * len(titles) < evidence.spec.decision.alpha
    }


def falls_short(evidence: Evidence, arm: int) -> bool:
    """Whether the average is no effect, inconclusive or below the bar; under the frame target also where it is not
    shown above it, as the bar is then judged by segment."""
    label = evidence.arms[arm]
    primaries = [m for m in evidence.metrics if m.arm == label and m.role == "primary"]
    if any((m.verdict or "inconclusive") in ("no_effect", "inconclusive") for m in primaries):
        return True
    if evidence.spec.economics is None:
        return False
    net, bar = evidence.effect(NET, arm), bar_of(evidence)
    if net is None:
        return evidence.spec.decision.frame == "target"
    low, high = PER * net.ci_low, PER * net.ci_high
    return high < bar or (evidence.spec.decision.frame == "target" and low < bar)


def _one_a_level(evidence: Evidence, arm: str) -> list[SegmentResult]:
    first = next(m.name for m in evidence.spec.metrics.values() if m.role == "primary")
    return [one for one in evidence.segments.results if one.result.arm == arm and one.result.metric == first]


def gain(one: SegmentResult, interval: str) -> str:
    """What a level gains, in words; ``interval`` is its effect on the primary."""
    if one.net is None:
        return f"{one.result.metric} {interval}"
    return f"net {numbers.effect(one.net, one.net_low, one.net_high)} USD per 1,000 requests"


def average(evidence: Evidence, primaries: Sequence[MetricResult], said: Sequence[str], arm: int) -> str:
    """The average effect, in words: ``said`` holds that on each primary."""
    parts = list(said) if primaries else []
    net = evidence.effect(NET, arm) if evidence.spec.economics is not None else None
    if net is not None:
        ends = (PER * net.estimate, PER * net.ci_low, PER * net.ci_high)
        parts.append(f"net value {numbers.effect(*ends)} USD per 1,000 requests")
    return "On average: " + "; ".join(parts)


def short_average(evidence: Evidence, arm: int) -> str:
    """How the average falls short, in words."""
    label = evidence.arms[arm]
    verdicts = {m.verdict or "inconclusive" for m in evidence.metrics if m.arm == label and m.role == "primary"}
    if "no_effect" in verdicts:
        return "the average effect is too small"
    return "the average effect is not settled" if "inconclusive" in verdicts else "the average does not clear the bar"


def levels(found: Sequence[SegmentResult]) -> str:
    """The levels as a headline names them: those of one segment together; who is of several is of any of them."""
    named: dict[str, list[str]] = {}
    for one in found:
        rest = one.said.removeprefix(f"{one.segment} = ")
        named.setdefault("" if rest == one.said else f"{one.segment} = ", []).append(rest)
    parts = [before + text for before, rests in named.items() for text in ([_listed(rests)] if before else rests)]
    return _listed(list(dict.fromkeys(parts)))


def _listed(parts: Sequence[str]) -> str:
    return " or ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def overlap(found: Sequence[SegmentResult]) -> str:
    """That levels of several segments were each read by itself, in words; empty where there is one."""
    names = list(dict.fromkeys(one.segment for one in found))
    if len(names) < 2:
        return ""
    return f"{' and '.join(names)} may share traffic: each was read by itself, and one may owe its gain to the other"


def safe(evidence: Evidence, found: Sequence[SegmentResult]) -> str:
    """That guardrails hold at the levels, in words."""
    named = [m.name for m in evidence.spec.metrics.values() if m.role == "guardrail"]
    if not named:
        return "no guardrail was named"
    return f"in {levels(found)}, {', '.join(named)} {'holds' if len(named) == 1 else 'hold'}"


def beside(evidence: Evidence, arm: int, interval: Callable[[MetricResult], str]) -> tuple[str, ...]:
    """What a decision about all of the traffic should say of segments: levels that stand out, those that would but
    for something else, and those that get worse; only where the levels of a segment were shown to differ.

    Args:
        interval: An effect with its interval, in words.
    """
    if not evidence.segments.results:
        return ()
    out = standing_out(evidence, arm)
    differ = _differing(evidence, arm)
    rows = [one for one in _one_a_level(evidence, evidence.arms[arm]) if one.segment in differ and not one.descriptive]
    said = [f"{one.said} is worth treating by itself: {gain(one, interval(one.result))}" for one in out]
    for one in rows:
        if one.clears and one not in out and (why := one.why or ("" if one.stable else UNSTABLE)):
            said.append(f"{one.said} gains ({gain(one, interval(one.result))}), but {why}")
        said += [f"{one.said} gets worse: {name}" for name in one.worse]
    return tuple(said[:MOST_SAID])


def stop_if(evidence: Evidence, found: Sequence[SegmentResult]) -> tuple[str, ...]:
    """What stops the treatment of these levels."""
    said = []
    for one in found:
        rows = [r for r in evidence.segments.results if (r.said, r.result.arm) == (one.said, one.result.arm)]
        for row in rows:
            m = row.result
            if m.role == "guardrail":
                direction = "rises" if m.better == "lower" else "falls"
                by = f"by more than {m.margin}" if m.margin is not None else "beyond chance"
                said.append(f"in {one.said}, {m.metric} {direction} {by}")
        if one.net is not None:
            bar = f"{bar_of(evidence):g} USD per 1,000 requests against control"
            said.append(f"in {one.said}, net value falls below {bar}")
        else:
            said.append(f"in {one.said}, {one.result.metric} is no better than under {named(one.result.control)}")
    return tuple(dict.fromkeys(said))
