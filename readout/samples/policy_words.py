"""What an off-policy evaluation says of itself: how actions came about, what was valued, and what stands beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from estimators.clip_trade import clip_trade
from estimators.estimate import Estimate
from estimators.inference import EstimationError
from estimators.value_bound import gain_bound, value_bound
from readout.logs import Logs
from readout.logs.treated import arms
from readout.memo.numbers import number, percent
from readout.samples.policy_scores import BOUND, SEEN
from readout.samples.target import OTHER
from readout.spec.designs import OPE
from readout.spec.metrics import Metric
from readout.spec.model import Spec
from readout.terms import Term
from readout.text import named, visible

if TYPE_CHECKING:
    from readout.samples.off_policy import OffPolicy

ALWAYS = "always {}"
_OF_MODELS = ("outcome", "folds")


def assignment(spec: Spec, logs: Logs, sample: OffPolicy) -> str:
    """How actions were chosen, and what was read of it."""
    if not sample.propensity and not sample.estimated:
        chance = "with what chance is not logged"
    elif sample.estimated:
        chance = f"with what chance was not taken from the log but estimated ({sample.options['propensity']})"
    else:
        chance = "with the chance that the log gives for each"
    of = f"{len(sample.target.listed)} actions"
    return (
        f"Nothing ran under {named(arms(spec)[1])}. On {sample.n_rows:,} requests the logging policy took one of {of}, "
        f"{chance}; what the target policy would have yielded on the same requests is made up from those."
    )


def blind(sample: OffPolicy) -> str:
    """Why nothing can be valued; empty where something can."""
    if sample.n_units < 2:
        return f"all requests are of one {sample.unit}, so nothing says how sure a value is"
    if sample.how.weighs and not sample.propensity and not sample.estimated:
        return "the log has no probability of the logged action (role propensity)"
    return ""


def facts(sample: OffPolicy) -> dict[str, Any]:
    """What the ``design`` of readout.json lists besides."""
    kept = {name: value for name, value in sample.options.items() if value != "none"}
    if not sample.models:
        kept = {name: value for name, value in kept.items() if name not in _OF_MODELS}
    modelled = {"reward_model": list(sample.columns)} if sample.models else {}
    return {
        "actions": list(sample.target.listed),
        "certain": sample.target.certain,
        "rows": sample.n_rows,
        "errors_by": sample.unit,
        **modelled,
        **kept,
    }


def remarks(spec: Spec, sample: OffPolicy) -> list[str]:
    """Notes on the sample as a whole."""
    notes = []
    if OTHER in sample.target.actions:
        notes.append(
            "some requests met an action that design.actions does not list: they count for the logging policy, and "
            "the target never takes it"
        )
    if sample.estimated:
        notes.append(
            "propensities were estimated, not logged: the values lean on the model of the action as much as on the log"
        )
    if not sample.models and (unused := [name for name in _OF_MODELS if name in spec.estimator.said]):
        notes.append(f"{sample.method} models no reward, so estimator.{' and '.join(unused)} change nothing")
    if not sample.how.weighs and "clip" in spec.estimator.said:
        notes.append(f"{sample.method} has no weights, so estimator.clip changes nothing")
    read = sample.encoding
    if read is not None and read.left_out:
        notes.append("one value throughout, so not modelled: " + ", ".join(visible(n, 60) for n in read.left_out))
    return notes


def measured(metric: Metric) -> str:
    """What a metric's number is of."""
    what = f"{metric.numerator} over {metric.denominator}" if metric.numerator is not None else "the mean over requests"
    return f"difference of {what} between the target and the logging policy"


def remarks_on(spec: Spec, sample: OffPolicy, metric: Metric, found: Estimate) -> list[str]:
    """What a reader must know beside a metric's value."""
    notes = []
    weights = found.diagnostics.get("weights") or {}
    if weights.get("share_clipped"):
        what = "cut" if sample.how.clip is not None else "left to the model alone"
        at = sample.how.clip if sample.how.clip is not None else sample.how.switch
        notes.append(
            f"weights above {number(at)} were {what}, on {percent(weights['share_clipped'])} of requests: the value is "
            "moved by what they would have told"
        )
    if lost := sample.lost(metric.name):
        notes.append(
            f"{lost:,} requests ({percent(lost / sample.n_rows)}) have no value: under each policy it is the mean over "
            "those that have one, and how many these are under the target is estimated like a reward"
        )
    return notes


def shown(spec: Spec, sample: OffPolicy, term: Term, found: Estimate) -> dict[str, Any]:
    """Diagnostics at the top level: what the policies are worth, and what the weights are."""
    alpha = spec.decision.alpha
    of_weights = dict(found.diagnostics.get("weights") or {})
    if of_weights and (seen := sample.weights()) is not None:
        of_weights |= {"pareto_k": seen.found.pareto_k, "pareto_k_reason": seen.found.reason}
    rows = [_policy(label, found.diagnostics["values"][key]) for label, key in zip(_labels(spec), KEYS, strict=True)]
    rows[1]["ess"] = of_weights.get("ess")
    rows += [_constant(sample, name, alpha) for name in sample.read().constants]
    return {
        "values": [{**row, "metric": term.name} for row in rows],
        **({"ess": of_weights["ess"], "weights": of_weights} if of_weights else {}),
        **({"value_bound": bound} if (bound := _bound(spec, sample, term, found)) else {}),
        **({"clipping": trade} if (trade := _trade(sample)) else {}),
        **({"reward_model": {"columns": list(sample.columns), "explained": fit}} if (fit := _fit(sample)) else {}),
    }


KEYS = ("logging", "target")


def _fit(sample: OffPolicy) -> float | None:
    return sample.read().quality.explained


def _labels(spec: Spec) -> tuple[str, str]:
    assert isinstance(spec.design, OPE)
    first, second, *_ = arms(spec)
    return first, second


def _policy(label: str, values: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: values[name] for name in ("value", "std_error", "ci_low", "ci_high")}
    return {"policy": label, **kept, "ess": None, "supported": True, "reason": ""}


def _constant(sample: OffPolicy, name: str, alpha: float) -> dict[str, Any]:
    """A policy that always takes one action."""
    side = sample.read().constants[name]
    row: dict[str, Any] = {"policy": ALWAYS.format(name), "value": None, "std_error": None, "ci_low": None}
    row |= {"ci_high": None, "ess": side.ess if sample.propensity else None, "supported": True, "reason": ""}
    try:
        value, error, low, high = side.read(alpha, sample.read().sums.get(SEEN))
    except EstimationError as why:
        return {**row, "supported": False, "reason": str(why)}
    if not sample.supported(sample.target.actions.index(name)):
        return {**row, "supported": False, "reason": "it was never tried in some of the states"}
    if not sample.how.weighs:
        return {**row, "value": value, "reason": "no interval: the model's own error is made for the target alone"}
    by_weights = "by weights over their sum: boosted models know only what the two policies take"
    reason = by_weights if sample.models and sample.options["outcome"] == "boosting" else ""
    return {**row, "value": value, "std_error": error, "ci_low": low, "ci_high": high, "reason": reason}


def _bound(spec: Spec, sample: OffPolicy, term: Term, found: Estimate) -> dict[str, Any]:
    """A one-sided bound of the target's value that holds in any sample, and whether it beats the logging policy's."""
    scored, alpha = sample.read(), spec.decision.alpha
    if not scored.positive:
        return {}
    row: dict[str, Any] = {"metric": term.name, "lower": None, "upper": None, "level": 1.0 - alpha}
    row |= {"beats_logging": None, "logging_value": found.control_value, "reason": ""}
    row |= {"difference_lower": None, "difference_upper": None}
    why = "a ratio has none" if term.den is not None else ""
    why = why or ("it needs a value on every request" if sample.lost(term.name) else "")
    why = why or ("it needs values that are at least 0" if scored.low < 0.0 else "")
    if why:
        return {**row, "reason": why}
    if sample.estimated:
        return {**row, "reason": "it needs logged propensities"}
    score, rows, w = (scored.sums.get(BOUND + part) for part in ("score", "rows", "w"))
    try:
        if scored.shares:
            bound = value_bound(score, rows, weights=w, most_reward=1.0, alpha=alpha, seed=sample.how.seed)
        else:
            bound = value_bound(score, rows, alpha=alpha, seed=sample.how.seed)
    except EstimationError as error:
        return {**row, "reason": str(error)}
    row |= {"lower": bound.lower, "upper": bound.upper}
    if scored.shares:
        row |= _difference(spec, sample, term)
    if spec.metrics[term.name].better == "higher":
        return {**row, "beats_logging": bound.lower > found.control_value}
    if bound.upper is None:
        why = "lower is better, and values without a known maximum have no upper bound of this kind"
        return {**row, "reason": why}
    return {**row, "beats_logging": bound.upper < found.control_value}


def _difference(spec: Spec, sample: OffPolicy, term: Term) -> dict[str, float]:
    """A bound of V(target) - V(logging), of a share, on the side that tells whether the target is better."""
    sums = sample.read().sums
    score, rows, w = (sums.get(BOUND + part) for part in ("score", "rows", "w"))
    logged = sums.get(f"{term.name}|ln")
    higher = spec.metrics[term.name].better == "higher"
    # Where less is better, the share of requests without it is what is gained.
    gained, had = (score, logged) if higher else (np.maximum(w - score, 0.0), np.maximum(rows - logged, 0.0))
    least = gain_bound(gained, had, rows, most_reward=1.0, alpha=spec.decision.alpha, seed=sample.how.seed)
    return {"difference_lower": least} if higher else {"difference_upper": -least}


def _trade(sample: OffPolicy) -> list[dict[str, Any]]:
    """Value, error and bias under other cuts of the weights."""
    scored = sample.read()
    sides = {key: side for key, side in scored.trade.items() if side.by_unit is not None}
    found: list[dict[str, Any]] = []
    for kind in ("clip", "switch"):
        sums = {
            None if k == "none" else at: side.sums(scored.sums.get(SEEN))
            for (k, at), side in sides.items()
            if k in ("none", kind)
        }
        try:
            rows = clip_trade(sums) if len(sums) > 1 else ()
        except EstimationError:
            continue
        found += [
            {
                "kind": kind if row.cap is not None else "none",
                "at": row.cap,
                "value": row.value,
                "std_error": row.std_error,
                "bias": row.bias,
                "bias_std_error": row.bias_std_error,
                "root_mean_square": row.root_mean_square,
                "share_clipped": row.share_clipped,
                "share_cut": row.share_cut,
            }
            for row in rows
            if row.cap is not None or kind == "clip"
        ]
    return found
