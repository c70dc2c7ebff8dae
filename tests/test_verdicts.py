"""Every branch from an interval to a verdict and a guardrail's state."""

from __future__ import annotations

from dataclasses import replace

import pytest

from estimators.estimate import Estimate
from readout.spec.fields import parse_effect
from readout.spec.metrics import Metric
from readout.verdicts import guardrail_of, inside_minimum_effect, verdict_of


def metric(better: str = "lower", *, minimum: str | None = None, margin: str | None = None, role: str = "guardrail"):
    size = {n: None if v is None else parse_effect(v) for n, v in (("minimum_effect", minimum), ("margin", margin))}
    return Metric(name="m", column="m", better=better, role=role, **size)


def effect(low: float, high: float, control: float | None = 100.0) -> Estimate:
    """An interval around its middle; relative numbers where control's value is positive."""
    point = (low + high) / 2
    numbers = [None if control is None else x / control for x in (point, low, high)]
    return Estimate(
        method="difference_in_means", estimate=point, std_error=(high - low) / 4, df=100.0, statistic=0.0, p_value=0.5,
        ci_low=low, ci_high=high, relative=numbers[0], relative_ci_low=numbers[1], relative_ci_high=numbers[2],
        control_value=0.0 if control is None else control, treatment_value=0.0, n_control=50, n_treatment=50,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("low", "high", "lower_is_better", "higher_is_better"),
    [
        (1, 3, "worse", "better"),
        (-3, -1, "better", "worse"),
        (-1, 3, "inconclusive", "inconclusive"),
        (0, 3, "inconclusive", "inconclusive"),
        (-3, 0, "inconclusive", "inconclusive"),
    ],
)
def test_without_a_minimum_effect_zero_decides(low, high, lower_is_better, higher_is_better):
    assert verdict_of(metric("lower"), effect(low, high)) == lower_is_better
    assert verdict_of(metric("higher"), effect(low, high)) == higher_is_better


@pytest.mark.parametrize("minimum", ["5", "5%"])
@pytest.mark.parametrize("better", ["lower", "higher"])
@pytest.mark.parametrize(
    ("low", "high", "inside"),
    [(-4, 4, True), (1, 4.9, True), (-4.9, -1, True), (-4, 5, False), (-5, 4, False), (1, 6, False), (-6, 6, False)],
)
def test_no_effect_is_the_whole_interval_inside_the_minimum_effect(low, high, inside, better, minimum):
    found = verdict_of(metric(better, minimum=minimum), effect(low, high))
    assert (found == "no_effect") == inside
    if low > 0 and not inside:
        assert found == ("worse" if better == "lower" else "better")


def test_a_guardrail_without_a_relative_effect_holds_where_the_interval_shows_no_harm():
    lower, higher = metric(margin="5%"), metric("higher", margin="5%")
    assert guardrail_of(lower, effect(-3, -1, control=None)) == "holds"
    assert guardrail_of(higher, effect(-3, -1, control=None)) == "inconclusive"
    assert guardrail_of(higher, effect(1, 3, control=None)) == "holds"
    assert guardrail_of(lower, effect(-3, 1, control=None)) == "inconclusive"


def test_no_effect_is_never_given_where_relative_has_no_meaning():
    assert verdict_of(metric(minimum="5%"), effect(-1, 1, control=None)) == "inconclusive"
    assert verdict_of(metric(minimum="5%"), effect(1, 2, control=None)) == "worse"
    assert not inside_minimum_effect(metric(minimum="5%"), effect(-1, 1, control=None))
    assert guardrail_of(metric(margin="5%"), effect(-1, 1, control=None)) == "inconclusive"


@pytest.mark.parametrize("margin", ["5", "5%"])
@pytest.mark.parametrize(
    ("low", "high", "state"),
    [
        (-4, 4, "holds"),
        (-40, -20, "holds"),
        (1, 4.9, "holds"),  # harmful beyond doubt, and inside what is accepted
        (-1, 5, "inconclusive"),
        (1, 8, "inconclusive"),  # excludes zero, but the point (4.5) is inside the margin
        (1, 10, "harmed"),
        (6, 9, "harmed"),
        (-1, 20, "inconclusive"),  # the point is past the margin, but zero is not excluded
        (0, 20, "inconclusive"),
    ],
)
def test_a_guardrail_holds_is_harmed_or_is_neither(low, high, state, margin):
    assert guardrail_of(metric("lower", margin=margin), effect(low, high)) == state
    assert guardrail_of(metric("higher", margin=margin), effect(-high, -low)) == state


def test_the_bounds_of_the_margin_are_not_inside():
    assert guardrail_of(metric(margin="5"), effect(-1, 5)) == "inconclusive"
    assert guardrail_of(metric(margin="5"), effect(1, 9)) == "inconclusive"


def test_a_guardrail_without_margin_is_judged_by_zero():
    assert guardrail_of(metric("lower"), effect(1, 2)) == "harmed"
    assert guardrail_of(metric("lower"), effect(-2, -1)) == "holds"
    assert guardrail_of(metric("higher"), effect(-2, -1)) == "harmed"
    assert guardrail_of(metric("lower"), effect(-1, 1)) == "inconclusive"
    assert guardrail_of(metric(role="secondary"), effect(1, 2)) is None
    assert guardrail_of(metric(role="secondary", margin="5"), effect(6, 9)) == "harmed"


def test_relative_margins_use_the_relative_interval():
    # The interval of a ratio is not that of the difference over control's value.
    e = replace(effect(1, 4), relative_ci_high=0.06)
    assert guardrail_of(metric(margin="5%"), e) == "inconclusive"
    assert guardrail_of(metric(margin="5"), e) == "holds"


@pytest.mark.parametrize(("low", "high", "inside"), [(4, 5, True), (4, 6, False), (-6, -3, True), (-9, -3, False)])
def test_a_point_inside_the_minimum_effect(low, high, inside):
    assert inside_minimum_effect(metric(minimum="5%"), effect(low, high)) == inside
    assert inside_minimum_effect(metric(minimum="5"), effect(low, high)) == inside
    assert not inside_minimum_effect(metric(), effect(low, high))
