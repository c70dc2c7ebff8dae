"""Metrics and the segments in which they are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from readout.spec.fields import Column, Count, EffectSize, Fraction, Section, Shorthand, Sql, Text

Role = Literal["primary", "secondary", "guardrail", "mechanism", "surrogate", "long_run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Robust(Section):
    """A robust mean in place of the plain one."""

    method: Literal["winsorize", "trim", "median_of_means", "catoni"]
    """The robust mean."""
    quantile: Fraction | None = None
    """winsorize: values above this quantile of all arms' units are capped at it (0.999). trim: what lies beyond it at
    either end of an arm is left out (0.95)."""
    groups: Count | None = None
    """median_of_means: into how many groups the smaller arm's units are put (8 log(1/alpha))."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Covariate(Section):
    """What was known of a unit before the experiment."""

    numerator: Column
    """Column of the covariate, or of a ratio's numerator."""
    denominator: Column | None = None
    """Column of the denominator, where the covariate is a ratio."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it is read from."""
        return (self.numerator,) if self.denominator is None else (self.numerator, self.denominator)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricKeys(Section):
    """One metric: a column, an SQL expression, or a ratio of two columns."""

    column: Column | None = None
    """Column that is averaged over rows (a boolean: the share of true)."""
    expr: Sql | None = None
    """SQL expression that is averaged over rows."""
    numerator: Column | None = None
    """Column summed above the line of a ratio."""
    denominator: Column | None = None
    """Column summed below the line of a ratio."""
    quantile: Fraction | None = None
    """Compare this quantile of the rows instead of their mean."""
    per: Literal["unit"] | None = None
    """unit: sum within a unit, average over units."""
    on: Literal["untreated"] | None = None
    """untreated: only rows whose executed action is not the treatment's."""
    where: Sql | None = None
    """SQL condition; other rows do not count for this metric."""
    role: Role = "secondary"
    """What the decision does with it."""
    better: Literal["higher", "lower"]
    """Which direction is good."""
    minimum_effect: EffectSize | None = None
    """Smallest effect worth acting on: absolute such as 25, or relative to control such as 5%."""
    margin: EffectSize | None = None
    """Largest harm accepted: absolute or relative to control."""
    robust: Annotated[Robust | None, Shorthand(lambda v: None if v == "none" else v, {"const": "none"})] = None
    """none, or a robust mean such as {method: winsorize, quantile: 0.999}."""
    covariate: Annotated[
        Covariate | None, Shorthand(lambda v: {"numerator": v} if isinstance(v, str) else v, {"type": "string"})
    ] = None
    """Covariate of cuped: a column, or {numerator, denominator} for a ratio. A unit's value is the mean over its rows
    that have one, those of design.pre_period where there is one. Left out with a pre-period, the metric itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric(MetricKeys):
    """A metric with its name."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment(Section):
    """A segment named before the results are seen: the levels of a column, or the rows of a condition."""

    name: Text
    """What the memo calls it."""
    column: Column | None = None
    """Column whose levels are the segments."""
    where: Sql | None = None
    """SQL condition of the segment's rows."""
    margin: Mapping[Text, EffectSize] = field(default_factory=dict)
    """Guardrail: a stricter margin in this segment, such as {error_rate: 0.001}."""


SegmentOrColumn = Annotated[
    Segment, Shorthand(lambda v: {"name": v, "column": v} if isinstance(v, str) else v, {"type": "string"})
]
