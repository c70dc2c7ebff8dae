"""The ``surrogate`` of readout.json, and what the decision says of a long-run outcome that is not in yet."""

from __future__ import annotations

import math
from typing import Any

from readout import long_run
from readout.evidence import Evidence
from readout.memo import numbers
from readout.surrogates import holdout, ladder
from readout.surrogates.judged import Judged, judged
from readout.surrogates.past import Past
from readout.text import visible

CONTRIBUTED = ("experiment", "short_effect", "short_se", "long_effect", "long_se")


def summary(evidence: Evidence, treatment: str) -> dict[str, Any] | None:
    """Ladder, evidence, prediction, holdout and risk, for the arm that the decision is about; None where the spec has
    neither a long-run metric nor a surrogate section."""
    spec = evidence.spec
    if spec.surrogate is None and not long_run.metrics(spec):
        return None
    arm = evidence.arms.index(treatment)
    found = judged(evidence, arm)
    rungs = ladder.rows(evidence, arm)
    risk = bool(found.awaited) and not found.holds
    return {
        "arm": treatment,
        "awaited": {name: long_run.arrived(evidence, name).words for name in found.awaited},
        "ladder": rungs,
        "ends": ladder.end(rungs),
        "evidence": _evidence(found),
        "predicted": _predicted(found),
        "holdout": holdout.plan(evidence, arm, found),
        "scale": "absolute" if spec.surrogate is None else spec.surrogate.scale,
        "risk": risk,
        "why": "; ".join(found.faults) if found.awaited else "",
    }


def _evidence(found: Judged) -> dict[str, Any] | None:
    if found.used is None or found.short is None:
        return None
    shown: dict[str, Any] = {
        "n": len(found.used.experiments),
        "short_metric": found.short.metric.name,
        "long_metric": None if found.target is None else found.target.name,
        "left_out_own": found.used.own,
        "holds": found.holds,
        "faults": list(found.faults),
        "experiments": _rows(found.used),
    }
    model = found.model
    if model is None:
        return shown
    line = model.line
    ends = [end if math.isfinite(end) else None for end in (line.low, line.high)]
    target, short = found.target, found.short.metric
    assert target is not None
    signs = {"short_sign": _sign(short.better), "long_sign": _sign(target.better)}
    return shown | {
        "slope": line.slope,
        "slope_std_error": math.sqrt(line.covariance[1][1]),
        "slope_ci_low": ends[0],
        "slope_ci_high": ends[1],
        "slope_p_value": model.p_value,
        "intercept": line.intercept,
        "intercept_std_error": math.sqrt(line.covariance[0][0]),
        "covariance": line.covariance[0][1],
        "df": line.df,
        "between": math.sqrt(line.between),
        "short_spread": math.sqrt(line.spread),
        "r2": model.r2,
        "loo_error": model.loo_error,
        "mean_error": model.mean_error,
        "short_low": model.shortest,
        "short_high": model.longest,
        "threshold_effect": model.threshold(**signs),
        "paradox": found.paradox,
        "rests_on": None if model.rests_on is None else found.used.experiments[model.rests_on],
        "farthest": _farthest(found.used, model.farthest),
    }


def _farthest(used: Past, far: tuple[int, float] | None) -> dict[str, Any] | None:
    if far is None:
        return None
    at, said = far
    return {"experiment": used.experiments[at], "long_effect": float(used.long[at]), "foretold": said}


def _sign(better: str) -> int:
    return 1 if better == "higher" else -1


def _rows(used: Past) -> list[dict[str, Any]]:
    columns = (used.short, used.short_se, used.long, used.long_se)
    values = zip(used.experiments, *(column.tolist() for column in columns), strict=True)
    return [dict(zip(CONTRIBUTED, row, strict=True)) for row in values]


def _predicted(found: Judged) -> dict[str, Any] | None:
    if found.prediction is None or found.target is None or found.short is None:
        return None
    p = found.prediction
    return {
        "metric": found.target.name,
        "estimate": p.estimate,
        "std_error": p.std_error,
        "df": p.df,
        "ci_low": p.ci_low,
        "ci_high": p.ci_high,
        "reversal": found.reversal,
        "short_metric": found.short.metric.name,
        "short_estimate": found.short.estimate,
        "short_std_error": found.short.std_error,
    }


def foretold(evidence: Evidence, arm: int) -> str:
    """The predicted long-run effect in words; empty where there is none."""
    found = judged(evidence, arm)
    if found.prediction is None or found.target is None:
        return ""
    p = found.prediction
    relative = evidence.spec.surrogate is not None and evidence.spec.surrogate.scale == "relative"
    shown = (numbers.relative if relative else numbers.effect)(p.estimate, p.ci_low, p.ci_high)
    return f"past experiments foretell {found.target.name} {shown}"


WORDS = ("awaited", "awaited_is", "holdout", "wait", "long_run_shows", "beyond_ramp", "then_long")


def words(evidence: Evidence, arm: int) -> dict[str, str]:
    """What the texts of the decision may say of the long run; empty texts where no outcome is awaited."""
    found = judged(evidence, arm) if long_run.metrics(evidence.spec) else None
    if found is None or not found.awaited:
        return dict.fromkeys(WORDS, "")
    waiting = " and ".join(visible(name, 60) for name in found.awaited)
    given = evidence.spec.surrogate
    weeks = f"until {waiting} is in" if given is None or given.weeks is None else f"for {given.weeks:g} weeks"
    is_not_in = _is_not_in(evidence, found, waiting)
    return {
        "awaited": waiting,
        "awaited_is": is_not_in,
        "holdout": _keep(evidence, arm, found, waiting, weeks),
        "wait": _wait(evidence, waiting, weeks),
        "long_run_shows": _shows(evidence, found),
        "beyond_ramp": (
            "A randomized experiment on all of the traffic: this design says no more than ramp."
            if found.holds
            else f"Past experiments that foretell {waiting} from the short run: then ship with a holdout."
        ),
        "then_long": ": ship with a holdout"
        if found.holds
        else f", with {waiting} in, or foretold by past experiments: ship",
    }


def aside(evidence: Evidence, arm: int) -> tuple[str, ...]:
    """What must be said beside a decision that does not rest on the long run, where nothing stands for it."""
    found = judged(evidence, arm) if long_run.metrics(evidence.spec) else None
    if found is None or not found.awaited or found.holds:
        return ()
    waiting = " and ".join(visible(name, 60) for name in found.awaited)
    return (f"surrogate risk: {_is_not_in(evidence, found, waiting)}, and {found.faults[0]}",)


def _keep(evidence: Evidence, arm: int, found: Judged, waiting: str, weeks: str) -> str:
    """The holdout to keep, of the share that answers where one does."""
    given, plan = evidence.spec.surrogate, holdout.plan(evidence, arm, found)
    unit = evidence.sample.unit if evidence.sample.unit in ("unit", "cluster") else "unit"
    stated = None if given is None else given.holdout
    share = stated if plan is None or plan["needed_share"] is None or plan["enough"] else plan["needed_share"]
    keep = "a share" if share is None else holdout.share_in_words(share)
    size = f" {plan['why'][:1].upper()}{plan['why'][1:]}." if plan and plan["why"] else ""
    return f"Keep {keep} of the {unit}s on control {weeks}, and read {waiting} there.{size}"


def _wait(evidence: Evidence, waiting: str, weeks: str) -> str:
    """What to do where the treatment is not launched yet."""
    if evidence.spec.design.kind in holdout.KINDS:
        return f"Keep both arms as they are {weeks}, and read {waiting} there."
    return (
        f"Randomize units or clusters, keep them in their arms {weeks}, and read {waiting} there: this design does not "
        "keep anyone in one arm for so long."
    )


def _is_not_in(evidence: Evidence, found: Judged, waiting: str) -> str:
    """That long-run outcomes are not in yet, as a clause."""
    absent = any(long_run.arrived(evidence, name).absent for name in found.awaited)
    return f"{waiting} {'is' if len(found.awaited) == 1 else 'are'} {'not in yet' if absent else 'only partly in'}"


def _shows(evidence: Evidence, found: Judged) -> str:
    """What the long-run outcome must show."""
    parts = []
    for name in found.awaited:
        metric = evidence.spec.metrics[name]
        least = "" if metric.minimum_effect is None else f" by {metric.minimum_effect.text} or more"
        parts.append(f"{visible(name, 60)} {metric.better}{least} in those treated than in those held out")
    return " and ".join(parts)
