"""Instrumental variables against other implementations, in simulation, and where the data cannot carry it.

Constants: ``oracles/iv.json``, made by ``oracles/iv.py`` with linearmodels 7.1. Both compute in double precision;
linearmodels inverts crossproducts of covariates in their own units, which costs it six of its sixteen digits.
"""

from __future__ import annotations

from typing import Any

import pytest

from estimators import two_stage_least_squares
from estimators.estimate import Estimate
from tests.estimators.iv_cases import ORACLE, Case, case


def estimate(given: Case, variance: str = "HC1", **more: Any) -> Estimate:
    return two_stage_least_squares(given.y, given.d, given.z, **given.options(variance), **more)


@pytest.mark.parametrize("name", ORACLE)
def test_the_numbers_of_linearmodels(name: str) -> None:
    expected, given = ORACLE[name], case(name)
    for variance in ("HC1", "classical", "cluster"):
        found = estimate(given, variance)
        assert found.estimate == pytest.approx(expected["estimate"], rel=1e-9)
        assert found.std_error == pytest.approx(expected[variance], rel=1e-9)
        key = "j_cluster" if variance == "cluster" else "j"
        shown = found.diagnostics["overidentification"]
        if key in expected:
            assert (shown["statistic"], shown["p_value"]) == pytest.approx(expected[key], rel=1e-9)
            assert shown["df"] == given.z.shape[1] - 1
        else:
            assert shown is None
