from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import readout
from readout.results import Check, Decision, MetricResult, Readout, Rows


def _metric() -> MetricResult:
    return MetricResult(
        metric="ttft", role="primary", arm="premium", control="current", better="lower", unit="cluster-block",
        estimand="ATE", method="block_regression", estimate=-31.5, std_error=6.25, df=310.0, statistic=-5.04,
        p_value=8e-7, ci_low=-43.8, ci_high=-19.2, relative=-0.071, relative_ci_low=-0.098, relative_ci_high=-0.043,
        control_value=443.0, treatment_value=411.5, n_control=160, n_treatment=160, minimum_detectable_effect=17.5,
        verdict="better", minimum_effect="2%",
    )  # fmt: skip


SRM = Check("srm", "assignment", "fail", "81 % of cells are treated, 50 % were expected", action="pause")


@pytest.fixture
def ramp() -> Readout:
    """A readout of a switchback whose decision is to ramp."""
    return Readout(
        name="premium-router", question="Should it ship?", counterfactual="The current router.", failure_mode="",
        mitigation="", monitor="", spec_sha256="ab" * 32, readout_version="0.1.0", seed=0,
        as_of="2026-10-19T00:00:00Z", alpha=0.05,
        window={"start": "2026-10-05T00:00:00Z", "end": "2026-10-19T00:00:00Z"},
        rows=Rows(1000, 990, {"washout": 10}), columns={"arm": "arm"}, mapped_unasked=("arm",),
        design={
            "kind": "switchback", "estimand": "ATE", "method": "block_regression", "unit": "cluster-block",
            "n_units": {"current": 160, "premium": 160}, "control": "current", "treatments": ["premium"],
            "split": {"current": 0.5, "premium": 0.5}, "shared_state": True, "block": "2h", "washout": "20m",
        },
        assignment="Each region and block of two hours drew its arm by a fair coin.",
        decision=Decision(
            "ramp", "premium", {"premium": "ramp"}, "inconclusive_guardrail", "ttft fell by 7 %.", ("ttft is better.",),
            ("A guardrail that holds.",), ("error_rate above 2 %",), "Ramp to a quarter of the regions.",
        ),
        checks=(SRM,), metrics=(_metric(),),
    )  # fmt: skip


@dataclass
class CheckReport:
    name: str = "premium-router"
    rows: Rows = field(default_factory=lambda: Rows(1000, 990, {"washout": 10}))
    checks: tuple[Check, ...] = (SRM, Check("eligibility", "assignment", "pass", "every row is eligible"))
    notes: tuple[str, ...] = ("Rows without a zone are taken as UTC.",)
    failed: bool = True


@dataclass
class Pipeline:
    """Stands in for readout.pipeline: records how it was called and answers, or raises."""

    result: Readout
    report: CheckReport = field(default_factory=CheckReport)
    error: BaseException | None = None
    calls: list[dict[str, Any]] = field(default_factory=list)

    def _called(self, spec: Path, arguments: dict[str, Any]) -> None:
        self.calls.append({"spec": spec, **arguments})
        arguments["progress"]("reading the logs")
        if self.error is not None:
            raise self.error

    def run(self, spec: Path, **arguments: Any) -> tuple[Readout, Path]:
        self._called(spec, arguments)
        return self.result, arguments["out"] / self.result.name / "2026-10-19"

    def check(self, spec: Path, **arguments: Any) -> CheckReport:
        self._called(spec, arguments)
        return self.report


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch, ramp: Readout) -> Pipeline:
    fake = Pipeline(ramp)
    module = SimpleNamespace(run=fake.run, check=fake.check)
    monkeypatch.setitem(sys.modules, "readout.pipeline", module)
    monkeypatch.setattr(readout, "pipeline", module, raising=False)
    return fake


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the machine that the tests run on changes what they see."""
    import os

    for name in list(os.environ):
        if name.startswith("READOUT_"):
            monkeypatch.delenv(name)
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM", "COLUMNS", "GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)


@dataclass
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def readout_command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs a command line in this process."""
    from cli.main import run

    def command(*arguments: object) -> Outcome:
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return command
