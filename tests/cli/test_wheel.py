"""The built wheel, installed alone and used from a directory that tries to take readout's place."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def call(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    built = call(sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT, cwd=folder)
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("policy_readout-*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the console script, in an environment with nothing but the wheel and what it depends on."""
    environment = tmp_path_factory.mktemp("environment")
    python = environment / "bin" / "python"
    assert call(sys.executable, "-m", "venv", environment, cwd=environment).returncode == 0
    done = call(
        python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", wheel, cwd=environment
    )
    assert done.returncode == 0, done.stderr
    return python.parent


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A directory whose modules are named as readout's own are, and say so if they are imported."""
    for package in ("cli", "readout", "estimators", "attribution"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise SystemExit('hostile module imported')\n", "utf-8")
    return tmp_path


@pytest.mark.slow
def test_the_wheel_carries_configs_and_sample_logs_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"cli", "readout", "estimators", "attribution", "policy_readout-0.1.0.dist-info"}
    assert "readout/configs/decision_rules.yaml" in names
    assert "readout/sample_logs/router_switchback.parquet" in names
    assert sum(entry.file_size for entry in zipfile.ZipFile(wheel).infolist()) < 8_000_000


@pytest.mark.slow
def test_the_installed_script_ignores_modules_of_the_current_directory(installed, hostile):
    version = call(installed / "readout", "--version", cwd=hostile)
    assert (version.returncode, version.stdout, version.stderr) == (0, "readout 0.1.0\n", "")
    starter = call(installed / "readout", "init", "--design", "switchback", "--out", "exp.yaml", cwd=hostile)
    assert starter.returncode == 0, starter.stderr
    checked = call(installed / "readout", "check", "exp.yaml", cwd=hostile)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.slow
def test_the_installed_demo_writes_a_memo(installed, hostile):
    demo = call(installed / "readout", "demo", "--out", "memos", cwd=hostile)
    assert demo.returncode == 0, demo.stderr
    (memo,) = hostile.glob("memos/*/*/memo.md")
    assert f"memo: {memo.relative_to(hostile)}" in demo.stderr
