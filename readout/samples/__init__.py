"""The independent observations of a design: which tables they need, and what an estimator is given from them."""

from __future__ import annotations

from readout.logs import Logs
from readout.samples.base import Sample
from readout.samples.blocks import Blocks
from readout.samples.clusters import Clusters
from readout.samples.rows import RowArms
from readout.samples.units import Units
from readout.spec.model import Spec

__all__ = ["Blocks", "Clusters", "RowArms", "Sample", "Units", "sample_of"]


def sample_of(spec: Spec, logs: Logs, seed: int = 0) -> Sample:
    """The sample of the spec's design: blocks, clusters, units, or rows where a unit is a row.

    ``seed`` is that of the methods that draw.
    """
    if spec.design.kind == "switchback":
        return Blocks(spec, logs)
    if spec.design.kind == "cluster_rct":
        return Clusters(spec, logs, seed)
    if spec.design.kind == "user_rct" and logs.has("unit"):
        return Units(spec, logs)
    return RowArms(spec, logs)
