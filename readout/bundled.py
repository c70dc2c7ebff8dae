"""Files that travel with readout: sample logs, decision rules, energy models."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).resolve().parent


def bundled(folder: str) -> Path:
    """The folder ``configs`` or ``sample_logs``: inside the package when installed, beside it in a checkout."""
    inside = _HERE / folder
    return inside if inside.is_dir() else _HERE.parent / folder
