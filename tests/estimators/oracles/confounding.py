"""Makes ``confounding.json``, the constants of ``test_sensitivity.py``.

    pip install PySensemakr==0.0.8 doubleml==0.11.4 statsmodels==0.15.0 "pandas<3"
    python tests/estimators/oracles/confounding.py

Data: ``data/nsw.csv`` and the births that statsmodels ships (Cattaneo 2010). DoubleML gets the propensities (logit by
maximum likelihood) and the outcome's predictions (least squares by arm) from outside, so that both compute from the
same numbers; ``without`` are those without the named covariate.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sensemakr
import statsmodels
import statsmodels.api as sm
from doubleml import DoubleMLData, DoubleMLIRM
from doubleml.utils.dummy_learners import DMLDummyClassifier, DMLDummyRegressor
from doubleml.utils.gain_statistics import gain_statistics

HERE = Path(__file__).resolve().parent
SMOKE = Path(statsmodels.__file__).parent / "treatment" / "tests" / "results" / "cataneo2.csv"
SETS = {
    "nsw": (HERE.parent / "data" / "nsw.csv", "re78", "treat", ["age", "educ", "black", "nodegree", "re75"]),
    "smoke": (SMOKE, "bweight", "mbsmoke_", ["mage", "medu", "mmarried_", "fbaby_", "prenatal1_"]),
}


def regression(name: str) -> dict[str, Any]:
    """PySensemakr on least squares: the statistics and the bounds by two covariates."""
    path, y, t, x = SETS[name]
    data = pd.read_csv(path)
    fit = sm.OLS.from_formula(f"{y} ~ {t} + {' + '.join(x)}", data).fit()
    summary = {"estimate": float(fit.params[t]), "se": float(fit.bse[t]), "dof": int(fit.df_resid)}
    found = sensemakr.sensitivity_statistics.sensitivity_stats(**summary, q=1, alpha=0.05)
    half = sensemakr.sensitivity_statistics.robustness_value(
        t_statistic=np.array([fit.tvalues[t]]), dof=fit.df_resid, q=0.5
    )
    bounds = sensemakr.ovb_bounds(fit, t, benchmark_covariates=x[:2], kd=[1, 2, 3])
    columns = ["r2dz_x", "r2yz_dx", "adjusted_estimate", "adjusted_se", "adjusted_lower_CI", "adjusted_upper_CI"]
    keys = ["estimate", "se", "dof", "r2yd_x", "rv_q", "rv_qa"]
    return {
        "statistics": [float(np.ravel(found[k])[0]) for k in keys],
        "half": float(np.ravel(half)[0]),
        "bounds": bounds[columns].to_numpy(float).tolist(),
    }


def irm(name: str, score: str, drop: str | None = None) -> DoubleMLIRM:
    """DoubleML's interactive regression model on predictions from outside."""
    path, y, t, x = SETS[name]
    data = pd.read_csv(path)
    x = [c for c in x if c != drop]
    design, d = sm.add_constant(data[x].to_numpy(float)), data[t].to_numpy(float)
    by_arm = [design @ np.linalg.lstsq(design[d == a], data[y].to_numpy(float)[d == a], rcond=None)[0] for a in (0, 1)]
    propensity = sm.Logit(d, design).fit(disp=0, tol=1e-14, maxiter=100).predict()
    model = DoubleMLIRM(DoubleMLData(data, y, t, x), DMLDummyRegressor(), DMLDummyClassifier(), n_folds=2, score=score)
    predictions = {"ml_g0": by_arm[0], "ml_g1": by_arm[1], "ml_m": propensity}
    model.fit(external_predictions={t: {k: v[:, None] for k, v in predictions.items()}})
    return model


def riesz(name: str, score: str) -> dict[str, Any]:
    """Bounds under one strength, the robustness values, the benchmark by the first covariate."""
    model = irm(name, score)
    model.sensitivity_analysis(cf_y=0.05, cf_d=0.03, rho=0.8, level=0.975)
    p = dict(model.sensitivity_params)
    model.sensitivity_analysis(level=0.975, rho=1.0)
    p |= {k: model.sensitivity_params[k] for k in ("rv", "rva")}
    gain = gain_statistics(model, irm(name, score, drop=SETS[name][3][0]))
    one = lambda v: float(np.ravel(v)[0])  # noqa: E731
    return {
        "estimate": one(model.coef),
        "bounds": [one(p[part][end]) for part in ("theta", "ci") for end in ("lower", "upper")],
        "robustness": [one(p["rv"]), one(p["rva"])],
        "gain": [one(gain[k]) for k in ("cf_y", "cf_d", "delta_theta", "rho")],
    }


if __name__ == "__main__":
    out = {
        "regression": {name: regression(name) for name in SETS},
        "riesz": [[name, score.lower(), riesz(name, score)] for name in SETS for score in ("ATE", "ATTE")],
    }
    (HERE / "confounding.json").write_text(json.dumps(out, indent=1) + "\n")
