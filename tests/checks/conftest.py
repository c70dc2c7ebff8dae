"""Small logs, and what the checks say of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from readout import checks, pipeline, spec
from readout.economics import economic_bar
from readout.estimate import metric_results
from readout.evidence import Evidence
from readout.results import Check

AS_OF = datetime(2026, 11, 1, tzinfo=UTC)
BY_NAME = {one.__name__: one for one in (*checks.of("switchback"), economic_bar)}

Gather = Callable[..., Evidence]
Say = Callable[..., Check]


@pytest.fixture
def evidence(tmp_path: Path) -> Gather:
    """The evidence of a log: columns, design, and any other section of the spec."""

    def gathered(
        log: Mapping[str, Any] | pl.DataFrame,
        columns: Mapping[str, Any] | None = None,
        design: Mapping[str, Any] | None = None,
        metrics: Mapping[str, Any] | None = None,
        **sections: Any,
    ) -> Evidence:
        frame = log if isinstance(log, pl.DataFrame) else pl.DataFrame(dict(log))
        if "y" not in frame.columns:
            frame = frame.with_columns(y=pl.Series(np.random.default_rng(7).normal(10.0, 1.0, len(frame))))
        frame.write_parquet(tmp_path / "log.parquet")
        logs = {"path": "log.parquet", "columns": dict(columns or {}), **sections.pop("logs", {})}
        arms = {"kind": "user_rct", "control": "a", "treatment": "b"}
        if (design or {}).get("kind", "user_rct") in ("user_rct", "request_rct"):
            arms["shared_state"] = False
        text = {
            "logs": logs,
            "design": {**arms, **(design or {})},
            "metrics": dict(metrics or {"y": {"column": "y", "role": "primary", "better": "higher"}}),
            **sections,
        }
        (tmp_path / "spec.yaml").write_text(yaml.safe_dump(text, sort_keys=False), encoding="utf-8")
        return pipeline.gather(spec.load(tmp_path / "spec.yaml"), AS_OF)

    return gathered


@pytest.fixture
def said(evidence: Gather) -> Say:
    """One check by name; other arguments as for ``evidence``."""

    def ask(name: str, *log: Any, **given: Any) -> Check:
        found = evidence(*log, **given)
        object.__setattr__(found, "metrics", metric_results(found))
        return BY_NAME[name](found)

    return ask
