"""The terminal: whole numbers at any width, the decision at the end, no text from data that acts."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass

import pytest
from rich.console import Console

from readout.memo.terminal import print_checks, print_readout
from readout.results import Check, Readout, Rows


def _printed(readout: Readout, width: int = 100, **options: object) -> str:
    file = io.StringIO()
    print_readout(readout, Console(file=file, width=width, legacy_windows=False, **options))  # type: ignore[arg-type]
    return file.getvalue()


def test_effects_then_checks_then_the_decision(switchback: Readout) -> None:
    text = _printed(switchback, 120)
    assert text.index("-25.3") < text.index("carryover") < text.index("Ship. Time to first token")
    assert re.search(r"ttft +413\.5 +388\.2 +-25\.3 +-6\.1 % +better", text)
    assert "[-31.3, -19.4]" in text
    assert "not shown safe" in text
    assert "Checks: 0 failed, 1 warned, 2 passed, 1 skipped" in text
    assert "Next: Route all eligible traffic" in text


def test_a_narrow_console_drops_columns_not_digits(switchback: Readout) -> None:
    wide, middle, narrow = (_printed(switchback, width) for width in (120, 90, 60))
    assert "Control" in wide
    assert "Control" not in middle
    assert "+0.0001100" in middle
    assert "Effect" not in narrow
    for text, width in ((wide, 120), (middle, 90), (narrow, 60)):
        assert "[-7.5 %, -4.7 %]" in text
        assert max(len(line) for line in text.splitlines()) <= width


def test_a_failed_check_is_named_under_the_numbers(spillover: Readout) -> None:
    text = _printed(spillover)
    assert "Failed: untreated_outcomes. These numbers may not be the effect of the treatment." in text
    assert "asks for: run a stronger design" in text
    assert "premium-plus: Run a stronger design" in text


def test_nothing_estimated_is_said(instrument: Readout) -> None:
    assert "No effect was estimated." in _printed(instrument)


@pytest.mark.parametrize("width", [40, 100])
def test_hostile_text_neither_styles_nor_commands(hostile: Readout, width: int) -> None:
    plain = _printed(hostile, width)
    assert not any((ord(c) < 32 and c != "\n") or 127 <= ord(c) < 160 for c in plain)
    assert "[red]" in re.sub(r"\s|[│]", "", plain)
    assert "::" not in plain
    assert "##[" not in plain
    coloured = _printed(hostile, width, force_terminal=True, color_system="truecolor")
    codes = set(re.findall(r"\x1b[^m]*m", coloured))
    assert coloured.count("\x1b") == len(re.findall(r"\x1b\[[0-9;]*m", coloured))
    assert codes


def test_no_colour_and_a_poor_encoding_are_honoured(switchback: Readout, hostile: Readout) -> None:
    assert "\x1b[3" not in _printed(switchback, force_terminal=True, color_system="standard", no_color=True)
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii")
    print_readout(hostile, Console(file=file, width=100))
    file.flush()
    assert raw.getvalue().isascii()


@dataclass(frozen=True)
class _Report:
    name: str
    rows: Rows
    checks: tuple[Check, ...]
    notes: tuple[str, ...]


def test_checks_alone_show_all_of_them(spillover: Readout) -> None:
    file = io.StringIO()
    report = _Report("router", Rows(10, 9, {"null arm": 1}), spillover.checks, ("arm x is not named by the design",))
    print_checks(report, Console(file=file, width=100))
    text = file.getvalue()
    assert "10 rows read, 9 kept; 1 dropped: null arm" in text
    assert [line.split()[0] for line in text.splitlines() if re.match(r"(fail|warn|skip|pass) ", line)] == [
        "fail", "warn", "skip", "pass", "pass",
    ]  # fmt: skip
    assert "Note: arm x is not named by the design" in text
