"""Differences between units in clusters against statsmodels on the units, brute-force CR2, and simulated coverage."""

from __future__ import annotations

import numpy as np
import pytest

from estimators import clustered_difference, difference_in_means
from estimators.clustered_difference import Cells
from estimators.inference import EstimationError
from estimators.moments import Moments


def units(seed: int, n: int = 240, clusters: int = 16) -> tuple[np.ndarray, ...]:
    """Outcome, denominator, arm and cluster; most clusters hold both arms, the last few one of them."""
    rng = np.random.default_rng(seed)
    cluster = rng.integers(0, clusters, n)
    arm = np.where(cluster < clusters - 4, rng.integers(0, 2, n), cluster % 2)
    y = 30.0 + 1.5 * rng.normal(size=clusters)[cluster] + 0.4 * arm + rng.normal(size=n)
    return y, rng.integers(1, 9, n).astype(float), arm, cluster


def cells(num: np.ndarray, den: np.ndarray, arm: np.ndarray, cluster: np.ndarray, centre: float = 0.0) -> Cells:
    pairs, place = np.unique(2 * cluster + arm, return_inverse=True)
    return Cells(
        np.bincount(place, num - centre * den), np.bincount(place, den), np.bincount(place).astype(float),
        pairs % 2, pairs // 2, centre,
    )  # fmt: skip


def linearised(num: np.ndarray, den: np.ndarray, arm: np.ndarray) -> np.ndarray:
    z = np.empty(len(num))
    for k in (0, 1):
        mine = arm == k
        r = num[mine].sum() / den[mine].sum()
        z[mine] = r + (num[mine] - r * den[mine]) / den[mine].mean()
    return z


def brute_force_cr2(y: np.ndarray, arm: np.ndarray, cluster: np.ndarray) -> tuple[float, float]:
    """CR2 and Bell and McCaffrey's degrees of freedom from matrices over all units."""
    x = np.column_stack([np.ones(len(y)), arm])
    bread = np.linalg.inv(x.T @ x)
    hat = x @ bread @ x.T
    residual = y - hat @ y
    scores, forms = [], []
    for g in np.unique(cluster):
        i = np.flatnonzero(cluster == g)
        values, vectors = np.linalg.eigh(np.eye(len(i)) - hat[np.ix_(i, i)])
        inverse = np.where(values > 1e-9, 1.0 / np.sqrt(np.maximum(values, 1e-9)), 0.0)
        loading = vectors @ (inverse * (vectors.T @ (x[i] @ bread[:, 1])).T)
        scores.append(loading @ residual[i])
        forms.append((np.eye(len(y)) - hat)[:, i] @ loading)
    gram = np.array(forms) @ np.array(forms).T
    return float(np.sqrt(np.square(scores).sum())), float(np.trace(gram) ** 2 / (gram**2).sum())


@pytest.mark.parametrize("ratio", [False, True])
def test_it_is_least_squares_of_the_units(ratio: bool) -> None:
    import statsmodels.api as sm

    y, den, arm, cluster = units(1)
    num, below = (y * den, den) if ratio else (y, np.ones(len(y)))
    z = linearised(num, below, arm)
    fit = sm.OLS(z, sm.add_constant(arm)).fit(cov_type="cluster", cov_kwds={"groups": cluster}, use_t=True)
    for centre in (0.0, 30.0):
        found = clustered_difference(cells(num, below, arm, cluster, centre))
        assert found.estimate == pytest.approx(fit.params[1], rel=1e-9)
        assert found.std_error == pytest.approx(fit.bse[1], rel=1e-9)
        assert found.p_value == pytest.approx(fit.pvalues[1], rel=1e-9)
        assert (found.ci_low, found.ci_high) == pytest.approx(tuple(fit.conf_int()[1]), rel=1e-9)
        error, df = brute_force_cr2(z, arm, cluster)
        found = clustered_difference(cells(num, below, arm, cluster, centre), variance="CR2")
        assert found.std_error == pytest.approx(error, rel=1e-9)
        assert found.df == pytest.approx(df, rel=1e-9)
    assert (found.n_control, found.n_treatment) == ((arm == 0).sum(), (arm == 1).sum())
    assert found.diagnostics["n_clusters"] == 16
    assert found.diagnostics["clusters_with_both_arms"] == 12


def test_every_unit_a_cluster_is_the_unclustered_difference() -> None:
    y, den, arm, _ = units(2)
    welch = difference_in_means(*(Moments.from_arrays((y * den)[arm == k], den[arm == k]) for k in (0, 1)))
    found = clustered_difference(cells(y * den, den, arm, np.arange(len(y))), variance="CR2")
    for name in ("estimate", "std_error", "relative"):
        assert getattr(found, name) == pytest.approx(getattr(welch, name), rel=1e-9)
    width = (found.relative_ci_high - found.relative_ci_low) / (welch.relative_ci_high - welch.relative_ci_low)
    assert width == pytest.approx(1.0, rel=1e-3)  # the degrees of freedom differ


def test_the_relative_effect_counts_the_clusters_of_both_arms() -> None:
    """The log ratio's error is that of least squares of the values over their arm's."""
    import statsmodels.api as sm
    from scipy import stats

    y, _, arm, cluster = units(3)
    found = clustered_difference(cells(y, np.ones(len(y)), arm, cluster))
    scaled = y / np.where(arm == 1, found.treatment_value, found.control_value)
    fit = sm.OLS(scaled, sm.add_constant(arm)).fit(cov_type="cluster", cov_kwds={"groups": cluster})
    reach = stats.t.ppf(0.975, 15) * fit.bse[1]
    log = np.log(found.treatment_value / found.control_value)
    assert found.relative_ci_low == pytest.approx(np.expm1(log - reach), rel=1e-9)
    assert found.relative_ci_high == pytest.approx(np.expm1(log + reach), rel=1e-9)


@pytest.mark.parametrize(
    ("arm", "cluster", "said"),
    [([0, 0, 1, 1], [0, 0, 0, 0], "stand in one cluster"), ([0, 0, 0, 0], [0, 1, 0, 1], "no observations"),
     ([0, 0, 1, 1], [0, 0, 1, 1], "stand in one cluster")],
)  # fmt: skip
def test_what_cannot_be_estimated_is_said(arm: list[int], cluster: list[int], said: str) -> None:
    table = cells(np.array([1.0, 2.0, 3.0, 5.0]), np.ones(4), np.array(arm), np.array(cluster))
    for variance in ("CR1", "CR2"):
        with pytest.raises(EstimationError, match=said):
            clustered_difference(table, variance=variance)


def test_it_covers_where_whole_clusters_share_an_arm_and_welch_does_not() -> None:
    rng = np.random.default_rng(4)
    draws, covered, welch_covered = 600, 0, 0
    cluster = np.repeat(np.arange(30), rng.integers(5, 25, 30))
    for _ in range(draws):
        arm = rng.permutation(np.arange(30) % 2)[cluster]
        y = 10.0 + 0.5 * arm + rng.normal(size=30)[cluster] + rng.normal(size=len(cluster))
        found = clustered_difference(cells(y, np.ones(len(y)), arm, cluster), variance="CR2")
        welch = difference_in_means(*(Moments.from_arrays(y[arm == k]) for k in (0, 1)))
        covered += found.ci_low <= 0.5 <= found.ci_high
        welch_covered += welch.ci_low <= 0.5 <= welch.ci_high
    assert abs(covered / draws - 0.95) < 0.027
    assert welch_covered / draws < 0.7
