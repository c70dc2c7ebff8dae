"""The shared pool's tail as it is shown: memo, terminal, figure, readout.json."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console

from readout.memo import document, markdown
from readout.memo.capacity_section import capacity, sentence
from readout.memo.figures import CAPACITY, alt_text, draw
from readout.memo.terminal import print_readout
from readout.results import Readout

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "x`|**b**<script>alert(1)</script>\n# head\n::error::boom\x1b[31m"


def a_quantity(old: float, new: float, half: float, arms: tuple[str, ...] = ("current", "premium")) -> dict[str, Any]:
    change = {
        "estimate": new - old, "std_error": half / 2, "df": 500.0, "p_value": 0.04, "ci_low": new - old - half,
        "ci_high": new - old + half, "control_value": old, "treatment_value": new, "n_control": 252,
        "n_treatment": 252, "reason": "",
    }  # fmt: skip
    by_arm = {
        arm: {"value": v, "ci_low": v - half, "ci_high": v + half, "maximum": 7e6}
        for arm, v in zip(arms, (old, *[new] * (len(arms) - 1)), strict=True)
    }
    return {"by_arm": by_arm, **change, "effects": dict.fromkeys(arms[1:], change)}


def a_tail(arms: tuple[str, ...] = ("current", "premium"), load: str = "kv_tokens") -> dict[str, Any]:
    settling = [{"arm": arm, "bin": "over the limit", "first_half": 0.002, "second_half": 0.0021} for arm in arms]
    return {
        "load": load, "limit": 4_000_000, "window": "5m", "margin": 0.005, "unit": "cluster-block",
        "windows": dict.fromkeys(arms, 5000), "over": dict.fromkeys(arms, 60),
        "rows_per_window": {arm: 12.0 + 3 * i for i, arm in enumerate(arms)}, "rows_without_load": 17,
        "windows_without_load": 0, "windows_cut_by_a_block": 0,
        "pool": {"windows": 10_000, "over": 120, "share_over": 0.012, "expected_shortfall": 3e5, "maximum": 7e6},
        "share_over": a_quantity(0.011, 0.0135, 0.001, arms),
        "expected_shortfall": a_quantity(3e5, 4e5, 5e4, arms), "peak": a_quantity(5e6, 5.1e6, 1e5, arms),
        "inside": {"metrics": {"error_rate": a_quantity(0.02, 0.031, 0.004, arms)},
                   "fallback": a_quantity(0.1, 0.12, 0.03, arms)},
        "hours": [{"hour": h, "arm": arm, "windows": 200, "over": h % 5} for h in range(24) for arm in arms],
        "cost_of": "cost (USD)",
        "cost_by_state": [{"bin": b, "arm": arm, "rows": 9, "mean": m} for b, m in
                          (("0-25 % of the limit", 0.001), ("over the limit", 0.002)) for arm in arms],
        "settling": settling, "settled": False,
    }  # fmt: skip


@pytest.fixture
def tailed(switchback: Readout) -> Readout:
    return replace(switchback, capacity=a_tail())


def shown(readout: Readout, width: int = 120) -> str:
    file = io.StringIO()
    print_readout(readout, Console(file=file, width=width))
    return file.getvalue()


def test_the_section_says_how_often_how_far_and_what_then(tailed: Readout) -> None:
    text = markdown.memo(tailed)
    section = text[text.index("## Capacity") :].partition("\n## ")[0]
    assert "it is over the limit where `kv_tokens` is above 4,000,000 at any of its requests" in section
    assert "a rise of up to 0.5 points is accepted" in section
    assert "| `premium` | 5,000 | 60 | 1.35 % [1.25, 1.45] | +0.250 [+0.150, +0.350] |" in section
    assert "| `error_rate` | 0.0200 | 0.0310 | +0.01100 [+0.00700, +0.01500] |" in section
    assert "are not effects" in section
    assert "Requests a window differ (`current` 12.0, `premium` 15.0)" in section
    assert "17 kept rows have no load" in section
    assert "The mean in the fullest state has not settled over the window" in section
    assert text.index("## Economics") < text.index("## Capacity") < text.index("## Energy")


def test_a_pool_that_both_arms_share_is_described(tailed: Readout) -> None:
    shared = {**a_tail(), "windows": {}, "share_over": None}
    lines = "\n".join(capacity(replace(tailed, capacity=shared)))
    assert "120 of 10,000 windows were over it (1.2 %), by 300,000 on average" in lines
    assert "so they are not compared" in lines
    assert sentence(replace(tailed, capacity=shared)) == "Windows of 5m with kv_tokens over 4,000,000: 1.2 % of 10,000."


def test_several_arms_stand_apart(tailed: Readout) -> None:
    many = a_tail(("current", "premium", "premium-plus"))
    design = {**tailed.design, "treatments": ["premium", "premium-plus"]}
    lines = "\n".join(capacity(replace(tailed, capacity=many, design=design)))
    assert "| Inside windows over the limit | Arm |" in lines
    assert "| `error_rate` | `premium-plus` |" in lines


def test_what_could_not_be_estimated_is_said(tailed: Readout) -> None:
    nothing: Mapping[str, Any] = {**dict.fromkeys(a_quantity(0, 0, 0)["effects"]["premium"]), "reason": "no spread"}
    share = {**a_quantity(0, 0, 0), "effects": {"premium": nothing}}
    none = {**a_tail(), "share_over": share, "over": {"current": 0, "premium": 0}}
    lines = "\n".join(capacity(replace(tailed, capacity=none)))
    assert "No change could be estimated for `premium`: no spread." in lines
    assert "No window was over the limit." in lines


def test_without_the_section_nothing_is_said(switchback: Readout) -> None:
    assert capacity(switchback) == []
    assert "Windows of" not in shown(switchback)
    assert CAPACITY not in draw(switchback)


def test_the_terminal_has_a_line(tailed: Readout) -> None:
    line = "Windows of 5m with kv_tokens over 4,000,000: current 1.1 %, premium 1.4 %; change: premium +0.250"
    assert line in shown(tailed).replace("\n", " ")


def test_the_figure_shows_the_share_by_hour(tailed: Readout) -> None:
    svg = draw(tailed)[CAPACITY]
    texts = ["".join(e.itertext()).strip() for e in ElementTree.fromstring(svg).iter(f"{SVG}text")]
    assert "Windows with kv_tokens over 4,000,000" in texts
    assert {"current", "premium", "hour of day (UTC)"} <= set(texts)
    assert alt_text(CAPACITY, tailed).startswith("Share of windows over the limit by hour of day and arm.")
    assert draw(tailed)[CAPACITY] == svg
    quiet = {**a_tail(), "hours": [{**row, "over": 0} for row in a_tail()["hours"]]}
    assert CAPACITY not in draw(replace(tailed, capacity=quiet))


def test_hostile_names_neither_style_nor_command(hostile: Readout) -> None:
    arms = tuple(str(a) for a in (hostile.design["control"], *hostile.design["treatments"]))
    tail = a_tail(arms, HOSTILE)
    tail["inside"]["metrics"] = {HOSTILE: a_quantity(0.02, 0.03, 0.01, arms)}
    readout = replace(hostile, capacity={**tail, "cost_of": HOSTILE, "unit": HOSTILE})
    lines = capacity(readout)
    assert not any("\n" in line or "<script" in line or "\x1b" in line for line in lines)
    assert len({line.replace("\\|", "").count("|") for line in lines if line.startswith("| `x") or "Arm" in line}) <= 3
    assert "::" not in shown(readout)
    ElementTree.fromstring(draw(readout)[CAPACITY])
    assert json.loads(document.to_json(readout))["capacity"]["load"] == HOSTILE
