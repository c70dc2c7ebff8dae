"""The bundled example."""

from __future__ import annotations

from pathlib import Path

from readout.bundled import bundled

EXAMPLE = "router_switchback.yaml"


def spec_path() -> Path:
    """The spec of the bundled switchback example, in an installed wheel as in a checkout.

    Raises:
        FileNotFoundError: The installation lacks its sample logs.
    """
    path = bundled("sample_logs") / EXAMPLE
    if not path.is_file():
        raise FileNotFoundError(f"the bundled example is missing from this installation: {path}")
    return path
