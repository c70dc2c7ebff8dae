"""A level's effect is that of a log of its rows; levels that share units move together as least squares says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from readout.samples.contributions import contributions
from readout.segments.asked import named
from readout.segments.reading import read_segments

START = datetime(2026, 10, 5, tzinfo=UTC)
METRICS: dict[str, dict[str, Any]] = {
    "latency": {"column": "ms"},
    "rate": {"numerator": "ms", "denominator": "tokens", "role": "guardrail", "margin": "5%"},
}
PER_UNIT = {"used": {"column": "tokens", "per": "unit", "role": "guardrail", "margin": "5%"}}
MORE = {
    "p90": {"column": "ms", "quantile": 0.9, "role": "guardrail", "margin": "5%"},
    "capped": {"column": "ms", "robust": {"method": "winsorize", "quantile": 0.9}, "role": "guardrail", "margin": 9},
}
SWITCHBACK = {
    "design.kind": "switchback",
    "design.block": "2h",
    "design.shared_state": None,
    "logs.columns.cluster": "region",
}


def log(kind: str = "user_rct", seed: int = 1, rows: int = 4000) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    user = rng.integers(0, 300, rows)
    minute = np.sort(rng.integers(0, 14 * 24 * 60, rows))
    region = rng.integers(0, 20 if kind == "cluster_rct" else 3, rows)
    if kind == "switchback":
        on = rng.integers(0, 2, (3, 14 * 12))[region, minute // 120]
    elif kind == "cluster_rct":
        on = (np.arange(20) % 2)[region]
    elif kind == "request_rct":
        on = rng.integers(0, 2, rows)
    else:
        on = user % 2
    long = rng.random(rows) < 0.4
    own = rng.normal(0, 5, 300)[user] + rng.normal(0, 3, 20)[region] + 3 * np.sin(minute / 700)
    return pl.DataFrame(
        {
            "at": [START + timedelta(minutes=int(m)) for m in minute],
            "user": user,
            "region": [f"r{r:02d}" for r in region],
            "arm": np.array(["old", "new"])[on],
            "tier": np.array(["free", "pro", "top"])[user % 3],
            "team": user // 12,
            "long": long,
            "ms": 100 + own + rng.normal(0, 8, rows) - 4 * on * long,
            "tokens": rng.integers(1, 400, rows),
            "before": own + rng.normal(0, 3, rows),
        }
    )


CASES = [
    ("user_rct", {}, METRICS | PER_UNIT | MORE),
    ("user_rct", {"estimator": {"method": "cuped"}}, {"latency": {"column": "ms", "covariate": "before"}}),
    ("user_rct", {"estimator": "regression_adjusted", "logs.columns.features": ["before", "tier"]}, METRICS),
    ("user_rct", {"logs.columns.cluster": "team", "estimator": {"variance": "CR2"}}, METRICS),
    ("request_rct", {}, METRICS | MORE),
    ("cluster_rct", {"logs.columns.cluster": "region", "design.shared_state": None}, METRICS | PER_UNIT | MORE),
    (
        "cluster_rct",
        {"logs.columns.cluster": "region", "design.shared_state": None, "estimator": "cluster_robust"},
        METRICS,
    ),
    ("switchback", SWITCHBACK, METRICS | PER_UNIT | MORE),
]


@pytest.mark.parametrize(("kind", "changes", "metrics"), CASES)
def test_a_level_is_the_log_of_its_rows(gather, kind, changes, metrics) -> None:
    frame = log(kind)
    changes = {"design.kind": kind, **changes}
    given = {key.replace(".", "__"): value for key, value in changes.items()}
    both = gather(frame, metrics, segments=["tier", {"name": "long", "where": "long"}], **given)
    for g, i, where in ((0, 1, "tier = 'pro'"), (1, 0, "long"), (1, 1, "not long")):
        alone = gather(frame, metrics, logs__where=where, **given)
        for name in metrics:
            found, wanted = both.effect(named(g, i, name), 1), alone.effect(name, 1)
            assert found is not None
            assert wanted is not None
            for value in ("estimate", "std_error", "df", "p_value", "ci_low", "ci_high", "control_value", "n_control"):
                assert getattr(found, value) == pytest.approx(getattr(wanted, value), rel=1e-9), (where, name, value)


def test_joint_covariance_of_users_against_statsmodels(gather) -> None:
    """Every user has requests of both kinds, so the two effects share users."""
    import statsmodels.api as sm

    frame = log(rows=6000).filter(pl.col("long").n_unique().over("user") == 2)
    evidence = gather(frame, METRICS, segments=[{"name": "long", "where": "long"}])
    (test, *_) = [h for h in read_segments(evidence).heterogeneity if h.metric == "latency"]
    x = frame["long"].cast(pl.Float64).to_numpy()
    on = (frame["arm"] == "new").cast(pl.Float64).to_numpy()
    design = np.column_stack([np.ones(len(x)), x, on, x * on])
    n = frame.group_by("arm").agg(pl.col("user").n_unique())["user"].to_list()
    assert n[0] == n[1]
    fitted = sm.OLS(frame["ms"].to_numpy(), design).fit(
        cov_type="cluster", cov_kwds={"groups": frame["user"].to_numpy(), "use_correction": False}
    )
    wald = (fitted.params[3] ** 2 / fitted.cov_params()[3, 3]) * (n[0] - 1) / n[0]
    assert test.statistic == pytest.approx(wald, rel=1e-9)
    assert test.df == 1
    terms = [evidence.terms[named(0, i, "latency")] for i in (0, 1)]
    parts = contributions(evidence.sample, terms, 1)
    assert parts is not None
    both = np.array([[0, 0, 1, 1], [0, 0, 1, 0]]) @ fitted.cov_params() @ np.array([[0, 0, 1, 1], [0, 0, 1, 0]]).T
    assert parts.T @ parts == pytest.approx(both * n[0] / (n[0] - 1), rel=1e-9)
    assert abs(np.corrcoef(parts.T)[0, 1]) > 0.2


def test_joint_covariance_of_requests_against_statsmodels(gather) -> None:
    """Rows stand apart: White's errors of the interacted regression, three levels."""
    import statsmodels.api as sm

    frame = log("request_rct")
    evidence = gather(frame, METRICS, design__kind="request_rct", segments=["tier"])
    (test, *_) = [h for h in read_segments(evidence).heterogeneity if h.metric == "latency"]
    on = (frame["arm"] == "new").cast(pl.Float64).to_numpy()
    tiers = np.column_stack([(frame["tier"] == t).cast(pl.Float64).to_numpy() for t in ("free", "pro", "top")])
    fitted = sm.OLS(frame["ms"].to_numpy(), np.column_stack([tiers, tiers * on[:, None]])).fit(cov_type="HC2")
    wanted = fitted.wald_test(np.array([[0, 0, 0, 1, 0, -1], [0, 0, 0, 0, 1, -1]]), use_f=True, scalar=True)
    q, nu = 2, test.df_residual + 1
    assert test.statistic * nu * q / (nu - q + 1) == pytest.approx(float(wanted.statistic) * q, rel=1e-9)
    assert test.df == 2
    assert test.p_value == pytest.approx(float(wanted.pvalue), rel=0.02)


@pytest.mark.parametrize("method", ["cluster_robust", "cluster_means"])
def test_joint_covariance_of_clusters_against_statsmodels(gather, method) -> None:
    """Ten clusters an arm, each with as many rows of either kind."""
    import statsmodels.api as sm

    rng = np.random.default_rng(3)
    region, long = np.repeat(np.arange(20), 40), np.tile(np.arange(2), 400)
    ms = 100 + rng.normal(0, 5, 20)[region] + rng.normal(0, 4, (20, 2))[region, long] + rng.normal(0, 8, 800)
    on = region % 2
    frame = log("cluster_rct", rows=800).with_columns(
        region=pl.Series([f"r{r:02d}" for r in region]),
        long=pl.Series(long == 1),
        ms=pl.Series(ms),
        arm=pl.Series(np.array(["old", "new"])[on]),
    )
    evidence = gather(
        frame, {"latency": {"column": "ms"}}, design__kind="cluster_rct", design__shared_state=None,
        logs__columns__cluster="region", estimator=method, segments=[{"name": "long", "where": "long"}],
    )  # fmt: skip
    (test,) = read_segments(evidence).heterogeneity
    design = np.column_stack([np.ones(800), long, on, long * on])
    fitted = sm.OLS(ms, design).fit(cov_type="cluster", cov_kwds={"groups": region, "use_correction": False})
    # Of alike clusters CR2 is CR0 times n / (n - 1) within an arm.
    assert test.statistic == pytest.approx(fitted.tvalues[3] ** 2 * 9 / 10, rel=1e-9)
    assert test.df_residual is not None
    assert 15 < test.df_residual < 18 + 1e-6


def test_joint_covariance_of_blocks_against_statsmodels(gather) -> None:
    """Cells of a level are regressed on their own calendar; errors by cell."""
    import statsmodels.api as sm

    rng = np.random.default_rng(4)
    rows = 3 * 84 * 8
    cell, long = np.repeat(np.arange(252), 8), np.tile(np.arange(2), rows // 2)
    region, block = cell // 84, cell % 84
    on = rng.permuted(np.tile(np.arange(2), (3, 42)), axis=1)[region, block]
    ms = 100 + rng.normal(0, 5, 252)[cell] + rng.normal(0, 3, (252, 2))[cell, long] + rng.normal(0, 8, rows)
    frame = pl.DataFrame(
        {
            "at": [START + timedelta(minutes=int(120 * b + 10)) for b in block],
            "user": np.arange(rows),
            "region": [f"r{r}" for r in region],
            "arm": np.array(["old", "new"])[on],
            "long": long == 1,
            "ms": ms,
        }
    )
    given = {key.replace(".", "__"): value for key, value in SWITCHBACK.items()}
    evidence = gather(frame, {"latency": {"column": "ms"}}, segments=[{"name": "long", "where": "long"}], **given)
    terms = [evidence.terms[named(0, i, "latency")] for i in (0, 1)]
    parts = contributions(evidence.sample, terms, 1)
    cells = frame.group_by("region", "at", "long", maintain_order=True).agg(pl.col("ms").mean(), pl.col("arm").first())
    own = [cells.filter(pl.col("long") == kind) for kind in (True, False)]
    scores = []
    for one in own:
        hour, day = one["at"].dt.hour().to_numpy(), one["at"].dt.weekday().to_numpy()
        dummies = [(hour == h) * 1.0 for h in np.unique(hour)[1:]] + [(day == d) * 1.0 for d in np.unique(day)[1:]]
        dummies += [(one["region"] == r).cast(pl.Float64).to_numpy() for r in ("r1", "r2")]
        x = np.column_stack([np.ones(len(one)), (one["arm"] == "new").cast(pl.Float64).to_numpy(), *dummies])
        fitted = sm.OLS(one["ms"].to_numpy(), x).fit(cov_type="HC2")
        leverage = fitted.get_influence().hat_matrix_diag
        scores.append(np.linalg.pinv(x)[1] * fitted.resid / np.sqrt(1 - leverage))
    wanted = np.column_stack(scores)
    assert parts is not None
    assert parts.T @ parts == pytest.approx(wanted.T @ wanted, rel=1e-8)
    for i in (0, 1):
        effect = evidence.effect(terms[i].name, 1)
        assert effect is not None
        assert effect.std_error**2 == pytest.approx(wanted[:, i] @ wanted[:, i], rel=1e-8)


def test_rows_that_stand_apart_share_nothing(gather) -> None:
    evidence = gather(log("request_rct"), METRICS, design__kind="request_rct", segments=["tier"])
    terms = [evidence.terms[named(0, i, "latency")] for i in range(3)]
    assert contributions(evidence.sample, terms, 1) is None


def test_users_of_one_tier_share_nothing(gather) -> None:
    evidence = gather(log(), METRICS, segments=["tier"])
    terms = [evidence.terms[named(0, i, "latency")] for i in range(3)]
    parts = contributions(evidence.sample, terms, 1)
    assert parts is not None
    assert parts.T @ parts == pytest.approx(np.diag(np.diag(parts.T @ parts)), abs=0.0)
