"""Synthetic control in simulation, and where the data cannot carry it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from estimators import EstimationError
from estimators.donors import block
from estimators.panel import Panel
from estimators.placebos import rank
from estimators.synthetic_control import synthetic_control


def world(
    seed: int,
    *,
    n: int = 20,
    periods: int = 24,
    start: int = 18,
    treated: int = 1,
    effect: float = 0.0,
    slope: float = 0.0,
) -> Panel:
    """Three common factors, loads of every unit its own; the first units are treated. ``slope``: the effect grows."""
    rng = np.random.default_rng(seed)
    t = np.arange(periods)
    factors = np.column_stack([0.5 * rng.normal(size=periods).cumsum(), np.sin(t / 3), 2.0 * t / periods])
    y = 10.0 + rng.normal(size=(n, 3)) @ factors.T + rng.normal(size=(n, 1)) + 0.5 * rng.normal(size=(n, periods))
    y[:treated, start:] += effect + slope * (t[start:] - t[start:].mean())
    first = np.where(np.arange(n) < treated, start, periods)
    return Panel(y, first, units=tuple(f"cell {i}" for i in range(n)), periods=tuple(f"day {p}" for p in t))


def test_what_is_shown_adds_up() -> None:
    found = synthetic_control(world(3, effect=2.0))
    shown = found.diagnostics
    gap = np.array([row["gap"] for row in shown["gap"]])
    assert [row["period"] for row in shown["gap"]][18] == shown["start"] == "day 18"
    assert sum(shown["donor_weights"].values()) == pytest.approx(1.0)
    assert "cell 0" not in shown["donor_weights"]
    assert found.estimate == pytest.approx(gap[18:].mean())
    assert shown["pre_rmspe"] == pytest.approx(math.sqrt((gap[:18] ** 2).mean()))
    assert found.statistic == pytest.approx(shown["post_rmspe"] / shown["pre_rmspe"])
    assert found.treatment_value - found.control_value == pytest.approx(found.estimate)
    ratios = [row["ratio"] for row in shown["placebos"]]
    assert found.p_value == pytest.approx((1 + sum(r >= found.statistic for r in ratios)) / 20)
    assert [row["unit"] for row in shown["placebos"]] == [f"cell {i}" for i in range(1, 20)]
    assert shown["leave_one_out"]["low"] <= shown["leave_one_out"]["high"]
    assert shown["leave_one_out"]["estimates"].keys() == {k for k, w in shown["donor_weights"].items() if w > 0.0}
    assert found.relative_ci_low == pytest.approx(found.ci_low / (found.treatment_value - found.ci_low))


def test_the_interval_covers_whatever_the_path_of_the_effect() -> None:
    held, n = [], 70
    for seed in range(n):
        data = block(world(seed, effect=1.0, slope=0.5 * (seed % 2)), "synthetic_control")
        ends = rank(data, draws=1, seed=0).interval(0.05, of_mean=True)
        assert ends is not None
        held.append(ends[0] <= 1.0 <= ends[1])
    assert abs(np.mean(held) - 0.95) < 3.3 * math.sqrt(0.95 * 0.05 / n)


@pytest.mark.parametrize("treated", [1, 3])
def test_the_p_value_is_uniform_without_an_effect(treated: int) -> None:
    n = 60
    panels = (world(seed, periods=18, start=12, treated=treated) for seed in range(n))
    p = np.array([rank(block(panel, "synthetic_control"), draws=20, seed=0).p_value() for panel in panels])
    for level in (0.1, 0.5):
        assert abs(np.mean(p <= level) - level) < 3.3 * math.sqrt(level * (1 - level) / n)


def test_the_interval_ends_where_the_rank_changes() -> None:
    panel = world(7, n=30, effect=1.0)
    found = synthetic_control(panel, alpha=0.1)

    def p_value(effect: float) -> float:
        y = panel.y.copy()
        y[0, 18:] -= effect
        moved = synthetic_control(Panel(y, panel.first))
        assert moved.p_value <= 1.0
        return float(moved.diagnostics["p_value_of_mean"])

    width = found.ci_high - found.ci_low
    for end, outwards in ((found.ci_low, -1e-6 * width), (found.ci_high, 1e-6 * width)):
        assert p_value(end + outwards) <= 0.1 < p_value(end - outwards)


def test_too_few_units_reject_nothing_and_say_so() -> None:
    few = synthetic_control(world(1, n=12, effect=50.0))
    assert few.p_value == pytest.approx(1 / 12)
    assert (few.ci_low, few.ci_high) == (-math.inf, math.inf)
    assert few.diagnostics["interval"] == "none: 1/units > alpha"
    assert math.isfinite(synthetic_control(world(1, n=12, effect=50.0), alpha=0.1).ci_low)


def test_several_treated_units_are_ranked_among_sets_of_as_many() -> None:
    panel = world(2, n=14, treated=2, effect=30.0)
    found = synthetic_control(panel)
    assert (found.n_treatment, found.n_control) == (2, 12)
    assert found.diagnostics["ranked"] == math.comb(14, 2)
    assert found.diagnostics["exact"]
    assert found.ci_low <= found.estimate <= found.ci_high
    drawn = [synthetic_control(panel, draws=50, seed=s) for s in (1, 1, 2)]
    assert drawn[0] == drawn[1]
    assert drawn[0].diagnostics["ranked"] == 50
    assert not drawn[0].diagnostics["exact"]
    assert drawn[0].estimate == pytest.approx(found.estimate, rel=1e-12)


def test_badly_fitting_placebos_are_dropped_only_when_asked() -> None:
    panel = world(6)
    assert synthetic_control(panel).diagnostics["dropped_placebos"] == []
    limited = synthetic_control(panel, placebo_limit=1.2)
    before = {row["unit"]: row["pre_rmspe"] for row in limited.diagnostics["placebos"]}
    worst = {u for u, v in before.items() if v > 1.2 * limited.diagnostics["pre_rmspe"]}
    assert set(limited.diagnostics["dropped_placebos"]) == worst != set()
    assert limited.diagnostics["ranked"] == 20 - len(worst)


def test_the_numbers_do_not_hang_on_the_order_or_the_unit_of_measure() -> None:
    panel = world(4, effect=1.0)
    order = np.random.default_rng(0).permutation(20)
    plain, moved = synthetic_control(panel), synthetic_control(panel.take(order))
    scaled = synthetic_control(Panel(1e6 + 1e3 * panel.y, panel.first))
    for name in ("estimate", "p_value", "ci_low", "ci_high", "std_error", "statistic"):
        value = getattr(plain, name)
        assert getattr(moved, name) == pytest.approx(value, rel=1e-9)
        factor = 1.0 if name in ("p_value", "statistic") else 1e3
        assert getattr(scaled, name) == pytest.approx(factor * value, rel=1e-7)


def test_what_it_cannot_take_is_refused_in_words() -> None:
    panel = world(1)
    holes = panel.y.copy()
    holes[[2, 5], 3] = np.nan
    with pytest.raises(EstimationError, match="units cell 2, cell 5 have no outcome in some periods"):
        synthetic_control(Panel(holes, panel.first, units=panel.units))
    with pytest.raises(EstimationError, match="several periods; synthetic_control takes one start"):
        synthetic_control(Panel(panel.y, np.where(np.arange(20) == 1, 5, panel.first)))
    with pytest.raises(EstimationError, match="meets all 3 periods before the start exactly"):
        synthetic_control(Panel(np.vstack([panel.y[1:].mean(axis=0), panel.y[1:]])[:, 15:], panel.first - 15))
    with pytest.raises(EstimationError, match="one period before"):
        synthetic_control(Panel(panel.y[:, 17:], panel.first - 17))
    with pytest.raises(EstimationError, match="one untreated unit"):
        synthetic_control(panel.take(np.arange(2)))
    with pytest.raises(EstimationError, match="does not vary"):
        synthetic_control(Panel(np.ones((5, 6)), np.array([3, 6, 6, 6, 6])))
    with pytest.raises(EstimationError, match="no placebo fits well enough"):
        synthetic_control(panel, placebo_limit=1e-6)
