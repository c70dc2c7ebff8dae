"""What a plan says, in words that the memo, the terminal and the annotations share."""

from __future__ import annotations

from datetime import timedelta

from readout.memo.numbers import number, percent
from readout.planning.carryover import LEFT, Carryover
from readout.planning.designs import DesignPlan, Sight, said
from readout.planning.plan import PlanReport
from readout.planning.simulate import Simulation


def headline(report: PlanReport) -> str:
    """The design, its length and its start."""
    candidate = report.recommended.plan.candidate
    washout = f" with a washout of {said(candidate.washout)}" if candidate.washout else ""
    start = report.ask.start.strftime("%Y-%m-%d %H:%M UTC")
    return f"{candidate.label}{washout}, {report.ask.days:g} days from {start}"


def verdict(report: PlanReport) -> str:
    """Whether the plan is enough, in one sentence."""
    seen = report.recommended.plan.weakest
    if seen.detectable is None:
        return f"It is not enough: {seen.target.metric} cannot be read under it: {seen.reason}."
    if seen.target.size is None:
        return (
            f"It sees an effect of {size(seen.detectable, seen.relative)} on {seen.target.metric} with a power of "
            f"{percent(report.ask.power, 3)}; state minimum_effect to know whether that is enough."
        )
    found = f"{percent(seen.power)} power for {seen.target.said} on {seen.target.metric}"
    if report.recommended.enough:
        return f"It has {found}; the smallest effect it sees is {size(seen.detectable, seen.relative)}."
    return f"It is not enough: {found}. The smallest effect it sees is {size(seen.detectable, seen.relative)}."


def guards(report: PlanReport) -> list[str]:
    """The guardrails that the recommended design may not show to hold, a sentence each."""
    found = []
    for seen in report.recommended.plan.sights:
        if not seen.target.one_sided or (seen.power is not None and seen.power >= report.ask.power):
            continue
        if seen.power is None:
            found.append(f"Guardrail {seen.target.metric} cannot be read under it: {seen.reason}.")
            continue
        longer = f"; {percent(report.ask.power)} takes {days(seen)} days" if seen.days is not None else ""
        if seen.dated and seen.days is None:
            longer = f"; {percent(report.ask.power)} takes over a year"
        found.append(
            f"Guardrail {seen.target.metric}: {percent(seen.power)} power to show that it holds within its margin of "
            f"{seen.target.said}{longer}."
        )
    return found


def washed(report: PlanReport) -> str:
    """The washout and where it comes from."""
    length = said(report.washout) if report.washout else "none"
    return f"Washout: {length} ({report.washout_why})."


def size(value: float | None, relative: float | None) -> str:
    """``4.1 (2.3 %)``."""
    if value is None:
        return number(None)
    return number(value) if relative is None else f"{number(value)} ({percent(relative)})"


def units(seen: Sight) -> str:
    """Randomized units, control and treatment."""
    if seen.n_control is None or seen.n_treatment is None:
        return number(None)
    return f"{round(seen.n_control + seen.n_treatment):,}"


def days(seen: Sight) -> str:
    """How long it takes for the wanted power."""
    if seen.target.size is None or seen.detectable is None or not seen.dated:
        return number(None)
    return f"{seen.days}" if seen.days is not None else "over a year"


def unseen(seen: Sight) -> str:
    """Why a metric cannot be read under a design; empty where it can."""
    return seen.reason if seen.detectable is None else ""


def remark(report: PlanReport, plan: DesignPlan) -> str:
    """What a reader of the table must know of a design."""
    from readout.planning.recommend import suits

    worst = plan.weakest
    parts = [plan.candidate.invalid or unseen(plan.first)]
    if not parts[0] and not plan.sees_all:
        parts = [f"cannot read {worst.target.metric}"]
    if not plan.candidate.invalid:
        parts.append(suits(plan))
    if plan is report.recommended.plan:
        parts.insert(0, "recommended")
    return "; ".join(part for part in parts if part)


def carried(found: Carryover, report: PlanReport) -> str:
    """What the past log says of carryover, in a sentence."""
    if found.source == "none":
        return f"Carryover is not known: {found.reason}."
    if found.source == "measured":
        return _measured(found, report)
    what = f"the state {found.of}" if found.source == "state" else f"the outcome {found.of}"
    gone = (
        "does not fade within a day"
        if found.washout is None
        else "remembers nothing from one step of the grid to the next"
        if not found.washout
        else f"forgets three quarters of itself in {said(found.washout)}"
    )
    return (
        f"Carryover was not measured: {found.reason}. As a stand-in, {what} {gone}; a policy's effect may fade faster "
        "or slower than that."
    )


def _measured(found: Carryover, report: PlanReport) -> str:
    lag = next((one for one in found.lags if one[0] == 1), None)
    block = said(found.past_block or timedelta(0))
    text = f"Measured on {found.of} in the past switchback of {block} blocks: "
    if lag is not None:
        text += f"the arm of the block before moves it by {number(lag[1], signed=True)} ± {number(1.96 * lag[2])}. "
    if found.washout is None:
        return text + "Its effect since a switch has not faded at the end of a block."
    if not found.washout:
        return text + "No time since a switch shows carryover beyond chance" + _ruled_out(found, report)
    text += f"From {said(found.washout)} after a switch on, every interval holds zero"
    return text + _ruled_out(found, report)


def _ruled_out(found: Carryover, report: PlanReport) -> str:
    """Whether what was not seen would have been, had it mattered."""
    target = next((s.target for s in report.recommended.plan.sights if s.target.metric == found.of), None)
    if found.left is None or target is None or target.size is None:
        return "."
    estimate, half = found.left[0], 1.96 * found.left[1]
    band = LEFT * target.size
    after = f"after a washout of {said(report.washout)} " if report.washout else ""
    text = f"; {after}{number(estimate, signed=True)} ± {number(half)} is left"
    if abs(estimate) + half <= band:
        return f"{text}, below a quarter of the effect ({number(band)})."
    return f"{text}, so that one that matters (a quarter of the effect, {number(band)}) is not ruled out."


def has_together(report: PlanReport) -> bool:
    """Whether designs in which all clusters switch at one time stand beside others."""
    return any(plan.candidate.label.endswith("together") for plan in report.designs)


def simulated(found: Simulation) -> str:
    """Stated against achieved power, in a sentence or two."""
    if not found.runs:
        return f"{found.metric}: not simulated: {found.note}."
    parts = [f"{found.metric}: {found.runs:,} planned experiments on resampled past logs"]
    told = []
    if found.achieved is not None and found.stated is not None:
        told.append(f"power {percent(found.achieved, 3)} achieved, {percent(found.stated, 3)} stated")
    if found.smallest is not None:
        told.append(
            f"for the smallest effect that it sees, {percent(found.smallest, 3)} achieved, "
            f"{percent(found.power, 3)} stated"
        )
    if told:
        parts += told
        parts[-1] += ": " + ("differs by more than chance" if found.differs else "agrees within chance")
    if found.false_positives is not None:
        often = "more than chance explains" if found.too_often else "not more than chance explains"
        parts.append(
            f"without an effect {percent(found.false_positives)} find one, {percent(found.alpha)} expected: {often}"
        )
    if found.failed:
        parts.append(f"{found.failed:,} gave no estimate")
    if found.note:
        parts.append(found.note)
    return "; ".join(parts) + "."
