"""What a readout consists of: plain frozen objects that the memo, readout.json and the terminal all read.

Field names are those of ``readout.json``; a number is finite or None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Action = Literal["ship", "ramp", "target", "holdout", "pause", "rollback", "instrument", "stronger_design"]
Status = Literal["pass", "warn", "fail", "skip"]
Family = Literal[
    "logging", "assignment", "execution", "balance", "spillover", "economics", "rollback", "capacity", "identification"
]
Verdict = Literal["better", "worse", "no_effect", "inconclusive"]
Guardrail = Literal["holds", "harmed", "inconclusive"]
Standing = Literal["broken", "in doubt", "not seen broken", "cannot be seen"]

ACTIONS: tuple[Action, ...] = (
    "ship", "ramp", "target", "holdout", "pause", "rollback", "instrument", "stronger_design",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Check:
    """One check of the evidence.

    Attributes:
        name: Its name in the contract, e.g. ``srm``.
        family: The group under which the memo shows it.
        status: ``skip`` says that it could not have seen a violation; the message says why.
        message: One sentence with the numbers that matter.
        statistic, p_value: Of the test, where there is one.
        value, threshold: The measured quantity and where it fails, in the same unit.
        action: The decision it asks for when it fails; None where it only informs.
        details: Small tables behind it, for ``diagnostics``.
        short: What failed in a few words, for the headline; empty where the name says enough.
    """

    name: str
    family: Family
    status: Status
    message: str
    statistic: float | None = None
    p_value: float | None = None
    value: float | None = None
    threshold: float | None = None
    action: Action | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    short: str = ""


@dataclass(frozen=True, slots=True)
class MetricResult:
    """The effect of one treatment arm on one metric, and how it is to be read.

    Attributes:
        metric, role, arm, control: Names; ``role`` as in the spec.
        better: ``higher`` or ``lower``.
        unit: What one observation of the estimator is: ``unit``, ``request`` or ``cluster-block`` ...
        estimate: Treatment minus control, in the metric's unit; with standard error, degrees of freedom and interval.
        relative: Effect over control's value as a fraction, with its own interval; None with ``relative_reason``.
        nulls: Kept rows on which the metric was null.
        minimum_effect, margin: As the spec's text (``5%``), or None.
        verdict: As the contract defines it, from the interval and ``minimum_effect``.
        guardrail: ``holds``, ``harmed`` or ``inconclusive``; None where the metric has no margin.
        note: A sentence that the reader must have beside the number, else empty.
        p_value_holm, p_value_bh: Adjusted for the metrics and arms of the same role that are read together (Holm: no
            false finding among them; Benjamini-Hochberg: a small share of false ones); None outside such a family.
    """

    metric: str
    role: str
    arm: str
    control: str
    better: str
    unit: str
    estimand: str
    method: str
    estimate: float | None
    std_error: float | None
    df: float | None
    statistic: float | None
    p_value: float | None
    ci_low: float | None
    ci_high: float | None
    relative: float | None
    relative_ci_low: float | None
    relative_ci_high: float | None
    control_value: float | None
    treatment_value: float | None
    n_control: int
    n_treatment: int
    minimum_detectable_effect: float | None
    verdict: Verdict | None
    guardrail: Guardrail | None = None
    minimum_effect: str | None = None
    margin: str | None = None
    relative_reason: str = ""
    nulls: int = 0
    note: str = ""
    p_value_holm: float | None = None
    p_value_bh: float | None = None


@dataclass(frozen=True, slots=True)
class SegmentResult:
    """The effect of one treatment arm on one metric at one level of a segment.

    Attributes:
        segment, level: Names; ``said`` is how a sentence names the level.
        result: As a metric's, on the rows of the level alone.
        difference: Its effect less that of the other levels, weighed by their rows; None with one level.
        difference_p_value: Of no difference, adjusted (Holm) over the levels of all segments.
        pooled, pooled_low, pooled_high: The effect drawn towards the other levels', with its interval.
        net, net_low, net_high: Net value in USD per 1,000 requests; its interval holds for all levels at once.
        stable: Whether what decides (net value, else the primary) has one sign in both halves of the window; None
            where the log has no times or a half cannot carry it.
        recommended: Whether it clears the bar, after multiplicity, and its guardrails hold.
        rows: Kept rows of the level.
        why: Why it is not recommended, in words; empty where it is.
        descriptive: Whether nobody can be picked by the segment.
        clears: Whether what decides clears the bar after multiplicity, guardrails apart.
        worse: The primaries that get worse here after multiplicity, with their effects in words.
    """

    segment: str
    level: str
    said: str
    result: MetricResult
    rows: int
    difference: float | None = None
    difference_p_value: float | None = None
    pooled: float | None = None
    pooled_low: float | None = None
    pooled_high: float | None = None
    net: float | None = None
    net_low: float | None = None
    net_high: float | None = None
    stable: bool | None = None
    recommended: bool = False
    why: str = ""
    descriptive: bool = False
    clears: bool = False
    worse: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Heterogeneity:
    """Whether a treatment's effect is the same at all levels of a segment.

    Attributes:
        metric: Its name, or ``net value``.
        levels: How many have an effect; those without are named in ``left_out``.
        statistic, df, df_residual, p_value: F test of equal effects; None where it could not be made, ``note`` says
            why.
        p_value_holm: Adjusted over the segments.
        tau, centre: Standard deviation between levels beyond chance, and what their effects are drawn to.
    """

    segment: str
    metric: str
    arm: str
    levels: int
    statistic: float | None = None
    df: float | None = None
    df_residual: float | None = None
    p_value: float | None = None
    p_value_holm: float | None = None
    tau: float | None = None
    centre: float | None = None
    left_out: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Segments:
    """All that is said by segment; ``allocation`` has a row an arm and level of the first segment, where there is a
    ``budget`` of GPU-hours."""

    results: tuple[SegmentResult, ...] = ()
    heterogeneity: tuple[Heterogeneity, ...] = ()
    allocation: tuple[Mapping[str, Any], ...] = ()
    budget: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Assumption:
    """Something that must be true for the effect to be one.

    Attributes:
        what: In words.
        checks: Names of the checks that could break it here.
        standing: ``broken`` (one of them failed), ``in doubt`` (one warns), ``not seen broken`` (one passed, none
            warns), ``cannot be seen`` (none could see it).
        unseen: What no check can see of it, in words; empty where nothing.
    """

    what: str
    checks: tuple[str, ...]
    standing: Standing
    unseen: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision and its reasons; ``rule`` names the row of configs/decision_rules.yaml that fired."""

    action: Action
    treatment: str
    by_arm: Mapping[str, Action]
    rule: str
    headline: str
    reasons: tuple[str, ...]
    would_change: tuple[str, ...]
    stop_if: tuple[str, ...]
    next_step: str


@dataclass(frozen=True, slots=True)
class Rows:
    """Row accounting: ``kept + sum(dropped) == read``."""

    read: int
    kept: int
    dropped: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class BlockPoint:
    """One cluster-block cell of a switchback, for the figure of blocks over time."""

    start: str  # ISO 8601, UTC
    cluster: str
    arm: str
    value: float


@dataclass(frozen=True, slots=True)
class Readout:
    """Everything one readout says. ``memo/`` renders it; nothing else is looked at."""

    name: str
    question: str
    counterfactual: str
    failure_mode: str
    mitigation: str
    monitor: str
    spec_sha256: str
    readout_version: str
    seed: int
    as_of: str
    alpha: float
    window: Mapping[str, str | None]
    rows: Rows
    columns: Mapping[str, Any]
    mapped_unasked: tuple[str, ...]
    design: Mapping[str, Any]
    assignment: str  # one or two sentences: how assignment happened
    decision: Decision
    checks: tuple[Check, ...]
    metrics: tuple[MetricResult, ...]
    assumptions: tuple[Assumption, ...] = ()
    diagnostics: Mapping[str, Any] = field(default_factory=dict)
    economics: Mapping[str, Any] | None = None
    capacity: Mapping[str, Any] | None = None
    surrogate: Mapping[str, Any] | None = None
    attribution: Mapping[str, Any] | None = None
    blocks: tuple[BlockPoint, ...] = ()
    segments: Segments = field(default_factory=Segments)
    notes: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()
