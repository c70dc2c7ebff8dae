"""Are the logged probabilities those with which the logging policy drew, and do a few requests carry the estimate?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from estimators import holm
from estimators.inference import two_sided_p
from readout.checks.base import percent, share, threshold
from readout.evidence import Evidence
from readout.logs.frame import NO_CHANCE
from readout.memo.numbers import number
from readout.results import Check
from readout.samples.off_policy import OffPolicy
from readout.samples.policy_cells import ACTION, GROUP, GROUPS, LOGGED, MOVED, listed
from readout.samples.policy_support import SURE
from readout.text import named

NAME = "propensity_calibration"
# How far a mean of inverse propensities may lie from 1: a tenth is a wrong policy, a hundredth is rounding.
APART, ROUNDING = 0.05, 0.01
# Rows of an action in a part of the states below which its mean says nothing.
FEWEST = 30
EXACT = 1e-9
LEVEL = 0.01
NAMED = 3
SELDOM = ", or it had no chance in some of these states"
# Rows without a valid probability that are no accident.
INVALID = 0.01


@dataclass(frozen=True, slots=True)
class Held:
    """An action's mean of ``1{A = a} / p`` in a part of the states, which is the share of requests on which it had a
    chance: never above 1 where the probabilities are right. Of two actions also its requests over the sum of its
    probabilities on all of them, ``p`` where it ran and ``1 - p`` where the other did: 1 where they are right.

    Attributes:
        where: The part in words; empty: all.
        code, action: Of the action, and its label.
        rows: Requests in the part, but for those on which another action was certain.
        tries: On which the action ran.
        mean, std_error, p_value: Of the mean, or of the ratio, against 1.
        both: Whether it is the ratio.
    """

    where: str
    code: int
    action: str
    rows: float
    tries: float
    mean: float
    std_error: float
    p_value: float
    both: bool = False


def propensity_calibration(evidence: Evidence) -> Check:
    """Logged probabilities against how often actions ran, for every action, over all states and in parts of them.

    By groups of units, so that units whose requests share one draw are no false alarm.
    """
    sample = evidence.sample
    assert isinstance(sample, OffPolicy)
    if sample.estimated:
        message = "propensities were estimated from these actions, so that they agree with them by construction"
        return Check(NAME, "identification", "skip", message)
    if not sample.propensity:
        return Check(NAME, "identification", "skip", "the log has no probability of the logged action")
    limit = threshold(evidence.spec, NAME, APART)
    lost = evidence.rows().dropped.get(NO_CHANCE, 0)
    if (missing := share(lost, lost + evidence.total("n"))) > INVALID:
        message = f"{percent(missing)} of requests have no probability of the logged action in (0, 1]"
        return Check(
            NAME, "identification", "fail", message, value=missing, threshold=INVALID, action="instrument",
            short=f"{percent(missing)} of requests have no valid probability",
        )  # fmt: skip
    found = list(_tests(sample, evidence.tables[LOGGED]))
    if not found:
        message = f"no action ran {FEWEST} times, or its requests are of too few units"
        return Check(NAME, "identification", "skip", message)
    adjusted = holm([one.p_value for one in found])
    least = _least_chances(evidence.tables[LOGGED])
    apart_at_all = min(ROUNDING, limit)
    beyond = [
        (one, float(p))
        for one, p in zip(found, adjusted, strict=True)
        if p < LEVEL
        and abs(one.mean - 1.0) > apart_at_all
        and (one.both or one.mean > 1.0 or (1.0 - one.mean) * one.rows * least[one.code] >= SURE)
    ]
    # Of two actions the chance of either is known on every request. A mean of inverses below 1 is no proof: the action
    # may have had no chance, or its smallest chances, which weigh most, did not come up yet.
    two = len(sample.target.actions) == 2
    apart = [one for one, _ in beyond if (abs(one.mean - 1.0) if one.both else one.mean - 1.0) > limit]
    wrong = sorted(apart, key=lambda one: -_weight(one))
    worst = max(found, key=lambda one: abs(one.mean - 1.0) if one.p_value < LEVEL else 0.0)
    details = {
        NAME: [_row(one, float(p)) for one, p in zip(found, adjusted, strict=True) if not one.where or p < LEVEL]
    }
    changed = _changed(evidence.tables[LOGGED])
    smallest = float(min(adjusted))
    numbers = (None, smallest, worst.mean - 1.0 if beyond else None, limit)
    if wrong:
        message = "; ".join(_said(one) for one in wrong[:NAMED])
        more = f"; and in {len(wrong) - NAMED} more places" if len(wrong) > NAMED else ""
        text = f"the logged probabilities are not those of the policy that drew: {message}{more}{changed}"
        return Check(NAME, "identification", "fail", text, *numbers, "instrument", details, _short(wrong[0]))
    if beyond or lost or changed:
        parts = [_said(one) + (SELDOM if one.mean < 1.0 and not two else "") for one, _ in beyond[:NAMED]]
        parts += [f"{lost:,} requests without a probability in (0, 1] are left out"] if lost else []
        said = ("; ".join(parts) + changed).removeprefix("; ")
        return Check(NAME, "identification", "warn", said, *numbers, None, details)
    message = (
        f"every action ran as often as its logged probability says, over all requests and by state ({len(found)} tests)"
    )
    return Check(NAME, "identification", "pass", message, *numbers, None, details)


def _changed(frame: pl.DataFrame) -> str:
    """That what ran is often not what was drawn; empty where it is, or is not logged."""
    if MOVED not in frame.columns or not (moved := share(float(frame[MOVED].sum()), float(frame["n"].sum()))) > INVALID:
        return ""
    said = "the executed action is not the intended one: the probability must be that of what ran"
    return f"; on {percent(moved)} of requests {said}"


def _weight(one: Held) -> float:
    return abs(one.mean - 1.0) * one.rows


def _tests(sample: OffPolicy, frame: pl.DataFrame) -> Iterator[Held]:
    """Every action over all states, and in each part of every column."""
    yield from _within(sample, frame, "")
    for key, axis in zip(sample.cells.columns, sample.cells.axes, strict=True):
        for part, rows in sorted(frame.partition_by(key, as_dict=True).items(), key=lambda kv: str(kv[0])):
            yield from _within(sample, rows, axis.said(part[0]))


def _within(sample: OffPolicy, frame: pl.DataFrame, where: str) -> Iterator[Held]:
    """Every action in a part of the states, on the requests where another action was not certain."""
    size = len(sample.target.actions)
    n, inverse, left, certain = (_by_action(frame, name, size) for name in ("n", "inverse", "left", "certain"))
    rows, shut = n.sum(axis=0), certain.sum(axis=0)
    for code, action in listed(sample.target):
        if (tries := float(n[code].sum())) < FEWEST:
            continue
        open_to = rows - (shut - certain[code])
        if found := _held(where, code, action, tries, inverse[code], open_to, open_to):
            yield found
        if size == 2:
            expected = n[code] - left[code] + left[1 - code]
            if found := _held(where, code, action, tries, n[code], expected, open_to):
                yield replace(found, both=True)


def _held(
    where: str, code: int, action: str, tries: float, above: NDArray[np.float64], below: NDArray[np.float64],
    rows: NDArray[np.float64],
) -> Held | None:  # fmt: skip
    """The ratio of two sums over groups of units, against 1; None of fewer than two groups."""
    seen = rows > 0.0
    if (groups := int(seen.sum())) < 2 or not (total := float(below.sum())) > 0.0:
        return None
    mean = float(above.sum()) / total
    rest = (above - mean * below)[seen]
    error = math.sqrt(groups / (groups - 1.0) * float(rest @ rest)) / total
    if not error > 0.0:
        p = 1.0 if abs(mean - 1.0) < EXACT else 0.0
    else:
        p = two_sided_p((mean - 1.0) / error, groups - 1.0)
    return Held(where, code, action, float(rows.sum()), tries, mean, error, p)


def _least_chances(frame: pl.DataFrame) -> dict[int, float]:
    """The smallest mean probability of every action in a group of a cell: what it lacks where it ran too seldom, at
    that chance, must make a number of tries that chance does not miss."""
    tried = frame.filter(pl.col("inverse") > 0.0).group_by(ACTION).agg((pl.col("n") / pl.col("inverse")).min())
    return {code: chance for code, chance in tried.iter_rows() if code is not None}


def _by_action(frame: pl.DataFrame, name: str, size: int) -> NDArray[np.float64]:
    """``(actions, groups)`` sums."""
    total = np.zeros((size, GROUPS))
    at = frame[ACTION].to_numpy().astype(np.intp), frame[GROUP].to_numpy().astype(np.intp)
    np.add.at(total, at, frame[name].to_numpy())
    return total


def _said(one: Held) -> str:
    """How often an action ran against what its probabilities say."""
    where = f" where {one.where}" if one.where else ""
    frequency = one.tries / one.rows
    return (
        f"{named(one.action)} ran on {percent(frequency)} of requests{where}, and its logged probabilities say "
        f"{percent(frequency / one.mean) if one.mean > 0.0 else 'none'} "
        f"({'ratio' if one.both else 'mean inverse'} {number(one.mean)}, std. error {number(one.std_error, 2)})"
    )


def _short(one: Held) -> str:
    where = f" where {one.where}" if one.where else ""
    return f"{named(one.action)} ran {number(one.mean)} times as often as logged{where}"


def _row(one: Held, p: float) -> dict[str, Any]:
    frequency = one.tries / one.rows
    return {
        "where": one.where,
        "action": one.action,
        "requests": one.rows,
        "frequency": frequency,
        "logged": frequency / one.mean if one.mean > 0.0 else None,
        "ratio" if one.both else "mean_inverse": one.mean,
        "std_error": one.std_error,
        "p_value": p,
    }
