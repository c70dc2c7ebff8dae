"""Effects of actions that were not randomized, against Stata and DoubleML, in simulation, and where data fail them.

Stata's numbers of ``teffects`` on the mothers' smoking data (Cattaneo 2010) ship with statsmodels, data included; they
have eleven digits and solve the moments to about 1e-8, so that is the tolerance.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from estimators import ipw, nuisances, outcome_regression

OUTCOME = ["prenatal1_", "mmarried_", "mage", "fbaby_"]
TREATMENT = ["mmarried_", "mage", "mage2", "fbaby_", "medu"]


@cache
def mothers() -> pd.DataFrame:
    import statsmodels.treatment.tests as package

    return pd.read_csv(Path(package.__file__).parent / "results" / "cataneo2.csv")


def of_mothers(**options: Any) -> Any:
    data = mothers()
    plain: dict[str, Any] = {"folds": 1, "penalty": 0, "outcome_covariates": data[OUTCOME]}
    return nuisances(data.mbsmoke_, data[TREATMENT], **(plain | options))


@pytest.mark.parametrize(("method", "name"), [(outcome_regression, "ra"), (ipw, "ipw")])
@pytest.mark.parametrize(("estimand", "table"), [("ate", "table"), ("att", "table_t")])
def test_the_numbers_of_teffects(method: Any, name: str, estimand: str, table: str) -> None:
    from statsmodels.treatment.tests.results import results_teffects

    (effect, error), (control, _) = getattr(results_teffects, f"results_{name}")[table][:2, :2]
    found = method(mothers().bweight, of_mothers(propensity="probit"), estimand=estimand)
    n = len(mothers())
    mine = [found.estimate, found.std_error * math.sqrt((n - 1) / n), found.control_value]
    assert mine == pytest.approx([effect, error, control], rel=2e-8)
    assert found.df == n - 1
