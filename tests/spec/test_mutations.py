"""Whatever stands in the file, loading it ends in a spec or in problems that can be shown."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from readout.errors import SpecError
from readout.spec import Spec, load
from readout.spec.yaml import parse

CONTRACT = (Path(__file__).parent / "contract.yaml").read_text(encoding="utf-8")
QUIET = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(
        ["5%", "2h", "premium", "ttft", "auto", "2026-10-05", "\x1b[0m", "{text}", "9999-12-31T23:59-14:00"]
    ),
)
VALUES = st.recursive(
    SCALARS, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=5), v, max_size=3), max_leaves=4
)


def tried(path: Path, *overrides: str) -> Spec | None:
    try:
        return load(path, overrides)
    except SpecError as error:
        problems = error.problems
    assert problems
    for problem in problems:
        assert problem.message
        for text in (problem.where, problem.message, problem.hint, problem.source.replace("\n", "")):
            assert not [ch for ch in text if unicodedata.category(ch) == "Cc"]
    return None


@QUIET
@given(data=st.data(), value=VALUES)
def test_a_changed_value(tmp_path: Path, data: st.DataObject, value: Any) -> None:
    spec = parse(CONTRACT).data
    here, key = spec, data.draw(st.sampled_from(sorted(spec)))
    while isinstance(here[key], dict | list) and here[key] and data.draw(st.booleans()):
        here = here[key]
        key = data.draw(st.sampled_from(sorted(here) if isinstance(here, dict) else list(range(len(here)))))
    here[key] = value
    file = tmp_path / "spec.yaml"
    file.write_text(yaml.safe_dump(spec, allow_unicode=False), encoding="utf-8")
    tried(file)


@QUIET
@given(start=st.integers(0, len(CONTRACT)), length=st.integers(0, 40), text=st.text(max_size=6))
@example(start=0, length=0, text="\ufeff")
@example(start=9, length=0, text="\x85")
def test_changed_characters(tmp_path: Path, start: int, length: int, text: str) -> None:
    file = tmp_path / "spec.yaml"
    changed = CONTRACT[:start] + text + CONTRACT[start + length :]
    file.write_bytes(changed.encode("utf-8", "surrogatepass"))
    tried(file)


@QUIET
@given(content=st.binary(max_size=60))
def test_any_bytes(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "spec.yaml"
    file.write_bytes(content)
    assert tried(file) is None


@QUIET
@given(
    key=st.text(max_size=10) | st.sampled_from(["logs.path", "metrics.ttft", "rollback.0.above"]),
    value=st.text(max_size=10),
)
def test_any_override(tmp_path: Path, key: str, value: str) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(CONTRACT, encoding="utf-8")
    tried(file, f"{key}={value}")
