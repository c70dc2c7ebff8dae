"""Worlds of panels: rollouts that differences in differences read, and one treated unit among donors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from benchmarks.worlds.quasi import (
    CONSERVATIVE,
    NOMINAL,
    PUBLISHED,
    Broken,
    Design,
    Matrix,
    Reading,
    Rng,
    Vector,
    ar1,
    covered,
    expit,
    reading,
)
from estimators import (
    Estimate,
    Panel,
    callaway_santanna,
    event_effects,
    event_study,
    synthetic_control,
    synthetic_did,
    two_by_two,
)
from estimators.callaway_santanna import SMALL
from estimators.trend_test import trend_test

UNITS, PERIODS, START = 100, 10, 5
STARTS = np.array([4, 6, 8, PERIODS])
DONORS, LONG, AT = 20, 24, 16

Seen = tuple[Reading, Mapping[str, bool]]


def noise(rng: Rng, n: int, t: int) -> Matrix:
    """Levels of units, shocks of periods, and errors that last (0.5)."""
    return 2.0 * rng.normal(size=(n, 1)) + rng.normal(size=(1, t)) + ar1(rng, n, t)


def effects(first: np.ndarray, t: int) -> Matrix:
    """``(n, t)`` effects: 1 at the start, 0.2 more every period, a tenth more for the cohort of every later period."""
    since = np.arange(t) - first[:, None]
    return np.where(since >= 0, (1.0 + 0.2 * since) * (1.0 + 0.1 * (first[:, None] - START)), 0.0)


def together(rng: Rng, treated: int = UNITS // 2, n: int = UNITS) -> Panel:
    """One rollout, half of the units."""
    first = np.where(np.arange(n) < treated, START, PERIODS)
    return Panel(noise(rng, n, PERIODS) + effects(first, PERIODS), first)


def staggered(rng: Rng, *, never: bool = True) -> Panel:
    """Units drawn into cohorts of three starts, or none; without ``never`` the last cohort is the control."""
    starts = STARTS if never else STARTS[:3]
    first = starts[rng.integers(0, len(starts), UNITS)]
    return Panel(noise(rng, UNITS, PERIODS) + effects(first, PERIODS), first)


def drifting(rng: Rng) -> Panel:
    """Units of a larger x rise faster, and take up the treatment more often; one rollout."""
    x = rng.normal(size=UNITS)
    first = np.where(rng.random(UNITS) < expit(0.7 * x), START, PERIODS)
    path = 0.3 * x[:, None] * np.arange(PERIODS)
    return Panel(noise(rng, UNITS, PERIODS) + path + effects(first, PERIODS), first, covariates=x)


def in_clusters(rng: Rng) -> Panel:
    """40 clusters of 5 units that share lasting shocks; half of the clusters are rolled out."""
    cluster = np.repeat(np.arange(40), 5)
    first = np.where(cluster < 20, START, PERIODS)
    y = noise(rng, len(cluster), PERIODS) + ar1(rng, 40, PERIODS)[cluster] + effects(first, PERIODS)
    return Panel(y, first, clusters=cluster)


def mean_effect(starts: np.ndarray, share: Vector) -> float:
    """Average over treated cohort-periods, cohorts weighed by their share."""
    path = effects(starts, PERIODS)
    counts = (path != 0.0) * share[:, None]
    return float((path * counts).sum() / counts.sum())


ONE_START = mean_effect(np.array([START]), np.ones(1))
THREE_STARTS = mean_effect(STARTS[:3], np.ones(3))
# Of three cohorts without untreated units, the last being the control, only periods before it are compared.
NOT_YET = float(np.concatenate([effects(STARTS[:1], 8)[0, 4:8], effects(STARTS[1:2], 8)[0, 6:8]]).mean())


def event_truth(panel: Panel) -> float:
    """Mean over event times of the mean effect on those seen there: cohorts' shares count as known."""
    since = np.arange(PERIODS) - panel.first[:, None]
    path = effects(panel.first, PERIODS)
    return float(np.mean([path[since == e].mean() for e in range(int(since.max()) + 1) if (since == e).any()]))


def seen(method: Callable[[Panel], Estimate], world: Callable[[Rng], Panel], truth: float) -> Callable[[Rng], Reading]:
    return lambda rng: reading(method(world(rng)), truth)


def never(panel: Panel) -> Estimate:
    return callaway_santanna(panel, small=SMALL)


def not_yet(panel: Panel) -> Estimate:
    return callaway_santanna(panel, controls="not_yet", small=SMALL)


def event_reading(rng: Rng) -> Reading:
    panel = staggered(rng)
    return reading(event_study(panel), event_truth(panel))


def bands(rng: Rng) -> Reading:
    """All event times at once: effects before the start are zero, those after it are the mean over cohorts."""
    panel = together(rng)
    path = effects(np.array([START]), PERIODS)[0]
    rows = never(panel).diagnostics["event_study"]
    inside = [r["band_low"] <= path[START + r["event_time"]] <= r["band_high"] for r in rows]
    return covered(all(inside))


def of_factors(rng: Rng, *, outside: float = 0.0, early: float = 0.0) -> Panel:
    """21 units that follow three common factors, one with a trend; the first is treated.

    Args:
        outside: Added to the treated's loading on the factor with the trend.
        early: What the treated's level rises by a while before the start, and keeps.
    """
    load = rng.dirichlet(np.ones(3), DONORS + 1) + 0.15 * rng.normal(size=(DONORS + 1, 3))
    load[0, 0] += outside
    factors = 3.0 * ar1(rng, 3, LONG, 0.7) + np.array([0.4, 0.0, 0.0])[:, None] * np.arange(LONG)
    y = 10.0 + load @ factors + 0.5 * rng.normal(size=(DONORS + 1, LONG))
    y[0, EARLIER:] += early
    y[0, AT:] += 1.0
    return Panel(y, np.r_[AT, np.full(DONORS, LONG)])


# Where a placebo in time says that treatment began: a third of the periods before the start.
EARLIER = AT - max(1, min(LONG - AT, AT // 3))


def designs() -> Iterator[Design]:
    """Rows of the first table."""
    half = "100 units, half rolled out, 10 periods"
    yield Design("two_by_two", half, NOMINAL, seen(two_by_two, together, ONE_START))
    yield Design("event_study", half, NOMINAL, seen(event_study, together, ONE_START))
    yield Design("callaway_santanna, never", half, NOMINAL, seen(never, together, ONE_START))
    yield Design("callaway_santanna, band of all event times", half, NOMINAL, bands)
    drawn = "100 units in 3 cohorts and untreated"
    yield Design("event_study (Sun–Abraham)", drawn, NOMINAL, event_reading)
    yield Design("callaway_santanna, never", drawn, NOMINAL, seen(never, staggered, THREE_STARTS))
    yield Design("callaway_santanna, not_yet", drawn, NOMINAL, seen(not_yet, staggered, THREE_STARTS))
    yield Design(
        "callaway_santanna, not_yet", "100 units in 3 cohorts", NOMINAL,
        seen(not_yet, lambda rng: staggered(rng, never=False), NOT_YET),
    )  # fmt: skip
    drift = "100 units, trends follow a covariate"
    yield Design("callaway_santanna, doubly robust", drift, NOMINAL, seen(never, drifting, ONE_START))
    yield Design("two_by_two, covariate", drift, NOMINAL, seen(two_by_two, drifting, ONE_START))
    grouped = "40 clusters of 5 units"
    yield Design("two_by_two, by cluster", grouped, NOMINAL, seen(two_by_two, in_clusters, ONE_START))
    yield Design("event_study, by cluster", grouped, NOMINAL, seen(event_study, in_clusters, ONE_START))
    yield Design("callaway_santanna, by cluster", grouped, NOMINAL, seen(never, in_clusters, ONE_START))
    few = "6 of 60 units rolled out"
    yield Design("two_by_two", few, NOMINAL, seen(two_by_two, lambda rng: together(rng, 6, 60), ONE_START))
    why = "errors are shown for many treated units; six tell little"
    for name, method in (("event_study", event_study), ("callaway_santanna, never", never)):
        yield Design(name, few, PUBLISHED, seen(method, lambda rng: together(rng, 6, 60), ONE_START), why)
    alone = "1 treated and 20 donors, 16 periods before"
    yield Design("synthetic_control", alone, CONSERVATIVE, seen(synthetic_control, of_factors, 1.0), "ranks are steps")
    yield Design("synthetic_did", alone, NOMINAL, seen(synthetic_did, of_factors, 1.0))


def moved(world: Callable[[Rng, float], Panel], truth: float = ONE_START) -> Callable[[Rng, float], Seen]:
    """A rollout, and the test of the time before it."""

    def draw(rng: Rng, size: float) -> Seen:
        panel = world(rng, size)
        test = trend_test(event_effects(panel, small=SMALL, unbiased=True))
        return reading(never(panel), truth), {"pre_trend": test.p_value < 0.05}

    return draw


def apart(shape: Vector) -> Callable[[Rng, float], Panel]:
    """The treated depart from the untreated by ``size`` times a path."""

    def world(rng: Rng, size: float) -> Panel:
        panel = together(rng)
        return Panel(panel.y + size * np.where(panel.first == START, 1.0, 0.0)[:, None] * shape, panel.first)

    return world


def unspanned(rng: Rng, size: float) -> Seen:
    panel = of_factors(rng, outside=size)
    found = synthetic_control(panel)
    errors = [found.diagnostics["pre_rmspe"], *(p["pre_rmspe"] for p in found.diagnostics["placebos"])]
    rank = sum(e >= errors[0] * (1.0 - 1e-12) for e in errors) / len(errors)
    in_time = found.diagnostics["placebo_in_time"]
    return reading(found, 1.0), {"pre_period_fit": rank <= 0.05, "placebo": in_time["p_value"] <= 0.05}


def shifted(method: Callable[[Panel], Estimate]) -> Callable[[Rng, float], Seen]:
    def draw(rng: Rng, size: float) -> Seen:
        found = method(of_factors(rng, early=size))
        return reading(found, 1.0), {"placebo": found.diagnostics["placebo_in_time"]["p_value"] <= 0.05}

    return draw


def broken() -> Iterator[Broken]:
    """Rows of the second table."""
    time = np.arange(PERIODS, dtype=np.float64)
    test, joint = {"pre_trend": "p < 0.05, four periods jointly"}, {"pre_trend": 5.0}
    for assumption, size, shape, note in (
        ("parallel trends: the treated drift away on a straight line", 0.0706, time - START, ""),
        ("no anticipation: the treated move one period early", 0.208, (time == START - 1).astype(np.float64), ""),
        (
            "parallel trends: the treated drift away from the rollout on", 0.0704, np.maximum(time - START + 1, 0.0),
            "nothing before the rollout can tell: no check sees it",
        ),
    ):  # fmt: skip
        yield Broken(assumption, "callaway_santanna", test, size, moved(apart(shape)), level=joint, note=note)
    rank = 100.0 / (DONORS + 1)
    yield Broken(
        "donors span the treated: its loading on the factor that grows is larger", "synthetic_control",
        {
            "pre_period_fit": "the worst fit before the rollout of 21",
            "placebo": "p ≤ 0.05 of an earlier rollout, a rank among 21",
        },
        0.602, unspanned, level={"pre_period_fit": rank, "placebo": rank},
    )  # fmt: skip
    early = "nothing else happened to the treated: its level shifts five periods early"
    in_time = {"placebo": "p ≤ 0.05 of a rollout five periods earlier"}
    yield Broken(early, "synthetic_control", in_time, 2.06, shifted(synthetic_control), level={"placebo": rank})
    yield Broken(early, "synthetic_did", in_time, 2.69, shifted(synthetic_did), level={"placebo": 5.0})
