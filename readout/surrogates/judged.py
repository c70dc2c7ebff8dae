"""Whether past experiments let the short run stand for a long-run outcome that is not in yet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from estimators.inference import EstimationError, critical_value
from estimators.surrogate import Prediction, Surrogate, surrogate
from readout import long_run
from readout.evidence import Evidence
from readout.memo import numbers
from readout.results import MetricResult
from readout.spec.metrics import Metric
from readout.surrogates import ladder, past
from readout.surrogates.past import Past
from readout.text import visible

LEAST_R2 = 0.5
"""The share of the variance of true long effects that the short ones must explain; a threshold of the check."""
MOST_REVERSED = 0.2
"""The likeliest that a long effect in the bad direction may be."""
OTHER_UNIT = 20.0
"""How many times larger or smaller past short errors must be than the present one to be of another unit."""
FEWEST_ALIKE = 3
"""Past experiments that early behaviour can be compared with."""


@dataclass(frozen=True, slots=True)
class Short:
    """The present effect that past short effects are held against, on the evidence's scale."""

    metric: Metric
    estimate: float
    std_error: float


@dataclass(frozen=True, slots=True)
class Judged:
    """What past experiments say of one treatment arm.

    Attributes:
        target: The long-run metric that is foretold; None: the spec names none.
        awaited: Long-run metrics that no verdict rests on yet.
        short: The present short effect; None where there is none.
        used: The past experiments on its metric; None where there are none.
        model: What they say; None where they say nothing.
        prediction: Of the present long effect.
        reversal: Probability that it is in the bad direction.
        paradox: Why a good short effect may go with a bad long one; empty where nothing says so.
        faults: Why the evidence does not hold, the gravest first; empty: it holds.
        unlike: Why early behaviour does not move as in past experiments; empty: it does.
    """

    target: Metric | None
    awaited: tuple[str, ...]
    short: Short | None = None
    used: Past | None = None
    model: Surrogate | None = None
    prediction: Prediction | None = None
    reversal: float | None = None
    paradox: str = ""
    faults: tuple[str, ...] = ()
    unlike: tuple[str, ...] = field(default=())

    @property
    def holds(self) -> bool:
        """Whether the evidence holds."""
        return self.model is not None and not self.faults


def judged(evidence: Evidence, arm: int) -> Judged:
    """What past experiments say of a treatment arm."""
    return evidence.once(f"surrogate {arm}", lambda: _judge(evidence, arm))


def _judge(evidence: Evidence, arm: int) -> Judged:
    spec, target = evidence.spec, _target(evidence)
    waiting = tuple(long_run.awaited(evidence))
    found: Past | None = evidence.once("past experiments", lambda: past.load(spec))
    if found is None:
        path = None if spec.surrogate is None else spec.surrogate.evidence
        why = f"the evidence file {visible(path)} is not there" if path else "no past experiments are named"
        return Judged(target, waiting, faults=(why,), unlike=(why,))
    short, why = _short(evidence, arm, target, found)
    if short is None:
        return Judged(target, waiting, faults=(why,), unlike=(why,))
    used = found.of(short.metric.name)
    if target is None:
        why = "no metric has the role long_run"
        return Judged(None, waiting, short, used, faults=(why,), unlike=(why,))
    against = tuple(_against(evidence, arm, waiting, short, used))
    try:
        model = surrogate(
            used.short, used.short_se, used.long, used.long_se, correlation=used.correlation, alpha=spec.decision.alpha
        )
    except EstimationError as error:
        unlike = (*against, *_unlike(short, used, ""))
        return Judged(target, waiting, short, used, faults=(*against, str(error)), unlike=unlike)
    prediction = model.predict(short.estimate, short.std_error)
    reversal = prediction.below_zero if target.better == "higher" else 1.0 - prediction.below_zero
    paradox = paradox_of(short, target, model, prediction)
    harm = paradox or harm_of(short, target, prediction, reversal)
    others = [name for name in waiting if name != target.name]
    wanting = [*against, *faults(short, target, model, harm, others, _least_r2(evidence))]
    if model.rests_on is not None:
        wanting.append(f"without the past experiment {visible(used.experiments[model.rests_on], 60)} no slope is shown")
    unlike = (*against, *_unlike(short, used, harm))
    return Judged(target, waiting, short, used, model, prediction, reversal, paradox, tuple(wanting), unlike)


def _against(evidence: Evidence, arm: int, waiting: Sequence[str], short: Short, used: Past) -> Iterator[str]:
    """What tells against any use of the evidence: rows that are in and show harm, and effects of another unit."""
    for name in waiting:
        found = None if long_run.arrived(evidence, name).absent else evidence.effect(name, arm)
        metric = evidence.spec.metrics[name]
        if found is not None and (found.ci_high < 0.0 if metric.better == "higher" else found.ci_low > 0.0):
            seen = numbers.effect(found.estimate, found.ci_low, found.ci_high)
            yield f"in the rows that are in, {name} is worse: {seen}"
    errors = used.short_se[used.short_se > 0.0]
    if not len(errors) or not short.std_error > 0.0:
        return
    times = float(np.median(errors)) / short.std_error
    if not 1.0 / OTHER_UNIT < times < OTHER_UNIT:
        yield (
            f"short_se of past experiments is {numbers.number(times, 2)} times the present standard error on "
            f"{short.metric.name}: they may be in another unit (per cent, relative) or of another metric (short_metric)"
        )


def _least_r2(evidence: Evidence) -> float:
    given = evidence.spec.checks.get("surrogate_evidence")
    return LEAST_R2 if given is None or given.threshold is None else given.threshold


def _target(evidence: Evidence) -> Metric | None:
    """The long-run metric of the business rung, else the first that is awaited, else the first."""
    metrics = {metric.name: metric for metric in long_run.metrics(evidence.spec)}
    named = [name for _, name in reversed(ladder.rungs(evidence))]
    names = [n for n in (*named, *long_run.awaited(evidence), *metrics) if n in metrics]
    return metrics[names[0]] if names else None


def _short(evidence: Evidence, arm: int, target: Metric | None, found: Past) -> tuple[Short | None, str]:
    """The present short effect, on the highest rung with data that past experiments are about; or why there is none."""
    candidates = [name for _, name in reversed(ladder.rungs(evidence))]
    candidates += [m.name for m in evidence.spec.metrics.values() if m.role == "surrogate" and m.name not in candidates]
    candidates = [n for n in candidates if target is None or n != target.name]
    if found.metric:
        known = dict.fromkeys(found.metric)
        candidates = [n for n in (*candidates, *known) if n in known and n in evidence.spec.metrics]
        if not candidates:
            names = ", ".join(visible(name, 40) for name in known)
            return None, f"the evidence is on metrics that this experiment does not read ({names})"
    if not candidates:
        return None, "neither the ladder nor a metric of the role surrogate says which short effect to compare"
    for name in candidates:
        if (short := _present(evidence, evidence.spec.metrics[name], arm)) is not None:
            return short, ""
    scaled = evidence.spec.surrogate is not None and evidence.spec.surrogate.scale == "relative"
    return None, f"no {'relative ' if scaled else ''}effect on {candidates[0]} was estimated"


def _present(evidence: Evidence, metric: Metric, arm: int) -> Short | None:
    """The present effect on a metric, on the scale of the evidence."""
    if metric.role == long_run.ROLE and long_run.arrived(evidence, metric.name).awaited:
        return None
    found = evidence.effect(metric.name, arm)
    if found is None:
        return None
    if evidence.spec.surrogate is None or evidence.spec.surrogate.scale == "absolute":
        return Short(metric, found.estimate, found.std_error)
    if found.relative is None or found.relative_ci_low is None or found.relative_ci_high is None:
        return None
    width = 2.0 * critical_value(evidence.spec.decision.alpha, found.df)
    return Short(metric, found.relative, (found.relative_ci_high - found.relative_ci_low) / width)


def paradox_of(short: Short, target: Metric, model: Surrogate, prediction: Prediction) -> str:
    """Why a good short effect goes with a bad long one (VanderWeele 2013); empty where nothing says so."""
    line, rises = model.line, short.metric.better == target.better
    if line.high < 0.0 if rises else line.low > 0.0:
        return f"in past experiments a better {short.metric.name} went with a worse {target.name}"
    if _good(short.metric, short.estimate) and _good(target, -prediction.estimate):
        return f"{short.metric.name} is better, and the effect foretold for {target.name} is a worse one"
    return ""


def harm_of(short: Short, target: Metric, prediction: Prediction, reversal: float) -> str:
    """Why a bad long effect is near without a paradox; empty where it is not."""
    if _good(target, -prediction.estimate):
        return f"{short.metric.name} is worse, and so is the effect foretold for {target.name}"
    if reversal > MOST_REVERSED:
        return f"the chance that {target.name} is worse is {numbers.percent(reversal)}, from what is foretold"
    return ""


def _good(metric: Metric, effect: float) -> bool:
    return effect > 0.0 if metric.better == "higher" else effect < 0.0


def faults(
    short: Short, target: Metric, model: Surrogate, harm: str, others: Sequence[str] = (), least: float = LEAST_R2
) -> Iterator[str]:
    """Why past experiments do not let a short effect stand for the long one, the gravest first; none where they do.

    Args:
        short: The present short effect.
        target: The long-run metric that is foretold.
        model: What past experiments say.
        harm: As :func:`paradox_of` or :func:`harm_of` gives it.
        others: Long-run metrics that are awaited besides.
        least: The share of the variance of true long effects that the short ones must explain.
    """
    line = model.line
    if harm:
        yield harm
    if not (line.low > 0.0 or line.high < 0.0):
        yield f"that {target.name} follows {short.metric.name} is not shown: its slope may be zero"
    if model.r2 < least:
        share, wanted = numbers.percent(model.r2), numbers.percent(least)
        yield f"short effects explain {share} of the variance of long ones, less than {wanted}"
    if not model.loo_error < model.mean_error:
        yield "left-out experiments are foretold no better than by the mean of the others"
    if outside := _outside(short, model.shortest, model.longest):
        yield outside
    if others:
        yield f"nothing stands for {' and '.join(others)}"


def _unlike(short: Short, used: Past, harm: str) -> Iterator[str]:
    if len(used.experiments) < FEWEST_ALIKE:
        yield f"{len(used.experiments)} past experiments are too few to compare with"
    elif outside := _outside(short, float(used.short.min()), float(used.short.max())):
        yield outside
    if harm:
        yield harm


def _outside(short: Short, low: float, high: float) -> str:
    """That the present effect lies beyond all past ones."""
    if low <= short.estimate <= high:
        return ""
    present, ends = numbers.number(short.estimate, 3, True), [numbers.number(end, 3, True) for end in (low, high)]
    return (
        f"the effect on {short.metric.name}, {present}, lies outside those of past experiments, {ends[0]} to {ends[1]}"
    )


def improves(judged: Judged, evidence: Evidence, results: Sequence[MetricResult]) -> list[str]:
    """Why the mechanism and the early outcome are not both shown to be better; empty: they are."""
    by_name = {m.metric: m for m in results}
    mechanism = [m for m in results if m.role == "mechanism"]
    rungs = dict(ladder.rungs(evidence))
    if not mechanism and "system" in rungs:
        mechanism = [by_name[rungs["system"]]]
    said = [f"the mechanism {m.metric} is not shown to be better" for m in mechanism if m.verdict != "better"]
    if not mechanism:
        said.append("no metric is named as the mechanism")
    if judged.short is not None and by_name[judged.short.metric.name].verdict != "better":
        said.append(f"{judged.short.metric.name} is not shown to be better")
    return said
