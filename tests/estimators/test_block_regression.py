from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators import METHODS
from estimators.block_regression import block_quantile, block_regression
from estimators.cells import Cells
from estimators.inference import EstimationError
from estimators.quantiles import Histogram, quantile_effect


def switchback(seed: int, days: int = 7, clusters: int = 3, effect: float = 0.0, together: bool = False) -> Cells:
    """Two-hour blocks over days and clusters, with cluster, hour and weekday effects."""
    rng = np.random.default_rng(seed)
    blocks = 12 * days
    block = np.tile(np.arange(blocks), clusters)
    cluster = np.repeat(np.arange(clusters), blocks)
    arm = rng.integers(0, 2, blocks)[block] if together else rng.integers(0, 2, blocks * clusters)
    hour, weekday = 2 * (block % 12), (block // 12) % 7
    den = rng.integers(50, 150, blocks * clusters).astype(float)
    mean = 10 + 2 * cluster + np.sin(hour / 4) + 0.1 * weekday + effect * arm + rng.normal(size=len(den))
    return Cells(mean * den, den, arm, cluster, block, hour, weekday, tuple(f"c{i}" for i in range(clusters)))


def dummies(cells: Cells) -> np.ndarray:
    columns = [np.ones(len(cells.arm)), cells.arm]
    for values in (cells.cluster, cells.hour, cells.weekday):
        columns += [values == level for level in np.unique(values)[1:]]
    return np.column_stack(columns).astype(float)


def test_matches_statsmodels_where_clusters_switch_apart() -> None:
    import statsmodels.api as sm

    cells = switchback(1, effect=0.7)
    theirs = sm.WLS(cells.num / cells.den, dummies(cells), weights=cells.den).fit(cov_type="HC2")
    ours = block_regression(cells)
    assert ours.estimate == pytest.approx(theirs.params[1], rel=1e-9)
    assert ours.std_error == pytest.approx(theirs.bse[1], rel=1e-9)
    x = dummies(cells)
    mean = np.average(x, axis=0, weights=cells.den)
    for arm, value in ((0, ours.control_value), (1, ours.treatment_value)):
        assert value == pytest.approx(np.r_[mean[0], arm, mean[2:]] @ theirs.params, rel=1e-9)
    assert ours.relative == pytest.approx(ours.estimate / ours.control_value, rel=1e-9)
    assert (ours.n_control, ours.n_treatment) == (int((cells.arm == 0).sum()), int((cells.arm == 1).sum()))
    assert METHODS["block_regression"] is block_regression


def test_unit_weights_are_the_unweighted_regression() -> None:
    import statsmodels.api as sm

    cells = switchback(2)
    theirs = sm.OLS(cells.num / cells.den, dummies(cells)).fit(cov_type="HC2")
    ours = block_regression(cells, weights="units")
    assert (ours.estimate, ours.std_error) == pytest.approx((theirs.params[1], theirs.bse[1]), rel=1e-9)


def test_relative_interval_has_the_delta_method_of_the_log_ratio() -> None:
    import statsmodels.api as sm
    from scipy import stats

    cells = switchback(3, effect=1.0)
    x = dummies(cells)
    theirs = sm.WLS(cells.num / cells.den, x, weights=cells.den).fit(cov_type="HC2")
    mean = np.average(x, axis=0, weights=cells.den)
    c0, c1 = np.r_[mean[0], 0.0, mean[2:]], np.r_[mean[0], 1.0, mean[2:]]
    gradient = c1 / (c1 @ theirs.params) - c0 / (c0 @ theirs.params)
    ours = block_regression(cells)
    half = stats.t.ppf(0.975, ours.df) * math.sqrt(gradient @ theirs.cov_params() @ gradient)
    assert ours.relative is not None
    assert ours.relative_ci_low == pytest.approx((1 + ours.relative) * math.exp(-half) - 1, rel=1e-8)
    assert ours.relative_ci_high == pytest.approx((1 + ours.relative) * math.exp(half) - 1, rel=1e-8)


def test_blocks_that_switch_together_are_the_independent_units() -> None:
    cells = switchback(4, together=True)
    ours = block_regression(cells, clustered_by="block")
    assert ours.n_control + ours.n_treatment == 84
    assert ours.df < 84
    with pytest.raises(EstimationError, match="holds both arms"):
        block_regression(switchback(4), clustered_by="block")


def test_a_shared_shock_widens_the_error_only_where_blocks_are_the_unit() -> None:
    cells = switchback(5, clusters=6, together=True)
    shock = np.random.default_rng(6).normal(scale=3.0, size=84)[cells.block]
    cells = replace(cells, num=cells.num + shock * cells.den)
    by_cell = block_regression(cells, clustered_by="cell")
    by_block = block_regression(cells, clustered_by="block")
    assert by_block.estimate == pytest.approx(by_cell.estimate, rel=1e-12)
    assert by_block.std_error > 1.8 * by_cell.std_error


def test_an_hour_with_one_arm_joins_its_neighbour_and_is_named() -> None:
    cells = switchback(7)
    cells = replace(cells, arm=np.where(cells.hour == 8, 1, cells.arm))
    ours = block_regression(cells)
    assert ours.diagnostics["dropped_levels"] == ["hour 08h joined to hour 10h: it holds one arm"]
    assert ours.diagnostics["calendar"] == ["hour (11 levels)", "weekday (7 levels)"]


def test_the_last_level_joins_the_first() -> None:
    cells = switchback(8)
    ours = block_regression(replace(cells, arm=np.where(cells.weekday == 6, 0, cells.arm)))
    assert ours.diagnostics["dropped_levels"] == ["weekday Sunday joined to weekday Monday: it holds one arm"]


def test_few_blocks_give_up_calendar_terms_and_say_so() -> None:
    cells = switchback(9, days=2, clusters=1)
    ours = block_regression(replace(cells, arm=(cells.block + cells.block // 12) % 2))
    assert ours.diagnostics["calendar"] == []
    assert ours.diagnostics["dropped_levels"] == [
        "hour: all levels dropped: 24 randomized units are fewer than twice the 13 parameters",
        "weekday: all levels dropped: 24 randomized units are fewer than twice the 14 parameters",
    ]


def test_a_cluster_with_one_arm_is_reported() -> None:
    cells = switchback(10)
    ours = block_regression(replace(cells, arm=np.where(cells.cluster == 1, 0, cells.arm)))
    assert ours.diagnostics["single_arm_clusters"] == ["c1"]


def test_residual_autocorrelation_is_shown() -> None:
    cells = switchback(11, days=14)
    rng = np.random.default_rng(12)
    walk = np.zeros(len(cells.arm))
    for i in range(1, len(walk)):
        walk[i] = 0.8 * walk[i - 1] + rng.normal()
    ours = block_regression(replace(cells, num=cells.num + 3 * walk * cells.den))
    assert 0.5 < ours.diagnostics["lag1_autocorrelation"] < 0.9


def test_a_mean_of_a_billion_keeps_its_error() -> None:
    cells = switchback(13)
    near, far = block_regression(cells), block_regression(replace(cells, num=cells.num + 1e9 * cells.den))
    assert far.estimate == pytest.approx(near.estimate, abs=1e-5)
    assert far.std_error == pytest.approx(near.std_error, rel=1e-5)


def test_what_cannot_be_estimated_is_refused() -> None:
    cells = switchback(14)
    n = len(cells.arm)
    with pytest.raises(EstimationError, match="treatment has 0 randomized units"):
        block_regression(replace(cells, arm=np.zeros(n, dtype=int)))
    with pytest.raises(EstimationError, match="treatment has 1 randomized unit;"):
        block_regression(replace(cells, arm=(np.arange(n) == 5).astype(int)))
    with pytest.raises(EstimationError, match="alone foretell the arm"):
        block_regression(replace(cells, arm=(cells.cluster == 1).astype(int)))
    with pytest.raises(ValueError, match="weights must be one of"):
        block_regression(cells, weights="row")
    with pytest.raises(EstimationError, match="numerator but no positive denominator"):
        block_regression(replace(cells, den=np.where(np.arange(n) == 5, 0.0, cells.den)))
    with pytest.raises(EstimationError, match="does not vary"):
        block_regression(replace(cells, num=0.1 * cells.den))
    with pytest.raises(EstimationError, match="not finite"):
        block_regression(replace(cells, num=np.full(n, np.nan)))


def test_cells_without_rows_are_left_out() -> None:
    cells = switchback(15)
    empty = np.arange(len(cells.arm)) % 9 == 0
    zeroed = replace(cells, num=np.where(empty, 0.0, cells.num), den=np.where(empty, 0.0, cells.den))
    assert block_regression(zeroed) == block_regression(cells.take(~empty))


@settings(deadline=None, max_examples=25, derandomize=True)
@given(st.integers(0, 10_000), st.floats(-50, 50))
def test_cluster_levels_and_arm_names_do_not_matter(seed: int, shift: float) -> None:
    cells = switchback(seed, days=3)
    ours = block_regression(cells)
    shifted = block_regression(replace(cells, num=cells.num + shift * cells.cluster * cells.den))
    swapped = block_regression(replace(cells, arm=1 - cells.arm))
    assert shifted.estimate == pytest.approx(ours.estimate, abs=1e-9)
    assert shifted.std_error == pytest.approx(ours.std_error, rel=1e-7)
    assert swapped.estimate == pytest.approx(-ours.estimate, abs=1e-9)


def histogram_of(cells: Cells, rows: np.ndarray, cell: np.ndarray, width: float = 0.01) -> Histogram:
    edges = np.exp(np.arange(np.log(rows.min()) - width, np.log(rows.max()) + 2 * width, width))
    counts = np.zeros((len(cells.arm), len(edges) - 1), dtype=np.int64)
    np.add.at(counts, (cell, np.searchsorted(edges, rows, side="right") - 1), 1)
    return Histogram(edges[:-1], edges[1:], counts)


def rows_of(cells: Cells, seed: int, effect: float) -> tuple[np.ndarray, np.ndarray]:
    """Log-normal rows whose scale moves by cluster, hour, cell, and by ``1 + effect`` under treatment."""
    rng = np.random.default_rng(seed)
    cell = np.repeat(np.arange(len(cells.arm)), cells.den.astype(int))
    level = 0.3 * cells.cluster + 0.2 * np.sin(cells.hour / 4) + 0.1 * rng.normal(size=len(cells.arm))
    level = level + np.log1p(effect) * cells.arm
    return 100 * np.exp(level[cell] + 0.5 * rng.normal(size=len(cell))), cell


def test_the_adjusted_quantile_finds_a_shift_in_scale() -> None:
    cells = switchback(16, days=14)
    rows, cell = rows_of(cells, 17, effect=0.25)
    ours = block_quantile(cells, histogram_of(cells, rows, cell), 0.9)
    untreated = np.quantile(rows / np.where(cells.arm[cell] == 1, 1.25, 1.0), 0.9)
    assert ours.control_value == pytest.approx(untreated, rel=0.03)
    assert ours.ci_low < 0.25 * untreated < ours.ci_high
    assert ours.relative is not None
    assert ours.relative == pytest.approx(0.25, abs=0.04)
    assert ours.diagnostics["n_cells"] == len(cells.arm)


def test_without_covariates_the_adjusted_quantile_is_the_plain_one() -> None:
    cells = switchback(18, days=2, clusters=1)
    plain = replace(cells, hour=np.zeros_like(cells.hour), weekday=np.zeros_like(cells.weekday))
    rows, cell = rows_of(plain, 19, effect=0.1)
    hist = histogram_of(plain, rows, cell)
    ours = block_quantile(plain, hist, 0.5)
    arms = [Histogram(hist.lower, hist.upper, hist.counts[plain.arm == a]) for a in (0, 1)]
    reference = quantile_effect(arms[0], arms[1], 0.5)
    assert ours.estimate == pytest.approx(reference.estimate, rel=1e-9)
    # The critical value inside Woodruff's width differs a little with the degrees of freedom.
    assert ours.std_error == pytest.approx(reference.std_error, rel=0.01)


def test_a_histogram_of_other_cells_is_refused() -> None:
    cells = switchback(20)
    rows, cell = rows_of(cells, 21, 0.0)
    hist = histogram_of(cells, rows, cell)
    with pytest.raises(EstimationError, match="rows of the cells"):
        block_quantile(cells, replace(hist, counts=hist.counts[::-1]), 0.5)
