"""Long-run outcomes that are not in yet, and what past experiments say of them, from a log to the memo."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from estimators.surrogate import surrogate
from readout.errors import LogError, SpecError
from readout.memo import figures
from readout.memo.markdown import memo
from readout.results import Check, MetricResult, Readout

LADDER = {"system": "latency", "user": "week", "business": "stay"}
METRICS = {
    "metrics.week": {"column": "week", "role": "surrogate", "better": "higher"},
    "metrics.stay": {"column": "stay", "role": "long_run", "better": "higher", "minimum_effect": 0.02},
}
ASKED = {**METRICS, "surrogate": {"ladder": LADDER, "evidence": "past.parquet"}}


def past(n: int = 12, slope: float = 0.8, low: float = -0.05, high: float = 0.3, left: float = 0.01) -> pl.DataFrame:
    """Past experiments whose true long effect is ``slope`` times the short one, give or take ``left``."""
    rng = np.random.default_rng(7)
    short, se = np.linspace(low, high, n), rng.uniform(0.008, 0.014, n)
    long = slope * short + left * rng.normal(size=n)
    return pl.DataFrame(
        {
            "experiment": [f"past {i}" for i in range(n)], "short_effect": short + se * rng.normal(size=n),
            "short_se": se, "long_effect": long + 1.5 * se * rng.normal(size=n), "long_se": 1.5 * se,
        }
    )  # fmt: skip


def log(world: Any, stay: Any = None) -> pl.DataFrame:
    """A log in which ``week`` is about 0.14 higher under ``new``."""
    frame = world.log(units=800, rows=2)
    u = pl.Series(np.random.default_rng(5).random(len(frame)))
    treated = frame["arm"] == "new"
    frame = frame.with_columns(week=u < 0.4 + 0.15 * treated.cast(pl.Float64))
    return frame if stay is None else frame.with_columns(stay=pl.Series(stay(frame), dtype=pl.Float64))


def read(
    world: Any, frame: pl.DataFrame, evidence: pl.DataFrame | None, changes: Mapping[str, Any] | None = None
) -> Readout:
    if evidence is not None:
        evidence.write_parquet(world.folder / "past.parquet")
    return world.readout(frame, {**ASKED, **(changes or {})})


def the_check(readout: Readout) -> Check:
    return next(c for c in readout.checks if c.name == "surrogate_evidence")


def metric(readout: Readout, name: str) -> MetricResult:
    return next(m for m in readout.metrics if m.metric == name)


def test_evidence_that_holds_ships_with_a_holdout_and_foretells_as_the_estimator_does(world):
    evidence = past()
    readout = read(world, log(world), evidence)
    assert (readout.decision.action, readout.decision.rule) == ("holdout", "long_run_foretold")
    assert the_check(readout).status == "pass"
    found = readout.surrogate
    assert found is not None
    week = metric(readout, "week")
    columns = [evidence[c].to_numpy() for c in ("short_effect", "short_se", "long_effect", "long_se")]
    model = surrogate(*columns)
    expected = model.predict(week.estimate, week.std_error)
    p = found["predicted"]
    assert (p["metric"], p["short_metric"]) == ("stay", "week")
    assert (p["estimate"], p["ci_low"], p["ci_high"]) == pytest.approx(
        (expected.estimate, expected.ci_low, expected.ci_high), rel=1e-9
    )
    assert (found["evidence"]["slope"], found["evidence"]["r2"]) == pytest.approx(
        (model.line.slope, model.r2), rel=1e-9
    )
    assert (found["risk"], found["evidence"]["n"], found["why"]) == (False, 12, "")
    assert [(row["rung"], row["status"]) for row in found["ladder"]] == [
        ("system", "better"), ("user", "better"), ("business", "not in yet"),
    ]  # fmt: skip
    assert "stay higher by 0.02 or more" in readout.decision.would_change[0]
    text = memo(readout)
    assert "## Long run" in text
    assert "the decision is conditional" in text
    assert "Surrogate risk" not in text
    assert "Read these numbers with care" not in text


def test_rows_of_the_evidence_may_stand_in_any_order(world):
    one = read(world, log(world), past())
    other = read(world, log(world), past().sample(fraction=1.0, shuffle=True, seed=3))
    assert memo(one) == memo(other)


@pytest.mark.parametrize(
    ("evidence", "changes", "action", "why"),
    [
        (None, {}, "stronger_design", "the evidence file past.parquet is not there"),
        (None, {"surrogate": {"ladder": LADDER}}, "stronger_design", "no past experiments are named"),
        (None, {"surrogate": None}, "stronger_design", "no past experiments are named"),
        (past(4), {}, "ramp", "4 past experiments say nothing yet: at least 5 are needed"),
        (past(high=0.05), {}, "stronger_design", "lies outside those of past experiments"),
        (past(slope=-0.8), {}, "stronger_design", "in past experiments a better week went with a worse stay"),
        (past(slope=0.0, left=0.1), {}, "stronger_design", "not shown: its slope may be zero"),
        (past(left=0.04), {"checks": {"surrogate_evidence": {"threshold": 0.95}}}, "ramp", "less than 95 %"),
    ],
)
def test_evidence_that_is_missing_or_does_not_hold_is_a_surrogate_risk(world, evidence, changes, action, why):
    readout = read(world, log(world), evidence, changes)
    check, found = the_check(readout), readout.surrogate
    assert found is not None
    assert (check.status, check.action, found["risk"]) == ("fail", None, True)
    assert check.message.startswith("surrogate risk: ")
    assert why in found["why"]
    assert readout.decision.action == action
    assert "surrogate risk" in readout.decision.headline
    assert "**Surrogate risk:**" in memo(readout)


def test_early_behaviour_as_before_ramps_only_where_the_mechanism_improves(world):
    slower = {"metrics.hits": {"column": "tokens", "role": "mechanism", "better": "higher"}}
    readout = read(world, log(world), past(4), slower)
    assert readout.decision.rule == "long_run_unknown"
    assert "no ramp: the mechanism hits is not shown to be better" in readout.decision.reasons


def arrived(share: Mapping[str, float]) -> Any:
    def values(frame: pl.DataFrame) -> list[float | None]:
        rng = np.random.default_rng(9)
        return [
            float(rng.random() < 0.3 + 0.1 * (arm == "new")) if rng.random() < share[arm] else None
            for arm in frame["arm"]
        ]

    return values


def test_an_outcome_that_is_null_on_every_row_is_not_in_yet(world):
    for dtype in (pl.Float64, pl.Null):
        frame = log(world).with_columns(stay=pl.lit(None, dtype=dtype))
        stay = metric(read(world, frame, past()), "stay")
        assert (stay.estimate, stay.verdict) == (None, None)
        assert stay.note.startswith("not in yet: ")


def test_the_unknown_of_a_condition_is_not_false(world):
    frame = log(world).with_columns(days=pl.lit(None, dtype=pl.Int64))
    changes = {"metrics.stay": {"expr": "days > 60", "role": "long_run", "better": "higher"}}
    assert metric(read(world, frame, past(), changes), "stay").note.startswith("not in yet: ")


def test_an_outcome_that_is_partly_in_is_reported_without_a_verdict(world):
    readout = read(world, log(world, arrived({"old": 0.3, "new": 0.5})), past())
    stay = metric(readout, "stay")
    assert stay.estimate is not None
    assert stay.verdict is None
    assert "of the rows (old " in stay.note
    assert "more are in of one arm than of the other" in stay.note
    assert readout.decision.action == "holdout"
    assert readout.surrogate is not None
    assert readout.surrogate["ladder"][-1]["status"] == "only partly in"


@pytest.mark.parametrize(("lift", "action"), [(0.2, "ship"), (-0.2, "rollback"), (0.0, "ramp")])
def test_an_outcome_that_is_in_is_read_like_any_other(world, lift, action):
    def values(frame: pl.DataFrame) -> list[float]:
        rng = np.random.default_rng(2)
        return [float(rng.random() < 0.4 + lift * (arm == "new")) for arm in frame["arm"]]

    readout = read(world, log(world, values), past())
    assert readout.decision.action == action
    assert the_check(readout).status == "skip"
    assert "The long-run outcome is in" in memo(readout)
    if action == "ship":
        assert readout.decision.reasons[-1].startswith("stay +0.")


def test_short_metric_names_the_evidence_and_this_experiment_is_left_out(world):
    mine = past().with_columns(short_metric=pl.lit("latency"))
    both = pl.concat([mine, past().with_columns(short_metric=pl.lit("week"))])
    own = both.with_columns(experiment=pl.col("experiment").replace("past 3", "probe"))
    readout = read(world, log(world), own)
    assert readout.surrogate is not None
    evidence = readout.surrogate["evidence"]
    assert (evidence["short_metric"], evidence["n"], evidence["left_out_own"]) == ("week", 11, True)
    assert "was left out" in memo(readout)
    elsewhere = read(world, log(world), past().with_columns(short_metric=pl.lit("clicks")))
    assert "metrics that this experiment does not read (clicks)" in the_check(elsewhere).message


def test_effects_relative_to_control_are_held_against_relative_ones(world):
    changes = {"surrogate": {**ASKED["surrogate"], "scale": "relative"}}
    readout = read(world, log(world), past(high=0.8), changes)
    assert readout.surrogate is not None
    assert readout.surrogate["predicted"]["short_estimate"] == pytest.approx(
        metric(readout, "week").relative, rel=1e-12
    )
    assert "foretell stay +" in readout.decision.headline
    assert " %" in readout.decision.headline.partition("foretell")[2]


def test_what_is_wrong_with_the_file_is_said_all_at_once(world):
    wrong = past(6).with_columns(
        short_se=pl.when(pl.col("experiment") == "past 1").then(-1.0).otherwise("short_se"),
        long_se=pl.when(pl.col("experiment") == "past 2").then(0.0).otherwise("long_se"),
        long_effect=pl.when(pl.col("experiment") == "past 3").then(None).otherwise("long_effect"),
        experiment=pl.col("experiment").replace("past 5", "past 4"),
    )
    with pytest.raises(LogError) as error:
        read(world, log(world), wrong)
    said = [p.message for p in error.value.problems]
    assert said == [
        "surrogate.evidence: 'long_effect' is null or not finite: past 3",
        "surrogate.evidence: 'short_se' is below zero: past 1",
        "surrogate.evidence: 'long_se' is not above zero: past 2",
        "surrogate.evidence: given twice: past 4",
    ]
    with pytest.raises(LogError, match="the evidence lacks the column 'long_se'"):
        read(world, log(world), past().drop("long_se"))
    with pytest.raises(LogError, match="column 'short_se' of the evidence is String; expected numbers"):
        read(world, log(world), past().with_columns(pl.col("short_se").cast(pl.String)))


def test_sections_that_build_on_what_is_not_in_are_refused(world):
    changes = {"economics": {"value": {"metric": "stay", "usd": 1}}, "rollback": [{"metric": "stay", "above": 0.5}]}
    with pytest.raises(SpecError) as error:
        read(world, log(world), past(), changes)
    assert len(error.value.problems) == 2
    assert "'stay' is not in yet: the log has no column 'stay'" in error.value.problems[0].message


def test_a_misspelt_column_is_shown_beside_the_one_that_is_there(world):
    frame = log(world, arrived({"old": 1.0, "new": 1.0})).rename({"stay": "stayed"})
    assert "there is 'stayed'" in metric(read(world, frame, past()), "stay").note


def test_the_holdout_is_sized_from_rows_that_are_in_or_from_past_errors(world):
    asked = {"surrogate": {**ASKED["surrogate"], "holdout": 0.05, "weeks": 8}}
    readout = read(world, log(world), past(), asked)
    assert readout.surrogate is not None
    plan = readout.surrogate["holdout"]
    assert plan["variance_from"].startswith("long_se of past experiments")
    # Past long errors are 1.5 times the short ones, so a unit's standard deviation is 1.5 times that of week.
    week = metric(readout, "week")
    variance = (1.5 * week.std_error) ** 2 / (1 / week.n_control + 1 / week.n_treatment)
    seen = plan["units"] + 8 * plan["units_per_week"]
    assert plan["units"] == 800
    assert plan["detectable"] == pytest.approx(2.802 * np.sqrt(variance / (seen * 0.05 * 0.95)), rel=0.01)
    assert plan["enough"] is False
    assert "Keep 5 % of the units on control for 8 weeks" in readout.decision.next_step
    assert "too small to see its minimum effect of 0.0200" in memo(readout)
    partly = read(world, log(world, arrived({"old": 0.5, "new": 0.5})), past(), asked)
    assert partly.surrogate is not None
    assert partly.surrogate["holdout"]["variance_from"] == "rows that are in"


def test_units_that_come_back_are_no_new_ones(world):
    frame = log(world)
    days = np.tile([0, 14], len(frame) // 2)
    again = frame.with_columns(
        at=pl.Series([frame["at"][0] + timedelta(days=int(d), minutes=i % 7) for i, d in enumerate(days)])
    )
    asked = {"surrogate": {**ASKED["surrogate"], "weeks": 8}}
    readout = read(world, again, past(), asked)
    assert readout.surrogate is not None
    plan = readout.surrogate["holdout"]
    assert (plan["units"], plan["units_per_week"], plan["share"]) == (800, 0.0, None)


def test_other_designs_say_that_a_holdout_is_of_units(world):
    asked = {"surrogate": {**ASKED["surrogate"], "holdout": 0.05}, "design.kind": "request_rct"}
    readout = read(world, log(world), past(), asked)
    assert readout.surrogate is not None
    assert "only in user_rct and cluster_rct" in readout.surrogate["holdout"]["why"]


def test_a_design_that_may_not_ship_ramps_on_what_is_foretold(world):
    frame = log(world).with_columns(queue=pl.col("tokens") % 3, p=pl.lit(0.5))
    changes = {
        "design": {"kind": "observational", "control": "old", "treatment": "new", "adjust": ["queue"]},
        "logs.columns": {"time": "at", "unit": "user", "executed": "arm", "intended": "arm", "state": ["queue"],
                         "propensity": "p"},
    }  # fmt: skip
    decision = read(world, frame, past(), changes).decision
    assert (decision.action, decision.rule) == ("ramp", "long_run_moves_as_before")


def test_arms_are_judged_each_by_its_own_short_effect(world):
    frame = world.log(units=900, rows=2, arms=("old", "new", "plus"))
    u = pl.Series(np.random.default_rng(5).random(len(frame)))
    lift = frame["arm"].replace_strict({"old": 0.0, "new": 0.15, "plus": 0.45}, return_dtype=pl.Float64)
    changes = {"design.treatment": ["new", "plus"]}
    readout = read(world, frame.with_columns(week=u < 0.4 + lift), past(), changes)
    assert readout.decision.by_arm == {"new": "holdout", "plus": "stronger_design"}
    assert the_check(readout).details["by_arm"] == {"new": "pass", "plus": "fail"}
    assert "plus: surrogate risk: the effect on week, " in the_check(readout).message
    assert readout.surrogate is not None
    assert (readout.surrogate["arm"], readout.surrogate["risk"]) == ("new", False)


def test_a_holdout_of_clusters_does_not_grow_by_the_week(world):
    frame = log(world).with_columns(region=pl.col("user") % 40)
    frame = frame.with_columns(arm=pl.when(pl.col("region") % 2 == 1).then(pl.lit("new")).otherwise(pl.lit("old")))
    asked = {"surrogate": {**ASKED["surrogate"], "holdout": 0.25, "weeks": 8}, "design.kind": "cluster_rct",
             "logs.columns.cluster": "region"}  # fmt: skip
    readout = read(world, frame, past(), asked)
    assert readout.surrogate is not None
    plan = readout.surrogate["holdout"]
    assert (plan["unit"], plan["units"], plan["units_per_week"]) == ("cluster", 40, None)
    assert "a holdout of 25 % of 40 clusters" in plan["why"]


def test_the_figure_shows_the_line_and_the_present_effect(world):
    readout = read(world, log(world), past())
    drawn = figures.draw(readout)
    svg = drawn["figures/long_run.svg"].decode()
    assert "What past experiments say of stay" in svg
    assert "12 past experiments: effect on stay against effect on week" in svg
    assert drawn["figures/long_run.svg"] == figures.draw(readout)["figures/long_run.svg"]


def test_the_terminal_says_what_is_awaited(world):
    past().write_parquet(world.folder / "past.parquet")
    world.write(log(world), ASKED)
    outcome = world.run()
    assert outcome.code == 0
    assert "Long run: stay is not in yet" in " ".join(outcome.out.split())


def changed(evidence: pl.DataFrame, experiment: str, **values: float) -> pl.DataFrame:
    here = pl.col("experiment") == experiment
    return evidence.with_columns(**{c: pl.when(here).then(v).otherwise(c) for c, v in values.items()})


def test_a_slope_that_rests_on_one_experiment_is_a_risk_and_the_experiment_is_named(world):
    rest = past(slope=0.0, low=-0.02, high=0.02)
    found = read(world, log(world), changed(rest, "past 4", short_effect=5.0, long_effect=3.0)).surrogate
    assert found is not None
    assert found["evidence"]["slope_ci_low"] > 0.0
    assert found["evidence"]["rests_on"] == "past 4"
    assert "without the past experiment past 4 no slope is shown" in found["why"]


def test_a_row_far_off_the_others_is_named(world):
    readout = read(world, log(world), changed(past(), "past 6", long_effect=5.0))
    assert "Far off is `past 6`: its long effect is +5.00" in memo(readout)
    assert "Far off" not in memo(read(world, log(world), past()))


def test_evidence_in_per_cent_is_told_from_the_size_of_its_errors(world):
    columns = ("short_effect", "short_se", "long_effect", "long_se")
    readout = read(world, log(world), past(left=0.001).with_columns(*(pl.col(c) * 100.0 for c in columns)))
    assert readout.decision.action == "stronger_design"
    assert "times the present standard error on week: they may be in another unit" in readout.decision.headline


def test_rows_that_are_in_and_worse_outweigh_what_is_foretold(world):
    def values(frame: pl.DataFrame) -> list[float | None]:
        rng = np.random.default_rng(9)
        return [float(rng.random() < 0.5 - 0.3 * (a == "new")) if rng.random() < 0.5 else None for a in frame["arm"]]

    readout = read(world, log(world, values), past())
    assert readout.decision.action == "stronger_design"
    assert "in the rows that are in, stay is worse: -0." in readout.decision.headline


def test_a_paradox_is_a_good_short_effect_with_a_bad_long_one_and_no_other_risk(world):
    frame = log(world).with_columns(week=~pl.col("week"))
    worse = read(world, frame, past(low=-0.3)).surrogate
    assert worse is not None
    assert (worse["evidence"]["paradox"], worse["risk"]) == ("", True)
    assert "week is worse, and so is the effect foretold for stay" in worse["why"]
    opposite = read(world, log(world), past(slope=-0.8)).surrogate
    assert opposite is not None
    assert "a better week went with a worse stay" in opposite["evidence"]["paradox"]


def test_what_is_not_launched_keeps_its_arms_and_what_is_ramped_names_the_risk(world):
    assert read(world, log(world), None).decision.next_step == (
        "Keep both arms as they are until stay is in, and read stay there."
    )
    unsafe = {"metrics.busy": {"column": "tokens", "role": "guardrail", "better": "lower", "margin": 1e-9}}
    decision = read(world, log(world), past(4), unsafe).decision
    assert decision.rule == "not_clear_enough"
    assert any(line.startswith("surrogate risk: stay is not in yet, and 4 past") for line in decision.reasons)
    assert decision.would_change[0].endswith("with stay in, or foretold by past experiments: ship.")


def test_a_holdout_that_cannot_answer_says_so_without_a_wait_of_centuries(world):
    metrics = {**METRICS, "metrics.stay": {**METRICS["metrics.stay"], "minimum_effect": 0.001}}
    asked = {**metrics, "surrogate": {**ASKED["surrogate"], "holdout": 0.02, "weeks": 4}}
    readout = read(world, log(world), past(), asked)
    assert readout.surrogate is not None
    plan = readout.surrogate["holdout"]
    assert (plan["needed_share"], plan["enough"]) == (None, False)
    assert plan["most_detectable"] > 0.001
    assert "so is half of them, which sees" in plan["why"]
    assert plan["why"].endswith("no holdout answers it")


def test_evidence_without_a_long_run_metric_is_refused_and_a_ladder_alone_promises_nothing(world):
    ladder = {"system": "latency", "user": "week"}
    asked = {"ladder": ladder, "evidence": "past.parquet", "weeks": 4}
    with pytest.raises(SpecError) as error:
        world.readout(log(world), {"metrics.week": METRICS["metrics.week"], "surrogate": asked})
    assert [p.message for p in error.value.problems] == [
        "surrogate.evidence: no metric has the role long_run",
        "surrogate.weeks: no metric has the role long_run",
    ]
    alone = world.readout(log(world), {"metrics.week": METRICS["metrics.week"], "surrogate": {"ladder": ladder}})
    assert "The long-run outcome is in" not in memo(alone)
    assert "No metric has the role long_run" in memo(alone)


def test_a_column_of_another_metric_is_not_offered_for_the_one_that_is_absent(world):
    metrics = {**METRICS, "metrics.stay": {**METRICS["metrics.stay"], "column": "weeks"}}
    assert "there is" not in metric(read(world, log(world), past(), metrics), "stay").note


def test_checking_says_that_the_evidence_is_not_there(world):
    world.write(log(world), ASKED)
    outcome = world.command("check", world.folder / "spec.yaml")
    assert "surrogate.evidence: past.parquet is not there" in " ".join((outcome.out + outcome.err).split())
