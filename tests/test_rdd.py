"""Regression discontinuities end to end: what a user of ``readout run`` sees."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from estimators import local_linear, local_ratio
from readout import pipeline
from readout.memo import markdown
from readout.memo.figures import alt_text, draw
from readout.results import Check, Readout
from readout.spec.starter import starter
from tests.conftest import AS_OF

CUTOFF = 2000.0
DESIGN: dict[str, Any] = {
    "kind": "rdd", "control": "current", "treatment": "premium", "running": "tokens", "cutoff": CUTOFF,
}  # fmt: skip
METRIC = {"column": "ttft", "role": "primary", "better": "lower", "minimum_effect": "2%"}
BASE: dict[str, Any] = {
    "logs.columns": {"executed": "ran", "features": ["tier"], "state": ["queue"]},
    "design": DESIGN,
    "metrics": {"ttft": METRIC, "errors": {"column": "err", "role": "guardrail", "better": "lower", "margin": 0.3}},
}


def log(n: int = 3000, seed: int = 1, fuzzy: bool = False, effect: float = -40.0) -> pl.DataFrame:
    """Requests whose premium fleet begins at 2,000 tokens; fuzzy: mostly."""
    rng = np.random.default_rng(seed)
    tokens = rng.gamma(3.0, 700.0, n).round() + 1
    queue = rng.poisson(6, n)
    above = tokens >= CUTOFF
    ran = rng.random(n) < np.where(above, 0.85, 0.15) if fuzzy else above
    return pl.DataFrame(
        {
            "tokens": tokens,
            "tier": np.where(rng.random(n) < 0.4, "pro", "free"),
            "queue": queue,
            "ran": np.where(ran, "premium", "current"),
            "ttft": 300.0 + 0.08 * tokens + 8.0 * queue + effect * ran + rng.normal(0.0, 60.0, n),
            "err": rng.random(n) < 0.05,
            "cost": 0.001 * tokens + rng.random(n),
            "ok": (rng.random(n) < 0.95).astype(int),
            "user": np.arange(n) // 3,
        }
    )


def read(world: Any, frame: pl.DataFrame, **changes: Any) -> Readout:
    readout: Readout = world.readout(frame, {**BASE, **{k.replace("__", "."): v for k, v in changes.items()}})
    return readout


def check(readout: Readout, name: str) -> Check:
    return next(c for c in readout.checks if c.name == name)


def arrays(frame: pl.DataFrame) -> dict[str, np.ndarray]:
    return {name: frame[name].cast(pl.Float64).to_numpy() for name in ("tokens", "ttft", "queue", "cost", "ok", "err")}


def agrees(readout: Readout, metric: str, wanted: Any) -> None:
    found = next(m for m in readout.metrics if m.metric == metric)
    for name in ("estimate", "std_error", "ci_low", "ci_high", "control_value", "treatment_value", "relative"):
        assert getattr(found, name) == pytest.approx(getattr(wanted, name), rel=1e-9), name
    assert (found.n_control, found.n_treatment) == (wanted.n_control, wanted.n_treatment)


def test_a_sharp_cutoff_is_read_as_the_estimator_reads_it(world: Any) -> None:
    frame = log()
    found, a = read(world, frame), arrays(frame)
    agrees(found, "ttft", wanted := local_linear(a["ttft"], a["tokens"], cutoff=CUTOFF))
    assert found.diagnostics["bandwidth"] == pytest.approx(wanted.diagnostics["bandwidth"])
    above = int((a["tokens"] >= CUTOFF).sum())
    assert found.design["n_units"] == {"current": len(frame) - above, "premium": above}
    assert (found.design["estimand"], found.design["unit"]) == ("local", "row")
    assert (found.decision.action, found.decision.rule) == ("target", "effect_is_local")
    assert found.decision.headline.startswith("Ship premium to those near the cutoff: ttft -")
    assert {c.status for c in found.checks if c.family in ("identification", "assignment")} == {"pass", "skip"}


def test_options_reach_the_estimator(world: Any) -> None:
    frame = log()
    a = arrays(frame)
    options = {"kernel": "uniform", "order": 2, "variance": "hc1"}
    found = read(
        world, frame, estimator={"method": "local_linear", **options}, design__covariates=["queue"],
        design__bandwidth={"h": 700, "b": 900},
    )  # fmt: skip
    wanted = local_linear(a["ttft"], a["tokens"], cutoff=CUTOFF, covariates=a["queue"], h=700.0, b=900.0, **options)
    agrees(found, "ttft", wanted)
    assert found.diagnostics["bandwidth"] == {"h": 700.0, "b": 900.0}
    same = read(world, frame, design__bandwidth=700)
    assert same.diagnostics["bandwidth"] == {"h": 700.0, "b": 700.0}


def test_errors_are_clustered_where_units_repeat(world: Any) -> None:
    frame = log()
    a = arrays(frame)
    found = read(world, frame, logs__columns={"executed": "ran", "unit": "user"})
    agrees(found, "ttft", local_linear(a["ttft"], a["tokens"], cutoff=CUTOFF, clusters=frame["user"].to_numpy()))
    assert found.design["unit"] == "unit"
    assert "units, by which errors are clustered" in found.metrics[0].note
    few = read(world, frame.with_columns(user=pl.col("user") % 20), logs__columns={"unit": "user"})
    assert "{variance: hc3} allows for it" in few.metrics[0].note


def test_sums_within_units_are_one_value_a_unit(world: Any) -> None:
    frame = log().with_columns(tokens=pl.col("tokens").first().over("user"), ran=pl.lit("current"))
    frame = frame.with_columns(cost=pl.when(pl.col("user") != 7).then("cost"))
    metrics = {**BASE["metrics"], "spent": {"column": "cost", "per": "unit", "better": "lower"}}
    columns = {"unit": "user"}
    found = read(world, frame, metrics=metrics, logs__columns=columns)
    units = frame.filter(pl.col("user") != 7).group_by("user").agg(pl.col("cost").sum(), pl.col("tokens").first())
    wanted = local_linear(units["cost"].to_numpy(), units["tokens"].to_numpy(), cutoff=CUTOFF)
    agrees(found, "spent", wanted)
    moving = log()
    world.write(moving, {**BASE, "metrics": metrics, "logs.columns": columns})
    done = world.run("--format", "json")
    assert done.code == 3
    assert "'tokens' varies within 1,000 of 1,000 units ('0', '1', '2' …)" in done.json["errors"][0]["message"]


def test_a_ratio_and_net_value_are_read_at_the_cutoff(world: Any) -> None:
    frame = log()
    a = arrays(frame)
    metrics = {**BASE["metrics"], "unit_cost": {"numerator": "cost", "denominator": "ok", "better": "lower"}}
    economics = {"value": {"metric": "errors", "usd": 0.5}, "cost": {"column": "cost", "usd": 0.1}}
    found = read(world, frame, metrics=metrics, economics=economics)
    agrees(found, "unit_cost", local_ratio(a["cost"], a["ok"], a["tokens"], cutoff=CUTOFF))
    net = local_linear(0.5 * a["err"] - 0.1 * a["cost"], a["tokens"], cutoff=CUTOFF)
    assert found.economics is not None
    assert found.economics["net_usd_per_1k_requests"]["estimate"] == pytest.approx(1000.0 * net.estimate, rel=1e-9)
    assert found.economics["net_usd_per_1k_requests"]["ci_low"] == pytest.approx(1000.0 * net.ci_low, rel=1e-9)
    above = a["tokens"] >= CUTOFF
    assert found.economics["per_arm"]["premium"]["cost_usd"] == pytest.approx(0.1 * a["cost"][above].sum())
    assert any("net value against control is that at the cutoff" in note for note in found.notes)


def test_a_fuzzy_cutoff_divides_by_the_jump_of_what_ran(world: Any) -> None:
    frame = log(fuzzy=True, effect=-90.0).with_columns(ran=pl.when(pl.int_range(pl.len()) != 5).then("ran"))
    found = read(world, frame, design__fuzzy=True)
    known = frame.drop_nulls("ran")
    a = arrays(known)
    takeup = (known["ran"] == "premium").to_numpy().astype(float)
    agrees(found, "ttft", wanted := local_linear(a["ttft"], a["tokens"], cutoff=CUTOFF, takeup=takeup))
    assert found.diagnostics["first_stage_f"] == pytest.approx(wanted.diagnostics["first_stage_f"])
    assert found.rows.dropped == {"no executed action": 1}
    assert check(found, "first_stage").status == "pass"
    assert "among those whom crossing it treats" in found.metrics[0].estimand
    assert "to those near the cutoff whom crossing it treats" in found.decision.headline
    assert "premium ran on 1" in found.assignment
    assert [a.checks for a in found.assumptions][:2] == [("first_stage",), ()]


def test_a_weak_or_reversed_first_stage_fails(world: Any) -> None:
    weak = log(fuzzy=True).with_columns(ran=pl.Series(np.where(np.arange(3000) % 2 == 0, "premium", "current")))
    found = check(read(world, weak, design__fuzzy=True), "first_stage")
    assert (found.status, found.action) == ("fail", "stronger_design")
    turned = read(
        world, log(fuzzy=True), design={**DESIGN, "fuzzy": True, "control": "premium", "treatment": "current"}
    )
    assert "swap design.control and design.treatment" in check(turned, "first_stage").message
    assert turned.decision.action == "stronger_design"


def test_a_cutoff_that_does_not_decide_alone_pauses(world: Any) -> None:
    found = read(world, log(fuzzy=True))
    start = check(found, "treatment_start")
    assert (start.status, start.action, found.decision.action) == ("fail", "pause", "pause")
    assert "say design.fuzzy: true" in start.message
    assert found.assumptions[0].standing == "broken"
    unnamed = {k: v for k, v in DESIGN.items() if k not in ("control", "treatment")}
    silent = read(world, log(), design=unnamed)
    assert check(silent, "treatment_start").status == "skip"
    assert silent.assumptions[0].standing == "cannot be seen"
    assert silent.decision.headline.startswith("Ship 'tokens >= 2000' to those near the cutoff")


def test_a_cutoff_that_is_stated_a_little_off_is_seen(world: Any) -> None:
    found = check(read(world, log(), design__cutoff=CUTOFF + 20), "treatment_start")
    assert (found.status, found.action) == ("fail", "pause")
    assert "is the cutoff elsewhere? the treatment begins at 2,00" in found.message


def test_sorting_across_the_cutoff_is_seen(world: Any) -> None:
    frame = log()
    near = (pl.col("tokens") < CUTOFF) & (pl.col("tokens") > CUTOFF - 200)
    moved = frame.with_columns(tokens=pl.when(near).then(CUTOFF + pl.col("tokens") % 120).otherwise("tokens"))
    found = check(read(world, moved, logs__columns={}), "density")
    assert (found.status, found.action) == ("fail", "stronger_design")
    coarse = frame.with_columns(tokens=(pl.col("tokens") / 50).floor() * 50)
    seen = read(world, coarse, logs__columns={})
    assert check(seen, "density").status == "skip"
    assert "tokens takes" in check(seen, "density").message
    assert "how far the outcome bends between them is not in the interval" in seen.metrics[0].note


def test_the_density_is_of_units_not_of_their_rows(world: Any) -> None:
    one = log(600).with_columns(user=pl.int_range(pl.len()))
    many = pl.concat([one] * 15)
    seen = [
        check(read(world, frame, logs__columns={"unit": "user"}), "density") for frame in (one, many)
    ]  # fmt: skip
    assert seen[0].p_value == pytest.approx(seen[1].p_value)
    assert "600 units, a row each" in seen[1].message


def test_what_jumps_beside_the_treatment_is_named(world: Any) -> None:
    frame = log().with_columns(tier=pl.when(pl.col("tokens") >= CUTOFF).then(pl.lit("pro")).otherwise("tier"))
    found = read(world, frame)
    jumps = check(found, "covariate_continuity")
    assert (jumps.status, jumps.action) == ("fail", "stronger_design")
    assert "'tier = pro'" in jumps.message or "'tier = free'" in jumps.message
    assert "queue" not in jumps.message
    quiet = read(world, log(), checks={"covariate_continuity": {"threshold": 1e-12}})
    assert check(quiet, "covariate_continuity").threshold == 1e-12
    assert check(read(world, log(), logs__columns={}), "covariate_continuity").status == "skip"


def test_a_bandwidth_that_takes_a_bend_for_a_jump_is_seen(world: Any) -> None:
    bent = log(effect=0.0).with_columns(
        ttft=pl.col("ttft") + 400.0 * (1 - ((-(pl.col("tokens") - CUTOFF).clip(0.0, None)) / 200.0).exp())
    )
    found = read(world, bent, design__bandwidth=1500)
    moved = check(found, "bandwidth_sensitivity")
    assert (moved.status, moved.action) == ("fail", "stronger_design")
    assert "takes a bend for part of the jump" in moved.message
    assert check(read(world, bent), "bandwidth_sensitivity").status == "pass"
    assert {row["at"] for row in found.diagnostics["bandwidth_sensitivity"]} > {0.5, 0.75, 1.25, 1.5, 2.0}
    assert len(found.diagnostics["donut"]) == 3


def test_a_jump_elsewhere_is_seen(world: Any) -> None:
    frame = log()
    median = frame.filter(pl.col("tokens") < CUTOFF)["tokens"].median()
    found = read(world, frame.with_columns(ttft=pl.col("ttft") + 80.0 * (pl.col("tokens") >= median)))
    assert check(found, "placebo").status == "fail"
    assert "jumps where nothing happens: ttft" in check(found, "placebo").message
    assert check(read(world, log(150)), "placebo").status == "skip"


def test_checks_are_quiet_where_the_design_holds(world: Any) -> None:
    fired = dict.fromkeys(("density", "covariate_continuity", "bandwidth_sensitivity", "placebo"), 0)
    for seed in range(16):
        found = read(world, log(1500, seed=100 + seed))
        for name in fired:
            fired[name] += check(found, name).status == "fail"
    assert max(fired.values()) <= 4, fired


def test_the_memo_leads_with_what_must_be_true_and_shows_the_figure(world: Any, tmp_path: Path) -> None:
    world.write(log(fuzzy=True), {**BASE, "design": {**DESIGN, "fuzzy": True}})
    found, folder = pipeline.run(world.folder / "spec.yaml", out=tmp_path / "out", as_of=AS_OF)
    memo = (folder / "memo.md").read_text()
    assert memo.index("## What must be true") < memo.index("## What was compared") < memo.index("## Effects")
    assert "Nobody places requests on one side of the cutoff on purpose." in memo
    assert "figures/discontinuity.svg" in found.figures
    svg = (folder / "figures" / "discontinuity.svg").read_text()
    for text in ("ttft by tokens", "cutoff 2,000", "share on which premium ran", "over that of take-up"):
        assert text in svg
    assert "take-up goes from 1" in alt_text("figures/discontinuity.svg", found)
    assert draw(found)["figures/discontinuity.svg"].decode() == svg


def test_the_order_of_rows_does_not_matter_and_bytes_repeat(world: Any) -> None:
    frame = log(1500).with_columns(tier=pl.when(pl.col("user") % 9 > 0).then("tier"))
    given = {**BASE, "logs.columns": {**BASE["logs.columns"], "unit": "user"}, "design.covariates": ["queue"]}
    written = []
    for one in (frame, frame, frame.sample(fraction=1.0, shuffle=True, seed=3)):
        world.write(one, given)
        assert world.run("--out", world.folder / "again").code == 0
        folder = next((world.folder / "again" / "probe").iterdir())
        written.append([(folder / name).read_bytes() for name in ("memo.md", "readout.json")])
    assert written[0] == written[1] == written[2]


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"metrics.ttft.quantile": 0.9}, "metrics.ttft.quantile"),
        ({"metrics.ttft.robust": {"method": "winsorize"}}, "metrics.ttft.robust"),
        ({"metrics.errors.on": "untreated"}, "metrics.errors.on"),
        ({"design.covariates": ["tokens"]}, "design.covariates"),
        ({"decision": {"looks": "sequential"}}, "decision.looks"),
        ({"design.treatment": ["premium", "turbo"]}, "design.treatment"),
        ({"design.fuzzy": True, "design.control": None, "design.treatment": None}, "design.control"),
    ],
)
def test_what_cannot_be_done_is_refused_at_its_key(world: Any, changes: dict[str, Any], where: str) -> None:
    world.write(log(200), {**BASE, **changes})
    done = world.run("--format", "json")
    assert done.code == 2
    assert any(where in error["message"] for error in done.json["errors"])


def infinite(frame: pl.DataFrame, column: str) -> pl.DataFrame:
    return frame.with_columns(pl.when(pl.int_range(pl.len()) == 3).then(float("inf")).otherwise(column).alias(column))


TIRED: list[tuple[str, Callable[[pl.DataFrame], pl.DataFrame], dict[str, Any], str]] = [
    ("one side", lambda f: f.filter(pl.col("tokens") < CUTOFF), {}, "every kept row stands on one side of the cutoff"),
    ("no rows", lambda f: f.filter(pl.col("tokens") < 0), {}, "the log has no rows"),
    ("text", lambda f: f.with_columns(pl.col("tokens").cast(pl.String)), {}, "is String; expected numbers"),
    ("not there", lambda f: f.drop("tokens"), {}, "'tokens'"),
    ("null", lambda f: f.with_columns(tokens=pl.lit(None, dtype=pl.Float64)), {}, "no row is left"),
    ("infinite running", lambda f: infinite(f, "tokens"), {}, "design.running"),
    ("infinite covariate", lambda f: infinite(f, "cost"), {"design.covariates": ["cost"]}, "design.covariates"),
    ("no action", lambda f: f.drop("ran"), {"design.fuzzy": True, "logs.columns": {}}, "the role 'executed'"),
    ("a time", lambda f: f.with_columns(t=pl.date(2026, 1, 1)), {"design.covariates": ["t"]}, "true/false or text"),
    ("names", lambda f: pl.concat([f] * 6).with_columns(t=pl.int_range(pl.len()).cast(pl.String)),
     {"design.covariates": ["t"]}, "1,200 different texts; expected groups"),
    ("another label", lambda f: f, {"design.fuzzy": True, "design.treatment": "turbo"}, "turbo ran on no kept row"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "changes", "said"), [t[1:] for t in TIRED], ids=[t[0] for t in TIRED])
def test_logs_that_cannot_carry_it_are_refused_in_words(world: Any, change: Any, changes: Any, said: str) -> None:
    world.write(change(log(200)), {**BASE, **changes})
    done = world.run("--format", "json")
    assert done.code == 3, done.err
    assert said in json.dumps(done.json)


@pytest.mark.parametrize("rows", [2, 6, 25])
def test_a_few_rows_give_a_readout_without_an_effect(world: Any, rows: int) -> None:
    frame = log(400).sort((pl.col("tokens") - CUTOFF).abs()).head(rows)
    if frame["tokens"].min() < CUTOFF <= frame["tokens"].max():  # type: ignore[operator]
        found = read(world, frame, logs__columns={"executed": "ran", "unit": "user", "features": ["tier"]})
        assert found.decision.action in ("stronger_design", "pause", "target", "ramp", "rollback")
        assert "Traceback" not in markdown.memo(found)


def test_rollback_looks_at_all_treated_rows(world: Any) -> None:
    frame = log().with_columns(tokens=pl.col("tokens").first().over("user"))
    above = frame.filter(pl.col("tokens") >= CUTOFF)
    mean = above.group_by("user").agg(pl.col("cost").sum())["cost"].mean()
    metrics = {**BASE["metrics"], "spent": {"column": "cost", "per": "unit", "better": "lower"}}
    trigger = [{"metric": "spent", "above": 1.0}, {"metric": "errors", "above": 0.5}]
    found = read(world, frame, metrics=metrics, rollback=trigger, logs__columns={"unit": "user"})
    assert found.decision.action == "rollback"
    assert check(found, "rollback_trigger").value == pytest.approx(mean)


def test_the_starter_runs_and_finds_what_the_bound_does(tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(starter("rdd"))
    found, _ = pipeline.run(spec, out=tmp_path, as_of=AS_OF, figures=False)
    assert found.metrics[0].verdict == "worse"
    log = pl.read_parquet(Path(__file__).parents[1] / "sample_logs" / "router_rct.parquet")
    routed = log.filter((pl.col("arm") == "premium") & (pl.col("intended_action") == "premium"))
    assert found.design["cutoff"] == routed["prompt_tokens"].max() + 1  # type: ignore[operator]
    assert check(found, "first_stage").value > 100  # type: ignore[operator]
    assert not [c.name for c in found.checks if c.family == "identification" and c.status == "fail"]


def test_check_shows_no_effect(world: Any) -> None:
    world.write(log(), BASE)
    done = world.command("check", world.folder / "spec.yaml", "--as-of", AS_OF.isoformat())
    assert done.code == 0
    assert "density" in done.out
    assert "bandwidth_sensitivity" not in done.out


@pytest.mark.parametrize(("key", "label"), [("treatment", "premum"), ("control", "curent")])
def test_a_misspelt_action_is_refused_with_those_of_the_log(world: Any, key: str, label: str) -> None:
    world.write(log(300), {**BASE, f"design.{key}": label})
    done = world.run()
    assert done.code == 3
    assert f"{label} ran on no kept row" in done.err
    assert "actions in the log: 'current', 'premium'" in done.err


def test_exchanged_sides_are_named_as_such(world: Any) -> None:
    found = read(world, log(400), design__control="premium", design__treatment="current")
    said = check(found, "treatment_start")
    assert (said.status, found.decision.action) == ("fail", "pause")
    assert "are control and treatment exchanged?" in said.message
    assert "fuzzy" not in said.message


@pytest.mark.parametrize(
    ("cutoff", "said"), [(0.0, "cutoff 0<"), (1e6, "cutoff 1,000,000<"), (2000.5, "cutoff 2,000.5<")]
)
def test_the_figure_names_any_cutoff(world: Any, cutoff: float, said: str) -> None:
    frame = log(400).with_columns(tokens=pl.col("tokens") - CUTOFF + cutoff)
    found = read(world, frame, design__cutoff=cutoff)
    svg = draw(found)["figures/discontinuity.svg"].decode()
    assert said in svg
    assert f"the cutoff {said[7:-1]} at" in alt_text("figures/discontinuity.svg", found)


def test_a_trigger_of_a_fuzzy_cutoff_looks_at_what_ran(world: Any) -> None:
    frame = log(fuzzy=True)
    treated = frame.filter(pl.col("ran") == "premium")["err"].mean()
    found = read(world, frame, design__fuzzy=True, rollback=[{"metric": "errors", "above": 0.5}])
    (row,) = check(found, "rollback_trigger").details["rollback_triggers"]
    assert (row["status"], row["value"]) == ("quiet", pytest.approx(treated))


def test_text_covariates_are_read_by_level(world: Any) -> None:
    frame = log().with_columns(ttft=pl.col("ttft") + 100 * (pl.col("tier") == "pro"))
    a, pro = arrays(frame), (frame["tier"] == "pro").cast(pl.Float64).to_numpy()
    wanted = local_linear(a["ttft"], a["tokens"], cutoff=CUTOFF, covariates=pro)
    found = read(world, frame, design__covariates=["tier"])
    agrees(found, "ttft", wanted)
    assert any("lines are those without covariates" in note for note in found.notes)
    assert check(found, "treatment_start").message.startswith("premium ran on all ")
