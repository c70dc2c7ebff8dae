"""The independent observations of a design: which tables they need, and what an estimator is given from them."""

from __future__ import annotations

import polars as pl

from readout.logs import Logs
from readout.reduce import collect
from readout.samples.base import Sample
from readout.samples.blocks import Blocks
from readout.samples.by_action import ByAction
from readout.samples.clusters import Clusters
from readout.samples.discontinuity import Discontinuity
from readout.samples.instrumented import ByInstrument
from readout.samples.labels import require_cluster
from readout.samples.off_policy import OffPolicy
from readout.samples.rollouts import Rollouts
from readout.samples.rows import RowArms
from readout.samples.synthetic import Synthetic
from readout.samples.units import Units
from readout.spec.designs import RANDOMIZED
from readout.spec.model import Spec

# Up to this many rows, ids are counted exactly; above, by a sketch whose error is well below the tolerance.
EXACT = 1_000_000
TOLERANCE = 0.03

__all__ = [
    "Blocks",
    "ByAction",
    "Clusters",
    "Discontinuity",
    "OffPolicy",
    "Rollouts",
    "RowArms",
    "Sample",
    "Units",
    "sample_of",
]


def sample_of(spec: Spec, logs: Logs, seed: int = 0) -> Sample:
    """The sample of the spec's design: blocks, clusters, units, or rows where a unit is a row.

    ``seed`` is that of the methods that draw.
    """
    if spec.design.kind == "switchback":
        return Blocks(spec, logs, seed)
    if spec.design.kind == "cluster_rct":
        return Clusters(spec, logs, seed)
    if spec.design.kind not in RANDOMIZED:
        return _of_its_own(spec, logs, seed)
    require_cluster(spec, logs)
    if spec.design.kind == "user_rct" and logs.has("unit"):
        return Units(spec, logs, seed=seed)
    if spec.design.kind == "request_rct" and logs.has("request") and _repeated(logs):
        return Units(spec, logs, "request", seed)
    return RowArms(spec, logs, seed)


def _of_its_own(spec: Spec, logs: Logs, seed: int) -> Sample:
    """The sample of a design without randomization."""
    if spec.design.kind == "did":
        return Rollouts(spec, logs, seed)
    if spec.design.kind == "rdd":
        return Discontinuity(spec, logs, seed)
    if spec.design.kind == "observational":
        return ByAction(spec, logs, seed)
    if spec.design.kind == "synthetic_control":
        return Synthetic(spec, logs, seed)
    if spec.design.kind == "iv":
        return ByInstrument(spec, logs, seed)
    if spec.design.kind == "ope":
        return OffPolicy(spec, logs, seed)
    raise AssertionError(f"no sample for the design {spec.design.kind}")


def _repeated(logs: Logs) -> bool:
    """Whether request ids stand on several rows, so that a row is not an observation of its own."""
    ids = pl.col("@request").drop_nulls()
    few = logs.source.rows <= EXACT
    distinct = ids.hash(0).n_unique() if few else ids.approx_n_unique()
    found = collect([logs.frame.select(ids.len().alias("rows"), distinct.alias("distinct"))])[0].row(0, named=True)
    return bool(found["distinct"] < found["rows"] * (1.0 if few else 1.0 - TOLERANCE))
