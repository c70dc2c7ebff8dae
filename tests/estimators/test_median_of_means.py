from __future__ import annotations

import numpy as np
import pytest

from estimators import EstimationError, difference_in_means, median_of_means
from estimators.median_of_means import default_groups, split, split_arms
from estimators.moments import Moments


def arms(seed: int, n: int = 600, lift: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return 1 + rng.pareto(2.5, n), lift * (1 + rng.pareto(2.5, n + 11))


def test_medians_of_the_groups_means_by_hand() -> None:
    a, b = arms(1)
    splits = split(len(a), 24, 5), split(len(b), 24, 6)
    by_hand = [np.median([x[of == g].mean() for g in range(24)]) for x, of in zip((a, b), splits, strict=True)]
    found = median_of_means((a, None), (b, None), seed=5)
    assert (found.control_value, found.treatment_value) == pytest.approx(by_hand, rel=1e-12)
    plain = difference_in_means(Moments.from_arrays(a), Moments.from_arrays(b))
    assert found.std_error == pytest.approx(np.sqrt(np.pi / 2) * plain.std_error, rel=1e-12)
    assert found.diagnostics["groups"] == 24
    assert median_of_means((a, None), (b, None), splits=splits).estimate == found.estimate


def test_skewed_arms_of_unequal_size_are_not_set_apart() -> None:
    """Groups of as many units: the median's offset from a skewed mean is the same in both arms."""
    rng = np.random.default_rng(8)
    found = [
        median_of_means(*((np.exp(0.8 * rng.normal(size=n)), None) for n in (300, 900)), seed=seed).estimate
        for seed in range(600)
    ]
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(600)
    few, many = split_arms((100, 250), 10)
    assert (np.bincount(few).tolist(), np.bincount(many).tolist()) == ([10] * 10, [10] * 25)


def test_ratios_of_groups() -> None:
    rng = np.random.default_rng(2)
    den = [rng.poisson(5, n) + 1.0 for n in (300, 310)]
    num = [d * rng.gamma(2, 1, len(d)) for d in den]
    splits = split(300, 10, 0), split(310, 10, 1)
    by_hand = [
        np.median([n[of == g].sum() / d[of == g].sum() for g in range(10)])
        for n, d, of in zip(num, den, splits, strict=True)
    ]
    found = median_of_means((num[0], den[0]), (num[1], den[1]), groups=10)
    assert found.estimate == pytest.approx(by_hand[1] - by_hand[0], rel=1e-12)


def test_groups_are_even_and_the_seeds() -> None:
    of = split(103, 10, 4)
    assert sorted(np.bincount(of)) == [10] * 7 + [11] * 3
    assert (of == split(103, 10, 4)).all()
    assert (of != split(103, 10, 5)).any()
    assert (default_groups(0.05, 10_000), default_groups(0.05, 60), default_groups(0.01, 10_000)) == (24, 12, 37)


def test_one_wild_unit_moves_the_mean_and_not_this() -> None:
    a, b = arms(3)
    wild = b.copy()
    wild[0] = 1e6
    before, after = (median_of_means((a, None), (x, None)).estimate for x in (b, wild))
    assert abs(after - before) < 0.1


@pytest.mark.parametrize(
    ("n", "groups", "said"), [(20, None, "5 groups of 5 units need 25"), (100, 40, "200 in each"), (100, 3, "5 groups")]
)
def test_too_few(n: int, groups: int | None, said: str) -> None:
    a, b = arms(1, n)
    with pytest.raises(EstimationError, match=said):
        median_of_means((a, None), (b, None), groups=groups)


def test_a_group_without_a_denominator() -> None:
    x = np.r_[np.ones(5), np.zeros(95)]
    with pytest.raises(EstimationError, match="fewer groups"):
        median_of_means((x, x), (x, x))


@pytest.mark.parametrize("lift", [1.0, 1.2])
def test_the_interval_holds_the_difference_of_means(lift: float) -> None:
    truth = (lift - 1) * 2.5 / 1.5
    found = [median_of_means(*((x, None) for x in arms(seed, 600, lift)), seed=seed) for seed in range(300)]
    assert np.mean([e.ci_low <= truth <= e.ci_high for e in found]) >= 0.94
