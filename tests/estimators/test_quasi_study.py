"""A short, seeded version of benchmarks/quasi_study.py: every row draws, and some keep what they promise."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import quasi_study as study
from benchmarks.worlds.quasi import CONSERVATIVE, NOMINAL

CHEAP = (
    "matching, ate: 500 rows",
    "two_by_two: 100 units, half rolled out, 10 periods",
    "wald, HC1: 400 rows, a coin that moves half",
    "local_linear, sharp, hc3: 800 rows, a parabola on either side",
)
STRAIGHT = "callaway_santanna: parallel trends: the treated drift away on a straight line"
DIRECT = "two_stage_least_squares: through treatment alone: one of two instruments moves the outcome"
ALONE = "two_stage_least_squares: through treatment alone: the only instrument moves the outcome"
PROMISED = [name for name, row in study.DESIGNS.items() if row.promise in (NOMINAL, CONSERVATIVE)]


def holds(name: str, experiments: int) -> None:
    found, promise = study.measure_design(name, 0, experiments), study.DESIGNS[name].promise
    error = math.sqrt(0.05 * 0.95 / found.n)
    assert found.coverage > 0.94 - 4 * error
    assert found.coverage < 0.96 + 4 * error or promise == CONSERVATIVE
    assert found.refused < 0.01 * experiments or experiments < 100
    assert not abs(found.bias) > study.BIASED + 4 / math.sqrt(found.n)


@pytest.mark.parametrize("name", list(study.DESIGNS))
def test_every_method_gives_a_reading(name: str) -> None:
    found = study.measure_design(name, 0, 1)
    assert found.n + found.refused == 1


@pytest.mark.parametrize("name", list(study.BROKEN))
def test_every_check_answers_where_its_assumption_fails(name: str) -> None:
    row = study.BROKEN[name]
    found = study.measure_broken(name, row.size, 0, 1)
    assert set(found.fired) == set(row.checks)
    assert set(row.level) <= set(row.checks)


@pytest.mark.parametrize("name", CHEAP)
def test_intervals_cover_where_the_assumptions_hold(name: str) -> None:
    holds(name, 60)


@pytest.mark.slow
@pytest.mark.parametrize("name", PROMISED)
def test_intervals_cover_as_promised_in_every_design(name: str) -> None:
    holds(name, 300)


@pytest.mark.parametrize(("name", "check"), [(STRAIGHT, "pre_trend"), (DIRECT, "hansen_j")])
def test_a_check_fires_with_the_size_of_what_fails(name: str, check: str) -> None:
    row = study.BROKEN[name]
    quiet, one, six = (study.measure_broken(name, times * row.size, 0, 30) for times in (0.0, 1.0, 6.0))
    assert quiet.rate(check) < 0.2
    assert six.rate(check) > 0.8
    assert 0.6 < abs(one.bias - quiet.bias) < 1.5
    assert one.coverage <= quiet.coverage


def test_no_check_sees_what_the_only_instrument_does_by_itself() -> None:
    found = study.measure_broken(ALONE, 8 * study.BROKEN[ALONE].size, 0, 10)
    assert found.rate("first_stage") == 0.0
    assert found.coverage == 0.0


def test_the_published_page_holds_every_row() -> None:
    page = (Path(__file__).parents[2] / "docs" / "quasi_calibration.md").read_text(encoding="utf-8")
    for row in study.plan().splitlines()[2:]:
        assert row.rstrip("|").strip() in page
    for broken in study.BROKEN.values():
        assert f"| {broken.assumption}" in page
        assert all(criterion in page for criterion in broken.checks.values())


def test_a_page_is_written_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- calibration -->\n<!-- /calibration -->\nb\n<!-- broken -->x\n<!-- /broken -->\nc\n")
    for _ in range(2):
        study.write(page, "first\n", "second\n")
    text = page.read_text()
    assert text.startswith("a\n<!-- calibration -->\n\nfirst\n\n<!-- /calibration -->\nb\n")
    assert text.endswith("<!-- broken -->\n\nsecond\n\n<!-- /broken -->\nc\n")


def test_rows_measured_again_take_the_place_of_their_own() -> None:
    old = "| a | b | c |\n|---|---|---|\n| 1 | x | old |\n| ″ | | old |\n| 2 | x | old |\n\n5 minutes"
    new = "| a | b | c |\n|---|---|---|\n| 1 | x | new |\n| ″ | | new |\n\n1 minute"
    assert study.merged(old, new) == old.replace("| 1 | x | old |\n| ″ | | old |", "| 1 | x | new |\n| ″ | | new |")
