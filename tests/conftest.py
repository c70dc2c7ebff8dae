"""A small world to run readout in: a log, a spec, and the commands, all in a temporary folder."""

from __future__ import annotations

import copy
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

from readout import pipeline
from readout.results import Readout

AS_OF = datetime(2026, 10, 20, 6, 30, tzinfo=UTC)
START = datetime(2026, 10, 5, tzinfo=UTC)
SPEC: dict[str, Any] = {
    "version": 1,
    "name": "probe",
    "logs": {"path": "log.parquet", "columns": {"time": "at", "unit": "user", "arm": "arm"}},
    "design": {"kind": "user_rct", "control": "old", "treatment": "new", "shared_state": False},
    "metrics": {
        "latency": {"column": "ms", "role": "primary", "better": "lower", "minimum_effect": "2%"},
        "errors": {"column": "failed", "role": "guardrail", "better": "lower", "margin": 0.1},
    },
}


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class World:
    """A folder with ``log.parquet`` and ``spec.yaml``; memos go to ``out``."""

    folder: Path
    call: Callable[[list[str]], Outcome]

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def written(self) -> list[str]:
        """What stands in the folder beside the log and the spec."""
        found = (p.relative_to(self.folder).as_posix() for p in self.folder.rglob("*") if p.is_file())
        return sorted(p for p in found if not p.startswith(("log", "spec")))

    def log(
        self,
        units: int = 120,
        rows: int = 4,
        effect: float = 0.7,
        arms: tuple[str, ...] = ("old", "new"),
        seed: int = 1,
    ) -> pl.DataFrame:
        """Rows of units that keep one arm, in turn; ``ms`` is ``effect`` times control's outside the first arm."""
        rng = np.random.default_rng(seed)
        user = np.repeat(np.arange(units), rows)
        code = user % len(arms)
        n = units * rows
        return pl.DataFrame(
            {
                "at": [START + timedelta(minutes=7 * i) for i in range(n)],
                "user": user,
                "arm": np.array(arms)[code],
                "ms": rng.lognormal(4.0, 0.4, n) * np.where(code > 0, effect, 1.0),
                "failed": np.arange(n) % 20 == 0,
                "tokens": rng.integers(1, 400, n),
            }
        )

    def write(self, frame: pl.DataFrame | None, changes: Mapping[str, Any] | None = None) -> Path:
        """The log and a spec with dotted ``changes``; None takes a key out."""
        if frame is not None:
            frame.write_parquet(self.folder / "log.parquet")
        spec = copy.deepcopy(SPEC)
        for dotted, value in (changes or {}).items():
            *way, last = dotted.split(".")
            section = spec
            for key in way:
                section = section.setdefault(key, {})
            if value is None:
                section.pop(last, None)
            else:
                section[last] = copy.deepcopy(value)
        path = self.folder / "spec.yaml"
        path.write_text(yaml.safe_dump(spec, sort_keys=False, allow_unicode=True), encoding="utf-8")
        return path

    def readout(self, frame: pl.DataFrame, changes: Mapping[str, Any] | None = None, **options: Any) -> Readout:
        """The readout of a log and a spec, run in-process, without figures."""
        spec = self.write(frame, changes)
        return pipeline.run(spec, out=self.out, as_of=AS_OF, figures=False, **options)[0]

    def command(self, *arguments: object) -> Outcome:
        """``readout ARGUMENTS`` in-process."""
        return self.call([str(a) for a in arguments])

    def run(self, *arguments: object) -> Outcome:
        """``readout run spec.yaml`` with a fixed time and no figures."""
        fixed = ("--out", self.out, "--as-of", AS_OF.isoformat(), "--no-figures", "--quiet")
        return self.command("run", self.folder / "spec.yaml", *fixed, *arguments)


@pytest.fixture
def world(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> World:
    from cli.main import run

    def call(arguments: list[str]) -> Outcome:
        capsys.readouterr()
        code = run(arguments)
        return Outcome(code, *capsys.readouterr())

    return World(tmp_path, call)
