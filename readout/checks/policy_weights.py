"""Does the value of the target policy rest on more than a few requests?"""

from __future__ import annotations

from readout.checks.base import percent, share, threshold
from readout.evidence import Evidence
from readout.memo.numbers import count, number
from readout.results import Check, Status
from readout.samples.off_policy import OffPolicy

NAME = "weight_concentration"
# Share of the weight on one unit that is worth a word, and that no interval holds for.
HEAVY, CARRIED = 0.05, 0.10
# A unit that would hold this much less without weights owes its share to them.
BY_WEIGHT = 2.0
# Effective requests below which a normal interval is not to be trusted, and below which it is worth a word.
FEWEST, FEW = 50.0, 200.0


def weight_concentration(evidence: Evidence) -> Check:
    """The largest unit's share of the weight, how many requests the weights leave, and how heavy their tail is."""
    sample = evidence.sample
    assert isinstance(sample, OffPolicy)
    limit = threshold(evidence.spec, NAME, CARRIED)
    if not sample.how.weighs:
        return Check(NAME, "identification", "skip", f"{sample.method} uses no weights")
    found = sample.scored
    if isinstance(found, str):
        return Check(NAME, "identification", "skip", f"no weights to look at: {found}")
    seen = sample.weights()
    if seen is None:
        none = "no request has any weight"
        message = f"{none}: the target never takes a logged action"
        return Check(NAME, "identification", "fail", message, None, None, 1.0, limit, "stronger_design", short=none)
    largest, plain, tail, ess = seen.largest_share, seen.rows_share, seen.found.pareto_k, seen.found.ess
    carried = largest if largest > BY_WEIGHT * plain else 0.0
    broken = []
    if carried > limit:
        broken.append(f"one {sample.unit} holds {percent(largest)} of the weight")
    if ess < FEWEST:
        broken.append(f"the weighted requests tell as much as {count(ess)} alike")
    if seen.found.unreliable:
        broken.append(f"the weights' tail is too heavy for a mean (Pareto k {number(tail, 2)})")
    said = (
        f"{count(seen.weighted)} of {count(sample.n_rows)} requests have weight, and tell as much as {count(ess)} "
        f"alike; the largest weight is {number(seen.found.largest)}, and one {sample.unit} holds {percent(largest)} of "
        "all"
    )
    said += f"; Pareto k of the tail {number(tail, 2)}" if tail is not None else ""
    if (off := sample.off_balance()) is not None:
        said += f"; weights average {number(off)}, and 1 where their probabilities are right"
        if sample.estimated:
            broken.append(f"the estimated probabilities give weights of {number(off)} in the mean instead of 1")
    status: Status = "fail" if broken else "warn" if carried > min(HEAVY, limit) or ess < FEW or off else "pass"
    if status == "fail":
        return Check(NAME, "identification", "fail", said, value=largest, threshold=limit, action="stronger_design",
                     short="; ".join(broken))  # fmt: skip
    return Check(NAME, "identification", status, said, value=share(carried, 1.0), threshold=limit)
