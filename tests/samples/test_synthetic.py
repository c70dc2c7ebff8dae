"""Synthetic control: units over periods, a few of them treated from one period on."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import pytest

from estimators import synthetic_control, synthetic_did
from estimators.panel import Panel
from readout import pipeline
from readout.results import Check

EFFECT, START, PERIODS = -8.0, 30, 40
DESIGN = {
    "design": {"kind": "synthetic_control", "treated": ["r00"], "rollout_at": START, "shared_state": False},
    "logs.columns": {"unit": "region", "time": "day"},
    "metrics": {"ms": {"column": "ms", "role": "primary", "better": "lower", "minimum_effect": 1.0}},
}


def regions(
    seed: int = 0, units: int = 24, rows: int = 3, effect: float = EFFECT, apart: float = 0.0, early: float = 0.0
) -> pl.DataFrame:
    """Regions moved by three common factors; ``apart`` puts the treated where no mix comes, ``early`` moves it before
    the rollout."""
    rng = np.random.default_rng(seed)
    factors = np.cumsum(rng.normal(size=(PERIODS, 3)), axis=0)
    loads = rng.dirichlet(np.ones(3), units)
    level = 100.0 + 4.0 * loads @ factors.T
    level[0, START:] += effect
    level[0, ::2] += apart
    level[0, START - 6 : START] += early
    unit, day, _ = (a.ravel() for a in np.meshgrid(*(np.arange(k) for k in (units, PERIODS, rows)), indexing="ij"))
    noise = rng.normal(size=(units, PERIODS))
    return pl.DataFrame(
        {
            "region": [f"r{i:02d}" for i in unit],
            "day": day,
            "ms": (level + noise)[unit, day] + rng.normal(0.0, 0.1, len(unit)),
            "tokens": rng.integers(1, 9, len(unit)),
        }
    )


def wide(frame: pl.DataFrame, value: pl.Expr) -> Panel:
    """The panel by hand."""
    means = frame.group_by("region", "day").agg(value.alias("v")).sort("region", "day")
    y = means["v"].to_numpy().reshape(-1, PERIODS)
    names = sorted(frame["region"].unique())
    first = np.where(np.array(names) == "r00", START, PERIODS)
    return Panel(y, first, periods=tuple(map(str, range(PERIODS))), units=tuple(names))


def check(evidence: Any, name: str) -> Check:
    from readout import checks

    return next(one(evidence) for one in checks.of("synthetic_control") if one.__name__ == name)


@pytest.mark.parametrize(("method", "by_hand"), [("auto", synthetic_control), ("synthetic_did", synthetic_did)])
def test_a_readout_is_the_method_on_means_by_unit_and_period(world: Any, method: str, by_hand: Any) -> None:
    frame = regions()
    ratio = {"numerator": "ms", "denominator": "tokens", "role": "secondary", "better": "lower"}
    total = {"column": "tokens", "per": "unit", "role": "secondary", "better": "higher"}
    metrics = {**DESIGN["metrics"], "ratio": ratio, "total": total}
    world.write(frame.sample(fraction=1.0, shuffle=True, seed=1), {**DESIGN, "estimator": method, "metrics": metrics})
    document = world.run("--format", "json").json
    found = {m["metric"]: m for m in document["metrics"]}
    values = {
        "ms": pl.col("ms").mean(),
        "ratio": pl.col("ms").sum() / pl.col("tokens").sum(),
        "total": pl.col("tokens").sum(),
    }
    for name, value in values.items():
        expected = by_hand(wide(frame, value))
        for field in ("estimate", "std_error", "p_value", "ci_low", "ci_high", "control_value", "treatment_value"):
            assert found[name][field] == pytest.approx(getattr(expected, field), rel=1e-7), (name, field)
    assert document["design"]["estimand"] == "att"
    assert document["design"]["n_units"] == {document["design"]["control"]: 23, document["design"]["treatments"][0]: 1}
    weights = document["diagnostics"]["donor_weights"]
    assert sum(weights.values()) == pytest.approx(1.0)
    assert found["ms"]["ci_low"] < EFFECT < found["ms"]["ci_high"] < 0.0


def test_a_rollout_that_is_seen_and_passes_its_checks_ships(world: Any) -> None:
    path = world.write(regions(3), DESIGN)
    readout, folder = pipeline.run(path, out=world.out, as_of=datetime(2026, 11, 20, tzinfo=UTC))
    memo = (folder / "memo.md").read_bytes()
    assert (readout.decision.action, readout.decision.rule) == ("ship", "keep_what_runs")
    assert "all traffic" not in readout.decision.next_step
    assert memo.index(b"## What must be true") < memo.index(b"## What was compared")
    assert b"r00" in (folder / "figures" / "synthetic.svg").read_bytes()
    again = pipeline.run(path, out=world.out, as_of=datetime(2026, 11, 20, tzinfo=UTC))[1]
    assert (again / "memo.md").read_bytes() == memo


def ran(start: int = START, donors: tuple[str, ...] = ()) -> pl.DataFrame:
    """Regions with what was executed: the treatment in r00 from ``start`` on, and in donors from the rollout on."""
    on = (pl.col("region") == "r00") & (pl.col("day") >= start)
    on |= pl.col("region").is_in(list(donors)) & (pl.col("day") >= START)
    return regions(3).with_columns(action=pl.when(on).then(pl.lit("new")).otherwise(pl.lit("old")))


@pytest.mark.parametrize(
    ("frame", "arms", "status", "said"),
    [
        (ran(), ("old", "new"), "pass", "0 % of treated rows"),
        (ran(), ("new", "old"), "fail", "were not treated: 'r01', 'r02'"),
        (ran(donors=("r04", "r07")), ("old", "new"), "fail", "in 2 units that it says were not treated: 'r04', 'r07'"),
        (ran(START - 4), ("old", "new"), "fail", "of treated rows stand before their unit's rollout"),
        (ran(START + 3), ("old", "new"), "fail", "not treated at first, or not to the end, or never: 'r00'"),
        (ran(), ("old", "newest"), "fail", "none has executed newest"),
        (ran(), (None, None), "skip", "design.treatment"),
    ],
)
def test_what_ran_must_be_what_the_rollout_says(
    world: Any, frame: pl.DataFrame, arms: tuple[str | None, str | None], status: str, said: str
) -> None:
    named = {} if arms[0] is None else {"design.control": arms[0], "design.treatment": arms[1]}
    columns = {**DESIGN["logs.columns"], "executed": "action"}
    world.write(frame, {**DESIGN, **named, "logs.columns": columns})
    document = world.run("--format", "json").json
    found = next(c for c in document["checks"] if c["name"] == "treatment_start")
    assert (found["status"], document["decision"]["action"]) == (status, "pause" if status == "fail" else "ship")
    assert said in found["message"]


def test_a_placebo_that_could_have_missed_the_effect_warns(world: Any) -> None:
    world.write(regions(4, units=7), {**DESIGN, "estimator": "synthetic_did"})
    document = world.run("--format", "json").json
    assert next(c for c in document["checks"] if c["name"] == "placebo")["status"] == "pass"
    world.write(
        regions(4, units=7, effect=-0.4), {**DESIGN, "estimator": "synthetic_did", "metrics.ms.minimum_effect": 0.1}
    )
    found = next(c for c in world.run("--format", "json").json["checks"] if c["name"] == "placebo")
    assert found["status"] == "warn"
    assert "passing says little" in found["message"]


def test_the_figures_words_name_placebos_only_where_they_are_drawn(world: Any) -> None:
    for method, drawn in (("synthetic_control", True), ("synthetic_did", False)):
        path = world.write(regions(3), {**DESIGN, "estimator": method})
        _, folder = pipeline.run(path, out=world.out, as_of=datetime(2026, 11, 20, tzinfo=UTC))
        assert ("among those of 23 placebos" in (folder / "memo.md").read_text()) == drawn


def test_asked_for_more_than_the_treated_it_ramps(world: Any) -> None:
    world.write(regions(3), {**DESIGN, "decision.frame": "ship"})
    decision = world.run("--format", "json").json["decision"]
    assert (decision["action"], decision["rule"]) == ("ramp", "narrower_than_asked")


def test_no_clearer_log_promises_more_than_the_design_allows(world: Any) -> None:
    guardrail = {"column": "tokens", "role": "guardrail", "better": "lower", "margin": 0.001}
    for frame, promised in (("ship", False), ("explain", True)):
        metrics = {**DESIGN["metrics"], "tokens": guardrail}
        world.write(regions(3), {**DESIGN, "decision.frame": frame, "metrics": metrics})
        decision = world.run("--format", "json").json["decision"]
        assert decision["rule"] == "not_clear_enough"
        assert decision["would_change"][0].endswith(": ship.") == promised


def test_too_few_units_for_a_rank_give_no_interval_and_say_so(world: Any) -> None:
    world.write(regions(units=10), DESIGN)
    document = world.run("--format", "json").json
    (found,) = document["metrics"]
    assert (found["ci_low"], found["ci_high"], found["verdict"]) == (None, None, "inconclusive")
    assert "among 10 no rank is rarer than 1 in 10" in found["note"]
    assert document["decision"]["action"] == "stronger_design"
    assert "until there are 20 units" in document["decision"]["next_step"]
    assert "inf" not in world.run("--format", "markdown").out.replace("infin", "")


def rates(gather: Any, name: str, seeds: int, **broken: float) -> dict[str, float]:
    found = [check(gather(regions(s, rows=1, **broken), DESIGN["metrics"], **_dotted()), name) for s in range(seeds)]
    return {status: sum(c.status == status for c in found) / seeds for status in ("pass", "warn", "fail", "skip")}


def _dotted() -> dict[str, Any]:
    return {"design": DESIGN["design"], "logs__columns": DESIGN["logs.columns"]}


def test_checks_are_quiet_where_the_mix_follows_and_fire_where_it_cannot(gather: Any) -> None:
    for name, broken in (("pre_period_fit", {"apart": 25.0}), ("placebo", {"early": 12.0})):
        assert rates(gather, name, 12, effect=0.0)["fail"] <= 1 / 6
        assert rates(gather, name, 8, **broken)["fail"] == 1.0


@pytest.mark.parametrize(
    ("change", "where", "message"),
    [
        ({"design.treated": ["r99"]}, "design.treated", "no kept row is of the unit 'r99'"),
        ({"design.rollout_at": 0}, "design.rollout_at", "no period before the rollout"),
        ({"design.rollout_at": 77}, "design.rollout_at", "no period from the rollout on"),
        ({"logs.where": "region = 'r00'"}, "design.treated", "every unit in the log is treated"),
    ],
)
def test_what_cannot_be_compared_is_refused_at_its_key(world: Any, change: Any, where: str, message: str) -> None:
    world.write(regions(units=4), {**DESIGN, **change})
    outcome = world.run()
    assert outcome.code == 3
    assert where in outcome.err
    assert message in outcome.err


def test_a_gap_in_the_panel_names_the_unit(world: Any) -> None:
    frame = regions().filter(~((pl.col("region") == "r05") & (pl.col("day") == 7)))
    world.write(frame, DESIGN)
    (found,) = world.run("--format", "json").json["metrics"]
    assert found["estimate"] is None
    assert "r05" in found["note"]
    assert world.run("--format", "json").json["decision"]["next_step"].startswith("Mend what keeps ms")
