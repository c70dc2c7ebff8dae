"""Intervals that hold where the instrument is weak, or independent groups are few: Anderson and Rubin's sets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from estimators.anderson_rubin import AndersonRubin
from estimators.estimate import Estimate
from readout.memo.numbers import number

# Below so many independent groups errors by group come out too small: t intervals of 15 clusters cover 85 %.
FEW_GROUPS = 30
BY, WEAK = "interval_by", "weak"
ANDERSON_RUBIN = "anderson_rubin"


def weakness(shown: Mapping[str, Any], groups: int, limit: float) -> str:
    """Why a t interval does not hold, in words; empty where it does.

    Args:
        shown: An estimate's ``first_stage_f`` and ``first_stage_f_critical``.
        groups: Independent groups.
        limit: The effective F below which an instrument is weak.
    """
    f, critical = shown["first_stage_f"], shown["first_stage_f_critical"]
    if f is not None and f < limit:
        return f"the instrument is weak (effective F {number(f)}, below {limit:g})"
    if f is not None and critical is not None and f < critical:
        return f"the instrument may be weak (effective F {number(f)}, below the critical {number(critical)})"
    return f"there are few independent groups ({groups})" if groups < FEW_GROUPS else ""


def as_set(found: Estimate, why: str, limit: float, ratio: AndersonRubin | None) -> Estimate:
    """The estimate with the Anderson-Rubin set's ends and test in the place of the t interval's.

    Ends are infinite where the set has none. The hull of several pieces is taken, and the estimate lies in it, so that
    what is read from it is never more than the set says.

    Args:
        found: With its set in the diagnostics.
        why, limit: As :func:`weakness`.
        ratio: The set of treatment's over control's value; None: there is none.
    """
    shown = found.diagnostics[ANDERSON_RUBIN]
    ends = [(-math.inf if a is None else a, math.inf if b is None else b) for a, b in shown["segments"]]
    low, high = (ends[0][0], ends[-1][1]) if ends else (-math.inf, math.inf)
    f = found.diagnostics["first_stage_f"]
    plain = {"ci_low": found.ci_low, "ci_high": found.ci_high, "p_value": found.p_value}
    statistic = shown["statistic"]
    return replace(
        found,
        ci_low=min(low, found.estimate),
        ci_high=max(high, found.estimate),
        statistic=math.inf if statistic is None else statistic,
        df=float(shown["df"][1]),
        p_value=shown["p_value"],
        diagnostics={
            **found.diagnostics,
            BY: ANDERSON_RUBIN,
            "because": why,
            "t_interval": plain,
            WEAK: f is not None and f < limit,
        },
        **_relative(found, ratio),
    )


def _relative(found: Estimate, ratio: AndersonRubin | None) -> dict[str, Any]:
    if found.relative is None:
        return {}
    none = {"relative_ci_low": None, "relative_ci_high": None}
    if ratio is None or not ratio.bounded:
        reason = "its interval has no ends" if ratio is not None else "it has no interval where the instrument is weak"
        return {"relative": None, **none, "relative_reason": reason}
    low, high = ratio.segments[0][0] - 1.0, ratio.segments[-1][1] - 1.0
    return {"relative_ci_low": min(low, found.relative), "relative_ci_high": max(high, found.relative)}
