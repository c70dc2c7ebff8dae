"""Shorthands for logs that are opened and read out in a temporary folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from readout.errors import Problem, ReadoutError

Refused = Callable[..., list[Problem]]


@pytest.fixture
def refused(world: Any) -> Refused:
    """Run a readout that must be refused with exit code ``code``; its problems. Nothing is written."""

    def ask(frame: pl.DataFrame | None, changes: Mapping[str, Any] | None = None, code: int = 3) -> list[Problem]:
        with pytest.raises(ReadoutError) as caught:
            world.readout(frame, changes)
        assert caught.value.code == code, caught.value
        assert not world.out.exists()
        return list(caught.value.problems)

    return ask


@pytest.fixture
def folder(world: Any) -> Path:
    return Path(world.folder)
