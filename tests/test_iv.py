"""Instrumental variables end to end: readout.json against computations by hand, and what the design refuses."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from estimators import two_stage_least_squares
from readout import pipeline, spec
from readout.checks import instruments
from readout.evidence import Evidence

EFFECT = -20.0
START = datetime(2026, 10, 5, tzinfo=UTC)
DESIGN: dict[str, Any] = {
    "design": {"kind": "iv", "control": "old", "treatment": "new", "instrument": "arm"},
    "logs.columns": {"time": "at", "unit": "user", "arm": "arm", "executed": "did", "features": ["tier", "prompt"]},
    "metrics": {
        "latency": {"column": "ms", "role": "primary", "better": "lower", "minimum_effect": "2%"},
        "errors": {"column": "failed", "role": "guardrail", "better": "lower", "margin": 0.1},
        "unit_cost": {"numerator": "cost", "denominator": "tokens", "better": "lower"},
        "spent": {"column": "cost", "per": "unit", "better": "lower"},
    },
}


def log(units: int = 300, rows: int = 3, comply: float = 0.6, seed: int = 1) -> pl.DataFrame:
    """Units with an arm each; some take the new action in any case, some never, ``comply`` as they are assigned.

    Those who comply are quicker whatever runs and send longer prompts, so that treated rows look better than they are.
    """
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(units), rows)
    n = len(user)
    kind = rng.choice(3, units, p=[0.15, comply, 0.85 - comply])[user]
    arm = rng.integers(0, 2, units)[user]
    did = np.where(kind == 0, 1, np.where(kind == 1, arm, 0))
    tier = rng.choice(["free", "pro"], units)[user]
    ms = 130 - 15 * (kind == 1) + 6 * (tier == "pro") + EFFECT * did + rng.normal(0, 12, units)[user]
    return pl.DataFrame(
        {
            "at": [START + timedelta(minutes=i) for i in range(n)],
            "user": user,
            "arm": np.array(["old", "new"])[arm],
            "did": np.array(["old", "new"])[did],
            "ms": ms + rng.gamma(4.0, 4.0, n),
            "failed": rng.random(n) < 0.02,
            "cost": rng.gamma(4.0, 1.0, n) * (1 + 0.3 * did),
            "tokens": rng.integers(1, 400, n),
            "tier": tier,
            "prompt": rng.gamma(2.0, 200.0, n) + 300 * (kind == 1),
            "queue": rng.poisson(5, n),
        }
    )


def run(world: Any, frame: pl.DataFrame | None, changes: Mapping[str, Any] | None = None, *arguments: str) -> Any:
    world.write(frame, {**DESIGN, **(changes or {})})
    outcome = world.run("--format", "json", *arguments)
    return outcome.json if outcome.code in (0, 1) else outcome


def metric(document: Any, name: str = "latency") -> Any:
    return next(m for m in document["metrics"] if m["metric"] == name)


def check(document: Any, name: str) -> Any:
    return next(c for c in document["checks"] if c["name"] == name)


def arrays(frame: pl.DataFrame) -> tuple[np.ndarray, ...]:
    d, z = ((frame[c] == "new").to_numpy().astype(float) for c in ("did", "arm"))
    return frame["ms"].to_numpy(), d, z, frame["user"].to_numpy()


def by_cluster(scores: np.ndarray, groups: np.ndarray) -> float:
    sums = np.bincount(np.unique(groups, return_inverse=True)[1], weights=scores)
    g, n = len(sums), len(scores)
    return float(np.sqrt((sums**2).sum() * g / (g - 1) * (n - 1) / (n - 2)))


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    return log()


@pytest.fixture
def document(world: Any, frame: pl.DataFrame) -> Any:
    return run(world, frame)


def test_effects_are_those_of_the_log_computed_by_hand(document: Any, frame: pl.DataFrame) -> None:
    y, d, z, user = arrays(frame)
    c = z - z.mean()
    weights = c / (c @ d)  # of the outcome in the estimate
    late = weights @ y
    treated = weights @ (d * y)
    residual = y - y.mean() - late * (d - d.mean())
    found = metric(document)
    assert found["estimate"] == pytest.approx(late, rel=1e-8)
    assert found["std_error"] == pytest.approx(by_cluster(weights * residual, user), rel=1e-7)
    assert found["treatment_value"] == pytest.approx(treated, rel=1e-8)
    assert found["control_value"] == pytest.approx(treated - late, rel=1e-8)
    assert found["relative"] == pytest.approx(late / (treated - late), rel=1e-7)
    assert found["df"] == 299
    assert found["ci_low"] < EFFECT < found["ci_high"]
    assert (found["method"], found["unit"], found["verdict"]) == ("two_stage_least_squares", "unit", "better")
    units = frame.group_by("user").agg(pl.col("arm").first())["arm"].value_counts()
    counts = dict(units.iter_rows())
    assert document["design"]["n_units"] == {"old": counts["old"], "new": counts["new"]}
    assert (document["design"]["estimand"], document["design"]["errors_by"]) == ("late", "unit")


def test_ratios_and_sums_within_units_by_hand(document: Any, frame: pl.DataFrame) -> None:
    _, d, z, user = arrays(frame)
    c = z - z.mean()
    weights = c / (c @ d)
    cost, tokens = frame["cost"].to_numpy(), frame["tokens"].to_numpy().astype(float)
    values, scores = [], []
    for there in (d, d - 1.0):  # without treatment the action is -(1 - d), and its mean the effect of that
        parts = []
        for v in (cost, tokens):
            mean = weights @ (there * v)
            error = weights * (there * v - (there * v).mean() - mean * (d - d.mean()))
            parts.append((mean, error))
        (top, top_error), (bottom, bottom_error) = parts
        values.append(top / bottom)
        scores.append((top_error - values[-1] * bottom_error) / bottom)
    found = metric(document, "unit_cost")
    assert (found["treatment_value"], found["control_value"]) == pytest.approx(tuple(values), rel=1e-8)
    assert found["std_error"] == pytest.approx(by_cluster(scores[0] - scores[1], user), rel=1e-6)

    by_unit = frame.group_by("user").agg(pl.col("cost").sum(), pl.col("arm").first(), pl.col("did").first())
    spent = by_unit["cost"].to_numpy()
    du, zu = ((by_unit[c] == "new").to_numpy().astype(float) for c in ("did", "arm"))
    wald = np.cov(zu, spent)[0, 1] / np.cov(zu, du)[0, 1]
    assert metric(document, "spent")["estimate"] == pytest.approx(wald, rel=1e-8)


def test_what_the_contract_names_stands_at_the_top_of_the_diagnostics(document: Any, frame: pl.DataFrame) -> None:
    y, d, z, user = arrays(frame)
    oracle = two_stage_least_squares(y, d, z, clusters=user, variance="cluster").diagnostics
    shown = document["diagnostics"]
    assert shown["first_stage_f"] == pytest.approx(oracle["first_stage_f"], rel=1e-8)
    assert shown["anderson_rubin"]["bounded"] is True
    for end in ("ci_low", "ci_high"):
        assert shown["anderson_rubin"][end] == pytest.approx(oracle["anderson_rubin"][end], rel=1e-8)
    share = d[z == 1].mean() - d[z == 0].mean()
    assert shown["compliers"]["share"] == pytest.approx(share, rel=1e-8)
    assert {one["covariate"] for one in shown["compliers"]["profile"]} >= {"prompt"}
    assert [row["taken"] for row in shown["instrument_bins"]["bins"]] == pytest.approx(
        [d[z == k].mean() for k in (0, 1)]
    )
    assert "whose action the instrument decides" in metric(document)["note"]
    assert "prompt" in metric(document)["note"]


def test_the_memo_opens_with_what_must_be_true_and_the_decision_is_local(world: Any, document: Any) -> None:
    assert document["decision"]["action"] == "target"
    standing = {one["what"][:14]: one["standing"] for one in document["assumptions"]}
    assert standing["The instrument"] == "not seen broken"
    memo = next(world.out.rglob("memo.md")).read_text()
    assert memo.index("What must be true") < memo.index("## Effects")
    assert "The action itself was not randomized" in memo
    share = document["diagnostics"]["compliers"]["share"]
    whom = f"to those whom the instrument moves ({100 * share:.2g} % of rows): latency"
    assert whom in document["decision"]["headline"]
    assert "nobody can pick out" in document["decision"]["next_step"]


def test_adjusters_and_wald(world: Any, frame: pl.DataFrame) -> None:
    y, d, z, user = arrays(frame)
    x = np.column_stack([(frame["tier"] == "pro").to_numpy(), frame["prompt"].to_numpy()])
    oracle = two_stage_least_squares(y, d, z, covariates=x, clusters=user, variance="cluster")
    found = metric(run(world, frame, {"design.adjust": ["tier", "prompt"]}))
    assert (found["estimate"], found["std_error"]) == pytest.approx((oracle.estimate, oracle.std_error), rel=1e-7)
    found = metric(run(world, frame, {"estimator": "wald"}))
    assert (found["estimate"], found["method"]) == (pytest.approx(np.cov(z, y)[0, 1] / np.cov(z, d)[0, 1]), "wald")


def test_an_amount_moved_by_two_instruments(world: Any, frame: pl.DataFrame) -> None:
    rng = np.random.default_rng(2)
    n = len(frame)
    z1, z2, hidden = rng.normal(size=n), rng.integers(0, 3, n), rng.normal(size=n)
    amount = z1 + 0.5 * z2 + hidden
    given = frame.with_columns(did=amount, z1=z1, z2=z2, ms=100 + 2 * amount + 5 * hidden + rng.normal(size=n))
    metrics = {k: v for k, v in DESIGN["metrics"].items() if k not in ("unit_cost", "spent")}
    document = run(world, given, {"design": {"kind": "iv", "instrument": ["z1", "z2"]}, "metrics": metrics})
    fitted = np.column_stack([np.ones(n), z1, z2])
    fitted = fitted @ np.linalg.lstsq(fitted, amount, rcond=None)[0]
    slope = np.cov(fitted, given["ms"].to_numpy())[0, 1] / fitted.var(ddof=1)
    found = metric(document)
    assert found["estimate"] == pytest.approx(slope, rel=1e-8)
    assert found["ci_low"] < 2 < found["ci_high"]
    assert "one unit more of the executed action" in found["estimand"]
    assert document["design"]["n_units"] == {"all": 300}
    assert (found["n_control"], found["n_treatment"]) == (0, 300)
    assert document["diagnostics"]["overidentification"]["df"] == 1
    spoilt = given.with_columns(ms=pl.col("ms") + 1.5 * pl.col("z2"))
    document = run(world, spoilt, {"design": {"kind": "iv", "instrument": ["z1", "z2"]}, "metrics": metrics})
    assert "the instruments disagree (Hansen's J" in metric(document)["note"]


def test_a_weak_instrument_is_read_by_anderson_and_rubin(world: Any) -> None:
    given = log(comply=0.13)
    y, d, z, user = arrays(given)
    oracle = two_stage_least_squares(y, d, z, clusters=user, variance="cluster")
    ends = oracle.diagnostics["anderson_rubin"]
    document = run(world, given)
    found = metric(document)
    assert document["diagnostics"]["first_stage_f"] < 10
    assert found["p_value"] == pytest.approx(ends["p_value"], rel=1e-7)
    assert (found["ci_low"], found["ci_high"]) == pytest.approx((ends["ci_low"], ends["ci_high"]), rel=1e-7)
    assert found["estimate"] == pytest.approx(oracle.estimate, rel=1e-8)
    assert "Anderson and Rubin's" in found["note"]
    assert found["minimum_detectable_effect"] is None
    assert check(document, "first_stage")["status"] == "fail"
    assert document["decision"]["action"] == "stronger_design"
    assert metric(document, "unit_cost")["estimate"] is None
    assert "no interval that holds" in metric(document, "unit_cost")["note"]
    document = run(world, None, {"checks": {"first_stage": {"threshold": 1}}})
    assert check(document, "first_stage")["status"] == "pass"
    assert "critical" in metric(document)["note"]


def test_a_set_without_ends_is_no_interval(world: Any) -> None:
    document = run(world, log(units=90, comply=0.0, seed=5))
    found = metric(document)
    assert (found["ci_low"], found["ci_high"], found["verdict"]) == (None, None, "inconclusive")
    assert document["diagnostics"]["anderson_rubin"]["bounded"] is False
    memo = next(world.out.rglob("memo.md")).read_text()
    assert "inf" not in memo.replace("information", "").replace("infinity", "")


def test_few_clusters_are_read_by_anderson_and_rubin(world: Any, frame: pl.DataFrame) -> None:
    given = frame.with_columns(region=pl.col("user") % 12)
    changes = {"estimator": {"variance": "cluster"}, "logs.columns.cluster": "region"}
    document = run(world, given, changes)
    assert "few independent groups (12)" in metric(document)["note"]
    y, d, z, _ = arrays(given)
    groups = given["region"].to_numpy()
    ends = two_stage_least_squares(y, d, z, clusters=groups, variance="cluster").diagnostics["anderson_rubin"]
    assert metric(document)["ci_high"] == pytest.approx(ends["ci_high"], rel=1e-7)
    assert "units: " in check(document, "srm")["message"]


def test_errors_are_by_cluster_where_the_instrument_was_drawn_there(world: Any, frame: pl.DataFrame) -> None:
    given = frame.with_columns(region=pl.col("user") % 50)
    odd = pl.col("region") % 2 == 1
    given = given.with_columns(arm=pl.when(odd).then(pl.lit("new")).otherwise(pl.lit("old")))
    given = given.with_columns(did=pl.when(pl.col("user") % 7 == 0).then(pl.col("did")).otherwise(pl.col("arm")))
    document = run(world, given, {"logs.columns.cluster": "region"})
    assert document["design"]["errors_by"] == "cluster"
    assert document["design"]["n_units"] == {"old": 25, "new": 25}
    assert "clusters: " in check(document, "srm")["message"]
    assert any("does not vary within clusters" in note for note in document["notes"])


def test_nulls_third_actions_and_strangers(world: Any, frame: pl.DataFrame) -> None:
    unit = pl.col("user")
    given = frame.with_columns(
        did=pl.when(unit % 7 == 0).then(None).when(unit % 11 == 0).then(pl.lit("cached")).otherwise(pl.col("did")),
        arm=pl.when(unit % 13 == 0).then(None).when(unit % 17 == 0).then(pl.lit("later")).otherwise(pl.col("arm")),
        ms=pl.when(pl.col("queue") == 3).then(None).otherwise(pl.col("ms")),
    )
    document = run(world, given)
    kept = given.filter(pl.col("arm").is_in(["old", "new"]) & pl.col("did").is_not_null())
    assert document["rows"]["kept"] == len(kept)
    assert document["rows"]["dropped"]["no executed action"] > 0
    with_value = kept.drop_nulls("ms")
    y, d, z, _ = arrays(with_value)
    assert metric(document)["estimate"] == pytest.approx(np.cov(z, y)[0, 1] / np.cov(z, d)[0, 1], rel=1e-8)
    assert any("count as not treated" in note for note in document["notes"])


def test_the_order_of_rows_does_not_matter_and_bytes_repeat(world: Any, frame: pl.DataFrame) -> None:
    world.write(frame, {**DESIGN, "design.adjust": ["tier", "prompt"]})
    world.run()
    first = {p.name: p.read_bytes() for p in world.out.rglob("*.*")}
    world.write(frame.sample(fraction=1.0, shuffle=True, seed=3), {**DESIGN, "design.adjust": ["tier", "prompt"]})
    world.run()
    assert {p.name: p.read_bytes() for p in world.out.rglob("*.*")} == first


def test_what_the_policy_chose_is_an_instrument_only_with_its_probabilities(world: Any, frame: pl.DataFrame) -> None:
    given = frame.rename({"arm": "plan"}).with_columns(p=0.5)
    columns = {**DESIGN["logs.columns"], "intended": "plan"}
    columns.pop("arm")
    changes = {"logs.columns": columns, "design.instrument": "plan"}
    outcome = run(world, given, changes)
    assert (outcome.code, "an instrument only where chance chose" in outcome.err) == (2, True)
    document = run(world, None, {**changes, "logs.columns": {**columns, "propensity": "p"}})
    y, d, z, user = arrays(frame)
    assert metric(document)["estimate"] == pytest.approx(np.cov(z, y)[0, 1] / np.cov(z, d)[0, 1], rel=1e-8)
    assert check(document, "bad_controls")["status"] == "pass"
    # Probabilities that differ are adjusted for: the choice is random given them.
    pro = (frame["tier"] == "pro").to_numpy()
    new = np.where(pro, 0.7, 0.3)
    given = given.with_columns(p=np.where(z == 1, new, 1 - new))
    document = run(world, given, {**changes, "logs.columns": {**columns, "propensity": "p"}})
    oracle = two_stage_least_squares(y, d, z, covariates=pro.astype(float), clusters=user, variance="cluster")
    assert metric(document)["estimate"] == pytest.approx(oracle.estimate, rel=1e-8)
    assert any("adjusted for the probability of the choice" in note for note in document["notes"])


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"design.instrument": "nope"}, 3, "the log has no column 'nope'"),
        ({"design.instrument": "at"}, 3, "expected numbers, true/false or text"),
        ({"design.instrument": "same"}, 3, "the instrument has one value"),
        ({"design.instrument": "nan"}, 3, "design.instrument.0: holds NaN or infinity"),
        ({"design.adjust": ["arm"]}, 2, "'arm' is the instrument"),
        ({"design.adjust": ["nan"]}, 3, "design.adjust.0: holds NaN or infinity"),
        ({"design.treatment": "other"}, 3, "no kept row of arm 'other'"),
        ({"design.treatment": ["new", "other"]}, 2, "several treatments in this design"),
        ({"logs.columns.executed": None}, 3, "needs a column for the role 'executed'"),
        ({"design.control": None, "design.treatment": None}, 3, "is String; expected numbers"),
        ({"estimator": "wald", "design.adjust": ["tier"]}, 2, "adjusts for nothing"),
        ({"estimator": "wald", "design.instrument": "queue", "metrics.spent": None}, 3, "an instrument of two values"),
        ({"design.instrument": "queue"}, 3, "metrics.spent.per: the instrument varies within 2"),
        ({"estimator": {"variance": "cluster"}}, 2, "needs the role 'cluster'"),
        ({"estimator": {"variance": "classical"}}, 3, "errors of independent rows would come out too small"),
        ({"estimator": {"variance": "cluster"}, "logs.columns.cluster": "queue"}, 3, "units stand in several clusters"),
        ({"metrics.latency.on": "untreated"}, 2, "untreated rows in this design"),
        ({"metrics.latency.quantile": 0.9}, 2, "quantiles in this design"),
        ({"logs.where": "arm = 'new'"}, 3, "no kept row of arm 'old'"),
        ({"logs.where": "did = 'old'"}, 3, "'new' was executed on no kept row"),
    ],
)
def test_what_cannot_be_read_is_refused_in_words(
    world: Any, frame: pl.DataFrame, changes: dict[str, Any], code: int, said: str
) -> None:
    given = frame.with_columns(same=pl.lit(1), nan=pl.lit(float("nan")))
    outcome = run(world, given, changes)
    assert not isinstance(outcome, dict), outcome["decision"]["headline"]
    assert (outcome.code, said in outcome.err) == (code, True), outcome.err


def test_a_number_of_an_action_has_no_arms(world: Any, frame: pl.DataFrame) -> None:
    changes = {
        "design": {"kind": "iv", "instrument": "queue"},
        "economics": {"cost": {"column": "cost", "usd": 1}},
        "rollback": [{"metric": "errors", "above": 0.5}],
        "metrics.spent": None,
        "logs.columns.executed": "tokens",
    }
    outcome = run(world, frame, changes)
    assert outcome.code == 2
    assert outcome.err.count("needs rows by arm") == 2


def test_economics_reads_net_value_on_those_who_are_moved(world: Any, frame: pl.DataFrame) -> None:
    document = run(world, frame, {"economics": {"cost": {"column": "cost", "usd": 0.01}}})
    cost = frame["cost"].to_numpy()
    _, d, z, _ = arrays(frame)
    net = -10.0 * np.cov(z, cost)[0, 1] / np.cov(z, d)[0, 1]
    assert document["economics"]["net_usd_per_1k_requests"]["estimate"] == pytest.approx(net, rel=1e-8)
    assert (
        "Net value against control on those whom the instrument moves: " in next(world.out.rglob("memo.md")).read_text()
    )


def test_exchanged_arms_are_seen(world: Any, frame: pl.DataFrame) -> None:
    document = run(world, frame.with_columns(did=pl.col("did").replace({"old": "new", "new": "old"})))
    found = check(document, "first_stage")
    assert found["status"] == "warn"
    assert "exchanged" in found["message"]


def assigned_by_tier(frame: pl.DataFrame, seed: int) -> pl.DataFrame:
    """The arm drawn with three chances in four on one tier, one in four on the other."""
    rng = np.random.default_rng(1000 + seed)
    units = frame.group_by("user").agg(pl.col("tier").first()).sort("user")
    new = rng.random(len(units)) < np.where(units["tier"] == "pro", 0.75, 0.25)
    arm = pl.Series(np.where(new, "new", "old")[frame["user"].to_numpy()])
    return frame.with_columns(arm=arm, did=pl.when(pl.col("user") % 4 == 0).then(pl.col("did")).otherwise(arm))


def test_checks_of_the_instrument_fire_where_it_is_broken_and_are_quiet_where_it_holds(world: Any) -> None:
    def evidence(frame: pl.DataFrame, adjust: list[str]) -> Evidence:
        path = world.write(frame, {**DESIGN, "design.adjust": adjust})
        return pipeline.gather(spec.load(path), START)

    states: dict[str, list[str]] = {}
    for seed in range(12):
        given = log(units=150, seed=seed)
        for title, frame, adjust in (
            ("holds", given, []),
            ("broken", assigned_by_tier(given, seed), []),
            ("adjusted", assigned_by_tier(given, seed), ["tier"]),
        ):
            found = evidence(frame, adjust)
            states.setdefault(title, []).append(instruments.covariate_balance(found).status)
            if title == "holds":
                states.setdefault("drawn", []).append(instruments.srm(found).status)
                lost = frame.filter((pl.col("arm") == "old") | (pl.col("user") % 5 < 2))
                found = evidence(lost, [])
                states.setdefault("lost", []).append(instruments.srm(found).status)
    assert states["holds"].count("pass") >= 10
    assert states["broken"] == ["fail"] * 12
    assert states["adjusted"].count("pass") >= 10
    assert states["drawn"] == ["pass"] * 12
    assert "fail" not in states["holds"] + states["adjusted"]
    assert states["lost"].count("fail") >= 9


def test_state_that_goes_with_the_instrument_only_warns(world: Any, frame: pl.DataFrame) -> None:
    given = frame.with_columns(queue=pl.col("queue") + 3 * (pl.col("arm") == "new"))
    document = run(world, given, {"logs.columns.state": ["queue"]})
    found = check(document, "covariate_balance")
    assert (found["status"], "earlier actions may have moved" in found["message"]) == ("warn", True)
    document = run(world, None, {"logs.columns.features": ["queue"]})
    found = check(document, "covariate_balance")
    assert (found["status"], found["action"]) == ("fail", "stronger_design")
    (row,) = [one for one in document["diagnostics"]["balance"] if one["covariate"] == "queue"]
    new = (given["arm"] == "new").to_numpy()
    queue = given["queue"].to_numpy().astype(float)
    spread = np.sqrt((queue[new].var() + queue[~new].var()) / 2)
    assert row["before"] == pytest.approx((queue[new].mean() - queue[~new].mean()) / spread, rel=1e-8)


def test_the_figure_shows_both_stages(world: Any, frame: pl.DataFrame) -> None:
    path = world.write(frame, DESIGN)
    assert world.command("run", path, "--out", world.out, "--quiet").code == 0
    svg = next(world.out.rglob("first_stage.svg")).read_text()
    for said in ("assigned arm", "old", "Mean latency"):
        assert said in svg


def test_rows_on_which_a_third_action_ran_are_kept_whatever_the_instrument(world: Any) -> None:
    """An instrument that moves rows to a third action selects them by it: left out, the rest is no longer alike."""
    rng = np.random.default_rng(4)
    n = 4000
    flag, slow = rng.integers(0, 2, n), rng.random(n) < 0.5
    did = np.where(flag == 0, "old", np.where(slow, "shed", np.where(rng.random(n) < 0.8, "new", "old")))
    frame = pl.DataFrame({"flag": flag, "did": did, "ms": 100 + 50 * slow - 10 * (did == "new") + rng.normal(0, 5, n)})
    changes: dict[str, Any] = {
        "design.instrument": "flag",
        "logs.columns": {"executed": "did"},
        "metrics": {"latency": {"column": "ms", "role": "primary", "better": "lower"}},
    }
    document = run(world, frame, changes)
    y, d = frame["ms"].to_numpy(), (did == "new").astype(float)
    assert document["rows"]["kept"] == n
    assert metric(document)["estimate"] == pytest.approx(np.cov(flag, y)[0, 1] / np.cov(flag, d)[0, 1], rel=1e-8)
    assert abs(metric(document)["estimate"] + 10) < 3 * metric(document)["std_error"]
    assert any(
        f"on {int((did == 'shed').sum()):,} rows neither 'old' nor 'new' ran" in note for note in document["notes"]
    )
    outcome = run(world, None, {**changes, "design.control": "odl"})
    assert (outcome.code, "'odl' was executed on no kept row" in outcome.err) == (3, True)


def test_the_action_under_another_name_is_doubted(world: Any, frame: pl.DataFrame) -> None:
    noisy = pl.when(pl.col("user") % 150 == 0).then(1 - (pl.col("did") == "new")).otherwise(pl.col("did") == "new")
    given = frame.with_columns(sent=(pl.col("did") == "new"), nearly=noisy)
    for name in ("sent", "nearly"):
        document = run(world, given, {"design.instrument": name, "metrics.spent": None})
        found = check(document, "first_stage")
        assert (found["status"], "the action under another name" in found["message"]) == ("warn", True), found
    # An arm that all obey was drawn.
    document = run(world, frame.with_columns(did=pl.col("arm")))
    assert check(document, "first_stage")["status"] == "pass"


def test_the_figure_says_zero_where_taking_adjusters_out_leaves_rounding(world: Any, frame: pl.DataFrame) -> None:
    """Nobody under the old arm is treated, and an adjuster is even over units and arms."""
    given = frame.with_columns(
        did=pl.when(pl.col("arm") == "old").then(pl.lit("old")).otherwise("did"),
        turn=pl.int_range(pl.len()) % 3,
    )
    document = run(world, given, {"design.adjust": ["turn"]})
    low = document["diagnostics"]["instrument_bins"]["bins"][0]
    assert low["taken"] == 0.0


def test_a_trigger_looks_at_the_rows_that_were_treated_not_at_those_assigned(world: Any, frame: pl.DataFrame) -> None:
    given = frame.with_columns(failed=(pl.col("did") == "new") & (pl.int_range(pl.len()) % 5 == 0))
    treated = given.filter(pl.col("did") == "new")
    limit = 0.8 * float(treated["failed"].mean())  # type: ignore[arg-type]
    assert given.filter(pl.col("arm") == "new")["failed"].mean() < limit  # type: ignore[operator]
    triggers = [{"metric": "errors", "above": limit}, {"expr": "failed", "above": limit, "where": "tier = 'pro'"}]
    document = run(world, given, {"rollback": triggers})
    assert document["decision"]["action"] == "rollback"
    first, second = document["diagnostics"]["rollback_triggers"]
    assert first["value"] == pytest.approx(treated["failed"].mean())
    assert second["value"] == pytest.approx(treated.filter(pl.col("tier") == "pro")["failed"].mean())
    assert f"on {len(treated):,} rows" in check(document, "rollback_trigger")["message"]
    assert "control 0)" in check(document, "rollback_trigger")["message"]
