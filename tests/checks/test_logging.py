"""Logging: required fields, columns from after the decision, failures that were filtered out."""

from __future__ import annotations

import pytest

SHARED = {"shared_state": True}
GUARDED = {
    "y": {"column": "y", "role": "primary", "better": "higher"},
    "cost": {"column": "usd", "role": "guardrail", "better": "lower", "margin": "5%"},
}


def log(n: int = 200, **more: object) -> dict[str, object]:
    arm = ["a", "b"] * (n // 2)
    return {
        "arm": arm, "intended": arm, "executed": arm, "queue_depth": list(range(n)), "cache_warm": [0.5] * n,
        "kv_tokens": [7] * n, "usd": [0.1 + (i % 7) for i in range(n)], **more,
    }  # fmt: skip


STATE = {"state": ["queue_depth", "cache_warm", "kv_tokens"]}


def test_everything_is_there(said):
    check = said("required_fields", log(), STATE, SHARED, GUARDED)
    assert (check.status, check.message) == ("pass", "intended and executed action and state are logged on 200 rows")


def test_rows_of_an_arm_that_the_spec_does_not_name_are_warned_of(said):
    rows = log()
    rows["arm"] = ["a", "b", "max", "b"] * 50
    check = said("required_fields", rows, STATE, SHARED, GUARDED)
    assert (check.status, check.action) == ("warn", None)
    assert check.message.startswith(
        "50 rows carry an arm that the spec does not name and are left out; arms in the log: 'a', 'b', 'max'"
    )


@pytest.mark.parametrize("role", ["intended", "executed"])
@pytest.mark.parametrize("shared", [True, False])
def test_an_action_that_is_not_logged(said, role, shared):
    rows = log()
    del rows[role]
    check = said("required_fields", rows, STATE, {"shared_state": shared}, GUARDED)
    assert (check.status, check.action) == (("fail", "instrument") if shared else ("warn", None))
    assert repr(role) in check.message


def test_state_that_is_not_mapped_or_all_null(said):
    assert said("required_fields", log(), {}, SHARED, GUARDED).status == "fail"
    rows = log(queue_depth=[None] * 199 + [1])
    check = said("required_fields", rows, STATE, SHARED, GUARDED)
    assert (check.status, "'queue_depth' is logged on 0.5 % of rows only" in check.message) == ("warn", True)


def test_each_absent_kind_of_state_warns(said):
    check = said("required_fields", log(), {"state": ["queue_depth"]}, SHARED, GUARDED)
    assert check.status == "warn"
    assert check.message == "no cache state is logged; no memory or load state is logged"


def test_a_policy_input_that_is_not_a_column_fails_everywhere(said):
    design = {"shared_state": False, "policy_inputs": ["queue_depth", "mood"]}
    check = said("required_fields", log(), STATE, design, GUARDED)
    assert (check.status, check.action) == ("fail", "instrument")
    assert check.message == "the policy looks at 'mood', which the log does not have"


def test_absent_guardrails_and_unexplained_fallbacks_warn(said):
    check = said("required_fields", log(), STATE, SHARED)
    assert (check.status, check.message) == ("warn", "no guardrail is declared")
    rows = log(executed=["a"] * 200)
    check = said("required_fields", rows, STATE, SHARED, GUARDED)
    assert check.message == "100 rows were executed otherwise than intended without a fallback reason"
    rows |= {"fallback": ["busy"] * 200}
    assert said("required_fields", rows, STATE, SHARED, GUARDED).status == "pass"


@pytest.mark.parametrize(
    ("columns", "metrics", "wrong"),
    [
        ({"state": ["queue_depth", "done"], "after": ["done"]}, {}, "declared under logs.columns.after"),
        ({"features": ["usd"]}, GUARDED, "measured by the metric 'cost'"),
        ({"features": ["retry_count"], "retries": "retry_count"}, {}, "the retries role"),
        ({"features": ["executed"]}, {}, "the executed role"),
    ],
)
def test_columns_from_after_the_decision(said, columns, metrics, wrong):
    rows = log(done=[True] * 200, retry_count=[0] * 200)
    check = said("bad_controls", rows, columns, SHARED, metrics or None)
    assert (check.status, check.action) == ("fail", "instrument")
    assert wrong in check.message


def test_state_as_an_outcome_and_a_fact_below_the_line_are_no_bad_controls(said):
    metrics = {
        "queue": {"column": "queue_depth", "role": "primary", "better": "lower"},
        "per_token": {"numerator": "usd", "denominator": "prompt", "better": "lower"},
    }
    columns = {"state": ["queue_depth"], "features": ["prompt"]}
    assert said("bad_controls", log(prompt=[5] * 200), columns, SHARED, metrics).status == "pass"
    assert said("bad_controls", log()).status == "skip"


@pytest.mark.parametrize("where", ["done", "not timed_out", "y > 9", "executed = intended"])
def test_a_filter_on_what_is_decided_after_the_action(said, where):
    rows = log(done=[True] * 200, timed_out=[False] * 200)
    columns = {"after": ["done"], "timeout": "timed_out"}
    check = said("completed_only", rows, columns, logs={"where": where})
    assert (check.status, check.action) == ("fail", "instrument")
    assert check.message.startswith("logs.where filters on ")
    metrics = {"y": {"column": "y", "role": "primary", "better": "higher", "where": where}}
    assert said("completed_only", rows, columns, metrics=metrics).message.startswith("metrics.y.where")


def test_a_filter_on_what_was_known_before_is_no_matter(said):
    rows = log(2000, timeout=[i % 10 == 0 for i in range(2000)])
    check = said("completed_only", rows, logs={"where": "queue_depth > 5"})
    assert (check.status, check.value) == ("pass", pytest.approx(0.1, abs=0.001))


def test_failures_that_another_filter_left_out(said):
    rows = log(timeout=[i % 10 == 0 for i in range(200)], tag=["x" if i % 10 == 0 else "y" for i in range(200)])
    check = said("completed_only", rows, logs={"where": "tag = 'y'"})
    assert (check.status, "20 failed rows were filtered out" in check.message) == ("fail", True)


def test_failures_before_the_window_prove_nothing(said):
    from datetime import datetime, timedelta

    times = [datetime(2026, 10, 5) + timedelta(hours=i) for i in range(200)]
    rows = log(time=times, timeout=[i < 5 for i in range(200)])
    check = said("completed_only", rows, logs={"start": "2026-10-06"})
    assert (check.status, "too few to tell" in check.message) == ("skip", True)


def test_eligibility_that_stands_for_success(said):
    failed = [i % 4 < 2 for i in range(200)]
    rows = log(timeout=failed, eligible=[not f for f in failed])
    assert said("completed_only", rows).status == "fail"


def test_no_failure_at_all(said):
    assert said("completed_only", log()).status == "skip"
    assert said("completed_only", log(200, timeout=[False] * 200)).status == "skip"
    assert said("completed_only", log(1000, timeout=[False] * 1000)).status == "warn"
    metrics = {"error_rate": {"column": "error", "role": "primary", "better": "lower"}}
    rows = log(error=[i % 50 == 0 for i in range(200)])
    assert said("completed_only", rows, metrics=metrics).value == 0.02


@pytest.mark.parametrize(("stratum", "status"), [("usd", "fail"), ("done", "fail"), ("home", "pass")])
def test_a_stratum_that_is_decided_after_the_action(said, stratum, status):
    rows = log(done=[True, True, False, False] * 50, home=["x", "x", "z", "z"] * 50)
    check = said("bad_controls", rows, {"after": ["done"]}, {"strata": [stratum]}, GUARDED)
    assert check.status == status
    assert status == "pass" or repr(stratum) in check.message


def test_a_covariate_that_varies_within_units_warns(said):
    units = [i // 4 for i in range(200)]
    rows = log(unit=units, arm=["ab"[u % 2] for u in units], kept=units, varied=[i % 8 for i in range(200)])
    for column, status in (("kept", "pass"), ("varied", "warn")):
        metrics = {"y": {"column": "y", "role": "primary", "better": "higher", "covariate": column}}
        check = said("bad_controls", rows, metrics=metrics, estimator="cuped")
        assert check.status == status
    assert "'varied' (50 of 50)" in check.message
