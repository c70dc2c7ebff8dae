"""Does the log hold what the decision needs, and nothing that hides the failures?"""

from __future__ import annotations

import polars as pl

from readout.checks import controls
from readout.checks.base import listing, percent, share
from readout.controls import Later, Row, adjusted, by_name, decided_after
from readout.energy.metered import measured_apart
from readout.evidence import Evidence, arms_seen, count, rows_table
from readout.logs import Logs
from readout.logs.frame import NO_ARM, NO_TIME, OTHER_ARM, OUTSIDE, PRE_PERIOD, REASONS
from readout.logs.treated import arm_role
from readout.reduce import Table
from readout.results import Check
from readout.spec.designs import BY_ROW, PANELS, Observational
from readout.spec.model import Spec
from readout.terms import eligible_only

# Kinds of live state that a policy on shared capacity acts on, and how their columns tend to be named.
STATE_KINDS = {
    "queue": ("queue", "backlog", "waiting", "pending"),
    "cache": ("cache", "warm", "prefix"),
    "memory or load": ("kv", "memory", "mem_", "in_flight", "inflight", "concurren", "load", "util", "active", "batch"),
}
NEEDED_ON_SHARED = ("intended", "executed", "state")
# Designs whose logs may lack them: what identifies the effect is not what the policy knew.
LEFT_OUT = tuple(kind for kind in (*PANELS, *BY_ROW) if kind != "observational")
# Enough rows that no failure among them is news.
ENOUGH_ROWS = 1000
# A role that is null on a larger share of rows than this is worth a word.
MOSTLY_LOGGED = 0.95
# An adjuster that is null on so much larger a share of failed rows than of others is logged as they end; or may be.
LOST, PARTLY_LOST, FEWEST_FAILED = 0.5, 0.1, 20
SUCCEEDED = ("completed", "complete", "finished", "success", "succeeded")
FAILED = ("error", "errored", "failed", "failure", "timed_out")


def tables(spec: Spec, logs: Logs) -> list[Table]:
    """Values present by role, failures before and after the filters, and what adjusters hold."""
    present = {
        f"has {role}": count(pl.col(f"@{role}").is_not_null())
        for role in ("intended", "executed", "propensity")
        if logs.has(role)
    }
    for name in logs.columns.get("state", ()):
        present[f"has state {name}"] = count(pl.col(name).is_not_null())
    for name in _inputs(spec, logs):
        present[f"has input {name}"] = count(pl.col(name).is_not_null())
    sums = {**present, **_failed(spec, logs)}
    if logs.has("intended") and logs.has("executed"):
        moved = pl.col("@intended") != pl.col("@executed")
        sums["unexplained"] = count(moved & ~pl.col("@fallback")) if logs.has("fallback") else count(moved)
    return [rows_table(sums), *controls.tables(spec, logs)]


def required_fields(evidence: Evidence) -> Check:
    """Intended and executed action and the state before the decision, where the policy acts on shared state."""
    spec, logs = evidence.spec, evidence.logs
    kept = evidence.total("n")
    absent = [role for role in _asked_for(spec) if not _has_values(evidence, role)]
    unlogged = [name for name in spec.design.policy_inputs if name not in logs.source.schema]
    empty = [name for name in _inputs(spec, logs) if not evidence.total(f"has input {name}")]
    warnings = []
    if not any(m.role == "guardrail" for m in spec.metrics.values()):
        warnings.append("no guardrail is declared")
    if logs.has("intended") and logs.has("executed") and (n := evidence.total("unexplained")):
        warnings.append(f"{n:,} rows were executed otherwise than intended without a fallback reason")
    if spec.design.shared_state and logs.has("state"):
        names = " ".join(logs.columns["state"]).lower()
        missing = [kind for kind, words in STATE_KINDS.items() if not any(w in names for w in words)]
        warnings += [f"no {kind} state is logged" for kind in missing]
    if other := evidence.rows().dropped.get(OTHER_ARM):
        said = f"{other:,} rows carry an arm that the spec does not name and are left out"
        warnings.append(f"{said}; arms in the log: {arms_seen(evidence)}")
    if isinstance(spec.design, Observational) and (nobody := evidence.rows().dropped.get(NO_ARM)):
        warnings.append(
            f"{nobody:,} rows have no {arm_role(spec, logs.columns)} action and are left out: if the state or the "
            "choice decides who has one, those that are left are a selection"
        )
    failures = [f"the policy looks at {listing(unlogged)}, which the log does not have"] if unlogged else []
    if empty:
        failures.append(f"the policy looks at {listing(empty)}, null on every row")
    if absent and _needed(spec):
        failures.append(f"no values for {listing(absent)}, which {_needed(spec)} needs")
    elif absent:
        warnings.append(f"no values for {listing(absent)}")
    decides, apart, apart_short = measured_apart(evidence)
    if apart:
        (failures if decides else warnings).append(apart)
    for what, n in _logged(evidence).items():
        if 0 < n < MOSTLY_LOGGED * kept:
            warnings.append(f"{what} is logged on {percent(share(n, kept))} of rows only")
    if failures:
        missing = [*unlogged, *empty, *(absent if _needed(spec) else ())]
        short = f"{listing(missing)} {'is' if len(missing) == 1 else 'are'} not logged" if missing else apart_short
        return Check("required_fields", "logging", "fail", "; ".join(failures), action="instrument", short=short)
    if loose := _loose(spec, logs):
        message = (
            f"the policy looks at {listing(loose)}, logged but left out of design.adjust: what moves the outcome with "
            "it would be taken for the action's effect"
        )
        short = f"{listing(loose)} left out of design.adjust"
        return Check("required_fields", "logging", "fail", message, action="stronger_design", short=short)
    if warnings:
        return Check("required_fields", "logging", "warn", "; ".join(warnings))
    return Check(
        "required_fields", "logging", "pass", f"intended and executed action and state are logged on {kept:,} rows"
    )


def _needed(spec: Spec) -> str:
    """What cannot do without the actions and the state, in words; empty where nothing does."""
    if spec.design.kind == "observational":
        return "an observational design"
    if spec.design.kind == "ope":
        return "an off-policy evaluation"
    return "a policy on shared state" if spec.design.shared_state and spec.design.kind not in LEFT_OUT else ""


def _asked_for(spec: Spec) -> tuple[str, ...]:
    """Roles that the decision leans on; the chance of each logged action where a policy is valued by it."""
    lacks = spec.design.kind == "ope" and spec.estimator.options["propensity"] == "logged"
    return (*NEEDED_ON_SHARED, "propensity") if lacks else NEEDED_ON_SHARED


def _inputs(spec: Spec, logs: Logs) -> list[str]:
    """What the policy looks at and the log has a column for."""
    return [name for name in dict.fromkeys(spec.design.policy_inputs) if name in logs.source.schema]


def _loose(spec: Spec, logs: Logs) -> list[str]:
    """Logged policy inputs that an observational design was told not to adjust for."""
    design = spec.design
    if not isinstance(design, Observational) or design.adjust is None:
        return []
    models = {"ipw": design.adjust.propensity, "outcome_regression": design.adjust.outcome}
    used = models.get(spec.estimator.method, tuple(adjusted(spec, logs)))
    return [name for name in _inputs(spec, logs) if name not in used]


def completed_only(evidence: Evidence) -> Check:
    """The rows that failed are still there."""
    spec, logs = evidence.spec, evidence.logs
    if named := _filters(spec, logs):
        message = "; ".join(f"{where} filters on {name!r}, {said}" for where, name, said in named)
        short = f"{named[0][0]} filters on {named[0][1]!r}"
        return Check(
            "completed_only", "logging", "fail", message, value=len(named), threshold=0, action="instrument",
            short=short,
        )  # fmt: skip
    if not _failure_tests(spec, logs):
        message = "no column tells failures: map timeout, or name completed under after"
        return Check("completed_only", "logging", "skip", message)
    kept, n = evidence.total("failed"), evidence.total("may fail")
    filtered = evidence.total("failed and left out", kept=False)
    if kept == 0 and filtered > 0:
        message = f"none of {n:,} rows that count failed, although {filtered:,} failed rows were filtered out"
        return Check("completed_only", "logging", "fail", message, value=0.0, action="instrument")
    if missing := _null_on_failure(evidence):
        message = "; ".join(
            f"{name!r} is null on {percent(found)} of failed rows more than on others" for name, found in missing
        )
        worst = max(found for _, found in missing)
        if worst >= LOST:
            message += ": what is logged only of requests that end well is no fact from before"
            return Check(
                "completed_only", "logging", "fail", message, value=worst, threshold=LOST, action="instrument",
                short=listing([name for name, _ in missing]) + " null where requests failed",
            )  # fmt: skip
        return Check("completed_only", "logging", "warn", message, value=worst, threshold=LOST)
    if kept == 0 and n >= ENOUGH_ROWS:
        message = f"not one of {n:,} rows shows a failed request: make sure that failed requests are logged"
        return Check("completed_only", "logging", "warn", message, value=0.0)
    if kept == 0:
        return Check("completed_only", "logging", "skip", f"no failure among {n:,} rows, too few to tell")
    return Check(
        "completed_only",
        "logging",
        "pass",
        f"{percent(share(kept, n))} of kept rows failed and are counted",
        value=share(kept, n),
    )


def _filters(spec: Spec, logs: Logs) -> list[tuple[str, str, str]]:
    """Filters on what stands after the action: the key, the column, and what it is."""
    after = decided_after(spec, logs)
    filters = {"logs.where": spec.logs.where} | {f"metrics.{m.name}.where": m.where for m in spec.metrics.values()}
    return [
        (where, name, said)
        for where, text in filters.items()
        if text is not None
        for name in dict.fromkeys(pl.sql_expr(text).meta.root_names())
        if (said := _why_later(spec, name, after.get(name)))
    ]


def _why_later(spec: Spec, name: str, later: Later | None) -> str:
    """That a column stands after the action, and why rows cannot be chosen by it; empty where nothing says so."""
    row: Row | None = by_name(name)
    if later is not None:
        return later.said if row is None else f"{later.said}: {row.why}"
    if row is None or name in {*spec.design.policy_inputs, *spec.logs.columns.state, *spec.logs.columns.features}:
        return ""
    return f"by its name {row.row}: {row.why}"


def _null_on_failure(evidence: Evidence) -> list[tuple[str, float]]:
    """Adjusters that are null on failed rows more often than on others by a share that matters, and that share."""
    names = controls.adjusters(evidence.spec, evidence.logs)
    failed = evidence.total("all failed") if names else 0
    others = evidence.total("n") - failed
    if failed < FEWEST_FAILED or not others:
        return []
    found = []
    for name in names:
        lost = evidence.total(f"failed null {name}")
        more = share(lost, failed) - share(evidence.total(controls.null_sum(name)) - lost, others)
        if more >= PARTLY_LOST:
            found.append((name, more))
    return found


def _has_values(evidence: Evidence, role: str) -> bool:
    if not evidence.logs.has(role):
        return False
    if role != "state":
        return evidence.total(f"has {role}") > 0
    return any(evidence.total(f"has state {name}") > 0 for name in evidence.logs.columns["state"])


def _logged(evidence: Evidence) -> dict[str, int]:
    """Kept rows with a value, by role or state column."""
    logs = evidence.logs
    found = {role: evidence.total(f"has {role}") for role in ("intended", "executed") if logs.has(role)}
    found |= {repr(name): evidence.total(f"has input {name}") for name in _inputs(evidence.spec, logs)}
    return found | {repr(name): evidence.total(f"has state {name}") for name in logs.columns.get("state", ())}


def _failure_tests(spec: Spec, logs: Logs) -> list[pl.Expr]:
    """Row expressions that are true where a request failed."""
    tests = [pl.col("@timeout")] if logs.has("timeout") else []
    for name in logs.source.schema:
        if name.lower() not in SUCCEEDED + FAILED:
            continue
        dtype = logs.dtype(name)
        if dtype == pl.Boolean or dtype.is_numeric():
            true = pl.col(name) if dtype == pl.Boolean else pl.col(name) != 0
            tests.append(true if name.lower() in FAILED else ~true)
    return tests


def _failed(spec: Spec, logs: Logs) -> dict[str, pl.Expr]:
    """Failures among the rows that count, and among those of the window that were left out."""
    tests = [test.fill_null(False) for test in _failure_tests(spec, logs)]
    if not tests:
        return {}
    failed, counts = pl.any_horizontal(tests), eligible_only(spec, logs)
    names = controls.adjusters(spec, logs)
    lost = {f"failed null {name}": count(failed & controls.absent(name, logs)) for name in names}
    outside = [REASONS.index(reason) for reason in (OUTSIDE, NO_TIME, PRE_PERIOD)]
    inside = ~pl.col("@drop").is_in(outside).fill_null(False)
    by_filter = inside & (pl.col("@drop").is_not_null() | counts(pl.lit(True)).is_null())
    return {
        **lost,
        **({"all failed": count(failed)} if names else {}),
        "failed": count(counts(failed)),
        "may fail": count(counts(failed).is_not_null()),
        "failed and left out": count(failed & by_filter),
    }
