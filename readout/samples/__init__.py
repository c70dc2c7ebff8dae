"""The independent observations of a design: which tables they need, and what an estimator is given from them."""

from __future__ import annotations

from readout.logs import Logs
from readout.samples.base import Sample
from readout.samples.blocks import Blocks
from readout.samples.rows import RowArms
from readout.samples.units import Units
from readout.spec.model import Spec

__all__ = ["Blocks", "RowArms", "Sample", "Units", "sample_of"]


def sample_of(spec: Spec, logs: Logs) -> Sample:
    """The sample of the spec's design: blocks, units, or rows where a unit is a row."""
    if spec.design.kind == "switchback":
        return Blocks(spec, logs)
    if spec.design.kind == "user_rct" and logs.has("unit"):
        return Units(spec, logs)
    return RowArms(spec, logs)
