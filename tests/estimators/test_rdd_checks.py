from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from estimators import EstimationError
from estimators.local_linear import local_linear
from estimators.rdd_bins import binned_means, variance_bins
from estimators.rdd_checks import bandwidth_sensitivity, covariate_continuity, donut, placebo_cutoffs
from estimators.rdd_fits import split

HERE = Path(__file__).parent
ORACLE = json.loads((HERE / "oracles" / "rdd.json").read_text())


def draw(seed: int, n: int = 600) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, n)
    return 1.0 + x + 0.5 * x**2 + 0.5 * (x >= 0) + rng.normal(0, 0.5, n), x, rng


def test_a_covariate_that_jumps_is_named_and_the_others_are_left_alone() -> None:
    _, x, rng = draw(1, 3000)
    z = np.column_stack([rng.normal(size=3000) + x, rng.normal(size=3000) + (x >= 0), np.ones(3000)])
    tier, tokens, same = covariate_continuity(z, ["tier", "tokens", "same"], x)
    alone = local_linear(z[:, 1], x)
    assert (tokens.at, tokens.estimate, tokens.p_value) == ("tokens", alone.estimate, alone.p_value)
    assert tokens.adjusted_p_value == pytest.approx(2 * alone.p_value)
    assert tier.adjusted_p_value is not None
    assert tier.adjusted_p_value > 0.05
    assert same.estimate is None
    assert "cannot jump" in same.reason
    (certain,) = covariate_continuity((x >= 0)[:, None], ["paid"], x)
    assert (certain.estimate, certain.p_value, certain.adjusted_p_value) == (1.0, 0.0, 0.0)
    with pytest.raises(EstimationError, match="one column a name"):
        covariate_continuity(z, ["tier"], x)


def test_changes_are_those_of_readings_made_apart() -> None:
    y, x, rng = draw(2)
    facts = {"takeup": (rng.random(600) < np.where(x >= 0, 0.9, 0.2)).astype(float), "covariates": rng.normal(size=600)}
    for options in ({}, {"variance": "hc1", "kernel": "uniform"}, facts):
        base = local_linear(y, x, h=0.4, b=0.6, **options)
        for found in bandwidth_sensitivity(y, x, h=0.4, b=0.6, **options):
            other = local_linear(y, x, h=0.4 * found.at, b=0.6 * found.at, **options)
            assert (found.estimate, found.std_error, found.ci_low) == pytest.approx(
                (other.estimate, other.std_error, other.ci_low), rel=1e-12
            )
            moved = other.diagnostics["bias_corrected"] - base.diagnostics["bias_corrected"]
            assert found.change == pytest.approx(moved, rel=1e-9)
        (hole,) = donut(y, x, h=0.4, b=0.6, holes=(0.1,), **options)
        kept = np.abs(x) >= 0.04
        rest = {k: v[kept] if isinstance(v, np.ndarray) else v for k, v in options.items()}
        other = local_linear(y[kept], x[kept], h=0.4, b=0.6, **rest)
        assert (hole.at, hole.estimate, hole.std_error) == pytest.approx((0.04, other.estimate, other.std_error))
    (same,) = bandwidth_sensitivity(y, x, h=0.4, b=0.6, factors=(1.0,))
    assert same.change_p_value is None
    assert "nothing could change" in same.reason
    (narrow,) = bandwidth_sensitivity(y, x, h=0.4, b=0.6, factors=(0.01,))
    assert narrow.estimate is None
    assert "cannot carry a polynomial" in narrow.reason


def test_the_error_of_a_change_is_its_spread_over_draws() -> None:
    changes = []
    for seed in range(120):
        y, x, _ = draw(seed, 400)
        found = (*bandwidth_sensitivity(y, x, h=0.3, b=0.4), *donut(y, x, h=0.3, b=0.4))
        changes.append([(c.change, c.change_std_error, c.change_p_value) for c in found])
    moved, errors, p_values = np.moveaxis(np.array(changes, dtype=float), 2, 0)
    assert np.sqrt((errors**2).mean(axis=0)) == pytest.approx(moved.std(axis=0), rel=0.25)
    assert ((p_values < 0.05).mean(axis=0) < 0.05 + 3.5 * math.sqrt(0.05 * 0.95 / 120)).all()


def test_a_donut_sees_those_who_sorted_across() -> None:
    fired = 0
    for seed in range(20):
        y, x, _ = draw(seed, 2000)
        sorted_ = (x < 0) & (x > -0.04)
        found = donut(y + 2.0 * sorted_, np.where(sorted_, -x, x), h=0.4, b=0.6, holes=(0.15,))
        fired += found[0].change_p_value is not None and found[0].change_p_value < 0.05
    assert fired >= 18


def test_placebo_cutoffs_read_one_side_each() -> None:
    y, x, _ = draw(4, 2000)
    found = placebo_cutoffs(y, x)
    assert [r.at for r in found] == pytest.approx([-0.75, -0.5, -0.25, 0.25, 0.5, 0.75], abs=0.05)
    assert all(r.adjusted_p_value is not None and r.adjusted_p_value > 0.05 for r in found)
    own = x >= 0
    alone = local_linear(y[own], x[own], cutoff=float(found[3].at))
    assert (found[3].estimate, found[3].ci_high) == (alone.estimate, alone.ci_high)
    jump, true = placebo_cutoffs(y + (x >= 0.5), x, cutoffs=[0.5, 0.0])
    assert jump.p_value is not None
    assert jump.p_value < 1e-3
    assert true.estimate is None
    assert "true cutoff" in true.reason


@pytest.mark.parametrize(("name", "count"), ORACLE["bins"])
def test_as_many_bins_as_rdplot(name: str, count: list[int]) -> None:
    data = pd.read_csv(HERE / "data" / f"{name}.csv")
    sides = split(data.outcome, data.running, {"transfers": 0.0, "elections": 0.5}[name])
    assert [variance_bins(side, len(data)) for side in sides] == count


def test_bins_hold_every_row_once_and_never_cross_the_cutoff() -> None:
    y, x, _ = draw(5)
    found = binned_means(y, x)
    assert sum(b.rows for b in found) == 600
    assert sum(b.rows * b.mean for b in found) == pytest.approx(y.sum())
    assert all(b.high <= 1e-12 if b.side == "below" else b.low >= 0.0 for b in found)
    inside = (x >= found[0].low) & (x < found[0].high)
    assert found[0].mean == pytest.approx(y[inside].mean())
    assert len(binned_means(y, x, bins=3)) == 6
    (low, high) = binned_means(np.ones(600), x)
    assert (low.rows + high.rows, low.std_error) == (600, 0.0)
    assert len(binned_means(y, np.round(x), cutoff=0.0)) == 3
