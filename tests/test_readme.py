"""Every command and every script in README.md works as it stands there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
SET_UP = ("make demo", "make test")  # .ci/run calls these


def test_commands_and_scripts_run_in_the_order_of_the_page(tmp_path):
    steps = [step for language, block in BLOCKS for step in _steps(language, block)]
    assert sum("readout run" in step for step in steps) >= 2
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for step in steps:
        done = subprocess.run(
            step, shell=True, cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{step}\n{done.stdout}\n{done.stderr}"


def test_the_output_it_shows_is_what_the_demo_prints(tmp_path):
    """Where this fails on purpose, paste what `readout demo` prints."""
    printed = subprocess.run(
        [sys.executable, "-c", "from cli.main import main; main()", "demo", "--out", str(tmp_path), "--quiet"],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=True,
    ).stdout  # fmt: skip
    shown = next(block for language, block in BLOCKS if language == "text")
    assert [line.rstrip() for line in printed.splitlines()] == shown.splitlines()


def _steps(language: str, block: str) -> list[str]:
    if language == "python":
        return [shlex.join([sys.executable, "-c", block])]
    return [line for line in block.splitlines() if language == "sh" and line and not line.startswith(SET_UP)]


@pytest.mark.parametrize("block", [block for language, block in BLOCKS if language == "yaml"])
def test_specs_are_valid(block, tmp_path):
    from readout.spec import load

    spec = tmp_path / "spec.yaml"
    spec.write_text(block, encoding="utf-8")
    assert load(spec).metrics


def test_the_commands_it_lists_are_those_that_exist():
    from cli.authoring import COMMANDS as AUTHORING
    from cli.experiment import COMMANDS as EXPERIMENT

    listed = re.findall(r"^\| `readout (\w+)", README, flags=re.MULTILINE)
    assert sorted(listed) == sorted([*AUTHORING, *EXPERIMENT])


def test_links_within_the_repository_lead_somewhere():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
