"""Robust means through the whole line, against the same on one value a unit."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from estimators import ROBUST, catoni, difference_in_means, median_of_means, regression_adjusted, trimmed, winsorized
from estimators.moments import Moments
from readout.samples import rows

NO_TIME: dict[str, Any] = {"logs__columns__time": None}


def log(units: int = 400, seed: int = 3) -> pl.DataFrame:
    """Several rows a unit, heavy-tailed."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(units), rng.poisson(3, units) + 1)
    arm = rng.integers(0, 2, units)[user]
    before = np.exp(rng.normal(size=units))[user]
    return pl.DataFrame(
        {
            "user": user,
            "arm": np.array(["old", "new"])[arm],
            "tokens": np.exp(1.2 * rng.normal(size=len(user))) * before,
            "success": rng.poisson(2, len(user)),
            "before": before,
            "region": np.array(["x", "y"])[user % 2],
        }
    ).sample(fraction=1.0, shuffle=True, seed=seed)


def by_unit(frame: pl.DataFrame, *columns: str) -> list[tuple[np.ndarray, ...]]:
    sums = frame.group_by("arm", "user").agg(pl.col(columns).sum(), pl.len().alias("rows"))
    return [tuple(sums.filter(arm=a)[c].to_numpy().astype(float) for c in (*columns, "rows")) for a in ("old", "new")]


def same(found: Any, wanted: Any, rel: float = 1e-9) -> None:
    for name in ("method", "estimate", "std_error", "df", "ci_low", "ci_high", "n_control", "n_treatment"):
        value = getattr(wanted, name)
        assert getattr(found, name) == (value if isinstance(value, str) else pytest.approx(value, rel=rel)), name


@pytest.mark.parametrize("method", [m for m in ROBUST if m != "median_of_means"])
def test_sums_within_units(gather, method: str) -> None:
    frame = log()
    (old, _), (new, _) = by_unit(frame, "tokens")
    evidence = gather(frame, {"m": {"column": "tokens", "per": "unit", "robust": {"method": method}}}, **NO_TIME)
    wanted = winsorized((old, None), (new, None)) if method == "winsorize" else ROBUST[method](old, new)
    same(evidence.effect("m", 1), wanted)
    plain = difference_in_means(Moments.from_arrays(old), Moments.from_arrays(new))
    assert evidence.effect("m", 1).diagnostics["plain_estimate"] == pytest.approx(plain.estimate, rel=1e-9)


def test_the_median_of_groups_of_units(gather) -> None:
    frame = log()
    metrics = {"m": {"column": "tokens", "per": "unit", "robust": {"method": "median_of_means", "groups": 9}}}
    (old, _), (new, _) = by_unit(frame, "tokens")
    found, again = (gather(log, metrics, **NO_TIME).effect("m", 1) for log in (frame, frame.reverse()))
    assert (found.estimate, found.diagnostics["groups"]) == (again.estimate, 9)
    assert found.std_error == pytest.approx(median_of_means((old, None), (new, None), groups=9).std_error, rel=1e-9)
    assert old.mean() * 0.8 < found.control_value < old.mean() * 1.2


def test_the_order_of_single_rows_means_nothing(gather) -> None:
    metrics = {"m": {"column": "tokens", "role": "primary", "robust": {"method": "median_of_means"}}}
    changes = {**NO_TIME, "logs__columns__unit": None}
    found = []
    for frame in (log(), log().sample(fraction=1.0, shuffle=True, seed=8)):
        evidence = gather(frame, metrics, **changes)
        less = evidence.sample.without_most_influential(evidence.terms["m"], 1, 0.05)
        found.append((evidence.effect("m", 1).estimate, less.estimate, evidence.tail("m").settling))
    assert found[0] == pytest.approx(found[1], rel=1e-9)


def test_row_means_and_ratios_cap_both_sides(gather) -> None:
    frame = log()
    robust = {"method": "winsorize", "quantile": 0.95}
    metrics = {
        "mean": {"column": "tokens", "robust": robust},
        "ratio": {"numerator": "tokens", "denominator": "success", "robust": robust},
        "plain": {"column": "tokens"},
    }
    evidence = gather(frame, metrics, **NO_TIME)
    (t0, s0, n0), (t1, s1, n1) = by_unit(frame, "tokens", "success")
    same(evidence.effect("mean", 1), winsorized((t0, n0), (t1, n1), quantile=0.95))
    same(evidence.effect("ratio", 1), winsorized((t0, s0), (t1, s1), quantile=0.95))
    assert evidence.effect("plain", 1).estimate == pytest.approx(t1.sum() / n1.sum() - t0.sum() / n0.sum())
    # Sums by arm, which economics reads, are never capped.
    assert evidence.sample.arm_total(evidence.terms["mean"], 0) == pytest.approx((t0.sum(), n0.sum()))


@pytest.mark.parametrize("kind", ["user_rct", "request_rct"])
def test_single_rows_are_units(gather, kind: str) -> None:
    frame = log()
    robust = [{"method": m} for m in ("winsorize", "trim", "catoni")]
    metrics = {r["method"]: {"column": "tokens", "robust": r} for r in robust} | {"plain": {"column": "tokens"}}
    changes = {**NO_TIME, "logs__columns__unit": None, "design__kind": kind, "design__shared_state": False}
    evidence = gather(frame, metrics, **changes)
    old, new = (frame.filter(arm=a)["tokens"].to_numpy() for a in ("old", "new"))
    same(evidence.effect("winsorize", 1), winsorized((old, None), (new, None)))
    same(evidence.effect("trim", 1), trimmed(old, new))
    same(evidence.effect("catoni", 1), catoni(old, new))
    same(evidence.effect("plain", 1), difference_in_means(Moments.from_arrays(old), Moments.from_arrays(new)))


def test_regression_adjustment_of_single_rows(gather) -> None:
    frame = log().with_columns(tokens=pl.when(pl.col("success") > 0).then("tokens"))
    changes = {
        **NO_TIME,
        "logs__columns__unit": None,
        "design__kind": "request_rct",
        "estimator": "regression_adjusted",
    }
    evidence = gather(frame, {"m": {"column": "tokens"}}, **changes, logs__columns__features=["before"])
    seen = frame.drop_nulls("tokens")
    wanted = regression_adjusted(
        seen["tokens"].to_numpy(), (seen["arm"] == "new").to_numpy().astype(int), seen["before"].to_numpy()[:, None]
    )
    same(evidence.effect("m", 1), wanted, 1e-8)


def test_winsorized_then_adjusted_or_stratified(gather) -> None:
    frame = log()
    metric = {"column": "tokens", "per": "unit", "robust": {"method": "winsorize", "quantile": 0.95}}
    adjusted = gather(frame, {"m": {**metric, "covariate": "before"}}, **NO_TIME, estimator="cuped").effect("m", 1)
    plain = gather(frame, {"m": metric}, **NO_TIME).effect("m", 1)
    strata = gather(frame, {"m": metric}, **NO_TIME, design__strata=["region"]).effect("m", 1)
    assert (adjusted.method, plain.method, strata.method) == ("cuped", "winsorize", "winsorize")
    assert adjusted.std_error < plain.std_error
    for found in (adjusted, strata):
        assert abs(found.estimate - plain.estimate) < 2 * plain.std_error
        assert found.diagnostics["cap"] == plain.diagnostics["cap"]


@pytest.mark.parametrize(
    ("metric", "changes", "said"),
    [
        ({"robust": {"method": "trim"}}, {}, "metrics.m.robust: trimming needs one value a unit"),
        ({"robust": {"method": "catoni"}, "numerator": "tokens", "denominator": "success"}, {}, "with a ratio"),
        ({"robust": {"method": "winsorize", "quantile": 0.3}}, {}, "expected a number above 0.5"),
        (
            {"robust": {"method": "trim"}, "per": "unit"},
            {"estimator": "regression_adjusted", "design.adjust": ["before"]},
            "metrics.m.robust: trimming does not go with regression_adjusted",
        ),
        ({"robust": {"method": "trim"}, "per": "unit"}, {"design.strata": ["region"]}, "winsorize does"),
        ({"robust": {"method": "trim"}, "per": "unit"}, {"decision": {"looks": "sequential"}}, "under repeated looks"),
    ],
)
def test_what_does_not_go_together(world, metric: dict[str, Any], changes: dict[str, Any], said: str) -> None:
    given = {"role": "primary", "better": "lower", **({} if "numerator" in metric else {"column": "tokens"}), **metric}
    world.write(log(), {"logs.columns.time": None, "metrics": {"m": given}, **changes})
    outcome = world.run()
    assert (outcome.code, world.written) == (2, [])
    assert said in outcome.err


def test_more_single_rows_than_there_is_room_for(world, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MOST_ROWS", 1000)
    metrics = {"m": {"column": "tokens", "role": "primary", "better": "lower", "robust": {"method": "trim"}}}
    world.write(log(), {"logs.columns.time": None, "logs.columns.unit": None, "metrics": metrics})
    outcome = world.run()
    assert outcome.code == 2
    assert "a robust mean holds every row by itself, up to 1,000; the log has" in outcome.err


def test_the_reader_sees_what_was_cut_and_the_plain_mean(world) -> None:
    robust = {"method": "winsorize", "quantile": 0.99}
    metrics = {
        "m": {"column": "tokens", "per": "unit", "role": "primary", "better": "lower", "robust": robust},
        "t": {"column": "tokens", "per": "unit", "better": "lower", "robust": {"method": "trim"}},
        "g": {"column": "tokens", "better": "lower", "robust": {"method": "median_of_means"}},
    }
    readout = world.readout(log(), {"logs.columns.time": None, "metrics": metrics})
    m, t, g = readout.metrics
    assert m.estimand.endswith("sum within a unit, units capped at the 99th percentile of all arms")
    (old, _), (new, _) = by_unit(log(), "tokens")
    cap = np.quantile(np.r_[old, new], 0.99, method="inverted_cdf")
    assert f"{(old > cap).sum()} of {len(old)} units in control" in m.note
    assert "plain mean " in m.note
    assert "5 % of an arm's units left out at either end" in t.estimand
    assert "median of the means of 24 random groups of units" in g.estimand
    memo = next(world.out.rglob("memo.md")).read_text(encoding="utf-8")
    assert "units capped at the 99th percentile of all arms" in memo
    assert "units in control (" in memo
