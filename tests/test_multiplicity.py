"""What is read together is judged together: in readout.json, in the appendix and in one line of the memo."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import polars as pl
import pytest
from statsmodels.stats.multitest import multipletests

SECONDARY = {"role": "secondary", "better": "lower"}


def log(world: Any, arms: tuple[str, ...]) -> pl.DataFrame:
    frame = world.log(units=400, arms=arms, effect=0.97)
    rng = np.random.default_rng(4)
    treated = (frame["arm"] != "old").to_numpy()
    shifts = enumerate((0.0, 0.12, 0.12, 0.3))
    return frame.with_columns(
        **{f"x{i}": pl.Series(rng.normal(0, 1, len(frame)) + shift * treated) for i, shift in shifts}
    )


def run(world: Any, arms: tuple[str, ...], metrics: dict[str, Any]) -> tuple[dict[tuple[str, str], Any], str]:
    world.write(log(world, arms), {"metrics": metrics, "design.treatment": list(arms[1:])})
    assert world.run().code == 0
    document = json.loads(next(world.out.rglob("readout.json")).read_text())
    return {(m["metric"], m["arm"]): m for m in document["metrics"]}, next(world.out.rglob("memo.md")).read_text()


METRICS = {
    "latency": {"column": "ms", "role": "primary", "better": "lower"},
    "tokens": {"column": "tokens", "role": "primary", "better": "lower"},
    **{f"x{i}": {"column": f"x{i}", **SECONDARY} for i in range(4)},
    "errors": {"column": "failed", "role": "guardrail", "better": "lower", "margin": 0.1},
}


@pytest.mark.parametrize("arms", [("old", "new"), ("old", "new", "newer")])
def test_families_against_statsmodels(world, arms) -> None:
    found, memo = run(world, arms, METRICS)
    family = [m for m in found.values() if m["role"] == "secondary"]
    p = [m["p_value"] for m in family]
    assert len(family) == 4 * (len(arms) - 1)
    holm, bh = (multipletests(p, method=method)[1] for method in ("holm", "fdr_bh"))
    assert [m["p_value_holm"] for m in family] == pytest.approx(list(holm), rel=1e-8)
    assert [m["p_value_bh"] for m in family] == pytest.approx(list(bh), rel=1e-8)
    primary = [m for m in found.values() if m["role"] == "primary"]
    if len(arms) == 2:
        assert {m["p_value_holm"] for m in primary} == {None}
    else:
        holm_primary = multipletests([m["p_value"] for m in primary], method="holm")[1]
        assert [m["p_value_holm"] for m in primary] == pytest.approx(list(holm_primary), rel=1e-8)
        assert "of 4 primary effects (metrics and arms)" in memo
    assert {m["p_value_bh"] for m in primary} == {None}
    assert {m["p_value_holm"] for m in found.values() if m["role"] == "guardrail"} == {None}
    assert "| p | p (Holm) | p (BH) | Detectable effect |" in memo
    # Some stand alone and not together: the verdict is by the metric's own interval, the line says what survives.
    stand = [m for m in family if m["p_value_holm"] < 0.05]
    alone = [m for m in family if m["p_value"] < 0.05]
    assert 0 < len(stand) < len(alone) < len(family)
    assert all(m["verdict"] in ("better", "worse") for m in alone)
    line = next(line for line in memo.splitlines() if line.startswith("Judged together") and "secondary" in line)
    assert f"{len(stand)} of {len(family)} secondary effects" in line
    assert all((f"`{m['metric']}`" in line) for m in stand)


def test_no_family_no_word(world) -> None:
    metrics = {name: METRICS[name] for name in ("latency", "x3")}
    found, memo = run(world, ("old", "new"), metrics)
    assert found["x3", "new"]["p_value_holm"] == found["x3", "new"]["p_value"]
    assert found["latency", "new"]["p_value_holm"] is None
    assert "Judged together" not in memo


def test_none_stands(world) -> None:
    metrics = {"latency": METRICS["latency"], "x0": METRICS["x0"], "n": {"column": "tokens", **SECONDARY}}
    _, memo = run(world, ("old", "new"), metrics)
    assert "Judged together (Holm, 95 %), none of 2 secondary effects (metrics) differs from zero." in memo
