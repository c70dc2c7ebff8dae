"""Net value per unit against a direct computation, its denominator, its bar."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from readout import pipeline, spec
from readout.economics import NET, economic_bar, summary
from readout.errors import LogError, SpecError
from readout.evidence import Evidence

VALUE, COST = {"metric": "success", "usd": 0.004}, {"column": "gpu_seconds", "usd": 0.0011}
Gather = Callable[..., Evidence]


@pytest.fixture
def evidence(tmp_path: Path) -> Gather:
    def gathered(
        frame: pl.DataFrame, economics: Mapping[str, Any], kind: str = "user_rct", **more: Mapping[str, Any]
    ) -> Evidence:
        frame.write_parquet(tmp_path / "log.parquet")
        text = {
            "logs": {"path": "log.parquet", "columns": {"retries": "retry_count"} if "retry_count" in frame else {}},
            "design": {
                "kind": kind,
                "control": "a",
                "treatment": ["b"],
                "shared_state": False,
                **more.get("design", {}),
            },
            "metrics": {
                "success": {"column": "success", "role": "primary", "better": "higher"},
                "rate": {"numerator": "gpu_seconds", "denominator": "success", "better": "lower"},
                **more.get("metrics", {}),
            },
            "economics": dict(economics),
        }
        (tmp_path / "spec.yaml").write_text(yaml.safe_dump(text), encoding="utf-8")
        return pipeline.gather(spec.load(tmp_path / "spec.yaml"), datetime(2026, 11, 1, tzinfo=UTC))

    return gathered


def log(seed: int = 1, n: int = 3000, units: int = 120, lift: float = 0.0, arms: tuple[str, ...] = ("a", "b")):
    rng = np.random.default_rng(seed)
    unit = rng.integers(0, units, n)
    arm = np.array(arms)[unit % len(arms)]
    speed = np.exp(rng.normal(0.0, 0.5, units))[unit]
    gpu = speed * rng.gamma(2.0, 0.5, n)
    success = rng.random(n) < 0.6 + 0.1 * speed / speed.max() + lift * (arm == "b")
    return pl.DataFrame({"unit": unit, "arm": arm, "success": success, "gpu_seconds": gpu})


def ratio_of_sums(frame: pl.DataFrame, net: np.ndarray, requests: np.ndarray) -> tuple[float, float]:
    """Estimate and delta-method standard error of net per request, from unit sums, by hand."""
    sums = frame.select("unit", "arm").with_columns(net=pl.Series(net), requests=pl.Series(requests))
    sums = sums.group_by("unit", "arm").agg(pl.col("net", "requests").sum())
    parts = []
    for arm in ("a", "b"):
        x, d = (sums.filter(pl.col("arm") == arm)[c].to_numpy().astype(float) for c in ("net", "requests"))
        ratio = x.sum() / d.sum()
        parts.append((ratio, np.var(x - ratio * d, ddof=1) / len(x) / d.mean() ** 2))
    return parts[1][0] - parts[0][0], float(np.sqrt(parts[0][1] + parts[1][1]))


def test_net_value_is_one_number_a_unit_so_that_covariance_counts(evidence):
    frame = log()
    found = evidence(frame, {"value": VALUE, "cost": COST}).effect(NET, 1)
    net = 0.004 * frame["success"].to_numpy() - 0.0011 * frame["gpu_seconds"].to_numpy()
    estimate, std_error = ratio_of_sums(frame, net, np.ones(len(frame)))
    assert (found.estimate, found.std_error) == (pytest.approx(estimate, rel=1e-9), pytest.approx(std_error, rel=1e-9))


def test_sums_by_arm_and_what_follows_from_them(evidence):
    frame = log()
    found = summary(evidence(frame, {"value": VALUE, "cost": COST}))
    for arm in ("a", "b"):
        mine = frame.filter(pl.col("arm") == arm)
        success, gpu, n = mine["success"].sum(), mine["gpu_seconds"].sum(), len(mine)
        per = found["per_arm"][arm]
        assert per["value_usd"] == pytest.approx(0.004 * success, rel=1e-12)
        assert per["cost_usd"] == pytest.approx(0.0011 * gpu, rel=1e-12)
        assert per["requests"] == n
        assert per["net_usd_per_1k_requests"] == pytest.approx(1000 * (0.004 * success - 0.0011 * gpu) / n, rel=1e-12)
        assert found["cost_per_success"][arm] == pytest.approx(0.0011 * gpu / success, rel=1e-12)
        assert found["margin"][arm] == pytest.approx(1 - 0.0011 * gpu / (0.004 * success), rel=1e-12)
    mine = frame.filter(pl.col("arm") == "b")
    per_hour = 0.004 * mine["success"].sum() / (mine["gpu_seconds"].sum() / 3600)
    assert found["value_per_gpu_hour"] == pytest.approx(per_hour, rel=1e-12)
    per_arm = [found["per_arm"][a]["net_usd_per_1k_requests"] for a in ("a", "b")]
    assert found["net_usd_per_1k_requests"]["estimate"] == pytest.approx(per_arm[1] - per_arm[0], rel=1e-9)


def test_retries_on_rows_of_their_own_do_not_count_as_requests(evidence):
    frame = log().with_columns(request=pl.int_range(pl.len()), retry_count=pl.lit(0))
    again = frame.sample(400, seed=3).with_columns(retry_count=pl.lit(1))
    both = pl.concat([frame, again])
    found = evidence(both, {"value": VALUE, "cost": COST})
    requests = (both["retry_count"] == 0).to_numpy()
    net = 0.004 * both["success"].to_numpy() - 0.0011 * both["gpu_seconds"].to_numpy()
    estimate, std_error = ratio_of_sums(both, net, requests)
    effect = found.effect(NET, 1)
    assert (effect.estimate, effect.std_error) == (
        pytest.approx(estimate, rel=1e-9),
        pytest.approx(std_error, rel=1e-9),
    )
    assert sum(v["requests"] for v in summary(found)["per_arm"].values()) == 3000


def test_a_retry_count_on_the_requests_one_row_leaves_it_one_request(evidence):
    frame = log().with_columns(request=pl.int_range(pl.len()), retry_count=pl.int_range(pl.len()) % 3)
    found = summary(evidence(frame, {"cost": COST}))
    assert sum(v["requests"] for v in found["per_arm"].values()) == 3000


def test_rows_whose_value_or_cost_is_unknown_count_in_neither(evidence):
    frame = log()
    frame = frame.with_columns(
        gpu_seconds=pl.when(pl.int_range(pl.len()) % 10 == 0).then(None).otherwise("gpu_seconds"),
        success=pl.when(pl.int_range(pl.len()) % 7 == 0).then(None).otherwise("success"),
    )
    known = frame.drop_nulls()
    found = summary(evidence(frame, {"value": VALUE, "cost": COST}))
    assert sum(v["requests"] for v in found["per_arm"].values()) == len(known)
    assert sum(v["value_usd"] for v in found["per_arm"].values()) == pytest.approx(0.004 * known["success"].sum())


def test_outside_a_value_metrics_own_rows_there_is_no_value_but_there_is_a_request(evidence):
    frame = log().with_columns(tier=pl.Series(["pro", "free"] * 1500))
    won = {"won": {"column": "success", "better": "higher", "where": "tier = 'pro'"}}
    found = summary(evidence(frame, {"value": {"metric": "won", "usd": 1.0}, "cost": COST}, metrics=won))
    assert sum(v["requests"] for v in found["per_arm"].values()) == 3000
    pro = frame.filter(pl.col("tier") == "pro")["success"].sum()
    assert sum(v["value_usd"] for v in found["per_arm"].values()) == pytest.approx(pro)


@pytest.mark.parametrize("given", [{"value": VALUE}, {"cost": COST}, {"cost": {"metric": "success", "usd": 2}}])
def test_value_or_cost_alone(evidence, given):
    found = evidence(log(), given)
    assert economic_bar(found).status in ("pass", "warn", "fail")
    per = summary(found)["per_arm"]["b"]
    assert (per["value_usd"] > 0, per["cost_usd"] > 0) == ("value" in given, "cost" in given)


@pytest.mark.parametrize(
    ("lift", "bar", "status"), [(0.3, 0.0, "pass"), (0.0, 0.0, "warn"), (0.0, 5.0, "fail"), (-0.3, 0.0, "fail")]
)
def test_the_bar_is_cleared_straddled_or_missed(evidence, lift, bar, status):
    frame = log(lift=lift, n=6000, units=600)
    check = economic_bar(evidence(frame, {"value": VALUE, "bar": {"net_usd_per_1k_requests": bar}}))
    assert (check.status, check.action, check.threshold) == (status, "rollback" if status == "fail" else None, bar)


def test_the_bar_is_judged_for_each_arm(evidence):
    frame = log(lift=0.3, n=9000, units=900, arms=("a", "b", "c"))
    check = economic_bar(evidence(frame, {"value": VALUE}, design={"treatment": ["b", "c"]}))
    assert check.details["by_arm"] == {"b": "pass", "c": "warn"}


@pytest.mark.parametrize("kind", ["user_rct", "request_rct"])
def test_a_cost_that_one_arm_never_logs_leaves_the_bar_open(evidence, kind):
    frame = log().with_columns(gpu_seconds=pl.when(pl.col("arm") == "b").then("gpu_seconds"))
    found = evidence(frame, {"cost": COST}, kind, metrics={"rate": {"column": "success", "better": "higher"}})
    check = economic_bar(found)
    assert (check.status, check.value) == ("warn", None)
    assert "could not be estimated" in check.message
    told = summary(found)
    assert told["per_arm"]["a"]["net_usd_per_1k_requests"] is None
    assert told["net_usd_per_1k_requests"]["estimate"] is None


def test_a_ratio_has_no_value_a_request(evidence):
    with pytest.raises(SpecError, match="ratio or a quantile"):
        evidence(log(), {"value": {"metric": "rate", "usd": 1.0}})


def test_a_missing_cost_column(evidence):
    with pytest.raises(LogError, match="economics"):
        evidence(log(), {"cost": {"column": "gpu_secs", "usd": 1.0}})


def test_without_economics_there_is_nothing_to_say(evidence):
    frame = log()
    found = evidence(frame, {"value": VALUE})
    object.__setattr__(found.spec, "economics", None)
    assert (economic_bar(found).status, summary(found)) == ("skip", None)
