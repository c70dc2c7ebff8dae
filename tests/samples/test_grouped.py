"""Strata of units and requests, and errors of units by cluster: against statsmodels on the rows."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from readout.errors import LogError, SpecError

REQUESTS = {"kind": "request_rct", "control": "old", "treatment": "new", "shared_state": False}
BY_ROW = {"arm": "arm", "cluster": "region"}
BY_UNIT = {**BY_ROW, "unit": "user"}
METRICS = {
    "m": {"column": "ms"},
    "sum": {"column": "tokens", "per": "unit"},
    "ratio": {"numerator": "ms", "denominator": "tokens"},
    "median": {"column": "ms", "quantile": 0.5},
}
BY_ROWS = {name: keys for name, keys in METRICS.items() if name != "sum"}


def log(units: int = 300, seed: int = 5, arms: tuple[str, ...] = ("old", "new"), offset: float = 0.0) -> pl.DataFrame:
    """Rows of users, each in one region and one tier, which tell level, effect and share of treated."""
    rng = np.random.default_rng(seed)
    tier, region = rng.integers(0, 3, units), rng.integers(0, 14, units)
    arm = (rng.random(units) < np.array([0.4, 0.5, 0.7])[tier]).astype(int) * rng.integers(1, len(arms), units)
    user = np.repeat(np.arange(units), 1 + rng.poisson(2, units))
    n = len(user)
    level = 20 + 6 * tier + rng.normal(0, 2, 14)[region]
    ms = offset + level[user] + (1 + tier[user]) * (arm[user] > 0) + rng.normal(0, 2, units)[user] + rng.normal(0, 1, n)
    frame = pl.DataFrame(
        {
            "user": user,
            "arm": np.array(arms)[arm[user]],
            "region": [f"r{r}" for r in region[user]],
            "tier": tier[user],
            "old": (tier[user] == 2),
            "ms": pl.Series(ms).set(pl.Series(rng.random(n) < 0.05), None),
            "tokens": rng.integers(1, 50, n),
            "skill": tier[user] + rng.normal(0, 1, units)[user],
        }
    )
    return frame.sample(fraction=1.0, shuffle=True, seed=seed)


def by_unit(frame: pl.DataFrame, name: str) -> tuple[np.ndarray, pl.DataFrame]:
    """A metric's linearised value of every unit, and the units: values whose mean in an arm is the arm's."""
    num, den = {"m": ("ms", pl.len()), "sum": ("tokens", pl.lit(1)), "ratio": ("ms", pl.col("tokens").sum())}[name]
    rows = frame.drop_nulls("ms") if num == "ms" else frame
    units = rows.group_by("user", "arm", "tier", "region").agg(num=pl.col(num).sum(), den=den).sort("user")
    return units["num"].to_numpy().astype(float), units


def linearised(units: pl.DataFrame, weights: np.ndarray) -> np.ndarray:
    """Values at the arm's ratio of weighted sums."""
    z = np.empty(len(units))
    num, den = units["num"].to_numpy().astype(float), units["den"].to_numpy().astype(float)
    for arm in ("old", "new"):
        mine = (units["arm"] == arm).to_numpy()
        w = weights[mine] / weights[mine].sum()
        ratio = (w @ num[mine]) / (w @ den[mine])
        z[mine] = ratio + (num[mine] - ratio * den[mine]) / (w @ den[mine])
    return z


def saturated(units: pl.DataFrame) -> tuple[float, float]:
    """Every stratum's arm a dummy, HC2, strata at their shares of units; ratios linearised at the arm's value."""
    import statsmodels.api as sm

    tier, arm = units["tier"].to_numpy(), units["arm"].to_numpy()
    strata = np.unique(tier)
    share = np.array([(tier == s).mean() for s in strata])
    weights = np.empty(len(units))
    for s, of in zip(strata, share, strict=True):
        for a in ("old", "new"):
            cell = (tier == s) & (arm == a)
            weights[cell] = of / cell.sum()
    cells = [((tier == s) & (arm == a)).astype(float) for s in strata for a in ("old", "new")]
    fit = sm.OLS(linearised(units, weights), np.column_stack(cells)).fit(cov_type="HC2")
    contrast = np.ravel(np.column_stack([-share, share]))
    return float(contrast @ fit.params), float(np.sqrt(contrast @ fit.cov_params() @ contrast))


@pytest.mark.parametrize("name", ["m", "sum", "ratio"])
def test_strata_of_units_are_saturated_least_squares(gather, name: str) -> None:
    frame = log()
    evidence = gather(frame, METRICS, logs__columns=BY_UNIT, design__strata="tier")
    found = evidence.effect(name, 1)
    estimate, error = saturated(by_unit(frame, name)[1])
    assert found.estimate == pytest.approx(estimate, rel=1e-9)
    assert found.std_error == pytest.approx(error, rel=1e-9)
    assert found.method == "difference_in_means"
    assert found.diagnostics["n_strata"] == 3
    assert evidence.sample.drawn == ", within strata of tier"


@pytest.mark.parametrize("offset", [0.0, 1e9])
def test_strata_of_rows_are_those_of_units_with_a_row_each(gather, offset: float) -> None:
    frame = log(offset=offset).unique("user", maintain_order=True)
    rows = gather(frame, BY_ROWS, logs__columns=BY_ROW, design={**REQUESTS, "strata": ["tier", "old"]})
    units = gather(frame, BY_ROWS, logs__columns=BY_UNIT, design__strata=["old", "tier"])
    assert rows.sample.unit == "request"
    for name in ("m", "ratio"):
        mine, theirs = rows.effect(name, 1), units.effect(name, 1)
        for part in ("estimate", "std_error", "df", "relative_ci_low"):
            assert getattr(mine, part) == pytest.approx(getattr(theirs, part), rel=1e-6 if offset else 1e-9)
    total = gather(frame, BY_ROWS, logs__columns=BY_ROW, design=REQUESTS)
    assert rows.sample.counts() == total.sample.counts()
    assert rows.sample.arm_total(rows.terms["m"], 1) == pytest.approx(total.sample.arm_total(total.terms["m"], 1))


def test_the_most_influential_is_left_out_of_its_stratum(gather) -> None:
    frame = log().unique("user", maintain_order=True)
    worst = frame["ms"].arg_max()
    frame = frame.with_columns(pl.when(pl.int_range(pl.len()) == worst).then(900.0).otherwise("ms").alias("ms"))
    without = frame.filter(pl.col("ms").is_null() | (pl.col("ms") < 900.0))
    for columns, design in (
        (BY_UNIT, {"design__strata": "tier"}),
        (BY_ROW, {"design": {**REQUESTS, "strata": "tier"}}),
    ):
        evidence = gather(frame, BY_ROWS, logs__columns=columns, **design)
        left = evidence.sample.without_most_influential(evidence.terms["m"], 1, 0.05)
        assert left.estimate == pytest.approx(
            gather(without, BY_ROWS, logs__columns=columns, **design).effect("m", 1).estimate
        )


def test_regression_adjusts_for_strata_too(gather) -> None:
    frame = log()
    lin = {"logs__columns": {**BY_UNIT, "features": ["skill"]}, "estimator": "regression_adjusted"}
    found = gather(frame, METRICS, **lin, design__strata="tier").effect("sum", 1)
    dummies = frame.with_columns((pl.col("tier") == t).alias(f"t{t}") for t in (1, 2))
    lin["logs__columns"] = {**BY_UNIT, "features": ["skill", "t1", "t2"]}
    theirs = gather(dummies, METRICS, **lin).effect("sum", 1)
    assert found.diagnostics["covariates"] == ["skill", "stratum 1", "stratum 2"]
    for part in ("estimate", "std_error", "df"):
        assert getattr(found, part) == pytest.approx(getattr(theirs, part), rel=1e-9)


@pytest.mark.parametrize("columns", [BY_UNIT, BY_ROW])
def test_a_stratum_is_on_every_row_and_one_a_unit(gather, columns: dict[str, str]) -> None:
    frame = log()
    null = frame.with_columns(tier=pl.when(pl.int_range(pl.len()) > 3).then("tier"))
    with pytest.raises(LogError, match="column 'tier' is null on 4 kept rows"):
        gather(null, BY_ROWS, logs__columns=columns, design__strata="tier")
    if "unit" in columns:
        with pytest.raises(LogError, match=r"column 'tokens' varies within .* units, such as a unit that has"):
            gather(frame, BY_ROWS, logs__columns=columns, design__strata="tokens")


@pytest.mark.parametrize("columns", [BY_UNIT, BY_ROW])
def test_winsorized_values_are_compared_within_strata_and_by_cluster(gather, columns: dict[str, str]) -> None:
    frame = log().unique("user", maintain_order=True).drop_nulls("ms")
    high = np.quantile(frame["ms"], 0.9, method="inverted_cdf")
    cut = frame.with_columns(pl.col("ms").clip(upper_bound=high))
    design = {} if "unit" in columns else {"design": REQUESTS}
    by_cluster = {**design, "estimator": {"variance": "CR2"}}
    in_strata = {"design__strata": "tier"} if "unit" in columns else {"design": {**REQUESTS, "strata": "tier"}}
    robust = {"m": {"column": "ms", "robust": {"method": "winsorize", "quantile": 0.9}}}
    for changes in (in_strata, by_cluster):
        found = gather(frame, robust, logs__columns=columns, **changes).effect("m", 1)
        plain = gather(cut, {"m": {"column": "ms"}}, logs__columns=columns, **changes).effect("m", 1)
        untouched = gather(frame, {"m": {"column": "ms"}}, logs__columns=columns, **changes).effect("m", 1)
        assert found.estimate == pytest.approx(plain.estimate, abs=0.05 * plain.std_error)
        assert found.std_error == pytest.approx(plain.std_error, rel=0.02)
        assert abs(found.estimate - untouched.estimate) > 0.05 * plain.std_error
        assert found.diagnostics["plain_estimate"] == pytest.approx(untouched.estimate)
        assert found.diagnostics["plain_std_error"] == pytest.approx(untouched.std_error)


def test_a_thin_stratum_is_refused_by_name(gather) -> None:
    frame = log().filter((pl.col("tier") != 2) | (pl.col("arm") == "old"))
    evidence = gather(frame, METRICS, logs__columns=BY_UNIT, design__strata="tier")
    assert evidence.effect("m", 1) is None
    assert "'2' has none of treatment" in evidence.why_not("m", 1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"design__strata": "tier", "estimator": "cuped"}, "design.strata: does not combine with cuped"),
     ({"design__strata": "tier", "estimator": {"variance": "CR2"}}, "variance: does not combine with design.strata"),
     ({"estimator": {"variance": "CR1"}, "logs__columns": {"arm": "arm", "unit": "user"}}, "needs the role 'cluster'")],
)  # fmt: skip
def test_what_does_not_combine_is_refused(gather, changes: dict[str, object], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        gather(log(), METRICS, **{"logs__columns": BY_UNIT, **changes})


@pytest.mark.parametrize("name", ["m", "sum", "ratio"])
def test_errors_by_cluster_are_those_of_least_squares_of_the_units(gather, name: str) -> None:
    import statsmodels.api as sm

    frame = log()
    evidence = gather(frame, METRICS, logs__columns=BY_UNIT, estimator={"variance": "CR1"})
    found, (_, units) = evidence.effect(name, 1), by_unit(frame, name)
    arm, region = (units["arm"] == "new").to_numpy().astype(float), units["region"].cast(pl.Categorical).to_physical()
    z = linearised(units, np.ones(len(units)))
    fit = sm.OLS(z, sm.add_constant(arm)).fit(cov_type="cluster", cov_kwds={"groups": region.to_numpy()}, use_t=True)
    assert found.estimate == pytest.approx(fit.params[1], rel=1e-9)
    assert found.std_error == pytest.approx(fit.bse[1], rel=1e-9)
    assert found.p_value == pytest.approx(fit.pvalues[1], rel=1e-8)
    assert "fewer than 50" in evidence.sample.notes(evidence.spec.metrics["m"])[0]
    left = evidence.sample.without_most_influential(evidence.terms[name], 1, 0.05)
    assert left.std_error != found.std_error
    assert left.n_control + left.n_treatment == len(units) - 1


@pytest.mark.parametrize("variance", ["CR1", "CR2"])
@pytest.mark.parametrize("offset", [0.0, 1e9])
def test_errors_by_cluster_of_rows_are_those_of_units_with_a_row_each(gather, variance: str, offset: float) -> None:
    frame = log(offset=offset).unique("user", maintain_order=True)
    estimator = {"method": "difference_in_means", "variance": variance}
    rows = gather(frame, BY_ROWS, logs__columns=BY_ROW, design=REQUESTS, estimator=estimator)
    units = gather(frame, BY_ROWS, logs__columns=BY_UNIT, estimator=estimator)
    for name in ("m", "ratio") if offset else ("m", "ratio", "median"):
        for part in ("estimate", "std_error", "df", "relative_ci_low"):
            mine, theirs = getattr(rows.effect(name, 1), part), getattr(units.effect(name, 1), part)
            assert mine == pytest.approx(theirs, rel=1e-6 if offset else 1e-9), (name, part)
    if not offset:
        plain = gather(frame, BY_ROWS, logs__columns=BY_ROW, design=REQUESTS)
        assert rows.effect("median", 1).estimate == pytest.approx(plain.effect("median", 1).estimate)
        assert rows.effect("median", 1).n_control <= 14
    assert rows.sample.without_most_influential(rows.terms["m"], 1, 0.05) is not None


def test_units_of_several_clusters_have_no_cluster(gather) -> None:
    frame = log().with_columns(region=pl.col("tokens").cast(pl.String))
    with pytest.raises(LogError, match=r"column 'region' varies within .* units") as error:
        gather(frame, METRICS, logs__columns=BY_UNIT, estimator={"variance": "CR2"})
    assert "leave estimator.variance out" in error.value.problems[0].hint


def test_every_arm_has_its_strata_and_the_memo_says_so(world) -> None:
    frame = log(arms=("old", "new", "newer"))
    changes = {
        "design.strata": "tier", "design.treatment": ["new", "newer"], "logs.columns": BY_UNIT,
        "metrics": {n: {"better": "lower", "role": "primary", **k} for n, k in METRICS.items()},
    }  # fmt: skip
    readout = world.readout(frame, changes)
    notes = {(m.metric, m.arm): m.note for m in readout.metrics}
    assert "averaged over 3 strata; without them" in notes["m", "newer"]
    assert "strata do not narrow its interval" in notes["median", "new"]
    assert "within strata of tier" in readout.assignment
