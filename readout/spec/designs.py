"""The designs: what was randomized, or what identifies the effect where nothing was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import Field

from readout.spec.fields import (
    DAY,
    BlockLength,
    Column,
    Columns,
    Duration,
    Flag,
    Label,
    Labels,
    Number,
    Offset,
    PolicyProbability,
    Positive,
    PrePeriod,
    Section,
    Shorthand,
    SomeColumns,
    Split,
    Sql,
    Text,
    Time,
    Washout,
    Whole,
    parse_duration,
    refuse,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block(Section):
    """The blocks of a switchback: a length from 00:00 UTC plus an offset, or a column that names each row's block."""

    length: BlockLength | None = None
    """Length of a block; it divides 24 h or is whole days."""
    offset: Offset = timedelta(0)
    """Shift of the first block from 00:00 UTC."""
    column: Column | None = None
    """Column that names each row's block, instead of a length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bandwidth(Section):
    """Bandwidths of a regression discontinuity, in units of the running variable."""

    h: Positive
    """Bandwidth of the estimate."""
    b: Positive | None = None
    """Bandwidth of the bias correction; left out, it is h."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule(Section):
    """One rule of a target policy."""

    when: Sql
    """SQL condition over log columns; the first rule that holds decides."""
    action: Label
    """The action taken where it holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetPolicy(Section):
    """The policy to be valued: a column with the action it would take, or rules with an action for the rest."""

    column: Column | None = None
    """Column with the action that the policy would take."""
    rules: tuple[Rule, ...] = ()
    """Rules, the first that holds decides."""
    otherwise: Annotated[Label | None, Field(alias="else")] = None
    """The action where no rule holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjust(Section):
    """Adjusters by model."""

    propensity: Columns = ()
    """Columns of the model for treatment."""
    outcome: Columns = ()
    """Columns of the model for the outcome."""


def _expand_block(value: Any) -> Any:
    if isinstance(value, dict):
        return value
    parse_duration(value)
    return {"length": value}


def _expand_bandwidth(value: Any) -> Any:
    if value == "auto":
        return None
    if isinstance(value, dict):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise refuse("auto, a number, or {h: …, b: …}", value)
    return {"h": value}


def _expand_adjust(value: Any) -> Any:
    columns = [value] if isinstance(value, str) else value
    return {"propensity": columns, "outcome": columns} if isinstance(columns, list) else value


_LIST_OF_TEXT = {"type": ["string", "array"], "items": {"type": "string", "minLength": 1}}
BlockOrLength = Annotated[Block, Shorthand(_expand_block, {"type": "string", "examples": ["2h", "1d"]})]
BandwidthOrAuto = Annotated[Bandwidth | None, Shorthand(_expand_bandwidth, {"type": ["string", "number"]})]
AdjustOrColumns = Annotated[Adjust, Shorthand(_expand_adjust, _LIST_OF_TEXT)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Common(Section):
    split: Split | None = None
    """Planned share of each arm; left out, equal shares. Shares are normalised."""
    user_visible: Flag = False
    """Does a user notice which arm served a request?"""
    policy_inputs: Columns = ()
    """What the policy looks at; one that is not a log column means: instrument first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Armed(_Common):
    control: Label
    """The arm that effects are measured against."""
    treatment: Labels
    """The treatment arm, or a list of arms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _MaybeArmed(_Common):
    control: Label | None = None
    """The arm that effects are measured against; may be left out in this design."""
    treatment: Labels = ()
    """The treatment arm, or a list of arms; may be left out in this design."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserRCT(_Armed):
    """Units (users, workspaces) are randomized."""

    kind: Literal["user_rct"] = "user_rct"
    """The design."""
    shared_state: Flag
    """Does the policy change a queue, cache or fleet that other traffic uses? true or false."""
    strata: Columns = ()
    """Columns within whose levels units were randomized, or are compared: the effect is averaged over strata."""
    pre_period: PrePeriod | None = None
    """Rows before the window that serve balance and covariates: a duration before logs.start, or a pair of times."""
    adjust: Columns = ()
    """Covariates of regression_adjusted; left out, the features."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRCT(_Armed):
    """Single requests are randomized."""

    kind: Literal["request_rct"] = "request_rct"
    """The design."""
    shared_state: Flag
    """Does the policy change a queue, cache or fleet that other traffic uses? true or false."""
    strata: Columns = ()
    """Columns within whose levels requests were randomized, or are compared: the effect is averaged over strata."""
    adjust: Columns = ()
    """Covariates of regression_adjusted; left out, the features."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterRCT(_Armed):
    """Clusters (regions, fleets) are randomized."""

    kind: Literal["cluster_rct"] = "cluster_rct"
    """The design."""
    shared_state: Flag = True
    """Does the policy change a queue, cache or fleet that other traffic of the cluster uses?"""
    strata: Columns = ()
    """Columns within whose levels clusters were randomized."""
    pairs: Column | None = None
    """Column that names each cluster's pair."""
    pre_period: PrePeriod | None = None
    """Rows before the window that serve balance and covariates: a duration before logs.start, or a pair of times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Switchback(_Armed):
    """Time blocks switch between arms, cluster by cluster or all clusters together."""

    kind: Literal["switchback"] = "switchback"
    """The design."""
    shared_state: Flag = True
    """Does the policy change a queue, cache or fleet that other traffic uses?"""
    block: BlockOrLength
    """The blocks: a length such as 2h, {length: 2h, offset: 30m}, or {column: block_id}."""
    washout: Washout = timedelta(0)
    """Start of every block that is left out of the estimate."""
    carryover_blocks: Whole = 1
    """For how many blocks an arm may still act after it ended."""
    assignment: Literal["bernoulli", "balanced", "paired"] = "bernoulli"
    """How the arms of blocks were drawn."""
    schedule: Text | None = None
    """File with the planned assignment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observational(_Armed):
    """Nothing was randomized; treated is what was executed."""

    kind: Literal["observational"] = "observational"
    """The design."""
    shared_state: Flag = True
    """Does the policy change a queue, cache or fleet that other traffic uses?"""
    adjust: AdjustOrColumns | None = None
    """Columns adjusted for; left out, state and features. May be {propensity: […], outcome: […]}."""
    estimand: Literal["ate", "att", "overlap"] | None = None
    """Over whom the effect is averaged; left out, the frame decides."""
    negative_control: Text | None = None
    """A metric that the treatment cannot move."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiD(_MaybeArmed):
    """Units whose treatment starts at different periods, or never."""

    kind: Literal["did"] = "did"
    """The design."""
    shared_state: Flag = False
    """Does the policy change a queue, cache or fleet that other traffic uses?"""
    rollout: Column
    """Column with a unit's first treated period; null is never."""
    period: Duration = DAY
    """Length of a period."""
    controls: Literal["never", "not_yet"] = "never"
    """Which units stand for the untreated."""
    adjust: Columns = ()
    """Covariates given which trends are parallel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticControl(_MaybeArmed):
    """A few treated units against a weighted mean of the others."""

    kind: Literal["synthetic_control"] = "synthetic_control"
    """The design."""
    shared_state: Flag = False
    """Does the policy change a queue, cache or fleet that other traffic uses?"""
    treated: Labels
    """The treated units."""
    rollout_at: Time
    """When their treatment began, on the scale of the time column."""
    period: Duration = DAY
    """Length of a period."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IV(_MaybeArmed):
    """An instrument moves the treatment and nothing else."""

    kind: Literal["iv"] = "iv"
    """The design."""
    shared_state: Flag = False
    """Does the policy change a queue, cache or fleet that other traffic uses?"""
    instrument: SomeColumns
    """Column or columns of the instrument."""
    adjust: Columns = ()
    """Columns given which the instrument is as good as random."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RDD(_MaybeArmed):
    """Treatment starts where a running variable passes a cutoff."""

    kind: Literal["rdd"] = "rdd"
    """The design."""
    shared_state: Flag = False
    """Does the policy change a queue, cache or fleet that other traffic uses?"""
    running: Column
    """Column of the running variable; at the cutoff and above is treated."""
    cutoff: Number
    """The cutoff."""
    bandwidth: BandwidthOrAuto = None
    """auto, one number, or {h, b}."""
    fuzzy: Flag = False
    """Does passing the cutoff only make treatment likelier?"""
    covariates: Columns = ()
    """Columns that must be continuous at the cutoff, used for precision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OPE(_MaybeArmed):
    """The value of a policy that has not run, from the logs of one that has."""

    kind: Literal["ope"] = "ope"
    """The design."""
    shared_state: Flag = True
    """Does the policy change a queue, cache or fleet that other traffic uses?"""
    target_policy: TargetPolicy | None = None
    """The policy to be valued: {column: …}, or {rules: [{when: SQL, action: A}], else: A}."""
    policy_probability: PolicyProbability | None = None
    """Column with the target policy's probability of the logged action, a list column over actions, or a column for
    each action: {action: column}."""
    actions: Labels = ()
    """All actions; left out, those in the logs."""


Design = (
    UserRCT | RequestRCT | ClusterRCT | Switchback | Observational | DiD | SyntheticControl | IV | RDD | OPE
)  # fmt: skip

KINDS: Mapping[str, type[Design]] = {
    "user_rct": UserRCT,
    "request_rct": RequestRCT,
    "cluster_rct": ClusterRCT,
    "switchback": Switchback,
    "observational": Observational,
    "did": DiD,
    "synthetic_control": SyntheticControl,
    "iv": IV,
    "rdd": RDD,
    "ope": OPE,
}

RANDOMIZED = ("user_rct", "request_rct", "cluster_rct", "switchback")
"""Arms were drawn."""
PANELS = ("did", "synthetic_control")
"""Units over periods."""
BY_ROW = ("observational", "iv", "rdd", "ope")
"""What identifies the effect is a row's own: its action, its instrument, its distance from a cutoff, its propensity."""
