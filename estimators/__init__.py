"""Statistics: numpy arrays in, a frozen ``Estimate`` out. Nothing here knows a spec, a file or a data frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from estimators.aipw import aipw
from estimators.balance_table import Balance, balance_table
from estimators.block_regression import block_quantile, block_regression
from estimators.callaway_santanna import callaway_santanna, event_effects
from estimators.carryover import effect_since_switch, lagged_effects
from estimators.catoni import catoni
from estimators.cells import Cells
from estimators.clip_trade import Trade, clip_trade
from estimators.cluster_means import cluster_means
from estimators.cluster_robust import cluster_robust
from estimators.clustered_difference import clustered_difference
from estimators.compliers import Compliers, compliers
from estimators.confidence_sequence import confidence_sequence
from estimators.cuped import cuped
from estimators.difference_in_means import difference_in_means
from estimators.direct_method import direct_method
from estimators.dml import dml
from estimators.doubly_robust import doubly_robust
from estimators.estimate import Estimate
from estimators.evalue import EValue, evalue, evalue_of_difference
from estimators.event_effects import Effects
from estimators.event_study import event_study, event_study_effects
from estimators.exploration import Exploration, exploration
from estimators.horvitz_thompson import horvitz_thompson, leave_one_out_paths
from estimators.inference import EstimationError, minimum_detectable_effect
from estimators.ips import ips, snips
from estimators.ipw import ipw
from estimators.joint_moments import JointMoments
from estimators.leave_one_out import (
    leave_one_out_adjusted,
    leave_one_out_blocks,
    leave_one_out_cuped,
    leave_one_out_means,
    share_of_top,
)
from estimators.local_linear import local_linear
from estimators.local_ratio import local_ratio
from estimators.matches import Matches, match
from estimators.matching import matching
from estimators.median_of_means import median_of_means
from estimators.moments import Moments
from estimators.multiplicity import benjamini_hochberg, holm
from estimators.nuisances import Nuisances, nuisances
from estimators.outcome_regression import outcome_regression
from estimators.overlap import Concentration, Overlap, concentration, crump_threshold, overlap
from estimators.panel import Panel
from estimators.policy_value import UnitSums, Value, policy_value, value_of, weight_notes
from estimators.potential_means import PotentialMeans, potential_means
from estimators.power import detectable_effect, power
from estimators.pre_trend import pre_trend, slope_for_power, trend_power
from estimators.proportions import chi_square_srm
from estimators.quantiles import Histogram, quantile, quantile_effect
from estimators.randomization_blocks import leave_one_out_schedule, randomization_blocks
from estimators.randomization_inference import Assignments, randomization_inference
from estimators.rdd_bins import binned_means, fitted_curves
from estimators.rdd_checks import bandwidth_sensitivity, covariate_continuity, donut, placebo_cutoffs
from estimators.rdd_density import density_test
from estimators.regression_adjusted import regression_adjusted
from estimators.relative_magnitudes import breakdown, relative_magnitudes
from estimators.reward_model import FittedRewards, LinearRewards, fold_of
from estimators.riesz_sensitivity import RieszSensitivity, representer, riesz_sensitivity, strength_of
from estimators.sensitivity import Sensitivity, sensitivity
from estimators.sequential_srm import sequential_srm
from estimators.stratified import leave_one_out_stratified, stratified
from estimators.synthetic_control import synthetic_control
from estimators.synthetic_did import synthetic_did
from estimators.tail_index import tail_index
from estimators.trimmed import trimmed
from estimators.two_by_two import two_by_two
from estimators.two_stage_least_squares import two_stage_least_squares, wald
from estimators.value_bound import ValueBound, gain_bound, value_bound
from estimators.weight_diagnostics import WeightDiagnostics, weight_diagnostics, weight_diagnostics_from
from estimators.winsorized import winsorized

METHODS: Mapping[str, Callable[..., Estimate]] = {
    "difference_in_means": difference_in_means,
    "cuped": cuped,
    "regression_adjusted": regression_adjusted,
    "block_regression": block_regression,
    "cluster_means": cluster_means,
    "cluster_robust": cluster_robust,
    "randomization_inference": randomization_inference,
    "horvitz_thompson": horvitz_thompson,
    "aipw": aipw,
    "outcome_regression": outcome_regression,
    "ipw": ipw,
    "dml": dml,
    "callaway_santanna": callaway_santanna,
    "two_by_two": two_by_two,
    "event_study": event_study,
    "local_linear": local_linear,
    "two_stage_least_squares": two_stage_least_squares,
    "wald": wald,
    "synthetic_control": synthetic_control,
    "matching": matching,
    "synthetic_did": synthetic_did,
    "ips": ips,
    "snips": snips,
    "direct_method": direct_method,
    "doubly_robust": doubly_robust,
}

# The means that a metric may be read by instead of the plain one.
ROBUST: Mapping[str, Callable[..., Estimate]] = {
    "winsorize": winsorized,
    "trim": trimmed,
    "median_of_means": median_of_means,
    "catoni": catoni,
}

__all__ = [
    "METHODS",
    "ROBUST",
    "Assignments",
    "Balance",
    "Cells",
    "Compliers",
    "Concentration",
    "EValue",
    "Effects",
    "Estimate",
    "EstimationError",
    "Exploration",
    "FittedRewards",
    "Histogram",
    "JointMoments",
    "LinearRewards",
    "Matches",
    "Moments",
    "Nuisances",
    "Overlap",
    "Panel",
    "PotentialMeans",
    "RieszSensitivity",
    "Sensitivity",
    "Trade",
    "UnitSums",
    "Value",
    "ValueBound",
    "WeightDiagnostics",
    "aipw",
    "balance_table",
    "bandwidth_sensitivity",
    "benjamini_hochberg",
    "binned_means",
    "block_quantile",
    "block_regression",
    "breakdown",
    "callaway_santanna",
    "catoni",
    "chi_square_srm",
    "clip_trade",
    "cluster_means",
    "cluster_robust",
    "clustered_difference",
    "compliers",
    "concentration",
    "confidence_sequence",
    "covariate_continuity",
    "crump_threshold",
    "cuped",
    "density_test",
    "detectable_effect",
    "difference_in_means",
    "direct_method",
    "dml",
    "donut",
    "doubly_robust",
    "effect_since_switch",
    "evalue",
    "evalue_of_difference",
    "event_effects",
    "event_study",
    "event_study_effects",
    "exploration",
    "fitted_curves",
    "fold_of",
    "gain_bound",
    "holm",
    "horvitz_thompson",
    "ips",
    "ipw",
    "lagged_effects",
    "leave_one_out_adjusted",
    "leave_one_out_blocks",
    "leave_one_out_cuped",
    "leave_one_out_means",
    "leave_one_out_paths",
    "leave_one_out_schedule",
    "leave_one_out_stratified",
    "local_linear",
    "local_ratio",
    "match",
    "matching",
    "median_of_means",
    "minimum_detectable_effect",
    "nuisances",
    "outcome_regression",
    "overlap",
    "placebo_cutoffs",
    "policy_value",
    "potential_means",
    "power",
    "pre_trend",
    "quantile",
    "quantile_effect",
    "randomization_blocks",
    "randomization_inference",
    "regression_adjusted",
    "relative_magnitudes",
    "representer",
    "riesz_sensitivity",
    "sensitivity",
    "sequential_srm",
    "share_of_top",
    "slope_for_power",
    "snips",
    "stratified",
    "strength_of",
    "synthetic_control",
    "synthetic_did",
    "tail_index",
    "trend_power",
    "trimmed",
    "two_by_two",
    "two_stage_least_squares",
    "value_bound",
    "value_of",
    "wald",
    "weight_diagnostics",
    "weight_diagnostics_from",
    "weight_notes",
    "winsorized",
]
