"""Power and the detectable effect against statsmodels."""

from __future__ import annotations

import math

import numpy as np
import pytest

from estimators.inference import EstimationError, minimum_detectable_effect
from estimators.power import detectable_effect, power

CASES = [(n, alpha, d) for n in (3, 5, 12, 80, 3000) for alpha in (0.05, 0.01) for d in (0.0, 0.05, 0.3, 1.0, 3.0)]


def _error(n: int) -> float:
    return math.sqrt(2.0 / n)


@pytest.mark.parametrize(("n", "alpha", "d"), CASES)
def test_power_is_that_of_statsmodels(n: int, alpha: float, d: float) -> None:
    from statsmodels.stats.power import TTestIndPower

    theirs = TTestIndPower()
    two = theirs.power(d, n, alpha)
    if math.isfinite(two):  # theirs gives nan where the power is 1
        assert power(d, _error(n), 2 * n - 2, alpha) == pytest.approx(two, abs=1e-9)
    one = theirs.power(d, n, alpha / 2, alternative="larger")
    if math.isfinite(one):
        assert power(d, _error(n), 2 * n - 2, alpha, one_sided=True) == pytest.approx(one, abs=1e-9)


@pytest.mark.parametrize("n", [3, 12, 80, 3000])
@pytest.mark.parametrize("wanted", [0.5, 0.8, 0.95])
def test_the_detectable_effect_has_the_power_by_statsmodels(n: int, wanted: float) -> None:
    from statsmodels.stats.power import TTestIndPower, tt_ind_solve_power

    found = detectable_effect(_error(n), 2 * n - 2, 0.05, wanted)
    assert TTestIndPower().power(found, n, 0.05) == pytest.approx(wanted, abs=1e-9)
    assert found == pytest.approx(tt_ind_solve_power(nobs1=n, alpha=0.05, power=wanted), rel=1e-5)
    one = detectable_effect(_error(n), 2 * n - 2, 0.05, wanted, one_sided=True)
    assert TTestIndPower().power(one, n, 0.025, alternative="larger") == pytest.approx(wanted, abs=1e-9)
    assert one >= found


def test_blooms_multiples_are_near_it_where_there_are_many_units() -> None:
    assert detectable_effect(2.0, 400, 0.05) == pytest.approx(minimum_detectable_effect(2.0, 400, 0.05), rel=2e-3)
    assert detectable_effect(2.0, math.inf, 0.05) == pytest.approx(minimum_detectable_effect(2.0, math.inf, 0.05), 1e-5)


def test_effects_far_beyond_the_error_are_certain_and_a_wrong_sign_never_holds() -> None:
    assert power(1.0, 1e-9, 5, 0.05) == 1.0
    assert power(60.0, 1.0, 1e8, 0.05) == 1.0
    assert power(-3.0, 1.0, 50, 0.05) == power(3.0, 1.0, 50, 0.05)
    assert power(-3.0, 1.0, 50, 0.05, one_sided=True) < 1e-5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [((0.0, 5.0, 0.05), "does not vary"), ((1.0, 0.0, 0.05), "degree of freedom"), ((1.0, 5.0, 0.0), "alpha")],
)
def test_what_no_test_has_is_refused(arguments: tuple[float, float, float], said: str) -> None:
    with pytest.raises(EstimationError, match=said):
        power(1.0, *arguments)
    with pytest.raises(EstimationError, match=said):
        detectable_effect(*arguments)
    with pytest.raises(EstimationError, match="power must lie"):
        detectable_effect(1.0, 5.0, 0.05, 0.04)


def test_power_is_what_the_t_test_achieves() -> None:
    rng = np.random.default_rng(3)
    n, d, runs = 6, 1.4, 20_000
    x, y = rng.normal(size=(runs, n)), d + rng.normal(size=(runs, n))
    error = np.sqrt((x.var(axis=1, ddof=1) + y.var(axis=1, ddof=1)) / n)
    found = np.mean(np.abs((y.mean(axis=1) - x.mean(axis=1)) / error) > 2.2281388519649385)
    assert power(d, _error(n), 2 * n - 2, 0.05) == pytest.approx(found, abs=4 * math.sqrt(0.25 / runs))
