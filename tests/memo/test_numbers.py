"""Numbers for people: no digit beyond what the interval supports, a dash where there is no number."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from readout.memo.numbers import count, decimals, effect, fixed, level, number, p_value, percent, relative


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "–"), (math.nan, "–"), (math.inf, "–"), (0.0, "0"), (-0.0, "0"), (0.012345, "0.0123"), (1.5, "1.50"),
        (9.996, "10.0"), (999.6, "1,000"), (-1234.4, "-1,234"), (1.23e-5, "1.23e-05"), (4.56e12, "4.56e+12"),
    ],
)  # fmt: skip
def test_number_has_three_significant_digits(value: float | None, expected: str) -> None:
    assert number(value) == expected


def test_effect_shares_the_decimals_that_its_interval_supports() -> None:
    assert effect(-25.312, -31.267, -19.351) == "-25.3 [-31.3, -19.4]"
    assert effect(1234.567, 1100.2, 1400.9) == "+1,235 [+1,100, +1,401]"
    assert effect(0.00031, -0.0005, 0.0011) == "+0.00031 [-0.00050, +0.00110]"
    assert effect(-0.001, -0.0012, 50.0) == "0.0 [0.0, +50.0]"
    assert effect(2.5e-9, 1e-9, 4e-9) == "+2.50e-09 [+1.00e-09, +4.00e-09]"
    assert effect(None, None, None) == "–"
    assert effect(12.0, None, None) == "+12.0"
    assert effect(3.0, -1.0, math.inf) == "+3.00 [-1.00, –]"


def test_relative_is_in_percent() -> None:
    assert relative(0.0123, -0.004, 0.0286) == "+1.2 % [-0.4 %, +2.9 %]"
    assert relative(-0.0612, -0.0755, -0.0468) == "-6.1 % [-7.5 %, -4.7 %]"
    assert relative(1.5, 0.2, 12.4) == "+150 % [+20 %, +1,240 %]"
    assert relative(None, None, None) == "–"


def test_the_small_formats() -> None:
    assert (percent(0.01234), percent(None), percent(-0.5, signed=True)) == ("1.2 %", "–", "-50 %")
    assert [p_value(p) for p in (0.0, 0.0009, 0.0123, 1.0, None)] == ["<0.001", "<0.001", "0.012", ">0.999", "–"]
    assert (count(1234567), count(None), count(0)) == ("1,234,567", "–", "0")
    assert (level(0.05), level(0.1), level(0.005)) == ("95 %", "90 %", "99.5 %")
    assert decimals([None, math.nan]) == 0


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9))
def test_what_is_shown_is_within_half_a_unit_of_the_last_place(low: float, high: float) -> None:
    places = decimals((low, high))
    for value in (low, high):
        shown = float(fixed(value, places, signed=True).replace(",", ""))
        tolerance = 0.5 * 10.0**-places if places is not None else 0.005 * abs(value)
        assert abs(shown - value) <= tolerance * (1 + 1e-9) + 1e-300
