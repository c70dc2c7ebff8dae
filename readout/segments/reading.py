"""Segments as they are read: effects at every level, whether they differ, and which levels are worth treating."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from estimators import holm
from estimators.estimate import Estimate
from estimators.inference import EstimationError
from estimators.segments import Levels, against_others, heterogeneity, joint_covariance, pooled, rested_dfs
from readout.economics import NET, PER
from readout.estimate import result_of
from readout.evidence import Evidence
from readout.memo import numbers
from readout.results import Heterogeneity, MetricResult, SegmentResult, Segments
from readout.samples.contributions import contributions
from readout.segments.allocation import allocation
from readout.segments.asked import HALVES, decisive, named, read
from readout.segments.groups import Group, Level
from readout.spec.metrics import Metric
from readout.terms import Term
from readout.verdicts import inside_minimum_effect, verdict_of

NET_VALUE = "net value"


@dataclass(frozen=True, slots=True)
class Place:
    """One level of one segment under one arm."""

    evidence: Evidence
    group: Group
    at: int
    level: Level
    index: int
    arm: int

    def effect(self, name: str, part: str = "all", alpha: float | None = None) -> Estimate | None:
        """The effect on a metric or quantity here."""
        term = named(self.at, self.index, name, part)  # type: ignore[arg-type]
        return self.evidence.effect_at(term, self.arm, alpha or self.evidence.spec.decision.alpha)


@dataclass(frozen=True, slots=True)
class Family:
    """The levels of a segment on one metric: those with an effect, what tells them apart, and why there is none.

    Differences, their p-values and pooled effects stand by place among the levels.
    """

    test: Heterogeneity
    difference: Mapping[int, tuple[float, float]]
    pooled: Mapping[int, tuple[float, float, float]]


def read_segments(evidence: Evidence) -> Segments:
    """Everything by segment; nothing where the spec names none."""
    if not evidence.groups.all:
        return Segments()
    spec = evidence.spec
    names = [*read(spec), *([NET] if spec.economics is not None else [])]
    families = {
        (g, name, arm): _family(evidence, group, g, name, arm)
        for g, group in enumerate(evidence.groups.all)
        for name in names
        for arm in evidence.treatments
    }
    families = _adjusted(families)
    results = [
        result
        for g, group in enumerate(evidence.groups.all)
        for i, level in enumerate(group.levels)
        for arm in evidence.treatments
        for result in _results(Place(evidence, group, g, level, i, arm), families)
    ]
    tests = tuple(
        family.test for (_, name, _), family in families.items() if name == NET or _role(evidence, name) == "primary"
    )
    budget = None if spec.economics is None or spec.economics.budget is None else spec.economics.budget.gpu_hours
    return Segments(_adjust_differences(results), tests, allocation(evidence), budget, tuple(_notes(evidence)))


def at_once(evidence: Evidence) -> float:
    """The level of intervals that hold for every level, arm and deciding metric at once (Bonferroni)."""
    levels = sum(len(group.levels) for group in evidence.groups.all if not group.descriptive)
    return evidence.spec.decision.alpha / max(levels * len(evidence.treatments) * len(decisive(evidence.spec)), 1)


def _role(evidence: Evidence, name: str) -> str:
    return evidence.spec.metrics[name].role


def _family(evidence: Evidence, group: Group, at: int, name: str, arm: int) -> Family:
    """The levels of a segment on one metric, together."""
    terms = [named(at, i, name) for i in range(len(group.levels))]
    effects = {i: found for i, term in enumerate(terms) if (found := evidence.effect(term, arm)) is not None}
    left_out = tuple(level.label for i, level in enumerate(group.levels) if i not in effects)
    title = NET_VALUE if name == NET else name
    test = Heterogeneity(group.name, title, evidence.arms[arm], len(effects), left_out=left_out)
    if name != NET and evidence.spec.metrics[name].quantile is not None:
        return Family(replace(test, note="quantiles are not tested for equal effects"), {}, {})
    if len(effects) < 2:
        few = "one level alone has" if effects else "no level has"
        return Family(replace(test, note=f"{few} an effect"), {}, {})
    try:
        return _together(evidence, group, effects, [evidence.terms[terms[i]] for i in effects], test, arm)
    except EstimationError as error:
        return Family(replace(test, note=str(error)), {}, {})


def _together(
    evidence: Evidence,
    group: Group,
    effects: Mapping[int, Estimate],
    terms: Sequence[Term],
    test: Heterogeneity,
    arm: int,
) -> Family:
    """What the effects of several levels say together.

    Raises:
        EstimationError: One level, or too few independent observations.
    """
    parts = contributions(evidence.sample, terms, arm)
    values = list(effects.values())
    levels = Levels(
        np.array([found.estimate for found in values]),
        joint_covariance([found.std_error for found in values], parts),
        rested_dfs([found.df for found in values], parts),
    )
    near = pooled(levels, alpha=evidence.spec.decision.alpha)
    difference, _, p_values = against_others(levels, [group.levels[i].n for i in effects])
    apart = {i: (float(d), float(p)) for i, d, p in zip(effects, difference, p_values, strict=True)}
    drawn = zip(effects, near.estimates, near.ci_low, near.ci_high, strict=True)
    shrunk = {i: (float(mid), float(low), float(high)) for i, mid, low, high in drawn}
    scale = PER if test.metric == NET_VALUE else 1.0
    test = replace(test, tau=scale * near.tau, centre=scale * near.mean)
    try:
        found = heterogeneity(levels)
    except EstimationError as error:
        return Family(replace(test, note=str(error)), apart, shrunk)
    test = replace(test, statistic=found.statistic, df=found.df, df_residual=found.df_residual, p_value=found.p_value)
    return Family(test, apart, shrunk)


def _adjusted(families: dict[tuple[int, str, int], Family]) -> dict[tuple[int, str, int], Family]:
    """Tests of equal effects, adjusted over the segments and arms of one metric."""
    found = dict(families)
    for name in dict.fromkeys(name for _, name, _ in families):
        mine = [key for key in families if key[1] == name and families[key].test.p_value is not None]
        p_values = holm([families[key].test.p_value or 0.0 for key in mine])
        for key, p in zip(mine, p_values, strict=True):
            found[key] = replace(families[key], test=replace(families[key].test, p_value_holm=float(p)))
    return found


def _adjust_differences(results: Sequence[SegmentResult]) -> tuple[SegmentResult, ...]:
    """Differences adjusted over the levels of all segments and over arms, metric by metric.

    The two levels of one segment ask one question and count once.
    """
    found = list(results)
    for metric in dict.fromkeys(r.result.metric for r in results):
        asked: dict[tuple[str, str, str], list[int]] = {}
        for i, one in enumerate(results):
            if one.result.metric == metric and one.difference_p_value is not None:
                two = sum(o.segment == one.segment for o in results if _same(o, one)) == 2
                asked.setdefault((one.segment, one.result.arm, "" if two else one.level), []).append(i)
        p_values = holm([results[places[0]].difference_p_value or 0.0 for places in asked.values()])
        for places, p in zip(asked.values(), p_values, strict=True):
            for i in places:
                found[i] = replace(found[i], difference_p_value=float(p))
    return tuple(found)


def _same(a: SegmentResult, b: SegmentResult) -> bool:
    """Whether two rows are of one metric and arm and both have a difference."""
    return (a.result.metric, a.result.arm) == (b.result.metric, b.result.arm) and a.difference_p_value is not None


def _results(place: Place, families: Mapping[tuple[int, str, int], Family]) -> list[SegmentResult]:
    """The rows of a level, one a metric."""
    evidence = place.evidence
    rows = {name: _metric_at(place, evidence.spec.metrics[name]) for name in read(evidence.spec)}
    stable = _stable(place)
    short, unsafe = _short(place, rows), _unsafe(rows)
    why = place.group.descriptive or "; ".join([*short, *unsafe])
    net = _net(place)
    found = []
    for name, row in rows.items():
        family = families[place.at, name, place.arm]
        difference, p = family.difference.get(place.index, (None, None))
        mid, low, high = family.pooled.get(place.index, (None, None, None))
        found.append(
            SegmentResult(
                segment=place.group.name,
                level=place.level.label,
                said=place.group.said(place.level.label),
                result=row,
                rows=place.level.n,
                difference=difference,
                difference_p_value=p,
                pooled=mid,
                pooled_low=low,
                pooled_high=high,
                net=net[0],
                net_low=net[1],
                net_high=net[2],
                stable=stable,
                recommended=not why,
                why=why,
                descriptive=bool(place.group.descriptive),
                clears=not short,
                worse=_worse(place),
            )
        )
    return found


def _metric_at(place: Place, metric: Metric) -> MetricResult:
    """A metric's result at a level, a guardrail by the margin that holds there."""
    here = place.level.here(metric)
    return result_of(place.evidence, here, place.arm, named(place.at, place.index, metric.name))


def _net(place: Place) -> tuple[float | None, float | None, float | None]:
    """Net value per 1,000 requests with an interval that holds for all levels at once."""
    if place.evidence.spec.economics is None:
        return None, None, None
    found = place.effect(NET, alpha=at_once(place.evidence))
    return (None, None, None) if found is None else (PER * found.estimate, PER * found.ci_low, PER * found.ci_high)


def _stable(place: Place) -> bool | None:
    """Whether what decides has one sign in both halves of the window."""
    if place.evidence.groups.middle is None:
        return None
    signs = []
    for name in decisive(place.evidence.spec):
        halves = [place.effect(name, part) for part in HALVES]
        if any(half is None for half in halves):
            return None
        signs.append(len({half is not None and half.estimate > 0 for half in halves}) == 1)
    return all(signs)


def _short(place: Place, rows: Mapping[str, MetricResult]) -> list[str]:
    """How what decides falls short of the bar, in words."""
    if place.evidence.spec.economics is None:
        return [text for m in _primaries(place) if (text := _short_of(place, m))]
    said = []
    net, bar = _net(place), bar_of(place.evidence)
    if net[1] is None or net[2] is None:
        said.append("net value could not be estimated")
    elif net[2] < bar:
        said.append(f"net value is below the bar of {numbers.number(bar)}")
    elif not net[1] > bar:
        said.append(f"net value is not shown above the bar of {numbers.number(bar)}")
    return said + [f"{m.name} is worse" for m in _primaries(place) if rows[m.name].verdict == "worse"]


def _unsafe(rows: Mapping[str, MetricResult]) -> list[str]:
    """The guardrails that do not hold, in words."""
    states = {"harmed": "is harmed", "inconclusive": "is not shown safe"}
    return [f"{name} {states[row.guardrail]}" for name, row in rows.items() if row.guardrail in states]


def _worse(place: Place) -> tuple[str, ...]:
    """The primaries that get worse, by intervals that hold for all levels at once."""
    found = []
    for metric in _primaries(place):
        effect = place.effect(metric.name, alpha=at_once(place.evidence))
        if effect is not None and verdict_of(metric, effect) == "worse":
            found.append(f"{metric.name} {numbers.effect(effect.estimate, effect.ci_low, effect.ci_high)}")
    return tuple(found)


def bar_of(evidence: Evidence) -> float:
    """The bar of net value in USD per 1,000 requests."""
    economics = evidence.spec.economics
    return 0.0 if economics is None or economics.bar is None else economics.bar.net_usd_per_1k_requests


def _primaries(place: Place) -> list[Metric]:
    return [m for m in place.evidence.spec.metrics.values() if m.role == "primary"]


def _short_of(place: Place, metric: Metric) -> str:
    """How a primary falls short at a level, where no economics say what it is worth."""
    found = place.effect(metric.name, alpha=at_once(place.evidence))
    if found is None:
        return f"{metric.name} could not be estimated"
    verdict = verdict_of(metric, found)
    if verdict == "no_effect":
        return f"{metric.name} moves by less than its minimum effect"
    if verdict != "better":
        return f"{metric.name} is {'worse' if verdict == 'worse' else 'not shown better'}"
    return f"{metric.name} may move by less than its minimum effect" if inside_minimum_effect(metric, found) else ""


def _notes(evidence: Evidence) -> list[str]:
    """What a reader of the segments must know."""
    notes = [f"{g.name}: {g.descriptive}" for g in evidence.groups.all if g.descriptive]
    notes += [
        f"{g.name}: {g.n_null:,} rows have no value and belong to no level"
        for g in evidence.groups.all
        if g.n_null and g.levels
    ]
    notes += [f"{g.name} has no value on any row: nothing is read by it" for g in evidence.groups.all if not g.levels]
    notes += [
        f"{g.name} has one level, so there is nothing to compare" for g in evidence.groups.all if len(g.levels) == 1
    ]
    if evidence.groups.middle is None:
        notes.append("the log has no times, so that nothing shows whether an effect is stable: no segment is targeted")
    return notes
