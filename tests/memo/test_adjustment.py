"""What the memo of an observational design says of its adjustment, and the figures that go with it."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import pytest

from estimators import evalue, sensitivity
from readout import pipeline

AS_OF = datetime(2026, 10, 20, tzinfo=UTC)
DESIGN = {
    "design": {"kind": "observational", "control": "old", "treatment": "new", "estimand": "att"},
    "logs.columns": {
        "unit": "user", "intended": "action", "executed": "action", "state": ["queue"], "features": ["tier"],
    },
    "metrics": {"ms": {"column": "ms", "role": "primary", "better": "lower"}},
}  # fmt: skip


def routed(n: int = 800, seed: int = 3) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    queue, tier = rng.gamma(2.0, 5.0, n), rng.choice(["free", "pro", "max"], n)
    new = rng.random(n) < 1.0 / (1.0 + np.exp(0.1 * queue - 1.0))
    ms = 300.0 + 6.0 * queue + 20.0 * (tier == "free") - 30.0 * new + rng.normal(0.0, 30.0, n)
    return pl.DataFrame(
        {"user": np.arange(n) // 4, "action": np.where(new, "new", "old"), "queue": queue, "tier": tier, "ms": ms,
         "bad": rng.random(n) < np.where(new, 0.15, 0.3)}
    )  # fmt: skip


def memo(world: Any, changes: dict[str, Any] | None = None, frame: pl.DataFrame | None = None) -> tuple[str, Any]:
    spec = world.write(routed() if frame is None else frame, {**DESIGN, **(changes or {})})
    _, folder = pipeline.run(spec, out=world.out, as_of=AS_OF)
    text = (folder / "memo.md").read_text()
    return text.partition("# Appendix")[0], json.loads((folder / "readout.json").read_text())


def test_the_memo_says_how_rows_were_made_alike_and_how_strong_a_cause_would_have_to_be(world):
    text, found = memo(world)
    assert text.index("## What must be true") < text.index("## Effects") < text.index("## How it was adjusted")
    for said in (
        "Adjusted for: queue, tier. Errors are by unit.",
        "each time to all but one of 5 parts of the units",
        "no unit is predicted by a model that has seen it",
        "Largest standardised difference between the actions",
        "rows of 'old' weigh as much as",
        "one as strong as queue would leave",
        "To bring the interval to zero it would have to explain",
    ):
        assert said in text, said
    assert found["figures"] == ["figures/effects.svg", "figures/overlap.svg", "figures/love.svg"]
    assert found["design"]["estimand"] == "att"
    assert set(found["diagnostics"]["ess"]) == {"old", "new"}


def test_the_robustness_value_is_that_of_the_bias_which_the_regression_allows(world):
    _, found = memo(world)
    frame = routed()
    tiers = frame["tier"].value_counts().sort(["count", "tier"], descending=[True, False])["tier"].to_list()
    x = np.column_stack([frame["queue"], *[(frame["tier"] == t).cast(float) for t in tiers[1:]]])
    new = (frame["action"] == "new").to_numpy().astype(float)
    model = sensitivity(frame["ms"], new, x, benchmarks={"queue": [0]}, units=frame["user"].to_numpy())
    (row,) = found["diagnostics"]["sensitivity"]
    effect = found["metrics"][0]
    share = row["robustness_value"]
    assert model.scale * math.sqrt(share * share / (1.0 - share)) == pytest.approx(abs(effect["estimate"]), rel=1e-6)
    share = row["robustness_value_alpha"]
    assert model.scale * math.sqrt(share * share / (1.0 - share)) == pytest.approx(-effect["ci_high"], rel=1e-6)
    once = next(b for b in row["benchmarks"] if (b["covariate"], b["multiple"]) == ("queue", 1.0))
    moved = model.bounds[0].estimate - model.estimate
    assert once["estimate"] - effect["estimate"] == pytest.approx(abs(moved), rel=1e-6)
    assert once["ci_high"] - effect["ci_high"] == pytest.approx(abs(moved), rel=1e-6)


def test_of_a_share_the_e_value_is_given(world):
    text, found = memo(world, {"metrics": {"bad": {"column": "bad", "role": "primary", "better": "lower"}}})
    effect, (row,) = found["metrics"][0], found["diagnostics"]["evalue"]
    wanted = evalue(*(1.0 + effect[f"relative{end}"] for end in ("", "_ci_low", "_ci_high")))
    assert row["e_value"] == pytest.approx(wanted.point, rel=1e-6)
    assert row["e_value_of_interval"] == pytest.approx(wanted.limit, rel=1e-6)
    assert "E-value of bad" in text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"estimator": {"folds": 1}}, "fitted to the same rows that they predict"),
        ({"estimator": {"folds": 2, "repeats": 3}}, "This was done 3 times with other parts, and results are medians"),
        ({"estimator": "ipw"}, "One model, that of the action (logit), was fitted 5 times"),
        ({"estimator": {"trim": 0.3}}, "Trimming (0.3) left out"),
        ({"estimator": {"trim": 0.3}}, "average effect on what was treated (ATT) among the rows that were not trimmed"),
        ({"estimator": {"trim": 0.3}}, "of the rows, and the effect is of the others"),
        (
            {"estimator": "matching"},
            "Each row stands beside the nearest row of the other action by mahalanobis distance",
        ),
        ({"estimator": {"method": "matching", "caliper": 0.001}}, "The caliper left out"),
        ({"estimator": "outcome_regression"}, "outcome_regression itself does not weigh"),
        ({"estimator": "dml"}, "average effect where both actions were likely"),
        (
            {"metrics": {"r": {"numerator": "ms", "denominator": "queue", "role": "primary", "better": "lower"}}},
            "not known for r: a ratio has no such bound",
        ),
    ],
)
def test_every_choice_is_told(world, changes, said):
    assert said in memo(world, changes)[0]


def test_an_estimand_that_the_method_cannot_tell_is_not_claimed(world):
    _, found = memo(world, {"estimator": "dml"})
    assert found["design"]["estimand"] == "overlap"
    assert any(note.startswith("att was asked for") for note in found["notes"])


def test_the_same_log_in_another_order_gives_the_same_memo_and_figures(world):
    first = memo(world)[0], {p.name: p.read_bytes() for p in world.out.rglob("*.svg")}
    shuffled = routed().sample(fraction=1.0, shuffle=True, seed=1)
    again = memo(world, frame=shuffled)[0], {p.name: p.read_bytes() for p in world.out.rglob("*.svg")}
    assert first == again
