"""Incidents and launches in the window: which rows and blocks they hit, by arm, and the effect without them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from estimators.block_regression import block_regression
from estimators.estimate import Estimate
from estimators.inference import EstimationError
from readout.errors import LogError
from readout.evidence import Evidence, count, rows_table
from readout.logs import Logs
from readout.logs.frame import Moment
from readout.logs.values import label
from readout.memo import words
from readout.reduce import Table
from readout.results import Verdict
from readout.samples import Blocks, Rollouts
from readout.samples.panel import UnitPeriods
from readout.spec.metrics import Metric
from readout.spec.model import Event, Spec
from readout.terms import Term
from readout.text import named
from readout.verdicts import verdict_of

# An event that hits one arm's blocks more than this many times as often, as a share of them, is not the arms' alike.
UNEVEN = 2.0
_COMPUTED = "switchbacks and did"


def tables(spec: Spec, logs: Logs) -> list[Table]:
    """Rows within each event.

    Raises:
        LogError: Events without the role ``time``, or with clusters and without ``cluster``.
    """
    if not spec.events:
        return []
    problems = []
    if not logs.has("time"):
        problems.append(spec.source.problem(("events",), "needs the role 'time' in logs.columns", on_key=True))
    for i, event in enumerate(spec.events):
        if event.clusters and not logs.has("cluster"):
            message = "needs the role 'cluster' in logs.columns"
            problems.append(spec.source.problem(("events", i, "clusters"), message, on_key=True))
    if problems:
        raise LogError(problems)
    return [rows_table({_name(i): count(_rows(event, logs)) for i, event in enumerate(spec.events)})]


def summary(evidence: Evidence) -> list[dict[str, Any]]:
    """One entry an event, treatment arm and primary metric: what it hit, and the effect without its blocks."""
    found = []
    for i, event in enumerate(evidence.spec.events):
        when = {"name": event.name, "at": _time(event.at), "until": _time(event.until)}
        rows = {f"rows {arm}": evidence.total(_name(i), code) for code, arm in enumerate(evidence.arms)}
        entry = {**when, "rows": evidence.total(_name(i)), **rows}
        if isinstance(evidence.sample, UnitPeriods):
            found += [{**entry, **one} for one in _of_panel(evidence, evidence.sample, i)]
            continue
        if not isinstance(evidence.sample, Blocks):
            found.append(entry)
            continue
        blocks = {f"blocks {arm}": n for arm, n in _by_arm(evidence, _hit(evidence.sample, event)).items()}
        without = _effects_without(evidence, i)
        found += [{**entry, **blocks, **one} for one in without] or [{**entry, **blocks}]
    return found


def notes(evidence: Evidence) -> list[str]:
    """What the reader must know of the events beside their table."""
    if evidence.spec.events and not isinstance(evidence.sample, Blocks | Rollouts):
        return [f"events: their rows are counted by arm; effects without them are computed for {_COMPUTED} only"]
    return []


def changes(evidence: Evidence, metric: Metric, arm: int) -> list[str]:
    """The events without whose blocks the metric's verdict is another one."""
    found = []
    known = isinstance(evidence.sample, Blocks | Rollouts)
    what = "blocks" if isinstance(evidence.sample, Blocks) else "periods"
    for i, event in enumerate(evidence.spec.events if known else ()):
        for one in _effects_without(evidence, i):
            if one["metric"] == metric.name and one["arm"] == evidence.arms[arm] and one.get("verdict_changes"):
                found.append(f"without the {what} of the event {event.name!r} it is {one['verdict_without']}")
    return found


def lopsided(evidence: Evidence) -> list[str]:
    """Events that hit one treatment arm's blocks much oftener than control's, or the other way round."""
    if not isinstance(evidence.sample, Blocks):
        return []
    found = []
    totals = _by_arm(evidence, np.ones(len(evidence.sample.calendar()), dtype=bool))
    for event in evidence.spec.events:
        blocks = _by_arm(evidence, _hit(evidence.sample, event))
        control = evidence.arms[0]
        for arm in evidence.arms[1:]:
            shares = sorted(blocks[a] / max(totals[a], 1) for a in (arm, control))
            if shares[1] > UNEVEN * shares[0] and blocks[arm] + blocks[control] > 1:
                said = f"{blocks[control]} blocks of {named(control)} and {blocks[arm]} of {named(arm)}"
                found.append(f"the event {event.name!r} hit {said}")
    return found


def _rows(event: Event, logs: Logs) -> pl.Expr:
    """Whether a row lies in the event; without an end, whether it is of its minute."""
    start, end = _moments(event)
    inside = (pl.col("@time") >= start) & (pl.col("@time") < end)
    if event.clusters:
        name = str(logs.columns["cluster"])
        inside &= label(pl.col(name), logs.dtype(name)).is_in(list(event.clusters))
    return inside


def _effects_without(evidence: Evidence, i: int) -> list[dict[str, Any]]:
    sample, event = evidence.sample, evidence.spec.events[i]
    assert isinstance(sample, Blocks | Rollouts)
    hit = _hit(sample, event) if isinstance(sample, Blocks) else _cells(sample, event)
    return evidence.once(_name(i), lambda: _without(evidence, hit))


def _of_panel(evidence: Evidence, sample: UnitPeriods, i: int) -> list[dict[str, Any]]:
    """The periods that an event touches, treated and untreated units there, and the primaries' effects without."""
    hit = _cells(sample, evidence.spec.events[i])
    labels = [sample.axis.labels[i] for i in np.flatnonzero(hit.any(axis=0))]
    said: dict[str, Any] = {"periods": labels}
    if not isinstance(sample, Rollouts):
        return [said]
    treated = sample.start < sample.axis.n
    touched = hit.any(axis=1)
    for arm, side in zip(evidence.arms, (False, True), strict=True):
        said[f"units {arm}"] = int((touched & (treated == side)).sum())
    said["event_times"] = sample.event_times(hit)
    return [{**said, **one} for one in _effects_without(evidence, i)] or [said]


def _cells(sample: UnitPeriods, event: Event) -> np.ndarray:
    """``(n, T)`` whether a unit's period and the event share time and place."""
    return sample.hit(*_moments(event), event.clusters)


def _hit(sample: Blocks, event: Event) -> np.ndarray:
    """``(n_cells,)`` whether a block and the event share time and place."""
    start, end = _span(event)
    frame = sample.calendar()
    hit = (frame["start"] < end) & (frame["end"] > start)
    if event.clusters:
        hit &= frame["cluster"].is_in(list(event.clusters))
    return hit.to_numpy()


def _moments(event: Event) -> tuple[Moment, Moment]:
    """Start and end; of an integer period without an end, the period."""
    if isinstance(event.at, int):
        return event.at, event.until if isinstance(event.until, int) else event.at + 1
    return _span(event)


def _span(event: Event) -> tuple[datetime, datetime]:
    assert isinstance(event.at, datetime)
    until = event.until if isinstance(event.until, datetime) else event.at + timedelta(minutes=1)
    return event.at.astimezone(UTC), until.astimezone(UTC)


def _by_arm(evidence: Evidence, hit: np.ndarray) -> dict[str, int]:
    assert isinstance(evidence.sample, Blocks)
    arms = evidence.sample.calendar()["arm"].to_numpy()[hit]
    return {arm: int((arms == code).sum()) for code, arm in enumerate(evidence.arms)}


def _without(evidence: Evidence, hit: np.ndarray) -> list[dict[str, Any]]:
    """The primaries' effects without what was hit: those of blocks by block regression."""
    found = []
    for metric in evidence.spec.metrics.values():
        if metric.role != "primary" or metric.quantile is not None:
            continue
        term = evidence.terms[metric.name]
        for arm in evidence.treatments:
            said: dict[str, Any] = {"metric": metric.name, "arm": evidence.arms[arm]}
            found.append({**said, **_compared(evidence, metric, term, arm, hit)})
    return found


def _compared(evidence: Evidence, metric: Metric, term: Term, arm: int, hit: np.ndarray) -> Mapping[str, Any]:
    try:
        everything = _effect(evidence, term, arm, np.zeros_like(hit))
        rest = _effect(evidence, term, arm, hit)
    except EstimationError as error:
        return {"estimate_without": None, "reason": str(error)}
    verdicts: list[Verdict] = [verdict_of(metric, found) for found in (everything, rest)]
    return {
        "estimate": everything.estimate,
        "estimate_without": rest.estimate,
        "ci_low_without": rest.ci_low,
        "ci_high_without": rest.ci_high,
        "verdict_without": words.VERDICT[verdicts[1]],
        "verdict_changes": verdicts[0] != verdicts[1],
    }


def _effect(evidence: Evidence, term: Term, arm: int, hit: np.ndarray) -> Estimate:
    sample = evidence.sample
    if isinstance(sample, Rollouts):
        return sample.effect_without(term, hit, evidence.spec.decision.alpha)
    assert isinstance(sample, Blocks)
    cells = sample.cells(term, arm).take(~hit[sample.with_value(term, arm)])
    alpha = evidence.spec.decision.alpha
    found = block_regression(cells, alpha=alpha, weights=sample.weights, clustered_by=sample.clustered_by)
    return evidence.as_read(found, term, arm)


def _time(value: Any) -> str | None:
    return value.isoformat() if isinstance(value, datetime) else None if value is None else str(value)


def _name(i: int) -> str:
    return f"event {i}"
