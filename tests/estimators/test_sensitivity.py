"""Sensitivity to confounding against PySensemakr, DoubleML and published numbers, and where it has nothing to say.

Constants: ``oracles/confounding.json``, made by ``oracles/confounding.py``. Bounds agree to 1e-7 (an iterated logit
lies between); DoubleML finds robustness values by a search that stops at 1e-5. Its intervals take the covariance of the
effect and its bias with the wrong sign (``scaled_psi`` is minus the influence function): they are met with that sign
turned, and a simulation says which is right.
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
import statsmodels

from estimators.evalue import evalue, evalue_of_difference
from estimators.inference import EstimationError
from estimators.logit import fit_logit
from estimators.riesz_sensitivity import RieszSensitivity, representer, riesz_sensitivity, strength_of
from estimators.sensitivity import robustness, sensitivity

HERE = Path(__file__).parent
ORACLE = json.loads((HERE / "oracles" / "confounding.json").read_text())
SMOKE = Path(statsmodels.__file__).parent / "treatment" / "tests" / "results" / "cataneo2.csv"
COLUMNS = {
    "nsw": ("re78", "treat", ["age", "educ", "black", "nodegree", "re75"]),
    "smoke": ("bweight", "mbsmoke_", ["mage", "medu", "mmarried_", "fbaby_", "prenatal1_"]),
}


@cache
def arrays(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    data, (y, t, x) = pd.read_csv(HERE / "data" / "nsw.csv" if name == "nsw" else SMOKE), COLUMNS[name]
    return data[y].to_numpy(float), data[t].to_numpy(float), data[x].to_numpy(float)


@pytest.mark.parametrize("name", sorted(COLUMNS))
def test_the_numbers_of_sensemakr(name: str) -> None:
    expected, (y, d, x) = ORACLE["regression"][name], arrays(name)
    found = sensitivity(y, d, x, benchmarks={"first": [0], "second": [1]})
    shown = [found.estimate, found.std_error, found.df, found.partial_r2]
    shown += [found.robustness_value, found.robustness_value_alpha]
    assert shown == pytest.approx(expected["statistics"], rel=1e-8)
    assert sensitivity(y, d, x, q=0.5).robustness_value == pytest.approx(expected["half"], rel=1e-8)
    assert [(b.covariate, b.multiple) for b in found.bounds] == [(c, k) for c in ("first", "second") for k in (1, 2, 3)]
    for bound, numbers in zip(found.bounds, expected["bounds"], strict=True):
        mine = [bound.r2_treatment, bound.r2_outcome, bound.estimate, bound.std_error, bound.ci_low, bound.ci_high]
        assert mine == pytest.approx(numbers, rel=1e-8)
    assert found.robustness_of(found.estimate) == pytest.approx(found.robustness_value, rel=1e-12)


def test_the_robustness_value_printed_for_darfur() -> None:
    """Cinelli and Hazlett (2020), table 1: t = 4.18 on 783 degrees of freedom, a robustness value of 13.9 %."""
    assert robustness(0.09731582 / 0.02325654 / math.sqrt(783)) == pytest.approx(0.1387764, abs=1e-6)


def test_a_confounder_as_strong_as_stated_moves_the_estimate_to_where_the_bound_says() -> None:
    """A column with the bound's two partial R^2 is built, added, and the regression run again."""
    y, d, x = arrays("nsw")
    found = sensitivity(y, d, x, benchmarks={"educ": [1]}, multiples=[3])
    bound = found.bounds[0]
    rng = np.random.default_rng(0)
    design = np.column_stack([np.ones(len(y)), x])

    def rest(v: np.ndarray, of: np.ndarray) -> np.ndarray:
        out = v - of @ np.linalg.lstsq(of, v, rcond=None)[0]
        return np.asarray(out / np.linalg.norm(out))

    own, outcome = rest(d, design), rest(y, np.column_stack([design, d]))
    noise = rest(rng.normal(size=len(y)), np.column_stack([design, d, y]))
    a, b = math.sqrt(bound.r2_treatment), math.sqrt(bound.r2_outcome)
    side = math.sqrt(1 - a * a)
    z = a * own + side * (b * outcome + math.sqrt(1 - b * b) * noise)
    again = sensitivity(y, d, np.column_stack([x, z]))
    assert again.estimate == pytest.approx(bound.estimate, rel=1e-9)
    assert again.std_error == pytest.approx(bound.std_error, rel=1e-9)


def test_collinear_and_constant_columns_and_large_levels_change_nothing() -> None:
    y, d, x = arrays("smoke")
    plain = sensitivity(y, d, x, benchmarks={"medu": [1]})
    more = np.column_stack([x + 1e5, x[:, 0] - x[:, 2], np.full(len(y), 0.1)])
    again = sensitivity(y + 1e6, d, more, benchmarks={"medu": [1]})
    assert again.df == plain.df
    assert again.robustness_value_alpha == pytest.approx(plain.robustness_value_alpha, rel=1e-6)
    assert again.bounds[2].ci_high == pytest.approx(plain.bounds[2].ci_high, rel=1e-6)


def test_errors_by_unit_are_those_of_statsmodels_and_lower_the_robustness() -> None:
    from statsmodels.api import OLS, add_constant

    rng = np.random.default_rng(4)
    unit = np.arange(600) % 60
    d = (rng.random(60) < 0.5)[unit].astype(float)
    x = rng.normal(size=(600, 2))
    y = 0.6 * d + x[:, 0] + rng.normal(size=60)[unit] + rng.normal(size=600)
    found, rows = sensitivity(y, d, x, units=unit), sensitivity(y, d, x)
    fit = OLS(y, add_constant(np.column_stack([d, x]))).fit(cov_type="cluster", cov_kwds={"groups": unit})
    assert (found.estimate, found.std_error) == pytest.approx((fit.params[1], fit.bse[1]), rel=1e-9)
    assert found.df == 59
    assert found.robustness_value == pytest.approx(rows.robustness_value)
    assert found.robustness_value_alpha < rows.robustness_value_alpha
    single = sensitivity(y, d, x, units=np.arange(600))
    assert single == rows


def test_a_confounder_that_cannot_be_is_left_out() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=300)
    d = (x + 0.8 * rng.normal(size=300) > 0).astype(float)
    found = sensitivity(d + x + rng.normal(size=300), d, x, benchmarks={"x": [0]}, multiples=[0.5, 1, 3])
    assert [b.multiple for b in found.bounds] == [0.5, 1.0]


def test_regressions_that_carry_nothing() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(50, 2)), rng.normal(size=50)
    with pytest.raises(EstimationError, match="determine the treatment"):
        sensitivity(y, x @ [1.0, 2.0], x)
    with pytest.raises(EstimationError, match="determine the outcome"):
        sensitivity(np.ones(50), y, x)
    with pytest.raises(EstimationError, match="determine the outcome"):
        sensitivity(2 * y + x[:, 0], y, x)
    with pytest.raises(EstimationError, match="too few rows"):
        sensitivity(y[:5], np.arange(5) % 2, x[:5])
    with pytest.raises(EstimationError, match="not finite"):
        sensitivity(np.where(x[:, 0] > 0, np.nan, y), y, x)


def doubly_robust(name: str, estimand: str, drop: int | None = None, **options: Any) -> RieszSensitivity:
    y, d, x = arrays(name)
    return of_arrays(y, d, x if drop is None else np.delete(x, drop, axis=1), estimand, **options)


def of_arrays(
    y: np.ndarray, d: np.ndarray, x: np.ndarray, estimand: str = "ate", sign: float = 1.0, **options: Any
) -> RieszSensitivity:
    """AIPW with a logit and least squares by arm, and its sensitivity."""
    spread = (x - x.mean(axis=0)) / x.std(axis=0)
    e = fit_logit(spread, d == 1).probability
    design = np.column_stack([np.ones(len(y)), spread])
    g0, g1 = (design @ np.linalg.lstsq(design[d == a], y[d == a], rcond=None)[0] for a in (0, 1))
    a, square = representer(d, e, estimand)
    rest = y - np.where(d == 1, g1, g0)
    share = np.ones(len(y)) if estimand == "ate" else d / d.mean()
    values = share * (g1 - g0) + a * rest
    estimate = float(values.mean())
    return riesz_sensitivity(estimate, sign * (values - share * estimate), rest, square, **options)


@pytest.mark.parametrize(("name", "score", "expected"), ORACLE["riesz"])
def test_the_numbers_of_doubleml(name: str, score: str, expected: dict[str, Any]) -> None:
    estimand = {"ate": "ate", "atte": "att"}[score]
    found = doubly_robust(name, estimand, sign=-1.0, strengths=[(0.05, 0.03, 0.8)])
    bound = found.bounds[0]
    assert found.estimate == pytest.approx(expected["estimate"], rel=1e-8)
    assert [bound.low, bound.high, bound.ci_low, bound.ci_high] == pytest.approx(expected["bounds"], rel=1e-7)
    shown = [found.robustness_value, found.robustness_value_alpha]
    assert shown == pytest.approx(expected["robustness"], abs=2e-5)
    gain = strength_of(found, doubly_robust(name, estimand, drop=0))
    mine = [gain.outcome, gain.treatment, gain.change]
    assert mine == pytest.approx(expected["gain"][:3], rel=1e-6)
    assert gain.rho == pytest.approx(expected["gain"][3], rel=1e-5)


def test_the_error_of_a_bound_is_the_spread_of_the_bound() -> None:
    """Noise that grows with the effect: the bias and the effect rise together, and their covariance matters."""
    ends, mine, turned = [], [], []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(400, 1))
        d = (rng.random(400) < 1 / (1 + np.exp(-0.3 * x[:, 0]))).astype(float)
        y = x[:, 0] + d * 2 * rng.exponential(size=400) + rng.normal(size=400)
        for sign, into in ((1.0, mine), (-1.0, turned)):
            bound = of_arrays(y, d, x, sign=sign, strengths=[(0.3, 0.3, 1.0)]).bounds[0]
            into.append((bound.ci_high - bound.high) / 1.959964)
        ends.append(bound.high)
    assert np.mean(mine) == pytest.approx(np.std(ends), rel=0.15)
    assert np.mean(turned) < 0.75 * np.std(ends)


def test_at_the_robustness_value_the_bound_is_zero_and_so_is_its_interval() -> None:
    plain = doubly_robust("smoke", "ate")
    r, with_alpha = plain.robustness_value, plain.robustness_value_alpha
    at = doubly_robust("smoke", "ate", strengths=[(r, r, 1.0), (with_alpha, with_alpha, 1.0)]).bounds
    assert at[0].high == pytest.approx(0.0, abs=1e-8)
    assert at[1].ci_high == pytest.approx(0.0, abs=1e-8)
    weak = riesz_sensitivity(0.1, [1.0, -1.0, 2.0, -2.0], [1.0, 2.0, 1.0, 0.5], [4.0] * 4)
    assert weak.robustness_value_alpha == 0.0


def test_the_bound_holds_the_truth_under_the_confounder_that_was_hidden() -> None:
    """Outcome and treatment both move with ``u``: without it the estimate is off, its bounds are not."""
    rng = np.random.default_rng(3)
    n = 200_000
    x, u = rng.normal(size=(2, n))
    index = 0.5 * x + 0.5 * u
    d = (rng.random(n) < 1 / (1 + np.exp(-index))).astype(float)
    y = d + x + u + rng.normal(size=n)
    found = {}
    for name, columns in (("long", [x, u]), ("short", [x])):
        z = np.column_stack(columns)
        e = fit_logit(z, d == 1).probability
        design = np.column_stack([np.ones(n), z])
        g0, g1 = (design @ np.linalg.lstsq(design[d == a], y[d == a], rcond=None)[0] for a in (0, 1))
        a, square = representer(d, e)
        rest = y - np.where(d == 1, g1, g0)
        values = g1 - g0 + a * rest
        found[name] = (float(values.mean()), rest, a, square, values)
    _, rest, _, square, values = found["short"]
    short = found["short"][0]
    hidden_y = 1 - (found["long"][1] ** 2).mean() / (rest**2).mean()
    hidden_d = 1 - (found["short"][2] ** 2).mean() / (found["long"][2] ** 2).mean()
    bound = riesz_sensitivity(short, values - short, rest, square, strengths=[(hidden_y, hidden_d, 1.0)]).bounds[0]
    assert short > 1.3
    assert bound.low < 1.0 < short


def test_errors_by_unit_widen_the_bounds_interval_and_refusals() -> None:
    rng = np.random.default_rng(5)
    unit = np.arange(400) % 40
    psi = rng.normal(size=40)[unit] + rng.normal(size=400)
    rest, square = rng.normal(size=400), 4 + rng.random(400)
    rows, units = (
        riesz_sensitivity(1.0, psi, rest, square, units=u, strengths=[(0.1, 0.1, 1.0)]).bounds[0] for u in (None, unit)
    )
    assert units.low == rows.low
    assert units.ci_low < rows.ci_low
    with pytest.raises(EstimationError, match="strictly between 0 and 1"):
        representer([0, 1], [0.5, 1.0])
    with pytest.raises(EstimationError, match="ate and att only"):
        representer([0, 1], [0.5, 0.5], "overlap")
    with pytest.raises(EstimationError, match="fits it exactly"):
        riesz_sensitivity(1.0, psi, np.zeros(400), square)
    with pytest.raises(EstimationError, match="strengths lie"):
        riesz_sensitivity(1.0, psi, rest, square, strengths=[(1.0, 0.1, 1.0)])


def test_e_values_as_published() -> None:
    """VanderWeele and Ding (2017): breast feeding, 3.9 (1.8, 8.7); Moayyedi and others, 0.80 (0.71, 0.91)."""
    feeding = evalue(3.9, 1.8, 8.7)
    assert (feeding.point, feeding.limit) == pytest.approx((7.263034, 3.0), abs=1e-6)
    below = evalue(0.80, 0.71, 0.91)
    assert (below.point, below.limit) == pytest.approx((1.809017, 1.428571), abs=1e-6)
    assert evalue(1.2, 0.9, 1.6).limit == 1.0
    assert evalue(1.0, 1.0, 1.0).point == 1.0
    assert evalue(2.0, -0.5, math.inf).limit == 1.0


def test_an_e_value_of_a_difference_goes_by_its_risk_ratio() -> None:
    found = evalue_of_difference(-1.0, 0.2, 2.0)
    assert found.risk_ratio == pytest.approx(math.exp(-0.455))
    assert (found.ci_low, found.ci_high) == pytest.approx((math.exp(-0.455 - 0.178), math.exp(-0.455 + 0.178)))
    assert 1.0 < found.limit < found.point
    with pytest.raises(EstimationError, match="varies"):
        evalue_of_difference(1.0, 0.1, 0.0)
    with pytest.raises(EstimationError, match="positive risk ratio"):
        evalue(0.0, 0.0, 1.0)
    with pytest.raises(EstimationError, match="does not hold"):
        evalue(2.0, 2.1, 3.0)
