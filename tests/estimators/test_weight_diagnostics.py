"""Diagnostics of weights against arviz-stats 1.3.3 (``oracles/pareto_k.py``), streamed, and where tails are missing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from estimators import EstimationError, weight_diagnostics, weight_diagnostics_from
from estimators.weight_diagnostics import largest_of, tail_length

ORACLE: dict[str, float] = json.loads((Path(__file__).parent / "oracles" / "pareto_k.json").read_text())
CASES = {"pareto": (2.5, 4000), "heavy": (1.2, 4000), "light": (20.0, 900), "few": (3.0, 120)}


def weights(shape: float, n: int) -> np.ndarray:
    u = (np.arange(n) + 0.5) / n
    return np.where(np.arange(n) % 3 == 0, 0.0, (1.0 - u) ** (-1.0 / shape) * (1.0 + 0.1 * np.sin(7.0 * np.arange(n))))


@pytest.mark.parametrize("case", CASES)
def test_the_shape_of_arviz(case: str) -> None:
    found = weight_diagnostics(weights(*CASES[case]))
    assert found.pareto_k == pytest.approx(ORACLE[case], rel=1e-9)
    assert found.unreliable == (case == "heavy")


def test_a_stream_needs_sums_and_the_largest() -> None:
    w = np.random.default_rng(1).permutation(weights(2.0, 5000))
    kept, seen = np.zeros(0), 0
    for chunk in np.array_split(w, 13):
        seen += len(chunk)
        kept = largest_of(np.concatenate([kept, chunk]), seen)
    assert len(kept) == tail_length(5000) + 1 == 213
    streamed = weight_diagnostics_from(kept, n=5000, total=float(w.sum()), squares=float(w @ w))
    assert streamed == weight_diagnostics(w)
    assert streamed.ess == pytest.approx(w.sum() ** 2 / (w**2).sum())
    assert streamed.largest_share == w.max() / w.sum()


def test_the_shape_is_that_of_the_tail_over_seeds() -> None:
    """Weights with a finite variance, at its edge, and without a mean."""
    for index, low, high in ((4.0, 0.15, 0.35), (1.6, 0.5, 0.75), (0.9, 0.95, 1.25)):
        found = [
            weight_diagnostics(np.random.default_rng(seed).pareto(index, 20_000) + 1.0).pareto_k for seed in range(20)
        ]
        assert low < np.mean([k for k in found if k is not None]) < high


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.tile([0.0, 4.0], 500), "all the same"),
        (np.r_[np.zeros(500), np.full(450, 2.0), np.full(50, 8.0)], "a few values only"),
        (np.arange(20.0), "too few to see a tail"),
    ],
)
def test_bounded_weights_have_no_tail(given: np.ndarray, said: str) -> None:
    found = weight_diagnostics(given)
    assert found.pareto_k is None
    assert said in found.reason
    assert not found.unreliable


def test_what_are_no_weights_is_refused() -> None:
    for bad, said in (
        ([1.0, np.nan], "finite"),
        ([1.0, -1.0], "negative"),
        ([0.0, 0.0], "never takes an action that was logged"),
        ([], "one a row"),
    ):
        with pytest.raises(EstimationError, match=said):
            weight_diagnostics(bad)
    with pytest.raises(EstimationError, match="their 95 largest weights; there are 5"):
        weight_diagnostics_from(np.ones(5), n=1000, total=5.0, squares=5.0)
