"""Lagged arms against statsmodels, and what the lag test finds and does not find."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from estimators.carryover import earlier_arms, effect_since_switch, lagged_effects
from estimators.cells import Cells
from estimators.inference import EstimationError

World = Callable[..., Cells]


def by_hand(cells: Cells, lags: int, weights: str = "rows") -> tuple[np.ndarray, np.ndarray]:
    """Coefficients of the arm and its lags, and their HC2 errors, by statsmodels."""
    import statsmodels.api as sm

    arm = {(c, b): a for c, b, a in zip(cells.cluster, cells.slot, cells.arm, strict=True)}
    before = np.array(
        [[arm.get((c, b - j), -1) for j in range(1, lags + 1)] for c, b in zip(cells.cluster, cells.slot, strict=True)]
    )
    keep = (before >= 0).all(axis=1)
    kept = cells.take(keep)
    columns = [np.ones(len(kept.arm)), kept.arm, *before[keep].T]
    for values in (kept.cluster, kept.hour, kept.weekday):
        columns += [values == level for level in np.unique(values)[1:]]
    w = kept.den if weights == "rows" else np.ones(len(kept.den))
    found = sm.WLS(kept.num / kept.den, np.column_stack(columns).astype(float), weights=w).fit(cov_type="HC2")
    return found.params[1 : 2 + lags], found.bse[1 : 2 + lags]


@pytest.mark.parametrize("lags", [1, 3])
@pytest.mark.parametrize("weights", ["rows", "units"])
def test_lags_match_statsmodels(switchback: World, lags: int, weights: str) -> None:
    cells = switchback(1, days=14, effect=0.7, carryover=(0.3,))
    ours = lagged_effects(cells, lags, weights=weights)
    estimates, errors = by_hand(cells, lags, weights)
    assert [lag.lag for lag in ours] == list(range(lags + 1))
    assert [lag.estimate for lag in ours] == pytest.approx(estimates, rel=1e-9)
    assert [lag.std_error for lag in ours] == pytest.approx(errors, rel=1e-9)
    # The first blocks of three clusters have no known past.
    assert ours[0].n_cells == len(cells.arm) - 3 * lags
    half = (ours[1].ci_high - ours[1].ci_low) / 2
    assert ours[1].estimate == pytest.approx((ours[1].ci_high + ours[1].ci_low) / 2)
    assert (ours[1].p_value < 0.05) == (abs(ours[1].estimate) > half)


def test_a_gap_in_time_is_no_neighbourhood(switchback: World) -> None:
    cells = switchback(2, days=14)
    gap = replace(cells, order=cells.block + 5 * (cells.block >= 40))
    ours, (estimates, errors) = lagged_effects(gap, 1), by_hand(gap, 1)
    assert ours[0].n_cells == len(cells.arm) - 6
    assert [lag.estimate for lag in ours] == pytest.approx(estimates, rel=1e-9)
    assert [lag.std_error for lag in ours] == pytest.approx(errors, rel=1e-9)
    # Dense codes over the gap say nothing of it, and an absent cell is a gap too.
    assert lagged_effects(cells, 1)[0].n_cells == len(cells.arm) - 3
    absent = cells.take((cells.block != 40) | (cells.cluster != 1))
    assert lagged_effects(absent, 2)[0].n_cells == len(cells.arm) - 6 - 3
    assert [lag.estimate for lag in lagged_effects(absent, 2)] == pytest.approx(by_hand(absent, 2)[0], rel=1e-9)


def test_earlier_arms_stay_within_the_cluster_or_follow_the_common_schedule(switchback: World) -> None:
    cells = switchback(3, together=True)
    holes = cells.take((cells.block != 7) | (cells.cluster != 2))
    apart, common = earlier_arms(holes, 2), earlier_arms(holes, 2, "block")
    assert ((apart < 0).sum(axis=0) == [4, 7]).all()
    assert ((common < 0).sum(axis=0) == [3, 6]).all()
    shared = (apart >= 0) & (common >= 0)
    assert (apart[shared] == common[shared]).all()


def test_given_arms_count_where_the_cells_do_not_hold_them(switchback: World) -> None:
    cells = switchback(4, days=14)
    before = earlier_arms(cells, 1)
    thinned = cells.block % 5 != 3
    ours = lagged_effects(cells.take(thinned), 1, previous=before[thinned])
    assert ours[0].n_cells == int((thinned & (before[:, 0] >= 0)).sum())
    assert lagged_effects(cells, 1, previous=before) == lagged_effects(cells, 1)


def test_cells_without_rows_still_tell_the_arm_of_the_next(switchback: World) -> None:
    cells = switchback(5, days=14)
    empty = (cells.block == 30) & (cells.cluster == 0)
    zeroed = replace(cells, num=np.where(empty, 0.0, cells.num), den=np.where(empty, 0.0, cells.den))
    assert lagged_effects(zeroed, 1)[0].n_cells == len(cells.arm) - 3 - 1
    assert lagged_effects(cells.take(~empty), 1)[0].n_cells == len(cells.arm) - 3 - 2


def test_what_cannot_be_told_is_refused(switchback: World) -> None:
    alternating = np.arange(84)[None, :] % 2
    with pytest.raises(EstimationError, match="the arm 1 block before follows from"):
        lagged_effects(switchback(6, arms=alternating), 1)
    odd = np.r_[np.tile([0, 1, 1, 0, 1], 16), [0, 1, 1, 0]][None, :]
    with pytest.raises(EstimationError, match="the arm 4 blocks before follows from cluster, calendar and the later"):
        lagged_effects(switchback(6, arms=odd), 5)
    cells = switchback(6)
    with pytest.raises(EstimationError, match="no block follows another one"):
        lagged_effects(replace(cells, order=2 * cells.block), 1)
    with pytest.raises(EstimationError, match="one row per cell and one column per lag"):
        lagged_effects(cells, 2, previous=np.zeros((3, 2)))
    with pytest.raises(EstimationError, match=r"-1 \(unknown\)"):
        lagged_effects(cells, 1, previous=np.full((len(cells.arm), 1), 2))
    with pytest.raises(EstimationError, match="does not vary"):
        lagged_effects(replace(cells, num=0.1 * cells.den), 1)
    with pytest.raises(EstimationError, match="numerator but no positive denominator"):
        lagged_effects(replace(cells, den=np.where(cells.block == 5, 0.0, cells.den)), 1)
    with pytest.raises(ValueError, match="at least 1"):
        lagged_effects(cells, 0)


def test_the_effect_by_time_since_the_switch_is_a_regression_in_every_bin(switchback: World) -> None:
    cells = switchback(7, days=14, effect=0.5)
    rng = np.random.default_rng(8)
    before = earlier_arms(cells, 1)[:, 0]
    fading = np.array([2.0, 1.0, 0.0])
    den = rng.integers(10, 40, (len(cells.arm), 3)).astype(float)
    y = (cells.num / cells.den)[:, None] + fading * (before == 1)[:, None]
    den[5, 1] = 0.0
    ours = effect_since_switch(cells, y * den, den)
    for b in range(3):
        one = replace(cells, num=y[:, b] * den[:, b], den=den[:, b])
        own, lag = lagged_effects(one, 1)
        assert (ours.effect[b], ours.std_error[b], ours.df[b]) == (own.estimate, own.std_error, own.df)
        carried = (ours.carryover[b], ours.carryover_std_error[b], ours.carryover_df[b])
        assert carried == (lag.estimate, lag.std_error, lag.df)
        assert abs(lag.estimate - fading[b]) < 4 * lag.std_error
    assert ours.reasons == ("", "", "")
    assert np.array_equal(effect_since_switch(cells, y * den, den, previous=before).effect, ours.effect)


def test_a_bin_without_rows_has_no_numbers_and_says_why(switchback: World) -> None:
    cells = switchback(9)
    den = np.column_stack([cells.den, np.zeros_like(cells.den)])
    ours = effect_since_switch(cells, np.column_stack([cells.num, den[:, 1]]), den)
    assert np.isfinite(ours.carryover[0])
    assert np.isnan(ours.carryover[1])
    assert ours.reasons[0] == ""
    assert "no block follows" in ours.reasons[1]
    with pytest.raises(EstimationError, match="one column per bin"):
        effect_since_switch(cells, cells.num, cells.den)


@pytest.mark.parametrize(("together", "memory"), [(False, 0.0), (False, 0.7), (True, 0.7)])
def test_the_lag_test_keeps_its_size_and_its_cover(switchback: World, together: bool, memory: float) -> None:
    """The outcome's own memory is no carryover, and the effect itself does not look like one."""
    by, sims = "block" if together else "cell", 300
    found = [
        lagged_effects(
            switchback(s, days=7, clusters=2, effect=1.0, together=together, memory=memory), 1, clustered_by=by
        )
        for s in range(sims)
    ]
    band = 3 * math.sqrt(0.05 * 0.95 / sims)
    assert np.mean([lag.p_value < 0.05 for _, lag in found]) == pytest.approx(0.05, abs=band)
    assert np.mean([own.ci_low < 1.0 < own.ci_high for own, _ in found]) == pytest.approx(0.95, abs=band)


def test_the_lag_test_finds_carryover(switchback: World) -> None:
    found = [lagged_effects(switchback(s, days=14, carryover=(0.6, 0.0)), 2) for s in range(60)]
    assert np.mean([first.p_value < 0.05 for _, first, _ in found]) > 0.95
    assert np.mean([second.p_value < 0.05 for _, _, second in found]) < 0.2
    assert np.mean([first.estimate for _, first, _ in found]) == pytest.approx(0.6, abs=0.06)
