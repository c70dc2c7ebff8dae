"""Winsorized means of clusters and blocks, against scipy's winsorizing of the values that a query gives."""

from __future__ import annotations

from dataclasses import replace

import duckdb
import numpy as np
import polars as pl
import pytest
from scipy import stats

from estimators.block_regression import Cells, block_regression
from estimators.cluster_means import Clusters, cluster_means
from estimators.winsorized import pooled_caps
from readout import checks, pipeline, spec
from readout.errors import SpecError

ROBUST = {"method": "winsorize", "quantile": 0.9}
CLUSTERED = {
    "logs__columns": {"arm": "arm", "cluster": "region", "unit": "user"},
    "design": {"kind": "cluster_rct", "control": "old", "treatment": "new"},
}
BLOCKED = {
    "logs__columns": {"arm": "arm", "cluster": "region", "unit": "user", "time": "at"},
    "design": {"kind": "switchback", "control": "old", "treatment": "new", "block": "1h"},
}


def log(groups: int = 40, *, blocks: bool = False, seed: int = 4) -> pl.DataFrame:
    """Clusters of heavy-tailed means, or hours of two regions."""
    rng = np.random.default_rng(seed)
    n = 24 * 12 * 2 if blocks else groups
    size = rng.integers(3, 12, n)
    code = np.repeat(np.arange(n), size)
    arm = rng.permutation(np.arange(n) % 2)[code]
    level = np.exp(1.2 * rng.normal(size=n))[code]
    start = np.datetime64("2026-10-05", "us")
    return pl.DataFrame(
        {
            "region": [f"r{c % 2 if blocks else c:03d}" for c in code],
            "at": start + (code // 2) * np.timedelta64(1, "h") + rng.integers(0, 3600, len(code)).astype("m8[s]"),
            "block": code // 2,
            "arm": np.array(["old", "new"])[arm],
            "user": rng.integers(0, 30, len(code)),
            "ms": level * rng.gamma(5, 1, len(code)),
            "cost": level * rng.gamma(2, 1, len(code)),
            "success": rng.integers(1, 3, len(code)),
        }
    )


def values(frame: pl.DataFrame, select: str, keys: str = "region") -> dict[str, np.ndarray]:
    query = f"select {keys}, any_value(arm) arm, {select} from frame group by {keys} order by all"
    return duckdb.sql(query).fetchnumpy()


def clipped(x: np.ndarray, share: float = 0.1) -> np.ndarray:
    return np.asarray(stats.mstats.winsorize(x, (0, share), inclusive=(True, True)))


def test_clusters_are_capped_at_a_quantile_of_all_arms(gather) -> None:
    frame = log()
    evidence = gather(frame, {"m": {"column": "ms", "robust": ROBUST}}, **CLUSTERED)
    found = values(frame, "avg(ms) y")
    y, new = clipped(found["y"]), found["arm"] == "new"
    welch = stats.ttest_ind(y[new], y[~new], equal_var=False)
    low, high = welch.confidence_interval()
    effect = evidence.effect("m", 1)
    assert effect.estimate == pytest.approx(y[new].mean() - y[~new].mean(), rel=1e-9)
    assert (effect.ci_low, effect.ci_high) == pytest.approx((low, high), rel=1e-9)
    assert effect.diagnostics["plain_estimate"] == pytest.approx(
        found["y"][new].mean() - found["y"][~new].mean(), rel=1e-9
    )
    shown = effect.diagnostics
    assert shown["capped_control"] + shown["capped_treatment"] == 4
    assert evidence.sample.arm_total(evidence.terms["m"], 1)[0] == pytest.approx(
        frame.filter(arm="new")["ms"].sum(), rel=1e-9
    )


@pytest.mark.parametrize("estimator", ["block_regression", {"method": "block_regression", "weights": "units"}])
def test_cells_are_capped_and_keep_their_weight(gather, estimator) -> None:
    frame = log(blocks=True)
    metrics = {
        "m": {"column": "ms", "robust": ROBUST},
        "per": {"column": "ms", "per": "unit", "robust": ROBUST},
        "ratio": {"numerator": "cost", "denominator": "success", "robust": ROBUST},
        "plain": {"column": "ms"},
    }
    evidence = gather(frame, metrics, **BLOCKED, estimator=estimator)
    cell = values(frame, "sum(ms) ms, count(*) n, count(distinct user) u, sum(cost) c, sum(success) s", "region, block")
    plain = evidence.sample.cells(evidence.terms["plain"], 1)
    weights = "rows" if isinstance(estimator, str) else "units"
    sums = {
        "m": (clipped(cell["ms"] / cell["n"]) * cell["n"], cell["n"]),
        "per": (clipped(cell["ms"] / cell["u"]) * cell["u"], cell["u"]),
        "ratio": (clipped(cell["c"]), clipped(cell["s"].astype(float))),
    }
    for name, (num, den) in sums.items():
        cells = replace(plain, num=np.asarray(num, float), den=np.asarray(den, float))
        wanted = block_regression(cells, weights=weights)
        effect = evidence.effect(name, 1)
        for part in ("estimate", "std_error", "df", "ci_low", "ci_high", "relative"):
            assert getattr(effect, part) == pytest.approx(getattr(wanted, part), rel=1e-9), (name, part)
    assert evidence.effect("m", 1).diagnostics["plain_estimate"] == pytest.approx(
        evidence.effect("plain", 1).estimate, rel=1e-12
    )
    assert evidence.sample.without_most_influential(evidence.terms["m"], 1, 0.05) is not None
    assert checks.tail_dominance(evidence).status in ("pass", "warn")


def test_intervals_of_capped_values_cover() -> None:
    rng = np.random.default_rng(1)
    experiments, covered = 400, np.zeros(2)
    block, region = np.tile(np.arange(168), 2), np.repeat([0, 1], 168)
    for _ in range(experiments):
        size, arm = rng.integers(20, 200, 100).astype(float), rng.permutation(np.arange(100) % 2)
        raw = np.exp(rng.normal(size=100))
        mean = pooled_caps([(raw, None)], 0.95)[0].apply(raw)
        whole = cluster_means(Clusters(mean * size, size, arm))
        size, arm = rng.integers(20, 200, 336).astype(float), rng.integers(0, 2, 336)
        raw = np.exp(0.3 * np.sin(block % 12) + rng.normal(size=336))
        mean = pooled_caps([(raw, None)], 0.99)[0].apply(raw)
        hour, day = block % 12 * 2, block // 12 % 7
        cell = block_regression(Cells(mean * size, size, arm, region, block, hour, day, ("a", "b")))
        covered += [found.ci_low <= 0.0 <= found.ci_high for found in (whole, cell)]
    # Three Monte Carlo errors of 95 % in 400 are 3.3 points.
    assert (np.abs(covered / experiments - 0.95) < 0.033).all()


@pytest.mark.parametrize("given", [CLUSTERED, BLOCKED], ids=["clusters", "blocks"])
def test_the_memo_says_what_was_capped(world, given) -> None:
    robust = {"column": "ms", "role": "primary", "better": "lower", "robust": ROBUST}
    dotted = {key.replace("__", "."): value for key, value in given.items()}
    path = world.write(log(blocks="block" in given["design"]), {"metrics": {"m": robust}, **dotted})
    readout, folder = pipeline.run(path, figures=False, out=path.parent)
    unit = "cluster-block" if "block" in given["design"] else "cluster"
    assert f"{unit}s capped at the 90th percentile of all arms" in readout.metrics[0].estimand
    assert "plain mean" in readout.metrics[0].note
    assert f"{unit}s in control" in (folder / "memo.md").read_text()


@pytest.mark.parametrize("given", [CLUSTERED, BLOCKED], ids=["clusters", "blocks"])
def test_what_needs_many_independent_units_is_refused_all_at_once(world, given) -> None:
    metrics = {
        m: {"column": "ms", "better": "lower", "robust": {"method": m}} for m in ("trim", "catoni", "median_of_means")
    }
    metrics["trim"] |= {"role": "primary"}
    dotted = {key.replace("__", "."): value for key, value in given.items()}
    path = world.write(log(), {"metrics": metrics, **dotted})
    with pytest.raises(SpecError) as error:
        pipeline.run(path, figures=False, out=path.parent)
    assert len(error.value.problems) == 3
    assert "take winsorize" in str(error.value.problems[0].hint)
    assert spec.load(path) is not None
