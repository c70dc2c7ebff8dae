"""The durable holdout that answers the long-run question: what share of units, for how many weeks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import Any

import polars as pl

from estimators import holdout as sizes
from estimators.inference import EstimationError
from readout import long_run, span
from readout.evidence import Evidence
from readout.logs import Logs
from readout.memo import numbers
from readout.reduce import Table
from readout.samples.base import KEPT
from readout.spec.model import Spec
from readout.surrogates.judged import Judged

NAME = "first seen"
WEEK_US = 7 * 24 * 3_600_000_000
KINDS = ("user_rct", "cluster_rct")
LONGEST = 520.0
"""Weeks beyond which a holdout answers nothing."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Randomized units.

    Attributes:
        seen: In the log.
        per_week: That come in anew; None where the log cannot tell.
    """

    seen: int
    per_week: float | None

    def by(self, weeks: float) -> float:
        """Units that are there some weeks after the launch."""
        return self.seen + (self.per_week or 0.0) * weeks


@dataclass(frozen=True, slots=True)
class Question:
    """What the holdout has to see.

    Attributes:
        variance: Of one unit's long-run outcome.
        effect: The size to be seen, in the same unit.
        said, source: Where either comes from, in words.
        relative: Whether both are fractions of control.
    """

    variance: float
    effect: float
    said: str
    source: str
    relative: bool


def asked(spec: Spec) -> bool:
    """Whether the spec asks for a holdout."""
    return spec.surrogate is not None and (spec.surrogate.holdout is not None or spec.surrogate.weeks is not None)


def tables(spec: Spec, logs: Logs) -> list[Table]:
    """When each unit was first seen, in microseconds since 1970; nothing where that is not asked for or not known."""
    if not asked(spec) or spec.design.kind != "user_rct" or not (logs.has("unit") and logs.has("time")):
        return []
    at = pl.col("@time").dt.epoch("us")
    return [Table(NAME, {"unit": pl.col("@unit").hash(0)}, KEPT & at.is_not_null(), minima={"first": at})]


def plan(evidence: Evidence, arm: int, found: Judged) -> dict[str, Any] | None:
    """The ``holdout`` of readout.json's ``surrogate``; None where the spec asks for none."""
    spec = evidence.spec
    if not asked(spec) or spec.surrogate is None:
        return None
    share, weeks = spec.surrogate.holdout, spec.surrogate.weeks
    shown: dict[str, Any] = {
        "share": share, "weeks": weeks, "metric": None if found.target is None else found.target.name,
        "unit": evidence.sample.unit, "units": None, "units_per_week": None, "effect": None, "effect_is": None,
        "relative": None, "variance_from": None, "detectable": None, "needed_share": None, "needed_weeks": None,
        "most_detectable": None, "enough": None, "why": "",
    }  # fmt: skip
    try:
        question, seen = _question(evidence, arm, found), _traffic(evidence)
        return shown | _sized(evidence, question, seen, share, weeks)
    except EstimationError as error:
        return shown | {"why": f"the holdout cannot be planned: {error}"}


def _sized(
    evidence: Evidence, question: Question, seen: Traffic, share: float | None, weeks: float | None
) -> dict[str, Any]:
    alpha = evidence.spec.decision.alpha
    n = seen.by(weeks or 0.0)
    needed = sizes.needed_share(question.variance, n, question.effect, alpha=alpha)
    found: dict[str, Any] = {
        "units": seen.seen, "units_per_week": seen.per_week, "effect": question.effect, "effect_is": question.said,
        "relative": question.relative, "variance_from": question.source, "needed_share": needed,
    }  # fmt: skip
    half = sizes.detectable(question.variance, n, 0.5, alpha=alpha)
    found["most_detectable"] = half if math.isfinite(half) else None
    if share is not None:
        smallest = sizes.detectable(question.variance, n, share, alpha=alpha)
        units = sizes.needed_units(question.variance, share, question.effect, alpha=alpha)
        found["detectable"] = smallest if math.isfinite(smallest) else None
        found["needed_weeks"] = _weeks(units, seen)
        found["enough"] = smallest <= question.effect
    return found | {"why": _why(evidence, question, seen, share, weeks, found)}


def _weeks(units: float, seen: Traffic) -> float | None:
    """Weeks until so many units are there; None where they never are."""
    if units <= seen.seen:
        return 0.0
    return (units - seen.seen) / seen.per_week if seen.per_week else None


def _why(
    evidence: Evidence,
    question: Question,
    seen: Traffic,
    share: float | None,
    weeks: float | None,
    found: dict[str, Any],
) -> str:
    unit = evidence.sample.unit
    size = _effect(question.effect, question.relative)
    of = f"{numbers.count(seen.by(weeks or 0.0))} {unit}s"
    by = f" by week {weeks:g}" if weeks is not None and seen.per_week else ""
    wanted = f"to see {question.said} of {size} with 80 % power"
    least = found["needed_share"]
    half = found["most_detectable"]
    sees = "" if half is None else f", which sees {_effect(half, question.relative)}"
    if share is None:
        if least is None:
            return f"no holdout is large enough {wanted}, not even half of {of}{by}{sees}"
        return f"{wanted} takes a holdout of {share_in_words(least)} of {of}{by}"
    stated = f"a holdout of {share_in_words(share)} of {of}{by}"
    if found["enough"]:
        spare = "" if least is None or least > 0.95 * share else f"; {share_in_words(least)} would do"
        return f"{stated} is enough {wanted}{spare}"
    own = "" if found["detectable"] is None else f" (it sees {_effect(found['detectable'], question.relative)})"
    ways = [f"a share of {share_in_words(least)}"] if least is not None else []
    later = found["needed_weeks"]
    if later is not None and later <= LONGEST:
        ways.append(f"{numbers.count(math.ceil(later))} weeks")
    too_small = f"{stated} is too small {wanted}{own}"
    if least is None:
        answer = f"; at {share_in_words(share)} it takes {ways[0]}" if ways else ": no holdout answers it"
        return f"{too_small}, and so is half of them{sees}{answer}"
    return f"{too_small}: it takes {' or '.join(ways)}"


def _question(evidence: Evidence, arm: int, found: Judged) -> Question:
    """What is to be seen, and how much units differ.

    Raises:
        EstimationError: Neither is known.
    """
    if found.target is None:
        raise EstimationError("no metric has the role long_run")
    if evidence.spec.design.kind not in KINDS:
        raise EstimationError(f"only in {' and '.join(KINDS)} does the log show how many keep to one arm")
    name, stated = found.target.name, found.target.minimum_effect
    estimate = None if long_run.arrived(evidence, name).absent else evidence.effect(name, arm)
    relative = evidence.spec.surrogate is not None and evidence.spec.surrogate.scale == "relative"
    if estimate is not None:
        variance = _per_unit(estimate.std_error, estimate.n_control, estimate.n_treatment)
        level = abs(estimate.control_value)
        if stated is not None:
            return Question(
                variance,
                stated.value * (level if stated.relative else 1.0),
                "its minimum effect",
                "rows that are in",
                False,
            )
        if found.prediction is not None:
            size = abs(found.prediction.estimate) * (level if relative else 1.0)
            return Question(variance, size, "the effect foretold", "rows that are in", False)
        raise EstimationError(f"say metrics.{name}.minimum_effect, the smallest effect that it is to see")
    if found.used is None or found.short is None or not found.used.experiments:
        raise EstimationError(f"nothing says yet how much {name} differs between {evidence.sample.unit}s")
    variance = _from_past(evidence, arm, found)
    source = "long_se of past experiments, each against its short_se"
    if stated is not None and stated.relative != relative:
        how = (
            "as a share of control, as the evidence is"
            if relative
            else "in its own unit: control's value is not known yet"
        )
        raise EstimationError(f"say metrics.{name}.minimum_effect {how}")
    if stated is not None:
        return Question(variance, stated.value, "its minimum effect", source, relative)
    if found.prediction is None:
        raise EstimationError(f"say metrics.{name}.minimum_effect, the smallest effect that it is to see")
    return Question(variance, abs(found.prediction.estimate), "the effect foretold", source, relative)


def _from_past(evidence: Evidence, arm: int, found: Judged) -> float:
    """A unit's variance of the long outcome: past long errors over short ones, times the present short error."""
    assert found.used is not None
    assert found.short is not None
    ratios = [long / short for long, short in zip(found.used.long_se, found.used.short_se, strict=True) if short > 0.0]
    present = evidence.effect(found.short.metric.name, arm)
    if not ratios or present is None:
        raise EstimationError("past short effects are without error, so past long errors cannot be scaled")
    return _per_unit(median(ratios) * found.short.std_error, present.n_control, present.n_treatment)


def _per_unit(std_error: float, n_control: int, n_treatment: int) -> float:
    return std_error**2 / (1.0 / n_control + 1.0 / n_treatment)


def _traffic(evidence: Evidence) -> Traffic:
    """Units of the log and how many come in anew: those of its second half, per week of it."""
    seen = sum(evidence.assigned)
    met = evidence.tables.get(span.NAME)
    if evidence.spec.design.kind == "cluster_rct" or met is None or not len(met):
        return Traffic(seen, None)
    first, last = int(met["first"][0]), int(met["last"][0])
    if last <= first:
        return Traffic(seen, None)
    if NAME not in evidence.tables:  # every row is a unit of its own
        return Traffic(seen, seen * WEEK_US / (last - first))
    middle = first + (last - first) / 2
    late = int((evidence.tables[NAME]["first"] >= middle).sum())
    return Traffic(seen, late * WEEK_US / (last - middle))


def share_in_words(value: float) -> str:
    """In per cent with two digits, rounded up: a smaller share would be too small."""
    percent = 100.0 * value
    step = 10.0 ** (math.floor(math.log10(percent)) - 1)
    return f"{math.ceil(round(percent / step, 6)) * step:.2g} %"


def _effect(value: float, relative: bool) -> str:
    return numbers.percent(value, 3) if relative else numbers.number(value)
