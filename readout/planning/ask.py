"""What a spec asks of a plan, with every default filled in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

from readout.errors import SpecError
from readout.mechanisms import Kind
from readout.spec.designs import ClusterRCT, Switchback
from readout.spec.fields import Effect
from readout.spec.model import Spec

DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Ask:
    """The planned experiment.

    Attributes:
        days: How long it runs.
        start: Its first moment.
        alpha, power: Of its tests.
        split: Share of every arm, control first; they add up to one.
        traffic: Share of units or requests enrolled.
        lengths: Block lengths that are compared, shortest first.
        offset: Of blocks from 00:00 UTC.
        mechanism: How a switchback's arms are to be drawn.
        own_washout: The washout that the spec states; zero: none.
        block_weights, cluster_weights: What the estimators weigh, ``rows`` or ``units``.
    """

    days: float
    start: datetime
    alpha: float
    power: float
    split: dict[str, float]
    traffic: float
    lengths: tuple[timedelta, ...]
    offset: timedelta
    mechanism: Kind
    own_washout: timedelta
    block_weights: str
    cluster_weights: str

    @property
    def arms(self) -> tuple[str, ...]:
        """Control first."""
        return tuple(self.split)

    @property
    def shares(self) -> tuple[float, float]:
        """Control's share and that of the treatment with the fewest."""
        control, *others = self.split.values()
        return control, min(others)

    @property
    def whole_days(self) -> int:
        """Days, rounded up."""
        return max(1, int(-(-self.days // 1)))

    @property
    def end(self) -> datetime:
        """First moment after it."""
        return self.start + self.days * DAY


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be seen in one metric.

    Attributes:
        size: The primary's true effect, or the guardrail's margin, in the metric's unit; None: none was said.
        one_sided: A guardrail holds where the harmful end of its interval stays inside the margin.
        said: The effect or margin as the spec writes it.
        per_unit: Whether it is a unit's sum, over the planned duration.
    """

    metric: str
    role: str
    better: str
    value: float
    size: float | None
    one_sided: bool
    said: str
    per_unit: bool = False


def ask_of(spec: Spec, earliest: datetime) -> Ask:
    """The plan's questions; it starts at ``earliest`` or after it, unless the spec says when."""
    design, plan = spec.design, spec.plan
    assert design.control is not None
    arms = (design.control, *design.treatment)
    split = dict(design.split) if design.split is not None else dict.fromkeys(arms, 1.0)
    total = sum(split[arm] for arm in arms)
    lengths, offset, washout = set(plan.block), timedelta(0), timedelta(0)
    mechanism: Kind = "balanced"
    block_weights, cluster_weights = "rows", "units"
    weights = spec.estimator.options.get("weights")
    if isinstance(design, Switchback):
        offset, washout = design.block.offset, design.washout
        lengths |= {design.block.length} if design.block.length is not None else set()
        if ("design", "assignment") in spec.source.marks or design.assignment != "bernoulli":
            mechanism = design.assignment
        if spec.estimator.method == "horvitz_thompson":
            mechanism = "bernoulli"
        block_weights = str(weights or block_weights)
    if isinstance(design, ClusterRCT):
        cluster_weights = str(weights or cluster_weights)
    shares = [split[arm] for arm in arms]
    if mechanism == "paired" and max(shares) - min(shares) > 1e-9 * max(shares):
        message = "paired blocks hold every arm once, and design.split gives unequal shares"
        raise SpecError(
            [spec.source.problem(("design", "assignment"), message, "assignment: balanced keeps the shares")]
        )
    if min(shares) <= 0.0:
        message = "an arm without a share sees nothing; a plan needs a share for each"
        raise SpecError([spec.source.problem(("design", "split"), message)])
    return Ask(
        days=plan.duration / DAY,
        start=plan.start if isinstance(plan.start, datetime) else next_monday(earliest),
        alpha=spec.decision.alpha,
        power=plan.power,
        split={arm: split[arm] / total for arm in arms},
        traffic=plan.traffic,
        lengths=tuple(sorted(lengths)),
        offset=offset,
        mechanism=mechanism,
        own_washout=washout,
        block_weights=block_weights,
        cluster_weights=cluster_weights,
    )


def next_monday(moment: datetime) -> datetime:
    """The first Monday, 00:00 UTC, at ``moment`` or after it."""
    day = datetime.combine(moment.astimezone(UTC).date(), time(0), UTC)
    day += DAY if day < moment else timedelta(0)
    return day + (-day.weekday()) % 7 * DAY


def target_of(spec: Spec, name: str, value: float) -> Target:
    """What is to be seen in a metric whose value is ``value``."""
    metric = spec.metrics[name]
    primary = metric.role == "primary"
    effect = (spec.plan.effect or metric.minimum_effect) if primary else metric.margin
    return Target(
        metric=name,
        role=metric.role,
        better=metric.better,
        value=value,
        size=_size(effect, value),
        one_sided=not primary,
        said=effect.text if effect else "",
        per_unit=metric.per == "unit",
    )


def _size(effect: Effect | None, value: float) -> float | None:
    if effect is None:
        return None
    size = abs(effect.value) * abs(value) if effect.relative else abs(effect.value)
    return size if size > 0.0 else None
