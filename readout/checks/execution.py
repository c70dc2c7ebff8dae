"""Did what ran match what was decided?"""

from __future__ import annotations

import polars as pl

from readout.checks.base import percent, share, share_shift, threshold
from readout.evidence import Evidence, count, rows_table
from readout.logs import Logs
from readout.reduce import Table
from readout.results import Action, Check, Status
from readout.spec.model import Spec
from readout.terms import FALLBACK, RETRIES, TIMEOUT, Term, eligible_only
from readout.text import named

WARN_DIVERGENCE = 0.05
FAIL_DIVERGENCE = 0.20
# A difference between arms is worth a warning from one point on.
ONE_POINT = 0.01


def tables(spec: Spec, logs: Logs) -> list[Table]:
    """Rows executed otherwise than intended; workflows by the arms they met."""
    found = []
    if logs.has("intended") and logs.has("executed"):
        differ = pl.col("@intended") != pl.col("@executed")
        if logs.has("eligible"):  # who may not be treated cannot fail to be
            differ = pl.when(pl.col("@eligible").fill_null(False)).then(differ)
        found.append(rows_table({"both actions": count(differ.is_not_null()), "diverged": count(differ)}))
    if _mixes_workflows(spec, logs):
        met = eligible_only(spec, logs)(pl.lit(True)).fill_null(False)
        where = pl.col("@drop").is_null() & pl.col("@workflow").is_not_null() & met
        arm = pl.col("@arm_code")
        keys = {"workflow": pl.col("@workflow").hash(0)}
        found.append(Table("workflows", keys, where, minima={"least": arm}, maxima={"most": arm}))
    return found


def terms(spec: Spec, logs: Logs) -> list[Term]:
    """Fallbacks, timeouts and retries as outcomes."""
    mask = eligible_only(spec, logs)
    found = []
    if logs.has("fallback"):
        found.append(Term(FALLBACK, mask(count(pl.col("@fallback")))))
    if logs.has("timeout"):
        found.append(Term(TIMEOUT, mask(pl.col("@timeout").cast(pl.Int64))))
    if logs.has("retries"):
        found.append(Term(RETRIES, mask((pl.col("@retries") > 0).cast(pl.Int64))))
    return found


def execution_divergence(evidence: Evidence) -> Check:
    """Share of treated rows whose executed action differs from the intended one."""
    if "diverged" not in evidence.tables["rows"].columns:
        return Check("execution_divergence", "execution", "skip", "needs the roles 'intended' and 'executed'")
    limit = threshold(evidence.spec, "execution_divergence", FAIL_DIVERGENCE)
    values: dict[str, float] = {}
    said = []
    for arm in evidence.treatments:
        known, diverged = evidence.total("both actions", arm), evidence.total("diverged", arm)
        if known:
            label = evidence.arms[arm]
            values[label] = share(diverged, known)
            of = f" of {named(label)}" if len(evidence.treatments) > 1 else ""
            text = f"{diverged:,} of {known:,} treated rows{of} were executed otherwise than intended"
            said.append(f"{text} ({percent(values[label])})")
    if not values:
        return Check("execution_divergence", "execution", "skip", "no treated row has both actions")
    by_arm = {label: _divergence_status(value, limit) for label, value in values.items()}
    value, message = max(values.values()), "; ".join(said)
    status = _divergence_status(value, limit)
    action: Action | None = "ramp" if status == "fail" else None
    if status == "fail":
        message += "; the effects are of the intention to treat"
    details = {"by_arm": by_arm}
    return Check("execution_divergence", "execution", status, message, None, None, value, limit, action, details)


def _divergence_status(value: float, limit: float) -> Status:
    return "fail" if value > limit else "warn" if value > min(WARN_DIVERGENCE, limit) else "pass"


def fallback(evidence: Evidence) -> Check:
    """Fallbacks by arm."""
    return _difference(evidence, "fallback", {"fallbacks": FALLBACK})


def timeouts_and_retries(evidence: Evidence) -> Check:
    """Timeouts and retried requests by arm."""
    return _difference(evidence, "timeouts_and_retries", {"timeouts": TIMEOUT, "retried requests": RETRIES})


def mixed_experience(evidence: Evidence) -> Check:
    """Workflows that met both arms, where users can see the difference."""
    if not evidence.spec.design.user_visible:
        return Check(
            "mixed_experience",
            "execution",
            "skip",
            "the change is not said to be visible to users (design.user_visible)",
        )
    if "workflows" not in evidence.tables:
        return Check(
            "mixed_experience", "execution", "skip", "needs the role 'workflow'; a unit keeps one arm elsewhere"
        )
    frame = evidence.tables["workflows"]
    if frame.is_empty():
        return Check("mixed_experience", "execution", "skip", "no kept row names its workflow")
    mixed = int((frame["least"] != frame["most"]).sum())
    value = share(mixed, len(frame))
    limit = threshold(evidence.spec, "mixed_experience", 0.05)
    message = f"{mixed:,} of {len(frame):,} workflows met both arms ({percent(value)})"
    return Check(
        "mixed_experience", "execution", "warn" if value > limit else "pass", message, value=value, threshold=limit
    )


def _mixes_workflows(spec: Spec, logs: Logs) -> bool:
    return bool(spec.design.user_visible) and logs.has("workflow") and spec.design.kind in ("request_rct", "switchback")


def _difference(evidence: Evidence, name: str, wanted: dict[str, str]) -> Check:
    """Warns where an arm's share differs from control's significantly (Bonferroni) and by a point or more."""
    limit = threshold(evidence.spec, name, ONE_POINT)
    present = {word: term for word, term in wanted.items() if term in evidence.terms}
    if not present:
        return Check(name, "execution", "skip", "no such column is mapped")
    tests = len(present) * len(evidence.treatments)
    said, found = [], []
    for word, term in present.items():
        for arm in evidence.treatments:
            shift = share_shift(evidence, term, arm)
            if shift is None:
                said.append(f"{word}: {evidence.why_not(term, arm)}")
                continue
            shares = [share(*evidence.sample.arm_total(evidence.terms[term], code)) for code in (arm, 0)]
            label = named(evidence.arms[arm])
            said.append(f"{word}: {percent(shares[0])} under {label}, {percent(shares[1])} under control")
            p = min(1.0, tests * shift.p_value)
            warns = p < evidence.spec.decision.alpha and abs(shift.estimate) >= limit
            found.append((warns, abs(shift.estimate), shift.statistic, p))
    if not found:
        return Check(name, "execution", "skip", "; ".join(said))
    warns, size, statistic, p = max(found, key=lambda one: one[:2])
    return Check(name, "execution", "warn" if warns else "pass", "; ".join(said), statistic, p, size, limit)
