"""Makes the data and constants of the difference-in-differences tests.

    pip install csdid==0.4.3 pyfixest==0.60.0 honestdid==0.1.1 rdata==1.1.0
    pip install --no-deps moderndid==0.2.0
    python tests/estimators/oracles/panels.py

The data are two that the ``moderndid`` package (MIT licence) ships: county employment and minimum wages (``mpdta`` of
Callaway and Sant'Anna's R package ``did``), and insurance coverage and Medicaid expansions by state (``ehec_data`` of
the Mixtape Sessions, from the American Community Survey). One row per unit, outcomes rounded to six digits; the
packages below are run on the rounded values.
"""

from __future__ import annotations

import csv
import gzip
import json
import pickle
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyfixest as pf
from csdid.att_gt import ATTgt

warnings.filterwarnings("ignore")
DATA = Path(__file__).resolve().parents[1] / "data"
COLUMNS = {
    "mpdta": ("mpdta_long", "countyreal", "lemp", "first.treat", ["lpop"]),
    "ehec": ("ehec_data", "stfips", "dins", "yexp2", []),
}


def write() -> None:
    """Write the two files."""
    root = Path(str(find_spec("moderndid").origin)).parent / "core" / "datasets"
    for name, (file, unit, y, first, more) in COLUMNS.items():
        with gzip.open(root / f"{file}.pkl.gz") as handle:
            d = pickle.load(handle)
        d["first"] = d[first].fillna(0).astype(int)
        wide = d.pivot(index=unit, columns="year", values=y)
        head = d.groupby(unit)[["first", *more]].first()
        with (DATA / f"{name}.csv").open("w", newline="", encoding="utf-8") as out:
            writer = csv.writer(out, lineterminator="\n")
            writer.writerow(["unit", "first", *more, *wide.columns])
            for label in wide.index:
                numbers = [*head.loc[label, more], *wide.loc[label]]
                writer.writerow([label, int(head.loc[label, "first"]), *(f"{v:.6g}" for v in numbers)])


def long(name: str) -> pd.DataFrame:
    """The file again, one row per unit and year."""
    d = pd.read_csv(DATA / f"{name}.csv")
    years = [c for c in d.columns if c.isdigit()]
    rest = [c for c in d.columns if c not in years]
    out = d.melt(rest, years, "year", "y")
    return out.assign(year=out["year"].astype(int))


def callaway_santanna(d: pd.DataFrame, controls: str, base: str, formula: str | None) -> dict[str, Any]:
    """csdid: effects by cohort and year, and the aggregates with their analytic errors."""
    fit = ATTgt(
        yname="y", gname="first", idname="unit", tname="year", xformla=formula, data=d, control_group=controls,
        allow_unbalanced_panel=False,
    ).fit(est_method="dr", base_period=base, bstrap=False)  # fmt: skip
    results = fit.results
    out: dict[str, Any] = {
        "cells": [
            [float(g), float(t), float(a), float(s) if s is not None and np.isfinite(s) else 0.0]
            for g, t, a, s in zip(results["group"], results["year"], results["att"], results["se"], strict=True)
        ]
    }
    for kind in ("simple", "dynamic", "group", "calendar"):
        a = fit.aggte(typec=kind, bstrap=False, cband=False).atte
        out[kind] = [float(np.ravel(a["overall_att"])[0]), float(np.ravel(a["overall_se"])[0])]
        if kind == "dynamic":
            rows = zip(a["egt"], a["att_egt"], np.ravel(a["se_egt"]), strict=True)
            out["events"] = [[float(e), float(v), float(s) if np.isfinite(s) else 0.0] for e, v, s in rows]
    return out


def sun_abraham(d: pd.DataFrame) -> list[list[float]]:
    """pyfixest: saturated event study, averaged by event time; errors by unit."""
    fit = pf.event_study(
        d, yname="y", idname="unit", tname="year", gname="first", estimator="saturated", cluster="unit"
    )
    table = fit.aggregate(agg="period", weighting="shares")
    return [[float(k), float(r["Estimate"]), float(r["Std. Error"])] for k, r in table.iterrows()]


def two_way(d: pd.DataFrame, first: int) -> dict[str, Any]:
    """pyfixest: one cohort, event times interacted with being treated, and the plain two by two; errors by unit."""
    d = d.assign(treated=(d["first"] == first).astype(float), post=(d["year"] >= first).astype(float))
    d["both"] = d["treated"] * d["post"]
    events = pf.feols(f"y ~ i(year, treated, ref={first - 1}) | unit + year", d, vcov={"CRV1": "unit"})
    plain = pf.feols("y ~ both | unit + year", d, vcov={"CRV1": "unit"})
    halves = d.groupby(["unit", "treated", "post"])["y"].mean().unstack().reset_index()
    halves["change"] = halves[1.0] - halves[0.0]
    change = pf.feols("change ~ treated", halves, vcov="HC2", ssc=pf.ssc(k_adj=False, G_adj=False))
    return {
        "events": [events.coef().tolist(), events.se().tolist()],
        "two_by_two": [float(plain.coef().iloc[0]), float(change.se().iloc[1])],
    }


def main() -> None:
    """Write the files and the constants."""
    write()
    constants: dict[str, Any] = {}
    for name in COLUMNS:
        d = long(name)
        constants[name] = {
            f"{controls}/{base}": callaway_santanna(d, {"never": "nevertreated"}.get(controls, controls), base, None)
            for controls in ("never", "notyettreated")
            for base in ("varying", "universal")
        }
        constants[name]["sun_abraham"] = sun_abraham(d)
    covariates = {
        controls: callaway_santanna(
            long("mpdta"), {"never": "nevertreated"}.get(controls, controls), "varying", "y ~ lpop"
        )
        for controls in ("never", "notyettreated")
    }
    constants["mpdta"]["covariates"] = covariates
    ehec = long("ehec")
    ehec = ehec[(ehec["year"] < 2016) & (ehec["first"] != 2015)]
    constants["ehec"]["two_way"] = two_way(ehec, 2014)
    mpdta = long("mpdta")
    constants["mpdta"]["two_way"] = two_way(mpdta[mpdta["first"].isin([0, 2006])], 2006)
    (DATA / "panels.json").write_text(json.dumps(constants, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
