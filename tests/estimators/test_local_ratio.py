"""Ratios at a cutoff, against ``local_linear`` of their linearisation (itself held to rdrobust) and in simulation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from estimators import EstimationError, local_linear, local_ratio

BANDWIDTH = {"h": 0.5, "b": 0.8}
OPTIONS: list[dict[str, Any]] = [
    {},
    {"variance": "hc2", "kernel": "uniform"},
    {"order": 2, "variance": "hc0", "kernel": "epanechnikov"},
]


def draw(seed: int, n: int = 600) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Cost, successes, running variable, take-up and clusters; cost per success goes from 2 to 1.5 at 0."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, n)
    takeup = (rng.random(n) < np.where(x >= 0, 0.9, 0.2)).astype(float)
    den = rng.poisson(3.0 + x)
    num = np.where(x >= 0, 1.5, 2.0) * den * rng.lognormal(-0.02, 0.2, n) + rng.normal(0.0, 0.5, n)
    return num, den.astype(float), x, takeup, rng.integers(0, 90, n)


def limit(y: np.ndarray, x: np.ndarray, h: float, order: int, kernel: str) -> float:
    """A side's limit by weighted least squares."""
    u = np.abs(x) / h
    w = {"triangular": 1.0 - u, "uniform": np.ones_like(u), "epanechnikov": 1.0 - u**2}[kernel] * (u <= 1.0)
    root = np.sqrt(np.maximum(w, 0.0))
    return float(np.linalg.lstsq(np.vander(x, order + 1, increasing=True) * root[:, None], y * root, rcond=None)[0][0])


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("clustered", [False, True])
def test_a_sharp_ratio_is_that_of_the_limits_and_its_error_that_of_the_linearisation(
    options: dict[str, Any], clustered: bool
) -> None:
    num, den, x, _, groups = draw(1)
    clusters = groups if clustered else None
    found = local_ratio(num, den, x, **BANDWIDTH, **options, clusters=clusters)
    order, kernel = options.get("order", 1), options.get("kernel", "triangular")
    sides = [(x < 0.0), (x >= 0.0)]
    tops, bottoms = ([limit(v[s], x[s], 0.5, order, kernel) for s in sides] for v in (num, den))
    ratios = [t / b for t, b in zip(tops, bottoms, strict=True)]
    assert (found.control_value, found.treatment_value) == pytest.approx(tuple(ratios), rel=1e-10)
    line = np.empty(len(x))
    for s, ratio, bottom in zip(sides, ratios, bottoms, strict=True):
        line[s] = ratio + (num[s] - ratio * den[s]) / bottom
    same = local_linear(line, x, **BANDWIDTH, **options, clusters=clusters)
    for name in ("estimate", "std_error", "ci_low", "ci_high", "p_value", "n_control", "n_treatment"):
        assert getattr(found, name) == pytest.approx(getattr(same, name), rel=1e-9), name
    assert found.relative == pytest.approx(ratios[1] / ratios[0] - 1.0)


@pytest.mark.parametrize("options", OPTIONS)
def test_a_fuzzy_ratio_is_that_of_the_jumps(options: dict[str, Any]) -> None:
    num, den, x, takeup, _ = draw(2)
    found = local_ratio(num, den, x, takeup=takeup, **BANDWIDTH, **options)
    parts = [takeup * num, takeup * den, (1 - takeup) * num, (1 - takeup) * den]
    jumps = [local_linear(v, x, **BANDWIDTH, **options).estimate for v in parts]
    treated, control = jumps[0] / jumps[1], jumps[2] / jumps[3]
    assert (found.control_value, found.treatment_value) == pytest.approx((control, treated), rel=1e-10)
    line = (parts[0] - treated * parts[1]) / jumps[1] - (parts[2] - control * parts[3]) / jumps[3]
    same = local_linear(line, x, **BANDWIDTH, **options)
    assert found.std_error == pytest.approx(same.std_error, rel=1e-9)
    # The linearisation's own jump is nothing; its bias correction is the ratio's.
    assert found.ci_low - found.estimate == pytest.approx(same.ci_low - same.estimate, rel=1e-9)
    stage = local_linear(takeup, x, **BANDWIDTH, **options)
    assert found.diagnostics["first_stage_f"] == pytest.approx(stage.statistic**2, rel=1e-9)
    turned = local_ratio(num, den, x, takeup=1.0 - takeup, **BANDWIDTH, **options)
    assert (turned.estimate, turned.ci_low) == pytest.approx((-found.estimate, -found.ci_high), rel=1e-9)


def test_with_a_denominator_of_one_it_is_the_mean() -> None:
    num, _, x, takeup, _ = draw(3)
    one = np.ones(len(x))
    cases: list[dict[str, Any]] = [{}, {"takeup": takeup}, {"h": 0.4}]
    for given in cases:
        found, mean = local_ratio(num, one, x, **given), local_linear(num, x, **given)
        for name in ("estimate", "std_error", "ci_low", "ci_high", "control_value", "treatment_value"):
            assert getattr(found, name) == pytest.approx(getattr(mean, name), rel=1e-8), name
        assert found.relative_ci_low == pytest.approx(mean.relative_ci_low, rel=1e-7)
        assert found.diagnostics["bandwidth"] == pytest.approx(mean.diagnostics["bandwidth"], rel=1e-8)


def test_intervals_cover() -> None:
    hit = relative = 0
    seeds = 200
    for seed in range(seeds):
        num, den, x, _, _ = draw(1000 + seed, 500)
        found = local_ratio(num, den, x, variance="hc3")
        hit += found.ci_low <= -0.5 <= found.ci_high
        assert found.relative_ci_low is not None
        assert found.relative_ci_high is not None
        relative += found.relative_ci_low <= -0.25 <= found.relative_ci_high
    assert min(hit, relative) / seeds > 0.95 - 3.5 * math.sqrt(0.95 * 0.05 / seeds)


def test_what_has_no_ratio_says_why() -> None:
    num, den, x, takeup, _ = draw(4)
    for message, call in {
        "denominator's mean is not positive": lambda: local_ratio(num, -den, x),
        "not positive at the cutoff": lambda: local_ratio(num, np.where(x >= 0, den, 0.0), x, h=0.5),
        "does not vary near the cutoff": lambda: local_ratio(2.0 * den, den, x, h=0.5),
        "no row stands below": lambda: local_ratio(num, den, np.abs(x), h=0.5),
        "take-up must lie": lambda: local_ratio(num, den, x, takeup=2.0 * takeup),
    }.items():
        with pytest.raises(EstimationError, match=message):
            call()
