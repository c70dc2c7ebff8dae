from __future__ import annotations

import numpy as np
import pytest

from estimators.inference import EstimationError
from estimators.ols import fit


def world(seed: int, n: int = 120, p: int = 5, n_groups: int = 14) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    x = np.column_stack([np.ones(n), rng.normal(size=(n, p - 1))])
    groups = rng.permutation(np.r_[np.arange(n_groups), rng.integers(0, n_groups, n - n_groups)])
    y = x @ rng.normal(size=p) + rng.normal(size=n_groups)[groups] + rng.gamma(1.0, size=n)
    return x, y, rng.gamma(2.0, size=n), groups


def dense_cr2(
    x: np.ndarray, y: np.ndarray, w: np.ndarray, groups: np.ndarray, c: np.ndarray
) -> tuple[float, float, float]:
    """CR2 and Satterthwaite's degrees of freedom as defined, with n x n matrices (Pustejovsky and Tipton 2018)."""
    xt, yt = np.sqrt(w)[:, None] * x, np.sqrt(w) * y
    bread = np.linalg.inv(xt.T @ xt)
    annihilator = np.eye(len(y)) - xt @ bread @ xt.T
    residuals = annihilator @ yt
    columns = []
    for g in np.unique(groups):
        rows = groups == g
        values, vectors = np.linalg.eigh(annihilator[np.ix_(rows, rows)])
        root = vectors @ np.diag([v**-0.5 if v > 1e-9 else 0.0 for v in values]) @ vectors.T
        columns.append(annihilator[:, rows] @ root @ xt[rows] @ bread @ c)
    g_matrix = np.column_stack(columns)
    gram = g_matrix.T @ g_matrix
    variance = ((yt @ g_matrix) ** 2).sum()
    del residuals
    return float(c @ bread @ xt.T @ yt), float(np.sqrt(variance)), float(np.trace(gram) ** 2 / (gram**2).sum())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("weighted", [False, True])
def test_cr2_and_its_degrees_of_freedom_match_the_dense_definition(seed: int, weighted: bool) -> None:
    x, y, w, groups = world(seed)
    w = w if weighted else np.ones_like(w)
    for c in (np.eye(5)[1], np.array([1.0, 0.3, -2.0, 0.0, 1.0])):
        ours = fit(x, y, w, groups).contrast(c)
        assert ours == pytest.approx(dense_cr2(x, y, w, groups, c), rel=1e-9)


def test_group_effects_inside_the_groups_match_the_dense_definition() -> None:
    """Where the model holds a dummy per group, I - H has a null space and the pseudo-inverse is needed."""
    x, y, w, groups = world(5, n=150, p=3, n_groups=10)
    x = np.column_stack([x[:, 1:], groups[:, None] == np.arange(10)]).astype(float)
    c = np.eye(12)[0]
    assert fit(x, y, w, groups).contrast(c) == pytest.approx(dense_cr2(x, y, w, groups, c), rel=1e-9)


def test_singletons_match_statsmodels_hc2_and_the_dense_definition() -> None:
    import statsmodels.api as sm

    x, y, w, _ = world(6)
    ours = fit(x, y, w)
    theirs = sm.WLS(y, x, weights=w).fit(cov_type="HC2")
    assert ours.coef[:, 0] == pytest.approx(theirs.params, rel=1e-9)
    assert ours.covariance("CR2") == pytest.approx(theirs.cov_params(), rel=1e-9)
    c = np.eye(5)[2]
    assert ours.contrast(c) == pytest.approx(dense_cr2(x, y, w, np.arange(120), c), rel=1e-9)


def test_cr1_matches_statsmodels() -> None:
    import statsmodels.api as sm

    x, y, w, groups = world(7)
    theirs = sm.WLS(y, x, weights=w).fit(cov_type="cluster", cov_kwds={"groups": groups})
    assert fit(x, y, w, groups).covariance("CR1") == pytest.approx(theirs.cov_params(), rel=1e-9)


def test_published_numbers_of_dfadjust_and_stata() -> None:
    """Constants of dfadjust's own test (R package dfadjust 1.1, from Stata ``reg y x, cluster()``, ``r`` and
    ``vce(hc2)``)."""
    y = np.r_[np.cos(np.arange(10)), np.tan(np.arange(1, 11))]
    x = np.column_stack([np.ones(20), np.r_[np.sin(np.arange(1, 11)), np.sin(np.arange(2, 12))]])
    groups = np.tile([2, 1, 3, 2, 2, 3, 3, 1, 1, 2], 2)
    clustered, single = fit(x, y, None, groups), fit(x, y)
    assert clustered.coef[:, 0] == pytest.approx([-0.4456202905, 0.3241183110], abs=1e-9)
    assert np.sqrt(np.diag(clustered.covariance("CR1"))) == pytest.approx([0.4827602183, 0.1814501834], abs=1e-9)
    assert np.sqrt(np.diag(single.covariance("CR2"))) == pytest.approx([0.4227339762, 0.4421048122], abs=1e-9)
    assert np.sqrt(np.diag(single.covariance("CR1"))) == pytest.approx([0.4278077455, 0.4392155956], abs=1e-9)


def test_two_samples_give_welch_standard_error() -> None:
    """HC2 on an arm dummy is Welch's standard error."""
    rng = np.random.default_rng(8)
    arm = np.repeat([0.0, 1.0], [13, 22])
    y = rng.normal(size=35) * (1 + arm)
    _, se, _ = fit(np.column_stack([np.ones(35), arm]), y).contrast([0.0, 1.0])
    assert se == pytest.approx(np.sqrt(y[:13].var(ddof=1) / 13 + y[13:].var(ddof=1) / 22), rel=1e-9)


def test_many_outcomes_are_many_regressions() -> None:
    x, y, w, groups = world(9)
    both = fit(x, np.column_stack([y, y**2]), w, groups)
    c = np.eye(5)[3]
    assert both.contrast(c, 1) == pytest.approx(fit(x, y**2, w, groups).contrast(c), rel=1e-9)


@pytest.mark.parametrize("grouped", [False, True])
def test_leaving_out_a_group_moves_the_contrast_as_foretold(grouped: bool) -> None:
    x, y, w, groups = world(10, n=60)
    groups = groups if grouped else np.arange(60)
    c = np.array([0.0, 1.0, 0.0, -1.0, 0.5])
    full = fit(x, y, w, groups)
    for g in (0, 3, 9):
        keep = groups != g
        without = fit(x[keep], y[keep], w[keep], groups[keep]).contrast(c)[0]
        assert full.leave_out(c)[g] == pytest.approx(without - full.contrast(c)[0], rel=1e-8)


def test_the_scale_of_the_weights_does_not_matter() -> None:
    x, y, w, groups = world(11)
    c = np.eye(5)[1]
    assert fit(x, y, 1e6 * w, groups).contrast(c) == pytest.approx(fit(x, y, w, groups).contrast(c), rel=1e-9)


def test_twenty_thousand_singletons() -> None:
    rng = np.random.default_rng(12)
    x = np.column_stack([np.ones(20_000), rng.normal(size=(20_000, 45))])
    _, se, df = fit(x, rng.normal(size=20_000)).contrast(np.eye(46)[1])
    assert se == pytest.approx(1 / np.sqrt(20_000), rel=0.05)
    assert 5_000 < df < 20_000


def test_what_cannot_be_fitted_is_refused() -> None:
    x, y, w, groups = world(13)
    with pytest.raises(EstimationError, match="column 5 of the regression is a combination"):
        fit(np.column_stack([x, x[:, 1] - 2 * x[:, 2]]), y, w, groups)
    with pytest.raises(EstimationError, match="too few"):
        fit(x[:5], y[:5])
    with pytest.raises(EstimationError, match="weights must be positive"):
        fit(x, y, np.zeros(120))
    with pytest.raises(EstimationError, match="two randomized units"):
        fit(x, y, w, np.zeros(120))
    with pytest.raises(EstimationError, match="not finite"):
        fit(x, np.full(120, np.nan))
    lone = np.column_stack([np.ones(10), np.arange(10) == 3]).astype(float)
    with pytest.raises(EstimationError, match="one randomized unit alone"):
        fit(lone, y[:10]).contrast([0.0, 1.0])
