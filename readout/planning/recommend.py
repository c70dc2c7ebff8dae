"""Which designs fit the system and the log, and which of them to run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from readout.errors import LogError
from readout.planning.ask import Ask
from readout.planning.carryover import LEFT, Carryover
from readout.planning.designs import SEEN, SHARED, Candidate, DesignPlan, said
from readout.planning.past import Past
from readout.spec.model import Spec

WASHOUTS = 3  # a block holds at least so many washouts
STANDARD = tuple(timedelta(hours=h) for h in (1, 2, 3, 4, 6, 8, 12, 24))
WORTH_CHANGING = 0.9  # another kind of design is proposed where it sees effects a tenth smaller


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The design to run, and why."""

    plan: DesignPlan
    reasons: tuple[str, ...]
    enough: bool


def washout_of(ask: Ask, found: Sequence[Carryover]) -> tuple[timedelta, str]:
    """The washout that switchbacks are planned with, and where it comes from."""
    own = ask.own_washout
    seen = [c.washout for c in found if c.washout is not None]
    needed = max(seen) if seen else timedelta(0)
    if any(c.source == "measured" for c in found):
        if own >= needed:
            return own, "stated in the spec; no carryover was seen beyond it" if own else "no carryover was seen"
        return needed, "measured: the carryover's interval holds zero from then on"
    if own or not seen:
        return own, "stated in the spec" if own else "none is stated, and nothing in the log speaks of one"
    return needed, f"a stand-in: three quarters of what {found[0].of} was are forgotten by then"


def candidates(
    spec: Spec, ask: Ask, washout: timedelta, roles: Sequence[str], clusters: int
) -> tuple[list[Candidate], dict[str, str]]:
    """The designs that fit the roles at hand, and why the others do not.

    Args:
        spec: The spec.
        ask: The plan's questions.
        washout: Of switchbacks.
        roles: ``unit``, ``cluster``, ``time`` where they are known.
        clusters: Their number; 0: unknown.
    """
    left_out: dict[str, str] = {}
    shared = SHARED if spec.design.shared_state else ""
    found = []
    if "unit" in roles or spec.logs.columns.unit is None:
        found.append(Candidate("user_rct", "unit" if "unit" in roles else "row", invalid=shared))
    else:
        left_out["user_rct"] = "the past log has no column for the role 'unit'"
    invalid = shared or (SEEN if spec.design.user_visible and "unit" in roles else "")
    found.append(Candidate("request_rct", "request", invalid=invalid))
    if "cluster" in roles and "time" in roles:
        found.append(Candidate("cluster_rct", "cluster"))
        if len(ask.arms) == 2 and abs(ask.shares[0] - ask.shares[1]) < 1e-9:
            found.append(Candidate("cluster_rct", "pair", pairs=True))
    else:
        lacks = "cluster" if "cluster" not in roles else "time"
        left_out["cluster_rct"] = f"no column has the role '{lacks}'"
    if "time" not in roles:
        left_out["switchback"] = "no column has the role 'time'"
        return found, left_out
    for length in lengths_for(ask, washout):
        if length <= washout:
            left_out[f"switchback {said(length)}"] = f"a block is not longer than the washout of {said(washout)}"
            continue
        apart = clusters > 1
        found.append(
            Candidate("switchback", "cluster-block" if apart else "block", length, washout, not apart, several=apart)
        )
        if apart:
            found.append(Candidate("switchback", "block", length, washout, True, several=True))
    return found, left_out


def lengths_for(ask: Ask, washout: timedelta) -> tuple[timedelta, ...]:
    """The block lengths asked for, and a longer one where none of them holds enough washouts."""
    if any(length >= WASHOUTS * washout for length in ask.lengths):
        return ask.lengths
    longer = next((length for length in STANDARD if length >= WASHOUTS * washout), None)
    return ask.lengths if longer is None else tuple(sorted({*ask.lengths, longer}))


def require_own(spec: Spec, plans: Sequence[DesignPlan], left_out: dict[str, str]) -> None:
    """The spec's own design must be one that can be planned.

    Raises:
        LogError: It is left out, or nothing can be said of its primaries.
    """
    kind = spec.design.kind
    own = [p for p in plans if p.candidate.kind == kind]
    if any(p.first.detectable is not None for p in own):
        return
    reasons = [p.first.reason for p in own] + [why for label, why in left_out.items() if label.startswith(kind)]
    message = f"cannot be planned from this log: {reasons[0] if reasons else 'it has nothing to plan by'}"
    hint = "map the role under logs.columns, give a longer log or plan.duration, or state plan.moments"
    raise LogError([spec.source.problem(("design", "kind"), message, hint)])


def suits(plan: DesignPlan) -> str:
    """Why a switchback's blocks do not suit the carryover; empty where they do."""
    block, washout = plan.candidate.block, plan.candidate.washout
    if block is None:
        return ""
    if washout and block < WASHOUTS * washout:
        return f"a washout of {said(washout)} is over a third of it"
    size = plan.first.target.size
    if plan.bias is not None and size is not None and abs(plan.bias) >= LEFT * size:
        return "carryover after the washout is a quarter of the effect or more"
    return ""


def recommend(spec: Spec, ask: Ask, plans: Sequence[DesignPlan]) -> Recommendation:
    """The spec's own design where it reaches the power, else the one that sees the smallest effect."""
    usable = [p for p in plans if not p.candidate.invalid and p.first.detectable is not None]
    if not usable:
        kinds = [p for p in plans if p.candidate.kind == spec.design.kind and p.first.detectable is not None]
        return Recommendation(
            min(kinds, key=_need), ("no design that is valid here can be planned from this log",), False
        )
    usable = [p for p in usable if p.sees_all] or usable
    blocks = [p for p in usable if p.candidate.block is not None]
    suiting = [p for p in blocks if not suits(p)] or [p for p in blocks if _length(p) == max(map(_length, blocks))]
    fitting = [p for p in usable if p.candidate.block is None] + suiting
    # Clusters switch apart unless there is but one: together they say less at the same length.
    apart = [p for p in fitting if not (p.candidate.block is not None and _has_apart(p, fitting))]
    own = [p for p in apart if p.candidate.kind == spec.design.kind]
    best, mine = min(apart, key=_need), min(own, key=_need) if own else None
    chosen = mine if mine is not None and (_reaches(mine, ask) or _need(best) > WORTH_CHANGING * _need(mine)) else best
    return Recommendation(chosen, tuple(_reasons(spec, ask, chosen, best)), _reaches(chosen, ask))


def _has_apart(plan: DesignPlan, among: Sequence[DesignPlan]) -> bool:
    return plan.candidate.unit == "block" and any(p.candidate.unit == "cluster-block" for p in among)


def _length(plan: DesignPlan) -> timedelta:
    return plan.candidate.block or timedelta(0)


def _need(plan: DesignPlan) -> float:
    """The largest detectable effect over primaries, in sizes asked for, or in the metric's value."""
    needs = [
        s.detectable / (s.target.size or abs(s.target.value) or 1.0)
        for s in plan.sights
        if s.target.role == "primary" and s.detectable is not None
    ]
    return max(needs, default=float("inf"))


def _reaches(plan: DesignPlan, ask: Ask) -> bool:
    weakest = plan.weakest_power
    return weakest is not None and weakest >= ask.power


def _reasons(spec: Spec, ask: Ask, chosen: DesignPlan, best: DesignPlan) -> list[str]:
    reasons = []
    own = chosen.candidate.kind == spec.design.kind
    if spec.design.shared_state:
        reasons.append("the policy changes capacity that others use, so clusters or blocks are randomized, not units")
    if _reaches(chosen, ask):
        reasons.append("it finds the effect that was asked for with the power that was asked for")
    elif chosen.weakest_power is None:
        reasons.append("of the designs that are valid here it sees the smallest effect" if chosen is best else "")
    else:
        days = chosen.weakest.days
        how = f"it would take {days} days" if days else "a year would not do"
        with_this = f"; with this one {how}" if chosen.weakest.dated else ""
        reasons.append(f"no design that is valid here reaches the power in {ask.days:g} days{with_this}")
    if not own:
        reasons.append(
            f"the spec's own design, {spec.design.kind}, {'must not be run here' if _barred(spec) else 'sees less'}"
        )
    if chosen.candidate.block is not None:
        why = suits(chosen)
        reasons.append(
            f"no block suits the carryover, and this is the longest: {why}"
            if why
            else "of the block lengths that the washout and the carryover allow it sees the smallest effect"
        )
    return [r for r in reasons if r]


def _barred(spec: Spec) -> bool:
    return spec.design.kind in ("user_rct", "request_rct") and bool(spec.design.shared_state)


def roles_of(past: Past) -> list[str]:
    """The roles that a design may need and the past log has."""
    return [role for role in ("unit", "cluster", "time") if past.logs.has(role)]
