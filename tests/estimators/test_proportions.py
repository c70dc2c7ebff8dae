from __future__ import annotations

import math

import pytest
from scipy import stats

from estimators.inference import EstimationError
from estimators.proportions import chi_square_srm


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
