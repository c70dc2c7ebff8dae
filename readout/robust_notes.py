"""What a reader must know beside a robust mean, and beside a plain one whose tail is too heavy."""

from __future__ import annotations

from estimators.estimate import Estimate
from estimators.tail_index import Tail
from estimators.trimmed import QUANTILE as TRIM
from estimators.winsorized import QUANTILE
from readout.evidence import Evidence
from readout.memo import numbers
from readout.spec.metrics import Metric

CURE = "winsorize it (robust) or read a quantile; more units settle such a mean only slowly"


def estimand(evidence: Evidence, metric: Metric, found: Estimate | None) -> str:
    """How the mean is robust, to stand after the estimand; empty where it is the plain one."""
    if metric.robust is None:
        return ""
    unit, given = evidence.sample.unit, metric.robust.quantile
    if metric.robust.method == "winsorize":
        percentile = f"{100 * (QUANTILE if given is None else given):.10g}th percentile"
        return f", {unit}s capped at the {percentile} of all arms"
    if metric.robust.method == "trim":
        off = 100 * (1.0 - (TRIM if given is None else given))
        return f", {off:.10g} % of an arm's {unit}s left out at either end"
    if metric.robust.method == "catoni":
        return ", Catoni's M-estimate of the mean"
    groups = "" if found is None else f" {found.diagnostics['groups']}"
    return f", the median of the means of{groups} random groups of {unit}s"


def notes(evidence: Evidence, metric: Metric, found: Estimate) -> list[str]:
    """What a robust mean left out, and the plain one beside it; of a plain mean, whether it is to be trusted."""
    if metric.robust is None:
        why = distrust(evidence.tail(metric.name)) if metric.role in ("primary", "guardrail") else ""
        return [f"its mean is not to be trusted: {why}; {CURE}"] if why else []
    shown, unit = found.diagnostics, evidence.sample.unit
    said = []
    if found.diagnostics.get("cap") is not None:
        said.append(_capped(found, unit))
    elif metric.robust.method == "trim":
        said.append(
            f"left out: {numbers.count(shown['trimmed_control'])} of {numbers.count(found.n_control)} {unit}s in "
            f"control, {numbers.count(shown['trimmed_treatment'])} of {numbers.count(found.n_treatment)} in treatment"
        )
    plain = f"plain mean {numbers.number(shown['plain_estimate'], 4, True)}"
    return [*said, f"{plain} (std. error {numbers.number(shown['plain_std_error'])})"]


def distrust(tail: Tail | None) -> str:
    """Why a mean is not to be trusted, in words; empty where its tail gives no reason."""
    if tail is None:
        return ""
    if tail.heavy and tail.index is not None:
        index = tail.index
        interval = f"{numbers.number(index.index)} [{numbers.number(index.low)}, {numbers.number(index.high)}]"
        return f"tail index {interval} below 2, so its variance may be infinite"
    if tail.concentrated:
        return f"one unit carries {numbers.percent(tail.largest_share)} of its sum of squares"
    return ""


def _capped(found: Estimate, unit: str) -> str:
    shown = found.diagnostics
    at = numbers.number(shown["cap"], 4)
    if shown["cap_low"] is not None:
        at = f"{numbers.number(shown['cap_low'], 4)} and {at}"
    if "cap_denominator" in shown:
        at += f", its denominator at {numbers.number(shown['cap_denominator'], 4)}"
    sides = ", ".join(
        f"{numbers.count(shown[f'capped_{name}'])} of {numbers.count(n)} {unit}s in {name} "
        f"({numbers.percent(shown[f'lost_{name}'])} of its sum)"
        for name, n in (("control", found.n_control), ("treatment", found.n_treatment))
    )
    return f"capped at {at}: {sides}"
