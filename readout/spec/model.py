"""What a spec holds: plain frozen objects whose attributes bear the names of the YAML keys.

Pydantic checks the values on the way in (`readout.spec.load`) and leaves no trace. The text below each field is what
the JSON Schema and the hints of errors say about its key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from readout.spec.designs import Design
from readout.spec.fields import (
    Column,
    Columns,
    Count,
    Duration,
    Flag,
    Fraction,
    Label,
    Name,
    NotNegative,
    Number,
    Positive,
    Prose,
    Section,
    Shorthand,
    SomeColumns,
    Sql,
    Text,
    Time,
    Timezone,
)
from readout.spec.methods import Estimator
from readout.spec.metrics import Metric, SegmentOrColumn
from readout.spec.planning import Plan
from readout.spec.problems import Source

LabelList = Annotated[tuple[Label, ...], Shorthand(lambda v: v if isinstance(v, list) else [v], {"type": "string"})]
Rung = Literal["system", "session", "user", "business"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision(Section):
    """The decision that the memo serves."""

    frame: Literal["ship", "explain", "target", "rule"] | None = None
    """ship (ATE), explain (ATT), target (CATE) or rule (policy value); left out, the design's own."""
    alpha: Fraction = 0.05
    """Intervals are at 1 - alpha."""
    looks: Literal["fixed", "sequential"] = "fixed"
    """One look at the end, or always-valid intervals for many."""
    tuning: Positive = 5000.0
    """For sequential looks: the number of observations at which the interval is narrowest; fixed before the first."""
    exposure: Duration | None = None
    """How long a unit is observed before it counts, with its rows of that time only; sequential looks need it."""
    failure_mode: Prose = ""
    """What could go wrong."""
    mitigation: Prose = ""
    """What is done against it."""
    monitor: Prose = ""
    """What is watched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogColumns(Section):
    """Which column of the log plays which role."""

    time: Column | None = None
    """Time of the decision: a timestamp, a date or, for panel designs, an integer period."""
    request: Column | None = None
    """The request's id."""
    unit: Column | None = None
    """What keeps seeing the same experience: a user, a workspace."""
    cluster: Column | None = None
    """The shared capacity pool: a region, a fleet."""
    workflow: Column | None = None
    """What joins the requests of one piece of work: a session."""
    arm: Column | None = None
    """The assigned policy."""
    assigned_at: Column | None = None
    """When the unit was assigned."""
    eligible: Column | None = None
    """Whether the policy could have acted on the request."""
    intended: Column | None = None
    """The action that the policy chose."""
    executed: Column | None = None
    """The action that was carried out."""
    fallback: Column | None = None
    """Why another action was carried out than intended."""
    timeout: Column | None = None
    """Whether the request timed out."""
    retries: Column | None = None
    """How often the request was tried again."""
    propensity: Column | None = None
    """Probability of the logged action under the logging policy."""
    state: Columns = ()
    """Live state before the decision."""
    features: Columns = ()
    """Workload and user facts before the decision."""
    after: Columns = ()
    """Columns that stand only after the decision: never adjusted for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Logs(Section):
    """The decision logs."""

    path: SomeColumns
    """A Parquet file, a glob, a directory, hive partitions, a list of them, or an s3://, gs:// or az:// address."""
    start: Time | None = None
    """First moment of the window."""
    end: Time | None = None
    """First moment after the window."""
    last: Duration | None = None
    """A window that ends now (or at --as-of), instead of start and end."""
    timezone: Timezone = "UTC"
    """Zone of timestamps that have none."""
    where: Sql | None = None
    """SQL condition; other rows are left out."""
    columns: LogColumns = field(default_factory=LogColumns)
    """Role: column. A column that bears a single role's name is mapped to it unasked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event(Section):
    """Something that happened in the window and could be taken for the effect."""

    at: Time
    """When it began."""
    until: Time | None = None
    """When it ended."""
    name: Text
    """What it was."""
    clusters: Annotated[
        tuple[Label, ...], Shorthand(lambda v: v if isinstance(v, list) else [v], {"type": "string"})
    ] = ()
    """Where it was; left out, everywhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Value(Section):
    """What one unit of a metric is worth."""

    metric: Text
    """The metric."""
    usd: Number
    """Dollars per unit of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost(Section):
    """What one unit of a resource costs."""

    column: Column | None = None
    """Column of the resource."""
    metric: Text | None = None
    """A metric, instead of a column."""
    usd: Number
    """Dollars per unit of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar(Section):
    """What the treatment must be worth."""

    net_usd_per_1k_requests: Number = 0.0
    """Net dollars per thousand requests below which nothing ships."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget(Section):
    """Compute that there is for the treatment, to be shared out over the levels of the first segment."""

    gpu_hours: Positive
    """Extra GPU-hours that traffic like the window's may take."""
    explore: Fraction = 0.05
    """Share of every level that stays treated, and untreated, at random, so that effects can be read again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Economics(Section):
    """Value less cost."""

    value: Value | None = None
    """What one unit of a metric is worth."""
    cost: Cost | None = None
    """What one unit of a resource costs."""
    bar: Bar | None = None
    """Do not ship below this."""
    budget: Budget | None = None
    """Scarce compute, given first where it is worth most: {gpu_hours: 400, explore: 0.05}. Needs segments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity(Section):
    """Tail state, measured directly."""

    load: Column
    """Column of the load."""
    limit: Positive
    """The load above which a window counts as over the limit."""
    window: Duration = timedelta(minutes=5)
    """Length of a window."""
    margin: NotNegative = 0.0
    """Accepted rise in the share of windows over the limit."""
    outcomes: Columns = ()
    """Metrics that are also read inside the windows over the limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger(Section):
    """A condition that rolls the treatment back, whatever the averages say."""

    metric: Text | None = None
    """A metric whose value in treated rows is watched."""
    expr: Sql | None = None
    """SQL expression whose mean over treated rows is watched, instead of a metric."""
    above: Number | None = None
    """Fires above this value."""
    no_movement: Flag = False
    """Fires on the verdict no_effect, instead of a value."""
    where: Sql | None = None
    """SQL condition; other rows do not count."""
    min_rows: Count = 100
    """Rows that it needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surrogate(Section):
    """What stands for the long-run outcome while it is not in."""

    ladder: Mapping[Rung, Text] = field(default_factory=dict)
    """Rung (system, session, user, business): metric."""
    evidence: Text | None = None
    """Parquet file of past experiments: experiment, short_effect, short_se, long_effect, long_se[, short_metric]
    [, error_correlation: of the two estimates' errors]."""
    scale: Literal["absolute", "relative"] = "absolute"
    """Whether the file's effects are in the metrics' units, or fractions of control."""
    holdout: Fraction | None = None
    """Share of the randomized units that stays on control after the launch."""
    weeks: Positive | None = None
    """How many weeks after the launch the holdout can run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributionColumns(Section):
    """Columns of the energy attribution."""

    batch: Column | None = None
    """The batch that served the request."""
    prompt_tokens: Column | None = None
    """Tokens read."""
    output_tokens: Column | None = None
    """Tokens written."""
    start: Column | None = None
    """First decode step of the request in its batch."""
    end: Column | None = None
    """First decode step after it."""
    measured_wh: Column | None = None
    """Measured energy of the whole batch, in Wh at the facility (PUE in), on each of its rows."""
    prefix: Column | None = None
    """Which shared prefix the prompt begins with; it is computed once a batch."""
    prefix_tokens: Column | None = None
    """How many tokens of the prompt that prefix is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Carbon(Section):
    """Carbon intensity of the grid."""

    g_per_kwh: NotNegative | None = None
    """Grams of CO2e per kWh."""
    column: Column | None = None
    """Column with it on each row (of the hour of the request, say), instead of a constant."""
    embodied_g_per_request: NotNegative = 0.0
    """Embodied emissions of the hardware by request (M of the SCI), in grams; beside carbon_g, never in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ColdStart(Section):
    """Energy of loading a model, spread over the first requests after it."""

    column: Column
    """Column with the energy of the load, in Wh, on the first request after it; null or 0 on the others."""
    requests: Count = 100
    """Over how many requests it is spread; where fewer come before the next load, these carry it all."""
    by: Column | None = None
    """Column of what was loaded, such as the replica; left out, the cluster, or the whole log where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution(Section):
    """Shapley shares of the energy of each batch."""

    columns: AttributionColumns
    """Role: column."""
    energy_model: Text = "h100_dense_8b"
    """A bundled name or a path."""
    method: Literal["auto", "exact", "sampled"] = "auto"
    """auto is exact wherever the model has a closed form."""
    samples: Count = 200
    """Permutations of a sampled share."""
    tolerance: Fraction = 0.02
    """Relative error at which sampling stops."""
    carbon: Carbon | None = None
    """Grid intensity: {g_per_kwh: 380} or {column: …}."""
    cold_start: ColdStart | None = None
    """How the energy of model loads is spread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckSettings(Section):
    """Settings of one check."""

    threshold: NotNegative | None = None
    """Where the check fails; left out, its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report(Section):
    """What is written beside the memo."""

    figures: Flag = True
    """SVG figures."""
    html: Flag = False
    """The memo as HTML too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sections(Section):
    """The keys of a spec."""

    version: Literal[1] = 1
    """Version of the spec's format."""
    name: Name
    """Name of the experiment; the memo's folder bears it. Left out, the file's name."""
    question: Prose = ""
    """What is to be decided."""
    counterfactual: Prose = ""
    """What would have happened otherwise."""
    decision: Decision = field(default_factory=Decision)
    """The decision that the memo serves."""
    logs: Logs
    """The decision logs: path, window, and which column plays which role."""
    design: Design
    """What was randomized, or what identifies the effect."""
    estimator: Estimator
    """auto, a method's name, or {method: NAME, option: …}."""
    metrics: Mapping[str, Metric]
    """Name: definition of a metric."""
    segments: tuple[SegmentOrColumn, ...] = ()
    """Segments: a column, or {name, where}."""
    events: tuple[Event, ...] = ()
    """Incidents and launches in the window."""
    economics: Economics | None = None
    """Value less cost, and the bar."""
    capacity: Capacity | None = None
    """Tail state, measured directly."""
    rollback: tuple[Trigger, ...] = ()
    """Conditions that roll the treatment back."""
    surrogate: Surrogate | None = None
    """What stands for the long-run outcome while it is not in."""
    attribution: Attribution | None = None
    """Energy shares per request."""
    checks: Mapping[str, CheckSettings] = field(default_factory=dict)
    """Name of a check: its threshold."""
    report: Report = field(default_factory=Report)
    """What is written beside the memo."""
    plan: Plan = field(default_factory=Plan)
    """What `readout plan` is asked before the experiment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec(Sections):
    """A valid spec.

    Attributes:
        path: The spec file.
        base: The folder that relative paths start from.
        sha256: Of the file's bytes and the overrides.
        source: Where every key stands; `Source.problem` locates an error that is found later.
    """

    path: Path
    base: Path
    sha256: str
    source: Source = field(repr=False, compare=False)


CHECKS: tuple[str, ...] = (
    "required_fields", "completed_only", "bad_controls", "srm", "eligibility", "exposure_time",
    "arm_contamination", "treatment_start", "execution_divergence", "fallback", "timeouts_and_retries",
    "mixed_experience", "covariate_balance", "overlap", "weight_concentration", "pre_trend", "pre_period_fit",
    "placebo", "first_stage", "density", "covariate_continuity", "bandwidth_sensitivity", "carryover",
    "block_balance", "block_length", "unit_of_randomization", "untreated_outcomes", "mixed_batches",
    "support", "propensity_calibration", "left_out", "tail_dominance", "capacity_limit", "rollback_trigger",
    "economic_bar", "surrogate_evidence",
)  # fmt: skip
"""Every check that a spec may set a threshold for."""
