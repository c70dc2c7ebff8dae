"""Observational designs: rows by executed action, adjusted for what stood before it."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from estimators import aipw, match, matching, nuisances
from readout.memo import markdown

METRICS = {
    "ms": {"column": "ms", "role": "primary", "better": "lower", "minimum_effect": "2%"},
    "ratio": {"numerator": "cost", "denominator": "good", "role": "secondary", "better": "lower"},
}
DESIGN = {
    "design": {"kind": "observational", "control": "old", "treatment": "new"},
    "logs.columns": {
        "unit": "user", "intended": "action", "executed": "action", "state": ["queue", "warm"], "features": ["tier"],
    },
    "metrics": METRICS,
}  # fmt: skip
EFFECT = -30.0


def routed(seed: int = 0, units: int = 150, rows: int = 8, unlogged: float = 0.0, slope: float = 1.0) -> pl.DataFrame:
    """Requests sent to ``new`` when the queue is short; the queue makes them slow, ``new`` takes 30 ms away."""
    rng = np.random.default_rng(seed)
    n = units * rows
    user = np.repeat(np.arange(units), rows)
    queue, tier, hidden = rng.gamma(2.0, 5.0, n), rng.choice(["free", "pro", "max"], n), rng.normal(size=n)
    chance = 1.0 / (1.0 + np.exp(-slope * (1.0 - 0.12 * queue + 0.8 * (tier == "pro")) - unlogged * hidden))
    new = rng.random(n) < chance
    ms = 300.0 + 6.0 * queue + 20.0 * (tier == "free") + 10.0 * rng.normal(size=units)[user]
    return pl.DataFrame(
        {
            "user": user,
            "action": np.where(new, "new", "old"),
            "queue": queue,
            "warm": rng.random(n) < 0.5,
            "tier": tier,
            "ms": ms + EFFECT * new + 40.0 * unlogged * hidden + rng.normal(0.0, 30.0, n),
            "cost": np.exp(0.3 * rng.normal(size=n)) * (1.0 + 0.2 * new),
            "good": rng.random(n) < 0.9,
            "failed": rng.random(n) < 0.1,
            "before": 200.0 + 5.0 * queue + 20.0 * unlogged * hidden + rng.normal(0.0, 30.0, n),
        }
    )


def covariates(frame: pl.DataFrame) -> np.ndarray:
    """The design matrix by hand: the most frequent tier is left out."""
    tiers = frame["tier"].value_counts().sort(["count", "tier"], descending=[True, False])["tier"].to_list()
    levels = [(frame["tier"] == tier).cast(float) for tier in tiers[1:]]
    return np.column_stack([frame["queue"], frame["warm"].cast(float), *levels])


def metric(readout: Any, name: str = "ms") -> Any:
    return next(m for m in readout.metrics if m.metric == name)


def test_the_numbers_are_those_of_the_estimator_on_the_same_rows(world):
    frame = routed()
    found = world.readout(frame, DESIGN)
    shared = nuisances((frame["action"] == "new").to_numpy(), covariates(frame), units=frame["user"].to_numpy())
    for name, num, den in (("ms", "ms", None), ("ratio", "cost", "good")):
        wanted = aipw(frame[num].to_numpy(), shared, denominator=None if den is None else frame[den].to_numpy())
        shown = metric(found, name)
        for field in ("estimate", "std_error", "ci_low", "ci_high", "control_value", "relative", "p_value"):
            assert getattr(shown, field) == pytest.approx(getattr(wanted, field), rel=1e-9), (name, field)
        assert (shown.n_control, shown.n_treatment, shown.unit) == (wanted.n_control, wanted.n_treatment, "unit")
    assert found.design["estimand"] == "ate"


def test_matching_is_that_of_the_estimator_too(world):
    frame = routed(units=60)
    changes = {**DESIGN, "design.estimand": "att", "estimator": {"method": "matching", "neighbours": 2}}
    shown = metric(world.readout(frame, changes))
    treated = (frame["action"] == "new").to_numpy()
    matches = match(treated, covariates(frame), estimand="att", neighbours=2, units=frame["user"].to_numpy())
    wanted = matching(frame["ms"].to_numpy(), matches)
    assert (shown.estimate, shown.std_error) == pytest.approx((wanted.estimate, wanted.std_error), rel=1e-9)


def test_a_queue_that_is_adjusted_for_tells_the_effect_and_one_that_is_not_does_not(world):
    without = {**DESIGN, "design.adjust": ["tier"]}
    covered, fooled = 0, 0
    for seed in range(8):
        frame = routed(seed)
        shown, plain = metric(world.readout(frame, DESIGN)), metric(world.readout(frame, without))
        covered += shown.ci_low <= EFFECT <= shown.ci_high
        fooled += plain.ci_high < EFFECT
    assert covered >= 7
    assert fooled == 8


@pytest.mark.parametrize(
    "estimator",
    [
        "ipw",
        "outcome_regression",
        {"method": "dml", "model": "irm"},
        "dml",
        {"method": "matching", "metric": "propensity", "caliper": 0.1},
        {"method": "aipw", "trim": 0.05, "repeats": 2, "folds": 3},
        {"method": "ipw", "propensity": "probit", "folds": 1},
        pytest.param(
            {"method": "aipw", "outcome": "boosting", "propensity": "boosting", "folds": 2}, marks=pytest.mark.slow
        ),
    ],
)
def test_every_method_runs_and_tells_the_effect(world, estimator):
    found = world.readout(routed(), {**DESIGN, "estimator": estimator})
    shown = metric(found)
    assert abs(shown.estimate - EFFECT) < 4.0 * shown.std_error
    assert shown.std_error < 3.0
    assert metric(found, "ratio").estimate == pytest.approx(0.23, abs=0.12)
    assert found.decision.action == "ramp"


def test_the_order_of_the_log_does_not_matter_with_units_or_without(world):
    frame = routed(units=50).with_columns(ms=pl.when(pl.col("failed")).then(None).otherwise("ms"))
    for unit in ("user", None):
        changes = {**DESIGN, "logs.columns.unit": unit, "estimator": {"folds": 3}}
        first, again = (
            [(m.estimate, m.std_error) for m in world.readout(log, changes).metrics]
            for log in (frame, frame.sample(fraction=1.0, shuffle=True, seed=3))
        )
        assert first == again


def test_a_metric_is_read_on_its_own_rows(world):
    frame = routed().with_columns(ms=pl.when(pl.col("failed")).then(None).otherwise("ms"))
    shown, ratio = (metric(world.readout(frame, DESIGN), name) for name in ("ms", "ratio"))
    kept = frame.filter(~pl.col("failed"))
    x = covariates(frame)[~frame["failed"].to_numpy()]
    shared = nuisances((kept["action"] == "new").to_numpy(), x, units=kept["user"].to_numpy())
    wanted = aipw(kept["ms"].to_numpy(), shared)
    assert (shown.estimate, shown.std_error) == pytest.approx((wanted.estimate, wanted.std_error), rel=1e-9)
    assert shown.nulls == int(frame["failed"].sum())
    assert ratio.estimate == pytest.approx(metric(world.readout(routed(), DESIGN), "ratio").estimate, rel=1e-12)


def test_several_treatments_are_each_compared_with_control(world):
    third = pl.Series(np.random.default_rng(5).random(1200) < 0.5)
    label = pl.when((pl.col("action") == "new") & third).then(pl.lit("newer")).otherwise("action")
    frame = routed().with_columns(action=label)
    found = world.readout(frame, {**DESIGN, "design.treatment": ["new", "newer"]})
    pair = frame.filter(pl.col("action") != "new")
    shared = nuisances((pair["action"] == "newer").to_numpy(), covariates(pair), units=pair["user"].to_numpy())
    shown = next(m for m in found.metrics if (m.metric, m.arm) == ("ms", "newer"))
    assert shown.estimate == pytest.approx(aipw(pair["ms"].to_numpy(), shared).estimate, rel=1e-9)
    assert set(found.diagnostics["ess"]) == {"old", "new", "newer"}


def test_without_an_executed_action_the_arm_is_taken_and_the_memo_says_so(world):
    changes = {**DESIGN, "logs.columns": {"unit": "user", "arm": "action", "state": ["queue"], "features": ["tier"]}}
    found = world.readout(routed(units=40), changes)
    assert "holds no executed action" in found.assignment
    assert found.decision.action == "instrument"
    assert metric(found).estimate is not None


def test_logged_policy_inputs_are_adjusted_for_and_it_is_said(world):
    changes = {**DESIGN, "logs.columns.state": ["warm"], "design.policy_inputs": ["queue", "tier"]}
    found = world.readout(routed(), changes)
    assert found.design["adjust"] == ["warm", "tier", "queue"]
    assert any("since the policy looks at it: queue" in note for note in found.notes)


def test_rows_that_could_not_be_treated_are_left_out_and_counted(world):
    frame = routed().with_columns(eligible=pl.col("user") % 3 > 0)
    found = world.readout(frame, {**DESIGN, "logs.columns.eligible": "eligible"})
    only = world.readout(frame.filter("eligible"), DESIGN)
    assert metric(found).estimate == pytest.approx(metric(only).estimate, rel=1e-12)
    assert found.rows.dropped == {"not eligible": int((~frame["eligible"]).sum())}


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"metrics.ms.per": "unit"}, 2, "metrics.ms.per: sums within units in this design: not available yet"),
        ({"metrics.ms.on": "untreated"}, 2, "a metric of untreated rows in this design"),
        ({"metrics.ms.quantile": 0.9}, 2, "quantiles in this design"),
        ({"estimator": "matching", "design.estimand": "overlap"}, 2, "matching has no overlap-weighted effect"),
        ({"estimator": {"method": "outcome_regression", "outcome": "boosting"}}, 2, "no error that can be stood"),
        ({"estimator": {"folds": {"column": "fold"}}}, 3, "estimator.folds.column: the log has no column 'fold'"),
        ({"estimator": {"folds": {"column": "warm"}}}, 3, "puts the rows of"),
        ({"estimator": {"folds": {"column": "user"}, "repeats": 2}}, 2, "cannot be drawn repeatedly"),
        ({"design.adjust": ["queu"]}, 3, "design.adjust.0: the log has no column 'queu'"),
        ({"design.adjust": {"propensity": ["queue"], "outcome": ["tier"]}, "estimator": "matching"}, 2, "one list"),
        ({"logs.columns.state": ["queue", "seen"]}, 3, "logs.columns.state.1: column 'seen' is Datetime"),
        ({"logs.columns.features": ["name"]}, 3, "has 1,200 different texts; expected groups"),
        ({"logs.columns.features": ["odd"]}, 3, "logs.columns.features.0"),
        ({"design.control": "olde"}, 3, "arms in the log: 'new', 'old'"),
        ({"logs.columns.executed": None, "logs.columns.intended": None}, 3, "the role 'executed'"),
    ],
)
def test_what_cannot_be_done_is_refused_in_words_at_its_place(world, changes, code, said):
    frame = routed().with_columns(
        seen=pl.datetime(2026, 1, 1),
        name=pl.int_range(pl.len()).cast(pl.String),
        odd=pl.when(pl.int_range(pl.len()) == 7).then(float("nan")).otherwise("queue"),
    )
    world.write(frame, {**DESIGN, **changes})
    found = world.run()
    assert (found.code, said in found.err) == (code, True), found.err


def test_rows_of_one_action_or_of_one_unit_are_refused_or_not_estimated_in_words(world):
    world.write(routed().with_columns(action=pl.lit("old")), DESIGN)
    found = world.run()
    assert (found.code, "no kept row of arm 'new'" in found.err) == (3, True), found.err
    alone = world.readout(routed().with_columns(user=pl.lit(1)), DESIGN)
    assert metric(alone).estimate is None
    assert "5 folds need as many units" in metric(alone).note


def refused(world: Any, frame: pl.DataFrame, **changes: Any) -> str:
    world.write(frame, {**DESIGN, **changes})
    found = world.run()
    assert found.code == 3
    return found.err


def test_folds_that_alone_hold_a_level_and_the_unit_as_an_adjuster_are_refused(world):
    region = {"free": "us", "pro": "eu", "max": "ap"}
    frame = routed().with_columns(tier=pl.Series([list(region)[u % 3] for u in range(150) for _ in range(8)]))
    frame = frame.with_columns(region=pl.col("tier").replace_strict(region))
    said = refused(world, frame, estimator={"method": "aipw", "folds": {"column": "region"}})
    assert "one fold alone has tier = " in said
    assert "'user' is the unit" in refused(world, routed(), **{"design.adjust": ["queue", "user"]})


def test_what_the_readout_leaves_out_or_lumps_is_said(world):
    frame = routed(2).with_columns(
        team=pl.Series(np.random.default_rng(1).integers(0, 60, 1200).astype(str)),
        action=pl.when(pl.int_range(pl.len()) % 10 == 0).then(None).otherwise("action"),
        late=pl.when(pl.col("action") == "old").then("ms"),
    )
    metrics = {**METRICS, "late": {"column": "late", "role": "secondary", "better": "lower"}}
    found = world.readout(frame, {**DESIGN, "design.adjust": ["queue", "team"], "metrics": metrics})
    assert any(note.startswith("team has many different texts: the 31 most frequent") for note in found.notes)
    (check,) = [c for c in found.checks if c.name == "required_fields"]
    assert "120 rows have no executed action and are left out" in check.message
    assert metric(found, "late").note == "not estimated: no row of 'new' has a value of it"


def test_several_treatments_are_said_to_be_of_other_requests_each(world):
    frame = routed(3)
    third = np.random.default_rng(3).random(len(frame)) < 0.3
    frame = frame.with_columns(action=pl.when(pl.Series(third)).then(pl.lit("third")).otherwise("action"))
    found = world.readout(frame, {**DESIGN, "design.treatment": ["new", "third"]})
    assert any(
        note.startswith("each treatment is compared with control on the requests of the two") for note in found.notes
    )
    text = markdown.memo(found)
    assert "own action, over the requests of control and of that treatment (ATE)" in text
    alone = markdown.memo(world.readout(routed(3), DESIGN))
    assert "average effect on a request of its own action, over all requests (ATE)" in alone
    assert "{'covariate'" not in alone
    assert "9 rows, in `readout.json`" in alone
