"""Makes the data and constants of ``tests/estimators/test_public_data.py``.

    pip install causaldata==0.1.5 wildboottest==0.3.2 pyfixest==0.60.0 tea-tasting==1.14.0
    python tests/estimators/oracles/public_data.py

The data are those of the ``causaldata`` package (MIT licence): the National Supported Work experiment (LaLonde 1986,
Dehejia and Wahba's sample), take-up of weather insurance in rice villages (Cai, de Janvry and Sadoulet 2015; the
default was randomized by natural village) and incentives to learn one's HIV status (Thornton 2008; by person, persons
in villages). The last two have outcomes of 0 and 1 and are kept as counts.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import causaldata
import numpy as np
import pandas as pd
import pyfixest
import tea_tasting as tt
from statsmodels.api import OLS
from wildboottest.wildboottest import wildboottest

warnings.filterwarnings("ignore")
DATA = Path(__file__).resolve().parents[1] / "data"


def write() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write the three files; returns the first two data sets."""
    nsw = causaldata.nsw_mixtape.load_pandas().data.drop(columns="data_id")
    nsw.round(2).to_csv(DATA / "nsw.csv", index=False)
    insurance = causaldata.social_insure.load_pandas().data
    keys = ["address", "village", "default"]
    counts = insurance.groupby(keys)["takeup_survey"].agg(households="size", insured="sum").reset_index()
    counts.to_csv(DATA / "insurance.csv", index=False)
    hiv = causaldata.thornton_hiv.load_pandas().data.dropna(subset=["villnum", "any", "got"]).astype({"villnum": int})
    counts = hiv.groupby(["villnum", "any"])["got"].agg(persons="size", learned="sum").reset_index()
    counts.astype(int).to_csv(DATA / "hiv.csv", index=False)
    return pd.read_csv(DATA / "nsw.csv"), insurance


def main() -> None:
    """Print the constants."""
    nsw, insurance = write()
    insurance["arm"] = insurance["default"].astype(float)
    for formula in ("takeup_survey ~ arm", "takeup_survey ~ arm + C(village)"):
        for kind in ("CRV1", "CRV3"):
            plain = pyfixest.ssc(k_adj=False, G_adj=False)
            model = pyfixest.feols(formula, insurance, vcov={kind: "address"}, ssc=plain)
            print(formula, kind, repr(float(model.coef()["arm"])), repr(float(model.se()["arm"])))
    first = sorted(insurance["address"].unique())[:12]
    few = insurance[insurance["address"].isin(first)]
    x = pd.DataFrame({"intercept": 1.0, "arm": few["arm"]})
    groups = few["address"].astype("category").cat.codes.to_numpy()
    found = wildboottest(
        OLS(few["takeup_survey"].astype(float), x), param="arm", cluster=groups, B=99999, weights_type="rademacher",
        impose_null=True, bootstrap_type="11", seed=1,
    )  # fmt: skip
    print("wildboottest", found)
    p = float(np.asarray(found["p-value"], dtype=float)[0])
    print("exceedances of 4,096 patterns", p * 4096)
    frame = nsw[["treat", "re74", "re75", "re78"]].astype(float).assign(treat=nsw["treat"].astype(int))
    experiment = tt.Experiment(
        {
            "welch": tt.Mean("re78"),
            "cuped": tt.Mean("re78", "re75"),
            "ratio": tt.RatioOfMeans("re78", "re75"),
        },
        variant="treat",
    )
    for name, r in experiment.analyze(frame).items():
        print(name, [float(v) for v in (r.control, r.treatment, r.effect_size, r.effect_size_ci_lower,
                                        r.effect_size_ci_upper, r.pvalue)])  # fmt: skip


if __name__ == "__main__":
    main()
