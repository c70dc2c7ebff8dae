"""Ratios by instruments: the arms' own ratios, tests refitted by hand, and whether intervals cover."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from estimators.inference import EstimationError
from estimators.instrumented_ratio import instrumented_ratio, relative_set
from estimators.two_stage_least_squares import two_stage_least_squares


def world(seed: int, n: int = 400, comply: float = 0.6) -> dict[str, np.ndarray]:
    """Cost and successes; treatment adds a tenth to cost and takes a tenth of the successes, of those who comply."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(3, n, p=[0.2, comply, 0.8 - comply])
    z = rng.integers(0, 2, n)
    d = np.where(kind == 0, 1, np.where(kind == 1, z, 0)).astype(float)
    cost = rng.gamma(4.0, 1.0 + 0.1 * d + 0.3 * (kind == 2), n)
    success = (rng.random(n) < 0.9 - 0.1 * d).astype(float)
    return {"cost": cost, "success": success, "d": d, "z": z.astype(float), "x": rng.normal(size=n) + z}


TRUTH = 4.4 / 0.8 - 4.0 / 0.9


def test_with_a_denominator_of_one_it_is_two_stage_least_squares() -> None:
    w = world(1)
    how: dict[str, Any] = {"covariates": w["x"], "clusters": np.arange(400) // 4, "variance": "cluster"}
    found = instrumented_ratio(w["cost"], np.ones(400), w["d"], w["z"], **how)
    plain = two_stage_least_squares(w["cost"], w["d"], w["z"], **how)
    for name in ("estimate", "std_error", "df", "ci_low", "control_value", "treatment_value", "relative_ci_high"):
        assert getattr(found, name) == pytest.approx(getattr(plain, name), rel=1e-9), name
    for name in ("first_stage_f", "first_stage_f_critical"):
        assert found.diagnostics[name] == pytest.approx(plain.diagnostics[name], rel=1e-12)


def test_where_all_comply_it_is_the_difference_of_the_arms_ratios() -> None:
    w = world(2)
    arms = [w["z"] == side for side in (0.0, 1.0)]
    ratios = [w["cost"][m].sum() / w["success"][m].sum() for m in arms]
    parts = [(w["cost"][m] - r * w["success"][m]) / w["success"][m].mean() for m, r in zip(arms, ratios, strict=True)]
    variance = sum((p**2).sum() / len(p) ** 2 for p in parts) * 400 / 398
    found = instrumented_ratio(w["cost"], w["success"], w["z"], w["z"])
    assert (found.control_value, found.treatment_value) == pytest.approx(tuple(ratios), rel=1e-12)
    assert found.std_error == pytest.approx(np.sqrt(variance), rel=1e-12)


def test_the_ends_of_the_relative_set_are_where_the_reduced_forms_test_is_at_its_level() -> None:
    w = world(3, comply=0.2)
    found = relative_set(w["cost"], w["d"], w["z"], covariates=w["x"], alpha=0.1)
    assert found.bounded
    design = np.column_stack([np.ones(400), w["x"], w["z"]])
    inverse = np.linalg.inv(design.T @ design)
    leverage = np.einsum("ij,jk,ik->i", design, inverse, design)
    for ratio in found.segments[0]:
        moved = w["d"] * w["cost"] + ratio * (1 - w["d"]) * w["cost"]
        beta = inverse @ design.T @ moved
        scores = design * ((moved - design @ beta) / (1 - leverage))[:, None] @ inverse
        t = beta[2] / np.sqrt((scores[:, 2] ** 2).sum())
        assert 2 * stats.t.sf(abs(t), 400 - 3) == pytest.approx(0.1, abs=1e-7)


def test_intervals_cover() -> None:
    hits = sets = bounded = 0
    for seed in range(300):
        w = world(seed)
        found = instrumented_ratio(w["cost"], w["success"], w["d"], w["z"])
        hits += found.ci_low <= TRUTH <= found.ci_high
        weak = world(1000 + seed, n=200, comply=0.2)
        ends = relative_set(weak["cost"], weak["d"], weak["z"])
        sets += any(a <= 1.1 <= b for a, b in ends.segments)
        bounded += ends.bounded
    assert 0.92 <= hits / 300 <= 0.98
    assert 0.92 <= sets / 300 <= 0.98
    assert bounded < 270  # many of them weak indeed


def test_what_cannot_be_estimated_is_refused() -> None:
    w = world(4)
    with pytest.raises(EstimationError, match="not for an amount"):
        instrumented_ratio(w["cost"], w["success"], 2 * w["d"], w["z"])
    with pytest.raises(EstimationError, match="is not positive"):
        instrumented_ratio(w["cost"], -w["success"], w["d"], w["z"])
    with pytest.raises(EstimationError, match="does not vary"):
        instrumented_ratio(2 * w["success"], w["success"], w["d"], w["z"])
