"""Makes the data and constants of ``tests/estimators/test_local_linear.py`` and ``test_rdd_density.py``.

    pip install rdrobust==2.1.1 rddensity==3.0 causaldata==0.1.5
    python tests/estimators/oracles/rdd.py

The data are those of the ``causaldata`` package (MIT licence): cash transfers to poor households in Uruguay by
predicted income (Manacorda, Miguel and Vigorito 2011), its running variable turned so that the treated stand above the
cutoff, and elections to the United States House from 1980 on with the winners' voting scores (Lee, Moretti and Butler
2004).
``rdrobust`` and ``rddensity`` are the packages of the methods' authors. The reference numbers go to ``rdd.json``.
"""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from pathlib import Path
from typing import Any

import causaldata
import numpy as np
import pandas as pd
from rddensity import rddensity
from rdrobust import rdplot, rdrobust

warnings.filterwarnings("ignore")
DATA = Path(__file__).resolve().parents[1] / "data"
CUTOFF = {"transfers": 0.0, "elections": 0.5}
# Our options, and what the package calls them.
KERNEL = {"triangular": "tri", "uniform": "uni", "epanechnikov": "epa"}
CLUSTERED = {"nn": "cr1", "hc2": "cr2", "hc3": "cr3"}


def write() -> None:
    """Write the two data files: outcome, running variable, take-up, two covariates and clusters."""
    t = causaldata.gov_transfers.load_pandas().data.dropna()
    t = t.astype(float)
    pd.DataFrame(
        {"outcome": t.Support.round(6), "running": (-t.Income_Centered).round(8), "takeup": t.Participation.astype(int),
         "first": t.Age.round(4), "second": t.Education, "cluster": t.Age.astype(int)}
    ).to_csv(DATA / "transfers.csv", index=False)  # fmt: skip
    e = causaldata.close_elections_lmb.load_pandas().data.dropna()
    e = e[e.year >= 1980].copy()
    e["state"] = e.state.astype(str).str[:2].astype(int)
    e = e.astype(float)
    pd.DataFrame(
        {"outcome": e.score.round(3), "running": e.lagdemvoteshare.round(7), "takeup": e.democrat.astype(int),
         "first": e.year.astype(int) - 1980, "second": e.district.astype(int) % 7, "cluster": e.state.astype(int)}
    ).to_csv(DATA / "elections.csv", index=False)  # fmt: skip


def cases() -> list[dict[str, Any]]:
    """Options of ``local_linear``, with flags; ``digits`` rounds the running variable, ``h``, ``b`` are in its sd."""
    plain: list[dict[str, Any]] = [{"variance": v} for v in ("nn", "hc0", "hc1", "hc2", "hc3")]
    plain += [{"kernel": "uniform"}, {"kernel": "epanechnikov"}, {"order": 2}, {"covariates": True}]
    plain += [{"covariates": True, "variance": "hc2"}, {"digits": 3}, {"digits": 3, "variance": "hc3"}]
    plain += [{"h": 0.4}, {"h": 0.6, "b": 0.4}, {"h": 0.4, "b": 0.7, "kernel": "uniform", "variance": "hc1"}]
    plain += [{"clusters": True, "variance": v} for v in CLUSTERED]
    plain += [{"clusters": True, "variance": v, "covariates": True, "h": 0.5} for v in CLUSTERED]
    plain += [{"takeup": True}, {"takeup": True, "covariates": True}, {"takeup": True, "variance": "hc3"}]
    plain += [{"takeup": True, "clusters": True}]
    return plain


def reference(name: str, case: dict[str, Any]) -> list[float]:
    """Point, corrected point, conventional and robust error, p, h, b; fuzzy: first stage and its robust error."""
    d = pd.read_csv(DATA / f"{name}.csv")
    x = d.running.round(case["digits"]) if "digits" in case else d.running
    spread = float(np.std(d.running))
    kind = case.get("variance", "nn")
    options: dict[str, Any] = {"vce": CLUSTERED[kind] if "clusters" in case else kind}
    options["kernel"] = KERNEL[case.get("kernel", "triangular")]
    options["p"] = case.get("order", 1)
    options |= {k: case[k] * spread for k in ("h", "b") if k in case}
    options |= {"covs": d[["first", "second"]].to_numpy(float)} if "covariates" in case else {}
    options |= {"cluster": d.cluster.to_numpy()} if "clusters" in case else {}
    options |= {"fuzzy": d.takeup.to_numpy(float)} if "takeup" in case else {}
    with contextlib.redirect_stdout(io.StringIO()):
        r = rdrobust(y=d.outcome.to_numpy(float), x=x.to_numpy(float), c=CUTOFF[name], **options)
    numbers = [r.coef.iloc[0, 0], r.coef.iloc[1, 0], r.se.iloc[0, 0], r.se.iloc[2, 0], r.pv.iloc[2, 0]]
    numbers += [r.bws.iloc[0, 0], r.bws.iloc[1, 0]]
    if "takeup" in case:
        numbers += [np.ravel(r.tau_T)[0], np.ravel(r.se_T)[2]]
    return [float(v) for v in numbers]


def densities(name: str, digits: int | None, order: int) -> list[float]:
    """Density below and above, error of the difference, statistic, p, bandwidths and rows within them."""
    x = pd.read_csv(DATA / f"{name}.csv").running
    x = x if digits is None else x.round(digits)
    r = rddensity(x.to_numpy(float), c=CUTOFF[name], p=order)
    numbers = [r.hat["left"], r.hat["right"], r.sd_jk["diff"], r.test["t_jk"], r.test["p_jk"], r.h["left"]]
    return [float(v) for v in (*numbers, r.h["right"], r.n["eff_left"], r.n["eff_right"])]


def bins(name: str) -> list[float]:
    """Bins below and above by mimicking variance with spacings."""
    d = pd.read_csv(DATA / f"{name}.csv").sort_values(["running", "outcome"], kind="stable")
    with contextlib.redirect_stdout(io.StringIO()):
        r = rdplot(d.outcome.to_numpy(float), d.running.to_numpy(float), c=CUTOFF[name], binselect="esmv", hide=True,
                   masspoints="off")  # fmt: skip
    return [int(v) for v in r.J]


def main() -> None:
    """Write data and numbers."""
    write()
    names = list(CUTOFF)
    out = {
        "local_linear": [[name, case, reference(name, case)] for name in names for case in cases()],
        "density": [
            [name, digits, order, densities(name, digits, order)]
            for name in names for digits in (None, 3) for order in (1, 2, 3)
        ],
        "bins": [[name, bins(name)] for name in names],
    }  # fmt: skip
    lines = {key: ",\n  ".join(json.dumps(row) for row in rows) for key, rows in out.items()}
    text = ",\n".join(f' "{key}": [\n  {rows}\n ]' for key, rows in lines.items())
    (Path(__file__).parent / "rdd.json").write_text("{\n" + text + "\n}\n")


if __name__ == "__main__":
    main()
