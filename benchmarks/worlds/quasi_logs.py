"""Checks asked as ``readout run`` asks them: of the evidence of a small log."""

from __future__ import annotations

import atexit
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from estimators import Estimate, EstimationError
from readout import checks, pipeline, spec
from readout.spec.model import Spec

AS_OF = datetime(2026, 11, 1, tzinfo=UTC)


@dataclass(frozen=True, eq=False)
class Asked:
    """A spec, whose log is ``log.parquet``; loaded once a process."""

    text: Mapping[str, Any]

    @cached_property
    def folder(self) -> Path:
        made = tempfile.TemporaryDirectory()
        atexit.register(made.cleanup)
        return Path(made.name)

    @cached_property
    def spec(self) -> Spec:
        path = self.folder / "spec.yaml"
        path.write_text(yaml.safe_dump(dict(self.text)), encoding="utf-8")
        return spec.load(path)


def asked_of(asked: Asked, log: Mapping[str, Any], names: Sequence[str]) -> tuple[Estimate, Mapping[str, str]]:
    """The primary's effect, and what the checks answer."""
    folder = asked.folder
    pl.DataFrame(dict(log)).write_parquet(folder / "log.parquet")
    evidence = pipeline.gather(asked.spec, AS_OF)
    primary = next(m.name for m in asked.spec.metrics.values() if m.role == "primary")
    found = evidence.effect(primary, 1)
    if found is None:
        raise EstimationError(evidence.why_not(primary, 1))
    by_name = {one.__name__: one for one in checks.of(asked.spec.design.kind)}
    return found, {name: by_name[name](evidence).status for name in names}
