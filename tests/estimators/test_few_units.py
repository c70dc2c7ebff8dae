"""Errors of effects where the treatment ran in few units: in simulation, and where they meet Welch's t."""

from __future__ import annotations

import numpy as np
import pytest

from estimators import EstimationError, aipw, ipw, match, matching, nuisances
from estimators.few_units import few_units


def covered(n_units: int, treated_units: int, seeds: int, mixed: bool = False) -> float:
    """Share of intervals that hold an effect of zero, where units differ as much as their rows do."""
    hits = done = 0
    for seed in range(seeds):
        draw = np.random.default_rng(seed)
        units = np.repeat(np.arange(n_units), 20)
        x = draw.normal(size=len(units))
        treated = draw.random(len(units)) < 0.5 if mixed else units < treated_units
        y = x + draw.normal(size=n_units)[units] + draw.normal(size=len(units))
        try:
            found = aipw(y, nuisances(treated, x[:, None], units=units, folds=2, seed=seed))
        except EstimationError:
            continue
        done += 1
        hits += found.ci_low <= 0.0 <= found.ci_high
    assert done > 0.9 * seeds
    return hits / done


def test_intervals_cover_where_the_treatment_ran_in_four_of_forty_units() -> None:
    assert covered(40, 4, 150) >= 0.91  # with errors of all forty units: 0.81


def test_units_that_meet_both_actions_are_no_fewer_for_it() -> None:
    assert 0.89 <= covered(8, 0, 150, mixed=True) <= 0.99


def test_the_square_is_welchs_where_units_are_whole_and_alike() -> None:
    draw = np.random.default_rng(4)
    values, arm = draw.normal(size=9), np.arange(9) < 3
    few = few_units((np.where(arm, 0.0, 2.0), np.where(arm, 5.0, 0.0)))
    assert few is not None
    away = [values[side] - values[side].mean() for side in (~arm, arm)]
    sums = np.empty(9)
    sums[~arm], sums[arm] = away[0] / 6, away[1] / 3
    welch = sum(float(v @ v) / (len(v) - 1) / len(v) for v in away)
    assert few.square(sums) == pytest.approx(welch, rel=1e-12)
    only = np.where(arm, sums, 0.0)
    assert few.df(only) == pytest.approx(2.0, rel=1e-12)


def test_twenty_units_in_either_arm_are_enough() -> None:
    assert few_units((np.ones(40), np.r_[np.ones(20), np.zeros(20)])) is None
    assert few_units((np.ones(40), np.r_[np.ones(19), np.zeros(21)])) is not None


def test_one_unit_tells_nothing_and_neither_do_few_that_are_all_alike() -> None:
    with pytest.raises(EstimationError, match="treatment rests on one unit alone"):
        few_units((np.ones(5), np.r_[3.0, np.zeros(4)]))
    draw = np.random.default_rng(1)
    treated = np.arange(400) % 50 == 0
    shared = nuisances(treated, draw.normal(size=(400, 1)), folds=1)
    failed = np.where(treated, 0.0, draw.random(400) < 0.1)
    with pytest.raises(EstimationError, match="does not vary in treatment, which rests on few units"):
        ipw(failed, shared)


def test_matching_takes_the_same_errors() -> None:
    draw = np.random.default_rng(2)
    units = np.repeat(np.arange(30), 10)
    x, treated = draw.normal(size=(300, 1)), units < 4
    y = draw.normal(size=30)[units] + draw.normal(size=300)
    found = matching(y, match(treated, x, units=units, neighbours=3))
    assert found.df < 10.0
    plain = matching(y, match(draw.random(300) < 0.5, x, units=units, neighbours=3))
    assert plain.df == 29.0
