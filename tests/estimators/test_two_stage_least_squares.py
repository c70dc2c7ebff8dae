"""Instrumental variables against other implementations, in simulation, and where the data cannot carry it.

Constants: ``oracles/iv.json``, made by ``oracles/iv.py`` with linearmodels 7.1. Both compute in double precision;
linearmodels inverts crossproducts of covariates in their own units, which costs it six of its sixteen digits.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from estimators import EstimationError, two_stage_least_squares, wald
from estimators.estimate import Estimate
from tests.estimators.iv_cases import ORACLE, Case, case


def estimate(given: Case, variance: str = "HC1", **more: Any) -> Estimate:
    return two_stage_least_squares(given.y, given.d, given.z, **given.options(variance), **more)


@pytest.mark.parametrize("name", ORACLE)
def test_the_numbers_of_linearmodels(name: str) -> None:
    expected, given = ORACLE[name], case(name)
    for variance in ("HC1", "classical", "cluster"):
        found = estimate(given, variance)
        assert found.estimate == pytest.approx(expected["estimate"], rel=1e-9)
        assert found.std_error == pytest.approx(expected[variance], rel=1e-9)
        key = "j_cluster" if variance == "cluster" else "j"
        shown = found.diagnostics["overidentification"]
        if key in expected:
            assert (shown["statistic"], shown["p_value"]) == pytest.approx(expected[key], rel=1e-9)
            assert shown["df"] == given.z.shape[1] - 1
        else:
            assert shown is None


@pytest.mark.parametrize("name", [name for name in ORACLE if "effective_f" in ORACLE[name]])
def test_the_effective_f_of_pyfixest(name: str) -> None:
    for variance, expected in ORACLE[name]["effective_f"].items():
        found = estimate(case(name), variance).diagnostics
        assert found["first_stage_f"] == pytest.approx(expected, rel=1e-9)
        first = found["first_stage"]
        if not isinstance(first["estimate"], list):
            assert (first["estimate"] / first["std_error"]) ** 2 == pytest.approx(expected, rel=1e-9)


def test_the_numbers_that_ivdiag_publishes() -> None:
    """R's ivDiag on Rueda (2017): point, robust error (as in its ``tF`` example) and effective F by town."""
    robust, by_town = (estimate(case("votes"), v) for v in ("HC1", "cluster"))
    assert (robust.estimate, robust.std_error) == pytest.approx((-0.9835, 0.1540), abs=6e-5)
    assert int(by_town.diagnostics["first_stage_f"]) == 8598


@pytest.mark.parametrize("name", ["card", "mroz, three", "votes"])
@pytest.mark.parametrize("variance", ["HC1", "cluster"])
def test_first_stage_and_reduced_form_are_the_regressions(name: str, variance: str) -> None:
    from statsmodels.api import OLS

    given = case(name)
    assert given.x is not None
    design = np.column_stack([given.z, np.ones(len(given.y)), given.x])
    how: dict[str, Any] = {"cov_type": "HC1", "use_t": True}
    if variance == "cluster":
        how |= {"cov_type": "cluster", "cov_kwds": {"groups": given.groups}}
    k = given.z.shape[1]
    shown = estimate(given, variance).diagnostics
    for key, column in (("first_stage", given.d), ("reduced_form", given.y)):
        model = OLS(column, design).fit(**how)
        joint = model.f_test(np.eye(k, design.shape[1]))
        assert np.atleast_1d(shown[key]["estimate"]) == pytest.approx(model.params[:k], rel=1e-8)
        assert np.atleast_1d(shown[key]["std_error"]) == pytest.approx(model.bse[:k], rel=1e-8)
        assert shown[key]["p_value"] == pytest.approx(float(joint.pvalue), rel=1e-7)


def test_the_critical_value_is_that_of_a_noncentral_chi_square() -> None:
    """23.1 for one instrument is in the paper's table; with several, Patnaik's degrees of freedom by hand."""
    from scipy.stats import ncx2

    assert estimate(case("card")).diagnostics["first_stage_f_critical"] == pytest.approx(23.1085, abs=1e-4)
    given = case("mroz, three")
    assert given.x is not None
    x = np.column_stack([np.ones(len(given.y)), given.x])
    z = given.z - x @ np.linalg.lstsq(x, given.z, rcond=None)[0]
    root = np.linalg.cholesky(z.T @ z)
    z = z @ np.linalg.inv(root.T)
    left = given.d - x @ np.linalg.lstsq(x, given.d, rcond=None)[0]
    left = left - z @ (z.T @ left)
    w = (z * left[:, None]).T @ (z * left[:, None])
    df = np.trace(w) ** 2 * 21.0 / (np.trace(w @ w) + 20.0 * np.trace(w) * np.linalg.eigvalsh(w)[-1])
    expected = ncx2.ppf(0.95, df, 10.0 * df) / df
    assert estimate(given).diagnostics["first_stage_f_critical"] == pytest.approx(expected, rel=1e-9)


def test_wald_is_the_ratio_of_differences_in_means() -> None:
    given = case("card, college")
    z = given.z[:, 0]
    found = wald(given.y, given.d, z)
    by_hand = [np.mean(v[z == 1]) - np.mean(v[z == 0]) for v in (given.y, given.d)]
    assert found.estimate == pytest.approx(by_hand[0] / by_hand[1], rel=1e-12)
    assert found == wald(given.y, given.d, np.where(z == 1, "near", "far") == "near")
    assert (found.n_control, found.n_treatment) == (int((z == 0).sum()), int((z == 1).sum()))
    same = estimate(given)
    assert (found.estimate, found.std_error) == (same.estimate, same.std_error)
    assert (found.method, same.method) == ("wald", "two_stage_least_squares")
    for bad in (given.y, np.zeros(len(z)), np.column_stack([z, z])):
        with pytest.raises(EstimationError, match="two values"):
            wald(given.y, given.d, bad)


def world(
    seed: int, n: int = 400, strength: float = 1.0, clusters: int = 0, unit: bool = False
) -> tuple[dict[str, Any], float, float]:
    """An instrument that moves some, whose effect differs from others'; the effect on them and their untreated mean.

    What moves treatment moves the outcome too. Noise is larger for the treated. With ``clusters`` the instrument is
    drawn by cluster, and outcomes have a part in common. With ``unit`` treatment is an amount, of one effect for all.
    """
    rng = np.random.default_rng(seed)
    group = np.arange(n) % clusters if clusters else np.arange(n)
    draw = (rng.random(group.max() + 1) < 0.5)[group].astype(float)
    taste = rng.normal(size=n)
    common = (0.5 * rng.normal(size=group.max() + 1))[group] if clusters else 0.0
    noise = common + rng.normal(size=n)
    if unit:
        d = strength * draw + taste + rng.normal(size=n)
        y = 10.0 + 0.8 * d + taste + noise * (1.0 + 0.5 * draw)
        return {"outcome": y, "treatment": d, "instruments": draw, "groups": group}, 0.8, math.nan
    kind = rng.random(n)
    moved = kind < 0.4 * strength
    d = np.where(moved, draw, (kind > 0.8).astype(float))
    y = 10.0 + np.where(moved, 1.5, 3.0) * d + 2.0 * (kind > 0.8) - 1.0 * moved + noise * (1.0 + 0.5 * d)
    return {"outcome": y, "treatment": d, "instruments": draw, "groups": group}, 1.5, 9.0


@pytest.mark.parametrize("kind", ["binary", "clustered", "amount"])
def test_the_interval_covers_and_so_does_the_relative_one(kind: str) -> None:
    hits, relative, robust, n = 0, 0, 0, 150
    for seed in range(n):
        options: dict[str, Any] = {"clusters": 40, "n": 600} if kind == "clustered" else {"unit": kind == "amount"}
        data, truth, base = world(seed, **options)
        groups = data.pop("groups")
        if kind == "clustered":
            found = two_stage_least_squares(**data, clusters=groups, variance="cluster")
        else:
            found = two_stage_least_squares(**data)
        base = float(np.mean(data["outcome"])) if kind == "amount" else base
        hits += found.ci_low <= truth <= found.ci_high
        assert found.relative_ci_low is not None
        assert found.relative_ci_high is not None
        relative += found.relative_ci_low <= truth / base <= found.relative_ci_high
        robust += covered(found, truth)
    slack = 3.3 * math.sqrt(0.95 * 0.05 / n)
    for share in (hits / n, relative / n, robust / n):
        assert share == pytest.approx(0.95, abs=slack)


def covered(found: Estimate, truth: float) -> bool:
    """Whether the Anderson-Rubin set holds the truth."""
    ends = found.diagnostics["anderson_rubin"]["segments"]
    return any((a is None or a <= truth) and (b is None or truth <= b) for a, b in ends)


@pytest.mark.parametrize("instruments", [1, 4])
def test_a_weak_instrument_fools_the_interval_and_not_the_anderson_rubin_set(instruments: int) -> None:
    plain = robust = unbounded = 0
    n, strengths = 200, []
    for seed in range(n):
        rng = np.random.default_rng(seed)
        z = rng.normal(size=(200, instruments))
        u = rng.normal(size=200) * (1.0 + 0.5 * np.abs(z[:, 0]))
        d = z @ np.full(instruments, 0.1) + u + 0.3 * rng.normal(size=200)
        found = two_stage_least_squares(1.0 + 0.0 * d + u, d, z)
        strengths.append(found.diagnostics["first_stage_f"])
        plain += found.ci_low <= 0.0 <= found.ci_high
        robust += covered(found, 0.0)
        unbounded += not found.diagnostics["anderson_rubin"]["bounded"]
        assert covered(found, 0.0) == (found.diagnostics["anderson_rubin"]["p_value"] >= 0.05)
    assert np.median(strengths) < 5.0
    assert plain / n < 0.85
    assert robust / n > 0.95 - 3.3 * math.sqrt(0.95 * 0.05 / n)
    assert unbounded > 0


def test_instruments_that_disagree_are_seen_and_those_that_agree_are_not() -> None:
    for wrong, low, high in ((0.0, 0.0, 0.1), (0.5, 0.8, 1.0)):
        rejected, n = 0, 100
        for seed in range(n):
            rng = np.random.default_rng(seed)
            z = rng.normal(size=(400, 2))
            u = rng.normal(size=400)
            d = z.sum(axis=1) + u
            found = two_stage_least_squares(d + u + wrong * z[:, 0], d, z).diagnostics["overidentification"]
            rejected += found["p_value"] < 0.05
        assert low <= rejected / n <= high


def test_a_shift_a_change_of_unit_and_the_choice_of_instruments_basis_move_nothing_else() -> None:
    given = case("mroz, three")
    one = estimate(given)
    turned = np.array([[1.0, 0.5, 0.0], [0.0, -2.0, 1.0], [3.0, 0.0, 1.0]])
    two = two_stage_least_squares(
        1e3 * given.y + 1e6,
        given.d / 7.0,
        1e4 + given.z @ turned,
        covariates=np.column_stack([given.x, given.x, given.d * 0]),
    )
    assert (two.estimate, two.std_error) == pytest.approx((7e3 * one.estimate, 7e3 * one.std_error), rel=1e-8)
    for key in ("first_stage_f", "first_stage_f_critical"):
        assert two.diagnostics[key] == pytest.approx(one.diagnostics[key], rel=1e-8)
    ends = [np.array(e.diagnostics["anderson_rubin"]["segments"], dtype=float) for e in (one, two)]
    assert ends[1] == pytest.approx(7e3 * ends[0], rel=1e-8)
    assert two.diagnostics["dropped_covariates"] == [2, 3, 4]
    again = two_stage_least_squares(given.y, given.d, given.z[:, [0, 0, 1, 2]], covariates=given.x)
    assert again.estimate == pytest.approx(one.estimate, rel=1e-12)
    assert again.diagnostics["dropped_instruments"] == [1]


def test_rows_that_stand_for_several_are_weighed() -> None:
    data, *_ = world(3, clusters=50)
    groups = data.pop("groups")
    rows = two_stage_least_squares(**data, clusters=groups, variance="cluster")
    size = np.bincount(groups).astype(float)
    means = {k: np.bincount(groups, weights=v) / size for k, v in data.items()}
    units = two_stage_least_squares(**means, weights=size)
    assert units.estimate == pytest.approx(rows.estimate, rel=1e-12)
    assert units.std_error == pytest.approx(rows.std_error, rel=0.02)


def test_treatment_that_follows_the_instrument_to_the_letter() -> None:
    """Everybody complies: the difference in means, and a first stage without an error."""
    data, *_ = world(1)
    z, y = data["instruments"], data["outcome"]
    found = wald(y, z, z)
    assert found.estimate == pytest.approx(y[z == 1].mean() - y[z == 0].mean(), rel=1e-12)
    assert found.treatment_value == pytest.approx(y[z == 1].mean(), rel=1e-12)
    assert found.diagnostics["first_stage_f"] is None
    assert found.diagnostics["compliers"]["share"] == pytest.approx(1.0)
    assert found.diagnostics["anderson_rubin"]["bounded"]


def test_an_outcome_that_follows_the_instrument_to_the_letter() -> None:
    """No reduced form is surer; the treatment, which does not follow, still leaves an error."""
    z, d = np.array([1.0, 0.0, 1.0, 0.0, 1.0]), np.array([1.0, 0.0, 1.0, 1.0, 1.0])
    found = two_stage_least_squares(z, d, z)
    row = found.diagnostics["anderson_rubin"]
    assert row["p_value"] == pytest.approx(0.0, abs=1e-12)
    assert row["statistic"] is None or row["statistic"] > 1e12
    assert found.std_error > 0.0


def test_values_of_those_whom_the_instrument_treats() -> None:
    data, *_ = world(2, n=40_000)
    found = two_stage_least_squares(data["outcome"], data["treatment"], data["instruments"])
    assert (found.control_value, found.treatment_value) == pytest.approx((9.0, 10.5), abs=0.15)
    assert found.treatment_value - found.control_value == pytest.approx(found.estimate, rel=1e-9)
    assert found.relative == pytest.approx(found.estimate / found.control_value, rel=1e-9)
    amount, _, _ = world(2, unit=True)
    found = two_stage_least_squares(amount["outcome"], amount["treatment"], amount["instruments"])
    assert found.control_value == pytest.approx(amount["outcome"].mean())
    assert found.treatment_value - found.control_value == pytest.approx(found.estimate)
    assert "compliers" not in found.diagnostics


def test_what_cannot_be_read_says_why() -> None:
    data, *_ = world(0, n=60)
    y, d, z = data["outcome"], data["treatment"], data["instruments"]
    cases: list[tuple[str, dict[str, Any]]] = [
        ("one row a unit", {"treatment": d[:-1]}),
        ("one row a unit", {"instruments": z[:-1]}),
        ("not finite", {"outcome": np.where(np.arange(60) == 3, np.nan, y)}),
        ("positive", {"weights": np.zeros(60)}),
        ("no instrument varies", {"instruments": np.ones(60)}),
        ("no instrument varies", {"covariates": 1.0 - z}),
        ("treatment does not vary", {"treatment": np.ones(60)}),
        ("treatment does not vary", {"covariates": d}),
        ("does not move treatment", {"treatment": np.tile([0.0, 1.0], 30), "instruments": np.repeat([0.0, 1.0], 30)}),
        ("does not vary", {"outcome": np.full(60, 0.1)}),
        ("does not vary", {"outcome": 3.0 + 0.7 * d}),
        ("too few", {"covariates": np.random.default_rng(0).normal(size=(60, 58))}),
        ("1 cluster and 1 instrument", {"clusters": np.zeros(60), "variance": "cluster"}),
        ("one row alone", {"instruments": (np.arange(60) == 7).astype(float)}),
        (
            "one cluster alone",
            {"instruments": np.arange(60) < 6, "clusters": np.arange(60) // 6, "variance": "cluster"},
        ),
        ("alpha", {"alpha": 1.5}),
    ]
    for message, change in cases:
        with pytest.raises(EstimationError, match=message):
            two_stage_least_squares(**{"outcome": y, "treatment": d, "instruments": z} | change)
    for wrong in ({"variance": "HC3"}, {"variance": "cluster"}, {"clusters": np.arange(60)}):
        with pytest.raises(ValueError, match="variance"):
            two_stage_least_squares(y, d, z, **wrong)
