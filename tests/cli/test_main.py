from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("matplotlib", "numpy", "polars", "pyarrow", "pydantic", "rich", "scipy", "sklearn", "statsmodels", "yaml")
LOADED = (
    "import atexit, sys\n"
    f"atexit.register(lambda: sys.stderr.write(' '.join(m for m in {HEAVY!r} if m in sys.modules)))\n"
    "from cli.main import main\n"
    "main()\n"
)


def python(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("line", [["--help"], ["--version"], ["run", "--help"], ["simulate", "-h"], []])
def test_help_and_version_load_nothing_heavy(line):
    shown = python(LOADED, *line)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith("readout 0.1.0" if line == ["--version"] else "Usage: readout")


@pytest.mark.parametrize(
    ("words", "suggested"),
    [("readout r", {"run", "receipt"}), ("readout run spec.yaml --format ", {"text", "json", "markdown", "github"})],
)
def test_completion_loads_nothing_heavy(words, suggested):
    shown = python(
        LOADED, _READOUT_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(len(words.split(" ")) - 1)
    )
    assert shown.stderr == ""
    assert set(shown.stdout.split()) == suggested


def test_help_lists_every_command_of_the_contract():
    shown = python("from cli.main import main; main()", "--help").stdout
    listed = [line.split()[0] for line in shown.partition("Commands:")[2].splitlines() if line.strip()]
    assert listed == ["run", "check", "plan", "attribute", "receipt", "demo", "simulate", "init", "schema"]


SLOW_COMMAND = (
    "import sys, time, types\n"
    "import readout\n"
    "def run(*a, **k):\n"
    "    print('started', file=sys.stderr, flush=True)\n"
    "    time.sleep(30)\n"
    "readout.pipeline = types.SimpleNamespace(run=run)\n"
    "from cli.main import main\n"
    "main()\n"
)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_with_130_and_one_line(sent):
    with subprocess.Popen(
        [sys.executable, "-c", SLOW_COMMAND, "run", "x", "-q"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        assert process.stderr.readline() == "started\n"
        process.send_signal(sent)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert said == "error: readout: interrupted; nothing was left half-written\n"


def test_a_reader_that_goes_away_is_no_error():
    code = "from cli.output import emit\nfor i in range(20000): emit('a line of text')\nprint('done', file=sys.stderr)"
    with subprocess.Popen(
        [sys.executable, "-c", "import sys\n" + code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        said = process.stderr.read()
    assert (process.returncode, said) == (0, b"done\n")


def test_an_encoding_that_lacks_a_character_shows_it_escaped():
    code = "from cli.main import _prepare_streams; from cli.output import emit; _prepare_streams(); emit('−5 %')"
    shown = python(code, PYTHONIOENCODING="ascii")
    assert (shown.stdout, shown.stderr) == ("\\u22125 %\n", "")
