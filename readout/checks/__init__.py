"""Checks of the evidence: a file a family, a function a check, each with the decision it asks for when it fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from readout.checks import (
    adjusted_balance,
    cutoff,
    donors,
    instruments,
    left_out,
    policy_weights,
    propensities,
    rollout_start,
    support,
    trends,
)  # fmt: skip
from readout.checks.assignment import arm_contamination, eligibility, exposure_time, srm, treatment_start
from readout.checks.balance import covariate_balance
from readout.checks.between_blocks import carryover
from readout.checks.block_balance import block_balance
from readout.checks.block_length import block_length
from readout.checks.capacity import capacity_limit
from readout.checks.controls import bad_controls
from readout.checks.execution import execution_divergence, fallback, mixed_experience, timeouts_and_retries
from readout.checks.identification import tail_dominance
from readout.checks.logging import completed_only, required_fields
from readout.checks.long_run import surrogate_evidence
from readout.checks.negative_control import placebo
from readout.checks.overlap import overlap, weight_concentration
from readout.checks.rollback import rollback_trigger
from readout.checks.spillover import mixed_batches, unit_of_randomization, untreated_outcomes
from readout.economics import economic_bar
from readout.evidence import Evidence
from readout.results import Check
from readout.spec.designs import RANDOMIZED

Checker = Callable[[Evidence], Check]
LOGGED: tuple[Checker, ...] = (required_fields, bad_controls, completed_only)
# Those that look at no effect of treatment: safe while an experiment runs.
DRAWN_BEFORE: tuple[Checker, ...] = (
    *LOGGED,
    srm,
    eligibility,
    exposure_time,
    treatment_start,
    arm_contamination,
    covariate_balance,
    block_balance,
    execution_divergence,
    mixed_experience,
    unit_of_randomization,
    mixed_batches,
)
DRAWN_WITH: tuple[Checker, ...] = (
    fallback,
    timeouts_and_retries,
    untreated_outcomes,
    carryover,
    block_length,
    tail_dominance,
)
# What the spec itself asks for, in every design.
ASKED: tuple[Checker, ...] = (capacity_limit, economic_bar, rollback_trigger, surrogate_evidence)
# Designs without randomization: what is seen before any effect, and what is seen with it.
OWN: Mapping[str, tuple[tuple[Checker, ...], tuple[Checker, ...]]] = {
    "observational": ((overlap, weight_concentration, adjusted_balance.covariate_balance), (placebo,)),
    "did": ((rollout_start.treatment_start,), (trends.pre_trend,)),
    "synthetic_control": ((rollout_start.treatment_start, donors.pre_period_fit), (donors.placebo,)),
    "iv": ((instruments.srm, instruments.covariate_balance, instruments.first_stage), ()),
    "rdd": (
        (cutoff.treatment_start, cutoff.density, cutoff.covariate_continuity),
        (cutoff.first_stage, cutoff.bandwidth_sensitivity, cutoff.placebo),
    ),
    "ope": (
        (support.support, propensities.propensity_calibration, policy_weights.weight_concentration),
        (left_out.left_out,),
    ),
}


def before_effects(kind: str) -> tuple[Checker, ...]:
    """The checks of a design that look at no effect of treatment."""
    return DRAWN_BEFORE if kind in RANDOMIZED else (*LOGGED, *OWN[kind][0])


def of(kind: str) -> tuple[Checker, ...]:
    """All checks of a design, in the memo's order."""
    with_effects = DRAWN_WITH if kind in RANDOMIZED else OWN[kind][1]
    return (*before_effects(kind), *with_effects, *ASKED)


__all__ = ["before_effects", "of"]
