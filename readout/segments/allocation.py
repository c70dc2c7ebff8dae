"""Who gets scarce compute first: levels of the first segment by net value per GPU-hour, until the budget is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from readout.economics import COST, NET, PER
from readout.evidence import Evidence
from readout.results import Guardrail
from readout.segments.asked import named, read
from readout.verdicts import guardrail_of

SECONDS = 3600.0
HARMED = "a guardrail is harmed: not treated"
NO_EFFECT = "net value or cost could not be estimated: not treated"
EXPLORED = "explored only: net value is not above zero"
AS_FAR = "as far as the budget reaches"
UNSHOWN = "on its point value: the interval reaches below zero"


@dataclass(frozen=True, slots=True)
class Level:
    """What treating a level takes and brings.

    Attributes:
        label: The level.
        requests: Its requests in the window, both arms.
        net: Net value of the treatment per request, USD; None where it could not be estimated.
        gpu_hours: Extra GPU-hours of the treatment per request; negative where it saves compute.
        barred: Why it is not treated at all, in words.
        shown: Whether the interval of net value lies above zero.
    """

    label: str
    requests: float
    net: float | None
    gpu_hours: float | None
    barred: str = ""
    shown: bool = True


def fill(levels: list[Level], budget: float, explore: float) -> list[dict[str, Any]]:
    """Shares of every level to treat: exploration first, then by net value per extra GPU-hour until none are left.

    Args:
        levels: Of one segment; none has a request of another.
        budget: Extra GPU-hours for as many requests as the levels have.
        explore: Share of each level that stays treated, and untreated, at random; scaled down where the budget does
            not reach for it.

    Returns:
        A row a level, in the order in which compute is given: ``level``, ``requests``, ``gpu_hours_if_all``,
        ``net_usd_per_1k_requests``, ``net_usd_per_gpu_hour`` (None where it takes no extra compute),
        ``share_treated``, ``gpu_hours``, ``net_usd`` and a ``note``.
    """
    known = [one for one in levels if not one.barred and one.net is not None and one.gpu_hours is not None]
    takes = {one.label: max(one.gpu_hours or 0.0, 0.0) * one.requests for one in known}
    first = explore * sum(takes.values())
    explored = explore * min(1.0, budget / first) if first > 0.0 else explore
    left = budget - explored * sum(takes.values())
    rows = []
    for one in sorted(known, key=_order):
        need, gain = takes[one.label], one.net or 0.0
        most = max(1.0 - explore - explored, 0.0) if gain > 0.0 else 0.0
        more = most if need <= 0.0 else min(most, max(left, 0.0) / need)
        left -= more * need
        share = explored + more
        notes = [AS_FAR if more < most - 1e-12 else "", "" if one.shown else UNSHOWN]
        note = EXPLORED if gain <= 0.0 else "; ".join(filter(None, notes))
        rows.append(_row(one, need, share, note))
    barred = sorted((one for one in levels if one not in known), key=lambda one: one.label)
    return rows + [_row(one, None, 0.0, one.barred or NO_EFFECT) for one in barred]


def allocation(evidence: Evidence) -> tuple[Mapping[str, Any], ...]:
    """The rows of :func:`fill` for every treatment, each as if it alone had the budget; none without a budget."""
    economics = evidence.spec.economics
    if economics is None or economics.budget is None or economics.cost is None or not evidence.groups.all:
        return ()
    rows: list[Mapping[str, Any]] = []
    for arm in evidence.treatments:
        levels = [_level(evidence, i, arm, economics.cost.usd) for i in range(len(evidence.groups.all[0].levels))]
        filled = fill(levels, economics.budget.gpu_hours, economics.budget.explore)
        rows += [{"segment": evidence.groups.all[0].name, "arm": evidence.arms[arm], **row} for row in filled]
    return tuple(rows)


def _order(one: Level) -> tuple[bool, float, str]:
    """What saves compute stands first, then the best use of a GPU-hour; what loses money last."""
    net, hours = one.net or 0.0, one.gpu_hours or 0.0
    return (net <= 0.0, -(net / hours) if hours > 0.0 else float("-inf"), one.label)


def _level(evidence: Evidence, index: int, arm: int, usd: float) -> Level:
    level = evidence.groups.all[0].levels[index]
    net, cost = (evidence.effect(named(0, index, name), arm) for name in (NET, COST))
    requests = 0.0
    if net is not None:
        term = evidence.terms[named(0, index, NET)]
        requests = sum(
            evidence.sample.arm_total(term, code)[1]
            for code in (0, *evidence.treatments)
            if _has(evidence, term.name, code)
        )
    barred = HARMED if "harmed" in _guardrails(evidence, index, arm) else ""
    hours = None if cost is None else cost.estimate / usd / SECONDS
    shown = net is not None and net.ci_low > 0.0
    return Level(level.label, requests, None if net is None else net.estimate, hours, barred, shown)


def _has(evidence: Evidence, name: str, arm: int) -> bool:
    """Whether an arm has a value: control does where any effect stands."""
    return arm == 0 or evidence.effect(name, arm) is not None


def _guardrails(evidence: Evidence, index: int, arm: int) -> set[Guardrail | None]:
    level = evidence.groups.all[0].levels[index]
    found: set[Guardrail | None] = set()
    for name in read(evidence.spec):
        metric, effect = evidence.spec.metrics[name], evidence.effect(named(0, index, name), arm)
        if metric.role == "guardrail" and effect is not None:
            found.add(guardrail_of(level.here(metric), effect))
    return found


def _row(one: Level, need: float | None, share: float, note: str) -> dict[str, Any]:
    per_hour = None
    if one.net is not None and one.gpu_hours is not None and one.gpu_hours > 0.0:
        per_hour = one.net / one.gpu_hours
    return {
        "level": one.label,
        "requests": one.requests,
        "gpu_hours_if_all": None if one.gpu_hours is None else one.gpu_hours * one.requests,
        "net_usd_per_1k_requests": None if one.net is None else PER * one.net,
        "net_usd_per_gpu_hour": per_hour,
        "share_treated": share,
        "gpu_hours": share * (need or 0.0),
        "net_usd": None if one.net is None else share * one.net * one.requests,
        "note": note,
    }
