from __future__ import annotations

import math

import pytest
from scipy import stats

from estimators.inference import (
    EstimationError,
    Relative,
    finish,
    minimum_detectable_effect,
    satterthwaite,
    t_interval,
    two_sided_p,
)


@pytest.mark.parametrize("df", [1.0, 2.7, 11.0, 399.5, 1e7, math.inf])
@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.2])
def test_intervals_and_p_values_match_scipy(df: float, alpha: float) -> None:
    low, high = stats.t.interval(1 - alpha, df, loc=3.0, scale=0.7)
    assert t_interval(3.0, 0.7, df, alpha) == pytest.approx((low, high), rel=1e-9)
    assert two_sided_p(3.0 / 0.7, df) == pytest.approx(2 * stats.t.sf(3.0 / 0.7, df), rel=1e-9)


def test_minimum_detectable_effect_of_a_known_normal_case() -> None:
    assert minimum_detectable_effect(1.0, math.inf, 0.05) == pytest.approx(
        1.959963984540054 + 0.8416212335729143, rel=1e-12
    )


def test_minimum_detectable_effect_gives_the_power_it_promises() -> None:
    effect = minimum_detectable_effect(2.0, 30.0, 0.05, power=0.9)
    power = stats.nct.sf(stats.t.ppf(0.975, 30.0), 30.0, effect / 2.0)
    assert power == pytest.approx(0.9, abs=0.003)


def test_satterthwaite_of_equal_variances_adds_the_degrees_of_freedom() -> None:
    assert satterthwaite((2.0, 2.0), (9.0, 9.0)) == pytest.approx(18.0)
    assert satterthwaite((2.0, 0.0), (9.0, 4.0)) == pytest.approx(9.0)
    assert satterthwaite((1e-300, 1e-300), (9.0, 9.0)) == pytest.approx(18.0)


@pytest.mark.parametrize(
    ("std_error", "df", "message"),
    [(0.0, 10.0, "does not vary"), (math.nan, 10.0, "does not vary"), (1.0, 0.0, "no degrees of freedom")],
)
def test_an_estimate_without_an_error_is_refused(std_error: float, df: float, message: str) -> None:
    with pytest.raises(EstimationError, match=message):
        finish(
            "difference_in_means", estimate=1.0, std_error=std_error, df=df, alpha=0.05, control_value=1.0,
            treatment_value=2.0, n_control=5, n_treatment=5, relative=Relative(reason="none"),
        )  # fmt: skip


def test_a_level_outside_the_unit_interval_is_refused() -> None:
    with pytest.raises(EstimationError, match="alpha"):
        t_interval(0.0, 1.0, 5.0, 1.0)
