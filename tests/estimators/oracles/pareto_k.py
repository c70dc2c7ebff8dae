"""Makes the constants of ``tests/estimators/test_weight_diagnostics.py``, with Python 3.12:

    pip install arviz-stats==1.3.3
    python tests/estimators/oracles/pareto_k.py

``arviz_stats.base.array_stats.pareto_khat`` of weights, their right tail, draws taken as independent.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from arviz_stats.base.diagnostics import _DiagnosticsBase

CASES = {"pareto": (2.5, 4000), "heavy": (1.2, 4000), "light": (20.0, 900), "few": (3.0, 120)}


def weights(shape, n):
    """Quantiles of a Pareto distribution, bent a little so that the fit is not exact; a third are 0."""
    u = (np.arange(n) + 0.5) / n
    return np.where(np.arange(n) % 3 == 0, 0.0, (1.0 - u) ** (-1.0 / shape) * (1.0 + 0.1 * np.sin(7.0 * np.arange(n))))


if __name__ == "__main__":
    stats = _DiagnosticsBase()
    out = {name: float(stats._pareto_khat(weights(*case), r_eff=1.0, tail="right")[1]) for name, case in CASES.items()}
    (Path(__file__).parent / "pareto_k.json").write_text(json.dumps(out, indent=1) + "\n")
