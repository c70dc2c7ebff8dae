"""What `readout plan` is asked: how long, how sure, and what is known where there are no past logs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated

from pydantic import Field

from readout.spec.fields import (
    BlockLength,
    Count,
    Duration,
    EffectSize,
    Fraction,
    NotNegative,
    Number,
    Positive,
    Section,
    Shorthand,
    Time,
    Whole,
)

Correlation = Annotated[NotNegative, Field(lt=1)]
BlockLengths = Annotated[
    tuple[BlockLength, ...],
    Field(min_length=1),
    Shorthand(lambda v: v if isinstance(v, list) else [v], {"type": "string", "examples": ["2h"]}),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedMoments(Section):
    """What is known of a metric where there are no past logs."""

    mean: Number
    """Mean over rows."""
    std_dev: Positive
    """Standard deviation of single rows."""
    requests_per_day: Positive
    """Rows a day, all clusters together."""
    units: Count | None = None
    """Distinct units over the planned duration; user_rct needs it."""
    icc_unit: Correlation = 0.0
    """Correlation of two rows of one unit."""
    clusters: Count | None = None
    """Clusters; cluster_rct needs it, switchback takes one where it is left out."""
    icc_cluster: Correlation | None = None
    """Correlation of two rows of one cluster over the planned duration; cluster_rct needs it."""
    icc_hour: Correlation | None = None
    """Correlation of two rows of one cluster and hour, around cluster and calendar means; switchback needs it."""
    memory: Duration = timedelta(hours=1)
    """Time in which the correlation of two hours of a cluster falls to 1/e."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan(Section):
    """The experiment to be planned."""

    duration: Duration = timedelta(days=14)
    """How long it is to run."""
    power: Annotated[Fraction, Field(ge=0.5)] = 0.8
    """Probability with which the minimum effect is to be found."""
    block: BlockLengths = (timedelta(minutes=30), timedelta(hours=1), timedelta(hours=2), timedelta(hours=4))
    """Block lengths of a switchback that are compared; design.block joins them."""
    traffic: Annotated[Positive, Field(le=1)] = 1.0
    """Share of units or requests that are enrolled; clusters and blocks are enrolled whole."""
    start: Time | None = None
    """First moment of the experiment; left out, the first Monday after the past log and the as-of time."""
    effect: EffectSize | None = None
    """True effect that power is stated for; left out, each primary's minimum_effect."""
    simulations: Whole = 400
    """Simulated experiments that the stated power is checked by; 0: none."""
    moments: Mapping[str, StatedMoments] = field(default_factory=dict)
    """Metric: what is known of it. With moments the logs are not read."""
