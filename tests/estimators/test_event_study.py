"""Event studies and the two-by-two against ``pyfixest`` on public panels;
``oracles/panels.py`` makes the constants."""

from __future__ import annotations

import json

import numpy as np
import pytest

from estimators.callaway_santanna import event_effects
from estimators.event_effects import relative_to_untreated
from estimators.event_study import event_study, event_study_effects
from estimators.inference import EstimationError, critical_value
from estimators.panel import Panel
from estimators.two_by_two import two_by_two
from tests.estimators.panels import DATA, public, staggered

ORACLE = json.loads((DATA / "panels.json").read_text(encoding="utf-8"))


def one_start(name: str) -> Panel:
    """The cohort of 2006 (``mpdta``) or of 2014, up to 2015 (``ehec``), against the untreated."""
    panel = public(name)
    if name == "mpdta":
        return panel.take(np.isin(panel.first, [3, 5]))
    part = panel.take(panel.first != 7)
    return Panel(part.y[:, :8], np.minimum(part.first, 8), periods=part.periods[:8])


@pytest.mark.parametrize("name", ["mpdta", "ehec"])
def test_staggered_starts_are_pyfixests_saturated_event_study(name: str) -> None:
    """Sun and Abraham's, errors by unit."""
    e = event_study(public(name))
    theirs = np.array(ORACLE[name]["sun_abraham"])
    ours = np.array([(r["event_time"], r["estimate"], r["std_error"]) for r in e.diagnostics["event_study"]])
    assert ours[ours[:, 0] != -1] == pytest.approx(theirs, rel=1e-8)
    assert e.diagnostics["form"] == "sun_abraham"
    assert e.estimate == pytest.approx(theirs[theirs[:, 0] >= 0, 1].mean(), rel=1e-8)


@pytest.mark.parametrize("name", ["mpdta", "ehec"])
def test_one_start_is_pyfixests_regression(name: str) -> None:
    e = event_study(one_start(name))
    rows = [r for r in e.diagnostics["event_study"] if r["event_time"] != -1]
    values, errors = ORACLE[name]["two_way"]["events"]
    assert [r["estimate"] for r in rows] == pytest.approx(values, rel=1e-8)
    assert [r["std_error"] for r in rows] == pytest.approx(errors, rel=1e-8)
    assert e.diagnostics["form"] == "two_way"


@pytest.mark.parametrize("name", ["mpdta", "ehec"])
def test_two_by_two_is_pyfixests_point_and_the_hc2_error_of_its_changes(name: str) -> None:
    e = two_by_two(one_start(name))
    assert (e.estimate, e.std_error) == pytest.approx(tuple(ORACLE[name]["two_way"]["two_by_two"]), rel=1e-9)


def test_two_by_two_is_welchs_test_of_changes() -> None:
    from scipy.stats import t, ttest_ind

    panel = one_start("ehec")
    change = panel.y[:, 6:].mean(axis=1) - panel.y[:, :6].mean(axis=1)
    theirs = ttest_ind(change[panel.first == 6], change[panel.first == 8], equal_var=False)
    e = two_by_two(panel)
    assert e.statistic == pytest.approx(theirs.statistic, rel=1e-9)
    assert e.std_error == pytest.approx(float(theirs.confidence_interval().high - e.estimate) / t.ppf(0.975, theirs.df))
    assert 10.0 < e.df < len(change) - 2.0


def test_medicaid_expansions_have_the_published_first_effect() -> None:
    """Roth's Mixtape Sessions: 0.046 in 2014, 0.069 in 2015."""
    rows = {r["event_time"]: r["estimate"] for r in event_study(one_start("ehec")).diagnostics["event_study"]}
    assert (round(rows[0], 3), round(rows[1], 3)) == (0.046, 0.069)


@pytest.mark.parametrize("name", ["mpdta", "ehec"])
def test_sun_abraham_is_callaway_santanna_without_covariates(name: str) -> None:
    ours, theirs = event_study_effects(public(name)), event_effects(public(name))
    assert ours.keys == theirs.keys
    assert ours.estimates == pytest.approx(theirs.estimates, rel=1e-8, abs=1e-10)


def test_covariates_by_period_agree_with_statsmodels() -> None:
    import statsmodels.api as sm

    panel = public("mpdta", ["lpop"])
    panel = panel.take(np.isin(panel.first, [3, 5]))
    assert panel.covariates is not None
    n, t = panel.y.shape
    unit, period = np.repeat(np.arange(n), t), np.tile(np.arange(t), n)
    treated = np.repeat(panel.first == 3, t)
    events = [(treated & (period == k)).astype(float) for k in (0, 1, 3, 4)]
    lpop = np.repeat(panel.covariates[:, 0], t)
    more = [(period == k).astype(float) for k in range(1, t)] + [lpop * (period == k) for k in range(1, t)]
    # Units' effects by demeaning: the panel has no gaps.
    x = np.column_stack(events + more)
    x = x - np.column_stack([np.bincount(unit, c)[unit] / t for c in x.T])
    y = panel.y.ravel() - np.bincount(unit, panel.y.ravel())[unit] / t
    theirs = sm.OLS(y, x).fit(cov_type="cluster", cov_kwds={"groups": unit, "use_correction": False})
    rows = [r for r in event_study(panel).diagnostics["event_study"] if r["event_time"] != -1]
    assert [r["estimate"] for r in rows] == pytest.approx(theirs.params[:4], rel=1e-7)
    ratio = np.array([r["std_error"] for r in rows]) / theirs.bse[:4]
    rows_n, k = n * t, 4 + 4 + t
    assert ratio == pytest.approx(np.sqrt(n / (n - 1) * (rows_n - 1) / (rows_n - k)), rel=1e-7)


def test_a_trend_in_the_treated_shows_before_treatment_and_biases_after() -> None:
    panel, truth = staggered(1, n=4000, slope=0.2, noise=0.5)
    e = event_study(panel)
    rows = {r["event_time"]: r for r in e.diagnostics["event_study"]}
    assert rows[-3]["ci_high"] < 0.0
    assert e.estimate - truth["dynamic"] == pytest.approx(0.2 * 2.5, abs=0.1)


def test_the_last_cohort_is_the_control_where_all_start_in_the_end() -> None:
    panel, _ = staggered(2)
    some = panel.take(panel.first < 6)
    e = event_study(some)
    assert e.diagnostics["n_periods"] == 4
    assert e.n_control == int((some.first == 4).sum())


@pytest.mark.parametrize("method", [two_by_two, event_study], ids=lambda m: m.__name__)
def test_intervals_cover_with_noise_that_lasts(method: object) -> None:
    covered = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        first = np.repeat([3, 6], [15, 25])
        noise = rng.normal(size=(40, 6)).cumsum(axis=1)
        panel = Panel(noise + 2.0 * (np.arange(6) >= first[:, None]), first)
        e = method(panel)  # type: ignore[operator]
        covered.append(e.ci_low <= 2.0 <= e.ci_high)
    assert 0.91 <= np.mean(covered) <= 0.98


def test_clusters_that_start_together_carry_the_error() -> None:
    rng = np.random.default_rng(7)
    first = np.repeat([1, 2], 20)
    shared = np.repeat(rng.normal(size=(8, 2)), 5, axis=0)
    panel = Panel(shared + 0.1 * rng.normal(size=(40, 2)), first, clusters=np.repeat(np.arange(8), 5))
    alone = Panel(panel.y, first)
    for method in (two_by_two, event_study):
        assert method(panel).diagnostics["n_clusters"] == 8
        assert method(panel).std_error > 1.5 * method(alone).std_error


def test_relative_effects_compare_with_what_the_treated_would_have_had() -> None:
    panel = one_start("ehec")
    for method in (two_by_two, event_study):
        e = method(panel)
        assert e.relative == pytest.approx(e.estimate / e.control_value, rel=1e-9)
        assert e.relative_ci_low is not None
        assert e.relative_ci_high is not None
        assert 0.0 < e.relative_ci_low < e.relative < e.relative_ci_high


def test_the_relative_interval_holds_zero_where_the_effects_own_does() -> None:
    rng = np.random.default_rng(3)
    crosses = 0
    for _ in range(60):
        effect = 0.15 * rng.normal(size=12)
        level = effect + 0.05 * rng.normal(size=12)
        found = relative_to_untreated(1.0, -1.4 + 0.8 * rng.normal(), level, effect, 20.0, 0.05)
        if found.value is None or found.low is None or found.high is None:
            continue
        half = critical_value(0.05, 20.0)
        absolute = found.value * (control := 1.0 / (1.0 + found.value))
        crosses += found.low < 0.0 < found.high
        assert (found.low < 0.0 < found.high) == (abs(absolute) < half * np.linalg.norm(effect))
        for end in (found.low, found.high):
            spread = np.linalg.norm(effect - end * (level - effect))
            assert abs(absolute - end * control) == pytest.approx(half * spread, rel=1e-9)
    assert 5 < crosses < 55
    told_badly = relative_to_untreated(1.0, -0.1, np.zeros(4), np.full(4, 0.5), 5.0, 0.05)
    assert (told_badly.low, told_badly.high) == (None, None)
    assert "not told from 0" in told_badly.reason


def test_what_cannot_be_estimated_is_refused_in_plain_words() -> None:
    rng = np.random.default_rng(1)
    with pytest.raises(EstimationError, match=r"several periods.*callaway_santanna"):
        two_by_two(public("mpdta"))
    with pytest.raises(EstimationError, match="1 treated unit seen"):
        two_by_two(Panel(rng.normal(size=(9, 2)), np.r_[1, np.full(8, 2)]))
    with pytest.raises(EstimationError, match="does not vary"):
        two_by_two(Panel(np.ones((8, 3)), np.repeat([1, 3], 4)))
    with pytest.raises(EstimationError, match="does not vary"):
        event_study(Panel(np.ones((8, 3)), np.repeat([1, 3], 4)))
    with pytest.raises(EstimationError, match="a covariate is constant"):
        event_study(Panel(rng.normal(size=(8, 3)), np.repeat([1, 3], 4), np.ones(8)))
    gone = rng.normal(size=(8, 3))
    gone[:4, 0] = np.nan
    with pytest.raises(EstimationError, match="tell all effects apart"):
        event_study(Panel(gone, np.repeat([1, 3], 4)))
    with pytest.raises(EstimationError, match="0 treated units seen"):
        two_by_two(Panel(gone, np.repeat([1, 3], 4)))
