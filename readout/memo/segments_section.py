"""The segments of the memo: whether effects differ, the effect at every level, and who gets scarce compute first."""

from __future__ import annotations

import math
from collections.abc import Iterator

from readout.memo import words
from readout.memo.escape import markdown, name
from readout.memo.numbers import DASH, count, effect, level, number, p_value, percent
from readout.memo.tables import bullets, section, table
from readout.results import Heterogeneity, Readout, SegmentResult

_ROWS_SHOWN = 40  # what is beyond stands in readout.json
_NAMED = 6  # levels beside one reason
STATES = {"harmed": "harmed", "inconclusive": "not shown safe"}


def segments(readout: Readout) -> list[str]:
    """The test of equal effects first, then the levels; nothing where the spec names no segment."""
    said = readout.segments
    if not said.results:
        return section("## Segments", bullets(markdown(note) for note in said.notes)) if said.notes else []
    rows = rows_of(readout)
    shown = rows[:_ROWS_SHOWN]
    beyond = [f"{len(rows) - len(shown)} more rows are in readout.json."] if len(rows) > len(shown) else []
    return section(
        "## Segments",
        ["The average effects stand above; here is how they divide. Are there differences at all?"],
        bullets(markdown(text) for text in equal_effects(readout)),
        _levels(readout, shown),
        [_reading(readout)],
        beyond,
        bullets(reasons(shown)),
        bullets(markdown(note) for note in said.notes),
        _allocation(readout),
    )


def rows_of(readout: Readout) -> list[SegmentResult]:
    """The rows that a reader is shown: of primaries."""
    return [one for one in readout.segments.results if one.result.role == "primary"]


def equal_effects(readout: Readout, *, deciding: bool = False) -> Iterator[str]:
    """A sentence for each test of equal effects; ``deciding``: only of what segments are recommended for."""
    arms, money = words.several_arms(readout), readout.economics is not None
    for test in readout.segments.heterogeneity:
        if not (deciding and money) or test.metric == "net value":
            yield tested(test, readout.alpha, arms)


def tested(test: Heterogeneity, alpha: float, arms: bool) -> str:
    """What a test of equal effects found, in words."""
    title = f"{test.segment}, {test.metric}" + (f" under {test.arm}" if arms else "")
    left = f" (without an effect: {', '.join(test.left_out)})" if test.left_out else ""
    if test.p_value is None or test.p_value_holm is None:
        return f"{title}: not tested, {test.note}{left}"
    finite = test.df_residual is not None and math.isfinite(test.df_residual)
    residual = f", {number(test.df_residual)}" if finite else ""
    figures = f"F({count(test.df)}{residual}) = {number(test.statistic)}, p {_equals(test.p_value_holm)}"
    if test.p_value_holm < alpha:
        beyond = f"; beyond chance they spread by {number(test.tau)} (one standard deviation)" if test.tau else ""
        return f"{title}: effects differ between the {test.levels} levels ({figures}){beyond}{left}"
    return f"{title}: no difference between the {test.levels} levels is shown ({figures}){left}"


def _equals(p: float) -> str:
    shown = p_value(p)
    return shown if shown[0] in "<>" else f"= {shown}"


def _levels(readout: Readout, rows: list[SegmentResult]) -> list[str]:
    arms, money = words.several_arms(readout), readout.economics is not None
    metrics = list(dict.fromkeys(one.result.metric for one in rows))
    headers = ["Segment", *(["Arm"] if arms else []), "Rows", *(["Metric"] if len(metrics) > 1 else [])]
    headers += [f"Effect on {name(metrics[0])}" if len(metrics) == 1 else "Effect", "Pooled", "Differs, p"]
    headers += [*(["Net USD per 1,000"] if money else []), "Stable", "Guardrails", "By itself"]
    cells = [
        [
            markdown(one.said),
            *([name(one.result.arm)] if arms else []),
            count(one.rows),
            *([name(one.result.metric)] if len(metrics) > 1 else []),
            effect(one.result.estimate, one.result.ci_low, one.result.ci_high),
            effect(one.pooled, one.pooled_low, one.pooled_high),
            p_value(one.difference_p_value),
            *([effect(one.net, one.net_low, one.net_high)] if money else []),
            stable(one),
            guardrails(readout, one),
            reading(one),
        ]
        for one in rows
    ]
    left = {"Segment", "Arm", "Metric", "Stable", "Guardrails", "By itself"}
    return table(headers, cells, right="".join("l" if header in left else "r" for header in headers))


def stable(one: SegmentResult) -> str:
    """Whether the sign is that of both halves, in a word."""
    return "not seen" if one.stable is None else "yes" if one.stable else "no"


def reading(one: SegmentResult) -> str:
    """How a level is to be read, in a word or two."""
    if one.descriptive:
        return "descriptive"
    return "recommended" if one.recommended else "not recommended"


def guardrails(readout: Readout, one: SegmentResult) -> str:
    """How the guardrails of a level stand; those that do not hold are named."""
    mine = [
        other.result
        for other in readout.segments.results
        if (other.segment, other.level, other.result.arm) == (one.segment, one.level, one.result.arm)
        and other.result.role == "guardrail"
    ]
    if not mine:
        return DASH
    broken = [f"{name(m.metric)} {STATES[m.guardrail]}" for m in mine if m.guardrail in STATES]
    return ", ".join(broken) or ("holds" if len(mine) == 1 else "hold")


def _reading(readout: Readout) -> str:
    size = level(readout.alpha)
    parts = [
        f"Effects have each their own interval at {size}. *Pooled*: drawn towards the other levels as far as chance "
        "explains the distance; read it where a level was picked for its size. *Differs*: against the other levels "
        "together, adjusted over all segments (Holm). *Stable*: one sign in both halves of the window."
    ]
    if readout.economics is not None:
        parts.append("Net value's intervals hold for all levels at once (Bonferroni), and its sign is what is stable.")
        parts.append("*By itself*: recommended where net value lies above the bar and the level's guardrails hold.")
    else:
        parts.append(
            "*By itself*: recommended where, as no economics are stated, the primary is better after multiplicity and "
            "no smaller than the minimum effect, and the level's guardrails hold."
        )
    return " ".join(parts)


def reasons(rows: list[SegmentResult]) -> list[str]:
    """Why levels are not recommended, a line a reason; what holds of a whole segment stands in its notes."""
    by_reason: dict[str, list[str]] = {}
    for one in rows:
        if one.why and not one.descriptive and one.said not in by_reason.setdefault(one.why, []):
            by_reason[one.why].append(one.said)
    found = []
    for why, said in by_reason.items():
        beyond = f" and {len(said) - _NAMED} more" if len(said) > _NAMED else ""
        found.append(markdown(f"{', '.join(said[:_NAMED])}{beyond}: {why}"))
    return found


def _allocation(readout: Readout) -> list[str]:
    rows = readout.segments.allocation
    if not rows:
        return []
    arms = words.several_arms(readout)
    headers = ["Order", *(["Arm"] if arms else []), "Level", "Requests", "Net USD per GPU-hour", "Share treated"]
    headers += ["GPU-hours", "Net USD", "Note"]
    cells = [
        [
            str(place),
            *([name(str(row["arm"]))] if arms else []),
            name(str(row["level"])),
            count(row["requests"]),
            number(row["net_usd_per_gpu_hour"]),
            percent(row["share_treated"]),
            number(row["gpu_hours"]),
            number(row["net_usd"]),
            markdown(row["note"]) or DASH,
        ]
        for place, row in enumerate(rows, 1)
    ]
    used = sum(row["gpu_hours"] for row in rows)
    sentence = (
        f"Who gets scarce compute first ({markdown(rows[0]['segment'])}): by net value per extra GPU-hour, for as much "
        "traffic as the window had. A random share of every level stays treated, and untreated, so that effects can be "
        "read again; a dash where treatment takes no extra compute."
    )
    budget = readout.segments.budget
    total = "" if arms or budget is None else f" Together {number(used)} of {number(budget)} GPU-hours."
    right = "r" + "l" * arms + "lrrrrrl"
    return [sentence + total, "", *table(headers, cells, right=right)]
