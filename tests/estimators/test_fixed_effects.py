"""Sweeping fixed effects out gives what a regression with all the dummies leaves."""

from __future__ import annotations

import numpy as np
import pytest

from estimators.fixed_effects import sweep
from estimators.inference import EstimationError


def dummies(*codes: np.ndarray) -> np.ndarray:
    return np.column_stack([np.eye(c.max() + 1)[c] for c in codes])


@pytest.mark.parametrize(("levels", "n"), [((60, 24, 14), 400), ((150, 20, 10), 300), ((3,), 50)])
def test_residuals_of_the_dummy_regression(levels, n):
    rng = np.random.default_rng(5)
    codes = [rng.integers(0, k, n) for k in levels]
    x = rng.normal(size=(n, 3)) * [1.0, 1e6, 1e-3] + [0.0, 1e9, 0.0]
    d = dummies(*codes)
    centred = x - x.mean(axis=0)
    for weights in (np.ones(n), rng.gamma(1.0, size=n) + 0.01):
        root = np.sqrt(weights)[:, None]
        want = centred - d @ np.linalg.lstsq(root * d, root * centred, rcond=None)[0]
        assert np.abs((sweep(x, codes, weights) - want) / x.std(axis=0)).max() < 1e-7


def test_a_column_that_the_effects_explain_is_swept_away():
    rng = np.random.default_rng(6)
    a, b = rng.integers(0, 20, 200), rng.integers(0, 9, 200)
    x = np.column_stack([rng.normal(size=20)[a] + rng.normal(size=9)[b], np.full(200, 7.0)])
    assert np.abs(sweep(x, [a, b])).max() < 1e-7


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(EstimationError, match="not finite"):
        sweep(np.array([[1.0], [np.nan]]), [np.array([0, 0])])
