"""Makes the data and constants of ``tests/estimators/test_relative_magnitudes.py`` and ``test_pre_trend.py``.

    pip install rdata==1.1.0 prettytable numba cvxpy
    pip install --no-deps moderndid==0.2.0
    python tests/estimators/oracles/sensitivity.py BCdata_EventStudy.rda HeAndWangResults.rda

The two files are event studies, effects and covariance, that the R packages HonestDiD (github.com/asheshrambachan) and
pretrends (github.com/jonathandroth) ship under the MIT licence: restaurants' profits after a cut of value added tax
(Benzarti and Carloni 2019) and village officials (He and Wang 2017). ``moderndid`` follows HonestDiD line by line; its
interval is the range of a grid that it accepts, here of steps of 0.0005 about either end.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import rdata
from moderndid.didhonest.delta.rm.rm import compute_conditional_cs_rm

warnings.filterwarnings("ignore")
DATA = Path(__file__).resolve().parents[1] / "data"
STEP = 0.0005
WEIGHTS = {"first": [1.0, 0.0, 0.0, 0.0], "mean": [0.25] * 4}
# Where the ends lie, from a coarse grid.
NEAR = {
    ("first", 0.5): (0.115, 0.275),
    ("first", 1.0): (0.065, 0.32),
    ("mean", 0.5): (0.067, 0.367),
    ("mean", 1.0): (-0.069, 0.506),
}


def end(b: np.ndarray, s: np.ndarray, case: tuple[str, float], test: str, side: int) -> float:
    """Least (side 0) or greatest (side 1) accepted value of a grid about an end."""
    centre = NEAR[case][side]
    found = compute_conditional_cs_rm(
        b, s, 4, 4, l_vec=np.array(WEIGHTS[case[0]]), m_bar=case[1], hybrid_flag=test,
        grid_points=41, grid_lb=centre - 20 * STEP, grid_ub=centre + 20 * STEP, seed=0,
    )  # fmt: skip
    kept = np.asarray(found["grid"])[np.asarray(found["accept"]) > 0]
    return float(kept.min() if side == 0 else kept.max())


def main(bc_file: str, hw_file: str) -> None:
    """Write the constants."""
    bc = rdata.read_rda(bc_file)["BCdata_EventStudy"]
    hw = rdata.read_rda(hw_file)["HeAndWangResults"]
    b, s = np.asarray(bc["betahat"]), np.asarray(bc["sigma"])
    intervals: list[dict[str, Any]] = []
    for case in NEAR:
        for test in ("ARP", "LF") if case[0] == "mean" else ("ARP",):
            ends = [end(b, s, case, test, side) for side in (0, 1)]
            intervals.append({"weights": case[0], "bound": case[1], "test": test, "ends": ends})
            print(intervals[-1], flush=True)
    constants = {
        "benzarti_carloni": {"times": [-5, -4, -3, -2, 0, 1, 2, 3], "estimates": b.tolist(), "covariance": s.tolist()},
        "he_wang": {
            "times": [int(t) for t in hw["tVec"]],
            "estimates": np.asarray(hw["beta"]).tolist(),
            "covariance": np.asarray(hw["sigma"]).tolist(),
        },
        "intervals": intervals,
        "step": STEP,
    }
    (DATA / "sensitivity.json").write_text(json.dumps(constants, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:3])
