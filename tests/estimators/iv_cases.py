"""Public data for instrumental variables, as ``oracles/iv.py`` wrote and read them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

HERE = Path(__file__).parent
ORACLE: dict[str, dict[str, Any]] = json.loads((HERE / "oracles" / "iv.json").read_text())
CLUSTER = {"card": "region", "mroz": "age", "pension": "age", "votes": "town"}


@dataclass(frozen=True)
class Case:
    """Arrays of one case: ``y``, ``d`` (n,), ``z`` (n, k), ``x`` (n, p) or None, ``w`` (n,) or None, ``groups``."""

    y: np.ndarray
    d: np.ndarray
    z: np.ndarray
    x: np.ndarray | None
    w: np.ndarray | None
    groups: np.ndarray

    def options(self, variance: str) -> dict[str, Any]:
        groups = self.groups if variance == "cluster" else None
        return {"covariates": self.x, "weights": self.w, "variance": variance, "clusters": groups}


@cache
def table(name: str) -> pd.DataFrame:
    data = pd.read_csv(HERE / "data" / f"{name}.csv")
    return data.assign(expersq=data.exper**2) if "exper" in data else data


def case(name: str) -> Case:
    wanted = ORACLE[name]["columns"]
    data = table(file := name.split(",")[0])
    x = data[wanted["x"]].to_numpy(float) if wanted["x"] else None
    w = data[wanted["w"]].to_numpy(float) if "w" in wanted else None
    y, d, z = (data[wanted[key]].to_numpy(float) for key in "ydz")
    return Case(y, d, z, x, w, data[CLUSTER[file]].to_numpy())
