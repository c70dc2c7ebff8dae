"""Over whom a design's effect is averaged, and whether that is what the decision asks about."""

from __future__ import annotations

import math

from readout.memo.numbers import percent
from readout.spec.designs import RDD, Observational
from readout.spec.model import Spec

_OWN = {"did": "att", "synthetic_control": "att", "iv": "late", "rdd": "local", "ope": "policy_value"}


def estimand(spec: Spec) -> str:
    """``ate``, ``att``, ``overlap``, ``late`` (those whom the instrument moves), ``local`` (at the cutoff) or
    ``policy_value`` (a rule's, on the requests of the logs)."""
    design = spec.design
    if isinstance(design, Observational):
        if spec.estimator.method == "dml" and spec.estimator.options["model"] == "plr":
            return "overlap"  # the partially linear model weighs rows by e (1 - e), whatever is asked for
        if design.estimand is not None:
            return design.estimand
    return _OWN.get(design.kind, "att" if spec.decision.frame == "explain" else "ate")


def narrower(spec: Spec) -> str:
    """How the design's effect is narrower than the frame that the spec states; empty where it is not."""
    if spec.design.kind == "ope" and spec.decision.frame == "rule":
        return ""
    if spec.decision.frame != "ship":
        return "" if spec.decision.frame is None or estimand(spec) in ("ate", "att") else _of(spec)
    return "" if estimand(spec) == "ate" else _of(spec)


def whom(spec: Spec, sample: object = None) -> str:
    """Those whom a local effect is of, in words, with their share where the sample knows it."""
    if not isinstance(spec.design, RDD):
        share = getattr(getattr(sample, "compliers", None), "share", math.nan)
        said = f" ({percent(share)} of rows)" if 0.0 < share <= 1.0 else ""
        return f"those whom the instrument moves{said}"
    return "those near the cutoff whom crossing it treats" if spec.design.fuzzy else "those near the cutoff"


def _of(spec: Spec) -> str:
    crossing = " among those whom crossing it treats" if getattr(spec.design, "fuzzy", False) else ""
    return {
        "att": "the effect is that on what was treated, not on all of the traffic",
        "overlap": "the effect is that where both actions were likely, not on all of the traffic",
        "late": "the effect is that on those whom the instrument moves, not on all of the traffic",
        "policy_value": "the value is that of a rule on the requests of these logs, each in the state that it met, not "
        "on the traffic that the rule would make",
        "local": f"the effect is that at the cutoff{crossing}, not on all of the traffic",
    }[estimand(spec)]
