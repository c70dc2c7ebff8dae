"""Synthetic control and synthetic difference in differences on public data, against other packages.

Constants: ``oracles/synthetic.json``, made by ``oracles/synthetic.py``. Exact solvers of the same quadratic programmes
agree to 1e-8 of the outcome's size, as quadprog needs a ridge of 1e-13 to start. pysyncon stops within 2e-3 of the
exact weights. The authors' synthdid stops its search early and drops small weights on the way, which moves its
estimates by 1e-2; from the same weights it gives the same numbers to rounding.
"""

from __future__ import annotations

import csv
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from estimators.estimate import Estimate
from estimators.panel import Panel
from estimators.synthetic_control import synthetic_control
from estimators.synthetic_did import synthetic_did

HERE = Path(__file__).parent
ORACLE = json.loads((HERE / "oracles" / "synthetic.json").read_text())
START = {"cigarettes": 1989, "germany": 1990, "basque": 1970}
CASES = [(name, case) for name in START for case in ("one", "several")]


def panel(name: str, treated: list[str]) -> Panel:
    """Units over years; the treated start together."""
    with (HERE / "data" / f"{name}.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    years = [c for c in rows[0] if c.isdigit()]
    units = tuple(r["unit"] for r in rows)
    start = years.index(str(START[name]))
    first = np.where(np.isin(units, treated), start, len(years))
    return Panel(np.array([[float(r[y]) for y in years] for r in rows]), first, units=units, periods=tuple(years))


@cache
def control(name: str, case: str) -> Estimate:
    return synthetic_control(panel(name, ORACLE[name][case]["units"]), draws=20)


def weights(found: Estimate, which: str = "donor_weights") -> list[float]:
    return list(found.diagnostics[which].values())


@pytest.mark.parametrize(("name", "case"), CASES)
def test_the_weights_gaps_and_errors_of_an_exact_solver_and_of_pysyncon(name: str, case: str) -> None:
    found, numbers = control(name, case), ORACLE[name][case]["control"]
    size = float(np.abs(panel(name, []).y).max())
    assert weights(found) == pytest.approx(numbers["weights"], abs=1e-7)
    assert weights(found) == pytest.approx(numbers["pysyncon"], abs=2e-3)
    assert [row["gap"] for row in found.diagnostics["gap"]] == pytest.approx(numbers["gap"], abs=1e-8 * size)
    assert found.estimate == pytest.approx(numbers["estimate"], abs=1e-8 * size)
    assert found.diagnostics["pre_rmspe"] == pytest.approx(numbers["pre_rmspe"], rel=1e-7)
    assert found.statistic == pytest.approx(numbers["ratio"], rel=1e-7)


@pytest.mark.parametrize("name", START)
def test_the_placebos_and_the_rank_among_them(name: str) -> None:
    found, numbers = control(name, "one"), ORACLE[name]["one"]["control"]
    shown = {row["unit"]: row for row in found.diagnostics["placebos"]}
    assert {u: row["ratio"] for u, row in shown.items()} == pytest.approx(numbers["ratios"], rel=1e-5)
    assert {u: row["estimate"] for u, row in shown.items()} == pytest.approx(numbers["placebos"], rel=1e-5, abs=1e-5)
    ratios = [*numbers["ratios"].values(), numbers["ratio"]]
    assert found.p_value == pytest.approx(np.mean(np.array(ratios) >= numbers["ratio"]), rel=1e-12)


def test_california_in_the_published_tables() -> None:
    """Arkhangelsky et al. (2021), table 1: -19.6 and -15.6, from weights whose search stops early."""
    one = panel("cigarettes", ["California"])
    sc, sdid = control("cigarettes", "one"), synthetic_did(one)
    assert sc.estimate == pytest.approx(-19.6, abs=0.15)
    assert sdid.estimate == pytest.approx(-15.6, abs=0.05)
    assert sdid.estimate == pytest.approx(-15.604, abs=0.005)
    times = {p: w for p, w in sdid.diagnostics["time_weights"].items() if w > 0.0}
    assert times == pytest.approx({"1986": 0.366, "1987": 0.206, "1988": 0.427}, abs=1e-3)
    largest = sorted(sdid.diagnostics["donor_weights"].items(), key=lambda pair: -pair[1])[:3]
    assert dict(largest) == pytest.approx({"Nevada": 0.124, "New Hampshire": 0.105, "Connecticut": 0.078}, abs=1e-3)


@pytest.mark.parametrize(("name", "case"), CASES)
def test_the_numbers_of_synthdid(name: str, case: str) -> None:
    one, numbers = panel(name, ORACLE[name][case]["units"]), ORACLE[name][case]["did"]
    found = synthetic_did(one, variance="placebo" if case == "one" else "jackknife")
    shown, size = found.diagnostics, float(np.abs(one.y).max())
    assert list(shown["penalty"].values()) == pytest.approx(numbers["zeta"], rel=1e-12)
    assert weights(found) == pytest.approx(numbers["unit_weights"], abs=1e-9)
    assert weights(found, "time_weights") == pytest.approx(numbers["time_weights"], abs=1e-7)
    assert found.estimate == pytest.approx(numbers["estimate"], abs=1e-8 * size)
    assert found.estimate == pytest.approx(numbers["shipped"], rel=1e-2)
    if case == "several":
        assert found.std_error == pytest.approx(numbers["jackknife"], rel=1e-6)
        return
    placebos: list[dict[str, Any]] = shown["placebos"]
    assert [row["estimate"] for row in placebos] == pytest.approx(numbers["placebos"], abs=1e-7 * size)
    assert found.std_error == pytest.approx(np.std(numbers["placebos"]), rel=1e-6)
