"""What no single key can show: keys that exclude, need or name each other.

Every function takes the sections that were read without fault and yields what it finds, so that a fault in one section
hides only the questions that depend on it.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from readout.spec import looks, segments
from readout.spec.designs import IV, OPE, RDD, Observational, Switchback, SyntheticControl
from readout.spec.fields import Effect
from readout.spec.metrics import MetricKeys, Role
from readout.spec.model import CHECKS
from readout.spec.problems import Finding, KeyPath, listing, suggest

PANEL = ("did", "synthetic_control")


def check(data: Mapping[str, Any], parts: Mapping[str, Any]) -> Iterator[Finding]:
    """Everything that is wrong across keys.

    Args:
        data: The spec as plain data.
        parts: Sections that were read, by key; metrics by name, those that were read.
    """
    if "logs" in parts:
        yield from _window(parts["logs"])
    if "design" in parts:
        yield from _arms(parts["design"])
        yield from _design(parts["design"])
        yield from _periods(parts)
        yield from _strata(parts)
        yield from _pre_period(parts)
    yield from _weights(parts)
    yield from looks.check(parts)
    yield from _metric_names(data, parts)
    yield from _primary(data)
    yield from segments.check(data, parts)
    for index, event in enumerate(parts.get("events", ())):
        if event.until is not None and not _before(event.at, event.until):
            yield Finding(("events", index, "until"), "expected a time after `at`")
    yield from _economics(parts)
    yield from _surrogate(data, parts)
    for index, trigger in enumerate(parts.get("rollback", ())):
        yield from _trigger(("rollback", index), trigger)
    carbon = getattr(parts.get("attribution"), "carbon", None)
    if carbon is not None and (carbon.g_per_kwh is None) == (carbon.column is None):
        yield Finding(("attribution", "carbon"), "needs either g_per_kwh or column", on_key=True)
    for name in parts.get("checks", {}):
        if name not in CHECKS:
            yield Finding(
                ("checks", name), f"unknown check{suggest(name, CHECKS)}", f"checks: {listing(CHECKS, 60)}", on_key=True
            )


def metric(path: KeyPath, keys: MetricKeys) -> Iterator[Finding]:
    """What is wrong within one metric."""
    ratio = keys.numerator is not None or keys.denominator is not None
    said = [name for name in ("column", "expr") if getattr(keys, name) is not None] + ["numerator"] * ratio
    if len(said) != 1:
        found = f"got {listing(said)}" if said else "got none of them"
        yield Finding(path, f"needs one of column, expr, or numerator with denominator; {found}", on_key=True)
    if ratio and (keys.numerator is None or keys.denominator is None):
        lacks = "numerator" if keys.numerator is None else "denominator"
        yield Finding((*path, lacks), "needed, and not there", "a ratio has a numerator and a denominator")
    if keys.quantile is not None and (ratio or keys.per):
        yield Finding(
            (*path, "quantile"), f"does not combine with {'a ratio' if ratio else 'per: unit'}", "quantiles are of rows"
        )
    if ratio and keys.per:
        yield Finding((*path, "per"), "does not combine with a ratio", "a ratio is a sum over a sum already")
    if keys.covariate is not None and keys.covariate.denominator is not None and not ratio:
        yield Finding(
            (*path, "covariate", "denominator"), "only the covariate of a ratio metric has a denominator", on_key=True
        )
    yield from _robust((*path, "robust"), keys)
    for name in ("minimum_effect", "margin"):
        yield from _sign((*path, name), getattr(keys, name), keys.better, harm=name == "margin")


def unsigned(keys: MetricKeys) -> MetricKeys:
    """The metric with the signs of its effects dropped; `metric` has seen that they agree with ``better``."""
    return replace(keys, minimum_effect=_drop_sign(keys.minimum_effect), margin=_drop_sign(keys.margin))


def _drop_sign(effect: Effect | None) -> Effect | None:
    return effect and Effect(abs(effect.value), effect.relative, effect.text.lstrip("+-"))


def _sign(path: KeyPath, effect: Effect | None, better: str, *, harm: bool) -> Iterator[Finding]:
    if effect is None or effect.text[0] not in "+-":
        return
    upward = (better == "higher") != harm
    if (effect.text[0] == "+") != upward and effect.value != 0:
        what = "a margin is a harm" if harm else "a minimum_effect is an improvement"
        yield Finding(
            path,
            f"the sign of {effect.text} contradicts better: {better}; {what}",
            f"write {effect.text[1:]}: better gives the direction",
        )


def _robust(path: KeyPath, keys: MetricKeys) -> Iterator[Finding]:
    robust = keys.robust
    if robust is None:
        return
    if keys.quantile is not None:
        yield Finding(path, "does not combine with quantile", "a quantile is robust by itself", on_key=True)
    if keys.numerator is not None and robust.method in ("trim", "catoni"):
        hint = "winsorize caps numerator and denominator, median_of_means takes ratios of groups"
        yield Finding((*path, "method"), f"{robust.method} does not combine with a ratio", hint)
    if robust.quantile is not None and robust.quantile <= 0.5:
        yield Finding((*path, "quantile"), "expected a number above 0.5", "the upper end; the lower one mirrors it")
    takes = {"winsorize": "quantile", "trim": "quantile", "median_of_means": "groups"}.get(robust.method)
    for name in ("quantile", "groups"):
        if getattr(robust, name) is not None and name != takes:
            hint = f"{robust.method} takes {takes}" if takes else f"{robust.method} has no options"
            yield Finding((*path, name), f"unknown key for {robust.method}", hint, on_key=True)


def _window(logs: Any) -> Iterator[Finding]:
    for name in ("start", "end"):
        if logs.last is not None and getattr(logs, name) is not None:
            yield Finding(("logs", name), "does not combine with last: a window is start and end, or last", on_key=True)
    if logs.start is not None and logs.end is not None and not _before(logs.start, logs.end):
        yield Finding(("logs", "end"), "expected a time after logs.start", "the window is [start, end)")


def _before(first: datetime | int, second: datetime | int) -> bool:
    """Whether one time stands before another on the same scale."""
    if isinstance(first, int) and isinstance(second, int):
        return first < second
    return isinstance(first, datetime) and isinstance(second, datetime) and first < second


def _arms(design: Any) -> Iterator[Finding]:
    at: KeyPath = ("design",)
    if design.control is not None and design.control in design.treatment:
        yield Finding((*at, "treatment"), f"{design.control!r} is the control too; expected another arm")
    needs = isinstance(design, RDD) and design.fuzzy
    for name in ("control", "treatment"):
        if not getattr(design, name) and (
            needs or ((design.control or design.treatment) and not isinstance(design, OPE))
        ):
            why = "a fuzzy rdd needs both arms" if needs else "control and treatment come together"
            yield Finding((*at, name), "needed, and not there", why)
    arms = [arm for arm in (design.control, *design.treatment) if arm is not None]
    if design.split is None or not arms:
        return
    if unknown := [name for name in design.split if name not in arms]:
        for name in unknown:
            message = f"not an arm of the design{suggest(name, arms)}"
            yield Finding((*at, "split", name), message, f"arms: {listing(arms)}", on_key=True)
        return
    for name in arms:
        if name not in design.split:
            hint = "give every arm's share, 0 where it gets nothing"
            yield Finding((*at, "split"), f"lacks the arm {name!r}", hint, on_key=True)


def _design(design: Any) -> Iterator[Finding]:
    if isinstance(design, Switchback):
        yield from _blocks(design)
    if isinstance(design, IV):
        for i, name in enumerate(design.adjust):
            if name in design.instrument:
                yield Finding(
                    ("design", "adjust", i), f"{name!r} is the instrument; adjusting for it leaves nothing of it"
                )
    if isinstance(design, RDD):
        for i, name in enumerate(design.covariates):
            if name == design.running:
                yield Finding(
                    ("design", "covariates", i), f"{name!r} is the running variable; the fits follow it as it is"
                )
    if isinstance(design, OPE):
        policy = design.target_policy
        if policy is None and design.policy_probability is None:
            yield Finding(("design",), "needs target_policy, policy_probability, or both", on_key=True)
        if policy is not None and (policy.column is None) == (not policy.rules and policy.otherwise is None):
            yield Finding(("design", "target_policy"), "needs either column, or rules with else", on_key=True)
        if policy is not None and policy.rules and policy.otherwise is None:
            yield Finding(
                ("design", "target_policy", "else"), "needed, and not there", "the action where no rule holds"
            )
        yield from _actions(design)


def _actions(design: OPE) -> Iterator[Finding]:
    """Actions that the target policy takes and ``actions`` does not list."""
    policy, given = design.target_policy, design.policy_probability
    named: list[tuple[KeyPath, str]] = []
    if policy is not None:
        at: KeyPath = ("design", "target_policy")
        named += [((*at, "rules", i, "action"), rule.action) for i, rule in enumerate(policy.rules)]
        named += [((*at, "else"), policy.otherwise)] if policy.otherwise is not None else []
    if isinstance(given, dict):
        named += [(("design", "policy_probability", action), action) for action in given]
    known = {*design.actions, *(action for _, action in named)}
    for role, names in (("control", (design.control,)), ("treatment", design.treatment)):
        for name in known.intersection(names):
            policy_of = "logging" if role == "control" else "target"
            message = f"{name!r} is an action; here it would be the name of the {policy_of} policy"
            yield Finding(("design", role), message, "leave it out, or give the policy a name of its own")
    for path, action in named if design.actions else ():
        if action not in design.actions:
            message = f"design.actions does not list {action!r}{suggest(action, design.actions)}"
            yield Finding(path, message, f"actions: {listing(design.actions)}", on_key=path[1] == "policy_probability")


def _weights(parts: Mapping[str, Any]) -> Iterator[Finding]:
    """Two ways to tame heavy weights exclude each other."""
    options = getattr(parts.get("estimator"), "options", {})
    if options.get("switch", "none") != "none" and options.get("clip", "none") != "none":
        message = "does not combine with clip: it leaves out the weights that clip would cut"
        yield Finding(("estimator", "switch"), message, on_key=True)


def _blocks(design: Switchback) -> Iterator[Finding]:
    block, at = design.block, ("design", "block")
    if (block.length is None) == (block.column is None):
        yield Finding(at, "needs either length or column", on_key=True)
    if block.column is not None and block.offset:
        yield Finding((*at, "offset"), "only goes with length", on_key=True)
    if block.length is None:
        return
    if block.offset >= block.length:
        yield Finding((*at, "offset"), "expected less than the block's length")
    if design.washout >= block.length:
        yield Finding(("design", "washout"), "expected less than the block's length: nothing would be left of a block")


def _periods(parts: Mapping[str, Any]) -> Iterator[Finding]:
    """Integer periods belong to panels; where both are given, a rollout lies inside the window."""
    design, logs = parts["design"], parts.get("logs")
    times: list[tuple[KeyPath, Any]] = [
        (("logs", name), getattr(logs, name)) for name in ("start", "end") if logs is not None
    ]
    times.append((("plan", "start"), getattr(parts.get("plan"), "start", None)))
    for index, event in enumerate(parts.get("events", ())):
        times += [(("events", index, "at"), event.at), (("events", index, "until"), event.until)]
    if design.kind not in PANEL:
        for path, time in times:
            if isinstance(time, int):
                message = f"expected a time such as 2026-10-05T00:00Z, got {time}; integers are for {listing(PANEL)}"
                yield Finding(path, message)
    if isinstance(design, SyntheticControl) and logs is not None:
        ends = [_before(logs.start, design.rollout_at)] if logs.start is not None else []
        ends += [_before(design.rollout_at, logs.end)] if logs.end is not None else []
        if not all(ends):
            yield Finding(("design", "rollout_at"), "expected a time inside the window of the logs, on the same scale")


def _pre_period(parts: Mapping[str, Any]) -> Iterator[Finding]:
    """A pre-period ends where the window begins, or before."""
    given, logs = getattr(parts["design"], "pre_period", None), parts.get("logs")
    if given is None or logs is None:
        return
    at: KeyPath = ("design", "pre_period")
    if logs.start is None and logs.last is None:
        hint = "say logs.start: the window begins there, and the pre-period lies before it"
        yield Finding(at, "needs the start of the window", hint)
    if isinstance(given, tuple):
        if any(isinstance(time, int) for time in given):
            yield Finding(at, f"expected times such as 2026-10-05T00:00Z; integers are for {listing(PANEL)}")
        elif isinstance(logs.start, datetime) and given[1] > logs.start:
            yield Finding(at, "expected a pair of times that ends by logs.start")


def _strata(parts: Mapping[str, Any]) -> Iterator[Finding]:
    """What goes with strata of units, and with errors by cluster, which are no strata."""
    design, estimator = parts["design"], parts.get("estimator")
    if design.kind not in ("user_rct", "request_rct") or estimator is None:
        return
    clustered = estimator.method == "difference_in_means" and "variance" in estimator.said
    if not design.strata and not clustered:
        return
    what = "design.strata" if design.strata else "estimator.variance"
    if design.strata and estimator.method == "cuped":
        hint = "regression_adjusted takes strata and covariates; or take difference_in_means"
        yield Finding(("design", "strata"), "does not combine with cuped", hint, on_key=True)
    if design.strata and clustered:
        hint = "strata of clusters belong to cluster_rct; leave one of the two out"
        yield Finding(("estimator", "variance"), "does not combine with design.strata", hint, on_key=True)
    if clustered and getattr(parts.get("decision"), "looks", "fixed") == "sequential":
        message = "sequential looks do not combine with errors by cluster: a cluster changes as long as units join it"
        yield Finding(("decision", "looks"), message, "looks: fixed, or leave estimator.variance out")
    for name, keys in parts.get("metrics", {}).items():
        if keys.robust is not None and keys.robust.method != "winsorize":
            message = f"{keys.robust.method} does not combine with {what}; winsorize does"
            yield Finding(("metrics", name, "robust"), message, on_key=True)


def _metric_names(data: Mapping[str, Any], parts: Mapping[str, Any]) -> Iterator[Finding]:
    declared = data.get("metrics")
    if not isinstance(declared, dict):
        return
    for path, name in _references(parts):
        if name not in declared:
            hint = f"metrics: {listing(declared, 40)}"
            yield Finding(path, f"no metric is named {name!r}{suggest(name, declared)}", hint)


def _references(parts: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """Every place that names a metric."""
    design, economics, capacity = parts.get("design"), parts.get("economics"), parts.get("capacity")
    if isinstance(design, Observational) and design.negative_control is not None:
        yield ("design", "negative_control"), design.negative_control
    for name in ("value", "cost"):
        priced = getattr(economics, name, None)
        if priced is not None and priced.metric is not None:
            yield ("economics", name, "metric"), priced.metric
    for index, outcome in enumerate(getattr(capacity, "outcomes", ())):
        yield ("capacity", "outcomes", index), outcome
    for index, trigger in enumerate(parts.get("rollback", ())):
        if trigger.metric is not None:
            yield ("rollback", index, "metric"), trigger.metric
    for name in getattr(parts.get("plan"), "moments", {}):
        yield ("plan", "moments", name), name
    for index, segment in enumerate(parts.get("segments", ())):
        for name in segment.margin:
            yield ("segments", index, "margin", name), name
    for rung, metric_name in getattr(parts.get("surrogate"), "ladder", {}).items():
        yield ("surrogate", "ladder", rung), metric_name


def _primary(data: Mapping[str, Any]) -> Iterator[Finding]:
    declared = data.get("metrics")
    if isinstance(declared, dict) and declared:
        roles = [keys.get("role", "secondary") for keys in declared.values() if isinstance(keys, dict)]
        known = typing.get_args(Role)
        # A role that cannot be read may have been meant to be primary.
        if "primary" not in roles and len(roles) == len(declared) and all(role in known for role in roles):
            hint = "say role: primary of the metric that decides"
            yield Finding(("metrics",), "none of them is primary", hint, on_key=True)


def _economics(parts: Mapping[str, Any]) -> Iterator[Finding]:
    economics = parts.get("economics")
    if economics is None:
        return
    if economics.value is None and economics.cost is None:
        yield Finding(("economics",), "needs value, cost, or both", on_key=True)
    if economics.cost is not None and (economics.cost.column is None) == (economics.cost.metric is None):
        yield Finding(("economics", "cost"), "needs either column or metric", on_key=True)


def _trigger(path: KeyPath, trigger: Any) -> Iterator[Finding]:
    if (trigger.metric is None) == (trigger.expr is None):
        yield Finding(path, "needs either metric or expr")
    if (trigger.above is None) == (not trigger.no_movement):
        yield Finding(path, "needs either above or no_movement: true")
    if trigger.no_movement and trigger.where is not None:
        yield Finding(
            (*path, "where"), "does not combine with no_movement, which reads the metric's verdict", on_key=True
        )
    if trigger.no_movement and trigger.expr is not None:
        yield Finding((*path, "expr"), "does not combine with no_movement, which reads a metric's verdict", on_key=True)


def _surrogate(data: Mapping[str, Any], parts: Mapping[str, Any]) -> Iterator[Finding]:
    declared, given = data.get("metrics"), parts.get("surrogate")
    if given is None or not isinstance(declared, dict) or len(parts.get("metrics", ())) < len(declared):
        return
    if any(metric.role == "long_run" for metric in parts["metrics"].values()):
        return
    for key in ("evidence", "holdout", "weeks"):
        if getattr(given, key) is not None:
            hint = "say role: long_run of the metric that it foretells or waits for; its column need not be in the log"
            yield Finding(("surrogate", key), "no metric has the role long_run", hint, on_key=True)
