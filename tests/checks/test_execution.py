"""Execution: divergence, fallbacks, timeouts, mixed workflows."""

from __future__ import annotations

import pytest


def log(n: int = 1000) -> dict[str, list[object]]:
    arm = ["a", "b"] * (n // 2)
    return {"arm": arm, "intended": list(arm), "executed": list(arm)}


@pytest.mark.parametrize(("diverged", "status"), [(25, "pass"), (26, "warn"), (100, "warn"), (101, "fail")])
def test_divergence_of_treated_rows(said, diverged, status):
    rows = log()
    for i in range(diverged):
        rows["executed"][2 * i + 1] = "a"
    check = said("execution_divergence", rows)
    assert (check.status, check.value) == (status, diverged / 500)
    assert check.action == ("ramp" if status == "fail" else None)


def test_control_and_ineligible_rows_do_not_dilute_divergence(said):
    rows = {**log(), "eligible": [i < 200 for i in range(1000)]}
    for i in range(30):
        rows["executed"][2 * i + 1] = "a"
    for i in range(0, 200, 2):
        rows["executed"][i] = "other"
    assert said("execution_divergence", rows).value == 30 / 100


def test_divergence_is_judged_for_each_arm(said):
    arm = ["a", "b", "c"] * 200
    rows = {
        "arm": arm,
        "intended": list(arm),
        "executed": ["a" if x == "c" and i % 2 else x for i, x in enumerate(arm)],
    }
    check = said("execution_divergence", rows, design={"treatment": ["b", "c"]})
    assert (check.status, check.value, check.details["by_arm"]) == ("fail", 0.5, {"b": "pass", "c": "fail"})


def test_divergence_needs_both_actions(said):
    assert said("execution_divergence", {"arm": ["a", "b"] * 50}).status == "skip"
    rows = log(100) | {"executed": [None if i % 2 else "a" for i in range(100)]}
    assert said("execution_divergence", rows).status == "skip"


def share(n: int, control: int, treated: int) -> list[bool]:
    """A flag that is true on so many rows of each arm, arms in turn."""
    return [i // 2 < (treated if i % 2 else control) for i in range(n)]


@pytest.mark.parametrize(
    ("control", "treated", "status"),
    [(100, 400, "warn"), (1000, 1048, "pass"), (1000, 1049, "pass"), (0, 0, "pass"), (0, 5000, "warn")],
)
def test_fallbacks_by_arm(said, control, treated, status):
    # 5,000 rows an arm; a point is 50 rows
    rows = {"arm": ["a", "b"] * 5000, "fallback": share(10_000, control, treated)}
    check = said("fallback", rows)
    assert (check.status, check.action) == (status, None)
    assert check.value == pytest.approx(abs(treated - control) / 5000)


def test_a_difference_below_a_point_is_not_worth_a_warning(said):
    rows = {"arm": ["a", "b"] * 5000, "fallback": share(10_000, 5, 49)}
    check = said("fallback", rows)
    assert (check.p_value < 0.001, check.status) == (True, "pass")
    assert said("fallback", rows, checks={"fallback": {"threshold": 0.005}}).status == "warn"


def test_the_warning_shows_the_numbers_of_what_warned(said):
    # Retries differ by 2 points beyond chance; timeouts are rare and alike.
    rows = {
        "arm": ["a", "b"] * 5000,
        "timeout": share(10_000, 50, 55),
        "retries": [3 * x for x in share(10_000, 500, 620)],
    }
    check = said("timeouts_and_retries", rows)
    assert (check.status, check.value) == ("warn", pytest.approx(0.024))
    assert "retried requests: 12.4 % under 'b', 10 % under control" in check.message


def workflows(mixed: int) -> dict[str, list[object]]:
    arm = [x for i in range(100) for x in (("a", "b") if i < mixed else ("a", "a"))]
    arm[-2:] = ["b", "b"]
    return {"arm": arm, "workflow": [i // 2 for i in range(200)]}


@pytest.mark.parametrize(("mixed", "status"), [(5, "pass"), (6, "warn")])
def test_workflows_that_met_both_arms(said, mixed, status):
    design = {"kind": "request_rct", "user_visible": True}
    check = said("mixed_experience", workflows(mixed), design=design)
    assert (check.status, check.value) == (status, mixed / 100)


def test_mixed_workflows_only_count_where_users_can_see_them(said):
    assert said("mixed_experience", workflows(50), design={"kind": "request_rct"}).status == "skip"
    rows = workflows(50) | {"eligible": [i % 2 == 0 for i in range(200)]}
    rows["eligible"][-1] = True
    check = said("mixed_experience", rows, design={"kind": "request_rct", "user_visible": True})
    assert (check.status, check.value) == ("pass", 0.0)
