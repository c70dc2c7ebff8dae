"""Effects by segment: the test of equal effects, differences, and pooling, against independent computations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats

from estimators.inference import EstimationError
from estimators.segments import (
    Levels,
    against_others,
    arm_parts,
    heterogeneity,
    joint_covariance,
    paule_mandel,
    pooled,
    rested_dfs,
    without_covariates,
)

# Rubin (1981), eight schools: effects and standard errors.
SCHOOLS = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0]), np.array([15.0, 10, 16, 11, 9, 11, 10, 18])
# Colditz et al. (1994), BCG vaccine: log relative risks and variances, of metafor's escalc(measure = "RR").
BCG = (
    np.array([-0.8893, -1.5854, -1.3481, -1.4416, -0.2175, -0.7861, -1.6209, 0.0120, -0.4694, -1.3713, -0.3394, 0.4459,
              -0.0173]),
    np.array([0.3256, 0.1946, 0.4154, 0.0200, 0.0512, 0.0069, 0.2230, 0.0040, 0.0564, 0.0730, 0.0124, 0.5325, 0.0714]),
)  # fmt: skip
INF = math.inf


def levels(effects: object, variances: object, df: object = INF) -> Levels:
    b = np.asarray(effects, dtype=float)
    v = np.asarray(variances, dtype=float)
    return Levels(b, np.diag(v) if v.ndim == 1 else v, np.broadcast_to(np.asarray(df, dtype=float), b.shape).copy())


@pytest.mark.parametrize(("effects", "variances"), [BCG, (SCHOOLS[0], SCHOOLS[1] ** 2)])
def test_variance_between_levels_against_statsmodels(effects, variances) -> None:
    from statsmodels.stats.meta_analysis import combine_effects

    wanted = combine_effects(effects, variances, method_re="iterated", atol=1e-13)
    assert paule_mandel(effects, np.diag(variances)) == pytest.approx(max(wanted.tau2, 0.0), rel=1e-6, abs=1e-9)


def test_what_chance_explains_is_no_variance() -> None:
    """Every method of metafor gives zero for the eight schools."""
    assert paule_mandel(SCHOOLS[0], np.diag(SCHOOLS[1] ** 2)) == 0.0


def test_two_levels_are_welchs_test() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(0, 1, 9), rng.normal(0.8, 3, 14)
    wanted = stats.ttest_ind(x, y, equal_var=False)
    given = levels([x.mean(), y.mean()], [x.var(ddof=1) / 9, y.var(ddof=1) / 14], [8, 13])
    found = heterogeneity(given)
    assert found.statistic == pytest.approx(wanted.statistic**2, rel=1e-12)
    assert found.df_residual == pytest.approx(wanted.df, rel=1e-12)
    assert found.p_value == pytest.approx(wanted.pvalue, rel=1e-10)
    difference, error, p = against_others(given, [1.0, 5.0])
    assert difference == pytest.approx([x.mean() - y.mean(), y.mean() - x.mean()], rel=1e-12)
    assert error[0] == pytest.approx(error[1], rel=1e-12)
    assert p == pytest.approx([wanted.pvalue] * 2, rel=1e-10)


def test_known_variances_are_cochrans_q() -> None:
    effects, variances = BCG
    w = 1 / variances
    q = float(w @ (effects - w @ effects / w.sum()) ** 2)
    found = heterogeneity(levels(effects, variances))
    assert found.statistic * found.df == pytest.approx(q, rel=1e-10)
    assert found.p_value == pytest.approx(stats.chi2.sf(q, 12), rel=1e-8)


def test_shared_units_are_hotellings_test() -> None:
    rng = np.random.default_rng(2)
    x = rng.multivariate_normal([0, 0.2, 0.1], [[1, 0.6, 0.2], [0.6, 2, 0.4], [0.2, 0.4, 1]], 12)
    found = heterogeneity(levels(x.mean(axis=0), np.cov(x.T) / 12, 11))
    c = np.array([[1.0, -1, 0], [0, 1, -1]])
    d, s = c @ x.mean(axis=0), c @ np.cov(x.T) @ c.T
    t2 = 12 * d @ np.linalg.solve(s, d)
    assert found.statistic == pytest.approx(t2 * 10 / (11 * 2), rel=1e-10)
    assert (found.df, found.df_residual) == (2, 10)
    assert found.p_value == pytest.approx(stats.f.sf(t2 * 10 / 22, 2, 10), rel=1e-10)


def test_errors_that_rest_on_few_units_have_few_degrees_of_freedom() -> None:
    rng = np.random.default_rng(6)
    plain = rng.normal(size=(400, 2))
    assert 300 < rested_dfs([1000.0, 1000.0], plain)[0] < 520
    assert rested_dfs([50.0, 60.0], plain) == pytest.approx([50.0, 60.0])
    plain[0, 1] = 100.0
    few = rested_dfs([1000.0, 1000.0], plain)
    assert few[0] > 300
    assert few[1] < 3
    assert rested_dfs([7.0, math.inf], None) == pytest.approx([7.0, math.inf])


def test_one_level_of_few_units_leaves_the_others_testable() -> None:
    """Levels share units; one of five rests on three of them."""
    v = np.diag([1.0, 1.0, 1.0, 1.0, 90.0]) + 0.2
    given = Levels(np.array([0.0, 0.0, 0.1, 8.0, 3.0]), v, np.array([400.0, 400.0, 400.0, 400.0, 2.0]))
    found = heterogeneity(given)
    assert 4 < found.df_residual < 40
    assert found.p_value < 0.02
    _, _, p = against_others(given, [100.0, 100.0, 100.0, 100.0, 3.0])
    assert p[3] < 0.001 < 0.3 < p[4]


@pytest.mark.parametrize("shared", [False, True])
def test_equal_effects_are_seldom_called_different(shared) -> None:
    """Four levels, few units, unlike variances: no more than 5 in 100."""
    rng = np.random.default_rng(3)
    draws, k, n = 1500, 4, 10
    scale = np.array([1.0, 1.0, 2.0, 3.0])
    hits = 0
    for _ in range(draws):
        common = rng.normal(size=(n, 1)) if shared else 0.0
        x = (common + rng.normal(size=(n, k))) * scale
        v = np.cov(x.T) / n
        hits += heterogeneity(levels(x.mean(axis=0), v if shared else np.diag(v), n - 1)).p_value < 0.05
    assert 0.03 < hits / draws < 0.066


def test_pooling_against_integration_by_scipy() -> None:
    rng = np.random.default_rng(4)
    a = rng.normal(size=(3, 3))
    v = a @ a.T + np.diag([1.0, 2.0, 3.0])
    b = np.array([1.0, 4.0, -2.0])
    scale = 3 / (1 / np.diag(v)).sum()

    def parts(u: float) -> tuple[float, np.ndarray, np.ndarray]:
        tau2 = scale * (1 - u) / u
        s = np.linalg.inv(v + tau2 * np.eye(3))
        mu = s.sum(axis=0) @ b / s.sum()
        density = np.sqrt(np.linalg.det(s) / s.sum()) * np.exp(-0.5 * (b - mu) @ s @ (b - mu))
        # Effects given tau^2: normal with precision V^-1 + (centring matrix) / tau^2.
        precision = np.linalg.inv(v) + (np.eye(3) - np.ones((3, 3)) / 3) / tau2
        cov = np.linalg.inv(precision)
        return density / u, cov @ np.linalg.solve(v, b), np.diag(cov)

    def moment(pick) -> float:
        return integrate.quad(lambda x: pick(*parts(x * x)) * 2 * x, 1e-9, 1 - 1e-12, epsabs=1e-13, limit=200)[0]

    total = moment(lambda d, m, s: d)
    found = pooled(levels(b, v), alpha=0.05)
    for i in range(3):
        mean = moment(lambda d, m, s, i=i: d * m[i]) / total
        second = moment(lambda d, m, s, i=i: d * (s[i] + m[i] ** 2)) / total
        assert found.estimates[i] == pytest.approx(mean, rel=1e-7)
        half = stats.norm.ppf(0.975) * math.sqrt(second - mean**2)
        assert (found.ci_low[i], found.ci_high[i]) == pytest.approx((mean - half, mean + half), rel=1e-6)


@pytest.mark.parametrize("tau", [0.0, 0.7, 3.0])
def test_pooled_intervals_cover_and_are_narrower(tau) -> None:
    rng = np.random.default_rng(5)
    errors = np.array([0.5, 1.0, 1.0, 2.0])
    draws, covered, width, off, raw = 300, 0, 0.0, 0.0, 0.0
    for _ in range(draws):
        truth = 1.0 + tau * rng.normal(size=4)
        b = truth + errors * rng.normal(size=4)
        found = pooled(levels(b, errors**2))
        covered += int(((found.ci_low <= truth) & (truth <= found.ci_high)).sum())
        width += float((found.ci_high - found.ci_low).mean() / (2 * 1.96 * errors.mean()))
        off += float(((found.estimates - truth) ** 2).sum())
        raw += float(((b - truth) ** 2).sum())
    assert covered / (4 * draws) > 0.93
    assert width / draws < (1.0 if tau > 1 else 0.9)
    assert off < raw


def test_contributions_give_the_covariance_of_the_mean() -> None:
    rng = np.random.default_rng(6)
    x = rng.normal(size=(40, 2)) @ np.array([[1.0, 0.5], [0.0, 1.0]])
    parts = np.column_stack([arm_parts(column, np.ones(40)) for column in x.T])
    wanted = np.cov(x.T) / 40
    assert parts.T @ parts == pytest.approx(wanted, rel=1e-12)
    assert joint_covariance(np.sqrt(np.diag(wanted)), parts) == pytest.approx(wanted, rel=1e-12)
    z = rng.normal(size=(40, 1))
    rest = without_covariates(parts[:, 0], z)
    assert float(rest @ (z[:, 0] - z.mean())) == pytest.approx(0.0, abs=1e-12)


def test_what_cannot_be_tested_is_said() -> None:
    with pytest.raises(EstimationError, match="one level alone"):
        heterogeneity(levels([1.0], [1.0]))
    with pytest.raises(EstimationError, match="one level alone"):
        pooled(levels([1.0], [1.0]))
    v = np.eye(4) + 0.5
    with pytest.raises(EstimationError, match="too few independent units"):
        heterogeneity(levels([1.0, 2.0, 3.0, 4.0], v, 2.0))
    with pytest.raises(EstimationError, match="too few independent units"):
        heterogeneity(levels([1.0, 2.0], np.ones((2, 2)), 20.0))
