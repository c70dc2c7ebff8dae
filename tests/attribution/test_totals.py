"""Totals by arm."""

from __future__ import annotations

import numpy as np
import pytest

from attribution.batches import Batches
from attribution.model import EnergyModel
from attribution.shapley import attribute
from attribution.totals import by_label

MODEL = EnergyModel(name="m", source="s", gpu="g", e0_j=3.0, e_tok_j=0.1, prefill_j_per_token=0.02, pue=1.1)
SHARES = attribute(Batches([1, 1, 1, 2, 2], [10, 20, 30, 40, float("nan")], [5, 6, 7, 8, 9]), MODEL)


def test_arms_sum_to_the_whole_under_every_rule() -> None:
    arms = by_label(SHARES, ["b", "a", "a", "b", "b"])
    assert list(arms) == ["a", "b"]
    assert (arms["a"].requests, arms["b"].requests) == (2, 2)
    assert arms["a"].wh == pytest.approx(SHARES.wh[1] + SHARES.wh[2], rel=1e-14)
    assert arms["a"].wh_per_request == pytest.approx(arms["a"].wh / 2)
    assert arms["a"].wh + arms["b"].wh == pytest.approx(SHARES.total_wh, rel=1e-14)
    for rule in ("per_token", "per_request", "provisioned"):
        assert arms["a"].naive[rule] + arms["b"].naive[rule] == pytest.approx(SHARES.total_wh, rel=1e-14)
        assert arms["a"].naive_per_request[rule] == arms["a"].naive[rule] / 2


def test_rows_without_a_label_or_a_share_count_nowhere() -> None:
    arms = by_label(SHARES, np.array([None, "a", float("nan"), "a", "only unattributed"], dtype=object))
    assert list(arms) == ["a"]
    assert arms["a"].requests == 2
    assert by_label(SHARES, [0, 0, 1, 1, 1])[1].requests == 2


def test_labels_must_be_one_a_row() -> None:
    with pytest.raises(ValueError, match="labels: expected 5 values"):
        by_label(SHARES, ["a"])
