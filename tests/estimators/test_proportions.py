from __future__ import annotations

import math

import pytest
from scipy import stats

from estimators.inference import EstimationError
from estimators.proportions import binomial_upper, chi_square_srm, imbalance_p


@pytest.mark.parametrize(
    ("counts", "shares"), [((5012, 4870), (0.5, 0.5)), ((100, 203, 288), (1, 2, 3)), ((9, 1), (0.9, 0.1))]
)
def test_matches_scipy(counts: tuple[int, ...], shares: tuple[float, ...]) -> None:
    expected = stats.chisquare(counts, [sum(counts) * s / sum(shares) for s in shares])
    statistic, df, p = chi_square_srm(counts, shares)
    assert (statistic, p) == pytest.approx((expected.statistic, expected.pvalue), rel=1e-9)
    assert df == len(counts) - 1


def test_an_arm_without_share_takes_no_degree_of_freedom() -> None:
    assert chi_square_srm([50, 61, 0], [1, 1, 0]) == pytest.approx(
        (121 / 111, 1, stats.chi2.sf(121 / 111, 1)), rel=1e-9
    )


def test_assignments_in_an_arm_without_share_are_impossible() -> None:
    assert chi_square_srm([50, 61, 1], [1, 1, 0]) == (math.inf, 1, 0.0)


def test_a_gross_mismatch_has_a_vanishing_p_value() -> None:
    assert chi_square_srm([60_000, 40_000], [1, 1])[2] == 0.0


@pytest.mark.parametrize(
    ("counts", "shares", "message"),
    [([0, 0], [1, 1], "nothing"), ([5, 5], [1, 0], "fewer than two"), ([5, -5], [1, 1], "negative")],
)
def test_what_cannot_be_tested_is_refused(counts: list[int], shares: list[float], message: str) -> None:
    with pytest.raises(EstimationError, match=message):
        chi_square_srm(counts, shares)


@pytest.mark.parametrize(("found", "n"), [(0, 84), (3, 252), (40, 60), (0, 1)])
def test_the_exact_bound_matches_scipy(found: int, n: int) -> None:
    expected = stats.binomtest(found, n).proportion_ci(0.95, method="exact").high
    assert binomial_upper(found, n, 0.05) == pytest.approx(expected, rel=1e-9)


def test_the_bound_where_nothing_was_found_and_where_all_was() -> None:
    assert binomial_upper(0, 84, 0.05) == pytest.approx(1 - 0.025 ** (1 / 84), rel=1e-12)
    assert binomial_upper(9, 9, 0.05) == 1.0


@pytest.mark.parametrize(("c", "n_c", "t", "n_t"), [(0, 240, 6, 250), (2, 30, 5, 20), (4, 10, 1, 12), (0, 5, 5, 5)])
def test_imbalance_matches_scipys_hypergeometric(c: int, n_c: int, t: int, n_t: int) -> None:
    tail = stats.hypergeom.sf(t - 1, n_c + n_t, n_t, c + t)
    assert imbalance_p(c, n_c, t, n_t) == pytest.approx(min(1.0, 2 * tail), rel=1e-9)


@pytest.mark.parametrize("counts", [(0, 0), (3, 2), (-1, 5)])
def test_shares_that_cannot_be(counts: tuple[int, int]) -> None:
    with pytest.raises(EstimationError, match="trials"):
        binomial_upper(*counts, 0.05)
    with pytest.raises(EstimationError, match="trials"):
        imbalance_p(0, 5, *counts)
