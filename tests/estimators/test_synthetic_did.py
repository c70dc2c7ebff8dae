"""Synthetic difference in differences in simulation, and where the data cannot carry it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from estimators import EstimationError
from estimators.panel import Panel
from estimators.synthetic_did import VARIANCES, synthetic_did


def world(
    seed: int, *, n: int = 20, periods: int = 18, start: int = 12, treated: int = 1, effect: float = 0.0
) -> Panel:
    """Three common factors, loads of every unit its own, noise independent; the first units are treated."""
    rng = np.random.default_rng(seed)
    t = np.arange(periods)
    factors = np.column_stack([0.5 * rng.normal(size=periods).cumsum(), np.sin(t / 3), 2.0 * t / periods])
    y = 20.0 + rng.normal(size=(n, 3)) @ factors.T + rng.normal(size=(n, 1)) + 0.5 * rng.normal(size=(n, periods))
    y[:treated, start:] += effect
    return Panel(
        y,
        np.where(np.arange(n) < treated, start, periods),
        units=tuple(f"cell {i}" for i in range(n)),
        periods=tuple(f"day {p}" for p in t),
    )


def test_what_is_shown_adds_up() -> None:
    panel = world(3, effect=2.0)
    found = synthetic_did(panel)
    shown = found.diagnostics
    units, times = (np.array(list(shown[k].values())) for k in ("donor_weights", "time_weights"))
    assert units.sum() == pytest.approx(1.0)
    assert times.sum() == pytest.approx(1.0)
    apart = panel.y[0] - units @ panel.y[1:]
    assert found.estimate == pytest.approx(apart[12:].mean() - times @ apart[:12])
    assert [row["gap"] for row in shown["gap"]] == pytest.approx(apart - times @ apart[:12])
    assert shown["pre_rmspe"] == pytest.approx(apart[:12].std())
    assert found.treatment_value == pytest.approx(panel.y[0, 12:].mean())
    assert found.treatment_value - found.control_value == pytest.approx(found.estimate)
    assert found.std_error == pytest.approx(np.std([row["estimate"] for row in shown["placebos"]]))
    assert (found.df, shown["replications"], found.n_control, found.n_treatment) == (18.0, 19, 19, 1)
    assert shown["leave_one_out"]["low"] <= shown["leave_one_out"]["high"]
    assert found.relative is not None
    assert found.relative_ci_low is not None
    assert found.relative_ci_low < found.relative == pytest.approx(found.estimate / found.control_value)
    assert found.relative_ci_low == pytest.approx(found.ci_low / (found.treatment_value - found.ci_low))
    assert found.relative_ci_high == pytest.approx(found.ci_high / (found.treatment_value - found.ci_high))


@pytest.mark.parametrize(("treated", "variance", "n"), [(1, "placebo", 25), (3, "placebo", 20), (8, "jackknife", 30)])
def test_the_interval_covers(treated: int, variance: str, n: int) -> None:
    held = []
    for seed in range(n):
        panel = world(seed, treated=treated, n=14 + 2 * treated, effect=1.0)
        found = synthetic_did(panel, variance=variance, replications=20)
        held.append(found.ci_low <= 1.0 <= found.ci_high)
    assert abs(np.mean(held) - 0.95) < 3.3 * math.sqrt(0.95 * 0.05 / n)


def test_the_bootstrap_is_near_the_jackknife_and_repeats_itself() -> None:
    panel = world(1, n=30, treated=12)
    errors = {v: synthetic_did(panel, variance=v, replications=60).std_error for v in VARIANCES}
    assert errors["bootstrap"] == pytest.approx(errors["jackknife"], rel=0.5)
    again = synthetic_did(panel, variance="bootstrap", replications=60)
    assert again.std_error == errors["bootstrap"]
    assert synthetic_did(panel, variance="bootstrap", replications=60, seed=1).std_error != errors["bootstrap"]


def test_parallel_paths_are_found_where_levels_differ() -> None:
    """A treated unit far above all others: an intercept takes the level, which no mix of units could reach."""
    panel = world(5, effect=1.0)
    y = panel.y.copy()
    y[0] += 100.0
    near, far = synthetic_did(panel), synthetic_did(Panel(y, panel.first, units=panel.units, periods=panel.periods))
    assert far.estimate == pytest.approx(near.estimate, rel=1e-9)
    assert far.std_error == pytest.approx(near.std_error, rel=1e-9)
    assert far.diagnostics["donor_weights"] == pytest.approx(near.diagnostics["donor_weights"], abs=1e-9)


def test_the_numbers_do_not_hang_on_the_order_or_the_unit_of_measure() -> None:
    panel = world(4, effect=1.0)
    order = np.random.default_rng(0).permutation(20)
    plain, moved = synthetic_did(panel), synthetic_did(panel.take(order))
    scaled = synthetic_did(Panel(1e6 + 1e3 * panel.y, panel.first))
    for name in ("estimate", "p_value", "ci_low", "ci_high", "std_error"):
        value = getattr(plain, name)
        assert getattr(moved, name) == pytest.approx(value, rel=1e-8)
        assert getattr(scaled, name) == pytest.approx((1.0 if name == "p_value" else 1e3) * value, rel=1e-6)


def test_what_it_cannot_take_is_refused_in_words() -> None:
    panel = world(1)
    for variance in ("jackknife", "bootstrap"):
        with pytest.raises(EstimationError, match=f"one treated unit; the {variance} needs several"):
            synthetic_did(panel, variance=variance)
    with pytest.raises(EstimationError, match="4 untreated units; placebos in the place of 4 treated need at least 5"):
        synthetic_did(world(1, n=8, treated=4))
    with pytest.raises(EstimationError, match="several periods; synthetic_did takes one start"):
        synthetic_did(Panel(panel.y, np.where(np.arange(20) == 1, 5, panel.first)))
    with pytest.raises(EstimationError, match="does not vary"):
        synthetic_did(Panel(np.tile(np.arange(6.0), (5, 1)), np.array([3, 6, 6, 6, 6])))
    with pytest.raises(ValueError, match="variance must be one of"):
        synthetic_did(panel, variance="normal")


def test_donors_that_do_not_move_are_weighed_alike() -> None:
    y = np.tile(np.array([[1.0], [2.0], [3.0], [4.0], [5.0]]), (1, 8))
    y[0] += np.random.default_rng(0).normal(size=8)
    y[1:, 6:] += np.arange(4.0)[:, None]
    found = synthetic_did(Panel(y, np.array([6, 8, 8, 8, 8])))
    assert list(found.diagnostics["donor_weights"].values()) == pytest.approx([0.25] * 4)
