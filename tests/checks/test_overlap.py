"""Overlap, weights, balance and the negative control of observational designs: they fire where broken, else not."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import polars as pl
import pytest

from estimators.common_support import without_counterpart
from estimators.inference import EstimationError
from readout import checks
from readout.samples.compared_rows import Weighting

COLUMNS = {"executed": "executed", "intended": "executed", "state": ["queue"], "features": ["tier", "size"]}
DESIGN = {"kind": "observational", "control": "a", "treatment": "b"}
METRICS = {
    "y": {"column": "y", "role": "primary", "better": "higher"},
    "old": {"column": "old", "role": "mechanism", "better": "higher"},
}
BY_NAME = {one.__name__: one for one in checks.of("observational")}


def log(seed: int, n: int = 1000, steep: float = 0.7, hidden: float = 0.0, certain: float = 0.0) -> pl.DataFrame:
    """Rows whose action hangs on the queue by ``steep``, on a cause that is not logged by ``hidden``; ``certain``: a
    share that is never treated."""
    rng = np.random.default_rng(seed)
    queue, size, cause = rng.normal(size=(3, n))
    tier = rng.choice(["free", "pro"], n)
    never = rng.random(n) < certain
    tier = np.where(never, "max", tier)
    treated = (rng.random(n) < 1.0 / (1.0 + np.exp(-steep * queue - 0.3 * size - hidden * cause))) & ~never
    y, old = queue + hidden * cause + rng.normal(size=(2, n))
    return pl.DataFrame(
        {
            "executed": np.where(treated, "b", "a"),
            "queue": queue,
            "tier": tier,
            "size": size,
            "y": y + treated,
            "old": old,
        }
    )


def asked(evidence: Any, frame: pl.DataFrame, names: tuple[str, ...], **given: Any) -> list[Any]:
    design = {**DESIGN, "negative_control": "old", **given.pop("design", {})}
    found = evidence(frame, COLUMNS, design, METRICS, **given)
    return [BY_NAME[name](found) for name in names]


QUIET = ("overlap", "weight_concentration", "covariate_balance", "placebo")


def test_they_are_quiet_where_the_design_holds(evidence):
    found = [[c.status for c in asked(evidence, log(seed), QUIET)] for seed in range(20)]
    for name, states in zip(QUIET, zip(*found, strict=True), strict=True):
        assert states.count("fail") <= (3 if name == "placebo" else 0), (name, states)
        assert states.count("pass") >= 16, (name, states)


def test_overlap_fails_where_some_are_never_treated_and_says_what_narrows_the_effect(evidence):
    for seed in range(5):
        (check,) = asked(evidence, log(seed, certain=0.15), ("overlap",))
        assert (check.status, check.action, check.family) == ("fail", "stronger_design", "identification")
        assert check.value == pytest.approx(0.15, abs=0.05)
    assert "estimator.trim: 0." in check.message
    assert "design.estimand: overlap" in check.message


@pytest.mark.parametrize(
    "given",
    [
        {"design": {"estimand": "att"}},  # the treated all have a counterpart
        {"design": {"estimand": "overlap"}},
        {"estimator": {"trim": 0.05}},
    ],
)
def test_an_effect_that_is_narrowed_to_those_who_overlap_passes(evidence, given):
    (check,) = asked(evidence, log(1, certain=0.15), ("overlap",), **given)
    assert check.status == "pass"
    if "estimator" in given:
        assert "trimming left out" in check.message


def test_a_router_that_leaves_no_choice_fails(evidence):
    frame = log(2).with_columns(executed=pl.when(pl.col("queue") < 0).then(pl.lit("b")).otherwise(pl.lit("a")))
    (check,) = asked(evidence, frame, ("overlap",))
    assert check.status == "fail"
    assert check.value > 0.5


def test_weights_on_a_handful_of_rows_fail(evidence):
    found = [asked(evidence, log(seed, n=1500, steep=4.0), ("weight_concentration",))[0] for seed in range(8)]
    assert sum(c.status == "fail" for c in found) >= 5
    assert sum(c.status in ("fail", "warn") for c in found) >= 6
    assert set(found[0].details["ess"]) == {"a", "b"}


def test_a_unit_that_has_many_rows_is_no_weight(evidence):
    frame = log(3).with_columns(user=pl.int_range(pl.len()) // 200)
    columns = {**COLUMNS, "unit": "user"}
    found = evidence(frame, columns, DESIGN, METRICS)
    assert BY_NAME["weight_concentration"](found).status == "pass"


def test_the_negative_control_fails_where_something_unlogged_moves_both(evidence):
    found = []
    for seed in range(6):
        frame = log(seed, hidden=1.0).with_columns(old=pl.col("y") - (pl.col("executed") == "b"))
        found += asked(evidence, frame, ("placebo",))
    assert all(c.status == "fail" and c.action == "stronger_design" for c in found)


def test_a_negative_control_that_is_adjusted_for_could_not_have_failed(evidence):
    metrics = {**METRICS, "old": {**METRICS["old"], "column": "size"}}
    found = evidence(log(1), COLUMNS, {**DESIGN, "negative_control": "old"}, metrics)
    check = BY_NAME["placebo"](found)
    assert (check.status, "adjusted for" in check.message) == ("skip", True)
    plain = evidence(log(1), COLUMNS, DESIGN, METRICS)
    assert BY_NAME["placebo"](plain).status == "skip"


def test_balance_warns_of_what_the_weights_leave_and_lists_before_and_after(evidence):
    frame = log(4, n=3000, steep=1.0)
    left_out, with_it = (
        asked(evidence, frame, ("covariate_balance",), design={"adjust": names})[0]
        for names in (["size"], ["size", "queue"])
    )
    assert (left_out.status, left_out.action, with_it.status) == ("warn", None, "pass")
    assert "still unlike after weighting: queue" in left_out.message
    rows = {row["covariate"]: row for row in with_it.details["balance"]}
    assert set(rows["queue"]) == {"covariate", "arm", "before", "after"}
    x, side = frame["queue"].to_numpy(), (frame["executed"] == "b").to_numpy()
    spread = np.sqrt((x[side].var(ddof=1) + x[~side].var(ddof=1)) / 2)
    assert rows["queue"]["before"] == pytest.approx((x[side].mean() - x[~side].mean()) / spread, rel=1e-12)
    assert abs(rows["queue"]["after"]) < 0.1 < rows["queue"]["before"]


def test_rows_without_a_counterpart_are_those_that_a_search_finds():
    rng = np.random.default_rng(7)
    e, d = 1.0 / (1.0 + np.exp(-rng.normal(0.0, 3.0, 400))), rng.random(400) < 0.1
    e[0] = 1.0
    logit = np.log(e[1:] / (1.0 - e[1:]))
    width = 0.2 * np.sqrt((logit[d[1:]].var() + logit[~d[1:]].var()) / 2.0)
    wanted = []
    for i, (value, side) in enumerate(zip(logit, d[1:], strict=True)):
        by_rank = np.argsort(logit)
        place = int(np.flatnonzero(by_rank == i)[0])
        begin = min(max(place - 5, 0), len(logit) - 11)
        near = np.abs(logit - value) <= width
        near[by_rank[begin : begin + 11]] = True
        wanted.append(not (d[1:][near] != side).any())
    found = without_counterpart(e, d, nearest=10)
    assert found[0]
    assert found[1:].tolist() == wanted
    assert 0 < sum(wanted) < 399
    shuffled = rng.permutation(400)
    assert (without_counterpart(e[shuffled], d[shuffled], nearest=10) == found[shuffled]).all()
    equal = without_counterpart(np.full(100, 0.3), np.arange(100) < 1)
    assert not equal.any()
    with pytest.raises(EstimationError, match="one of the arms has no rows"):
        without_counterpart(e, np.zeros(400))


def test_trimming_is_advised_only_where_half_the_rows_stay(evidence):
    (found,) = asked(evidence, log(1, n=2000, certain=0.3), ("overlap",))
    assert "estimator.trim" in found.message
    (torn,) = asked(evidence, log(1, n=2000, steep=40.0), ("overlap",))
    assert (torn.status, "estimator.trim" in torn.message) == ("fail", False)
    assert "design.estimand: overlap" in torn.message


def test_weights_without_bound_fail_in_words(evidence, monkeypatch):
    treated = np.arange(40) < 20
    weights = np.where(np.arange(40) == 30, np.inf, 1.0)
    made = Weighting(treated, np.full(40, 0.5), np.ones(40), weights, None, 0.0)
    monkeypatch.setattr(sys.modules["readout.checks.overlap"], "weighting_of", lambda evidence, arm: made)
    (found,) = asked(evidence, log(2), ("weight_concentration",))
    assert (found.status, found.value) == ("fail", 1.0)
    assert found.message == "1 of 20 rows of 'a' ran against all odds: no weight is large enough"
    assert "ess" not in found.details
