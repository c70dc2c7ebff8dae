"""Sequential looks from the log to the memo: who counts, what the intervals are, and what is refused."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

from estimators.confidence_sequence import always_valid_p, boundary
from estimators.sequential_srm import sequential_srm
from readout import pipeline
from readout.errors import LogError, ReadoutError, SpecError
from readout.results import Readout

START = datetime(2026, 10, 5, tzinfo=UTC)
ARMS = np.array(["old", "new"])
SEQUENTIAL = {"decision.looks": "sequential", "decision.exposure": "3d"}
SWITCHBACK = {
    "decision.looks": "sequential",
    "design.kind": "switchback",
    "design.block": "2h",
    "design.shared_state": None,
    "logs.columns.unit": None,
    "logs.columns.cluster": "region",
}


def day(at: float) -> datetime:
    return START + timedelta(days=at)


@pytest.fixture
def look(world):
    """The readout of a log as of a day of the experiment."""

    def at(frame: pl.DataFrame, when: float, changes: Mapping[str, Any] | None = None, **options: Any) -> Readout:
        spec = world.write(frame, changes)
        return pipeline.run(spec, out=world.out, as_of=day(when), figures=False, **options)[0]

    return at


@pytest.fixture
def problems(look):
    """What a log and a spec are refused for."""

    def of(frame: pl.DataFrame, changes: Mapping[str, Any], kind: type[ReadoutError] = SpecError) -> list[str]:
        with pytest.raises(kind) as error:
            look(frame, 30, changes)
        return [f"{p.message} | {p.hint}" for p in error.value.problems]

    return of


def users(n: int = 600, effect: float = 0.8, seed: int = 1) -> pl.DataFrame:
    """Units that arrive over ten days and stay for up to six."""
    rng = np.random.default_rng(seed)
    arrival, rows = rng.uniform(0, 10, n), 1 + rng.poisson(3, n)
    user = np.repeat(np.arange(n), rows)
    since = rng.uniform(0, 6, len(user))
    since[np.searchsorted(user, np.arange(n))] = 0.0
    code = rng.integers(0, 2, n)[user]
    return pl.DataFrame(
        {
            "at": [day(t) for t in arrival[user] + since],
            "user": user,
            "arm": ARMS[code],
            "ms": rng.lognormal(4.0, 0.4, len(user)) * np.where(code, effect, 1.0),
            "failed": rng.random(len(user)) < 0.1,
            "assigned": [day(t) for t in arrival[user]],
        }
    )


def complete(frame: pl.DataFrame, when: float, days: float = 3) -> pl.DataFrame:
    """The rows that count at a look, by another way."""
    seen = frame.filter(pl.col("at") < day(when))
    until = min(day(when), seen["at"].max())
    first = seen.group_by("user").agg(pl.col("at").min().alias("first"))
    over = timedelta(days=days)
    return seen.join(first, on="user").filter(
        (pl.col("first") + over <= until) & (pl.col("at") < pl.col("first") + over)
    )


def primary(readout: Readout) -> Any:
    return next(m for m in readout.metrics if m.role == "primary")


def check(readout: Readout, name: str) -> Any:
    return next(c for c in readout.checks if c.name == name)


@pytest.mark.parametrize("when", [6.0, 11.5, 40.0])
def test_units_count_once_their_exposure_is_over_and_with_its_rows_only(look, when) -> None:
    frame = users()
    found, wanted = look(frame, when, SEQUENTIAL), complete(frame, when)
    m = primary(found)
    means = dict(wanted.group_by("arm").agg(pl.col("ms").mean()).iter_rows())
    n = dict(wanted.group_by("arm").agg(pl.col("user").n_unique()).iter_rows())
    assert (m.control_value, m.treatment_value) == pytest.approx((means["old"], means["new"]), rel=1e-9)
    assert (m.n_control, m.n_treatment) == (n["old"], n["new"])
    assert found.rows.kept == len(wanted)
    assert found.rows.read == len(frame) == found.rows.kept + sum(found.rows.dropped.values())
    assert found.design["exposure"] == "3d"


def test_its_interval_p_value_and_detectable_effect_are_the_sequences(look) -> None:
    m = primary(look(users(), 11.5, {**SEQUENTIAL, "decision.tuning": 400}))
    n = m.n_control + m.n_treatment
    reach = boundary(n, 0.05, 400, m.df)
    assert (m.ci_low, m.ci_high) == pytest.approx(
        (m.estimate - reach * m.std_error, m.estimate + reach * m.std_error), rel=1e-9
    )
    assert m.p_value == pytest.approx(always_valid_p(m.statistic, n, 0.05, 400, m.df), rel=1e-9)
    assert m.minimum_detectable_effect == pytest.approx((reach + stats.t(m.df).ppf(0.8)) * m.std_error, rel=1e-9)


def test_a_look_at_the_whole_log_as_of_then_is_the_look_that_was_taken(look) -> None:
    frame = users()
    then = look(frame.filter(pl.col("at") < day(9)), 9, SEQUENTIAL)
    again = look(frame, 9, SEQUENTIAL)
    assert then.metrics == again.metrics
    assert again.rows.dropped["after the as-of time"] == frame.filter(pl.col("at") >= day(9)).height


def test_the_checks_of_assignment_see_all_units_met_so_far(look) -> None:
    frame = users()
    found = look(frame, 6, SEQUENTIAL)
    seen = frame.filter(pl.col("at") < day(6)).unique("user")
    counts = [seen.filter(pl.col("arm") == arm).height for arm in ARMS]
    srm = check(found, "srm")
    assert (srm.statistic, srm.p_value) == pytest.approx(sequential_srm(counts, [1, 1]))
    assert srm.message.startswith(f"units: 'old' {counts[0]:,} (")
    assert srm.message.endswith("; tested for repeated looks")
    assert sum(counts) > primary(found).n_control + primary(found).n_treatment


def test_the_first_moment_is_the_assignment_where_it_is_logged(look) -> None:
    frame = users().with_columns(pl.col("assigned") - timedelta(days=1))
    m = primary(look(frame, 9, {**SEQUENTIAL, "logs.columns.assigned_at": "assigned"}))
    seen = frame.filter(pl.col("at") < day(9))
    until = min(day(9), seen["at"].max())
    over = pl.col("assigned") + timedelta(days=3)
    assert m.n_control + m.n_treatment == seen.filter(over <= until, pl.col("at") < over)["user"].n_unique()


def test_an_exposure_holds_for_fixed_looks_too(look) -> None:
    frame = users()
    fixed, sequential = look(frame, 40, {"decision.exposure": "3d"}), look(frame, 40, SEQUENTIAL)
    assert primary(fixed).estimate == primary(sequential).estimate
    assert primary(fixed).ci_low > primary(sequential).ci_low
    shown = fixed.diagnostics
    assert "latency (new)" not in shown
    assert sequential.diagnostics["latency (new)"]["fixed_ci_low"] == primary(fixed).ci_low


def test_quantiles_count_their_units_not_the_groups_they_are_joined_into(look) -> None:
    p90 = {"column": "ms", "quantile": 0.9, "role": "primary", "better": "lower"}
    m = primary(look(users(2000), 40, {**SEQUENTIAL, "metrics.latency": p90}))
    assert m.n_control + m.n_treatment == 2000
    assert (m.ci_high - m.ci_low) / 2 == pytest.approx(boundary(2000, 0.05, 5000, m.df) * m.std_error, rel=1e-9)


def test_the_memo_and_readout_json_say_what_the_intervals_are(look, world) -> None:
    found = look(users(), 11.5, SEQUENTIAL)
    (memo,) = world.out.rglob("memo.md")
    text = memo.read_text()
    assert "with always-valid intervals at 95 %." in text
    assert "Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas (2024)" in text
    assert "narrowest near decision.tuning, 5,000 units" in text
    written = json.loads((memo.parent / "readout.json").read_text())
    assert (written["design"]["looks"], written["design"]["tuning"]) == ("sequential", 5000)
    assert written["design"]["observed_until"] == found.design["observed_until"]
    shown = written["diagnostics"]["latency (new)"]
    assert shown["fixed_ci_low"] > primary(found).ci_low
    world.write(users(), SEQUENTIAL)
    assert "Always-valid intervals at 95 %." in world.run().err + world.command(
        "run", world.folder / "spec.yaml", "--out", world.out, "--no-figures"
    ).out  # fmt: skip


def test_an_inconclusive_primary_may_be_read_again(look) -> None:
    found = look(users(effect=1.0), 40, SEQUENTIAL)
    assert found.decision.rule == "primary_inconclusive"
    assert found.decision.next_step.startswith("Keep it running and read again as more comes in")
    fixed = look(users(effect=1.0, seed=3), 40, {"decision.exposure": "3d"})
    assert "read again as more" not in fixed.decision.next_step


def test_units_that_may_still_gain_rows_need_an_exposure(problems, look) -> None:
    (said,) = problems(users(), {"decision.looks": "sequential"})
    assert said.startswith("decision.exposure: needed for sequential looks: a unit that still gains rows changes")
    assert said.endswith("such as exposure: 7d")
    one_row_each = users().unique("user", keep="first", maintain_order=True)
    m = primary(look(one_row_each, 40, {"decision.looks": "sequential"}))
    assert m.n_control + m.n_treatment == len(one_row_each)


def test_a_look_before_any_exposure_is_over_says_to_wait(look) -> None:
    with pytest.raises(LogError) as error:
        look(users(), 2, SEQUENTIAL)
    (problem,) = error.value.problems
    assert "exposure not complete" in problem.message
    assert problem.hint == "nothing has been observed for as long as it is to be: read again later"


def test_an_exposure_needs_times(problems) -> None:
    (said,) = problems(users().drop("at"), {**SEQUENTIAL, "logs.columns.time": None}, LogError)
    assert said.startswith("logs.columns.time: decision.exposure needs a column for the role 'time'")


REQUESTS = {"decision.looks": "sequential", "design.kind": "request_rct", "logs.columns.unit": None}


def test_requests_count_as_they_are_and_need_no_times(look) -> None:
    rng = np.random.default_rng(2)
    code = rng.integers(0, 2, 3000)
    frame = pl.DataFrame({"arm": ARMS[code], "ms": rng.normal(9, 1, 3000), "failed": rng.random(3000) < 0.1})
    m = primary(look(frame, 30, {**REQUESTS, "logs.columns.time": None}))
    welch = stats.ttest_ind(frame.filter(arm="new")["ms"], frame.filter(arm="old")["ms"], equal_var=False)
    reach = (
        boundary(3000, 0.05, 5000, welch.df)
        * (welch.confidence_interval().high - m.estimate)
        / stats.t(welch.df).ppf(0.975)
    )
    assert (m.ci_low, m.ci_high) == pytest.approx((m.estimate - reach, m.estimate + reach), rel=1e-9)


def test_requests_on_several_rows_need_the_time_of_their_tries(problems, look) -> None:
    frame = users().rename({"user": "request"})
    (said,) = problems(frame, {**REQUESTS, "logs.columns.request": "request"})
    assert said.startswith("decision.exposure: needed for sequential looks: request ids stand on several rows")
    changes = {**REQUESTS, "logs.columns.request": "request", "decision.exposure": "1d"}
    m = primary(look(frame, 9, changes))
    wanted = complete(frame.rename({"request": "user"}), 9, 1)
    assert m.n_control + m.n_treatment == wanted["user"].n_unique()


def test_rows_of_their_own_wait_for_a_stated_exposure(look) -> None:
    frame = users().unique("user", keep="first", maintain_order=True)
    found = look(frame, 7, {**REQUESTS, "decision.exposure": "2d"})
    seen = frame.filter(pl.col("at") < day(7))
    until = seen["at"].max()
    m = primary(found)
    assert m.n_control + m.n_treatment == seen.filter(pl.col("at") + timedelta(days=2) <= until).height
    assert check(found, "srm").message.startswith("requests: 'old' ")


def blocks(days: float = 8.0, regions: int = 2, seed: int = 4) -> pl.DataFrame:
    """Blocks of two hours, arms drawn by region and block, twelve rows an hour and region."""
    rng = np.random.default_rng(seed)
    n = int(days * 24 * 12)
    arm = rng.integers(0, 2, (regions, n // 24 + 1))
    parts = []
    for region in range(regions):
        code = arm[region][np.arange(n) // 24]
        parts.append(
            pl.DataFrame(
                {
                    "at": [START + timedelta(minutes=5 * i) for i in range(n)],
                    "region": f"r{region}",
                    "arm": ARMS[code],
                    "ms": rng.normal(50, 5, n),
                    "failed": rng.random(n) < 0.1,
                }
            )
        )
    return pl.concat(parts)


def test_a_block_counts_when_it_has_ended(look) -> None:
    frame = blocks()
    running = look(frame, 7 + 3 / 24, SWITCHBACK)  # at 03:00 the block from 02:00 is running
    assert running.rows.dropped["block not finished"] == 2 * 12
    assert running.design["observed_until"] == day(7 + 2 / 24).isoformat()
    m = primary(running)
    assert m.n_control + m.n_treatment == 2 * (7 * 12 + 1)
    counted = re.findall(r"'(?:old|new)' (\d+) \(", check(running, "srm").message)
    assert sum(map(int, counted)) == 2 * (7 * 12 + 2)
    reach = boundary(m.n_control + m.n_treatment, 0.05, 5000, m.df) * m.std_error
    assert (m.ci_low, m.ci_high) == pytest.approx((m.estimate - reach, m.estimate + reach), rel=1e-9)


def test_the_last_block_has_ended_with_a_window_that_is_over(look) -> None:
    frame = blocks(2.0)
    window = {**SWITCHBACK, "logs.start": START.isoformat(), "logs.end": day(2).isoformat()}
    assert "block not finished" not in look(frame, 3, window).rows.dropped
    assert look(frame, 3, SWITCHBACK).rows.dropped["block not finished"] == 2 * 24
    cut = frame.filter(pl.col("at") < day(2) - timedelta(minutes=30))
    assert look(cut, 3, window).rows.dropped["block not finished"] == 2 * 18


CLUSTERS = {
    "decision.looks": "sequential",
    "design.kind": "cluster_rct",
    "logs.columns.unit": None,
    "logs.columns.cluster": "user",
}


def test_clusters_wait_for_their_exposure(look, problems) -> None:
    frame = users(60)
    (said,) = problems(frame, CLUSTERS)
    assert said.startswith("decision.exposure: needed for sequential looks: a cluster that still gains rows")
    m = primary(look(frame, 9, {**CLUSTERS, "decision.exposure": "3d"}))
    wanted = complete(frame, 9).group_by("user", "arm").agg(pl.col("ms").mean())
    assert m.n_control + m.n_treatment == len(wanted)
    old, new = (wanted.filter(arm=arm)["ms"].mean() for arm in ARMS)
    assert m.estimate == pytest.approx(new - old, rel=1e-9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {**CLUSTERS, "decision.exposure": "3d", "estimator": {"method": "randomization_inference"}},
            "decision.looks: randomization_inference has no interval that holds under repeated looks | take the method "
            "cluster_means or cluster_robust, or looks: fixed",
        ),
        (
            {**CLUSTERS, "decision.exposure": "3d", "estimator": {"method": "cluster_robust", "variance": "wild"}},
            "decision.looks: the wild bootstrap has no interval that holds under repeated looks | take variance: CR2, "
            "or looks: fixed",
        ),
        (
            {**SWITCHBACK, "estimator": {"method": "horvitz_thompson"}},
            "decision.looks: horvitz_thompson has no interval that holds under repeated looks | take the method "
            "block_regression, or looks: fixed",
        ),
        (
            {**SEQUENTIAL, "logs.last": "7d"},
            "logs.last: does not combine with sequential looks: a moving window drops observations that were in | "
            "give logs.start, the begin of the experiment",
        ),
        (
            {**SWITCHBACK, "design.block": {"column": "user"}},
            "design.block.column: sequential looks must know when a block ends, which a column does not say | block: "
            "{length: 2h}",
        ),
        (
            {**SWITCHBACK, "decision.exposure": "2h"},
            "decision.exposure: is for user_rct, request_rct, cluster_rct: how long a unit or cluster is observed | "
            "a block counts when it has ended",
        ),
        (
            {"decision.looks": "sequential", "design": {"kind": "rdd", "running": "ms", "cutoff": 1}},
            "decision.looks: rdd has no always-valid intervals; they are for user_rct, request_rct, cluster_rct, "
            "switchback | looks: fixed, one look at the end",
        ),
    ],
)
def test_what_has_no_sequence_is_refused_in_words(problems, changes, message) -> None:
    assert message in problems(users(20), changes)


def test_a_mismatch_that_grows_pauses_a_running_experiment(look) -> None:
    frame = users(4000).with_columns(
        pl.when(pl.col("user") % 9 == 0).then(pl.lit("new")).otherwise(pl.col("arm")).alias("arm")
    )
    found = look(frame, 9, SEQUENTIAL)
    assert (check(found, "srm").status, found.decision.action) == ("fail", "pause")


def test_too_few_assignments_are_said_to_be_too_few(look) -> None:
    found = check(look(users(18), 40, SEQUENTIAL), "srm")
    assert (found.status, found.p_value) == ("skip", None)
    assert "too few units to see any mismatch" in found.message


def test_net_value_is_always_valid_too(look) -> None:
    frame = users()
    economics = {"economics": {"value": {"metric": "errors", "usd": 1.0}, "bar": {"net_usd_per_1k_requests": 0}}}
    wide, narrow = (
        found.economics["net_usd_per_1k_requests"]
        for found in (look(frame, 40, {**c, **economics}) for c in (SEQUENTIAL, {"decision.exposure": "3d"}))
    )
    assert wide["estimate"] == narrow["estimate"]
    assert wide["ci_high"] - wide["ci_low"] > 1.3 * (narrow["ci_high"] - narrow["ci_low"])
    assert math.isfinite(wide["ci_low"])
