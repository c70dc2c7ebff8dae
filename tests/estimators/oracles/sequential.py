"""Constants of test_confidence_sequence.py and test_sequential_srm.py, by GrowthBook's and Optimizely's packages.

Run in an environment with gbstats 0.8.0 and ssrm-test 0.1.5 (with numpy < 2 for the latter):

    python tests/estimators/oracles/sequential.py
"""

from __future__ import annotations

import numpy as np


def growthbook() -> None:
    """``gbstats.frequentist.tests.SequentialTwoSidedTTest`` on sums by arm."""
    from gbstats.frequentist.tests import SequentialConfig, SequentialTwoSidedTTest
    from gbstats.models.statistics import SampleMeanStatistic

    for (n0, mean0, sd0), (n1, mean1, sd1), alpha, tuning in CASES:
        arms = [
            SampleMeanStatistic(n=n, sum=n * m, sum_squares=(n - 1) * sd**2 + n * m**2)
            for n, m, sd in ((n0, mean0, sd0), (n1, mean1, sd1))
        ]
        config = SequentialConfig(alpha=alpha, sequential_tuning_parameter=tuning, difference_type="absolute")
        test = SequentialTwoSidedTTest(*arms, config)
        low, high = test.confidence_interval
        given = (n0, n1, mean1 - mean0, float(np.sqrt(test.variance)), alpha, tuning)
        print(given, tuple(map(float, (low, high, test.p_value))))


CASES = (
    ((520, 10.0, 3.0), (480, 10.6, 3.5), 0.05, 5000),
    ((5100, 10.0, 3.0), (4900, 10.3, 3.5), 0.05, 5000),
    ((50_000, 1.0, 8.0), (50_200, 1.1, 8.2), 0.01, 20_000),
    ((60, 100.0, 30.0), (64, 95.0, 30.0), 0.1, 100),
)


def optimizely() -> None:
    """``ssrm_test.sequential_p_values`` of one batch of counts."""
    from ssrm_test.ssrm_test import sequential_posteriors

    for counts, shares, concentration in COUNTS:
        found = sequential_posteriors(
            np.array([counts]),
            np.array(shares),
            dirichlet_probability=np.array(shares),
            dirichlet_concentration=concentration,
        )[-1]
        print((counts, shares, concentration), (float(found["log_bayes_factor"]), float(found["p_value"])))


COUNTS = (
    ((5012, 4870), (0.5, 0.5), 10_000),
    ((50_600, 49_400), (0.5, 0.5), 10_000),
    ((9200, 800), (0.9, 0.1), 10_000),
    ((1010, 2200, 2790), (1 / 6, 2 / 6, 3 / 6), 500),
    ((80, 40), (0.5, 0.5), 100),
)

if __name__ == "__main__":
    growthbook()
    optimizely()
