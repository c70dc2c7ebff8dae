"""The shared pool's tail against DuckDB and the estimators called by hand, and what its logs must hold."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pytest
import statsmodels.api as sm

from estimators.block_regression import Cells, block_regression
from readout import capacity, pipeline, spec
from readout.errors import LogError, SpecError
from readout.evidence import Evidence

START = datetime(2026, 10, 5, tzinfo=UTC)
MINUTE = 60_000_000
SPEC = {
    "logs.columns": {"time": "at", "unit": "user", "cluster": "region", "arm": "arm", "fallback": "fell"},
    "design": {"kind": "switchback", "control": "old", "treatment": "new", "block": "2h"},
    "metrics": {
        "latency": {"column": "ms", "role": "primary", "better": "lower"},
        "errors": {"column": "failed", "better": "lower"},
        "per_answer": {"numerator": "gpu", "denominator": "answers", "better": "lower"},
    },
    "economics": {"value": {"metric": "latency", "usd": 0.002}, "cost": {"column": "gpu", "usd": 0.01}},
    "capacity": {"load": "load", "limit": 100, "window": "20m", "margin": 0.05, "outcomes": ["errors", "per_answer"]},
}


def log(
    days: int = 8, clusters: int = 3, rise: float = 0.0, seed: int = 1, usual: float = 0.15, fixed: bool = False
) -> pl.DataFrame:
    """Windows of 20 minutes, a share of them over a load of 100; ``fixed``: clusters keep an arm."""
    rng = np.random.default_rng(seed)
    n = days * 72
    parts = []
    for c in range(clusters):
        window = np.repeat(np.arange(n), rng.poisson(4, n))
        coin = np.full(days * 12, c % 2) if fixed else rng.integers(0, 2, days * 12)
        arm = coin[window // 6]
        peak = np.where(rng.random(n) < usual + rise * coin[np.arange(n) // 6], 100 + rng.gamma(2, 8, n), 60)[window]
        rows = len(window)
        load = peak * np.where(rng.random(rows) < 0.5, 1.0, rng.uniform(0.1, 1.0, rows))
        at = window * 20 * MINUTE + rng.integers(0, 20 * MINUTE, rows)
        parts.append(
            pl.DataFrame(
                {
                    "at": pl.Series(at).cast(pl.Duration("us")) + START,
                    "region": f"r{c}",
                    "arm": np.array(["old", "new"])[arm],
                    "user": rng.integers(0, 60, rows),
                    "load": load,
                    "ms": rng.lognormal(4, 0.3, rows) * np.where(arm, 0.8, 1.0),
                    "failed": rng.random(rows) < np.where(load > 100, 0.2, 0.02),
                    "fell": rng.random(rows) < 0.1,
                    "gpu": (1 + load / 100) * rng.gamma(5, 0.2, rows),
                    "answers": rng.integers(1, 4, rows),
                }
            )
        )
    return pl.concat(parts)


@pytest.fixture
def evidence(world: Any) -> Callable[..., Evidence]:
    def of(frame: pl.DataFrame, **changes: Any) -> Evidence:
        path = world.write(frame, {**SPEC, **{key.replace("__", "."): value for key, value in changes.items()}})
        return pipeline.gather(spec.load(path), datetime(2026, 11, 20, tzinfo=UTC))

    return of


def windows(frame: pl.DataFrame) -> pl.DataFrame:
    """One row a window, by DuckDB."""
    return duckdb.sql(
        'select region, arm, epoch_us("at") // 1200000000 w, epoch_us("at") // 7200000000 b, max(load) top, count(*) n,'
        " sum(failed::int) failed, sum(fell::int) fell, fsum(gpu) gpu, sum(answers) answers, fsum(ms) ms"
        " from frame where load is not null and not isnan(load) group by all order by region, b, w"
    ).pl()


def by_hand(frame: pl.DataFrame, num: pl.Expr, den: pl.Expr) -> Any:
    """The block regression of cell sums that were taken by hand."""
    cells = frame.group_by("region", "b", "arm").agg(num=num.sum(), den=den.sum()).sort("region", "b")
    starts = [datetime.fromtimestamp(7200 * b, UTC) for b in cells["b"]]
    code = {name: np.unique(cells[name], return_inverse=True)[1] for name in ("region", "b")}
    return block_regression(
        Cells(
            cells["num"].to_numpy().astype(float), cells["den"].to_numpy().astype(float),
            (cells["arm"] == "new").to_numpy(), code["region"], code["b"], np.array([s.hour for s in starts]),
            np.array([s.weekday() for s in starts]), ("r0", "r1", "r2"),
        )
    )  # fmt: skip


def agrees(found: dict[str, Any], wanted: Any) -> None:
    for name in ("estimate", "std_error", "df", "p_value", "ci_low", "ci_high", "control_value", "treatment_value"):
        assert found[name] == pytest.approx(getattr(wanted, name), rel=1e-9), name
    assert (found["n_control"], found["n_treatment"]) == (wanted.n_control, wanted.n_treatment)


def test_windows_over_the_limit_go_through_the_designs_own_estimator(evidence) -> None:
    frame = log(rise=0.05)
    found = capacity.summary(evidence(frame))
    seen = windows(frame)
    over = (pl.col("top") > 100).cast(pl.Float64)
    excess = (pl.col("top") - 100).clip(0)
    per_arm = {arm: seen.filter(pl.col("arm") == arm) for arm in ("old", "new")}
    assert found["windows"] == {arm: len(mine) for arm, mine in per_arm.items()}
    assert found["over"] == {arm: int(mine.select(over.sum()).item()) for arm, mine in per_arm.items()}
    assert found["rows_per_window"] == {arm: pytest.approx(mine["n"].mean()) for arm, mine in per_arm.items()}
    agrees(found["share_over"], by_hand(seen, over, pl.col("top") * 0 + 1))
    assert found["share_over"]["effects"] == {
        "new": {k: found["share_over"][k] for k in found["share_over"]["effects"]["new"]}
    }
    high = seen.filter(pl.col("top") > 100)
    agrees(found["expected_shortfall"], by_hand(high, excess, pl.col("top") * 0 + 1))
    agrees(found["mean_excess"], by_hand(seen, excess, pl.col("top") * 0 + 1))
    highest = seen.group_by("region", "b", "arm").agg(pl.col("top").max()).sort("region", "b")
    agrees(found["peak"], by_hand(highest, pl.col("top"), pl.col("top") * 0 + 1))
    for arm, mine in per_arm.items():
        peak = found["peak"]["by_arm"][arm]
        assert (peak["maximum"], peak["p99"]) == (
            mine["top"].max(),
            pytest.approx(mine["top"].quantile(0.99, "linear")),
        )


def test_what_happened_inside_them(evidence) -> None:
    frame = log(usual=0.4)
    found = capacity.summary(evidence(frame))["inside"]
    high = windows(frame).filter(pl.col("top") > 100)
    rows = pl.col("n").cast(pl.Float64)
    net = 0.002 * pl.col("ms") - 0.01 * pl.col("gpu")
    agrees(found["metrics"]["errors"], by_hand(high, pl.col("failed"), rows))
    agrees(found["metrics"]["per_answer"], by_hand(high, pl.col("gpu"), pl.col("answers")))
    agrees(found["fallback"], by_hand(high, pl.col("fell"), rows))
    agrees(found["net_usd_per_1k_requests"], by_hand(high, 1000 * net, rows))
    agrees(found["margin"], by_hand(high, net, 0.002 * pl.col("ms")))
    assert found["fallback"]["rows"] == {
        arm: int(high.filter(pl.col("arm") == arm)["n"].sum()) for arm in ("old", "new")
    }


def test_an_arms_own_interval_rests_on_its_blocks(evidence) -> None:
    frame = log()
    found = capacity.summary(evidence(frame))["share_over"]["by_arm"]
    cells = windows(frame).group_by("region", "b", "arm").agg(over=(pl.col("top") > 100).sum(), n=pl.len())
    for arm in ("old", "new"):
        mine = cells.filter(pl.col("arm") == arm).sort("region", "b")
        n = mine["n"].to_numpy()
        fit = sm.WLS(mine["over"].to_numpy() / n, np.ones(len(n)), weights=n).fit(cov_type="HC1", use_t=True)
        low, high = fit.conf_int()[0]
        assert found[arm] == {
            "value": pytest.approx(fit.params[0], rel=1e-9),
            "ci_low": pytest.approx(low, rel=1e-9),
            "ci_high": pytest.approx(high, rel=1e-9),
        }


def test_cost_by_the_state_it_was_served_in(evidence) -> None:
    frame = log()
    found = capacity.summary(evidence(frame))
    assert found["cost_of"] == "cost (USD)"
    state = "case when load > 100 then 4 else least(floor(load / 25), 3) end"
    want = duckdb.sql(
        f"select {state} s, arm, count(*) n, 0.01 * fsum(gpu) / count(*) m from frame group by all order by s, arm desc"
    ).fetchall()
    got = [(row["arm"], row["rows"], row["mean"]) for row in found["cost_by_state"]]
    assert got == [(arm, n, pytest.approx(mean, rel=1e-9)) for _, arm, n, mean in want]
    assert [row["bin"] for row in found["cost_by_state"]][-1] == "over the limit"
    assert all(row["ci_low"] < row["mean"] < row["ci_high"] for row in found["cost_by_state"])
    treated = [row for row in found["cost_by_state"] if row["arm"] == "new"]
    assert all(row["difference_ci_low"] < row["difference"] < row["difference_ci_high"] for row in treated)


def test_whether_the_mean_in_the_fullest_state_settles(evidence) -> None:
    frame = log(usual=0.4)
    still = capacity.summary(evidence(frame))
    assert still["settled"] is True
    assert [one["bin"] for one in still["settling"]] == ["over the limit"] * 2
    day = pl.col("at").dt.epoch("d") - frame["at"].dt.epoch("d").min()
    growing = capacity.summary(evidence(frame.with_columns(gpu=pl.col("gpu") * (1 + 0.2 * day))))
    assert growing["settled"] is False
    assert all(one["second_half"] > one["first_half"] for one in growing["settling"])
    few = capacity.summary(evidence(frame.filter(day < 4)))
    assert few["settled"] is None
    assert few["settling"][0]["reason"] == "4 days reach that state; 6 are needed"


def test_without_a_price_the_first_outcome_stands_for_cost(evidence) -> None:
    assert capacity.summary(evidence(log(days=3), economics=None))["cost_of"] == "errors"


def test_rows_without_a_load_show_nothing_and_are_counted(evidence) -> None:
    frame = log().with_row_index("i")
    first = pl.col("at") < START + timedelta(hours=2)
    gone = frame.with_columns(
        load=pl.when(first).then(None).when(pl.col("i") % 7 == 0).then(float("nan")).otherwise("load")
    ).drop("i")
    found = capacity.summary(evidence(gone))
    seen = windows(gone)
    assert sum(found["windows"].values()) == len(seen)
    assert found["rows_without_load"] == gone.filter(pl.col("load").is_null() | pl.col("load").is_nan()).height
    whole = windows(frame.drop("i"))
    assert found["windows_without_load"] == len(whole) - len(seen)
    agrees(found["share_over"], by_hand(seen, (pl.col("top") > 100).cast(pl.Float64), pl.col("top") * 0 + 1))


def test_rows_that_the_sample_leaves_out_make_no_window(evidence) -> None:
    frame = log()
    stray = frame.head(1).with_columns(
        arm=pl.when(pl.col("arm") == "old").then(pl.lit("new")).otherwise(pl.lit("old")), load=pl.lit(1e9)
    )
    found = capacity.summary(evidence(pl.concat([frame, stray])))
    assert found["pool"]["maximum"] < 1e9
    washed = capacity.summary(evidence(frame, design__washout="20m"))
    assert washed["pool"]["windows"] == len(windows(frame).filter(pl.col("w") % 6 != 0))


def test_windows_begin_at_midnight_and_may_be_cut_by_a_block(evidence) -> None:
    frame = log()
    cut = capacity.summary(evidence(frame, capacity__window="7h"))
    since = pl.col("at").dt.epoch("us") % 86_400_000_000
    parts = frame.select(
        "region", day=pl.col("at").dt.date(), window=since // 25_200_000_000, block=since // 7_200_000_000
    ).unique()
    assert cut["pool"]["windows"] == len(parts)
    assert cut["windows_cut_by_a_block"] == (parts.group_by("region", "day", "window").len()["len"] > 1).sum() > 0
    assert capacity.summary(evidence(frame))["windows_cut_by_a_block"] == 0


def test_a_constant_shift_of_load_and_limit_changes_nothing_but_the_peak(evidence) -> None:
    frame = log(days=6)
    found = [
        capacity.summary(evidence(frame.with_columns(pl.col("load") + by), capacity__limit=100 + by)) for by in (0, 1e6)
    ]
    assert found[0]["share_over"] == found[1]["share_over"]
    assert found[1]["expected_shortfall"]["estimate"] == pytest.approx(
        found[0]["expected_shortfall"]["estimate"], rel=1e-6
    )


@pytest.mark.parametrize(
    ("changes", "columns", "message"),
    [
        ({"capacity__load": "lod"}, {}, "capacity.load: the log has no column 'lod'"),
        ({}, {"load": pl.lit("high")}, "capacity.load: column 'load' is String; expected numbers or true/false"),
        ({}, {"load": pl.lit(None, dtype=pl.Float64)}, "capacity.load: each of the"),
        ({}, {"load": pl.lit(float("inf"))}, "capacity.load: holds NaN or infinity"),
    ],
)
def test_a_load_that_cannot_be_read_is_refused(evidence, changes, columns, message) -> None:
    with pytest.raises(LogError) as error:
        evidence(log(days=3).with_columns(**columns), **changes)
    assert error.value.problems[0].message.startswith(message)


def test_windows_need_a_time(evidence) -> None:
    frame = log(days=3, clusters=6, fixed=True).drop("at")
    columns = {"cluster": "region", "arm": "arm"}
    with pytest.raises(LogError, match="windows need the role 'time'"):
        evidence(frame, logs__columns=columns, design={"kind": "cluster_rct", "control": "old", "treatment": "new"})


def test_a_quantile_has_no_value_inside_a_window(evidence) -> None:
    metrics = {**SPEC["metrics"], "p99": {"column": "ms", "quantile": 0.99, "better": "lower"}}
    with pytest.raises(SpecError, match="'p99' is a quantile or a sum within units"):
        evidence(log(days=3), metrics=metrics, capacity__outcomes=["errors", "p99"])
