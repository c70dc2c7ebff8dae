"""Does an arm still act after its blocks have ended, and are blocks long enough for it to fade?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import polars as pl

from estimators import holm
from estimators.carryover import Lag, effect_since_switch, lagged_effects
from estimators.inference import EstimationError, t_interval
from readout.checks.base import threshold
from readout.evidence import Evidence
from readout.memo.numbers import number
from readout.reduce import Table
from readout.results import Check
from readout.samples import Blocks, Sample
from readout.samples.base import KEPT, den_sum, num_sum
from readout.spec.designs import Switchback
from readout.spec.model import Spec
from readout.terms import Term
from readout.text import named

SINCE = "since the switch"
BINS = 12
# A lag is of weight from this part of max(|effect|, minimum effect) up.
PART = 0.25


@dataclass(frozen=True, slots=True)
class Carried:
    """The effect of one earlier arm on a primary metric.

    Attributes:
        band: The size from which it is of weight: ``part`` of max(|effect|, minimum effect).
    """

    metric: str
    arm: str
    lag: int
    estimate: float
    std_error: float
    p_value: float
    p_value_holm: float
    ci_low: float
    ci_high: float
    band: float
    part: float

    @property
    def weight(self) -> float:
        """Size in bands."""
        return abs(self.estimate) / self.band if self.band > 0.0 else math.inf

    @property
    def inside(self) -> bool:
        """Whether the whole interval lies inside the band."""
        return -self.band < self.ci_low and self.ci_high < self.band


@dataclass(frozen=True, slots=True)
class Fading:
    """Effect and carryover of the block before by minutes since the block began, for a primary metric and an arm.

    Attributes:
        minutes: ``(BINS,)`` start of each bin.
        effect, std_error, carryover, carryover_std_error: ``(BINS,)``; nan where a bin is too thin.
        enough: The least washout after which the carryover's interval holds zero; None: no washout that was tried.
        length: Of a block.
    """

    metric: str
    arm: str
    minutes: np.ndarray
    effect: np.ndarray
    std_error: np.ndarray
    carryover: np.ndarray
    carryover_std_error: np.ndarray
    enough: timedelta | None
    length: timedelta


def tables(spec: Spec, sample: Sample, terms: Sequence[Term]) -> list[Table]:
    """Sums of the primaries by block and time since its start, the washout's rows among them."""
    if not isinstance(sample, Blocks) or sample.since is None or sample.length is None:
        return []
    sums: dict[str, pl.Expr] = {}
    for term in _primaries(spec, terms):
        if _by_rows(term):
            sums |= {num_sum(term): term.num, den_sum(term): term.weight}
    if not sums:
        return []
    size = sample.length // timedelta(microseconds=1)
    keys = {**sample.level_keys(), "bin": sample.since * BINS // size}
    return [Table(SINCE, keys, KEPT, sums=sums)]


def carryover(evidence: Evidence) -> Check:
    """Does the arm of the blocks before move a primary metric?

    Lags ``1 … carryover_blocks`` of the arm enter the block regression; p-values are Holm-adjusted over lags, primaries
    and arms. What ``design.washout`` leaves out is left out here too.
    """
    name = "carryover"
    if not isinstance(evidence.spec.design, Switchback):
        return Check(name, "spillover", "skip", "blocks do not switch in this design")
    found = lags(evidence, max(1, evidence.spec.design.carryover_blocks))
    if isinstance(found, str):
        return Check(name, "spillover", "skip", found)
    part = found[0].part
    details = {name: [_row(c) for c in found]} | _since_details(evidence)
    worst = min(found, key=lambda c: (c.p_value_holm, -c.weight))
    numbers = (worst.estimate / worst.std_error, worst.p_value_holm, part * worst.weight, part)
    alpha = evidence.spec.decision.alpha
    heavy = [c for c in found if c.p_value_holm < alpha and c.weight >= 1.0]
    if heavy:
        worst = max(heavy, key=lambda c: c.weight)
        numbers = (worst.estimate / worst.std_error, worst.p_value_holm, part * worst.weight, part)
        message = f"{_in_words(worst, evidence)}; {_advice(evidence, worst)}"
        return Check(name, "spillover", "fail", message, *numbers, "stronger_design", details)
    if all(c.inside for c in found):
        message = f"{_in_words(worst, evidence)}: inside ±{number(worst.band)}, what would matter"
        if reasons := unseen(evidence, max(1, evidence.spec.design.carryover_blocks)):
            message = f"not seen everywhere ({'; '.join(reasons)}); {message}"
            return Check(name, "spillover", "skip", message, *numbers, None, details)
        return Check(name, "spillover", "pass", message, *numbers, None, details)
    least = max(found, key=lambda c: max(abs(c.ci_low), abs(c.ci_high)) / c.band if c.band > 0.0 else math.inf)
    if worst.p_value_holm < alpha:
        why = f"significant, though smaller than ±{number(worst.band)}, what would matter"
        message = f"{_in_words(worst, evidence)}: {why}"
    else:
        why = f"a carryover beyond ±{number(least.band)}, what would matter, is not ruled out"
        message = f"{_in_words(least, evidence)}: {why}"
    return Check(name, "spillover", "warn", message, *numbers, None, details)


def lags(evidence: Evidence, n: int) -> list[Carried] | str:
    """The effects of the ``n`` arms before on the primary metrics and arms where they can be told; or why on none."""
    found, reasons = evidence.once(f"lags {n}", lambda: _lags(evidence, n))
    return found or "; ".join(reasons) or "no primary metric to look at"


def unseen(evidence: Evidence, n: int) -> list[str]:
    """Why the effects of the ``n`` arms before on some primary metric or arm are not told; empty where all are."""
    return evidence.once(f"lags {n}", lambda: _lags(evidence, n))[1]


def fading(evidence: Evidence) -> list[Fading]:
    """How the carryover of the block before fades, for the primaries that are sums over rows."""
    return evidence.once(SINCE, lambda: _fading(evidence))


def _lags(evidence: Evidence, n: int) -> tuple[list[Carried], list[str]]:
    sample = evidence.sample
    assert isinstance(sample, Blocks)
    part = threshold(evidence.spec, "carryover", PART)
    measured: list[tuple[str, int, Lag, float]] = []
    reasons = []
    for term in _primaries(evidence.spec, list(evidence.terms.values())):
        if term.quantile is not None:
            reasons.append(f"{term.name} is a quantile")
            continue
        for arm in evidence.treatments:
            try:
                found = lagged_effects(
                    sample.cells(term, arm),
                    n,
                    alpha=evidence.spec.decision.alpha,
                    weights=sample.weights,
                    clustered_by=sample.clustered_by,
                    previous=sample.earlier(term, arm, n),
                )
            except EstimationError as error:
                reasons.append(f"{term.name}: {error}")
                continue
            measured += [(term.name, arm, lag, part * _size(evidence, term.name, arm)) for lag in found[1:]]
    adjusted = holm([lag.p_value for _, _, lag, _ in measured])
    carried = [
        Carried(
            metric, evidence.arms[arm], lag.lag, lag.estimate, lag.std_error, lag.p_value, float(p), lag.ci_low,
            lag.ci_high, band, part,
        )
        for (metric, arm, lag, band), p in zip(measured, adjusted, strict=True)
    ]  # fmt: skip
    return carried, list(dict.fromkeys(reasons))


def _size(evidence: Evidence, metric: str, arm: int) -> float:
    """``max(|effect|, minimum effect)`` in the metric's unit."""
    effect, minimum = evidence.effect(metric, arm), evidence.spec.metrics[metric].minimum_effect
    if effect is not None:
        size, control = abs(effect.estimate), abs(effect.control_value)
    else:
        num, den = evidence.sample.arm_total(evidence.terms[metric], 0)
        size, control = 0.0, abs(num / den) if den else 0.0
    least = 0.0 if minimum is None else minimum.value * (control if minimum.relative else 1.0)
    return max(size, least)


def _fading(evidence: Evidence) -> list[Fading]:
    sample = evidence.sample
    if SINCE not in evidence.tables or not isinstance(sample, Blocks) or sample.length is None:
        return []
    found = []
    for term in _primaries(evidence.spec, list(evidence.terms.values())):
        for arm in evidence.treatments if _by_rows(term) else ():
            try:
                found.append(_fades(evidence, sample, sample.length, term, arm))
            except EstimationError:
                continue
    return found


def _fades(evidence: Evidence, sample: Blocks, length: timedelta, term: Term, arm: int) -> Fading:
    cells, before = sample.cells(term, arm), sample.earlier(term, arm, 1)[:, 0]
    num, den = sample.by_bin(term, arm, evidence.tables[SINCE], BINS)
    options = {"weights": sample.weights, "clustered_by": sample.clustered_by}
    by_bin = effect_since_switch(cells, num, den, previous=before, **options)
    # What a washout of so many bins would leave: the sums of all later bins.
    left = effect_since_switch(
        cells, num[:, ::-1].cumsum(axis=1)[:, ::-1], den[:, ::-1].cumsum(axis=1)[:, ::-1], previous=before, **options
    )
    enough = None
    for k in range(BINS):
        if math.isfinite(left.carryover[k]):
            low, high = t_interval(
                left.carryover[k], left.carryover_std_error[k], left.carryover_df[k], evidence.spec.decision.alpha
            )
            if low <= 0.0 <= high:
                enough = k * length / BINS
                break
    minutes = np.arange(BINS) * (length / timedelta(minutes=1)) / BINS
    return Fading(
        term.name, evidence.arms[arm], minutes, by_bin.effect, by_bin.std_error, by_bin.carryover,
        by_bin.carryover_std_error, enough, length,
    )  # fmt: skip


def duration(value: timedelta) -> str:
    """``90m`` as the spec writes it, rounded up to whole minutes."""
    minutes = math.ceil(value / timedelta(minutes=1) - 1e-9)
    return f"{minutes // 60}h" if minutes and minutes % 60 == 0 else f"{minutes}m"


def _advice(evidence: Evidence, worst: Carried) -> str:
    """What to do about a carryover that was found."""
    sample = evidence.sample
    assert isinstance(sample, Blocks)
    shown = next((f for f in fading(evidence) if (f.metric, f.arm) == (worst.metric, worst.arm)), None)
    if shown is None or sample.length is None:
        return "take longer blocks, or leave out their start (design.washout)"
    if worst.lag > 1:
        return "it outlasts a whole block: take longer blocks"
    if shown.enough is None or shown.enough > sample.length / 2:
        return "no washout within half of the block takes it away: take longer blocks"
    if shown.enough <= sample.washout:
        return "take a longer washout or longer blocks"
    washout = duration(shown.enough)
    least = f"at least {washout}" if shown.enough else "a part of the block"
    return f"leave out {least} (design.washout), before which it is seen; later it is not, which does not show it gone"


def _in_words(c: Carried, evidence: Evidence) -> str:
    arm = f" ({named(c.arm)})" if len(evidence.arms) > 2 else ""
    ago = "the block before" if c.lag == 1 else f"{c.lag} blocks before"
    interval = f"{number(c.estimate, 3, True)} [{number(c.ci_low, 3, True)}, {number(c.ci_high, 3, True)}]"
    return f"the arm of {ago} moves {c.metric}{arm} by {interval}, p = {c.p_value_holm:.2g}"


def _row(c: Carried) -> dict[str, object]:
    return {
        "metric": c.metric, "arm": c.arm, "lag": c.lag, "estimate": c.estimate, "std_error": c.std_error,
        "p_value": c.p_value, "p_value_holm": c.p_value_holm, "ci_low": c.ci_low, "ci_high": c.ci_high,
    }  # fmt: skip


def _since_details(evidence: Evidence) -> dict[str, object]:
    rows = [
        {"metric": f.metric, "arm": f.arm, "minutes": float(m), "effect": float(e), "std_error": float(s),
         "carryover": float(c), "carryover_std_error": float(cs)}
        for f in fading(evidence)
        for m, e, s, c, cs in zip(
            f.minutes, f.effect, f.std_error, f.carryover, f.carryover_std_error, strict=True
        )
    ]  # fmt: skip
    return {"since_switch": rows} if rows else {}


def _primaries(spec: Spec, terms: Sequence[Term]) -> list[Term]:
    return [t for t in terms if t.name in spec.metrics and spec.metrics[t.name].role == "primary"]


def _by_rows(term: Term) -> bool:
    """Whether the metric is a mean or ratio over rows, which can be split by minutes."""
    return term.quantile is None and not term.per_unit
