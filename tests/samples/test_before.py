"""The pre-period: the same numbers as where its means were joined to the log by hand."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from readout.errors import LogError, SpecError
from readout.estimate import metric_results
from tests.conftest import START

PERIOD = {"logs__start": START.isoformat(), "design__pre_period": "7d"}
COLUMNS = {"time": "at", "unit": "user", "arm": "arm"}
METRICS: dict[str, dict[str, Any]] = {
    "m": {"column": "ms"},
    "sum": {"column": "tokens", "per": "unit", "role": "guardrail", "margin": "5%"},
    "ratio": {"numerator": "ms", "denominator": "tokens"},
    "named": {"column": "ms", "covariate": "tokens"},
    "slow": {"column": "ms", "where": "tokens > 20"},
    "median": {"column": "ms", "quantile": 0.5},
}


def log(units: int = 200, seed: int = 3, moved: float = 0.0) -> pl.DataFrame:
    """Rows of users from ten days before the window on; no arm is known before it, and some users come late."""
    rng = np.random.default_rng(seed)
    rows = 2 + rng.poisson(6, units)
    user = np.repeat(np.arange(units), rows)
    n = len(user)
    late = user % 11 == 0
    hours = np.where(late, rng.uniform(0, 120, n), rng.uniform(-240, 120, n))
    arm = rng.integers(0, 2, units)[user]
    level = rng.normal(0, 3, units)[user]
    ms = 30 + level + np.where(hours >= 0, 0.8 * arm, moved * arm) + rng.normal(0, 1, n)
    frame = pl.DataFrame(
        {
            "at": [START + timedelta(hours=float(h)) for h in hours],
            "user": user,
            "zone": [f"z{u % 40}" for u in user],
            "arm": np.array(["old", "new"])[arm],
            "ms": pl.Series(ms).set(pl.Series(rng.random(n) < 0.05), None),
            "tokens": rng.poisson(np.exp(3 + level / 6)),
            "skill": rng.normal(0, 1, units)[user],
            "could": rng.random(n) < 0.8,
        }
    )
    before = pl.col("at") < START
    return frame.with_columns(pl.when(~before).then(name).alias(name) for name in ("arm", "could")).sample(
        fraction=1.0, shuffle=True, seed=seed
    )


def joined(frame: pl.DataFrame) -> pl.DataFrame:
    """The window's rows with each unit's pre-period as columns."""
    before = frame.filter((pl.col("at") < START) & (pl.col("at") >= START - timedelta(days=7)))
    both = pl.col("ms").is_not_null()
    facts = before.group_by("user").agg(
        ms_before=pl.col("ms").mean(),
        tokens_mean=pl.col("tokens").mean(),
        tokens_before=pl.col("tokens").sum(),
        above=pl.when(both.any()).then(pl.col("ms").sum()),
        below=pl.when(both.any()).then(pl.col("tokens").filter(both).sum()),
        slow_before=pl.col("ms").filter(pl.col("tokens") > 20).mean(),
    )
    return frame.filter(pl.col("at") >= START).join(facts, on="user", how="left")


BY_HAND = {
    "m": "ms_before", "sum": "tokens_before", "named": "tokens_mean", "slow": "slow_before",
    "ratio": {"numerator": "above", "denominator": "below"},
}  # fmt: skip
LABELS = {"named": "tokens before", "ratio": "ratio before (numerator)"}


@pytest.mark.parametrize("columns", [COLUMNS, {**COLUMNS, "eligible": "could"}])
def test_cuped_takes_a_metric_itself_from_before(gather, columns: dict[str, str]) -> None:
    frame = log()
    evidence = gather(frame, METRICS, logs__columns=columns, estimator="cuped", **PERIOD)
    by_hand = {n: {**k, "covariate": BY_HAND[n]} for n, k in METRICS.items() if n in BY_HAND}
    theirs = gather(joined(frame), by_hand, logs__columns=columns, estimator="cuped")
    for name in BY_HAND:
        found, wanted = evidence.effect(name, 1), theirs.effect(name, 1)
        for part in ("estimate", "std_error", "df", "ci_low", "relative_ci_high"):
            assert getattr(found, part) == pytest.approx(getattr(wanted, part), rel=1e-12), (name, part)
        lacking = found.diagnostics["units_without"][LABELS.get(name, f"{name} before")]
        assert lacking == next(iter(wanted.diagnostics["units_without"].values())) > 10
    assert evidence.effect("m", 1).diagnostics["variance_reduction"] > 0.5
    assert not evidence.effect("median", 1).diagnostics.get("theta")


def test_regression_adjusts_for_features_and_for_the_metric_before(gather) -> None:
    frame = log()
    lin = {"logs__columns": {**COLUMNS, "features": ["skill"]}, "estimator": "regression_adjusted"}
    evidence = gather(frame, METRICS, **lin, **PERIOD)
    for name, columns in (("m", ["ms_before"]), ("ratio", ["above", "below"])):
        theirs = gather(
            joined(frame), {name: METRICS[name]}, estimator="regression_adjusted", logs__columns=COLUMNS,
            design__adjust=["skill", *columns],
        ).effect(name, 1)  # fmt: skip
        found = evidence.effect(name, 1)
        for part in ("estimate", "std_error", "df"):
            assert getattr(found, part) == pytest.approx(getattr(theirs, part), rel=1e-12)
    assert evidence.effect("m", 1).diagnostics["covariates"] == ["skill", "m before"]
    alone = gather(frame, METRICS, logs__columns=COLUMNS, estimator="regression_adjusted", **PERIOD)
    assert alone.effect("m", 1).diagnostics["covariates"] == ["m before"]


def test_its_rows_are_counted_and_have_no_part_in_the_effect(gather) -> None:
    frame = log()
    window = frame.filter(pl.col("at") >= START)
    evidence = gather(frame, METRICS, logs__columns=COLUMNS, **PERIOD)
    plain = gather(window, METRICS, logs__columns=COLUMNS)
    for name in METRICS:
        assert evidence.effect(name, 1).estimate == pytest.approx(plain.effect(name, 1).estimate, rel=1e-12)
    rows, since = evidence.rows(), START - timedelta(days=7)
    n_before = len(frame.filter((pl.col("at") < START) & (pl.col("at") >= since)))
    assert rows.dropped == {"pre-period": n_before, "outside the window": len(frame.filter(pl.col("at") < since))}
    assert rows.kept == len(window)
    assert rows.kept + sum(rows.dropped.values()) == rows.read
    kept = gather(frame, METRICS, logs__columns=COLUMNS, logs__where="tokens > 15", **PERIOD)
    assert kept.rows().dropped["pre-period"] == len(
        frame.filter((pl.col("at") < START) & (pl.col("at") >= since) & (pl.col("tokens") > 15))
    )


def test_a_pair_of_times_is_the_same_pre_period(gather) -> None:
    frame = log()
    pair = [(START - timedelta(days=7)).isoformat(), START.isoformat()]
    one = gather(frame, METRICS, estimator="cuped", logs__columns=COLUMNS, **PERIOD)
    other = gather(frame, METRICS, estimator="cuped", logs__columns=COLUMNS, **{**PERIOD, "design__pre_period": pair})
    assert one.effect("m", 1) == other.effect("m", 1)


def balance(evidence: Any) -> Any:
    from readout.checks.balance import covariate_balance

    object.__setattr__(evidence, "metrics", metric_results(evidence))
    return covariate_balance(evidence)


def test_primaries_and_guardrails_are_compared_before(gather) -> None:
    from scipy.stats import ttest_ind

    frame = log()
    check = balance(gather(frame, METRICS, logs__columns=COLUMNS, **PERIOD))
    found = {row["covariate"]: row for row in check.details["balance"]}
    assert set(found) == {"m before", "sum before"}
    units = joined(frame).group_by("user", "arm").agg(pl.col("ms_before", "tokens_before").first())
    for name, column in (("m before", "ms_before"), ("sum before", "tokens_before")):
        old, new = (units.filter(pl.col("arm") == a)[column].drop_nulls().to_numpy() for a in ("old", "new"))
        assert found[name]["p_value"] == pytest.approx(ttest_ind(new, old, equal_var=False).pvalue, rel=1e-9)
        spread = np.sqrt((old.var(ddof=1) + new.var(ddof=1)) / 2)
        assert found[name]["before"] == pytest.approx((new.mean() - old.mean()) / spread, rel=1e-9)
    assert check.status == "pass"


def test_arms_that_differed_before_are_found_and_equal_ones_are_not(gather) -> None:
    statuses = {
        moved: [balance(gather(log(seed=s, moved=moved), {"m": METRICS["m"]}, logs__columns=COLUMNS, **PERIOD)).status
                for s in range(6)]
        for moved in (0.0, 4.0)
    }  # fmt: skip
    assert "fail" not in statuses[0.0]
    assert set(statuses[4.0]) == {"fail"}


def test_clusters_are_compared_before_as_wholes(gather) -> None:
    from scipy.stats import ttest_ind

    frame = log().with_columns(arm=pl.when(pl.col("at") >= START).then(pl.col("user") % 40 % 2).replace_strict(
        {0: "old", 1: "new"}, return_dtype=pl.String))  # fmt: skip
    design = {"kind": "cluster_rct", "control": "old", "treatment": "new", "pre_period": "7d"}
    columns = {**COLUMNS, "cluster": "zone"}
    metrics = {n: {"role": "guardrail", "margin": "5%", **METRICS[n]} for n in ("m", "sum", "ratio")}
    evidence = gather(frame, metrics, logs__columns=columns, logs__start=START.isoformat(), design=design)
    check = balance(evidence)
    found = {row["covariate"]: row for row in check.details["balance"]}
    before = frame.filter((pl.col("at") < START) & (pl.col("at") >= START - timedelta(days=7)))
    both = pl.col("ms").is_not_null()
    zones = before.group_by("zone", arm=pl.col("user") % 40 % 2).agg(
        m=pl.col("ms").mean(),
        sum=pl.col("tokens").sum() / pl.col("user").n_unique(),
        ratio=pl.col("ms").sum() / pl.col("tokens").filter(both).sum(),
    )
    for name in metrics:
        old, new = (zones.filter(pl.col("arm") == a)[name].to_numpy() for a in (0, 1))
        wanted = ttest_ind(new, old, equal_var=False).pvalue
        assert found[f"{name} before"]["p_value"] == pytest.approx(wanted, rel=1e-9), name
    plain = gather(frame.filter(pl.col("at") >= START), metrics, logs__columns=columns,
                   design={k: v for k, v in design.items() if k != "pre_period"})  # fmt: skip
    assert evidence.effect("m", 1).std_error == pytest.approx(plain.effect("m", 1).std_error, rel=1e-12)


def test_a_pre_period_with_treatment_in_it_is_none(gather) -> None:
    from readout.checks.assignment import treatment_start

    columns = {**COLUMNS, "executed": "ran"}
    for share, status in ((0.0, "skip"), (0.2, "fail")):
        frame = log()
        early = np.random.default_rng(1).random(len(frame)) < share
        ran = pl.when((pl.col("at") >= START) | pl.Series(early)).then(pl.lit("new")).otherwise(pl.lit("old"))
        check = treatment_start(gather(frame.with_columns(ran=ran), METRICS, logs__columns=columns, **PERIOD))
        assert (check.status, check.action) == (status, "pause" if share else None)
    assert "rows of the pre-period were treated" in check.message


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [({"logs__start": None}, SpecError, "design.pre_period: needs the start of the window"),
     ({"design__pre_period": ["2026-10-01", "2026-10-06"]}, SpecError, "pair of times that ends by logs.start"),
     ({"design__pre_period": [1, 2]}, SpecError, "expected times such as"),
     ({"logs__start": None, "logs__last": "60d", "design__pre_period": ["2026-09-01", "2026-11-06"]}, SpecError,
      "ends by the window's start, 2026-09-21"),
     ({"logs__columns": {"time": "at", "arm": "arm"}}, LogError, "a pre-period needs a column for the role 'unit'"),
     ({"design__pre_period": ["2020-01-01", "2020-02-01"]}, LogError, "no row of the log stands in the pre-period"),
     ({"logs__where": "ms > 1000"}, LogError, "no row of the log stands in the pre-period")],
)  # fmt: skip
def test_what_cannot_be_a_pre_period_is_refused(gather, changes: dict[str, Any], error: Any, said: str) -> None:
    with pytest.raises(error, match=said):
        gather(log(), METRICS, **{"logs__columns": COLUMNS, **PERIOD, **changes})


def test_the_readout_says_when_it_was(world) -> None:
    changes = {"logs.start": START.isoformat(), "design.pre_period": "7d", "estimator": "cuped",
               "metrics": {"m": {"column": "ms", "role": "primary", "better": "lower", "covariate": "ms"}}}  # fmt: skip
    readout = world.readout(log(), changes)
    assert readout.design["pre_period"] == {"start": "2026-09-28T00:00:00+00:00", "end": "2026-10-05T00:00:00+00:00"}
    checks = {check.name: check for check in readout.checks}
    assert checks["bad_controls"].status == "skip"
    assert "ms before" in readout.metrics[0].note
    assert any(note.startswith("rows left out (pre-period)") for note in readout.notes)
