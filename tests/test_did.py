"""Difference in differences end to end: logs of rollouts whose truth is known, read as a user would."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

START = datetime(2026, 10, 5, tzinfo=UTC)
DAYS = 12
EFFECT = -20.0


def log(
    *,
    seed: int = 1,
    units: int = 60,
    rows: int = 3,
    effect: float = EFFECT,
    slope: float = 0.0,
    starts: tuple[int, ...] = (5, 8),
    noise: float = 8.0,
) -> pl.DataFrame:
    """Rows of units over days; half of the units start in turn on the days ``starts``. ``slope`` adds a trend a day to
    those that will be treated."""
    rng = np.random.default_rng(seed)
    unit = np.repeat(np.arange(units), DAYS * rows)
    day = np.tile(np.repeat(np.arange(DAYS), rows), units)
    cohorts = np.array([starts[i // 2 % len(starts)] if i % 2 else DAYS + 90 for i in range(units)])
    first = cohorts[unit]
    level = rng.normal(0, 15, units)[unit] + rng.normal(0, 4, (units, DAYS))[unit, day]
    trend = slope * day * (first < DAYS)
    ms = 200 + level + 2.0 * day + trend + np.where(day >= first, effect, 0.0) + rng.normal(0, noise, len(unit))
    return pl.DataFrame(
        {
            "at": [
                START + timedelta(days=int(d), minutes=int(m))
                for d, m in zip(day, rng.integers(0, 1440, len(day)), strict=True)
            ],
            "user": [f"u{i:03d}" for i in unit],
            "site": [f"s{i // 4:02d}" for i in unit],
            "from": [None if f >= DAYS else (START + timedelta(days=int(f))).date() for f in first],
            "did": np.where(day >= first, "new", "old"),
            "ms": ms,
            "failed": rng.random(len(unit)) < 0.02,
            "cost": rng.gamma(4.0, 1.0, len(unit)),
            "tokens": rng.integers(1, 400, len(unit)),
            "tier": np.where(unit % 3 == 0, "pro", "free"),
        },
        schema_overrides={"from": pl.Date},
    )


DESIGN: dict[str, Any] = {
    "design": {"kind": "did", "rollout": "from", "control": "old", "treatment": "new", "period": "1d"},
    "logs.columns": {"time": "at", "unit": "user", "executed": "did"},
    "metrics": {
        "latency": {"column": "ms", "role": "primary", "better": "lower", "minimum_effect": "2%"},
        "errors": {"column": "failed", "role": "guardrail", "better": "lower", "margin": 0.1},
        "unit_cost": {"numerator": "cost", "denominator": "tokens", "better": "lower"},
        "spent": {"column": "cost", "per": "unit", "better": "lower"},
    },
}


def run(world: Any, frame: pl.DataFrame | None, changes: Mapping[str, Any] | None = None, *arguments: str) -> Any:
    world.write(frame, {**DESIGN, **(changes or {})})
    outcome = world.run("--format", "json", *arguments)
    return outcome.json if outcome.code in (0, 1) else outcome


def metric(document: Any, name: str) -> Any:
    return next(m for m in document["metrics"] if m["metric"] == name)


def check(document: Any, name: str) -> Any:
    return next(c for c in document["checks"] if c["name"] == name)


def wide(frame: pl.DataFrame, value: pl.Expr) -> tuple[np.ndarray, np.ndarray]:
    """``(n, T)`` means by user and day, sorted by user, and each user's first treated day."""
    cells = frame.with_columns(day=pl.col("at").dt.date()).group_by("user", "day").agg(value.alias("v"))
    table = cells.pivot("day", index="user", values="v", sort_columns=True).sort("user")
    first = frame.group_by("user").agg(pl.col("from").first()).sort("user")["from"]
    days = [date.fromisoformat(c) for c in table.columns[1:]]
    return table.drop("user").to_numpy().astype(float), np.array([99 if f is None else days.index(f) for f in first])


def simple_att(y: np.ndarray, first: np.ndarray) -> float:
    """Callaway and Sant'Anna's effects by hand, over treated unit-days alike."""
    total = weight = 0.0
    for g in sorted({int(f) for f in first if f < 99}):
        mine, never = first == g, first == 99
        for t in range(g, y.shape[1]):
            change = y[:, t] - y[:, g - 1]
            total += mine.sum() * (change[mine].mean() - change[never].mean())
            weight += mine.sum()
    return float(total / weight)


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    return log()


def test_effects_are_those_of_the_log_computed_by_hand(world: Any, frame: pl.DataFrame) -> None:
    document = run(world, frame)
    values = {
        "latency": pl.col("ms").mean(),
        "errors": pl.col("failed").mean(),
        "unit_cost": pl.col("cost").sum() / pl.col("tokens").sum(),
        "spent": pl.col("cost").sum(),
    }
    for name, value in values.items():
        assert metric(document, name)["estimate"] == pytest.approx(simple_att(*wide(frame, value)), rel=1e-8), name
    found = metric(document, "latency")
    assert found["ci_low"] < EFFECT < found["ci_high"]
    assert (found["n_control"], found["n_treatment"], found["method"]) == (30, 30, "callaway_santanna")
    assert document["design"]["estimand"] == "att"
    assert document["design"]["n_units"] == {"old": 30, "new": 30}
    assert document["design"]["rollouts"] == {"2026-10-10": 15, "2026-10-13": 15}
    assert document["decision"]["action"] == "ship"


def test_two_by_two_and_event_study_by_hand(world: Any) -> None:
    frame = log(starts=(6,))
    y, first = wide(frame, pl.col("ms").mean())
    treated = first == 6
    change = y[:, 6:].mean(axis=1) - y[:, :6].mean(axis=1)
    document = run(world, frame, {"estimator": "two_by_two"})
    assert metric(document, "latency")["estimate"] == pytest.approx(change[treated].mean() - change[~treated].mean())
    error = np.sqrt(sum(change[s].var(ddof=1) / s.sum() for s in (treated, ~treated)))
    assert metric(document, "latency")["std_error"] == pytest.approx(error, rel=1e-8)
    document = run(world, None, {"estimator": "event_study"})
    against = y[:, 6:].mean(axis=1) - y[:, 5]
    assert metric(document, "latency")["estimate"] == pytest.approx(against[treated].mean() - against[~treated].mean())
    rows = document["diagnostics"]["event_study"]
    assert [r["event_time"] for r in rows] == list(range(-6, 6))


def test_the_event_study_stands_at_the_top_of_the_diagnostics(world: Any, frame: pl.DataFrame) -> None:
    shown = run(world, frame)["diagnostics"]
    rows = shown["event_study"]
    assert [row["event_time"] for row in rows] == list(range(-7, 7))
    keys = {"event_time", "estimate", "std_error", "ci_low", "ci_high", "band_low", "band_high", "p_value"}
    assert all(set(row) == keys and row["band_low"] < row["ci_low"] < row["ci_high"] < row["band_high"] for row in rows)
    (tested,) = shown["pre_trend"]
    assert tested["metric"] == "latency"
    assert 0 < tested["slope_seen_80"] < tested["slope_that_explains"]
    (broken,) = shown["breakdown"]
    assert broken["value"] > 0.5


@pytest.mark.parametrize("method", ["callaway_santanna", "two_by_two", "event_study"])
def test_the_same_bytes_whatever_the_order_of_the_rows(world: Any, method: str) -> None:
    frame = log(starts=(6,))
    first = run(world, frame, {"estimator": method})
    assert run(world, frame.sample(fraction=1.0, shuffle=True, seed=4), {"estimator": method}) == first


def test_integer_periods_are_the_same_panel(world: Any, frame: pl.DataFrame) -> None:
    numbered = frame.with_columns(
        at=(pl.col("at").dt.date() - START.date()).dt.total_days(),
        **{"from": (pl.col("from") - START.date()).dt.total_days()},
    )
    dated, whole = run(world, frame), run(world, numbered)
    for name in ("latency", "errors", "unit_cost", "spent"):
        assert metric(dated, name)["estimate"] == pytest.approx(metric(whole, name)["estimate"], rel=1e-8)
        assert metric(dated, name)["std_error"] == pytest.approx(metric(whole, name)["std_error"], rel=1e-8)
    assert whole["design"]["rollouts"] == {"5": 15, "8": 15}
    assert json.dumps(whole["diagnostics"]["event_study"]).count("event_time") == 14


def test_a_trend_before_the_rollout_is_found(world: Any) -> None:
    document = run(world, log(slope=3.0))
    assert check(document, "pre_trend")["status"] == "fail"
    assert document["decision"]["action"] == "stronger_design"
    assert "moved apart before the rollout" in (said := check(document, "pre_trend")["message"])
    assert "at event time -" in said or "a straight trend" in said
    assert metric(document, "latency")["estimate"] is not None


def test_treatment_that_begins_elsewhere_than_the_rollout_says_pauses(world: Any, frame: pl.DataFrame) -> None:
    early = frame.with_columns(did=pl.when(pl.col("user") == "u000").then(pl.lit("new")).otherwise("did"))
    document = run(world, early)
    assert (check(document, "treatment_start")["status"], document["decision"]["action"]) == ("fail", "pause")
    late = frame.with_columns(did=pl.when(pl.col("user") == "u001").then(pl.lit("old")).otherwise("did"))
    found = check(run(world, late), "treatment_start")
    assert found["status"] == "fail"
    assert "'u001'" in found["message"]
    assert check(run(world, frame), "treatment_start")["status"] == "pass"


def refused(world: Any, frame: pl.DataFrame | None, changes: Mapping[str, Any]) -> tuple[int, str]:
    outcome = run(world, frame, changes)
    return outcome.code, " ".join(e["message"] for e in json.loads(outcome.out)["errors"])


def test_logs_that_carry_no_comparison_are_refused_in_words(world: Any, frame: pl.DataFrame) -> None:
    varying = frame.with_columns(
        pl.when((pl.col("user") == "u001") & (pl.col("ms") > 200)).then(None).otherwise("from").alias("from")
    )
    assert refused(world, varying, {})[0] == 3
    assert "varies within 1 of 60 units: 'u001', null on some rows" in refused(world, varying, {})[1]
    nobody = frame.with_columns(pl.lit(None, dtype=pl.Date).alias("from"))
    assert "no unit starts treatment" in refused(world, nobody, {})[1]
    everybody = frame.filter(pl.col("from").is_not_null())
    assert "no unit stays untreated" in refused(world, everybody, {})[1]
    assert run(world, everybody, {"design.controls": "not_yet"})["metrics"][0]["estimate"] is not None
    assert "two_by_two takes one start" in refused(world, frame, {"estimator": "two_by_two"})[1]
    broken = frame.with_columns(tokens=pl.when(pl.col("user") == "u001").then(float("nan")).otherwise("tokens"))
    assert "design.adjust.0: holds NaN" in refused(world, broken, {"design.adjust": ["tokens"]})[1]
    one = frame.filter(pl.col("user") == "u001")
    assert refused(world, one, {})[0] == 3
    assert "a change needs two periods" in refused(world, frame, {"design.period": "365d"})[1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metrics.p99": {"column": "ms", "quantile": 0.99, "better": "lower"}}, "quantiles in this design"),
        ({"design.treatment": ["new", "newer"]}, "several treatments"),
        ({"estimator": "two_by_two", "design.controls": "not_yet"}, "not_yet does not combine with two_by_two"),
        ({"decision.looks": "sequential"}, "did has no always-valid intervals"),
        (
            {
                "design.control": None,
                "design.treatment": None,
                "metrics.u": {"column": "ms", "on": "untreated", "better": "lower"},
            },
            "'untreated' needs design.treatment",
        ),
    ],
)
def test_what_it_cannot_do_is_refused_at_its_key(world: Any, frame: pl.DataFrame, changes: Any, said: str) -> None:
    code, message = refused(world, frame, changes)
    assert code == 2
    assert said in message


def test_an_incident_is_marked_and_the_effect_read_without_its_days(world: Any, frame: pl.DataFrame) -> None:
    event = {"at": "2026-10-11T09:00Z", "until": "2026-10-12T06:00Z", "name": "provider incident"}
    worse = frame.with_columns(
        ms=pl.col("ms") + 300.0 * (pl.col("at").dt.date().is_in([date(2026, 10, 11)]) & (pl.col("did") == "new"))
    )
    document = run(world, worse, {"events": [event]})
    (found,) = document["diagnostics"]["events"]
    assert found["periods"] == ["2026-10-11", "2026-10-12"]
    assert found["event_times"] == [-2, -1, 1, 2]
    assert (found["units old"], found["units new"]) == (30, 30)
    y, first = wide(worse, pl.col("ms").mean())
    y[:, 6:8] = np.nan
    # Those who start on the day after the incident lose the day that they are compared with.
    assert found["estimate_without"] == pytest.approx(
        simple_att(np.delete(y[first != 8], [6, 7], 1), first[first != 8])
    )
    assert metric(document, "latency")["estimate"] > -20.0
    assert found["verdict_changes"] == ("without the periods of the event" in metric(document, "latency")["note"])


def test_an_incident_in_some_clusters_and_on_integer_periods(world: Any, frame: pl.DataFrame) -> None:
    numbered = frame.with_columns(
        at=(pl.col("at").dt.date() - START.date()).dt.total_days(),
        **{"from": (pl.col("from") - START.date()).dt.total_days()},
    )
    columns = {**DESIGN["logs.columns"], "cluster": "site"}
    changes = {"logs.columns": columns, "events": [{"at": 6, "name": "launch", "clusters": ["s00"]}]}
    document = run(world, numbered, changes)
    (found,) = document["diagnostics"]["events"]
    assert (found["periods"], found["at"], found["units old"], found["units new"]) == (["6"], "6", 2, 2)


def test_errors_are_by_cluster_only_where_clusters_start_as_one(world: Any, frame: pl.DataFrame) -> None:
    mapped = {"logs.columns": {**DESIGN["logs.columns"], "cluster": "site"}}
    document = run(world, frame, {**mapped, "design.shared_state": True})
    assert document["diagnostics"]["latency (new)"]["clustered_by"] == "unit"
    assert any("clusters that hold units of different rollouts: 15" in note for note in document["notes"])
    alike = frame.with_columns(site=pl.col("from").cast(pl.String).fill_null("never") + pl.col("user").str.slice(1, 2))
    document = run(world, alike, mapped)
    assert document["diagnostics"]["latency (new)"]["clustered_by"] == "cluster"
    moving = frame.with_columns(site=pl.col("at").dt.date().cast(pl.String))
    document = run(world, moving, mapped)
    assert any("units seen in several clusters" in note for note in document["notes"])


def test_what_is_adjusted_for_is_from_before_the_first_rollout(world: Any, frame: pl.DataFrame) -> None:
    from estimators import callaway_santanna
    from estimators.panel import Panel

    given = frame.with_columns(tokens=pl.when(pl.col("user") == "u005").then(None).otherwise("tokens"))
    document = run(world, given, {"design.adjust": ["tokens", "tier"]})
    y, first = wide(given, pl.col("ms").mean())
    before = given.filter(pl.col("at") < START + timedelta(days=5))
    facts = before.group_by("user").agg(pl.col("tokens").mean(), pl.col("tier").first()).sort("user")
    tokens = facts["tokens"]
    x = np.column_stack([tokens.fill_null(tokens.mean()), facts["tier"] == "pro"]).astype(float)
    wanted = callaway_santanna(Panel(y, np.minimum(first, DAYS), x), unbiased=True)
    assert metric(document, "latency")["estimate"] == pytest.approx(wanted.estimate, rel=1e-8)
    assert metric(document, "latency")["std_error"] == pytest.approx(wanted.std_error, rel=1e-8)
    assert any("adjusted for what units were like on average before 2026-10-10" in note for note in document["notes"])
    assert any("without a value of tokens before that, which are given its mean: 1" in n for n in document["notes"])
    varying = frame.with_columns(tier=pl.when(pl.col("tokens") > 200).then(pl.lit("pro")).otherwise(pl.lit("free")))
    code, message = refused(world, varying, {"design.adjust": ["tier"]})
    assert code == 3
    assert "column 'tier' varies within 60 of 60 units" in message


@pytest.mark.parametrize("units", [60, 80])
def test_errors_are_the_packages_from_twenty_units_a_start_on(world: Any, units: int) -> None:
    from estimators import callaway_santanna
    from estimators.panel import Panel

    frame = log(units=units)
    y, first = wide(frame, pl.col("ms").mean())
    found = callaway_santanna(Panel(y, np.minimum(first, DAYS)), unbiased=units < 80)
    assert metric(run(world, frame), "latency")["std_error"] == pytest.approx(found.std_error, rel=1e-8)


def test_units_that_are_away_and_values_that_are_null(world: Any, frame: pl.DataFrame) -> None:
    day = pl.col("at").dt.date()
    gone = (pl.col("user") == "u002") & (day == date(2026, 10, 8))
    document = run(world, frame.filter(~gone).with_columns(ms=pl.when(pl.col("user") != "u003").then("ms")))
    spent, latency = metric(document, "spent"), metric(document, "latency")
    assert (latency["n_control"], latency["n_treatment"]) == (30, 29)
    assert (spent["n_control"], spent["n_treatment"]) == (30, 30)
    y, first = wide(frame, pl.col("cost").sum())
    y[2, 3] = 0.0
    assert spent["estimate"] == pytest.approx(simple_att(y, first), rel=1e-8)
    assert "a sum of 0" in spent["note"]


def test_days_that_the_window_cuts_are_left_out(world: Any, frame: pl.DataFrame) -> None:
    window = {"logs.start": "2026-10-06T00:00Z", "logs.end": "2026-10-16T12:00Z"}
    document = run(world, frame, window)
    whole = run(world, None, {"logs.start": "2026-10-06T00:00Z", "logs.end": "2026-10-16T00:00Z"})
    assert metric(document, "spent")["estimate"] == metric(whole, "spent")["estimate"]
    assert document["rows"]["dropped"]["a period that the window's end cuts"] > 0
    assert document["rows"]["kept"] + sum(document["rows"]["dropped"].values()) == document["rows"]["read"]


def test_regions_that_start_alone_vary_as_the_others_do(world: Any) -> None:
    frame = log(units=10, rows=8, starts=(4, 6, 7, 8, 9))
    document = run(world, frame)
    found = metric(document, "latency")
    assert "the error takes them to vary as the untreated do" in found["note"]
    assert document["diagnostics"]["pre_trend"][0]["test"] == "slope"
    assert "few units tell them badly" in document["diagnostics"]["breakdown"][0]["reason"]
    refused_it = metric(run(world, None, {"estimator": "event_study"}), "latency")
    assert refused_it["estimate"] is None
    assert "a single unit starts in each of" in refused_it["note"]


def test_the_memo_leads_with_what_must_be_true_and_draws_time_since_the_rollout(
    world: Any, frame: pl.DataFrame
) -> None:
    event = {"at": "2026-10-11T09:00Z", "until": "2026-10-11T20:00Z", "name": "provider incident"}
    spec = world.write(frame, {**DESIGN, "events": [event]})
    given = ("run", spec, "--out", world.out, "--as-of", "2026-10-20T00:00Z", "--quiet")
    written = []
    for _ in range(2):
        assert world.command(*given).code == 0
        folder = world.out / "probe" / "2026-10-20"
        written.append({p.name: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()})
    assert written[0] == written[1]
    memo = written[0]["memo.md"].decode()
    assert memo.index("## What must be true") < memo.index("## What was compared") < memo.index("## Effects")
    assert "the finding of an effect stands unless trends bend" in memo
    assert "Nothing was assigned at random: 30 units took up the treatment in 2 different periods" in memo
    assert "control what they would have had without it" in memo
    figure = written[0]["event_study.svg"].decode()
    assert "latency: effect by days since the rollout" in figure
    assert "marked: provider incident" in figure


def test_the_starter_runs_on_its_bundled_log(world: Any) -> None:
    spec = world.folder / "starter.yaml"
    assert world.command("init", "--design", "did", "--out", spec).code == 0
    outcome = world.command(
        "run", spec, "--out", world.out, "--no-figures", "--as-of", "2026-11-03", "--format", "json"
    )
    assert outcome.code == 0
    assert metric(outcome.json, "ttft")["estimate"] is not None
    assert world.command("check", spec, "--as-of", "2026-11-03").code == 0
