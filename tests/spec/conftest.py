"""A small spec, and a way to ask what is wrong with another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from readout.errors import Problem, SpecError
from readout.spec import Spec, load

SMALL = """\
logs:
  path: logs/*.parquet
design:
  kind: user_rct
  control: current
  treatment: premium
  shared_state: false
metrics:
  ttft:
    column: ttft_ms
    role: primary
    better: lower
"""

Loader = Callable[..., Spec]
Asker = Callable[..., list[Problem]]


@pytest.fixture
def small() -> str:
    """A valid spec of thirteen lines."""
    return SMALL


@pytest.fixture
def contract() -> str:
    """The example that uses every section."""
    return (Path(__file__).parent / "contract.yaml").read_text(encoding="utf-8")


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loader:
    """Load a text as ``spec.yaml`` of the current folder."""
    monkeypatch.chdir(tmp_path)

    def read(text: str, *overrides: str) -> Spec:
        Path("spec.yaml").write_text(text, encoding="utf-8")
        return load("spec.yaml", overrides)

    return read


@pytest.fixture
def problems(loaded: Loader) -> Asker:
    """Everything that is wrong with a text; an empty list where nothing is."""

    def ask(text: str, *overrides: str) -> list[Problem]:
        try:
            loaded(text, *overrides)
        except SpecError as error:
            return list(error.problems)
        return []

    return ask
