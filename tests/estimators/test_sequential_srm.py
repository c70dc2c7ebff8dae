"""The sequential sample ratio test, against Optimizely's ssrm package, exact enumeration and simulated looks."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from estimators.inference import EstimationError
from estimators.sequential_srm import sequential_srm

# Counts, shares, concentration; log Bayes factor and p-value. oracles/sequential.py, ssrm-test 0.1.5.
OPTIMIZELY = [
    (((5012, 4870), (0.5, 0.5), 10_000), (0.16349438042379916, 0.8491712709708404)),
    (((50_600, 49_400), (0.5, 0.5), 10_000), (5.34667352354154, 0.004763971911288903)),
    (((9200, 800), (0.9, 0.1), 10_000), (11.158634610386798, 1.4251696433265572e-05)),
    (((1010, 2200, 2790), (1 / 6, 2 / 6, 3 / 6), 500), (13.359008951265423, 1.5785419534300334e-06)),
    (((80, 40), (0.5, 0.5), 100), (3.277936240371048, 0.037705992670960975)),
]


@pytest.mark.parametrize(("given", "expected"), OPTIMIZELY)
def test_matches_optimizelys_package(given: tuple, expected: tuple[float, float]) -> None:
    # The package sums log gammas of a million: its own last digits are about 1e-10.
    counts, shares, concentration = given
    assert sequential_srm(counts, shares, (concentration,)) == pytest.approx(expected, rel=1e-7)


def test_several_priors_are_averaged() -> None:
    counts, shares, priors = (550, 450), (1, 1), (10.0, 300.0, 10_000.0)
    factors = [math.exp(sequential_srm(counts, shares, (c,))[0]) for c in priors]
    log_factor, p = sequential_srm(counts, shares)
    assert (log_factor, p) == pytest.approx((math.log(sum(factors) / 3), 3 / sum(factors)), rel=1e-9)


@pytest.mark.parametrize(("shares", "priors"), [((1, 1), (10.0,)), ((1, 3), (4.0, 900.0)), ((1, 2, 3), (6.0,))])
def test_the_bayes_factor_is_a_fair_bet_while_the_shares_hold(shares: tuple, priors: tuple) -> None:
    p = np.array(shares) / sum(shares)
    total = 0.0
    for draws in itertools.product(range(len(p)), repeat=6):
        counts = np.bincount(draws, minlength=len(p))
        total += math.prod(p[list(draws)]) * math.exp(sequential_srm(counts, shares, priors)[0])
    assert total == pytest.approx(1.0, rel=1e-9)


def test_an_arm_without_share_counts_for_nothing_unless_it_is_seen() -> None:
    assert sequential_srm([50, 61, 0], [1, 1, 0]) == sequential_srm([50, 61], [1, 1])
    assert sequential_srm([50, 61, 1], [1, 1, 0]) == (math.inf, 0.0)


def test_a_gross_mismatch_has_a_vanishing_p_value() -> None:
    assert sequential_srm([600_000, 400_000], [1, 1])[1] == 0.0


@pytest.mark.parametrize(
    ("counts", "shares", "message"),
    [
        ([0, 0], [1, 1], "nothing"),
        ([5, 5], [1, 0], "fewer than two"),
        ([5, -5], [1, 1], "negative"),
        ([5], [1, 1], "arm"),
    ],
)
def test_what_cannot_be_tested_is_refused(counts: list[int], shares: list[float], message: str) -> None:
    with pytest.raises(EstimationError, match=message):
        sequential_srm(counts, shares)


def test_looks_after_every_assignment_keep_the_level_and_find_a_shift() -> None:
    rng = np.random.default_rng(5)
    looks = np.arange(100, 20_001, 100)

    def ever_below(level: float, share: float, experiments: int) -> float:
        treated = np.cumsum(rng.binomial(100, share, (experiments, len(looks))), axis=1)
        found = [
            any(sequential_srm((n - t, t), (1, 1))[1] < level for n, t in zip(looks, row, strict=True))
            for row in treated
        ]
        return float(np.mean(found))

    assert ever_below(0.05, 0.5, 60) <= 0.1
    assert ever_below(0.001, 0.53, 10) == 1.0
