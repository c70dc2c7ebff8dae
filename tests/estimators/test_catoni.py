from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import brentq

from estimators import EstimationError, catoni, difference_in_means
from estimators.moments import Moments


def arms(seed: int, n: int = 300, lift: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return np.exp(1.5 * rng.normal(size=n)), lift * np.exp(1.5 * rng.normal(size=n + 20))


def by_hand(x: np.ndarray, alpha: float) -> tuple[float, float]:
    """Catoni's equation solved by Brent's method, as it stands in the paper, and the sandwich by differences."""
    n, v, log = len(x), x.var(ddof=1), math.log(2 / alpha)
    a = math.sqrt(2 * log / (n * (v + 2 * v * log / (n - 2 * log))))

    def psi(u: np.ndarray) -> np.ndarray:
        return np.where(u >= 0, np.log(1 + u + u**2 / 2), -np.log(1 - u + u**2 / 2))

    m = brentq(lambda m: psi(a * (x - m)).sum(), x.min(), x.max(), xtol=1e-15, rtol=1e-15)
    h = 1e-5 / a
    slope = (psi(a * (x - m + h)).mean() - psi(a * (x - m - h)).mean()) / (2 * h)
    return float(m), float((psi(a * (x - m)) ** 2).sum() / (n - 1) / n / slope**2)


@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_catonis_equation_by_another_solver(alpha: float) -> None:
    a, b = arms(1, lift=1.4)
    (m0, v0), (m1, v1) = by_hand(a, alpha), by_hand(b, alpha)
    found = catoni(a, b, alpha=alpha)
    assert (found.control_value, found.treatment_value) == pytest.approx((m0, m1), rel=1e-11)
    assert found.std_error == pytest.approx(math.sqrt(v0 + v1), rel=1e-7)
    plain = difference_in_means(Moments.from_arrays(a), Moments.from_arrays(b), alpha=alpha)
    assert found.std_error < plain.std_error < found.diagnostics["bound"]


def test_location_and_scale() -> None:
    a, b = arms(2)
    base, moved = catoni(a, b), catoni(1e3 * a + 1e9, 1e3 * b + 1e9)
    assert (moved.estimate, moved.std_error) == pytest.approx((1e3 * base.estimate, 1e3 * base.std_error), rel=1e-6)
    flipped = catoni(-a, -b)
    assert flipped.estimate == pytest.approx(-base.estimate, rel=1e-10)


def test_a_wild_unit_is_drawn_in() -> None:
    a, b = arms(3)
    b[0] = 1e4
    plain = difference_in_means(Moments.from_arrays(a), Moments.from_arrays(b))
    assert abs(catoni(a, b).estimate) < 0.8 * abs(plain.estimate)


@pytest.mark.parametrize(
    ("x", "said"),
    [(np.ones(50), "does not vary"), (np.arange(7.0), "more than 7 units"), (np.array([np.nan]), "finite")],
)
def test_refusals(x: np.ndarray, said: str) -> None:
    with pytest.raises(EstimationError, match=said):
        catoni(x, x)


def test_one_arm_may_stand_still() -> None:
    found = catoni(np.zeros(40), np.arange(40.0))
    assert found.control_value == 0.0
    assert found.std_error > 0.0


@pytest.mark.parametrize("lift", [1.0, 1.2])
def test_the_interval_holds_the_difference_of_means(lift: float) -> None:
    truth = (lift - 1) * math.exp(1.125)
    found = [catoni(*arms(seed, 1000, lift)) for seed in range(300)]
    assert 0.925 <= np.mean([e.ci_low <= truth <= e.ci_high for e in found]) <= 0.98
