"""Assignment: the sample ratio, eligibility, times and contamination."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from readout import pipeline, spec
from readout.checks.assignment import srm
from readout.errors import NotAvailableYet

AS_OF = datetime(2026, 10, 20, tzinfo=UTC)
START = datetime(2026, 10, 5)
SWITCHBACK = {"kind": "switchback", "block": "2h"}


def arms(**counts: int) -> list[str]:
    return [label for label, n in counts.items() for _ in range(n)]


def blocks(arm_of_block: list[str], rows: int = 20) -> pl.DataFrame:
    """Rows spread over blocks of two hours."""
    n = len(arm_of_block) * rows
    times = [START + timedelta(hours=2 * (i // rows), minutes=(i % rows) * 120 / rows) for i in range(n)]
    return pl.DataFrame({"time": times, "arm": [arm_of_block[i // rows] for i in range(n)]})


def test_srm_is_pearsons_chi_square(said):
    # scipy 1.16.3: scipy.stats.chisquare([5200, 4800]) -> 16.0, 6.334248366623996e-05
    check = said("srm", {"arm": arms(a=5200, b=4800)})
    assert (check.status, check.action, check.family) == ("fail", "pause", "assignment")
    assert check.statistic == pytest.approx(16.0, rel=1e-12)
    assert check.p_value == pytest.approx(6.334248366623996e-05, rel=1e-9)
    assert (check.value, check.threshold) == (check.p_value, 0.001)
    assert "'a' 5,200 (52 %, expected 50 %)" in check.message


def test_srm_threshold_comes_from_the_spec(said):
    log = {"arm": arms(a=5100, b=4900)}
    assert said("srm", log).status == "pass"  # chi-square 4, p 0.0455
    assert said("srm", log, checks={"srm": {"threshold": 0.05}}).status == "fail"


def test_srm_of_three_unequal_arms(said):
    design = {"treatment": ["b", "c"], "split": {"a": 8, "b": 1, "c": 1}}
    assert said("srm", {"arm": arms(a=8010, b=990, c=1000)}, design=design).status == "pass"
    check = said("srm", {"arm": arms(a=8010, b=900, c=1090)}, design=design)
    assert (check.status, check.statistic) == ("fail", pytest.approx(10**2 / 8000 + 100**2 / 1000 + 90**2 / 1000))


def test_srm_counts_units_not_rows(said):
    units = [f"u{i}" for i in range(200)]
    log = {"unit": units + ["u1"] * 5000, "arm": ["a", "b"] * 100 + ["b"] * 5000}
    check = said("srm", log)
    assert (check.status, check.statistic) == ("pass", 0.0)


def test_a_huge_logs_tiny_imbalance_only_warns(said, monkeypatch, evidence):
    found = evidence({"arm": arms(a=50, b=50)})
    for counts, status in (([10_009_000, 9_991_000], "warn"), ([10_012_000, 9_988_000], "fail")):
        monkeypatch.setattr(type(found.sample), "counts", lambda _, counts=counts: counts)
        from readout.checks import srm

        assert srm(found).status == status  # 0.09 % and 0.12 % off an expected half


def test_a_small_arm_far_from_its_share_is_no_small_deviation(monkeypatch, evidence):
    from readout.checks import srm

    found = evidence({"arm": arms(a=50, b=50)}, design={"split": {"a": 0.99, "b": 0.01}})
    # 0.092 % where 1 % was configured is less than a tenth of a point off the larger arm, and wrong.
    monkeypatch.setattr(type(found.sample), "counts", lambda _: [990_920, 9_080])
    assert srm(found).status == "fail"


def test_few_assignments_are_judged_exactly_or_not_at_all(said):
    assert said("srm", {"arm": arms(a=5, b=2)}).status == "skip"
    # 200 units, 2 expected under b, 12 seen: twice the binomial tail, for each of two arms
    tail = math.fsum(math.comb(200, k) * 0.01**k * 0.99 ** (200 - k) for k in range(12, 201))
    rare = {"split": {"a": 0.99, "b": 0.01}}
    check = said("srm", {"arm": arms(a=188, b=12)}, design=rare)
    assert (check.status, check.statistic) == ("fail", None)
    assert check.p_value == pytest.approx(4 * tail, rel=1e-9)
    assert said("srm", {"arm": arms(a=197, b=3)}, design=rare).status == "pass"


def test_assignment_to_an_arm_with_no_share_fails_with_finite_numbers(said):
    design = {"treatment": ["b", "c"], "split": {"a": 1, "b": 1, "c": 0}}
    check = said("srm", {"arm": arms(a=100, b=100, c=3)}, design=design)
    assert (check.status, check.statistic, check.p_value) == ("fail", None, 0.0)


def test_srm_of_blocks(said):
    columns = {"time": "time"}
    fair = ["a", "b", "b", "a"] * 10
    assert said("srm", blocks(fair), columns, SWITCHBACK).statistic == 0.0
    assert said("srm", blocks(["a"] * 35 + ["b"] * 5), columns, SWITCHBACK).status == "fail"
    check = said("srm", blocks(fair), columns, {**SWITCHBACK, "assignment": "balanced"})
    assert (check.status, "balanced schedule" in check.message) == ("skip", True)


def test_clusters_that_switch_together_count_as_one_block(said):
    one = blocks(["a", "b"] * 30)
    log = pl.concat([one.with_columns(cluster=pl.lit(c)) for c in "xyz"])
    check = said("srm", log, {}, SWITCHBACK)
    assert check.message.startswith("blocks: 'a' 30 ")


def test_eligibility_that_depends_on_the_arm(said):
    rng = np.random.default_rng(3)
    arm = rng.choice(["a", "b"], 4000)
    log = {"arm": arm, "eligible": rng.random(4000) < np.where(arm == "b", 0.7, 0.8)}
    check = said("eligibility", log)
    assert (check.status, check.action) == ("fail", "pause")
    assert check.value == pytest.approx(0.1, abs=0.03)
    assert said("eligibility", log, checks={"eligibility": {"threshold": 0.2}}).status == "pass"
    assert said("eligibility", {"arm": arm, "eligible": rng.random(4000) < 0.8}).status == "pass"


def test_eligibility_that_is_null_in_one_arm_depends_on_it(said):
    arm = ["a", "b"] * 1000
    log = {"arm": arm, "eligible": [None if one == "b" and i % 4 == 1 else True for i, one in enumerate(arm)]}
    assert said("eligibility", log).status == "fail"


def test_the_ineligible_are_not_treated(said):
    n = 10_000
    arm = np.where(np.arange(n) % 100 == 0, "b", "a")
    log = {"arm": arm, "eligible": np.arange(n) % 200 >= 100, "executed": arm}
    check = said("eligibility", log, design={"split": {"a": 99, "b": 1}})
    # Few rows are in the arm; all its ineligible ones were treated.
    assert (check.status, check.value) == ("fail", 1.0)
    assert "50 of 50 ineligible rows of 'b'" in check.message


def test_all_eligible(said):
    assert said("eligibility", {"arm": arms(a=50, b=50), "eligible": [1] * 100}).status == "pass"
    assert said("eligibility", {"arm": arms(a=50, b=50)}).status == "skip"


@pytest.mark.parametrize(("early", "status"), [(10, "pass"), (11, "fail")])
def test_rows_before_their_assignment(said, early, status):
    n = 1000
    times = [START + timedelta(minutes=i) for i in range(n)]
    assigned = [t + timedelta(seconds=1) if i < early else t for i, t in enumerate(times)]
    log = {"arm": ["a", "b"] * 500, "time": times, "assigned_at": assigned, "executed": ["a", "b"] * 500}
    check = said("exposure_time", log)
    assert (check.status, check.value, check.threshold) == (status, early / n, 0.01)
    check = said("treatment_start", log)
    assert check.value == (early // 2) / 500


def test_an_assignment_time_that_is_null_is_not_early(said):
    times = [START] * 100
    log = {"arm": ["a", "b"] * 50, "time": times, "assigned_at": [None] * 100}
    log["assigned_at"] = pl.Series([None] * 100, dtype=pl.Datetime("us"))
    assert said("exposure_time", log).status == "skip"


def test_the_arm_changes_with_the_block(said):
    log = blocks(["a", "b"] * 20, rows=100)
    assert said("treatment_start", log, {}, SWITCHBACK).status == "pass"
    # The switch comes ten minutes late: 8 of 100 rows carry the block before.
    late = log.with_columns(arm=pl.col("arm").shift(8, fill_value="a"))
    check = said("treatment_start", late, {}, SWITCHBACK)
    assert (check.status, check.action) == ("fail", "pause")
    assert check.value == pytest.approx(39 * 8 / 4000)


def test_blocks_that_are_shorter_than_those_that_were_drawn(said):
    """Each arm stands for two hours, and the spec says one: every draw would count twice."""
    coins = np.random.default_rng(2).integers(0, 2, 60)
    log = blocks([["a", "b"][c] for c in coins])
    assert said("treatment_start", log, {}, SWITCHBACK).status == "pass"
    check = said("treatment_start", log, {}, {**SWITCHBACK, "block": "1h"})
    assert (check.status, check.action, check.value) == ("fail", "pause", 2)
    assert "2 blocks of 1h have passed" in check.message
    assert "2h long" in check.message
    # Too few blocks to tell: chance alone would do it.
    assert said("treatment_start", log[:160], {}, {**SWITCHBACK, "block": "1h"}).status == "pass"


@pytest.mark.parametrize(("mixed", "status"), [(1, "pass"), (2, "fail")])
def test_units_in_two_arms(said, mixed, status):
    log = {"unit": [i // 2 for i in range(200)], "arm": ["a", "a", "b", "b"] * 50}
    for i in range(mixed):
        log["arm"][2 * i] = "b" if log["arm"][2 * i] == "a" else "a"
    check = said("arm_contamination", log)
    assert (check.status, check.value, check.message[:8]) == (status, mixed / 100, f"{mixed} of 100")


def test_requests_carry_one_arm_each(said):
    assert said("arm_contamination", {"arm": ["a", "b"] * 50}, design={"kind": "request_rct"}).status == "skip"


def _requests(users: int, by: str, seed: int = 0) -> pl.DataFrame:
    """Requests of users, the arm drawn by request or by user."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(users), 20)
    drawn = rng.integers(0, 2, len(user)) if by == "request" else rng.integers(0, 2, users)[user]
    return pl.DataFrame(
        {
            "user": user,
            "request": [f"r{i}" for i in range(len(user))],
            "arm": np.where(drawn == 1, "new", "old"),
            "ms": rng.gamma(2, 50, len(user)),
        }
    )


REQUESTS = {
    "design.kind": "request_rct",
    "logs.columns": {"unit": "user", "arm": "arm", "request": "request"},
    "metrics": {"m": {"column": "ms", "role": "primary", "better": "lower"}},
}


def test_units_that_keep_their_arm_were_not_randomized_by_request(world) -> None:
    found = {}
    for by in ("request", "user"):
        path = world.write(_requests(60, by), REQUESTS)
        found[by] = srm(pipeline.gather(spec.load(path), AS_OF))
    assert found["request"].status == "pass"
    assert (found["user"].status, found["user"].action) == ("fail", "pause")
    assert "units were randomized, not requests; say design.kind: user_rct" in found["user"].message


def test_a_request_on_several_rows_is_one_observation(world) -> None:
    once = _requests(60, "request")
    results = []
    for frame in (once, pl.concat([once] * 4)):
        evidence = pipeline.gather(spec.load(world.write(frame, REQUESTS)), AS_OF)
        effect = evidence.effect("m", 1)
        assert effect is not None
        results.append((effect.estimate, effect.std_error, effect.n_control))
    assert results[1] == pytest.approx(results[0], rel=1e-3)


def test_rows_without_a_request_id_are_dropped_for_that_reason(world) -> None:
    once = _requests(60, "request")
    frame = pl.concat([once, once.head(100)])
    blank = pl.int_range(pl.len()) % 20 == 0
    frame = frame.with_columns(request=pl.when(~blank).then("request"))
    evidence = pipeline.gather(spec.load(world.write(frame, REQUESTS)), AS_OF)
    rows = evidence.rows()
    assert rows.dropped == {"no request id": 65}
    assert sum(evidence.sample.counts()) == frame["request"].drop_nulls().n_unique()


def test_an_engine_that_is_not_there_is_refused_in_process_too(world) -> None:
    path = world.write(_requests(60, "request"), REQUESTS)
    with pytest.raises(NotAvailableYet, match="spark"):
        pipeline.run(path, out=world.out, engine="spark")
