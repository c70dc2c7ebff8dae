"""Off-policy evaluation end to end: readout.json against the estimators on the same arrays, and what it refuses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
import pytest

from estimators.direct_method import direct_method
from estimators.doubly_robust import doubly_robust
from estimators.ips import ips, snips
from estimators.value_bound import gain_bound

ACTIONS = ("edge", "premium", "standard")
DESIGN: dict[str, Any] = {
    "design": {
        "kind": "ope",
        "policy_inputs": ["tier", "queue"],
        "target_policy": {"rules": [{"when": "queue >= 5", "action": "premium"}], "else": "standard"},
    },
    "logs.columns": {"unit": "user", "intended": "ran", "executed": "ran", "propensity": "p", "state": ["queue"],
                     "features": ["tier"]},
    "metrics": {
        "latency": {"column": "ms", "role": "primary", "better": "lower", "minimum_effect": "2%"},
        "errors": {"column": "failed", "role": "guardrail", "better": "lower", "margin": 0.05},
        "unit_cost": {"numerator": "cost", "denominator": "tokens", "better": "lower"},
    },
}  # fmt: skip


def log(n: int = 3000, units: int = 150, explore: float = 0.3, seed: int = 0) -> pl.DataFrame:
    """A router that goes by queue and tier, and on a share of requests draws an action from all alike."""
    rng = np.random.default_rng(seed)
    user, queue, tier = rng.integers(0, units, n), rng.poisson(5, n), rng.choice(["free", "pro"], n)
    greedy = np.where(queue >= 8, 1, np.where(tier == "free", 2, 0))
    p = np.full((n, 3), explore / 3)
    p[np.arange(n), greedy] += 1.0 - explore
    action = (rng.random(n)[:, None] > p.cumsum(axis=1)).sum(axis=1)
    mean = 200.0 + 6.0 * queue[:, None] + np.array([-10.0, -40.0, 0.0]) - 15.0 * (queue[:, None] >= 5) * [0, 1, 0]
    ms = mean[np.arange(n), action] + rng.normal(0, 15, units)[user] + rng.normal(0, 20, n)
    return pl.DataFrame(
        {
            "user": np.char.add("u", user.astype(str)),
            "queue": queue,
            "tier": tier,
            "ran": np.array(ACTIONS)[action],
            "p": p[np.arange(n), action],
            "ms": ms,
            "failed": rng.random(n) < 0.05,
            "cost": rng.gamma(4.0, 1.0, n) * (1 + 0.4 * (action == 1)),
            "tokens": rng.integers(1, 400, n),
            "p_all": [list(row) for row in np.tile([0.2, 0.5, 0.3], (n, 1))],
            "p_edge": np.full(n, 0.2),
            "p_premium": np.full(n, 0.5),
            "p_standard": np.full(n, 0.3),
            "p_own": np.array([0.2, 0.5, 0.3])[action],
            "goes": np.where(queue >= 5, "premium", "standard"),
        }
    )


FRAME = log()


def run(world: Any, frame: pl.DataFrame, changes: Mapping[str, Any] | None = None, *arguments: str) -> Any:
    world.write(frame, {**DESIGN, **(changes or {})})
    outcome = world.run("--format", "json", *arguments)
    return outcome.json if outcome.code in (0, 1) else outcome


def metric(document: Any, name: str = "latency") -> Any:
    return next(m for m in document["metrics"] if m["metric"] == name)


def check(document: Any, name: str) -> Any:
    return next(c for c in document["checks"] if c["name"] == name)


def arrays(frame: pl.DataFrame) -> dict[str, Any]:
    """What the estimators take; units as codes in the order of their names."""
    codes = {name: i for i, name in enumerate(ACTIONS)}
    action = frame["ran"].replace_strict(codes).to_numpy()
    target = frame["goes"].replace_strict(codes).to_numpy()
    weight = (action == target) / frame["p"].to_numpy()
    tiers = frame["tier"].value_counts().sort(["count", "tier"], descending=[True, False])["tier"].to_list()
    x = np.column_stack([frame["queue"], (frame["tier"] == tiers[1]).cast(float)])
    units = frame["user"].rank("dense").to_numpy().astype(int) - 1
    return {"action": action, "target": target, "weight": weight, "features": x, "units": units}


def estimated(method: str, frame: pl.DataFrame, numerator: str, denominator: str | None = None, **more: Any) -> Any:
    """The estimator's own answer."""
    given = arrays(frame) | more
    reward = frame[numerator].cast(float).to_numpy()
    below = None if denominator is None else frame[denominator].cast(float).to_numpy()
    if method in ("ips", "snips"):
        kept = {k: given[k] for k in ("units", "clip") if k in given}
        return {"ips": ips, "snips": snips}[method](reward, given["weight"], denominator=below, **kept)
    if method == "direct_method":
        given.pop("weight")
        return direct_method(reward, denominator=below, actions=ACTIONS, **given)
    return doubly_robust(reward, given.pop("weight"), denominator=below, actions=ACTIONS, **given)


def same(found: Any, wanted: Any) -> None:
    for name in ("estimate", "std_error", "ci_low", "ci_high", "control_value", "treatment_value", "relative"):
        assert found[name] == pytest.approx(getattr(wanted, name), rel=1e-8, abs=1e-9 * wanted.std_error), name


@pytest.mark.parametrize("method", ["doubly_robust", "direct_method", "ips", "snips"])
def test_numbers_are_the_estimators_on_the_same_arrays(world: Any, method: str) -> None:
    document = run(world, FRAME, {"estimator": method})
    same(metric(document), estimated(method, FRAME, "ms"))
    same(metric(document, "errors"), estimated(method, FRAME, "failed"))
    same(metric(document, "unit_cost"), estimated(method, FRAME, "cost", "tokens"))
    assert document["design"]["estimand"] == "policy_value"
    assert metric(document)["n_treatment"] == document["design"]["n_units"]["target policy"] == 150
    weights = arrays(FRAME)["weight"]
    if method != "direct_method":
        assert document["diagnostics"]["ess"] == pytest.approx(weights.sum() ** 2 / (weights**2).sum(), rel=1e-8)


@pytest.mark.parametrize("option", [{"clip": 3}, {"switch": 3}, {"folds": 2}])
def test_options_of_doubly_robust(world: Any, option: Mapping[str, Any]) -> None:
    document = run(world, FRAME, {"estimator": {"method": "doubly_robust", **option}})
    same(metric(document), estimated("doubly_robust", FRAME, "ms", **option))
    if "folds" not in option:
        assert "of requests" in metric(document)["note"]


def test_boosted_rewards_and_a_column_of_folds(world: Any) -> None:
    frame = FRAME.with_columns(fold=pl.col("user").rank("dense").cast(pl.Int64) % 3)
    document = run(world, frame, {"estimator": {"folds": {"column": "fold"}}})
    folds = frame["fold"].to_numpy()
    same(metric(document), estimated("doubly_robust", frame, "ms", folds=folds))
    apart = frame.with_columns(fold=pl.int_range(pl.len()) % 3)
    assert "several folds" in run(world, apart, {"estimator": {"folds": {"column": "fold"}}}).err
    alone = {"metrics": {"latency": DESIGN["metrics"]["latency"]}}
    document = run(world, FRAME, {**alone, "estimator": {"outcome": "boosting", "folds": 2}})
    plain = metric(run(world, FRAME, alone))
    assert metric(document)["estimate"] == pytest.approx(plain["estimate"], abs=3 * plain["std_error"])


def test_a_policy_that_draws_in_every_way_it_can_be_written(world: Any) -> None:
    design = {"kind": "ope", "policy_inputs": ["tier", "queue"]}
    by_action = {name: f"p_{name}" for name in ACTIONS}
    weight = FRAME["p_own"].to_numpy() / FRAME["p"].to_numpy()
    target = np.tile([0.2, 0.5, 0.3], (len(FRAME), 1))
    wanted = estimated("doubly_robust", FRAME, "ms", weight=weight, target=target)
    mapped = run(world, FRAME, {"design": {**design, "policy_probability": by_action}})
    same(metric(mapped), wanted)
    listed = run(world, FRAME, {"design": {**design, "policy_probability": "p_all", "actions": list(ACTIONS)}})
    same(metric(listed), wanted)
    single = run(world, FRAME, {"design": {**design, "policy_probability": "p_own"}, "estimator": "ips"})
    same(metric(single), estimated("ips", FRAME, "ms", weight=weight))
    assert check(single, "support")["status"] == "pass"
    outcome = run(world, FRAME, {"design": {**design, "policy_probability": "p_own"}})
    assert outcome.code == 2
    assert "probability of every action" in outcome.err
    column = run(world, FRAME, {"design": {**design, "target_policy": {"column": "goes"}}})
    same(metric(column), estimated("doubly_robust", FRAME, "ms"))


def test_values_of_the_logging_policy_and_of_constant_ones(world: Any) -> None:
    document = run(world, FRAME, {"estimator": "snips"})
    rows = {row["policy"]: row for row in document["diagnostics"]["values"]}
    given = arrays(FRAME)
    for code, name in enumerate(ACTIONS):
        v = (given["action"] == code) / FRAME["p"].to_numpy()
        wanted = snips(FRAME["ms"].to_numpy(), v, units=given["units"])
        row = rows[f"always {name}"]
        assert row["value"] == pytest.approx(wanted.treatment_value, rel=1e-8)
        assert row["std_error"] == pytest.approx(wanted.diagnostics["values"]["target"]["std_error"], rel=1e-7)
        assert row["supported"] is True
    assert rows["logging policy"]["value"] == pytest.approx(FRAME["ms"].mean(), rel=1e-8)
    bound = document["diagnostics"]["value_bound"]
    assert bound["lower"] < metric(document)["treatment_value"]
    assert bound["beats_logging"] is None
    cuts = document["diagnostics"]["clipping"]
    assert {row["kind"] for row in cuts} == {"none", "clip"}


def test_a_bound_of_a_share_says_whether_it_beats_the_logging_policy(world: Any) -> None:
    better = FRAME.with_columns(done=(pl.col("ran") == "premium") & (pl.col("tokens") > 20))
    metrics = {"done": {"column": "done", "role": "primary", "better": "higher", "minimum_effect": 0.01}}
    rules = {"kind": "ope", "target_policy": {"else": "premium"}}
    document = run(world, better, {"metrics": metrics, "design": rules})
    bound = document["diagnostics"]["value_bound"]
    assert bound["beats_logging"] is True
    assert bound["lower"] > bound["logging_value"]
    memo = next(world.out.rglob("memo.md")).read_text()
    assert "In any sample size and however heavy the weights" in memo
    # The same bound from the arrays; where less is better, of the requests without it.
    given = arrays(better.with_columns(goes=pl.lit("premium")))
    r, w, units = better["done"].cast(float).to_numpy(), given["weight"], given["units"]
    least = gain_bound(*(np.bincount(units, x) for x in (w * r, r, np.ones(len(r)))), most_reward=1.0)
    assert bound["difference_lower"] == pytest.approx(least, rel=1e-6)
    assert 0.0 < least < metric(document, "done")["estimate"]
    assert bound["difference_upper"] is None
    assert f"As surely, the target's is at least {least:.3g} higher than the logging policy's" in memo
    undone = better.with_columns(done=~pl.col("done"))
    turned = {"done": {**metrics["done"], "better": "lower"}}
    bound = run(world, undone, {"metrics": turned, "design": rules})["diagnostics"]["value_bound"]
    assert bound["difference_upper"] == pytest.approx(-least, rel=1e-6)
    assert bound["difference_lower"] is None


def test_constant_policies_say_what_they_lack(world: Any) -> None:
    alone = {"metrics": {"latency": DESIGN["metrics"]["latency"]}}
    document = run(world, FRAME, {**alone, "estimator": "direct_method"})
    row = next(row for row in document["diagnostics"]["values"] if row["policy"] == "always premium")
    assert row["ci_low"] is None
    assert "no interval: the model's own error" in next(world.out.rglob("memo.md")).read_text()
    document = run(world, FRAME, {**alone, "estimator": {"outcome": "boosting", "folds": 2}})
    row = next(row for row in document["diagnostics"]["values"] if row["policy"] == "always premium")
    mine = FRAME.filter(pl.col("ran") == "premium")
    assert row["value"] == pytest.approx((mine["ms"] / mine["p"]).sum() / (1.0 / mine["p"]).sum(), rel=1e-6)
    assert "by weights over their sum" in row["reason"]
    assert "errors of cuts leave out" in next(world.out.rglob("memo.md")).read_text()


def test_requests_without_a_unit_are_units(world: Any) -> None:
    columns = {k: v for k, v in DESIGN["logs.columns"].items() if k != "unit"}
    document = run(world, FRAME.drop("user"), {"logs.columns": columns, "estimator": "ips"})
    same(metric(document), estimated("ips", FRAME, "ms", units=None))
    assert document["design"]["errors_by"] == "request"
    document = run(world, FRAME.drop("user"), {"logs.columns": columns})
    assert metric(document)["n_control"] == len(FRAME)


def test_nothing_hangs_on_the_order_of_rows_and_the_bytes_are_the_same(world: Any) -> None:
    first, again = (run(world, FRAME) for _ in range(2))
    assert first == again
    shuffled = run(world, FRAME.sample(fraction=1.0, shuffle=True, seed=3))
    for one, other in zip(first["metrics"], shuffled["metrics"], strict=True):
        assert one["estimate"] == pytest.approx(other["estimate"], rel=1e-7)
        assert one["std_error"] == pytest.approx(other["std_error"], rel=1e-7)
    assert first["decision"]["action"] == shuffled["decision"]["action"]


def test_rows_without_a_value_a_chance_or_an_action(world: Any) -> None:
    holes = FRAME.with_columns(
        ms=pl.when(pl.int_range(pl.len()) % 7 > 0).then("ms"),
        p=pl.when(pl.int_range(pl.len()) % 500 == 1).then(None).otherwise("p"),
        ran=pl.when(pl.int_range(pl.len()) % 600 == 2).then(None).otherwise("ran"),
    )
    document = run(world, holes, {"estimator": "snips"})
    kept = holes.filter(pl.col("p").is_not_null() & pl.col("ran").is_not_null())
    wanted = estimated("snips", kept.with_columns(ms=pl.col("ms").fill_null(float("nan"))), "ms")
    same(metric(document), wanted)
    dropped = document["rows"]["dropped"]
    assert (dropped["no executed action"], sum(dropped.values())) == (5, 11)
    assert "left out" in check(document, "propensity_calibration")["message"]


def test_actions_that_the_spec_does_not_list_count_for_the_logging_policy(world: Any) -> None:
    design = {**DESIGN["design"], "actions": ["premium", "standard"]}
    document = run(world, FRAME, {"design": design, "estimator": "ips"})
    same(metric(document), estimated("ips", FRAME, "ms"))
    assert any("does not list" in note for note in document["notes"])
    assert [row["policy"] for row in document["diagnostics"]["values"]][2:] == ["always premium", "always standard"]


def test_the_decision_goes_no_further_than_a_limited_ramp(world: Any) -> None:
    changes = {"metrics": {k: v for k, v in DESIGN["metrics"].items() if k != "unit_cost"}}
    document = run(world, FRAME, changes)
    decision = document["decision"]
    assert (decision["action"], decision["rule"]) == ("ramp", "shared_state_never_seen")
    assert "a queue that they never saw" in decision["headline"]
    assert "5 to 10 %" in decision["next_step"]
    memo = next(world.out.rglob("memo.md")).read_text()
    assert memo.index("What must be true") < memo.index("## Effects") < memo.index("## What each policy is worth")
    apart = run(world, FRAME, {**changes, "design": {**DESIGN["design"], "shared_state": False}})
    assert (apart["decision"]["action"], apart["decision"]["rule"]) == ("ramp", "not_randomized")
    worse = {**changes, "design": {**DESIGN["design"], "target_policy": {"else": "standard"}}}
    decision = run(world, FRAME, worse)["decision"]
    assert decision["action"] == decision["by_arm"]["target policy"] == "rollback"
    assert decision["headline"].startswith("Do not roll out 'target policy'")
    assert next(world.out.rglob("memo.md")).read_text().splitlines()[2].startswith("**Do not roll out")
    named = {**changes, "design": {**DESIGN["design"], "control": "router", "treatment": "long_queue"}}
    assert "long_queue" in run(world, FRAME, named)["decision"]["headline"]


def test_weak_support_asks_for_a_concrete_exploration(world: Any) -> None:
    hidden = FRAME.filter((pl.col("ran") != "premium") | (pl.col("queue") < 8)).with_columns(
        p=pl.when(pl.col("queue") >= 8).then(0.5).otherwise("p"),
    )
    rules = {"rules": [{"when": "queue >= 8", "action": "premium"}], "else": "standard"}
    document = run(world, hidden, {"estimator": "ips", "design.target_policy": rules})
    found = check(document, "support")
    assert (found["status"], found["action"]) == ("fail", "instrument")
    assert "queue ≥ 8: premium never tried" in found["message"]
    assert document["decision"]["action"] == "instrument"
    plan = document["diagnostics"]["exploration"]
    assert plan[0]["action"] == "premium"
    assert 0.0 < plan[0]["probability"] <= 0.2
    assert document["decision"]["next_step"].startswith("Explore, by a logged draw: premium with probability")
    rows = {row["policy"]: row for row in document["diagnostics"]["values"]}
    assert rows["always premium"]["supported"] is False
    assert rows["always premium"]["value"] is None


def test_propensities_of_another_policy_and_none_at_all(world: Any) -> None:
    other = FRAME.with_columns(p=pl.when(pl.col("p") > 0.5).then(0.4).otherwise(0.3))
    found = check(run(world, other), "propensity_calibration")
    assert (found["status"], found["action"]) == ("fail", "instrument")
    bare = run(
        world, FRAME.drop("p"), {"logs.columns": {k: v for k, v in DESIGN["logs.columns"].items() if k != "propensity"}}
    )
    assert bare["decision"]["action"] == "instrument"
    assert "'propensity'" in check(bare, "required_fields")["message"]
    assert "no probability of the logged action" in metric(bare)["note"]
    columns = {k: v for k, v in DESIGN["logs.columns"].items() if k != "propensity"}
    given = {"logs.columns": columns, "estimator": {"propensity": "logit"}}
    estimated_ = run(world, FRAME.drop("p"), given)
    assert check(estimated_, "propensity_calibration")["status"] == "skip"
    assert check(estimated_, "required_fields")["status"] != "fail"
    memo = next(world.out.rglob("memo.md")).read_text()
    assert "were not taken from the log but estimated" in memo


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"design.target_policy": {"rules": [{"when": "queue_depth_after > 3", "action": "premium"}], "else": "edge"}},
         3, "no column 'queue_depth_after'"),
        ({"design.target_policy": {"rules": [{"when": "queue >", "action": "premium"}], "else": "edge"}}, 2, "not SQL"),
        ({"design.target_policy": {"rules": [{"when": "queue > 3", "action": "premum"}], "else": "edge"},
          "design.actions": ["edge", "premium"]}, 2, "does not list 'premum'; did you mean 'premium'"),
        ({"design.policy_probability": "p_own"}, 2, "rules leave nothing to chance"),
        ({"design.policy_probability": {"edge": "p_edge"}}, 2, "says what the policy does with every action"),
        ({"design.target_policy": None, "design.policy_probability": {"edge": "p_edge"}}, 3, "adds up to"),
        ({"design.target_policy": None, "design.policy_probability": "p_all"}, 2, "in the order of"),
        ({"design.target_policy": None, "design.policy_probability": "p_all", "design.actions": ["edge", "premium"]},
         3, "lists of 3 probabilities"),
        ({"design.target_policy": {"column": "tier"}, "design.actions": ["edge", "premium"]}, 3, "is no action on"),
        ({"estimator": {"method": "direct_method", "outcome": "boosting"}}, 2, "no error that can be stood behind"),
        ({"estimator": {"clip": 3, "switch": 3}}, 2, "does not combine with clip"),
    ],
)  # fmt: skip
def test_what_is_refused(world: Any, changes: Mapping[str, Any], code: int, said: str) -> None:
    outcome = run(world, FRAME.head(400), changes)
    assert getattr(outcome, "code", 0) == code, outcome
    assert said in outcome.err


def test_a_rule_on_what_stands_after_the_action_is_no_policy(world: Any) -> None:
    frame = FRAME.with_columns(queue_after=pl.col("queue") + 1)
    rules = {"rules": [{"when": "queue_after >= 5", "action": "premium"}], "else": "standard"}
    document = run(world, frame, {"design": {"kind": "ope", "target_policy": rules}})
    found = check(document, "bad_controls")
    assert found["status"] == "fail"
    assert "queue_after" in found["message"]
    assert document["decision"]["action"] == "instrument"


def test_money_by_policy(world: Any) -> None:
    economics = {"value": {"metric": "errors", "usd": -0.01}, "cost": {"column": "cost", "usd": 0.001}}
    document = run(world, FRAME, {"economics": economics, "rollback": [{"metric": "errors", "above": 0.5}]})
    net = document["economics"]["net_usd_per_1k_requests"]
    frame = FRAME.with_columns(net=-0.01 * pl.col("failed").cast(float) - 0.001 * pl.col("cost"))
    assert net["estimate"] == pytest.approx(1000 * estimated("doubly_robust", frame, "net").estimate, rel=1e-6)
    per_arm = document["economics"]["per_arm"]
    assert per_arm["logging policy"]["requests"] == len(FRAME)
    assert check(document, "rollback_trigger")["status"] == "skip"


def test_checks_are_quiet_where_what_they_look_for_holds(world: Any) -> None:
    fired = {"support": 0, "propensity_calibration": 0, "weight_concentration": 0}
    for seed in range(10):
        document = run(world, log(1000, 100, seed=100 + seed), {"estimator": "ips", "metrics": {
            "latency": DESIGN["metrics"]["latency"]}})  # fmt: skip
        for name in fired:
            fired[name] += check(document, name)["status"] == "fail"
    assert fired == {"support": 0, "propensity_calibration": 0, "weight_concentration": 0}


def test_what_is_not_a_number_is_told_where_the_spec_names_it(world: Any) -> None:
    frame = FRAME.with_columns(depth=pl.when(pl.int_range(pl.len()) == 3).then(float("nan")).otherwise(1.5))
    outcome = run(world, frame, {"logs.columns": {**DESIGN["logs.columns"], "state": ["queue", "depth"]}})
    assert outcome.code == 3
    assert "logs.columns.state.1: holds NaN or infinity" in outcome.err
