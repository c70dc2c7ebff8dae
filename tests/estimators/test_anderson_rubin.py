"""Anderson-Rubin sets against ivmodels, against the test that they invert, and in every shape they take.

Constants: ``oracles/iv.json``, made by ``oracles/iv.py`` with ivmodels 0.10.0, which has the set for equal variances:
the quadratic's roots in closed form. Both compute in double precision.
"""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from estimators import EstimationError, two_stage_least_squares
from estimators.anderson_rubin import Forms, anderson_rubin, invert
from estimators.instruments import prepare
from estimators.jackknife import jackknife
from tests.estimators.iv_cases import ORACLE, case


@pytest.mark.parametrize("name", [name for name in ORACLE if "anderson_rubin" in ORACLE[name]])
def test_the_sets_of_ivmodels_where_variances_are_alike(name: str) -> None:
    from scipy.special import fdtri

    given = case(name)
    data = prepare(given.y, given.d, given.z, covariates=given.x)
    left = [data.left_by_instruments(column) for column in (data.y, data.d)]
    yy, yd, dd = (left[i] @ left[j] / data.df(data.k) * np.eye(data.k) for i, j in ((0, 0), (0, 1), (1, 1)))
    # One variance estimated has an F reference; at this level Hotelling's limit is the one of F at 5 %.
    alpha = hotelling_p(data.k * float(fdtri(data.k, data.df(data.k), 0.95)), data.k, data.df(data.k))
    found = invert(Forms(data.z.T @ data.y, data.z.T @ data.d, yy, yd, dd), data.df(data.k), alpha=alpha)
    expected = ORACLE[name]["anderson_rubin"]
    assert np.ravel(found.segments) == pytest.approx(np.ravel(expected), rel=1e-9)


def hotelling_p(wald: float, k: int, df: float) -> float:
    from scipy.stats import f

    return float(f.sf(wald * (df - k + 1) / (k * df), k, df - k + 1))


@pytest.mark.parametrize("name", ["card", "card, weak", "card, two", "mroz, three", "votes"])
def test_at_its_ends_the_regression_on_the_instruments_has_p_of_alpha(name: str) -> None:
    from statsmodels.api import OLS

    given = case(name)
    assert given.x is not None
    k = given.z.shape[1]
    design = np.column_stack([given.z, np.ones(len(given.y)), given.x - given.x.mean(axis=0)])
    found = two_stage_least_squares(given.y, given.d, given.z, alpha=0.1, **given.options("HC1"))
    row = found.diagnostics["anderson_rubin"]
    ends = [x for segment in row["segments"] for x in segment if x is not None]
    assert ends
    for value, p_value in [*((end, 0.1) for end in ends), (0.0, row["p_value"])]:
        model = OLS(given.y - value * given.d, design).fit(cov_type="HC3")
        wald = float(model.wald_test(np.eye(k, design.shape[1]), use_f=False, scalar=True).statistic)
        assert hotelling_p(wald, k, model.df_resid) == pytest.approx(p_value, rel=1e-6)


@pytest.mark.parametrize("name", ["card, two", "mroz, three"])
def test_with_clusters_it_is_the_test_of_the_regression_refitted_without_each(name: str) -> None:
    given = case(name)
    design = np.column_stack([given.z, np.ones(len(given.y)), given.x])
    k = given.z.shape[1]
    found = two_stage_least_squares(given.y, given.d, given.z, alpha=0.1, **given.options("cluster"))
    row = found.diagnostics["anderson_rubin"]
    labels = np.unique(given.groups)
    for value, p_value in [*((end, 0.1) for end in row["segments"][0]), (0.0, row["p_value"])]:
        left = given.y - value * given.d
        coef = np.linalg.lstsq(design, left, rcond=None)[0][:k]
        without = [np.linalg.lstsq(design[~out], left[~out], rcond=None)[0][:k]
                   for out in (given.groups == g for g in labels)]  # fmt: skip
        moved = np.array(without) - coef
        v = moved.T @ moved * (len(labels) - 1) / len(labels)
        assert hotelling_p(coef @ np.linalg.solve(v, coef), k, len(labels) - 1) == pytest.approx(p_value, rel=1e-6)


@pytest.mark.parametrize("size", [1, 7, 39])
def test_blocks_of_clusters_change_nothing(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    design, _ = np.linalg.qr(rng.normal(size=(300, 4)))
    codes = rng.integers(0, 40, 300)
    e = rng.normal(size=(300, 2))
    whole = jackknife(design, e, 2, codes)
    monkeypatch.setattr("estimators.jackknife._BLOCK", size)
    assert np.array_equal(whole, jackknife(design, e, 2, codes))
    singles = [jackknife(design, e, 2, c) for c in (None, np.arange(300))]
    assert singles[1][0] == pytest.approx(singles[0][0] * math.sqrt(299 / 300), rel=1e-9)


def draw(seed: int, k: int) -> Forms:
    """Coefficients with any covariance, from precise to useless."""
    rng = np.random.default_rng(seed)
    spread = rng.normal(size=(2 * k, 2 * k)) * rng.exponential(size=2 * k)
    v = spread @ spread.T
    m = rng.normal(size=2 * k) * rng.choice([1.0, 5.0, 20.0])
    return Forms(m[:k], m[k:], v[:k, :k], v[:k, k:], v[k:, k:])


@pytest.mark.parametrize("k", [1, 2, 4])
def test_a_value_is_in_the_set_where_its_own_test_does_not_reject(k: int) -> None:
    from scipy.special import fdtri

    shapes: Counter[str] = Counter()
    grid = np.concatenate([np.linspace(-8.0, 8.0, 60), [-1e6, 1e6]])
    limit = 30.0 * k / (31.0 - k) * float(fdtri(k, 31.0 - k, 0.95))
    for seed in range(100):
        forms = draw(seed, k)
        found = invert(forms, 30.0)
        ends = np.ravel(found.segments)
        assert (np.diff(ends) > 0.0).all()
        for x in grid:
            if len(ends) and np.abs(ends - x).min() < 1e-6 * abs(x):
                continue
            assert any(a <= x <= b for a, b in found.segments) == (forms.wald(x) <= limit), (seed, x)
        finite = ends[np.isfinite(ends)]
        assert [forms.wald(x) for x in finite] == pytest.approx([limit] * len(finite), rel=1e-6)
        shapes[shape(found.segments)] += 1
    wanted = {"interval", "rays", "line"} | ({"empty", "pieces"} if k > 1 else set())
    assert wanted <= set(shapes), shapes


def shape(segments: tuple[tuple[float, float], ...]) -> str:
    if not segments:
        return "empty"
    ends = np.ravel(segments)
    if len(segments) == 1:
        return ("interval", "ray", "line")[int(np.isinf(ends).sum())]
    return "rays" if len(segments) == 2 and np.isinf(ends[[0, -1]]).all() else "pieces"


def test_one_instrument_has_fiellers_set() -> None:
    from scipy.special import stdtrit

    a, b, yy, yd, dd = 2.0, 1.0, 0.3, 0.05, 0.04
    found = invert(Forms(*(np.array([v]) for v in (a, b)), *(np.array([[v]]) for v in (yy, yd, dd))), 50.0)
    t = float(stdtrit(50.0, 0.975)) ** 2
    roots = np.sort(np.roots([b * b - t * dd, -2 * (a * b - t * yd), a * a - t * yy]))
    assert np.ravel(found.segments) == pytest.approx(roots, rel=1e-12)
    assert found.statistic == pytest.approx(a * a / yy)
    assert found.bounded
    row = found.as_row()
    assert (row["ci_low"], row["ci_high"], row["bounded"]) == (*found.segments[0], True)


def test_rows_hold_no_infinity_and_say_what_is_open() -> None:
    weak = two_stage_least_squares(*(getattr(case("card, weak"), c) for c in "ydz"), covariates=case("card, weak").x)
    row = weak.diagnostics["anderson_rubin"]
    (low, a), (b, high) = row["segments"]
    assert low is None
    assert high is None
    assert a < b
    assert (row["ci_low"], row["ci_high"], row["bounded"], row["empty"]) == (None, None, False, False)
    apart = Forms(np.array([0.0, 5.0]), np.array([5.0, 0.1]), np.eye(2), np.zeros((2, 2)), 1e-4 * np.eye(2))
    row = invert(apart, 100.0).as_row()
    assert (row["segments"], row["ci_low"], row["bounded"], row["empty"]) == ([], None, False, True)


def test_where_it_is_looked_for_does_not_matter() -> None:
    given = case("card, two")
    data = prepare(given.y, given.d, given.z, covariates=given.x)
    sets = [anderson_rubin(data, around) for around in (0.2, -3.0, 0.0)]
    for found in sets[1:]:
        assert np.ravel(found.segments) == pytest.approx(np.ravel(sets[0].segments), rel=1e-8)
        assert (found.statistic, found.p_value) == pytest.approx((sets[0].statistic, sets[0].p_value), rel=1e-8)


def test_what_cannot_be_read_says_why() -> None:
    nothing = np.zeros((1, 1))
    with pytest.raises(EstimationError, match="does not vary"):
        invert(Forms(np.ones(1), np.ones(1), nothing, nothing, nothing), 10.0)
    with pytest.raises(EstimationError, match="alpha"):
        invert(draw(0, 1), 10.0, alpha=0.0)
    with pytest.raises(EstimationError, match="too few"):
        invert(draw(0, 4), 3.0)
    assert not math.isnan(invert(draw(0, 1), 1.0).p_value)
