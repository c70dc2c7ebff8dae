"""Effects of every metric and arm, with their verdicts."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from estimators import benjamini_hochberg, holm
from estimators.estimate import Estimate
from readout import energy, events, long_run, robust_notes
from readout.evidence import Evidence
from readout.memo import numbers
from readout.results import Guardrail, MetricResult
from readout.samples import Blocks, Clusters, RowArms, Units, histograms
from readout.samples.base import Explains
from readout.spec.metrics import Metric
from readout.verdicts import guardrail_of, verdict_of

_NUMBERS = (
    "method", "estimate", "std_error", "df", "statistic", "p_value", "ci_low", "ci_high", "relative", "relative_ci_low",
    "relative_ci_high", "relative_reason", "control_value", "treatment_value", "n_control", "n_treatment",
)  # fmt: skip


ADJUSTING = ("cuped", "regression_adjusted")
# A difference in the share of missing values that is worth a word, and its least size in standard errors of rows.
MISSING, MISSING_ERRORS = 0.01, 4.0


def metric_results(evidence: Evidence) -> tuple[MetricResult, ...]:
    """One result a metric and treatment arm, primaries first, else in the spec's order."""
    order = sorted(evidence.spec.metrics.values(), key=lambda m: m.role != "primary")
    return _judged_together([_result(evidence, metric, arm) for metric in order for arm in evidence.treatments])


def _judged_together(results: list[MetricResult]) -> tuple[MetricResult, ...]:
    """P-values adjusted over secondary metrics and arms, and over primaries and arms where there are several arms."""
    several = len({m.arm for m in results}) > 1
    for role in ("secondary", *(["primary"] if several else [])):
        places = [i for i, m in enumerate(results) if m.role == role and m.p_value is not None]
        p_values = [results[i].p_value or 0.0 for i in places]
        for i, strict, lenient in zip(places, holm(p_values), benjamini_hochberg(p_values), strict=True):
            bh = float(lenient) if role == "secondary" else None
            results[i] = replace(results[i], p_value_holm=float(strict), p_value_bh=bh)
    return tuple(results)


def _result(evidence: Evidence, metric: Metric, arm: int) -> MetricResult:
    found = evidence.effect(metric.name, arm)
    note = "" if found is None else _note(evidence, metric, arm, found)
    result = result_of(evidence, metric, arm, metric.name, note)
    arrived = long_run.arrived(evidence, metric.name) if metric.role == long_run.ROLE else None
    if arrived is None or not arrived.awaited:
        return result
    note = "; ".join(part for part in (long_run.note(arrived), note) if part)
    guardrail: Guardrail | None = None if result.guardrail is None else "inconclusive"
    return replace(result, note=note, verdict=None, guardrail=guardrail)


def result_of(evidence: Evidence, metric: Metric, arm: int, name: str, note: str = "") -> MetricResult:
    """The result of a metric from the effect on a term: that of its own name, or of a level of a segment."""
    found = evidence.effect(name, arm)
    values: dict[str, Any] = dict.fromkeys(_NUMBERS)
    if found is None:
        note = f"not estimated: {evidence.why_not(name, arm)}"
        guardrail: Guardrail | None = (
            "inconclusive" if metric.role == "guardrail" or metric.margin is not None else None
        )
        values |= {"method": _method(evidence, metric), "n_control": 0, "n_treatment": 0, "relative_reason": ""}
        detectable = None
    else:
        guardrail = guardrail_of(metric, found)
        values = {name: _finite(getattr(found, name)) for name in values}
        detectable = None if values["ci_low"] is None else evidence.detectable(name, arm)
    return MetricResult(
        metric=metric.name,
        role=metric.role,
        arm=evidence.arms[arm],
        control=evidence.arms[0],
        better=metric.better,
        unit=evidence.sample.unit,
        estimand=_estimand(evidence, metric) + robust_notes.estimand(evidence, metric, found),
        minimum_detectable_effect=detectable,
        verdict=None if found is None else verdict_of(metric, found),
        guardrail=guardrail,
        minimum_effect=None if metric.minimum_effect is None else metric.minimum_effect.text,
        margin=None if metric.margin is None else metric.margin.text,
        nulls=_nulls(evidence, metric) if name == metric.name else 0,
        note=note,
        **values,
    )


def _nulls(evidence: Evidence, metric: Metric) -> int:
    """Kept rows without a value: all of them where the log does not have the column yet."""
    return evidence.total(f"{metric.name}|null" if metric.name in evidence.terms else "n")


def _finite(value: Any) -> Any:
    """An end that is infinite is none; degrees of freedom too are written so."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def estimand(metric: Metric) -> str:
    """What the number is of, in words."""
    if metric.quantile is not None:
        what = f"difference of the {100 * metric.quantile:g}th percentile over rows"
    elif metric.numerator is not None:
        what = f"difference of {metric.numerator} over {metric.denominator}"
    elif metric.per == "unit":
        what = "difference of the mean over units of the sum within a unit"
    else:
        what = "difference of the mean over rows"
    return what + (", rows that were not treated" if metric.on == "untreated" else "")


def _estimand(evidence: Evidence, metric: Metric) -> str:
    if isinstance(evidence.sample, Explains):
        return evidence.sample.measured(metric)
    return estimand(metric) + _averaged(evidence, metric)


def _averaged(evidence: Evidence, metric: Metric) -> str:
    """Over what the estimand is averaged where that is not what its unit says."""
    sample = evidence.sample
    alike = isinstance(sample, Clusters) and sample.weights == "units" and metric.quantile is None
    if isinstance(sample, Blocks) and sample.method == "horvitz_thompson" and metric.quantile is None:
        return "; blocks count alike"
    return "; clusters count alike" if alike else ""


def _method(evidence: Evidence, metric: Metric) -> str:
    """The method asked of a metric: without covariates there is nothing to adjust for."""
    term = evidence.terms.get(metric.name)
    plain = evidence.sample.method in ADJUSTING and not (term is not None and term.covariates)
    return "difference_in_means" if plain else evidence.sample.method


def _note(evidence: Evidence, metric: Metric, arm: int, found: Estimate) -> str:
    notes = _adjustment(evidence, metric, found)
    if isinstance(evidence.sample, Units | RowArms) and "n_strata" in found.diagnostics:
        plain = numbers.number(found.diagnostics["unadjusted_estimate"], 4, True)
        error = numbers.number(found.diagnostics["unadjusted_std_error"])
        notes.append(f"averaged over {found.diagnostics['n_strata']} strata; without them {plain} (std. error {error})")
    notes += robust_notes.notes(evidence, metric, found)
    if metric.quantile is not None:
        notes.append(f"from value buckets at most {100 * (histograms.FACTOR - 1):.2g} % wide")
    if metric.on == "untreated":
        notes.append(
            "who is left untreated in a treated arm is a selection: part of the difference is who, not how they fared"
        )
    if metric.covariate is not None and evidence.sample.method != "cuped":
        notes.append(f"its covariate is used by cuped, not by {evidence.sample.method}")
    notes += [*_missing(evidence, metric, arm), *_at_odds(found), *_oversized(metric, found)]
    notes += energy.caveat(evidence, metric)
    if metric.role == "primary":
        notes += events.changes(evidence, metric, arm)
    if metric.per == "unit" and isinstance(evidence.sample, Blocks):
        notes.append("a unit counts once in every block where it was seen")
    if metric.per == "unit" and isinstance(evidence.sample, Clusters):
        notes.append("a unit counts once in every cluster where it was seen")
    if isinstance(evidence.sample, Blocks | Clusters | Units | RowArms):
        notes += evidence.sample.notes(metric)
    if isinstance(evidence.sample, Explains):
        notes += evidence.sample.remarks_on(metric, found)
    if (level_free := found.diagnostics.get("hajek_estimate")) is not None and metric.role in ("primary", "guardrail"):
        shown = numbers.number(level_free, 3, True)
        notes.append(
            f"with weights that add up to one in either arm the same blocks give {shown}: what lies between the two "
            "numbers is how many blocks chance put on either path, not an effect"
        )
    return "; ".join(notes)


def _missing(evidence: Evidence, metric: Metric, arm: int) -> list[str]:
    """That values are missing more often in one arm: what is compared is then who has one, too."""
    if metric.role == long_run.ROLE:
        return []  # how much of it is in is said in its own words
    rows = [evidence.total("n", code) for code in (0, arm)]
    lost = [evidence.total(f"{metric.name}|null", code) for code in (0, arm)]
    if not all(rows):
        return []
    shares = [n / of for n, of in zip(lost, rows, strict=True)]
    pooled = sum(lost) / sum(rows)
    error = math.sqrt(pooled * (1.0 - pooled) * sum(1.0 / of for of in rows))
    if abs(shares[1] - shares[0]) < max(MISSING, MISSING_ERRORS * error):
        return []
    control, treated = (numbers.percent(share) for share in shares)
    return [
        f"no value on {treated} of the rows of {evidence.arms[arm]!r} and {control} of {evidence.arms[0]!r}: where "
        "the arm decides who has one, part of the effect is who is left"
    ]


def _at_odds(found: Estimate) -> list[str]:
    """That one of the two intervals leaves zero out and the other does not."""
    low, high = found.relative_ci_low, found.relative_ci_high
    if low is None or high is None or (low > 0.0 or high < 0.0) == (found.ci_low > 0.0 or found.ci_high < 0.0):
        return []
    return [
        "the absolute interval and the relative one, made on the logarithm of the ratio, do not agree on zero: the "
        "evidence is at its limit; better and worse go by the absolute one"
    ]


def _oversized(metric: Metric, found: Estimate) -> list[str]:
    """That a size is a number no smaller than control's whole value, as where 5 is written for 5%."""
    whole = abs(found.control_value)
    said = {"margin": metric.margin, "minimum_effect": metric.minimum_effect}
    return [
        f"its {key} of {size.text} is no less than control's whole value, {numbers.number(whole)}; a share of that is "
        "written with a per cent sign"
        for key, size in said.items()
        if size is not None and not size.relative and size.value >= max(whole, 1.0)
    ]


def _adjustment(evidence: Evidence, metric: Metric, found: Estimate) -> list[str]:
    """What adjusting did to an effect, or why it was not adjusted."""
    if evidence.sample.method not in ADJUSTING:
        return []
    if metric.quantile is not None:
        return ["a quantile is not adjusted"]
    if metric.robust is not None and found.method not in ADJUSTING:
        return []
    if found.method not in ADJUSTING:
        return ["it names no covariate and is estimated by difference_in_means"]
    shown = found.diagnostics
    gone = shown["variance_reduction"]
    plain = numbers.number(shown["unadjusted_estimate"], 4, True)
    error = numbers.number(shown["unadjusted_std_error"])
    did = f"takes away {numbers.percent(gone)}" if gone >= 0 else f"adds {numbers.percent(-gone)}"
    notes = [f"unadjusted {plain} (std. error {error}); adjusting {did} of the variance"]
    if shown.get("dropped"):
        notes.append("not adjusted for " + ", ".join(shown["dropped"]))
    if lacking := shown["units_without"]:
        counts = ", ".join(f"{name} ({numbers.count(n)})" for name, n in lacking.items())
        notes.append(f"{evidence.sample.unit}s without a covariate's value are given its mean: {counts}")
    return notes
