"""The density test in simulation and against rddensity 3.0 (``oracles/rdd.json``, tolerance as for rdrobust)."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from estimators import EstimationError
from estimators.rdd_density import density_test

HERE = Path(__file__).parent
ORACLE = json.loads((HERE / "oracles" / "rdd.json").read_text())
CUTOFF = {"transfers": 0.0, "elections": 0.5}


@pytest.mark.parametrize(("name", "digits", "order", "numbers"), ORACLE["density"])
def test_the_numbers_of_rddensity(name: str, digits: int | None, order: int, numbers: list[float]) -> None:
    x = pd.read_csv(HERE / "data" / f"{name}.csv").running
    found = density_test(x if digits is None else x.round(digits), cutoff=CUTOFF[name], order=order)
    mine = [found.below, found.above, found.std_error, found.statistic, found.p_value, found.h_below, found.h_above]
    assert mine == pytest.approx(numbers[:7], rel=2e-8, abs=1e-9)
    assert [found.n_below, found.n_above] == numbers[7:]


def test_quiet_where_nobody_sorts_and_loud_where_they_do() -> None:
    quiet = loud = 0
    seeds = 120
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        x = rng.normal(0.3, 1.0, 1000)
        quiet += density_test(x).p_value < 0.05
        near = (x < 0) & (x > -0.15) & (rng.random(1000) < 0.7)
        loud += density_test(np.where(near, -x, x)).p_value < 0.05
    assert quiet / seeds < 0.05 + 3.3 * math.sqrt(0.05 * 0.95 / seeds)
    assert loud / seeds > 0.8


def test_what_cannot_be_tested_says_why() -> None:
    x = np.linspace(-1.0, 1.0, 101)
    for message, call in {
        "distinct values of the running variable below the cutoff are too few": lambda: density_test(x, cutoff=-0.9),
        "does not vary": lambda: density_test(np.zeros(50)),
        "not finite": lambda: density_test(np.append(x, np.nan)),
    }.items():
        with pytest.raises(EstimationError, match=message):
            call()
