"""Text from the data: nothing of it styles a terminal, a page or a workflow."""

from __future__ import annotations

import json
import re

import polars as pl
import pytest

HOSTILE = "x`|**b**<script>[l](http://e)\n# h\r::error::b\x1b[31m\x07\u202e[red]r[/red]"
CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f\u202e]")


def clean(text: str) -> None:
    assert not CONTROLS.search(text), CONTROLS.findall(text)


@pytest.fixture
def hostile(world):
    frame = world.log().with_columns(
        arm=pl.col("arm").replace({"new": HOSTILE}),
        why=pl.when(pl.col("user") % 9 == 0).then(pl.lit(HOSTILE)),
        tier=pl.when(pl.col("user") % 5 == 0).then(pl.lit(HOSTILE)).otherwise(pl.lit("plain")),
        region=pl.lit(HOSTILE),
    )  # fmt: skip
    frame = frame.rename({"ms": HOSTILE})
    world.write(
        frame,
        {
            "design.treatment": HOSTILE,
            "question": HOSTILE,
            "counterfactual": HOSTILE,
            "decision.failure_mode": HOSTILE,
            "metrics.latency": {"column": HOSTILE, "role": "primary", "better": "lower", "minimum_effect": "2%"},
            f"metrics.{HOSTILE}".replace(".e", "_e"): {"column": HOSTILE, "quantile": 0.5, "better": "lower"},
            "logs.columns.fallback": "why",
            "logs.columns.features": ["tier"],
            "logs.columns.cluster": "region",
        },
    )
    return world


@pytest.mark.parametrize("output_format", ["text", "markdown", "github", "json"])
def test_text_from_the_data_cannot_style_or_command(hostile, output_format):
    outcome = hostile.run("--format", output_format)
    assert outcome.code == 0, outcome.err
    clean(outcome.out)
    clean(outcome.err)
    if output_format == "github":
        assert all(line.startswith(("::notice ", "::warning ", "::error ")) for line in outcome.out.splitlines())
    if output_format == "markdown":
        for unescaped in ("**b**", "<script>", "\n# h", "[l](http"):
            assert unescaped not in re.sub("`[^`]*`", "", outcome.out)
    if output_format == "json":
        assert outcome.json["decision"]["treatment"] == HOSTILE


def test_figures_escape_text_from_the_data(hostile):
    out = hostile.out
    assert hostile.command("run", hostile.folder / "spec.yaml", "--out", out, "--quiet").code == 0
    (figure,) = out.rglob("*.svg")
    text = figure.read_text(encoding="utf-8")
    clean(text.replace("\t", ""))
    assert "<script" not in text


def test_errors_escape_text_from_the_data(hostile):
    hostile.write(hostile.log(), {"metrics.latency.column": HOSTILE, "logs.columns.unit": HOSTILE})
    outcome = hostile.run()
    assert (outcome.code, outcome.out) == (3, "")
    assert "the log has no column" in outcome.err
    clean(outcome.err)
    clean(json.dumps(hostile.run("--format", "json").json, ensure_ascii=True))


def test_a_labels_first_line_is_no_heading_in_the_annotations_of_check(hostile):
    outcome = hostile.command("check", hostile.folder / "spec.yaml", "--format", "github", "--quiet")
    assert outcome.code == 0
    clean(outcome.out)
    assert all(line.startswith("::") for line in outcome.out.splitlines())
