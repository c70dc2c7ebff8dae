"""Makes the data and constants of ``tests/estimators/test_synthetic_public.py``.

    pip install "numpy<2.5" pysyncon==1.7.0 synthdid-py==0.1.0 quadprog==0.1.14
    git clone https://github.com/sdfordham/pysyncon
    python tests/estimators/oracles/synthetic.py pysyncon/data

The data are those that the packages ship (MIT licence): packs of cigarettes per head in 39 states (Abadie, Diamond and
Hainmueller 2010), gross domestic product per head of 17 countries in dollars (Abadie, Diamond and Hainmueller 2015) and
of 17 Spanish regions in thousands of dollars of 1986 (Abadie and Gardeazabal 2003). ``pysyncon`` solves for the weights
by sequential quadratic programming from equal weights, with a tolerance that hangs on the outcome's unit: it is given
outcomes with a standard deviation of 10, where it comes within 2e-3 of the weights (in dollars it stops at a mix for
Germany whose squared error is 2.7 times the least). ``synthdid-py`` is a port, line by line, of the package of the
method's authors, and is run as they ship it and at exact weights; ``quadprog`` (Goldfarb and Idnani) finds these. The
reference numbers go to ``synthetic.json``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import quadprog
import synthdid
from pysyncon import Synth

HERE = Path(__file__).resolve().parent
DATA = HERE.parent / "data"
START = {"cigarettes": 1989, "germany": 1990, "basque": 1970}
TREATED = {"cigarettes": ["California"], "germany": ["West Germany"], "basque": ["Basque Country"]}
# Beyond the one treated unit: more of them as though they had been treated, for the jackknife and the averages.
SEVERAL = {
    "cigarettes": ["California", "Nevada", "Utah"],
    "germany": ["West Germany", "Austria"],
    "basque": ["Basque Country", "Cataluna"],
}


def write(folder: Path) -> dict[str, pd.DataFrame]:
    """Write the three files, units in rows and years in columns; returns them."""
    cigarettes = synthdid.load_california_prop99()
    cigarettes.columns = ["unit", "year", "y", "treated"]
    germany = pd.read_csv(folder / "germany.csv").rename(columns={"country": "unit", "gdp": "y"})
    basque = pd.read_csv(folder / "basque.csv").rename(columns={"regionname": "unit", "gdpcap": "y"})
    basque = basque[basque.unit != "Spain (Espana)"].copy()
    basque["unit"] = basque.unit.str.replace(r" \(.*", "", regex=True)
    basque["y"] = basque.y.round(6)
    cigarettes["y"] = cigarettes.y.round(4)
    out = {}
    for name, frame in (("cigarettes", cigarettes), ("germany", germany), ("basque", basque)):
        wide = frame.astype({"year": int}).pivot(index="unit", columns="year", values="y")
        wide.to_csv(DATA / f"{name}.csv")
        out[name] = pd.read_csv(DATA / f"{name}.csv", index_col="unit")
        out[name].columns = out[name].columns.astype(int)
    return out


def exact(points: np.ndarray, target: np.ndarray, ridge: float = 0.0) -> np.ndarray:
    """The simplex weights by quadprog, outcomes scaled to their largest gap."""
    gaps = points - target[:, None]
    scale = np.abs(gaps).max()
    k = gaps.shape[1]
    gram = gaps.T @ gaps / scale**2 + (ridge / scale**2 + 1e-13) * np.eye(k)
    limits = np.column_stack([np.ones(k), np.eye(k)])
    return np.asarray(quadprog.solve_qp(gram, np.zeros(k), limits, np.append(1.0, np.zeros(k)), meq=1)[0])


def control(wide: pd.DataFrame, treated: list[str], start: int) -> dict[str, Any]:
    """Weights, gaps and placebo ratios of a synthetic control by pysyncon and by quadprog."""
    y1, y0 = wide.loc[treated].mean(), wide.drop(index=treated)
    unit = float(np.std(wide.to_numpy())) / 10.0
    before = [year for year in wide.columns if year < start]
    outcomes, target = y0[before].T, y1[before].rename("treated")
    spread = pd.concat([outcomes, target], axis=1).std(axis=1)
    package = Synth()
    # The package divides every period by its spread; this V undoes it, so that all periods weigh alike.
    pre = {"X0": outcomes / unit, "X1": target / unit, "Z0": outcomes / unit, "Z1": target / unit}
    package.fit(**pre, custom_V=((spread / unit) ** 2).to_numpy())
    weights = exact(outcomes.to_numpy(), target.to_numpy())
    after = [year for year in wide.columns if year >= start]

    def gap(w: np.ndarray) -> pd.Series:
        return y1 - y0.T @ w

    def rms(values: pd.Series) -> float:
        return float(np.sqrt((values**2).mean()))

    ratios, estimates = {}, {}
    for name in y0.index:
        others = y0.drop(index=name)
        w = exact(others[before].T.to_numpy(), y0.loc[name, before].to_numpy())
        left = y0.loc[name] - others.T @ w
        ratios[name], estimates[name] = rms(left[after]) / rms(left[before]), float(left[after].mean())
    return {
        "pysyncon": package.W.tolist(),
        "weights": weights.tolist(),
        "gap": gap(weights).tolist(),
        "estimate": float(gap(weights)[after].mean()),
        "pre_rmspe": rms(gap(weights)[before]),
        "ratio": rms(gap(weights)[after]) / rms(gap(weights)[before]),
        "ratios": ratios,
        "placebos": estimates,
    }


def did(wide: pd.DataFrame, treated: list[str], start: int) -> dict[str, Any]:
    """The package as shipped, and at exact weights; its jackknife and placebo estimates there."""
    y = pd.concat([wide.drop(index=treated), wide.loc[treated]]).to_numpy()
    n0, t0 = len(wide) - len(treated), sum(year < start for year in wide.columns)
    shipped = synthdid.synthdid_estimate(y, n0, t0)
    zeta = shipped.opts["zeta_omega"], shipped.opts["zeta_lambda"]

    def at_minimum(y: np.ndarray, n0: int) -> synthdid.SynthDIDEstimate:
        before, after, target = y[:n0, :t0], y[:n0, t0:].mean(axis=1), y[n0:, :t0].mean(axis=0)
        middle = before.mean(axis=1, keepdims=True)
        omega = exact((before - middle).T, target - target.mean(), zeta[0] ** 2 * t0)
        times = exact(before - before.mean(axis=0), after - after.mean(), zeta[1] ** 2 * n0)
        return synthdid.synthdid_estimate(y, n0, t0, weights={"omega": omega, "lambda": times})

    found = at_minimum(y, n0)
    out = {
        "shipped": float(shipped),
        "estimate": float(found),
        "zeta": zeta,
        "unit_weights": found.weights.omega.tolist(),
        "time_weights": found.weights.lambda_.tolist(),
    }
    if len(treated) > 1:
        out["jackknife"] = synthdid.jackknife_se(found)
    else:
        order = [[*(j for j in range(n0) if j != i), i] for i in range(n0)]
        out["placebos"] = [float(at_minimum(y[rows], n0 - 1)) for rows in order]
    return out


def main(folder: Path) -> None:
    """Write the files and the constants."""
    constants: dict[str, Any] = {}
    for name, wide in write(folder).items():
        one, many, start = TREATED[name], SEVERAL[name], START[name]
        constants[name] = {
            "one": {"units": one, "control": control(wide, one, start), "did": did(wide, one, start)},
            "several": {"units": many, "control": control(wide, many, start), "did": did(wide, many, start)},
        }
    (HERE / "synthetic.json").write_text(json.dumps(constants, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
