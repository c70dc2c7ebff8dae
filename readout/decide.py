"""The decision: an ordered, first-match table of rules over checks and verdicts, in configs/decision_rules.yaml."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml

from readout.bundled import bundled
from readout.evidence import Evidence
from readout.memo import numbers
from readout.results import ACTIONS, Action, Check, Decision, MetricResult
from readout.verdicts import inside_minimum_effect

# From the most to the least that is done with a treatment: of several arms, the memo speaks of the first.
STRENGTH: tuple[Action, ...] = (
    "ship",
    "target",
    "holdout",
    "ramp",
    "stronger_design",
    "instrument",
    "pause",
    "rollback",
)


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
class Facts:
    """What the rules look at for one treatment arm."""

    evidence: Evidence
    checks: Sequence[Check]
    arm: int
    metrics: Sequence[MetricResult]

    @property
    def primaries(self) -> list[MetricResult]:
        return [m for m in self.metrics if m.role == "primary"]

    def status(self, check: Check) -> str:
        """The check's status for this arm, where it tells arms apart."""
        by_arm: Mapping[str, str] = check.details.get("by_arm", {})
        return by_arm.get(self.evidence.arms[self.arm], check.status)


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
    chosen = by_arm[best]
    return Decision(
        action=chosen.action,
        treatment=chosen.treatment,
        by_arm=actions,
        rule=chosen.rule,
        headline=chosen.headline,
        reasons=chosen.reasons,
        would_change=chosen.would_change,
        stop_if=chosen.stop_if,
        next_step=chosen.next_step,
    )


def _decide_arm(evidence: Evidence, checks: Sequence[Check], arm: int) -> Decision:
    label = evidence.arms[arm]
    facts = Facts(evidence, checks, arm, [m for m in evidence.metrics if m.arm == label])
    for rule in rules():
        matched = [reason for kind, value in rule.when for reason in MATCHES[kind](facts, value)]
        if matched or not rule.when:
            return _worded(facts, rule, matched)
    raise AssertionError("the last rule always holds")


def _worded(facts: Facts, rule: Rule, matched: Sequence[tuple[str, str]]) -> Decision:
    evidence = facts.evidence
    names = [name for name, _ in matched]
    check_names = [c.name for c in facts.checks if c.name in names]
    guardrails = [n for n in names if n not in check_names and n not in {m.metric for m in facts.primaries}]
    primary = "; ".join(effect_in_words(m) for m in facts.primaries)
    words = {
        "treatment": evidence.arms[facts.arm],
        "control": evidence.arms[0],
        "unit": evidence.sample.unit,
        "primary": primary,
        "checks": ", ".join(check_names),
        "guardrails": ("; " if rule.rule == "harmed" or check_names else "") + ", ".join(guardrails)
        if guardrails
        else "",
        "sample": _sample_needed(facts),
    }
    reasons = [reason for _, reason in matched] or [
        primary,
        *(_guardrail_words(m) for m in facts.metrics if m.guardrail),
    ]
    if matched and rule.action in ("stronger_design", "ramp") and primary:
        naive = "Measured, not to be read as the effect: " if rule.rule == "design_does_not_fit" else "Measured: "
        reasons.append(naive + primary + ".")
    headline = rule.headline.format(**words).replace(" ()", "")
    return Decision(
        action=rule.action,
        treatment=evidence.arms[facts.arm],
        by_arm={},
        rule=rule.rule,
        headline=headline,
        reasons=tuple(dict.fromkeys(reasons)),
        would_change=tuple(text.format(**words) for text in rule.would_change),
        stop_if=_stop_if(evidence),
        next_step=rule.next_step.format(**words),
    )


def _fails(facts: Facts, name: str) -> list[tuple[str, str]]:
    return [(c.name, f"{c.name}: {c.message}") for c in facts.checks if c.name == name and facts.status(c) == "fail"]


def _warns(facts: Facts, name: str) -> list[tuple[str, str]]:
    return [(c.name, f"{c.name}: {c.message}") for c in facts.checks if c.name == name and facts.status(c) == "warn"]


def _asks(facts: Facts, action: str) -> list[tuple[str, str]]:
    return [
        (c.name, f"{c.name}: {c.message}") for c in facts.checks if c.action == action and facts.status(c) == "fail"
    ]


def _primary(facts: Facts, verdict: str) -> list[tuple[str, str]]:
    # A primary that could not be estimated settles nothing.
    return [
        (m.metric, f"{effect_in_words(m)}: {m.verdict or 'not estimated'}")
        for m in facts.primaries
        if (m.verdict or "inconclusive") == verdict
    ]


def _primary_small(facts: Facts, _: bool) -> list[tuple[str, str]]:
    found = []
    for m in facts.primaries:
        estimate = facts.evidence.effect(m.metric, facts.arm)
        if estimate is not None and inside_minimum_effect(facts.evidence.spec.metrics[m.metric], estimate):
            found.append((m.metric, f"{effect_in_words(m)}: smaller than the minimum effect {m.minimum_effect}"))
    return found


def _guardrail(facts: Facts, state: str) -> list[tuple[str, str]]:
    return [(m.metric, _guardrail_words(m)) for m in facts.metrics if m.role == "guardrail" and m.guardrail == state]


MATCHES: dict[str, Callable[[Facts, Any], list[tuple[str, str]]]] = {
    "fails": _fails,
    "warns": _warns,
    "asks": _asks,
    "primary": _primary,
    "primary_small": _primary_small,
    "guardrail": _guardrail,
}


def effect_in_words(m: MetricResult) -> str:
    """One effect with its interval, relative where that has a meaning."""
    if m.estimate is None or m.ci_low is None or m.ci_high is None:
        return f"{m.metric} was {m.note or 'not estimated'}"
    if m.relative is not None and m.relative_ci_low is not None and m.relative_ci_high is not None:
        return f"{m.metric} {numbers.relative(m.relative, m.relative_ci_low, m.relative_ci_high)}"
    return f"{m.metric} {numbers.effect(m.estimate, m.ci_low, m.ci_high)}"


def _guardrail_words(m: MetricResult) -> str:
    state = {"holds": "holds", "harmed": "is harmed", "inconclusive": "is inconclusive"}[str(m.guardrail)]
    margin = f" (margin {m.margin})" if m.margin is not None else ""
    return f"guardrail {state}{margin}: {effect_in_words(m)}"


def _gain(evidence: Evidence, arm: int) -> float:
    """The first primary's effect in the good direction."""
    label = evidence.arms[arm]
    first = next((m for m in evidence.metrics if m.arm == label and m.role == "primary"), None)
    if first is None or first.estimate is None:
        return -math.inf
    return first.estimate if first.better == "higher" else -first.estimate


def _sample_needed(facts: Facts) -> str:
    """How much more it takes to see the minimum effect with a power of 80 %."""
    said = []
    for m in facts.primaries:
        if m.minimum_detectable_effect is None or m.std_error is None:
            continue
        effect = facts.evidence.spec.metrics[m.metric].minimum_effect
        if effect is None:
            size, text = abs(m.estimate or 0.0), "an effect as large as the one measured"
        elif effect.relative:
            size, text = effect.value * abs(m.control_value or 0.0), f"{effect.text}"
        else:
            size, text = effect.value, f"{effect.text}"
        if size <= 0:
            continue
        factor = (m.minimum_detectable_effect / size) ** 2
        n = m.n_control + m.n_treatment
        if factor > 1:
            said.append(
                f"to see {text} of {m.metric} with 80 % power takes about {factor:.2g} times these {n:,} {m.unit}s."
            )
        else:
            said.append(
                f"this window could see {text} of {m.metric}; an effect near it takes about twice the {n:,} {m.unit}s."
            )
    return " ".join(said) or "the same design for longer."


def _stop_if(evidence: Evidence) -> tuple[str, ...]:
    found = []
    for trigger in evidence.spec.rollback:
        where = f" where {trigger.where}" if trigger.where is not None else ""
        if trigger.no_movement:
            found.append(f"{trigger.metric} does not move")
        else:
            found.append(f"{trigger.metric or trigger.expr}{where} rises above {trigger.above:g} in treated rows")
    for metric in evidence.spec.metrics.values():
        if metric.role == "guardrail" and metric.margin is not None:
            direction = "rises" if metric.better == "lower" else "falls"
            found.append(f"{metric.name} {direction} by more than {metric.margin.text}")
    bar = None if evidence.spec.economics is None else evidence.spec.economics.bar
    if bar is not None:
        found.append(f"net value falls below {bar.net_usd_per_1k_requests:g} USD per 1,000 requests against control")
    return tuple(found)
