"""Was assignment what the design says it was?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import polars as pl

from estimators.proportions import chi_square_srm
from estimators.sequential_srm import sequential_srm
from readout.checks.base import percent, share, share_shift, threshold
from readout.evidence import Evidence, count, rows_table
from readout.logs import Logs
from readout.planned import Against
from readout.reduce import Table
from readout.results import Check, Status
from readout.samples import Blocks, RowArms
from readout.spec.model import Spec
from readout.terms import Term
from readout.text import duration, named

# Where every share is this near to its expected value (relative to it), a huge log's tiny imbalance only warns.
SMALL_DEVIATION = 0.001
# Below this many expected in an arm the chi-square approximation is not to be trusted.
FEWEST_EXPECTED = 5
# A difference of eligible shares counts from this p-value down.
ELIGIBLE_P = 0.001
ELIGIBLE = "@eligible"
ARMS_MET = "arms that units met"
# A unit with this many requests meets several arms, where requests are drawn one by one and no arm is rare.
ENOUGH_REQUESTS = 10
ENOUGH_UNITS = 10


def tables(spec: Spec, logs: Logs) -> list[Table]:
    """Rows before their assignment, treatment before its time, treatment of the ineligible."""
    sums: dict[str, pl.Expr] = {}
    treated = pl.col("@executed").is_in(list(spec.design.treatment)) if logs.has("executed") else None
    if logs.has("assigned_at") and logs.has("time"):
        early = pl.col("@time") < pl.col("@assigned_at")
        sums |= {"timed": count(early.is_not_null()), "early": count(early)}
        if treated is not None:
            sums |= {"treated": count(treated & early.is_not_null()), "treated early": count(treated & early)}
    if logs.before is not None and treated is not None:
        sums |= {"before": count(pl.col("@pre")), "treated before": count(pl.col("@pre") & treated)}
    if logs.has("eligible"):
        ineligible = ~pl.col("@eligible").fill_null(False)
        sums["not_eligible"] = count(ineligible)
        if treated is not None:
            sums["treated_not_eligible"] = count(ineligible & treated)
    found = [rows_table(sums)]
    if spec.design.kind == "request_rct" and logs.has("unit"):
        arm = pl.col("@arm_code")
        where = pl.col("@drop").is_null() & pl.col("@unit").is_not_null()
        found.append(
            Table(ARMS_MET, {"unit": pl.col("@unit").hash(0)}, where, minima={"least": arm}, maxima={"most": arm})
        )
    return found


def terms(spec: Spec, logs: Logs) -> list[Term]:
    """Eligibility as an outcome: assignment must not move it."""
    return [Term(ELIGIBLE, count(pl.col("@eligible")))] if logs.has("eligible") else []


def srm(evidence: Evidence) -> Check:
    """Sample ratio: independent assignments by arm so far against the configured split.

    Pearson's chi-square; where an arm is expected fewer than five times, exact binomial tails, Bonferroni over arms.
    Under sequential looks the test of Lindon & Malek (2022), which may be read at every look.
    """
    return sample_ratio(evidence, evidence.assigned, evidence.sample.unit)


def sample_ratio(evidence: Evidence, counts: Sequence[int], unit: str) -> Check:
    """:func:`srm` of given counts by arm of what was assigned."""
    name, spec = "srm", evidence.spec
    limit = threshold(spec, name, 0.001)
    if isinstance(evidence.sample, Blocks) and evidence.sample.assignment in ("balanced", "paired"):
        return Check(name, "assignment", "skip", "under a balanced schedule the shares are fixed, not drawn")
    total = sum(counts)
    split = spec.design.split
    weights = [1.0 if split is None else split.get(arm, 0.0) for arm in evidence.arms]
    shares = [w / sum(weights) for w in weights]
    said = f"{unit}s: " + ", ".join(
        f"{named(arm)} {n:,} ({percent(share(n, total))}, expected {percent(s)})"
        for arm, n, s in zip(evidence.arms, counts, shares, strict=True)
    )
    if sum(s > 0 for s in shares) < 2:
        return Check(name, "assignment", "skip", f"the split gives one arm everything, so nothing was drawn; {said}")
    if (kept_one_arm := _kept_one_arm(evidence, max(shares))) is not None:
        return Check(name, "assignment", "fail", kept_one_arm, action="pause")
    if evidence.sequential:
        said += "; tested for repeated looks"
    statistic, p, smallest = _tested(evidence, counts, shares)
    if smallest >= limit:
        return Check(name, "assignment", "skip", f"too few {unit}s to see any mismatch; {said}")
    numbers = (statistic, p, p, limit)
    if p >= limit:
        return Check(name, "assignment", "pass", said, *numbers)
    if all(abs(share(n, total) - s) <= SMALL_DEVIATION * s for n, s in zip(counts, shares, strict=True)):
        message = f"significant, but every share is within 0.1 % of its expected value; {said}"
        return Check(name, "assignment", "warn", message, *numbers)
    message = f"the arms are not split as configured (p = {p:.2g}); {said}"
    return Check(name, "assignment", "fail", message, *numbers, "pause")


def _tested(evidence: Evidence, counts: Sequence[int], shares: Sequence[float]) -> tuple[float | None, float, float]:
    """Statistic (the log of the Bayes factor under sequential looks), p-value, and the smallest that could be."""
    total = sum(counts)
    extremes = [[total * (i == j) for j in range(len(shares))] for i, s in enumerate(shares) if s > 0]
    statistic: float | None
    if evidence.sequential:
        statistic, p = sequential_srm(counts, shares)
        smallest = min(sequential_srm(extreme, shares)[1] for extreme in extremes)
        return (None if math.isinf(statistic) else statistic), p, smallest if p > 0.0 else 0.0
    statistic, _, p = chi_square_srm(counts, shares)
    if math.isinf(statistic):
        return None, p, 0.0
    if min(total * s for s in shares if s > 0) < FEWEST_EXPECTED:
        return None, _exact_p(counts, shares), min(_exact_p(extreme, shares) for extreme in extremes)
    return statistic, p, 0.0


def _exact_p(counts: Sequence[int], shares: Sequence[float]) -> float:
    """Smallest two-sided binomial p-value of an arm's count, times the number of arms."""
    from scipy.special import bdtr, bdtrc

    n, k, s = sum(counts), np.asarray(counts, dtype=float), np.asarray(shares, dtype=float)
    above = np.where(k > 0, bdtrc(np.maximum(k - 1, 0), n, s), 1.0)
    tails = np.minimum(bdtr(k, n, s), above)[s > 0]
    return float(min(1.0, 2.0 * tails.min() * len(tails)))


def _kept_one_arm(evidence: Evidence, largest_share: float) -> str | None:
    """That units keep one arm although requests are said to be drawn one by one; None where they do not."""
    if ARMS_MET not in evidence.tables:
        return None
    busy = evidence.tables[ARMS_MET].filter(pl.col("n") >= ENOUGH_REQUESTS)
    if len(busy) < ENOUGH_UNITS:
        return None
    single = float((busy["least"] == busy["most"]).mean())  # type: ignore[arg-type]
    by_chance = largest_share**ENOUGH_REQUESTS
    if single <= max(0.5, 2 * by_chance):
        return None
    return (
        f"{percent(single)} of {len(busy):,} units with {ENOUGH_REQUESTS} requests or more met one arm only: "
        "units were randomized, not requests; say design.kind: user_rct"
    )


def eligibility(evidence: Evidence) -> Check:
    """Eligibility is fixed before assignment: its share must not differ by arm, and the ineligible are not treated."""
    name, logs = "eligibility", evidence.logs
    if not logs.has("eligible"):
        return Check(name, "assignment", "skip", "no column for the role 'eligible'")
    limit = threshold(evidence.spec, name, 0.01)
    kept, ineligible = evidence.total("n"), evidence.total("not_eligible")
    codes = range(len(evidence.arms))
    treated = [evidence.total("treated_not_eligible", a) if logs.has("executed") else 0 for a in codes]
    by_arm = [(share(treated[a], evidence.total("not_eligible", a)), a) for a in codes]
    value, worst = max(by_arm)
    if value > limit:
        n = evidence.total("not_eligible", worst)
        rows = f"{treated[worst]:,} of {n:,} ineligible rows of {named(evidence.arms[worst])}"
        message = f"{rows} were treated ({percent(value)})"
        return Check(name, "assignment", "fail", message, None, None, value, limit, "pause")
    shifts = [(shift, evidence.arms[a]) for a in evidence.treatments if (shift := share_shift(evidence, ELIGIBLE, a))]
    moved = [(s, arm) for s, arm in shifts if s.p_value * len(shifts) < ELIGIBLE_P and abs(s.estimate) > limit]
    if moved:
        shift, _ = max(moved, key=lambda found: abs(found[0].estimate))
        said = "; ".join(f"the eligible share under {named(arm)} differs by {_points(s.estimate)}" for s, arm in moved)
        numbers = (shift.statistic, shift.p_value * len(shifts), abs(shift.estimate), limit)
        return Check(name, "assignment", "fail", f"{said}: it depends on the arm", *numbers, "pause")
    if ineligible == 0:
        return Check(name, "assignment", "pass", f"all {kept:,} assigned rows are eligible", value=0.0, threshold=limit)
    message = f"{percent(share(kept - ineligible, kept))} of rows are eligible"
    if logs.has("executed"):
        message += f"; {sum(treated):,} ineligible rows were treated"
    if not shifts:
        return Check(name, "assignment", "pass", message)
    largest, arm = max(shifts, key=lambda found: abs(found[0].estimate))
    p = min(1.0, largest.p_value * len(shifts))
    message += f"; under {named(arm)} the share differs by {_points(largest.estimate)} (p = {p:.2g})"
    return Check(name, "assignment", "pass", message, largest.statistic, p, abs(largest.estimate), limit)


def _points(difference: float) -> str:
    return f"{100 * difference:+.2g} points"


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
    if isinstance(evidence.sample, Blocks):
        if evidence.sample.plan is not None:
            return _as_planned(evidence.sample.plan, limit)
        kept = evidence.rows().kept
        off = evidence.sample.off_block_rows
        value = share(off, kept + off)
        message = f"{percent(value)} of rows carry another arm than their block's"
        if value > limit:
            message += ": the arm does not change where design.block says"
            if not evidence.logs.has("cluster"):
                message += ", or clusters switch apart and logs.columns.cluster does not name them"
            return Check("treatment_start", "assignment", "fail", message, value=value, threshold=limit, action="pause")
        if (runs := evidence.sample.drawn_every()) > 1:
            length = evidence.sample.length
            of = "" if length is None else f" of {duration(length)}"
            longer = "" if length is None else f", {duration(runs * length)} long,"
            message = (
                f"the arm changes only where {runs} blocks{of} have passed: errors that take every block for a draw "
                f"of its own are too small; state the blocks{longer} that were drawn (design.block)"
            )
            return Check("treatment_start", "assignment", "fail", message, value=runs, threshold=1.0, action="pause")
        return Check("treatment_start", "assignment", "pass", message, value=value, threshold=limit)
    if "treated before" in evidence.tables["rows"].columns:
        before, treated = (evidence.total(name, kept=False) for name in ("before", "treated before"))
        if (value := share(treated, before)) > limit:
            message = f"{treated:,} of {before:,} rows of the pre-period were treated ({percent(value)}): it is no time"
            numbers = (None, None, value, limit)
            return Check("treatment_start", "assignment", "fail", f"{message} before treatment", *numbers, "pause")
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


def _as_planned(plan: Against, limit: float) -> Check:
    """Logged arms against the schedule's, by rows; blocks that only one of them has are warned of."""
    name = "treatment_start"
    if plan.rows == 0:
        message = f"none of the {plan.unplanned:,} logged blocks is in the schedule"
        return Check(name, "assignment", "fail", message, value=1.0, threshold=limit, action="pause")
    value = share(plan.off_rows, plan.rows)
    said = f"{plan.off_rows:,} of {plan.rows:,} rows carry another arm than the schedule's ({percent(value)})"
    if plan.off_rows:
        said += f", in {plan.off_blocks:,} block{'s' * (plan.off_blocks != 1)}; the first is {plan.first}"
    gaps = []
    if plan.unplanned:
        gaps.append(f"{plan.unplanned:,} logged blocks ({plan.unplanned_rows:,} rows) are not in the schedule")
    if plan.absent:
        gaps.append(f"{plan.absent:,} planned blocks have no row")
    message = "; ".join([said, *gaps])
    if value > limit:
        return Check(name, "assignment", "fail", message, value=value, threshold=limit, action="pause")
    status: Status = "warn" if plan.off_rows or gaps else "pass"
    return Check(name, "assignment", status, message, value=value, threshold=limit)


def arm_contamination(evidence: Evidence) -> Check:
    """Randomized units that carry two arms."""
    if isinstance(evidence.sample, RowArms):
        return Check("arm_contamination", "assignment", "skip", "each row is a unit of its own and carries one arm")
    limit = threshold(evidence.spec, "arm_contamination", 0.01)
    mixed, total = evidence.sample.mixed()
    value = share(mixed, total)
    message = f"{mixed:,} of {total:,} {evidence.sample.unit}s carry more than one arm ({percent(value)})"
    if value > limit:
        return Check("arm_contamination", "assignment", "fail", message, value=value, threshold=limit, action="pause")
    return Check("arm_contamination", "assignment", "pass", message, value=value, threshold=limit)
