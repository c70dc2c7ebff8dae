"""User-level experiments against DuckDB's sums and scipy's tests."""

from __future__ import annotations

import duckdb
import numpy as np
import polars as pl
import pytest

from readout.samples import Units
from readout.samples.histograms import FACTOR


def log(units: int = 300, arms: tuple[str, ...] = ("old", "new"), seed: int = 3) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    rows = rng.poisson(4, units) + 1
    user = np.repeat(np.arange(units), rows)
    n = len(user)
    arm = rng.integers(0, len(arms), units)[user]
    level = rng.normal(0, 1, units)[user]
    value = rng.lognormal(3 + 0.2 * level + 0.1 * arm, 0.5, n)
    frame = pl.DataFrame(
        {
            "user": user,
            "arm": np.array(arms)[arm],
            "ms": pl.Series(value).set(pl.Series(rng.random(n) < 0.07), None),
            "failed": rng.random(n) < 0.05,
            "tokens": rng.integers(1, 400, n),
            "cost": rng.gamma(2, 1, n),
            "success": (rng.random(n) < 0.4 - 0.1 * arm).astype(int),
            "action": np.where((arm == 1) & (rng.random(n) < 0.7), "new", "old"),
        }
    )
    return frame.sample(fraction=1.0, shuffle=True, seed=seed)


def by_unit(frame: pl.DataFrame, select: str, where: str = "true") -> list[tuple[np.ndarray, ...]]:
    """One tuple of columns an arm, a row a unit, by DuckDB."""
    query = f'select arm, "user", {select} from frame where {where} group by arm, "user" order by "user"'
    table = duckdb.sql(query).fetchnumpy()
    names = [n for n in table if n not in ("arm", "user")]
    return [tuple(np.asarray(table[n][table["arm"] == a], float) for n in names) for a in ("old", "new")]


def test_row_means_cluster_in_units(gather, oracle) -> None:
    frame = log()
    evidence = gather(frame, {"m": {"column": "ms"}}, logs__columns__time=None)
    arms = by_unit(frame, "sum(ms) s, count(ms) c")
    arms = [tuple(x[c > 0] for x in (s, c)) for s, c in arms]
    oracle.agrees(evidence.effect("m", 1), oracle.ratio(arms))
    assert evidence.total("m|null") == frame["ms"].null_count()


def test_a_ratio_counts_units_without_a_denominator(gather, oracle) -> None:
    """Who spends and never succeeds is the dearest: leaving such units out would flatter cost per success."""
    frame = log()
    arms = by_unit(frame, "sum(cost) c, sum(success) s")
    assert min((s == 0).sum() for _, s in arms) > 10
    evidence = gather(frame, {"m": {"numerator": "cost", "denominator": "success"}}, logs__columns__time=None)
    oracle.agrees(evidence.effect("m", 1), oracle.ratio(arms))
    by_row = frame.group_by("arm").agg(pl.col("cost").sum() / pl.col("success").sum()).sort("arm", descending=True)
    assert evidence.effect("m", 1).control_value == pytest.approx(by_row["cost"][0], rel=1e-12)


def test_a_ratio_leaves_out_rows_where_either_is_null(gather, oracle) -> None:
    frame = log().with_columns(cost=pl.when(pl.col("tokens") > 40).then("cost"))
    evidence = gather(frame, {"m": {"numerator": "cost", "denominator": "ms"}}, logs__columns__time=None)
    arms = by_unit(frame, "sum(cost) c, sum(ms) s", "cost is not null and ms is not null")
    oracle.agrees(evidence.effect("m", 1), oracle.ratio(arms))
    assert evidence.total("m|null") == frame.filter(pl.col("cost").is_null() | pl.col("ms").is_null()).height


def test_sums_within_a_unit(gather, oracle) -> None:
    frame = log()
    evidence = gather(frame, {"m": {"column": "tokens", "per": "unit"}}, logs__columns__time=None)
    (old,), (new,) = by_unit(frame, "sum(tokens) s")
    oracle.agrees(evidence.effect("m", 1), oracle.welch(old, new))


def test_where_and_untreated_choose_rows(gather, oracle) -> None:
    frame = log().with_columns(flag=pl.when(pl.col("tokens") % 3 > 0).then(pl.col("tokens") % 3 == 1))
    metrics = {
        "w": {"column": "ms", "where": "flag"},
        "u": {"column": "ms", "on": "untreated"},
        "both": {"column": "ms", "on": "untreated", "where": "tokens > 50"},
        "share": {"expr": "ms > 20 and failed"},
    }
    evidence = gather(frame, metrics, logs__columns__time=None, logs__columns__executed="action")
    for name, where in {
        "w": "flag and ms is not null",
        "u": "action <> 'new' and ms is not null",
        "both": "action <> 'new' and tokens > 50 and ms is not null",
    }.items():
        oracle.agrees(evidence.effect(name, 1), oracle.ratio(by_unit(frame, "sum(ms) s, count(ms) c", where)))
    share = by_unit(frame, "sum(coalesce(ms > 20 and failed, false)::int) s, count(*) c")
    oracle.agrees(evidence.effect("share", 1), oracle.ratio(share))


def test_several_treatment_arms_each_against_control(gather, oracle) -> None:
    frame = log(arms=("old", "new", "third"))
    evidence = gather(frame, {"m": {"column": "ms"}}, logs__columns__time=None, design__treatment=["third", "new"])
    for code, other in enumerate(("third", "new"), start=1):
        pair = frame.filter(pl.col("arm").is_in(["old", other])).with_columns(pl.col("arm").replace(other, "new"))
        arms = by_unit(pair, "sum(ms) s, count(ms) c")
        oracle.agrees(evidence.effect("m", code), oracle.ratio([tuple(x[c > 0] for x in (s, c)) for s, c in arms]))
    users = frame.unique("user").group_by("arm").len()
    assert dict(users.iter_rows()) == dict(zip(("old", "third", "new"), evidence.sample.counts(), strict=True))


@pytest.mark.parametrize("q", [0.5, 0.95])
def test_quantiles_are_within_a_bucket_of_the_exact_ones(gather, q) -> None:
    frame = log(units=800).with_columns(ms=pl.col("ms") * 1e3 - 8e3)  # of both signs
    evidence = gather(frame, {"m": {"column": "ms", "quantile": q}}, logs__columns__time=None)
    found = evidence.effect("m", 1)
    for arm, value in (("old", found.control_value), ("new", found.treatment_value)):
        exact = np.quantile(frame.filter(arm=arm)["ms"].drop_nulls().to_numpy(), q, method="inverted_cdf")
        assert value == pytest.approx(exact, rel=FACTOR - 1)


def test_quantiles_of_whole_small_numbers_are_exact(gather) -> None:
    frame = log(units=800).with_columns(v=(pl.col("tokens") // 40) * 1e300)
    evidence = gather(frame, {"m": {"column": "ms"}, "q": {"column": "v", "quantile": 0.7}}, logs__columns__time=None)
    sample = evidence.sample
    assert isinstance(sample, Units)
    control, treatment = sample._histograms(evidence.terms["q"], 1)
    from estimators.quantiles import quantile

    for arm, histogram in (("old", control), ("new", treatment)):
        exact = np.quantile(frame.filter(arm=arm)["v"].to_numpy(), 0.7, method="inverted_cdf")
        assert quantile(histogram, 0.7) == exact


def test_units_in_two_arms_are_left_out_once(gather, oracle) -> None:
    frame = log().with_columns(ok=pl.col("tokens") > 60)
    rng = np.random.default_rng(5)
    flip = pl.Series(rng.random(frame.height) < 0.01)
    frame = frame.with_columns(arm=pl.when(flip).then(pl.lit("new")).otherwise("arm"))
    both = frame.group_by("user").agg(pl.col("arm").n_unique()).filter(pl.col("arm") > 1)["user"]
    assert len(both) > 5
    evidence = gather(frame, {"m": {"column": "ms"}}, logs__columns__time=None, logs__columns__eligible="ok")
    clean = frame.filter(~pl.col("user").is_in(both.to_list()))
    arms = by_unit(clean, "sum(ms) s, count(ms) c", "ok")
    oracle.agrees(evidence.effect("m", 1), oracle.ratio([tuple(x[c > 0] for x in (s, c)) for s, c in arms]))
    assert evidence.sample.mixed() == (len(both), frame["user"].n_unique())
    rows = evidence.rows()
    assert rows.kept == clean.filter("ok").height
    assert rows.dropped == {
        "not eligible": frame.filter(~pl.col("ok")).height,
        "unit seen in two arms": frame.filter(pl.col("user").is_in(both.to_list()) & pl.col("ok")).height,
    }
    assert rows.kept + sum(rows.dropped.values()) == rows.read


def test_a_mean_of_a_billion_keeps_its_variance(gather, oracle) -> None:
    rng = np.random.default_rng(9)
    frame = log().with_columns(v=1e9 + pl.Series(rng.normal(0, 1, log().height)))
    evidence = gather(frame, {"m": {"column": "v"}, "s": {"column": "v", "per": "unit"}}, logs__columns__time=None)
    arms = by_unit(frame, "fsum(v - 1e9) s, count(v) c")
    want = oracle.ratio(arms)
    found = evidence.effect("m", 1)
    # A double holds a value of 1e9 to 1e-7, which is what the difference of means is known to.
    assert found.estimate == pytest.approx(want["estimate"], abs=3e-7)
    assert found.std_error == pytest.approx(want["std_error"], rel=1e-6)


def test_keys_of_any_type_give_the_same_numbers(gather) -> None:
    frame = log()
    results = []
    for user in (pl.col("user"), "u" + pl.col("user").cast(pl.String), pl.col("user").cast(pl.Float64)):
        evidence = gather(frame.with_columns(user=user), {"m": {"column": "ms"}}, logs__columns__time=None)
        results.append(evidence.effect("m", 1))
    assert {round(r.estimate, 12) for r in results} == {round(results[0].estimate, 12)}
    assert {round(r.std_error, 12) for r in results} == {round(results[0].std_error, 12)}
    assert len({(r.n_control, r.n_treatment) for r in results}) == 1


@pytest.mark.parametrize("drift", [False, True])
@pytest.mark.parametrize("q", [0.5, 0.95])
def test_a_long_log_gives_the_same_quantiles(gather, monkeypatch, q, drift) -> None:
    """Of a long log only the buckets around the quantile are told apart; where slices of it mislead, all of them."""
    from readout import reduce
    from readout.samples import histograms

    frame = log(units=1500)
    if drift:  # the slices at the start, in the middle and at the end see other values than the rest
        n = frame.height
        row = pl.int_range(pl.len())
        sliced = (row < 50) | (row >= n - 50) | row.is_between(n // 2 - 25, n // 2 + 24)
        frame = frame.with_columns(ms=pl.when(sliced).then(pl.col("ms") * 1e4).otherwise("ms"))
    metrics = {"m": {"column": "ms", "quantile": q}}
    want = gather(frame, metrics, logs__columns__time=None).effect("m", 1)
    monkeypatch.setattr(histograms, "LONG", 1)
    monkeypatch.setattr(reduce, "PILOT_ROWS", 50)
    evidence = gather(frame, metrics, logs__columns__time=None)
    assert evidence.effect("m", 1) == want


def test_a_unit_without_matching_rows_has_a_sum_of_zero(gather, oracle) -> None:
    """Cost of failures by unit: who never failed counts with 0."""
    frame = log()
    metric = {"column": "cost", "per": "unit", "where": "failed and tokens > 80"}
    evidence = gather(frame, {"m": metric}, logs__columns__time=None)
    (old,), (new,) = by_unit(frame, "sum(case when failed and tokens > 80 then cost else 0 end) s")
    assert (old == 0).any()
    oracle.agrees(evidence.effect("m", 1), oracle.welch(old, new))
