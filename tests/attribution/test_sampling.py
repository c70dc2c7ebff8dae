"""Sampled shares against all coalitions, the axiom that holds exactly, and that chance comes from the seed alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from attribution.batches import Batches
from attribution.games.rescheduled import rescheduled
from attribution.model import EnergyModel
from attribution.sampling import Sampled, attribute_sampled, for_model

from .games import random_log

MODEL = EnergyModel(
    name="test", source="test", gpu="test", e0_j=3.16, e_tok_j=0.0665, prefill_j_per_token=0.02, pue=1.25,
    prefill_j_per_token2=3.1e-7, gpus=2, step_base_ms=6.67, step_per_request_ms=0.09, host_w=150.0, prefill_w=700.0,
)  # fmt: skip


def queued(batch: Mapping[str, NDArray[Any]], coalitions: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Four at a time, so that requests wait for each other."""
    return rescheduled(batch, coalitions, energy_model=MODEL, max_batch=4, max_tokens=6000)


def sampled(log: Batches, seed: int = 0, **options: Any) -> Sampled:
    return attribute_sampled(log, queued, seed=seed, **({"samples": 20, "cap": 40} | options))


def test_shares_sum_to_the_batch_exactly() -> None:
    result = sampled(random_log(16, 2, "continuous"))
    assert result.n_sampled == 1
    assert result.shares.efficiency_error < 1e-12
    assert result.shares.wh.sum() == pytest.approx(result.shares.batch_wh[0], rel=1e-12)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not() -> None:
    log = random_log(16, 2, "continuous")
    first, again, other = sampled(log), sampled(log), sampled(log, seed=1)
    assert first.shares.wh.tobytes() == again.shares.wh.tobytes()
    assert first.std_error_wh.tobytes() == again.std_error_wh.tobytes()
    assert not np.array_equal(first.shares.wh, other.shares.wh)


def test_small_batches_are_counted_out() -> None:
    result = attribute_sampled(random_log(8, 2, "continuous"), for_model(rescheduled, MODEL))
    assert (result.n_exact, result.n_sampled) == (1, 0)
    assert set(result.methods) == {"shapley_exact"}
    assert not result.std_error_wh.any()
