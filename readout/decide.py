"""The decision: an ordered, first-match table of rules over checks and verdicts, in configs/decision_rules.yaml."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import yaml

from readout import not_run, surrogates
from readout.bundled import bundled
from readout.estimands import narrower, whom
from readout.evidence import Evidence
from readout.identification import unproven
from readout.memo import numbers
from readout.memo.words import VERDICT
from readout.results import ACTIONS, Action, Check, Decision, MetricResult, SegmentResult
from readout.sample_needed import sample_needed
from readout.segments import targeting
from readout.stops import stop_if
from readout.text import named
from readout.verdicts import inside_minimum_effect

# The section of the spec that asks for a check: skipped although it is there, the check has settled nothing.
SECTION_OF = {"economic_bar": "economics", "capacity_limit": "capacity"}

# Designs of which no reading says ship.
RAMP_AT_MOST = ("observational", "iv", "rdd", "ope")

# From the most to the least that is done with a treatment: of several arms, the memo speaks of the first.
STRENGTH: tuple[Action, ...] = (
    "ship", "target", "holdout", "ramp", "stronger_design", "instrument", "pause", "rollback",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table; texts hold placeholders."""

    rule: str
    when: tuple[tuple[str, Any], ...]
    action: Action
    headline: str
    would_change: tuple[str, ...]
    next_step: str


@dataclass(frozen=True, slots=True)
class Match:
    """A check or metric that made a rule fire: its name, a few words for the headline, a line for the reasons."""

    name: str
    short: str
    reason: str
    is_check: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """What the rules look at for one treatment arm."""

    evidence: Evidence
    checks: Sequence[Check]
    arm: int
    metrics: Sequence[MetricResult]

    def title(self, m: MetricResult) -> str:
        """The metric's name, with the arm beside it where there are several."""
        return f"{m.metric} under {named(m.arm)}" if len(self.evidence.treatments) > 1 else m.metric

    @property
    def primaries(self) -> list[MetricResult]:
        return [m for m in self.metrics if m.role == "primary"]

    @property
    def guardrails(self) -> list[MetricResult]:
        return [m for m in self.metrics if m.role == "guardrail"]

    @property
    def clearing(self) -> list[SegmentResult]:
        """Levels of segments that are worth treating although the average is not."""
        return targeting.clearing(self.evidence, self.arm)

    def status(self, check: Check) -> str:
        """The check's status; where it tells arms apart, this arm's, which is skipped where it is not named."""
        by_arm: Mapping[str, str] | None = check.details.get("by_arm")
        return check.status if by_arm is None else by_arm.get(self.evidence.arms[self.arm], "skip")


@cache
def rules() -> tuple[Rule, ...]:
    """The table, in order.

    Raises:
        ValueError: A rule with an unknown condition or action.
    """
    rows = yaml.safe_load((bundled("configs") / "decision_rules.yaml").read_text(encoding="utf-8"))
    table = tuple(
        Rule(
            row["rule"],
            tuple((kind, value) for condition in row["when"] for kind, value in condition.items()),
            row["action"],
            row["headline"],
            tuple(row["would_change"]),
            row["next_step"],
        )
        for row in rows
    )
    for rule in table:
        if rule.action not in ACTIONS or any(kind not in MATCHES for kind, _ in rule.when):
            raise ValueError(f"decision rule {rule.rule!r} names an unknown action or condition")
    return table


def decide(evidence: Evidence, checks: Sequence[Check]) -> Decision:
    """The first rule that holds, for each treatment arm; the memo speaks of the arm that goes furthest."""
    by_arm = {arm: _decide_arm(evidence, checks, arm) for arm in evidence.treatments}
    best = min(by_arm, key=lambda arm: (STRENGTH.index(by_arm[arm].action), -_gain(evidence, arm), arm))
    actions = {evidence.arms[arm]: decision.action for arm, decision in by_arm.items()}
    others = tuple(by_arm[arm].headline for arm in by_arm if actions[evidence.arms[arm]] != by_arm[best].action)
    return replace(by_arm[best], by_arm=actions, reasons=by_arm[best].reasons + others)


def _decide_arm(evidence: Evidence, checks: Sequence[Check], arm: int) -> Decision:
    label = evidence.arms[arm]
    facts = Facts(evidence, checks, arm, [m for m in evidence.metrics if m.arm == label])
    for rule in rules():
        found = [match for kind, value in rule.when for match in MATCHES[kind](facts, value)]
        if found or not rule.when:
            return _worded(facts, rule, found)
    raise AssertionError("the last rule always holds")


def _worded(facts: Facts, rule: Rule, found: Sequence[Match]) -> Decision:
    evidence = facts.evidence
    words = {
        "treatment": named(evidence.arms[facts.arm]),
        "control": named(evidence.arms[0]),
        "primary": "; ".join(effect_in_words(m) for m in facts.primaries),
        "guardrails": _guardrails_hold(facts),
        "checks": " and ".join(dict.fromkeys(match.name for match in found if match.is_check)),
        "found": "; ".join(dict.fromkeys(match.short for match in found if match.short)),
        "sample": sample_needed(evidence, facts.arm, facts.primaries),
        "levels": targeting.levels(facts.clearing),
        "average": targeting.short_average(evidence, facts.arm),
        "then": "" if evidence.spec.design.kind in RAMP_AT_MOST or narrower(evidence.spec) else ": ship",
        "whom": whom(evidence.spec, evidence.sample),
        **not_run.words(evidence.spec, facts.checks),
        **surrogates.words(evidence, facts.arm),
    }
    words["then"] = words["then_long"] or words["then"] if words["then"] else ""
    targeted = any(kind == "segment" for kind, _ in rule.when)
    return Decision(
        action=rule.action,
        treatment=evidence.arms[facts.arm],
        by_arm={},
        rule=rule.rule,
        headline=rule.headline.format(**words),
        reasons=_reasons(facts, rule, found) + _long_run_aside(facts, rule) + (() if targeted else _of_segments(facts)),
        would_change=tuple(text.format(**words) for text in rule.would_change),
        stop_if=(targeting.stop_if(evidence, facts.clearing) if targeted else ()) + stop_if(evidence, not targeted),
        next_step=rule.next_step.format(**words),
    )


def _reasons(facts: Facts, rule: Rule, found: Sequence[Match]) -> tuple[str, ...]:
    """What made the rule fire, then the primaries where they are worth having beside it."""
    found = [match for match in found if match.reason]
    if not found:
        primaries = tuple(_verdict_words(m, facts.title(m)) for m in facts.primaries)
        later = [m for m in facts.metrics if m.role == "long_run" and m.verdict is not None]
        long_run = tuple(_verdict_words(m, facts.title(m)) for m in later)
        return primaries + tuple(_guardrail_words(m, facts.title(m)) for m in facts.guardrails) + long_run
    reasons = [match.reason for match in found]
    named = {match.name for match in found if not match.is_check}
    measured = [m for m in facts.primaries if m.metric not in named and m.estimate is not None]
    if measured and rule.action in ("stronger_design", "ramp"):
        doubted = any(c.action == "stronger_design" and facts.status(c) == "fail" for c in facts.checks)
        said = "Measured, not to be read as the effect: " if doubted else "Measured: "
        reasons.append(said + "; ".join(effect_in_words(m, facts.title(m)) for m in measured))
    return tuple(dict.fromkeys(reasons))


def _long_run_aside(facts: Facts, rule: Rule) -> tuple[str, ...]:
    """That nothing stands for a long-run outcome, where part of the traffic is treated for other reasons."""
    own = any(kind == "long_run" and state != "unclear" for kind, state in rule.when)
    return () if own or rule.action not in ("ramp", "target") else surrogates.aside(facts.evidence, facts.arm)


def _of_segments(facts: Facts) -> tuple[str, ...]:
    """What a decision about all of the traffic says of segments, where effects can be read."""
    doubts = ("pause", "instrument", "stronger_design")
    if any(check.action in doubts and facts.status(check) == "fail" for check in facts.checks):
        return ()
    return targeting.beside(facts.evidence, facts.arm, _interval)


def _of_check(check: Check, said: str) -> Match:
    short = f": {check.short}" if check.short and check.status == "fail" else ""
    return Match(check.name, f"{check.name} {said}{short}", f"{check.name}: {check.message}", is_check=True)


def _fails(facts: Facts, name: str) -> list[Match]:
    return [_of_check(c, "failed") for c in facts.checks if c.name == name and facts.status(c) == "fail"]


def _warns(facts: Facts, name: str) -> list[Match]:
    return [_of_check(c, "warns") for c in facts.checks if c.name == name and facts.status(c) == "warn"]


def _unjudged(facts: Facts, name: str) -> list[Match]:
    if getattr(facts.evidence.spec, SECTION_OF[name]) is None:
        return []
    return [_of_check(c, "could not be judged") for c in facts.checks if c.name == name and facts.status(c) == "skip"]


def _asks(facts: Facts, action: str) -> list[Match]:
    return [_of_check(c, "failed") for c in facts.checks if c.action == action and facts.status(c) == "fail"]


def _spill_between_clusters(facts: Facts, _: bool) -> list[Match]:
    return [] if facts.evidence.unit_level else _fails(facts, "untreated_outcomes")


def _primary(facts: Facts, verdict: str) -> list[Match]:
    # A primary that could not be estimated settles nothing.
    return [
        Match(m.metric, effect_in_words(m), _verdict_words(m, facts.title(m)))
        for m in facts.primaries
        if (m.verdict or "inconclusive") == verdict
    ]


def _primary_small(facts: Facts, _: bool) -> list[Match]:
    found = []
    for m in facts.primaries:
        estimate = facts.evidence.effect(m.metric, facts.arm)
        if estimate is not None and inside_minimum_effect(facts.evidence.spec.metrics[m.metric], estimate):
            least = f"the minimum effect of {m.minimum_effect}"
            short = f"{m.metric} may move by less than {least}"
            reason = f"{effect_in_words(m, facts.title(m))}: the point lies inside {least}"
            found.append(Match(m.metric, short, reason))
    return found


def _guardrail(facts: Facts, state: str) -> list[Match]:
    short = "{} is harmed" if state == "harmed" else "{} is not shown safe"
    return [
        Match(m.metric, short.format(m.metric), _guardrail_words(m, facts.title(m)))
        for m in facts.guardrails
        if m.guardrail == state
    ]


def _segment(facts: Facts, _: bool) -> list[Match]:
    found = facts.clearing
    if not found:
        return []
    said = [_verdict_words(m, facts.title(m)) for m in facts.primaries]
    average = targeting.average(facts.evidence, facts.primaries, said, facts.arm)
    gains = {one.said: targeting.gain(one, _interval(one.result)) for one in found}
    # The headline names a single level already.
    names = {said: f"{said}: " if len(gains) > 1 else "" for said in gains}
    levels = [Match(said, names[said] + gain, f"{said}: {gain}") for said, gain in gains.items()]
    guardrails = Match("guardrails", "", targeting.safe(facts.evidence, found))
    overlap = Match("overlap", "", targeting.overlap(found))
    # What would hold all of the traffic back to a ramp holds for a segment too.
    slowly = [replace(match, short="") for match in (*_asks(facts, "ramp"), *_unjudged(facts, "capacity_limit"))]
    slowly = [replace(match, reason=f"treat it in steps: {match.reason}") for match in slowly]
    return [Match("average", "", average), *levels, overlap, guardrails, *slowly]


def _design(facts: Facts, kinds: Sequence[str]) -> list[Match]:
    return [Match("design", "", "")] if facts.evidence.spec.design.kind in kinds else []


def _narrower(facts: Facts, _: bool) -> list[Match]:
    said = narrower(facts.evidence.spec)
    asked = facts.evidence.spec.decision.frame
    found = [Match("frame", said, f"the frame {asked} asks for more than the design tells: {said}")] if said else []
    return found + _left_out(facts)


def _left_out(facts: Facts) -> list[Match]:
    """That rows were left out for want of overlap, so that the effect is of the others."""
    label = facts.evidence.arms[facts.arm]
    share = max((c.details.get("trimmed", {}).get(label, 0.0) for c in facts.checks), default=0.0)
    if not share:
        return []
    what = "the caliper" if facts.evidence.sample.method == "matching" else "trimming"
    said = f"{what} left out {numbers.percent(share)} of the rows, and the effect is of the others"
    return [Match(what, said, said)]


def _unproven(facts: Facts, kinds: Sequence[str]) -> list[Match]:
    if facts.evidence.spec.design.kind not in kinds:
        return []
    said = {"fail": "failed", "warn": "warns", "skip": "could see nothing"}
    return [_of_check(c, said[c.status]) for c in unproven(facts.evidence.spec, facts.checks)]


def _unseen_load(facts: Facts, kinds: Sequence[str]) -> list[Match]:
    design, said = facts.evidence.spec.design, not_run.UNSEEN
    return [Match("shared state", said, "")] if design.kind in kinds and design.shared_state else []


def _long_run(facts: Facts, state: str) -> list[Match]:
    kind = facts.evidence.spec.design.kind
    at_most = kind in RAMP_AT_MOST or _narrower(facts, True) or _unproven(facts, ("did", "synthetic_control"))
    said = {m.metric: _verdict_words(m, facts.title(m)) for m in facts.metrics}
    found = surrogates.matches(facts.evidence, facts.arm, facts.metrics, state, ramp_at_most=bool(at_most))
    return [Match(name, short, reason or said[name]) for name, short, reason in found]


MATCHES: dict[str, Callable[[Facts, Any], list[Match]]] = {
    "fails": _fails,
    "warns": _warns,
    "unjudged": _unjudged,
    "asks": _asks,
    "spill_between_clusters": _spill_between_clusters,
    "primary": _primary,
    "primary_small": _primary_small,
    "guardrail": _guardrail,
    "segment": _segment,
    "design": _design,
    "narrower": _narrower,
    "unproven": _unproven,
    "unseen_load": _unseen_load,
    "long_run": _long_run,
}


def effect_in_words(m: MetricResult, title: str = "") -> str:
    """One effect with its interval, on the scale that its margin or minimum effect is stated on; ``title`` stands for
    the metric's name."""
    shown, title = _interval(m), title or m.metric
    return f"{title} {shown}" if shown else f"{title} was {m.note or 'not estimated'}"


def _interval(m: MetricResult) -> str:
    """The effect with its interval, relative where that has a meaning; empty where there is none."""
    if m.estimate is None:
        return ""
    if m.ci_low is None or m.ci_high is None:
        return f"{numbers.number(m.estimate, 3, True)} (no interval)"
    stated = m.margin if m.role == "guardrail" else m.minimum_effect
    absolute = stated is not None and "%" not in stated
    if absolute or m.relative is None or m.relative_ci_low is None or m.relative_ci_high is None:
        return numbers.effect(m.estimate, m.ci_low, m.ci_high)
    return numbers.relative(m.relative, m.relative_ci_low, m.relative_ci_high)


def _verdict_words(m: MetricResult, title: str) -> str:
    return effect_in_words(m, title) + (f": {VERDICT[m.verdict]}" if m.verdict is not None else "")


def _guardrail_words(m: MetricResult, title: str) -> str:
    state = {"holds": "holds", "harmed": "is harmed", "inconclusive": "is not shown safe"}[str(m.guardrail)]
    margin = f" (margin {m.margin})" if m.margin is not None else ""
    if m.guardrail == "holds" and m.verdict == "worse":
        state += ", though it is worse"
    return f"guardrail {title} {state}{margin}: {_interval(m) or m.note or 'not estimated'}"


def _guardrails_hold(facts: Facts) -> str:
    """For the rule that nothing stands against."""
    if not facts.guardrails:
        return "no guardrail was named"
    return "its guardrail holds" if len(facts.guardrails) == 1 else "every guardrail holds"


def _gain(evidence: Evidence, arm: int) -> float:
    """The first primary's effect in the good direction."""
    label = evidence.arms[arm]
    first = next((m for m in evidence.metrics if m.arm == label and m.role == "primary"), None)
    if first is None or first.estimate is None:
        return -math.inf
    return first.estimate if first.better == "higher" else -first.estimate
