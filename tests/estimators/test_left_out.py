"""The shift by weights that are not used is the difference of the two estimates, and is sure where it says so."""

from __future__ import annotations

import numpy as np
import pytest

from estimators import EstimationError, ips, snips
from estimators.left_out import left_out
from tests.estimators.bandits import bandit


def test_the_shift_of_cut_weights_is_the_difference_of_the_estimates() -> None:
    logs = bandit(3, units=800, rows=1, actions=10)
    cut = np.minimum(logs.weight, 4.0)
    rest = logs.weight - cut
    ones = np.ones(len(rest))
    plain = (ips(logs.reward, logs.weight).treatment_value, ips(logs.reward, logs.weight, clip=4.0).treatment_value)
    found = left_out(rest * logs.reward, None, ones, value=plain[1])
    assert found.shift == pytest.approx(plain[0] - plain[1], rel=1e-12)
    assert found.std_error == pytest.approx((rest * logs.reward).std(ddof=1) / np.sqrt(len(rest)), rel=1e-12)
    normal = (
        snips(logs.reward, logs.weight).treatment_value,
        snips(logs.reward, logs.weight, clip=4.0).treatment_value,
    )
    found = left_out(rest * logs.reward, rest, cut, value=normal[1])
    assert found.shift == pytest.approx(normal[0] - normal[1], rel=1e-10)


def test_no_shift_where_a_model_is_right_is_found_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    low = sum(
        left_out(rng.exponential(2.0, 400) * rng.normal(0.0, 1.0, 400), None, np.ones(400), value=1.0).p_value < 0.05
        for _ in range(600)
    )
    assert 0.03 <= low / 600 <= 0.075


def test_what_tells_nothing_is_refused() -> None:
    with pytest.raises(EstimationError, match="one unit"):
        left_out([1.0], None, [1.0], value=0.0)
    with pytest.raises(EstimationError, match="more than 0"):
        left_out([1.0, 2.0], None, [0.0, 0.0], value=0.0)
    assert left_out([0.0, 0.0], None, [1.0, 1.0], value=0.0).p_value == 1.0
