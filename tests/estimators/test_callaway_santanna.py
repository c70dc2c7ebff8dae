"""Callaway and Sant'Anna's effects against ``csdid`` on public panels; ``oracles/panels.py`` makes the constants."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from estimators.callaway_santanna import callaway_santanna, event_effects, group_time_effects
from estimators.doubly_robust_change import doubly_robust_change
from estimators.event_effects import Effects
from estimators.group_time import group_time
from estimators.inference import EstimationError
from estimators.panel import Panel
from estimators.pre_trend import pre_trend
from tests.estimators.panels import DATA, public, staggered

ORACLE = json.loads((DATA / "panels.json").read_text(encoding="utf-8"))
THEIRS = {"never": "never", "not_yet": "notyettreated"}


@pytest.mark.parametrize("name", ["mpdta", "ehec"])
@pytest.mark.parametrize("controls", ["never", "not_yet"])
@pytest.mark.parametrize("base", ["varying", "universal"])
def test_cells_event_times_and_aggregates_are_those_of_csdid(name: str, controls: str, base: str) -> None:
    expected = ORACLE[name][f"{THEIRS[controls]}/{base}"]
    compare(public(name), expected, controls=controls, base=base)


@pytest.mark.parametrize("controls", ["never", "not_yet"])
def test_doubly_robust_effects_with_covariates_are_those_of_csdid(controls: str) -> None:
    # 1e-7: their logit stops earlier than ours.
    compare(public("mpdta", ["lpop"]), ORACLE["mpdta"]["covariates"][THEIRS[controls]], controls=controls, tol=1e-7)


def compare(panel: Panel, expected: dict[str, Any], *, tol: float = 1e-9, **options: str) -> None:
    cells = group_time_effects(group_time(panel, **options))
    theirs = {(str(int(g)), str(int(t))): (a, s) for g, t, a, s in expected["cells"]}
    ours = dict(zip(cells.keys, zip(cells.estimates, cells.std_errors, strict=True), strict=True))
    assert ours.keys() == theirs.keys()
    for key, (effect, error) in theirs.items():
        assert ours[key] == pytest.approx((effect, error), rel=tol, abs=1e-12), key
    for aggregate in ("simple", "dynamic", "group", "calendar"):
        e = callaway_santanna(panel, aggregate=aggregate, **options)
        assert (e.estimate, e.std_error) == pytest.approx(tuple(expected[aggregate]), rel=tol), aggregate
    rows = [(r["event_time"], r["estimate"], r["std_error"]) for r in e.diagnostics["event_study"]]
    assert np.array(rows) == pytest.approx(np.array(expected["events"]), rel=tol, abs=1e-12)


def test_minimum_wages_have_their_published_effects() -> None:
    """Callaway and Sant'Anna (2021), the ``did`` package's vignette: four digits."""
    panel = public("mpdta")
    found = {kind: callaway_santanna(panel, aggregate=kind) for kind in ("simple", "dynamic", "group", "calendar")}
    assert {k: round(e.estimate, 4) for k, e in found.items()} == {
        "simple": -0.0400, "dynamic": -0.0772, "group": -0.0310, "calendar": -0.0417,
    }  # fmt: skip
    assert round(found["dynamic"].std_error, 3) == 0.020
    cells = group_time_effects(group_time(panel))
    before = cells.at(np.array([t < g for g, t in cells.keys]))
    assert pre_trend(before).p_value == pytest.approx(0.16812, abs=5e-6)


def test_two_cohorts_of_units_alone_are_welchs_difference_but_for_its_divisors() -> None:
    rng = np.random.default_rng(3)
    y, first = rng.normal(size=(30, 2)), np.r_[np.full(10, 1), np.full(20, 2)]
    e = callaway_santanna(Panel(y, first))
    change = y[:, 1] - y[:, 0]
    a, b = change[:10], change[10:]
    assert e.estimate == pytest.approx(a.mean() - b.mean(), rel=1e-12)
    assert e.std_error == pytest.approx(np.sqrt(a.var() / 10 + b.var() / 20), rel=1e-12)
    assert 9.0 < e.df < 29.0
    assert e.treatment_value == pytest.approx(y[:10, 1].mean(), rel=1e-12)
    assert e.control_value == pytest.approx(e.treatment_value - e.estimate, rel=1e-12)


def test_errors_are_clustered_where_a_cluster_starts_together_and_only_there() -> None:
    panel = public("mpdta")
    twice = Panel(
        np.repeat(panel.y, 2, axis=0), np.repeat(panel.first, 2), clusters=np.repeat(np.arange(len(panel.y)), 2)
    )
    alone, doubled = callaway_santanna(panel), callaway_santanna(twice)
    assert doubled.diagnostics["clustered_by"] == "cluster"
    assert (doubled.estimate, doubled.std_error, doubled.df) == pytest.approx(
        (alone.estimate, alone.std_error, alone.df), rel=1e-9
    )
    mixed = Panel(panel.y, panel.first, clusters=np.arange(len(panel.y)) % 7)
    assert callaway_santanna(mixed).diagnostics["clustered_by"] == "unit"


def test_bands_hold_all_event_times_and_are_wider_than_single_intervals() -> None:
    rows = callaway_santanna(public("mpdta"), seed=4).diagnostics["event_study"]
    assert rows == callaway_santanna(public("mpdta"), seed=4).diagnostics["event_study"]
    assert all(r["band_low"] < r["ci_low"] < r["estimate"] < r["ci_high"] < r["band_high"] for r in rows)


def test_critical_value_of_independent_effects_is_sidaks() -> None:
    from scipy.stats import norm

    m = 6
    effects = Effects(tuple(range(m)), np.zeros(m), np.diag(np.arange(1.0, m + 1)), np.full(m, np.inf))
    assert effects.critical(alpha=0.05) == pytest.approx(norm.ppf(0.5 + 0.5 * 0.95 ** (1 / m)), abs=0.03)


def test_intervals_cover_and_errors_match_the_spread_with_staggered_effects() -> None:
    found: dict[str, list[Any]] = {"simple": [], "group": []}
    for seed in range(100):
        panel, truth = staggered(seed, n=120)
        for aggregate, results in found.items():
            results.append((callaway_santanna(panel, aggregate=aggregate, controls="not_yet"), truth[aggregate]))
    for results in found.values():
        errors = np.array([e.estimate - t for e, t in results])
        covered = np.mean([e.ci_low <= t <= e.ci_high for e, t in results])
        assert abs(errors.mean()) < 3.5 * errors.std() / 10.0
        assert 0.89 <= covered <= 0.99
        assert np.mean([e.std_error for e, _ in results]) == pytest.approx(errors.std(), rel=0.2)


def test_units_unseen_in_a_period_leave_only_the_comparisons_that_need_it() -> None:
    panel = public("mpdta")
    y = panel.y.copy()
    y[0, 4] = np.nan
    e = callaway_santanna(Panel(y, panel.first))
    assert e.diagnostics["missing_cells"] == 1
    assert e.estimate != callaway_santanna(panel).estimate
    assert e.estimate == pytest.approx(callaway_santanna(panel).estimate, abs=1e-3)


def test_units_treated_throughout_are_left_out_and_counted() -> None:
    panel = public("mpdta")
    first = panel.first.copy()
    first[:3] = 0
    e = callaway_santanna(Panel(panel.y, first))
    assert e.diagnostics["always_treated"] == 3
    assert e.diagnostics["n_units"] == 497


def test_the_effect_is_not_moved_by_a_shift_of_levels_or_of_the_covariates_scale() -> None:
    panel = public("mpdta", ["lpop"])
    assert panel.covariates is not None
    shifted = Panel(panel.y + 1e6, panel.first, panel.covariates * 1e5 + 1e8)
    a, b = callaway_santanna(panel), callaway_santanna(shifted)
    assert (b.estimate, b.std_error) == pytest.approx((a.estimate, a.std_error), rel=1e-5)


def refuse(panel: Panel, words: str, **options: str) -> None:
    with pytest.raises(EstimationError, match=words):
        callaway_santanna(panel, **options)


def test_what_cannot_be_estimated_is_refused_in_plain_words() -> None:
    rng = np.random.default_rng(1)
    y, first = rng.normal(size=(12, 4)), np.repeat([1, 2, 3], 4)
    refuse(Panel(y, first), "no unit stays untreated.*not_yet")
    assert callaway_santanna(Panel(y, first), controls="not_yet").diagnostics["skipped"]
    refuse(Panel(y, np.full(12, 2)), "same period")
    refuse(Panel(y, np.full(12, 4)), "no unit starts treatment")
    half = np.repeat([2, 4], 6)
    refuse(Panel(np.zeros((12, 4)), half), "does not vary")
    refuse(Panel(y, half, np.ones((12, 1))), "period 1: a covariate is constant")
    refuse(Panel(y, half, np.arange(12.0)), "tell treated units from controls without fail")
    x = rng.normal(size=(12, 2))
    refuse(Panel(y, half, np.column_stack([x, x[:, 0] - 2 * x[:, 1]])), "combination of the others")
    with pytest.raises(EstimationError, match="more than one row in a period"):
        Panel.from_rows([1, 1], [3, 3], [0.0, 1.0], [4, 4])
    with pytest.raises(EstimationError, match="unit 1 has more than one first treated period"):
        Panel.from_rows([1, 1], [3, 4], [0.0, 1.0], [4, 5])


def test_propensities_are_a_likelihoods_and_are_not_clipped() -> None:
    import statsmodels.api as sm

    rng = np.random.default_rng(5)
    x = rng.normal(size=(400, 2))
    treated = rng.random(400) < 1 / (1 + np.exp(-(x @ [2.0, -2.0])))
    found = doubly_robust_change(rng.normal(size=400), treated, x)
    theirs = sm.Logit(treated.astype(float), sm.add_constant(x)).fit(disp=0)
    assert found.largest_propensity == pytest.approx(theirs.predict()[~treated].max(), rel=1e-9)
    assert abs(found.influence.mean()) < 1e-10


def test_one_cohort_seen_by_event_time_is_its_own_cells() -> None:
    panel = public("mpdta").take(np.isin(public("mpdta").first, [3, 5]))
    effects = event_effects(panel)
    cells = group_time_effects(group_time(panel, base="universal"))
    assert effects.keys == (-3, -2, -1, 0, 1)
    assert effects.estimates == pytest.approx(cells.estimates, rel=1e-12)
    assert effects.covariance == pytest.approx(cells.covariance, rel=1e-12, abs=1e-18)
