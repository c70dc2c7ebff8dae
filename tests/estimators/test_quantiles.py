from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from estimators.inference import EstimationError
from estimators.quantiles import Histogram, quantile, quantile_effect


def exact(values: np.ndarray, groups: np.ndarray) -> Histogram:
    """A histogram whose buckets are the exact values."""
    levels, code = np.unique(values, return_inverse=True)
    counts = np.zeros((groups.max() + 1, len(levels)), dtype=np.int64)
    np.add.at(counts, (groups, code), 1)
    return Histogram(levels, levels, counts)


def bucketed(values: np.ndarray, groups: np.ndarray, width: float = 0.01) -> Histogram:
    edges = np.exp(np.arange(np.log(values.min()) - width, np.log(values.max()) + 2 * width, width))
    code = np.searchsorted(edges, values, side="right") - 1
    counts = np.zeros((groups.max() + 1, len(edges) - 1), dtype=np.int64)
    np.add.at(counts, (groups, code), 1)
    return Histogram(edges[:-1], edges[1:], counts)


@pytest.mark.parametrize("q", [0.001, 0.25, 0.5, 0.95, 0.99, 0.999])
def test_quantiles_of_exact_values_are_the_inverse_distribution_function(q: float) -> None:
    values = np.round(np.random.default_rng(1).gamma(2.0, size=1001), 2)
    hist = exact(values, np.zeros(1001, dtype=int))
    assert quantile(hist, q) == np.quantile(values, q, method="inverted_cdf")


def test_quantiles_inside_a_bucket_lie_on_a_straight_line() -> None:
    hist = Histogram(np.array([0.0, 10.0]), np.array([10.0, 30.0]), np.array([[4, 16]]))
    assert quantile(hist, 0.1) == pytest.approx(5.0, rel=1e-12)
    assert quantile(hist, 0.2) == pytest.approx(10.0, rel=1e-12)
    assert quantile(hist, 0.6) == pytest.approx(20.0, rel=1e-12)


def test_quantiles_of_independent_rows_have_the_textbook_interval() -> None:
    """Woodruff's interval of one arm is that of the binomial order statistics (normal approximation)."""
    rng = np.random.default_rng(2)
    a, b = np.exp(rng.normal(size=4000)), np.exp(rng.normal(size=6000) + 0.1)
    control, treatment = (bucketed(x, np.zeros(len(x), dtype=int), 0.001) for x in (a, b))
    e = quantile_effect(control, treatment, 0.9, independent_rows=True)
    widths = []
    for x in (a, b):
        half = stats.norm.ppf(0.975) * math.sqrt(0.09 / len(x))
        widths.append((np.quantile(x, 0.9 + half) - np.quantile(x, 0.9 - half)) / 2)
    assert e.estimate == pytest.approx(np.quantile(b, 0.9) - np.quantile(a, 0.9), abs=0.003)
    assert (e.ci_high - e.ci_low) / 2 == pytest.approx(math.hypot(*widths), rel=0.01)
    assert e.df == math.inf
    assert (e.n_control, e.n_treatment) == (4000, 6000)


def test_the_share_of_rows_has_the_error_of_a_ratio_over_units() -> None:
    """With units alike in size the median's error is that of the units' shares, over the density."""
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(400), 5)
    values = 100 + 10 * rng.normal(size=400)[groups] + rng.normal(size=2000)
    e = quantile_effect(bucketed(values, groups, 1e-4), bucketed(values, groups, 1e-4), 0.5)
    below = np.bincount(groups, values <= np.median(values))
    share_error = math.sqrt(400 / 399 * ((below - 2.5) ** 2).sum()) / 2000
    t = stats.t.ppf(0.975, 399)
    ends = np.quantile(values, [0.5 - t * share_error, 0.5 + t * share_error])
    assert e.std_error == pytest.approx(math.sqrt(2) * (ends[1] - ends[0]) / (2 * t), rel=0.01)
    assert e.df == pytest.approx(798)


def test_clustered_rows_widen_the_interval() -> None:
    rng = np.random.default_rng(4)
    groups = np.repeat(np.arange(300), 20)
    values = np.exp(rng.normal(size=300)[groups] + 0.2 * rng.normal(size=6000))
    hist = bucketed(values, groups)
    clustered = quantile_effect(hist, hist, 0.5)
    naive = quantile_effect(hist, hist, 0.5, independent_rows=True)
    assert clustered.std_error > 3 * naive.std_error
    assert clustered.diagnostics["effective_rows_beyond"]["control"] < 300


def test_relative_effect_of_a_shift_in_scale() -> None:
    rng = np.random.default_rng(5)
    groups = np.arange(5000)
    values = np.exp(rng.normal(size=5000))
    e = quantile_effect(bucketed(values, groups), bucketed(1.2 * values, groups), 0.95)
    assert e.relative == pytest.approx(0.2, abs=0.01)
    assert e.relative_ci_low is not None
    assert e.relative_ci_high is not None
    assert e.relative_ci_low < 0.2 < e.relative_ci_high


def test_too_few_rows_beyond_the_quantile_are_refused_in_plain_words() -> None:
    values = np.exp(np.random.default_rng(6).normal(size=300))
    hist = bucketed(values, np.arange(300))
    with pytest.raises(
        EstimationError, match=r"too few independent rows beyond the 99th percentile .* 3\.8 are needed"
    ):
        quantile_effect(hist, hist, 0.99)
    assert quantile_effect(hist, hist, 0.9).std_error > 0


@pytest.mark.parametrize(
    ("values", "groups", "message"),
    [
        (np.arange(1.0, 50.0), np.zeros(49, dtype=int), "fewer than two independent units"),
        (np.repeat([0.0, 5.0, 9.0], [2, 96, 2]), np.arange(100), "no width"),
    ],
)
def test_what_has_no_interval_is_refused(values: np.ndarray, groups: np.ndarray, message: str) -> None:
    with pytest.raises(EstimationError, match=message):
        quantile_effect(exact(values, groups), exact(values, groups), 0.5)


def test_malformed_histograms_are_refused() -> None:
    edges = np.array([0.0, 1.0])
    for lower, upper, counts, message in (
        (edges, edges[::-1], [[1, 1]], "ascending"),
        (edges, edges + 0.5, [[1, 1, 1]], "one count per group"),
        (edges, edges + 0.5, [[0, 0]], "no observations"),
        (edges, edges + 0.5, [[-1, 2]], "negative"),
        (np.array([0.0, math.nan]), edges, [[1, 1]], "finite"),
    ):
        with pytest.raises(EstimationError, match=message):
            Histogram(lower, upper, np.array(counts))
    with pytest.raises(EstimationError, match="between 0 and 1"):
        quantile(Histogram(edges, edges, np.array([[1, 1]])), 1.0)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=60), st.floats(0.01, 0.99), st.integers(1, 5))
def test_splitting_rows_over_groups_does_not_move_the_quantile(values: list[int], q: float, n_groups: int) -> None:
    x = np.array(values, dtype=float)
    whole = exact(x, np.zeros(len(x), dtype=int))
    split = exact(x, np.arange(len(x)) % n_groups)
    assert quantile(split, q) == quantile(whole, q)
    assert x.min() <= quantile(whole, q) <= x.max()
