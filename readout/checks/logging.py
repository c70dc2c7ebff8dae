"""Does the log hold what the decision needs, and nothing that hides the failures?"""

from __future__ import annotations

import polars as pl

from readout.checks.base import listing, percent, share
from readout.evidence import Evidence, arms_seen, count, rows_table
from readout.logs import Logs
from readout.logs.frame import NO_TIME, OTHER_ARM, OUTSIDE, PRE_PERIOD, REASONS, drawn_within
from readout.reduce import Table
from readout.results import Check
from readout.samples import Units
from readout.spec.model import Spec
from readout.terms import COVARIATE, eligible_only

# Kinds of live state that a policy on shared capacity acts on, and how their columns tend to be named.
STATE_KINDS = {
    "queue": ("queue", "backlog", "waiting", "pending"),
    "cache": ("cache", "warm", "prefix"),
    "memory or load": ("kv", "memory", "mem_", "in_flight", "inflight", "concurren", "load", "util", "active", "batch"),
}
NEEDED_ON_SHARED = ("intended", "executed", "state")
# Enough rows that no failure among them is news.
ENOUGH_ROWS = 1000
# A role that is null on a larger share of rows than this is worth a word.
MOSTLY_LOGGED = 0.95
SUCCEEDED = ("completed", "complete", "finished", "success", "succeeded")
FAILED = ("error", "errored", "failed", "failure", "timed_out")


def tables(spec: Spec, logs: Logs) -> list[Table]:
    """Values present by role, and failures before and after the filters."""
    present = {
        f"has {role}": count(pl.col(f"@{role}").is_not_null()) for role in ("intended", "executed") if logs.has(role)
    }
    for name in logs.columns.get("state", ()):
        present[f"has state {name}"] = count(pl.col(name).is_not_null())
    sums = {**present, **_failed(spec, logs)}
    if logs.has("intended") and logs.has("executed"):
        moved = pl.col("@intended") != pl.col("@executed")
        sums["unexplained"] = count(moved & ~pl.col("@fallback")) if logs.has("fallback") else count(moved)
    return [rows_table(sums)]


def required_fields(evidence: Evidence) -> Check:
    """Intended and executed action and the state before the decision, where the policy acts on shared state."""
    spec, logs = evidence.spec, evidence.logs
    kept = evidence.total("n")
    absent = [role for role in NEEDED_ON_SHARED if not _has_values(evidence, role)]
    unlogged = [name for name in spec.design.policy_inputs if name not in logs.source.schema]
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
    failures = [f"the policy looks at {listing(unlogged)}, which the log does not have"] if unlogged else []
    if absent and spec.design.shared_state:
        failures.append(f"no values for {listing(absent)}, which a policy on shared state needs")
    elif absent:
        warnings.append(f"no values for {listing(absent)}")
    for what, n in _logged(evidence).items():
        if 0 < n < MOSTLY_LOGGED * kept:
            warnings.append(f"{what} is logged on {percent(share(n, kept))} of rows only")
    if failures:
        return Check("required_fields", "logging", "fail", "; ".join(failures), action="instrument")
    if warnings:
        return Check("required_fields", "logging", "warn", "; ".join(warnings))
    return Check(
        "required_fields", "logging", "pass", f"intended and executed action and state are logged on {kept:,} rows"
    )


def bad_controls(evidence: Evidence) -> Check:
    """No column that stands after the action is declared as known before it."""
    spec, logs = evidence.spec, evidence.logs
    before = [*logs.columns.get("state", ()), *logs.columns.get("features", ()), *spec.design.policy_inputs]
    after = _decided_after(spec, logs)
    wrong = [name for name in dict.fromkeys(before) if name in after]
    if fixed := dict.fromkeys([*_covariates(spec), *(name for _, name in drawn_within(spec))]):
        # Whatever else it is, what a metric measures is no fact from before the experiment.
        after = {**_measured(spec), **after}
        wrong += [name for name in fixed if name in after and name not in wrong]
        before += fixed
    if not before:
        return Check("bad_controls", "logging", "skip", "no state, features or policy inputs are declared")
    if wrong:
        said = "; ".join(f"{name!r} is {after[name]}" for name in wrong)
        message = f"declared as known before the decision, but decided after it: {said}"
        return Check("bad_controls", "logging", "fail", message, value=len(wrong), threshold=0, action="instrument")
    if varying := _varying(evidence):
        message = f"no fact from before the experiment, for it varies within units: {'; '.join(varying)}"
        return Check("bad_controls", "logging", "warn", message, value=len(varying), threshold=0)
    return Check(
        "bad_controls", "logging", "pass", f"none of the {len(before)} pre-decision columns is decided after the action"
    )


def completed_only(evidence: Evidence) -> Check:
    """The rows that failed are still there."""
    spec, logs = evidence.spec, evidence.logs
    after = _decided_after(spec, logs)
    filters = {"logs.where": spec.logs.where} | {f"metrics.{m.name}.where": m.where for m in spec.metrics.values()}
    named = [
        f"{where} filters on {name!r}, {after[name]}"
        for where, text in filters.items()
        if text is not None
        for name in dict.fromkeys(pl.sql_expr(text).meta.root_names())
        if name in after
    ]
    if named:
        return Check(
            "completed_only", "logging", "fail", "; ".join(named), value=len(named), threshold=0, action="instrument"
        )
    if not _failure_tests(spec, logs):
        message = "no column tells failures: map timeout, or name completed under after"
        return Check("completed_only", "logging", "skip", message)
    kept, n = evidence.total("failed"), evidence.total("may fail")
    filtered = evidence.total("failed and left out", kept=False)
    if kept == 0 and filtered > 0:
        message = f"none of {n:,} rows that count failed, although {filtered:,} failed rows were filtered out"
        return Check("completed_only", "logging", "fail", message, value=0.0, action="instrument")
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
    return found | {repr(name): evidence.total(f"has state {name}") for name in logs.columns.get("state", ())}


def _decided_after(spec: Spec, logs: Logs) -> dict[str, str]:
    """Columns that stand after the action, with what they are."""
    after = dict.fromkeys(logs.columns.get("after", ()), "declared under logs.columns.after")
    for role in ("executed", "fallback", "timeout", "retries"):
        if logs.has(role):
            after[str(logs.columns[role])] = f"the {role} role, known only after the action"
    state = logs.columns.get("state", ())
    before = (*state, *logs.columns.get("features", ()), *spec.design.policy_inputs)
    for metric in spec.metrics.values():
        # State may be an outcome too; what stands below a ratio's line may be a fact from before.
        for name, exempt in ((metric.column, state), (metric.numerator, state), (metric.denominator, before)):
            if name is not None and name not in exempt:
                after.setdefault(name, f"measured by the metric {metric.name!r}")
    return after


def _covariates(spec: Spec) -> list[str]:
    """Columns that the spec's method adjusts for, beside the features."""
    before = getattr(spec.design, "pre_period", None) is not None
    if spec.estimator.method == "cuped" and not before:
        given = [m.covariate.columns for m in spec.metrics.values() if m.covariate is not None and m.quantile is None]
        return list(dict.fromkeys(name for columns in given for name in columns))
    if spec.estimator.method == "regression_adjusted":
        return list(dict.fromkeys(getattr(spec.design, "adjust", ())))
    return []


def _varying(evidence: Evidence) -> list[str]:
    """Columns named as a metric's covariate whose values a unit does not keep during the experiment."""
    if not isinstance(evidence.sample, Units):
        return []
    named = {c.name: c for t in evidence.terms.values() for c in t.covariates if c.name.startswith(COVARIATE)}
    found = {c.label: evidence.sample.varying(c) for c in named.values()}
    return [f"{name!r} ({n:,} of {units:,})" for name, (n, units) in found.items() if n]


def _measured(spec: Spec) -> dict[str, str]:
    """Columns whose values metrics are made of."""
    found: dict[str, str] = {}
    for metric in spec.metrics.values():
        names = [metric.column, metric.numerator, metric.denominator]
        if metric.expr is not None and len(roots := set(pl.sql_expr(metric.expr).meta.root_names())) == 1:
            names += roots
        found |= {name: f"measured by the metric {metric.name!r}" for name in names if name is not None}
    return found


def _failure_tests(spec: Spec, logs: Logs) -> list[pl.Expr]:
    """Row expressions that are true where a request failed."""
    measured = (name for m in spec.metrics.values() for name in (m.column, m.numerator, m.denominator))
    names = dict.fromkeys([*logs.columns.get("after", ()), *(name for name in measured if name is not None)])
    tests = [pl.col("@timeout")] if logs.has("timeout") else []
    for name in names:
        if name not in logs.source.schema or name.lower() not in SUCCEEDED + FAILED:
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
    outside = [REASONS.index(reason) for reason in (OUTSIDE, NO_TIME, PRE_PERIOD)]
    inside = ~pl.col("@drop").is_in(outside).fill_null(False)
    by_filter = inside & (pl.col("@drop").is_not_null() | counts(pl.lit(True)).is_null())
    return {
        "failed": count(counts(failed)),
        "may fail": count(counts(failed).is_not_null()),
        "failed and left out": count(failed & by_filter),
    }
