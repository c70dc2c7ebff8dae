"""Lagged errors against statsmodels, and where they are needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from estimators.block_regression import block_regression
from estimators.cells import Cells
from estimators.inference import EstimationError
from estimators.leave_one_out import leave_one_out_blocks

World = Callable[..., Cells]


def theirs(cells: Cells, together: bool, weights: str, lags: int) -> tuple[float, float]:
    """The arm's error by statsmodels, rows in the order of cluster and time, times ``G / (G - p)``."""
    import statsmodels.api as sm

    columns = [np.ones(len(cells.arm)), cells.arm]
    for values in (cells.cluster, cells.hour, cells.weekday):
        columns += [values == level for level in np.unique(values)[1:]]
    x = np.column_stack(columns).astype(float)
    w = cells.den if weights == "rows" else np.ones(len(cells.den))
    kinds = {
        True: ("hac-groupsum", {"time": cells.block}, len(np.unique(cells.block))),
        False: ("hac-panel", {"groups": cells.cluster}, len(cells.arm)),
    }
    kind, by, n = kinds[together]
    options = {"maxlags": lags, "use_correction": False, **by}
    fit = sm.WLS(cells.num / cells.den, x, weights=w).fit(cov_type=kind, cov_kwds=options)
    return float(fit.params[1]), float(fit.bse[1] * np.sqrt(n / (n - x.shape[1])))


@pytest.mark.parametrize("weights", ["rows", "units"])
@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("lags", [1, 12])
def test_the_error_is_that_of_statsmodels(switchback: World, together: bool, weights: str, lags: int) -> None:
    cells = switchback(1, days=14, effect=0.5, together=together, memory=0.6)
    by = "block" if together else "cell"
    ours = block_regression(cells, weights=weights, clustered_by=by, hac=lags)
    assert (ours.estimate, ours.std_error) == pytest.approx(theirs(cells, together, weights, lags), rel=1e-9)
    assert ours.diagnostics["hac_lags"] == lags
    plain = block_regression(cells, weights=weights, clustered_by=by)
    assert ours.estimate == plain.estimate
    assert ours.control_value == plain.control_value


@pytest.mark.parametrize("gap", [0, 2, 30])
@pytest.mark.parametrize("together", [False, True])
def test_error_and_degrees_of_freedom_are_those_of_the_quadratic_form(
    switchback: World, together: bool, gap: int
) -> None:
    """Against the form written out with ``n x n`` matrices; a gap in time is no neighbourhood."""
    cells = switchback(2, days=14, clusters=2, together=together, memory=0.5)
    cells = replace(cells, order=cells.block + gap * (cells.block >= 50))
    ours = block_regression(cells, clustered_by="block" if together else "cell", hac=3)
    assert ours.diagnostics["dropped_levels"] == []
    columns = [np.ones(len(cells.arm)), cells.arm]
    for values in (cells.cluster, cells.hour, cells.weekday):
        columns += [values == level for level in np.unique(values)[1:]]
    root = np.sqrt(cells.den)
    x = root[:, None] * np.column_stack(columns)
    loads = np.linalg.pinv(x)[1]
    maker = np.eye(len(x)) - x @ np.linalg.pinv(x)
    kernel = np.clip(1 - np.abs(cells.slot[:, None] - cells.slot) / 4, 0, None)
    if not together:
        kernel = kernel * (cells.cluster[:, None] == cells.cluster)
    form = loads[:, None] * kernel * loads
    residuals = maker @ (root * cells.num / cells.den)
    n = 168 if together else 336
    assert ours.std_error**2 == pytest.approx(residuals @ form @ residuals * n / (n - x.shape[1]), rel=1e-9)
    assert ours.df == pytest.approx(np.trace(form @ maker) ** 2 / np.trace(form @ maker @ form @ maker), rel=1e-9)


def test_leaving_out_keeps_the_errors(switchback: World) -> None:
    cells = switchback(4, days=14)
    assert leave_one_out_blocks(cells, hac=4).diagnostics["hac_lags"] == 4


def test_too_many_lags_are_refused(switchback: World) -> None:
    with pytest.raises(EstimationError, match="hac: 42 is too long for 84 blocks"):
        block_regression(switchback(5), hac=42)
    with pytest.raises(ValueError, match="at least 1"):
        block_regression(switchback(5), hac=0)


def coverage(switchback: World, run: int, lags: int | None, sims: int = 80) -> float:
    """Share of intervals that hold the true effect, arms being kept for ``run`` blocks and noise long in memory."""
    hits = 0
    for seed in range(sims):
        coins = np.random.default_rng(1000 + seed).integers(0, 2, (2, 168 // run))
        cells = switchback(seed, days=14, clusters=2, effect=1.0, memory=0.85, arms=np.repeat(coins, run, axis=1))
        found = block_regression(cells, hac=lags)
        hits += found.ci_low < 1.0 < found.ci_high
    return hits / sims


def test_independent_arms_need_no_lags_and_long_runs_do(switchback: World) -> None:
    """With a coin for every block the design makes errors by block right; with runs of six it does not."""
    assert coverage(switchback, 1, None) == pytest.approx(0.95, abs=0.073)
    assert coverage(switchback, 6, None) < 0.75
    assert coverage(switchback, 6, 12) > 0.88
