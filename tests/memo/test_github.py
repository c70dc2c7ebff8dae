"""GitHub Actions: annotations that text cannot break, a summary that stays below its limit."""

from __future__ import annotations

import re

import pytest

from readout.memo import github
from readout.memo.github import SUMMARY_LIMIT, step_summary
from readout.memo.markdown import memo
from readout.results import Readout


def test_the_decision_comes_first_then_what_speaks_against_it(switchback: Readout, spillover: Readout) -> None:
    assert github.annotations(switchback) == [
        "::notice title=premium-router%3A Ship::"
        "Time to first token falls by 6.1 %25 and every guardrail but one holds.",
        "::warning title=Guardrail ttft_p99 not shown safe::+1.6 %25 [-2.5 %25, +5.6 %25] against current; margin 5%25",
        "::warning title=Check carryover warns::the lag's interval leaves the band: 1.2 [-4.0, 6.4] ms",
    ]
    lines = github.annotations(spillover)
    assert lines[0].startswith("::warning title=router-rct%3A Run a stronger design::The arms share a queue")
    assert lines[1].startswith("::warning title=Guardrail ttft_p99 not shown safe::premium: +1.6 %25")
    assert lines[3].startswith("::error title=Check untreated_outcomes failed::ttft of untreated rows")


def test_hostile_text_stays_inside_its_one_command(hostile: Readout) -> None:
    for line in github.annotations(hostile):
        assert re.fullmatch(r"::(error|warning|notice) title=[^:,\x00-\x1f]*::[^\x00-\x1f]*", line)
        assert not re.search(r"%(?!25|3A|2C)", line)


def test_a_short_memo_keeps_everything_but_its_images(switchback: Readout) -> None:
    text = memo(switchback)
    summary = step_summary(text)
    assert "![" not in summary
    assert "*Figure `figures/blocks.svg`: ttft by block over time in 3 clusters, by arm (current, premium)*" in summary
    assert [line for line in summary.splitlines() if "*Figure" not in line] == [
        line for line in text.splitlines() if not line.startswith("![")
    ]


@pytest.mark.parametrize("line", ["| é 漢 | row |\n", "漢"])
def test_a_long_memo_is_cut_between_characters_with_a_note(line: str) -> None:
    summary = step_summary(line * (2 * SUMMARY_LIMIT // len(line.encode())))
    size = len(summary.encode())
    assert SUMMARY_LIMIT - 400 < size < SUMMARY_LIMIT
    assert summary.endswith("The whole memo is in `memo.md`.*\n")
    assert "\ufffd" not in summary
    if line.endswith("\n"):
        assert set(summary.split("\n\n*The memo is cut")[0].splitlines()) == {line.strip()}


def test_no_room_left_adds_nothing() -> None:
    assert step_summary("x" * 100, room=-5) == ""
    assert len(step_summary("é" * 300, room=50).encode()) <= 50
