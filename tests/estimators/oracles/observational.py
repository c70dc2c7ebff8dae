"""Makes the constants of ``tests/estimators/test_observational.py``: ``observational.json``.

    pip install doubleml==0.11.4 statsmodels==0.15.0
    python tests/estimators/oracles/observational.py

DoubleML with scikit-learn 1.9.1, on two public data sets: mothers' smoking (Cattaneo 2010, as statsmodels ships it) and
the National Supported Work experiment (``data/nsw.csv``). Row ``i`` is in fold ``i % 4``. Learners: without a penalty,
and ridge with ``C = 1`` and ``alpha = 1`` on standardised columns; solved to a gradient of 1e-12. For every case:
estimate, standard error.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import statsmodels.treatment.tests as mothers
from doubleml import DoubleMLData, DoubleMLIRM, DoubleMLPLR
from doubleml.utils import PSProcessorConfig
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge

warnings.filterwarnings("ignore")
HERE = Path(__file__).resolve().parent
FOLDS = 4


def data(name: str) -> tuple[Any, Any, Any]:
    """Covariates, treatment and outcome."""
    if name == "mothers":
        table = pd.read_csv(Path(mothers.__file__).parent / "results" / "cataneo2.csv")
        x, d, y = table[["mmarried_", "mage", "mage2", "fbaby_", "medu"]], table.mbsmoke_, table.bweight
    else:
        table = pd.read_csv(HERE.parent / "data" / "nsw.csv")
        x, d, y = table[["age", "educ", "black", "nodegree", "re74", "re75"]], table.treat, table.re78
    x = x.to_numpy(dtype=float)
    return (x - x.mean(axis=0)) / x.std(axis=0), d.to_numpy(dtype=float), y.to_numpy(dtype=float)


def learners(light: bool) -> tuple[Any, Any]:
    """Outcome's and treatment's."""
    solver = {"solver": "newton-cholesky", "tol": 1e-12, "max_iter": 1000}
    return (Ridge(1.0), LogisticRegression(C=1.0, **solver)) if light else (
        LinearRegression(), LogisticRegression(C=np.inf, **solver)
    )  # fmt: skip


def fitted(kind: str, name: str, light: bool) -> list[float]:
    """Estimate and standard error of one case."""
    x, d, y = data(name)
    fold = np.arange(len(d)) % FOLDS
    clip = {"ps_processor_config": PSProcessorConfig(clipping_threshold=1e-12)}
    model_of = {
        "plr": lambda *a: DoubleMLPLR(*a, n_folds=FOLDS),
        "ate": lambda *a: DoubleMLIRM(*a, n_folds=FOLDS, normalize_ipw=True, **clip),
        "att": lambda *a: DoubleMLIRM(*a, n_folds=FOLDS, score="ATTE", **clip),
    }[kind]
    model = model_of(DoubleMLData.from_arrays(x, y, d), *learners(light))
    model.set_sample_splitting([[(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(FOLDS)]])
    model.fit()
    return [float(model.coef[0]), float(model.se[0])]


if __name__ == "__main__":
    cases = [
        [kind, name, light, fitted(kind, name, light)]
        for kind in ("plr", "ate", "att")
        for name in ("mothers", "nsw")
        for light in (False, True)
    ]
    lines = ",\n  ".join(json.dumps(case) for case in cases)
    (HERE / "observational.json").write_text(f"[\n  {lines}\n]\n")
