"""Does the estimate rest on more than a handful of observations?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from estimators.inference import EstimationError
from estimators.tail_index import Tail
from readout.checks.base import listing, percent, threshold
from readout.evidence import Evidence
from readout.results import Check, Status
from readout.robust_notes import CURE, distrust
from readout.spec.metrics import Metric
from readout.verdicts import guardrail_of, verdict_of

HALF = 0.5
# A cap that leaves more than this of the plain standard error cures no tail.
HARDLY = 0.9
CALLED = {"winsorize": "winsorized", "trim": "trimmed"}
# Robust means whose intervals come from the units' own variance.
NEED_VARIANCE = ("median_of_means", "catoni")


@dataclass(frozen=True, slots=True)
class _Without:
    """What leaving out the most influential unit does.

    ``moved`` is in standard errors of the estimate without it: an outlier swells the error of the whole so much that a
    mean never moves by more than one of those. ``arm`` is the one compared with control, ``of`` says whose the unit is.
    """

    arm: str
    of: str
    moved: float
    before: tuple[str | None, str | None]
    after: tuple[str | None, str | None]

    @property
    def changed(self) -> str:
        """The verdict that changed, or the guardrail's state; empty where neither did."""
        pairs = [f"{b} becomes {a}" for b, a in zip(self.before, self.after, strict=True) if b != a]
        return pairs[0] if pairs else ""


def tail_dominance(evidence: Evidence) -> Check:
    """Leaving out one unit must not change a verdict, and the mean must be one that the units can tell.

    It warns where the top 1 % of units hold half of a sum, where the tail index shows that the variance may be
    infinite, and where one unit carries half of the sum of squares; not of a robust mean, which is compared instead,
    unless winsorizing left it nearly as it was.
    """
    name = "tail_dominance"
    limit = threshold(evidence.spec, name, 1.0)
    failures, warnings, aside, seen, unseen = [], [], [], [], []
    for metric in _judged(evidence):
        for arm in evidence.treatments:
            one = _without_one(evidence, metric, arm)
            if one is None:
                if evidence.effect(metric.name, arm) is not None and metric.name not in unseen:
                    unseen.append(metric.name)
                continue
            seen.append(one)
            if one.changed and one.moved > limit:
                said = f"{metric.name}: {one.changed} without one {evidence.sample.unit}{one.of}"
                failures.append((one, f"{said} ({one.moved:.1f} standard errors)"))
        heavy = _heaviness(evidence, metric)
        if cure := _uncured(evidence, metric):
            warnings += [f"{text}; {cure}" if distrusted else text for text, distrusted in heavy]
        elif heavy and metric.robust is not None:
            aside.append(f"{'; '.join(text for text, _ in heavy)}, and its {CALLED[metric.robust.method]} mean is read")
    moved = max((one.moved for one in seen), default=None)
    by_arm: dict[str, Status] = dict.fromkeys(evidence.arms[1:], "warn" if warnings else "pass")
    by_arm |= {one.arm: "fail" for one, _ in failures}
    details = {"by_arm": by_arm} if failures or warnings else {}
    details |= _tails(evidence)
    if failures:
        moved = max(one.moved for one, _ in failures)
        message = "; ".join([*(text for _, text in failures), *warnings, *aside])
        numbers = (None, None, moved, limit)
        return Check(name, "identification", "fail", message, *numbers, "stronger_design", details)
    if warnings:
        message = "; ".join([*warnings, *aside])
        return Check(name, "identification", "warn", message, value=moved, threshold=limit, details=details)
    if not seen or unseen:
        message = "no mean or ratio among primaries and guardrails could be computed without a unit"
        if seen:
            message = f"not seen of {listing(unseen)}, which could not be computed without its {evidence.sample.unit} "
            message += f"that counts most; no single {evidence.sample.unit} decides the others' verdicts"
        message = "; ".join([message, *aside])
        return Check(name, "identification", "skip", message, threshold=limit, details=details)
    message = "; ".join([f"no single {evidence.sample.unit} decides a primary's or guardrail's verdict", *aside])
    return Check(name, "identification", "pass", message, value=moved, threshold=limit, details=details)


def _judged(evidence: Evidence) -> Iterable[Metric]:
    """Metrics whose means decide."""
    metrics = evidence.spec.metrics.values()
    return [m for m in metrics if m.role in ("primary", "guardrail") and m.quantile is None]


def _uncured(evidence: Evidence, metric: Metric) -> str:
    """What to do about a heavy tail; empty where the metric's robust mean does it already."""
    if metric.robust is None:
        return CURE
    if metric.robust.method in NEED_VARIANCE:
        return f"the interval of {metric.robust.method} needs a variance too: take trim or winsorize"
    return _hardly_cut(evidence, metric)


def _hardly_cut(evidence: Evidence, metric: Metric) -> str:
    """What to do where winsorizing left the plain mean nearly as it was; empty where it did not."""
    found = [e for arm in evidence.treatments if (e := evidence.effect(metric.name, arm)) is not None]
    capped = [e for e in found if "cap" in e.diagnostics]
    if not capped or any(e.std_error < HARDLY * e.diagnostics["plain_std_error"] for e in capped):
        return ""
    return "its cap hardly changes it: take a lower robust.quantile"


def _heaviness(evidence: Evidence, metric: Metric) -> list[tuple[str, bool]]:
    """What is said of the plain mean's tail, and whether it says that the mean is not to be trusted."""
    try:
        top = evidence.sample.top_share(evidence.terms[metric.name])
    except EstimationError:
        top = None
    said = []
    if top is not None and top > HALF:
        said.append((f"1 % of units hold {percent(top)} of {metric.name}", False))
    if why := distrust(evidence.tail(metric.name)):
        said.append((f"the mean of {metric.name} is not to be trusted: {why}", True))
    return said


def _tails(evidence: Evidence) -> dict[str, Any]:
    """Tail index, share of the farthest unit and settling of the mean, by metric."""
    found = {m.name: tail for m in _judged(evidence) if (tail := evidence.tail(m.name)) is not None}
    return {"tails": {name: _shown(tail) for name, tail in found.items()}} if found else {}


def _shown(tail: Tail) -> dict[str, Any]:
    index = {"tail_index": None} if tail.index is None else {"tail_index": asdict(tail.index)}
    return index | {"largest_share_of_squares": tail.largest_share, "settling": tail.settling, "units": tail.units}


def _without_one(evidence: Evidence, metric: Metric, arm: int) -> _Without | None:
    whole = evidence.effect(metric.name, arm)
    if whole is None:
        return None
    try:
        term = evidence.terms[metric.name]
        rest = evidence.sample.without_most_influential(term, arm, evidence.spec.decision.alpha)
        if rest is not None and rest.method != whole.method:
            # What is left out of the plain estimate is held against the plain one.
            plain = replace(term, covariates=())
            whole = evidence.as_read(evidence.sample.effect(plain, arm, evidence.spec.decision.alpha), term, arm)
        rest = None if rest is None else evidence.as_read(rest, term, arm)
    except EstimationError:
        return None
    if rest is None:
        return None
    before, after = ((verdict_of(metric, e), guardrail_of(metric, e)) for e in (whole, rest))
    left_out = rest.diagnostics.get("left_out")
    side = left_out.get("arm") if isinstance(left_out, Mapping) else None
    of = "" if side is None else f" of arm {evidence.arms[arm if side else 0]!r}"
    return _Without(evidence.arms[arm], of, abs(rest.estimate - whole.estimate) / rest.std_error, before, after)
