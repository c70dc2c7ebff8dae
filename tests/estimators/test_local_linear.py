"""Regression discontinuity against the authors' package, in simulation, and where the data cannot carry it.

Constants: ``oracles/rdd.json``, made by ``oracles/rdd.py`` with rdrobust 2.1.1. Both compute in double precision; the
choice of a bandwidth takes roots of ratios of small curvatures, so that digits are lost in three steps: 2e-8 relative
for what hangs on a chosen bandwidth, 1e-9 where it is given.
"""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from estimators import EstimationError
from estimators.estimate import Estimate
from estimators.local_linear import local_linear
from estimators.local_polynomial import neighbour_residuals

HERE = Path(__file__).parent
ORACLE = json.loads((HERE / "oracles" / "rdd.json").read_text())
CUTOFF = {"transfers": 0.0, "elections": 0.5}


@cache
def table(name: str) -> pd.DataFrame:
    return pd.read_csv(HERE / "data" / f"{name}.csv")


def estimate(name: str, case: dict[str, Any]) -> Estimate:
    data, options = table(name), dict(case)
    running, spread = data.running, float(np.std(data.running))
    if "digits" in options:
        running = running.round(options.pop("digits"))
    columns = {"covariates": ["first", "second"], "clusters": "cluster", "takeup": "takeup"}
    options = {k: data[columns[k]].to_numpy() if k in columns else v for k, v in options.items()}
    options |= {k: options[k] * spread for k in ("h", "b") if k in options}
    return local_linear(data.outcome, running, cutoff=CUTOFF[name], **options)


@pytest.mark.parametrize(("name", "case", "numbers"), ORACLE["local_linear"])
def test_the_numbers_of_rdrobust(name: str, case: dict[str, Any], numbers: list[float]) -> None:
    found = estimate(name, case)
    shown = found.diagnostics
    mine = [found.estimate, shown["bias_corrected"], shown["conventional_std_error"], found.std_error, found.p_value]
    mine += list(shown["bandwidth"].values())
    assert mine == pytest.approx(numbers[:7], rel=1e-9 if "h" in case else 2e-8)
    if "takeup" in case:
        first = shown["first_stage"]
        assert first["estimate"] == pytest.approx(numbers[7], rel=2e-8)
        assert first["std_error"] == pytest.approx(numbers[8], rel=2e-8, abs=1e-12)
    half = 1.959963984540054 * found.std_error
    centre = shown["bias_corrected"]
    assert (found.ci_low, found.ci_high) == pytest.approx((centre - half, centre + half), rel=1e-12)
    assert found.treatment_value - found.control_value == pytest.approx(found.estimate, rel=1e-8)


def test_a_cutoff_that_everyone_follows_has_no_first_stage_f() -> None:
    sharp, fuzzy = estimate("transfers", {}), estimate("transfers", {"takeup": True})
    assert fuzzy.diagnostics["first_stage_f"] is None
    assert fuzzy.diagnostics["first_stage"]["estimate"] == pytest.approx(1.0)
    for name in ("estimate", "std_error", "control_value", "relative", "relative_ci_low", "relative_ci_high"):
        assert getattr(fuzzy, name) == pytest.approx(getattr(sharp, name), rel=1e-9), name


def world(seed: int, n: int = 400, fuzzy: bool = False) -> dict[str, Any]:
    """Lee's curve (Calonico, Cattaneo and Titiunik 2014, model 1) on 10, a jump of 0.04, noise by side."""
    rng = np.random.default_rng(seed)
    x = 2.0 * rng.beta(2, 4, n) - 1.0
    below = np.polynomial.Polynomial([0.48, 1.27, 7.18, 20.21, 21.54, 7.33])
    above = np.polynomial.Polynomial([0.48, 0.84, -3.00, 7.99, -9.01, 3.56])
    z = rng.normal(size=n) + x
    base = np.where(x < 0, below(x), above(x)) + 0.1 * z + 0.13 * rng.normal(size=n) * (1 + (x > 0))
    if not fuzzy:
        return {"outcome": base + 10 + 0.04 * (x >= 0), "running": x, "z": z}
    kind = rng.random(n)
    takes = (kind < 0.1) | ((kind < 0.8) & (x >= 0))
    return {
        "outcome": base + 10 + 0.3 * (kind < 0.1) + 0.5 * takes,
        "running": x,
        "z": z,
        "takeup": takes.astype(float),
    }


@pytest.mark.parametrize("kind", ["sharp", "covariates", "fuzzy"])
def test_the_interval_covers_and_so_does_the_relative_one(kind: str) -> None:
    hits, relative, n = 0, 0, 100
    truth, ratio = (0.5, 0.5 / 10.48) if kind == "fuzzy" else (0.04, 0.04 / 10.48)
    for seed in range(n):
        data = world(seed, n=500, fuzzy=kind == "fuzzy")
        z = data.pop("z")
        found = local_linear(**data, covariates=z if kind == "covariates" else None)
        hits += found.ci_low <= truth <= found.ci_high
        assert found.relative_ci_low is not None
        assert found.relative_ci_high is not None
        relative += found.relative_ci_low <= ratio <= found.relative_ci_high
    slack = 3.3 * math.sqrt(0.95 * 0.05 / n)
    assert hits / n > 0.94 - slack
    assert relative / n > 0.94 - slack


def test_covariates_narrow_the_interval_and_a_repeated_one_changes_nothing() -> None:
    data = world(1, n=3000)
    z = data.pop("z")
    plain, one = (local_linear(**data, h=0.3, covariates=c) for c in (None, z))
    twice = local_linear(**data, h=0.3, covariates=np.column_stack([z, 3.0 * z + 1.0, np.ones(len(z))]))
    assert one.std_error < 0.9 * plain.std_error
    assert (twice.estimate, twice.std_error) == pytest.approx((one.estimate, one.std_error), rel=1e-9)


def test_a_shift_and_a_change_of_unit_move_the_numbers_alike_and_the_order_of_rows_not_at_all() -> None:
    data = world(2, n=800)
    data.pop("z")
    y, x = data["outcome"], data["running"]
    one = local_linear(y, x)
    turned = np.random.default_rng(0).permutation(len(x))
    two = local_linear(1000.0 * y[turned] + 1e6, 3.0 * x[turned] + 7.0, cutoff=7.0)
    assert (two.estimate, two.std_error) == pytest.approx((1000.0 * one.estimate, 1000.0 * one.std_error), rel=1e-6)
    assert two.diagnostics["bandwidth"]["h"] == pytest.approx(3.0 * one.diagnostics["bandwidth"]["h"], rel=1e-6)
    again = local_linear(y[turned], x[turned])
    assert again == one


def test_neighbours_by_hand() -> None:
    x = np.array([0.0, 1.0, 1.0, 4.0, 5.0, 7.0])
    y = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0])
    found = neighbour_residuals(x, y[:, None])[:, 0]

    def left(own: float, *others: float) -> float:
        count = len(others)
        return math.sqrt(count / (count + 1)) * (own - sum(others) / count)

    by_hand = [
        left(1, 2, 4, 8),  # the pair of ones, then 4
        left(2, 4, 1, 8),  # its twin, then 0, then 4
        left(4, 2, 1, 8),
        left(8, 16, 32, 2, 4),  # 5, then 7 and the pair of ones are both 3 off
        left(16, 8, 32, 2, 4),  # 4, 7, then the pair at 1
        left(32, 16, 8, 2, 4),
    ]
    assert found == pytest.approx(by_hand, rel=1e-12)


def test_what_cannot_be_read_says_why() -> None:
    rng = np.random.default_rng(3)
    x = rng.uniform(-1, 1, 200)
    y = rng.normal(size=200)
    for message, call in {
        "no row stands below": lambda: local_linear(y, np.abs(x)),
        "no row stands at or above": lambda: local_linear(y, -np.abs(x) - 0.1),
        "15 rows are too few to choose a bandwidth": lambda: local_linear(y[:15], np.linspace(-1, 1, 15)),
        "distinct values? of the running variable": lambda: local_linear(y, np.sign(x)),
        "cannot carry a polynomial of order": lambda: local_linear(y, x, h=0.02),
        "does not vary about its line": lambda: local_linear(2.0 + 3.0 * x, x, h=0.5, variance="hc1"),
        "varies too little near the cutoff": lambda: local_linear(np.full(200, 4.0), x),
        "not finite": lambda: local_linear(np.where(x > 0.9, np.nan, y), x),
        "one row a unit": lambda: local_linear(y[:-1], x),
        "250 covariates are too many": lambda: local_linear(y, x, h=0.5, covariates=rng.normal(size=(200, 250))),
        "between 0 and 1": lambda: local_linear(y, x, takeup=2.0 * (x > 0)),
        "take-up does not jump": lambda: local_linear(y, x, takeup=np.zeros(200)),
        "a bandwidth must be a positive number": lambda: local_linear(y, x, h=-1.0),
        "needs one for the point too": lambda: local_linear(y, x, b=1.0),
        "too few clusters below the cutoff": lambda: local_linear(y, x, h=0.5, clusters=x > 0),
        "one cluster alone decides the fit": lambda: local_linear(y, x, h=0.5, clusters=x > 0, variance="hc2"),
    }.items():
        with pytest.raises(EstimationError, match=message):
            call()
    with pytest.raises(ValueError, match="kernel must be one of"):
        local_linear(y, x, kernel="gaussian")


def test_no_relative_effect_without_a_positive_control_or_a_whole_take_up() -> None:
    data = world(5, n=800, fuzzy=True)
    data.pop("z")
    low = local_linear(**{**data, "outcome": data["outcome"] - 20.0})
    assert low.relative is None
    assert "not positive" in low.relative_reason
    shares = local_linear(**{**data, "takeup": 0.9 * data["takeup"]})
    assert shares.relative is None
    assert "not 0 or 1" in shares.relative_reason


def test_a_bent_control_next_to_zero_has_no_interval_of_the_ratio() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(-1.0, 1.0, 400)
    y = (x >= 0.0) - x**2 + 0.01 * rng.normal(size=400)
    found = local_linear(y - local_linear(y, x, h=0.8).control_value + 1e-6, x, h=0.8)
    assert found.relative == pytest.approx(found.estimate / found.control_value, rel=1e-9)
    assert (found.relative_ci_low, found.relative_ci_high) == (None, None)
    assert "too near 0" in found.relative_reason
