"""Rows that cannot be attributed are counted with their reason; the rest is attributed without them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from attribution.batches import Batches
from attribution.model import EnergyModel
from attribution.shapley import Shares, attribute

MODEL = EnergyModel(name="m", source="s", gpu="g", e0_j=3.0, e_tok_j=0.1, prefill_j_per_token=0.02, pue=1.1)
NAN = float("nan")


def shares(**changes: Any) -> Shares:
    columns: dict[str, Any] = {
        "batch": [1, 1, 2], "prompt_tokens": [10, 20, 30], "output_tokens": [5, 6, 7],
        "start_step": [100, 102, 0], "end_step": [105, 108, 7],
    }  # fmt: skip
    return attribute(Batches(**{**columns, **changes}), MODEL)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"batch": [NAN, 1, 2]}, "no batch"),
        ({"batch": [None, "x", "y"]}, "no batch"),
        ({"prompt_tokens": [NAN, 20, 30]}, "no token count"),
        ({"output_tokens": [None, 6, 7]}, "no token count"),
        ({"prompt_tokens": [-1, 20, 30]}, "token count negative or not whole"),
        ({"output_tokens": [2.5, 6, 7]}, "token count negative or not whole"),
        ({"output_tokens": [np.inf, 6, 7]}, "token count negative or not whole"),
        ({"start_step": [NAN, 102, 0]}, "no start or end step"),
        ({"end_step": [NAN, 108, 7]}, "no start or end step"),
        ({"end_step": [99, 108, 7]}, "end step before start step"),
        ({"start_step": [100.5, 102, 0]}, "start or end step not whole"),
        ({"end_step": [np.inf, 108, 7]}, "start or end step not whole"),
    ],
)
def test_a_bad_row_is_left_out_and_counted(changes: dict[str, Any], reason: str) -> None:
    result = shares(**changes)
    assert result.unattributed == {reason: 1}
    assert np.isnan(result.wh[0])
    assert np.isnan(result.batch_wh[0])
    assert all(np.isnan(rule[0]) for rule in result.naive.values())
    assert result.batch_size.tolist() == [0, 1, 1]
    assert (result.n_requests, result.n_batches) == (2, 2)
    without = attribute(Batches([1, 2], [20, 30], [6, 7], [102, 0], [108, 7]), MODEL)
    np.testing.assert_allclose(result.wh[1:], without.wh, rtol=1e-14)
    assert result.incomplete_batches == (0 if reason == "no batch" else 1)


def test_a_row_is_counted_once_under_its_first_reason() -> None:
    result = shares(batch=[NAN, NAN, 2], prompt_tokens=[NAN, 20, NAN])
    assert result.unattributed == {"no batch": 2, "no token count": 1}
    assert result.n_requests == 0


def test_a_batch_without_any_step_is_static_beside_continuous_ones() -> None:
    mixed = shares(batch=[1, 1, 2], start_step=[NAN, NAN, 0], end_step=[NAN, NAN, 7])
    assert mixed.unattributed == {}
    plain = attribute(Batches([1, 1, 2], [10, 20, 30], [5, 6, 7]), MODEL)
    np.testing.assert_array_equal(mixed.wh, plain.wh)


def test_only_the_distance_from_the_batch_s_first_step_matters() -> None:
    late = shares(start_step=[1_000_100, 1_000_102, 50], end_step=[1_000_105, 1_000_108, 57])
    np.testing.assert_array_equal(late.wh, shares().wh)
    early = shares(start_step=[-100, -98, 0], end_step=[-95, -92, 7])
    np.testing.assert_array_equal(early.wh, shares().wh)
    second = shares(batch=[2, 2, 1], start_step=[-4, -2, 0], end_step=[1, 4, 7])
    np.testing.assert_array_equal(second.wh, shares().wh)


def test_batch_ids_may_be_anything_that_compares() -> None:
    for ids in ([7, 7, -3], [2**62, 2**62, -(2**62)], ["b", "b", "a"], [0.5, 0.5, 1.5], [True, True, False]):
        np.testing.assert_allclose(shares(batch=ids).wh, shares().wh, rtol=1e-14)
    narrow = np.array([100, 100, -100], dtype=np.int8)
    np.testing.assert_allclose(shares(batch=narrow).wh, shares().wh, rtol=1e-14)
    unsigned = np.array([2**64 - 1, 2**64 - 1, 0], dtype=np.uint64)
    np.testing.assert_allclose(shares(batch=unsigned).wh, shares().wh, rtol=1e-14)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"end_step": None}, "start_step and end_step go together"),
        ({"prompt_tokens": [1, 2]}, "prompt_tokens: expected 3 values as in batch"),
        ({"prompt_tokens": ["a", "b", "c"]}, "prompt_tokens: expected numbers"),
        ({"batch": [[1, 1, 2]]}, "batch: expected one value a row"),
    ],
)
def test_columns_that_do_not_fit_are_an_error(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        shares(**changes)
