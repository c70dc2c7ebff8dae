"""Figures: valid, deterministic SVG that holds what it shows as text, whatever the names are."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import pytest

from readout.memo.drawn import spec_effect
from readout.memo.figures import BLOCKS, EFFECTS, SINCE, alt_text, draw
from readout.results import BlockPoint, Readout

ROOT = Path(__file__).parents[2]
SVG = "{http://www.w3.org/2000/svg}"


def _texts(svg: bytes) -> list[str]:
    return ["".join(element.itertext()).strip() for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_the_switchback_has_both_figures(switchback: Readout) -> None:
    files = draw(switchback)
    assert list(files) == [EFFECTS, BLOCKS]
    texts = _texts(files[EFFECTS])
    assert "Relative effect of premium against current" in texts
    assert texts.index("ttft") < texts.index("error_rate")
    assert "-6.1 % [-7.5 %, -4.7 %]" in texts
    assert "inconclusive; guardrail not shown safe" in texts
    assert "accepted harm, up to margin" in texts
    blocks = _texts(files[BLOCKS])
    assert [t for t in blocks if t in ("ap-south", "eu-west", "us-east")] == ["ap-south", "eu-west", "us-east"]
    assert "ttft by block" in blocks


def test_the_course_since_the_switch_is_drawn_for_the_arm_decided_on(switchback: Readout) -> None:
    def course(arm: str, level: float) -> list[dict[str, object]]:
        return [
            {"metric": "ttft", "arm": arm, "minutes": 10.0 * k, "effect": level, "std_error": 2.0,
             "carryover": 8.0 - k, "carryover_std_error": math.nan if k == 3 else 2.0}
            for k in range(12)
        ]  # fmt: skip

    rows = course("other", -1.0) + course("premium", -25.0)
    shown = replace(switchback, diagnostics={**switchback.diagnostics, "since_switch": rows})
    files = draw(shown)
    assert list(files) == [EFFECTS, BLOCKS, SINCE]
    texts = _texts(files[SINCE])
    assert "ttft: premium against current" in texts
    assert "Effect of the block before" in texts
    said = alt_text(SINCE, shown)
    assert "effect -25.0 at the start" in said
    assert "of the block before 8.00 at the start, -3.00 at the end" in said


def test_figures_are_described_for_screen_readers(switchback: Readout) -> None:
    for path, svg in draw(switchback).items():
        root = ElementTree.fromstring(svg)
        assert root.get("role") == "img"
        assert root.find(f"{SVG}desc").text == alt_text(path, switchback)  # type: ignore[union-attr]


def test_the_same_readout_gives_the_same_bytes_under_any_settings(switchback: Readout) -> None:
    first = draw(switchback)
    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path", "lines.linewidth": 9, "text.color": "red"}):
        assert draw(switchback) == first
        assert matplotlib.rcParams["font.size"] == 30
    assert b"<dc:date>" not in first[EFFECTS]


def test_a_doubtful_effect_says_so_in_the_figure(spillover: Readout) -> None:
    texts = _texts(draw(spillover)[EFFECTS])
    assert "Points with 95 % intervals. Failed: untreated_outcomes; these may not be the treatment's effects." in texts


def test_nothing_to_show_draws_nothing(instrument: Readout) -> None:
    assert draw(instrument) == {}
    point = BlockPoint("2026-10-05T00:00:00Z", "eu", "current", float("nan"))
    assert draw(replace(instrument, blocks=(point,))) == {}


def test_hostile_names_give_valid_svg(hostile: Readout) -> None:
    for svg in draw(hostile).values():
        tags = {element.tag.removeprefix(SVG) for element in ElementTree.fromstring(svg).iter()}
        assert "script" not in tags
        assert "image" not in tags
        assert b"\x1b" not in svg


def test_names_in_other_scripts_and_dollar_signs_are_text(switchback: Readout) -> None:
    metrics = tuple(replace(m, metric=f"$漢字 ${m.metric}") for m in switchback.metrics)
    assert "$漢字 $ttft" in _texts(draw(replace(switchback, metrics=metrics))[EFFECTS])


def test_one_wild_interval_does_not_flatten_the_others(switchback: Readout) -> None:
    wild = replace(switchback.metrics[1], relative=9.0, relative_ci_low=-0.9, relative_ci_high=80.0)
    svg = draw(replace(switchback, metrics=(*switchback.metrics[2:], wild)))[EFFECTS]
    texts = _texts(svg)
    ticks = [float(t.removesuffix(" %")) for t in texts if t.endswith(" %") and "[" not in t]
    assert 5 <= max(ticks) <= 60
    assert "+900 % [-90 %, +8,000 %]" in texts


@pytest.mark.parametrize(("start", "n"), [("2026-10-05", 1), ("2026-10-05T00:00:00", 3)])
def test_few_and_equal_blocks_still_draw(switchback: Readout, start: str, n: int) -> None:
    points = tuple(BlockPoint(start, f"c{i}", "premium", 5.0) for i in range(n))
    assert BLOCKS in draw(replace(switchback, blocks=points))


def test_many_clusters_are_cut_and_the_figure_says_so(switchback: Readout) -> None:
    points = tuple(BlockPoint("2026-10-05T00:00:00Z", f"c{i:02d}", "premium", float(i)) for i in range(20))
    texts = _texts(draw(replace(switchback, blocks=points))[BLOCKS])
    assert any("first 12 of 20 clusters" in text for text in texts)


def test_a_name_too_wide_for_its_place_is_shortened(switchback: Readout) -> None:
    metrics = (replace(switchback.metrics[2], metric="W" * 60), replace(switchback.metrics[1], metric="i" * 30))
    texts = _texts(draw(replace(switchback, metrics=metrics))[EFFECTS])
    assert any(text.startswith("WWW") and text.endswith("…") and len(text) < 20 for text in texts)
    assert "i" * 30 in texts


def test_clusters_are_in_the_order_people_count(switchback: Readout) -> None:
    points = tuple(BlockPoint("2026-10-05", f"pool-{i}", "premium", 1.0) for i in (10, 9, 2))
    texts = _texts(draw(replace(switchback, blocks=points))[BLOCKS])
    assert [text for text in texts if text.startswith("pool-")] == ["pool-2", "pool-9", "pool-10"]


def test_a_memo_without_figures_loads_no_matplotlib() -> None:
    modules = "markdown, document, github, terminal, write, figures"
    code = f"import sys; from readout.memo import {modules}; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0


def test_effects_of_the_spec_become_fractions_of_control() -> None:
    assert spec_effect("5%", 400.0) == 0.05
    assert spec_effect("-5 %", None) == 0.05
    assert spec_effect("0.002", 0.01) == pytest.approx(0.2)
    assert spec_effect("25", 0.0) is None
    assert spec_effect(None, 1.0) is None
