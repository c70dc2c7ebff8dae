"""The spec: a YAML file that says what was run, on which logs, and what would decide."""

from __future__ import annotations

from readout.spec.load import load
from readout.spec.model import Spec

__all__ = ["Spec", "load"]
