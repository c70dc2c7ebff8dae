"""Adjusted p-values against statsmodels, and what must always hold of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators.multiplicity import benjamini_hochberg, holm

FAMILIES = [
    [0.01],
    [0.04, 0.01, 0.03],
    [0.5, 0.5, 0.5, 0.5],
    [0.0, 1.0, 1e-300, 0.2],
    list(np.random.default_rng(4).uniform(0, 0.1, 60)),
]


@pytest.mark.parametrize("p", FAMILIES)
def test_against_statsmodels(p: list[float]) -> None:
    from statsmodels.stats.multitest import multipletests

    for method, ours in (("holm", holm), ("fdr_bh", benjamini_hochberg)):
        np.testing.assert_allclose(ours(p), multipletests(p, method=method)[1], rtol=1e-12, atol=0)


def test_worked_by_hand() -> None:
    np.testing.assert_allclose(holm([0.03, 0.01, 0.04]), [0.06, 0.03, 0.06], rtol=1e-15)
    np.testing.assert_allclose(benjamini_hochberg([0.03, 0.01, 0.04]), [0.04, 0.03, 0.04], rtol=1e-15)
    assert len(holm([])) == len(benjamini_hochberg([])) == 0


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_between_the_plain_p_and_bonferroni(p: list[float]) -> None:
    plain, bonferroni = np.array(p), np.minimum(1.0, np.array(p) * len(p))
    for found in (holm(p), benjamini_hochberg(p)):
        assert (found >= plain * (1 - 1e-12)).all()
        assert (found <= bonferroni * (1 + 1e-12)).all()
    assert (benjamini_hochberg(p) <= holm(p) * (1 + 1e-12)).all()


@pytest.mark.parametrize("p", [[0.1, 1.2], [-0.1], [float("nan")], [[0.1, 0.2]]])
def test_what_is_no_p_value_is_refused(p: object) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm(p)
