"""Was assignment what the design says it was?"""

from __future__ import annotations

import polars as pl

from estimators.proportions import chi_square_srm
from readout.checks.base import percent, share, threshold
from readout.evidence import Evidence, count, rows_table
from readout.logs import Logs
from readout.reduce import Table
from readout.results import Check
from readout.spec.designs import Switchback
from readout.spec.model import Spec
from readout.terms import Term

# Where every share is this near to its expected value, a huge log's tiny imbalance only warns.
SMALL_DEVIATION = 0.001
ELIGIBLE = "@eligible"


def tables(spec: Spec, logs: Logs) -> list[Table]:
    """Rows before their assignment, treatment before its time, treatment of the ineligible."""
    sums: dict[str, pl.Expr] = {}
    treated = pl.col("@executed").is_in(list(spec.design.treatment)) if logs.has("executed") else None
    if logs.has("assigned_at") and logs.has("time"):
        early = pl.col("@time") < pl.col("@assigned_at")
        sums |= {"timed": count(early.is_not_null()), "early": count(early)}
        if treated is not None:
            sums |= {"treated": count(treated & early.is_not_null()), "treated early": count(treated & early)}
    if logs.has("eligible"):
        ineligible = ~pl.col("@eligible").fill_null(False)
        sums["not_eligible"] = count(ineligible)
        if treated is not None:
            sums["treated_not_eligible"] = count(ineligible & treated)
    return [rows_table(sums)]


def terms(spec: Spec, logs: Logs) -> list[Term]:
    """Eligibility as an outcome: assignment must not move it."""
    return [Term(ELIGIBLE, pl.col("@eligible").cast(pl.Int64))] if logs.has("eligible") else []


def srm(evidence: Evidence) -> Check:
    """Sample ratio: independent assignments by arm against the configured split (Pearson's chi-square)."""
    spec = evidence.spec
    limit = threshold(spec, "srm", 0.001)
    if isinstance(spec.design, Switchback) and spec.design.assignment in ("balanced", "paired"):
        return Check("srm", "assignment", "skip", "under a balanced schedule the shares are fixed, not drawn")
    counts = evidence.sample.counts()
    total = sum(counts)
    split = spec.design.split
    weights = [1.0 if split is None else split.get(arm, 0.0) for arm in evidence.arms]
    shares = [w / sum(weights) for w in weights]
    said = ", ".join(
        f"{arm} {n:,} ({percent(share(n, total))}, expected {percent(s)})"
        for arm, n, s in zip(evidence.arms, counts, shares, strict=True)
    )
    if min(total * s for s in shares if s > 0) < 5:
        return Check("srm", "assignment", "skip", f"too few {evidence.sample.unit}s for a chi-square test: {said}")
    statistic, _, p = chi_square_srm(counts, shares)
    far = max(abs(share(n, total) - s) for n, s in zip(counts, shares, strict=True))
    if p >= limit:
        return Check("srm", "assignment", "pass", f"{evidence.sample.unit}s: {said}", statistic, p, far, limit)
    if far <= SMALL_DEVIATION:
        return Check(
            "srm",
            "assignment",
            "warn",
            f"significant but within 0.1 %; {evidence.sample.unit}s: {said}",
            statistic,
            p,
            far,
            limit,
        )
    message = f"the arms are not split as configured; {evidence.sample.unit}s: {said}"
    return Check("srm", "assignment", "fail", message, statistic, p, far, limit, "pause")


def eligibility(evidence: Evidence) -> Check:
    """Eligibility is fixed before assignment: its share must not differ by arm, and the ineligible are not treated."""
    logs = evidence.logs
    if not logs.has("eligible"):
        return Check("eligibility", "assignment", "skip", "no column for the role 'eligible'")
    limit = threshold(evidence.spec, "eligibility", 0.01)
    kept, ineligible = evidence.total("n"), evidence.total("not_eligible")
    treated = evidence.total("treated_not_eligible") if logs.has("executed") else 0
    if share(treated, ineligible) > limit:
        message = f"{treated:,} of {ineligible:,} ineligible rows were treated ({percent(share(treated, ineligible))})"
        return Check(
            "eligibility",
            "assignment",
            "fail",
            message,
            value=share(treated, ineligible),
            threshold=limit,
            action="pause",
        )
    moved = []
    for arm in evidence.treatments:
        effect = evidence.effect(ELIGIBLE, arm)
        if effect is not None and effect.p_value < 0.001 and abs(effect.estimate) > limit:
            moved.append((effect, evidence.arms[arm]))
    if moved:
        effect, name = moved[0]
        message = f"the eligible share under {name} differs by {percent(effect.estimate)}: it depends on the arm"
        return Check(
            "eligibility",
            "assignment",
            "fail",
            message,
            effect.statistic,
            effect.p_value,
            abs(effect.estimate),
            limit,
            "pause",
        )
    if ineligible == 0:
        return Check("eligibility", "assignment", "pass", f"all {kept:,} assigned rows are eligible")
    return Check(
        "eligibility",
        "assignment",
        "pass",
        f"{percent(share(kept - ineligible, kept))} of rows are eligible; {treated:,} ineligible rows were treated",
    )


def exposure_time(evidence: Evidence) -> Check:
    """Rows that stand before their own assignment."""
    if "timed" not in evidence.tables["rows"].columns:
        return Check("exposure_time", "assignment", "skip", "needs the roles 'time' and 'assigned_at'")
    limit = threshold(evidence.spec, "exposure_time", 0.01)
    timed, early = evidence.total("timed"), evidence.total("early")
    if timed == 0:
        return Check("exposure_time", "assignment", "skip", "no row has both a time and an assignment time")
    value = share(early, timed)
    message = f"{early:,} of {timed:,} rows stand before their assignment ({percent(value)})"
    if value > limit:
        return Check("exposure_time", "assignment", "fail", message, value=value, threshold=limit, action="pause")
    return Check("exposure_time", "assignment", "pass", message, value=value, threshold=limit)


def treatment_start(evidence: Evidence) -> Check:
    """Executed treatment begins with assignment, not before; in a switchback with the block."""
    limit = threshold(evidence.spec, "treatment_start", 0.01)
    if isinstance(evidence.spec.design, Switchback):
        kept = evidence.rows().kept
        off = evidence.left_out.get("arm differs from its block's", 0)
        value = share(off, kept + off)
        message = f"{percent(value)} of rows carry another arm than their block's"
        if value > limit:
            message += ": the arm does not change where design.block says"
            return Check("treatment_start", "assignment", "fail", message, value=value, threshold=limit, action="pause")
        return Check("treatment_start", "assignment", "pass", message, value=value, threshold=limit)
    if "treated early" not in evidence.tables["rows"].columns:
        return Check("treatment_start", "assignment", "skip", "needs the roles 'time', 'assigned_at' and 'executed'")
    treated, early = evidence.total("treated"), evidence.total("treated early")
    if treated == 0:
        return Check("treatment_start", "assignment", "skip", "no row was treated")
    value = share(early, treated)
    message = f"{early:,} of {treated:,} treated rows were treated before their assignment ({percent(value)})"
    if value > limit:
        return Check("treatment_start", "assignment", "fail", message, value=value, threshold=limit, action="pause")
    return Check("treatment_start", "assignment", "pass", message, value=value, threshold=limit)


def arm_contamination(evidence: Evidence) -> Check:
    """Randomized units that carry two arms."""
    if evidence.sample.unit in ("request", "row"):
        return Check("arm_contamination", "assignment", "skip", "each row is a unit of its own and carries one arm")
    limit = threshold(evidence.spec, "arm_contamination", 0.01)
    mixed, total = evidence.sample.mixed()
    value = share(mixed, total)
    message = f"{mixed:,} of {total:,} {evidence.sample.unit}s carry more than one arm ({percent(value)})"
    if value > limit:
        return Check("arm_contamination", "assignment", "fail", message, value=value, threshold=limit, action="pause")
    return Check("arm_contamination", "assignment", "pass", message, value=value, threshold=limit)
