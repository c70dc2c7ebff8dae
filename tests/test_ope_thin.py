"""Off-policy evaluation on logs that lack something: values, chance, tries, or a right model."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from readout.samples.state_cells import _cut_by
from tests.test_ope import DESIGN, FRAME, check, estimated, metric, run, same


def failing(n: int = 4000, seed: int = 0) -> tuple[pl.DataFrame, float]:
    """Requests that fail more often under ``standard`` in a long queue, and have no latency then; and what the target
    changes in the mean latency of those that succeed."""
    rng = np.random.default_rng(seed)
    queue, tier = rng.geometric(0.1, n) - 1, rng.choice(["free", "pro"], n)
    premium = np.where(tier == "pro", 0.7, 0.3)
    took = rng.random(n) < premium
    fails = np.clip(0.02 + 0.02 * queue, 0.0, 0.6)
    failed = rng.random(n) < np.where(took, 0.02, fails)
    mean = {True: 4.7 + 0.1 * queue, False: 5.0 + 0.1 * queue}
    lives = {True: np.full(n, 0.98), False: 1.0 - fails}
    logged = [(np.where(a, premium, 1.0 - premium) * lives[a], mean[a]) for a in (True, False)]
    goes = queue >= 8
    alive = np.where(goes, lives[True], lives[False])
    target = float(alive @ np.where(goes, mean[True], mean[False]) / alive.sum())
    before = sum(float(w @ m) for w, m in logged) / sum(float(w.sum()) for w, _ in logged)
    frame = pl.DataFrame(
        {
            "user": np.char.add("u", rng.integers(0, 300, n).astype(str)),
            "queue": queue,
            "tier": tier,
            "ran": np.where(took, "premium", "standard"),
            "p": np.where(took, premium, 1.0 - premium),
            "ms": np.where(took, mean[True], mean[False]) + rng.normal(0.0, 1.0, n),
            "failed": failed,
        }
    ).with_columns(ms=pl.when(~pl.col("failed")).then("ms"))
    return frame, target - before


@pytest.mark.parametrize("method", ["doubly_robust", "ips", "direct_method"])
def test_a_value_that_is_there_or_not_by_the_actions_doing(world: Any, method: str) -> None:
    frame, truth = failing()
    rules = {"rules": [{"when": "queue >= 8", "action": "premium"}], "else": "standard"}
    metrics = {k: v for k, v in DESIGN["metrics"].items() if k != "unit_cost"}
    found = metric(run(world, frame, {"design.target_policy": rules, "metrics": metrics, "estimator": method}))
    assert abs(found["estimate"] - truth) < 3.0 * found["std_error"]
    assert found["std_error"] < 0.2 * abs(truth)
    assert "have no value" in found["note"]


def test_a_metric_with_nulls_is_a_ratio_over_the_requests_that_have_one(world: Any) -> None:
    holes = FRAME.with_columns(ms=pl.when(pl.int_range(pl.len()) % 7 > 0).then("ms"))
    document = run(world, holes)
    filled = holes.with_columns(ms=pl.col("ms").fill_null(0.0), there=pl.col("ms").is_not_null())
    same(metric(document), estimated("doubly_robust", filled, "ms", "there"))
    assert "needs a value on every request" in document["diagnostics"]["value_bound"]["reason"]
    assert check(document, "propensity_calibration")["status"] == "pass"


def test_a_log_that_draws_nothing_says_so_and_where_to_explore(world: Any) -> None:
    ran = pl.when(pl.col("queue") % 2 == 1).then(pl.lit("premium")).otherwise(pl.lit("standard"))
    document = run(world, FRAME.with_columns(p=1.0, ran=ran), {"estimator": "snips"})
    found = check(document, "support")
    assert found["status"] == "fail"
    assert "every logged probability is 1" in document["decision"]["headline"]
    assert "premium had no chance on" in found["message"]
    plan = document["diagnostics"]["exploration"]
    assert [row["requests"] * row["probability"] >= 15.0 for row in plan[:2]] == [True, True]
    assert {row["action"] for row in plan} == {"premium", "standard"}


def test_an_action_that_is_nowhere_in_the_log(world: Any) -> None:
    rules = {"rules": [{"when": "queue >= 5", "action": "premum"}], "else": "standard"}
    document = run(world, FRAME, {"design.target_policy": rules})
    assert "premum never tried, nor anywhere else in the log" in document["decision"]["headline"]


def test_an_action_that_runs_where_another_was_drawn(world: Any) -> None:
    drawn = pl.when((pl.col("ran") == "standard") & (pl.int_range(pl.len()) % 8 == 0)).then(pl.lit("premium"))
    moved = FRAME.with_columns(drawn=drawn.otherwise("ran"))
    columns = {**DESIGN["logs.columns"], "intended": "drawn"}
    found = check(run(world, moved, {"logs.columns": columns}), "propensity_calibration")
    assert found["status"] == "warn"
    assert "the probability must be that of what ran" in found["message"]


def test_a_rare_action_that_did_not_come_is_no_fault_of_the_others(world: Any) -> None:
    rng = np.random.default_rng(3)
    frame = FRAME.with_columns(ran=pl.lit("standard"), p=pl.Series(1.0 - rng.uniform(1e-5, 3e-4, len(FRAME))))
    target = {"rules": [{"when": "queue >= 50", "action": "premium"}], "else": "standard"}
    design = {**DESIGN["design"], "target_policy": target, "actions": ["premium", "standard"]}
    found = check(run(world, frame, {"design": design, "estimator": "ips"}), "propensity_calibration")
    assert found["status"] == "pass"


def test_what_to_log_where_probabilities_are_wrong(world: Any) -> None:
    other = FRAME.with_columns(p=pl.when(pl.col("p") > 0.5).then(0.4).otherwise(0.3))
    decision = run(world, other)["decision"]
    assert decision["next_step"].startswith("Log with every request the probability with which what ran was drawn")


def bent(seed: int, bend: float) -> pl.DataFrame:
    """Under premium the latency falls by ``bend`` where the queue is long, which no linear model sees."""
    rng = np.random.default_rng(seed)
    n = 4000
    queue, took = rng.integers(0, 20, n), rng.random(n) < 0.3
    ms = 200.0 - 20.0 * took - bend * (took & (queue >= 15)) + 3.0 * queue + rng.normal(0.0, 20.0, n)
    return pl.DataFrame(
        {
            "user": np.char.add("u", rng.integers(0, 400, n).astype(str)),
            "queue": queue,
            "tier": rng.choice(["free", "pro"], n),
            "ran": np.where(took, "premium", "standard"),
            "p": np.where(took, 0.3, 0.7),
            "ms": ms,
        }
    )


BENT: dict[str, Any] = {
    "design.target_policy": {"rules": [{"when": "queue >= 15", "action": "premium"}], "else": "standard"},
    "metrics": {"latency": {"column": "ms", "role": "primary", "better": "lower", "minimum_effect": "2%"}},
}


def test_a_model_that_nothing_corrects_is_held_against_the_weights(world: Any) -> None:
    document = run(world, bent(1, 60.0), {**BENT, "estimator": "direct_method"})
    found = check(document, "left_out")
    assert (found["status"], found["action"]) == ("fail", "stronger_design")
    assert "doubly_robust corrects it" in found["message"]
    assert document["decision"]["action"] == "stronger_design"
    right = [check(run(world, bent(s, 0.0), {**BENT, "estimator": "direct_method"}), "left_out") for s in (2, 3, 4)]
    assert all(one["status"] in ("pass", "warn") for one in right)
    whole = check(run(world, bent(1, 60.0), BENT), "left_out")
    assert whole["status"] == "skip"


def test_cut_weights_that_hold_the_value_carry_no_decision(world: Any) -> None:
    cut = run(world, bent(1, 60.0), {**BENT, "estimator": {"method": "ips", "clip": 2}})
    assert metric(cut)["estimate"] < -20.0
    assert check(cut, "left_out")["status"] == "fail"
    assert cut["decision"]["action"] == "stronger_design"
    assert "take the cut away" in check(cut, "left_out")["message"]
    loose = run(world, bent(1, 60.0), {**BENT, "estimator": {"method": "ips", "clip": 1000}})
    assert check(loose, "left_out")["status"] == "pass"


def test_units_in_several_folds_are_counted_once(world: Any) -> None:
    frame = FRAME.with_columns(fold=pl.int_range(pl.len()) % 3)
    outcome = run(world, frame, {"estimator": {"folds": {"column": "fold"}}})
    assert "the rows of 150 units into several folds" in outcome.out + outcome.err


def test_names_of_policies_that_are_actions_are_refused(world: Any) -> None:
    outcome = run(world, FRAME, {"design": {**DESIGN["design"], "treatment": "premium"}})
    assert outcome.code == 2
    assert "'premium' is an action; here it would be the name of the target policy" in outcome.out + outcome.err


def test_probabilities_that_are_percentages(world: Any) -> None:
    outcome = run(world, FRAME.with_columns(p=pl.col("p") * 100.0))
    assert outcome.code == 3
    assert "no percentage" in outcome.out + outcome.err


def test_one_unit_is_called_one_unit(world: Any) -> None:
    document = run(world, FRAME.with_columns(user=pl.lit("u")))
    assert "all requests are of one unit" in document["decision"]["headline"]


def test_the_best_of_many_constant_policies_are_shown(world: Any) -> None:
    rng = np.random.default_rng(2)
    action = rng.integers(0, 20, len(FRAME))
    frame = FRAME.with_columns(ran=pl.Series(np.char.add("a", action.astype(str))), p=0.05, ms=200.0 - 5.0 * action)
    policy = {"target_policy": {"else": "a3"}, "kind": "ope"}
    frame = frame.with_columns(ms=pl.col("ms") + pl.Series(rng.normal(0.0, 3.0, len(FRAME))))
    run(world, frame, {"design": policy, "estimator": "snips"})
    memo = next(world.out.rglob("memo.md")).read_text()
    table = memo[memo.index("## What each policy is worth") : memo.index("Of 20 policies that always do the same")]
    assert table.index("always a19") < table.index("always a18") < table.index("always a8")
    assert "always a7" not in table


def test_requests_of_no_unit_are_said_to_count_as_independent(world: Any) -> None:
    columns = {k: v for k, v in DESIGN["logs.columns"].items() if k != "unit"}
    run(world, FRAME, {"logs.columns": columns, "estimator": "snips"})
    assert "every request counts as independent" in next(world.out.rglob("memo.md")).read_text()


def test_a_rule_on_a_number_that_is_not_whole_is_cut_where_it_stands() -> None:
    assert _cut_by(["load > 1"], "load", whole=False) == [1.0]
    assert _cut_by(["load > 1", "load <= 2.5", "load >= 4"], "load", whole=True) == [2.0, 3.0, 4.0]
