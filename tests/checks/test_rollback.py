"""Rollback triggers: point values over treated rows."""

from __future__ import annotations

import pytest

from readout.errors import SpecError


def log(n: int = 400, bad: int = 10, **more: object) -> dict[str, object]:
    """``bad`` errors in each arm's rows."""
    return {"arm": ["a", "b"] * (n // 2), "error": [i // 2 < bad for i in range(n)], **more}


METRICS = {"error_rate": {"column": "error", "role": "primary", "better": "lower"}}


@pytest.mark.parametrize(("bad", "status"), [(4, "pass"), (5, "fail")])
def test_a_value_above_the_limit_fires(said, bad, status):
    check = said("rollback_trigger", log(bad=bad), metrics=METRICS, rollback=[{"metric": "error_rate", "above": 0.02}])
    assert (check.status, check.action) == (status, "rollback" if status == "fail" else None)
    if status == "fail":
        assert (check.value, check.threshold) == (bad / 200, 0.02)
        assert check.message == "error_rate is 0.025 under 'b' on 200 rows (limit 0.02, control 0.025)"


def test_only_treated_rows_count_and_control_stands_beside(said):
    rows = {"arm": ["a", "b"] * 200, "error": [i % 2 == 0 for i in range(400)]}
    check = said("rollback_trigger", rows, metrics=METRICS, rollback=[{"metric": "error_rate", "above": 0.5}])
    assert (check.status, "control 1)" in check.message) == ("pass", True)


def test_a_condition_narrows_the_rows_and_its_null_is_false(said):
    rows = log(fallback_reason=["busy" if i % 4 == 1 else None for i in range(400)], depth=[None, 40] * 200)
    trigger = {"expr": "fallback_reason is not null", "above": 0.4, "where": "depth > 30"}
    check = said("rollback_trigger", rows, metrics=METRICS, rollback=[trigger])
    assert (check.status, check.value) == ("fail", 0.5)
    # A comparison with null is false, not unknown: 100 of 200 rows.
    rows = log(ms=[None if i % 4 == 1 else 500 for i in range(400)])
    check = said("rollback_trigger", rows, metrics=METRICS, rollback=[{"expr": "ms > 100", "above": 0.4}])
    assert check.value == 0.5


@pytest.mark.parametrize(("min_rows", "status"), [(200, "fail"), (201, "skip")])
def test_too_few_rows_fire_nothing(said, min_rows, status):
    trigger = {"metric": "error_rate", "above": 0.0, "min_rows": min_rows}
    assert said("rollback_trigger", log(), metrics=METRICS, rollback=[trigger]).status == status


def test_a_hundred_rows_are_needed_by_default(said):
    trigger = [{"metric": "error_rate", "above": 0.0}]
    assert said("rollback_trigger", log(198), metrics=METRICS, rollback=trigger).status == "skip"
    both = [*trigger, {"expr": "error", "above": 0.9, "min_rows": 10}]
    check = said("rollback_trigger", log(198), metrics=METRICS, rollback=both)
    assert (check.status, "only 99 rows" in check.message) == ("warn", True)


def test_ineligible_rows_do_not_dilute(said):
    rows = log(eligible=[i < 100 for i in range(400)], bad=20)
    for trigger in ({"metric": "error_rate"}, {"expr": "error"}):
        check = said("rollback_trigger", rows, metrics=METRICS, rollback=[{**trigger, "above": 0.3, "min_rows": 50}])
        assert (check.status, check.value) == ("fail", 0.4)


@pytest.mark.parametrize(("minimum", "status"), [("50%", "fail"), ("0.001", "pass")])
def test_no_movement_fires_on_the_verdict(said, minimum, status):
    metrics = {"y": {"column": "y", "role": "primary", "better": "higher", "minimum_effect": minimum}}
    check = said("rollback_trigger", log(), metrics=metrics, rollback=[{"metric": "y", "no_movement": True}])
    assert check.status == status


def test_an_arm_that_fires_does_not_condemn_the_other(said):
    rows = {"arm": ["a", "b", "c"] * 200, "error": [i % 3 == 2 for i in range(600)]}
    design = {"treatment": ["b", "c"]}
    check = said(
        "rollback_trigger", rows, design=design, metrics=METRICS, rollback=[{"metric": "error_rate", "above": 0.1}]
    )
    assert (check.status, check.details["by_arm"]) == ("fail", {"b": "pass", "c": "fail"})


def test_quantiles_have_a_value_too_but_no_condition(said):
    metrics = {**METRICS, "p90": {"column": "y", "quantile": 0.9, "better": "lower"}}
    check = said("rollback_trigger", log(), metrics=metrics, rollback=[{"metric": "p90", "above": 5}])
    assert check.status == "fail"
    trigger = {"metric": "p90", "above": 5, "where": "error"}
    with pytest.raises(SpecError, match=r"rollback\.0\.where|rollback"):
        said("rollback_trigger", log(), metrics=metrics, rollback=[trigger])


def test_no_trigger(said):
    assert said("rollback_trigger", log(), metrics=METRICS).status == "skip"
