"""Bounds on trends against HonestDiD's published intervals and ``moderndid``; ``oracles/sensitivity.py`` makes them."""

from __future__ import annotations

import json
from importlib import import_module

import numpy as np
import pytest

from estimators.event_effects import Effects
from estimators.event_study import event_study_effects
from estimators.inference import EstimationError
from estimators.panel import Panel
from estimators.relative_magnitudes import breakdown, compatible, relative_magnitudes
from tests.estimators.panels import DATA, public

ORACLE = json.loads((DATA / "sensitivity.json").read_text(encoding="utf-8"))
WEIGHTS = {"first": [1, 0, 0, 0], "mean": None}


def benzarti_carloni() -> Effects:
    d = ORACLE["benzarti_carloni"]
    return Effects(tuple(d["times"]), np.array(d["estimates"]), np.array(d["covariance"]), np.full(8, np.inf))


@pytest.fixture(scope="module")
def medicaid() -> Effects:
    """States that expanded Medicaid in 2014 against those that did not by 2015, as in HonestDiD's README."""
    panel = public("ehec")
    part = panel.take(panel.first != 7)
    return event_study_effects(Panel(part.y[:, :8], np.minimum(part.first, 8)))


@pytest.mark.parametrize(
    ("bound", "published"),
    [(0.5, (0.0241, 0.0673)), (1.0, (0.0171, 0.0720)), (1.5, (0.00859, 0.0796)), (2.0, (-0.00107, 0.0883))],
)
def test_medicaid_has_the_published_intervals(medicaid: Effects, bound: float, published: tuple[float, float]) -> None:
    """Of the first year; printed to three digits, from a grid of 0.00037 and a critical value of 1,000 draws."""
    assert relative_magnitudes(medicaid, bound, weights=[1, 0]) == pytest.approx(published, abs=6e-4)


def test_medicaid_has_the_published_breakdown_value(medicaid: Effects) -> None:
    found = breakdown(medicaid, weights=[1, 0])
    assert 1.5 < found.value < 2.0
    low, _ = relative_magnitudes(medicaid, found.value, weights=[1, 0])
    assert low == pytest.approx(0.0, abs=2e-4)
    assert not found.beyond


@pytest.mark.parametrize("row", ORACLE["intervals"], ids=lambda r: f"{r['weights']}-{r['bound']}-{r['test']}")
def test_tax_cuts_have_the_intervals_of_moderndid(row: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    """The conditional test to the step of their grid and their programs' tolerance; its hybrid also to the noise of
    their 1,000 draws."""
    if row["test"] == "ARP":
        monkeypatch.setattr(import_module("estimators.relative_magnitudes"), "_FIRST", 1e-9)
    ours = relative_magnitudes(benzarti_carloni(), float(str(row["bound"])), weights=WEIGHTS[str(row["weights"])])
    allowed = ORACLE["step"] * {"ARP": 1.2, "LF": 2.0}[str(row["test"])]
    assert ours == pytest.approx(row["ends"], rel=0.0, abs=allowed)


def test_no_bound_is_the_interval_of_parallel_trends() -> None:
    """At a bound of 0 nothing is unknown but noise: near the plain interval, wider for the test's two sides."""
    effects = benzarti_carloni()
    after = effects.at(np.arange(4, 8))
    estimate, error = after.estimates.mean(), np.sqrt(after.covariance.mean())
    low, high = relative_magnitudes(effects, 0.0)
    assert low == pytest.approx(estimate - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(estimate + 1.96 * error, abs=0.15 * error)


def test_intervals_grow_with_the_bound_and_the_units_of_the_outcome() -> None:
    effects = benzarti_carloni()
    widths = [np.subtract(*relative_magnitudes(effects, b)[::-1]) for b in (0.0, 0.5, 1.0, 2.0)]
    assert widths == sorted(widths)
    scaled = Effects(effects.keys, -1e3 * effects.estimates, 1e6 * effects.covariance, effects.df)
    low, high = relative_magnitudes(effects, 1.0)
    assert relative_magnitudes(scaled, 1.0) == pytest.approx((-1e3 * high, -1e3 * low), rel=0.02)
    assert breakdown(scaled).value == pytest.approx(breakdown(effects).value, rel=0.02)


def test_the_interval_covers_under_the_worst_trend_allowed() -> None:
    """One change before treatment stands out, and the trend after goes on by as much, twice over."""
    rng = np.random.default_rng(3)
    times, covariance = (-4, -3, -2, 0, 1), 0.01 * (0.5 * np.eye(5) + 0.5)
    trend = np.array([-0.6, 0.0, 0.0, 1.2, 2.4])
    covered = 0
    for _ in range(100):
        estimates = rng.multivariate_normal(trend, covariance)
        covered += compatible(Effects(times, estimates, covariance, np.full(5, np.inf)), 0.0, 2.0)
    assert covered >= 89


def test_breakdown_says_zero_where_nothing_was_found_and_beyond_where_nothing_can_lose_it() -> None:
    effects = benzarti_carloni()
    lost = Effects(effects.keys, np.r_[effects.estimates[:4], np.zeros(4)], effects.covariance, effects.df)
    assert breakdown(lost).value == 0.0
    sure = Effects(effects.keys, np.r_[np.zeros(4), np.full(4, 1e3)], effects.covariance, effects.df)
    assert (breakdown(sure).value, breakdown(sure).beyond) == (10.0, True)


def test_one_effect_after_treatment_is_enough() -> None:
    effects = benzarti_carloni().at(np.arange(5))
    assert relative_magnitudes(effects, 0.5)[0] < effects.estimates[4] < relative_magnitudes(effects, 0.5)[1]


def test_what_cannot_be_bounded_is_refused_in_plain_words() -> None:
    effects = benzarti_carloni()
    with pytest.raises(EstimationError, match="an effect after treatment and one before"):
        breakdown(effects.at(np.arange(4)))
    with pytest.raises(EstimationError, match="an effect after treatment and one before"):
        breakdown(effects.at(np.arange(4, 8)))
    with pytest.raises(EstimationError, match="without a gap"):
        breakdown(effects.at(np.array([0, 2, 3, 4])))
    with pytest.raises(EstimationError, match="one finite number per event time"):
        breakdown(effects, weights=[1.0])
    with pytest.raises(EstimationError, match="must not be negative"):
        relative_magnitudes(effects, -1.0)
