"""The size of a durable holdout against its closed form and against simulated holdouts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from estimators.holdout import detectable, needed_share, needed_units
from estimators.inference import EstimationError, t_quantile


def test_in_large_samples_it_is_the_closed_form():
    z = t_quantile(0.975, math.inf) + t_quantile(0.8, math.inf)
    share = needed_share(2.0, 1e7, 0.01)
    assert share is not None
    assert share * (1.0 - share) == pytest.approx(2.0 * z * z / (1e7 * 0.01**2), rel=1e-4)
    assert needed_units(2.0, 0.02, 0.01) == pytest.approx(2.0 * z * z / (0.02 * 0.98 * 0.01**2), rel=1e-4)


def test_share_units_and_effect_agree_with_each_other():
    share = needed_share(1.0, 5000.0, 0.2)
    assert share is not None
    assert detectable(1.0, 5000.0, share) == pytest.approx(0.2, rel=1e-6)
    n = needed_units(1.0, share, 0.2)
    assert n == pytest.approx(5000.0, abs=2.0)


def test_a_holdout_of_the_needed_share_finds_the_effect_in_four_of_five():
    n, effect = 900, 0.35
    share = needed_share(1.0, n, effect)
    assert share is not None
    held = round(share * n)
    rng = np.random.default_rng(5)
    control, treated = rng.normal(size=(2000, held)), effect + rng.normal(size=(2000, n - held))
    v = control.var(axis=1, ddof=1) / held, treated.var(axis=1, ddof=1) / (n - held)
    df = (v[0] + v[1]) ** 2 / (v[0] ** 2 / (held - 1) + v[1] ** 2 / (n - held - 1))
    critical = np.array([t_quantile(0.975, float(d)) for d in df])
    found = np.abs(treated.mean(axis=1) - control.mean(axis=1)) / np.sqrt(v[0] + v[1]) > critical
    assert found.mean() == pytest.approx(0.8, abs=0.03)


def test_where_even_half_is_too_few_there_is_no_share():
    assert needed_share(1.0, 50.0, 0.1) is None
    assert detectable(1.0, 50.0, 0.01) == math.inf
    with pytest.raises(EstimationError, match="above zero"):
        needed_units(1.0, 0.1, 0.0)
