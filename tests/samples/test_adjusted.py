"""Adjusted effects of small logs against statsmodels and numpy on the rows."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import polars as pl
import pytest

CUPED = {"estimator": "cuped", "logs.columns.time": None}
LIN = {"estimator": "regression_adjusted", "logs.columns.time": None}


def log(units: int = 240, arms: tuple[str, ...] = ("old", "new"), offset: float = 0.0, seed: int = 5) -> pl.DataFrame:
    """Rows of units with facts from before the experiment, some of them missing."""
    rng = np.random.default_rng(seed)
    rows = rng.poisson(3, units) + 1
    user = np.repeat(np.arange(units), rows)
    arm = rng.integers(0, len(arms), units)
    skill = rng.normal(0, 1, units)
    tier = rng.choice(["free", "pro", "team"], units, p=[0.6, 0.3, 0.1])
    before, visits = rng.gamma(3, 2, units) + skill, rng.integers(1, 9, units)
    n = len(user)
    value = offset + 10 + 3 * skill[user] + 0.5 * arm[user] + 2 * (tier == "pro")[user] + rng.normal(0, 1, n)
    frame = pl.DataFrame(
        {
            "user": user,
            "arm": np.array(arms)[arm[user]],
            "ms": pl.Series(value).set(pl.Series(rng.random(n) < 0.05), None),
            "tokens": rng.integers(1, 50, n),
            "before": offset + before[user],
            "spent": (before * visits)[user],
            "visits": visits[user],
            "tier": tier[user],
            "skill": skill[user],
            "paid": (tier != "free")[user],
            "twice": 2 * skill[user],
        }
    )
    gone = pl.col("user") % 17 == 0  # units without a covariate
    partly = pl.int_range(pl.len()) % 5 == 0  # rows of units that have one elsewhere
    return frame.with_columns(
        pl.when(~gone & ~partly).then(c).alias(c) for c in ("before", "skill", "visits", "tier")
    ).sample(fraction=1.0, shuffle=True, seed=seed)


def by_unit(frame: pl.DataFrame, num: str, den: str | None = None, per_unit: bool = False) -> pl.DataFrame:
    """A row a unit with a value: numerator, denominator, unit means of the covariates."""
    both = frame.filter(pl.col(num).is_not_null())
    below = pl.col(den).sum() if den is not None else pl.lit(1.0) if per_unit else pl.len()
    sums = both.group_by("user", "arm").agg(num=pl.col(num).sum().cast(float), den=below.cast(float))
    facts = frame.group_by("user").agg(
        pl.col("before", "spent", "visits", "skill", "twice").mean(), pl.col("paid", "tier").drop_nulls().first()
    )
    return sums.join(facts, on="user").sort("user")


def theta_and_difference(y: np.ndarray, x: np.ndarray, treated: np.ndarray) -> tuple[float, float, float]:
    """CUPED of plain unit values by its textbook form: theta, estimate, standard error."""
    theta = np.cov(y, x)[0, 1] / x.var(ddof=1)
    rest = y - theta * (x - x.mean())
    t, c = rest[treated], rest[~treated]
    return theta, t.mean() - c.mean(), np.sqrt(t.var(ddof=1) / len(t) + c.var(ddof=1) / len(c))


def linearised(units: pl.DataFrame, num: str, den: str) -> np.ndarray:
    """Values whose mean and covariances are those of the ratio of sums, by arm (delta method)."""
    out = np.empty(len(units))
    for arm in ("old", "new"):
        mine = (units["arm"] == arm).to_numpy()
        a, b = units[num].to_numpy()[mine], units[den].to_numpy()[mine]
        r = a.sum() / b.sum()
        out[mine] = r + (a - r * b) / b.mean()
    return out


def filled(values: pl.Series) -> np.ndarray:
    return values.fill_null(values.mean()).to_numpy().astype(float)


def test_cuped_of_a_sum_within_units(gather) -> None:
    frame = log()
    units = by_unit(frame, "ms", per_unit=True)
    x = filled(units["before"])
    theta, estimate, error = theta_and_difference(units["num"].to_numpy(), x, (units["arm"] == "new").to_numpy())
    found = gather(frame, {"m": {"column": "ms", "per": "unit", "covariate": "before"}}, **CUPED).effect("m", 1)
    assert found.method == "cuped"
    assert found.diagnostics["theta"] == pytest.approx(theta, rel=1e-9)
    assert found.estimate == pytest.approx(estimate, rel=1e-9)
    assert found.std_error == pytest.approx(error, rel=1e-9)
    lacking = units["before"].null_count()
    assert lacking > 5
    assert found.diagnostics["units_without"] == {"before": lacking}


RATIO = {"numerator": "ms", "denominator": "tokens"}


@pytest.mark.parametrize(
    ("keys", "covariate"),
    [({"column": "ms"}, "before"), (RATIO, "before"), (RATIO, {"numerator": "spent", "denominator": "visits"})],
)
def test_cuped_of_ratios(gather, keys: dict[str, Any], covariate: Any) -> None:
    frame = log()
    units = by_unit(frame, "ms", keys.get("denominator"))
    if isinstance(covariate, str):
        units = units.with_columns(x=pl.Series(filled(units["before"])), w=pl.lit(1.0))
    else:
        known = pl.col("visits").is_not_null()
        units = units.with_columns(x=pl.when(known).then("spent"), w=pl.when(known).then("visits").cast(float))
        units = units.with_columns(x=pl.Series(filled(units["x"])), w=pl.Series(filled(units["w"])))
    treated = (units["arm"] == "new").to_numpy()
    y, x = linearised(units, "num", "den"), linearised(units, "x", "w")
    t, c = (units.filter(pl.Series(side)) for side in (treated, ~treated))
    pooled = units["num"].sum() / units["den"].sum(), units["x"].sum() / units["w"].sum()
    whole = [
        (units[a].to_numpy() - r * units[b].to_numpy()) / units[b].mean()
        for (a, b), r in zip((("num", "den"), ("x", "w")), pooled, strict=True)
    ]
    theta = np.cov(*whole)[0, 1] / whole[1].var(ddof=1)
    rest = y - theta * x
    value = [s["num"].sum() / s["den"].sum() - theta * s["x"].sum() / s["w"].sum() for s in (t, c)]
    error = np.sqrt(sum(rest[side].var(ddof=1) / side.sum() for side in (treated, ~treated)))
    found = gather(frame, {"m": {**keys, "covariate": covariate}}, **CUPED).effect("m", 1)
    assert found.diagnostics["theta"] == pytest.approx(theta, rel=1e-9)
    assert found.estimate == pytest.approx(value[0] - value[1], rel=1e-9)
    assert found.std_error == pytest.approx(error, rel=1e-9)


@pytest.mark.parametrize("offset", [0.0, 1e9])
@pytest.mark.parametrize("design", ["request_rct", "row"])
def test_cuped_where_rows_are_randomized(gather, design: str, offset: float) -> None:
    """Sums alone give what the rows give, far from zero too; rows without a covariate get the mean of the others."""
    frame = log(offset=offset)
    changes = {**CUPED, "logs__columns__unit": None} if design == "row" else {**CUPED, "design__kind": design}
    rows = frame.filter(pl.col("ms").is_not_null())
    treated = (rows["arm"] == "new").to_numpy()
    y, x = rows["ms"].to_numpy() - offset, filled(rows["before"] - offset)
    theta, estimate, error = theta_and_difference(y, x, treated)
    evidence = gather(frame, {"m": {"column": "ms", "covariate": "before"}}, **changes)
    found = evidence.effect("m", 1)
    rel = 1e-9 if offset == 0 else 1e-6
    assert found.method == "cuped"
    assert found.diagnostics["theta"] == pytest.approx(theta, rel=rel)
    assert found.estimate == pytest.approx(estimate, rel=rel)
    assert found.std_error == pytest.approx(error, rel=rel)
    assert found.diagnostics["units_without"] == {"before": rows["before"].null_count()}


def test_cuped_of_a_ratio_of_rows_is_that_of_one_row_a_unit(gather) -> None:
    """Two ways to the same numbers: sums of the rows, and the unit table where every row is a unit."""
    frame = log().with_row_index("row")
    metrics = {
        "m": {
            "numerator": "ms",
            "denominator": "tokens",
            "covariate": {"numerator": "spent", "denominator": "visits"},
        }
    }
    units = gather(frame, metrics, **CUPED, logs__columns__unit="row").effect("m", 1)
    rows = gather(frame, metrics, **CUPED, logs__columns__unit=None).effect("m", 1)
    for name in ("estimate", "std_error", "df", "ci_low", "relative", "relative_ci_low", "relative_ci_high"):
        assert getattr(rows, name) == pytest.approx(getattr(units, name), rel=1e-9), name
    lacking = frame.filter(pl.col("ms").is_not_null())["visits"].null_count()
    assert units.diagnostics["units_without"] == {"spent": lacking, "visits": lacking}
    assert rows.diagnostics["units_without"] == {"spent": lacking, "visits": lacking}


def lin(y: np.ndarray, treated: np.ndarray, x: np.ndarray) -> tuple[float, float]:
    """Lin's interacted regression with HC2 errors by statsmodels."""
    import statsmodels.api as sm

    centred = x - x.mean(axis=0)
    t = treated.astype(float)[:, None]
    fit = sm.OLS(y, np.hstack([np.ones_like(t), t, centred, centred * t])).fit(cov_type="HC2")
    return float(fit.params[1]), float(fit.bse[1])


def adjusters(units: pl.DataFrame) -> np.ndarray:
    """What the columns skill, paid and tier are as numbers."""
    levels = [
        pl.when(pl.col("tier").is_not_null()).then((pl.col("tier") == one).cast(float)) for one in ("pro", "team")
    ]
    dummies = units.select(level.alias(str(i)) for i, level in enumerate(levels))
    columns = [units["skill"], units["paid"].cast(float), *dummies.get_columns()]
    return np.column_stack([filled(c) for c in columns])


@pytest.mark.parametrize("from_features", [True, False])
@pytest.mark.parametrize("per_unit", [True, False])
def test_regression_adjustment_is_lins(gather, per_unit: bool, from_features: bool) -> None:
    frame = log()
    names = ["skill", "paid", "twice", "tier"]
    units = by_unit(frame, "ms", per_unit=per_unit)
    x = adjusters(units)
    x = np.column_stack([x[:, :2], units["twice"].to_numpy(), x[:, 2:]])
    y = linearised(units, "num", "den") if not per_unit else units["num"].to_numpy()
    estimate, error = lin(y, (units["arm"] == "new").to_numpy(), x)
    changes = {"logs__columns__features": names} if from_features else {"design__adjust": names}
    metric = {"column": "ms", "covariate": "before", **({"per": "unit"} if per_unit else {})}
    evidence = gather(frame, {"m": metric}, **LIN, **changes)
    found = evidence.effect("m", 1)
    assert found.method == "regression_adjusted"
    assert found.diagnostics["covariates"] == ["skill", "paid", "twice", "tier = pro", "tier = team"]
    assert found.diagnostics["dropped"] == []
    assert found.estimate == pytest.approx(estimate, rel=1e-9)
    assert found.std_error == pytest.approx(error, rel=1e-9)
    lacking = units["skill"].null_count()
    assert found.diagnostics["units_without"]["skill"] == lacking > 5


def test_rare_levels_stand_together_and_collinear_ones_are_named(world) -> None:
    frame = log(units=600)
    rng = np.random.default_rng(2)
    many = pl.Series([f"m{i:02d}" for i in np.minimum(rng.geometric(0.12, 600) - 1, 29)])
    frame = frame.with_columns(model=many.gather(frame["user"]), same=pl.col("twice") + 1, place=pl.lit("here"))
    readout = world.readout(
        frame,
        {
            **LIN,
            "logs.columns.features": ["twice", "same", "model", "place"],
            "metrics": {"m": {"column": "ms", "per": "unit", "role": "primary", "better": "lower"}},
        },
    )
    shown = readout.diagnostics["m (new)"]
    assert [c for c in shown["covariates"] if c.startswith("model = ")][-1] == "model = another level"
    assert len([c for c in shown["covariates"] + shown["dropped"] if c.startswith("model = ")]) == 20
    assert "same: constant or a combination of those before it in control" in shown["dropped"]
    assert "place: does not vary" in shown["dropped"]
    assert "not adjusted for place: does not vary, same: constant" in readout.metrics[0].note


def test_the_memo_shows_what_adjusting_did(world) -> None:
    frame = log().with_columns(slow=pl.col("ms") > 12)
    metrics = {
        "m": {"column": "ms", "role": "primary", "better": "lower", "covariate": "before"},
        "p90": {"column": "ms", "quantile": 0.9, "role": "secondary", "better": "lower", "covariate": "before"},
        "slow": {"column": "slow", "role": "secondary", "better": "lower"},
    }
    world.write(frame, {**CUPED, "metrics": metrics})
    assert world.run().code == 0
    memo = next(world.out.rglob("memo.md")).read_text()
    document = json.loads(next(world.out.rglob("readout.json")).read_text())
    by_name = {m["metric"]: m for m in document["metrics"]}
    shown = document["diagnostics"]["m (new)"]
    assert {"theta", "correlation", "variance_reduction", "unadjusted_estimate"} <= set(shown)
    assert document["design"]["method"] == by_name["m"]["method"] == "cuped"
    assert by_name["slow"]["method"] == "difference_in_means"
    assert "names no covariate and is estimated by difference_in_means" in by_name["slow"]["note"]
    assert "a quantile is not adjusted" in by_name["p90"]["note"]
    assert f"unadjusted {shown['unadjusted_estimate']:+.4g}"[:-1] in by_name["m"]["note"]
    assert "units without a covariate's value are given its mean: before (" in by_name["m"]["note"]
    assert "of the variance" in memo
    plain = world.readout(frame, {**CUPED, "estimator": "difference_in_means", "metrics": metrics}).metrics[0]
    assert plain.estimate == pytest.approx(shown["unadjusted_estimate"], rel=1e-8)
    assert plain.std_error == pytest.approx(shown["unadjusted_std_error"], rel=1e-8)
    assert by_name["m"]["std_error"] < plain.std_error


def test_the_dominating_unit_is_left_out_of_the_adjusted_estimate(world) -> None:
    """A unit that is large and was as large before does not dominate once that is taken out."""
    frame = log().with_columns(
        before=pl.when(pl.col("user") == 100).then(5000.0).otherwise(pl.col("before").fill_null(6.0)),
        ms=pl.when(pl.col("user") == 100).then(5000.0).otherwise(pl.col("before").fill_null(6.0) + pl.col("ms")),
    )
    metric = {"column": "ms", "role": "primary", "better": "lower", "covariate": "before"}

    def status(estimator: str, **more: Any) -> tuple[str, Any]:
        changes = {"estimator": estimator, "logs.columns.time": None, "metrics": {"m": metric}, **more}
        (check,) = (c for c in world.readout(frame, changes).checks if c.name == "tail_dominance")
        return check.status, check.value

    adjusted, plain = status("cuped"), status("difference_in_means")
    assert adjusted[0] == "warn"  # 1 % of units hold most of the sum, whatever is adjusted
    assert adjusted[1] < plain[1] / 3
    lin = status("regression_adjusted", **{"design.adjust": ["before"]})
    assert lin[1] < plain[1]
    # Sums of rows do not tell the covariate of the largest row: the plain estimate is held against the plain one.
    by_rows = [status(e, **{"design.kind": "request_rct"})[1] for e in ("cuped", "difference_in_means")]
    assert by_rows[0] == by_rows[1]


def test_an_aa_test_of_several_arms(gather) -> None:
    """Every arm has its own theta, and control with each of them its own fill."""
    frame = log(units=300, arms=("old", "new", "newer"))
    evidence = gather(
        frame, {"m": {"column": "ms", "per": "unit", "covariate": "before"}}, **CUPED,
        design__treatment=["new", "newer"],
    )  # fmt: skip
    for code, arm in ((1, "new"), (2, "newer")):
        units = by_unit(frame.filter(pl.col("arm").is_in(["old", arm])), "ms", per_unit=True)
        x = filled(units["before"])
        _, estimate, error = theta_and_difference(units["num"].to_numpy(), x, (units["arm"] == arm).to_numpy())
        found = evidence.effect("m", code)
        assert (found.estimate, found.std_error) == pytest.approx((estimate, error), rel=1e-9)


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"estimator": "cuped", "metrics.m.covariate": "befor"}, 3, "metrics.m.covariate"),
        ({"estimator": "cuped", "metrics.m.covariate": "tier"}, 3, "expected numbers or true/false"),
        ({"estimator": "cuped", "metrics.m.covariate": "broken"}, 3, "holds NaN or infinity"),
        ({"estimator": "cuped"}, 2, "cuped needs a covariate"),
        ({"estimator": "regression_adjusted"}, 2, "needs covariates, and the spec names none"),
        ({"estimator": "regression_adjusted", "design.adjust": ["nil"]}, 3, "the log has no column 'nil'"),
        ({"estimator": "regression_adjusted", "design.adjust": ["day"]}, 3, "takes numbers, true/false or text"),
        (
            {"estimator": "regression_adjusted", "design.adjust": ["broken"]},
            3,
            "design.adjust.0: holds NaN or infinity",
        ),
        ({"estimator": "difference_in_means", "design.pre_period": "14d"}, 2, "design.pre_period: needs the start"),
        ({"estimator": {"method": "difference_in_means", "variance": "CR2"}}, 2, "needs the role 'cluster'"),
    ],
)
def test_what_cannot_be_adjusted_for_is_refused(world, changes: dict[str, Any], code: int, said: str) -> None:
    frame = log().with_columns(
        broken=pl.when(pl.col("user") == 3).then(float("nan")).otherwise(1.0), day=pl.date(2026, 10, 5)
    )
    metrics = {"m": {"column": "ms", "role": "primary", "better": "lower"}}
    world.write(frame, {"logs.columns.time": None, "metrics": metrics, **changes})
    outcome = world.run()
    assert (outcome.code, world.written) == (code, []), outcome.err
    assert said in outcome.err


def test_check_audits_what_run_does_not_estimate_yet(world) -> None:
    world.write(log(), {**LIN, "design.kind": "request_rct", "design.adjust": ["skill"]})
    assert world.command("check", world.folder / "spec.yaml", "-q").code == 3  # the log has no `failed`
    metrics = {"m": {"column": "ms", "role": "primary", "better": "lower"}}
    world.write(log(), {**LIN, "design.kind": "request_rct", "design.adjust": ["skill"], "metrics": metrics})
    assert world.command("check", world.folder / "spec.yaml", "-q").code == 0


@pytest.mark.parametrize(
    ("covariate", "estimator", "status"),
    [
        ("before", "cuped", "pass"),
        ("tokens", "cuped", "fail"),
        ("ms", "cuped", "fail"),
        ("spent", "cuped", "fail"),
        ("spent", "difference_in_means", "pass"),
    ],
)
def test_a_covariate_from_after_the_start_is_a_bad_control(world, covariate: str, estimator: str, status: str) -> None:
    metrics = {
        "m": {"column": "ms", "role": "primary", "better": "lower", "covariate": covariate},
        "dear": {"expr": "tokens * 2", "role": "secondary", "better": "lower"},
    }
    changes = {
        "estimator": estimator, "metrics": metrics, "logs.columns.time": None,
        "logs.columns.after": ["spent"], "logs.columns.features": ["skill"],
    }  # fmt: skip
    readout = world.readout(log(), changes)
    (check,) = (c for c in readout.checks if c.name == "bad_controls")
    assert check.status == status
    if status == "fail":
        assert check.action == "instrument"
        assert repr(covariate) in check.message
        assert readout.metrics[0].estimate is not None
