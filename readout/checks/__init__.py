"""Checks of the evidence: a file a family, a function a check, each with the decision it asks for when it fails."""

from __future__ import annotations

from collections.abc import Callable

from readout.checks.assignment import arm_contamination, eligibility, exposure_time, srm, treatment_start
from readout.checks.balance import covariate_balance
from readout.checks.between_blocks import carryover
from readout.checks.block_balance import block_balance
from readout.checks.block_length import block_length
from readout.checks.capacity import capacity_limit
from readout.checks.execution import execution_divergence, fallback, mixed_experience, timeouts_and_retries
from readout.checks.identification import tail_dominance
from readout.checks.logging import bad_controls, completed_only, required_fields
from readout.checks.rollback import rollback_trigger
from readout.checks.spillover import mixed_batches, unit_of_randomization, untreated_outcomes
from readout.economics import economic_bar
from readout.evidence import Evidence
from readout.results import Check

# Those that look at no effect of treatment: safe while an experiment runs.
BEFORE_EFFECTS: tuple[Callable[[Evidence], Check], ...] = (
    required_fields,
    bad_controls,
    completed_only,
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
WITH_EFFECTS: tuple[Callable[[Evidence], Check], ...] = (
    fallback,
    timeouts_and_retries,
    untreated_outcomes,
    carryover,
    block_length,
    tail_dominance,
    capacity_limit,
    economic_bar,
    rollback_trigger,
)

__all__ = ["BEFORE_EFFECTS", "WITH_EFFECTS"]
