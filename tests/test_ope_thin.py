"""Off-policy evaluation on logs that lack something: values, chance, tries, or a right model."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from tests.test_ope import DESIGN, FRAME, check, estimated, metric, run, same


def failing(n: int = 4000, seed: int = 0) -> tuple[pl.DataFrame, float]:
    """Requests that fail more often under ``standard`` in a long queue, and have no latency then; and what the target
    changes in the mean latency of those that succeed."""
    rng = np.random.default_rng(seed)
    queue, tier = rng.geometric(0.1, n) - 1, rng.choice(["free", "pro"], n)
    premium = np.where(tier == "pro", 0.7, 0.3)
    took = rng.random(n) < premium
    fails = np.clip(0.02 + 0.02 * queue, 0.0, 0.6)
    failed = rng.random(n) < np.where(took, 0.02, fails)
    mean = {True: 4.7 + 0.1 * queue, False: 5.0 + 0.1 * queue}
    lives = {True: np.full(n, 0.98), False: 1.0 - fails}
    logged = [(np.where(a, premium, 1.0 - premium) * lives[a], mean[a]) for a in (True, False)]
    goes = queue >= 8
    alive = np.where(goes, lives[True], lives[False])
    target = float(alive @ np.where(goes, mean[True], mean[False]) / alive.sum())
    before = sum(float(w @ m) for w, m in logged) / sum(float(w.sum()) for w, _ in logged)
    frame = pl.DataFrame(
        {
            "user": np.char.add("u", rng.integers(0, 300, n).astype(str)),
            "queue": queue,
            "tier": tier,
            "ran": np.where(took, "premium", "standard"),
            "p": np.where(took, premium, 1.0 - premium),
            "ms": np.where(took, mean[True], mean[False]) + rng.normal(0.0, 1.0, n),
            "failed": failed,
        }
    ).with_columns(ms=pl.when(~pl.col("failed")).then("ms"))
    return frame, target - before


@pytest.mark.parametrize("method", ["doubly_robust", "ips", "direct_method"])
def test_a_value_that_is_there_or_not_by_the_actions_doing(world: Any, method: str) -> None:
    frame, truth = failing()
    rules = {"rules": [{"when": "queue >= 8", "action": "premium"}], "else": "standard"}
    metrics = {k: v for k, v in DESIGN["metrics"].items() if k != "unit_cost"}
    found = metric(run(world, frame, {"design.target_policy": rules, "metrics": metrics, "estimator": method}))
    assert abs(found["estimate"] - truth) < 3.0 * found["std_error"]
    assert found["std_error"] < 0.2 * abs(truth)
    assert "have no value" in found["note"]


def test_a_metric_with_nulls_is_a_ratio_over_the_requests_that_have_one(world: Any) -> None:
    holes = FRAME.with_columns(ms=pl.when(pl.int_range(pl.len()) % 7 > 0).then("ms"))
    document = run(world, holes)
    filled = holes.with_columns(ms=pl.col("ms").fill_null(0.0), there=pl.col("ms").is_not_null())
    same(metric(document), estimated("doubly_robust", filled, "ms", "there"))
    assert "needs a value on every request" in document["diagnostics"]["value_bound"]["reason"]
    assert check(document, "propensity_calibration")["status"] == "pass"
