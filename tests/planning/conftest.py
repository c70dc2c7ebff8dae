"""Past logs whose spread is known, and the command."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

START = datetime(2026, 10, 5, tzinfo=UTC)
AS_OF = "2026-11-05T06:30Z"
SPEC: dict[str, Any] = {
    "version": 1,
    "name": "coming",
    "logs": {
        "path": "past.parquet",
        "columns": {"time": "at", "unit": "user", "cluster": "region", "arm": "arm", "state": ["queue"]},
    },
    "design": {"kind": "switchback", "control": "old", "treatment": "new", "block": "2h"},
    "metrics": {
        "latency": {"column": "ms", "role": "primary", "better": "lower", "minimum_effect": "5%"},
        "errors": {"column": "failed", "role": "guardrail", "better": "lower", "margin": 0.02},
    },
    "plan": {"simulations": 20},
}


def past_log(
    days: int = 14,
    clusters: int = 4,
    per_step: int = 3,
    seed: int = 1,
    arm: np.ndarray | None = None,
    effect: Callable[[np.ndarray], np.ndarray] | None = None,
) -> pl.DataFrame:
    """Rows at random times of ten-minute steps: a daily cycle, a queue that forgets half of itself in 20 minutes.

    ``arm`` is 0 or 1 by cluster and step; ``effect`` turns it into what it adds to the outcome.
    """
    rng = np.random.default_rng(seed)
    steps = days * 144
    queue = np.zeros((clusters, steps))
    for t in range(1, steps):
        queue[:, t] = 0.7 * queue[:, t - 1] + rng.normal(size=clusters)
    hour = np.arange(steps) % 144 / 6
    level = 100 + 10 * np.sin(2 * np.pi * hour / 24) + 4 * queue + 3 * rng.normal(size=(clusters, 1))
    if arm is not None and effect is not None:
        level = level + effect(arm)
    n = clusters * steps * per_step
    place = np.repeat(np.arange(clusters * steps), per_step)
    cluster, step = np.divmod(place, steps)
    user = rng.integers(0, 400, n)
    frame = pl.DataFrame(
        {
            "at": pl.Series(np.datetime64(START.replace(tzinfo=None), "us") + step * np.timedelta64(600, "s")
                            + rng.integers(0, 600, n) * np.timedelta64(1, "s")).dt.replace_time_zone("UTC"),
            "region": np.array([f"r{i:02d}" for i in range(clusters)])[cluster],
            "user": user,
            "ms": level.ravel()[place] + 10 * rng.normal(size=n) + 5 * rng.normal(size=400)[user],
            "failed": rng.random(n) < 0.02,
            "queue": queue.ravel()[place],
        }
    )  # fmt: skip
    return frame if arm is None else frame.with_columns(arm=pl.Series(np.array(["old", "new"])[arm.ravel()[place]]))


@dataclass(frozen=True)
class Told:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Desk:
    """A folder with a past log and a spec."""

    folder: Path
    call: Callable[[list[str]], Told]

    def write(self, frame: pl.DataFrame | None, changes: Mapping[str, Any] | None = None) -> Path:
        """The past log and the spec with dotted ``changes``; None takes a key out."""
        if frame is not None:
            frame.write_parquet(self.folder / "past.parquet")
        spec = json.loads(json.dumps(SPEC))
        for dotted, value in (changes or {}).items():
            *way, last = dotted.split(".")
            section = spec
            for key in way:
                section = section.setdefault(key, {})
            if value is None:
                section.pop(last, None)
            else:
                section[last] = value
        path = self.folder / "spec.yaml"
        path.write_text(yaml.safe_dump(spec, sort_keys=False), encoding="utf-8")
        return path

    def plan(self, frame: pl.DataFrame | None, changes: Mapping[str, Any] | None = None, *more: str) -> Told:
        """``readout plan`` as JSON."""
        spec = self.write(frame, changes)
        fixed = ["--out", str(self.folder / "out"), "--as-of", AS_OF, "--quiet", "--format", "json"]
        return self.call(["plan", str(spec), *fixed, *more])

    @property
    def written(self) -> Path:
        """The plan's folder."""
        return self.folder / "out" / "coming" / "2026-11-05"


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    from cli.main import run

    def call(arguments: list[str]) -> Told:
        capsys.readouterr()
        code = run(arguments)
        return Told(code, *capsys.readouterr())

    return Desk(tmp_path, call)


@pytest.fixture(scope="session")
def usual() -> pl.DataFrame:
    """Two weeks of four regions, no experiment in them."""
    return past_log()


__all__ = ["AS_OF", "SPEC", "START", "Desk", "Told", "past_log", "timedelta"]
